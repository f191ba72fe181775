"""The idx reader against files that lie, and MNIST: verification, where it is looked for, the download."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import math
import os
import threading
import tracemalloc
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpjax import idx
from mlpjax.data import load_dataset
from mlpjax.errors import DataError
from mlpjax.idx import MNIST_SHA256, data_folder, load_mnist, read_idx


def encoded(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def claiming(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.booleans(), st.integers(0, 100))
def test_reading_gives_what_was_written(tmp_path_factory, shape, compress, seed):
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(encoded(array)) if compress else encoded(array))
    got = read_idx(path)
    assert got.dtype == np.uint8
    assert got.shape == tuple(shape)
    np.testing.assert_array_equal(got, array)


GOOD = encoded(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"begins with the bytes \(none\), an idx file .* begins with 00 00 08 and its rank: give"),
        (b"<!DOCTYPE html>", r"begins with the bytes 3c 21 44 4f"),
        (b"\x00\x00\x0d\x01" + bytes(8), r"begins with the bytes 00 00 0d 01"),
        (b"\x00\x00\x08\x00", r"begins with the bytes 00 00 08 00"),
        (GOOD[:10], r"ends within its header of 16 bytes: fetch it again"),
        (GOOD[:-1], r"claims the shape \(2, 3, 4\), 24 bytes, and only 23 follow: fetch it again"),
        (GOOD + b"\x00", r"claims the shape \(2, 3, 4\), 24 bytes, and more follow: fetch it again"),
        (claiming(2**31, 28, 28) + bytes(784), r"claims the shape .*: at most 1073741824 are read"),
        (claiming(2**20, 2**20) + bytes(8), r"1099511627776 bytes: at most"),
        (claiming(*[2**32 - 1] * 255), r"at most 1073741824 are read"),
        (claiming(*[1] * 255) + b"\x07", r"claims the shape"),
        (claiming(0, 2**32 - 1, 2**32 - 1, 2**32 - 1), r"claims the shape"),
    ],
)
def test_files_that_are_no_idx_or_lie(tmp_path, content, message, compress):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [11, 20, -9, -5, -1])
def test_truncated_gzip(tmp_path, cut):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(encoded(np.random.default_rng(0).integers(0, 256, 500).astype(np.uint8)))[:cut])
    with pytest.raises(DataError, match=r"images\.gz: is damaged gzip .*: fetch it again"):
        read_idx(path)


def test_a_wrong_checksum_in_gzip(tmp_path):
    packed = bytearray(gzip.compress(GOOD))
    packed[-8] ^= 1
    (tmp_path / "images.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"images\.gz: is damaged gzip \(CRC check failed"):
        read_idx(tmp_path / "images.gz")


def test_every_flipped_bit_of_a_gzip_is_noticed_or_harmless(tmp_path):
    packed = gzip.compress(GOOD, mtime=0)
    path = tmp_path / "images.gz"
    noticed = 0
    for bit in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            array = read_idx(path)
        except DataError:
            noticed += 1
        else:
            assert array.tobytes() == GOOD[16:]  # a bit of the time stamp or the like
    assert noticed > 8 * len(packed) // 2


def test_an_absent_file(tmp_path):
    with pytest.raises(DataError, match=r"nothing: cannot be read \(No such file or directory\): check the path"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)


@pytest.mark.parametrize("compress", [False, True])
def test_a_lying_header_takes_no_memory(tmp_path, compress):
    path = tmp_path / "images"
    content = claiming(2**30) + bytes(1000)
    path.write_bytes(gzip.compress(content) if compress else content)
    tracemalloc.start()
    with pytest.raises(DataError, match="only 1000 follow"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(claiming(10) + bytes(50_000_000), compresslevel=1))
    tracemalloc.start()
    with pytest.raises(DataError, match="10 bytes, and more follow"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


# --- MNIST, with small files under its names ----------------------------------------------------------------

SMALL = {
    "train-images-idx3-ubyte": np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3),
    "train-labels-idx1-ubyte": np.array([3, 1, 4, 1, 5], dtype=np.uint8),
    "t10k-images-idx3-ubyte": np.arange(2 * 6, dtype=np.uint8).reshape(2, 2, 3) + 100,
    "t10k-labels-idx1-ubyte": np.array([9, 2], dtype=np.uint8),
}


@pytest.fixture
def small(monkeypatch):
    for name, array in SMALL.items():
        monkeypatch.setitem(MNIST_SHA256, name, hashlib.sha256(encoded(array)).hexdigest())


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write(folder: Path, compress: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in SMALL.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(encoded(array)))
        else:
            (folder / name).write_bytes(encoded(array))
    return folder


def shape_of(parts) -> tuple[int, ...]:
    """Give the shape of the training images."""
    return parts[0][0].shape


@pytest.mark.usefixtures("small", "no_network")
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("below", ["", "mnist"])
def test_mnist_is_found_plain_or_packed_in_the_folder_or_below(tmp_path, compress, below):
    write(tmp_path / below, compress)
    (x, y), (x_test, y_test) = load_mnist(str(tmp_path))
    assert (x.dtype, x_test.dtype) == (np.uint8, np.uint8)
    assert (y.dtype, y_test.dtype) == (np.int32, np.int32)
    np.testing.assert_array_equal(x, np.arange(30).reshape(5, 2, 3))
    np.testing.assert_array_equal(y, [3, 1, 4, 1, 5])
    np.testing.assert_array_equal(x_test, np.arange(12).reshape(2, 2, 3) + 100)
    np.testing.assert_array_equal(y_test, [9, 2])
    # a download that is asked for fetches only what is missing
    load_mnist(str(tmp_path), download=True)


@pytest.mark.usefixtures("small", "no_network")
def test_mnist_as_a_data_set(tmp_path):
    mnist = load_dataset("mnist", data_dir=str(write(tmp_path)))
    assert (mnist.name, mnist.head, mnist.classes) == ("mnist", "multiclass", tuple(range(10)))
    assert (mnist.features, mnist.targets, mnist.image_shape) == (None, ("digit",), (2, 3))
    assert (mnist.x.dtype, mnist.y.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(mnist.x, np.arange(30).reshape(5, 6))
    np.testing.assert_array_equal(mnist.y, [3, 1, 4, 1, 5])
    assert mnist.test is not None
    np.testing.assert_array_equal(mnist.test[0], np.arange(12).reshape(2, 6) + 100)
    np.testing.assert_array_equal(mnist.test[1], [9, 2])


@pytest.mark.usefixtures("small", "no_network")
def test_the_folder_comes_from_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPJAX_DATA_DIR", str(write(tmp_path / "variable")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert shape_of(load_mnist()) == (5, 2, 3)
    with pytest.raises(DataError, match=r"is not in .*argument or .*mnist"):
        load_mnist(str(tmp_path / "argument"))
    monkeypatch.delenv("MLPJAX_DATA_DIR")
    with pytest.raises(DataError, match=f"is not in {tmp_path}/cache/mlpjax or {tmp_path}/cache/mlpjax/mnist: give"):
        load_mnist()
    write(tmp_path / "cache" / "mlpjax" / "mnist")
    assert shape_of(load_mnist()) == (5, 2, 3)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder(None) == tmp_path / ".cache" / "mlpjax"
    assert data_folder("~/x") == tmp_path / "x"


@pytest.mark.usefixtures("small", "no_network")
def test_a_missing_file_says_where_it_was_looked_for_and_what_helps(tmp_path):
    (write(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        load_mnist(str(tmp_path))
    message = str(caught.value)
    for part in ("t10k-labels-idx1-ubyte", str(tmp_path / "mnist"), "--data-dir DIR", "MLPJAX_DATA_DIR", "--download"):
        assert part in message


@pytest.mark.usefixtures("small", "no_network")
def test_another_content_is_refused(tmp_path):
    other = SMALL["train-labels-idx1-ubyte"].copy()
    other[0] ^= 1
    path = write(tmp_path) / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(encoded(other)))
    with pytest.raises(
        DataError, match=r"ubyte\.gz: is not MNIST's train-labels.*: SHA-256 .*, expected .*; delete it"
    ):
        load_mnist(str(tmp_path), download=True)


# --- the download, from a server of our own -----------------------------------------------------------------


@pytest.fixture
def server(monkeypatch):
    """Serve what is in the dictionary it returns, and record what is asked for."""
    files: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        base = f"http://127.0.0.1:{httpd.server_address[1]}"
        monkeypatch.setattr(idx, "MNIST_MIRRORS", (f"{base}/first/", f"{base}/second/"))
        yield files, asked
        httpd.shutdown()
        thread.join(timeout=5)


def publish(files: dict[str, bytes], mirror: str) -> None:
    files.update({f"/{mirror}/{name}.gz": gzip.compress(encoded(array)) for name, array in SMALL.items()})


@pytest.mark.usefixtures("small")
def test_the_download_fills_the_folder_once(tmp_path, server):
    files, asked = server
    publish(files, "first")
    assert shape_of(load_mnist(str(tmp_path / "new"), download=True)) == (5, 2, 3)
    assert sorted(p.name for p in (tmp_path / "new" / "mnist").iterdir()) == sorted(f"{name}.gz" for name in SMALL)
    assert len(asked) == 4
    load_mnist(str(tmp_path / "new"), download=True)
    load_mnist(str(tmp_path / "new"))
    assert len(asked) == 4


@pytest.mark.usefixtures("small")
def test_only_what_is_missing_is_fetched(tmp_path, server):
    files, asked = server
    publish(files, "first")
    (write(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    load_mnist(str(tmp_path), download=True)
    assert asked == ["/first/t10k-labels-idx1-ubyte.gz"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["absent", "cut", "other", "html", "huge"])
def test_the_second_mirror_helps_when_the_first_fails(tmp_path, server, monkeypatch, damage):
    files, asked = server
    publish(files, "second")
    if damage != "absent":
        publish(files, "first")
    name = "/first/train-images-idx3-ubyte.gz"
    if damage == "cut":
        files[name] = files[name][:-4]
    elif damage == "other":
        files[name] = gzip.compress(encoded(SMALL["train-images-idx3-ubyte"] + 1))
    elif damage == "html":
        files[name] = b"<html>not today</html>"
    elif damage == "huge":
        monkeypatch.setattr(idx, "MAX_DOWNLOAD", 1000)
        files[name] = bytes(1001)
    assert shape_of(load_mnist(str(tmp_path), download=True)) == (5, 2, 3)
    assert "/second/train-images-idx3-ubyte.gz" in asked


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        # with a time in the bytes, two processes would name the test differently
        (gzip.compress(GOOD, mtime=0), "SHA-256"),
        (gzip.compress(GOOD, mtime=0)[:-5], "damaged gzip"),
        (b"<html>", "begins with the bytes"),
        (None, "404"),
        (bytes(2000), "more than 1000 bytes"),
    ],
)
def test_a_failed_download_says_why_and_leaves_nothing_behind(tmp_path, server, monkeypatch, body, reason):
    files, asked = server
    monkeypatch.setattr(idx, "MAX_DOWNLOAD", 1000)
    if body is not None:
        for mirror in ("first", "second"):
            files[f"/{mirror}/train-images-idx3-ubyte.gz"] = body
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz could not be downloaded") as caught:
        load_mnist(str(tmp_path), download=True)
    message = str(caught.value)
    assert message.count(reason) == 2, "one reason for each mirror"
    assert "--data-dir DIR" in message
    assert len(asked) == 2
    assert list((tmp_path / "mnist").iterdir()) == []


@pytest.mark.usefixtures("small")
def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(idx, "MNIST_MIRRORS", ("http://127.0.0.1:9/",))
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/: .*: check the network"):
        load_mnist(str(tmp_path), download=True)
    assert list((tmp_path / "mnist").iterdir()) == []


@pytest.mark.usefixtures("small", "no_network")
def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be made .*: give another --data-dir"):
        load_mnist(str(tmp_path / "file"), download=True)


def test_the_mirrors_are_https():
    assert len(idx.MNIST_MIRRORS) == 2
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in idx.MNIST_MIRRORS)
    assert all(len(digest) == 64 for digest in MNIST_SHA256.values())


@pytest.mark.skipif(not os.environ.get("MLPJAX_DATA_DIR"), reason="MLPJAX_DATA_DIR is not set")
@pytest.mark.usefixtures("no_network")
def test_the_real_mnist():
    (x, y), (x_test, y_test) = load_mnist()
    assert (x.shape, y.shape) == ((60000, 28, 28), (60000,))
    assert (x_test.shape, y_test.shape) == ((10000, 28, 28), (10000,))
    assert np.bincount(y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert y[:5].tolist() == [5, 0, 4, 1, 9]
    assert math.isclose(x.mean(dtype=np.float64), 33.318421, abs_tol=1e-6)
