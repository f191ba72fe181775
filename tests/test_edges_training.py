"""Layers, start values, optimisers and `fit` where numbers end."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import mlpjax
from mlpjax import INITIALIZERS, Batch, Config
from mlpjax.layers import (
    BatchNormState,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    batch_norm_update,
    dropout_backward,
    dropout_forward,
)
from mlpjax.optim import OPTIMIZERS, proximal_l1

KEY = jax.random.key(0)
LARGEST = float(np.finfo(np.float32).max)
BIG = 2.0**60
ANY_OPTIMISER = pytest.mark.parametrize("name", OPTIMIZERS)


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 1e-45, 1e-9, 0.5, 1 - 2**-24, 1 - 2**-25, 1 - 1e-9, 1 - 2**-53])
def test_dropout_of_any_rate(rate):
    """Kept units are a/(1 − rate), dropped ones 0, also where 1 − rate is 0 in float32: then all are dropped."""
    a = jnp.ones((8, 8))
    out, cache = dropout_forward(a, rate, KEY)
    assert np.isfinite(out).all()
    kept = np.float32(1) - np.float32(rate)
    values = set(np.unique(out).tolist())
    assert values <= {0.0, *([] if kept == 0 else [float(np.float32(1) / kept)])}
    np.testing.assert_array_equal(dropout_backward(a, cache), out)
    if rate < 1e-8:
        np.testing.assert_array_equal(out, a)


def test_a_rate_next_to_1_trains_nothing_but_the_last_bias():
    config = Config(sizes=(2, 3, 1), head="regression", dropout=1 - 1e-9)
    params, state = mlpjax.init(config, KEY)
    for provider in (mlpjax.backward, mlpjax.autodiff):
        (J, _), grads = jax.jit(provider)(config, params, state, Batch(np.ones((4, 2)), np.ones(4)), KEY)
        assert (J, grads[1].b[0]) == (0.5, -1.0)
        assert not np.any(grads[0].W)
        assert not np.any(grads[1].W)


@jax.jit
def normalised(z, beta):
    ones, m = jnp.ones(1), len(z)
    out, cache, statistics = batch_norm_forward(z, ones, beta * ones, jnp.full(m, 1 / m))
    return out, statistics, batch_norm_backward(jnp.ones_like(z), cache)


@given(st.floats(-BIG, BIG, width=32), st.sampled_from((0.0, 0.5, -3.0)), st.integers(-40, 60))
def test_batch_norm_of_a_constant_column(value, beta, exponent):
    """z̃ = β up to the rounding of the mean, which 1/√ε makes larger, and at most γ; powers of 2 have none."""
    out, _, _ = normalised(np.full((7, 1), value, np.float32), beta)
    bound = np.sqrt(1e5) * 7 * np.finfo(np.float32).eps * abs(value)
    np.testing.assert_allclose(out, beta, rtol=1e-6, atol=min(1.001, bound + 1e-30))
    exact = np.full((8, 1), 2.0**exponent, np.float32)
    out, (mean, var), (dz, dgamma, dbeta) = normalised(exact, beta)
    np.testing.assert_array_equal(out, np.full((8, 1), beta))
    assert (mean[0], var[0], dgamma[0], dbeta[0]) == (2.0**exponent, 0, 0, 8)
    np.testing.assert_array_equal(dz, np.zeros((8, 1)))


@given(arrays(np.float32, (4, 2), elements=st.floats(-BIG, BIG, width=32)), st.sampled_from((0.0, 1e-30, 1e30)))
def test_inference_of_any_statistics(z, var):
    state = BatchNormState(jnp.array([0.0, 1e18]), jnp.full(2, var), jnp.array(3))
    out, _ = batch_norm_inference(z, jnp.ones(2), jnp.zeros(2), state)
    expected = (z.astype(np.float64) - np.float64(np.float32([0.0, 1e18]))) / np.sqrt(
        np.float64(np.float32(var)) + 1e-5
    )
    np.testing.assert_allclose(out, expected, rtol=2e-6, atol=1e-37)


def test_statistics_of_the_first_batch_are_its_own():
    """To the bit, however large or small they are."""
    start = BatchNormState(jnp.zeros(4), jnp.ones(4), jnp.array(0))
    mean, var = jnp.array([1e-30, -1e30, 0.0, 3e38]), jnp.array([0.0, 3e38, 1e-37, 1.0])
    after = batch_norm_update(start, mean, var)
    np.testing.assert_array_equal((after.mean, after.var), (mean, var))


# --- start values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
@pytest.mark.parametrize("name", INITIALIZERS)
def test_start_values_of_the_smallest_layers(name, shape):
    """Finite, of the shape and dtype asked for, and within six deviations or the bounds of the formula."""
    W = INITIALIZERS[name](KEY, shape, jnp.float32)
    assert (W.shape, W.dtype) == (shape, jnp.float32)
    deviation = {"zeros": 0.0, "normal_001": 0.01, "orthogonal": 1.0}.get(
        name, math.sqrt({"lecun": 1, "he": 2}.get(name.split("_")[0], 2 * shape[0] / sum(shape)) / shape[0])
    )
    bound = math.sqrt(3) if name.endswith("uniform") else 6
    assert np.abs(W).max() <= deviation * bound * (1 + 1e-6)


# --- optimisers ------------------------------------------------------------------------------------------------------


@functools.cache
def two_updates(name):
    """The steps that an optimiser takes for two gradients, from the start."""
    rule = OPTIMIZERS[name](0.05)

    def steps(theta, first, second):
        params, opt_state = mlpjax.apply_update(rule, first, rule.init(theta), theta)
        update, opt_state = rule.update(second, opt_state, params)
        return params, update, opt_state

    return jax.jit(steps)


gradients = arrays(
    np.float32,
    8,
    elements=st.floats(-BIG, BIG, width=32) | st.sampled_from((0.0, -0.0, 1e-45, 1e-38, 1e-30, -1e4, 1e18)),
)


@ANY_OPTIMISER
@settings(max_examples=25)
@given(first=gradients, second=gradients)
def test_updates_are_odd_finite_and_one_for_each_element(name, first, second):
    """Δθ(−dθ) = −Δθ(dθ) to the bit, for |dθ| ≤ 1e18; no element sees another; dθ = 0 from the start moves nothing."""
    theta = np.zeros(8, np.float32)
    params, update, _ = two_updates(name)(theta, first, second)
    mirrored, mirrored_update, _ = two_updates(name)(theta, -first, -second)
    assert np.isfinite(params).all()
    assert np.isfinite(update).all()
    np.testing.assert_array_equal((mirrored, mirrored_update), (-params, -update))
    order = np.arange(8)[::-1]
    moved, moved_update, _ = two_updates(name)(theta, first[order], second[order])
    np.testing.assert_array_equal((moved, moved_update), (params[order], update[order]))
    np.testing.assert_array_equal(params[first == 0], 0)
    np.testing.assert_array_equal(update[(first == 0) & (second == 0)], 0)
    assert (np.sign(params) * np.sign(first) <= 0).all()


@pytest.mark.parametrize("name", ["adagrad", "adadelta", "rmsprop", "adam", "adam_slide"])
def test_an_epsilon_that_float32_has_as_0_is_refused(name):
    """It would make 0/0 of a gradient of 0."""
    for eps in (0.0, 1e-45, 1e-39):
        with pytest.raises(mlpjax.ConfigError, match=f"eps is {eps}: expected a finite number > 0"):
            OPTIMIZERS[name](alpha=0.1, eps=eps)
    rule = OPTIMIZERS[name](alpha=0.1, eps=2e-38)
    assert rule.update(jnp.zeros(1), rule.init(jnp.zeros(1)))[0] == 0


@ANY_OPTIMISER
def test_a_gradient_that_is_nan_stays_where_it_is(name):
    params, update, _ = two_updates(name)(np.zeros(8, np.float32), *np.float32([[np.nan, *range(7)]] * 2))
    np.testing.assert_array_equal(np.isnan((params, update)), [[True, *[False] * 7]] * 2)


@pytest.mark.parametrize("name", ["adagrad", "adadelta", "rmsprop", "adam", "adam_slide"])
def test_a_gradient_whose_square_overflows_stops_the_rule(name):
    """Documented: its parameter stands still, and clipping by the norm keeps it going."""
    huge, theta = np.full(8, 1e30, np.float32), np.zeros(8, np.float32)
    for steps in two_updates(name)(theta, huge, np.ones(8, np.float32))[:2]:
        np.testing.assert_array_equal(steps, 0)
    clipped = huge / np.max(np.abs(huge))
    assert (two_updates(name)(theta, clipped, clipped)[0] < 0).all()


@ANY_OPTIMISER
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_parameters_of_a_narrow_dtype(name, dtype):
    """Δθ is that of float32 memories, rounded once."""
    g = np.float32([1, -2, 0.5, 0, 4, -8, 100, -0.25])
    rule = OPTIMIZERS[name](0.5)
    wide, narrow = (
        rule.update(jnp.asarray(g, d), rule.init(jnp.ones(8, d)), jnp.ones(8, d)) for d in ("float32", dtype)
    )
    assert narrow[0].dtype == dtype
    np.testing.assert_array_equal(narrow[0], wide[0].astype(dtype))
    for memory, other in zip(jax.tree.leaves(narrow[1]), jax.tree.leaves(wide[1]), strict=True):
        np.testing.assert_array_equal(memory, other)


@given(gradients, st.sampled_from((0.0, 1e-30, 1.0, 1e30)))
def test_soft_thresholding_of_any_weight(W, l1):
    """|W| ≤ α l1 becomes exactly 0, and everything else is nearer to 0 by α l1."""
    rule = proximal_l1(0.5, l1)
    params = {"W": jnp.asarray(W)}
    after = mlpjax.apply_update(rule, {"W": jnp.zeros(8)}, rule.init(params), params)[0]["W"]
    exactly = np.sign(W) * np.maximum(np.abs(W.astype(np.float64)) - 0.5 * l1, 0)
    np.testing.assert_allclose(after, exactly, rtol=1e-6, atol=1e-7 * l1 + 1e-37)
    np.testing.assert_array_equal(np.asarray(after)[np.abs(W) < 0.49 * l1], 0)


# --- fit -------------------------------------------------------------------------------------------------------------

SGD = optax.sgd(0.1)
NET = Config(sizes=(1, 3, 2), activation="tanh", batch_norm=True)


def trained(config=NET, data=None, **options):
    options = {"epochs": 2, "batch_size": 4, "key": KEY, **options}
    result = mlpjax.fit(config, SGD, data, **options)
    return result.params, result.state, result.history["train_loss"], result.history["train_metric"]


def assert_same(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


X, Y = np.float32([[1], [2], [3], [0], [0], [0]]), np.array([0, 1, 0, 1, 1, 1])
PADDED = Batch(X, Y, np.float32([1, 2, 1, 0, 0, 0]))


def filled(filler):
    """The data with other rows of weight 0."""
    return PADDED._replace(x=np.concatenate([X[:3], filler]))


@settings(max_examples=5)
@given(arrays(np.float32, (3, 1), elements=st.floats(-LARGEST, LARGEST, width=32)))
def test_fit_does_not_see_rows_of_weight_0(filler):
    """Finite but as large as it may be, in training and in validation: the same network to the bit."""
    odd = filled(filler)
    assert_same(trained(data=odd, valid_data=odd), trained(data=PADDED, valid_data=PADDED))
    start = mlpjax.init(NET, KEY)
    assert mlpjax.evaluate(NET, *start, odd) == mlpjax.evaluate(NET, *start, PADDED)


@pytest.mark.slow
def test_fit_many_does_not_see_rows_of_weight_0():
    runs = [
        mlpjax.fit_many(
            NET, optax.sgd, data, alphas=[0.1], epochs=2, batch_size=4, keys=jax.random.split(KEY, 1), valid_data=data
        )[0]
        for data in (filled(np.float32([[3e38], [-1e30], [1e20]])), PADDED)
    ]
    assert_same(runs[0][:2], runs[1][:2])


@pytest.mark.parametrize("x", [pytest.param([[5.0]], marks=pytest.mark.slow), [[5.0]] * 4], ids=["one", "constant"])
def test_fit_on_one_example_one_feature_or_constants(x):
    """Batch-norm of a constant is β: training is finite, and learns how frequent the classes are."""
    x = np.float32(x)
    y = np.resize([1, 0, 1, 1], len(x))
    result = mlpjax.fit(NET, optax.adam(0.1), Batch(x, y), epochs=60, batch_size=4, key=KEY)
    assert result.stop_reason == "finished"
    yhat = mlpjax.predict(NET, result.params, result.state, x)
    np.testing.assert_allclose(yhat[:, 1], y.mean(), atol=0.06)


def test_class_weights_are_as_exact_as_the_weights(x64):
    """Under float64 a class weight of ⅓ is ⅓, and not the float32 next to it."""
    x, y = np.arange(4.0)[:, None], np.array([0, 1, 0, 1])
    third = np.array([1 / 3, 1.0])
    assert_same(
        trained(data=Batch(x, y), class_weight=third.tolist())[:3],
        trained(data=Batch(x, y, third[y]))[:3],
    )
    rounded = trained(data=Batch(x, y, np.float32(third)[y].astype(np.float64)))
    assert not np.array_equal(rounded[0][0].W, trained(data=Batch(x, y, third[y]))[0][0].W)
