"""Activations that are exponential below 0 and linear above: ELU, and SELU, which is later than the lecture.

The rules of `mlpjax.activations` hold for them too. Source: lecture, section *Activation functions*, its list.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

ELU_ALPHA = 1.0
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def elu(z: jax.Array) -> jax.Array:
    """g(z) = z for z ≥ 0, e^z − 1 for z < 0 (Clevert et al. 2016, α = 1). Source: ``act-elu``, ``trap-where-exp``.

    >>> elu(jnp.array([-1e4, 0.0, 1e4]))
    Array([-1.e+00,  0.e+00,  1.e+04], dtype=float32)
    """
    return jnp.where(z < 0, ELU_ALPHA * jnp.expm1(_negative_part(z)), z)


def elu_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = 1 for z ≥ 0 (at 0 by convention), e^z for z < 0. Source: ``act-elu-deriv``, ``err-elu-0``.

    >>> elu_derivative(jnp.array([-1e4, 0.0, 1e4]))
    Array([0., 1., 1.], dtype=float32)
    """
    return jnp.where(z < 0, ELU_ALPHA * jnp.exp(_negative_part(z)), 1)


def elu_second_derivative(z: jax.Array) -> jax.Array:
    """g″(z) = 0 for z ≥ 0 (at 0 by convention, the limit from above), e^z for z < 0, up to 1 from below.

    >>> elu_second_derivative(jnp.array([-1e4, -1e-30, 0.0, 1e4]))
    Array([0., 1., 0., 0.], dtype=float32)
    """
    return jnp.where(z < 0, ELU_ALPHA * jnp.exp(_negative_part(z)), 0)


def selu(z: jax.Array) -> jax.Array:
    """g(z) = λz for z ≥ 0, λα(e^z − 1) for z < 0, with λ = 1.0507, α = 1.6733 (Klambauer et al. 2017).

    λ and α make mean 0 and variance 1 a fixed point under LeCun initialisation.

    >>> selu(jnp.array([-1e4, 0.0, 1.0]))
    Array([-1.7580993,  0.       ,  1.050701 ], dtype=float32)
    """
    return jnp.where(z < 0, SELU_SCALE * SELU_ALPHA * jnp.expm1(_negative_part(z)), SELU_SCALE * z)


def selu_derivative(z: jax.Array) -> jax.Array:
    """g′(z) = λ for z ≥ 0 (at 0 by convention), λα e^z for z < 0 (Klambauer et al. 2017).

    >>> selu_derivative(jnp.array([-1e4, 0.0, 1.0]))
    Array([0.      , 1.050701, 1.050701], dtype=float32)
    """
    return jnp.where(z < 0, SELU_SCALE * SELU_ALPHA * jnp.exp(_negative_part(z)), SELU_SCALE)


def selu_second_derivative(z: jax.Array) -> jax.Array:
    """g″(z) = 0 for z ≥ 0 (at 0 by convention, the limit from above), λα e^z for z < 0.

    >>> selu_second_derivative(jnp.array([-1e4, -1e-30, 0.0, 1.0]))
    Array([0.       , 1.7580993, 0.       , 0.       ], dtype=float32)
    """
    return jnp.where(z < 0, SELU_SCALE * SELU_ALPHA * jnp.exp(_negative_part(z)), 0)


def _negative_part(z: jax.Array) -> jax.Array:
    # autodiff also differentiates the branch not taken: e^z must be finite there (``trap-where-exp``)
    return jnp.where(z < 0, z, 0)
