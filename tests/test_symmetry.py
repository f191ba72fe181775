"""Units that start equal: they stay equal under every optimiser, act as one unit, or do not move at all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config, InputError
from mlpjax.optim import OPTIMIZERS
from mlpjax.symmetry import (
    column_spread,
    equal_units,
    frozen_parameters,
    one_unit_network,
    score_after_step,
    spread_over_training,
)

CONFIG = Config(sizes=(2, 3, 1), activation="tanh", head="binary")


@pytest.fixture
def batch():
    x = np.random.default_rng(0).normal(size=(8, 2))
    return Batch(x, (x[:, 0] > 0).astype(int))


def test_column_spread():
    assert float(column_spread(jnp.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]))) == 0.0
    assert float(column_spread(jnp.array([[1.0, 4.0, 2.0], [2.0, 2.0, 2.5]]))) == 3.0


def test_equal_units_is_what_a_config_expects():
    params = equal_units([0.4, 0.5], [0.7, 0.8], 3)
    config = Config(sizes=(2, 3, 2), activation="tanh")
    expected, _ = mlpjax.init(config, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    np.testing.assert_array_equal(params[1].W, np.tile(np.float32([0.7, 0.8]), (3, 1)))
    with pytest.raises(InputError, match=r"incoming \(1, 2\), outgoing \(1,\), 3 units: expected"):
        equal_units([[0.4, 0.5]], [0.7], 3)
    with pytest.raises(InputError, match="at least 1 unit"):
        equal_units([0.4], [0.7], 0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equal_units_stay_equal(x64, batch, name):
    found = spread_over_training(CONFIG, equal_units([0.4, -0.3], [0.7], 3), batch, OPTIMIZERS[name](0.05), 30)
    assert found.W1.shape == (31,)
    assert found.dW1.shape == (30,)
    np.testing.assert_allclose(found.W1, 0.0, atol=1e-10)
    np.testing.assert_allclose(found.dW1, 0.0, atol=1e-10)
    assert float(jnp.abs(found.params[0].W - equal_units([0.4, -0.3], [0.7], 3)[0].W).max()) > 1e-3


def test_random_units_stay_different_in_float32(batch):
    params, _ = mlpjax.init(CONFIG, jax.random.key(0))
    found = spread_over_training(CONFIG, params, batch, optax.sgd(0.5), 300)
    assert found.W1.dtype == jnp.float32
    assert float(found.W1.min()) > 0.1


@pytest.mark.parametrize("change", [{"dropout": 0.5}, {"batch_norm": True}])
def test_spread_refuses(batch, change):
    config = Config(sizes=(2, 3, 1), activation="tanh", head="binary", **change)
    with pytest.raises(InputError, match="dropout or batch-norm"):
        spread_over_training(config, equal_units([0.4, -0.3], [0.7], 3), batch, optax.sgd(0.1), 3)


def test_score_after_step_is_a_step(x64, batch):
    """−α (x₁u + x₂v) from w = 0, and the score that the moved network has."""
    w, dw = np.array([0.4, -0.3]), np.array([0.1, 0.2])
    np.testing.assert_allclose(score_after_step(batch.x, 0 * w, dw, 0.5), -0.5 * (batch.x @ dw), rtol=1e-14)
    np.testing.assert_allclose(score_after_step(batch.x, w, dw, 0.5), batch.x @ [0.35, -0.4], rtol=1e-14)


@pytest.mark.parametrize("activation", ["tanh", "prelu"])
def test_one_unit_network(x64, batch, activation):
    """Equal columns suffice: rows of W2 may differ, their sum is the one unit's."""
    config = Config(sizes=(2, 3, 1), activation=activation, head="binary")
    params, _ = mlpjax.init(config, jax.random.key(0))
    hidden = params[0]._replace(W=equal_units([0.4, -0.3], [0.7], 3)[0].W, b=jnp.full(3, 0.2))
    one = one_unit_network((hidden, params[1]))
    assert one[0].W.shape == (2, 1)
    narrow = Config(sizes=(2, 1, 1), activation=activation, head="binary")
    predict = jax.jit(mlpjax.predict)
    expected = predict(config, (hidden, params[1]), (), batch.x)
    np.testing.assert_allclose(predict(narrow, one, (), batch.x), expected, rtol=1e-13)


def test_one_unit_network_refuses():
    hidden, output = equal_units([0.4, -0.3], [0.7], 3)
    with pytest.raises(InputError, match=r"the spread of b is 0\.5, expected 0"):
        one_unit_network((hidden._replace(b=jnp.array([0.0, 0.5, 0.0])), output))
    with pytest.raises(InputError, match=r"the spread of W is 0\.4"):
        one_unit_network((hidden._replace(W=hidden.W.at[0, 0].set(0.0)), output))
    with pytest.raises(InputError, match="3 layers"):
        one_unit_network((hidden, hidden, output))


@pytest.mark.parametrize(
    ("activation", "frozen"), [("tanh", "W1 b1 W2"), ("relu", "W1 b1 W2"), ("sigmoid", "W1 b1"), ("softplus", "W1 b1")]
)
def test_frozen(batch, activation, frozen):
    config = Config(sizes=(2, 3, 1), activation=activation, head="binary")
    assert " ".join(frozen_parameters(config, equal_units([0, 0], [0], 3), batch)) == frozen
    assert frozen_parameters(config, equal_units([0.4, 0.5], [0.7], 3), batch) == ()
