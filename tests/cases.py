"""Networks and batches to prove things on, and the proof itself: three answers that have to agree."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracle

import mlpjax
from mlpjax import Batch, Config

M = 9
N_IN = 3
HIDDEN = (5, 4, 7, 6)
"""Every width and the number of rows differ, so that no transposed product fits by accident."""
STEP = 1e-5
KINK_MARGIN = 1e-3


def sizes_of(head, hidden, classes=2):
    """``hidden`` hidden layers; all networks end alike, so that few shapes have to be compiled."""
    n_L = {"binary": 1, "multiclass": classes}.get(head, 2)
    return (N_IN, *HIDDEN[len(HIDDEN) - hidden :], n_L)


class Case(NamedTuple):
    """The arguments of `mlpjax.loss`."""

    config: Config
    params: Any
    state: Any
    batch: Batch
    key: Any = None
    train: bool = True

    def call(self, function, **changes):
        """``function(config, params, state, batch, key, train=…)``."""
        *args, train = self._replace(**changes)
        return function(*args, train=train)


def labels(head, m, n_L, rng):
    """Labels that suit a head."""
    if head == "binary":
        return rng.integers(0, 2, m)
    if head == "multilabel":
        return rng.integers(0, 2, (m, n_L))
    if head == "multiclass":
        return rng.integers(0, n_L, m)
    y = rng.normal(size=(m, n_L))
    return np.abs(y) if head == "regression_relu" else y


def sample_weights(kind, m, rng):
    """``"none"``, ``"given"`` or ``"zeros"`` (given, two of them 0)."""
    if kind == "none":
        return None
    weight = rng.uniform(0.5, 2.0, m)
    if kind == "zeros":
        weight[[1, m - 2]] = 0.0
    return weight


def network(config, seed=0):
    """Parameters and state without a 0 or a 1 that could hide a missing term; ``W`` as the config draws it."""
    params, state = mlpjax.init(config, jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def around(leaf, spread):
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


def make_case(config, weight="none", train=True, m=M, seed=0):
    """A case for a config."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, config.sizes[0]))
    y = labels(config.head, m, config.sizes[-1], rng)
    params, state = network(config, seed)
    return Case(config, params, state, Batch(x, y, sample_weights(weight, m, rng)), jax.random.key(seed + 1), train)


def smooth_case(config, weight="none", train=True, m=M):
    """A case in which no pre-activation and no weight is near a kink: differences can be trusted there."""
    for seed in range(100):
        case = make_case(config, weight, train, m, seed)
        weights = np.concatenate([np.ravel(layer.W) for layer in case.params])
        near_zero = config.l1 is not None and bool(np.any((weights != 0) & (np.abs(weights) < 10 * STEP)))
        if not near_zero and case.call(oracle.objective).margin > KINK_MARGIN:
            return case
    raise AssertionError(f"every batch touches a kink: {config}")


def covering_array(factors):
    """Rows in which every pair of values of every two factors occurs; greedy, without chance.

    Each row starts from an uncovered pair; every other factor then takes the value that covers most new pairs.
    """
    names = list(factors)
    missing = set(all_pairs(factors))
    rows = []
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


def all_pairs(factors):
    """Every pair of (factor, value) of two factors."""
    return {
        _pair((f, u), (g, v)) for f, g in itertools.combinations(factors, 2) for u in factors[f] for v in factors[g]
    }


def _pair(a, b):
    return tuple(sorted((a, b), key=lambda item: item[0]))


def leaf_errors(got, expected):
    """The largest error of each leaf over the leaf's scale.

    A leaf whose exact value is 0 consists of rounding alone: it is measured by the scale of the whole tree.
    """
    leaves = jax.tree_util.tree_leaves_with_path(got)
    others = jax.tree_util.tree_leaves_with_path(expected)
    assert [path for path, _ in leaves] == [path for path, _ in others]
    pairs = [(path, np.asarray(a, np.float64), np.asarray(b, np.float64)) for (path, a), (_, b) in zip(leaves, others, strict=True)]  # fmt: skip  # noqa: E501
    tree_scale = max([np.abs(leaf).max(initial=0) for _, *both in pairs for leaf in both], default=0.0)
    errors = {}
    for path, a, b in pairs:
        assert a.shape == b.shape, jax.tree_util.keystr(path)
        own = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
        scale = own if own > 1e-8 * tree_scale else tree_scale
        errors[jax.tree_util.keystr(path)] = float(np.abs(a - b).max(initial=0) / scale) if scale else 0.0
    return errors


def assert_close(got, expected, rtol):
    """Every leaf agrees, relative to its scale; returns the worst error."""
    errors = leaf_errors(got, expected)
    wrong = {path: error for path, error in errors.items() if not error <= rtol}
    assert not wrong, wrong
    return max(errors.values(), default=0.0)


def central_differences(case, rows=4 * 256):
    """∂J/∂params from differences of J alone, of fourth order in the step, and the bound of their rounding.

    J(±h), J(±2h) for every entry at once, as one `vmap` over a fixed number of parameter sets.
    """
    leaves, tree = jax.tree.flatten(case.params)
    leaves = [np.asarray(leaf) for leaf in leaves]
    stacked = [np.tile(leaf, (rows,) + (1,) * leaf.ndim) for leaf in leaves]
    row = 0
    for leaf, stack in zip(leaves, stacked, strict=True):
        for index in np.ndindex(leaf.shape):
            for r, steps in enumerate((1, -1, 2, -2)):
                stack[(row + r, *index)] += steps * STEP
            row += 4
    assert row <= rows
    J = np.asarray(jax.vmap(lambda params: case.call(mlpjax.loss, params=params)[0])(tree.unflatten(stacked)))
    J = J[:row].reshape(-1, 4)
    slopes = (8 * (J[:, 0] - J[:, 1]) - (J[:, 2] - J[:, 3])) / (12 * STEP)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    grads = [part.reshape(leaf.shape) for part, leaf in zip(np.split(slopes, ends), leaves, strict=True)]
    return tree.unflatten(grads), 50 * np.finfo(np.float64).eps * np.abs(J).max() / STEP


def assert_gradients_agree(case, rtol=1e-10, differences=True):
    """Prove `mlpjax.backward` on a case: by autodiff and by central differences of the loss.

    Returns the worst relative error of each of the two comparisons.
    """
    (J, aux), grads = case.call(mlpjax.backward)
    (J_auto, aux_auto), grads_auto = case.call(mlpjax.autodiff)
    assert jax.tree.structure(grads) == jax.tree.structure(case.params)
    assert_close((J, aux), (J_auto, aux_auto), 1e-13)
    worst = assert_close(grads, grads_auto, rtol)
    if not differences:
        return worst, 0.0
    numeric, rounding = central_differences(case)
    worst_numeric = 0.0
    for (path, hand), number in zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(numeric), strict=True):
        scale = float(jnp.max(jnp.abs(hand)))
        error = float(np.abs(hand - number).max())
        assert error <= 1e-7 * scale + rounding, (jax.tree_util.keystr(path), error, scale)
        worst_numeric = max(worst_numeric, error / max(scale, 1e-3))
    return worst, worst_numeric


def assert_loss_matches_oracle(case, rtol=1e-12):
    """Prove `mlpjax.loss` on a case: value, parts, scores and state of the loops in `oracle`."""
    J, aux = case.call(mlpjax.loss)
    expected = case.call(oracle.objective)
    assert np.shape(J) == ()
    got = (J, aux.data_loss, aux.penalty, aux.z, [tuple(s) for s in aux.state])
    return assert_close(got, tuple(expected[:5]), rtol)
