"""Sealed files: a plain, uncompressed NumPy ``.npz`` with a JSON header, whose every byte is under a SHA-256.

The header is the uint8 array ``header`` and lists the other arrays. The archive's comment, the last bytes of the
file, is the SHA-256 of **every byte before the digest**; a zip by itself checks its members only, so that flipped
bits in its directory pass. Nothing is pickled and nothing in a file is run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mlpjax.archives import npy_bytes
from mlpjax.errors import InputError
from mlpjax.files import open_file
from mlpjax.memory import machine_bytes

_DIGEST_TAG = b"mlpjax-sha256:"
_DIGEST_LENGTH = 64
_TAIL = len(_DIGEST_TAG) + _DIGEST_LENGTH
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The earliest date a zip knows: the same content gives the same bytes at any time."""


class Kind(NamedTuple):
    """A kind of sealed file: what it is called, the format and version in its header, who writes it, its error."""

    name: str
    format: str
    version: int
    writer: str
    remedy: str
    error: type[InputError]


def seal(kind: Kind, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of a sealed file.

    Raises:
        InputError: if the header is not plain JSON.

    >>> kind = Kind("note", "mlpjax note", 1, "this example", "write it again", InputError)
    >>> unseal(kind, seal(kind, {"words": "ha"}, {"a": np.arange(3)}), "note.npz")
    ({'words': 'ha'}, {'a': array([0, 1, 2])})
    """
    listed = {name: [list(array.shape), array.dtype.name] for name, array in arrays.items()}
    whole = {"format": kind.format, "format_version": kind.version, **header, "arrays": listed}
    try:
        text = json.dumps(whole, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the header of a {kind.name} is plain JSON: {error}") from None
    return pack({"header": np.frombuffer(text.encode(), np.uint8), **arrays})


def read_sealed(kind: Kind, path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a file as `unseal` does, but not one that is none by its last bytes, or that memory could not hold twice.

    Raises:
        InputError: ``kind.error`` for anything but a whole file of this kind.
        OSError: if the file cannot be read.

    >>> kind = Kind("note", "mlpjax note", 1, "this example", "write it again", InputError)
    >>> read_sealed(kind, "README.md")
    Traceback (most recent call last):
        ...
    mlpjax.errors.InputError: README.md: not a note, or one that was cut short: it does not end with a digest; ...
    """
    name = os.fspath(path)
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(-min(size, _TAIL), os.SEEK_END)
        _check_tag(kind, file.read(_TAIL), name)
        memory = machine_bytes()
        if memory is not None and 2 * size > memory:
            raise kind.error(
                f"{name}: has {size / 1e9:,.0f} GB, of which two copies are needed: this machine has "
                f"{memory / 1e9:,.0f} GB; read it on one with more memory"
            )
        file.seek(0)
        return unseal(kind, file.read(), name)


def unseal(kind: Kind, content: bytes, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the arrays of a sealed file, after checking every byte of it against its digest.

    ``name`` is the file's, for messages. Raises ``kind.error`` for any other content.
    """
    _check_tag(kind, content[-_TAIL:], name)
    if hashlib.sha256(memoryview(content)[:-_DIGEST_LENGTH]).hexdigest().encode() != content[-_DIGEST_LENGTH:]:
        raise kind.error(f"{name}: damaged: its bytes do not match its SHA-256; {kind.remedy}")
    with usable(kind, name):
        arrays = _unpack(kind, content)
        header = json.loads(arrays.pop("header").tobytes())
        got = header.pop("format"), header.pop("format_version")
        if got != (kind.format, kind.version):
            raise kind.error(
                f"format {got[0]!r}, version {got[1]!r}: this mlpjax reads {kind.format!r}, version {kind.version}; "
                "a newer mlpjax may read it"
            )
        listed = {key: [list(array.shape), array.dtype.name] for key, array in arrays.items()}
        if listed != header.pop("arrays"):
            raise kind.error("its arrays are not those that its header lists")
        return header, arrays


@contextlib.contextmanager
def usable(kind: Kind, name: str) -> Iterator[None]:
    """Word whatever the body raises about the content of a file as ``kind.error``."""
    try:
        yield
    except Exception as error:
        # made up and sealed: zipfile, numpy, json and Config raise a dozen kinds of errors
        reason = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise kind.error(f"{name}: not a {kind.name} that mlpjax can use: {reason}") from None


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of an ``.npz`` that ends with the digest of all bytes before it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EARLIEST), "w", force_zip64=True) as member:
                # not ascontiguousarray, which makes a number a vector
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
        archive.comment = _DIGEST_TAG + b"0" * _DIGEST_LENGTH
    # without a copy of all: a checkpoint may be large
    digest = hashlib.sha256(buffer.getbuffer()[:-_DIGEST_LENGTH]).hexdigest().encode()
    buffer.seek(-_DIGEST_LENGTH, io.SEEK_END)
    buffer.write(digest)
    return buffer.getvalue()


def _check_tag(kind: Kind, tail: bytes, name: str) -> None:
    if not tail.startswith(_DIGEST_TAG):
        raise kind.error(
            f"{name}: not a {kind.name}, or one that was cut short: it does not end with a digest; "
            f"expected a file that {kind.writer} wrote"
        )


def _unpack(kind: Kind, content: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        # compressed or overlapping members could unpack to any size
        if sum(member.file_size for member in members) > len(content):
            raise kind.error("its members are larger than the file")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or not member.filename.endswith(".npy"):
                raise kind.error(f"unexpected member {member.filename!r}")
            with archive.open(member) as stream:
                # NumPy takes the memory that a header asks for before it reads
                if npy_bytes(stream) > member.file_size:
                    raise kind.error(f"{member.filename!r} is longer by its header than the file")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
