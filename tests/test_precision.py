"""Number formats: what goes in, in which the products are taken, and in which the results are kept."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config, fit

KEY = jax.random.key(0)
ADAM = optax.adam(0.05)
SIZES = (2, 4, 3)


def blobs(m=21):
    """Three classes in the plane, well apart."""
    rng = np.random.default_rng(0)
    y = np.arange(m) % 3
    return Batch(np.array([[-2, 0], [2, 0], [0, 3]])[y] + 0.4 * rng.normal(size=(m, 2)), y)


BLOBS = blobs()


def train(config, data=BLOBS, **options):
    return fit(config, ADAM, data, **({"epochs": 30, "batch_size": 8, "key": KEY} | options))


def float_dtypes(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


@pytest.mark.parametrize("compute_dtype", [None, "bfloat16", "float16"])
def test_blobs_are_learnt(compute_dtype):
    config = Config(sizes=SIZES, batch_norm=True, compute_dtype=compute_dtype)
    result = train(config)
    assert result.history["train_metric"][-1] == 1.0
    assert mlpjax.evaluate(config, result.params, result.state, BLOBS) == {
        "loss": pytest.approx(0.0, abs=0.2),
        "metric": 1.0,
    }
    assert float_dtypes((result.params, result.state, result.opt_state)) == {"float32"}
    assert jax.eval_shape(mlpjax.predict, config, *result[:2], BLOBS.x).dtype == jnp.float32


def test_low_precision_differs_by_its_rounding():
    """The factors of a product are rounded to 8 bits, not to fewer, and no longer after it."""
    config = Config(sizes=SIZES, compute_dtype="bfloat16")
    params, state = mlpjax.init(config, KEY)
    z, _ = mlpjax.forward(config, params, state, BLOBS.x)

    def rounded(a):
        return np.asarray(jnp.asarray(a, jnp.bfloat16), np.float64)

    a = np.maximum(rounded(BLOBS.x) @ rounded(params[0].W), 0)
    np.testing.assert_allclose(z, rounded(a) @ rounded(params[1].W), rtol=1e-2, atol=1e-2)
    exact = np.maximum(BLOBS.x @ np.asarray(params[0].W), 0) @ np.asarray(params[1].W)
    assert 1e-4 < np.abs(z - exact).max() < 0.1


@pytest.mark.parametrize("dtype", ["uint8", "float16", "bool"])
def test_input_of_any_real_dtype(dtype):
    """The same numbers in another format: the same training, to the bit."""
    x = np.random.default_rng(0).integers(0, 2, (21, 2)) * (1 if dtype == "bool" else 200)
    config = Config(sizes=SIZES, activation="tanh")
    data = Batch(x.astype(dtype), BLOBS.y)
    run = functools.partial(train, config, epochs=2)
    result, expected = run(data), run(data._replace(x=x.astype(np.float32)))
    chex.assert_trees_all_equal(result[:3], expected[:3])


def test_labels_of_any_integer_dtype():
    config = Config(sizes=SIZES, activation="tanh")
    expected = train(config, epochs=2)
    for y in (BLOBS.y.astype(np.uint8), np.eye(3)[BLOBS.y]):
        chex.assert_trees_all_close(train(config, BLOBS._replace(y=y), epochs=2).params, expected.params, rtol=1e-5)


def test_float64_from_end_to_end(x64):
    config = Config(sizes=SIZES, batch_norm=True, l2=0.01)
    result = train(config, BLOBS._replace(weight=np.ones(21)), epochs=2)
    assert float_dtypes(result[:3]) == {"float64"}
    # in float32 so small a change of the data would be lost
    x = BLOBS.x + 1e-10 * (np.arange(21) % 5)[:, None]
    change = np.abs(train(config, Batch(x, BLOBS.y, np.ones(21)), epochs=2).params[1].W - result.params[1].W).max()
    assert 1e-13 < change < 1e-7


def test_float32_while_float64_is_on(x64):
    result = train(Config(sizes=SIZES, batch_norm=True, l2=0.01, param_dtype="float32"), epochs=2)
    assert float_dtypes(result[:3]) == {"float32"}


def test_float64_while_it_is_off():
    with pytest.raises(mlpjax.ConfigError, match="JAX_ENABLE_X64"):
        train(Config(sizes=SIZES, param_dtype="float64"))


@pytest.mark.slow
def test_interpreted_step_by_step(x64):
    """Without jit, operation by operation: the same numbers."""
    run = functools.partial(fit, Config(sizes=SIZES), optax.sgd(0.1), BLOBS, epochs=2, batch_size=21, key=KEY)
    compiled = run()
    with jax.disable_jit():
        interpreted = run()
    chex.assert_trees_all_close(interpreted[:3], compiled[:3], rtol=1e-11, atol=1e-14)
