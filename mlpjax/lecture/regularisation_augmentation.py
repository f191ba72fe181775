"""Data augmentation: what a random transform of an image may change, and what it must keep."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from scipy.ndimage import map_coordinates

from mlpjax import Batch, ImageAugment
from mlpjax.augment import bilinear
from mlpjax.claims import Claim, agree, equal, holds

_CAR = """
    ............
    ....####....
    ...#..#.#...
    .##########.
    .##########.
    ..oo....oo..
    ..oo....oo..
    ............
"""
_ZERO = dict.fromkeys(("shift", "rotate", "scale", "shear", "flip"), 0.0)
_ALL = {"shift": 1.0, "rotate": 15.0, "scale": 0.2, "shear": 10.0, "flip": 0.5}
_augmented = jax.jit(lambda augment, key, batch: augment(key, batch))
_bilinear = jax.jit(bilinear)


def reg_augmentation() -> tuple[Claim, ...]:
    """Cars are shifted, turned, stretched, slanted and mirrored, and keep shape and label; nothing else happens."""
    batch, key, deform, mirror = _cars(), jax.random.key(0), _augment(**_ALL), _augment(flip=1.0)
    images = batch.x.reshape(-1, 8, 12)
    # what becomes of a picture of the rows' numbers, and of one of the columns', says where each pixel comes from
    at = [_apply(deform, key, batch._replace(x=_rows([axis] * 5))).reshape(-1, 8, 12) for axis in _here()]
    scipy = [map_coordinates(image, where, order=1) for image, where in zip(images, zip(*at, strict=True), strict=True)]
    labels, after, mirrored = _augmented(deform, key, batch).y, _apply(deform, key, batch), _apply(mirror, key, batch)
    others = _apply(deform, key, batch._replace(x=np.vstack([batch.x[:3], 0 * batch.x[3:]])))
    even = np.full_like(batch.x, 0.3)
    moved = float(np.abs(after - batch.x).max(axis=1).min())
    return (
        equal("x keeps its shape, y its labels", (*after.shape, *labels), (5, 96, *batch.y)),
        agree("the pictures, against SciPy's interpolation at the same points", after, _rows(scipy)),
        holds("each is another picture than before", moved > 0.1, moved),
        equal("of strength 0: the same, bit by bit", _apply(_augment(), key, batch), batch.x),
        equal("a mirror image is the columns in reverse", mirrored, _rows(images[:, :, ::-1])),
        equal("of a mirror image: the picture", _apply(mirror, key, batch._replace(x=mirrored)), batch.x),
        equal("shifted by (1, 2) pixels and back, border aside", *_there_and_back(images, (1, 2))),
        equal("a constant picture stays constant", _apply(deform, key, batch._replace(x=even)), even),
        equal("the same key gives the same pictures, whatever the others are", others[:3], after[:3]),
        holds("another key gives others", np.any(_apply(deform, jax.random.key(1), batch) != after), "different"),
    )


def _apply(augment: ImageAugment, key: jax.Array, batch: Batch) -> np.ndarray:
    return np.asarray(_augmented(augment, key, batch).x)


def _augment(**strengths: float) -> ImageAugment:
    return ImageAugment(shape=(8, 12), **{**_ZERO, **strengths})


def _cars() -> Batch:
    """The car in five shades, as rows, with labels."""
    grey = np.array([[".o#".index(sign) for sign in line] for line in _CAR.split()]) / 2
    shades = np.linspace(0.5, 1.0, 5)
    return Batch(_rows(grey * shades[:, None, None]), np.arange(5) % 2)


def _here() -> np.ndarray:
    """The row and the column of each pixel."""
    return np.stack(np.meshgrid(np.arange(8.0), np.arange(12.0), indexing="ij"))


def _rows(images: Any) -> np.ndarray:
    return np.reshape(images, (len(images), -1))


def _there_and_back(images: np.ndarray, t: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The inside of images shifted by t pixels and by −t, and the inside of the images."""
    back, shift = images[..., None], np.array(t)[:, None, None]
    for there in (_here() + shift, _here() - shift):
        back = _bilinear(back, np.broadcast_to(there, (len(images), *there.shape)))
    inside = (slice(None), slice(t[0], -t[0]), slice(t[1], -t[1]))
    return np.asarray(back[..., 0])[inside], images[inside]
