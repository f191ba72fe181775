"""L1 and L2 on least squares against SciPy, scikit-learn and closed forms; weight decay and its limit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import ElasticNet, Lasso, Ridge

from mlpjax import InputError, cli
from mlpjax.shrinkage import (
    decay_factor,
    decay_step,
    ista,
    linear_r2,
    orthonormal_solution,
    proximal_step,
    ridge,
    soft_threshold,
    unstable_decay,
)


@pytest.fixture(scope="module")
def data():
    """Correlated features, of which half do not matter."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 6)) + rng.normal(size=(40, 1))
    return X, X @ np.array([2.0, 0.0, -1.0, 0.0, 0.3, 0.0]) + 0.3 * rng.normal(size=40)


def test_soft_threshold():
    found = soft_threshold(jnp.array([3.0, 1.0, 0.5, 0.0, -1.0, -3.0, jnp.nan]), 1.0)
    np.testing.assert_array_equal(found, np.float32([2, 0, 0, 0, 0, -2, np.nan]))
    assert not np.any(np.signbit(found[1:5]))
    np.testing.assert_array_equal(soft_threshold(jnp.array([-0.5, 2.0]), 0.0), np.float32([-0.5, 2.0]))


def test_soft_threshold_is_the_minimiser(x64):
    grid = np.linspace(-4, 4, 80_001)
    for u in (-2.3, -0.4, 0.0, 0.61, 1.7):
        best = grid[np.argmin((grid - u) ** 2 / 2 + 0.6 * np.abs(grid))]
        np.testing.assert_allclose(soft_threshold(jnp.asarray(u), 0.6), best, atol=1e-4)


def test_proximal_step(x64):
    """Both penalties' minimiser of (1/2α)(w − u)² + l1|w| + (l2/2)w², u = w − α dw."""
    grid = np.linspace(-4, 4, 80_001)
    found = proximal_step(jnp.array([1.0, 0.1, -2.0]), jnp.array([1.0, 0.2, -0.5]), 0.5, 0.4, 0.3)
    for w, u in zip(found, (0.5, 0.0, -1.75), strict=True):
        objective = (grid - u) ** 2 / (2 * 0.5) + 0.4 * np.abs(grid) + 0.15 * grid**2
        np.testing.assert_allclose(w, grid[np.argmin(objective)], atol=1e-4)


