"""Training: `fit` runs chunks of compiled steps, epoch by epoch, and keeps the record.

What happens between two chunks (progress, validation, Ctrl-C) cannot change the numbers: the order of an epoch
depends on (key, epoch) only, and step t draws from ``fold_in(key, t)``.

Source: lecture, section *Types of training*: batch (``batch_size=m``), mini-batch, and stochastic (1).
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import optax

from mlpjax.augmenting import Augment, as_pytree
from mlpjax.checkpoint import Checkpoints, open_folder
from mlpjax.checks import check_batch, check_count
from mlpjax.chunks import Run
from mlpjax.config import Config
from mlpjax.disk import DiskData, DiskRun
from mlpjax.divergence import kept_parameters
from mlpjax.errors import InputError
from mlpjax.fit_checks import check_key, check_monitor, check_trainable, with_class_weight
from mlpjax.interrupt import deferred_interrupt
from mlpjax.loop import History, Loop, Progress, StopReason, evaluate_checked
from mlpjax.memory import check_memory
from mlpjax.mlp import backward
from mlpjax.parameters import Batch, Params, State, init
from mlpjax.run_identity import identity
from mlpjax.snapshots import Snapshot, digest
from mlpjax.step import GradFn, TrainState, start_program

if TYPE_CHECKING:
    from mlpjax.provenance import FaultyStep


class FitResult(NamedTuple):
    """What `fit` returns.

    ``params`` and ``state`` are from the end of epoch ``epoch`` (the best one under early stopping; 0 is the
    start; one more than the completed epochs when Ctrl-C came during an epoch); ``opt_state`` is the last one.
    ``history`` has one list per column, one entry per completed epoch. ``stop_reason`` says why training
    ended, ``message`` in words. When it diverged, ``diverged_at`` is the (epoch, step), from 1, at which the
    loss stopped being finite, and ``params`` are the last with which it was finite. A run that was resumed from a
    checkpoint has the step at which it was in ``resumed_at``. With ``debug_nans`` ``faulty_step`` is the step of the
    first number that was not finite, ``faulty_step.fault`` names it, and ``diverged_at`` is where it was. Source:
    ``fw-tensorboard``.
    """

    params: Params
    state: State
    opt_state: Any
    history: History
    epoch: int
    stop_reason: StopReason
    message: str
    diverged_at: tuple[int, int] | None
    seconds_compile: float
    seconds_train: float
    resumed_at: int | None = None
    faulty_step: FaultyStep | None = None


def fit(
    config: Config,
    optimizer: optax.GradientTransformation,
    train_data: Batch | DiskData,
    *,
    epochs: int,
    batch_size: int,
    key: jax.Array,
    order_key: jax.Array | None = None,
    grad_fn: GradFn = backward,
    valid_data: Batch | None = None,
    params: Params | None = None,
    state: State | None = None,
    opt_state: Any = None,
    class_weight: Sequence[float] | Literal["balanced"] | None = None,
    augment: Augment | None = None,
    patience: int | None = None,
    monitor: Literal["loss", "metric"] = "loss",
    callback: Callable[[Progress], bool | None] | None = None,
    checkpoint: Checkpoints | None = None,
    debug_nans: bool = False,
) -> FitResult:
    """Train a network.

    Args:
        config: the network.
        optimizer: any `optax.GradientTransformation`; schedules and clipping are optax's
            (``optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))``).
        train_data: examples, labels and, if wanted, weights: in memory, or an `mlpjax.DiskData`, whose files may be
            larger than memory.
        epochs: how often each example is seen.
        batch_size: examples per step; at most the number of examples. The last, smaller batch is padded and
            masked: no example is dropped.
        key: the one source of randomness; the same key gives the same bits.
        order_key: decides the order of the examples, which is else decided by ``key`` too.
        grad_fn: `mlpjax.backward`, `mlpjax.autodiff`, or `mlpjax.accumulate` of one.
        valid_data: examples to evaluate after each epoch.
        params: where to start; those of `mlpjax.init` by default, whose last bit may differ as ``fit`` compiles them.
        state: batch-norm statistics to start from; those of `mlpjax.init` by default.
        opt_state: the optimiser's state to start from; ``optimizer.init(params)`` by default.
        class_weight: one weight per class, or ``"balanced"`` (m/(K m_c)); multiplies the weights of
            ``train_data``, not of ``valid_data``.
        augment: changes every training batch before its step, on the device: an `mlpjax.ImageAugment`, an
            `mlpjax.VectorAugment`, several by `mlpjax.augmenting.chain`, or a function ``(key, batch) -> batch`` (see
            `mlpjax.augmenting`). ``train_loss`` and ``train_metric`` are then those of the changed batches.
        patience: stop when the monitored validation value has not improved for this many epochs, and return
            the parameters of the best epoch.
        monitor: the validation ``"loss"`` (lower is better) or the head's ``"metric"``.
        callback: called with a `Progress` after each chunk; training stops if it returns true. Without it and
            without ``valid_data`` a chunk may hold many epochs.
        checkpoint: `mlpjax.Checkpoints`: where and how often to write checkpoints, and whether to resume from them.
        debug_nans: look at every number of every step; the run ends as "diverged" at the first that is not finite, also
            at one that would not have reached the loss, and ``faulty_step`` of the result names epoch, step, layer,
            quantity and example (see `mlpjax.find_fault`). A step takes about twice as long.

    Returns:
        A `FitResult`. The columns of its history: ``epoch``; ``train_loss`` (data loss) and ``train_metric``,
        means over the batches of the epoch while it trained; ``penalty``, likewise;
        ``valid_loss``, ``valid_metric``; ``seconds`` since the start of training, when the epoch was
        known: epochs of one chunk share theirs. All means are weighted by weight sums.

    Ctrl-C ends training after the running chunk with a usable result; a second one raises KeyboardInterrupt. With
    ``checkpoint`` SIGTERM does so too, and the process exits with code 143 when the checkpoint is written.

    Raises:
        InputError: (a `ValueError`) for data that does not fit the config, a value that is not finite, a label
            outside the classes, a count below 1, a network larger than the device's memory, or ``binary_step``,
            through which nothing can be learnt.
        CheckpointError: (an `InputError`) for checkpoints of another run, naming the first difference, for a folder
            none of whose checkpoints is whole, and where one cannot be written: those before are kept.

    Source: ``erm-issue-differentiable``, ``deep-train``, ``train-minibatch``, ``train-shuffle``.

    >>> import numpy as np
    >>> config = mlpjax.Config(sizes=(2, 8, 1), activation="tanh", head="binary")
    >>> xor = Batch(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0]))
    >>> result = mlpjax.fit(config, optax.adam(0.05), xor, epochs=300, batch_size=4, key=jax.random.key(0))
    >>> mlpjax.decide(config, mlpjax.predict(config, result.params, result.state, xor.x))
    Array([0, 1, 1, 0], dtype=int32)
    """
    check_trainable(config)
    check_key(key)
    if order_key is not None:
        check_key(order_key)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise InputError(
            f"optimizer is {optimizer!r}: expected an optax.GradientTransformation, such as optax.adam(1e-3)"
        )
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    check_monitor(monitor, patience, valid_data)
    check_memory(config)
    augment = None if augment is None else as_pytree(augment)
    examples = (
        train_data.checked(config)
        if isinstance(train_data, DiskData)
        else check_batch(config, train_data, "train_data")
    )
    examples = with_class_weight(config, examples, class_weight)
    valid_data = None if valid_data is None else check_batch(config, valid_data, "valid_data")

    watching = optimizer, grad_fn
    if debug_nans:
        # a run without it does not even load it
        from mlpjax.provenance import first_fault, watched, watched_optimizer

        watching = watched_optimizer(optimizer), watched(grad_fn)
    # from here on jax compiles, which an exception out of nowhere can crash
    with deferred_interrupt(terminate=checkpoint is not None) as interrupted, contextlib.ExitStack() as stack:
        started = time.perf_counter()
        first = _start(config, optimizer, key, params, state, opt_state)
        together = valid_data is None and callback is None
        settings = (config, *watching, examples, batch_size, epochs, key, augment)
        if isinstance(train_data, DiskData):
            run: Run = DiskRun(*settings, order_key=order_key, disk=train_data)
        else:
            run = Run(*settings, order_key=order_key, together=together)
        loop = Loop(run, first, valid_data, patience, monitor, callback)
        resumed_at = None
        if checkpoint is not None:
            what = identity(run, valid_data, patience, monitor, checkpoint.info)
            # only what was given: that of another version may differ in a last bit
            given = any(value is not None for value in (params, state, opt_state))
            what["start"] = digest(jax.tree.leaves(first)) if given else None
            read = functools.partial(Snapshot.from_file, like=first, run=run)
            folder = stack.enter_context(open_folder(checkpoint, what, epochs, first, read))
            loop.keep = folder.after_chunk
            if (found := folder.newest()) is not None:
                loop.resume(found)
                resumed_at = found.step
        run.compile(loop.now)
        if valid_data is not None:
            evaluate_checked(config, first.params, first.state, valid_data)
        seconds_compile = time.perf_counter() - started
        started = time.perf_counter()
        loop.train(interrupted)
        faulty = first_fault(loop, optimizer, grad_fn) if debug_nans else None
    jax.block_until_ready(loop.now)
    epoch, kept = loop.kept()
    message, diverged_at = loop.message, loop.diverged_at
    if faulty is not None:
        best_epoch = None if loop.best is None else loop.best[1]
        message, diverged_at = f"{faulty.fault}; {kept_parameters(best_epoch)}", faulty.fault.at
    return FitResult(
        params=kept.params,
        state=kept.state,
        opt_state=loop.now.opt_state,
        history=loop.history,
        epoch=epoch,
        stop_reason=loop.stop_reason,
        message=message,
        diverged_at=diverged_at,
        seconds_compile=seconds_compile,
        seconds_train=time.perf_counter() - started,
        resumed_at=resumed_at,
        faulty_step=faulty,
    )


def _start(
    config: Config,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    params: Params | None,
    state: State | None,
    opt_state: Any,
) -> TrainState:
    """Where to start: what was given, and the rest from `mlpjax.init` and the optimiser."""
    if params is None and state is None and opt_state is None:
        return start_program()(config, optimizer=optimizer, key=key)
    if params is None or state is None:
        new_params, new_state = init(config, key)
        params, state = params or new_params, new_state if state is None else state
    return TrainState(params, state, optimizer.init(params) if opt_state is None else opt_state)
