"""Networks of one shape that train together: what stays the same for them, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mlpjax.chunks import Chunk, Run, epoch_order, key_words
from mlpjax.config import Config
from mlpjax.parameters import Batch
from mlpjax.population_step import MakeOptimizer, members, run_population, stack_configs, start_program
from mlpjax.step import GradFn, Report, TrainState, batch_rows


class Group(NamedTuple):
    """What tells the members of a group apart: their rates, what their optimisers are made of, and their keys."""

    configs: Config
    alphas: Any
    keys: jax.Array


class GroupRun(Run):
    """The problem, the chunks and the program of a group: a `Run` for all its members."""

    def __init__(
        self,
        configs: Sequence[Config],
        optimizer: MakeOptimizer,
        alphas: Any,
        keys: jax.Array,
        order_key: jax.Array | None,
        grad_fn: GradFn,
        data: Batch,
        batch_size: int,
        epochs: int,
        *,
        together: bool,
    ) -> None:
        n = len(configs)
        order = keys[0] if order_key is None else order_key
        super().__init__(
            configs[0], None, grad_fn, data, batch_size, epochs, keys[0], order_key=order, together=together, members=n
        )
        self.static["optimizer"] = optimizer
        self.group = Group(stack_configs(configs), alphas, keys)
        self.orders = [key_words(key) for key in keys] if order_key is None else None

    def start(self) -> TrainState:
        """The start values of all members."""
        return start_program()(*self.group, optimizer=self.static["optimizer"])

    def compile(self, train_state: TrainState) -> None:
        """Trace and compile the chunk; later calls find it."""
        each = () if self.orders is None else (len(self.group.keys),)
        nothing = Chunk(0, 0, np.full((self.chunk, *each, self.batch_size), -1, np.int32), self.data)
        everyone = np.ones(len(self.group.keys), bool)
        run_population.lower(*self._of(train_state, nothing, everyone), **self.static).compile()

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """The batches of an epoch, ``(steps, batch size)``, or ``(steps, N, batch size)`` if each has its own."""
        if self.orders is None:
            return super().epoch_rows(epoch)
        orders = (epoch_order(words, epoch, self.m) for words in self.orders)
        return np.stack([batch_rows(order, self.batch_size, self.steps) for order in orders], axis=1)

    def take_all(
        self, train_state: TrainState, chunk: Chunk, training: np.ndarray
    ) -> tuple[TrainState, Report, jax.Array]:
        """Start the steps of a chunk for those who are ``training (N,)``; what is returned may still be computed."""
        return run_population(*self._of(train_state, chunk, training), **self.static)

    def only(self, at: np.ndarray) -> None:
        """Go on with some members."""
        self.group = members(self.group, at)

    def for_members(self, chunk: Chunk, at: np.ndarray) -> Chunk:
        """The part of a chunk that some members take."""
        if self.orders is None or len(at) == chunk.rows.shape[1]:
            return chunk
        return chunk._replace(rows=np.ascontiguousarray(chunk.rows[:, at]))

    def _of(self, train_state: TrainState, chunk: Chunk, training: np.ndarray) -> tuple:
        configs, alphas, keys = self.group
        first, n = np.int32(chunk.first), np.int32(chunk.n)
        return configs, alphas, train_state, chunk.data, chunk.rows, n, first, keys, training
