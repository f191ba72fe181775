"""The loop of training on the host: epochs of chunks, with the record that is kept between them."""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.augmenting import Augment
from mlpjax.checks import check_batch
from mlpjax.config import Config
from mlpjax.heads import HEADS
from mlpjax.parameters import Batch, Params, State
from mlpjax.step import GradFn, Report, TrainState, batch_rows, run_chunk, run_evaluation

CHUNK_FLOPS = 1e11
"""About how many floating-point operations a chunk holds at most: two seconds on two CPU cores."""
EVALUATION_BATCH = 2048

History = dict[str, list[float]]
StopReason = Literal["finished", "early stopping", "callback", "interrupted", "diverged"]


class Progress(NamedTuple):
    """What a callback sees after each chunk.

    ``epoch`` and ``step`` count from 1 to ``epochs`` and ``steps`` (of the epoch); ``loss`` is the chunk's mean
    data loss. ``record`` is the epoch's new row of the history at its end, and ``None`` before.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    record: dict[str, float] | None


def evaluate(config: Config, params: Params, state: State, data: Batch) -> dict[str, float]:
    """Evaluate without training: ``loss`` (the weighted mean data loss) and ``metric``, the head's.

    Raises:
        DataError: for data that does not fit the config, as in `mlpjax.fit`.

    >>> config = mlpjax.Config(sizes=(2, 3), init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> evaluate(config, params, state, Batch(np.ones((2, 2)), np.array([0, 1])))["metric"]
    0.5
    """
    return evaluate_checked(config, params, state, check_batch(config, data, "data"))


def evaluate_checked(config: Config, params: Params, state: State, data: Batch) -> dict[str, float]:
    """Evaluate data that was checked before."""
    m = len(data.x)
    n_batches = -(-m // EVALUATION_BATCH)
    rows = batch_rows(np.arange(m), -(-m // n_batches), n_batches)
    reports = jax.device_get(run_evaluation(config, params, state, data, rows))
    means = _means(reports)
    return {"loss": means["loss"], "metric": means["metric"]}


def epoch_order(key: jax.Array, epoch: int, m: int) -> np.ndarray:
    """The order of the m examples in an epoch (from 1): a permutation that depends on (key, epoch) only.

    Drawn on the host, where it is over ten times as fast as inside a compiled CPU program.
    Source: ``train-shuffle``.

    >>> sorted(epoch_order(jax.random.key(0), 1, 5).tolist())
    [0, 1, 2, 3, 4]
    """
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = np.asarray(jax.random.key_data(key) if typed else key).ravel().tolist()
    return np.random.default_rng([*words, epoch]).permutation(m).astype(np.int32)


class Run:
    """What stays the same during a run, and the program that is compiled once for it."""

    def __init__(
        self,
        config: Config,
        optimizer: optax.GradientTransformation,
        grad_fn: GradFn,
        data: Batch,
        batch_size: int,
        epochs: int,
        key: jax.Array,
        augment: Augment | None = None,
    ) -> None:
        self.config, self.data, self.key, self.epochs, self.augment = config, data, key, epochs, augment
        self.m = data.x.shape[0]
        self.batch_size = min(batch_size, self.m)
        self.steps = -(-self.m // self.batch_size)
        weights = sum(a * b for a, b in zip(config.sizes[:-1], config.sizes[1:], strict=True))
        longest = max(1, int(CHUNK_FLOPS / (6 * weights * self.batch_size)))
        self.chunks = -(-self.steps // min(longest, self.steps))
        self.chunk = -(-self.steps // self.chunks)
        self.static = {"optimizer": optimizer, "grad_fn": grad_fn}

    def compile(self, train_state: TrainState) -> float:
        """Trace and compile the chunk; later calls find it. Returns the seconds it took."""
        started = time.perf_counter()
        rows = np.full((self.chunk, self.batch_size), -1, np.int32)
        args = (self.config, train_state, self.data, rows, np.int32(0), self.key, self.augment)
        run_chunk.lower(*args, **self.static).compile()
        return time.perf_counter() - started

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """The batches of an epoch, ``(chunks, C, batch size)``."""
        order = epoch_order(self.key, epoch, self.m)
        return batch_rows(order, self.batch_size, self.chunks * self.chunk).reshape(self.chunks, self.chunk, -1)

    def take_chunk(
        self, train_state: TrainState, rows: np.ndarray, epoch: int, i: int
    ) -> tuple[TrainState, Report, bool]:
        """Run chunk ``i`` of an epoch, and bring its reports to the host."""
        first_step = (epoch - 1) * self.steps + i * self.chunk
        after, reports, finite = run_chunk(
            self.config, train_state, self.data, rows, np.int32(first_step), self.key, self.augment, **self.static
        )
        reports, finite = jax.device_get((reports, finite))
        return after, reports, bool(finite)


class _Chunk(NamedTuple):
    """A chunk that was run, with where it started: enough to run it again."""

    start: TrainState
    rows: np.ndarray
    epoch: int
    i: int


class Loop:
    """The mutable side of `fit`: where training stands, and what was recorded."""

    def __init__(
        self,
        run: Run,
        start: TrainState,
        valid_data: Batch | None,
        patience: int | None,
        monitor: str,
        callback: Callable[[Progress], bool | None] | None,
    ) -> None:
        self.run, self.now, self.valid_data, self.callback = run, start, valid_data, callback
        self.patience, self.monitor = patience, monitor
        self.history: History = {}
        self.epoch = 0
        self.best: tuple[float, int, TrainState] | None = None
        self.recent: deque[_Chunk] = deque(maxlen=2)
        self.stop_reason: StopReason = "finished"
        self.message = ""
        self.diverged_at: tuple[int, int] | None = None

    def train(self, interrupted: threading.Event) -> None:
        """Run the epochs until the end or until something stops them."""
        self.started = time.perf_counter()
        for epoch in range(1, self.run.epochs + 1):
            if not self.train_epoch(epoch, interrupted):
                return
        self.message = f"finished after epoch {self.run.epochs}"

    def train_epoch(self, epoch: int, interrupted: threading.Event) -> bool:
        """Run one epoch; returns whether to go on."""
        reports: list[Report] = []
        for i, rows in enumerate(self.run.epoch_rows(epoch)):
            self.recent.append(_Chunk(self.now, rows, epoch, i))
            self.now, report, finite = self.run.take_chunk(self.now, rows, epoch, i)
            self.epoch = epoch
            # a padding step is not taken: its loss does not count
            if not (finite and np.isfinite(report.J[: _n_steps(self.recent[-1])]).all()):
                self.diverge(report)
                return False
            reports.append(report)
            last = i + 1 == self.run.chunks
            record = self.record(epoch, _concatenate(reports)) if last else None
            stop = self.report(epoch, i, report, record)
            if interrupted.is_set():
                self.stop("interrupted", f"interrupted {'after' if last else 'during'} epoch {epoch}")
                return False
            if stop:
                self.stop("callback", f"stopped by the callback {'after' if last else 'during'} epoch {epoch}")
                return False
        return not self.out_of_patience(epoch)

    def record(self, epoch: int, reports: Report) -> dict[str, float]:
        """Add an epoch to the history, and keep its parameters if they are the best."""
        means = _means(reports)
        row = {"epoch": epoch, "train_loss": means["loss"], "train_metric": means["metric"]}
        row["penalty"] = means["penalty"]
        if self.valid_data is not None:
            valid = evaluate_checked(self.run.config, self.now.params, self.now.state, self.valid_data)
            row |= {"valid_loss": valid["loss"], "valid_metric": valid["metric"]}
            higher = self.monitor == "metric" and HEADS[self.run.config.head].higher_is_better
            score = -valid[self.monitor] if higher else valid[self.monitor]
            score = math.inf if math.isnan(score) else score
            if self.patience is not None and (self.best is None or score < self.best[0]):
                self.best = (score, epoch, self.now)
        row["seconds"] = time.perf_counter() - self.started
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        return row

    def report(self, epoch: int, i: int, report: Report, record: dict[str, float] | None) -> bool:
        """Tell the callback; returns whether it wants to stop."""
        if self.callback is None:
            return False
        run = self.run
        step = min((i + 1) * run.chunk, run.steps)
        progress = Progress(epoch, run.epochs, step, run.steps, _means(report)["loss"], record)
        return bool(self.callback(progress))

    def out_of_patience(self, epoch: int) -> bool:
        """Return whether the monitored value has not improved for long enough, and note it as the reason to stop."""
        if self.patience is None or self.best is None or epoch - self.best[1] < self.patience:
            return False
        self.stop(
            "early stopping",
            f"stopped after epoch {epoch}: the validation {self.monitor} has not improved for {self.patience} "
            f"epochs; the parameters are those of epoch {self.best[1]}",
        )
        return True

    def diverge(self, report: Report) -> None:
        """Go back to the last parameters with which the loss was finite, by running the steps before again."""
        chunk, run = self.recent[-1], self.run
        n = _n_steps(chunk)
        bad = ~np.isfinite(report.J[:n])
        # all of these losses finite: the last update broke the parameters, so the next loss is the first bad one
        at = int(np.argmax(bad)) if bad.any() else n
        if at > 0 and not self.replay(chunk, at - 1)[1]:
            # broken earlier, while the loss stayed finite (relu turns −∞ into 0)
            at = bisect.bisect_left(range(at - 1), True, key=lambda steps: not self.replay(chunk, steps)[1])
        if at == 0 and len(self.recent) == 2:
            source = self.recent[0]
            steps = _n_steps(source) - 1
        else:
            source, steps = chunk, max(at - 1, 0)
        self.now, _ = self.replay(source, steps)
        epoch, step = chunk.epoch, chunk.i * run.chunk + at + 1
        if step > run.steps:
            epoch, step = (epoch + 1, 1) if epoch < run.epochs else (epoch, run.steps)
        self.epoch = source.epoch
        self.diverged_at = (epoch, step)
        if self.best is not None and not math.isfinite(self.best[0]):
            self.best = None
        kept = "the last ones with a finite loss" if self.best is None else f"those of epoch {self.best[1]}, the best"
        self.stop(
            "diverged",
            f"the loss stopped being finite at epoch {epoch}, step {step} of {run.steps}: try a lower learning "
            f"rate, gradient clipping or scaled inputs; the parameters are {kept}",
        )

    def replay(self, chunk: _Chunk, steps: int) -> tuple[TrainState, bool]:
        """Run the first steps of a chunk again; returns where they lead, and whether that is finite."""
        rows = chunk.rows.copy()
        rows[steps:] = -1
        after, _, finite = self.run.take_chunk(chunk.start, rows, chunk.epoch, chunk.i)
        return after, finite

    def stop(self, reason: StopReason, message: str) -> None:
        """Note why training ends."""
        self.stop_reason, self.message = reason, message

    def kept(self) -> tuple[int, TrainState]:
        """The best epoch and its train state if those were kept, else the last ones."""
        return (self.epoch, self.now) if self.best is None else self.best[1:]


def _means(reports: Report) -> dict[str, float]:
    """Means over batches, weighted by weight sums, in float64; over nothing, NaN."""
    weight = np.asarray(reports.weight_sum, np.float64)
    seen = weight > 0  # a batch of no weight may hold anything
    total = weight.sum()
    sums = {
        "loss": weight * np.asarray(reports.data_loss, np.float64),
        "penalty": weight * np.asarray(reports.penalty, np.float64),
        "metric": np.asarray(reports.metric_sum, np.float64),
    }
    return {name: float(values[seen].sum() / total) if total > 0 else np.nan for name, values in sums.items()}


def _concatenate(reports: list[Report]) -> Report:
    return Report(*(np.concatenate(column) for column in zip(*reports, strict=True)))


def _n_steps(chunk: _Chunk) -> int:
    """How many steps of a chunk are not padding."""
    return int((chunk.rows >= 0).any(axis=1).sum())
