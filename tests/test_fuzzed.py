"""Files made to harm: what `experiments/fuzz.py` and a close reading found, and a short run of its changes."""

from __future__ import annotations

import gzip
import io
import json
import random
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import mlpjax
from mlpjax import tables
from mlpjax.archives import MAX_RATIO, MAX_UNPACKED, read_npz
from mlpjax.data import load_dataset, load_for_model
from mlpjax.errors import ConfigError, DataError
from mlpjax.gradient_files import read_gradient
from mlpjax.idx import read_idx
from mlpjax.labels import stratified_split
from mlpjax.tables import MAX_ROW_BYTES, read_csv

X, Y = np.eye(3), np.arange(3)


def npy(descr: str, shape: str, values: bytes = b"") -> bytes:
    """An ``.npy`` whose header may say anything."""
    return with_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", values)


def with_header(text: str, values: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1") + values


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture
def pack(tmp_path):
    """Write an archive of arrays, or of bytes that claim to be some."""

    def pack(method: int = zipfile.ZIP_STORED, **members: np.ndarray | bytes) -> Path:
        with zipfile.ZipFile(tmp_path / "own.npz", "w", method) as archive:
            for name, content in members.items():
                archive.writestr(f"{name}.npy", content if isinstance(content, bytes) else saved(content))
        return tmp_path / "own.npz"

    return pack


def refused(read, path, message="."):
    """Check that a file is refused by one printable line with its name, in little time and memory."""
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    said = str(caught.value)
    assert str(path) in said
    assert said.isprintable()
    assert len(said) < 10_000
    assert peak < 64e6
    assert time.process_time() - started < 10


# --- .npy headers ------------------------------------------------------------------------------------------

HEADERS = {
    "deep": "(" * 5000,
    "deep tuples": "(" * 150 + ")" * 150,
    "minus": "-" * 9000 + "1",
    "unclosed": "{'descr': '<f8', 'fortran_order': False, 'shape': (3",
    "quote": "'''",
    "indented": "\n   1\n 2",
    "no names": "{1: 2, 'a': 3}",
    "unhashable": "{[]: 1}",
    "long": " " * 20_000,
    "code": "__import__('os').mkdir('sprung')",
    "empty tuple": "{'descr': (), 'fortran_order': False, 'shape': (3,)}",
    "number": "{'descr': [(1,)], 'fortran_order': False, 'shape': (3,)}",
    "2^40 values": "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 3)}",
    "2^40 of no bytes": "{'descr': '|V0', 'fortran_order': False, 'shape': (1099511627776,)}",
    "2^64": "{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551616,)}",
    "wraps to 0": "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
    "negative": "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -3)}",
    "negative number of nothing": "{'descr': '|S0', 'fortran_order': False, 'shape': (-1,)}",
    "digits": f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({'9' * 5000},)}}",
    "huge text": "{'descr': '<U999999999999', 'fortran_order': False, 'shape': (3,)}",
    "huge field": "{'descr': ('<f4', (1099511627776,)), 'fortran_order': False, 'shape': (3,)}",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
    "Python 2": "{'descr': '<f8', 'fortran_order': False, 'shape': (-3L,)}",
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_arrays(pack, tmp_path, name):
    content = with_header(HEADERS[name], bytes(72))
    refused(read_npz, pack(x=content, y=Y))
    refused(read_gradient, pack(x=X, y=Y, W1=content))
    (tmp_path / "x.npy").write_bytes(content)
    np.save(tmp_path / "y.npy", Y)
    refused(lambda path: mlpjax.DiskData(path, tmp_path / "y.npy"), tmp_path / "x.npy")
    assert not Path("sprung").exists()


def test_a_header_of_4_gigabytes(pack, tmp_path):
    content = b"\x93NUMPY\x02\x00" + b"\xff" * 4 + b"{'descr': '<f8'"
    refused(read_npz, pack(x=content, y=Y))
    (tmp_path / "x.npy").write_bytes(content)
    refused(lambda path: mlpjax.DiskData(path, path), tmp_path / "x.npy", "is not a whole .npy file of numbers")


def test_an_array_as_python_2_wrote_it_is_read(pack, tmp_path):
    old = with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (3L, 3L), }\n", X.tobytes())
    assert read_npz(pack(x=old, y=Y)).x.tolist() == X.tolist()
    (tmp_path / "x.npy").write_bytes(old)
    np.save(tmp_path / "y.npy", Y)
    assert mlpjax.DiskData(tmp_path / "x.npy", tmp_path / "y.npy").arrays.x.shape == (3, 3)


