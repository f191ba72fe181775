"""Many small trainings as one population: every setting with every seed, compiled whole.

A member is a function of a setting (learning rates, configurations: what is compared) and a problem (key, data, the
order of the batches: what a seed draws). `population` takes it over all of them at once.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlpjax
from mlpjax import Batch, Config
from mlpjax.parameters import Params
from mlpjax.step import TrainState, batch_rows, take, train_step

DIGITS_VALID = 400
"""Examples that choose a setting, where the claim is about what generalises."""


class Problem(NamedTuple):
    """What a seed draws. In a population each array has a leading axis of seeds.

    ``rows (updates, batch size)`` are the batches as rows of ``train``, −1 being padding; ``key`` is that of the start
    values and of dropout.
    """

    key: Any
    train: Batch
    valid: Batch
    test: Batch
    rows: Any


def epochs_of_rows(rng: np.random.Generator, m: int, batch_size: int, updates: int) -> np.ndarray:
    """The rows of each batch, ``(updates, batch_size)``: every epoch in a new random order."""
    per_epoch = -(-m // batch_size)
    epochs = [batch_rows(rng.permutation(m), batch_size, per_epoch) for _ in range(-(-updates // per_epoch))]
    return np.concatenate(epochs)[:updates]


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1797 digits, x in [0, 1], and their labels."""
    data = mlpjax.load_dataset("digits")
    return data.x / 16, data.y


def digits_problems(
    seeds: int,
    *,
    train: int,
    updates: int,
    batch_size: int | None = None,
    change: Callable[[np.random.Generator, Problem], Problem] | None = None,
) -> Problem:
    """Digits, cut anew by each seed: ``train`` examples, 400 for validation, the others for testing.

    Args:
        seeds: how many.
        train: training examples of each.
        updates: batches of each.
        batch_size: ``None`` takes all training examples.
        change: what else to do to the problem of a seed, ``(generator, problem) → problem``.
    """
    x, y = digits()
    problems = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        parts = np.split(rng.permutation(len(x)), [train, train + DIGITS_VALID])
        rows = epochs_of_rows(rng, train, batch_size or train, updates)
        problem = Problem(jax.random.key(seed), *(Batch(x[part], y[part]) for part in parts), rows)
        problems.append(problem if change is None else change(rng, problem))
    return stacked(problems)


def stacked(trees: Sequence[Any]) -> Any:
    """One tree whose leaves have a leading axis over the given ones."""

    def stack(*leaves: Any) -> Any:
        # NumPy is quicker, but does not know keys
        return (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves)

    return jax.tree.map(stack, *trees)


def descend(
    config: Config,
    optimizer: optax.GradientTransformation,
    problem: Problem,
    *,
    start: Params | None = None,
    watch: Callable[[TrainState], Any] | None = None,
    augment: Any = None,
) -> tuple[TrainState, Any]:
    """Train from ``start``, else from `mlpjax.init`; returns where it ends, and what ``watch`` says of every update.

    Without ``watch`` that is J of the batches.
    """
    params, state = mlpjax.init(config, problem.key)
    params = params if start is None else start

    def body(train_state: TrainState, at: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Any]:
        step, rows = at
        key = jax.random.fold_in(problem.key, step)
        batch = take(problem.train, rows)
        train_state, report = train_step(config, optimizer, mlpjax.backward, train_state, batch, key, augment)
        return train_state, report.J if watch is None else watch(train_state)

    steps = jnp.arange(problem.rows.shape[0])
    return jax.lax.scan(body, TrainState(params, state, optimizer.init(params)), (steps, problem.rows))


def population(member: Callable[[Any, Problem], Any], settings: Sequence[Any], problems: Problem) -> Any:
    """``member(setting, problem)`` for all settings and problems at once: NumPy leaves ``(settings, seeds, …)``.

    The same ``member`` with the same shapes is compiled once.
    """
    return jax.tree.map(np.asarray, _population(member, stacked(settings), problems))


# each program runs once or twice: at level 1 it takes a third of the time to compile, and no longer to run
@functools.partial(jax.jit, static_argnames="member", compiler_options={"xla_backend_optimization_level": 1})
def _population(member: Callable[[Any, Problem], Any], settings: Any, problems: Problem) -> Any:
    over_seeds = jax.vmap(member, (None, 0))
    return jax.vmap(over_seeds, (0, None))(settings, problems)


def data_loss(config: Config, at: TrainState, data: Batch) -> jax.Array:
    """The mean loss on ``data``, without the penalty, nothing dropped; infinite after a divergence."""
    value = mlpjax.loss(config, at.params, at.state, data, train=False)[1].data_loss
    return jnp.where(jnp.isfinite(value), value, jnp.inf)


def error(config: Config, at: TrainState, data: Batch) -> jax.Array:
    """The share of ``data`` that is classified wrongly."""
    decided = mlpjax.decide(config, mlpjax.predict(config, at.params, at.state, data.x))
    return jnp.mean(decided != data.y)


def squared_weights(params: Params) -> jax.Array:
    """Σ W² over all layers."""
    return sum((jnp.sum(layer.W**2) for layer in params), start=jnp.zeros(()))
