"""Model code knows nothing of devices: rows spread over two of them give the same gradients as rows on one."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import mlpjax
from mlpjax import Batch, Config

CONFIG = Config(sizes=(3, 5, 4, 2), activation=("prelu", "tanh"), batch_norm=True, dropout=0.3, l1=0.01, l2=0.1)


@pytest.mark.parametrize("grad_fn", [mlpjax.backward, mlpjax.autodiff])
def test_gradients_of_a_batch_spread_over_two_devices(x64, grad_fn):
    rng = np.random.default_rng(0)
    batch = Batch(rng.normal(size=(8, 3)), rng.integers(0, 2, 8), rng.uniform(size=8))
    key = jax.random.key(1)
    params, state = mlpjax.init(CONFIG, jax.random.key(0))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    assert len(spread.x.sharding.device_set) == 2

    step = jax.jit(grad_fn)
    (J_one, _), one = step(CONFIG, params, state, batch, key)
    (J_two, _), two = step(CONFIG, params, state, spread, key)
    np.testing.assert_allclose(J_two, J_one, rtol=1e-13)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), two, one)
