"""Many networks at once: `fit_many` trains a population in one compiled program.

Source: lecture, section *Types of training*, for each member; the members differ in what they draw and in their rates.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checkpoint import Checkpoints, open_folder
from mlpjax.checks import check_batch, check_count
from mlpjax.config import Config
from mlpjax.errors import InputError
from mlpjax.fit_checks import check_key, check_monitor, check_trainable, with_class_weight
from mlpjax.interrupt import deferred_interrupt
from mlpjax.memory import check_memory
from mlpjax.mlp import backward
from mlpjax.parameters import Batch
from mlpjax.population_loop import GroupLoop
from mlpjax.population_memory import members_that_fit
from mlpjax.population_run import GroupRun
from mlpjax.population_snapshot import PopulationSnapshot
from mlpjax.population_step import MakeOptimizer, members
from mlpjax.run_identity import identity
from mlpjax.snapshots import digest
from mlpjax.step import GradFn
from mlpjax.train import FitResult


class PopulationProgress(NamedTuple):
    """What a callback sees after each chunk: which group trains, the epoch, and how many of its members still do.

    Groups, and epochs within a group, count from 1.
    """

    group: int
    groups: int
    epoch: int
    epochs: int
    training: int
    members: int


def fit_many(
    configs: Config | Sequence[Config],
    optimizer: MakeOptimizer,
    train_data: Batch,
    *,
    alphas: Any,
    epochs: int | Sequence[int],
    batch_size: int,
    keys: jax.Array,
    order_key: jax.Array | None = None,
    grad_fn: GradFn = backward,
    valid_data: Batch | None = None,
    class_weight: Sequence[float] | Literal["balanced"] | None = None,
    patience: int | None = None,
    monitor: Literal["loss", "metric"] = "loss",
    memory: int | None = None,
    callback: Callable[[PopulationProgress], None] | None = None,
    checkpoint: Checkpoints | None = None,
) -> list[FitResult]:
    """Train many networks on the same data at once.

    Member i is the network that ``fit(configs[i], optimizer(alphas[i]), train_data, epochs=epochs[i], key=keys[i],
    order_key=order_key, …)`` trains alone, up to rounding. Members whose configs differ only in rates (dropout, l1,
    l2) are one program; other widths, depths or activations make groups, which train one after another.

    Args:
        configs: the networks, or one for all.
        optimizer: makes the optimiser of a member from its numbers: ``mlpjax.optim.adam``, or ``lambda r:
            optax.sgd(r["alpha"], r["momentum"])``. The same function, given again, compiles nothing new.
        train_data: examples, labels and, if wanted, weights; all members see the same.
        alphas: what ``optimizer`` is called with: N learning rates, or a tree of arrays with a leading axis N.
        epochs: how often each example is seen, one number for all or one per member.
        batch_size: examples per step, as in `mlpjax.fit`.
        keys: N keys, ``jax.random.split(key, N)``: the randomness of each.
        order_key: all members see the same batches in the order that this key decides, and the first layer of all is
            one wide product. By default each has the order of its own key.
        grad_fn: `mlpjax.backward`, `mlpjax.autodiff`, or `mlpjax.accumulate` of one.
        valid_data: examples to evaluate after each epoch.
        class_weight: as in `mlpjax.fit`.
        patience: a member stops when its monitored validation value has not improved for this many epochs, and
            returns its best parameters.
        monitor: the validation ``"loss"`` or the head's ``"metric"``.
        memory: bytes that a population may take; half of the device's by default. More members than fit train in
            parts, one after another.
        callback: called with a `PopulationProgress` after each chunk.
        checkpoint: `mlpjax.Checkpoints`, as in `mlpjax.fit`; each part has a folder of its own inside. ``epochs``
            cannot be changed.

    Returns:
        N results in the order of the members, arrays on the host. Members of a part share its ``seconds``.

    Raises:
        InputError: (a `ValueError`) as `mlpjax.fit`, and for lengths that differ.
        CheckpointError: as `mlpjax.fit`.

    Source: ``train-minibatch``, ``train-shuffle``.

    >>> import optax
    >>> xor = Batch(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0]))
    >>> config = mlpjax.Config(sizes=(2, 8, 1), activation="tanh", head="binary")
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> results = fit_many(config, optax.adam, xor, alphas=[0.05, 0.05, 1e-9], epochs=200, batch_size=4, keys=keys)
    >>> [result.history["train_metric"][-1] for result in results[:2]]
    [1.0, 1.0]
    """
    everyone = _check_members(configs, alphas, epochs, keys)
    check_count("batch_size", batch_size)
    check_monitor(monitor, patience, valid_data)
    if order_key is not None:
        check_key(order_key)
    parts = [part for group in _groups(everyone) for part in _parts(everyone, group, optimizer, batch_size, memory)]
    results: dict[int, FitResult] = {}
    with deferred_interrupt(terminate=checkpoint is not None) as interrupted:
        for number, at in enumerate(parts, 1):
            part = _Members([everyone.configs[i] for i in at], *members(everyone[1:], at))
            config, limits = part.configs[0], part.epochs
            data = with_class_weight(config, check_batch(config, train_data, "train_data"), class_weight)
            valid = None if valid_data is None else check_batch(config, valid_data, "valid_data")
            # with one end for all, and nobody to look at, a chunk may hold many epochs
            together = valid is None and callback is None and limits.min() == limits.max()
            last = int(limits.max())
            started = time.perf_counter()
            run = GroupRun(
                part.configs,
                optimizer,
                part.alphas,
                part.keys,
                order_key,
                grad_fn,
                data,
                batch_size,
                last,
                together=together,
            )
            place = PopulationProgress(number, len(parts), 0, last, len(at), len(at))
            watch = None if callback is None else functools.partial(_tell, callback, place)
            loop = GroupLoop(run, run.start(), limits, valid, patience, monitor, watch)
            with _kept(checkpoint, number, loop) as resumed_at:
                results |= zip(at.tolist(), _train(loop, started, interrupted, resumed_at), strict=True)
    return [results[i] for i in range(len(everyone.configs))]


class _Members(NamedTuple):
    """What tells members apart, checked."""

    configs: list[Config]
    alphas: Any
    epochs: np.ndarray
    keys: jax.Array


def _check_members(configs: Any, alphas: Any, epochs: Any, keys: Any) -> _Members:
    """Check that everything is there for every member, and give each a config and a number of epochs."""
    check_key(keys)
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if keys.ndim != (1 if typed else 2) or len(keys) == 0:
        raise InputError(f"keys have shape {keys.shape}: expected one key per member, jax.random.split(key, N)")
    n = len(keys)
    configs = [configs] * n if isinstance(configs, Config) else list(configs)
    if len(configs) != n or not all(isinstance(config, Config) for config in configs):
        raise InputError(f"configs are {len(configs)} for {n} keys: expected one mlpjax.Config for all, or one per key")
    alphas = jax.tree.map(jnp.asarray, np.asarray(alphas) if isinstance(alphas, list | tuple) else alphas)
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(alphas)}
    if lengths != {(n,)}:
        raise InputError(f"alphas have leading axes {sorted(lengths)} for {n} keys: expected one number per member")
    if np.ndim(epochs) == 0:
        check_count("epochs", epochs)
        return _Members(configs, alphas, np.full(n, epochs), keys)
    if len(epochs) != n:
        raise InputError(f"epochs are {len(epochs)} numbers for {n} keys: expected one for all, or one per member")
    for limit in epochs:
        check_count("epochs", limit)
    return _Members(configs, alphas, np.asarray(epochs), keys)


def _groups(everyone: _Members) -> list[np.ndarray]:
    """Members whose configs differ in rates only, by their numbers."""
    groups: dict[Any, list[int]] = {}
    for i, config in enumerate(everyone.configs):
        groups.setdefault(jax.tree.structure(config), []).append(i)
    return [np.array(group) for group in groups.values()]


def _parts(
    everyone: _Members, group: np.ndarray, optimizer: MakeOptimizer, batch_size: int, memory: int | None
) -> list[np.ndarray]:
    """A group in parts that fit into memory, of sizes as even as can be."""
    config = everyone.configs[group[0]]
    check_trainable(config)
    check_memory(config)
    fit = members_that_fit(config, optimizer, members(everyone.alphas, group[0]), batch_size, memory)
    at_once = int(min(len(group), fit))
    return np.array_split(group, -(-len(group) // at_once))


def _tell(callback: Callable[[PopulationProgress], None], place: PopulationProgress, epoch: int, training: int) -> None:
    callback(place._replace(epoch=epoch, training=training))


@contextlib.contextmanager
def _kept(checkpoint: Checkpoints | None, number: int, loop: GroupLoop) -> Iterator[int | None]:
    """Let a part write checkpoints, and go on from them; yields the step at which it does."""
    if checkpoint is None:
        yield None
        return
    run, own = loop.run, dataclasses.replace(checkpoint, folder=Path(checkpoint.folder, f"part-{number:03d}"))
    what = identity(run, loop.valid_data, loop.patience, loop.monitor, checkpoint.info)
    what |= {
        # a part of others is what other memory makes
        "members": len(loop.epochs),
        "configs": digest(jax.tree.leaves(run.group.configs)),
        "alphas": digest(jax.tree.leaves(run.group.alphas)),
        "keys": digest([run.group.keys]),
        "epochs": loop.epochs.tolist(),
        "own order": run.orders is not None,
    }
    read = functools.partial(PopulationSnapshot.from_file, like=loop.now, run=run)
    with open_folder(own, what, run.epochs, loop.now, read) as folder:
        loop.keep = folder.after_chunk
        found = folder.newest()
        if found is not None:
            loop.resume(found)
        yield None if found is None else found.step


def _train(loop: GroupLoop, begun: float, interrupted: threading.Event, resumed_at: int | None) -> list[FitResult]:
    """Train a part, whose start was ``begun`` to be compiled, and give each member its result."""
    if not interrupted.is_set():
        loop.compile()
    started = time.perf_counter()
    loop.train(interrupted)
    seconds_train = time.perf_counter() - started
    results = []
    for i in range(len(loop.epochs)):
        (now, best), stop, best_epoch = loop.left[i], loop.stops[i], int(loop.best_epoch[i])
        kept = best if best_epoch else now
        results.append(
            FitResult(
                params=kept.params,
                state=kept.state,
                opt_state=now.opt_state,
                history=loop.history_of(i),
                epoch=best_epoch or int(loop.last_epoch[i]),
                stop_reason=stop.reason,
                message=stop.message,
                diverged_at=stop.diverged_at,
                seconds_compile=started - begun,
                seconds_train=seconds_train,
                resumed_at=resumed_at,
            )
        )
    return results
