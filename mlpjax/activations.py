"""The activation functions g, each beside its derivatives g′ and g″ derived by hand.

Every function works element by element on an array ``z`` of any shape and keeps its float dtype; ELU and SELU are
in `mlpjax.exponential`, those that gate their input in `mlpjax.gated`. `ACTIVATIONS` maps a name to the record
`Activation(f, df, df_dslope, d2f, d2f_dslope)`: being in the table is being selectable, documented and tested.

Two rules hold for all of them:

* **Kinks.** ReLU′(0) = 0; leaky ReLU′(0) = PReLU′(0) = 1 with slope gradient 0; ELU′(0) = 1; SELU′(0) = its
  scale 1.0507; step′ = 0 everywhere. g″ is 0 at each of them. The forward functions are written so that autodiff
  says the same, with no derivative rule attached: autodiff then really is a second opinion.
* **NaN passes**: ``f(nan)`` is NaN, so that divergence cannot hide behind a comparison. At ±∞ g, g′ and g″ are their
  limits. A subnormal z is 0 where JAX computes, on the kink.

Source: lecture, section *Activation functions*, and its list of activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlpjax import exponential, gated

LEAKY_SLOPE = 0.01
"""Slope of leaky ReLU for z < 0. Source: ``act-leaky-slope``."""
PRELU_START = 0.25
"""Start value of the learnt slope (He et al. 2015)."""


class Activation(NamedTuple):
    """An activation and its derivatives.

    ``f(z)``, ``df(z)`` and ``d2f(z)`` are g, g′ and g″; without ``d2f`` g is linear by pieces, g″ = 0. ``f`` and ``df``
    take a learnt slope as a second argument, ``df_dslope(z)`` is ∂g/∂slope and ``d2f_dslope(z)`` is ∂²g/∂z∂slope.
    """

    f: Callable[..., jax.Array]
    df: Callable[..., jax.Array]
    df_dslope: Callable[[jax.Array], jax.Array] | None = None
    d2f: Callable[[jax.Array], jax.Array] | None = None
    d2f_dslope: Callable[[jax.Array], jax.Array] | None = None


def identity(z: jax.Array) -> jax.Array:
    """g(z) = z. Source: ``act-identity``, ``act-linear-output``.

    >>> identity(jnp.array([-2.0, 3.0]))
    Array([-2.,  3.], dtype=float32)
    """
    return z


def identity_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = 1. Source: ``act-identity``.

    >>> identity_derivative(jnp.array([-2.0, 3.0]))
    Array([1., 1.], dtype=float32)
    """
    return jnp.ones_like(z)


def binary_step(z: jax.Array) -> jax.Array:
    """g(z) = 1 if z ≥ 0 else 0 (the threshold unit; g(0) = 1).

    Source: ``act-binary-step``, ``perceptron-threshold``, ``trap-step``.

    >>> binary_step(jnp.array([-2.0, 0.0, 3.0]))
    Array([0., 1., 1.], dtype=float32)
    """
    return jnp.where(jnp.isnan(z), z, (z >= 0).astype(z.dtype))


