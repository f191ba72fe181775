"""Where a run stands between two chunks, as the header and the arrays of a file, and back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.chunks import Run
from mlpjax.errors import CheckpointError
from mlpjax.step import Report, TrainState

Content: TypeAlias = tuple[dict[str, Any], dict[str, np.ndarray]]
"""The header and the arrays of a file."""


class Snapshot(NamedTuple):
    """All of a run that influences its future, beside what it was started with.

    ``step`` steps were taken, which led to ``now``; ``before`` is where the last chunk started, at step
    ``before_step``, to which a run goes back that diverges. ``best`` is the best score, its epoch and train state.
    ``unrecorded`` are the reports of an epoch that has not ended. ``seconds`` were spent. ``ended`` says why the run
    has stopped for good, in a word and in a sentence, or is ``None``.
    """

    step: int
    now: TrainState
    before_step: int
    before: TrainState
    best: tuple[float, int, TrainState] | None
    history: dict[str, list[float]]
    unrecorded: Report | None
    seconds: float
    ended: tuple[str, str] | None

    def to_file(self) -> Content:
        """The header and the arrays of a file, of which one is ``now/opt_state[0].mu[0].W``."""
        trees = {"now": self.now, "before": self.before}
        if self.best is not None:
            trees["best"] = self.best[2]
        header = {
            "step": self.step,
            "before_step": self.before_step,
            "best": None if self.best is None else [float(self.best[0]).hex(), self.best[1]],
            "unrecorded": self.unrecorded is not None,
            "seconds": self.seconds,
            "ended": None if self.ended is None else list(self.ended),
            "train_state": described(self.now),
        }
        history = {name: np.asarray(column, np.float64) for name, column in self.history.items()}
        return header, tree_arrays(trees) | named("history", history) | reports_arrays(self.unrecorded)

    @classmethod
    def from_file(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], like: TrainState, run: Run
    ) -> Snapshot:
        """Read what `to_file` wrote; ``like`` has the tree, the shapes and the dtypes of the train state of the run."""
        history = {name: column.tolist() for name, column in part_of("history", arrays).items()}
        if "epoch" in history:
            history["epoch"] = [int(epoch) for epoch in history["epoch"]]
        best, ended = header["best"], header["ended"]
        snapshot = cls(
            step=int(header["step"]),
            now=read_tree(arrays, "now", like),
            before_step=int(header["before_step"]),
            before=read_tree(arrays, "before", like),
            best=None if best is None else (float.fromhex(best[0]), int(best[1]), read_tree(arrays, "best", like)),
            history=history,
            unrecorded=read_reports(arrays) if header["unrecorded"] else None,
            seconds=float(header["seconds"]),
            ended=None if ended is None else (str(ended[0]), str(ended[1])),
        )
        ended_epochs, begun = check_steps(snapshot.before_step, snapshot.step, run)
        if not 0 <= snapshot.seconds < math.inf or (ended is not None and ended[0] != "early stopping"):
            raise CheckpointError(f"it took {snapshot.seconds} seconds and ended by {ended}")
        check_lengths("history", {len(column) for column in history.values()}, ended_epochs)
        check_lengths("reports", {len(column) for column in snapshot.unrecorded or ()}, begun)
        if best is not None and not 1 <= best[1] <= ended_epochs:
            raise CheckpointError(f"its best epoch is {best[1]} after {ended_epochs} epochs")
        return snapshot


def check_steps(before: int, step: int, run: Run) -> tuple[int, int]:
    """How many epochs have ended at a step, and how many steps of the next are taken."""
    if not 0 <= before < step <= run.steps * run.epochs:
        raise CheckpointError(f"steps {before} and {step} are not of {run.epochs} epochs of {run.steps}")
    return divmod(step, run.steps)


def check_lengths(what: str, lengths: set[int], expected: int) -> None:
    """Raise `CheckpointError` unless there are as many rows in each column as expected, and no column for none."""
    if lengths != ({expected} if expected else set()):
        raise CheckpointError(f"its {what} have {sorted(lengths)} rows: expected {expected}")


def tree_arrays(trees: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The leaves of trees as arrays that NumPy can write, by the names of the trees and the paths in them."""
    return {f"{name}/{path}": _plain(leaf) for name, tree in trees.items() for path, leaf in leaves(tree)}


def named(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays under the name of the whole to which they belong; `part_of` finds them again."""
    return {f"{name}/{own}": array for own, array in arrays.items()}


def part_of(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a whole.

    >>> part_of("history", named("history", {"epoch": np.arange(2)}))
    {'epoch': array([0, 1])}
    """
    return {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}


def reports_arrays(reports: Report | None) -> dict[str, np.ndarray]:
    """The columns of reports."""
    columns = {} if reports is None else reports._asdict()
    return named("unrecorded", {name: np.asarray(column) for name, column in columns.items()})


def read_reports(arrays: Mapping[str, np.ndarray]) -> Report:
    """The reports of these columns."""
    return Report(*(arrays[f"unrecorded/{name}"] for name in Report._fields))


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree with their paths, such as ``params[0].W``."""
    return [
        (jax.tree_util.keystr(path).removeprefix("."), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def described(tree: Any) -> dict[str, list[Any]]:
    """The shape and the dtype of each leaf, by its path.

    >>> described(TrainState((), (), jnp.zeros(3)))
    {'opt_state': [[3], 'float32']}
    """
    return {path: [list(np.shape(leaf)), str(leaf.dtype)] for path, leaf in leaves(tree)}


def digest(arrays: Iterable[Any]) -> str:
    """SHA-256 over the shapes, dtypes and bytes of arrays."""
    whole = hashlib.sha256()
    for array in arrays:
        plain = np.asarray(_plain(array), order="C")
        whole.update(f"{plain.dtype.str}{plain.shape}".encode())
        whole.update(plain)
    return whole.hexdigest()


def _plain(leaf: Any) -> np.ndarray:
    """An array that NumPy can write: of a key its words, of bfloat16 and its like the bytes."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    # a dtype that NumPy knows from elsewhere comes back from a file as void
    return array if array.dtype.isbuiltin == 1 else array.view(_bits(array.dtype))


def _bits(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def read_tree(arrays: Mapping[str, np.ndarray], name: str, like: Any) -> Any:
    """Read the tree of that name; ``like`` has its leaves."""
    read = [_leaf(f"{name}/{path}", arrays[f"{name}/{path}"], leaf) for path, leaf in leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), read)


def _leaf(name: str, array: np.ndarray, like: Any) -> jax.Array:
    """Read a leaf; ``like`` is one with its shape and dtype."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
        if key.shape != like.shape:
            raise CheckpointError(f"{name} are keys of shape {key.shape}: expected {like.shape}")
        return key
    dtype = np.dtype(like.dtype)
    stored = dtype if dtype.isbuiltin == 1 else _bits(dtype)
    if array.shape != like.shape or array.dtype != stored:
        raise CheckpointError(f"{name} is {array.dtype} of shape {array.shape}: expected {dtype} of shape {like.shape}")
    return jnp.asarray(array.view(dtype))
