"""The user's own NPZ files: opened safely, and their arrays read into features and raw target columns.

Every error is one line that names the file, the array, the row (from 0) where there is one, and what to do.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.lib.npyio import NpzFile

from mlpjax.errors import DataError, listed
from mlpjax.files import open_file
from mlpjax.finite import check_finite
from mlpjax.tables import Table

MAX_UNPACKED, MAX_RATIO = 2**26, 20
"""Arrays may take so many bytes together, or so many times what the file has: kilobytes can unpack to any size."""


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
        DataError: the file cannot be read, is not a whole ``.npz``, or unpacks to more than `MAX_UNPACKED` and
            `MAX_RATIO` allow.

    >>> with open_npz("README.md"):
    ...     pass
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: README.md: is no .npz file, or a damaged one: write it with numpy.savez
    """
    path = os.fspath(path)
    no_npz = DataError(f"{path}: is no .npz file, or a damaged one: write it with numpy.savez")
    try:
        with open_file(path) as file:
            try:
                # what begins as another format and ends as a zip is no NpzFile to numpy
                if file.read(2) != b"PK" or not zipfile.is_zipfile(file):
                    raise no_npz
                file.seek(0)
                archive = np.load(file, allow_pickle=False)
            except Exception:  # made up: zipfile raises a dozen kinds of errors
                raise no_npz from None
            with archive:
                _check_members(path, archive.zip, os.fstat(file.fileno()).st_size)
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
        with warnings.catch_warnings():
            # a header as Python 2 wrote it
            warnings.simplefilter("ignore")
            _check_length(archive, key)
            # a member that is no .npy comes as bytes
            array = np.asarray(archive[key])
            _check_text(array)
            return array
    except Exception as error:  # made up: zipfile, zlib, ast and numpy raise a dozen kinds of errors
        raise DataError(
            f"{path}: the array {key!r} cannot be read ({error}); it holds: {listed(archive)}; "
            "write plain arrays with numpy.savez"
        ) from error


def npy_bytes(stream: IO[bytes]) -> int:
    """How many bytes of values follow the header of an ``.npy`` file, by what it says; no memory is taken for them.

    The stream stands behind the header then. Raises what `numpy.lib.format` raises for a header that is none.

    >>> import io
    >>> np.save(stream := io.BytesIO(), np.eye(2))
    >>> _ = stream.seek(0)
    >>> npy_bytes(stream), len(stream.read())
    (32, 32)
    """
    version = np.lib.format.read_magic(stream)
    # those of version 3 differ in the encoding of names, which say nothing of the size
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return math.prod(shape) * dtype.itemsize


def _check_members(path: str, archive: zipfile.ZipFile, size: int) -> None:
    """Refuse a small file that unpacks to a large one, before anything is unpacked."""
    members = archive.infolist()
    for member in members:
        # bzip2 and lzma unpack without a limit
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{path}: {member.filename!r} is compressed as numpy does not: write it with numpy.savez")
    unpacked, most = sum(member.file_size for member in members), max(MAX_UNPACKED, MAX_RATIO * size)
    if unpacked > most:
        raise DataError(
            f"{path}: has {size:,} bytes, which unpack to {unpacked:,}: expected at most {most:,}; "
            "write it uncompressed, with numpy.savez"
        )


def _check_text(array: np.ndarray) -> None:
    """Refuse numbers that are no characters, which would end in a SystemError where Python makes text of them."""
    if array.dtype.kind == "U" and array.dtype.itemsize:
        codes = np.frombuffer(array.tobytes(), np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError(f"it has the character number {codes.max()}, and there is none")


def _check_length(archive: NpzFile, key: str) -> None:
    """Refuse an array that is longer by its header than the file is, before memory is taken for it."""
    members: Any = archive.zip
    member = members.NameToInfo.get(key) or members.NameToInfo[f"{key}.npy"]
    with members.open(member) as stream:
        if stream.read(6) == np.lib.format.MAGIC_PREFIX:
            stream.seek(0)
            claimed = npy_bytes(stream)
            if claimed > (got := member.file_size - stream.tell()):
                raise ValueError(f"its header says {claimed:,} bytes, and {got:,} follow")


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