def binary_step_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = 0, also at 0 by convention: nothing can be learnt through it.

    Source: ``err-step-0``, ``perceptron-nondiff``.

    >>> binary_step_derivative(jnp.array([-2.0, 0.0, 3.0]))
    Array([0., 0., 0.], dtype=float32)
    """
    return jnp.zeros_like(z)


def sigmoid(z: jax.Array) -> jax.Array:
    """σ(z) = 1/(1 + e^−z), in (0, 1).

    Source: ``act-sigmoid``, ``act-sigmoid-symmetry``, ``act-heaviside-limit``, ``logreg-sigmoid``,
    ``logreg-sigmoid-limits``, ``err-sigma-limit``, ``trap-naive-sigmoid``.

    >>> sigmoid(jnp.array([0.0, -1e4]))
    Array([0.5, 0. ], dtype=float32)
    """
    return jax.lax.logistic(z)


def sigmoid_derivative(z: jax.Array) -> jax.Array:
    """σ′(z) = σ(z)(1 − σ(z)) = a(1 − a), at most ¼.

    Source: ``act-sigmoid-deriv``, ``act-sigmoid-deriv-a``, ``act-sigmoid-max-deriv``, ``act-saturation``,
    ``act-sigmoid-proof-1``, ``act-sigmoid-proof-2``, ``act-sigmoid-proof-3``, ``prob-ml-back-sigmoid``,
    ``err-sigmoid-proof``.

    >>> sigmoid_derivative(jnp.array([0.0, 1e4]))
    Array([0.25, 0.  ], dtype=float32)
    """
    a = sigmoid(z)
    return a * (1 - a)


def sigmoid_second_derivative(z: jax.Array) -> jax.Array:
    """σ″(z) = σ′(z)(1 − 2σ(z)) = a(1 − a)(1 − 2a).

    >>> sigmoid_second_derivative(jnp.array([0.0, 1e4]))
    Array([ 0., -0.], dtype=float32)
    """
    a = sigmoid(z)
    return a * (1 - a) * (1 - 2 * a)


def tanh(z: jax.Array) -> jax.Array:
    """tanh z = (e^z − e^−z)/(e^z + e^−z), in (−1, 1).

    Source: ``act-tanh``, ``act-tanh-sigmoid``, ``act-tanh-alt``, ``act-tanh-range``, ``trap-naive-tanh``.

    >>> tanh(jnp.array([0.0, 800.0]))
    Array([0., 1.], dtype=float32)
    """
    return jnp.tanh(z)


def tanh_derivative(z: jax.Array) -> jax.Array:
    """tanh′(z) = 1 − tanh²(z) = 1 − a². Source: ``act-tanh-deriv``, ``act-tanh-deriv-a``.

    >>> tanh_derivative(jnp.array([0.0, 800.0]))
    Array([1., 0.], dtype=float32)
    """
    a = jnp.tanh(z)
    # 1 − a² as a product: the square would round once more
    return (1 - a) * (1 + a)


def tanh_second_derivative(z: jax.Array) -> jax.Array:
    """tanh″(z) = −2a(1 − a²).

    >>> tanh_second_derivative(jnp.array([0.0, 800.0]))
    Array([-0., -0.], dtype=float32)
    """
    a = jnp.tanh(z)
    return -2 * a * (1 - a) * (1 + a)


def arctan(z: jax.Array) -> jax.Array:
    """g(z) = arctan z, in (−π/2, π/2). Source: ``act-arctan``.

    >>> arctan(jnp.array([0.0, 1.0])).round(4)
    Array([0.    , 0.7854], dtype=float32)
    """
    return jnp.arctan(z)


def arctan_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = 1/(z² + 1). Source: ``act-arctan``.

    >>> arctan_derivative(jnp.array([0.0, 1.0]))
    Array([1. , 0.5], dtype=float32)
    """
    return 1 / (z * z + 1)


def arctan_second_derivative(z: jax.Array) -> jax.Array:
    """g″(z) = −2z/(z² + 1)² = −2z g′(z)².

    >>> arctan_second_derivative(jnp.array([0.0, 1.0]))
    Array([-0. , -0.5], dtype=float32)
    """
    df = arctan_derivative(z)
    # ∞ as the largest number: its product with 0 would be NaN
    return -2 * (jnp.nan_to_num(z) * df) * df


def relu(z: jax.Array) -> jax.Array:
    """g(z) = max(0, z). Source: ``act-relu``, ``trap-relu-tie``.

    >>> relu(jnp.array([-2.0, 3.0]))
    Array([0., 3.], dtype=float32)
    """
    # not jnp.maximum, whose autodiff derivative at 0 is ½; NaN fails the comparison and passes
    return jnp.where(z <= 0, 0, z)


def relu_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = 1 for z > 0 and 0 for z < 0; 0 at 0 by convention. Source: ``act-relu-deriv``, ``err-relu-0``.

    >>> relu_derivative(jnp.array([-2.0, 0.0, 3.0]))
    Array([0., 0., 1.], dtype=float32)
    """
    return jnp.where(z <= 0, 0, jnp.ones_like(z))


def leaky_relu(z: jax.Array) -> jax.Array:
    """g(z) = z for z ≥ 0, 0.01 z for z < 0. Source: ``act-leaky``.

    >>> leaky_relu(jnp.array([-2.0, 3.0]))
    Array([-0.02,  3.  ], dtype=float32)
    """
    return jnp.where(z < 0, LEAKY_SLOPE * z, z)


def leaky_relu_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = 1 for z > 0, 0.01 for z < 0; 1 at 0 by convention. Source: ``act-leaky-deriv``, ``err-leaky-0``.

    >>> leaky_relu_derivative(jnp.array([-2.0, 0.0, 3.0]))
    Array([0.01, 1.  , 1.  ], dtype=float32)
    """
    return jnp.where(z < 0, LEAKY_SLOPE, jnp.ones_like(z))


