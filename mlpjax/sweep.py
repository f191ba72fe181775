"""The search over networks and optimisers: its points, their training many at once, and their ranking.

A point is a dict: fields of `mlpjax.Config`, the arguments ``optimizer`` (the name), ``lr``, ``schedule``, ``clip``,
``convention``, ``weight_decay`` and ``proximal_l1`` of `mlpjax.optim.make_optimizer`, and ``batch_size``.

Source: lecture, sections *Types of training* and *Optimisation*: what they leave to choose, chosen by validation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from mlpjax.checkpoint import Checkpoints, open_folder
from mlpjax.checks import check_count
from mlpjax.errors import InputError
from mlpjax.fit_checks import check_key, check_trainable
from mlpjax.interrupt import deferred_interrupt
from mlpjax.memory import check_memory
from mlpjax.mlp import backward
from mlpjax.parameters import Batch
from mlpjax.population import PopulationProgress, fit_many
from mlpjax.snapshots import digest
from mlpjax.step import GradFn, function_name
from mlpjax.sweep_points import Setting, draw, grid, groups_of, read_points
from mlpjax.sweep_snapshot import SearchSnapshot
from mlpjax.sweep_trials import Monitor, Run, Trial, rank
from mlpjax.train import FitResult

__all__ = ["Run", "Search", "Trial", "draw", "grid", "rank", "search"]


class Search(NamedTuple):
    """What `search` found.

    ``trials`` are ranked, the best first; of an interrupted search, those that were begun. ``result`` is the best
    network, number ``best_key`` of the keys, with the config ``trials[0].config`` and the parameters of its best
    epoch; ``None`` where no trial has a rank. ``seconds`` are those of the whole search, compiling included.
    """

    trials: list[Trial]
    result: FitResult | None
    best_key: int
    seconds: float
    interrupted: bool


def search(
    points: Sequence[Mapping[str, Any]],
    train_data: Batch,
    valid_data: Batch,
    *,
    epochs: int,
    keys: jax.Array,
    order_key: jax.Array | None = None,
    grad_fn: GradFn = backward,
    class_weight: Sequence[float] | Literal["balanced"] | None = None,
    patience: int | None = None,
    monitor: Monitor = "loss",
    memory: int | None = None,
    callback: Callable[[PopulationProgress], None] | None = None,
    checkpoint: Checkpoints | None = None,
) -> Search:
    """Train a network for every point and key, many at once, and rank the points by validation.

    Points that differ in numbers only train together, by `mlpjax.fit_many`: the network of point p and key k is the
    one that `mlpjax.fit` trains alone with them, up to rounding. Each keeps the parameters of the epoch with its best
    monitored value, and that value counts; a point's is the mean over the keys.

    Args:
        points: what to try, from `grid`, `draw`, or a list of your own.
        train_data: examples to train on.
        valid_data: examples to rank by.
        epochs: how often each training example is seen; schedules span them.
        keys: the randomness of the repetitions of each point, ``jax.random.split(key, N)``.
        order_key: all networks see the examples in the order that this key decides, and the first layer of those that
            train together is one wide product. By default each has the order of its own key.
        grad_fn: `mlpjax.backward`, `mlpjax.autodiff`, or `mlpjax.accumulate` of one.
        class_weight: as in `mlpjax.fit`.
        patience: a network stops when its monitored value has not improved for this many epochs.
        monitor: the validation ``"loss"`` or the head's ``"metric"``.
        memory: bytes that the networks which train together may take; half of the device's by default.
        callback: called with a `PopulationProgress` before each group, with epoch 0, and after each chunk. A group
            that takes more memory than there is goes through its epochs in parts.
        checkpoint: `mlpjax.Checkpoints`, as in `mlpjax.fit`: one after each group, and those of the group that trains
            in a folder inside. All of the search must be the same when it is resumed.

    Returns:
        A `Search`. Ctrl-C ends it with what is there so far.

    Raises:
        InputError: (a `ValueError`) for what a point cannot hold, and as `mlpjax.fit_many`.
        CheckpointError: as `mlpjax.fit`.

    Source: ``erm-issue-optimiser``, ``train-minibatch``.

    >>> x = np.linspace(-1, 1, 32)[:, None]
    >>> wave = Batch(x, np.sin(3 * x))
    >>> points = grid({"sizes": [(1, 8, 1)], "head": ["regression"], "activation": ["tanh"], "lr": [1e-6, 0.05]})
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> found = search(points, wave, wave, epochs=20, keys=keys)
    >>> [trial.point["lr"] for trial in found.trials], found.result.params[0].W.shape
    ([0.05, 1e-06], (1, 8))
    """
    started = time.perf_counter()
    check_count("epochs", epochs)
    check_key(keys)
    if keys.ndim == 0:
        raise InputError("keys is a single key: expected one per repetition, jax.random.split(key, N)")
    groups = groups_of(read_points(points, len(train_data.x), epochs), len(keys), memory)
    for group in groups:  # before any trains
        check_trainable(group[0].config)
        check_memory(group[0].config)
    best = _Best(monitor)
    trials: list[Trial] = []
    with deferred_interrupt(terminate=checkpoint is not None) as interrupted, contextlib.ExitStack() as stack:
        folder, done, own = None, 0, {}
        if checkpoint is not None:
            own = {"epochs": epochs, "class_weight": str(class_weight), "patience": patience, "monitor": monitor}
            own |= _identity(points, keys, order_key, grad_fn, train_data, valid_data)
            what = {f"info[{name!r}]": value for name, value in checkpoint.info.items()} | own
            read = functools.partial(SearchSnapshot.from_file, groups=groups, keys=keys)
            folder = stack.enter_context(open_folder(checkpoint, what, epochs, {}, read))
            if (found := folder.newest()) is not None:
                done, started = found.step, started - found.seconds
                trials = [
                    Trial(setting.number, setting.point, setting.config, found.runs[setting.number])
                    for group in groups[:done]
                    for setting in group
                ]
                best.resume(found, trials)
        for number, group in enumerate(groups, 1):
            if interrupted.is_set():
                break
            inside = None
            if checkpoint is not None:
                # before the first group ends there is no file of the search to compare with
                info = {**checkpoint.info, **{f"search: {name}": value for name, value in own.items()}}
                inside = dataclasses.replace(
                    checkpoint, folder=Path(checkpoint.folder, f"group-{number:03d}"), info=info
                )
            if number <= done:
                _remove(inside)
                continue
            place = PopulationProgress(number, len(groups), 0, epochs, len(group) * len(keys), len(group) * len(keys))
            if callback is not None:
                callback(place)
            results = fit_many(
                [setting.trained for setting in group for _ in keys],
                group[0].rule,
                train_data,
                alphas={name: np.repeat([s.numbers[name] for s in group], len(keys)) for name in group[0].numbers},
                epochs=epochs,
                batch_size=group[0].batch_size,
                keys=keys[np.tile(np.arange(len(keys)), len(group))],
                order_key=order_key,
                grad_fn=grad_fn,
                valid_data=valid_data,
                class_weight=class_weight,
                # with more patience than epochs none stops, and each keeps its best epoch
                patience=epochs if patience is None else patience,
                monitor=monitor,
                memory=memory,
                callback=None if callback is None else _in_search(callback, place),
                checkpoint=inside,
            )
            for setting, repeats in _by_point(group, results, len(keys)):
                trial = Trial(setting.number, setting.point, setting.config, tuple(map(Run.of, repeats)))
                trials.append(trial)
                best.compare(trial, repeats)
            if folder is not None and not interrupted.is_set():
                runs, seconds = {trial.number: trial.runs for trial in trials}, time.perf_counter() - started
                folder.write(SearchSnapshot(number, runs, best.kept(), seconds))
                _remove(inside)
        return Search(rank(trials, monitor), best.result, best.key, time.perf_counter() - started, interrupted.is_set())


class _Best:
    """The best trial so far, and the one network that is kept: of all others only the numbers stay in memory."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.trial: Trial | None = None
        self.result: FitResult | None = None
        self.key = 0

    def resume(self, found: SearchSnapshot, trials: Sequence[Trial]) -> None:
        """Go back to the best network that was found before."""
        if found.best is not None:
            number, self.key, self.result = found.best
            self.trial = next(trial for trial in trials if trial.number == number)

    def kept(self) -> tuple[int, int, FitResult] | None:
        """The number of the best trial, its best key and the result."""
        return None if self.trial is None or self.result is None else (self.trial.number, self.key, self.result)

    def compare(self, trial: Trial, repeats: Sequence[FitResult]) -> None:
        """Keep the best network of a trial that is better than all before."""
        if trial.problem or (self.trial is not None and rank([self.trial, trial], self.monitor)[0] is self.trial):
            return
        self.trial, self.key = trial, trial.best_run(self.monitor)
        result = repeats[self.key]
        # a copy: the arrays of a member are views of those of its whole group
        params, state, opt_state = jax.tree.map(np.array, (result.params, result.state, result.opt_state))
        self.result = result._replace(params=params, state=state, opt_state=opt_state)


