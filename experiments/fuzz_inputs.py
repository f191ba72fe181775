"""Inputs for `fuzz.py`: bytes, and how to change them with the structure of their format in mind.

Every change is a function ``(data, rng) -> bytes``. What lies behind a check, such as a digest, is reached because the
check is made right again after the change.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
import zlib

MOST_BYTES = 2**16
"""A packed file is changed in its first so many bytes."""

NUMBERS = (
    "0", "-0", "1", "-1", "1.5", "nan", "inf", "-inf", "1e400", "1e-400", "3.4e38", "3.5e38", "0x10", "1_000", "١٢",
    "²", "9223372036854775807", "-9223372036854775808", "1" * 25, "0" * 5000 + "1", "9" * 5000, "+1", "--1", ".5",
    "5.", "1e",
)  # fmt: skip
WORDS = (
    "", " ", "yes", "no", "True", "a", "y", "x", '"', '""', '"\n"', "\n", "\r", "\r\n", "\0", "\ufeff", "\x1b[2J", "ä",
    "\u2028", "\ud7ff", "a" * 200_000, ",", ";", "\t", "'", "\\", "\x85", "é" * 50,
)  # fmt: skip
DESCRS = (
    "'<f8'", "'<f4'", "'>f2'", "'<f16'", "'|u1'", "'<i8'", "'>u8'", "'?'", "'<c16'", "'|O'", "'<U4'", "'<U1'", "'<U0'",
    "'>U0'", "'|S3'", "'|S0'", "'V0'", "'|V8'", "'<M8[ns]'", "'m8'", "'<U999999999999'", "'<f7'", "'\\d'", "''",
    "None", "1", "()", "[]", "[()]", "[(1,)]", "('<f4', (2, 3))", "('<f4', (1099511627776,))", "('<f4', -1)",
    "{'a': 'f4'}", "[('a', '<f4'), ('b', '<U2')]", "[('a', 'O')]", "[('', '|V4'), ('x', '<f4')]",
    "[('a', '<f4', 10**9)]", "b'<f4'", "[('a\\n', '<f4')]", "'<f8,'", "'<f8,O'", "['<f4']",
)  # fmt: skip
SHAPES = (
    "()", "(1,)", "(2,)", "(3,)", "(4,)", "(0,)", "(3, 2)", "(4, 3)", "(2, 3, 4)", "(-1,)", "(-2, -3)",
    "(0, 1099511627776)", "(1099511627776,)", "(1099511627776, 8)", "(4294967296, 4294967296)",
    "(4294967296, 4294967297)", "(True,)", "(3L,)", "(18446744073709551616,)", "(9223372036854775807, 3)", "(3.0,)",
    "('3',)", "[3]", "3", "None", "(" + "1, " * 70 + ")", "(1e3,)", "(" + "9" * 5000 + ",)",
)  # fmt: skip
HEADERS = (
    "", "{", "1", "{}", "(" * 200, "[" * 9000, "-" * 9000 + "1", "{[]: 1}", "{1: 2, 'a': 3}", "'''", "a\n b",
    "\n   1\n 2", "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n  x",
    "{'descr': '<f8', 'fortran_order': False}", "\0", "{'descr': '<f8', 'fortran_order': 1, 'shape': (3,)}",
    "__import__('os').mkdir('sprung')", "{**{}}", " " * 20_000,
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'shape': (4,)}", "0" * 4999 + "1", "f'{1}'", "9" * 5000,
)  # fmt: skip
JSON = (
    "null", "true", "false", "0", "-1", "1.5", "NaN", "Infinity", "-Infinity", "1e400", "1e999999", "9" * 5000,
    "2147483648", "1" + "0" * 40, '""', '"relu"', '"tanh"', '"\\ud800"', '"\\u0000"', '"a\\nb\\u001b[2J"', "[]", "{}",
    "[1]", '{"a": 1}', "[" * 300 + "]" * 300, "[" * 990 + "]" * 990, "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900,
    '"' + "a" * 50_000 + '"', "[" + "1," * 5000 + "1]", "[3, 2]", "[4, 4, 1]", '["relu", "tanh"]', "[0.1, null]",
)  # fmt: skip


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip a few bits."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Leave a slice out, mostly the end."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:a] if rng.random() < 0.5 else data[:a] + data[b:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """Repeat a slice, or put it elsewhere."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[a:b] * rng.choice((1, 1, 2, 10)) + data[at:]


def integer(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a few bytes by an integer that is at a limit."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1, len(data)))
    word = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))
    at = rng.randrange(max(1, len(data) - size))
    return data[:at] + word + data[at + size :]


