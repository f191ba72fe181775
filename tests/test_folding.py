"""Folding batch-norm into the weights: equal outputs without it, for every activation and head."""

from __future__ import annotations

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import make_case

import mlpjax
from mlpjax import Config, InputError, fold
from mlpjax.config import ActivationName, HeadName


def trained(**fields):
    """A network whose γ, β and running statistics are nothing special, and a batch."""
    fields = {"sizes": (3, 5, 4, 2), "head": "regression", "batch_norm": True, **fields}
    if fields["head"] == "binary":
        fields["sizes"] = (*fields["sizes"][:-1], 1)
    return make_case(Config(**fields), train=False)


def assert_equal_outputs(case, rtol=1e-12):
    config, params = fold(case.config, case.params, case.state)
    expected, _ = mlpjax.forward(case.config, case.params, case.state, case.batch.x)
    got, state = mlpjax.forward(config, params, (), case.batch.x)
    assert state == ()
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * np.abs(expected).max())
    return config, params


@pytest.mark.parametrize("activation", get_args(ActivationName))
def test_every_activation(x64, activation):
    assert_equal_outputs(trained(activation=activation))


@pytest.mark.parametrize("head", get_args(HeadName))
def test_every_head(x64, head):
    case = trained(head=head, activation=("prelu", "tanh"))
    config, params = assert_equal_outputs(case)
    expected = mlpjax.predict(case.config, case.params, case.state, case.batch.x)
    np.testing.assert_allclose(mlpjax.predict(config, params, (), case.batch.x), expected, rtol=1e-12)


def test_the_folded_weights_by_hand(x64):
    case = trained(activation="tanh")
    layer, statistics = case.params[0], case.state[0]
    _, params = fold(case.config, case.params, case.state)
    for j in range(5):
        s = layer.gamma[j] / np.sqrt(statistics.var[j] + 1e-5)
        np.testing.assert_allclose(params[0].W[:, j], layer.W[:, j] * s, rtol=1e-14)
        np.testing.assert_allclose(params[0].b[j], layer.beta[j] - statistics.mean[j] * s, rtol=1e-14)


@pytest.mark.parametrize("bias", [True, False])
def test_the_result_is_laid_out_as_init_does(x64, bias):
    case = trained(bias=bias, activation=("prelu", "relu"))
    config, params = fold(case.config, case.params, case.state)
    assert config == dataclasses.replace(case.config, batch_norm=False, bias=True)
    fresh, state = mlpjax.init(config, jax.random.key(0))
    assert state == ()
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)


def test_without_batch_norm_nothing_changes(x64):
    case = trained(batch_norm=False, bias=False)
    config, params = fold(case.config, case.params, ())
    assert config is case.config
    assert params is case.params
    once = fold(*(lambda case: (case.config, case.params, case.state))(trained()))
    assert fold(*once, ()) == once


def test_a_network_without_hidden_layers(x64):
    case = trained(sizes=(3, 2))
    config, params = fold(case.config, case.params, case.state)
    assert config.batch_norm is False
    np.testing.assert_array_equal(params[0].W, case.params[0].W)


def test_dropout_and_penalties_stay_in_the_config(x64):
    case = trained(dropout=0.3, l1=0.01, l2=0.1)
    config, params = assert_equal_outputs(case)
    assert (config.dropout, config.l1, config.l2) == (0.3, 0.01, 0.1)
    _, before = mlpjax.loss(case.config, case.params, case.state, case.batch, train=False)
    _, after = mlpjax.loss(config, params, (), case.batch, train=False)
    np.testing.assert_allclose(after.data_loss, before.data_loss, rtol=1e-12)
    assert abs(after.penalty - before.penalty) > 1e-3 * before.penalty  # that of other weights


def test_the_input_gradient_is_that_of_the_network(x64):
    case = trained(activation="tanh")
    config, params = fold(case.config, case.params, case.state)
    expected = mlpjax.input_gradient(case.config, case.params, case.state, case.batch)
    got = mlpjax.input_gradient(config, params, (), case.batch)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_under_jit_and_vmap(x64):
    case = trained(l2=0.1)
    eager_config, eager = fold(case.config, case.params, case.state)
    config, params = jax.jit(fold)(case.config, case.params, case.state)
    assert config.sizes == eager_config.sizes
    assert not config.batch_norm
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), params, eager)
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), case.params)
    _, both = jax.vmap(fold, in_axes=(None, 0, None), out_axes=(None, 0))(case.config, two, case.state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-14), both, eager)


def test_in_float32():
    case = trained(activation=("prelu", "relu"))
    _, params = assert_equal_outputs(case, rtol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_numpy_parameters_will_do(x64):
    case = trained()
    params, state = jax.tree.map(np.asarray, (case.params, case.state))
    jax.tree.map(np.testing.assert_array_equal, fold(case.config, params, state), fold(*case[:3]))


def test_what_does_not_fit_the_config_is_named(x64):
    case = trained()
    with pytest.raises(InputError, match=r"state has 0 records of batch-norm: the config expects 2"):
        fold(case.config, case.params, ())
    with pytest.raises(InputError, match="params have weights of shapes"):
        fold(case.config, case.params[1:], case.state)
