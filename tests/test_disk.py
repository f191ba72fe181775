"""Training from `.npy` files is training from memory in another order; what is wrong in a file is named."""

import functools
import mmap

import chex
import jax
import numpy as np
import optax
import pytest

import mlpjax
import mlpjax.chunks
import mlpjax.disk
from mlpjax import Batch, Config, DiskData, fit
from mlpjax.checks import check_batch
from mlpjax.chunks import key_words
from mlpjax.disk import DiskRun, block_order

KEY = jax.random.key(3)
RICH = Config(sizes=(2, 4, 3), activation="prelu", batch_norm=True, dropout=0.3, l1=0.001, l2=0.01)
SMALL = Config(sizes=(2, 4, 3), activation="tanh")
LINE = Config(sizes=(2, 1), head="regression")
ADAM = optax.adam(0.05)
M = 150
"""More blocks of one row than are shuffled together."""


@pytest.fixture
def write(tmp_path):
    """Write arrays to files and open them; ``None`` leaves the weights out."""

    def write(x, y, weight=None, **options):
        paths = [tmp_path / f"{name}.npy" for name in ("x", "y", "weight")]
        for path, array in zip(paths, (x, y, weight), strict=True):
            if array is not None:
                np.save(path, array)
        return DiskData(*(None if a is None else p for p, a in zip(paths, (x, y, weight), strict=True)), **options)

    return write


@pytest.fixture
def in_order_of_blocks(monkeypatch):
    """Let training from memory take the examples in the order of training from files."""

    def use(block):
        def order(words, epoch, m):
            return np.concatenate([*block_order(words, epoch, m, block)]).astype(np.int32)

        monkeypatch.setattr(mlpjax.chunks, "epoch_order", order)

    return use


def classes(m=M, weight=False):
    rng = np.random.default_rng(0)
    y = np.arange(m) % 3
    x = 40 + 90 * np.eye(3, 2)[y] + rng.integers(0, 40, (m, 2))
    weights = np.where(np.arange(m) % 5 == 2, 0.0, rng.uniform(0.5, 2.0, m)) if weight else None
    return Batch(x.astype(np.uint8), y.astype(np.uint8), weights)


def columns(result):
    return {name: column for name, column in result.history.items() if name != "seconds"}


def limit_chunk(monkeypatch, data, batch_size, steps):
    """Let a chunk hold so many steps at most."""
    row = sum(array[:1].nbytes for array in data if array is not None)
    monkeypatch.setattr(mlpjax.disk, "CHUNK_BYTES", row * batch_size * steps)


# --- the order


