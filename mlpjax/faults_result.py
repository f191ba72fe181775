"""Faults of the penalties, and of the finished gradient as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax.config import Config
from mlpjax.faults_record import (
    LEARNING_RATE,
    REGRESSION,
    SQUARES,
    TANH,
    Exercise,
    Fault,
    Needs,
    anywhere,
    biased,
    biased_hidden,
    both,
    deep,
    hidden,
    network,
    normalised,
    penalised,
)
from mlpjax.parameters import Layer, Params
from mlpjax.passes import RULES, Pass, penalty_gradient
from mlpjax.penalties import l1_gradient, l2_gradient

LARGE_ERROR = 1.01
SMALL_ERROR = 1.0005
L1_SMOOTHING = 1e-3
NORM_LIMIT = 1.0
VALUE_LIMIT = 0.1
DECIMALS = 3

Strength = Any


def _penalty(change: Callable[[jax.Array, jax.Array, Strength, Strength], jax.Array | None]) -> dict[str, Any]:
    """Another penalty gradient, ``change(right, W, l1, l2)``, an absent strength being 0; ``None`` is no penalty."""

    def rule(config: Config, W: jax.Array) -> jax.Array | None:
        right = penalty_gradient(config, W)
        l1, l2 = (jnp.asarray(0 if rate is None else rate, W.dtype) for rate in (config.l1, config.l2))
        return None if right is None else change(right, W, l1, l2)

    return {"rules": RULES._replace(penalty=rule)}


def _penalty_times(factor: Callable[[int, int, int], float]) -> dict[str, Any]:
    """The penalty's gradient of layer l times ``factor(l, L, m)``."""

    def after(config: Config, params: Params, this: Pass, grads: Params) -> Params:
        result = []
        for l, (layer, grad) in enumerate(zip(params, grads, strict=True), start=1):
            penalty, by = penalty_gradient(config, layer.W), factor(l, len(params), len(this.p)) - 1
            result.append(grad if penalty is None else grad._replace(W=grad.W + by * penalty))
        return tuple(result)

    return {"after": after}


def _penalty_on(*names: str) -> dict[str, Any]:
    def after(config: Config, params: Params, this: Pass, grads: Params) -> Params:
        return tuple(_penalised(config, layer, grad, names) for layer, grad in zip(params, grads, strict=True))

    return {"after": after}


def _penalised(config: Config, layer: Layer, grad: Layer, names: tuple[str, ...]) -> Layer:
    penalties = {
        name: penalty_gradient(config, getattr(layer, name)) for name in names if getattr(layer, name) is not None
    }
    return grad._replace(**{name: getattr(grad, name) + penalty for name, penalty in penalties.items()})


def _norm_of_W(right: jax.Array, W: jax.Array, l1: Strength, l2: Strength) -> jax.Array:
    norm = jnp.sqrt(jnp.sum(W * W))
    return l1_gradient(W, l1) + l2_gradient(W, l2) / jnp.where(norm == 0, 1, norm)


def _leaves(change: Callable[[jax.Array], jax.Array]) -> dict[str, Any]:
    """Every leaf of the gradient changed."""
    return {"after": lambda config, params, this, grads: jax.tree.map(change, grads)}


def _first_W(change: Callable[[jax.Array], jax.Array]) -> dict[str, Any]:
    """The finished dW of layer 1 changed."""

    def after(config: Config, params: Params, this: Pass, grads: Params) -> Params:
        return (grads[0]._replace(W=change(grads[0].W)), *grads[1:])

    return {"after": after}


def _largest_times(factor: float) -> Callable[[jax.Array], jax.Array]:
    def change(dW: jax.Array) -> jax.Array:
        return dW.at[jnp.unravel_index(jnp.argmax(jnp.abs(dW)), dW.shape)].multiply(factor)

    return change


def _last_unit_skipped(config: Config, params: Params, this: Pass, grads: Params) -> Params:
    return (jax.tree.map(lambda leaf: leaf.at[..., -1].set(0), grads[0]), *grads[1:])


def _reversed(config: Config, params: Params, this: Pass, grads: Params) -> Params:
    return tuple(reversed(grads))


def _first_equal_pair(sizes: tuple[int, ...]) -> int | None:
    """The first of two neighbouring layers, counted from 0, that have the same width."""
    return next((k for k in range(len(sizes) - 2) if sizes[k + 1] == sizes[k + 2]), None)


def _b_swapped(config: Config, params: Params, this: Pass, grads: Params) -> Params:
    result = list(grads)
    if (k := _first_equal_pair(config.sizes)) is not None:
        result[k], result[k + 1] = grads[k]._replace(b=grads[k + 1].b), grads[k + 1]._replace(b=grads[k].b)
    return tuple(result)


