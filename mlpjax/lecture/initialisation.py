"""Checks of the section *Weight initialisation*, first part: equal units, and why weights start at random."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlpjax
from mlpjax import Batch, Config, Layer
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.heads import sigmoid_cross_entropy, sigmoid_cross_entropy_dz
from mlpjax.initializers import normal_001
from mlpjax.parameters import Params
from mlpjax.symmetry import (
    column_spread,
    equal_units,
    frozen_parameters,
    one_unit_network,
    score_after_step,
    spread_over_training,
)
from mlpjax.traces import Trace

_SIGMOID, _TANH, _RELU = (Config(sizes=(2, 3, 1), activation=g, head="binary") for g in ("sigmoid", "tanh", "relu"))
_SGD, _STEPS = optax.sgd(0.5), 50
_trace, _autodiff, _predict = jax.jit(mlpjax.trace), jax.jit(mlpjax.autodiff), jax.jit(mlpjax.predict)


def _batch() -> Batch:
    rng: Any = np.random.default_rng(0)
    x = rng.normal(size=(8, 2))
    return Batch(x, (x[:, 0] + rng.normal(size=8) > 0).astype(int))


def _start(u: float = 0.4, v: float = 0.4, out: float = 0.7) -> Params:
    return equal_units([u, v], [out], 3)


def _backward() -> tuple[Params, Trace]:
    return _start(), _trace(_TANH, _start(), (), _batch())


def init_zero_setup() -> tuple[Claim, ...]:
    """The initialiser "zeros" gives the slide's matrices, the case u = v = 0 of equal units."""
    (hidden, output), _ = mlpjax.init(Config(sizes=(2, 3, 1), head="binary", init="zeros"), jax.random.key(0))
    zero = equal_units([0, 0], [0], 3)
    return (
        equal("W[1] of the slide", hidden.W, [[0, 0, 0], [0, 0, 0]]),
        equal("W[2] of the slide", output.W, [[0], [0], [0]]),
        equal("W[1] of equal units with u = v = 0", zero[0].W, hidden.W),
    )


def init_zero_forward() -> tuple[Claim, ...]:
    """Equal columns of W[1] give equal activations, for any input; random columns do not."""
    random, _ = mlpjax.init(_TANH, jax.random.key(0))
    spreads = [
        column_spread(_trace(_TANH, params, (), _batch()).hidden[0].a.value)
        for params in (_start(0, 0, 0), _start(0.4, -0.3), random)
    ]
    return (
        agree("spread of the units of A[1], W = 0", spreads[0], 0.0, 0.0),
        agree("and with equal columns (0.4, −0.3)", spreads[1], 0.0, 1e-14),
        holds("random columns: the units differ", spreads[2] > 0.1, float(spreads[2])),
    )


def init_zero_back_dz2() -> tuple[Claim, ...]:
    """∂L/∂z[2] = a[2] − y, per example."""
    found, y = _backward()[1].output, _batch().y[:, None]
    z = found.z.value
    return (
        agree("dz[2] against a[2] − y", sigmoid_cross_entropy_dz(z, y), 1 / (1 + np.exp(-np.asarray(z))) - y),
        agree(
            "against jax.grad",
            jax.jit(jax.grad(lambda z: jnp.sum(sigmoid_cross_entropy(z, y))))(z),
            found.dz.value * len(y),
        ),
    )


def init_zero_back_dW2() -> tuple[Claim, ...]:
    """∂L/∂W[2] = a[1]ᵀ ∂L/∂z[2] has equal rows."""
    params, found = _backward()
    dW2 = found.output.dW.value
    (_, by_grad) = _autodiff(_TANH, params, (), _batch())[1]
    expected = sum(
        np.outer(a, dz) for a, dz in zip(found.hidden[0].a.value, np.asarray(found.output.dz.value), strict=True)
    )
    return (
        agree("dW[2] against the sum of outer products", dW2, expected),
        agree("against jax.grad", dW2, by_grad.W),
        agree("rows equal: spread", column_spread(dW2.T), 0.0, 1e-14),
    )


