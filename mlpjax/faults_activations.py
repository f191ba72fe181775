"""Faults of the activations: dZ = dA ⊙ g′(Z), and the gradient of PReLU's slope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax import passes
from mlpjax.activations import ACTIVATIONS, LEAKY_SLOPE, sigmoid
from mlpjax.config import Config
from mlpjax.exponential import SELU_ALPHA, SELU_SCALE
from mlpjax.faults_record import TANH, Exercise, Fault, both, deep, network, row, uses
from mlpjax.gated import gelu_derivative, gelu_tanh_derivative
from mlpjax.parameters import Layer, Params
from mlpjax.passes import RULES, Pass, activation_backward

KERAS_LEAKY_SLOPE = 0.3
PRODUCTS = ("gelu", "gelu_tanh", "silu")
"""The activations of the form z h(z)."""
LEAKY = ("leaky_relu", "prelu")
CURVED = ("sigmoid", "tanh", "arctan", "elu", "selu", "softplus", *PRODUCTS)
"""The activations whose derivative is not constant on each side of 0."""

ActivationRule = Callable[[str, jax.Array, jax.Array, Layer], tuple[jax.Array, jax.Array | None]]


def _g(name: str, z: jax.Array, layer: Layer) -> jax.Array:
    return ACTIVATIONS[name].f(z) if layer.slope is None else ACTIVATIONS[name].f(z, layer.slope)


def _dg(name: str, z: jax.Array, layer: Layer) -> jax.Array:
    return ACTIVATIONS[name].df(z) if layer.slope is None else ACTIVATIONS[name].df(z, layer.slope)


def _rule(derivative: Callable[[str, jax.Array, Layer], jax.Array], *names: str) -> dict[str, Any]:
    """Another ``derivative(name, z, layer)`` for g′ of some activations, or of all."""

    def rule(name: str, da: jax.Array, z: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array | None]:
        dz, dslope = activation_backward(name, da, z, layer)
        return (da * derivative(name, z, layer) if name in names or not names else dz), dslope

    return {"rules": RULES._replace(activation=rule)}


def _instead(name: str, derivative: Callable[[jax.Array], jax.Array]) -> dict[str, Any]:
    """Another ``derivative(z)`` for g′ of one activation, and where that activation is needed."""
    return {"needs": uses(name), **_rule(lambda _, z, layer: derivative(z), name)}


def _of_a(name: str, derivative: Callable[[jax.Array], jax.Array]) -> dict[str, Any]:
    """Another ``derivative(a)`` for g′ of one activation."""
    return _instead(name, lambda z: derivative(ACTIVATIONS[name].f(z)))


def _at_zero(value: Callable[[Layer, jax.Array], jax.Array | float], *names: str) -> dict[str, Any]:
    """Another value of g′ at exactly 0."""
    wrong = _rule(lambda name, z, layer: jnp.where(z == 0, value(layer, z), _dg(name, z, layer)), *names)
    return {"needs": uses(*names), **wrong}


def _slopes(layer: Layer, z: jax.Array) -> jax.Array:
    """The slope of leaky ReLU or PReLU, as large as ``z``."""
    return jnp.full_like(z, LEAKY_SLOPE) if layer.slope is None else jnp.broadcast_to(row(layer.slope), z.shape)


def _slope_rule(dslope: Callable[[jax.Array, jax.Array, Layer], jax.Array]) -> dict[str, Any]:
    """Another gradient of PReLU's slope, ``dslope(da, z, layer)``."""

    def rule(name: str, da: jax.Array, z: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array | None]:
        dz, right = activation_backward(name, da, z, layer)
        return dz, None if right is None else dslope(da, z, layer)

    return {"needs": uses("prelu"), "rules": RULES._replace(activation=rule)}


def _guided(name: str, da: jax.Array, z: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array | None]:
    dz, dslope = activation_backward(name, da, z, layer)
    return (jnp.where(da > 0, dz, 0) if name == "relu" else dz), dslope


