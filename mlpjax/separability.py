"""Can a hyperplane separate two classes? A separator with its margin, or a proof that there is none.

With targets t = 2y − 1 ∈ {−1, 1} and x̃ = (1, x), w̃ = (b, w), exactly one of two things exists (Gordan 1873):

* a separator: w̃ with tᵢ x̃ᵢ·w̃ > 0 for every example;
* a certificate: λ ≥ 0 with Σ λᵢ = 1 and Σ λᵢ tᵢ x̃ᵢ = 0, which says that the hulls of the classes have a point in
  common. With it a separator would give 0 < Σ λᵢ (tᵢ x̃ᵢ·w̃) = w̃·0 = 0.

Either is checked by arithmetic: with `margin_of`, or with `certificate_sum`. NumPy and SciPy, in float64.

Source: ``perceptron-instability``, ``perceptron-novikoff``, ``logreg-xor-fail``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog

from mlpjax.errors import DataError
from mlpjax.finite import check_finite

SMALLEST_MARGIN = 1e-9
"""A margin below this, with every column of x moved and scaled to [−1, 1] and ∣w̃ⱼ∣ ≤ 1, counts as none."""


class Separator(NamedTuple):
    """A hyperplane x·w + b = 0 that separates: ``w (n_x,)`` and ``b``, with ‖(b, w)‖ = 1, and γ = min tᵢ x̃ᵢ·w̃ > 0."""

    w: np.ndarray
    b: float
    margin: float

    @property
    def separable(self) -> bool:
        """Always true."""
        return True


class Certificate(NamedTuple):
    """The multipliers λ ``(m,)``, which prove that nothing separates, and how far their sum is from 0.

    ``residual`` is the largest ∣Σ λᵢ tᵢ x̃ᵢⱼ∣ with every column of x moved and scaled to [−1, 1].
    """

    multipliers: np.ndarray
    residual: float

    @property
    def separable(self) -> bool:
        """Always false."""
        return False


def separate(x: Any, y: Any) -> Separator | Certificate:
    """Find a separator, or prove that there is none, by one linear program and its dual.

        maximise s  such that  tᵢ x̃ᵢ·w̃ ≥ s for all i,  −1 ≤ w̃ⱼ ≤ 1      the data are separable if s > 0
        its dual:  minimise ‖Σ λᵢ tᵢ x̃ᵢ‖₁  such that  λ ≥ 0, Σ λᵢ = 1     and not, if this is 0

    The columns of x are moved and scaled to [−1, 1] before, which changes neither answer. The margin is that of the
    separator found, not the largest possible one.

    Args:
        x: ``(m, n_x)``, the examples.
        y: ``(m,)``, classes 0 and 1; one class alone is separable.

    Raises:
        DataError: for other shapes or labels, values that are not finite, and data so near to both answers that
            float64 cannot tell.

    Source: ``perceptron-instability``, ``perceptron-novikoff``, ``logreg-xor-fail``.

    >>> from mlpjax.toys import gate
    >>> separate(*gate("or_gate")).separable
    True
    >>> separate(*gate("xor_gate")).multipliers
    array([0.25, 0.25, 0.25, 0.25])
    """
    x, y = check_two_classes(x, y)
    low, high = x.min(axis=0), x.max(axis=0)
    # a constant column gets the weight 0
    centre, half = low / 2 + high / 2, np.where(high > low, high / 2 - low / 2, np.inf)
    scaled = (x - centre[None, :]) / half[None, :]
    rows = _signed_rows(scaled, y)
    m, n = rows.shape
    # variables (w̃, s): minimise −s such that s − tᵢ x̃ᵢ·w̃ ≤ 0
    program = linprog(
        c=np.append(np.zeros(n), -1.0),
        A_ub=np.hstack([-rows, np.ones((m, 1))]),
        b_ub=np.zeros(m),
        bounds=[(-1.0, 1.0)] * n + [(None, None)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if program.status == 0:
        w_tilde = program.x[:n]
        if np.min(rows @ w_tilde) > SMALLEST_MARGIN:
            # back to x, times a number that keeps w from overflowing
            unit = min(1.0, half.min())
            w = w_tilde[1:] * (unit / half)
            b = w_tilde[0] * unit - w @ centre
            length = np.linalg.norm(np.append(b, w))
            margin = margin_of(w, b, x, y)
            if margin > 0:
                return Separator(w / length, float(b / length), margin)
        multipliers = np.maximum(-program.ineqlin.marginals, 0.0)
        multipliers /= multipliers.sum()
        residual = float(np.max(np.abs(certificate_sum(multipliers, scaled, y))))
        if residual <= SMALLEST_MARGIN:
            return Certificate(multipliers, residual)
    raise DataError(
        f"x has examples too near to each other: neither a separator nor a certificate stands in float64 "
        f"({program.message}): take the mean off its columns, or leave the duplicates out"
    )


def margin_of(w: Any, b: Any, x: Any, y: Any) -> float:
    """γ = minᵢ tᵢ (xᵢ·w + b)/‖(b, w)‖, with t = 2y − 1: positive if and only if w and b separate the classes.

    Raises:
        DataError: for data as in `separate`, a w that is not ``(n_x,)``, and w and b that are all 0.

    Source: ``perceptron-novikoff``.

    >>> from mlpjax.toys import gate
    >>> x, y = gate("and_gate")
    >>> round(margin_of([2.0, 2.0], -3.0, x, y), 4)  # the nearest is 1/√17 away
    0.2425
    """
    x, y = check_two_classes(x, y)
    w_tilde = np.append(np.float64(b), np.asarray(w, np.float64))
    if w_tilde.shape != (x.shape[1] + 1,):
        raise DataError(f"w has shape {np.shape(w)}: expected ({x.shape[1]},), as x has {x.shape[1]} columns")
    length = np.linalg.norm(w_tilde)
    if length == 0:
        raise DataError("w and b are all 0: expected a direction; every example is on its boundary")
    return float(np.min(_signed_rows(x, y) @ w_tilde) / length)


def certificate_sum(multipliers: Any, x: Any, y: Any) -> np.ndarray:
    """Σ λᵢ tᵢ x̃ᵢ ``(n_x + 1,)``: where it is 0, with λ ≥ 0 and Σ λᵢ = 1, no hyperplane separates.

    Raises:
        DataError: for data as in `separate`, and multipliers that are not ``(m,)``, below 0, or do not sum to 1.

    Source: ``perceptron-instability``.

    >>> from mlpjax.toys import gate
    >>> certificate_sum([0.25, 0.25, 0.25, 0.25], *gate("xor_gate"))
    array([0., 0., 0.])
    """
    x, y = check_two_classes(x, y)
    multipliers = np.asarray(multipliers, np.float64)
    if multipliers.shape != (len(x),):
        raise DataError(f"multipliers have shape {multipliers.shape}: expected ({len(x)},), one per example")
    if not (np.all(multipliers >= 0) and abs(multipliers.sum() - 1) < 1e-9):
        raise DataError(
            f"multipliers have a minimum of {multipliers.min():g} and a sum of {multipliers.sum():g}: "
            "expected numbers >= 0 that sum to 1"
        )
    return np.asarray(multipliers @ _signed_rows(x, y))


def check_two_classes(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return x ``(m, n_x)`` and y ``(m,)``, classes 0 and 1, as float64, or say what is wrong with them.

    Raises:
        DataError: naming shape, row or label.

    >>> check_two_classes(np.eye(2), [1, 2])
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: y is 2 in row 1: expected the classes 0 and 1; ...
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or 0 in x.shape:
        raise DataError(f"x has shape {x.shape}: expected (m, n_x), a row per example and at least one of each")
    if y.shape != (len(x),):
        raise DataError(f"y has shape {y.shape}: expected ({len(x)},), one class per row of x")
    for name, values in (("x", x), ("y", y)):
        if values.dtype.kind not in "fiub":
            raise DataError(f"{name} has dtype {values.dtype}: expected real numbers")
    check_finite(x, "x")
    other = (y != 0) & (y != 1)
    if other.any():
        row = int(np.argmax(other))
        raise DataError(f"y is {y[row]} in row {row}: expected the classes 0 and 1; encode others as these")
    return x.astype(np.float64), y.astype(np.float64)


def _signed_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The rows tᵢ x̃ᵢ ``(m, n_x + 1)``."""
    return np.asarray((2 * y - 1)[:, None] * np.column_stack([np.ones(len(x)), x]))