def _clipped(config: Config, params: Params, this: Pass, grads: Params) -> Params:
    norm = jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(grads)))
    return jax.tree.map(lambda leaf: leaf * jnp.minimum(1, NORM_LIMIT / norm), grads)


def _rounded_to(dtype: Any) -> dict[str, Any]:
    return _leaves(lambda leaf: leaf.astype(dtype).astype(leaf.dtype))


def _has(*names: str) -> Needs:
    """With all of these penalties."""
    return lambda config, weighted, train: all(getattr(config, name) is not None for name in names)


def _several_units(config: Config, weighted: bool, train: bool) -> bool:
    return config.depth > 1 and config.sizes[1] > 1


def _same_backwards(config: Config, weighted: bool, train: bool) -> bool:
    alike = not config.batch_norm and "prelu" not in config.activations
    return config.depth > 1 and alike and len(set(config.sizes)) == 1


def _equal_widths(config: Config, weighted: bool, train: bool) -> bool:
    return _first_equal_pair(config.sizes) is not None


L1 = Exercise(network(l1=0.02))
L2 = Exercise(network(l2=0.3))
ELASTIC = Exercise(network(l1=0.02, l2=0.3))

PENALTY_FAULTS = (
    Fault(
        "penalty-twice", "the penalty's gradient is added twice, in the loss and in the optimiser",
        "dW + ∂penalty/∂W", "reg-nn-grad", L2, penalised, **_penalty(lambda right, W, l1, l2: 2 * right),
    ),
    Fault(
        "penalty-halved", "the ½ of the penalty is kept in its derivative",
        "∂/∂W (l2/2) Σ W² = l2 W", "reg-l2-grad", L2, penalised, **_penalty(lambda right, W, l1, l2: right / 2),
    ),
    Fault(
        "penalty-forgotten", "the gradient is that of the data loss alone",
        "dW + ∂penalty/∂W", "reg-nn-grad", L2, penalised, **_penalty(lambda right, W, l1, l2: None),
    ),
    Fault(
        "penalty-sign", "the penalty's gradient is subtracted",
        "dW + ∂penalty/∂W", "reg-nn-step", L2, penalised, **_penalty(lambda right, W, l1, l2: -right),
    ),
    Fault(
        "penalty-divided-by-m", "the penalty's gradient is divided by the size of the batch",
        "dW + ∂penalty/∂W, whatever the batch", "err-m-batch", L2, penalised, **_penalty_times(lambda l, L, m: 1 / m),
    ),
    Fault(
        "penalty-not-on-output", "the output layer's W is left out of the penalty",
        "the sum runs over l = 1 … L", "reg-nn-cost",
        L2, both(penalised, hidden), **_penalty_times(lambda l, L, m: l < L),
    ),
    Fault(
        "penalty-on-first-layer-only", "only W of layer 1 is penalised",
        "the sum runs over l = 1 … L", "reg-nn-cost",
        L2, both(penalised, deep), **_penalty_times(lambda l, L, m: l == 1),
    ),
    Fault(
        "penalty-on-output-only", "only W of the output layer is penalised",
        "the sum runs over l = 1 … L", "reg-nn-cost",
        L2, both(penalised, hidden), **_penalty_times(lambda l, L, m: l == L),
    ),
    Fault(
        "penalty-on-biases", "b is penalised like W",
        "only W is penalised", "reg-logreg-cost", L2, both(penalised, biased), **_penalty_on("b"),
    ),
    Fault(
        "penalty-on-batch-norm", "γ and β are penalised like W",
        "only W is penalised", "reg-logreg-cost",
        Exercise(network(batch_norm=True, l2=0.3)), both(penalised, normalised), **_penalty_on("gamma", "beta"),
    ),
    Fault(
        "penalty-for-its-gradient", "l1 |W| + (l2/2) W² is added, not its derivative",
        "dW + l1 sign(W) + l2 W", "reg-elastic-net",
        ELASTIC, penalised, **_penalty(lambda right, W, l1, l2: l1 * jnp.abs(W) + l2 / 2 * W * W),
    ),
    Fault(
        "l1-as-l2", "l1 W where l1 sign(W) is meant",
        "∂/∂W l1 Σ|W| = l1 sign(W)", "reg-l1-grad",
        L1, _has("l1"), **_penalty(lambda right, W, l1, l2: l1 * W + l2_gradient(W, l2)),
    ),
    Fault(
        "l1-smoothed", f"W/(|W| + {L1_SMOOTHING:g}) for sign(W)",
        "∂/∂W l1 Σ|W| = l1 sign(W)", "reg-l1-grad",
        L1, _has("l1"), **_penalty(lambda right, W, l1, l2: l1 * W / (jnp.abs(W) + L1_SMOOTHING) + l2_gradient(W, l2)),
    ),
    Fault(
        "l1-1-at-0", "∂|w|/∂w = 1 at 0, as autodiff of |w| says",
        "∂|w|/∂w = 0 at 0", "trap-abs0",
        L1._replace(at_kink=True), _has("l1"), **_penalty(lambda right, W, l1, l2: right + jnp.where(W == 0, l1, 0)),
    ),
    Fault(
        "l2-of-norm", "l2 W/‖W‖: the norm is differentiated, not its square",
        "∂/∂W (l2/2) ‖W‖² = l2 W", "err-frobenius", L2, _has("l2"), **_penalty(_norm_of_W),
    ),
    Fault(
        "elastic-net-without-l2", "of both penalties only l1 is differentiated",
        "dW + l1 sign(W) + l2 W", "reg-elastic-net",
        ELASTIC, _has("l1", "l2"), **_penalty(lambda right, W, l1, l2: l1_gradient(W, l1)),
    ),
    Fault(
        "elastic-net-without-l1", "of both penalties only l2 is differentiated",
        "dW + l1 sign(W) + l2 W", "err-elastic",
        ELASTIC, _has("l1", "l2"), **_penalty(lambda right, W, l1, l2: l2_gradient(W, l2)),
    ),
)  # fmt: skip

