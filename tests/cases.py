"""Networks and batches to prove things on, and the proof itself: three answers that have to agree."""

import jax
import numpy as np
import oracle
import pytest

import mlpjax
from mlpjax.cases import EXAMPLES as M
from mlpjax.cases import Case, all_pairs, covering_array, make_case
from mlpjax.networks import sizes_of

__all__ = ["Case", "all_pairs", "covering_array", "make_case", "sizes_of"]

STEP = 1e-5
KINK_MARGIN = 1e-3


def one_fast_in(every, values):
    """Values to parametrize a test by; of each so many, the first runs always, the others with what is slow."""
    return [pytest.param(value, marks=pytest.mark.slow if i % every else ()) for i, value in enumerate(values)]


def smooth_case(config, weight="none", train=True, m=M):
    """A case in which no pre-activation and no weight is near a kink: differences can be trusted there."""
    for seed in range(100):
        case = make_case(config, weight, train, m, seed)
        weights = np.concatenate([np.ravel(layer.W) for layer in case.params])
        near_zero = config.l1 is not None and bool(np.any((weights != 0) & (np.abs(weights) < 10 * STEP)))
        if not near_zero and case.call(oracle.objective).margin > KINK_MARGIN:
            return case
    raise AssertionError(f"every batch touches a kink: {config}")


def leaf_errors(got, expected):
    """The largest error of each leaf over the leaf's scale.

    A leaf whose exact value is 0 consists of rounding alone: it is measured by the scale of the whole tree.
    """
    leaves = jax.tree_util.tree_leaves_with_path(got)
    others = jax.tree_util.tree_leaves_with_path(expected)
    assert [path for path, _ in leaves] == [path for path, _ in others]
    pairs = [
        (path, np.asarray(a, np.float64), np.asarray(b, np.float64))
        for (path, a), (_, b) in zip(leaves, others, strict=True)
    ]
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
        scale = float(np.max(np.abs(hand)))
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
