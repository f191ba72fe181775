"""Odds and likelihoods: worked values, NumPy and SciPy, derivatives, the ends of [0, 1], errors."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from mlpjax.errors import DataError, InputError
from mlpjax.heads import sigmoid_cross_entropy
from mlpjax.likelihood import (
    bernoulli_likelihood,
    bernoulli_loglik,
    bernoulli_logpmf,
    bernoulli_pmf,
    gaussian_loglik,
    gaussian_logpdf,
    logit,
    odds,
)

P = np.array([1e-12, 0.1, 0.25, 0.5, 0.9])
Y = np.array([0.0, 1.0, 1.0, 0.0, 1.0])


def test_odds_and_logit(x64):
    np.testing.assert_allclose(odds(jnp.array(P)), P / (1 - P), rtol=1e-15)
    np.testing.assert_allclose(logit(jnp.array(P)), special.logit(P), rtol=1e-14)
    np.testing.assert_allclose(jax.vmap(jax.grad(logit))(jnp.array(P)), 1 / (P * (1 - P)), rtol=1e-12)
    np.testing.assert_array_equal(logit(jnp.array([0.0, 1.0])), [-np.inf, np.inf])
    np.testing.assert_array_equal(odds(jnp.array([0.0, 1.0])), [0.0, np.inf])


@pytest.mark.parametrize("f", [odds, logit, lambda p: bernoulli_pmf(1.0, p), lambda p: bernoulli_logpmf(1.0, p)])
def test_what_is_no_probability_is_nan(f):
    assert np.isnan(f(jnp.array([-1e-6, 1.00001, np.nan]))).all()


def test_bernoulli(x64):
    p, y = jnp.array(P), jnp.array(Y)
    np.testing.assert_allclose(bernoulli_pmf(y, p), stats.bernoulli.pmf(Y, P), rtol=1e-14)
    np.testing.assert_allclose(bernoulli_logpmf(y, p), stats.bernoulli.logpmf(Y, P), rtol=1e-14)
    # soft labels: the expected value
    np.testing.assert_allclose(bernoulli_logpmf(0.3, p), 0.3 * np.log(P) + 0.7 * np.log1p(-P), rtol=1e-14)
    slope = jax.vmap(jax.grad(bernoulli_logpmf, argnums=1))(y, p)
    np.testing.assert_allclose(slope, Y / P - (1 - Y) / (1 - P), rtol=1e-14)


def test_bernoulli_at_the_ends():
    """Certain and right: probability 1, and a finite derivative; certain and wrong: 0."""
    ends, y = jnp.array([0.0, 1.0, 0.0, 1.0]), jnp.array([0.0, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(bernoulli_pmf(y, ends), [1, 1, 0, 0])
    np.testing.assert_array_equal(bernoulli_logpmf(y, ends), [0, 0, -np.inf, -np.inf])
    slope = jax.vmap(jax.grad(bernoulli_logpmf, argnums=1))(y, ends)
    np.testing.assert_array_equal(slope, [-1, 1, np.inf, -np.inf])


def test_data_likelihood(x64):
    np.testing.assert_allclose(bernoulli_likelihood(Y, P), np.prod(np.where(Y == 1, P, 1 - P)), rtol=1e-14)
    np.testing.assert_allclose(bernoulli_loglik(Y, P), stats.bernoulli.logpmf(Y, P).sum(), rtol=1e-14)
    assert float(bernoulli_likelihood(np.ones(1075), np.full(1075, 0.5))) == 0.0
    np.testing.assert_allclose(bernoulli_loglik(np.ones(1075), np.full(1075, 0.5)), -1075 * math.log(2), rtol=1e-14)


def test_the_loss_is_minus_the_loglik(x64):
    z = jnp.array([[-3.0], [0.5], [4.0]])
    y = jnp.array([[0.0], [1.0], [0.0]])
    losses = sigmoid_cross_entropy(z, y)
    np.testing.assert_allclose(bernoulli_loglik(y, jax.nn.sigmoid(z)), -losses.sum(), rtol=1e-13)


def test_gaussian(x64):
    y, mean = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0.5, 1.0], [1.0, 3.0]])
    np.testing.assert_allclose(gaussian_logpdf(jnp.array(y), mean, 0.7), stats.norm.logpdf(y, mean, 0.7), rtol=1e-14)
    np.testing.assert_allclose(gaussian_loglik(y, mean, 0.7), stats.norm.logpdf(y, mean, 0.7).sum(), rtol=1e-14)
    slope = jax.jit(jax.grad(gaussian_loglik, argnums=(1, 2)))(y, mean, 0.7)
    np.testing.assert_allclose(slope[0], (y - mean) / 0.49, rtol=1e-14)
    np.testing.assert_allclose(slope[1], np.sum((y - mean) ** 2) / 0.7**3 - y.size / 0.7, rtol=1e-13)


@pytest.mark.parametrize("f", [bernoulli_likelihood, bernoulli_loglik, lambda y, p: gaussian_loglik(y, p, 1.0)])
def test_shapes_are_not_broadcast(f):
    with pytest.raises(DataError, match=r"y has shape \(3,\) and yhat \(3, 1\): expected the same"):
        f(np.zeros(3), np.full((3, 1), 0.5))
    with pytest.raises(DataError, match="expected real numbers"):
        f(np.array(["a"]), np.array([0.5]))


@pytest.mark.parametrize("std", [0.0, -1.0, math.inf, math.nan, np.ones(2)])
def test_std_is_one_positive_number(std):
    with pytest.raises(InputError, match="expected one finite number > 0"):
        gaussian_loglik(np.zeros(2), np.zeros(2), std)


def test_integer_labels_give_the_default_float():
    value = bernoulli_loglik(np.array([1, 0]), [0.75, 0.5])
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, math.log(0.375), rtol=1e-6)