def _forgotten_in_first(config: Config, params: Params, this: Pass, grads: Params) -> Params:
    def rule(name: str, da: jax.Array, z: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array | None]:
        dz, dslope = activation_backward(name, da, z, layer)
        return (da if layer is params[0] else dz), dslope

    return passes.run_backward(config, params, this, RULES._replace(activation=rule)).params


def _first_for_all(config: Config, params: Params, this: Pass, grads: Params) -> Params:
    first = config.activations[0]

    def rule(name: str, da: jax.Array, z: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array | None]:
        return da * ACTIVATIONS[first].df(z), activation_backward(name, da, z, layer)[1]

    return passes.run_backward(config, params, this, RULES._replace(activation=rule)).params


def _over_z(name: str, z: jax.Array) -> jax.Array:
    """The h of g = z h(z): Φ or σ, and ½ at 0."""
    return jnp.where(z == 0, 0.5, ACTIVATIONS[name].f(z) / jnp.where(z == 0, 1, z))


def _gelu_of_other_form(name: str, z: jax.Array) -> jax.Array:
    return gelu_tanh_derivative(z) if name == "gelu" else gelu_derivative(z)


def _not_identity(config: Config, weighted: bool, train: bool) -> bool:
    return any(name != "identity" for name in config.activations)


def _first_is_one_of_several(config: Config, weighted: bool, train: bool) -> bool:
    """Two hidden layers that are not alike, so that the first one's mistake is not everyone's."""
    first, *others = config.activations
    return first != "identity" and any(name != "identity" for name in others)


def _curved_first_of_others(config: Config, weighted: bool, train: bool) -> bool:
    first = config.activations[:1]
    gelus = set(config.activations) <= {"gelu", "gelu_tanh"}
    return first != () and first[0] in CURVED and set(config.activations) != set(first) and not gelus


def _of(activation: str, **options: Any) -> Exercise:
    return Exercise(network(activation, "regression"), **options)


