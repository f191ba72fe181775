"""Data sets: the table of built-in sets, the one way to load either those or a file, and their split into parts."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mlpjax.archives import read_npz
from mlpjax.config import HeadName
from mlpjax.errors import DataError, listed, unknown_name
from mlpjax.idx import load_mnist
from mlpjax.labels import stratified_split
from mlpjax.problems import Dataset, from_table, with_head
from mlpjax.tables import Table, read_csv
from mlpjax.toys import GATES, TOYS, gate


def load_digits() -> Dataset:
    """Load the 1797 digits of 8×8 pixels, 0 … 16, that come with scikit-learn, which itself is not imported.

    Raises:
        DataError: scikit-learn is not installed, or its file is not where it should be.

    >>> digits = load_digits()
    >>> digits.x.shape, digits.classes
    ((1797, 64), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("digits: scikit-learn, which ships them, is not installed: pip install scikit-learn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"digits: {path} cannot be read ({error}): install scikit-learn anew") from error
    return Dataset(
        name="digits",
        x=table[:, :64],
        y=table[:, 64].astype(np.int32),
        head="multiclass",
        classes=tuple(range(10)),
        targets=("digit",),
        image_shape=(8, 8),
    )


def _load_mnist(data_dir: str | None, download: bool, seed: int) -> Dataset:
    (x, y), (x_test, y_test) = load_mnist(data_dir, download=download)
    return Dataset(
        name="mnist",
        x=x.reshape(len(x), -1),
        y=y,
        head="multiclass",
        classes=tuple(range(10)),
        targets=("digit",),
        test=(x_test.reshape(len(x_test), -1), y_test),
        image_shape=x.shape[1:],
    )


def _load_toy(name: str, data_dir: str | None, download: bool, seed: int) -> Dataset:
    x, y = TOYS[name](seed=seed)
    head, classes = ("binary", (0, 1)) if y.ndim == 1 else ("regression", None)
    return Dataset(name=name, x=x, y=y, head=head, classes=classes, features=("x1", "x2"))


def _load_gate(name: str, data_dir: str | None, download: bool, seed: int) -> Dataset:
    x, y = gate(name)
    return Dataset(name=name, x=x, y=y, head="binary", classes=(0, 1), features=("x1", "x2"))


DATASETS: dict[str, Callable[[str | None, bool, int], Dataset]] = {
    "digits": lambda data_dir, download, seed: load_digits(),
    "mnist": _load_mnist,
    **{name: functools.partial(_load_toy, name) for name in TOYS},
    **{name: functools.partial(_load_gate, name) for name in GATES},
}
"""The built-in sets by name: ``(data_dir, download, seed) → Dataset``."""


def load_dataset(
    name_or_path: str | os.PathLike[str],
    *,
    targets: Sequence[str] = (),
    head: str | None = None,
    data_dir: str | None = None,
    download: bool = False,
    seed: int = 0,
) -> Dataset:
    """Load a data set of `DATASETS` by name, or the user's own ``.csv`` or ``.npz`` file.

    Without ``head`` the problem of a file is guessed. One target of text, bools, or integers with at most 50
    distinct values is ``binary`` (2 classes) or ``multiclass``; several targets of 0 and 1 only are
    ``multilabel``; all else is ``regression``.

    Args:
        name_or_path: a name, or a file (see `mlpjax.tables.read_csv` and `mlpjax.archives.read_npz`).
        targets: the target columns of a file.
        head: the problem, where it should not be guessed.
        data_dir: the folder of MNIST (see `mlpjax.idx.load_mnist`).
        download: fetch MNIST if it is missing.
        seed: of the generated sets.

    Raises:
        DataError: there is no such set or file, it cannot be read, or ``head`` contradicts it.

    >>> load_dataset("xor_gate").y
    array([0, 1, 1, 0], dtype=int32)
    >>> load_dataset("xorr")
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: unknown data set 'xorr': did you mean 'xor'? known: digits, ...
    """
    name = os.fspath(name_or_path)
    _check_head_name(head)
    if name in DATASETS:
        if targets:
            raise DataError(f"{name}: its target is fixed, got {', '.join(targets)}: targets are for files")
        dataset = DATASETS[name](data_dir, download, seed)
        return dataset if head in (None, dataset.head) else with_head(dataset, head)
    return from_table(_read(name, targets), head)


def load_for_model(
    name_or_path: str | os.PathLike[str],
    *,
    head: str,
    classes: Sequence[Any] | None,
    features: Sequence[str] | None,
    targets: Sequence[str] = (),
    data_dir: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Load data as a trained model saw its own: with the model's problem, classes and feature columns.

    The arguments are those of `load_dataset` and the fields ``head``, ``classes``, ``features`` and ``targets``
    of the `Dataset` that the model was trained on. Labels are numbered by ``classes``, however few of them
    occur; a CSV file is read by the names of the columns, in any order; ``targets`` are used for files only.

    Raises:
        DataError: as `load_dataset`; a label is not among ``classes``, or the features are not the model's.

    >>> load_for_model("circle", head="binary", classes=(0, 1), features=("x1", "x2"), seed=1).name
    'circle'
    """
    name = os.fspath(name_or_path)
    if name in DATASETS:
        dataset = load_dataset(name, head=head, data_dir=data_dir, seed=seed)
        if classes is not None and dataset.classes is not None and tuple(classes) != dataset.classes:
            raise DataError(f"{name}: has the classes {listed(dataset.classes)}, the model {listed(classes)}")
    else:
        _check_head_name(head)
        # a file without the odd label that made the model's classes text must not become numbers
        text = any(isinstance(label, str) for label in classes or ())
        dataset = from_table(_read(name, targets, features, text), head, classes)
    if features is None:
        return dataset
    if dataset.x.shape[1] != len(features):
        raise DataError(f"{name}: has {dataset.x.shape[1]} features, the model was trained on {len(features)}")
    if dataset.features is not None and dataset.features != tuple(features):
        raise DataError(
            f"{name}: has the features {listed(dataset.features)}, the model was trained on {listed(features)}"
        )
    return dataset


def split_dataset(
    dataset: Dataset, test_fraction: float, valid_fraction: float, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Cut a data set into its parts ``{"train": (x, y), "test": …}`` and, if wanted, ``"valid"``.

    A test part of the set's own is kept. Four rows of a truth table cannot be split: a logic gate is tested on what
    it was trained on. The fractions are cut at random by ``seed``, class by class.

    >>> {name: len(y) for name, (x, y) in split_dataset(load_digits(), 0.2, 0.1, seed=0).items()}
    {'train': 1294, 'test': 359, 'valid': 144}
    """
    parts = {"train": (dataset.x, dataset.y)}
    if dataset.test is not None:
        parts["test"] = dataset.test
    elif dataset.name in GATES:
        parts["test"] = parts["train"]
    else:
        keep, held = stratified_split(dataset.y, test_fraction, seed)
        parts = {"train": (dataset.x[keep], dataset.y[keep]), "test": (dataset.x[held], dataset.y[held])}
    if valid_fraction > 0:
        x, y = parts["train"]
        keep, held = stratified_split(y, valid_fraction, seed)
        parts |= {"train": (x[keep], y[keep]), "valid": (x[held], y[held])}
    return parts


def _check_head_name(head: str | None) -> None:
    if head is not None and head not in get_args(HeadName):
        raise DataError(unknown_name("head", head, get_args(HeadName)))


def _read(name: str, targets: Sequence[str], features: Sequence[str] | None = None, text: bool = False) -> Table:
    """Read a file by its suffix; an existing file with another suffix is taken for CSV."""
    suffix = Path(name).suffix.lower()
    if suffix not in (".csv", ".tsv", ".txt", ".npz") and not os.path.isfile(name):
        raise DataError(unknown_name("data set", name, DATASETS) + "; or a path to a .csv or .npz file")
    if suffix == ".npz":
        return read_npz(name, targets)
    return read_csv(name, targets, features=features, text_targets=text)
