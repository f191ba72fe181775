"""What the checks of the optimisers share: a walk with an optimiser of the package, and gradients made by formula."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import mlpjax
from mlpjax.optim import make_optimizer

ALPHA = 0.1
START = np.array([2.0, -1.0])
CURVATURE = np.array([1.0, 9.0])
"""L(θ) = ½ Σ cᵢθᵢ²: a flat and a steep axis."""
STEPS = 25


def walk(
    name: str, lr: float, gradient: Callable[..., Any], steps: int = STEPS, start: np.ndarray = START
) -> np.ndarray:
    """The path (steps + 1, 2) of an optimiser of `mlpjax.optim`; ``gradient`` takes θ and the step's number from 0."""
    return follow(*_stepper(name, lr), gradient, steps, start)[0]


def follow(
    init: Callable[..., Any],
    update: Callable[..., Any],
    gradient: Callable[..., Any],
    steps: int = STEPS,
    start: np.ndarray = START,
) -> tuple[np.ndarray, list[Any]]:
    """The path of an optimiser, and its states after each step."""
    path, state, states = [start], init(start), []
    for t in range(steps):
        theta, state = update(gradient(path[-1], t), state, path[-1])
        path.append(np.asarray(theta))
        states.append(state)
    return np.stack(path), states


def stepper(rule: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The start of an optimiser's state, and one compiled step of it."""
    return rule.init, jax.jit(functools.partial(mlpjax.apply_update, rule))


@functools.cache
def _stepper(name: str, lr: float) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return stepper(make_optimizer(name, lr))


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
