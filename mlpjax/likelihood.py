"""Odds and likelihoods: the probability model behind each loss.

A distribution takes the value first and its parameter second, ``bernoulli_pmf(y, p)``, as P(Y = y) is written; a
loss takes the prediction first. 0 · log 0 counts as 0, so that a certain and right prediction has probability 1.

Source: lecture, sections *Binary classification* and *Types of problems*.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax.errors import DataError, InputError
from mlpjax.targets import as_array


def odds(p: jax.Array) -> jax.Array:
    """p/(1 − p): how much likelier class 1 is than class 0; e^{x·w + b} in logistic regression.

    ∞ at p = 1; NaN outside [0, 1]. Source: ``logreg-odds-2``.

    >>> odds(jnp.array([0.5, 0.75, 1.0]))
    Array([ 1.,  3., inf], dtype=float32)
    """
    return _probability(p) / (1 - p)


def logit(p: jax.Array) -> jax.Array:
    """log(p/(1 − p)), the log-odds and the inverse of σ; ±∞ at p = 1 and p = 0, NaN outside [0, 1].

    Source: ``logreg-odds-3``, ``logreg-logodds``.

    >>> logit(jnp.array([0.5, 0.75, 0.0])).round(4)
    Array([0.    , 1.0986,   -inf], dtype=float32)
    """
    return jnp.log(_probability(p)) - jnp.log1p(-p)


def bernoulli_pmf(y: jax.Array, p: jax.Array) -> jax.Array:
    """P(Y = y) = p^y (1 − p)^{1 − y} for y ∈ {0, 1}, elementwise; 0⁰ = 1. NaN for p outside [0, 1].

    Source: ``logreg-bernoulli``, ``logreg-likelihood``.

    >>> bernoulli_pmf(jnp.array([1.0, 0.0, 1.0]), jnp.array([0.75, 0.75, 1.0]))
    Array([0.75, 0.25, 1.  ], dtype=float32)
    """
    p = _probability(p)
    return p**y * (1 - p) ** (1 - y)


def bernoulli_logpmf(y: jax.Array, p: jax.Array) -> jax.Array:
    """log P(Y = y) = y log p + (1 − y) log(1 − p), elementwise: minus the binary cross-entropy.

    −∞ where the observed class had probability 0; NaN for p outside [0, 1]. A soft label y ∈ [0, 1] gives the
    expected value. Source: ``logreg-loglik``.

    >>> bernoulli_logpmf(jnp.array([1.0, 0.0, 1.0]), jnp.array([0.75, 0.75, 1.0])).round(4)
    Array([-0.2877, -1.3863,  0.    ], dtype=float32)
    """
    p = _probability(p)
    # 0 · log 0 = 0: a label of exactly 0 or 1 uses one term only, also in the derivative
    on = jnp.where(y != 0, y * jnp.log(jnp.where(y != 0, p, 1)), 0)
    off = jnp.where(y != 1, (1 - y) * jnp.log1p(-jnp.where(y != 1, p, 0)), 0)
    return on + off


def bernoulli_likelihood(y: Any, yhat: Any) -> jax.Array:
    """p(labels) = Πᵢ ŷᵢ^yᵢ (1 − ŷᵢ)^{1 − yᵢ}: the likelihood of independent labels; a scalar.

    A product of many factors underflows (½^1075 is 0 in float64): compute with `bernoulli_loglik`.

    Args:
        y: labels of 0 and 1, any shape.
        yhat: P(Y = 1), the same shape.

    Raises:
        DataError: the shapes differ.

    Source: ``logreg-data-likelihood``.

    >>> bernoulli_likelihood(jnp.array([1, 0]), jnp.array([0.75, 0.5]))
    Array(0.375, dtype=float32)
    """
    y, yhat = _paired(y, yhat)
    return jnp.prod(bernoulli_pmf(y, yhat))


def bernoulli_loglik(y: Any, yhat: Any) -> jax.Array:
    """log p(labels) = Σᵢ [yᵢ log ŷᵢ + (1 − yᵢ) log(1 − ŷᵢ)] = −Σᵢ Lᵢ; a scalar.

    Arguments and errors as in `bernoulli_likelihood`. From scores, use `mlpjax.heads.sigmoid_cross_entropy`: σ of
    a large score rounds to 1, and log(1 − 1) is −∞. Source: ``logreg-data-loglik``, ``logreg-mle``.

    >>> bernoulli_loglik(jnp.array([1, 0]), jnp.array([0.75, 0.5])).round(4)
    Array(-0.9808, dtype=float32)
    """
    y, yhat = _paired(y, yhat)
    return jnp.sum(bernoulli_logpmf(y, yhat))


def gaussian_logpdf(y: jax.Array, mean: jax.Array | float, std: float | jax.Array) -> jax.Array:
    """log N(y; mean, std²) = −½ ((y − mean)/std)² − log std − ½ log 2π, elementwise; ``std`` > 0 is the same for all.

    >>> gaussian_logpdf(jnp.zeros(1), 0.0, 1.0)  # −½ log 2π
    Array([-0.9189385], dtype=float32)
    """
    return -(((y - mean) / std) ** 2) / 2 - jnp.log(std) - math.log(2 * math.pi) / 2


def gaussian_loglik(y: Any, yhat: Any, std: float | jax.Array) -> jax.Array:
    """Σᵢ log N(yᵢ; ŷᵢ, std²) = −SSE/(2 std²) − N log std − (N/2) log 2π, over all N numbers of y; a scalar.

    Args:
        y: targets, any shape.
        yhat: the predicted means, the same shape.
        std: the standard deviation of the noise, one positive number.

    Raises:
        DataError: the shapes differ.
        InputError: ``std`` is not one finite number > 0.

    Source: ``prob-reg-likelihood``, ``prob-reg-likelihood-prod``, ``prob-reg-mle-mse``, ``prob-reg-mle-sigma``.

    >>> gaussian_loglik(jnp.array([0.0, 2.0]), jnp.array([0.0, 0.0]), 1.0).round(4)
    Array(-3.8379, dtype=float32)
    """
    y, yhat = _paired(y, yhat)
    if jnp.ndim(std) != 0 or (not isinstance(std, jax.core.Tracer) and not 0 < std < math.inf):
        raise InputError(f"std is {std}: expected one finite number > 0, the standard deviation and not the variance")
    return jnp.sum(gaussian_logpdf(y, yhat, std))


def _paired(y: Any, yhat: Any) -> tuple[jax.Array, jax.Array]:
    """Bring labels and predictions to one float dtype; refuse shapes that would be broadcast."""
    dtype = jnp.result_type(float)
    y, yhat = as_array(y, dtype), as_array(yhat, dtype)
    if y.shape != yhat.shape:
        raise DataError(f"y has shape {y.shape} and yhat {yhat.shape}: expected the same; reshape one of them")
    dtype = yhat.dtype if jnp.issubdtype(yhat.dtype, jnp.floating) else dtype
    return y.astype(dtype), yhat.astype(dtype)


def _probability(p: jax.Array) -> jax.Array:
    """Let what is no probability be NaN."""
    return jnp.where((p >= 0) & (p <= 1), p, jnp.nan)
