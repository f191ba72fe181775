"""The loop of training on the host: epochs of chunks, with the record that is kept between them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from mlpjax.checks import check_batch
from mlpjax.chunks import Chunk, Run
from mlpjax.config import Config
from mlpjax.divergence import divergence_message, first_bad_step, whole_epochs
from mlpjax.heads import HEADS
from mlpjax.parameters import Batch, Params, State
from mlpjax.snapshots import Snapshot
from mlpjax.step import Report, TrainState, batch_rows, run_evaluation

EVALUATION_BATCH = 2048

History = dict[str, list[float]]
StopReason = Literal["finished", "early stopping", "callback", "interrupted", "diverged"]


class Progress(NamedTuple):
    """What a callback sees after each chunk.

    ``epoch`` and ``step`` count from 1 to ``epochs`` and ``steps`` (of the epoch); ``loss`` is the chunk's mean
    data loss. ``record`` is the epoch's new row of the history at its end, and ``None`` before. ``train_state`` is
    where training stands: parameters, batch-norm statistics, the optimiser's state.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    record: dict[str, float] | None
    train_state: TrainState


def evaluate(config: Config, params: Params, state: State, data: Batch) -> dict[str, float]:
    """Evaluate without training: ``loss`` (the weighted mean data loss) and ``metric``, the head's.

    With no weight at all both are NaN.

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
    reports = jax.device_get(run_evaluation(config, params, state, data, evaluation_rows(len(data.x))))
    means = batch_means(reports)
    return {"loss": float(means["loss"]), "metric": float(means["metric"])}


def evaluation_rows(m: int) -> np.ndarray:
    """m examples in their order, as batches of about `EVALUATION_BATCH` or fewer."""
    n_batches = -(-m // EVALUATION_BATCH)
    return batch_rows(np.arange(m), -(-m // n_batches), n_batches)


S = TypeVar("S", contravariant=True)


class Keep(Protocol[S]):
    """What writes checkpoints."""

    def __call__(self, snapshot: Callable[[], S], *, last: bool) -> None:
        """Be told after each chunk what makes a snapshot, and whether it was the last chunk."""


class _Taken(NamedTuple):
    """A chunk that was taken, with where it started: enough to take it again."""

    start: TrainState
    chunk: Chunk


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
        self.step = self.epoch = 0
        self.seconds_before = 0.0
        self.keep: Keep[Snapshot] | None = None
        self.best: tuple[float, int, TrainState] | None = None
        self.recent: deque[_Taken] = deque(maxlen=2)
        self.unrecorded: list[Report] = []
        self.stop_reason: StopReason = "finished"
        self.message = ""
        self.diverged_at: tuple[int, int] | None = None

    def train(self, interrupted: threading.Event) -> None:
        """Take the chunks until the end or until something stops them."""
        self.started = time.perf_counter() - self.seconds_before
        chunks = self.run.chunks(self.step)
        upcoming = next(chunks, None)
        while (chunk := upcoming) is not None and self.stop_reason == "finished":
            self.recent.append(_Taken(self.now, chunk))
            self.now, reports, finite = self.run.take(self.now, chunk)
            # the order of what comes next is drawn while the device computes
            upcoming = next(chunks, None)
            reports, finite = jax.device_get((Report(*(column[: chunk.n] for column in reports)), finite))
            self.step = chunk.first + chunk.n
            self.epoch = self.run.at(self.step - 1)[0]
            if not (finite and np.isfinite(reports.J).all()):
                self.diverge(reports)
                return
            going = self.go_on(chunk, reports, interrupted)
            if self.keep is not None:
                self.keep(self.snapshot, last=not going or upcoming is None)
        if self.stop_reason == "finished":
            self.message = f"finished after epoch {self.run.epochs}"

    def snapshot(self) -> Snapshot:
        """Where training stands, after the last chunk."""
        taken = self.recent[-1]
        reports = [np.concatenate(column) for column in zip(*self.unrecorded, strict=True)]
        return Snapshot(
            step=self.step,
            now=self.now,
            before_step=taken.chunk.first,
            before=taken.start,
            best=self.best,
            history=self.history,
            unrecorded=Report(*reports) if reports else None,
            seconds=time.perf_counter() - self.started,
            ended=(self.stop_reason, self.message) if self.stop_reason == "early stopping" else None,
        )

    def resume(self, snapshot: Snapshot) -> None:
        """Go back to where training stood, in this process or another."""
        self.step, self.now, self.best = snapshot.step, snapshot.now, snapshot.best
        self.epoch = self.run.at(self.step - 1)[0]
        self.history = {name: list(column) for name, column in snapshot.history.items()}
        self.unrecorded = [] if snapshot.unrecorded is None else [snapshot.unrecorded]
        self.seconds_before = snapshot.seconds
        if snapshot.ended is not None:
            self.stop("early stopping", snapshot.ended[1])
        before = snapshot.before
        # this run may be cut into other chunks
        for chunk in self.run.chunks(snapshot.before_step):
            chunk = chunk._replace(n=min(chunk.n, self.step - chunk.first))
            self.recent.append(_Taken(before, chunk))
            if chunk.first + chunk.n == self.step:
                break
            before = self.run.take(before, chunk)[0]

    def go_on(self, chunk: Chunk, reports: Report, interrupted: threading.Event) -> bool:
        """Record a chunk and tell the callback; returns whether to go on."""
        self.unrecorded.append(reports)
        epoch, step = self.run.at(chunk.first + chunk.n - 1)
        last = step == self.run.steps
        record = self.record(epoch) if last else None
        mean = float(batch_means(reports)["loss"])
        stop = self.callback is not None and self.callback(
            Progress(epoch, self.run.epochs, step, self.run.steps, mean, record, self.now)
        )
        when = f"{'after' if last else 'during'} epoch {epoch}"
        # first what would have ended it without an interrupt, too
        if last and self.out_of_patience(epoch):
            return False
        if interrupted.is_set():
            self.stop("interrupted", f"interrupted {when}")
        elif stop:
            self.stop("callback", f"stopped by the callback {when}")
        return self.stop_reason == "finished"

    def record(self, epoch: int) -> dict[str, float]:
        """Add the epochs until this one to the history, and keep its parameters if they are the best; its row."""
        columns = (np.concatenate(column) for column in zip(*self.unrecorded, strict=True))
        means = batch_means(Report(*(column.reshape(-1, self.run.steps) for column in columns)))
        self.unrecorded.clear()
        n = len(means["loss"])
        rows: dict[str, list[float]] = {"epoch": list(range(epoch - n + 1, epoch + 1))}
        rows |= {"train_loss": means["loss"].tolist(), "train_metric": means["metric"].tolist()}
        rows["penalty"] = means["penalty"].tolist()
        if self.valid_data is not None:
            valid = evaluate_checked(self.run.config, self.now.params, self.now.state, self.valid_data)
            rows |= {"valid_loss": [valid["loss"]], "valid_metric": [valid["metric"]]}
            higher = self.monitor == "metric" and HEADS[self.run.config.head].higher_is_better
            score = -valid[self.monitor] if higher else valid[self.monitor]
            score = math.inf if math.isnan(score) else score
            if self.patience is not None and (self.best is None or score < self.best[0]):
                self.best = (score, epoch, self.now)
        rows["seconds"] = [time.perf_counter() - self.started] * n
        for name, values in rows.items():
            self.history.setdefault(name, []).extend(values)
        return {name: values[-1] for name, values in rows.items()}

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

    def diverge(self, reports: Report) -> None:
        """Go back to the last parameters with which the loss was finite, by taking the steps before again."""
        taken, run = self.recent[-1], self.run
        first = taken.chunk.first

        def lasts(steps: int) -> bool:
            return self.replay(taken, steps)[1]

        at = first_bad_step(np.asarray(reports.J), lasts)
        if ended := whole_epochs(first, at, run.steps, lasts):
            self.unrecorded.append(Report(*(column[:ended] for column in reports)))
            self.record(run.at(first + ended - 1)[0])
        if at == 0 and len(self.recent) == 2:
            source, steps = self.recent[0], self.recent[0].chunk.n - 1
        else:
            source, steps = taken, max(at - 1, 0)
        self.now, _ = self.replay(source, steps)
        self.epoch = run.at(source.chunk.first + steps)[0]
        self.diverged_at = epoch, step = run.at(min(first + at, run.epochs * run.steps - 1))
        if self.best is not None and not math.isfinite(self.best[0]):
            self.best = None
        best_epoch = None if self.best is None else self.best[1]
        self.stop("diverged", divergence_message(epoch, step, run.steps, best_epoch))

    def replay(self, taken: _Taken, steps: int) -> tuple[TrainState, bool]:
        """Take the first steps of a chunk again; returns where they lead, and whether that is finite."""
        after, _, finite = self.run.take(taken.start, taken.chunk._replace(n=steps))
        return after, bool(finite)

    def stop(self, reason: StopReason, message: str) -> None:
        """Note why training ends."""
        self.stop_reason, self.message = reason, message

    def kept(self) -> tuple[int, TrainState]:
        """The best epoch and its train state if those were kept, else the last ones."""
        return (self.epoch, self.now) if self.best is None else self.best[1:]


def batch_means(reports: Report) -> dict[str, np.ndarray]:
    """Means over batches, the last axis, weighted by weight sums, in float64; over nothing, NaN."""
    weight = np.asarray(reports.weight_sum, np.float64)
    seen = weight > 0  # a batch of no weight may hold anything
    total = weight.sum(axis=-1)
    sums = {
        "loss": weight * np.asarray(reports.data_loss, np.float64),
        "penalty": weight * np.asarray(reports.penalty, np.float64),
        "metric": np.asarray(reports.metric_sum, np.float64),
    }
    divisor = np.where(total > 0, total, np.nan)
    return {name: values.sum(axis=-1, where=seen) / divisor for name, values in sums.items()}
