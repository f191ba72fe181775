"""How a run is cut into chunks of steps, and the program that is compiled once for all of them.

Nothing leaves the device inside a chunk. Where the host has nothing to do between two epochs a chunk holds many:
a small network takes a step in microseconds, and a visit to the host in hundreds of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.augmenting import Augment
from mlpjax.config import Config
from mlpjax.parameters import Batch
from mlpjax.step import GradFn, Report, TrainState, batch_rows, run_chunk

CHUNK_FLOPS = 1e11
"""About how many floating-point operations a chunk holds at most: two seconds on two CPU cores."""
CHUNK_STEPS = 2**15
"""How many steps a chunk holds at most: of the smallest networks, for which operations count for little."""


class Chunk(NamedTuple):
    """Steps ``first`` … ``first + n − 1`` of a run, counted from 0, with the batches that they take.

    ``rows (C, batch size)`` are rows of ``data``, and have the shape of every other chunk; only the first n are used.
    """

    first: int
    n: int
    rows: np.ndarray
    data: Batch


def key_words(key: jax.Array) -> list[int]:
    """The 32-bit words of a key of `jax.random`, typed or raw."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(key) if typed else key).ravel().tolist()


def epoch_order(key: jax.Array | Sequence[int], epoch: int, m: int) -> np.ndarray:
    """The order of the m examples in an epoch (from 1): a permutation that depends on (key, epoch) only.

    Drawn on the host, where it is over ten times as fast as inside a compiled CPU program. ``key`` may be given as
    its `key_words`. Source: ``train-shuffle``.

    >>> sorted(epoch_order(jax.random.key(0), 1, 5).tolist())
    [0, 1, 2, 3, 4]
    """
    words = key if isinstance(key, Sequence) else key_words(key)
    return np.random.default_rng([*words, epoch]).permutation(m).astype(np.int32)


class Run:
    """What stays the same during a run: the problem, its chunks, and their program.

    ``order_key`` decides the order of the examples, ``key`` by default. ``together``: the host has nothing to do
    between epochs, so that a chunk may hold several. ``members``: how many networks take each step.
    """

    def __init__(
        self,
        config: Config,
        optimizer: optax.GradientTransformation | None,
        grad_fn: GradFn,
        data: Batch,
        batch_size: int,
        epochs: int,
        key: jax.Array,
        augment: Augment | None = None,
        *,
        order_key: jax.Array | None = None,
        together: bool = False,
        members: int = 1,
    ) -> None:
        self.config, self.data, self.key, self.epochs, self.augment = config, data, key, epochs, augment
        self.words = key_words(key if order_key is None else order_key)
        self.m = data.x.shape[0]
        self.batch_size = min(batch_size, self.m)
        self.steps = -(-self.m // self.batch_size)
        weights = sum(a * b for a, b in zip(config.sizes[:-1], config.sizes[1:], strict=True))
        self.step_flops = 6 * weights * self.batch_size
        """Of one network: about as many floating-point operations does a step take."""
        longest = max(1, min(CHUNK_STEPS, int(CHUNK_FLOPS / (self.step_flops * members))))
        self.epochs_together = evenly(epochs, max(1, longest // self.steps)) if together else 1
        self.chunk = evenly(self.steps * self.epochs_together, longest)
        self.static: dict[str, Any] = {"optimizer": optimizer, "grad_fn": grad_fn}

    def compile(self, train_state: TrainState) -> None:
        """Trace and compile the chunk; later calls find it."""
        nothing = Chunk(0, 0, np.full((self.chunk, self.batch_size), -1, np.int32), self.data)
        run_chunk.lower(*self._arguments(train_state, nothing), **self.static).compile()

    def chunks(self, start: int = 0) -> Iterator[Chunk]:
        """The chunks of the run in their order, from step ``start`` on.

        A chunk ends where an epoch ends, or inside an epoch.
        """
        for first_epoch in range(1, self.epochs + 1, self.epochs_together):
            epochs = range(first_epoch, min(first_epoch + self.epochs_together, self.epochs + 1))
            begin, end = (first_epoch - 1) * self.steps, epochs[-1] * self.steps
            if end <= start:
                continue
            rows = np.concatenate([self.epoch_rows(epoch) for epoch in epochs])
            for first in range(max(begin, start), end, self.chunk):
                taken = rows[first - begin : first - begin + self.chunk]
                n = len(taken)
                if n < self.chunk:
                    taken = np.concatenate([taken, np.full((self.chunk - n, *taken.shape[1:]), -1, np.int32)])
                yield Chunk(first, n, taken, self.data)

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """The batches of an epoch, ``(steps, batch size)``."""
        return batch_rows(epoch_order(self.words, epoch, self.m), self.batch_size, self.steps)

    def take(self, train_state: TrainState, chunk: Chunk) -> tuple[TrainState, Report, jax.Array]:
        """Start the steps of a chunk; what is returned may still be computed."""
        return run_chunk(*self._arguments(train_state, chunk), **self.static)

    def at(self, step: int) -> tuple[int, int]:
        """The epoch and the step in it, both from 1, of a step of the run, from 0."""
        return step // self.steps + 1, step % self.steps + 1

    def _arguments(self, train_state: TrainState, chunk: Chunk) -> tuple:
        first, n = np.int32(chunk.first), np.int32(chunk.n)
        return self.config, train_state, chunk.data, chunk.rows, n, first, self.key, self.augment


def evenly(total: int, longest: int) -> int:
    """The length of the pieces, at most ``longest``, into which ``total`` is cut most evenly."""
    pieces = -(-total // min(longest, total))
    return -(-total // pieces)
