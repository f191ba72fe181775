"""Networks and batches to prove things on: what the audit, the fault catalogue and the tests look at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.config import ActivationName, Config, HeadName
from mlpjax.parameters import Batch, Layer, Params, State, init

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


def random_sizes(rng: np.random.Generator) -> tuple[tuple[int, ...], int]:
    """Draw widths 2 … 9 with up to 3 hidden layers, sometimes equal, and 5 … 14 examples, a number that is no width.

    >>> random_sizes(np.random.default_rng(0))
    ((7, 7, 7, 7, 7), 6)
    """
    count = int(rng.integers(1, 4)) + 2
    sizes = rng.integers(2, 10, count).tolist()
    kind = rng.random()
    if kind < 0.2:
        sizes = sizes[:1] * count
    elif kind < 0.4:
        sizes[1:-1] = sizes[1:2] * (count - 2)
    m = rng.choice([m for m in range(5, 15) if m not in sizes])
    return tuple(sizes), int(m)


def random_network(rng: np.random.Generator, sizes: tuple[int, ...]) -> tuple[Config, str, bool]:
    """Draw everything but the widths, of which a head of one output replaces the last: config, weight and train.

    >>> random_network(np.random.default_rng(0), (4, 3, 2))[0].head
    'regression_relu'
    """

    def perhaps(chance: float, low: float, high: float) -> float | None:
        return float(rng.uniform(low, high)) if rng.random() < chance else None

    head = str(rng.choice(get_args(HeadName)))
    hidden = len(sizes) - 2
    names = rng.choice(get_args(ActivationName), 1 if rng.random() < 0.5 else hidden).tolist()
    dropout: Any = perhaps(0.5, 0.1, 0.45)
    if dropout is not None and rng.random() < 0.5:
        dropout = tuple(perhaps(0.6, 0.1, 0.45) for _ in range(hidden + 1))
    config = Config(
        sizes=(*sizes[:-1], 1) if head == "binary" else sizes,
        activation=tuple(names) if len(names) == hidden else names[0],
        head=head,
        bias=bool(rng.random() < 0.85),
        batch_norm=bool(rng.random() < 0.4),
        dropout=dropout,
        l1=perhaps(0.35, 0.005, 0.05),
        l2=perhaps(0.35, 0.05, 0.5),
    )
    return config, str(rng.choice(["none", "given", "zeros"])), bool(rng.random() < 0.85)


def on_kink(case: Case) -> Case:
    """Put unit 0 of every hidden layer at exactly 0, and output 0 too where the head has a kink there.

    >>> case = on_kink(make_case(Config(sizes=(3, 2, 1), head="regression")))
    >>> bool(case.params[0].W[:, 0].any())
    False
    """
    *inner, output = case.params
    params = [_at_zero(layer) for layer in inner]
    params.append(_at_zero(output) if case.config.head == "regression_relu" else output)
    state = tuple(one._replace(mean=one.mean.at[0].set(0)) for one in case.state)
    return case._replace(params=tuple(params), state=state)


def _at_zero(layer: Layer) -> Layer:
    def first_zero(leaf: jax.Array | None) -> jax.Array | None:
        return None if leaf is None else jnp.asarray(leaf).at[0].set(0)

    return layer._replace(W=layer.W.at[:, 0].set(0), b=first_zero(layer.b), beta=first_zero(layer.beta))


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
