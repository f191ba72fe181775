"""Augmentation of images: random changes that keep the label, drawn anew at every step, on the device.

Pass one to `mlpjax.fit` as ``augment=``; several by `mlpjax.augmenting.chain`. Example i of a batch draws from
``fold_in(key, i)`` alone, so that the same key gives the same picture in a batch of any size, on any number of
devices. Strengths are leaves of a pytree: another strength does not recompile, and a part that is ``None`` is not
computed. A strength of zero leaves every bit as it was, and a constant image stays constant.

Source: lecture, section *Regularisation*, slide *Data augmentation*: ``reg-augmentation``.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax.augmenting import add_noise, check_one_strength, example_keys, pytree, strength
from mlpjax.errors import ConfigError, DataError
from mlpjax.parameters import Batch

_AFFINE, _ELASTIC, _NOISE = range(3)
"""Streams of an example's key: what one part draws does not depend on which others are on."""


@pytree("shape")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAugment:
    """Deform images: one resampling under an affine map and an elastic field, then noise.

    The pixel at p = (row, column) of the new image is the old one at

        c + M (p − c) + t + e(p),    M = R(φ) · Shear(ψ) · diag(1/s₁, 1/s₂) · Flip

    between four pixels by bilinear interpolation; outside the image by its nearest pixel. c is the centre,
    R = (cos φ, −sin φ; sin φ, cos φ) and Shear = (1, 0; tan ψ, 1).

    Args:
        shape: ``(height, width)`` or ``(height, width, channels)``; a row of ``x`` is one image, flattened.
        shift: t uniform in ±shift pixels, along each axis.
        rotate: φ uniform in ±rotate degrees.
        scale: s₁ and s₂ each uniform in 1 ± scale, with scale below 1.
        shear: ψ uniform in ±shear degrees, below 90.
        flip: the probability of a mirror image, left and right exchanged.
        elastic: root of the mean square of e along each axis, in pixels. e is white noise, smoothed (Simard et al.
            2003): neighbours move alike, distant pixels do not.
        smooth: standard deviation of the Gaussian that smooths e, in pixels.
        noise: standard deviation of the normal noise that is added, in units of x.

    Raises:
        ConfigError: naming what was got and what was expected. Traced values pass.

    Source: ``reg-augmentation``; Simard, Steinkraus & Platt 2003.

    >>> mirror = ImageAugment(shape=(1, 3), flip=1.0)
    >>> mirror(jax.random.key(0), Batch(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([0]))).x
    Array([[3., 2., 1.]], dtype=float32)
    """

    shape: tuple[int, ...]
    shift: Any = None
    rotate: Any = None
    scale: Any = None
    shear: Any = None
    flip: Any = None
    elastic: Any = None
    smooth: Any = 4.0
    noise: Any = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "shape", _shape(self.shape))
        expected = {
            "scale": (lambda s: (s >= 0) & (s < 1), "a number in [0, 1)"),
            "shear": (lambda psi: (psi >= 0) & (psi < 90), "degrees in [0, 90)"),
            "flip": (lambda p: (p >= 0) & (p <= 1), "a probability in [0, 1]"),
            # narrower Gaussians are the same: they smooth nothing
            "smooth": (lambda sigma: sigma >= 1e-6, "a finite number of pixels, at least 1e-6"),
        }
        for name in ("shift", "rotate", "scale", "shear", "flip", "elastic", "smooth", "noise"):
            within, words = expected.get(name, (lambda a: a >= 0, "a finite number ≥ 0"))
            set_(self, name, strength(name, getattr(self, name), within, words))
        if self.smooth is None:
            raise ConfigError("smooth is None: expected a number of pixels; without elastic it has no effect")

    def __call__(self, key: jax.Array, batch: Batch) -> Batch:
        """Return the batch with every image deformed; ``x`` keeps its dtype, integers become floats.

        Raises:
            DataError: if a row of ``x`` is not an image of ``shape``.
        """
        check_one_strength(self)
        x = jnp.asarray(batch.x)
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
        images = x.reshape(self._shape_of_batch(x))
        keys = example_keys(key, x.shape[0])
        if self._moves():
            images = bilinear(images, jax.vmap(self.sources)(keys))
        if self.noise is not None:
            images = add_noise(jax.vmap(jax.random.fold_in, (0, None))(keys, _NOISE), images, self.noise)
        return batch._replace(x=images.reshape(x.shape))

    def sources(self, key: jax.Array) -> jax.Array:
        """Draw where each pixel of one image comes from: rows and columns ``(2, height, width)``, float32.

        >>> ImageAugment(shape=(1, 3), flip=1.0).sources(jax.random.key(0))[1]
        Array([[2., 1., 0.]], dtype=float32)
        """
        at = self._affine(jax.random.fold_in(key, _AFFINE))
        if self.elastic is None:
            return at
        return at + elastic_field(jax.random.fold_in(key, _ELASTIC), self.shape[:2], self.smooth, self.elastic)

    def _moves(self) -> bool:
        parts = (self.shift, self.rotate, self.scale, self.shear, self.flip, self.elastic)
        return any(part is not None for part in parts)

    def _shape_of_batch(self, x: jax.Array) -> tuple[int, ...]:
        """Where x has images of this shape: ``(m, height, width, channels)``."""
        pixels = math.prod(self.shape)
        if x.ndim != 2 or x.shape[1] != pixels:
            got = f"{x.shape[1]}" if x.ndim == 2 else f"the shape {x.shape}"
            raise DataError(
                f"augment is for images of shape {self.shape}, {pixels} features per row; x has {got}: "
                "give ImageAugment the shape of these images, or use VectorAugment"
            )
        if x.shape[0] * (self.shape[0] + 1) * (self.shape[1] + 1) >= 2**31:
            raise DataError(
                f"a batch of {x.shape[0]} images has more pixels than int32 can count: take smaller batches"
            )
        return (x.shape[0], *self.shape, 1)[:4]

    def _affine(self, key: jax.Array) -> jax.Array:
        parts = (self.shift, self.rotate, self.scale, self.shear, self.flip)
        shift, rotate, scale, shear, flip = (0.0 if a is None else jnp.asarray(a, jnp.float32) for a in parts)
        # float32 for every dtype of x: the same key gives the same picture
        u = jax.random.uniform(key, (7,), jnp.float32, minval=-1, maxval=1)
        phi, psi, s, t = jnp.deg2rad(rotate * u[0]), jnp.deg2rad(shear * u[1]), 1 + scale * u[2:4], shift * u[4:6]
        height, width = self.shape[:2]
        down, across = jnp.cos(psi) * s[0], jnp.where((u[6] + 1) / 2 < flip, -s[1], s[1])
        M = jnp.stack(
            [jnp.cos(phi + psi) / down, -jnp.sin(phi) / across, jnp.sin(phi + psi) / down, jnp.cos(phi) / across]
        )
        # on a grid on which M (p − c) is exact, for |M| below 8: a product and a sum that a compiler joins, or not, by
        # what is around them and by the number of devices, would round differently
        grid = 2.0 ** (20 - max(height, width).bit_length())
        M = jnp.round(M * grid) / grid
        y, x = (jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2 for n in (height, width))
        rows, columns = (M[k] * y[:, None] + M[k + 1] * x[None, :] for k in (0, 2))
        return jnp.stack([rows + (height - 1) / 2 + t[0], columns + (width - 1) / 2 + t[1]])


