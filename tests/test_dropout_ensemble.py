"""Dropout over all masks: probabilities, exact means, the geometric mean of a logistic unit, and adaptive L2."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax import InputError
from mlpjax.dropout_ensemble import (
    MOST_UNITS,
    adaptive_l2,
    all_masks,
    dropout_ridge,
    ensemble_mean,
    logistic_ensemble,
    mask_probabilities,
    original_dropout,
    original_inference,
)
from mlpjax.layers import dropout_forward

RATES = (0.0, 0.2, 0.5, 0.9)


def test_all_masks():
    np.testing.assert_array_equal(all_masks(4), list(itertools.product([0, 1], repeat=4)))
    assert all_masks(0).shape == (1, 0)
    with pytest.raises(InputError, match=rf"17 units have 2\^17 masks: expected 0 to {MOST_UNITS}"):
        all_masks(17)
    with pytest.raises(InputError, match="-1 units"):
        all_masks(-1)


@pytest.mark.parametrize("rate", RATES)
def test_mask_probabilities(rate):
    masks = all_masks(5)
    p = mask_probabilities(masks, rate)
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-14)
    np.testing.assert_allclose(p @ masks, 1 - rate, rtol=1e-14)
    np.testing.assert_allclose(p[0b10110], (1 - rate) ** 3 * rate**2, rtol=1e-14)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_are_checked(rate):
    a = jnp.ones(3)
    for call in (
        lambda: mask_probabilities(all_masks(3), rate),
        lambda: original_inference(a, rate),
        lambda: ensemble_mean(jnp.sum, a, rate),
        lambda: logistic_ensemble(a, a, 0.0, rate),
        lambda: adaptive_l2(a[None, :], a, rate),
        lambda: dropout_ridge(a[None, :], a[:1], rate),
    ):
        with pytest.raises(InputError, match=r"rate is .*: expected a probability of dropping in \[0, 1\)"):
            call()


@pytest.mark.parametrize("rate", RATES)
def test_the_mean_of_an_affine_map_is_the_map(x64, rate):
    rng = np.random.default_rng(0)
    a, W, b = rng.normal(size=6), rng.normal(size=(6, 2)), rng.normal(size=(1, 2))
    np.testing.assert_allclose(ensemble_mean(lambda rows: rows @ W + b, a, rate), a @ W + b[0], rtol=1e-12)


def test_the_mean_is_that_of_many_draws(x64):
    """Of a map that is not linear: 4,000 masks of the package's own dropout, within 4 standard errors."""
    a = np.random.default_rng(0).uniform(1, 2, 5)
    drawn = jnp.tanh(dropout_forward(jnp.tile(a, (4000, 1)), 0.3, jax.random.key(0))[0].sum(axis=1) - 5)
    exact = ensemble_mean(lambda rows: jnp.tanh(rows.sum(axis=1) - 5), a, 0.3)
    np.testing.assert_allclose(drawn.mean(), exact, atol=4 * float(drawn.std()) / np.sqrt(4000))


@pytest.mark.parametrize("rate", RATES)
def test_the_original_form(x64, rate):
    a = np.random.default_rng(0).normal(size=(1, 5))
    masks = all_masks(5)
    mean = mask_probabilities(masks, rate) @ original_dropout(a, masks)
    np.testing.assert_allclose(original_inference(a[0], rate), mean, rtol=1e-13)


@pytest.mark.parametrize("rate", RATES)
def test_logistic_ensemble(x64, rate):
    """Against products and sums over masks, one by one."""
    rng = np.random.default_rng(0)
    a, w, b = rng.normal(size=5), 2 * rng.normal(size=5), -1.0
    G = G_other = 1.0
    arithmetic = 0.0
    for mask in itertools.product([0, 1], repeat=5):
        p = np.prod([1 - rate if on else rate for on in mask])
        yhat = 1 / (1 + np.exp(-(np.sum(a * mask * w) + b)))
        G, G_other, arithmetic = G * yhat**p, G_other * (1 - yhat) ** p, arithmetic + p * yhat
    found = logistic_ensemble(a, w, b, rate)
    np.testing.assert_allclose(found.geometric, G / (G + G_other), rtol=1e-12)
    np.testing.assert_allclose(found.scaled, found.geometric, rtol=1e-12)
    np.testing.assert_allclose(found.arithmetic, arithmetic, rtol=1e-12)
    assert (abs(float(found.arithmetic - found.scaled)) > 1e-3) == (rate > 0)


def test_logistic_ensemble_of_large_scores():
    """The products underflow in float32; their logarithms do not."""
    found = logistic_ensemble(jnp.full(4, 100.0), jnp.full(4, 3.0), 0.0, 0.5)
    assert all(np.isfinite(mean) for mean in found)
    np.testing.assert_allclose(found.geometric, 1.0, rtol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_adaptive_l2(x64, rate):
    """What dropout adds to the mean of ½(y − xw)²; its gradient is a ridge of its own for each weight."""
    rng = np.random.default_rng(0)
    X, w, y = rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=3)
    mean = np.mean(
        [ensemble_mean(lambda rows, t=t: (t - rows @ w) ** 2 / 2, x, rate) for x, t in zip(X, y, strict=True)]
    )
    added = mean - np.mean((y - X @ w) ** 2 / 2)
    np.testing.assert_allclose(adaptive_l2(X, w, rate), added, rtol=1e-10, atol=1e-14)
    gradient = jax.jit(jax.grad(lambda w: adaptive_l2(X, w, rate)))(w)
    np.testing.assert_allclose(gradient, rate / (1 - rate) * np.mean(X**2, axis=0) * w, rtol=1e-12, atol=1e-14)


def test_adaptive_l2_of_logistic_regression_for_small_weights(x64):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=5), 0.01 * rng.normal(size=5)
    yhat = 1 / (1 + np.exp(-(x @ w)))
    added = ensemble_mean(lambda rows: jnp.logaddexp(0, rows @ w), x, 0.5) - np.logaddexp(0, x @ w)
    predicted = adaptive_l2(x[None, :], w, 0.5, np.array([yhat * (1 - yhat)]))
    np.testing.assert_allclose(predicted, added, rtol=1e-3)


def test_dropout_ridge_is_the_minimum(x64):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6, 4)), rng.normal(size=6)

    def cost(w):
        return jnp.mean((y - X @ w) ** 2) / 2 + adaptive_l2(X, w, 0.3)

    np.testing.assert_allclose(jax.jit(jax.grad(cost))(dropout_ridge(X, y, 0.3)), 0.0, atol=1e-13)
    np.testing.assert_allclose(dropout_ridge(X, y, 0.0), np.linalg.lstsq(X, y, rcond=None)[0], rtol=1e-10)


def test_copies_share_their_weight(x64):
    x = np.random.default_rng(0).normal(size=(6, 2))
    w = dropout_ridge(np.column_stack([x[:, 0], x[:, 0], x]), x @ [3.0, -1.0], 0.5)
    np.testing.assert_allclose(w[:3], np.full(3, w[0]), rtol=1e-12)


def test_shapes_are_checked():
    with pytest.raises(InputError, match=r"X \(2, 3\), w \(2,\)"):
        adaptive_l2(jnp.ones((2, 3)), jnp.ones(2), 0.5)
    with pytest.raises(InputError, match=r"curvature \(3,\)"):
        adaptive_l2(jnp.ones((2, 3)), jnp.ones(3), 0.5, jnp.ones(3))
    with pytest.raises(InputError, match=r"expected \(m, n\) and \(m,\)"):
        dropout_ridge(jnp.ones((2, 3)), jnp.ones(3), 0.5)
