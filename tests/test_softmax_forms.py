"""Softmax in its forms: against NumPy, autodiff and differences, in both precisions; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax import softmax_forms as forms
from mlpjax.errors import InputError
from mlpjax.heads import softmax, softmax_cross_entropy


def rows(seed):
    return np.random.default_rng(seed).uniform(-6, 6, (50, 4))


def probabilities(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_the_product_with_the_jacobian(x64):
    z, da = rows(0), rows(1)

    @jax.jit
    def both(z, da):
        yhat = softmax(z)
        by_matrix = jnp.einsum("ico,ic->io", jax.vmap(forms.softmax_jacobian)(yhat), da)
        return forms.softmax_vjp(da, yhat), by_matrix, jax.vjp(softmax, z)[1](da)[0]

    ours, by_matrix, expected = both(z, da)
    np.testing.assert_allclose(ours, expected, atol=1e-13)
    np.testing.assert_allclose(by_matrix, expected, atol=1e-13)


def test_the_jacobian_against_central_differences(x64):
    z = np.array([0.3, -1.2, 2.0])
    h = 1e-6
    columns = [(probabilities((z + h * e)[None]) - probabilities((z - h * e)[None]))[0] / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(forms.softmax_jacobian(softmax(z[None])[0]), np.stack(columns, axis=1), atol=1e-9)


def test_the_jacobian_of_a_sure_prediction_keeps_its_small_entries():
    yhat = jnp.array([1.0, 1e-12], jnp.float32)
    np.testing.assert_allclose(forms.softmax_jacobian(yhat), [[0, -1e-12], [-1e-12, 1e-12]], rtol=1e-6)


def test_the_quotient_rule_is_elementwise(x64):
    t = np.linspace(0.1, 2, 5)
    ours = forms.quotient_rule(np.sin(t), np.cos(t), 1 + t**2, 2 * t)
    np.testing.assert_allclose(ours, jax.vmap(jax.grad(lambda t: jnp.sin(t) / (1 + t * t)))(t), rtol=1e-12)


def test_the_steps_agree_as_far_as_they_should(x64):
    z, y = rows(0), np.random.default_rng(1).choice([0.0, 0.25, 1.0], (50, 4))
    steps = jax.jit(forms.softmax_steps)(z, y)
    expected = jax.jit(jax.grad(lambda z: jnp.sum(softmax_cross_entropy(z, y))))(z)
    for line in steps[:6]:
        np.testing.assert_allclose(line, expected, atol=1e-12)
    for line in steps[6:]:
        np.testing.assert_allclose(line, probabilities(z) - y, atol=1e-12)


def test_a_class_that_is_not_true_counts_for_nothing():
    np.testing.assert_array_equal(
        forms.cross_entropy_dyhat(jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0]])), [[0, -1]]
    )


def test_the_reduced_form_is_the_softmax(x64):
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(6, 3)), 3 * rng.normal(size=(3, 5))
    p = probabilities(x @ W)
    for weights in (W, forms.shift_weights(W, rng.normal(size=3))):
        np.testing.assert_allclose(forms.softmax_reduced(x @ forms.reduced_weights(weights)), p, 1e-12)
    np.testing.assert_allclose(forms.log_odds(x @ W, 2), np.log(p / p[:, 2:3]), 1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_reduced_form_overflows_nowhere(dtype, x64):
    v = np.array([[1e4, -1e4], [-1e4, -1e4], [0, 0], [1e4, 1e4]], dtype)
    ours = forms.softmax_reduced(v)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, [[1, 0, 0], [0, 0, 1], [1 / 3] * 3, [0.5, 0.5, 0]], rtol=1e-6)


@pytest.mark.parametrize("positive", [0, 1])
def test_two_classes_and_a_logistic_unit(positive, x64):
    rng = np.random.default_rng(positive)
    x, W, b = rng.normal(size=(6, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)
    w, bias = forms.softmax_as_logistic(W, b, positive)
    p = probabilities(x @ W + b)[:, positive]
    np.testing.assert_allclose(1 / (1 + np.exp(-(x @ w + bias))), p, rtol=1e-12)
    W2, b2 = map(np.asarray, forms.logistic_as_softmax(w, bias, positive))
    np.testing.assert_allclose(probabilities(x @ W2 + b2)[:, positive], p, rtol=1e-12)
    assert not np.any(W2[:, 1 - positive])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: forms.softmax_vjp(jnp.ones((2, 3)), jnp.ones((3, 3))), r"da has shape \(2, 3\)"),
        (lambda: forms.softmax_jacobian(jnp.ones((2, 3))), r"yhat has shape \(2, 3\): expected \(K,\).*vmap"),
        (lambda: forms.cross_entropy_dyhat(jnp.ones(3), jnp.ones(3)), r"y has shape \(3,\)"),
        (lambda: forms.shift_weights(jnp.ones((2, 3)), jnp.ones(3)), r"psi \(3,\): expected \(n, K\)"),
        (lambda: forms.reduced_weights(jnp.ones((2, 1))), "K ≥ 2"),
        (lambda: forms.softmax_reduced(jnp.ones(3)), r"v has shape \(3,\)"),
        (lambda: forms.log_odds(jnp.ones((2, 1))), "K ≥ 2"),
        (lambda: forms.log_odds(jnp.ones((2, 3)), 3), "reference is 3: expected a class index 0 … 2"),
        (lambda: forms.softmax_as_logistic(jnp.ones((2, 3)), jnp.ones(3)), "only two classes"),
        (lambda: forms.softmax_as_logistic(jnp.ones((2, 2)), jnp.ones(2), 2), "positive is 2"),
        (lambda: forms.logistic_as_softmax(jnp.ones((2, 1)), jnp.ones(())), r"w has shape \(2, 1\)"),
        (lambda: forms.logistic_as_softmax(jnp.ones(2), jnp.ones(()), -1), "positive is -1"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
