"""Checks of the section *Regularisation*, third part: dropout."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax import Batch, Config, Layer
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.dropout_ensemble import (
    adaptive_l2,
    all_masks,
    dropout_ridge,
    ensemble_mean,
    logistic_ensemble,
    mask_probabilities,
    original_dropout,
    original_inference,
)
from mlpjax.layers import DropoutCache, dropout_backward, dropout_forward
from mlpjax.parameters import Params
from mlpjax.passes import run_pass

_CONFIG = Config(sizes=(3, 6, 2), activation="tanh", head="regression", dropout=0.5)
_trace, _forward = jax.jit(mlpjax.trace), jax.jit(mlpjax.forward, static_argnames="train")


def _key() -> jax.Array:
    return jax.random.key(0)


def _batch(m: int = 8) -> Batch:
    rng: Any = np.random.default_rng(0)
    return Batch(rng.normal(size=(m, 3)), rng.normal(size=(m, 2)))


def _params() -> Params:
    rng: Any = np.random.default_rng(1)
    shapes = (((3, 6), 6), ((6, 2), 2))
    return tuple(Layer(jnp.asarray(rng.normal(size=W)), jnp.asarray(rng.normal(size=b))) for W, b in shapes)


def _three_se(rate: float, n: int) -> float:
    return 3 * float(np.sqrt(rate * (1 - rate) / n))


def reg_dropout_train() -> tuple[Claim, ...]:
    """In training each unit of each example is turned off with probability p: A ⊙ M, scaled."""
    rng: Any = np.random.default_rng(0)
    a, claims = rng.normal(size=(400, 20)), []
    for rate in (0.5, 0.2):
        out, _ = dropout_forward(a, rate, _key())
        off = np.mean(np.asarray(out) == 0)
        claims.append(holds(f"part turned off, p = {rate}", abs(off - rate) < _three_se(rate, a.size), float(off)))
        kept = np.asarray(out) != 0
        claims.append(agree("what is kept", np.asarray(out)[kept], a[kept] / (1 - rate)))
    return tuple(claims)


def reg_dropout_default() -> tuple[Claim, ...]:
    """The lecture's p = 0.5 is for hidden units, not the input; only under it are all masks equally likely."""
    half, fifth = (mask_probabilities(all_masks(6), rate) for rate in (0.5, 0.2))
    deeper = Config(sizes=(3, 6, 4, 2), dropout=0.5)
    return (
        equal("rates of input, hidden 1, hidden 2", [deeper.dropout_rate(l) or 0.0 for l in range(3)], [0.0, 0.5, 0.5]),
        agree("p = 0.5: every mask of 6 units", half, np.full(64, 2.0**-6)),
        holds(
            "p = 0.2: likeliest over least likely", fifth.max() > 1000 * fifth.min(), float(fifth.max() / fifth.min())
        ),
    )


def reg_dropout_connections() -> tuple[Claim, ...]:
    """To drop unit j of an example is to delete column j of W[1] and row j of W[2] for that example."""
    batch, params = _batch(), _params()
    found = _trace(_CONFIG, params, (), batch, _key())
    (W1, b1), (W2, b2) = ((np.asarray(layer.W), np.asarray(layer.b)) for layer in params)
    keep = np.asarray(found.hidden[0].mask.value) > 0
    z = [np.tanh(x @ W1[:, on] + b1[on]) @ W2[on] / 0.5 + b2 for x, on in zip(batch.x, keep, strict=True)]
    # the first example's own part of dW1 and dW2
    dW1 = np.outer(batch.x[0], found.hidden[0].dz.value[0])
    dW2 = np.outer(found.output.a_in.value[0], found.output.dz.value[0])
    return (
        agree("scores against the smaller networks", found.output.z.value, z),
        equal("rows of dW[2] that are 0, one example", np.all(dW2 == 0, axis=1), ~keep[0]),
        equal("columns of dW[1] that are 0", np.all(dW1 == 0, axis=0), ~keep[0]),
    )


def reg_dropout_per_example() -> tuple[Claim, ...]:
    """Each example has a mask of its own, and the key decides it."""
    a = jnp.ones((400, 20))
    masks = [np.asarray(dropout_forward(a, 0.5, jax.random.key(seed))[1].mask) for seed in (0, 0, 1)]
    return (
        holds("different rows of the mask, of 400", (rows := len(np.unique(masks[0], axis=0))) > 390, rows),
        equal("the same key", masks[1], masks[0]),
        holds("another key", np.any(masks[2] != masks[0]), int(np.sum(masks[2] != masks[0]))),
    )