RESULT_FAULTS = (
    Fault(
        "gradient-1-percent-large", "every entry is 1 % too large",
        "∂J/∂θ as it is", "deep-backprop-full", TANH, anywhere, **_leaves(lambda leaf: LARGE_ERROR * leaf),
    ),
    Fault(
        "gradient-0.05-percent-large", "every entry is 0.05 % too large",
        "∂J/∂θ as it is", "deep-backprop-full", TANH, anywhere, **_leaves(lambda leaf: SMALL_ERROR * leaf),
    ),
    Fault(
        "update-returned", f"the step −α ∂J/∂θ, with α = {LEARNING_RATE}, is returned for the gradient",
        "∂J/∂θ as it is", "erm-gd-step", TANH, anywhere, **_leaves(lambda leaf: -LEARNING_RATE * leaf),
    ),
    Fault(
        "one-entry-zero", "the largest entry of dW[1] is 0",
        "dW[1] = Xᵀ dZ[1]", "mlp1-v3-back-dW1", TANH, anywhere, **_first_W(_largest_times(0)),
    ),
    Fault(
        "one-entry-0.05-percent-large", "the largest entry of dW[1] is 0.05 % too large",
        "dW[1] = Xᵀ dZ[1]", "mlp1-v3-back-dW1", TANH, anywhere, **_first_W(_largest_times(SMALL_ERROR)),
    ),
    Fault(
        "last-unit-skipped", "the loop over the units of layer 1 ends one too early",
        "dW[1] and db[1] of every unit", "mlp1-v1-forward-1", TANH, _several_units, after=_last_unit_skipped,
    ),
    Fault(
        "layers-reversed", "the gradients stay in the order in which the backward pass found them, L first",
        "one gradient per layer, in the order of the parameters", "deep-backprop-full",
        SQUARES, _same_backwards, after=_reversed,
    ),
    Fault(
        "db-swapped", "db of two neighbouring layers of one width are exchanged",
        "db[l] = Σᵢ dzᵢ[l]", "deep-back-db",
        Exercise(SQUARES.config), both(biased_hidden, _equal_widths), after=_b_swapped,
    ),
    Fault(
        "clipped-by-norm", f"the gradient is clipped to the norm {NORM_LIMIT:g}",
        "∂J/∂θ as it is", "init-explode-gradient", REGRESSION, anywhere, after=_clipped,
    ),
    Fault(
        "clipped-by-value", f"every entry is clipped to [−{VALUE_LIMIT}, {VALUE_LIMIT}]",
        "∂J/∂θ as it is", "init-explode-gradient",
        REGRESSION, anywhere, **_leaves(lambda leaf: jnp.clip(leaf, -VALUE_LIMIT, VALUE_LIMIT)),
    ),
    Fault(
        "rounded-to-3-decimals", "the gradient was printed and read again",
        "∂J/∂θ as it is", "deep-backprop-full", TANH, anywhere, **_leaves(lambda leaf: jnp.round(leaf, DECIMALS)),
    ),
    Fault(
        "in-bfloat16", "the gradient is rounded to bfloat16",
        "∂J/∂θ in the precision of θ", "trap-f32", TANH, anywhere, **_rounded_to(jnp.bfloat16),
    ),
    Fault(
        "in-float16", "the gradient is rounded to float16",
        "∂J/∂θ in the precision of θ", "trap-f32", TANH, anywhere, **_rounded_to(jnp.float16),
    ),
)  # fmt: skip