def test_text_of_no_characters(pack):
    content = npy("'<U1'", "(3,)", np.array([65, 0x110000, 66], np.uint32).tobytes())
    refused(read_npz, pack(x=X, y=content), "the array 'y' cannot be read .it has the character number 1114112")
    for name in ("config", "train", "seed"):
        one = npy("'>U1'", "()", np.array([2**32 - 1], ">u4").tobytes())
        refused(read_gradient, pack(x=X, y=Y, W1=X, dW1=X, **{name: one}), f"the array '{name}' cannot be read")


def test_values_that_are_no_seed_are_told_by_their_kind(pack):
    for value, kind in (("a" * 10**6, "<U1000000"), (np.datetime64("2020-01-01"), r"datetime64\[D\]")):
        path = pack(x=X, y=Y, W1=X, dW1=X, seed=np.array(value))
        refused(read_gradient, path, rf"seed is an array of shape \(\) of {kind}: expected one integer")


# --- archives ----------------------------------------------------------------------------------------------


def test_an_array_that_ends_as_an_archive(pack, tmp_path):
    path = tmp_path / "both.npz"
    path.write_bytes(saved(X) + pack(x=X, y=Y).read_bytes())
    refused(read_npz, path, "is no .npz file, or a damaged one")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_limit(pack, method):
    refused(read_npz, pack(method, x=X, y=Y), "'x.npy' is compressed as numpy does not: write it with numpy.savez")


def test_a_bomb_is_refused_before_it_is_unpacked(pack):
    path = pack(zipfile.ZIP_DEFLATED, x=npy("'|u1'", f"({MAX_UNPACKED}, 1)", bytes(MAX_UNPACKED)), y=Y)
    assert path.stat().st_size * MAX_RATIO < MAX_UNPACKED
    refused(read_npz, path, r"which unpack to 67,.*: expected at most 67,108,864; write it uncompressed, with numpy")
    refused(read_gradient, path, "unknown|unpack")


def test_many_members_in_the_same_bytes(pack):
    """A directory may name one member a thousand times."""
    content = pack(zipfile.ZIP_DEFLATED, x=npy("'|u1'", "(1000000, 1)", bytes(10**6))).read_bytes()
    begin, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry, copies = content[begin:end], 100
    tail = bytearray(content[end:])
    tail[8:16] = copies.to_bytes(2, "little") * 2 + (copies * len(entry)).to_bytes(4, "little")
    path = pack(x=X)
    path.write_bytes(content[:begin] + entry * copies + tail)
    refused(read_npz, path, "unpack to|is no .npz")


def test_names_of_members_are_no_paths(pack, tmp_path):
    (tmp_path / "inner").mkdir()
    path = pack(**{"../x": X, str(tmp_path / "y"): Y}).rename(tmp_path / "inner" / "own.npz")
    refused(read_npz, path, r"has no array 'x'; it holds: \.\./x, /")
    assert [found.name for found in tmp_path.rglob("*")] == ["inner", "own.npz"]


def test_what_is_compressible_is_still_read(pack):
    table = read_npz(pack(zipfile.ZIP_DEFLATED, x=np.zeros((10**6, 4), np.uint8), y=np.arange(10**6) % 2))
    assert table.x.shape == (10**6, 4)


# --- gzip --------------------------------------------------------------------------------------------------


def test_a_gzip_bomb_whose_header_is_honest(tmp_path):
    n = MAX_UNPACKED + 10**6
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + n.to_bytes(4, "big") + bytes(n), 9))
    with pytest.raises(DataError, match=r"images\.gz: is packed, and unpacks to more than 67,108,864 bytes: unpack it"):
        read_idx(path)
    plain = tmp_path / "images"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert read_idx(plain).shape == (n,)


# --- CSV ---------------------------------------------------------------------------------------------------


@pytest.fixture
def csv(tmp_path):
    def csv(content: bytes) -> Path:
        (tmp_path / "own.csv").write_bytes(content)
        return tmp_path / "own.csv"

    return csv


