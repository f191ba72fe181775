"""Data made by formula: the plane sets of TensorFlow Playground, five classes, five labels, the logic gates.

Every set of `TOYS` is a function of the number of points, a seed and the noise. Every one has two features.
The ranges, and what noise means, are those of the Playground (its slider "noise 50" is ``noise=0.5``), with
class 1 for its label +1 and class 0 for −1. With noise the *label* is that of a displaced point, or, in
``gauss`` and ``spiral``, the point itself is displaced.

Source: ``logreg-playground``, ``mlp1-playground``, ``logreg-and``, ``logreg-or``, ``logreg-xor-fail``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mlpjax.errors import DataError, unknown_name


def circle(m: int = 500, seed: int = 0, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a disc (class 1) inside a ring (class 0).

    Half of the points have a radius in U[0, 2.5), the others in U[3.5, 5), all an angle in U[0, 2π). The class
    is ``‖p + noise · U[−5, 5)²‖ < 2.5``.

    Args:
        m: how many points, at least 2.
        seed: of `numpy.random.default_rng`.
        noise: 0 or more; the Playground offers 0 to 0.5.

    Returns:
        x, (m, 2) float32, and the class indices y, (m,) int32, in random order.

    Raises:
        DataError: ``m`` is below 2, or ``noise`` is not a finite number ≥ 0.

    >>> x, y = circle(100)
    >>> bool(np.all((np.hypot(*x.T) < 2.5) == (y == 1)))
    True
    """
    rng = _generator(m, seed, noise)
    inside = np.arange(m) < m // 2
    r = rng.uniform(np.where(inside, 0.0, 3.5), np.where(inside, 2.5, 5.0))
    angle = rng.uniform(0.0, 2 * math.pi, m)
    points = np.stack([r * np.sin(angle), r * np.cos(angle)], axis=1)
    moved = points + noise * rng.uniform(-5.0, 5.0, (m, 2))
    return _shuffled(rng, points, np.hypot(*moved.T) < 2.5)


