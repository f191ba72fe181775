"""From what was measured to what a network takes: scaling, label coding, weights, the hold-out split.

NumPy only. Rows are examples (m of them), columns are features (n0 of them), as everywhere in mlpjax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mlpjax.errors import DataError, unknown_name

FLOAT32_MAX = float(np.finfo(np.float32).max)
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


def check_finite(x: np.ndarray, name: str) -> None:
    """Refuse an array (m,) or (m, n) that has a value which is not finite in float32.

    Raises:
        DataError: naming the first such row and column, both counted from 0.

    >>> check_finite(np.array([[1.0, 2.0], [3.0, np.nan]]), "x")
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: x: row 1, column 1 (from 0) is nan: expected a finite number; ...
    """
    # minimum and maximum pass a nan on, and take no memory
    if x.dtype.kind != "f" or x.size == 0 or (float(x.min()) >= -FLOAT32_MAX and float(x.max()) <= FLOAT32_MAX):
        return
    row, *column = np.argwhere(~(np.abs(x) <= np.float64(FLOAT32_MAX)))[0].tolist()
    place = f"row {row}" + "".join(f", column {k}" for k in column)
    raise DataError(
        f"{name}: {place} (from 0) is {x[(row, *column)]}: expected a finite number; correct it or leave the row out"
    )


def check_indices(y: np.ndarray, n_classes: int) -> None:
    """Refuse a ``y`` that is not (m,) class indices in 0 … K−1 with a `DataError`.

    >>> check_indices(np.array([0, 1, 2]), 3)
    """
    if y.ndim != 1 or y.dtype.kind not in "iu" or (y.size and (y.min() < 0 or y.max() >= n_classes)):
        raise DataError(f"y is not (m,) class indices in 0 … {n_classes - 1}: encode the labels first")


def encode_labels(
    values: Iterable[Any], *, where: Callable[[int], str] = "row {}".format
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Number the class labels: ``(indices, classes)`` with ``classes[indices[i]] == values[i]``.

    The classes are sorted: numbers by value, text by the alphabet, or by value where all of it is whole
    numbers ("9" before "10").

    Args:
        values: m labels: text, bools, integers, floats that are whole; Python or NumPy scalars.
        where: words the place of example i (from 0) for an error.

    Returns:
        The indices, (m,) int32 in 0 … K−1, and the K classes as Python values, ready for JSON.

    Raises:
        DataError: no label at all, a label of another kind, or text mixed with numbers.

    >>> encode_labels(["no", "yes", "no"])
    (array([0, 1, 0], dtype=int32), ('no', 'yes'))
    """
    labels = _labels(values, where)
    if not labels:
        raise DataError("there is no label to encode: expected at least one example")
    kinds = {type(label) for label in labels}
    if str in kinds and len(kinds) > 1:
        i = next(i for i, label in enumerate(labels) if not isinstance(label, str))
        raise DataError(
            f"{where(i)}: the label {labels[i]!r} is a number, others are text: make all of them text or all numbers"
        )
    if kinds == {bool, int}:
        labels = [int(label) for label in labels]
    try:
        classes = sorted(set(labels), key=lambda label: (int(label), str(label)))
    except ValueError:
        classes = sorted(set(labels))
    index = {label: k for k, label in enumerate(classes)}
    return np.array([index[label] for label in labels], dtype=np.int32), tuple(classes)


def encode_with(
    values: Iterable[Any], classes: Sequence[Any], *, where: Callable[[int], str] = "row {}".format
) -> np.ndarray:
    """Number labels by classes that are known already: the indices (m,) int32 into ``classes``.

    A label written as text ("3") finds the number 3, because one odd cell makes a whole CSV column text.

    Raises:
        DataError: naming the place of the first label that is not among ``classes``.

    >>> encode_with(["yes", "no"], ("no", "yes"))
    array([1, 0], dtype=int32)
    >>> encode_with([1, 7], (1, 2))
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: row 1: the label 7 is not among the classes of the model: 1, 2; ...
    """
    index = {str(label): k for k, label in enumerate(classes)}
    index |= {label: k for k, label in enumerate(classes)}
    indices = []
    for i, label in enumerate(_labels(values, where)):
        if label not in index:
            raise DataError(
                f"{where(i)}: the label {label!r} is not among the classes of the model: {listed(classes)}; "
                "correct it, leave the row out, or train with data that has it"
            )
        indices.append(index[label])
    return np.array(indices, dtype=np.int32)


