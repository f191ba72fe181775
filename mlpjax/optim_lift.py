"""How a rule for one array becomes an optimiser of trees: its state, its step, and the checks of its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.errors import ConfigError

Alpha: TypeAlias = float | jax.Array | optax.Schedule
"""A learning rate: a number, an array ``()``, traced or not, or a function of the number of updates before."""


class RuleState(NamedTuple):
    """What a rule remembers: the number t of updates, and V, S, G, E and D per parameter, ``None`` where unused.

    The memories have the shapes of the parameters, and float32 at least, whatever the dtype of θ and its gradient.
    ``ahead`` is Nesterov's: its parameters lie ``ahead · V`` before θ.
    """

    t: jax.Array
    V: Any = None
    S: Any = None
    G: Any = None
    E: Any = None
    D: Any = None
    ahead: Any = None


class Step(NamedTuple):
    """What a rule may look at beside the gradient and its memory: step t = 1, 2, …, its α and that of the next, θ."""

    t: jax.Array
    alpha: Any
    next_alpha: Any
    theta: Any = None


def lift(
    rule: Callable[..., tuple[jax.Array, ...]],
    alpha: Alpha | None = None,
    ahead: Callable[[Step], Any] | None = None,
    **start: float,
) -> optax.GradientTransformation:
    """Make an optimiser of trees out of ``rule(step, dtheta, *memory) -> (Δθ, *memory)`` for one array.

    ``start`` names the memories, fields of `RuleState`, with the value that each starts at. The rule computes in
    float32 at least; what is added to θ has the dtype of θ.

    >>> rule = lift(lambda step, dtheta, V: (-step.alpha * (dtheta + V), dtheta), 0.5, V=1.0)
    >>> rule.update({"W": jnp.array(3.0)}, rule.init({"W": jnp.array(0.0)}))[0]
    {'W': Array(-2., dtype=float32)}
    """

    def init(params: Any) -> RuleState:
        def filled(value: float) -> Any:
            return jax.tree.map(lambda theta: jnp.full_like(theta, value, dtype=_wide(theta)), params)

        memories = {name: filled(value) for name, value in start.items()}
        distance = None if ahead is None else jnp.zeros((), jnp.result_type(float))
        return RuleState(jnp.zeros((), jnp.int32), **memories, ahead=distance)

    def update(updates: Any, state: RuleState, params: Any = None) -> tuple[Any, RuleState]:
        t = optax.safe_increment(state.t)
        rates = (alpha(state.t), alpha(t)) if callable(alpha) else (alpha, alpha)

        def step_in(dtype: Any, theta: Any = None) -> Step:
            # what a schedule makes of an integer has float32 even where θ has float64
            now, later = (rate if rate is None else jnp.asarray(rate, dtype) for rate in rates)
            return Step(t, now, later, theta)

        def of_one(dtheta: jax.Array, theta: jax.Array, *memory: jax.Array) -> tuple[jax.Array, ...]:
            dtheta, theta, wide = jnp.asarray(dtheta), jnp.asarray(theta), _wide(theta)
            delta, *after = rule(step_in(wide, theta.astype(wide)), dtheta.astype(wide), *memory)
            return delta.astype(theta.dtype), *(new.astype(old.dtype) for new, old in zip(after, memory, strict=True))

        theta = updates if params is None else params
        results = jax.tree.map(of_one, updates, theta, *(getattr(state, name) for name in start))
        deltas, *memories = (
            jax.tree.map(lambda _, result, i=i: result[i], updates, results) for i in range(1 + len(start))
        )
        new = RuleState(t, **dict(zip(start, memories, strict=True)))
        if ahead is None:
            return deltas, new
        dtype = state.ahead.dtype
        return deltas, new._replace(ahead=jnp.asarray(ahead(step_in(dtype)), dtype))

    return optax.GradientTransformation(init, update)


def check_alpha(alpha: Any) -> None:
    """Raise `ConfigError` unless ``alpha`` is a schedule or one finite number ≥ 0; what is traced is not looked at."""
    if not callable(alpha):
        if np.ndim(alpha) != 0:
            raise ConfigError(
                f"alpha has shape {np.shape(alpha)}: expected one number; a population of rates goes through jax.vmap"
            )
        check_range("alpha", alpha, 0, math.inf)


def check_range(name: str, value: Any, low: float, high: float, *, above: bool = False) -> None:
    """Raise `ConfigError` unless low ≤ value < high, or low < value < high for ``above``; passes what is traced.

    >>> check_range("beta", 1.0, 0, 1)
    Traceback (most recent call last):
        ...
    mlpjax.errors.ConfigError: beta is 1.0: expected a number ≥ 0 and < 1
    """
    try:
        number = np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return
    known = number.ndim == 0 and number.dtype.kind in "fiu"
    # the memories have float32 at least, in which a smaller number is 0
    least = low + np.finfo(np.float32).tiny if above else low
    if not (known and least <= number < high):
        lower = f"{'>' if above else '≥'} {low}"
        expected = f"a finite number {lower}" if high == math.inf else f"a number {lower} and < {high}"
        raise ConfigError(f"{name} is {value!r}: expected {expected}")


def _wide(theta: Any) -> Any:
    # of a weak dtype too: result_type would take a Python float under x64 for float32
    return jnp.promote_types(jnp.asarray(theta).dtype, jnp.float32)
