"""The initial values of a weight matrix ``W (n_in, n_out)``.

Every initialiser is ``f(key, shape, dtype) -> W``. The normal ones are untruncated, as in the lecture; the
uniform ones on (−limit, limit) have the same variance, limit²/3. Biases, β and γ are not drawn: 0, 0 and 1.

| initialiser | Var(w) | for |
|---|---|---|
| LeCun (LeCun et al. 1998) | 1/n_in | linear units, SELU |
| Glorot (Glorot & Bengio 2010; "Xavier") | 2/(n_in + n_out) | tanh, sigmoid |
| He (He et al. 2015) | 2/n_in | the ReLU family |

Source: lecture, section *Weight initialisation*; ``err-xavier`` and ``err-bengio`` say where its formulas differ.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import jax
import jax.numpy as jnp

Initializer = Callable[[jax.Array, tuple[int, int], jax.typing.DTypeLike], jax.Array]


def zeros(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> jax.Array:
    """W = 0: every hidden unit stays equal to every other. Source: ``init-zero-setup``.

    >>> zeros(jax.random.key(0), (1, 2), jnp.float32)
    Array([[0., 0.]], dtype=float32)
    """
    return jnp.zeros(shape, dtype)


def normal_001(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> jax.Array:
    """W ~ 0.01 · N(0, 1); for shallow networks only. Source: ``init-random-001``, ``err-001-depth``.

    >>> normal_001(jax.random.key(0), (1000, 1000), jnp.float32).std().round(4)
    Array(0.01, dtype=float32)
    """
    return _normal(key, shape, dtype, 0.01**2)


def lecun_normal(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> jax.Array:
    """W ~ N(0, 1/n_in): keeps the variance of a sum. Source: ``init-lecun``, ``init-var-1n``, ``init-xavier-slide``.

    >>> lecun_normal(jax.random.key(0), (400, 1000), jnp.float32).std().round(3)
    Array(0.05, dtype=float32)
    """
    return _normal(key, shape, dtype, 1 / shape[0])


def lecun_uniform(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> jax.Array:
    """W ~ U(−√(3/n_in), √(3/n_in)), variance 1/n_in (LeCun et al. 1998).

    >>> lecun_uniform(jax.random.key(0), (400, 1000), jnp.float32).std().round(3)
    Array(0.05, dtype=float32)
    """
    return _uniform(key, shape, dtype, 1 / shape[0])


def glorot_normal(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> jax.Array:
    """W ~ N(0, 2/(n_in + n_out)): a compromise for signals both ways. Source: ``init-glorot``.

    >>> glorot_normal(jax.random.key(0), (300, 500), jnp.float32).std().round(3)
    Array(0.05, dtype=float32)
    """
    return _normal(key, shape, dtype, 2 / (shape[0] + shape[1]))


def glorot_uniform(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> jax.Array:
    """W ~ U(−√(6/(n_in + n_out)), √(6/(n_in + n_out))). Source: ``init-glorot``.

    >>> glorot_uniform(jax.random.key(0), (300, 500), jnp.float32).std().round(3)
    Array(0.05, dtype=float32)
    """
    return _uniform(key, shape, dtype, 2 / (shape[0] + shape[1]))


def he_normal(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> jax.Array:
    """W ~ N(0, 2/n_in): E[relu(z)²] is half of Var(z). Source: ``init-he``, ``trap-init-trunc``.

    >>> he_normal(jax.random.key(0), (800, 1000), jnp.float32).std().round(3)
    Array(0.05, dtype=float32)
    """
    return _normal(key, shape, dtype, 2 / shape[0])


def he_uniform(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> jax.Array:
    """W ~ U(−√(6/n_in), √(6/n_in)), variance 2/n_in (He et al. 2015).

    >>> he_uniform(jax.random.key(0), (800, 1000), jnp.float32).std().round(3)
    Array(0.05, dtype=float32)
    """
    return _uniform(key, shape, dtype, 2 / shape[0])


def orthogonal(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> jax.Array:
    """Uniform over matrices with orthonormal columns (rows, if n_in < n_out) (Saxe et al. 2014).

    >>> W = orthogonal(jax.random.key(0), (3, 2), jnp.float32)
    >>> bool(jnp.allclose(W.T @ W, jnp.eye(2), atol=1e-6))
    True
    """
    n_in, n_out = shape
    tall = jax.random.normal(key, (max(shape), min(shape)), dtype)
    Q, R = jnp.linalg.qr(tall)
    # QR fixes R only up to signs; a positive diagonal makes the distribution uniform
    Q = Q * jnp.where(jnp.diagonal(R) < 0, -1, 1).astype(dtype)[None, :]
    return Q if n_in >= n_out else Q.T


INITIALIZERS: dict[str, Initializer] = {
    "zeros": zeros,
    "normal_001": normal_001,
    "lecun_normal": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "orthogonal": orthogonal,
}


def _normal(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike, variance: float) -> jax.Array:
    return sqrt(variance) * jax.random.normal(key, shape, dtype)


def _uniform(key: jax.Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike, variance: float) -> jax.Array:
    limit = sqrt(3 * variance)
    return jax.random.uniform(key, shape, dtype, -limit, limit)
