"""Dropout seen as a mean over all 2^n sub-networks, by going through them, and as an adaptive L2 penalty.

``rate`` is the probability p of *dropping*, as in `mlpjax.Config`; a mask M has 1 where a unit is kept. Training draws
masks (`mlpjax.layers.dropout_forward`); here every mask counts, with its probability, so that means are exact.

Source: lecture, section *Regularisation*: "DropOut regularisation" (Srivastava et al. 2014; Wager et al. 2013).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import sigmoid, softplus
from mlpjax.errors import InputError

MOST_UNITS = 16
"""The largest n whose 2^n masks are enumerated."""


class Ensemble(NamedTuple):
    """What the sub-networks of a logistic unit say together, and what one network with scaled weights says."""

    arithmetic: jax.Array
    geometric: jax.Array
    scaled: jax.Array


def all_masks(n: int) -> np.ndarray:
    """Enumerate the masks of n units, ``(2^n, n)`` of 0 and 1. Source: ``reg-dropout-ensemble``.

    Raises:
        InputError: n is not in 0 … `MOST_UNITS`.

    >>> all_masks(2).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    if not 0 <= n <= MOST_UNITS:
        raise InputError(f"{n} units have 2^{n} masks: expected 0 to {MOST_UNITS} units")
    return (np.arange(2**n)[:, None] >> np.arange(n)[::-1][None, :] & 1).astype(float)


def mask_probabilities(masks: np.ndarray, rate: float) -> np.ndarray:
    """P(M) = Π_j (1 − p)^{M_j} p^{1 − M_j}; ``(2^n, n) → (2^n,)``. All masks are equally likely for p = ½ alone.

    Raises:
        InputError: the rate is not in [0, 1).

    Source: ``reg-dropout-default``, ``reg-dropout-train``.

    >>> mask_probabilities(all_masks(2), 0.25).tolist()
    [0.0625, 0.1875, 0.1875, 0.5625]
    """
    _check_rate(rate)
    return np.prod(np.where(masks == 1, 1 - rate, rate), axis=1)


def ensemble_mean(f: Callable[[jax.Array], jax.Array], a: jax.Array, rate: float) -> jax.Array:
    """E[f(a ⊙ M/(1 − p))] over all masks, for one row ``a (n,)``: the exact mean of an inverted-dropout network.

    Args:
        f: the rest of the network, of rows: ``(2^n, n) → (2^n, …)``.
        a: the activations of the layer that drops units.
        rate: p.

    Returns:
        The mean, of the shape of one row of what f returns. For an f that is affine it is f(a).

    Raises:
        InputError: too many units, or a rate outside [0, 1).

    Source: ``reg-dropout-inverted``, ``reg-dropout-ensemble``.

    >>> ensemble_mean(lambda rows: rows @ jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), 0.5)
    Array(11., dtype=float32)
    """
    masks = all_masks(a.shape[0])
    values = f(a[None, :] * jnp.asarray(masks, a.dtype) / (1 - rate))
    return jnp.tensordot(jnp.asarray(mask_probabilities(masks, rate), values.dtype), values, 1)


def original_dropout(a: jax.Array, mask: jax.Array) -> jax.Array:
    """A ⊙ M: the paper's training form, which leaves the mean of A smaller by 1 − p (see `original_inference`).

    ``a, mask (m, n)``. Source: ``reg-dropout-inverted``, ``err-dropout-scale``.

    >>> original_dropout(jnp.array([[3.0, 4.0]]), jnp.array([[1.0, 0.0]]))
    Array([[3., 0.]], dtype=float32)
    """
    return a * mask


def original_inference(a: jax.Array, rate: float) -> jax.Array:
    """A · (1 − p), or W · (1 − p) of the layer that follows: the paper's test form, the mean of `original_dropout`.

    Raises:
        InputError: the rate is not in [0, 1).

    Source: ``reg-dropout-inverted``, ``err-dropout-p`` (the paper's own p is the probability of keeping).

    >>> original_inference(jnp.array([[3.0, 4.0]]), 0.5)
    Array([[1.5, 2. ]], dtype=float32)
    """
    _check_rate(rate)
    return a * (1 - rate)


