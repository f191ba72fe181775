"""Changes of zip archives of arrays for `fuzz.py`: user's data, gradient files, and files sealed by a SHA-256."""

from __future__ import annotations

import hashlib
import io
import random
import warnings
import zipfile

import numpy as np
from fuzz_inputs import change_json, change_npy, integer, scrambled

TAG = b"mlpjax-sha256:"
NAMES = (
    "x.npy", "y.npy", "X.npy", "x_test.npy", "y_test.npy", "W1.npy", "W2.npy", "dW1.npy", "config.npy", "seed.npy",
    "key.npy", "train.npy", "W999999.npy", "header.npy", "params/1/W.npy", "params/9/W.npy", "state/1/mean.npy",
    "now/step.npy", "history/epoch.npy", "../x.npy", "/x.npy", "..\\x.npy", "x", "", ".npy", "a\nb.npy", "\x1b[2J.npy",
    "a" * 60_000 + ".npy", "ä.npy", "x.npy/", "\0.npy",
)  # fmt: skip
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
FIELDS = (6, 8, 10, 12, 14, 16, 20, 24, 28, 30, 32, 34, 42)
"""Where the fields of an entry in a zip's directory begin."""

Members = list[tuple[str, bytes, int]]


def change_archive(data: bytes, rng: random.Random) -> bytes:
    """Change the members of an archive, its directory, or its bytes."""
    members = _members(data)
    if members is None or rng.random() < 0.15:
        return scrambled(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change_member(members, rng)
    packed = pack(members)
    return _change_directory(packed, rng) if rng.random() < 0.2 else packed


def change_sealed(data: bytes, rng: random.Random) -> bytes:
    """Change a sealed file, and mostly seal it again."""
    changed = change_archive(data, rng)
    return changed if rng.random() < 0.05 else resealed(changed)


def resealed(data: bytes) -> bytes:
    """Make the digest right, with which a sealed file ends."""
    end = data.rfind(b"PK\x05\x06")
    if not data[:-64].endswith(TAG) and end >= 0:
        # the archive's comment, and its length
        data = data[: end + 20] + (len(TAG) + 64).to_bytes(2, "little") + TAG + b"0" * 64
    return data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()


def pack(members: Members) -> bytes:
    """An archive of ``(name, content, method)``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        for name, content, method in members:
            info = zipfile.ZipInfo(name[:60_000])
            info.filename, info.compress_type = name[:60_000], method
            archive.writestr(info, content)
    return buffer.getvalue()


def _members(data: bytes) -> Members | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if not infos or sum(info.file_size for info in infos) > 2**24:
                return None
            return [(info.filename, archive.read(info), info.compress_type) for info in infos]
    except Exception:  # an archive that was changed before
        return None


def _change_member(members: Members, rng: random.Random) -> None:
    at, kind = rng.randrange(len(members)), rng.randrange(10)
    name, content, method = members[at]
    if kind < 4:
        members[at] = name, _change_content(name, content, rng), method
    elif kind == 4:
        members[at] = rng.choice((*NAMES, rng.choice(members)[0])), content, method
    elif kind == 5:
        members[at] = name, content, rng.choice(METHODS)
    elif kind == 6:
        members[at] = name, rng.choice(members)[1], method
    elif kind == 7:
        members.insert(at, (rng.choice((name, *NAMES)), content, method))
    elif kind == 8 and len(members) > 1:
        del members[at]
    else:
        # text has JSON in it, where most is decided
        for i, (name, content, method) in enumerate(members):
            if name in ("header.npy", "config.npy"):
                members[i] = name, _change_content(name, content, rng), method


def _change_content(name: str, content: bytes, rng: random.Random) -> bytes:
    if name in ("header.npy", "config.npy") and rng.random() < 0.9:
        try:
            array = np.load(io.BytesIO(content), allow_pickle=False)
            old = array.tobytes() if array.dtype == np.uint8 else str(array.item()).encode()
        except Exception:  # a content that was changed before
            return scrambled(content, rng)
        new = change_json(old, rng)
        buffer = io.BytesIO()
        as_text = np.array(new.decode("utf-8", "replace"))
        np.save(buffer, np.frombuffer(new, np.uint8) if array.dtype == np.uint8 else as_text)
        return buffer.getvalue()
    return change_npy(content, rng)


def _change_directory(data: bytes, rng: random.Random) -> bytes:
    """Let a field of an entry, or of the end of the directory, lie."""
    entries = [i for i in range(len(data) - 4) if data[i : i + 4] in (b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04")]
    at = rng.choice(entries) + rng.choice(FIELDS)
    if rng.random() < 0.3:
        return data[:at] + integer(data[at : at + 12], rng) + data[at + 12 :]
    value = rng.choice((0, 1, 8, 12, 14, 99, 0xFFFF, 0xFFFFFFFF, 2**31, len(data)))
    return data[:at] + (value % 2**32).to_bytes(4, "little") + data[at + 4 :]
