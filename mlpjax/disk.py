"""Training data that is larger than memory: `.npy` files, of which only the rows of a chunk are in memory at a time.

The files are memory maps. While the device takes the steps of a chunk, the host reads the next one, so that nothing
waits as long as reading is the faster of the two. At most three chunks are held at a time: the one that is computed,
the next, and the one before, from which a run that diverged is taken again.
"""

from __future__ import annotations

import io
import mmap
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mlpjax.archives import npy_bytes
from mlpjax.checks import check_batch, check_count, check_rows, check_values
from mlpjax.chunks import Chunk, Run, evenly, key_words
from mlpjax.config import Config
from mlpjax.errors import DataError
from mlpjax.files import open_file
from mlpjax.parameters import Batch
from mlpjax.step import batch_rows

BLOCK_BYTES = 2**20
"""How much of ``x`` a block holds by default."""
BLOCKS_TOGETHER = 64
"""How many blocks are shuffled among themselves."""
CHUNK_BYTES = 2**26
"""How much a chunk of examples holds at most, as it is in the files."""
ADVICE_BYTES = 2**17
"""How much the system is asked for at once: what it reads ahead at least; of more it might read only a part."""
HEADER_BYTES = 2**16
"""No header of a ``.npy`` that NumPy reads is longer."""
ALIGNMENT = 64
"""Where JAX takes over an array on the CPU without a copy."""

Path = str | os.PathLike[str]


