"""Opening files that end, writing a file so that it is there whole or not at all, and JSON that any reader takes."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Any

TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp")
"""The names of the files through which `atomic_write` writes; one that stays was left by a crash."""


def json_text(value: Any) -> str:
    r"""Write plain values as JSON; it has no NaN or infinity, so those become null.

    >>> json_text({"loss": float("nan")})
    '{\n "loss": null\n}\n'
    """
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def open_file(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file to read its bytes.

    A pipe could let the reader wait for ever, and a device need not end: both are refused by an `OSError`, as is what
    cannot be read.

    >>> open_file("/dev/null")
    Traceback (most recent call last):
        ...
    OSError: [Errno 22] is not a regular file: '/dev/null'
    """
    path = os.fspath(path)
    # else opening a pipe waits for its writer; Windows has no such flag, and needs the other one
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is not a regular file", path)
    except OSError:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it, flushed and then renamed.

    A crash, a full disk or a Ctrl-C leaves the old file, or none; never half of the new one. A link is followed,
    not replaced. Raises `OSError`, also where something other than a file is in the way (a folder, a device).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     atomic_write(Path(folder, "a.txt"), b"whole")
    ...     sorted(os.listdir(folder))
    ['a.txt']
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        # a superuser's rename would replace even /dev/null
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    # not longer than the name itself may be
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp")
    try:
        # os.open, not tempfile: the file gets the permissions of any new file
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
