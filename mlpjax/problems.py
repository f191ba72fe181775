"""The record `Dataset`, and a table of columns posed as a problem: its head, its classes, its encoded targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mlpjax.config import HeadName
from mlpjax.errors import DataError, listed, unknown_name
from mlpjax.finite import check_finite
from mlpjax.labels import check_indices, encode_labels, encode_with
from mlpjax.tables import Table, is_number

MAX_INTEGER_CLASSES = 50
"""Integers with more distinct values than this are guessed to be a regression target, not class labels."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Examples with their targets, ready for a network but for the scaling of ``x``.

    Args:
        name: what was loaded.
        x: (m, n0) numbers, raw: see `mlpjax.preprocess.SCALERS`.
        y: for ``binary`` and ``multiclass`` the class indices (m,) int32; for ``multilabel`` (m, n_L) int32
            of 0 and 1; for regression (m, n_L) float32.
        head: the problem, one of `mlpjax.config.HeadName`.
        classes: the K labels that the indices stand for, or ``None``.
        features: the n0 names of the columns of ``x``, or ``None``.
        targets: the names of what is predicted.
        test: ``(x, y)`` of a predefined test part, or ``None``.
        image_shape: (height, width) where a row of ``x`` is an image.

    Raises:
        DataError: ``x`` and ``y`` do not fit each other, or ``x`` has a value that is not finite.

    >>> Dataset(name="two", x=np.eye(2), y=np.array([0, 1]), head="binary", classes=(0, 1)).x.shape
    (2, 2)
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    head: str
    classes: tuple[Any, ...] | None = None
    features: tuple[str, ...] | None = None
    targets: tuple[str, ...] = ("y",)
    test: tuple[np.ndarray, np.ndarray] | None = None
    image_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.head not in get_args(HeadName):
            raise DataError(unknown_name("head", self.head, get_args(HeadName)))
        for part, (x, y) in {"": (self.x, self.y), "test ": self.test or (self.x, self.y)}.items():
            rank = 1 if self.head in ("binary", "multiclass") else 2
            if x.ndim != 2 or y.ndim != rank or len(x) != len(y) or x.shape[1] != self.x.shape[1]:
                raise DataError(
                    f"{self.name}: {part}x has the shape {x.shape} and {part}y {y.shape}: head {self.head!r} "
                    f"expects x (examples, features) and y of rank {rank} with one row per example"
                )
            check_finite(x, f"{self.name}: {part}x")
            if rank == 1:
                if self.classes is None or len(self.classes) < 2:
                    raise DataError(f"{self.name}: head {self.head!r} needs the labels of its classes, at least two")
                check_indices(y, len(self.classes))


def n_outputs(dataset: Dataset) -> int:
    """Return n_L, the output width that the data set needs: 1 for binary, K for multiclass, else a unit per target.

    >>> n_outputs(mlpjax.load_dataset("circle")), n_outputs(mlpjax.load_dataset("circle", head="multiclass"))
    (1, 2)
    """
    if dataset.head == "binary":
        return 1
    if dataset.head == "multiclass":
        return len(dataset.classes or ())
    return int(dataset.y.shape[1])


def from_table(table: Table, head: str | None, classes: Sequence[Any] | None = None) -> Dataset:
    """Encode the targets for the head, which is guessed if ``None``, by the classes, which are found if ``None``."""
    head = head or _guess_head(table.y)
    if head in ("binary", "multiclass"):
        if len(table.y) != 1:
            raise DataError(
                f"{table.path}: head {head!r} has one target column, got {len(table.y)} ({listed(table.targets)}): "
                "give one target, or use head 'multilabel' or 'regression'"
            )
        if classes is None:
            classes = _find_classes(table, head)
    else:
        classes = None
    y = _encode(table.y, table.targets, head, classes, table.where)
    test = None
    if table.test is not None:
        where = f"{table.path}, test row {{}} (from 0)".format
        test = table.test[0], _encode(table.test[1], table.targets, head, classes, where)
    return Dataset(
        name=Path(table.path).name,
        x=table.x,
        y=y,
        head=head,
        classes=None if classes is None else tuple(classes),
        features=table.features,
        targets=table.targets,
        test=test,
        image_shape=table.image_shape,
    )


def with_head(dataset: Dataset, head: str) -> Dataset:
    """Pose another problem on the same examples: circle as two-class softmax, digits as regression."""

    def columns(y: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(y.T) if dataset.classes is None else (np.array(dataset.classes)[y],)

    table = Table(
        path=dataset.name,
        x=dataset.x,
        y=columns(dataset.y),
        features=dataset.features,
        targets=dataset.targets,
        test=dataset.test and (dataset.test[0], columns(dataset.test[1])),
        image_shape=dataset.image_shape,
    )
    return from_table(table, head)


def _guess_head(columns: Sequence[np.ndarray]) -> str:
    if len(columns) == 1:
        column = columns[0]
        distinct = len(set(column.tolist()))
        if column.dtype.kind in "Ob" or (column.dtype.kind in "iu" and distinct <= MAX_INTEGER_CLASSES):
            return "binary" if distinct <= 2 else "multiclass"
        return "regression"
    if all(column.dtype.kind != "O" and np.isin(column, (0, 1)).all() for column in columns):
        return "multilabel"
    return "regression"


def _find_classes(table: Table, head: str) -> tuple[Any, ...]:
    """Return the sorted labels of the one target, as many as the head can tell apart."""
    classes = encode_labels(table.y[0], where=table.where)[1]
    target = f"{table.path}: target {table.targets[0]!r}"
    if len(classes) < 2:
        raise DataError(
            f"{target} has the single class {classes[0]!r}: give examples of at least two, or head 'regression'"
        )
    if head == "binary" and len(classes) > 2:
        raise DataError(
            f"{target} has {len(classes)} classes ({listed(classes)}), head 'binary' has 2: use head 'multiclass'"
        )
    return classes


def _encode(
    columns: Sequence[np.ndarray],
    names: Sequence[str],
    head: str,
    classes: Sequence[Any] | None,
    where: Callable[[int], str],
) -> np.ndarray:
    """Turn the raw target columns into the ``y`` of the head."""
    if head in ("binary", "multiclass"):
        return encode_with(columns[0], classes or (), where=where)
    for column, name in zip(columns, names, strict=True):
        if column.dtype.kind == "O":
            hint = "use head 'multiclass' or 'binary'" if len(columns) == 1 else "give numbers, or only this target"
            i = next((i for i, cell in enumerate(column) if not is_number(cell)), 0)
            raise DataError(f"{where(i)}: target {name!r} is text ({column[i]!r}), head {head!r} takes numbers: {hint}")
        if head == "multilabel":
            allowed, expected = np.isin(column, (0, 1)), "0 or 1, use head 'regression' for other numbers"
        elif head == "regression_relu":
            allowed, expected = column >= 0, "a number ≥ 0, use head 'regression' for negative ones"
        else:
            continue
        if not allowed.all():
            i = int(np.argmin(allowed))
            raise DataError(f"{where(i)}: target {name!r} is {column[i]}: head {head!r} expects {expected}")
    return np.stack(columns, axis=1).astype(np.int32 if head == "multilabel" else np.float32)
