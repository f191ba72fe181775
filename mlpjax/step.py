"""The compiled unit of training: one step, and a chunk of steps under one `jax.lax.fori_loop`.

State is data: ``train_step(…, train_state, batch, key) -> (train_state, report)`` mutates nothing. Batches are
named by the rows they take from data that lies on the device; a row of −1 is padding, with weight 0, so that a
short last batch has the shape of every other one, and a chunk takes as many of its batches as it is told: nothing
recompiles and no example is dropped.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.augmenting import Augment, augmented
from mlpjax.checks import check_count, check_is_batch, row_weights
from mlpjax.compiling import QUICK, compiler_options
from mlpjax.config import Config
from mlpjax.heads import HEADS
from mlpjax.mlp import apply_update, loss
from mlpjax.optim_decay import refuse_two_l1
from mlpjax.parameters import Aux, Batch, Params, State, init
from mlpjax.targets import as_array, target_matrix
from mlpjax.threefry import fold_in

GradFn = Callable[..., tuple[tuple[jax.Array, Aux], Params]]
"""`mlpjax.backward`, `mlpjax.autodiff`, or a function with their arguments and result."""


def function_name(function: Any) -> str:
    """The name of a function; of another object what it says of itself, without its place in memory.

    >>> function_name(loss)
    'mlpjax.mlp.loss'
    """
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else without_places(str(function))


def without_places(text: str) -> str:
    """What Python says of an object, without the address that is another one in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


class TrainState(NamedTuple):
    """All that a step changes: parameters, batch-norm statistics, the optimiser's state. Source: ``train-notation``."""

    params: Params
    state: State
    opt_state: Any


class Report(NamedTuple):
    """What one batch says: J and its two parts; Σwᵢ times the head's metric, which is exact for counts; and Σwᵢ."""

    J: jax.Array | np.ndarray
    data_loss: jax.Array | np.ndarray
    penalty: jax.Array | np.ndarray
    metric_sum: jax.Array | np.ndarray
    weight_sum: jax.Array | np.ndarray


