"""The penalties: worked values, autodiff and differences, and 0 at 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax import PENALTIES

W = [[1.0, -2.0], [0.0, 3.0]]  # Σ|w| = 6, Σw² = 14
# strengths, value, gradient
WORKED = {
    "l1": ((0.5,), 3.0, [[0.5, -0.5], [0.0, 0.5]]),
    "l2": ((0.5,), 3.5, [[0.5, -1.0], [0.0, 1.5]]),
    "elastic_net": ((0.5, 0.25), 4.75, [[0.75, -1.0], [0.0, 1.25]]),
}


def test_every_penalty_has_worked_values():
    assert set(WORKED) == set(PENALTIES)


@pytest.mark.parametrize("name", PENALTIES)
def test_worked_values(x64, name):
    strengths, value, gradient = WORKED[name]
    rule, matrix = PENALTIES[name], jnp.array(W)
    np.testing.assert_allclose(rule.f(matrix, *strengths), value, rtol=1e-15)
    np.testing.assert_allclose(rule.df(matrix, *strengths), gradient, rtol=1e-15)
    # one of the weights is exactly 0: autodiff gives 0 there too
    np.testing.assert_array_equal(jax.grad(rule.f)(matrix, *strengths)[1, 0], 0.0)


@pytest.mark.parametrize("name", PENALTIES)
def test_gradient_is_autodiff_and_differences(x64, name):
    strengths = WORKED[name][0]
    rule = PENALTIES[name]
    matrix = jnp.array(np.random.default_rng(0).normal(size=(4, 3))).at[1, 2].set(0.0)
    hand = rule.df(matrix, *strengths)
    np.testing.assert_allclose(hand, jax.grad(rule.f)(matrix, *strengths), rtol=1e-14)
    h = 1e-5
    steps = h * jnp.eye(12).reshape(12, 4, 3)
    difference = jax.vmap(lambda s: (rule.f(matrix + s, *strengths) - rule.f(matrix - s, *strengths)) / (2 * h))(steps)
    np.testing.assert_allclose(hand, difference.reshape(4, 3), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("w", [1e4, 1e-30, 0.0, -1e-30, -1e4])
def test_extremes(name, w):
    strengths = WORKED[name][0]
    rule, matrix = PENALTIES[name], jnp.full((2, 2), w)
    assert np.isfinite(rule.f(matrix, *strengths))
    assert np.isfinite(rule.df(matrix, *strengths)).all()
    np.testing.assert_allclose(jax.grad(rule.f)(matrix, *strengths), rule.df(matrix, *strengths), rtol=1e-6)


@pytest.mark.parametrize("name", PENALTIES)
def test_strength_0_is_no_penalty_and_nan_passes(name):
    strengths = [0.0] * len(WORKED[name][0])
    rule, matrix = PENALTIES[name], jnp.array(W)
    assert float(rule.f(matrix, *strengths)) == 0.0
    np.testing.assert_array_equal(rule.df(matrix, *strengths), np.zeros((2, 2)))
    assert np.isnan(rule.f(matrix.at[0, 0].set(jnp.nan), *WORKED[name][0]))
    assert rule.f(matrix, *strengths).dtype == rule.df(matrix, *strengths).dtype == jnp.float32


def test_weight_decay(x64):
    """A gradient step on J + (l2/2)‖W‖² first shrinks W by 1 − α l2: (1 − αl2) W − α dW."""
    matrix, dW, alpha, l2 = jnp.array(W), jnp.array([[0.1, 0.2], [0.3, 0.4]]), 0.1, 0.7
    step = matrix - alpha * (dW + PENALTIES["l2"].df(matrix, l2))
    np.testing.assert_allclose(step, (1 - alpha * l2) * matrix - alpha * dW, rtol=1e-14)