def xor(m: int = 500, seed: int = 0, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw four quadrants; class 1 where the coordinates have the same sign.

    Coordinates are in U[−5, 5), pushed away from the axes by 0.3. The class is ``p₁ p₂ ≥ 0`` of
    ``p + noise · U[−5, 5)²``. Arguments, returns and errors as in `circle`.

    >>> x, y = xor(100)
    >>> bool(np.all((x[:, 0] * x[:, 1] > 0) == (y == 1)))
    True
    """
    rng = _generator(m, seed, noise)
    points = rng.uniform(-5.0, 5.0, (m, 2))
    points += np.where(points > 0, 0.3, -0.3)
    moved = points + noise * rng.uniform(-5.0, 5.0, (m, 2))
    return _shuffled(rng, points, moved[:, 0] * moved[:, 1] >= 0)


def gauss(m: int = 500, seed: int = 0, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw two round clouds: N((2, 2), v I) is class 1, N((−2, −2), v I) class 0, with ``v = 0.5 + 7 noise``.

    Half of the points are of each class. Arguments, returns and errors as in `circle`.

    >>> x, y = gauss(100)
    >>> bool(np.all((x.sum(axis=1) > 0) == (y == 1)))
    True
    """
    rng = _generator(m, seed, noise)
    label = np.arange(m) < m // 2
    centre = np.where(label, 2.0, -2.0)[:, None]
    return _shuffled(rng, rng.normal(centre, math.sqrt(0.5 + 7 * noise), (m, 2)), label)


def spiral(m: int = 500, seed: int = 0, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw two arms of a spiral, one turned by π against the other.

    Point i of the n in an arm is ``r (sin t, cos t) + noise · U[−1, 1)²`` with ``r = 5 i/n`` and
    ``t = 3.5 π i/n`` (class 1) or ``3.5 π i/n + π`` (class 0). Arguments, returns and errors as in `circle`.

    >>> x, y = spiral(100)
    >>> round(float(np.hypot(*x.T).max()), 2)
    4.9
    """
    rng = _generator(m, seed, noise)
    n = m // 2
    along = np.concatenate([np.arange(n) / n, np.arange(m - n) / (m - n)])
    label = np.arange(m) < n
    t = 3.5 * math.pi * along + np.where(label, 0.0, math.pi)
    points = 5 * along[:, None] * np.stack([np.sin(t), np.cos(t)], axis=1)
    return _shuffled(rng, points + noise * rng.uniform(-1.0, 1.0, (m, 2)), label)


def plane(m: int = 500, seed: int = 0, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a plane to regress on: ``y = (p₁ + p₂)/10`` of ``p = x + noise · U[−6, 6)²``, x in U[−6, 6)².

    Arguments and errors as in `circle`; y is (m, 1) float32.

    >>> x, y = plane(100)
    >>> np.allclose(y[:, 0], x.sum(axis=1) / 10)
    True
    """
    rng = _generator(m, seed, noise)
    points = rng.uniform(-6.0, 6.0, (m, 2))
    moved = points + noise * rng.uniform(-6.0, 6.0, (m, 2))
    return points.astype(np.float32), (moved.sum(axis=1, keepdims=True) / 10).astype(np.float32)


_BUMPS = np.array([[-4, 2.5, 1], [0, 2.5, -1], [4, 2.5, 1], [-4, -2.5, -1], [0, -2.5, 1], [4, -2.5, -1]])
"""Centre and sign of the bumps of `gauss_regression`."""


def gauss_regression(m: int = 500, seed: int = 0, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw six bumps of alternating sign to regress on; x is in U[−6, 6)².

    The bumps are cones of radius 2 around (−4, ±2.5), (0, ±2.5), (4, ±2.5), which do not overlap:
    ``y = ± max(0, 1 − ‖p − centre‖/2)`` of the nearest centre, ``p = x + noise · U[−6, 6)²``.
    Arguments and errors as in `circle`; y is (m, 1) float32.

    >>> x, y = gauss_regression(100)
    >>> y.shape, bool(np.abs(y).max() <= 1)
    ((100, 1), True)
    """
    rng = _generator(m, seed, noise)
    points = rng.uniform(-6.0, 6.0, (m, 2))
    moved = points + noise * rng.uniform(-6.0, 6.0, (m, 2))
    distance = np.linalg.norm(moved[:, None, :] - _BUMPS[:, :2], axis=2)
    heights = _BUMPS[:, 2] * np.maximum(0.0, 1.0 - distance / 2)
    # at most one bump is not 0
    return points.astype(np.float32), heights.sum(axis=1, keepdims=True).astype(np.float32)


def blobs(m: int = 500, seed: int = 0, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw five round clouds, the five classes of a multi-class problem: a point belongs to exactly one.

    Class k is ``N(4 (sin φ, cos φ), (0.5 + 7 noise) I)`` with φ = 2πk/5; the classes are equally frequent.
    Arguments and errors as in `circle`; y is (m,) int32 in 0 … 4. Source: ``prob-mc-pictures``.

    >>> x, y = blobs(100)
    >>> np.bincount(y)
    array([20, 20, 20, 20, 20])
    """
    rng = _generator(m, seed, noise)
    label = np.arange(m) % 5
    return _shuffled(rng, rng.normal(4 * _pentagon()[label], math.sqrt(0.5 + 7 * noise)), label)


def discs(m: int = 500, seed: int = 0, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw points under five overlapping discs, the five labels of a multi-label problem: none to all are on.

    x is in U[−6, 6)²; label o is on where ``p = x + noise · U[−6, 6)²`` is less than 3 from 2 (sin φ, cos φ) with
    φ = 2πo/5. Arguments and errors as in `circle`; y is (m, 5) int32 of 0 and 1. Source: ``prob-ml-pictures``.

    >>> x, y = discs(500)
    >>> sorted(set(y.sum(axis=1).tolist()))
    [0, 1, 2, 3, 4, 5]
    """
    rng = _generator(m, seed, noise)
    points = rng.uniform(-6.0, 6.0, (m, 2))
    moved = points + noise * rng.uniform(-6.0, 6.0, (m, 2))
    inside = np.linalg.norm(moved[:, None, :] - 2 * _pentagon(), axis=2) < 3
    return points.astype(np.float32), inside.astype(np.int32)


TOYS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "circle": circle,
    "xor": xor,
    "gauss": gauss,
    "spiral": spiral,
    "plane": plane,
    "gauss_regression": gauss_regression,
}
"""The plane sets by name: ``(m, seed, *, noise) → (x, y)``."""

GATES: dict[str, tuple[int, int, int, int]] = {
    "and_gate": (0, 0, 0, 1),
    "or_gate": (0, 1, 1, 1),
    "xor_gate": (0, 1, 1, 0),
    "nand_gate": (1, 1, 1, 0),
    "nor_gate": (1, 0, 0, 0),
    "xnor_gate": (1, 0, 0, 1),
}
"""The logic gates by name: the outputs for the inputs (0, 0), (0, 1), (1, 0), (1, 1)."""


def gate(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth table of a gate of `GATES`: x, (4, 2) float32, and y, (4,) int32.

    Raises:
        DataError: there is no such gate.

    Source: ``logreg-and``, ``logreg-or``.

    >>> gate("and_gate")[1]
    array([0, 0, 0, 1], dtype=int32)
    """
    if name not in GATES:
        raise DataError(unknown_name("gate", name, GATES))
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    return x, np.array(GATES[name], dtype=np.int32)


def _pentagon() -> np.ndarray:
    """Five points on the unit circle, (5, 2)."""
    phi = 2 * math.pi * np.arange(5) / 5
    return np.stack([np.sin(phi), np.cos(phi)], axis=1)


def _generator(m: int, seed: int, noise: float) -> np.random.Generator:
    if m < 2:
        raise DataError(f"m is {m!r}: expected at least 2 points")
    if not 0 <= noise < math.inf:
        raise DataError(f"noise is {noise!r}: expected a finite number ≥ 0, 0.5 is much")
    return np.random.default_rng(seed)


def _shuffled(rng: np.random.Generator, points: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = rng.permutation(len(label))
    return points[order].astype(np.float32), label[order].astype(np.int32)
