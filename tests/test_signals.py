"""The scale of signals over depth: closed forms where there are, statistics within their error elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from mlpjax import ACTIVATIONS, InputError
from mlpjax.signals import (
    WEIGHT_VARIANCES,
    deep_linear,
    deep_linear_dx,
    mean_slope,
    mean_square,
    scale_factor,
    scaled_identities,
    signal_std,
    sum_variance,
)

KEY = jax.random.key(0)
DEEP = (64,) * 11


@pytest.mark.parametrize("name", WEIGHT_VARIANCES)
def test_linear_layers_multiply_by_root_n_var(name):
    """After 10 layers std = (64 Var(w))^5, both ways, but for the drift of one draw; also where float32² is 0."""
    found = signal_std(DEEP, "identity", WEIGHT_VARIANCES[name], KEY)
    factor = (64 * WEIGHT_VARIANCES[name](64, 64)) ** 5
    assert found.activations.shape == found.gradients.shape == (11,)
    assert found.activations.dtype == jnp.float32
    np.testing.assert_allclose(found.activations[-1], factor, rtol=0.4)
    np.testing.assert_allclose(found.gradients[0], factor, rtol=0.4)
    np.testing.assert_allclose([found.activations[0], found.gradients[-1]], 1.0, rtol=0.05)


def test_signal_std_against_numpy(x64):
    """Two tanh layers by hand, from the same draws."""
    found = signal_std((4, 4, 4), "tanh", WEIGHT_VARIANCES["1/n"], KEY, m=4)
    draw = [jax.random.fold_in(KEY, l) for l in range(4)]
    a0, W1, W2, da2 = (
        scale * np.asarray(jax.random.normal(key, (4, 4))) for key, scale in zip(draw, [1, 0.5, 0.5, 1], strict=True)
    )
    a1 = np.tanh(a0 @ W1)
    a2 = np.tanh(a1 @ W2)
    da1 = (da2 * (1 - a2**2)) @ W2.T
    da0 = (da1 * (1 - a1**2)) @ W1.T
    np.testing.assert_allclose(found.activations, [a.std() for a in (a0, a1, a2)], rtol=1e-12)
    np.testing.assert_allclose(found.gradients, [da.std() for da in (da0, da1, da2)], rtol=1e-12)


def test_he_keeps_what_lecun_loses():
    he, lecun = (signal_std(DEEP, "relu", WEIGHT_VARIANCES[name], KEY) for name in ("2/n", "1/n"))
    np.testing.assert_allclose(lecun.activations[1:], he.activations[1:] / 2 ** (np.arange(1, 11) / 2), rtol=1e-4)
    assert he.activations[-1] > 0.3
    assert he.gradients[0] > 0.3


def test_a_signal_of_0_has_std_0():
    found = signal_std(DEEP[:3], "tanh", lambda n_in, n_out: 0.0, KEY)
    np.testing.assert_array_equal(found.activations[1:], 0.0)


def test_signal_std_refuses():
    with pytest.raises(InputError, match="did you mean 'tanh'"):
        signal_std(DEEP, "tanhh", WEIGHT_VARIANCES["1"], KEY)
    with pytest.raises(InputError, match="without a learnt slope"):
        signal_std(DEEP, "prelu", WEIGHT_VARIANCES["1"], KEY)
    with pytest.raises(InputError, match=r"sizes is \(4,\)"):
        signal_std((4,), "tanh", WEIGHT_VARIANCES["1"], KEY)


def test_sum_variance():
    """Measured on 40,000 sums, within 4 standard errors; x has a mean."""
    rng = np.random.default_rng(0)
    w, x = rng.normal(0, 0.3, (40_000, 20)), rng.uniform(size=(40_000, 20))
    expected = sum_variance(20, 0.3**2, 1 / 3)
    np.testing.assert_allclose(np.var(np.sum(w * x, axis=1)), expected, rtol=4 * np.sqrt(2 / 40_000))


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu", "gelu"])
def test_mean_square_against_an_integral(x64, name):
    variance = 1.7

    def integrand(z):
        return float(ACTIVATIONS[name].f(jnp.asarray(z))) ** 2 * np.exp(-z * z / 2 / variance)

    expected = quad(integrand, -20, 20, points=[0.0], limit=200)[0] / np.sqrt(2 * np.pi * variance)
    np.testing.assert_allclose(mean_square(name, variance), expected, rtol=1e-6)


def test_mean_square_of_relu_is_half_and_of_nothing_0(x64):
    np.testing.assert_allclose(mean_square("relu", 7.0), 3.5, rtol=1e-13)
    assert mean_square("tanh", 0.0) == 0.0
    with pytest.raises(InputError, match="variance is -1"):
        mean_square("relu", -1.0)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_slope_falls_with_the_weights(name):
    slopes = [mean_slope(name, std, (64, 64), KEY, m=64) for std in (0.0, 0.1, 1.0, 10.0)]
    assert slopes[0] == (0.25 if name == "sigmoid" else 1.0)
    assert slopes == sorted(slopes, reverse=True)
    # Z ~ N(0, 64 std²), and ∫ g′ = 1 or 2: the mean slope is nearly that times the density at 0
    np.testing.assert_allclose(slopes[-1], slopes[0] * 4 / (1 if name == "sigmoid" else 2) / 80 / 2.5066, rtol=0.1)


def test_deep_linear(x64):
    rng = np.random.default_rng(0)
    x, dyhat = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    weights = [rng.normal(size=shape) for shape in ((3, 4), (4, 6), (6, 2))]
    np.testing.assert_allclose(deep_linear(x, weights), np.linalg.multi_dot([x, *weights]), rtol=1e-13)
    _, pull = jax.vjp(lambda x: deep_linear(x, weights), x)
    np.testing.assert_allclose(deep_linear_dx(dyhat, weights), pull(dyhat)[0], rtol=1e-13)
    np.testing.assert_array_equal(deep_linear(x, []), x)


@pytest.mark.parametrize("c", [1.5, 0.5])
def test_scaled_identities(x64, c):
    W_out = np.array([[1.0], [2.0]])
    weights = scaled_identities(c, 50, W_out)
    assert len(weights) == 50
    np.testing.assert_allclose(deep_linear(np.eye(2), weights), scale_factor(c, 50) * W_out, rtol=1e-13)
    assert scale_factor(c, 1) == 1.0
    assert len(scaled_identities(c, 1, W_out)) == 1
    with pytest.raises(InputError, match="depth 0"):
        scaled_identities(c, 0, W_out)
    with pytest.raises(InputError, match=r"W_out \(2,\)"):
        scaled_identities(c, 3, [1.0, 2.0])