def prelu(z: jax.Array, slope: jax.Array) -> jax.Array:
    """g(z) = z for z ≥ 0, slope · z for z < 0, with a learnt slope per unit (He et al. 2015).

    The piecewise form: the lecture's max(slope · z, z) holds only for slope ≤ 1. ``slope`` has the shape of
    the last axis of ``z``, ``(n_l,)``. Source: ``act-prelu``, ``err-prelu-max``.

    >>> prelu(jnp.array([[-2.0, 3.0]]), jnp.array([0.25, 0.25]))
    Array([[-0.5,  3. ]], dtype=float32)
    """
    return jnp.where(z < 0, _row(slope, z) * z, z)


def prelu_derivative(z: jax.Array, slope: jax.Array) -> jax.Array:
    """∂g/∂z = 1 for z > 0, slope for z < 0; 1 at 0 by convention. Source: ``act-prelu-deriv``.

    >>> prelu_derivative(jnp.array([[-2.0, 0.0]]), jnp.array([0.25, 0.25]))
    Array([[0.25, 1.  ]], dtype=float32)
    """
    return jnp.where(z < 0, _row(slope, z), jnp.ones_like(z))


def prelu_slope_derivative(z: jax.Array) -> jax.Array:
    """∂g/∂slope = min(0, z), which is 0 at 0. Source: ``act-prelu-dalpha``.

    >>> prelu_slope_derivative(jnp.array([-2.0, 0.0, 3.0]))
    Array([-2.,  0.,  0.], dtype=float32)
    """
    return jnp.where(z < 0, z, 0)


def prelu_mixed_derivative(z: jax.Array) -> jax.Array:
    """∂²g/∂z∂slope = 1 for z < 0 and 0 for z ≥ 0, also at 0.

    >>> prelu_mixed_derivative(jnp.array([-2.0, 0.0, 3.0]))
    Array([1., 0., 0.], dtype=float32)
    """
    return jnp.where(z < 0, jnp.ones_like(z), 0)


def softplus(z: jax.Array) -> jax.Array:
    """g(z) = log(1 + e^z), computed without overflow.

    Source: ``act-softplus``, ``act-softplus-relu``, ``act-softplus-odd``, ``err-softplus-stable``.

    >>> softplus(jnp.array([0.0, 1e4]))
    Array([6.931472e-01, 1.000000e+04], dtype=float32)
    """
    return jnp.logaddexp(z, 0)


def softplus_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = σ(z). Source: ``act-softplus-deriv``.

    >>> softplus_derivative(jnp.array([0.0, 1e4]))
    Array([0.5, 1. ], dtype=float32)
    """
    return sigmoid(z)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(identity, identity_derivative),
    "binary_step": Activation(binary_step, binary_step_derivative),
    "sigmoid": Activation(sigmoid, sigmoid_derivative, d2f=sigmoid_second_derivative),
    "tanh": Activation(tanh, tanh_derivative, d2f=tanh_second_derivative),
    "arctan": Activation(arctan, arctan_derivative, d2f=arctan_second_derivative),
    "relu": Activation(relu, relu_derivative),
    "leaky_relu": Activation(leaky_relu, leaky_relu_derivative),
    "prelu": Activation(prelu, prelu_derivative, prelu_slope_derivative, d2f_dslope=prelu_mixed_derivative),
    "elu": Activation(exponential.elu, exponential.elu_derivative, d2f=exponential.elu_second_derivative),
    "selu": Activation(exponential.selu, exponential.selu_derivative, d2f=exponential.selu_second_derivative),
    "softplus": Activation(softplus, softplus_derivative, d2f=sigmoid_derivative),
    "gelu": Activation(gated.gelu, gated.gelu_derivative, d2f=gated.gelu_second_derivative),
    "gelu_tanh": Activation(gated.gelu_tanh, gated.gelu_tanh_derivative, d2f=gated.gelu_tanh_second_derivative),
    "silu": Activation(gated.silu, gated.silu_derivative, d2f=gated.silu_second_derivative),
}
"""The activations by name. Source: ``act-table``, the lecture's list."""


def _row(slope: jax.Array, z: jax.Array) -> jax.Array:
    """Give a per-unit slope ``(n_l,)`` the rank of ``z``: nothing is promoted silently."""
    return jnp.reshape(slope, (1,) * (z.ndim - jnp.ndim(slope)) + jnp.shape(slope))
