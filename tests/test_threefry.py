"""The generator, bit for bit that of `jax.random`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpjax import threefry

SHAPES = [(), (1,), (7,), (4, 5), (3, 0), (2, 3, 4)]


def test_known_answers():
    """The three vectors of the authors' test file (Random123, kat_vectors, threefry2x32 20)."""
    ones = np.uint32(0xFFFFFFFF)
    pi = [np.uint32(word) for word in (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3)]
    for key, x, expected in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ones, ones), (ones, ones), (0x1CB996FC, 0xBB002BE7)),
        ((pi[0], pi[1]), (pi[2], pi[3]), (0xC4923A9C, 0x483DF7A0)),
    ):
        words = threefry.threefry(tuple(map(jnp.uint32, key)), tuple(map(jnp.uint32, x)))
        assert tuple(map(int, words)) == expected


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "raw"])
def test_masks_are_those_of_jax(make, shape):
    for seed, p in ((0, 0.9), (1, 0.25), (2**31 + 5, 1.0), (3, 0.0), (4, 1e-7)):
        np.testing.assert_array_equal(
            threefry.bernoulli(make(seed), p, shape), jax.random.bernoulli(make(seed), jnp.float32(p), shape)
        )


@given(seed=st.integers(0, 2**32 - 1), data=st.integers(0, 2**31 - 1))
def test_folding_is_that_of_jax(seed, data):
    for key in (jax.random.key(seed), jax.random.PRNGKey(seed)):
        folded = threefry.fold_in(key, data)
        assert folded.dtype == key.dtype
        assert jnp.array_equal(folded, jax.random.fold_in(key, data))


def test_under_jit_and_vmap():
    keys = jax.random.split(jax.random.key(0), 3)
    ours = jax.jit(jax.vmap(lambda key: threefry.bernoulli(threefry.fold_in(key, 2), 0.5, (4,))))(keys)
    theirs = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 2), jnp.float32(0.5), (4,)))(keys)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_other_generators_are_left_to_jax(impl):
    key = jax.random.key(0, impl=impl)
    assert jnp.array_equal(threefry.fold_in(key, 3), jax.random.fold_in(key, 3))
    np.testing.assert_array_equal(threefry.bernoulli(key, 0.5, (6,)), jax.random.bernoulli(key, jnp.float32(0.5), (6,)))


def test_another_setting_is_left_to_jax():
    with jax.threefry_partitionable(False):
        key = jax.random.key(0)
        np.testing.assert_array_equal(
            threefry.bernoulli(key, 0.5, (6,)), jax.random.bernoulli(key, jnp.float32(0.5), (6,))
        )
