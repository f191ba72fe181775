"""What a batch says about the gradients' mean and variance: two passes over vmap(grad), and expectations in full."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, make_case

import mlpjax
from mlpjax import Batch, Config
from mlpjax.errors import ConfigError, DataError
from mlpjax.noise_scale import gradient_statistics, noise_scale
from mlpjax.per_example import per_example_gradients

CONFIG = Config(sizes=(3, 4, 2), activation="prelu", head="regression", batch_norm=True, l2=0.3)
STATISTICS = jax.jit(gradient_statistics, static_argnames="train")
GRADIENTS = jax.jit(per_example_gradients, static_argnames="train")


@functools.cache
def population():
    """A network, four examples of it, and their gradients in rows, by autodiff."""
    config = Config(sizes=(2, 3, 2), activation="tanh", head="multiclass")
    case = make_case(config, train=False, m=4)

    def loss_of_one(params, x, y):
        return mlpjax.loss(config, params, (), Batch(x[None], y[None]), train=False)[0]

    grads = jax.jit(jax.vmap(jax.grad(loss_of_one), (None, 0, 0)))(case.params, case.batch.x, case.batch.y)
    return case, flat_rows(grads)


def flat_rows(grads):
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(grads)], axis=1)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("weight", ["none", "given", "zeros"])
def test_statistics_of_the_single_gradients(x64, weight):
    case = make_case(CONFIG, weight, train=False)
    rows = flat_rows(GRADIENTS(*case[:4]))
    p = np.full(9, 1 / 9) if weight == "none" else case.batch.weight / case.batch.weight.sum()
    mean = p @ rows
    variance = p @ (rows - mean) ** 2 / (1 - p @ p)
    if weight == "none":
        np.testing.assert_allclose(variance, np.var(rows, axis=0, ddof=1), rtol=1e-12)
    got = STATISTICS(*case[:4])
    np.testing.assert_allclose(flat(got.mean), mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(flat(got.variance), variance, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(got.trace, variance.sum(), rtol=1e-12)
    square_norm = mean @ mean - variance.sum() * (p @ p)
    np.testing.assert_allclose(got.square_norm, square_norm, rtol=1e-10)
    np.testing.assert_allclose(got.noise_scale, variance.sum() / square_norm if square_norm > 0 else np.inf, rtol=1e-10)
    assert jax.tree.structure(got.mean) == jax.tree.structure(got.variance) == jax.tree.structure(case.params)


@pytest.mark.parametrize("weight", [None, (1.0, 2.0, 0.5)], ids=["equal", "weights"])
def test_unbiased(x64, weight):
    """The mean over all 4³ ways to draw three of four examples is what the four have, whatever the weights."""
    case, rows = population()
    weight = None if weight is None else np.array(weight)

    def of_draw(draw):
        batch = Batch(jnp.asarray(case.batch.x)[draw], jnp.asarray(case.batch.y)[draw], weight)
        return gradient_statistics(*case[:3], batch)

    draws = np.array(list(itertools.product(range(4), repeat=3)))
    got = jax.tree.map(lambda leaf: leaf.mean(axis=0), jax.jit(jax.vmap(of_draw))(draws))
    mean, variance = rows.mean(axis=0), rows.var(axis=0)
    np.testing.assert_allclose(flat(got.mean), mean, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(flat(got.variance), variance, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(got.trace, variance.sum(), rtol=1e-12)
    np.testing.assert_allclose(got.square_norm, mean @ mean, rtol=1e-12)


def test_only_ratios_of_weights_count_and_absent_rows_do_not(x64):
    case = make_case(CONFIG, "zeros", train=False)
    config, params, state, batch = case[:4]
    got = STATISTICS(config, params, state, batch)
    assert_close(STATISTICS(config, params, state, batch._replace(weight=1e3 * batch.weight)), got, 1e-11)
    odd = batch._replace(x=np.where(batch.weight[:, None] == 0, np.nan, batch.x))
    assert_close(STATISTICS(config, params, state, odd), got, 0.0)
    kept = batch.weight != 0
    assert_close(STATISTICS(config, params, state, Batch(*(value[kept] for value in batch))), got, 1e-11)


def test_mean_is_the_gradient_without_penalty(x64):
    case = make_case(CONFIG, "given", train=False)
    plain = dataclasses.replace(CONFIG, l2=None)
    _, grads = jax.jit(mlpjax.backward, static_argnames="train")(plain, *case[1:4], train=False)
    assert_close(STATISTICS(*case[:4]).mean, grads, 1e-12)


def test_dropout_takes_the_masks_of_the_key(x64):
    case = make_case(Config(sizes=(3, 4, 2), head="regression", dropout=0.4))
    got = STATISTICS(*case[:5], train=True)
    rows = flat_rows(GRADIENTS(*case[:5], train=True))
    np.testing.assert_allclose(flat(got.variance), rows.var(axis=0, ddof=1), rtol=1e-10, atol=1e-13)


def test_equal_rows_have_no_variance():
    case = make_case(Config(sizes=(3, 2), head="regression"), train=False)
    same = Batch(np.repeat(case.batch.x[:1], 9, axis=0), np.repeat(case.batch.y[:1], 9, axis=0))
    got = STATISTICS(*case[:3], same)
    scale = float(got.square_norm)
    assert all((leaf >= 0).all() for leaf in jax.tree.leaves(got.variance))
    assert 0 <= got.trace <= 1e-5 * scale
    assert got.noise_scale <= 1e-5


def test_where_gradient_and_noise_cannot_be_told_apart(x64):
    """Gradients ±1 cancel: ‖ḡ‖² = 0 and tr Σ = 2, so that ‖G‖² = 0 − 2/2."""
    config = Config(sizes=(1, 1), head="regression", bias=False)
    params = (mlpjax.Layer(W=jnp.array([[0.0]])),)
    got = gradient_statistics(config, params, (), Batch(np.ones((2, 1)), np.array([1.0, -1.0])))
    np.testing.assert_allclose([got.trace, got.square_norm, got.noise_scale], [2.0, -1.0, np.inf])
    scales = noise_scale(jnp.array([1.0, 1.0, np.nan]), jnp.array([0.0, np.nan, 1.0]))
    np.testing.assert_array_equal(scales, [np.inf, np.nan, np.nan])


def test_fewer_than_two_rows(x64):
    case = make_case(CONFIG, train=False)
    one = Batch(case.batch.x[:1], case.batch.y[:1])
    with pytest.raises(DataError, match="the batch has 1 rows: expected at least 2"):
        gradient_statistics(*case[:3], one)
    for weight in (np.eye(9)[4], np.zeros(9)):
        got = STATISTICS(*case[:3], case.batch._replace(weight=weight))
        assert np.isfinite(flat(got.mean)).all()
        assert np.isnan(flat(got[1:])).all()


def test_batch_norm_in_training_is_refused():
    case = make_case(CONFIG)
    with pytest.raises(ConfigError, match="couples the rows"):
        gradient_statistics(*case[:4], train=True)
