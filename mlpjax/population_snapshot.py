"""Where a population stands between two chunks, as the header and the arrays of a file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.chunks import Run
from mlpjax.errors import CheckpointError
from mlpjax.loop import StopReason
from mlpjax.population_step import members
from mlpjax.snapshots import (
    Content,
    check_lengths,
    check_steps,
    described,
    named,
    part_of,
    read_reports,
    read_tree,
    reports_arrays,
    tree_arrays,
)
from mlpjax.step import Report, TrainState


class Stop(NamedTuple):
    """Why a member ended, as in `mlpjax.FitResult`."""

    reason: StopReason
    message: str
    diverged_at: tuple[int, int] | None = None


class Standing(NamedTuple):
    """Arrays ``(N,)`` by member: who trains, and until which epoch each was recorded, came, and was best."""

    training: np.ndarray
    recorded: np.ndarray
    last_epoch: np.ndarray
    best_epoch: np.ndarray
    best_score: np.ndarray


class PopulationSnapshot(NamedTuple):
    """All of a group of N networks that influences its future, beside what it was started with.

    ``step`` steps were taken. Of the members ``at``: where they are ``now``, where they were ``before`` the last chunk,
    at ``before_step``, who of them ``took`` it, and their ``best``. Of all: how each is ``standing``, the ``columns``
    of the history, ``(epochs, N)``, and the ``stops``. ``left`` are those that are not among ``at``, by member.
    """

    step: int
    at: np.ndarray
    now: TrainState
    before_step: int
    before: TrainState
    took: np.ndarray
    best: TrainState
    standing: Standing
    columns: dict[str, np.ndarray]
    unrecorded: Report | None
    stops: dict[int, Stop]
    left: dict[int, tuple[TrainState, TrainState]]
    seconds: float

    def to_file(self) -> Content:
        """The header and the arrays of a file, of which one is ``now/params[0].W``."""
        n, gone = len(self.standing.training), sorted(self.left)
        trees: dict[str, Any] = {"now": self.now, "before": self.before, "best": self.best}
        if gone:
            trees["left"] = jax.tree.map(_stack, *(self.left[i] for i in gone))
        shapes = described(self.now)
        header = {
            "step": self.step,
            "before_step": self.before_step,
            "stops": [[i, *stop] for i, stop in sorted(self.stops.items())],
            "unrecorded": self.unrecorded is not None,
            "seconds": self.seconds,
            "train_state": {path: [[n, *shape[1:]], dtype] for path, (shape, dtype) in shapes.items()},
        }
        rows = {"at": self.at, "took": self.took, "left": np.array(gone, int)}
        arrays = named("members", rows) | named("standing", self.standing._asdict()) | named("history", self.columns)
        return header, tree_arrays(trees) | arrays | reports_arrays(self.unrecorded)

    @classmethod
    def from_file(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], like: TrainState, run: Run
    ) -> PopulationSnapshot:
        """Read what `to_file` wrote; ``like`` is a population of N members."""
        n = len(like.params[0].W)
        standing = Standing(**part_of("standing", arrays))
        at, took, gone = (arrays[f"members/{name}"] for name in ("at", "took", "left"))
        if sorted([*at.tolist(), *gone.tolist()]) != list(range(n)) or took.shape != at.shape:
            raise CheckpointError(f"its members are {at.tolist()} and {gone.tolist()}: expected each of {n} once")
        if {array.shape for array in standing} != {(n,)}:
            raise CheckpointError(f"it does not say of each of {n} members how it stands")
        some = _some(like, len(at))
        snapshot = cls(
            step=int(header["step"]),
            at=at,
            now=read_tree(arrays, "now", some),
            before_step=int(header["before_step"]),
            before=read_tree(arrays, "before", some),
            took=took,
            best=read_tree(arrays, "best", some),
            standing=standing,
            columns=part_of("history", arrays),
            unrecorded=read_reports(arrays) if header["unrecorded"] else None,
            stops={int(i): Stop(reason, told, at and tuple(at)) for i, reason, told, at in header["stops"]},
            left=_read_left(arrays, gone, like),
            seconds=float(header["seconds"]),
        )
        ended, begun = check_steps(snapshot.before_step, snapshot.step, run)
        check_lengths("history", {len(column) for column in snapshot.columns.values()}, ended)
        check_lengths("reports", {len(column) for column in snapshot.unrecorded or ()}, begun)
        return snapshot


def _read_left(
    arrays: Mapping[str, np.ndarray], gone: np.ndarray, like: TrainState
) -> dict[int, tuple[TrainState, TrainState]]:
    """The members that left, now and at their best, on the host."""
    if not len(gone):
        return {}
    shaped = _some(like, len(gone))
    host = jax.device_get(read_tree(arrays, "left", (shaped, shaped)))
    return {int(i): members(host, row) for row, i in enumerate(gone)}


def _some(like: TrainState, n: int) -> TrainState:
    """The shapes of n members; a key stays one, for only it knows its generator."""
    return jax.tree.map(
        lambda leaf: leaf[:n] if _is_key(leaf) else jax.ShapeDtypeStruct((n, *leaf.shape[1:]), leaf.dtype), like
    )


def _stack(*each: Any) -> Any:
    return jnp.stack(each) if _is_key(each[0]) else np.stack(each)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
