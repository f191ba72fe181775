"""Why inputs are scaled: the curvature of the squared error of a linear unit, and what gradient descent makes of it.

For ŷ = Xw and J(w) = (1/2m) ‖Xw − y‖² the gradient is XᵀX(w − w*)/m, and every step of size α multiplies the part
of w − w* along an eigenvector of H = XᵀX/m by 1 − αλ. All here follows from that.

NumPy only. Rows are examples: X (m, n0), y (m,), w (n0,). A unit with a bias is one with a column of ones in X.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mlpjax.errors import DataError, InputError
from mlpjax.preprocess import Scaler

RANGES = ((1.0, 1000.0), (0.0, 1.0))
"""The lecture's ranges of x₁ and x₂. Source: ``norm-scale-example``."""


class Curvature(NamedTuple):
    """The smallest and the largest eigenvalue of H = XᵀX/m, and what they say about gradient descent.

    Source: ``norm-conditioning``.

    >>> Curvature(0.5, 2.0).condition, Curvature(0.5, 2.0).largest_step, Curvature(0.5, 2.0).best_step
    (4.0, 1.0, 0.8)
    """

    smallest: float
    largest: float

    @property
    def condition(self) -> float:
        """κ = λ_max/λ_min: 1 for round contours of J, infinite when J has a valley without a lowest point."""
        return self.largest / self.smallest if self.smallest else math.inf

    @property
    def largest_step(self) -> float:
        """2/λ_max: gradient descent converges for every smaller α and diverges for every larger one."""
        return 2 / self.largest

    @property
    def best_step(self) -> float:
        """2/(λ_min + λ_max): the α whose slowest factor (κ − 1)/(κ + 1) is smallest."""
        return 2 / (self.smallest + self.largest)


def two_scales(m: int = 1000, seed: int = 0) -> np.ndarray:
    """Draw the lecture's example (m, 2): x₁ ~ U[1, 1000) and x₂ ~ U[0, 1), independent.

    Raises:
        DataError: ``m`` is below 2.

    Source: ``norm-scale-example``.

    >>> two_scales().max(axis=0).round(2)
    array([999.5,   1. ])
    """
    if m < 2:
        raise DataError(f"m is {m!r}: expected at least 2 examples")
    low, high = np.transpose(RANGES)
    return np.random.default_rng(seed).uniform(low, high, (m, len(RANGES)))


def curvature(x: np.ndarray) -> Curvature:
    """Measure the smallest and the largest eigenvalue of H = XᵀX/m, the Hessian of J; from X (m, n0).

    They are squared singular values of X over m: forming XᵀX would lose half of the digits. An eigenvalue that is
    0 up to rounding is 0.

    Raises:
        DataError: x is not a matrix of finite numbers with a row, or all of it is 0.

    Source: ``norm-conditioning``, ``norm-benefits``.

    >>> curvature(np.array([[1.0, 0.0], [0.0, 3.0]]))
    Curvature(smallest=0.5, largest=4.5)
    """
    x = _matrix(x)
    eigenvalues = np.square(_singular(x)[1]) / len(x)
    return Curvature(float(eigenvalues[-1]), float(eigenvalues[0]))


def descent_steps(x: np.ndarray, y: np.ndarray, alpha: float, tol: float = 1e-6) -> int:
    """Count the steps of gradient descent from w = 0 until ‖w − w*‖ ≤ tol · ‖w*‖, without taking them.

    `mlpjax.risk.gradient_descent` would take them. After t steps the error along eigenvector k is (1 − αλ_k)ᵗ of the
    start's, so the first t that meets the tolerance is found by bisection; the error never grows for α ≤ 2/λ_max.

    Raises:
        InputError: α is not between 0 and 2/λ_max, where the walk diverges, or ``tol`` not between 0 and 1.
        DataError: the columns of x are linearly dependent: no single w* is the best.

    Source: ``norm-gd-path``.

    >>> x, y = np.array([[1.0], [1.0]]), np.array([3.0, 5.0])
    >>> descent_steps(x, y, 0.5, tol=0.1)  # w* = 4, and after t steps w = 4 · (1 − ½ᵗ)
    4
    """
    x, y = _problem(x, y)
    left, singular = _singular(x)
    eigenvalues = np.square(singular) / len(x)
    if not eigenvalues[-1]:
        raise DataError("the columns of x are linearly dependent: no single w is the best; leave one of them out")
    if not 0 < tol < 1:
        raise InputError(f"tol is {tol}: expected a share of ‖w*‖ in (0, 1)")
    optimum = left.T @ y / singular  # w* along the eigenvectors
    factors = np.square(1 - alpha * eigenvalues)
    if not factors.max() < 1:
        raise InputError(
            f"alpha is {alpha}: expected a step in (0, 2/λ_max = {2 / eigenvalues[0]:.6g}) that is not lost in rounding"
        )

    def met(t: int) -> bool:
        return bool(np.square(optimum) @ factors**t <= tol**2 * np.square(optimum).sum())

    low, high = -1, 1  # not met at low, where there is nothing yet; met at high
    while not met(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if met(middle) else (middle, high)
    return high


def raw_weights(scaler: Scaler, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say for raw inputs what W (n0, n1) and b (n1,) say for scaled ones: W_raw = W/scale, b_raw = b − shift·W_raw.

    x_scaled W + b = x W_raw + b_raw. So weights differ as the scales of their inputs do: a feature that is
    1000 times larger has, for the same effect, a weight 1000 times smaller.

    Raises:
        DataError: W does not have one row per feature of the scaler.

    Source: ``norm-weights-differ``, ``err-weights-differ``.

    >>> raw_weights(Scaler("standardise", np.array([500.0]), np.array([250.0])), np.array([[1.0]]), np.array([0.0]))
    (array([[0.004]]), array([-2.]))
    """
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    if W.ndim != 2 or len(W) != len(scaler.scale) or b.shape != W.shape[1:]:
        raise DataError(
            f"W has shape {W.shape} and b {b.shape}: expected ({len(scaler.scale)}, n1) and (n1,), "
            "one row of W per feature that the scaler was fitted on"
        )
    W_raw = W / scaler.scale[:, None]
    return W_raw, b - scaler.shift @ W_raw


def _matrix(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or not x.size:
        raise DataError(f"x has shape {x.shape}: expected (examples, features) with at least one of each")
    if not np.isfinite(x).all() or not x.any():
        raise DataError("x is 0 throughout, or has a value that is not finite: there is no curvature to measure")
    return x


def _problem(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _matrix(x), np.asarray(y, np.float64)
    if y.shape != (len(x),) or not np.isfinite(y).all():
        raise DataError(f"y has shape {y.shape}: expected ({len(x)},), one finite number per row of x")
    return x, y


def _singular(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left singular vectors of x, as columns, and its n0 singular values, largest first; rounding counts as 0."""
    left, singular, _ = np.linalg.svd(x, full_matrices=False)
    singular = np.pad(singular, (0, x.shape[1] - len(singular)))
    return left, np.where(singular <= singular[0] * max(x.shape) * np.finfo(np.float64).eps, 0.0, singular)
