"""The loop of a group on the host: chunks for all members, with the record, the divergence and the end of each."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from mlpjax.chunks import Chunk
from mlpjax.divergence import divergence_message, first_bad_step, whole_epochs
from mlpjax.heads import HEADS
from mlpjax.loop import History, Keep, batch_means, evaluation_rows
from mlpjax.parameters import Batch
from mlpjax.population_run import GroupRun
from mlpjax.population_snapshot import PopulationSnapshot, Standing, Stop
from mlpjax.population_step import evaluate_population, keep_better, members, put
from mlpjax.step import Report, TrainState

COMPILE_FLOPS = 5e10
"""About how many floating-point operations could be done in the time in which a program is compiled."""


class _Taken(NamedTuple):
    """A chunk that was taken, where it started, and who trained: enough to take it again."""

    start: TrainState
    chunk: Chunk
    training: np.ndarray


class GroupLoop:
    """Where a group of N stands.

    Arrays ``(N,)`` on the host are indexed by member. On the device are the states of those in ``at`` only: members
    that have stopped are left out when that saves more than the program for fewer costs.
    """

    def __init__(
        self,
        run: GroupRun,
        start: TrainState,
        epochs: np.ndarray,
        valid_data: Batch | None,
        patience: int | None,
        monitor: str,
        callback: Callable[[int, int], None] | None,
    ) -> None:
        self.run, self.now, self.epochs, self.valid_data, self.callback = run, start, epochs, valid_data, callback
        self.patience, self.monitor = patience, monitor
        n = len(epochs)
        self.at = np.arange(n)
        self.training = np.ones(n, bool)
        self.recorded, self.last_epoch, self.best_epoch = (np.zeros(n, int) for _ in range(3))
        self.best_score = np.full(n, math.inf)
        self.best = start
        self.columns: dict[str, list[np.ndarray]] = {}
        self.stops: dict[int, Stop] = {}
        self.left: dict[int, tuple[TrainState, TrainState]] = {}
        self.recent: deque[_Taken] = deque(maxlen=2)
        self.unrecorded: list[Report] = []
        self.step = 0
        self.seconds_before = 0.0
        self.keep: Keep[PopulationSnapshot] | None = None

    def compile(self) -> None:
        """Compile what `train` will run."""
        self.run.compile(self.now)
        if self.valid_data is not None:
            self.evaluate(self.valid_data)

    def train(self, interrupted: threading.Event) -> None:
        """Take the chunks until every member has stopped."""
        self.started = time.perf_counter() - self.seconds_before
        chunks = self.run.chunks(self.step)
        upcoming = next(chunks, None)
        if interrupted.is_set():
            epoch = self.run.at(self.step)[0]
            self.stop(self.training.copy(), lambda _: Stop("interrupted", f"interrupted before epoch {epoch}"))
        while (chunk := upcoming) is not None and self.training.any():
            self.leave_out(chunk)
            chunk = self.run.for_members(chunk, self.at)
            self.recent.append(_Taken(self.now, chunk, self.training[self.at]))
            self.now, reports, finite = self.run.take_all(*self.recent[-1])
            # the order of what comes next is drawn while the device computes
            upcoming = next(chunks, None)
            reports, finite = jax.device_get((Report(*(column[: chunk.n] for column in reports)), finite))
            self.step = chunk.first + chunk.n
            self.note(chunk, reports, finite, interrupted)
            if self.keep is not None:
                self.keep(self.snapshot, last=upcoming is None or not self.training.any())
        self.leave(np.arange(len(self.at)))

    def snapshot(self) -> PopulationSnapshot:
        """Where the group stands, after the last chunk; an interrupt is no end."""
        taken, training = self.recent[-1], self.training.copy()
        stops = {i: stop for i, stop in self.stops.items() if stop.reason != "interrupted"}
        training[[i for i in self.stops if i not in stops]] = True
        reports = [np.concatenate(column) for column in zip(*self.unrecorded, strict=True)]
        return PopulationSnapshot(
            step=self.step,
            at=self.at,
            now=self.now,
            before_step=taken.chunk.first,
            before=taken.start,
            took=taken.training,
            best=self.best,
            standing=Standing(training, self.recorded, self.last_epoch, self.best_epoch, self.best_score),
            columns={name: np.array(rows) for name, rows in self.columns.items()},
            unrecorded=Report(*reports) if reports else None,
            stops=stops,
            left=self.left,
            seconds=time.perf_counter() - self.started,
        )

    def resume(self, snapshot: PopulationSnapshot) -> None:
        """Go back to where the group stood, in this process or another."""
        self.step, self.now, self.best, self.at = snapshot.step, snapshot.now, snapshot.best, snapshot.at
        self.training, self.recorded, self.last_epoch, self.best_epoch, self.best_score = snapshot.standing
        self.columns = {name: list(rows) for name, rows in snapshot.columns.items()}
        self.unrecorded = [] if snapshot.unrecorded is None else [snapshot.unrecorded]
        self.stops, self.left, self.seconds_before = dict(snapshot.stops), dict(snapshot.left), snapshot.seconds
        if len(self.at) < len(self.epochs):
            self.run.only(self.at)
        before = snapshot.before
        # this run may be cut into other chunks
        for chunk in self.run.chunks(snapshot.before_step):
            chunk = self.run.for_members(chunk._replace(n=min(chunk.n, self.step - chunk.first)), self.at)
            self.recent.append(_Taken(before, chunk, snapshot.took))
            if chunk.first + chunk.n == self.step:
                break
            before = self.run.take_all(*self.recent[-1])[0]

    def note(self, chunk: Chunk, reports: Report, finite: np.ndarray, interrupted: threading.Event) -> None:
        """Record a chunk: who diverged in it, the epochs that it ended, and who stops after it."""
        epoch, step = self.run.at(chunk.first + chunk.n - 1)
        well = finite & np.isfinite(reports.J).all(axis=0)
        self.diverge(np.flatnonzero(self.training[self.at] & ~well), reports)
        self.last_epoch[self.training] = epoch
        self.unrecorded.append(reports)
        ended = step == self.run.steps
        if ended:
            self.record(epoch)
            if self.patience is not None:
                self.stop((self.best_epoch > 0) & (epoch - self.best_epoch >= self.patience), self.impatience(epoch))
            self.stop(self.epochs <= epoch, lambda _: Stop("finished", f"finished after epoch {epoch}"))
        if self.callback is not None:
            self.callback(epoch, int(self.training.sum()))
        if interrupted.is_set():
            message = f"interrupted {'after' if ended else 'during'} epoch {epoch}"
            self.stop(np.ones_like(self.training), lambda _: Stop("interrupted", message))

    def record(self, epoch: int) -> None:
        """Add the epochs until this one to the history, and keep the parameters of those that were never better."""
        columns = (np.concatenate(column).T for column in zip(*self.unrecorded, strict=True))
        means = batch_means(Report(*(column.reshape(len(self.at), -1, self.run.steps) for column in columns)))
        self.unrecorded.clear()
        values = {"train_loss": means["loss"], "train_metric": means["metric"], "penalty": means["penalty"]}
        if self.valid_data is not None:
            valid = self.evaluate(self.valid_data)
            values |= {"valid_loss": valid["loss"][:, None], "valid_metric": valid["metric"][:, None]}
        values["seconds"] = np.full_like(means["loss"], time.perf_counter() - self.started)
        for name, value in values.items():
            of_all = np.full((len(self.epochs), value.shape[1]), np.nan)
            of_all[self.at] = value
            self.columns.setdefault(name, []).extend(of_all.T)
        self.recorded[self.training] = epoch
        if self.patience is not None:
            self.compare(epoch, self.columns[f"valid_{self.monitor}"][-1])

    def evaluate(self, data: Batch) -> dict[str, np.ndarray]:
        """Loss and metric of those on the device."""
        reports = evaluate_population(self.run.group.configs, self.now, data, evaluation_rows(len(data.x)))
        return batch_means(Report(*(column.T for column in jax.device_get(reports))))

    def compare(self, epoch: int, values: np.ndarray) -> None:
        """Keep the parameters of those whose monitored value, ``(N,)``, is better than ever."""
        higher = self.monitor == "metric" and HEADS[self.run.config.head].higher_is_better
        scores = np.where(np.isnan(values), math.inf, -values if higher else values)
        better = self.training & ((scores < self.best_score) | (self.best_epoch == 0))
        self.best_score[better], self.best_epoch[better] = scores[better], epoch
        self.best = keep_better(better[self.at], self.now, self.best)

    def impatience(self, epoch: int) -> Callable[[int], Stop]:
        """What to tell of a member that has not improved for long enough."""
        words = (
            f"stopped after epoch {epoch}: the validation {self.monitor} has not improved for {self.patience} epochs"
        )
        return lambda i: Stop("early stopping", f"{words}; the parameters are those of epoch {self.best_epoch[i]}")

    def diverge(self, rows: np.ndarray, reports: Report) -> None:
        """Send members back to their last parameters with which the loss was finite, by taking chunks again."""
        taken, run = self.recent[-1], self.run
        first = taken.chunk.first

        @functools.cache
        def again(back: int, steps: int) -> tuple[TrainState, np.ndarray]:
            start, chunk, training = self.recent[-1 - back]
            after, _, finite = run.take_all(start, chunk._replace(n=steps), training)
            return after, np.asarray(finite)

        for row in rows:
            i = self.at[row]

            def lasts(steps: int, row: int = row) -> bool:
                return bool(again(0, steps)[1][row])

            at = first_bad_step(np.asarray(reports.J)[:, row], lasts)
            self.recorded[i] = (first + whole_epochs(first, at, run.steps, lasts)) // run.steps
            back = int(at == 0 and len(self.recent) == 2)
            steps = self.recent[0].chunk.n - 1 if back else max(at - 1, 0)
            self.now = put(self.now, again(back, steps)[0], row)
            self.last_epoch[i] = run.at(self.recent[-1 - back].chunk.first + steps)[0]
            epoch, step = run.at(min(first + at, int(self.epochs[i]) * run.steps - 1))
            if not math.isfinite(self.best_score[i]):
                self.best_epoch[i] = 0
            message = divergence_message(epoch, step, run.steps, int(self.best_epoch[i]) or None)
            self.stops[int(i)] = Stop("diverged", message, (epoch, step))
            self.training[i] = False

    def stop(self, which: np.ndarray, why: Callable[[int], Stop]) -> None:
        """End those of ``which (N,)`` that still train."""
        for i in np.flatnonzero(which & self.training):
            self.stops[int(i)] = why(int(i))
        self.training &= ~which

    def leave_out(self, upcoming: Chunk) -> None:
        """Go on with those that train, if that is worth another program."""
        training = self.training[self.at]
        if training.sum() > len(training) // 2:
            return
        ahead = (self.run.epochs * self.run.steps - upcoming.first) * self.run.step_flops
        if ahead * (~training).sum() < COMPILE_FLOPS:
            return
        self.leave(np.flatnonzero(~training))
        stay = np.flatnonzero(training)
        self.at = self.at[stay]
        self.now, self.best = members((self.now, self.best), stay)
        self.recent = deque((_part(self.run, taken, stay) for taken in self.recent), maxlen=2)
        self.unrecorded = [Report(*(column[:, stay] for column in reports)) for reports in self.unrecorded]
        self.run.only(stay)

    def leave(self, rows: np.ndarray) -> None:
        """Bring members to the host."""
        # indexed by NumPy: on the device each shape would be a program
        host = jax.device_get((self.now, self.best))
        for row in rows:
            self.left[int(self.at[row])] = members(host, row)

    def history_of(self, i: int) -> History:
        """The columns of a member's history, as `mlpjax.fit` has them."""
        n = int(self.recorded[i])
        if n == 0:
            return {}
        columns = {name: [float(values[i]) for values in rows[:n]] for name, rows in self.columns.items()}
        return {"epoch": list(range(1, n + 1)), **columns}


def _part(run: GroupRun, taken: _Taken, stay: np.ndarray) -> _Taken:
    """A chunk that was taken, as if those who stay had been alone."""
    return _Taken(members(taken.start, stay), run.for_members(taken.chunk, stay), taken.training[stay])
