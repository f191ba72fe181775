"""A whole training step lowers for CPU, GPU and TPU, on whatever machine this runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

import mlpjax
from mlpjax import Batch, Config, TrainState
from mlpjax.step import run_chunk, run_evaluation, train_step

KEY = jax.random.key(0)
ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
PLATFORMS = ("cpu", "cuda", "tpu")


def start_of(config):
    params, state = mlpjax.init(config, KEY)
    return TrainState(params, state, ADAM.init(params))


def batch_of(x_dtype):
    return Batch(jnp.ones((8, 4), x_dtype), jnp.zeros(8, jnp.int32), jnp.ones(8))


@pytest.mark.parametrize("grad_fn", [mlpjax.backward, mlpjax.autodiff])
@pytest.mark.parametrize("x_dtype", ["float32", "uint8"])
@pytest.mark.parametrize("compute_dtype", [None, "bfloat16"])
def test_a_step_lowers_everywhere(compute_dtype, x_dtype, grad_fn):
    config = Config(
        sizes=(4, 6, 5, 3), activation=("prelu", "gelu"), batch_norm=True, dropout=(0.1, 0.2, 0.3),
        l1=0.01, l2=0.01, compute_dtype=compute_dtype,
    )  # fmt: skip

    @jax.jit
    def step(train_state, batch, key):
        return train_step(config, ADAM, grad_fn, train_state, batch, key)

    start = start_of(config)
    exported = export.export(step, platforms=PLATFORMS)(start, batch_of(x_dtype), KEY)
    assert exported.platforms == PLATFORMS
    # what comes out is what goes in again
    leaves = jax.tree.leaves(start)
    assert [(a.shape, a.dtype) for a in exported.out_avals[: len(leaves)]] == [(a.shape, a.dtype) for a in leaves]
    assert ("bf16" in exported.mlir_module()) == (compute_dtype is not None)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_chunks_lower_everywhere(platform):
    """The compiled units of `fit` and `evaluate` themselves, for one foreign platform at a time."""
    config = Config(sizes=(4, 6, 3), dropout=0.2)
    start, data, rows = start_of(config), batch_of("uint8"), jnp.zeros((5, 2), jnp.int32)
    chunk = jax.jit(functools.partial(run_chunk, optimizer=ADAM, grad_fn=mlpjax.backward))
    chunk.trace(config, start, data, rows, jnp.int32(5), jnp.int32(0), KEY).lower(lowering_platforms=(platform,))
    run_evaluation.trace(config, start.params, start.state, data, rows).lower(lowering_platforms=(platform,))


def test_an_exported_step_runs():
    config = Config(sizes=(4, 6, 3))

    @jax.jit
    def step(train_state, batch, key):
        return train_step(config, ADAM, mlpjax.backward, train_state, batch, key)

    args = (start_of(config), batch_of("float32"), KEY)
    exported = export.export(step, platforms=PLATFORMS)(*args)
    for got, expected in zip(jax.tree.leaves(exported.call(*args)), jax.tree.leaves(step(*args)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