def _identity(
    points: Sequence[Mapping[str, Any]],
    keys: jax.Array,
    order_key: jax.Array | None,
    grad_fn: GradFn,
    train_data: Batch,
    valid_data: Batch,
) -> dict[str, Any]:
    """What else decides the numbers of a search, as plain JSON: data, points and keys by a SHA-256."""
    data = {"train_data": train_data, "valid_data": valid_data}
    return {
        "points": hashlib.sha256(json.dumps([dict(point) for point in points], default=str).encode()).hexdigest(),
        **{name: digest(np.asarray(a) for a in batch if a is not None) for name, batch in data.items()},
        "keys": digest([keys]),
        "order_key": None if order_key is None else digest([order_key]),
        "grad_fn": function_name(grad_fn),
    }


def _remove(checkpoint: Checkpoints | None) -> None:
    """Remove the checkpoints of a group that is done."""
    if checkpoint is not None and Path(checkpoint.folder).exists():
        shutil.rmtree(checkpoint.folder)


def _in_search(
    callback: Callable[[PopulationProgress], None], place: PopulationProgress
) -> Callable[[PopulationProgress], None]:
    """Count the groups of the search, not those of a call."""
    return lambda progress: callback(progress._replace(group=place.group, groups=place.groups))


def _by_point(
    group: Sequence[Setting], results: Sequence[FitResult], repeats: int
) -> Iterator[tuple[Setting, Sequence[FitResult]]]:
    """The results of each point, one per key."""
    for i, setting in enumerate(group):
        yield setting, results[i * repeats : (i + 1) * repeats]
