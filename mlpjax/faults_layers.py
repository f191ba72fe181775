"""Faults of batch-norm and of dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax import passes
from mlpjax.config import Config
from mlpjax.faults_record import Exercise, Fault, both, dropping, in_training, network, normalised, row, weighted
from mlpjax.layers import (
    BATCH_NORM_EPS,
    BATCH_NORM_FORMS,
    BatchNormCache,
    DropoutCache,
    batch_norm_backward,
    dropout_forward,
)
from mlpjax.parameters import Params
from mlpjax.passes import RULES, HiddenCache, Pass

KERAS_EPS = BATCH_NORM_FORMS["keras"].eps
Norm = tuple[jax.Array, jax.Array, jax.Array]


def _norm(
    mean: float = 1,
    var: float = 1,
    gamma: bool = True,
    inv_std: Callable[[jax.Array], jax.Array] = lambda inv_std: inv_std,
) -> dict[str, Any]:
    """The formula of dz with its mean term or variance term weighted, without γ, or with another 1/√(σ² + ε)."""

    def rule(dout: jax.Array, cache: BatchNormCache) -> Norm:
        zhat = cache.zhat
        _, dgamma, dbeta = batch_norm_backward(dout, cache)
        dzhat = dout * row(cache.gamma) if gamma else dout
        if cache.p is not None:
            sums = mean * row(jnp.sum(dzhat, axis=0)) + var * zhat * row(jnp.sum(dzhat * zhat, axis=0))
            dzhat = dzhat - cache.p[:, None] * sums
        return dzhat * row(inv_std(cache.inv_std)), dgamma, dbeta

    return {"rules": RULES._replace(batch_norm=rule)}


def _result(change: Callable[[Norm, jax.Array, BatchNormCache], Norm]) -> dict[str, Any]:
    """The right formula with a change of ``(dz, dγ, dβ)``."""

    def rule(dout: jax.Array, cache: BatchNormCache) -> Norm:
        return change(batch_norm_backward(dout, cache), dout, cache)

    return {"rules": RULES._replace(batch_norm=rule)}


def _other_eps(inv_std: jax.Array) -> jax.Array:
    return 1 / jnp.sqrt(1 / inv_std**2 - BATCH_NORM_EPS + KERAS_EPS)


def _unbiased(dout: jax.Array, cache: BatchNormCache) -> Norm:
    m = len(dout)
    var = (1 / cache.inv_std**2 - BATCH_NORM_EPS) * m / max(m - 1, 1)
    inv_std = 1 / jnp.sqrt(var + BATCH_NORM_EPS)
    zhat = cache.zhat * row(inv_std / cache.inv_std)
    return batch_norm_backward(dout, cache._replace(zhat=zhat, inv_std=inv_std))


def _rows_alike(dout: jax.Array, cache: BatchNormCache) -> Norm:
    p = None if cache.p is None else jnp.full_like(cache.p, 1 / len(dout))
    return batch_norm_backward(dout, cache._replace(p=p))


def _in_layers(change: Callable[[Config, Pass, int, HiddenCache], HiddenCache]) -> dict[str, Any]:
    """What the hidden layers remember, changed one by one: ``change(config, pass, l, remembered)``."""

    def before(config: Config, params: Params, this: Pass) -> Pass:
        layers = tuple(change(config, this, l, one) for l, one in enumerate(this.cache.hidden, start=1))
        return this._replace(cache=this.cache._replace(hidden=layers))

    return {"before": before}


def _as_in_training(config: Config, this: Pass, l: int, one: HiddenCache) -> HiddenCache:
    return one if one.norm is None else one._replace(norm=one.norm._replace(p=this.p))


def _evaluated(config: Config, params: Params, this: Pass) -> Pass:
    x = (this.cache.hidden[0].affine if this.cache.hidden else this.cache.output).x
    z, _, cache = passes.run_forward(config, params, this.state, x, this.p, this.weight_sum, False, None)
    return this._replace(z=z, cache=cache)


def _drawn_again(config: Config, this: Pass, l: int, one: HiddenCache) -> HiddenCache:
    if one.dropout is None:
        return one
    _, cache = dropout_forward(jnp.ones_like(one.dropout.mask), config.dropout_rate(l), jax.random.key(l))
    return one._replace(dropout=cache)


def _mask(change: Callable[[jax.Array, jax.Array], jax.Array]) -> dict[str, Any]:
    """Another factor of dA: ``change(mask, scale)`` with scale = 1/(1 − rate), of the units that were kept."""

    def rule(da: jax.Array, cache: DropoutCache) -> jax.Array:
        return da * change(cache.mask, jnp.max(cache.mask))

    return {"rules": RULES._replace(dropout=rule)}


def _can_switch(config: Config, weighted: bool, train: bool) -> bool:
    """In training, with layers that then act in another way, and the input as it was given."""
    return (
        train
        and config.dropout_rate(0) is None
        and (normalised(config, weighted, train) or dropping(config, weighted, train))
    )


NORMED = Exercise(network(batch_norm=True))
TRAINED = both(normalised, in_training)
DROPPED = Exercise(network(dropout=0.3))

LAYER_FAULTS = (
    Fault(
        "batch-norm-without-mean-term", "μ is taken as a constant: its term is left out",
        "dz = (dẑ − p Σ dẑ − p ẑ ⊙ Σ dẑ ⊙ ẑ)/√(σ² + ε)", "norm-bn-grad-z", NORMED, TRAINED, **_norm(mean=0),
    ),
    Fault(
        "batch-norm-without-variance-term", "σ² is taken as a constant: its term is left out",
        "dz = (dẑ − p Σ dẑ − p ẑ ⊙ Σ dẑ ⊙ ẑ)/√(σ² + ε)", "norm-bn-grad-z", NORMED, TRAINED, **_norm(var=0),
    ),
    Fault(
        "batch-norm-statistics-constant", "μ and σ² are taken as constants, as in evaluation",
        "dz = (dẑ − p Σ dẑ − p ẑ ⊙ Σ dẑ ⊙ ẑ)/√(σ² + ε)", "norm-bn-coupling",
        NORMED, TRAINED, **_norm(mean=0, var=0),
    ),
    Fault(
        "batch-norm-variance-term-twice", "the ½ of the square root's derivative is forgotten",
        "dz = (dẑ − p Σ dẑ − p ẑ ⊙ Σ dẑ ⊙ ẑ)/√(σ² + ε)", "err-bn-grads", NORMED, TRAINED, **_norm(var=2),
    ),
    Fault(
        "batch-norm-ddof-1", "backward uses the variance with m − 1",
        "σ² = Σ pᵢ(zᵢ − μ)², as in the forward pass", "norm-bn-var",
        NORMED, TRAINED, RULES._replace(batch_norm=_unbiased),
    ),
    Fault(
        "batch-norm-weights-ignored", "the batch's sums are plain means, as without weights",
        "dz = (dẑ − p Σ dẑ − p ẑ ⊙ Σ dẑ ⊙ ẑ)/√(σ² + ε)", "norm-bn-mean",
        NORMED._replace(weight="given"), both(TRAINED, weighted), RULES._replace(batch_norm=_rows_alike),
    ),
    Fault(
        "batch-norm-gamma-forgotten", "dẑ = dz̃: γ is left out",
        "dẑ = dz̃ ⊙ γ", "norm-bn-rescale", NORMED, normalised, **_norm(gamma=False),
    ),
    Fault(
        "batch-norm-std-forgotten", "dz is not divided by √(σ² + ε)",
        "dz = (…)/√(σ² + ε)", "norm-bn-normalise", NORMED, normalised, **_norm(inv_std=jnp.ones_like),
    ),
    Fault(
        "batch-norm-variance-for-std", "dz is divided by σ² + ε, the root forgotten",
        "dz = (…)/√(σ² + ε)", "err-bn-gamma", NORMED, normalised, **_norm(inv_std=jnp.square),
    ),
    Fault(
        "batch-norm-other-eps", f"backward has the ε = {KERAS_EPS:g} of another framework",
        f"ε = {BATCH_NORM_EPS:g}, as in the forward pass", "err-bn-eps",
        NORMED, normalised, **_norm(inv_std=_other_eps),
    ),
    Fault(
        "batch-norm-dgamma-not-divided", "dγ uses z − μ, not yet divided by √(σ² + ε)",
        "dγ = Σᵢ dz̃ᵢ ⊙ ẑᵢ", "norm-bn-grad-gamma",
        NORMED, normalised, **_result(lambda out, dout, cache: (out[0], out[1] / cache.inv_std, out[2])),
    ),
    Fault(
        "batch-norm-dgamma-of-dzhat", "dγ uses dẑ, which has γ in it, instead of dz̃",
        "dγ = Σᵢ dz̃ᵢ ⊙ ẑᵢ", "norm-bn-grad-gamma",
        NORMED, normalised, **_result(lambda out, dout, cache: (out[0], out[1] * cache.gamma, out[2])),
    ),
    Fault(
        "batch-norm-dbeta-averaged", "dβ is the mean of the rows of dz̃, which already has the 1/m",
        "dβ = Σᵢ dz̃ᵢ", "norm-bn-grad-beta",
        NORMED, normalised, **_result(lambda out, dout, cache: (out[0], out[1], out[2] / len(dout))),
    ),
    Fault(
        "batch-norm-dgamma-dbeta-swapped", "dγ and dβ are returned in the wrong order",
        "dγ = Σᵢ dz̃ᵢ ⊙ ẑᵢ, dβ = Σᵢ dz̃ᵢ", "norm-bn-update",
        NORMED, normalised, **_result(lambda out, dout, cache: (out[0], out[2], out[1])),
    ),
    Fault(
        "batch-norm-frozen", "γ and β get no gradient",
        "dγ = Σᵢ dz̃ᵢ ⊙ ẑᵢ, dβ = Σᵢ dz̃ᵢ", "norm-bn-params",
        NORMED, normalised, **_result(lambda out, dout, cache: (out[0], 0 * out[1], 0 * out[2])),
    ),
    Fault(
        "batch-norm-training-formula", "in evaluation the running statistics are differentiated as a batch's",
        "dz = dẑ/√(σ̄² + ε)", "norm-bn-inference",
        NORMED._replace(train=False), lambda config, weighted, train: normalised(config, weighted, train) and not train,
        **_in_layers(_as_in_training),
    ),
    Fault(
        "dropout-mask-drawn-again", "backward draws a mask of its own",
        "dA ⊙ M/(1 − rate), with the mask of the forward pass", "reg-dropout-backward",
        DROPPED, dropping, **_in_layers(_drawn_again),
    ),
    Fault(
        "dropout-mask-forgotten", "dA passes as if nothing had been dropped",
        "dA ⊙ M/(1 − rate)", "reg-dropout-backward",
        DROPPED, dropping, **_mask(lambda mask, scale: jnp.ones_like(mask)),
    ),
    Fault(
        "dropout-scale-without-mask", "dA is rescaled, but the mask forgotten",
        "dA ⊙ M/(1 − rate)", "reg-dropout-backward",
        DROPPED, dropping, **_mask(lambda mask, scale: jnp.full_like(mask, 1) * scale),
    ),
    Fault(
        "dropout-not-rescaled", "dA ⊙ M, without the 1/(1 − rate) of the forward pass",
        "dA ⊙ M/(1 − rate)", "reg-dropout-inverted",
        DROPPED, dropping, **_mask(lambda mask, scale: (mask > 0).astype(mask.dtype)),
    ),
    Fault(
        "dropout-rescaled-twice", "dA ⊙ M/(1 − rate)²",
        "dA ⊙ M/(1 − rate)", "err-dropout-scale", DROPPED, dropping, **_mask(lambda mask, scale: mask * mask),
    ),
    Fault(
        "dropout-scaled-the-wrong-way", "dA ⊙ M (1 − rate)",
        "dA ⊙ M/(1 − rate)", "err-dropout-scale", DROPPED, dropping, **_mask(lambda mask, scale: mask / scale**2),
    ),
    Fault(
        "dropout-mask-inverted", "the gradient flows through the units that were dropped",
        "dA ⊙ M/(1 − rate)", "err-dropout-p", DROPPED, dropping, **_mask(lambda mask, scale: scale - mask),
    ),
    Fault(
        "dropout-mask-of-first-row", "every row uses the mask of the first",
        "dA ⊙ M/(1 − rate), a mask for each example", "reg-dropout-per-example",
        DROPPED, dropping, **_mask(lambda mask, scale: jnp.broadcast_to(mask[:1], mask.shape)),
    ),
    Fault(
        "evaluation-gradient", "the gradient is taken in evaluation mode: nothing dropped, running statistics",
        "the gradient of the J that training computes", "reg-dropout-test",
        Exercise(network(batch_norm=True, dropout=0.3)), _can_switch, before=_evaluated,
    ),
)  # fmt: skip
