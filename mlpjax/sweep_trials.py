"""What a search knows of a point after training, and the ranking of points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from mlpjax.config import Config
from mlpjax.fit_checks import check_monitor
from mlpjax.heads import HEADS
from mlpjax.loop import StopReason
from mlpjax.train import FitResult

Monitor: TypeAlias = Literal["loss", "metric"]
"""The validation value that ranks: the loss, or the head's metric."""


class Run(NamedTuple):
    """One network of a trial: validation loss and metric at its best epoch, and how its training ended.

    ``loss`` and ``metric`` are NaN where no epoch was completed.
    """

    epoch: int
    loss: float
    metric: float
    stop_reason: StopReason
    message: str

    @classmethod
    def of(cls, result: FitResult) -> Run:
        """Read a result of `mlpjax.fit_many` with patience."""
        at = result.epoch - 1
        columns = (result.history.get(name, []) for name in ("valid_loss", "valid_metric"))
        loss, metric = (column[at] if 0 <= at < len(column) else math.nan for column in columns)
        return cls(result.epoch, loss, metric, result.stop_reason, result.message)


class Trial(NamedTuple):
    """A point with its networks, one per key; ``number`` is its place among the points."""

    number: int
    point: Mapping[str, Any]
    config: Config
    runs: tuple[Run, ...]

    def mean(self, name: Monitor) -> float:
        """The mean over the runs: Σ vᵣ / R."""
        return float(np.mean([getattr(run, name) for run in self.runs]))

    def spread(self, name: Monitor) -> float:
        """The sample standard deviation over the runs, √(Σ (vᵣ − v̄)²/(R − 1)); NaN of one run."""
        values = np.array([getattr(run, name) for run in self.runs])
        if len(values) < 2 or not np.isfinite(values).all():
            return math.nan
        return float(np.std(values, ddof=1))

    @property
    def problem(self) -> str:
        """Why the trial has no rank among the others: a run diverged or has no finite value; "" for all others."""
        if diverged := sum(run.stop_reason == "diverged" for run in self.runs):
            return "diverged" if len(self.runs) == 1 else f"{diverged} of {len(self.runs)} diverged"
        for run in self.runs:
            if not (math.isfinite(run.loss) and math.isfinite(run.metric)):
                return run.message if run.stop_reason == "interrupted" else "a validation value is not finite"
        return ""

    def best_run(self, monitor: Monitor) -> int:
        """The number of the run with the best monitored value, then the lower loss, then the first."""
        return min(range(len(self.runs)), key=lambda r: self._badness(self.runs[r], monitor))

    def order(self, monitor: Monitor) -> tuple:
        """What trials are sorted by."""
        means = Run(0, self.mean("loss"), self.mean("metric"), "finished", "")
        return (bool(self.problem), *self._badness(means, monitor), self.number)

    def _badness(self, run: Run, monitor: Monitor) -> tuple[float, float]:
        sign = -1 if HEADS[self.config.head].higher_is_better else 1
        values = (run.loss if monitor == "loss" else sign * run.metric, run.loss)
        return values[0] if math.isfinite(values[0]) else math.inf, values[1] if math.isfinite(values[1]) else math.inf


def rank(trials: Iterable[Trial], monitor: Monitor = "loss") -> list[Trial]:
    """Sort trials, the best first: by the mean of the monitored value, then by the loss, then by their numbers.

    Those with a `Trial.problem` come last.

    Raises:
        ConfigError: ``monitor`` is neither ``"loss"`` nor ``"metric"``.

    >>> def trial(number, loss, accuracy, reason="finished"):
    ...     run = Run(epoch=1, loss=loss, metric=accuracy, stop_reason=reason, message="too fast")
    ...     return Trial(number, {}, mlpjax.Config(sizes=(2, 3)), (run,))
    >>> trials = [trial(0, 0.1, 0.9, "diverged"), trial(1, 0.4, 0.8), trial(2, 0.3, 0.7), trial(3, 0.5, 0.8)]
    >>> [t.number for t in rank(trials)], [t.number for t in rank(trials, "metric")]
    ([2, 1, 3, 0], [1, 3, 2, 0])
    """
    check_monitor(monitor, None, None)
    return sorted(trials, key=lambda trial: trial.order(monitor))