@pytest.mark.parametrize(("m", "block", "together"), [(1, 1, 1), (7, 2, 2), (64, 8, 3), (65, 8, 8), (20, 50, 64)])
def test_each_row_comes_once_per_epoch(m, block, together):
    pieces = list(block_order(KEY, 1, m, block, together))
    assert sorted(np.concatenate(pieces).tolist()) == list(range(m))
    n_blocks = -(-m // block)
    assert len(pieces) == -(-n_blocks // together)
    for piece in pieces:
        assert len(set((piece // block).tolist())) <= together  # whole blocks, as all rows come once


def test_the_order_depends_on_key_and_epoch():
    def order(key, epoch):
        return np.concatenate([*block_order(key, epoch, 500, 3, 8)]).tolist()

    assert order(KEY, 1) == order(KEY, 1) == order(key_words(KEY), 1)
    assert len({tuple(order(key, epoch)) for key in (KEY, jax.random.key(4)) for epoch in (1, 2)}) == 4


# --- the numbers


def test_training_from_files_is_training_from_memory(write, in_order_of_blocks, monkeypatch):
    """To the bit, whatever the length of a chunk: weights, masks, a smaller last batch, validation, early stopping."""
    batch, valid = classes(weight=True), classes(7)
    in_order_of_blocks(1)
    run = functools.partial(fit, RICH, ADAM, epochs=3, batch_size=4, key=KEY, valid_data=valid, patience=2)
    memory = run(batch)
    assert memory.stop_reason == "finished"
    data = write(*batch, block=1)
    for steps in (5, 1000):
        limit_chunk(monkeypatch, batch, 4, steps)
        seen = []
        disk = run(data, callback=seen.append)
        chex.assert_trees_all_equal(disk[:3], memory[:3])
        assert columns(disk) == columns(memory)
        chunk = mlpjax.chunks.evenly(38, min(steps, 38))
        assert [p.step for p in seen if p.epoch == 2] == [min(k, 38) for k in range(chunk, 38 + chunk, chunk)]


def test_the_order_is_its_own_where_it_is_asked_for(write):
    data = write(*classes(9))
    run = functools.partial(fit, SMALL, ADAM, data, epochs=1, batch_size=4)
    one, other = (run(key=KEY, order_key=jax.random.key(i)) for i in (1, 2))
    assert not np.array_equal(one.params[0].W, other.params[0].W)


def test_one_program_for_all_chunks(write, monkeypatch):
    traces = []

    def counted(*args, **kwargs):
        traces.append(None)
        return mlpjax.backward(*args, **kwargs)

    batch = classes()
    limit_chunk(monkeypatch, batch, 4, 5)
    data = write(*batch)
    for seed in (0, 1):
        fit(SMALL, ADAM, data, epochs=2, batch_size=4, key=jax.random.key(seed), grad_fn=counted)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("config", "x", "y"),
    [
        (SMALL, np.float64, np.arange(5) % 3),
        (SMALL, np.int64, np.eye(3, dtype=bool)[np.arange(5) % 3]),
        (SMALL, np.float16, (np.arange(5) % 3).astype(np.uint64)),
        (SMALL, bool, (np.arange(5) % 3).astype(np.int8)),
        (Config(sizes=(2, 1), head="binary"), np.uint8, np.arange(5)[:, None] % 2),
        (Config(sizes=(2, 1), head="regression"), np.int16, np.arange(5) / 3),
        (Config(sizes=(2, 2), head="multilabel"), np.float32, np.eye(5, 2)),
    ],
    ids=["float64", "int64", "float16", "bool", "int16", "binary", "multilabel"],
)
def test_arrays_are_those_of_a_batch(config, x, y, write):
    """In value and type, in any order, with padding."""
    batch = Batch(np.arange(10).reshape(5, 2).astype(x), y, np.arange(5.0))
    data = write(*batch)
    run = DiskRun(config, ADAM, mlpjax.backward, data.checked(config), 2, 1, KEY, disk=data)
    at = np.array([3, 0, 4])
    read = run.read(at)
    expected = check_batch(config, Batch(*(array[at] for array in batch)), "expected")
    for got, want, promised in zip(read, expected, run.data, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, (6, *want.shape[1:])) == (promised.dtype, promised.shape)
        np.testing.assert_array_equal(got[:3], want)
        assert not got[3:].any()


def test_balanced_classes_weigh_the_same(write):
    x, y, weight = classes(30, weight=True)
    y[:12] = 0
    per_example = mlpjax.labels.sample_weights(y, mlpjax.labels.class_weights(y, 3)) * weight
    run = functools.partial(fit, SMALL, ADAM, epochs=1, batch_size=4, key=KEY)
    balanced = run(write(x, y, weight), class_weight="balanced")
    weighted = run(write(x, y, per_example))
    chex.assert_trees_all_close(balanced.params, weighted.params, rtol=1e-5)


def test_divergence_goes_back_alike(write, in_order_of_blocks, monkeypatch):
    """The chunk before is taken again, with the examples that it brought."""
    batch = classes()
    in_order_of_blocks(1)
    data = write(*batch, block=1)
    limit_chunk(monkeypatch, batch, 4, 5)
    # a chunk has 5 steps: the last of the fourth makes the first loss of the fifth infinite
    optimizer = optax.sgd(optax.piecewise_constant_schedule(1e-6, {19: 1e38}))
    run = functools.partial(fit, LINE, optimizer, epochs=2, batch_size=4, key=KEY)
    memory, disk = run(batch), run(data)
    assert (disk.stop_reason, disk.diverged_at) == ("diverged", (1, 21))
    assert (disk.message, disk.diverged_at) == (memory.message, memory.diverged_at)
    chex.assert_trees_all_equal(disk[:3], memory[:3])


# --- how it is read


def test_one_chunk_is_read_ahead(write, monkeypatch):
    """No more is read than the chunk that is trained on and the next one."""
    batch = classes()
    data = write(*batch)
    limit_chunk(monkeypatch, batch, 4, 5)
    reads = []
    read = DiskRun.read
    monkeypatch.setattr(DiskRun, "read", lambda run, order: reads.append(len(order)) or read(run, order))
    result = fit(SMALL, ADAM, data, epochs=1, batch_size=4, key=KEY, callback=lambda progress: progress.step >= 10)
    assert result.stop_reason == "callback"
    assert reads == [20, 20, 20]


def test_a_file_larger_than_memory(tmp_path, monkeypatch):
    """A file of 80 GB, nearly all of it a hole: only what a chunk needs is read."""
    m = 10**8
    for name, shape in (("x", (m, 800)), ("y", (m,))):
        with open(tmp_path / f"{name}.npy", "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + int(np.prod(shape)))
    config = Config(sizes=(800, 2, 3))
    monkeypatch.setattr(mlpjax.disk, "CHUNK_BYTES", 2**18)
    data = DiskData(tmp_path / "x.npy", tmp_path / "y.npy")
    assert data.block == 2**20 // 800
    result = fit(config, ADAM, data, epochs=1, batch_size=100, key=KEY, callback=lambda progress: True)
    assert result.message == "stopped by the callback during epoch 1"


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="the system takes no advice")
def test_blocks_are_announced_whole(write):
    class Announced:
        """A memory map that notes what is asked for."""

        def __init__(self, array):
            self.array, self.offset, self.base, self.asked = array, array.offset, self, []

        def __len__(self):
            return len(self.array.base)

        def __getitem__(self, rows):
            return self.array[rows]

        def madvise(self, advice, begin, length):
            assert advice == mmap.MADV_WILLNEED
            self.array.base.madvise(advice, begin, length)
            self.asked.append((begin, begin + length))

    data = write(np.ones((50_000, 3)), np.zeros(50_000, np.uint8), block=7000)
    data.arrays = Batch(*(None if array is None else Announced(array) for array in data.arrays))
    data.announce(np.array([6999, 49_999, 7000, 3]))
    for array in data.arrays[:2]:
        row = array.array[:1].nbytes
        for rows in ((0, 7000), (7000, 14_000), (49_000, 50_000)):
            # in pieces, one after another
            begin, end = array.asked.pop(0)
            assert begin % mmap.PAGESIZE == 0
            assert 0 <= 128 + rows[0] * row - begin < mmap.PAGESIZE
            while end - begin == mlpjax.disk.ADVICE_BYTES and end < 128 + rows[1] * row:
                begin, end = array.asked.pop(0)
            assert end == 128 + rows[1] * row
        assert not array.asked


def test_memory_is_where_jax_takes_it_over():
    for dtype, size in ((np.uint8, 3), (np.float64, 7)):
        rows = mlpjax.disk._rows(np.ones((2, 5), dtype), np.array([1, 0]), size)
        assert rows.ctypes.data % mlpjax.disk.ALIGNMENT == 0
        assert rows.sum(axis=1).tolist() == [5, 5] + [0] * (size - 2)


# --- what is wrong in a file


def saved(array):
    def write(path):
        np.save(path, array, allow_pickle=True)

    return write


def cut(path):
    np.save(path, np.ones((3, 2)))
    path.write_bytes(path.read_bytes()[:-1])


def longer(path):
    np.save(path, np.ones((3, 2)))
    path.write_bytes(path.read_bytes() + b"0")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"cannot be read \(No such file or directory\): check the path"),
        (lambda path: path.unlink() or path.mkdir(), r"cannot be read \(Is a directory\): check the path"),
        (lambda path: path.write_bytes(b""), r"is not a whole \.npy file of numbers .*: write it with numpy\.save"),
        (lambda path: path.write_text("1,2\n3,4\n5,6\n"), r"is not a whole \.npy file of numbers"),
        (saved(np.array([[1, None]] * 3)), r"is not a whole \.npy file of numbers"),
        (cut, r"is not a whole \.npy file of numbers"),
        (longer, r"has 177 bytes, its header says 176: write it again"),
        (saved(np.array([["a", "b"]] * 3)), r"has dtype <U1: expected real numbers"),
        (saved(np.ones((3, 2), complex)), r"has dtype complex128: expected real numbers"),
        (saved(np.ones((3, 2), ">f4")), r"has dtype >f4: .* in this machine's byte order"),
        (saved(np.zeros(3, "f4,f4")), r"has dtype \[.*\]: expected real numbers"),
        (saved(np.ones((3, 2), order="F")), r"has shape \(3, 2\) in Fortran order: expected one example per row, in C"),
        (saved(np.float32(1)), r"has shape \(\): expected one example per row"),
        (saved(np.ones((4, 2))), r"x has 4 rows and y has 3: expected one label per example"),
    ],
    ids=[
        "missing", "folder", "empty", "text", "objects", "cut", "longer", "strings", "complex", "byte-order", "records",
        "fortran", "scalar", "rows",
    ],
)  # fmt: skip
def test_a_file_that_is_no_data(spoil, message, write, tmp_path):
    write(*classes(3))
    spoil(tmp_path / "x.npy")
    with pytest.raises(mlpjax.DataError, match=rf"x\.npy.*{message}"):
        DiskData(tmp_path / "x.npy", tmp_path / "y.npy")


def test_what_does_not_fit_together(write):
    with pytest.raises(mlpjax.DataError, match="there are no rows: expected at least one example"):
        write(np.ones((0, 2)), np.ones(0, int))
    with pytest.raises(mlpjax.DataError, match=r"weight\.npy\): weight has shape \(3, 1\): expected \(3,\)"):
        write(*classes(3)[:2], np.ones((3, 1)))
    for block in (0, 1.5, True):
        with pytest.raises(mlpjax.ConfigError, match=f"block is {block}: expected an integer ≥ 1"):
            write(*classes(3), block=block)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((3, 5)), np.zeros(3, int), r"x has shape \(1, 5\): expected \(m, 2\)"),
        (np.ones(3), np.zeros(3, int), r"x has shape \(1,\): expected \(m, 2\)"),
        (np.ones((3, 2)), np.zeros((3, 2)), r"y has shape \(1, 2\): head 'multiclass' with 3 outputs expects"),
        (np.ones((3, 2)), np.zeros(3), r"y has dtype float64: class labels \(m,\) must be integers"),
    ],
    ids=["width", "vector", "one-hot", "float"],
)
def test_files_that_do_not_fit_the_network(x, y, message, write):
    with pytest.raises(mlpjax.DataError, match=rf"train_data \(x: .*x\.npy, y: .*y\.npy\): {message}"):
        fit(SMALL, ADAM, write(x, y), epochs=1, batch_size=2, key=KEY)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x", np.nan, r"x: row 77, column 0 \(from 0\) is nan: expected a finite number"),
        ("x", 1e300, r"x: row 77, column 0 \(from 0\) is 1e\+300: expected a finite number"),
        ("y", 3, r"y has a label outside the classes: 3 in row 77, expected 0 to 2"),
        ("weight", -1, r"weight is -1\.0 in row 77: expected finite numbers ≥ 0"),
    ],
)
def test_a_value_is_named_with_its_row_in_the_file(name, value, message, write, monkeypatch):
    """In whatever chunk it comes."""
    batch = classes()._replace(x=np.ones((M, 2)), weight=np.ones(M))
    getattr(batch, name)[77] = value
    limit_chunk(monkeypatch, batch, 4, 5)
    with pytest.raises(mlpjax.DataError, match=rf"weight: .*weight\.npy\): {message}"):
        fit(SMALL, ADAM, write(*batch), epochs=1, batch_size=4, key=KEY)
