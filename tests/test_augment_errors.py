"""What a person may give `ImageAugment` wrong, and what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax import Batch, ImageAugment
from mlpjax.errors import ConfigError, DataError, InputError

KEY = jax.random.key(5)


def rows(m, n):
    return Batch(np.random.default_rng(0).normal(size=(m, n)).astype(np.float32), np.arange(m))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (28,)}, r"shape is \(28,\): expected \(height, width\) or \(height, width, channels\)"),
        ({"shape": (28, 0)}, "integers ≥ 1"),
        ({"shape": 28}, "shape is 28"),
        ({"scale": 1.0}, r"scale is 1.0: expected a number in \[0, 1\)"),
        ({"scale": 0.999999999}, "scale"),
        ({"shear": 90}, "shear is 90: expected degrees"),
        ({"flip": 1.5}, "flip is 1.5: expected a probability"),
        ({"shift": -1}, "shift is -1: expected a finite number ≥ 0"),
        ({"rotate": float("nan")}, "rotate is nan"),
        ({"elastic": 1e300}, "elastic is 1e"),
        ({"noise": "0.1"}, "noise is '0.1'"),
        ({"noise": True}, "noise is True"),
        ({"smooth": 0}, "smooth is 0: expected a finite number of pixels"),
        ({"smooth": None}, "smooth is None"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ConfigError, match=message):
        ImageAugment(**{"shape": (6, 9), **fields})


def test_rows_of_another_size():
    with pytest.raises(DataError, match=r"images of shape \(28, 28\), 784 features per row; x has 64: give"):
        ImageAugment(shape=(28, 28), shift=1)(KEY, rows(2, 64))
    with pytest.raises(DataError, match="x has the shape"):
        ImageAugment(shape=(2, 2), shift=1)(KEY, Batch(np.zeros((1, 2, 2)), None))
    huge = jax.ShapeDtypeStruct((3000, 1024 * 1024), jnp.float32)
    with pytest.raises(DataError, match="take smaller batches"):
        jax.eval_shape(ImageAugment(shape=(1024, 1024), shift=1), KEY, Batch(huge, None))


def test_population_of_strengths():
    population = ImageAugment(shape=(2, 2), shift=np.array([0.0, 1.0]), smooth=np.array([4.0, 4.0]))
    batch = rows(3, 4)
    with pytest.raises(InputError, match=r"shift is an array of strengths, a population: .* jax.vmap"):
        population(KEY, batch)
    each = jax.jit(jax.vmap(lambda augment: augment(KEY, batch).x))(population)
    np.testing.assert_array_equal(each[0], batch.x)
    assert not np.array_equal(each[1], batch.x)
