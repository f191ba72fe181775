"""One training step, chunks of steps, accumulation over parts of a batch, and the order of an epoch."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config, TrainState, accumulate
from mlpjax.chunks import epoch_order
from mlpjax.step import batch_rows, run_chunk, take, train_step

KEY = jax.random.key(7)
RICH = Config(sizes=(2, 4, 3), activation="prelu", batch_norm=True, dropout=0.3, l2=0.01)
PLAIN = Config(sizes=(2, 4, 3), activation="tanh", head="regression", l1=0.003, l2=0.02)
ADAM = optax.adam(0.05)


def some_data(config=RICH, m=9, seed=0):
    rng = np.random.default_rng(seed)
    n_L = config.sizes[-1]
    y = rng.integers(0, n_L, m) if config.head == "multiclass" else rng.normal(size=(m, n_L))
    return Batch(rng.normal(size=(m, config.sizes[0])), y, rng.uniform(0.5, 2.0, m))


def start_of(config, optimizer=ADAM):
    params, state = mlpjax.init(config, KEY)
    return TrainState(params, state, optimizer.init(params))


@functools.partial(jax.jit, static_argnums=(1, 2))
def step(config, optimizer, grad_fn, train_state, batch, key):
    return train_step(config, optimizer, grad_fn, train_state, batch, key)


@functools.partial(jax.jit, static_argnums=0)
def gradient(grad_fn, config, params, state, batch, key=None):
    return grad_fn(config, params, state, batch, key)


def test_a_step_is_gradient_then_update(x64):
    optimizer = optax.sgd(0.1)
    before, batch = start_of(PLAIN, optimizer), some_data(PLAIN)
    after, report = step(PLAIN, optimizer, mlpjax.backward, before, batch, KEY)
    interpreted = train_step(PLAIN, optimizer, mlpjax.backward, before, batch, KEY)
    chex.assert_trees_all_close(interpreted, (after, report), rtol=1e-12)
    (J, aux), grads = gradient(mlpjax.backward, PLAIN, before.params, before.state, batch)
    expected = jax.tree.map(lambda value, grad: value - 0.1 * grad, before.params, grads)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-13)
    squares = np.mean((np.asarray(aux.z) - batch.y) ** 2, axis=1)
    expected_report = (J, aux.data_loss, aux.penalty, batch.weight @ squares, batch.weight.sum())
    np.testing.assert_allclose(report, expected_report, rtol=1e-12)


@pytest.mark.parametrize(
    ("config", "optimizer"),
    [(RICH, ADAM), (PLAIN, optax.MultiSteps(ADAM, 2).gradient_transformation())],
    ids=["adam", "multi_steps"],
)
def test_a_batch_without_weight_changes_nothing(config, optimizer):
    batch = some_data(config)
    before, report = step(config, optimizer, mlpjax.backward, start_of(config, optimizer), batch, KEY)
    assert report.weight_sum > 0
    unseen = batch._replace(weight=np.zeros_like(batch.weight))
    after, report = step(config, optimizer, mlpjax.backward, before, unseen, KEY)
    chex.assert_trees_all_equal(after, before)
    assert report.weight_sum == report.data_loss == report.metric_sum == 0
    assert report.J == report.penalty > 0


def test_padding_only_steps_change_nothing():
    data, start = jax.tree.map(jnp.asarray, some_data()), start_of(RICH)
    run = functools.partial(run_chunk, RICH, optimizer=ADAM, grad_fn=mlpjax.backward)
    rows = np.array([[8, 1, -1], [-1, -1, -1], [-1, -1, -1]], np.int32)
    once, reports, finite = run(start, data, rows, np.int32(3), np.int32(0), KEY)
    assert finite
    np.testing.assert_allclose(reports.weight_sum, [data.weight[8] + data.weight[1], 0, 0], rtol=1e-6)
    still, _, _ = run(once, data, np.full_like(rows, -1), np.int32(3), np.int32(3), KEY)
    chex.assert_trees_all_equal(still, once)
    # the place of a batch in its chunk draws other masks, by its global number only
    moved, _, _ = run(start, data, rows[[1, 0, 2]], np.int32(3), np.int32(-1), KEY)
    chex.assert_trees_all_equal(moved, once)
    # steps that are not taken say nothing, and leave what was there
    first, reports, _ = run(start, data, rows[[0, 0, 0]], np.int32(1), np.int32(0), KEY)
    chex.assert_trees_all_equal(first, once)
    assert (reports.weight_sum > 0).tolist() == [True, False, False]


def test_rows_of_batches():
    rows = batch_rows(np.array([4, 2, 0, 1, 3]), 2, 4)
    np.testing.assert_array_equal(rows, [[4, 2], [0, 1], [3, -1], [-1, -1]])
    data = Batch(jnp.arange(5.0)[:, None], jnp.arange(5), jnp.array([2, 3, 4, 5, 6]))
    x, y, weight = take(data, rows[2])
    np.testing.assert_array_equal(x, [[3.0], [0.0]])
    np.testing.assert_array_equal(y, [3, 0])
    np.testing.assert_array_equal(weight, [5.0, 0.0])
    np.testing.assert_array_equal(take(data._replace(weight=None), rows[2]).weight, [1.0, 0.0])


WEIGHTS = {
    "given": np.arange(1.0, 10.0),
    "zeros": np.array([1.0, 0.0, 2.0, 0.0, 0.5, 3.0, 0.0, 0.0, 0.0]),
    "all_zero": np.zeros(9),
}


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 20])
def test_accumulation_equals_the_whole_batch(x64, chunks, weight):
    params, state = mlpjax.init(PLAIN, KEY)
    batch = some_data(PLAIN)._replace(weight=WEIGHTS[weight])
    whole = gradient(mlpjax.backward, PLAIN, params, state, batch)
    parts = gradient(accumulate(mlpjax.backward, chunks), PLAIN, params, state, batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(parts, whole)
    chex.assert_trees_all_close(parts, whole, rtol=1e-12, atol=1e-15)


def test_accumulation_without_weights(x64):
    params, state = mlpjax.init(PLAIN, KEY)
    batch = some_data(PLAIN)._replace(weight=None)
    whole = gradient(mlpjax.autodiff, PLAIN, params, state, batch)
    parts = gradient(accumulate(mlpjax.autodiff, 4), PLAIN, params, state, batch)
    chex.assert_trees_all_close(parts, whole, rtol=1e-12, atol=1e-15)


def test_accumulation_moves_the_statistics_part_by_part(x64):
    """Each part is a batch of its own to batch-norm and dropout; a part without weight is not seen."""
    params, state = mlpjax.init(RICH, KEY)
    batch = some_data()._replace(weight=np.array([1.0, 2.0, 1.0, 0.0, 0.0, 0.0, 3.0, 0.0, 1.0]))
    (J, aux), grads = gradient(accumulate(mlpjax.backward, 3), RICH, params, state, batch, KEY)
    assert int(aux.state[0].count) == 2
    expected_J, expected_grads = 0.0, jax.tree.map(jnp.zeros_like, params)
    for part, rows in enumerate(np.split(np.arange(9), 3)):
        piece, part_key = Batch(*(value[rows] for value in batch)), jax.random.fold_in(KEY, part)
        (part_J, part_aux), part_grads = gradient(mlpjax.backward, RICH, params, state, piece, part_key)
        share, state = part_aux.weight_sum / 8, part_aux.state
        expected_J += share * part_J
        expected_grads = jax.tree.map(lambda a, b, share=share: a + share * b, expected_grads, part_grads)
    chex.assert_trees_all_close((J, aux.state, grads), (expected_J, state, expected_grads), rtol=1e-12, atol=1e-15)


def test_accumulation_is_one_function_per_count():
    assert accumulate(mlpjax.backward, 3) is accumulate(mlpjax.backward, 3)


@pytest.mark.parametrize("chunks", [0, -1, 2.0, "2", None])
def test_accumulation_over_a_wrong_count(chunks):
    with pytest.raises(mlpjax.InputError, match="expected an integer ≥ 1"):
        accumulate(mlpjax.backward, chunks)


def test_numbers_of_the_config_do_not_retrace():
    chex.clear_trace_counter()
    f = jax.jit(chex.assert_max_traces(mlpjax.backward, n=1))
    batch = some_data()
    values = set()
    for dropout, l1, l2 in [(0.1, 0.1, 0.2), (0.5, 0.1, 0.2), (0.0, 0.4, 0.2), (0.0, 0.4, 0.0)]:
        config = Config(sizes=(2, 4, 3), dropout=dropout, l1=l1, l2=l2)
        values.add(float(f(config, *mlpjax.init(config, KEY), batch, KEY)[0][0]))
    assert len(values) == 4


@pytest.mark.parametrize("m", [1, 2, 100])
def test_order_is_a_permutation(m):
    order = epoch_order(KEY, 1, m)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(m))


def test_order_depends_on_key_and_epoch_only():
    orders = [
        tuple(epoch_order(key, epoch, 50))
        for key in (KEY, jax.random.key(8), jax.random.key(7 << 32))
        for epoch in (1, 2, 3)
    ]
    assert len(set(orders)) == len(orders)
    assert tuple(epoch_order(KEY, 1, 50)) == orders[0]


def test_order_takes_typed_and_raw_keys():
    np.testing.assert_array_equal(epoch_order(KEY, 3, 20), epoch_order(jax.random.key_data(KEY), 3, 20))
    np.testing.assert_array_equal(epoch_order(KEY, 3, 20), epoch_order(jax.random.PRNGKey(7), 3, 20))