@pytest.mark.parametrize(("l1", "l2"), [(0.2, 0.0), (0.2, 0.5), (0.0, 0.5)])
def test_ista_against_scikit_learn(x64, data, l1, l2):
    """scikit-learn's objective has the same 1/(2m) for the lasso and the elastic net, and none for ridge."""
    X, y = data
    if l1 == 0:
        model = Ridge(alpha=len(y) * l2, fit_intercept=False)
    elif l2 == 0:
        model = Lasso(alpha=l1, fit_intercept=False, tol=1e-12, max_iter=100_000)
    else:
        model = ElasticNet(alpha=l1 + l2, l1_ratio=l1 / (l1 + l2), fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = model.fit(X, y).coef_
    found = np.asarray(ista(X, y, l1, l2, steps=3000))
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_array_equal(found == 0, expected == 0)
    if l1 == 0:
        np.testing.assert_allclose(ridge(X, y, l2), expected, rtol=1e-10)


def test_orthonormal_design(x64, data):
    X, y = np.linalg.qr(data[0])[0] * np.sqrt(40), data[1]
    w_ols = X.T @ y / 40
    for l1, l2 in ((0.3, 0.0), (0.3, 0.7), (0.0, 0.7)):
        np.testing.assert_allclose(ista(X, y, l1, l2, steps=200), orthonormal_solution(w_ols, l1, l2), atol=1e-12)
    np.testing.assert_allclose(ridge(X, y, 0.7), w_ols / 1.7, rtol=1e-12)


def test_float32_keeps_its_dtype_and_zeros(data):
    X, y = (jnp.asarray(array, jnp.float32) for array in data)
    found = ista(X, y, 0.5)
    assert found.dtype == ridge(X, y, 0.1).dtype == jnp.float32
    assert int(jnp.sum(found == 0)) >= 3


@pytest.mark.parametrize("solve", [lambda X, y: ista(X, y, 0.1), lambda X, y: ridge(X, y, 0.1), linear_r2])
def test_shapes_are_checked(solve):
    with pytest.raises(InputError, match=r"\(4, 2\) and \(3,\): expected \(m, n\) and \(m,\)"):
        solve(jnp.ones((4, 2)), jnp.ones(3))
    with pytest.raises(InputError, match=r"expected \(m, n\)"):
        solve(jnp.ones(4), jnp.ones(4))


def test_features_of_zero_get_the_weight_0():
    np.testing.assert_array_equal(ista(jnp.zeros((4, 2)), jnp.ones(4), 0.1), 0)


@pytest.mark.parametrize("size", [1e18, 1e30])
def test_large_features_need_small_weights(size):
    X, y = jnp.array([[size, 0], [0, -2 * size], [0, 0]]), jnp.array([3.0, 4.0, 1.0])
    exact = np.array([3.0, -2.0]) / size
    for w in (ista(X, y, 0.0), ista(X, y, 1e-3, 1e-3), ridge(X, y, 1e-3)):
        np.testing.assert_allclose(w, exact, rtol=1e-5)


def test_the_scale_has_no_derivative(x64, data):
    """d Σw/dX by autodiff is that by differences, also of the largest |X|, by which it is divided."""
    X, y = (jnp.asarray(value) for value in data)
    at = np.unravel_index(np.argmax(np.abs(X)), X.shape)
    got = jax.grad(lambda X: ridge(X, y, 0.1).sum())(X)[at]
    up, down = (ridge(X.at[at].add(h), y, 0.1).sum() for h in (1e-5, -1e-5))
    np.testing.assert_allclose(got, (up - down) / 2e-5, rtol=1e-7)


def test_penalties_are_not_negative():
    with pytest.raises(InputError, match=r"l1 is -0\.1"):
        ista(jnp.ones((4, 2)), jnp.ones(4), -0.1)
    with pytest.raises(InputError, match="l2 is nan"):
        ridge(jnp.ones((4, 2)), jnp.ones(4), float("nan"))


def test_decay_step_is_the_penalised_step(x64):
    """And optax's, with the decay added to the gradient."""
    rng = np.random.default_rng(0)
    W, dW = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    found = decay_step(W, dW, 0.1, 0.7)
    np.testing.assert_allclose(found, W - 0.1 * (dW + 0.7 * W), rtol=1e-13)
    sgd = optax.chain(optax.add_decayed_weights(0.7), optax.sgd(0.1))
    updates, _ = sgd.update(jnp.asarray(dW), sgd.init(W), jnp.asarray(W))
    np.testing.assert_allclose(found, W + updates, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(lambda W: decay_step(W, dW, 0.1, 0.7))(W), found, rtol=1e-13)


@pytest.mark.parametrize("product", [0.0, 0.5, 1.0, 1.9, 2.0, 2.5])
def test_the_limit(product):
    """Ten steps of 1 − α l2 shrink the weights below 2 only; from 2 on there is a warning, that names this file."""
    if product >= 2:
        with pytest.warns(UserWarning, match=rf"α · l2 is {product:g}: .* choose α · l2 < 2") as caught:
            factor = decay_factor(0.5, 2 * product)
        with pytest.warns(UserWarning, match="never settles") as caught_step:
            decay_step(jnp.ones((1, 1)), jnp.zeros((1, 1)), 0.5, 2 * product)
        assert caught[0].filename == caught_step[0].filename == __file__
        assert abs(factor) ** 10 >= 1
    else:
        factor = decay_factor(0.5, 2 * product)
        assert (abs(factor) ** 10 < 1) == (product > 0)
    assert factor == 1 - product
    assert (unstable_decay(0.5, 2 * product) is None) == (product < 2)


@pytest.mark.parametrize(("alpha", "l2"), [(-0.1, 1.0), (0.1, -1.0), (float("nan"), 1.0)])
def test_decay_refuses(alpha, l2):
    with pytest.raises(InputError, match="expected a finite number ≥ 0"):
        decay_factor(alpha, l2)


def test_linear_r2(data):
    X, y = data
    np.testing.assert_allclose(linear_r2(X, 3 * X[:, 0] - X[:, 1] + 5), 1.0, rtol=1e-13)
    design = np.column_stack([np.ones(40), X])
    residual = y - design @ np.linalg.solve(design.T @ design, design.T @ y)
    np.testing.assert_allclose(linear_r2(X, y), 1 - residual.var() / y.var(), rtol=1e-10)
    with pytest.raises(InputError, match="yhat is 2 everywhere"):
        linear_r2(X, np.full(40, 2.0))


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        (["--optimizer", "sgd", "--lr", 0.5, "--l2", 5], True),
        (["--optimizer", "sgd", "--lr", 0.5, "--l2", 5, "--clip", 1], False),
    ],
)
def test_the_command_line_warns(tmp_path, monkeypatch, capsys, more, warned):
    """One line, where plain gradient steps cannot settle."""
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "--data", "xor_gate", "--hidden", 2, "--epochs", 1, "--dropout", 0, *more]
    assert cli.main([str(argument) for argument in arguments]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    expected = (
        "warning: with --lr as α, α · l2 is 2.5: each step multiplies W by 1 − α · l2 = -1.5, and never settles: "
        "choose α · l2 < 2"
    )
    assert lines == ([expected] if warned else [])
