"""The compiled units of a population: the start, a chunk of steps and an evaluation, of all members at once.

Each is the unit of one network under `jax.vmap`. A population is a tree whose leaves have a leading axis of members.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from mlpjax.compiling import QUICK, compiler_options
from mlpjax.config import Config
from mlpjax.mlp import loss
from mlpjax.parameters import Batch, init, param_dtype
from mlpjax.step import GradFn, Report, TrainState, batch_report, take, update
from mlpjax.threefry import fold_in

MakeOptimizer: TypeAlias = Callable[[Any], optax.GradientTransformation]
"""From the numbers of one member, such as α, to its optimiser."""


def stack_configs(configs: Sequence[Config]) -> Config:
    """One config whose rates are arrays ``(N,)``, for networks that differ in nothing else.

    >>> stack_configs([Config(sizes=(2, 3), l2=0.0), Config(sizes=(2, 3), l2=0.5)]).l2
    Array([0. , 0.5], dtype=float32)
    """
    dtype = param_dtype(configs[0])
    return jax.tree.map(lambda *rates: jnp.asarray(rates, dtype), *configs)


def members(population: Any, at: Any) -> Any:
    """Take some members, or one, of a population."""
    return jax.tree.map(lambda leaf: leaf[at], population)


def start_population(configs: Config, alphas: Any, keys: jax.Array, *, optimizer: MakeOptimizer) -> TrainState:
    """Draw the start values of all members, each from its own key; `start_program` compiles it."""

    def one(config: Config, alpha: Any, key: jax.Array) -> TrainState:
        params, state = init(config, key)
        return TrainState(params, state, optimizer(alpha).init(params))

    return jax.vmap(one)(configs, alphas, keys)


@functools.cache
def start_program() -> Any:
    """`start_population` under `jax.jit`."""
    return jax.jit(start_population, static_argnames="optimizer", compiler_options=compiler_options(QUICK))


@functools.partial(jax.jit, static_argnames=("optimizer", "grad_fn"))
def run_population(
    configs: Config,
    alphas: Any,
    population: TrainState,
    data: Batch,
    rows: jax.Array,
    n_steps: jax.Array,
    first_step: jax.Array,
    keys: jax.Array,
    training: jax.Array,
    *,
    optimizer: MakeOptimizer,
    grad_fn: GradFn,
) -> tuple[TrainState, Report, jax.Array]:
    """Take the steps of a chunk with all members: `mlpjax.step.run_chunk` for each.

    Args:
        configs: of the members, from `stack_configs`.
        alphas: what ``optimizer`` is called with, leaves ``(N, …)``.
        population: where to start.
        data: all training examples.
        rows: ``(C, batch size)``, batches that all members share, or ``(C, N, batch size)``, each its own. Shared
            batches make the first layer of all members one wide product.
        n_steps: how many of the C batches to take.
        first_step: the global number of the first step.
        keys: of the members, ``(N,)``.
        training: ``(N,)``, false for a member that has stopped: it stays as it is.
        optimizer: makes a member's optimiser.
        grad_fn: `mlpjax.backward` or `mlpjax.autodiff`.

    Returns:
        The population after the chunk, reports ``(C, N)``, and ``(N,)``, whether parameters and statistics of a
        member are still finite.
    """

    def one(
        config: Config, alpha: Any, train_state: TrainState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[TrainState, Report]:
        key = fold_in(key, step)
        return update(config, optimizer(alpha), grad_fn, train_state, batch, key, data.weight is not None)

    shared = rows.ndim == 2
    step_all = jax.vmap(one, (0, 0, 0, None if shared else 0, 0, None))

    def body(i: jax.Array, carry: tuple[TrainState, Report]) -> tuple[TrainState, Report]:
        population, reports = carry
        population, report = step_all(configs, alphas, population, take(data, rows[i]), keys, first_step + i)
        return population, jax.tree.map(
            lambda column, value: column.at[i].set(value.astype(column.dtype)), reports, report
        )

    W = population.params[0].W
    reports = Report(*(jnp.zeros((rows.shape[0], W.shape[0]), W.dtype) for _ in Report._fields))
    after, reports = jax.lax.fori_loop(0, n_steps, body, (population, reports))

    def one_lasts(training: jax.Array, after: TrainState, before: TrainState) -> tuple[TrainState, jax.Array]:
        now = jax.tree.map(lambda new, old: jnp.where(training, new, old), after, before)
        leaves = jax.tree.leaves((now.params, now.state))
        return now, jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))

    now, finite = jax.vmap(one_lasts)(training, after, population)
    return now, reports, finite


@jax.jit
def evaluate_population(configs: Config, population: TrainState, data: Batch, rows: jax.Array) -> Report:
    """Evaluate all members on batches ``rows (C, batch size)`` without training; reports ``(C, N)``."""

    def one(config: Config, member: TrainState, batch: Batch) -> Report:
        J, aux = loss(config, member.params, member.state, batch, train=False)
        return batch_report(config, J, aux, batch)

    def body(_: None, batch_rows: jax.Array) -> tuple[None, Report]:
        return None, jax.vmap(one, (0, 0, None))(configs, population, take(data, batch_rows))

    return jax.lax.scan(body, None, rows)[1]


@jax.jit
def put(population: Any, other: Any, at: jax.Array) -> Any:
    """Take one member of a population from another."""
    return jax.tree.map(lambda mine, theirs: mine.at[at].set(theirs[at]), population, other)


@jax.jit
def keep_better(better: jax.Array, now: TrainState, best: TrainState) -> TrainState:
    """Of each member ``now`` where it is better, else the best so far."""
    return jax.vmap(lambda which, *both: jax.tree.map(lambda a, b: jnp.where(which, a, b), *both))(better, now, best)