class DiskData:
    """Examples in ``.npy`` files, for `mlpjax.fit` in the place of a `Batch`.

    ``x (m, n_0)``, ``y`` and ``weight (m,)`` as in a `Batch`: real numbers of at most 8 bytes, in C order, written by
    `numpy.save` or by `numpy.lib.format.open_memmap`. Opening reads the headers only. Values are checked whenever they
    are read. The files must stay as they are while they are in use: a process that reads behind the end of a file that
    was cut is killed by the operating system.

    The order of an epoch is `block_order`, not that of a `Batch`: examples that lie together in ``x`` also come near
    each other. Shuffle a file that is sorted by class once, when it is written.

    Args:
        x: the path of the examples.
        y: the path of the labels.
        weight: the path of the weights; ``None`` for equal ones.
        block: how many neighbouring examples are read together; as many as 1 MiB of ``x`` holds by default. Large
            blocks are read faster from a slow disk, small ones are mixed better.

    Raises:
        DataError: naming the file that is missing, cut or too long, that has objects, text, Fortran order or foreign
            byte order, or another number of rows than ``x``.
        ConfigError: if ``block`` is below 1.

    >>> import optax, tempfile
    >>> config, key = mlpjax.Config(sizes=(4, 3)), jax.random.key(0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.eye(4, dtype=np.uint8))
    ...     np.save(f"{folder}/y.npy", np.array([0, 1, 2, 2], np.uint8))
    ...     data = mlpjax.DiskData(f"{folder}/x.npy", f"{folder}/y.npy")
    ...     result = mlpjax.fit(config, optax.sgd(0.1), data, epochs=2, batch_size=3, key=key)
    >>> result.history["epoch"]
    [1, 2]
    """

    def __init__(self, x: Path, y: Path, weight: Path | None = None, *, block: int | None = None) -> None:
        self.arrays = Batch(_open(x), _open(y), None if weight is None else _open(weight))
        self.name = f"train_data (x: {os.fspath(x)}, y: {os.fspath(y)}"
        self.name += ")" if weight is None else f", weight: {os.fspath(weight)})"
        if block is None:
            block = max(1, BLOCK_BYTES // max(1, self.arrays.x[:1].nbytes))
        check_count("block", block)
        self.block = block
        try:
            check_rows(self.arrays.x, self.arrays.y)
        except DataError as error:
            raise DataError(f"{self.name}: {error}") from None
        m = len(self.arrays.x)
        if m == 0:
            raise DataError(f"{self.name}: there are no rows: expected at least one example")
        if weight is not None and self.arrays.weight.shape != (m,):
            raise DataError(
                f"{self.name}: weight has shape {self.arrays.weight.shape}: expected ({m},), one per row of x"
            )

    def checked(self, config: Config) -> Batch:
        """The memory maps, after a check of their shapes, their dtypes and their first row. Raises `DataError`."""
        check_values(config, Batch(*(None if array is None else array[:1] for array in self.arrays)), self.name)
        return self.arrays

    def announce(self, rows: np.ndarray) -> None:
        """Ask the system for the blocks of these rows, whole and all at once, before they are read one by one."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        for array in self.arrays:
            if array is not None:
                # a map begins at a whole page, before its first row
                block, first_row = array[: self.block].nbytes, array.offset % mmap.ALLOCATIONGRANULARITY
                for i in np.unique(rows // self.block).tolist():
                    begin = (first_row + i * block) // mmap.PAGESIZE * mmap.PAGESIZE
                    end = min(first_row + (i + 1) * block, len(array.base))
                    for at in range(begin, end, ADVICE_BYTES):
                        array.base.madvise(mmap.MADV_WILLNEED, at, min(ADVICE_BYTES, end - at))


def block_order(
    key: jax.Array | Sequence[int], epoch: int, m: int, block: int, together: int = BLOCKS_TOGETHER
) -> Iterator[np.ndarray]:
    """The order of the m examples in an epoch (from 1), as pieces one after another: it depends on the arguments only.

    The ⌈m/block⌉ blocks of neighbouring rows are permuted; then the rows of every ``together`` of them are shuffled
    among themselves, and make a piece, int64. Each row comes once. With at most ``together`` blocks in all this is a
    permutation like any other. ``key`` may be given as its `key_words`. Source: ``train-shuffle``.

    >>> pieces = list(block_order(jax.random.key(0), 1, 8, block=2, together=2))
    >>> [sorted(piece.tolist()) for piece in pieces]
    [[2, 3, 6, 7], [0, 1, 4, 5]]
    """
    words = key if isinstance(key, Sequence) else key_words(key)
    rng = np.random.default_rng([*words, epoch])
    blocks = rng.permutation(-(-m // block))
    for first in range(0, len(blocks), together):
        rows = (blocks[first : first + together, None] * block + np.arange(block)[None, :]).ravel()
        yield rng.permutation(rows[rows < m])


class DiskRun(Run):
    """A run whose chunks bring their own examples, ``arrays`` being memory maps."""

    def __init__(self, *arguments: Any, disk: DiskData, order_key: jax.Array | None = None) -> None:
        super().__init__(*arguments, order_key=order_key)
        self.disk = disk
        self.arrays = Batch(*(None if array is None else np.asarray(array) for array in self.data))
        row = sum(array[:1].nbytes for array in self.arrays if array is not None)
        self.chunk = evenly(self.steps, max(1, min(self.chunk, CHUNK_BYTES // (row * self.batch_size))))
        self.size = self.chunk * self.batch_size
        # what every chunk brings, for the compiler
        first = check_batch(self.config, Batch(*(None if a is None else a[:1] for a in self.arrays)), disk.name)
        self.data = jax.tree.map(lambda a: jax.ShapeDtypeStruct((self.size, *a.shape[1:]), a.dtype), first)

    def chunks(self, start: int = 0) -> Iterator[Chunk]:
        """The chunks of the run in their order, from step ``start`` on, read from the files when they are asked for."""
        first = start
        for epoch in range(start // self.steps + 1, self.epochs + 1):
            skipped = first % self.steps * self.batch_size
            for order in _cut(block_order(self.words, epoch, self.m, self.disk.block), self.size, skipped):
                n = -(-len(order) // self.batch_size)
                # in the order in which they are read: the device takes its batches from one end to the other
                rows = batch_rows(np.arange(len(order)), self.batch_size, self.chunk)
                yield Chunk(first, n, rows, self.read(order))
                first += n

    def read(self, at: np.ndarray) -> Batch:
        """Check rows of the files and put them on the device, in this order, with zeros up to the size of a chunk."""
        self.disk.announce(at)
        read = Batch(*(None if array is None else _rows(array, at, self.size) for array in self.arrays))
        try:
            check_values(self.config, Batch(*(None if a is None else a[: len(at)] for a in read)), self.disk.name)
        except DataError as error:
            # the check counts the rows that it was given
            raise DataError(re.sub(r"\brow (\d+)", lambda m: f"row {at[int(m[1])]}", str(error))) from None
        return jax.tree.map(lambda a, like: jax.device_put(a.astype(like.dtype, copy=False)), read, self.data)


def _cut(pieces: Iterator[np.ndarray], size: int, skipped: int = 0) -> Iterator[np.ndarray]:
    """Cut a sequence given as pieces, without its first ``skipped``, into ones of ``size`` each and a smaller last."""
    rest = np.empty(0, np.int64)
    for piece in pieces:
        rest = np.concatenate([rest, piece[skipped:]])
        skipped = max(0, skipped - len(piece))
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if len(rest):
        yield rest


def _rows(array: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """Copy rows of an array into a new one of ``size`` rows."""
    shape = (size, *array.shape[1:])
    n_bytes = int(np.prod(shape)) * array.dtype.itemsize
    memory = np.zeros(n_bytes + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    rows = memory[begin : begin + n_bytes].view(array.dtype).reshape(shape)
    # any other mode than "clip" would write to a copy first; all rows are inside
    np.take(array, at, axis=0, out=rows[: len(at)], mode="clip")
    return rows


def _open(path: Path) -> np.ndarray:
    """Map a ``.npy`` file into memory, after a check of its header and length."""
    path = os.fspath(path)
    try:
        with warnings.catch_warnings():
            # a header as Python 2 wrote it, or a shape beyond 64 bits, which is an error too
            warnings.simplefilter("ignore")
            with open_file(path) as file:
                # NumPy would take what memory a header asks for, and crash at a negative number of nothing
                npy_bytes(io.BytesIO(file.read(HEADER_BYTES)))
            array = np.lib.format.open_memmap(path, mode="r")
        got = os.path.getsize(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
    except Exception as error:  # made up: ast and numpy raise a dozen kinds of errors
        raise DataError(f"{path}: is not a whole .npy file of numbers ({error}): write it with numpy.save") from error
    expected = array.offset + array.nbytes
    if got != expected:
        raise DataError(f"{path}: has {got:,} bytes, its header says {expected:,}: write it again")
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8 or not array.dtype.isnative:
        raise DataError(
            f"{path}: has dtype {array.dtype}: expected real numbers of at most 8 bytes in this machine's byte order"
        )
    if array.ndim == 0 or not array.flags.c_contiguous:
        raise DataError(
            f"{path}: has shape {array.shape}{' in Fortran order' if array.ndim else ''}: expected one example per "
            "row, in C order; write it with numpy.save(path, numpy.ascontiguousarray(array))"
        )
    if hasattr(mmap, "MADV_RANDOM"):
        # or the system reads far around each row; the blocks are announced instead
        memory: Any = array.base
        memory.madvise(mmap.MADV_RANDOM)
    return array