ACTIVATION_FAULTS = (
    Fault(
        "derivative-forgotten", "dZ = dA: the activation's derivative is left out",
        "dZ[l] = dA[l] ⊙ g′(Z[l])", "deep-back-dZ",
        TANH, _not_identity, **_rule(lambda name, z, layer: jnp.ones_like(z)),
    ),
    Fault(
        "first-derivative-forgotten", "dZ[1] = dA[1]: the derivative is left out in the first layer only",
        "dZ[1] = dA[1] ⊙ g′(Z[1])", "mlp1-v3-back-dZ1",
        TANH, both(deep, _first_is_one_of_several), after=_forgotten_in_first,
    ),
    Fault(
        "derivative-of-a", "g′ is taken of the activation a instead of the pre-activation z",
        "dZ[l] = dA[l] ⊙ g′(Z[l])", "deep-back-dZ",
        TANH, uses(*CURVED), **_rule(lambda name, z, layer: _dg(name, _g(name, z, layer), layer)),
    ),
    Fault(
        "derivative-twice", "g′ is multiplied in twice, by the layer and by the one that calls it",
        "dZ[l] = dA[l] ⊙ g′(Z[l])", "deep-back-dZ-recursion",
        TANH, uses(*CURVED, *LEAKY), **_rule(lambda name, z, layer: _dg(name, z, layer) ** 2),
    ),
    Fault(
        "first-activation-for-all", "every layer uses g′ of the first layer's activation",
        "dZ[l] = dA[l] ⊙ g′[l](Z[l]), with the layer's own g", "deep-model",
        Exercise(network(("tanh", "relu"))),
        _curved_first_of_others, after=_first_for_all,
    ),
    Fault(
        "tanh-1-minus-a", "tanh′ as 1 − a, the square forgotten",
        "tanh′(z) = 1 − a²", "act-tanh-deriv-a", TANH, **_of_a("tanh", lambda a: 1 - a),
    ),
    Fault(
        "tanh-1-minus-abs-a", "tanh′ as 1 − |a|",
        "tanh′(z) = 1 − a²", "act-tanh-deriv-a", TANH, **_of_a("tanh", lambda a: 1 - jnp.abs(a)),
    ),
    Fault(
        "tanh-1-minus-z2", "the formula of tanh′ in a is given z: 1 − z²",
        "tanh′(z) = 1 − a²", "act-tanh-deriv", TANH, **_instead("tanh", lambda z: 1 - z * z),
    ),
    Fault(
        "tanh-as-sigmoid", "the sigmoid's a(1 − a) for tanh′",
        "tanh′(z) = 1 − a²", "act-tanh-deriv-a", TANH, **_of_a("tanh", lambda a: a * (1 - a)),
    ),
    Fault(
        "sigmoid-as-tanh", "tanh's 1 − a² for σ′",
        "σ′(z) = a(1 − a)", "act-sigmoid-deriv-a", _of("sigmoid"), **_of_a("sigmoid", lambda a: 1 - a * a),
    ),
    Fault(
        "sigmoid-z-1-minus-z", "the formula of σ′ in a is given z: z(1 − z)",
        "σ′(z) = a(1 − a)", "act-sigmoid-deriv", _of("sigmoid"), **_instead("sigmoid", lambda z: z * (1 - z)),
    ),
    Fault(
        "sigmoid-as-a", "σ′ as a, the factor 1 − a forgotten",
        "σ′(z) = a(1 − a)", "act-sigmoid-proof-3", _of("sigmoid"), **_of_a("sigmoid", lambda a: a),
    ),
    Fault(
        "arctan-without-square", "arctan′ as 1/(1 + |z|)",
        "arctan′(z) = 1/(1 + z²)", "act-arctan", _of("arctan"), **_instead("arctan", lambda z: 1 / (1 + jnp.abs(z))),
    ),
    Fault(
        "relu-guided", "ReLU lets only positive gradients pass, as a visualisation does",
        "relu′(z) = 1 for z > 0, whatever dA is", "act-relu-deriv",
        _of("relu"), uses("relu"), RULES._replace(activation=_guided),
    ),
    Fault(
        "relu-1-at-0", "relu′(0) = 1, from z ≥ 0",
        "relu′(0) = 0", "err-relu-0", _of("relu", at_kink=True), **_at_zero(lambda layer, z: 1.0, "relu"),
    ),
    Fault(
        "relu-half-at-0", "relu′(0) = ½, as autodiff of max(0, z) says",
        "relu′(0) = 0", "trap-relu-tie", _of("relu", at_kink=True), **_at_zero(lambda layer, z: 0.5, "relu"),
    ),
    Fault(
        "leaky-as-relu", "the slope below 0 is forgotten: g′ = 0 there",
        "g′(z) = slope for z < 0", "act-leaky-deriv",
        _of("leaky_relu"), uses(*LEAKY), **_rule(lambda name, z, layer: jnp.where(z < 0, 0, jnp.ones_like(z)), *LEAKY),
    ),
    Fault(
        "leaky-sides-swapped", "the slope is applied above 0 and 1 below",
        "g′(z) = 1 for z > 0, slope for z < 0", "act-leaky-deriv",
        _of("leaky_relu"), uses(*LEAKY),
        **_rule(lambda name, z, layer: jnp.where(z < 0, 1, _slopes(layer, z)), *LEAKY),
    ),
    Fault(
        "leaky-other-slope", f"backward has the slope {KERAS_LEAKY_SLOPE} of another framework",
        f"g′(z) = {LEAKY_SLOPE} for z < 0", "act-leaky-slope",
        _of("leaky_relu"), **_instead("leaky_relu", lambda z: jnp.where(z < 0, KERAS_LEAKY_SLOPE, jnp.ones_like(z))),
    ),
    Fault(
        "leaky-slope-at-0", "g′(0) = slope, from z > 0",
        "g′(0) = 1 for leaky ReLU and PReLU", "err-leaky-0",
        _of("leaky_relu", at_kink=True), **_at_zero(_slopes, *LEAKY),
    ),
    Fault(
        "slope-gradient-zero", "PReLU's slope gets no gradient",
        "dslope = Σᵢ dA ⊙ min(0, Z)", "act-prelu-dalpha",
        _of("prelu"), **_slope_rule(lambda da, z, layer: jnp.zeros_like(da[0])),
    ),
    Fault(
        "slope-gradient-of-positive-part", "PReLU's slope gradient uses max(0, z)",
        "dslope = Σᵢ dA ⊙ min(0, Z)", "act-prelu-dalpha",
        _of("prelu"), **_slope_rule(lambda da, z, layer: jnp.sum(da * jnp.where(z > 0, z, 0), axis=0)),
    ),
    Fault(
        "slope-gradient-of-a", "PReLU's slope gradient uses the negative part of a = slope · z, or dZ for dA",
        "dslope = Σᵢ dA ⊙ min(0, Z)", "err-prelu-dalpha",
        _of("prelu"),
        **_slope_rule(lambda da, z, layer: jnp.sum(da * jnp.where(z < 0, _slopes(layer, z) * z, 0), axis=0)),
    ),
    Fault(
        "slope-gradient-shared", "PReLU's slope gradient is summed over the units too, as for one slope per layer",
        "dslope = Σᵢ dA ⊙ min(0, Z), over the rows alone", "act-prelu-dalpha",
        _of("prelu"),
        **_slope_rule(lambda da, z, layer: jnp.full_like(da[0], 1) * jnp.sum(da * jnp.where(z < 0, z, 0))),
    ),
    Fault(
        "elu-a-without-alpha", "elu′ below 0 as a, where a + α = e^z",
        "elu′(z) = a + α for z < 0", "act-elu-deriv",
        _of("elu"), **_instead("elu", lambda z: jnp.where(z < 0, jnp.expm1(z), jnp.ones_like(z))),
    ),
    Fault(
        "selu-scale-forgotten", "selu′ without λ",
        "selu′(z) = λ for z ≥ 0, λα e^z for z < 0", "act-elu-deriv",
        _of("selu"), **_instead("selu", lambda z: ACTIVATIONS["selu"].df(z) / SELU_SCALE),
    ),
    Fault(
        "selu-alpha-forgotten", "selu′ below 0 without α",
        "selu′(z) = λα e^z for z < 0", "act-elu-deriv",
        _of("selu"), **_instead("selu", lambda z: SELU_SCALE * jnp.where(z < 0, jnp.exp(z), jnp.ones_like(z))),
    ),
    Fault(
        "selu-alpha-at-0", "selu′(0) = λα, the value from below",
        "selu′(0) = λ", "err-elu-0",
        _of("selu", at_kink=True), **_at_zero(lambda layer, z: SELU_SCALE * SELU_ALPHA, "selu"),
    ),
    Fault(
        "softplus-1-minus-sigmoid", "softplus′ as σ(−z) = 1 − σ(z)",
        "softplus′(z) = σ(z)", "act-softplus-deriv", _of("softplus"), **_instead("softplus", lambda z: sigmoid(-z)),
    ),
    Fault(
        "product-rule-cut", "of g = z h(z) only h is kept: the term z h′ is forgotten",
        "g′(z) = h(z) + z h′(z) for GELU and SiLU", "chain-ex-product",
        _of("silu"), uses(*PRODUCTS), **_rule(lambda name, z, layer: _over_z(name, z), *PRODUCTS),
    ),
    Fault(
        "gelu-of-other-form", "the derivative of the exact GELU for its tanh form, or the other way round",
        "g′ of the form that the forward pass uses", "act-table",
        _of("gelu"), uses("gelu", "gelu_tanh"),
        **_rule(lambda name, z, layer: _gelu_of_other_form(name, z), "gelu", "gelu_tanh"),
    ),
)  # fmt: skip