def read_y(path):
    return read_csv(path, ["y"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,y\r1,2\r", r"line 1: is not CSV \(new-line character"),
        (b"a" * 140_000 + b",y\n1,2\n", r"line 1: is not CSV \(field larger"),
        (b"\n\n" + b"a" * 140_000, r"line 3: is not CSV \(field larger"),
        (b"1," * MAX_ROW_BYTES, r"line 1: a row has more than 4,194,304 bytes: check the quotes and the line breaks"),
        (b"a,y\n1,0\n1\0,0\n", r"line 3, column 'a': '1\\x00' is text"),
        (b" \n" * 200_000 + b"a,y\n1,\n", r"line 200002, column 'y': is empty"),
    ],
    ids=["carriage returns", "field", "field later", "row", "nul", "blank lines"],
)  # fmt: skip
def test_tables(csv, content, message):
    refused(read_y, csv(content), message)


def test_a_row_of_many_lines(csv, monkeypatch):
    monkeypatch.setattr(tables, "MAX_ROW_BYTES", 10_000)
    # lines that are blank do not begin a row, within quotes
    refused(read_y, csv(b'a,y\n1,"' + b'\n\n","' * 10_000), r"line \d{4}: a row has more than 10,000 bytes")
    rows = b"".join(b"%d,2\n\n" % k for k in range(5000))
    assert len(read_y(csv(b"\n" * 20_000 + b"a,y\n" + rows)).x) == 5000


def test_whole_numbers_with_more_zeros_than_python_takes(csv):
    (column,) = read_y(csv(b"a,y\n1,-" + b"0" * 5000 + b"7\n2,9007199254740993\n")).y
    assert column.tolist() == [-7, 9007199254740993]


def test_names_in_any_order_take_no_square_of_their_number(csv):
    names = [f"c{k}" for k in range(60_000)]
    rows = "".join("1," * len(names) + f"{k}\n" for k in (0, 1))
    path = csv((",".join(names) + ",y\n" + rows).encode())
    started = time.process_time()
    got = load_for_model(path, head="binary", classes=(0, 1), features=names[::-1], targets=["y"])
    assert got.x.shape == (2, len(names))
    assert time.process_time() - started < 10


def test_a_long_name_is_not_compared(csv):
    rng = random.Random(0)
    names = ["".join(rng.choices([chr(k) for k in range(0x4E00, 0x4F30)], k=40_000)) for _ in range(2)]
    refused(lambda path: read_csv(path, names[1:]), csv(f"{names[0]},y\n1,2\n".encode()), "has no column")


def test_a_split_takes_no_square_of_the_number_of_classes():
    y = np.repeat(np.arange(220_000), np.r_[np.ones(200_000, int), np.full(20_000, 5)])
    started = time.process_time()
    keep, held = stratified_split(y, 0.2, seed=0)
    assert len(held) == 60_000
    assert len(np.union1d(keep, held)) == len(y)
    assert time.process_time() - started < 10


# --- config, folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["sizes", "activation", "head", "dropout", "l2", "bias"])
def test_a_config_of_lists_of_lists(field):
    nested = json.loads("[" * 900 + "]" * 900)

    def deeper(frames: int) -> None:
        if frames:
            deeper(frames - 1)
        mlpjax.Config.from_dict({field: nested})

    with pytest.raises(ConfigError):
        deeper(60)


def test_a_width_that_no_array_has():
    with pytest.raises(ConfigError, match=r"sizes has a width beyond 2\^31 - 1: expected at least two integers"):
        mlpjax.Config(sizes=(3, 10**5000, 2))


def test_the_folder_of_a_user_who_is_not_there():
    with pytest.raises(DataError, match=r"~nobody-of-this-name/x: there is no such user: give the folder by its whole"):
        load_dataset("mnist", data_dir="~nobody-of-this-name/x")


# --- the changes of the experiment -------------------------------------------------------------------------

INPUTS = {
    "idx": 1500, "csv": 1500, "npz": 500, "gradient": 150, "model": 150, "checkpoint": 80, "replay": 25,
    "certificate": 600, "config": 600, "npy": 600, "command": 30,
}  # fmt: skip


@pytest.fixture(scope="module")
def session():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "experiments")
        from fuzz_session import Session

        yield Session


@pytest.mark.parametrize("name", INPUTS)
def test_changed_files(session, tmp_path, name):
    one = session(name, tmp_path / "work")
    rng = random.Random(0)
    for _ in range(INPUTS[name]):
        content = rng.choice(one.seeds)
        for _ in range(rng.choice((1, 1, 2, 3))):
            content = one.format.change(content, rng)
        one.try_input(content)
    assert not one.findings, {what: finding.input[:300] for what, finding in one.findings.items()}
    # the changes are such that something is read, and something is not
    assert len(one.outcomes) > 1
