"""The affine map of a linear network, the rank that its widths allow, and what a line can do in the plane."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax import Config, DataError, InputError, Layer
from mlpjax.collapse import best_affine_accuracy, collapse, rank_bound
from mlpjax.toys import GATES, gate


def draw(*sizes, bias=True, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(
        Layer(
            jnp.asarray(rng.normal(size=s), jnp.float32),
            jnp.asarray(rng.normal(size=s[1]), jnp.float32) if bias else None,
        )
        for s in itertools.pairwise(sizes)
    )


def test_worked_value():
    """(x W1 + b1) W2 + b2 with numbers that are exact."""
    one = collapse(
        (Layer(jnp.array([[1.0, 2.0]]), jnp.array([3.0, 4.0])), Layer(jnp.array([[5.0], [6.0]]), jnp.array([7.0])))
    )
    np.testing.assert_array_equal(one.W, [[17.0]])
    np.testing.assert_array_equal(one.b, [3.0 * 5 + 4 * 6 + 7])


@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (3, 4, 5, 2, 6, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_network(sizes, bias):
    params = draw(*sizes, bias=bias)
    config = Config(sizes=sizes, activation="identity", head="regression", bias=bias)
    x = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    one = collapse(params)
    expected = mlpjax.predict(config, params, (), x)
    got = x @ one.W + (0 if one.b is None else one.b[None, :])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert one.W.dtype == jnp.float32
    assert (one.b is None) == (not bias)
    # one layer, with the gradient of the whole network
    alone = Config(sizes=(3, 2), head="regression", bias=bias)
    np.testing.assert_allclose(
        mlpjax.predict(alone, (one,), (), x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_bias_from_a_layer_on():
    """A layer without a bias before one with a bias."""
    (first,), (second,) = draw(3, 4, bias=False), draw(4, 2)
    np.testing.assert_array_equal(collapse((first, second)).b, second.b)
    one = collapse((draw(3, 4)[0], second._replace(b=None)))
    np.testing.assert_allclose(one.b, draw(3, 4)[0].b @ second.W, rtol=1e-6)


def test_gradient_of_the_product():
    """dW[1] = xᵀ dŷ W[2]ᵀ through `collapse`, as through the network."""
    params, x, dy = draw(3, 4, 2), np.ones((5, 3), np.float32), np.ones((5, 2), np.float32)

    def f(params):
        one = collapse(params)
        return jnp.sum(dy * (x @ one.W + one.b[None, :]))

    np.testing.assert_allclose(jax.grad(f)(params)[0].W, x.T @ dy @ params[1].W.T, rtol=1e-5)


@pytest.mark.parametrize(("sizes", "rank"), [((5, 2, 4, 5), 2), ((2, 7, 5), 2), ((5, 6, 1), 1), ((4, 4), 4)])
def test_rank(sizes, rank):
    params = draw(*sizes)
    assert rank_bound(params) == rank
    assert np.linalg.matrix_rank(np.asarray(collapse(params).W)) == rank


@pytest.mark.parametrize("f", [collapse, rank_bound])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ((), "no layer"),
        ((Layer(jnp.ones(3)),), r"W of layer 1 has shape \(3,\): expected \(n_in, n_out\)"),
        ((Layer(jnp.ones((3, 2))), Layer(jnp.ones((3, 2)))), r"layer 2 .*expected \(2, n\), as layer 1 has so many"),
        ((Layer(jnp.ones((3, 2)), gamma=jnp.ones(2)),), "layer 1 has batch-norm"),
        ((Layer(jnp.ones((3, 2)), slope=jnp.ones(2)),), "PReLU"),
    ],
)
def test_what_is_refused(f, params, message):
    with pytest.raises(InputError, match=message):
        f(params)


@pytest.mark.parametrize("name", GATES)
def test_gates(name):
    """Every gate but XOR and its complement is linear."""
    assert best_affine_accuracy(*gate(name)) == (0.75 if name in ("xor_gate", "xnor_gate") else 1.0)


def brute_force(x, y, turns=4000):
    """The best of many directions: never more than the exact answer."""
    best = 0
    for angle in np.linspace(0, np.pi, turns, endpoint=False):
        along = x @ [np.cos(angle), np.sin(angle)]
        for cut in [*along, np.inf]:
            right = np.mean((along >= cut) == y)
            best = max(best, right, 1 - right)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_against_many_directions(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(9, 2)), rng.integers(0, 2, 9)
    assert best_affine_accuracy(x, y) == pytest.approx(brute_force(x, y), abs=1e-12)


def test_points_on_a_grid_and_a_line():
    """Directions that coincide, and points that do, open no cut which is not there."""
    x = np.array([[i, j] for i in range(3) for j in range(3)]) * 0.1
    y = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1])
    assert best_affine_accuracy(x, y) == pytest.approx(
        brute_force(x + 1e-7 * np.random.default_rng(0).normal(size=x.shape), y)
    )
    line = np.stack([np.arange(5), np.arange(5)], axis=1)
    assert best_affine_accuracy(line, [0, 1, 0, 1, 1]) == 0.8
    assert best_affine_accuracy(np.zeros((4, 2)), [0, 1, 1, 1]) == 0.75
    assert best_affine_accuracy(np.zeros((1, 2)), [1]) == 1.0


def test_moved_turned_and_swapped():
    """A motion of the plane, a change of scale and the names of the classes change nothing."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 2)), rng.integers(0, 2, 12)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert best_affine_accuracy(x, y) == best_affine_accuracy(1e3 * x @ turn + [5.0, -2.0], 1 - y)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 3)), np.zeros(3), r"expected \(m, 2\), points of the plane"),
        (np.zeros((3, 2)), np.zeros(4), "expected"),
        (np.zeros((0, 2)), np.zeros(0), "at least one of each"),
        (np.full((3, 2), np.nan), np.zeros(3), "nan"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "y is 2 in row 2: expected the classes 0 and 1"),
    ],
)
def test_points_that_are_refused(x, y, message):
    with pytest.raises(DataError, match=message):
        best_affine_accuracy(x, y)
