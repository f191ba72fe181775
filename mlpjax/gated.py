"""Activations that gate their input, g(z) = z P(z) with a distribution function P: gelu in two forms, and silu.

They are later than the lecture. The rules of `mlpjax.activations` hold for them too.
"""

from __future__ import annotations

from math import pi, sqrt

import jax
import jax.numpy as jnp
from jax.lax import erfc, logistic

_GELU_CUBIC = 0.044715
_NORMAL_TAIL, _LOGISTIC_TAIL = 40.0, 1000.0
"""Beyond these P is 0 or 1 to the last bit, in float64 too, so that g is 0 or z."""


def gelu(z: jax.Array) -> jax.Array:
    """g(z) = z Φ(z), Φ the standard normal distribution function (Hendrycks & Gimpel 2016, exact form).

    >>> gelu(jnp.array([-1e4, 0.0, 1e4]))
    Array([   -0.,     0., 10000.], dtype=float32)
    """
    # from below: at −∞ the product with 0 would be NaN
    return jnp.maximum(z, -_NORMAL_TAIL) * _normal_cdf(z)


def gelu_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = Φ(z) + z φ(z), φ the standard normal density.

    >>> gelu_derivative(jnp.array([-1e4, 0.0, 1e4]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    z = _within(z, _NORMAL_TAIL)
    return _normal_cdf(z) + z * _normal_density(z)


def gelu_second_derivative(z: jax.Array) -> jax.Array:
    """g″(z) = (2 − z²) φ(z), as φ′(z) = −z φ(z).

    >>> gelu_second_derivative(jnp.array([-1e4, 0.0, 1e4]))
    Array([-0.       ,  0.7978846, -0.       ], dtype=float32)
    """
    z = _within(z, _NORMAL_TAIL)
    return (2 - z * z) * _normal_density(z)


def gelu_tanh(z: jax.Array) -> jax.Array:
    """g(z) = ½z(1 + tanh u) = z σ(2u), u = √(2/π)(z + 0.044715 z³) (Hendrycks & Gimpel 2016, tanh form).

    >>> gelu_tanh(jnp.array([-1e4, 0.0, 1e4]))
    Array([   -0.,     0., 10000.], dtype=float32)
    """
    # σ(2u) keeps the lower tail, where 1 + tanh u is 0 by rounding
    return jnp.maximum(z, -_NORMAL_TAIL) * logistic(2 * _gelu_argument(_within(z, _NORMAL_TAIL)))


def gelu_tanh_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = σ(2u) + 2z σ(2u) σ(−2u) u′, u′ = √(2/π)(1 + 3 · 0.044715 z²).

    >>> gelu_tanh_derivative(jnp.array([-1e4, 0.0, 1e4]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    z = _within(z, _NORMAL_TAIL)
    u = _gelu_argument(z)
    du = sqrt(2 / pi) * (1 + 3 * _GELU_CUBIC * z * z)
    return logistic(2 * u) + 2 * z * logistic(2 * u) * logistic(-2 * u) * du


def gelu_tanh_second_derivative(z: jax.Array) -> jax.Array:
    """g″(z) = 2σ(2u) σ(−2u) [2u′ + z u″ + 2z u′² (1 − 2σ(2u))], u″ = 6√(2/π) · 0.044715 z.

    >>> gelu_tanh_second_derivative(jnp.array([-1e4, 0.0, 1e4]))
    Array([-0.       ,  0.7978846, -0.       ], dtype=float32)
    """
    z = _within(z, _NORMAL_TAIL)
    u = _gelu_argument(z)
    du = sqrt(2 / pi) * (1 + 3 * _GELU_CUBIC * z * z)
    ddu = sqrt(2 / pi) * 6 * _GELU_CUBIC * z
    a, b = logistic(2 * u), logistic(-2 * u)
    return 2 * a * b * (2 * du + z * ddu + 2 * z * du * du * (b - a))


def silu(z: jax.Array) -> jax.Array:
    """g(z) = z σ(z), also called swish (Elfwing et al. 2018).

    >>> silu(jnp.array([-1e4, 0.0, 1e4]))
    Array([   -0.,     0., 10000.], dtype=float32)
    """
    return jnp.maximum(z, -_LOGISTIC_TAIL) * logistic(z)


def silu_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = σ(z) + z σ(z)(1 − σ(z)).

    >>> silu_derivative(jnp.array([-1e4, 0.0, 1e4]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    z = _within(z, _LOGISTIC_TAIL)
    a = logistic(z)
    return a + z * a * (1 - a)


def silu_second_derivative(z: jax.Array) -> jax.Array:
    """g″(z) = σ(z)(1 − σ(z)) [2 + z (1 − 2σ(z))].

    >>> silu_second_derivative(jnp.array([-1e4, 0.0, 1e4]))
    Array([-0. ,  0.5, -0. ], dtype=float32)
    """
    z = _within(z, _LOGISTIC_TAIL)
    a = logistic(z)
    return a * (1 - a) * (2 + z * (1 - 2 * a))


def _within(z: jax.Array, tail: float) -> jax.Array:
    # what P′ multiplies there stays finite: ∞ · 0 would be NaN
    return jnp.clip(z, -tail, tail)


def _normal_cdf(z: jax.Array) -> jax.Array:
    # erfc keeps full relative precision in the lower tail
    return erfc(-z / sqrt(2)) / 2


def _normal_density(z: jax.Array) -> jax.Array:
    return jnp.exp(-z * z / 2) / sqrt(2 * pi)


def _gelu_argument(z: jax.Array) -> jax.Array:
    return sqrt(2 / pi) * (z + _GELU_CUBIC * z * z * z)
