"""The modes of training: counts, the rows of an epoch, and mini-batch gradients against the full one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax.cases import make_case
from mlpjax.errors import ConfigError, InputError
from mlpjax.modes import batch_gradients, epoch_mean, epoch_rows, mode_of, updates_per_epoch


@pytest.mark.parametrize(
    ("m", "n", "mode", "updates"),
    [
        (10, 10, "batch", 1),
        (10, 64, "batch", 1),
        (10, 9, "mini-batch", 2),
        (10, 5, "mini-batch", 2),
        (10, 3, "mini-batch", 4),
        (10, 1, "stochastic", 10),
        (1, 1, "batch", 1),
    ],
)
def test_mode_and_updates(m, n, mode, updates):
    assert mode_of(m, n) == mode
    assert updates_per_epoch(m, n) == updates
    rows = epoch_rows(jax.random.key(0), 1, m, n)
    assert rows.shape == (updates, min(m, n))
    np.testing.assert_array_equal(np.sort(rows[rows >= 0]), range(m))
    # only the last batch is padded, at its end
    assert (rows[:-1] >= 0).all()
    assert sorted(rows[-1] >= 0, reverse=True) == list(rows[-1] >= 0)


def test_every_epoch_has_an_order_of_its_own():
    key = jax.random.key(3)
    orders = [epoch_rows(key, epoch, 30, 7) for epoch in (1, 2, 1)]
    np.testing.assert_array_equal(orders[0], orders[2])
    assert (orders[0] != orders[1]).any()


def test_fit_takes_these_rows_in_this_order(x64):
    x = np.arange(1.0, 6.0)[:, None]
    data = mlpjax.Batch(x, np.zeros(5))
    config = mlpjax.Config(sizes=(1, 1), head="regression", bias=False)
    key = jax.random.key(4)
    start = (mlpjax.Layer(W=jnp.ones((1, 1))),)
    result = mlpjax.fit(config, optax.sgd(0.01), data, epochs=2, batch_size=2, key=key, params=start)
    w = 1.0
    for epoch in (1, 2):
        for rows in epoch_rows(key, epoch, 5, 2):
            used = x[rows[rows >= 0], 0]
            w -= 0.01 * np.mean(used**2) * w
    np.testing.assert_allclose(result.params[0].W, [[w]], rtol=1e-13)


@pytest.mark.parametrize("weight", ["none", "zeros"])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_the_mean_over_an_epoch_is_the_full_gradient(weight, n, x64):
    case = make_case(mlpjax.Config(sizes=(3, 4, 2), activation="tanh"), weight)
    rows = epoch_rows(jax.random.key(0), 1, 9, n)
    data = mlpjax.Batch(*(value if value is None else jnp.asarray(value) for value in case.batch))
    stacked, counts = jax.jit(batch_gradients, static_argnames="grad_fn")(
        case.config, case.params, case.state, data, rows, grad_fn=mlpjax.backward
    )
    full = jax.jit(mlpjax.backward)(case.config, case.params, case.state, case.batch)[1]
    assert float(counts.sum()) == pytest.approx(9 if weight == "none" else case.batch.weight.sum())
    for ours, expected in zip(jax.tree.leaves(epoch_mean(stacked, counts)), jax.tree.leaves(full), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-14)


def test_refused():
    with pytest.raises(ConfigError, match="batch_size is 0"):
        updates_per_epoch(5, 0)
    with pytest.raises(ConfigError, match="m is 0"):
        epoch_rows(jax.random.key(0), 1, 0, 2)
    data = mlpjax.Batch(np.ones((9, 1)), np.ones(9))
    with pytest.raises(InputError, match=r"rows has shape \(9,\)"):
        batch_gradients(mlpjax.Config(sizes=(1, 2)), (), (), data, np.arange(9), grad_fn=mlpjax.backward)
