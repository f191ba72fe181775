"""What can be wrong beside the gradient: one of the functions is not deterministic, or the value is of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.oracles import Target
from mlpjax.subject import Hand, Subject, at, hand_gradient, structure, value

_DIRECTIONS = 3
_STEP = 2.0**-10


def value_problems(
    subject: Subject,
    args: tuple[Any, ...],
    cots: list[Any],
    out: Any,
    aux: Any,
    hand: Hand,
    target: Target,
    noise: float = 0.0,
    rtol: float = 1e-10,
) -> list[str]:
    """Compare value and aux that ``grad_f`` gave with those of f; a difference is named with what it means.

    They may differ by ``rtol`` of their scale and by ``noise``, the rounding of the value.
    """
    problems = []
    if subject.returns != "grad":
        if structure(hand.value) != structure(out):
            return ["the value of grad_f has another tree than that of f"]
        if worst := _difference(hand.value, out, rtol, noise + float(target.rounding.max())):
            problems.append(_whose(subject, args, cots, hand, target, worst))
    if subject.has_aux:
        if structure(hand.aux) != structure(aux):
            problems.append("the aux of grad_f has another tree than that of f")
        elif worst := _difference(hand.aux, aux, rtol, 0.0):
            problems.append(f"the aux of grad_f is not that of f: {worst}")
    return problems


def not_deterministic(subject: Subject, args: tuple[Any, ...], cots: list[Any], out: Any, hand: Hand) -> list[str]:
    """Call both functions again: the same arguments must give the same bits."""
    problems = []
    again = value(subject, args)[0]
    same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(again), strict=True)]
    if not all(same):
        problems.append("f is not deterministic: two calls with the same arguments gave two values; pass its key")
    grads = hand_gradient(subject, args, cots).grads
    if not np.array_equal(grads, hand.grads, equal_nan=True):
        worst = int(np.argmax(np.nan_to_num(np.abs(grads - hand.grads), nan=np.inf).max(axis=0)))
        leaf = subject.paths[int(np.searchsorted(subject.ends, worst, side="right"))]
        problems.append(f"grad_f is not deterministic: two calls with the same arguments differ, most in {leaf}")
    return problems


def _difference(got: Any, expected: Any, rtol: float, atol: float) -> str:
    """The first leaf that differs by more than rounding, in words; empty if there is none."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True)
    for (path, a), b in pairs:
        name = jax.tree_util.keystr(path)
        if np.shape(a) != np.shape(b):
            return f"{name} has shape {np.shape(a)}, not {np.shape(b)}".strip()
        if jnp.issubdtype(getattr(b, "dtype", np.asarray(b).dtype), jax.dtypes.prng_key):
            continue
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype.kind not in "biufcV" or b.dtype.kind not in "biufcV":
            if not np.array_equal(a, b):
                return f"{name} {a}, not {b}".strip()
            continue
        a, b = (v.astype(complex if v.dtype.kind == "c" else np.float64) for v in (a, b))
        scale = np.abs(b).max(initial=0.0)
        if not np.allclose(a, b, rtol=0, atol=rtol * scale + atol, equal_nan=True):
            index = np.unravel_index(int(np.argmax(np.nan_to_num(np.abs(a - b), nan=np.inf))), a.shape)
            where = f"{name}{[int(i) for i in index] if index else ''}"
            return f"{where} {a[index]:.9g}, not {b[index]:.9g}".strip()
    return ""


def _whose(subject: Subject, args: tuple[Any, ...], cots: list[Any], hand: Hand, target: Target, worst: str) -> str:
    """Say to which function the gradient belongs, from derivatives of both values along random directions."""
    said = f"value and gradient belong to different functions: the value of grad_f is {worst}"
    if any(dtype != np.float64 for dtype in hand.dtypes):
        return said

    def own(x: np.ndarray) -> np.ndarray:
        given = subject.grad_f(*at(subject, args, target.leaves(x)))[0]
        given = given[0] if subject.has_aux else given
        inner = [jax.tree.map(lambda c, v: np.sum(np.asarray(c) * np.asarray(v, np.float64)), c, given) for c in cots]
        return np.asarray([sum(jax.tree.leaves(one)) for one in inner])

    rng = np.random.default_rng(0)
    is_of_f = is_of_value = True
    for _ in range(_DIRECTIONS):
        v = rng.choice([-1.0, 1.0], len(target.x)) * np.where(target.x != 0, np.abs(target.x), 1)
        along = hand.grads @ v
        is_of_f &= _close(along, _slope(target.at, target.x, v))
        is_of_value &= _close(along, _slope(own, target.x, v))
    if is_of_f:
        return f"{said}; the gradient is that of f"
    if is_of_value:
        return f"{said}; the gradient is that of this value: the pair is of another function than f"
    return f"{said}; the gradient is the derivative of neither"


def _slope(F: Callable[[np.ndarray], np.ndarray], x: np.ndarray, v: np.ndarray) -> np.ndarray:
    D = [(F(x + h * v) - F(x - h * v)) / (2 * h) for h in (_STEP, _STEP / 4)]
    return (16 * D[1] - D[0]) / 15


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.allclose(a, b, rtol=1e-6, atol=1e-9 * float(np.abs(b).max(initial=0.0))))
