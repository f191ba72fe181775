"""The vanishing gradient: the product of the slide, its bound, the signals of a network, and units that are dead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax import Batch, Config, ConfigError, InputError, Layer
from mlpjax.activations import ACTIVATIONS
from mlpjax.vanishing import chain_bound, chain_gradients, deep_signals, dying_relu, layer_signals

W, B, X = [0.5, -1.5, 2.0, 0.8], [0.1, 0.3, -0.4, 0.2], 0.7


def output(w, b, x, f):
    for weight, bias in zip(w, b, strict=True):
        x = f(x * weight + bias)
    return x


def test_worked_value():
    """Where z = 0 in each layer, σ′ = ¼: two layers with w[2] = 4."""
    chain = chain_gradients([1.0, 4.0], [0.0, -2.0], 0.0, da=3.0)
    np.testing.assert_allclose(chain.z, [0, 0], atol=1e-7)
    np.testing.assert_array_equal(chain.a, [0.5, 0.5])
    np.testing.assert_array_equal(chain.factors, [1.0, 0.25])
    np.testing.assert_array_equal(chain.db, [0.75, 0.75])


@pytest.mark.parametrize("name", ["sigmoid", "relu"])
def test_against_autodiff_and_differences(name):
    f = ACTIVATIONS[name].f
    with jax.enable_x64(True):
        chain = chain_gradients(W, B, X, da=1.7, activation=name)
        expected = jax.grad(lambda b: 1.7 * output(W, b, X, f))([jnp.asarray(b) for b in B])
        np.testing.assert_allclose(chain.db, expected, rtol=1e-12)
        h = 1e-5
        for l in range(4):
            up, down = (1.7 * output(W, np.array(B) + s * h * np.eye(4)[l], X, f) for s in (1, -1))
            np.testing.assert_allclose(chain.db[l], (up - down) / (2 * h), rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(chain.a[-1], output(W, B, X, f), rtol=1e-14)
    assert chain_gradients(W, B, X, activation=name).db.dtype == jnp.float32


def test_one_layer():
    np.testing.assert_allclose(chain_gradients([2.0], [0.0], 0.0).db, [0.25])
    assert chain_bound([2.0]) == 0.25


def test_bound():
    """It holds, it is (max g′)^L Π∣w∣ from w[2] on, and it is reached."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        w, b = rng.normal(scale=3, size=(2, 4))
        assert abs(chain_gradients(w, b, rng.normal(), da=-2.0).db[0]) <= chain_bound(w, da=-2.0) * (1 + 1e-5)
    assert chain_bound([9.0, 2.0, -3.0], da=-2.0) == 2 * 0.25**3 * 6
    assert chain_bound([9.0, 2.0, -3.0], steepest=1.0) == 6
    np.testing.assert_array_equal(
        chain_gradients(np.full(10, 8.0), np.full(10, -4.0), 0.5).db[0], chain_bound(np.full(10, 8.0))
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([], [], 0.0), r"w has shape \(0,\): expected \(L,\)"),
        (([1.0], [[1.0]], 0.0), "b has shape"),
        (([1.0, 2.0], [1.0], 0.0), "w has 2 layers and b 1"),
        (([1.0], [1.0], 0.0, 1.0, "sigmoidd"), "did you mean 'sigmoid'"),
        (([1.0], [1.0], 0.0, 1.0, "prelu"), r"without a learnt slope\) 'prelu'"),
    ],
)
def test_chains_that_are_refused(args, message):
    with pytest.raises(InputError, match=message):
        chain_gradients(*args)


def test_signals_of_a_network():
    """Means, deviations and norms against NumPy's own pass."""
    rng = np.random.default_rng(0)
    W1, b1, W2, b2, x, y = (rng.normal(size=s) for s in ((3, 4), 4, (4, 2), 2, (6, 3), (6, 2)))
    config = Config(sizes=(3, 4, 2), activation="tanh", head="regression", dropout=0.5)
    with jax.enable_x64(True):
        signals = layer_signals(config, (Layer(W1, b1), Layer(W2, b2)), (), Batch(x, y))
    a = np.tanh(x @ W1 + b1)
    dz2 = (a @ W2 + b2 - y) / 6
    dz1 = dz2 @ W2.T * (1 - a**2)
    np.testing.assert_allclose(signals.a_mean, [a.mean()], rtol=1e-12)
    np.testing.assert_allclose(signals.a_std, [a.std()], rtol=1e-12)
    np.testing.assert_allclose(signals.dz_norm, [np.sqrt((dz**2).sum()) for dz in (dz1, dz2)], rtol=1e-12)
    np.testing.assert_allclose(signals.dW_norm, [np.linalg.norm(x.T @ dz1), np.linalg.norm(a.T @ dz2)], rtol=1e-12)