def logistic_ensemble(a: jax.Array, w: jax.Array, b: float, rate: float) -> Ensemble:
    """Average the 2^n logistic units ŷ_M = σ((a ⊙ M) · w + b) in three ways; ``a, w (n,)``, each result ``()``.

    arithmetic Σ_M P(M) ŷ_M; normalised geometric G/(G + G′) with G = Π_M ŷ_M^{P(M)}, G′ = Π_M (1 − ŷ_M)^{P(M)};
    scaled σ(a · (1 − p) w + b), one network with the weights times 1 − p. The last two are equal, exactly, for one
    logistic layer; the arithmetic mean differs, and so does all of it in a deep network.

    Raises:
        InputError: too many units, or a rate outside [0, 1).

    Source: ``reg-dropout-ensemble``, ``err-dropout-average`` (Srivastava et al. 2014).

    >>> found = logistic_ensemble(jnp.array([1.0, 1.0]), jnp.array([-4.0, 1.0]), 0.0, 0.5)
    >>> [round(float(mean), 3) for mean in found]
    [0.324, 0.182, 0.182]
    """
    masks = all_masks(a.shape[0])
    p = jnp.asarray(mask_probabilities(masks, rate), a.dtype)
    z = original_dropout(a[None, :], jnp.asarray(masks, a.dtype)) @ w + b
    log_g, log_g_other = -jnp.sum(p * softplus(-z)), -jnp.sum(p * softplus(z))
    geometric = jnp.exp(log_g - jnp.logaddexp(log_g, log_g_other))
    return Ensemble(jnp.sum(p * sigmoid(z)), geometric, sigmoid(a @ original_inference(w, rate) + b))


def adaptive_l2(X: jax.Array, w: jax.Array, rate: float, curvature: jax.Array | None = None) -> jax.Array:
    """½ (p/(1 − p)) (1/m) Σᵢ cᵢ Σ_j x_ij² w_j²: what inverted dropout of the inputs adds to the cost of a linear model.

    An L2 penalty whose strength for w_j follows the data. It is exact for ½(ŷ − y)², where cᵢ = 1; for the logistic
    loss cᵢ = ŷᵢ(1 − ŷᵢ), and it is the first term of an expansion for small x_ij w_j.

    Args:
        X: inputs ``(m, n)``.
        w: weights ``(n,)``.
        rate: p.
        curvature: c ``(m,)``, the second derivative of the loss by the score; 1 by default.

    Raises:
        InputError: the rate is not in [0, 1), or shapes do not fit.

    Source: ``reg-dropout-l2``, ``err-dropout-l2`` (Wager et al. 2013).

    >>> adaptive_l2(jnp.array([[1.0, 2.0]]), jnp.array([3.0, 1.0]), 0.5)
    Array(6.5, dtype=float32)
    """
    _check_rate(rate)
    c = jnp.ones(X.shape[0], X.dtype) if curvature is None else curvature
    if X.ndim != 2 or w.shape != X.shape[1:] or c.shape != X.shape[:1]:
        raise InputError(f"X {X.shape}, w {w.shape}, curvature {c.shape}: expected (m, n), (n,), (m,)")
    return rate / (1 - rate) / 2 * jnp.mean(c * jnp.sum(X**2 * w[None, :] ** 2, axis=1))


def dropout_ridge(X: jax.Array, y: jax.Array, rate: float) -> jax.Array:
    """w = (XᵀX + (p/(1 − p)) diag(XᵀX))⁻¹ Xᵀy: where training a linear model with input dropout ends, on average.

    The minimiser of the mean over all masks of ½‖y − (X ⊙ M/(1 − p)) w‖². Features that are copies of each other
    get equal weights. ``X (m, n), y (m,) → w (n,)``.

    Raises:
        InputError: the rate is not in [0, 1), or shapes do not fit.

    Source: ``reg-dropout-coadapt``, ``reg-dropout-effect`` (Wager et al. 2013).

    >>> x = jnp.array([[1.0], [2.0]])
    >>> dropout_ridge(jnp.concatenate([x, x], axis=1), 2 * x[:, 0], 0.5).round(4)
    Array([0.6667, 0.6667], dtype=float32)
    """
    _check_rate(rate)
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise InputError(f"X and y have shapes {X.shape} and {y.shape}: expected (m, n) and (m,)")
    gram = X.T @ X
    return jnp.linalg.solve(gram + rate / (1 - rate) * jnp.diag(jnp.diagonal(gram)), X.T @ y)


def _check_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise InputError(f"rate is {rate}: expected a probability of dropping in [0, 1)")
