"""Where a search stands between two groups: what is known of each network, and the best one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mlpjax.errors import CheckpointError
from mlpjax.snapshots import Content, named, part_of, read_tree, tree_arrays
from mlpjax.step import start
from mlpjax.sweep_points import Setting
from mlpjax.sweep_trials import Run
from mlpjax.train import FitResult

_TREES = ("params", "state", "opt_state")
_PLAIN = ("epoch", "stop_reason", "message", "diverged_at", "seconds_compile", "seconds_train")


class SearchSnapshot(NamedTuple):
    """``step`` groups are done: the runs of each trial by its number; of the best the number, key and result."""

    step: int
    runs: dict[int, tuple[Run, ...]]
    best: tuple[int, int, FitResult] | None
    seconds: float

    def to_file(self) -> Content:
        """The header and the arrays of a file, of which one is ``params/[0].W``."""
        header: dict[str, Any] = {"step": self.step, "seconds": self.seconds, "best": None, "train_state": {}}
        # JSON has no NaN
        header["runs"] = [
            [number, [[run.epoch, run.loss.hex(), run.metric.hex(), *run[3:]] for run in runs]]
            for number, runs in self.runs.items()
        ]
        if self.best is None:
            return header, {}
        number, key, result = self.best
        header["best"] = [number, key, {name: getattr(result, name) for name in _PLAIN}]
        history = {name: np.asarray(column, np.float64) for name, column in result.history.items()}
        return header, tree_arrays({name: getattr(result, name) for name in _TREES}) | named("history", history)

    @classmethod
    def from_file(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], groups: list[list[Setting]], keys: jax.Array
    ) -> SearchSnapshot:
        """Read what `to_file` wrote of a search over these groups with these keys."""
        runs = {
            int(number): tuple(
                Run(int(epoch), float.fromhex(loss), float.fromhex(metric), reason, str(message))
                for epoch, loss, metric, reason, message in each
            )
            for number, each in header["runs"]
        }
        step, seconds = int(header["step"]), float(header["seconds"])
        done = {setting.number: setting for group in groups[:step] for setting in group}
        if runs.keys() != done.keys() or {len(each) for each in runs.values()} != {len(keys)}:
            raise CheckpointError(
                f"it does not have {len(keys)} runs for each of the {len(done)} points of {step} groups"
            )
        if header["best"] is None:
            return cls(step, runs, None, seconds)
        number, key, plain = header["best"]
        return cls(step, runs, (number, key, _read_result(plain, arrays, done[number], keys[key])), seconds)


def _read_result(
    plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray], setting: Setting, key: jax.Array
) -> FitResult:
    """The result of the best network, on the host."""
    numbers = {name: np.float32(value) for name, value in setting.numbers.items()}
    like = jax.eval_shape(lambda: start(setting.trained, setting.rule(numbers), key))
    trees = {name: jax.device_get(read_tree(arrays, name, getattr(like, name))) for name in _TREES}
    history = {name: column.tolist() for name, column in part_of("history", arrays).items()}
    history["epoch"] = [int(epoch) for epoch in history["epoch"]]
    rest = {name: plain[name] for name in _PLAIN}
    return FitResult(**trees, history=history, **rest)
