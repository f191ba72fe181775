"""The user's own NPZ files: opened safely, and their arrays read into features and raw target columns.

Every error is one line that names the file, the array, the row (from 0) where there is one, and what to do.
"""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.npyio import NpzFile

from mlpjax.errors import DataError, listed
from mlpjax.finite import check_finite
from mlpjax.tables import Table


def read_npz(path: str | os.PathLike[str], targets: Sequence[str] = ()) -> Table:
    """Read the arrays ``x`` and ``y`` (or ``X``, ``Y``) of an ``.npz`` file, never running code from it.

    ``x`` is (m, …) numbers and is flattened to (m, n0). ``y`` is (m,), or (m, n_L) for n_L targets, which are
    then named ``y[0]``, ``y[1]``, …. Arrays ``x_test`` and ``y_test`` are the test part.

    Args:
        path: the file.
        targets: other arrays to use as ``y``, or one column of such an array: ``labels``, ``y[1]``.

    Raises:
        DataError: the file is damaged, holds Python objects, lacks an array, or the arrays do not fit.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "own.npz")
    ...     np.savez(path, x=np.eye(2), y=np.array(["cat", "dog"]))
    ...     table = read_npz(path)
    >>> table.targets, table.x.tolist(), table.y[0].tolist()
    (('y',), [[1.0, 0.0], [0.0, 1.0]], ['cat', 'dog'])
    """
    path = os.fspath(path)
    with open_npz(path) as archive:
        return _read_archive(path, archive, targets)


@contextlib.contextmanager
def open_npz(path: str | os.PathLike[str]) -> Iterator[NpzFile]:
    """Open an ``.npz`` file; nothing in it is unpickled. Its arrays come by `read_array`.

    Raises:
        DataError: the file cannot be read, or is not a whole ``.npz``.

    >>> with open_npz("README.md"):
    ...     pass
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: README.md: is no .npz file, or a damaged one: write it with numpy.savez
    """
    path = os.fspath(path)
    no_npz = DataError(f"{path}: is no .npz file, or a damaged one: write it with numpy.savez")
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise no_npz
            file.seek(0)
            try:
                archive = np.load(file, allow_pickle=False)
            except (ValueError, NotImplementedError, zipfile.BadZipFile):
                raise no_npz from None
            with archive:
                yield archive
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error


def read_array(path: str, archive: NpzFile, key: str) -> np.ndarray:
    """Read one array of an open ``.npz`` file; ``path`` is for the message.

    Raises:
        DataError: there is no such array, or it is damaged or holds Python objects.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "own.npz")
    ...     np.savez(path, x=np.arange(3))
    ...     with open_npz(path) as archive:
    ...         read_array(str(path), archive, "x")
    array([0, 1, 2])
    """
    if key not in archive:
        raise DataError(f"{path}: has no array {key!r}; it holds: {listed(archive) or 'nothing'}")
    try:
        # a member that is no .npy comes as bytes
        return np.asarray(archive[key])
    except (ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: the array {key!r} cannot be read ({error}); it holds: {listed(archive)}; "
            "write plain arrays with numpy.savez"
        ) from error


def _read_archive(path: str, archive: NpzFile, targets: Sequence[str]) -> Table:
    key = "X" if "X" in archive and "x" not in archive else "x"
    x, image_shape = _npz_x(path, archive, key)
    names = tuple(targets) or (("Y",) if "Y" in archive and "y" not in archive else ("y",))
    y, labels = _npz_y(path, archive, names, "", len(x))
    test = None
    if f"{key}_test" in archive or any(f"{_base(name)}_test" in archive for name in names):
        x_test, _ = _npz_x(path, archive, f"{key}_test")
        y_test, _ = _npz_y(path, archive, names, "_test", len(x_test))
        if x_test.shape[1] != x.shape[1] or len(y_test) != len(y):
            raise DataError(
                f"{path}: {key} has {x.shape[1]} features and {len(y)} targets, {key}_test has "
                f"{x_test.shape[1]} and {len(y_test)}: store both parts alike"
            )
        test = x_test, y_test
    return Table(path=path, x=x, y=y, features=None, targets=labels, test=test, image_shape=image_shape)


def _npz_x(path: str, archive: NpzFile, key: str) -> tuple[np.ndarray, tuple[int, ...] | None]:
    x = read_array(path, archive, key)
    if x.dtype.kind not in "biuf" or x.ndim < 2 or x.size == 0:
        raise DataError(f"{path}: {key} has the shape {x.shape} of {x.dtype}: expected numbers (examples, features)")
    image_shape = x.shape[1:] if x.ndim == 3 else None
    x = x.reshape(len(x), -1)
    check_finite(x, f"{path}: {key}")
    return x if x.dtype == np.uint8 else x.astype(np.float32), image_shape


def _npz_y(
    path: str, archive: NpzFile, names: Sequence[str], suffix: str, m: int
) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    """Return the target columns and their names."""
    columns: dict[str, np.ndarray] = {}
    for name in names:
        base = _base(name)
        key = base + suffix
        y = read_array(path, archive, key)
        if y.dtype.kind not in "biufU" or y.ndim not in (1, 2) or len(y) != m or y.size == 0:
            raise DataError(
                f"{path}: {key} has the shape {y.shape} of {y.dtype}: expected numbers or text, ({m},) or "
                f"({m}, targets), for the {m} rows of x{suffix}"
            )
        check_finite(y, f"{path}: {key}")
        y = y.astype(object) if y.dtype.kind == "U" else y
        if name != base:
            j = int(name[len(base) + 1 : -1])
            if y.ndim == 1 or j >= y.shape[1]:
                raise DataError(f"{path}: {key} has the shape {y.shape}, and no column {j}: columns count from 0")
            columns[name] = y[:, j]
        elif y.ndim == 2 and y.shape[1] != 1:
            columns |= {f"{name}[{j}]": y[:, j] for j in range(y.shape[1])}
        else:
            columns[name] = y.reshape(m)
    return tuple(columns.values()), tuple(columns)


def _base(name: str) -> str:
    """Return the array of a target: ``y`` of ``y[1]``."""
    return re.sub(r"\[\d+\]$", "", name)