def elastic_field(
    key: jax.Array, shape: tuple[int, ...], smooth: float | jax.Array, size: float | jax.Array = 1.0
) -> jax.Array:
    """A smooth random field e ``(2, height, width)``: at each pixel and for each axis of mean 0 and variance size².

    e = size · K₁ U K₂ᵀ with white noise U, uniform with variance 1, and the rows of K₁ and K₂ Gaussians of standard
    deviation ``smooth`` pixels, scaled to Σⱼ Kᵢⱼ² = 1, so that the border moves as much as the middle.
    Source: Simard, Steinkraus & Platt 2003, section 2.

    >>> elastic_field(jax.random.key(0), (28, 28), 4.0).shape
    (2, 28, 28)
    """
    height, width = shape
    bits = jax.random.bits(key, shape, jnp.uint32)
    # both axes from one word: half the work of two draws
    halves = jnp.stack([bits >> 16, bits & 0xFFFF]).astype(jnp.float32)
    white = (halves - 32767.5) * (12**0.5 / 65536)
    K_1, K_2 = _gaussian_rows(height, smooth), _gaussian_rows(width, smooth)
    return (jnp.asarray(size, jnp.float32) * K_1) @ white @ K_2.T


def bilinear(images: jax.Array, at: jax.Array) -> jax.Array:
    """Read images ``(m, height, width, channels)`` between their pixels, at rows and columns ``(m, 2, height, width)``.

    Outside an image by its nearest pixel; on a pixel to the bit.

    >>> bilinear(jnp.array([0.0, 10.0]).reshape(1, 1, 2, 1), jnp.array([[0.0], [0.25]]).reshape(1, 2, 1, 1)).ravel()
    Array([2.5], dtype=float32)
    """
    m, height, width, channels = images.shape
    y, x = jnp.clip(at[:, 0], 0, height - 1), jnp.clip(at[:, 1], 0, width - 1)
    i, j = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    fy, fx = ((z - k).astype(images.dtype)[..., None] for z, k in ((y, i), (x, j)))
    # with one row and one column more, the neighbours of a pixel lie at fixed distances: gathers that are quick on CPU
    flat = jnp.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge").reshape(-1, channels)
    corner = (jnp.arange(m, dtype=jnp.int32) * (height + 1))[:, None, None]
    corner = (corner + i) * (width + 1) + j
    a, b, c, d = (flat.at[corner + k].get(mode="promise_in_bounds") for k in (0, 1, width + 1, width + 2))
    # v + f (w − v) is v where v = w, which a weighted sum is not
    top, bottom = a + fx * (b - a), c + fx * (d - c)
    return jnp.where((fx == 0) & (fy == 0), a, top + fy * (bottom - top))


def _shape(shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(0 if isinstance(n, bool) else operator.index(n) for n in shape)
    except TypeError:
        sizes = ()
    if len(sizes) not in (2, 3) or min(sizes) < 1:
        raise ConfigError(f"shape is {shape!r}: expected (height, width) or (height, width, channels), integers ≥ 1")
    return sizes


def _gaussian_rows(n: int, smooth: float | jax.Array) -> jax.Array:
    distance = jnp.arange(n, dtype=jnp.float32)[:, None] - jnp.arange(n, dtype=jnp.float32)[None, :]
    K = jnp.exp(-0.5 * (distance / jnp.asarray(smooth, jnp.float32)) ** 2)
    return K / jnp.sqrt(jnp.sum(K * K, axis=1, keepdims=True))
