"""Scaling: from what was measured to what a network takes.

NumPy only. Rows are examples (m of them), columns are features (n0 of them), as everywhere in mlpjax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from mlpjax.errors import DataError, unknown_name
from mlpjax.finite import check_finite

_BLOCK_ROWS = 2048
"""Rows that are held in float64 at a time: 13 MB for MNIST, whose whole would take 376 MB."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scaler:
    """A fitted scaling ``x ↦ (x − shift)/scale``, column by column.

    It is fitted once, on the training part; `transform` never refits, so that validation, test and new
    data are moved by the statistics of the training part.

    Args:
        kind: the name in `SCALERS` of the function that fitted it.
        shift: (n0,), what is subtracted; kept in float64.
        scale: (n0,), what is divided by; finite and not 0; kept in float64.

    Raises:
        DataError: the arrays are not two finite vectors of one length, or a scale is 0.

    Source: ``norm-standardise-def``, ``norm-train-stats``.

    >>> scaler = Scaler("standardise", np.array([1.0, 0.0]), np.array([2.0, 1.0]))
    >>> scaler.transform(np.array([[5, 3]], dtype=np.uint8))
    array([[2., 3.]], dtype=float32)
    >>> scaler.inverse(scaler.transform(np.array([[5, 3]])))
    array([[5., 3.]])
    """

    kind: str
    shift: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        if self.kind not in SCALERS:
            raise DataError(unknown_name("scaling", self.kind, SCALERS))
        for name in ("shift", "scale"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.shift.ndim != 1 or self.shift.shape != self.scale.shape:
            raise DataError(f"a scaler has shift {self.shift.shape} and scale {self.scale.shape}: expected (n0,) twice")
        if not np.isfinite(self.shift).all() or not np.isfinite(self.scale).all() or not self.scale.all():
            raise DataError("a scaler has a value that is not finite, or a scale of 0: fit it on clean data")

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Return ``(x − shift)/scale`` as float32, computed in float64 and rounded once; ``x`` is (m, n0).

        Raises:
            DataError: ``x`` has not the n0 columns that the scaler was fitted on.
        """
        self._check_width(x)
        out = np.empty(x.shape, dtype=np.float32)
        # what overflows becomes infinite, and is refused as that
        with np.errstate(over="ignore"):
            for rows in _blocks(len(x)):
                out[rows] = (x[rows] - self.shift) / self.scale
        return out

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Return ``x · scale + shift`` in float64, the inverse of `transform`; ``x`` is (m, n0)."""
        self._check_width(x)
        return np.asarray(x * self.scale + self.shift)

    def _check_width(self, x: np.ndarray) -> None:
        if x.ndim != 2 or x.shape[1] != len(self.shift):
            got = f"{x.shape[1]} columns" if x.ndim == 2 else f"the shape {x.shape}"
            raise DataError(
                f"x has {got}, the scaler was fitted on {len(self.shift)}: "
                "give x as (examples, features) with the features of the training data"
            )


def standardise(x: np.ndarray) -> Scaler:
    """Fit ``μ = (1/m) Σᵢ x⁽ⁱ⁾`` and ``σ² = (1/m) Σᵢ (x⁽ⁱ⁾ − μ)²`` (ddof 0) of each column of x (m, n0).

    Both are of the *original* x and in float64. A column that is constant, exactly or up to rounding,
    is divided by 1.

    Raises:
        DataError: x is not (m, n0) with m ≥ 1, or has a value that is not finite.

    Source: ``norm-standardise-mean``, ``norm-standardise-std``, ``err-std-order``, ``err-std-zero``.

    >>> scaler = standardise(np.array([[1.0, 7.0], [3.0, 7.0]]))
    >>> scaler.shift, scaler.scale
    (array([2., 7.]), array([1., 1.]))
    """
    low, high, constant = _range(x)
    mean = x.mean(axis=0, dtype=np.float64)
    # squares of fractions of the range can neither overflow nor vanish
    span = np.where(constant, 1.0, high - low)
    squares = np.zeros_like(mean)
    for rows in _blocks(len(x)):
        squares += np.square((x[rows] - mean) / span).sum(axis=0)
    deviation = span * np.sqrt(squares / len(x))
    # the rounded mean of a large constant may be off by more than 1, its minimum is not
    return Scaler("standardise", np.where(constant, low, mean), np.where(constant, 1.0, deviation))


def min_max(x: np.ndarray) -> Scaler:
    """Fit ``(x − min)/(max − min)`` of each column of x (m, n0): the fitted part fills exactly [0, 1].

    Other data may leave [0, 1]. A column that is constant, exactly or up to rounding, is divided by 1.

    Raises:
        DataError: as `standardise`.

    Source: ``norm-minmax``.

    >>> min_max(np.array([[1, 7], [3, 7]])).transform(np.array([[2, 7], [5, 8]]))
    array([[0.5, 0. ],
           [2. , 1. ]], dtype=float32)
    """
    low, high, constant = _range(x)
    return Scaler("minmax", low, np.where(constant, 1.0, high - low))


def no_scaling(n0: int) -> Scaler:
    """Return the scaler that leaves the ``n0`` columns as they are (and makes them float32).

    >>> no_scaling(2).transform(np.array([[1, 2]]))
    array([[1., 2.]], dtype=float32)
    """
    return Scaler("none", np.zeros(n0), np.ones(n0))


SCALERS: dict[str, Callable[[np.ndarray], Scaler]] = {
    "standardise": standardise,
    "minmax": min_max,
    "none": lambda x: no_scaling(x.shape[1]),
}
"""The scalings by name: each takes the training part (m, n0)."""


def _blocks(m: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, m, _BLOCK_ROWS))


def _range(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return minimum, maximum (float64) and which columns are constant up to 4 roundings of their dtype."""
    if x.ndim != 2 or len(x) == 0:
        raise DataError(f"x has the shape {x.shape}: expected (examples, features) with at least one example")
    # bfloat16 warns of a nan, which the others pass on
    with np.errstate(invalid="ignore"):
        low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    if not np.isfinite((low, high)).all():
        check_finite(x, "x")
    eps = float(np.finfo(x.dtype).eps) if x.dtype.kind == "f" else 0.0
    rounding = 4 * eps * np.maximum(np.abs(low), np.abs(high))
    return low, high, high - low <= np.maximum(rounding, np.finfo(np.float64).tiny)
