"""Class labels: numbering them, weighing the classes, and a hold-out split that keeps their shares.

NumPy only. y is (m,) class indices 0 … K−1, as everywhere in mlpjax.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpjax.errors import DataError, listed


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


def sample_weights(
    y: np.ndarray, class_weight: Sequence[float] | np.ndarray, dtype: npt.DTypeLike = np.float32
) -> np.ndarray:
    """Return the weight of each example, ``class_weight[y[i]]``, (m,) of ``dtype``.

    >>> sample_weights(np.array([0, 1, 1]), [0.5, 2.0])
    array([0.5, 2. , 2. ], dtype=float32)
    """
    weight = np.asarray(class_weight, dtype=dtype)
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
        rows = np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1])
        parts = [rng.permutation(own)[:n] for own, n in zip(rows, shares, strict=True)]
        held = np.sort(np.concatenate(parts))
    else:
        held = np.sort(rng.permutation(m)[:total])
    return np.setdiff1d(np.arange(m), held, assume_unique=True), held


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
    missing = int(total - held.sum())
    step, limit = (1, most) if missing > 0 else (-1, least)
    # the class that is furthest from its quota, and of several the first
    waiting = [(step * (held[c] - quota[c]), c) for c in np.flatnonzero(held != limit)]
    heapq.heapify(waiting)
    for _ in range(abs(missing)):
        c = heapq.heappop(waiting)[1]
        held[c] += step
        if held[c] != limit[c]:
            heapq.heappush(waiting, (step * (held[c] - quota[c]), c))
    return held


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