def reg_dropout_per_layer() -> tuple[Claim, ...]:
    """Each layer may have a rate of its own, the input too."""
    config = Config(sizes=(3, 6, 6, 2), activation="tanh", head="regression", dropout=(0.1, 0.6, 0.3))
    params = (_params()[0], Layer(jnp.eye(6), jnp.zeros(6)), _params()[1])
    cache = jax.jit(run_pass, static_argnums=4)(config, params, (), _batch(400), True, _key()).cache
    masks = [cache.input_dropout.mask, *(hidden.dropout.mask for hidden in cache.hidden)]
    off = [float(np.mean(np.asarray(mask) == 0)) for mask in masks]
    return tuple(
        holds(f"{where}: p = {rate}", abs(part - rate) < _three_se(rate, mask.size), part)
        for where, rate, part, mask in zip(("input", "hidden 1", "hidden 2"), (0.1, 0.6, 0.3), off, masks, strict=True)
    )


def reg_dropout_test() -> tuple[Claim, ...]:
    """When predicting nothing is dropped: the network is the one without dropout, bit for bit."""
    batch, params = _batch(), _params()
    z, _ = _forward(_CONFIG, params, (), batch.x)
    plain = Config(sizes=(3, 6, 2), activation="tanh", head="regression")
    trained = _trace(_CONFIG, params, (), batch, _key()).output.z.value
    return (
        equal("train=False", z, _forward(plain, params, (), batch.x)[0]),
        holds("train=True differs", np.abs(trained - z).max() > 0.1, float(np.abs(trained - z).max())),
    )


def _unscaled(a: Any, rate: float, key: jax.Array) -> jax.Array:
    return original_dropout(a, dropout_forward(a, rate, key)[1].mask > 0)


@printed("err-dropout-scale", _unscaled)
def reg_dropout_inverted(train: Any = lambda a, rate, key: dropout_forward(a, rate, key)[0]) -> tuple[Claim, ...]:
    """Training scales what is kept by 1/(1 − p), or prediction scales by 1 − p: the means then agree."""
    rate, claims = 0.2, []
    a: Any = np.random.default_rng(0).uniform(1, 2, 20)
    drawn = np.asarray(train(np.tile(a, (400, 1)), rate, _key())).mean(axis=0)
    claims.append(
        agree("mean of 400 draws, within 3 s.e.", drawn / a, np.ones(20), 3 * np.sqrt(rate / (1 - rate) / 400))
    )
    W: Any = np.random.default_rng(1).normal(size=(6, 2))
    claims.append(agree("all 2⁶ masks, linear layer", ensemble_mean(lambda rows: rows @ W, a[:6], rate), a[:6] @ W))
    masks: Any = all_masks(6)
    mean = mask_probabilities(masks, rate) @ original_dropout(a[None, :6], masks)
    return (*claims, agree("the original form, all masks", original_inference(a[:6], rate), mean))


def reg_dropout_backward() -> tuple[Claim, ...]:
    """dA of the layer before is dA ⊙ M/(1 − p), with the mask of the forward pass."""
    rng: Any = np.random.default_rng(0)
    a, da = rng.normal(size=(400, 20)), rng.normal(size=(400, 20))
    _, cache = dropout_forward(a, 0.3, _key())
    by_grad = jax.grad(lambda a: jnp.sum(da * dropout_forward(a, 0.3, _key())[0]))(a)
    given = dropout_backward(da[:1, :2], DropoutCache(jnp.array([[1 / 0.7, 0.0]])))
    return (
        agree("against jax.grad, same key", dropout_backward(da, cache), by_grad),
        agree("with a mask given", given, [[da[0, 0] / 0.7, 0.0]]),
    )


def reg_dropout_ensemble() -> tuple[Claim, ...]:
    """2ⁿ sub-networks at once: scaled weights are their normalised geometric mean, exactly, for a logistic unit."""
    rng: Any = np.random.default_rng(0)
    a, w, b, claims = rng.normal(size=6), 2 * rng.normal(size=6), -2.0, []
    for rate in (0.5, 0.2):
        found = logistic_ensemble(a, w, b, rate)
        masks = all_masks(6)
        p, yhat = mask_probabilities(masks, rate), 1 / (1 + np.exp(-((a * masks) @ w + b)))
        G, G_other = np.prod(yhat**p), np.prod((1 - yhat) ** p)
        claims.append(agree(f"p = {rate}: geometric mean, by products", found.geometric, G / (G + G_other)))
        claims.append(agree("weights × (1 − p)", found.scaled, G / (G + G_other)))
        claims.append(agree("arithmetic mean, by the sum", found.arithmetic, p @ yhat))
        gap = abs(float(found.arithmetic - found.scaled))
        claims.append(holds("which is another number", gap > 0.005, f"{found.arithmetic:.3f}, {found.scaled:.3f}"))
    W = rng.normal(size=(6, 3))
    deep = np.asarray(ensemble_mean(lambda rows: jnp.tanh(rows @ W), a, 0.5)) - np.tanh(a @ W)
    return (
        *claims,
        holds("through tanh: the scaling is approximate", np.abs(deep).max() > 0.01, float(np.abs(deep).max())),
    )


