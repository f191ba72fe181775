"""Risk, descent and convexity: closed forms, quadrature and NumPy as oracles, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax.cases import make_case
from mlpjax.errors import DataError, InputError
from mlpjax.risk import (
    LinearWorld,
    convexity_gap,
    draw,
    empirical_risk,
    gradient_descent,
    largest_stable_step,
    minimise_empirical_risk,
    permute_hidden,
    risk,
    steepest_ascent,
)

WORLD = LinearWorld(np.array([1.0, -1.0]), np.array([[2.0, 0.5], [0.5, 1.0]]), 0.7)


def test_risk_by_hand():
    # ½ (0.49 + [1, 2] Σ [1, 2]ᵀ) with [1, 2] Σ [1, 2]ᵀ = 2 + 2 + 4
    assert risk(WORLD, [2.0, 1.0]) == pytest.approx((0.49 + 8.0) / 2)
    assert risk(WORLD, WORLD.theta) == pytest.approx(0.245)


def test_draws_have_the_worlds_moments():
    x, y = draw(WORLD, 100_000, seed=3)
    assert x.dtype == y.dtype == np.float64
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(x.T @ x / len(x), WORLD.covariance, atol=0.03)
    residual = y - x @ WORLD.theta
    assert residual.std() == pytest.approx(0.7, rel=0.01)
    assert abs(residual @ x / len(x)).max() < 0.02
    assert np.array_equal(draw(WORLD, 5, seed=3)[0], draw(WORLD, 5, seed=3)[0])


def test_a_degenerate_world_is_drawn_too():
    x, _ = draw(WORLD._replace(covariance=np.ones((2, 2))), 50, seed=0)
    np.testing.assert_allclose(x[:, 0], x[:, 1], atol=1e-7)


def test_empirical_risk_and_its_minimiser(x64):
    x, y = draw(WORLD, 30, seed=0)
    theta = minimise_empirical_risk(x, y)
    np.testing.assert_allclose(theta, np.linalg.solve(x.T @ x, x.T @ y))
    np.testing.assert_allclose(empirical_risk(theta, x, y), np.mean((x @ theta - y) ** 2) / 2)
    np.testing.assert_allclose(jax.grad(empirical_risk)(jnp.asarray(theta), x, y), [0, 0], atol=1e-14)
    # two equal columns: of all minimisers the shortest
    np.testing.assert_allclose(minimise_empirical_risk(np.ones((3, 2)), np.ones(3)), [0.5, 0.5])


def test_the_fitted_examples_flatter():
    gaps = []
    for seed in range(300):
        x, y = draw(WORLD, 20, seed)
        theta = minimise_empirical_risk(x, y)
        gaps.append(risk(WORLD, theta) - np.mean((x @ theta - y) ** 2) / 2)
    # σ² n/m = 0.049 to first order
    assert 0.04 < np.mean(gaps) < 0.06


@pytest.mark.parametrize(
    ("world", "match"),
    [
        (WORLD._replace(theta=np.ones(3)), r"expected \(n,\) and \(n, n\)"),
        (WORLD._replace(covariance=np.array([[1.0, 0.5], [0.0, 1.0]])), "covariance is not one"),
        (WORLD._replace(covariance=np.diag([1.0, -1.0])), "covariance is not one"),
        (WORLD._replace(noise=-1.0), "noise >= 0"),
        (WORLD._replace(noise=np.nan), "finite"),
    ],
)
def test_no_world(world, match):
    with pytest.raises(InputError, match=match):
        draw(world, 3, 0)
    with pytest.raises(InputError, match=match):
        risk(world, world.theta)


def test_shapes_are_checked():
    with pytest.raises(InputError, match="theta has shape"):
        risk(WORLD, [1.0])
    with pytest.raises(InputError, match="m is 0"):
        draw(WORLD, 0, 0)
    for x, y in ((np.ones((3, 2)), np.ones((3, 1))), (np.ones(3), np.ones(3)), (np.ones((0, 2)), np.ones(0))):
        with pytest.raises(DataError, match="expected"):
            minimise_empirical_risk(x, y)


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_steepest_ascent_on_every_scale(scale):
    u, slope = steepest_ascent(scale * np.array([3.0, -4.0, 12.0]))
    np.testing.assert_allclose(u, np.array([3, -4, 12]) / 13)
    assert slope == pytest.approx(13 * scale)


@pytest.mark.parametrize("g", [[0.0, 0.0], [np.nan, 1.0], [[1.0]], [np.inf, 0.0]])
def test_no_direction(g):
    with pytest.raises(InputError, match="the gradient is"):
        steepest_ascent(g)


def test_descent_on_a_tree_by_hand(x64):
    theta = {"w": np.array([1.0, 2.0]), "b": 3}
    path = gradient_descent(lambda t: {"w": 2 * t["w"], "b": t["b"] - 1}, theta, 0.1, 4)
    powers = 0.8 ** np.arange(5)
    np.testing.assert_allclose(path["w"], powers[:, None] * np.array([1.0, 2.0]))
    np.testing.assert_allclose(path["b"], 1 + 2 * 0.9 ** np.arange(5))


def test_descent_trains_a_network(x64):
    case = make_case(mlpjax.Config(sizes=(3, 1), head="regression"))
    path = gradient_descent(lambda params: case.call(mlpjax.backward, params=params)[1], case.params, 0.3, 5)
    x, y, w, b = case.batch.x, case.batch.y, np.asarray(case.params[0].W), np.asarray(case.params[0].b)
    for _ in range(5):
        error = (x @ w + b[None, :] - y) / 9
        w, b = w - 0.3 * x.T @ error, b - 0.3 * error.sum(axis=0)
    np.testing.assert_allclose(path[0].W[-1], w)
    np.testing.assert_allclose(path[0].b[-1], b)


@pytest.mark.parametrize(("factor", "shrinks"), [(0.99, True), (1.01, False)])
def test_the_largest_stable_step(x64, factor, shrinks):
    B = np.random.default_rng(0).normal(size=(4, 4))
    H = jnp.asarray(B @ B.T)
    limit = largest_stable_step(H)
    assert limit == pytest.approx(2 / np.linalg.eigvalsh(B @ B.T).max())
    path = gradient_descent(lambda t: H @ t, jnp.ones(4), factor * limit, 2000)
    cost = np.einsum("ki,ij,kj->k", path, H, path)
    assert (cost[-1] < cost[0]) == shrinks


@pytest.mark.parametrize("H", [np.ones(3), np.ones((2, 3)), [[1.0, 2.0], [0.0, 1.0]], -np.eye(2), [[np.nan]]])
def test_no_hessian(H):
    with pytest.raises(InputError, match="hessian"):
        largest_stable_step(H)


def test_what_descent_refuses():
    start = jnp.ones(2)
    for alpha in (0.0, -1.0, np.inf):
        with pytest.raises(InputError, match="alpha is"):
            gradient_descent(lambda t: t, start, alpha, 1)
    with pytest.raises(InputError, match="steps is 0"):
        gradient_descent(lambda t: t, start, 0.1, 0)
    with pytest.raises(InputError, match="the gradient has the shapes"):
        gradient_descent(lambda t: t[:1], start, 0.1, 1)
    with pytest.raises(InputError, match="the gradient has the shapes"):
        gradient_descent(lambda t: (t, t), start, 0.1, 1)


def test_permuted_units_are_the_same_network(x64):
    config = mlpjax.Config(sizes=(3, 5, 4, 2), activation=("prelu", "tanh"))
    case = make_case(config)
    predict = jax.jit(lambda params: mlpjax.predict(config, params, case.state, case.batch.x))
    before = predict(case.params)
    for l, order in ((1, [4, 0, 3, 1, 2]), (2, [1, 0, 3, 2])):
        other = permute_hidden(case.params, l, order)
        np.testing.assert_allclose(predict(other), before, rtol=1e-12)
        assert not np.array_equal(other[l - 1].W, case.params[l - 1].W)
        back = permute_hidden(other, l, np.argsort(order))
        assert all(map(np.array_equal, jax.tree.leaves(back), jax.tree.leaves(case.params)))


def test_permuted_batch_norm_is_the_same_network_with_its_state(x64):
    config = mlpjax.Config(sizes=(3, 4, 2), batch_norm=True)
    case, order = make_case(config), [2, 0, 3, 1]
    state = tuple(one._replace(mean=one.mean[jnp.array(order)], var=one.var[jnp.array(order)]) for one in case.state)
    after = mlpjax.predict(config, permute_hidden(case.params, 1, order), state, case.batch.x)
    np.testing.assert_allclose(after, mlpjax.predict(config, case.params, case.state, case.batch.x), rtol=1e-12)


@pytest.mark.parametrize(("l", "order"), [(0, [0, 1]), (2, [0, 1]), (1, [0, 0]), (1, [0]), (1, [1, 2])])
def test_no_permutation(l, order):
    params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 2, 2)), jax.random.key(0))
    with pytest.raises(InputError, match="expected a"):
        permute_hidden(params, l, order)


def test_convexity_gap_on_trees():
    assert convexity_gap(lambda t: t["a"] ** 2 + t["b"], {"a": 1.0, "b": 0.0}, {"a": -1.0, "b": 4.0}) == -1.0
    assert convexity_gap(lambda t: 3 * t + 1, 1.0, 5.0) == 0.0