def scrambled(data: bytes, rng: random.Random) -> bytes:
    """Change bytes of which nothing is known."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice((flip, flip, cut, repeat, integer))(data, rng)
    return data


def change_idx(data: bytes, rng: random.Random) -> bytes:
    """Change what an idx file says of itself, or what it holds, packed or not."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = zlib.decompressobj(31).decompress(data, MOST_BYTES)
        except zlib.error:
            return scrambled(data, rng)
    if rng.random() < 0.5:
        rank = rng.choice((0, 1, 2, 3, 4, 255))
        sizes = [rng.choice((0, 1, 2, 3, 28, 2**16, 2**31, 2**32 - 1)) for _ in range(rank)]
        data = bytes([0, 0, rng.choice((8, 8, 8, 9, 13)), rank]) + struct.pack(f">{rank}I", *sizes) + data[16:]
    else:
        data = scrambled(data, rng)
    if rng.random() < 0.5:
        return data
    packed = gzip.compress(data, rng.choice((0, 1, 9)), mtime=0)
    return rng.choice((packed, packed, packed + packed, packed + bytes(99), scrambled(packed, rng)))


def change_csv(data: bytes, rng: random.Random) -> bytes:
    """Change the cells, the rows or the bytes of a table."""
    if rng.random() < 0.3:
        return scrambled(data, rng)
    rows = [row.split(",") for row in data.decode("utf-8", "replace").split("\n")]
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rng.choice(rows)
        at, kind = rng.randrange(len(row)), rng.randrange(6)
        if kind < 3:
            row[at] = rng.choice((*NUMBERS, *WORDS))
        elif kind == 3:
            row.insert(at, rng.choice(row))
        elif kind == 4:
            rows.insert(rng.randrange(len(rows)), list(rng.choice(rows)))
        elif len(row) > 1:
            del row[at]
    delimiter, end = rng.choice(",,,;\t"), rng.choice(("\n", "\n", "\n", "\r\n", "\r"))
    text = end.join(delimiter.join(row) for row in rows)
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16")), "replace")


def change_json(data: bytes, rng: random.Random) -> bytes:
    """Change a value, a name or the bytes of a JSON object."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return scrambled(data, rng)
    if rng.random() < 0.2 or not isinstance(value, dict) or not value:
        return rng.choice((scrambled(data, rng), rng.choice(JSON).encode()))
    # each value as its own text, so that what Python cannot write can stand there
    texts = {name: json.dumps(item) for name, item in value.items()}
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(list(texts))
        inner = value.get(name)
        if isinstance(inner, dict) and inner and rng.random() < 0.7:
            texts[name] = change_json(json.dumps(inner).encode(), rng).decode("utf-8", "replace")
        elif isinstance(inner, list) and inner and rng.random() < 0.5:
            items = [json.dumps(item) for item in inner]
            items[rng.randrange(len(items))] = rng.choice(JSON)
            texts[name] = f"[{', '.join(items)}]"
        else:
            texts[rng.choice((name, name, name, rng.choice(list(texts)), "more"))] = rng.choice(JSON)
        if rng.random() < 0.1 and len(texts) > 1:
            texts.pop(name, None)
    body = ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items())
    return f"{{{body}}}".encode("utf-8", "replace")


def change_npy(data: bytes, rng: random.Random) -> bytes:
    """Change the header of an array, its values, or its bytes."""
    kind = rng.randrange(4)
    if kind == 0 or len(data) < 12 or data[:6] != b"\x93NUMPY":
        return scrambled(data, rng)
    begin = 10 + int.from_bytes(data[8:10], "little")
    header, values = data[10:begin].decode("latin-1"), data[begin:]
    if kind == 1:
        return data[:begin] + rng.choice((scrambled(values, rng), b"\xff" * len(values), values[:-1], b""))
    if kind == 2:
        header = rng.choice(HEADERS)
    else:
        descr = header.partition("'descr': ")[2].partition(", 'fortran_order'")[0]
        shape = header.partition("'shape': ")[2].partition(", }")[0]
        descr, shape = rng.choice((descr, rng.choice(DESCRS))), rng.choice((shape, rng.choice(SHAPES)))
        order = rng.choice(("False", "False", "True", "0"))
        header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    return npy(header, values, rng.choice((1, 1, 1, 2, 3, 0, 255)))


def npy(header: str, values: bytes, version: int = 1) -> bytes:
    """An ``.npy`` with any header."""
    text = header.encode("utf-8" if version == 3 else "latin-1", "replace")
    length = struct.pack("<H", len(text) % 2**16) if version == 1 else struct.pack("<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + values


def change_command(data: bytes, rng: random.Random) -> bytes:
    """Change the words of a command line, which stand between NUL bytes."""
    words = data.split(b"\0")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, kind = rng.randrange(len(words)), rng.randrange(6)
        if kind == 0:
            words.insert(at, rng.choice(words))
        elif kind == 1 and len(words) > 1:
            del words[at]
        elif kind == 2:
            words[at] = scrambled(words[at], rng)[:300].replace(b"\0", b"")
        elif kind == 3:
            words[at] += b"=" + rng.choice((*NUMBERS, *WORDS)).encode()[:6000].replace(b"\0", b"")
        elif kind == 4:
            words.insert(at + 1, rng.choice(words))
        else:
            words[at] = rng.choice((*NUMBERS, *WORDS)).encode()[:6000].replace(b"\0", b"")
    return b"\0".join(words)
