"""Noise and mixtures of examples: their distributions, who is mixed with whom, and what never is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy.stats import beta, kstest

from mlpjax import Batch, VectorAugment
from mlpjax.augment_vectors import mix, mixing_weights, partners
from mlpjax.augmenting import chain, example_keys
from mlpjax.errors import ConfigError, DataError, InputError

KEY = jax.random.key(7)
apply = jax.jit(lambda augment, key, batch: augment(key, batch))
weights = jax.jit(mixing_weights)
partner = jax.jit(lambda weight: partners(6, weight))
apply_mix = jax.jit(mix)


def rows(m, seed=0, n=3):
    rng = np.random.default_rng(seed)
    y = np.eye(4, dtype=np.float32)[rng.integers(0, 4, m)]
    return Batch(rng.normal(size=(m, n)).astype(np.float32), y, np.ones(m, np.float32))


def share(old, new, partner):
    """1 − λ of each row, by least squares over its features."""
    step, way = new - old, old[partner] - old
    return (step * way).sum(axis=1) / (way * way).sum(axis=1)


# --- mixup


def test_mixed_rows_are_zhangs():
    """In float64: x̃ = λx + (1 − λ)xⱼ and the labels likewise, with one λ for both."""
    batch = rows(8)
    after = apply(VectorAugment(mixup=0.7, jitter=0.0), KEY, batch)
    j = (np.arange(8) + 1) % 8
    lam = 1 - share(batch.x.astype(float), np.asarray(after.x, float), j)[:, None]
    assert ((lam > 0) & (lam < 1)).all()
    assert len(np.unique(lam)) == 8
    np.testing.assert_allclose(after.x, lam * batch.x + (1 - lam) * batch.x[j], atol=1e-5)
    np.testing.assert_allclose(after.y, lam * batch.y + (1 - lam) * batch.y[j], atol=1e-5)
    np.testing.assert_array_equal(after.weight, batch.weight)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixing_weights_are_of_beta(alpha):
    lam = np.asarray(weights(example_keys(KEY, 2000), alpha))
    assert kstest(lam, beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.0, 1, 1), (1e-30, 0, 1), (1e30, 0.499, 0.501)])
def test_mixing_weights_at_the_ends(alpha, low, high):
    lam = np.asarray(weights(example_keys(KEY, 2000), alpha))
    assert lam.min() >= low
    assert lam.max() <= high
    if alpha == 1e-30:
        assert set(np.unique(lam)) == {0, 1}
        assert abs(lam.mean() - 0.5) < 4 * np.sqrt(0.25 / 2000)


@given(st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=6, max_size=6))
def test_partner_is_the_next_row_with_a_weight(weight):
    got = np.asarray(partner(np.float32(weight)))
    for i in range(6):
        expected = next((k % 6 for k in range(i + 1, i + 7) if weight[k % 6] > 0), i)
        assert got[i] == expected


def test_rows_of_weight_0_are_never_seen():
    batch = rows(8)
    absent = np.array([0, 3, 7])
    batch.weight[absent] = 0
    other = Batch(batch.x.copy(), batch.y.copy(), batch.weight)
    other.x[absent], other.y[absent] = np.nan, np.nan
    augment = VectorAugment(mixup=0.7, jitter=0.0)
    present = batch.weight > 0
    for a, b in zip(apply(augment, KEY, batch)[:2], apply(augment, KEY, other)[:2], strict=True):
        np.testing.assert_array_equal(a[present], b[present])
        assert np.isfinite(b[present]).all()


@settings(max_examples=200)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1e-7, 0.3, 0.5, 1 - 2**-24, 1.0]))
def test_mixture_stays_between(seed, s):
    """Never above 1 by a rounding: such a label would be taken for a wrong one."""
    rng = np.random.default_rng(seed)
    a, b = rng.choice([0, 1, rng.uniform(), rng.uniform()], size=(2, 5, 3)).astype(np.float32)
    got = np.asarray(apply_mix(a, b, np.full((5, 1), s, np.float32)))
    assert (got >= np.minimum(a, b)).all()
    assert (got <= np.maximum(a, b)).all()
    np.testing.assert_allclose(got, (1 - s) * a.astype(float) + s * b.astype(float), atol=2e-7)


# --- jitter


def test_jitter_per_feature_is_normal():
    batch, std = rows(2000), np.array([0.0, 0.5, 2.0])
    noise = np.asarray(apply(VectorAugment(jitter=std), KEY, batch).x) - batch.x
    np.testing.assert_array_equal(noise[:, 0], 0)
    for k in (1, 2):
        assert kstest(noise[:, k] / std[k], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise[:, 1], noise[:, 2])[0, 1]) < 4 / np.sqrt(2000)


# --- what stays, and what the draws depend on


def test_zero_strengths_keep_every_bit():
    batch = rows(8)
    batch.x[0] = [-0.0, np.nan, 3e38]
    after = apply(VectorAugment(mixup=0.0, jitter=0.0), KEY, batch)
    np.testing.assert_array_equal(np.asarray(after.x).view(np.int32), batch.x.view(np.int32))
    np.testing.assert_array_equal(after.y, batch.y)


def test_same_batch_on_two_devices():
    batch, augment = rows(8), VectorAugment(mixup=0.7, jitter=0.1)
    batch.weight[3:5] = 0
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    for one, two in zip(apply(augment, KEY, batch), apply(augment, KEY, spread), strict=True):
        assert len(two.sharding.device_set) == 2
        np.testing.assert_array_equal(one, two)


def test_chain_applies_one_after_another():
    keys = []

    def then(change):
        return lambda key, batch: keys.append(key) or batch._replace(x=change(batch.x))

    made = chain(then(lambda x: x + 1), then(lambda x: x * 2))(KEY, Batch(np.ones((1, 1)), None))
    assert made.x == 4
    assert keys == [jax.random.fold_in(KEY, 0), jax.random.fold_in(KEY, 1)]
    with pytest.raises(InputError, match="augment is 3: expected a function"):
        chain(then(abs), 3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.uint8])
def test_dtypes(dtype):
    batch = rows(8)
    batch = batch._replace(x=jnp.asarray(np.abs(batch.x), dtype))
    after = jax.eval_shape(VectorAugment(mixup=0.7, jitter=0.1), KEY, batch)
    assert after.x.dtype == (jnp.float32 if dtype == jnp.uint8 else dtype)
    assert after.y.dtype == np.float32


# --- errors


def test_errors():
    with pytest.raises(ConfigError, match="mixup is -1: expected a finite number ≥ 0"):
        VectorAugment(mixup=-1)
    with pytest.raises(ConfigError, match=r"mixup is .*: expected one number"):
        VectorAugment(mixup=[0.1, 0.2])
    with pytest.raises(ConfigError, match="jitter is"):
        VectorAugment(jitter=[0.1, float("inf")])
    with pytest.raises(DataError, match=r"jitter has shape \(2,\): expected one number, or \(3,\), one per feature"):
        jax.eval_shape(VectorAugment(jitter=[0.1, 0.2]), KEY, rows(8))
    with pytest.raises(InputError, match=r"mixup needs targets \(m, n_L\) of floats, y has shape \(8,\) and dtype int"):
        jax.eval_shape(VectorAugment(mixup=1), KEY, rows(8)._replace(y=np.arange(8)))
    with pytest.raises(DataError, match=r"x has shape \(8,\), expected \(m, n_0\)"):
        VectorAugment(jitter=1)(KEY, Batch(np.zeros(8), None))
