"""Networks and batches to prove things on: what the audit, the fault catalogue and the tests look at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.config import Config
from mlpjax.parameters import Batch, Params, State, init

EXAMPLES = 9
"""The rows of a case: a number that no width of its network should share."""


class Case(NamedTuple):
    """The arguments of `mlpjax.loss`."""

    config: Config
    params: Params
    state: State
    batch: Batch
    key: Any = None
    train: bool = True

    def call(self, function: Callable[..., Any], **changes: Any) -> Any:
        """``function(config, params, state, batch, key, train=…)``, with other values of some fields."""
        *args, train = self._replace(**changes)
        return function(*args, train=train)


def make_case(config: Config, weight: str = "none", train: bool = True, m: int = EXAMPLES, seed: int = 0) -> Case:
    """Draw a network and a batch for a config; the same seed gives the same case.

    ``weight`` is ``"none"``, ``"given"`` or ``"zeros"`` (given, and two of them 0).

    >>> make_case(Config(sizes=(3, 5, 2)), "zeros").batch.weight.round(1)
    array([0.7, 0. , 1.3, 1. , 1.2, 1.8, 1.9, 0. , 1.4])
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, config.sizes[0]))
    y = labels(config.head, m, config.sizes[-1], rng)
    params, state = network(config, seed)
    return Case(config, params, state, Batch(x, y, sample_weights(weight, m, rng)), jax.random.key(seed + 1), train)


def network(config: Config, seed: int = 0) -> tuple[Params, State]:
    """Draw parameters and state without a 0 or a 1 that could hide a missing term; ``W`` is as the config draws it.

    >>> params, _ = network(Config(sizes=(3, 2, 2)))
    >>> params[0].b.shape, bool(abs(params[0].b).min() > 0.2)
    ((2,), True)
    """
    params, state = init(config, jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def around(leaf: Any, spread: float) -> Any:
        return None if leaf is None else leaf + jnp.asarray(spread * rng.uniform(-1, 1, leaf.shape), leaf.dtype)

    params = tuple(
        layer._replace(
            b=around(layer.b, 1.0),
            gamma=around(layer.gamma, 0.5),
            beta=around(layer.beta, 1.0),
            slope=around(layer.slope, 0.2),
        )
        for layer in params
    )
    state = tuple(s._replace(mean=around(s.mean, 0.5), var=around(s.var, 0.5), count=s.count + 3) for s in state)
    return params, state


def labels(head: str, m: int, n_L: int, rng: np.random.Generator) -> np.ndarray:
    """Draw labels that suit a head.

    >>> labels("multilabel", 2, 3, np.random.default_rng(0))
    array([[1, 1, 1],
           [0, 0, 0]])
    """
    if head == "binary":
        return rng.integers(0, 2, m)
    if head == "multilabel":
        return rng.integers(0, 2, (m, n_L))
    if head == "multiclass":
        return rng.integers(0, n_L, m)
    y = rng.normal(size=(m, n_L))
    return np.abs(y) if head == "regression_relu" else y


def sample_weights(kind: str, m: int, rng: np.random.Generator) -> np.ndarray | None:
    """Draw sample weights: ``"none"``, ``"given"`` or ``"zeros"`` (given, and two of them 0).

    >>> sample_weights("none", 9, np.random.default_rng(0)) is None
    True
    """
    if kind == "none":
        return None
    weight = rng.uniform(0.5, 2.0, m)
    if kind == "zeros":
        weight[[1, m - 2]] = 0.0
    return weight


def covering_array(factors: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows in which every pair of values of every two factors occurs; greedy, without chance.

    Each row starts from an uncovered pair; every other factor then takes the value that covers most new pairs.

    >>> len(covering_array({"a": (0, 1), "b": (0, 1), "c": (0, 1)}))
    4
    """
    names = list(factors)
    missing = set(all_pairs(factors))
    rows: list[dict[str, Any]] = []
    while missing:
        (f, u), (g, v) = min(missing, key=repr)
        row = {f: u, g: v}
        for name in names:
            if name not in row:
                gains = [sum(_pair((name, value), item) in missing for item in row.items()) for value in factors[name]]
                # among equals the value rotates from row to row
                order = np.roll(np.arange(len(gains)), -len(rows))
                row[name] = factors[name][max(order, key=gains.__getitem__)]
        missing -= {_pair(a, b) for a, b in itertools.combinations(row.items(), 2)}
        rows.append({name: row[name] for name in names})
    return rows


def all_pairs(factors: Mapping[str, Sequence[Any]]) -> set[tuple[Any, ...]]:
    """Every pair of (factor, value) of two factors.

    >>> len(all_pairs({"a": (0, 1), "b": (0, 1, 2)}))
    6
    """
    return {
        _pair((f, u), (g, v)) for f, g in itertools.combinations(factors, 2) for u in factors[f] for v in factors[g]
    }


def _pair(a: tuple[str, Any], b: tuple[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted((a, b), key=lambda item: item[0]))
