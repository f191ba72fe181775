"""What the checks of the optimisers share: walks by an optimiser, or by a rule for one array, and made-up gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import mlpjax

ALPHA = 0.1
START = np.array([2.0, -1.0])
CURVATURE = np.array([1.0, 9.0])
"""L(θ) = ½ Σ cᵢθᵢ²: a flat and a steep axis."""
STEPS = 25


def walk(make: Callable[..., Any], gradient: Callable[..., Any], steps: int = STEPS, **options: Any) -> np.ndarray:
    """The path (steps + 1, 2) of the optimiser ``make(**options)``; ``gradient`` takes θ and a count from 0."""
    return follow(make, gradient, steps, **options)[0]


def follow(
    make: Callable[..., Any], gradient: Callable[..., Any], steps: int = STEPS, at: np.ndarray = START, **options: Any
) -> tuple[np.ndarray, list[Any]]:
    """The path of an optimiser from ``at``, and its states after each step."""
    init, update = _stepper(make, **options)
    path, state, states = [at], init(at), []
    for t in range(steps):
        theta, state = update(gradient(path[-1], t), state, path[-1])
        path.append(np.asarray(theta))
        states.append(state)
    return np.stack(path), states


def by_rule(
    rule: Callable[..., Any],
    gradient: Callable[..., Any],
    *constants: float,
    memory: tuple[float, ...] = (0.0,),
    clock: bool = False,
    steps: int = STEPS,
) -> np.ndarray:
    """The path of ``rule(dθ, *memory, t if clock, *constants) -> (Δθ, *memory)``, a rule of `mlpjax.optim_rules`."""
    path, memories = [START], [np.full(2, value) for value in memory]
    for t in range(steps):
        delta, *memories = rule(gradient(path[-1], t), *memories, *([t + 1] if clock else []), *constants)
        path.append(path[-1] + np.asarray(delta))
    return np.stack(path)


@functools.cache
def _stepper(make: Callable[..., Any], **options: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The start of an optimiser's state, and one compiled step of it."""
    rule = make(**options)
    return rule.init, jax.jit(functools.partial(mlpjax.apply_update, rule))


def ravine(theta: Any, t: int = 0) -> Any:
    """The gradient of L."""
    return CURVATURE * theta


def constant(theta: Any = None, t: int = 0) -> np.ndarray:
    """The same gradient everywhere."""
    return np.array([3.0, -0.5])


def alternating(theta: Any, t: int) -> np.ndarray:
    """A gradient that changes its sign at every step."""
    return (-1.0) ** t * constant()


def once(theta: Any, t: int) -> np.ndarray:
    """A gradient at the first step, and none later."""
    return constant() if t == 0 else np.zeros(2)
