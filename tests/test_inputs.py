"""What callers give: dtypes that JAX would cut, rows that count for nothing, weights and rates that are wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config

HUGE = 5_000_000_000
KEY = jax.random.key(0)
MANY = Config(sizes=(2, 300))
NET = Config(sizes=(2, 4, 3), activation="tanh", batch_norm=True, dropout=0.2)
X = np.random.default_rng(0).normal(size=(5, 2))
Y = np.array([0, 1, 2, 1, 0])


@pytest.mark.parametrize("grad_fn", [mlpjax.backward, mlpjax.autodiff])
@pytest.mark.parametrize("jit", [False, True])
def test_integers_of_8_bytes_are_not_cut(grad_fn, jit):
    config = Config(sizes=(1, 1), head="regression")
    params, state = mlpjax.init(config, KEY)
    integers = Batch(np.array([[HUGE], [1]]), np.array([HUGE, 1]), np.array([HUGE, 1]))
    floats = Batch(*(np.asarray(a, np.float32) for a in integers))
    if jit:  # jit itself cuts what it is given: there fit and evaluate are the way in
        got, want = (mlpjax.evaluate(config, params, state, batch) for batch in (integers, floats))
        assert got == want
        fits = [
            mlpjax.fit(config, optax.sgd(1e-25), batch, epochs=1, batch_size=2, key=KEY, grad_fn=grad_fn)
            for batch in (integers, floats)
        ]
        assert fits[0].history["train_loss"] == fits[1].history["train_loss"]
    else:
        (J, _), grads = grad_fn(config, params, state, integers)
        (J_float, _), grads_float = grad_fn(config, params, state, floats)
        assert J_float == J
        np.testing.assert_array_equal(grads[0].W, grads_float[0].W)
    np.testing.assert_array_equal(*(mlpjax.predict(config, params, state, b.x) for b in (integers, floats)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
def test_labels_of_any_integer_dtype(dtype):
    """300 classes are more than uint8 counts; the label 5 is one of them all the same."""
    params, state = mlpjax.init(MANY, KEY)
    J, _ = mlpjax.loss(MANY, params, state, Batch(X, np.full(5, 5, dtype)))
    J_int32, _ = mlpjax.loss(MANY, params, state, Batch(X, np.full(5, 5, np.int32)))
    assert J_int32 == J


@pytest.mark.parametrize("grad_fn", [mlpjax.backward, mlpjax.autodiff])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("value", "label"),
    [(np.nan, 99), *(pytest.param(*row, marks=pytest.mark.slow) for row in ((np.inf, 1), (-np.inf, -1), (1.0, 0)))],
)
def test_a_row_of_weight_0_may_hold_anything(grad_fn, jit, value, label):
    params, state = mlpjax.init(NET, KEY)
    grad_fn = jax.jit(grad_fn) if jit else grad_fn
    weight = jnp.array([1.0, 2.0, 0.0, 1.0, 1.0])
    plain = Batch(jnp.asarray(X), jnp.asarray(Y), weight)
    odd = Batch(plain.x.at[2].set(value), plain.y.at[2].set(label), weight)
    (J, aux), grads = grad_fn(NET, params, state, odd, KEY)
    (J_plain, aux_plain), grads_plain = grad_fn(NET, params, state, plain, KEY)
    np.testing.assert_allclose(J, J_plain, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads, grads_plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), aux.state, aux_plain.state)


@pytest.mark.parametrize("weight", [[1, -1, 2, 1, 1], [1, np.nan, 2, 1, 1], [1, np.inf, 2, 1, 1], [2e38] * 5])
def test_wrong_weights_raise_and_under_jit_become_nan(weight):
    params, state = mlpjax.init(NET, KEY)
    batch = Batch(jnp.asarray(X), jnp.asarray(Y), jnp.asarray(weight, jnp.float32))
    with pytest.raises(mlpjax.DataError, match="weight"):
        mlpjax.backward(NET, params, state, batch, KEY)
    for grad_fn in (mlpjax.backward, mlpjax.autodiff):
        (J, aux), grads = jax.jit(grad_fn)(NET, params, state, batch, KEY)
        assert np.isnan([J, aux.weight_sum]).all()
        assert np.isnan(grads[1].b).all()


def test_a_population_is_taken_by_vmap_only():
    rates = jnp.array([0.1, 0.2])
    params, _ = mlpjax.init(NET, KEY)
    for numbers in ({"l2": rates}, {"dropout": rates}, {"l1": np.array([0.1, 0.2])}):
        with pytest.raises(mlpjax.InputError, match=r"jax\.vmap"):
            mlpjax.loss(Config(sizes=(2, 4, 3), **numbers), params[:2], (), Batch(X, Y), KEY)


@pytest.mark.slow
def test_rates_do_not_promote(x64):
    rates = {"dropout": jnp.float64(0.1), "l1": jnp.float64(0.1), "l2": jnp.float64(0.1)}
    config = Config(sizes=(2, 4, 3), param_dtype="float32", **rates)
    params, state = mlpjax.init(config, KEY)
    for grad_fn in (mlpjax.backward, mlpjax.autodiff):
        (J, _), grads = grad_fn(config, params, state, Batch(X, Y), KEY)
        assert {leaf.dtype.name for leaf in jax.tree.leaves((J, grads))} == {"float32"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, s: jax.jit(mlpjax.loss)(NET, p, s, Batch(X, Y), KEY, train=True), "static_argnames='train'"),
        (lambda p, s: mlpjax.loss(NET, p, s, (X, Y), KEY), "batch is of type tuple: expected mlpjax.Batch"),
        (lambda p, s: mlpjax.loss(NET, p, None, Batch(X, Y), KEY), "state has 0 records"),
        (lambda p, s: mlpjax.predict(NET, p, s, X.astype(str)), "expected real numbers"),
        (lambda p, s: mlpjax.predict(NET, p, s, X * 1j), "expected real numbers"),
        (lambda p, s: mlpjax.loss(NET, p, s, Batch(X, Y * 1j), KEY), "expected numbers"),
        (lambda p, s: mlpjax.decide(NET, jnp.zeros(3)), r"yhat has shape \(3,\): expected \(m, 3\)"),
        (lambda p, s: mlpjax.decide(NET, jnp.zeros((2, 4))), r"expected \(m, 3\)"),
        (lambda p, s: Config(l1=np.complex64(1j)), "l1 is"),
        (lambda p, s: Config(l1=np.True_), "l1 is"),
        (lambda p, s: Config(l1=10**400), "l1 is"),
        (lambda p, s: Config(dropout=jnp.array(7.0, jnp.bfloat16)), "dropout rate is"),
        (lambda p, s: Config(sizes=jnp.array([2.5, 3.0])), "sizes has a width"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    params, state = mlpjax.init(NET, KEY)
    with pytest.raises(mlpjax.InputError, match=message):
        call(params, state)


def test_bfloat16_inputs_and_device_arrays_go_through_fit():
    data = Batch(jnp.asarray(X, jnp.bfloat16), jnp.asarray(Y))
    result = mlpjax.fit(NET, optax.sgd(0.1), data, epochs=1, batch_size=5, key=KEY)
    assert np.isfinite(result.history["train_loss"]).all()


def test_data_stays_where_it_is():
    """Placement is data: fit computes where the examples lie."""
    second = jax.devices()[1]
    data = jax.device_put(Batch(X.astype(np.float32), Y), second)
    params, state = jax.device_put(mlpjax.init(NET, KEY), second)
    result = mlpjax.fit(NET, optax.sgd(0.1), data, epochs=1, batch_size=5, key=KEY, params=params, state=state)
    assert result.params[0].W.devices() == {second}


def test_accumulation_in_one_part_is_none():
    assert mlpjax.accumulate(mlpjax.backward, 1) is mlpjax.backward
    for wrong in (0, True, 2.0):
        with pytest.raises(mlpjax.ConfigError, match="chunks is"):
            mlpjax.accumulate(mlpjax.backward, wrong)


@pytest.mark.parametrize("labels", [Y % 2 == 1, (Y % 2)[:, None]])
def test_class_weight_takes_the_labels_that_fit_takes(labels):
    config = Config(sizes=(2, 1), head="binary")
    results = [
        mlpjax.fit(config, optax.sgd(0.1), Batch(X, y), epochs=1, batch_size=5, key=KEY, class_weight="balanced")
        for y in (labels, Y % 2)
    ]
    np.testing.assert_allclose(results[0].params[0].W, results[1].params[0].W, rtol=1e-6)
