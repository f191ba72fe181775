"""The doctor: what is wrong with a training run, told before it is spent.

`examine` measures the data, the network at its start, and a few short runs that differ in one thing, and holds each
measure against a limit of `mlpjax.doctor_verdicts.LIMITS`.

Source: lecture, sections *Types of training*, *Weight initialisation*, *Normalisation* and *Regularisation*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
import optax

from mlpjax.checks import check_batch, check_count
from mlpjax.chunks import key_words
from mlpjax.config import Config
from mlpjax.doctor_data import Sample, constant_loss, data_verdicts, fresh_loss
from mlpjax.doctor_runs import (
    FEW,
    Run,
    Trainer,
    batch_norm_verdict,
    few_examples,
    overfitting_verdict,
    run_verdicts,
    scaled,
)
from mlpjax.doctor_signals import first_step, loss_by_batches, signals, start_verdicts, step_verdicts
from mlpjax.doctor_verdicts import Examination, Verdict, explain
from mlpjax.errors import DataError, InputError
from mlpjax.fit_checks import check_key, check_trainable, with_class_weight
from mlpjax.loop import evaluate_checked
from mlpjax.memory import check_memory
from mlpjax.mlp import autodiff, backward
from mlpjax.parameters import Batch, Params, State, init
from mlpjax.step import GradFn, TrainState
from mlpjax.targets import target_matrix

__all__ = ["Examination", "Verdict", "examine"]

MAX_EXAMPLES, MEASURED = 4096, 1024
"""So many examples at most are trained on, and measured on; of more, these are drawn."""
STEPS, FEWEST_STEPS, RUN_FLOPS = 600, 100, 3e10
"""About how many steps a run has, at least how many, and how many operations it may take in between."""


def examine(
    config: Config,
    optimizer: optax.GradientTransformation,
    train_data: Batch,
    *,
    batch_size: int,
    key: jax.Array,
    epochs: int | None = None,
    valid_data: Batch | None = None,
    grad_fn: GradFn = backward,
    class_weight: Sequence[float] | Literal["balanced"] | None = None,
    params: Params | None = None,
    state: State | None = None,
) -> Examination:
    """Examine a training run before it is made: every measure with its limit, the evidence, and what to change.

    It looks at the data (scales, constant features, copies, class shares, whether labels go with inputs), at the
    network before its first step (loss, weights, dead and saturated units, gradients by layer, size of the update),
    learns 20 examples by heart, and makes short runs of its own: as given, with other learning rates, other seeds,
    without penalties and without dropout. A consequence names its cause in ``explained_by``; `Examination.causes` is
    what remains. The arguments are those of `mlpjax.fit`, and the first epochs of its run are the first of these.

    Args:
        config: the network.
        optimizer: any `optax.GradientTransformation`. Of a schedule the short runs see the beginning.
        train_data: examples; of more than 4096, as many are drawn.
        batch_size: examples per step.
        key: the one source of randomness; the same key gives the same verdicts.
        epochs: of each short run; by default about 600 steps, fewer where a step is long.
        valid_data: examples to compare with, for over-fitting and leaks.
        grad_fn: the gradient; one that is not the package's is compared with `mlpjax.autodiff`.
        class_weight: as in `mlpjax.fit`.
        params: where to start; those of `mlpjax.init` by default. Other seeds are tried for those only.
        state: batch-norm statistics to start from.

    Returns:
        An `Examination`; it is text as ``str``. A measure that does not apply is not in it.

    Raises:
        InputError: (a `ValueError`) as `mlpjax.fit`, for a `mlpjax.DiskData`, and for data without any weight.

    Source: ``erm-issue-optimiser``, ``train-problem-lr``, ``init-zero-setup``, ``act-leaky-dying``,
    ``norm-scale-example``.

    >>> from mlpjax.toys import circle
    >>> ring = Batch(*circle(200))
    >>> config = Config(sizes=(2, 8, 1), activation="tanh", head="binary", init="zeros")
    >>> found = examine(config, optax.adam(0.03), ring, batch_size=20, key=jax.random.key(0))
    >>> [verdict.name for verdict in found.causes]
    ['symmetry']
    """
    check_trainable(config)
    check_key(key)
    check_memory(config)
    check_count("batch_size", batch_size)
    if epochs is not None:
        check_count("epochs", epochs)
    if not isinstance(train_data, Batch):
        raise InputError(f"train_data is of type {type(train_data).__name__}: expected mlpjax.Batch(x, y), in memory")
    words = key_words(key)
    train_data = with_class_weight(config, check_batch(config, train_data, "train_data"), class_weight)
    data, sample = _some(config, train_data, words)
    valid = None if valid_data is None else _some(config, check_batch(config, valid_data, "valid_data"), words)
    new_params, new_state = init(config, key)
    trainer = Trainer(
        config=config,
        optimizer=scaled(optimizer),
        data=data,
        measured=_first(data, MEASURED),
        epochs=_epochs(config, len(data.x), batch_size) if epochs is None else epochs,
        batch_size=batch_size,
        key=key,
        grad_fn=grad_fn,
        params=new_params if params is None else params,
        state=new_state if state is None else state,
        drawn=params is None,
    )
    verdicts = [
        *data_verdicts(config, sample, None if valid is None else valid[1], words),
        *_network_verdicts(trainer, sample, None if valid is None else valid[0]),
    ]
    return Examination(explain(verdicts))


def _network_verdicts(trainer: Trainer, sample: Sample, valid: Batch | None) -> list[Verdict]:
    config, data = trainer.config, trainer.data
    constant = constant_loss(config.head, sample)
    seen = signals(trainer.quiet, trainer.params, trainer.state, trainer.measured)
    check = trainer.grad_fn not in (backward, autodiff) and config.compute_dtype in (None, "float32")
    start = TrainState(trainer.params, trainer.state, trainer.optimizer.init(trainer.params))
    step = first_step(
        config, start, _first(data, trainer.batch_size), trainer.key,
        optimizer=trainer.optimizer, grad_fn=trainer.grad_fn, check=check,
    )  # fmt: skip
    steps = list(step_verdicts(jax.device_get(step), check))
    moved = next((verdict.value for verdict in steps if verdict.name == "updates_large"), 0.0)
    base = trainer.run()
    fresh = fresh_loss(config.head, sample, key_words(trainer.key))
    few = _few(config.head, sample)
    few_constant = constant_loss(config.head, Sample(*(part[few] for part in sample)))
    verdicts = [
        *start_verdicts(config, trainer.params, seen, base.seen, fresh),
        *steps,
        few_examples(trainer, Batch(data.x[few], data.y[few]), few_constant),
        *run_verdicts(trainer, base, min(constant, float(seen.loss)), constant, moved),
    ]
    if config.batch_norm:
        size = min(trainer.batch_size, len(trainer.measured.x))
        result = base.result
        by_batches = loss_by_batches(trainer.quiet, result.params, result.state, trainer.measured, size)
        verdicts.append(batch_norm_verdict(float(by_batches), float(base.seen.running), constant))
    if valid is not None:
        verdicts.append(_overfitting(config, base, valid, constant))
    return verdicts


def _overfitting(config: Config, base: Run, valid: Batch, constant: float) -> Verdict:
    params, state = base.result.params, base.result.state
    return overfitting_verdict(
        float(base.seen.running), evaluate_checked(config, params, state, valid)["loss"], constant
    )


def _some(config: Config, data: Batch, words: list[int]) -> tuple[Batch, Sample]:
    """The examples that count, or `MAX_EXAMPLES` of them, for the device and for the host."""
    m = len(data.x)
    weight = np.ones(m) if data.weight is None else np.asarray(data.weight, np.float64)
    rows = np.flatnonzero(weight)
    if len(rows) == 0:
        raise DataError("all weights are 0: expected at least one example that counts")
    if len(rows) > MAX_EXAMPLES:
        rows = np.sort(np.random.default_rng(words).permutation(rows)[:MAX_EXAMPLES])
    if len(rows) < m:
        data = jax.tree.map(lambda part: part[rows], data)
    y = target_matrix(config.head, data.y, config.sizes[-1], data.x.dtype)
    return data, Sample(np.asarray(data.x), np.asarray(y), weight[rows])


def _first(data: Batch, n: int) -> Batch:
    return jax.tree.map(lambda part: part[:n], data)


def _epochs(config: Config, m: int, batch_size: int) -> int:
    """How many epochs make about `STEPS` steps, or as many as `RUN_FLOPS` allow."""
    batch_size = min(batch_size, m)
    flops = 6 * batch_size * sum(a * b for a, b in zip(config.sizes[:-1], config.sizes[1:], strict=True))
    steps = max(FEWEST_STEPS, min(STEPS, int(RUN_FLOPS / flops)))
    return max(1, round(steps / -(-m // batch_size)))


def _few(head: str, sample: Sample) -> np.ndarray:
    """The rows of a few examples, of every class in turn."""
    if head not in ("binary", "multiclass"):
        return np.arange(min(FEW, len(sample.y)))
    label = sample.y[:, 0] if head == "binary" else sample.y.argmax(axis=1)
    turn = np.zeros(len(label), int)
    for one in np.unique(label):
        turn[label == one] = np.arange(np.sum(label == one))
    return np.argsort(turn, kind="stable")[:FEW]