def _descend(X: Any, y: Any, rate: float) -> np.ndarray:
    """Gradient descent on the mean over all masks of ½(y − (x ⊙ M/(1 − p)) w)², from unequal weights."""

    def each(x: jax.Array, t: jax.Array, w: jax.Array) -> jax.Array:
        return ensemble_mean(lambda rows: (t - rows @ w) ** 2 / 2, x, rate)

    def cost(w: jax.Array) -> jax.Array:
        return jnp.mean(jax.vmap(each, (0, 0, None))(X, y, w))

    step = jax.jit(lambda w: w - 0.2 * jax.grad(cost)(w))
    w = jnp.array([2.0, 0.0, 0.0])
    for _ in range(200):
        w = step(w)
    return np.asarray(w)


def reg_dropout_coadapt() -> tuple[Claim, ...]:
    """A network cannot rely on one of two copies of a feature: dropout shares the weight between them."""
    rng: Any = np.random.default_rng(0)
    x = rng.normal(size=(6, 2))
    X = jnp.column_stack([x[:, 0], x])
    y = X @ jnp.array([1.0, 0.5, -1.0])
    without, with_dropout = _descend(X, y, 0.0), _descend(X, y, 0.5)
    return (
        holds(
            "without: weights of the copies stay apart",
            without[0] - without[1] > 1.9,
            f"{without[0]:.2f}, {without[1]:.2f}",
        ),
        agree("p = 0.5: the copies' weights", with_dropout[0], with_dropout[1], 1e-6),
        agree("where it ends", with_dropout, dropout_ridge(X, y, 0.5), 1e-6),
    )


def reg_dropout_l2() -> tuple[Claim, ...]:
    """For a linear model dropout is ½(y − xw)² + ½ (p/(1 − p)) Σ x_j²w_j²: L2 that follows the data."""
    rng: Any = np.random.default_rng(0)
    x, w, y, claims = rng.normal(size=6), rng.normal(size=6), 0.7, []
    for rate in (0.5, 0.2):
        mean = ensemble_mean(lambda rows: (y - rows @ w) ** 2 / 2, x, rate)
        claims.append(agree(f"p = {rate}", (y - x @ w) ** 2 / 2 + adaptive_l2(x[None, :], w, rate), mean))

    def loss(z: Any) -> Any:
        return np.logaddexp(0, z) - y * z

    parts = []
    for small in (0.5 * x, 0.05 * x):
        yhat = 1 / (1 + np.exp(-small @ w))
        added = ensemble_mean(lambda rows: loss(rows @ w), small, 0.5) - loss(small @ w)
        parts.append(float(added / adaptive_l2(small[None, :], w, 0.5, jnp.array([yhat * (1 - yhat)]))))
    closer = abs(parts[1] - 1) < 1e-3 < abs(parts[0] - 1)
    return (*claims, holds("logistic: added/predicted, small and smaller x", closer, f"{parts[0]:.4f}, {parts[1]:.4f}"))


def reg_dropout_effect() -> tuple[Claim, ...]:
    """Dropout regularises: the more of it, the smaller the gap between training and test error."""
    gaps = []
    for seed in range(7):
        rng: Any = np.random.default_rng(seed)
        X, new, w = rng.normal(size=(30, 20)), rng.normal(size=(500, 20)), rng.normal(size=20)
        noise, noise_new = 2 * rng.normal(size=30), 2 * rng.normal(size=500)
        fits = [np.asarray(dropout_ridge(X, X @ w + noise, rate)) for rate in (0.0, 0.2, 0.5)]
        test = [np.mean((new @ (fit - w) - noise_new) ** 2) for fit in fits]
        gaps.append([error - np.mean((X @ (fit - w) - noise) ** 2) for error, fit in zip(test, fits, strict=True)])
    median = np.median(gaps, axis=0)
    return (
        holds(
            "gap for p = 0, 0.2, 0.5: median of 7 sets",
            np.all(np.diff(median) < 0),
            ", ".join(f"{gap:.2f}" for gap in median),
        ),
    )