def class_weights(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the balanced weights ``w_c = m / (K m_c)``, (K,) float64; 0 for a class without examples.

    With them every class present weighs the same in the cost, and all m examples together weigh m when no
    class is absent.

    Raises:
        DataError: ``y`` (m,) is not indices in 0 … K−1.

    >>> class_weights(np.array([0, 0, 0, 1]), 2)
    array([0.66666667, 2.        ])
    """
    check_indices(y, n_classes)
    counts = np.bincount(y, minlength=n_classes)
    return np.where(counts > 0, len(y) / (n_classes * np.maximum(counts, 1)), 0.0)


def sample_weights(y: np.ndarray, class_weight: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the weight of each example, ``class_weight[y[i]]``, (m,) float32.

    >>> sample_weights(np.array([0, 1, 1]), [0.5, 2.0])
    array([0.5, 2. , 2. ], dtype=float32)
    """
    weight = np.asarray(class_weight, dtype=np.float32)
    check_indices(y, len(weight))
    return np.asarray(weight[y])


def stratified_split(y: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a hold-out part: ``(keep_indices, held_indices)``, both sorted, disjoint, together 0 … m−1.

    ``round(fraction · m)`` examples are held out. With class indices every class gives its share, whole
    numbers by largest remainder, for any number of classes. As far as the total allows, a class of two or
    more examples is on both sides, and a class of one example is kept. The same seed gives the same split.

    Args:
        y: (m,) integers: stratified by class; (m, n_L) or floats: a plain random split.
        fraction: the share that is held out, in (0, 1).
        seed: of `numpy.random.default_rng`.

    Raises:
        DataError: the fraction is outside (0, 1), or one side would be empty.

    Source: ``erm-split``.

    >>> keep, held = stratified_split(np.array([0, 0, 0, 0, 1, 1]), 1 / 3, seed=0)
    >>> len(held), keep.tolist() == sorted(set(range(6)) - set(held.tolist()))
    (2, True)
    """
    m = len(y)
    if not 0 < fraction < 1:
        raise DataError(f"the fraction to hold out is {fraction!r}: expected a number between 0 and 1")
    total = round(fraction * m)
    if not 0 < total < m:
        raise DataError(
            f"holding out {fraction:g} of {m} examples leaves {m - total} and {total}: "
            "both sides need at least one; change the fraction or give more examples"
        )
    rng = np.random.default_rng(seed)
    if y.ndim == 1 and y.dtype.kind in "biu":
        _, classes, counts = np.unique(y, return_inverse=True, return_counts=True)
        shares = _held_per_class(counts, total)
        parts = [rng.permutation(np.flatnonzero(classes == c))[:n] for c, n in enumerate(shares)]
        held = np.sort(np.concatenate(parts))
    else:
        held = np.sort(rng.permutation(m)[:total])
    return np.setdiff1d(np.arange(m), held, assume_unique=True), held


def listed(names: Iterable[Any], most: int = 20) -> str:
    """Word a list for a message, cut when it is long.

    >>> listed(["a", "b", "c"], most=2)
    'a, b, … (3 in all)'
    """
    words = [str(name) for name in names]
    return ", ".join(words) if len(words) <= most else f"{', '.join(words[:most])}, … ({len(words)} in all)"


def _held_per_class(counts: np.ndarray, total: int) -> np.ndarray:
    """Share ``total`` among the classes: largest remainder, then within what keeps every class on both sides."""
    m = int(counts.sum())
    quota = total * counts / m
    held = total * counts // m
    # a stable sort gives a tie to the first class
    held[np.argsort(-(total * counts % m), kind="stable")[: total - held.sum()]] += 1
    several = counts >= 2
    least = several.astype(counts.dtype)
    if least.sum() > total:
        least = np.zeros_like(counts)
    for most in (np.where(several, counts - 1, 0), np.where(several, counts - 1, 1), counts):
        if most.sum() >= total:
            break
    held = np.clip(held, least, most)
    while (missing := total - held.sum()) != 0:
        step = 1 if missing > 0 else -1
        can = held < most if missing > 0 else held > least
        held[np.argmax(np.where(can, step * (quota - held), -np.inf))] += step
    return held


def _blocks(m: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, m, _BLOCK_ROWS))


def _range(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return minimum, maximum (float64) and which columns are constant up to 4 roundings of their dtype."""
    if x.ndim != 2 or len(x) == 0:
        raise DataError(f"x has the shape {x.shape}: expected (examples, features) with at least one example")
    low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    eps = float(np.finfo(x.dtype).eps) if x.dtype.kind == "f" else 0.0
    return low, high, high - low <= 4 * eps * np.maximum(np.abs(low), np.abs(high))


def _labels(values: Iterable[Any], where: Callable[[int], str]) -> list[bool | int | str]:
    """Turn labels into Python values, whole floats into integers."""
    labels: list[bool | int | str] = []
    for i, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
        label = value.item() if isinstance(value, np.generic) else value
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if not isinstance(label, bool | int | str):
            raise DataError(
                f"{where(i)}: {label!r} is no class label: expected text, a bool or a whole number "
                "(a number to be predicted is a regression target)"
            )
        labels.append(label)
    return labels
