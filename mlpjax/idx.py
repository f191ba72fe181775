"""The idx format of MNIST, read with distrust, and the four MNIST files, verified and on request downloaded."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import math
import os
import urllib.request
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mlpjax.archives import MAX_RATIO, MAX_UNPACKED
from mlpjax.errors import DataError, listed
from mlpjax.files import open_file

MAX_BYTES = 2**30
"""No idx file may hold more."""
MAX_DOWNLOAD = 64 * 2**20
"""No download may be larger; the largest of MNIST is 10 MB."""
_CHUNK = 2**20

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of the *uncompressed* files: mirrors compress differently."""
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a file of unsigned bytes in the idx format, plain or compressed by gzip.

    The format: the bytes 0, 0, 8 (unsigned byte), the rank; then each dimension as a big-endian uint32; then
    the values in C order. The header is not believed: memory grows with what the file really holds, and at
    most `MAX_BYTES` are read, and of a packed file no more than `mlpjax.archives.MAX_UNPACKED` and ``MAX_RATIO`` allow.

    Returns:
        A uint8 array with the dimensions of the header.

    Raises:
        DataError: the file cannot be read or decompressed, is no idx file of unsigned bytes, or holds fewer or
            more bytes than its header says.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7]))
    ...     file.flush()
    ...     read_idx(file.name)
    array([5, 6, 7], dtype=uint8)
    """
    return _parse(path, _content(path))


def load_mnist(
    data_dir: str | None = None, *, download: bool = False
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Load MNIST: ``((x, y), (x_test, y_test))``, 60000 examples to train on and 10000 to test on.

    Every file is verified by its SHA-256 before it is used.

    Args:
        data_dir: the folder that holds the four files, or whose subfolder ``mnist`` does, each plain or as
            ``.gz``. ``None``: the environment variable ``MLPJAX_DATA_DIR``, else ``mlpjax`` in the user's cache.
        download: fetch the files that are missing into the subfolder ``mnist``; only then is the network used.

    Returns:
        The images, (m, 28, 28) uint8 in 0 … 255, and the digits, (m,) int32, of both parts.

    Raises:
        DataError: a file is missing, damaged, or not the one of MNIST; or no mirror delivered it.

    >>> load_mnist("/no/such/folder")
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: MNIST: train-images-idx3-ubyte(.gz) is not in /no/such/folder or ...
    """
    folder = data_folder(data_dir)
    parts = {}
    for name in MNIST_SHA256:
        path = _find(folder, name)
        if path is None and download:
            path = _download(name, folder / "mnist")
        if path is None:
            raise DataError(
                f"MNIST: {name}(.gz) is not in {folder} or {folder / 'mnist'}: give the folder of the four idx "
                "files with --data-dir DIR or MLPJAX_DATA_DIR, or fetch them with --download"
            )
        parts[name] = _verified(path, name)
    x, y, x_test, y_test = parts.values()
    return (x, y.astype(np.int32)), (x_test, y_test.astype(np.int32))


def data_folder(data_dir: str | None) -> Path:
    """Return the folder to look in: the one given, ``MLPJAX_DATA_DIR``, or ``mlpjax`` in the user's cache.

    Raises `DataError` for the home folder of a user who does not exist.

    >>> data_folder("/data").as_posix()
    '/data'
    """
    given = data_dir or os.environ.get("MLPJAX_DATA_DIR")
    if given:
        try:
            return Path(given).expanduser()
        except RuntimeError:
            raise DataError(f"{given}: there is no such user: give the folder by its whole path") from None
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "mlpjax"


