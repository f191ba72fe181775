"""The points of a search: a grid or random draws of them, and what each says of its network and its optimiser."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import numbers
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from mlpjax.checks import check_count
from mlpjax.config import Config
from mlpjax.errors import InputError, unknown_name
from mlpjax.optim import SCHEDULES, assemble, make_optimizer
from mlpjax.population_memory import members_that_fit
from mlpjax.population_step import MakeOptimizer

LOG_UNIFORM = ("lr", "clip", "l1", "l2", "weight_decay", "proximal_l1")
"""Numbers that `draw` draws log-uniformly."""
UNIFORM = ("dropout",)
"""Numbers that `draw` draws uniformly."""
MOST_AT_ONCE = 512
"""Networks that train together at most: more are no faster, and their results wait in memory."""
DRAWS = 100
"""How often `draw` tries for each point before it says that there are not enough."""

_CONFIG = tuple(field.name for field in dataclasses.fields(Config))
_OPTIMIZER = ("optimizer", "lr", "schedule", "clip", "convention", "weight_decay", "proximal_l1")
_DEFAULTS = {"optimizer": "adam", "lr": 1e-3, "schedule": "constant", "convention": None, "batch_size": 32}


def grid(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations of the values of each axis; the last axis changes fastest.

    Raises:
        InputError: for an axis without values, or with a value twice.

    >>> grid({"optimizer": ["adam", "sgd"], "lr": [0.1, 0.2]})[:3]
    [{'optimizer': 'adam', 'lr': 0.1}, {'optimizer': 'adam', 'lr': 0.2}, {'optimizer': 'sgd', 'lr': 0.1}]
    """
    _check_axes(axes)
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def draw(axes: Mapping[str, Sequence[Any]], n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Draw n different points at random.

    The positive values of an axis of `LOG_UNIFORM` or `UNIFORM` span an interval from the smallest to the largest, out
    of which a number is drawn, with four significant digits; 0 or ``None`` among its k values is drawn with
    probability 1/k. On all other axes each value is as likely as any other.

    Args:
        axes: values by name, as for `grid`.
        n: how many points.
        rng: the randomness; the same state gives the same points.

    Raises:
        InputError: as `grid`, and where there are not n different points.

    >>> axes = {"optimizer": ["adam", "sgd"], "lr": [1e-4, 1e-1], "dropout": [0, 0.5]}
    >>> for point in draw(axes, 3, np.random.default_rng(0)):
    ...     print(point)
    {'optimizer': 'sgd', 'lr': 0.0006447, 'dropout': 0}
    {'optimizer': 'adam', 'lr': 0.02753, 'dropout': 0}
    {'optimizer': 'sgd', 'lr': 0.006606, 'dropout': 0.5}
    """
    _check_axes(axes)
    check_count("n", n)
    points: dict[str, dict[str, Any]] = {}
    for _ in range(DRAWS * n):
        point = {name: _draw_value(name, values, rng) for name, values in axes.items()}
        points.setdefault(repr(point), point)
        if len(points) == n:
            return list(points.values())
    raise InputError(f"{DRAWS * n} draws gave {len(points)} points, not {n}: ask for fewer, or give more values")


def _draw_value(name: str, values: Sequence[Any], rng: np.random.Generator) -> Any:
    i = int(rng.integers(len(values)))
    spans = [value for value in values if isinstance(value, numbers.Real) and float(value) > 0]
    nothing = [value for value in values if value is None or value == 0]
    if name not in LOG_UNIFORM + UNIFORM or len(spans) < 2 or len(spans) + len(nothing) < len(values):
        return values[i]
    if i < len(nothing):
        return nothing[i]
    low, high = float(min(spans)), float(max(spans))
    number = math.exp(rng.uniform(math.log(low), math.log(high))) if name in LOG_UNIFORM else rng.uniform(low, high)
    return min(max(float(f"{number:.4g}"), low), high)


def _check_axes(axes: Mapping[str, Sequence[Any]]) -> None:
    for name, values in axes.items():
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) == 0:
            raise InputError(f"the axis {name!r} is {values!r}: expected a list of one or more values")
        for i, value in enumerate(values):
            if any(value == other for other in values[:i]):
                raise InputError(f"the axis {name!r} has {value!r} twice: give each value once")


class Setting(NamedTuple):
    """A point, read.

    ``config`` is its network; ``trained`` the same with rates of 0 as numbers where another point has more, so that
    both are one program. ``rule`` makes its optimiser out of ``numbers``.
    """

    number: int
    point: Mapping[str, Any]
    config: Config
    trained: Config
    rule: MakeOptimizer
    numbers: dict[str, float]
    batch_size: int


def read_points(points: Sequence[Mapping[str, Any]], m: int, epochs: int) -> list[Setting]:
    """Read points, for m training examples.

    Raises:
        InputError: for an unknown name in a point, or a value that its place does not take.
    """
    if len(points) == 0:
        raise InputError("points is empty: expected one or more, such as grid({'sizes': [(64, 32, 10)], 'lr': [1e-3]})")
    used = {name for name in ("dropout", "l1", "l2", "weight_decay", "proximal_l1") if _is_used(name, points)}
    if {"l1", "proximal_l1"} <= used:  # no network has both, not even with a rate of 0
        used -= {"l1", "proximal_l1"}
    return [_read(number, point, used, m, epochs) for number, point in enumerate(points)]


def _is_used(name: str, points: Sequence[Mapping[str, Any]]) -> bool:
    values = {point.get(name) for point in points if not isinstance(point.get(name), list | tuple)}
    return any(value is not None and value != 0 for value in values)


def _read(number: int, point: Mapping[str, Any], used: set[str], m: int, epochs: int) -> Setting:
    for name in point:
        if name not in (*_CONFIG, *_OPTIMIZER, "batch_size"):
            raise InputError(unknown_name("name in a point", name, (*_CONFIG, *_OPTIMIZER, "batch_size")))
    whole = {**_DEFAULTS, **point}
    check_count("batch_size", whole["batch_size"])
    fields = {name: value for name, value in whole.items() if name in _CONFIG}
    for name in ("dropout", "l1", "l2"):
        if not isinstance(fields.get(name), list | tuple):
            fields[name] = fields.get(name) or None
    config = Config(**fields)
    zeros: dict[str, Any] = {name: 0.0 for name in ("dropout", "l1", "l2") if name in used and fields[name] is None}
    rates = {name: whole.get(name) or None for name in ("clip", "weight_decay", "proximal_l1")}
    rates |= {name: 0.0 for name in ("weight_decay", "proximal_l1") if name in used and rates[name] is None}
    steps = epochs * -(-m // min(whole["batch_size"], m))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a decay that never settles shows in the ranking
        make_optimizer(
            whole["optimizer"],
            whole["lr"],
            schedule=whole["schedule"],
            steps=steps,
            clip=rates["clip"],
            convention=whole["convention"],
            weight_decay=rates["weight_decay"],
            proximal_l1=rates["proximal_l1"],
        )
    traced = {"lr": whole["lr"], **{name: value for name, value in rates.items() if value is not None}}
    rule = _rule(whole["optimizer"], whole["schedule"], steps, whole["convention"])
    trained = Config(**{**fields, **zeros})
    return Setting(number, point, config, trained, rule, traced, whole["batch_size"])


@functools.cache
def _rule(name: str, schedule: str, steps: int, convention: str | None) -> MakeOptimizer:
    """The optimisers of one kind as a function of the numbers of a member, which are traced."""
    unit = SCHEDULES[schedule](1.0, steps)

    def rule(numbers: Mapping[str, Any]) -> optax.GradientTransformation:
        lr, *others = (numbers.get(key) for key in ("lr", "clip", "weight_decay", "proximal_l1"))
        alpha = (lambda step: lr * unit(step)) if callable(unit) else lr
        return assemble(name, alpha, others[0], convention, *others[1:])

    return rule


def groups_of(settings: Sequence[Setting], repeats: int, memory: int | None) -> list[list[Setting]]:
    """The settings that train together: one program for each group, `MOST_AT_ONCE` networks or fewer in memory."""
    alike: dict[Any, list[Setting]] = {}
    for setting in settings:
        kind = (jax.tree.structure(setting.trained), setting.rule, tuple(setting.numbers), setting.batch_size)
        alike.setdefault(kind, []).append(setting)
    groups = []
    for members in alike.values():
        first = members[0]
        fit = members_that_fit(first.trained, first.rule, first.numbers, first.batch_size, memory)
        most = max(1, int(min(MOST_AT_ONCE, fit)) // repeats)
        pieces = np.array_split(np.arange(len(members)), -(-len(members) // most))
        groups += [[members[i] for i in piece] for piece in pieces]
    return groups
