"""Faults of the affine layer: dX = dZ Wᵀ, dW = Xᵀ dZ, db = Σᵢ dzᵢ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax import passes
from mlpjax.activations import ACTIVATIONS
from mlpjax.config import Config
from mlpjax.faults_record import (
    LEARNING_RATE,
    SQUARES,
    TANH,
    Exercise,
    Fault,
    biased,
    biased_hidden,
    both,
    dropping,
    hidden,
    network,
)
from mlpjax.layers import AffineCache, affine_backward
from mlpjax.parameters import Layer, Params
from mlpjax.passes import RULES, Cache, Pass

Products = tuple[jax.Array, jax.Array, jax.Array]


def _affine(wrong: Callable[[Products, jax.Array, AffineCache], Products]) -> dict[str, Any]:
    """The rule of the layer with a change of ``(dX, dW, db)``."""

    def rule(dz: jax.Array, cache: AffineCache, compute_dtype: str | None) -> Products:
        return wrong(affine_backward(dz, cache, compute_dtype), dz, cache)

    return {"rules": RULES._replace(affine=rule)}


def _affine_caches(cache: Cache) -> list[AffineCache]:
    """The caches of layers 1 … L."""
    return [*(one.affine for one in cache.hidden), cache.output]


def _remembering(change: Callable[[Config, Cache, list[AffineCache]], list[AffineCache]]) -> dict[str, Any]:
    """Other X and W remembered by the layers."""

    def before(config: Config, params: Params, this: Pass) -> Pass:
        *inner, output = change(config, this.cache, _affine_caches(this.cache))
        layers = tuple(one._replace(affine=affine) for one, affine in zip(this.cache.hidden, inner, strict=True))
        return this._replace(cache=this.cache._replace(hidden=layers, output=output))

    return {"before": before}


def _W_from(offset: int) -> Callable[[Config, Cache, list[AffineCache]], list[AffineCache]]:
    """Every W that another layer's fits in place of is that one's."""

    def change(config: Config, cache: Cache, layers: list[AffineCache]) -> list[AffineCache]:
        result = layers[:1]
        for k, own in enumerate(layers[1:], start=1):
            other = layers[k + offset] if k + offset < len(layers) else own
            result.append(own._replace(W=other.W) if other.W.shape == own.W.shape else own)
        return result

    return change


def _W_fits(offset: int) -> Callable[[Config, bool, bool], bool]:
    def needs(config: Config, weighted: bool, train: bool) -> bool:
        shapes = list(zip(config.sizes[:-1], config.sizes[1:], strict=True))
        return any(0 <= k + offset < len(shapes) and shapes[k] == shapes[k + offset] for k in range(1, len(shapes)))

    return needs


def _X_from(x: Callable[[Config, Cache, int], jax.Array | None]) -> dict[str, Any]:
    """dW of layers 2 … L with other inputs ``x(config, cache, l)``, for ``None`` the right ones."""

    def change(config: Config, cache: Cache, layers: list[AffineCache]) -> list[AffineCache]:
        others = [None, *(x(config, cache, l) for l in range(2, config.depth + 1))]
        return [one if other is None else one._replace(x=other) for one, other in zip(layers, others, strict=True)]

    return _remembering(change)


def _undropped(config: Config, cache: Cache, l: int) -> jax.Array:
    below = cache.hidden[l - 2]
    if below.dropout is None or config.activations[l - 2] == "prelu":
        # the input as it was used; PReLU's would need its slope
        return _affine_caches(cache)[l - 1].x
    return ACTIVATIONS[config.activations[l - 2]].f(below.z)


def _first_input(config: Config, cache: Cache, l: int) -> jax.Array | None:
    return _affine_caches(cache)[0].x if config.sizes[l - 1] == config.sizes[0] else None


def _cut(config: Config, cache: Cache, layers: list[AffineCache]) -> list[AffineCache]:
    return [layers[0], layers[1]._replace(W=jnp.zeros_like(layers[1].W)), *layers[2:]]


def _next_delta(config: Config, params: Params, this: Pass, grads: Params) -> Params:
    found = passes.run_backward(config, params, this, RULES)
    dz = [*(deltas.dz for deltas in found.hidden), found.dz_output]
    result = []
    for own, after, cache, grad in zip(dz[:-1], dz[1:], _affine_caches(this.cache)[:-1], grads[:-1], strict=True):
        if own.shape == after.shape:
            b = None if grad.b is None else jnp.sum(after, axis=0)
            grad = grad._replace(W=grad.W + cache.x.T @ (after - own), b=b)
        result.append(grad)
    return (*result, grads[-1])


def _of_b(l: int | None, change: Callable[[jax.Array, int], jax.Array]) -> dict[str, Any]:
    """The finished db of one layer (0 the first, −1 the last), or of all, changed; ``change(db, m)``."""

    def after(config: Config, params: Params, this: Pass, grads: Params) -> Params:
        chosen = range(len(grads)) if l is None else (l % len(grads),)
        return tuple(_with_b(grad, change, len(this.p)) if k in chosen else grad for k, grad in enumerate(grads))

    return {"after": after}


def _with_b(grad: Layer, change: Callable[[jax.Array, int], jax.Array], m: int) -> Layer:
    return grad if grad.b is None else grad._replace(b=change(grad.b, m))


def _wide(config: Config, weighted: bool, train: bool) -> bool:
    return any(min(pair) > 1 for pair in zip(config.sizes[:-1], config.sizes[1:], strict=True))


def _wide_inside(config: Config, weighted: bool, train: bool) -> bool:
    return any(min(pair) > 1 for pair in zip(config.sizes[1:-1], config.sizes[2:], strict=True))


def _equal_neighbours(config: Config, weighted: bool, train: bool) -> bool:
    return any(n == n_next for n, n_next in zip(config.sizes[1:-1], config.sizes[2:], strict=True))


def _width_returns(config: Config, weighted: bool, train: bool) -> bool:
    return config.sizes[0] in config.sizes[1:-1]


def _curved(config: Config, weighted: bool, train: bool) -> bool:
    return any(name != "identity" for name in config.activations)


def _hidden_wide(config: Config, weighted: bool, train: bool) -> bool:
    return max(config.sizes[1:-1], default=0) > 1


def _drops_what_it_can_restore(config: Config, weighted: bool, train: bool) -> bool:
    return any(
        name != "prelu" and config.dropout_rate(l) is not None for l, name in enumerate(config.activations, start=1)
    )


AFFINE_FAULTS = (
    Fault(
        "W-not-transposed", "W is reshaped to the shape of Wᵀ instead of transposed; at equal widths dA = dZ W",
        "dA[l−1] = dZ[l] W[l]ᵀ", "deep-back-dAprev",
        TANH, _wide_inside,
        **_affine(lambda out, dz, cache: (dz @ cache.W.reshape(cache.W.shape[::-1]), *out[1:])),
    ),
    Fault(
        "W-of-layer-above", "dA is taken through W[l+1], an index too high",
        "dA[l−1] = dZ[l] W[l]ᵀ", "deep-back-dAprev",
        SQUARES, _W_fits(1), **_remembering(_W_from(1)),
    ),
    Fault(
        "W-of-layer-below", "dA is taken through W[l−1], an index too low",
        "dA[l−1] = dZ[l] W[l]ᵀ", "err-missing-layer-index",
        SQUARES, _W_fits(-1), **_remembering(_W_from(-1)),
    ),
    Fault(
        "W-forgotten", "at equal widths dZ is handed down as it is, without W",
        "dA[l−1] = dZ[l] W[l]ᵀ", "deep-back-dZ-recursion",
        SQUARES, _equal_neighbours,
        **_affine(lambda out, dz, cache: (dz if dz.shape == out[0].shape else out[0], *out[1:])),
    ),
    Fault(
        "W-updated-first", f"each W takes its step, of rate {LEARNING_RATE}, before dA is taken through it",
        "all of the backward pass, then the update", "deep-update",
        TANH, hidden,
        **_affine(lambda out, dz, cache: (dz @ (cache.W - LEARNING_RATE * out[1]).T, *out[1:])),
    ),
    Fault(
        "first-layer-detached", "the activations of layer 1 are cut off from the graph, so that it learns nothing",
        "dA[1] = dZ[2] W[2]ᵀ", "graph-backward-topo",
        TANH, hidden, **_remembering(_cut),
    ),
    Fault(
        "dW-not-transposed", "dZᵀ X is reshaped to the shape of W; at equal widths dW is transposed",
        "dW[l] = A[l−1]ᵀ dZ[l]", "deep-back-dW",
        TANH, _wide,
        **_affine(lambda out, dz, cache: (out[0], (dz.T @ cache.x).reshape(cache.W.shape), out[2])),
    ),
    Fault(
        "dW-from-z", "dW uses the pre-activations of the layer below",
        "dW[l] = A[l−1]ᵀ dZ[l]", "deep-cache",
        TANH, _curved, **_X_from(lambda config, cache, l: cache.hidden[l - 2].z),
    ),
    Fault(
        "dW-from-X", "dW of a later layer uses the network's input where the widths allow it",
        "dW[l] = A[l−1]ᵀ dZ[l]", "deep-back-dW",
        SQUARES, _width_returns, **_X_from(_first_input),
    ),
    Fault(
        "dW-from-undropped-a", "dW uses the activations as they were before dropout",
        "dW[l] = (A[l−1] ⊙ M/(1 − rate))ᵀ dZ[l]", "reg-dropout-connections",
        Exercise(network(dropout=0.3)), both(dropping, _drops_what_it_can_restore), **_X_from(_undropped),
    ),
    Fault(
        "delta-of-next-layer", "dW[l] and db[l] use dZ[l+1] where the widths allow it",
        "dW[l] = A[l−1]ᵀ dZ[l], db[l] = Σᵢ dzᵢ[l]", "err-v2-repeat",
        SQUARES, _equal_neighbours, after=_next_delta,
    ),
    Fault(
        "dW-averaged", "dW alone has another 1/m",
        "dW = Xᵀ dZ, where dZ has the 1/m", "deep-scale-m",
        TANH, biased, **_affine(lambda out, dz, cache: (out[0], out[1] / len(dz), out[2])),
    ),
    Fault(
        "dW-not-averaged", "1/m stands in db only",
        "dW = (1/m) Σᵢ xᵢᵀ ∂Lᵢ/∂zᵢ", "deep-back-dW",
        TANH, biased, **_affine(lambda out, dz, cache: (out[0], out[1] * len(dz), out[2])),
    ),
    Fault(
        "db-not-averaged", "1/m stands in dW only",
        "db = (1/m) Σᵢ ∂Lᵢ/∂zᵢ", "deep-back-db",
        TANH, biased, **_of_b(None, lambda db, m: db * m),
    ),
    Fault(
        "db-averaged", "db is the mean of the rows of dZ, which already has the 1/m",
        "db = Σᵢ dzᵢ", "deep-scale-m",
        TANH, biased, **_of_b(None, lambda db, m: db / m),
    ),
    Fault(
        "first-db-averaged", "db of layer 1 is the mean of the rows of dZ[1], which already has the 1/m",
        "db[1] = Σᵢ dzᵢ[1]", "mlp1-v3-back-db1",
        TANH, biased_hidden, **_of_b(0, lambda db, m: db / m),
    ),
    Fault(
        "db-without-axis", "dZ is summed over rows and units, and the one number spread over db",
        "db = Σᵢ dzᵢ over the rows alone", "deep-back-db",
        TANH, both(biased_hidden, _hidden_wide), **_of_b(None, lambda db, m: jnp.full_like(db, 1) * jnp.sum(db)),
    ),
    Fault(
        "db-zero", "db is forgotten in every layer",
        "db[l] = Σᵢ dzᵢ[l]", "deep-back-db",
        TANH, biased_hidden, **_of_b(None, lambda db, m: jnp.zeros_like(db)),
    ),
    Fault(
        "first-db-zero", "db of layer 1 is forgotten",
        "db[1] = Σᵢ dzᵢ[1]", "mlp1-v3-back-db1",
        TANH, biased_hidden, **_of_b(0, lambda db, m: jnp.zeros_like(db)),
    ),
    Fault(
        "output-db-zero", "db of the output layer is forgotten",
        "db[L] = Σᵢ dzᵢ[L]", "mlp1-v3-back-db2",
        TANH, biased, **_of_b(-1, lambda db, m: jnp.zeros_like(db)),
    ),
    Fault(
        "output-db-sign", "db of the output layer is Σ (y − ŷ)",
        "db[L] = Σᵢ dzᵢ[L]", "logreg-back-db",
        TANH, biased, **_of_b(-1, lambda db, m: -db),
    ),
)  # fmt: skip