def _find(folder: Path, name: str) -> Path | None:
    for place in (folder, folder / "mnist"):
        for path in (place / name, place / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def _verified(path: Path, name: str) -> np.ndarray:
    """Read one of the MNIST files, and refuse it if it is another file."""
    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != MNIST_SHA256[name]:
        raise DataError(
            f"{path}: is not MNIST's {name}: SHA-256 {digest}, expected {MNIST_SHA256[name]}; "
            "delete it and fetch it again with --download"
        )
    return _parse(path, content)


def _content(path: str | os.PathLike[str]) -> bytearray:
    """Read header and values, decompressed, and check that the file holds what its header says."""
    try:
        with open_file(path) as file:
            # by content: browsers decompress a download and keep its name
            compressed = file.peek(2)[:2] == b"\x1f\x8b"
            if not compressed:
                return _read_checked(path, file, MAX_BYTES)
            most = max(MAX_UNPACKED, MAX_RATIO * os.fstat(file.fileno()).st_size)
            with gzip.open(file) as stream:
                return _read_checked(path, stream, most)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is damaged gzip ({error}): fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error


def _read_checked(path: str | os.PathLike[str], stream: BinaryIO | gzip.GzipFile, most: int) -> bytearray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or magic[3] == 0:
        raise DataError(
            f"{path}: begins with the bytes {magic.hex(' ') or '(none)'}, an idx file of unsigned bytes begins "
            "with 00 00 08 and its rank: give an idx file"
        )
    header = magic + stream.read(4 * magic[3])
    if len(header) < 4 + 4 * magic[3]:
        raise DataError(f"{path}: ends within its header of {4 + 4 * magic[3]} bytes: fetch it again")
    shape = _shape(header)
    expected = math.prod(shape)
    if expected > MAX_BYTES:
        size = expected if expected < 2**64 else f"2^{expected.bit_length() - 1} or more"
        raise DataError(
            f"{path}: its header claims the shape ({listed(shape, 8)}), {size} bytes: at most {MAX_BYTES} are read; "
            "fetch it again"
        )
    content = bytearray(header)
    end = len(header) + expected + 1  # one byte more than expected, to see that it is not there
    while len(content) < end and (chunk := stream.read(min(_CHUNK, end - len(content)))):
        content += chunk
        if len(content) > len(header) + most + 1:
            raise DataError(f"{path}: is packed, and unpacks to more than {most:,} bytes: unpack it first, with gunzip")
    if len(content) != end - 1:
        got = f"only {len(content) - len(header)}" if len(content) < end else "more"
        raise DataError(
            f"{path}: its header claims the shape {shape}, {expected} bytes, and {got} follow: fetch it again"
        )
    return content


def _shape(header: bytes | bytearray) -> tuple[int, ...]:
    return tuple(int.from_bytes(header[4 + 4 * k : 8 + 4 * k], "big") for k in range(header[3]))


def _parse(path: str | os.PathLike[str], content: bytearray) -> np.ndarray:
    """Make the array of a checked content, without a copy."""
    shape = _shape(content)
    try:
        return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except ValueError as error:
        raise DataError(f"{path}: its header claims the shape {shape}: {error}") from error


def _download(name: str, folder: Path) -> Path:
    """Fetch one file from the first mirror that delivers the right content, and return where it lies."""
    target = folder / f"{name}.gz"
    part = folder / f"{name}.gz.{os.getpid()}.part"
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}): give another --data-dir") from error
    for mirror in MNIST_MIRRORS:
        try:
            _fetch(f"{mirror}{name}.gz", part)
            _verified(part, name)
            os.replace(part, target)
            return target
        except (OSError, http.client.HTTPException, DataError) as error:
            failures.append(f"{mirror}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise DataError(
        f"MNIST: {name}.gz could not be downloaded to {folder} ({'; '.join(failures)}): check the network, or get "
        "the four idx files by other means and give their folder with --data-dir DIR"
    )


def _fetch(url: str, path: Path) -> None:
    """Write what the address delivers to a file, up to `MAX_DOWNLOAD` bytes."""
    size = 0
    with urllib.request.urlopen(url, timeout=30) as response, open(path, "wb") as file:
        while chunk := response.read(_CHUNK):
            size += len(chunk)
            if size > MAX_DOWNLOAD:
                raise DataError(f"more than {MAX_DOWNLOAD} bytes")
            file.write(chunk)