def init_zero_back_da1() -> tuple[Claim, ...]:
    """∂L/∂a[1] = ∂L/∂z[2] W[2]ᵀ has equal entries in each row."""
    params, found = _backward()
    da1 = found.hidden[0].da.value
    expected = [[float(dz) * float(w) for w in params[1].W[:, 0]] for dz in found.output.dz.value[:, 0]]
    return agree("da[1] entry by entry", da1, expected), agree("entries equal: spread", column_spread(da1), 0.0, 1e-14)


def init_zero_back_dz1() -> tuple[Claim, ...]:
    """∂L/∂z[1] = ∂L/∂z[2] (w_11[2] w_21[2] w_31[2]) ⊙ g′(z[1]) has equal entries in each row."""
    params, found = _backward()
    dz1, z1 = found.hidden[0].dz.value, np.asarray(found.hidden[0].z.value)
    expected = np.asarray(found.output.dz.value) * np.asarray(params[1].W).T / np.cosh(z1) ** 2
    return agree("dz[1] with tanh′ = 1/cosh²", dz1, expected), agree("spread", column_spread(dz1), 0.0, 1e-14)


def init_zero_back_dW1() -> tuple[Claim, ...]:
    """∂L/∂W[1] = [[u, u, u], [v, v, v]] for any start with equal columns."""
    params, found = _backward()
    dW1, dz1 = found.hidden[0].dW.value, np.asarray(found.hidden[0].dz.value)
    x = _batch().x
    by_grad = _autodiff(_TANH, params, (), _batch())[1][0].W
    return (
        agree("spread of the columns", column_spread(dW1), 0.0, 1e-14),
        agree("u and v are Σᵢ xᵢ δᵢ", dW1[:, 0], [np.sum(x[:, 0] * dz1[:, 0]), np.sum(x[:, 1] * dz1[:, 0])]),
        agree("against jax.grad", dW1, by_grad),
    )


@printed("err-zero-alpha", lambda x, w, dw, alpha: x @ dw)
def init_zero_update(score: Any = score_after_step) -> tuple[Claim, ...]:
    """The update keeps equal columns; from W[1] = 0 the next score of every unit is −α (a₁u + a₂v)."""
    batch, start = _batch(), _start(0, 0)
    found = _trace(_TANH, start, (), batch)
    (hidden, output), _ = mlpjax.apply_update(_SGD, _autodiff(_TANH, start, (), batch)[1], _SGD.init(start), start)
    z1 = _trace(_TANH, (hidden._replace(b=jnp.zeros(3)), output), (), batch).hidden[0].z.value
    u_v = found.hidden[0].dW.value[:, 0]
    after = spread_over_training(_TANH, start, batch, _SGD, _STEPS)
    adam = spread_over_training(_TANH, start, batch, optax.adam(0.05), _STEPS)
    return (
        agree("scores after one step", z1, np.tile(np.asarray(score(batch.x, jnp.zeros(2), u_v, 0.5))[:, None], 3)),
        agree("spread of W[1] in 50 steps of gradient descent", after.W1.max(), 0.0, 1e-10),
        agree("and of Adam", adam.W1.max(), 0.0, 1e-10),
        holds("W[1] did move", jnp.abs(after.params[0].W).max() > 0.1, f"{jnp.abs(after.params[0].W).max():.3g}"),
    )


def init_zero_effective_width() -> tuple[Claim, ...]:
    """A network of equal units computes what one unit with n_1 times the output weight computes."""
    trained = spread_over_training(_TANH, _start(), _batch(), _SGD, _STEPS).params
    claims = []
    for when, params in (("at the start", _start()), ("after 50 steps", trained)):
        one = one_unit_network(params)
        config = Config(sizes=(2, 1, 1), activation="tanh", head="binary")
        claims.append(agree(when, _predict(config, one, (), _batch().x), _predict(_TANH, params, (), _batch().x)))
    return (*claims, agree("output weight × 3", one_unit_network(_start())[1].W, [[2.1]]))