def start(config: Config, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """Where training starts; `start_program` is this, compiled."""
    params, state = init(config, key)
    return TrainState(params, state, optimizer.init(params))


@functools.cache
def start_program() -> Any:
    """`start` under `jax.jit`."""
    return jax.jit(start, static_argnames="optimizer", compiler_options=compiler_options(QUICK))


def train_step(
    config: Config,
    optimizer: optax.GradientTransformation,
    grad_fn: GradFn,
    train_state: TrainState,
    batch: Batch,
    key: jax.Array,
    augment: Augment | None = None,
) -> tuple[TrainState, Report]:
    """One update θ ← θ − (what the optimiser makes of ∂J/∂θ on ``batch``). Source: ``train-minibatch-update``.

    ``key`` is the step's own. ``augment`` first makes another batch of this one, whose loss and metric are reported. A
    batch whose weights are all zero leaves ``train_state`` as it was. Optimisers that want them get ``value``, ``grad``
    and ``value_fn`` (plateau, L-BFGS).

    Raises:
        ConfigError: for an L1 penalty both in the config and as `mlpjax.optim.proximal_l1`.

    >>> config, optimizer = mlpjax.Config(sizes=(2, 1), head="regression"), optax.sgd(0.1)
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> start = TrainState(params, state, optimizer.init(params))
    >>> batch = Batch(jnp.ones((3, 2)), jnp.ones(3))
    >>> end, report = train_step(config, optimizer, mlpjax.backward, start, batch, jax.random.key(1))
    >>> bool(loss(config, end.params, end.state, batch)[0] < report.J)
    True
    """
    return update(config, optimizer, grad_fn, train_state, batch, key, batch.weight is not None, augment)


def update(
    config: Config,
    optimizer: optax.GradientTransformation,
    grad_fn: GradFn,
    train_state: TrainState,
    batch: Batch,
    key: jax.Array,
    may_be_absent: bool,
    augment: Augment | None = None,
) -> tuple[TrainState, Report]:
    """`train_step`, which need not ask whether the batch has any weight unless it ``may_be_absent``."""
    params, state, opt_state = train_state
    refuse_two_l1(config, opt_state)
    if augment is not None:
        batch = augmented(config, params, augment, batch, key)
    (J, aux), grads = grad_fn(config, params, state, batch, key)
    # the loss before the update, while its scores are at hand: else they are kept beside the gradients
    J, grads = jax.lax.optimization_barrier((J, grads))

    def value_fn(params: Params) -> jax.Array:
        return loss(config, params, state, batch, key)[0]

    new_params, new_opt_state = apply_update(
        optax.with_extra_args_support(optimizer), grads, opt_state, params, value=J, grad=grads, value_fn=value_fn
    )
    new = TrainState(new_params, aux.state, new_opt_state)
    if may_be_absent:
        new = jax.tree.map(lambda after, before: jnp.where(aux.weight_sum != 0, after, before), new, train_state)
    return new, batch_report(config, J, aux, batch)


@functools.partial(jax.jit, static_argnames=("optimizer", "grad_fn"))
def run_chunk(
    config: Config,
    train_state: TrainState,
    data: Batch,
    rows: jax.Array,
    n_steps: jax.Array,
    first_step: jax.Array,
    key: jax.Array,
    augment: Augment | None = None,
    *,
    optimizer: optax.GradientTransformation,
    grad_fn: GradFn,
) -> tuple[TrainState, Report, jax.Array]:
    """Take the steps of a chunk on the device.

    Args:
        config: the network.
        train_state: where to start.
        data: all training examples.
        rows: ``(C, batch size)`` int32, which rows of ``data`` each batch takes; −1 is padding.
        n_steps: how many of the C batches to take, the first ones; each has a row that is no padding.
        first_step: the global number of the first step; step t draws from ``fold_in(key, t)``.
        key: the run's key.
        augment: a pytree that is called with a key and a batch (see `mlpjax.augmenting.as_pytree`).
        optimizer: an optax gradient transformation.
        grad_fn: `mlpjax.backward` or `mlpjax.autodiff`.

    Returns:
        The train state after the chunk, the reports of its steps ``(C,)`` (0 for steps not taken), and whether
        parameters and statistics are still finite.
    """
    # among padded rows only given weights can leave a batch without any
    may_be_absent = data.weight is not None or augment is not None

    def body(i: jax.Array, carry: tuple[TrainState, Report]) -> tuple[TrainState, Report]:
        train_state, reports = carry
        step_key = fold_in(key, first_step + i)
        batch = take(data, rows[i])
        train_state, report = update(config, optimizer, grad_fn, train_state, batch, step_key, may_be_absent, augment)
        return train_state, jax.tree.map(
            lambda column, value: column.at[i].set(value.astype(column.dtype)), reports, report
        )

    dtype = train_state.params[0].W.dtype
    reports = Report(*(jnp.zeros(rows.shape[0], dtype) for _ in Report._fields))
    train_state, reports = jax.lax.fori_loop(0, n_steps, body, (train_state, reports))
    leaves = jax.tree.leaves((train_state.params, train_state.state))
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
    return train_state, reports, finite


@jax.jit
def run_evaluation(config: Config, params: Params, state: State, data: Batch, rows: jax.Array) -> Report:
    """Evaluate batches, ``rows (C, batch size)`` as in `run_chunk`, without training; reports ``(C,)``."""

    def body(_: None, batch_rows: jax.Array) -> tuple[None, Report]:
        batch = take(data, batch_rows)
        J, aux = loss(config, params, state, batch, train=False)
        return None, batch_report(config, J, aux, batch)

    return jax.lax.scan(body, None, rows)[1]


def take(data: Batch, rows: jax.Array) -> Batch:
    """Gather a batch by its rows; a row of −1 becomes example 0 with weight 0.

    >>> take(Batch(jnp.array([[5.0], [6.0]]), jnp.array([0, 1])), jnp.array([1, -1])).weight
    Array([1., 0.], dtype=float32)
    """
    at = jnp.maximum(rows, 0)
    weight = jnp.ones(rows.shape) if data.weight is None else data.weight[at]
    return Batch(data.x[at], data.y[at], jnp.where(rows >= 0, weight, 0.0))


def batch_rows(order: np.ndarray, batch_size: int, n_batches: int) -> np.ndarray:
    """Cut an order of rows into ``n_batches`` batches, ``(n_batches, batch_size)``, padded with −1.

    Source: ``erm-issue-sampling``.

    >>> batch_rows(np.array([2, 0, 1]), 2, 2)
    array([[ 2,  0],
           [ 1, -1]], dtype=int32)
    """
    rows = np.full(n_batches * batch_size, -1, np.int32)
    rows[: len(order)] = order
    return rows.reshape(n_batches, batch_size)


# typed: 2.0 and True are not taken for the 2 that was asked for before
@functools.lru_cache(maxsize=None, typed=True)
def accumulate(grad_fn: GradFn, chunks: int) -> GradFn:
    """Return a gradient function that takes a batch in ``chunks`` parts, one after another, to save memory.

    The parts may be uneven: each counts by its weight sum, so the result is that of the whole batch, not a mean
    of means. Under batch-norm each part has statistics of its own, and with dropout masks of its own, drawn from
    ``fold_in(key, part)``. The result can be passed as ``grad_fn=`` to `mlpjax.fit`.

    Raises:
        ConfigError: if ``chunks`` is below 1.

    >>> config = mlpjax.Config(sizes=(2, 1), head="regression")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> batch = Batch(jnp.arange(10.0).reshape(5, 2), jnp.arange(5.0))
    >>> _, whole = mlpjax.backward(config, params, state, batch)
    >>> _, parts = accumulate(mlpjax.backward, 3)(config, params, state, batch)
    >>> bool(jnp.allclose(whole[0].W, parts[0].W, rtol=1e-6))
    True
    """
    check_count("chunks", chunks)
    if chunks == 1:
        return grad_fn

    def accumulated(
        config: Config, params: Params, state: State, batch: Batch, key: jax.Array | None = None, *, train: bool = True
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        m = jnp.shape(batch.x)[0]
        check_is_batch(batch)
        dtype = params[0].W.dtype
        data = Batch(*(value if value is None else as_array(value, dtype) for value in batch))
        rows = jnp.asarray(batch_rows(np.arange(m), -(-m // chunks), chunks))
        p, weight_sum = row_weights(batch.weight, m, params[0].W.dtype)
        share = jnp.sum(jnp.where(rows >= 0, p[jnp.maximum(rows, 0)], 0), axis=1)
        # without any weight each part says the same: the penalty
        share = jnp.where(weight_sum == 0, 1 / chunks, share)

        def body(carry: tuple[Any, State], part: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            total, state = carry
            i, part_rows, part_share = part
            part_key = None if key is None else jax.random.fold_in(key, i)
            (J, aux), grads = grad_fn(config, params, state, take(data, part_rows), part_key, train=train)
            sums = (J, aux.data_loss, aux.penalty, grads)
            total = jax.tree.map(lambda old, new: old + part_share * new, total, sums)
            return (total, aux.state), aux.z

        zero = jnp.zeros_like(p, shape=())
        start = (zero, zero, zero, jax.tree.map(jnp.zeros_like, params))
        parts = (jnp.arange(chunks), rows, share)
        ((J, data_loss, penalty, grads), state), z = jax.lax.scan(body, (start, state), parts)
        z = jnp.reshape(z, (-1, z.shape[-1]))[:m]
        return (J, Aux(state, data_loss, penalty, weight_sum, z)), grads

    accumulated.__qualname__ = f"accumulate({function_name(grad_fn)}, {chunks})"
    return accumulated


def batch_report(config: Config, J: jax.Array, aux: Aux, batch: Batch) -> Report:
    """What is told of a batch, from what `loss` returned for it."""
    y = target_matrix(config.head, batch.y, config.sizes[-1], aux.z.dtype, batch.weight)
    metric = HEADS[config.head].metric(aux.z, y)
    weighted = metric if batch.weight is None else jnp.where(batch.weight > 0, batch.weight * metric, 0)
    return Report(J, aux.data_loss, aux.penalty, jnp.sum(weighted), aux.weight_sum)
