"""The curvature of the squared error and the steps of gradient descent on it, against long-hand computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpjax.conditioning import RANGES, Curvature, curvature, descent_steps, raw_weights, two_scales
from mlpjax.errors import DataError, InputError
from mlpjax.preprocess import SCALERS, min_max, standardise


def matrix(seed, m=12, n0=3):
    return np.random.default_rng(seed).normal(size=(m, n0)) * [1.0, 5.0, 0.3][:n0]


@given(st.integers(0, 10**6), st.integers(3, 30))
def test_curvature_is_that_of_the_second_moments(seed, m):
    x = matrix(seed, m)
    found = curvature(x)
    eigenvalues = np.linalg.eigvalsh(x.T @ x / m)
    np.testing.assert_allclose(found, eigenvalues[[0, -1]], rtol=1e-8, atol=1e-12 * eigenvalues[-1])
    assert found.condition == pytest.approx(eigenvalues[-1] / eigenvalues[0], rel=1e-6)


def test_curvature_keeps_its_digits_where_the_second_moments_lose_them():
    x = np.array([[1.0, 1.0], [1e-9, 0.0], [0.0, 1e-9]])  # singular values √2 and 1e-9
    assert curvature(x).smallest == pytest.approx(1e-18 / 3, rel=1e-6)


@pytest.mark.parametrize(
    "x",
    [
        np.column_stack([np.arange(5.0), 2 * np.arange(5.0)]),
        np.arange(6.0).reshape(2, 3),  # fewer examples than features
        np.column_stack([np.arange(5.0), np.zeros(5)]),
    ],
)
def test_dependent_columns_have_a_valley(x):
    found = curvature(x)
    assert found.smallest == 0
    assert found.condition == np.inf
    with pytest.raises(DataError, match="linearly dependent: no single w is the best"):
        descent_steps(x, np.ones(len(x)), 0.9 * found.largest_step)


def test_steps_of_a_curvature():
    found = Curvature(1.0, 3.0)
    assert (found.condition, found.best_step) == (3.0, 0.5)
    assert found.largest_step == pytest.approx(2 / 3)
    alphas = np.linspace(0.01, 0.66, 200)
    slowest = np.maximum(np.abs(1 - alphas), np.abs(1 - 3 * alphas))
    assert slowest.min() >= (3 - 1) / (3 + 1) - 1e-12  # no α does better than the best step


def test_scaling_improves_the_conditioning():
    x = two_scales(2000, seed=3)
    kappa = {name: curvature((x - (s := fit(x)).shift) / s.scale).condition for name, fit in SCALERS.items()}
    assert kappa["standardise"] < 1.2 < 5 < kappa["minmax"] < 9 < 1e6 < kappa["none"]


def test_two_scales_draws_the_ranges():
    x = two_scales(500, seed=1)
    assert x.shape == (500, 2)
    assert x.dtype == np.float64
    for column, (low, high) in zip(x.T, RANGES, strict=True):
        assert low <= column.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < column.max() < high
    np.testing.assert_array_equal(x, two_scales(500, seed=1))
    assert not np.array_equal(x, two_scales(500, seed=2))
    with pytest.raises(DataError, match="m is 1: expected at least 2"):
        two_scales(1)


def walk(x, y, alpha, steps):
    """The steps themselves, from w = 0."""
    path = [np.zeros(x.shape[1])]
    for _ in range(steps):
        path.append(path[-1] - alpha * x.T @ (x @ path[-1] - y) / len(x))
    return np.array(path)


@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.floats(1e-4, 0.5))
def test_steps_counted_are_steps_needed(seed, share, tol):
    x = np.random.default_rng(seed).normal(size=(8, 2))
    y = np.random.default_rng(seed + 1).normal(size=8)
    alpha = share * curvature(x).largest_step
    count = descent_steps(x, y, alpha, tol)
    if count > 3000:
        return
    optimum = np.linalg.lstsq(x, y, rcond=None)[0]
    error = np.linalg.norm(walk(x, y, alpha, count + 1) - optimum, axis=1) / np.linalg.norm(optimum)
    assert error[count] <= tol * (1 + 1e-9)
    assert np.all(error[:count] > tol * (1 - 1e-9))


def test_nothing_to_do_takes_no_step():
    x = np.array([[1.0], [1.0]])
    assert descent_steps(x, np.zeros(2), 0.5) == 0  # w* = 0
    assert descent_steps(x, np.array([3.0, 5.0]), 1.0) == 1  # α = 1/λ


def test_a_bias_is_a_column_of_ones():
    x = two_scales(300)
    z = (x - standardise(x).shift) / standardise(x).scale
    with_bias = curvature(np.column_stack([z, np.ones(300)]))
    assert with_bias.condition == pytest.approx(curvature(z).condition)  # centred columns are orthogonal to it
    raw = np.column_stack([x, np.ones(300)])
    assert curvature(raw).condition > curvature(x).condition


@pytest.mark.parametrize("fit", [standardise, min_max])
def test_raw_weights_say_the_same(fit):
    rng = np.random.default_rng(0)
    x, W, b = two_scales(20), rng.normal(size=(2, 3)), rng.normal(size=3)
    scaler = fit(x)
    W_raw, b_raw = raw_weights(scaler, W, b)
    np.testing.assert_allclose(x @ W_raw + b_raw, (x - scaler.shift) / scaler.scale @ W + b, rtol=1e-10)
    np.testing.assert_allclose(W_raw * scaler.scale[:, None], W, rtol=1e-14)


def test_what_is_wrong_is_named():
    x, y = np.array([[1.0], [2.0]]), np.array([1.0, 2.0])  # λ = 2.5
    for alpha in (0.0, -1.0, 0.8, 1.0, np.nan, 1e-300):
        with pytest.raises(InputError, match=r"expected a step in \(0, 2/λ_max = 0.8\)"):
            descent_steps(x, y, alpha)
    for tol in (0.0, 1.0, np.nan):
        with pytest.raises(InputError, match="tol is"):
            descent_steps(x, y, 0.1, tol)
    with pytest.raises(DataError, match=r"y has shape \(3,\): expected \(2,\)"):
        descent_steps(x, np.ones(3), 0.1)
    with pytest.raises(DataError, match=r"y has shape \(2,\): expected \(2,\), one finite number"):
        descent_steps(x, np.array([1.0, np.nan]), 0.1)
    with pytest.raises(DataError, match=r"x has shape \(2,\)"):
        curvature(np.ones(2))
    with pytest.raises(DataError, match=r"x has shape \(0, 2\)"):
        curvature(np.zeros((0, 2)))
    for bad in (np.zeros((2, 2)), np.array([[np.inf]])):
        with pytest.raises(DataError, match="x is 0 throughout, or has a value that is not finite"):
            curvature(bad)
    with pytest.raises(DataError, match=r"W has shape \(3, 1\) and b \(1,\): expected \(2, n1\)"):
        raw_weights(standardise(two_scales(5)), np.ones((3, 1)), np.ones(1))
    with pytest.raises(DataError, match=r"and b \(2,\)"):
        raw_weights(standardise(two_scales(5)), np.ones((2, 1)), np.ones(2))