def init_zero_frozen() -> tuple[Claim, ...]:
    """From W[1] = W[2] = 0 tanh and ReLU only ever move b[2]; the sigmoid leaves that point at its second step."""
    batch, start, claims = _batch(), _start(0, 0, 0), []
    for config, expected in ((_TANH, "W1 b1 W2"), (_RELU, "W1 b1 W2"), (_SIGMOID, "W1 b1")):
        frozen = frozen_parameters(config, start, batch)
        claims.append(holds(f"{config.activation}: frozen at step 1", " ".join(frozen) == expected, " ".join(frozen)))
        (hidden, output) = spread_over_training(config, start, batch, _SGD, _STEPS).params
        largest = max(float(jnp.abs(layer.W).max()) for layer in (hidden, output))
        left = "W left 0" if config is _SIGMOID else "W is 0"
        claims.append(holds(f"{left} after 50 steps: largest |w|", (largest > 0) == (config is _SIGMOID), largest))
        claims.append(holds("b[2] moved", np.any(output.b), f"{output.b}"))
    return tuple(claims)


def init_random_rule() -> tuple[Claim, ...]:
    """The default start is random, and its hidden units differ all through training."""
    params, _ = mlpjax.init(_TANH, jax.random.key(0))
    found = spread_over_training(_TANH, params, _batch(), _SGD, _STEPS)
    equal_start = spread_over_training(_TANH, _start(), _batch(), _SGD, _STEPS)
    return (
        holds("least spread of W[1] in 50 steps", found.W1.min() > 0.1, float(found.W1.min())),
        agree("equal start instead", equal_start.W1.max(), 0.0, 1e-10),
    )


def init_random_001() -> tuple[Claim, ...]:
    """W = 0.01 · N(0, 1) and b = 0, with the shapes of the slide."""
    config = Config(sizes=(2, 3, 1), head="binary", init="normal_001")
    (hidden, output), _ = mlpjax.init(config, jax.random.key(0))
    W = np.asarray(normal_001(jax.random.key(1), (192, 64), jnp.float64))
    three_se = 3 / np.sqrt(2 * W.size)
    return (
        equal("shapes", [*hidden.W.shape, *output.W.shape], [2, 3, 3, 1]),
        equal("b[1] and b[2]", [*np.asarray(hidden.b), *np.asarray(output.b)], np.zeros(4)),
        agree("standard deviation of 12,288 weights, within 3 s.e.", W.std(), 0.01, three_se),
        holds("mean within 3 s.e.", abs(W.mean()) < 3 * 0.01 / np.sqrt(W.size), float(W.mean())),
    )


def init_bias_zero() -> tuple[Claim, ...]:
    """With b = 0 the units come apart as soon as W is random; a random b alone parts them too, if W[2] is not 0."""
    random, _ = mlpjax.init(_TANH, jax.random.key(0))
    spread = column_spread(_trace(_TANH, random, (), _batch()).hidden[0].dW.value)
    hidden, output = _start()
    by_bias = (Layer(hidden.W, jnp.array([-0.5, 0.0, 0.5])), output)
    return (
        equal("b of the default start", random[0].b, np.zeros(3)),
        holds("spread of dW[1], random W", spread > 0.01, float(spread)),
        agree("spread of dW[1], equal W and b = 0", column_spread(_backward()[1].hidden[0].dW.value), 0.0, 1e-14),
        holds(
            "spread of dW[1], equal W and unequal b",
            (other := column_spread(_trace(_TANH, by_bias, (), _batch()).hidden[0].dW.value)) > 0.001,
            float(other),
        ),
    )
