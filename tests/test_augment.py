"""Augmentation of images against SciPy in float64, its identities, and what its draws depend on.

Most of the time goes into compiling: one program for 200 images of 6 × 9 pixels with all parts on serves most tests.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy.ndimage import map_coordinates

from mlpjax import Batch, ImageAugment
from mlpjax.augment import bilinear, elastic_field
from mlpjax.augmenting import example_keys

KEY = jax.random.key(5)
SHAPE = (6, 9)
ZERO = {"shift": 0.0, "rotate": 0.0, "scale": 0.0, "shear": 0.0, "flip": 0.0, "elastic": 0.0, "noise": 0.0}
STRONG = {"shift": 2.0, "rotate": 30.0, "scale": 0.3, "shear": 20.0, "flip": 0.5, "elastic": 1.5, "smooth": 2.0}

apply = jax.jit(lambda augment, key, batch: augment(key, batch))
apply_bilinear = jax.jit(bilinear)
draw = jax.jit(lambda augment, keys: jax.vmap(augment.sources)(keys))
fields = jax.jit(jax.vmap(lambda key, smooth, size: elastic_field(key, (7, 5), smooth, size), (0, None, None)))
KEYS = example_keys(KEY, 400)


def make(**strengths):
    """One compiled program for every strength: all parts are on."""
    return ImageAugment(shape=SHAPE, **{**ZERO, **strengths})


def rows(m, seed=0, shape=SHAPE):
    return Batch(np.random.default_rng(seed).normal(size=(m, int(np.prod(shape)))).astype(np.float32), np.arange(m))


def displacement(M, t=(0.0, 0.0), shape=SHAPE):
    """Where each pixel comes from, written out in float64: c + M (p − c) + t."""
    at = np.empty((2, *shape))
    c = (np.array(shape) - 1) / 2
    for i, j in np.ndindex(*shape):
        at[:, i, j] = c + np.asarray(M) @ (np.array([i, j]) - c) + t
    return at


# --- the resampling


@pytest.mark.parametrize("channels", [1, 3])
def test_bilinear_is_scipys(channels):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(4, *SHAPE, channels))
    at = rng.uniform(-3, 12, size=(4, 2, *SHAPE))
    got = apply_bilinear(images.astype(np.float32), at.astype(np.float32))
    for image, where, new in zip(images, at.astype(np.float32), got, strict=True):
        for channel in range(channels):
            expected = map_coordinates(image[..., channel], where.astype(float), order=1, mode="nearest")
            np.testing.assert_allclose(new[..., channel], expected, atol=2e-5)


def test_augmented_images_are_scipys():
    batch, augment = rows(200), make(**STRONG)
    at = np.asarray(draw(augment, KEYS), float)[:8]
    new = apply(augment, KEY, batch).x[:8].reshape(8, *SHAPE)
    for image, where, got in zip(batch.x[:8].reshape(8, *SHAPE).astype(float), at, new, strict=True):
        np.testing.assert_allclose(got, map_coordinates(image, where, order=1, mode="nearest"), atol=2e-5)


def test_shift_by_whole_pixels_moves_bits():
    image = rows(1).x.reshape(1, *SHAPE, 1)
    for down, right in ((0, 0), (1, 2), (-2, 3)):
        got = apply_bilinear(image, displacement(np.eye(2), (down, right))[None].astype(np.float32))
        at = np.clip(np.arange(6) + down, 0, 5)[:, None], np.clip(np.arange(9) + right, 0, 8)[None, :]
        np.testing.assert_array_equal(got[0, ..., 0], image[0, ..., 0][at])


# --- the affine map


def affine_of(at):
    """M and t that a displacement has, found by least squares; and what is left."""
    p = displacement(np.eye(2)).reshape(2, -1)
    c = (np.array(SHAPE)[:, None] - 1) / 2
    A = np.vstack([p - c, np.ones(p.shape[1])])
    solution, *_ = np.linalg.lstsq(A.T, (np.asarray(at, float).reshape(2, -1) - c).T, rcond=None)
    return solution[:2].T, solution[2], np.abs(A.T @ solution - (np.asarray(at, float).reshape(2, -1) - c).T).max()


def decompose(M):
    """(φ, ψ, s₁, s₂) in degrees of M = R(φ) Shear(ψ) diag(1/s₁, 1/s₂)."""
    phi = np.arctan2(-M[0, 1], M[1, 1])
    R = np.array([[np.cos(phi), -np.sin(phi)], [np.sin(phi), np.cos(phi)]])
    U = R.T @ M
    return np.rad2deg(phi), np.rad2deg(np.arctan(U[1, 0] / U[0, 0])), 1 / U[0, 0], 1 / U[1, 1]


@pytest.fixture(scope="module")
def drawn():
    """Of 400 pictures: shift, angles and scales that all parts together drew."""
    strengths = {"shift": 2.0, "rotate": 30.0, "scale": 0.3, "shear": 20.0}
    maps = [affine_of(at) for at in draw(make(**strengths), KEYS)]
    assert max(left for _, _, left in maps) < 1e-4
    angles = np.array([decompose(M) for M, _, _ in maps])
    t = np.array([t for _, t, _ in maps])
    return {"shift": t.ravel() / 2, "rotate": angles[:, 0] / 30, "shear": angles[:, 1] / 20,
            "scale": (angles[:, 2:].ravel() - 1) / 0.3, "M": [M for M, _, _ in maps], "t": t}  # fmt: skip


@pytest.mark.parametrize("part", ["shift", "rotate", "shear", "scale"])
def test_draws_are_uniform_in_their_range(drawn, part):
    """Standard errors of mean and mean square of n uniform numbers in ±1: √(1/3n), √(4/45n)."""
    u = drawn[part]
    assert np.abs(u).max() <= 1.001
    assert abs(u.mean()) < 4 * np.sqrt(1 / 3 / len(u))
    assert abs((u**2).mean() - 1 / 3) < 4 * np.sqrt(4 / 45 / len(u))


def test_each_part_draws_alike_whether_others_are_on(drawn):
    """The map of all parts is the product of those that each part makes alone, with the same key."""
    alone = {name: [affine_of(at)[:2] for at in draw(make(**{name: size}), KEYS)[:20]]
             for name, size in (("shift", 2.0), ("rotate", 30.0), ("scale", 0.3), ("shear", 20.0))}  # fmt: skip
    for i in range(20):
        M = alone["rotate"][i][0] @ alone["shear"][i][0] @ alone["scale"][i][0]
        np.testing.assert_allclose(drawn["M"][i], M, atol=5e-4)
        np.testing.assert_allclose(drawn["t"][i], alone["shift"][i][1], atol=1e-5)
    field = np.asarray(draw(make(elastic=1.5), KEYS)) - displacement(np.eye(2))
    both = np.asarray(draw(make(elastic=1.5, shift=2.0), KEYS)) - np.asarray(draw(make(shift=2.0), KEYS))
    np.testing.assert_allclose(both, field, atol=1e-5)


def test_flip_mirrors_left_and_right():
    batch = rows(200)
    once = apply(make(flip=1.0), KEY, batch)
    np.testing.assert_array_equal(once.x.reshape(-1, *SHAPE), batch.x.reshape(-1, *SHAPE)[:, :, ::-1])
    np.testing.assert_array_equal(apply(make(flip=1.0), KEY, once).x, batch.x)
    some = np.asarray(apply(make(flip=0.3), KEY, batch).x)
    mirrored = (some == np.asarray(once.x)).all(axis=1)
    assert (mirrored | (some == batch.x).all(axis=1)).all()
    assert abs(mirrored.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 200)


# --- the elastic field


@pytest.mark.parametrize("smooth", [1e-6, 1.0, 4.0, 1e6])
def test_field_has_mean_0_and_variance_1_at_every_pixel(smooth):
    e = np.asarray(fields(jax.random.split(KEY, 2000), smooth, 1.0), float)
    assert np.abs(e.mean(axis=0)).max() < 4.5 / np.sqrt(2000)
    assert np.abs((e**2).mean(axis=0) - 1).max() < 4.5 * np.sqrt(2 / 2000)
    # the two axes are independent
    assert np.abs((e[:, 0] * e[:, 1]).mean(axis=0)).max() < 4.5 / np.sqrt(2000)


def test_field_is_the_smoothed_noise():
    """In float64, from the same words: e = size · K₁ U K₂ᵀ, entry by entry."""
    keys = jax.random.split(KEY, 2000)
    words = np.asarray(jax.random.bits(keys[0], (7, 5), jnp.uint32)).astype(np.int64)
    U = (np.stack([words >> 16, words & 0xFFFF]) - 32767.5) / 65536 * np.sqrt(12)

    def kernel(n):
        K = np.array([[np.exp(-((i - j) ** 2) / (2 * 1.5**2)) for j in range(n)] for i in range(n)])
        return K / np.sqrt((K**2).sum(axis=1))[:, None]

    expected = np.stack([kernel(7) @ u @ kernel(5).T for u in U])
    np.testing.assert_allclose(fields(keys, 1.5, 3.0)[0], 3 * expected, atol=2e-5)


# --- what stays


def test_zero_strengths_keep_every_bit():
    batch = rows(200)
    batch.x[0, :6] = [-0.0, 0.0, np.inf, np.nan, 3e38, -3e38]
    got = apply(make(), KEY, batch)
    np.testing.assert_array_equal(np.asarray(got.x).view(np.int32), batch.x.view(np.int32))
    np.testing.assert_array_equal(got.y, batch.y)


def test_constant_images_stay_constant():
    value = np.random.default_rng(2).normal(size=(200, 1)) * 10.0 ** np.linspace(-32, 32, 200)[:, None]
    batch = Batch(np.repeat(value, 54, axis=1).astype(np.float32), np.arange(200))
    np.testing.assert_array_equal(apply(make(**STRONG), KEY, batch).x, batch.x)


def test_noise_is_normal():
    batch = rows(200)
    noise = (np.asarray(apply(make(noise=0.5), KEY, batch).x) - batch.x) / 0.5
    n = noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(n)
    assert abs((noise**2).mean() - 1) < 4 * np.sqrt(2 / n)
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 4 / np.sqrt(54)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_keeps_its_dtype(dtype):
    images, at = rows(2).x.reshape(2, *SHAPE, 1), np.asarray(draw(make(**STRONG), KEYS))[:2]
    got = apply_bilinear(images.astype(dtype), at)
    assert got.dtype == dtype
    tolerance = 8 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got.astype(np.float32), apply_bilinear(images, at), atol=tolerance)
    batch = Batch(jnp.zeros((2, 54), dtype), None)
    assert jax.eval_shape(make(**STRONG), KEY, batch).x.dtype == dtype


def test_float64_draws_the_picture_of_float32(x64):
    batch, augment = rows(2), ImageAugment(shape=SHAPE, shift=np.float64(2), rotate=30)
    got = apply(augment, KEY, batch._replace(x=batch.x.astype(np.float64))).x
    assert got.dtype == np.float64
    with jax.enable_x64(False):
        np.testing.assert_allclose(got, apply(augment, KEY, batch).x, atol=1e-5)


def test_integers_become_floats():
    batch = Batch(np.random.default_rng(3).integers(0, 256, (2, 54)).astype(np.uint8), np.arange(2))
    augment = ImageAugment(shape=SHAPE, shift=1.0)
    got = apply(augment, KEY, batch).x
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, apply(augment, KEY, batch._replace(x=batch.x.astype(np.float32))).x)


# --- what the draws depend on


def test_example_depends_on_its_place_only():
    """Nor on how many there are: the 400 draws of `KEYS` are those of 200 images, as SciPy says above."""
    batch, other = rows(200), rows(200, seed=9)
    other.x[:3] = batch.x[:3]
    np.testing.assert_array_equal(apply(make(**STRONG), KEY, other).x[:3], apply(make(**STRONG), KEY, batch).x[:3])
    same = Batch(np.repeat(rows(1).x, 200, axis=0), np.arange(200))
    assert len(np.unique(np.asarray(apply(make(**STRONG), KEY, same).x), axis=0)) == 200


def test_same_picture_on_two_devices():
    """To the bit, though the two programs are compiled apart."""
    batch = rows(8, shape=(28, 28))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    augment = ImageAugment(shape=(28, 28), shift=1.0, rotate=20.0, scale=0.2, elastic=1.0)
    one, two = apply(augment, KEY, batch), apply(augment, KEY, spread)
    assert len(two.x.sharding.device_set) == 2
    np.testing.assert_array_equal(one.x, two.x)


def test_another_strength_does_not_retrace():
    traces = []

    @jax.jit
    def counted(augment, key, batch):
        traces.append(1)
        return augment(key, batch)

    batch = rows(1, shape=(2, 2))
    for noise in (0, 1, 2.5, np.float64(1), np.int32(2)):
        counted(ImageAugment(shape=[2, 2], noise=noise), KEY, batch)
    assert len(traces) == 1


@pytest.mark.parametrize("shape", [(1, 5), (4, 1, 2)], ids=str)
@settings(max_examples=10)
@given(strength=st.floats(0, 0.875, width=32), seed=st.integers(0, 99))
def test_any_shape(shape, strength, seed):
    """New pixels lie between the smallest and the largest of their image, in each channel."""
    batch = rows(2, seed, shape)
    augment = ImageAugment(
        shape=shape, shift=strength, rotate=90 * strength, scale=strength, shear=60 * strength, flip=strength,
        elastic=strength,
    )  # fmt: skip
    old, new = (np.reshape(b.x, (2, shape[0] * shape[1], -1)) for b in (batch, apply(augment, KEY, batch)))
    assert (new <= old.max(axis=1, keepdims=True) + 1e-6).all()
    assert (new >= old.min(axis=1, keepdims=True) - 1e-6).all()


def test_values_that_are_not_finite_stay_in_their_image():
    """A traced strength is not checked: it may spoil the pictures, but reads nothing from elsewhere."""
    spoilt = jax.tree.map(lambda leaf: float("nan") if leaf == 45.0 else leaf, make(rotate=45.0))
    assert np.isnan(apply(spoilt, KEY, rows(200)).x).all()