def test_signals_without_a_hidden_layer():
    signals = layer_signals(
        Config(sizes=(2, 1), head="binary"), (Layer(jnp.zeros((2, 1))),), (), Batch(np.ones((4, 2)), np.ones(4))
    )
    assert signals.a_mean.shape == (0,)
    np.testing.assert_allclose(signals.dz_norm, [np.sqrt(4 * 0.125**2)])


@pytest.mark.slow
def test_depth():
    """σ loses a factor of about 4 per layer, ReLU keeps the size under He's weights and not under variance 1/n."""
    sigmoid, relu = (deep_signals(name, 20).dz_norm for name in ("sigmoid", "relu"))
    lecun = deep_signals("relu", 20, init_name="lecun_normal").dz_norm
    assert sigmoid.shape == (20,)
    assert 1e-13 < sigmoid[0] / sigmoid[-1] < 1e-10
    assert 0.1 < relu[0] / relu[-1] < 10
    assert lecun[0] / lecun[-1] < 0.01
    large = deep_signals("sigmoid", 20, scale=16.0).dz_norm
    assert large[0] > large[-1]
    np.testing.assert_array_equal(deep_signals("sigmoid", 20).dz_norm, sigmoid)
    assert not np.array_equal(deep_signals("sigmoid", 20, seed=1).dz_norm, sigmoid)


def test_scale_is_that_of_the_weights():
    """One hidden layer of ReLU, b = 0: weights 3 times as large make its activations so."""
    one, three = (deep_signals("relu", 2, scale=s) for s in (1.0, 3.0))
    np.testing.assert_allclose(three.a_mean, 3 * one.a_mean, rtol=1e-5)


def test_depths_that_are_refused():
    with pytest.raises(ConfigError, match="unknown activation"):
        deep_signals("rleu", 3)
    with pytest.raises(ConfigError, match="unknown init"):
        deep_signals("relu", 3, init_name="hee")
    with pytest.raises(ConfigError):
        deep_signals("relu", 0)


def test_dead_units():
    """ReLU: nothing moves, ever. Leaky ReLU: the units come back, the more the lower J."""
    dead, back = dying_relu("relu", steps=20), dying_relu("leaky_relu")
    assert len(dead.loss) == 21
    np.testing.assert_array_equal(dead.dead, 1)
    np.testing.assert_array_equal(dead.dW_norm, 0)
    np.testing.assert_array_equal(dead.loss, dead.loss[0])
    assert back.dead[0] == 1
    assert back.dead[-1] < 1
    assert back.loss[-1] < 0.1 * back.loss[0]
    # an off unit of ReLU is exactly 0, so ŷ is 0
    x = np.random.default_rng(0).normal(size=64)
    np.testing.assert_allclose(dead.loss[0], np.mean(x**2) / 2, rtol=1e-6)


def test_first_gradient_of_leaky_units():
    """All units off: J is of a linear network with slope 0.01."""
    run = dying_relu("leaky_relu", steps=1, seed=1)
    config = Config(sizes=(1, 16, 1), head="regression")
    (hidden, _), _ = mlpjax.init(config, jax.random.key(1))
    x = np.random.default_rng(1).normal(size=(64, 1))
    W = np.asarray(hidden.W, np.float64)
    dz = ((0.01 * (x @ W - 10) / 4).sum(axis=1, keepdims=True) - np.abs(x)) / 64
    np.testing.assert_allclose(run.dW_norm[0], np.linalg.norm(x.T @ dz @ np.full((1, 16), 0.01 / 4)), rtol=1e-4)


def test_runs_that_are_refused():
    with pytest.raises(ConfigError, match="steps is 0"):
        dying_relu("relu", steps=0)
    with pytest.raises(InputError, match=r"without a learnt slope\) 'prelu'"):
        dying_relu("prelu")
