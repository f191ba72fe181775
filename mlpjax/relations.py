"""Simple relations between a wrong gradient and the right one: scale, sign, transpose, order, a missing term.

They hold for any function. Each wrong leaf gets the simplest one that fits; leaves with the same are named together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mlpjax.reports import Evidence

_FITS = 1e-3
"""The part of a leaf's difference that a relation may leave open."""
_FEW = 8
"""Elements that are named one by one."""
_ROUNDED = {"float32": np.float32, "float16": np.float16}


class Relation(NamedTuple):
    """A relation of the whole gradient: what it is called, what it says, and the gradient that it predicts."""

    name: str
    what: str
    leaves: tuple[np.ndarray, ...]


class _Fit(NamedTuple):
    """A relation of one leaf."""

    name: str
    what: str
    leaf: np.ndarray


def relations(evidence: Evidence) -> list[Relation]:
    """The relations that hold; at most one for the whole gradient, and one put together of its leaves'.

    >>> right = (np.array([1.0, 2.0]), np.array([3.0]))
    >>> given = (np.array([-1.0, -2.0]), np.array([3.0]))
    >>> [found] = relations(Evidence(None, (), ("w", "b"), right, given, right))
    >>> found.name, found.what
    ('sign', 'w is −1 times the right one')
    """
    found = []
    flat = [np.concatenate([np.ravel(leaf) for leaf in leaves]) for leaves in (evidence.hand, evidence.truth)]
    if len(evidence.paths) > 1 and (factor := _factor(*flat)) is not None:
        name, text = _factor_words(factor)
        what = f"the whole gradient is {text} the right one: that of another function"
        found.append(Relation(name, what, tuple(factor * leaf for leaf in evidence.truth)))
        return found
    if swapped := _swapped(evidence):
        found.append(swapped)
    fits: list[tuple[str, _Fit]] = []
    leaves = list(evidence.truth)
    for i, (path, theta, given, right) in enumerate(
        zip(evidence.paths, evidence.leaves, evidence.hand, evidence.truth, strict=True)
    ):
        if _near(given, right, right, 1e-9):
            continue
        fit = next((fit for fit in _fits(theta, given, right) if _fitting(given, fit.leaf, right)), None)
        if fit is not None:
            leaves[i] = fit.leaf
            fits.append((path, fit))
    if fits:
        said: dict[str, list[str]] = {}
        for path, fit in fits:
            said.setdefault(fit.what, []).append(path)
        words = [f"{', '.join(paths)} {what}" for what, paths in said.items()]
        names = list(dict.fromkeys(fit.name for _, fit in fits))
        found.append(Relation(" and ".join(names), "; ".join(words), tuple(leaves)))
    return found


def _fits(theta: np.ndarray, given: np.ndarray, right: np.ndarray) -> Iterator[_Fit]:
    """The relations of one leaf, from the simplest on."""
    if not given.any():
        yield _Fit("missing", "is zero", given)
    if (factor := _factor(given, right)) is not None:
        name, text = _factor_words(factor)
        yield _Fit(name, f"is {text} the right one", factor * right)
    changed = np.flatnonzero(np.abs(given - right).ravel() > 1e-9 * np.abs(right).max(initial=0))
    if 0 < len(changed) <= min(_FEW, max(1, given.size // 4)):
        yield _few(given, right, changed)
    for axes, image in _images(right):
        yield _Fit("transpose" if "transposed" in axes else "order", f"is the right one {axes}", image)
    if right.ndim and right.size > 1 and np.allclose(np.sort(given.ravel()), np.sort(right.ravel()), rtol=1e-9, atol=0):
        yield _Fit("order", "has the right entries in another order", given)
    for term, what in ((theta, "the parameter itself"), (np.sign(theta), "the parameter's sign")):
        if (factor := _factor(given - right, term)) is not None:
            yield _Fit(
                "term", f"differs by {factor:.6g} times {what}: a penalty too much or missing", right + factor * term
            )
    if right.size > 1 and (factor := _factor(given - right, np.ones_like(right))) is not None:
        yield _Fit("term", f"differs by {factor:.6g} everywhere: a term too much or missing", right + factor)
    largest = float(np.abs(given).max(initial=0))
    if np.count_nonzero(np.isclose(np.abs(given), largest, rtol=1e-12)) > 1:
        yield _Fit("clipped", f"is the right one clipped to ±{largest:.6g}", np.clip(right, -largest, largest))
    yield _Fit("absolute value", "is the absolute value of the right one", np.abs(right))
    for name, dtype in _ROUNDED.items():
        with np.errstate(over="ignore"):
            yield _Fit("rounded", f"is the right one rounded to {name}", right.astype(dtype).astype(np.float64))


def _images(right: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The leaf transposed, reversed and rolled, where that changes it."""
    if right.ndim == 2 and right.shape[0] == right.shape[1]:
        yield "transposed", right.T
    if right.ndim == 2:
        yield "transposed and put into the shape again", right.T.reshape(right.shape)
    for axis in range(right.ndim):
        yield f"reversed along axis {axis}", np.flip(right, axis)
        for shift in (1, -1):
            yield f"shifted by {shift} along axis {axis}", np.roll(right, shift, axis)


def _few(given: np.ndarray, right: np.ndarray, changed: np.ndarray) -> _Fit:
    """Single elements: where they are and what they are."""
    words = []
    for at in changed:
        index = [int(i) for i in np.unravel_index(at, given.shape)]
        got, want = given.ravel()[at], right.ravel()[at]
        words.append(f"{index} is {got:.6g}, {f'{got / want:.6g} times ' if want and got else 'not '}{want:.6g}")
    return _Fit("single entries", f"is right but for {'; '.join(words)}", given)


def _swapped(evidence: Evidence) -> Relation | None:
    """Two leaves of one shape, each in the place of the other."""
    count = len(evidence.paths)
    for i in range(count):
        for j in range(i + 1, count):
            a, b = evidence.truth[i], evidence.truth[j]
            if a.shape != b.shape or _near(a, b, a, 1e-9):
                continue
            if _fitting(evidence.hand[i], b, a) and _fitting(evidence.hand[j], a, b):
                leaves = list(evidence.truth)
                leaves[i], leaves[j] = b, a
                return Relation("swapped", f"{evidence.paths[i]} and {evidence.paths[j]} are swapped", tuple(leaves))
    return None


def _factor(given: np.ndarray, of: np.ndarray) -> float | None:
    """The c for which ``given = c · of``, if there is one."""
    square = float(np.sum(of * of))
    if square == 0 or not given.any():
        return None
    c = float(np.sum(given * of)) / square
    return c if _near(given, c * of, given, 1e-6) else None


def _factor_words(factor: float) -> tuple[str, str]:
    if abs(factor + 1) < 1e-9:
        return "sign", "−1 times"
    inverse = 1 / factor
    if abs(inverse - round(inverse)) < 1e-9 * abs(inverse) and abs(round(inverse)) > 1:
        return "scale", f"1/{round(inverse)} times"
    return "scale", f"{factor:.9g} times"


def _near(a: np.ndarray, b: np.ndarray, scale: np.ndarray, rtol: float) -> bool:
    return bool(np.all(np.abs(a - b) <= rtol * float(np.abs(scale).max(initial=0))))


def _fitting(given: np.ndarray, predicted: np.ndarray, right: np.ndarray) -> bool:
    """Whether a prediction leaves little of the difference open."""
    difference = float(np.linalg.norm(given - right))
    return float(np.linalg.norm(given - predicted)) <= _FITS * difference
