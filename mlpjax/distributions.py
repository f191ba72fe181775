"""The distributions p(y | z) whose −log p(y | z) the heads' losses are: labels drawn from them, and Fisher matrices.

The Fisher matrix of the scores is E[∂L/∂z (∂L/∂z)ᵀ] over labels from p(y | z). For every head it is ∂²L/∂z² too, away
from the kink of ``regression_relu``, and does not depend on the labels (with Σ_c y_c = 1). It is given by a square
root R, R Rᵀ, whose columns are what a backward pass can start from.

Source: lecture, section *Types of problems*; Martens 2020, *New insights and perspectives on the natural gradient
method*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.activations import relu, relu_derivative, sigmoid
from mlpjax.heads import softmax


class Distribution(NamedTuple):
    """p(y | z) of a head.

    ``root(z)`` is R ``(m, n_L, n_L)`` with R Rᵀ = E[∂Lᵢ/∂z (∂Lᵢ/∂z)ᵀ]; ``sample(key, z)`` draws labels ``(m, n_L)``.
    """

    root: Callable[[jax.Array], jax.Array]
    sample: Callable[[jax.Array, jax.Array], jax.Array]


def bernoulli_root(z: jax.Array) -> jax.Array:
    """R = diag(√(ŷ(1 − ŷ))), ŷ = σ(z).

    >>> bernoulli_root(jnp.zeros((1, 2)))
    Array([[[0.5, 0. ],
            [0. , 0.5]]], dtype=float32)
    """
    # 1 − σ(z) = σ(−z) without cancellation
    return _diagonals(jnp.sqrt(sigmoid(z) * sigmoid(-z)))


def categorical_root(z: jax.Array) -> jax.Array:
    """R = diag(√ŷ) − ŷ √ŷᵀ, ŷ = softmax(z): R Rᵀ = diag(ŷ) − ŷŷᵀ.

    Each entry to full relative precision, also where the model is certain: 1 − ŷ_c is taken as the sum of the others.

    >>> categorical_root(jnp.zeros((1, 2))).round(3)
    Array([[[ 0.354, -0.354],
            [-0.354,  0.354]]], dtype=float32)
    """
    yhat = softmax(z)
    root = jnp.sqrt(yhat)
    own = jnp.eye(z.shape[1], dtype=z.dtype)
    return _diagonals(root * (yhat @ (1 - own))) - yhat[:, :, None] * root[:, None, :] * (1 - own)[None]


def normal_root(z: jax.Array) -> jax.Array:
    """R = I: y is normal with mean z and variance 1, of which ½‖z − y‖² is −log p(y | z) but for a constant.

    >>> normal_root(jnp.zeros((1, 2)))
    Array([[[1., 0.],
            [0., 1.]]], dtype=float32)
    """
    return _diagonals(jnp.ones_like(z))


def rectified_normal_root(z: jax.Array) -> jax.Array:
    """R = diag(relu′(z)): y is normal with mean relu(z) and variance 1.

    >>> rectified_normal_root(jnp.array([[-1.0, 2.0]]))
    Array([[[0., 0.],
            [0., 1.]]], dtype=float32)
    """
    return _diagonals(relu_derivative(z))


def sample_bernoulli(key: jax.Array, z: jax.Array) -> jax.Array:
    """Draw each y_o, 1 with probability σ(z_o).

    >>> sample_bernoulli(jax.random.key(0), jnp.array([[-1e4, 1e4]]))
    Array([[0., 1.]], dtype=float32)
    """
    return jax.random.bernoulli(key, sigmoid(z)).astype(z.dtype)


def sample_categorical(key: jax.Array, z: jax.Array) -> jax.Array:
    """Draw one class of each row with probabilities softmax(z), one-hot.

    >>> sample_categorical(jax.random.key(0), jnp.array([[-1e4, 1e4]]))
    Array([[0., 1.]], dtype=float32)
    """
    return jax.nn.one_hot(jax.random.categorical(key, z), z.shape[1], dtype=z.dtype)


def sample_normal(key: jax.Array, z: jax.Array) -> jax.Array:
    """Draw y = z + ε, ε standard normal.

    >>> sample_normal(jax.random.key(0), jnp.zeros((1, 2))).shape
    (1, 2)
    """
    return z + jax.random.normal(key, z.shape, z.dtype)


def sample_rectified_normal(key: jax.Array, z: jax.Array) -> jax.Array:
    """Draw y = relu(z) + ε, ε standard normal.

    >>> sample_rectified_normal(jax.random.key(0), jnp.zeros((1, 2))).shape
    (1, 2)
    """
    return sample_normal(key, relu(z))


DISTRIBUTIONS: dict[str, Distribution] = {
    "binary": Distribution(bernoulli_root, sample_bernoulli),
    "multilabel": Distribution(bernoulli_root, sample_bernoulli),
    "multiclass": Distribution(categorical_root, sample_categorical),
    "regression": Distribution(normal_root, sample_normal),
    "regression_relu": Distribution(rectified_normal_root, sample_rectified_normal),
}
"""The distributions by the name of their head."""


def _diagonals(rows: jax.Array) -> jax.Array:
    """Diagonal matrices ``(m, n, n)`` from their diagonals ``(m, n)``."""
    return rows[:, :, None] * jnp.eye(rows.shape[1], dtype=rows.dtype)[None]
