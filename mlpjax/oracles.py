"""Derivatives of a function that know nothing of its hand-derived ones: autodiff, differences, the complex step.

Every oracle looks at a `Target`, a vector function ``F(leaves) -> (K,)`` of a few arrays, which together are one
flat vector ``x (N,)``. Reverse mode gives all of ∂F/∂x; the others look along `Probes`: lines ``x + t v`` where v is
one coordinate or, for large arrays, random signs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 2.0 ** -np.arange(4, 21, 2)
"""The sweep of the differences, in units of the scale of what is stepped: 0.06 down to 1e-6."""
_COMPLEX_STEP = 2.0**-100
_CHUNK = 2**22
"""Numbers in memory at a time, for the points that are evaluated together."""
_ROWS = 512
"""Points that are evaluated together: always as many, so that another function of these shapes compiles less."""


class Target(NamedTuple):
    """The function and the point: ``F(leaves) -> (K,)`` at ``x (N,)``, and ``rounding (K,)``, its error by rounding.

    ``split`` cuts the last axis of a flat array into the leaves. ``jit`` compiles every oracle as a whole, which pays
    for one function; without it many functions of the same shapes share what is compiled, operation by operation.
    ``footprint`` is the largest array that F makes.
    """

    F: Callable[[list[Any]], jax.Array]
    x: np.ndarray
    rounding: np.ndarray
    split: Callable[[np.ndarray], list[np.ndarray]] = lambda x: [x]
    jit: bool = False
    footprint: int = 1

    def leaves(self, x: np.ndarray) -> list[jax.Array]:
        """The leaves of a flat array ``(…, N)``, on the device."""
        return [jnp.asarray(leaf) for leaf in self.split(x)]

    def at(self, x: np.ndarray) -> np.ndarray:
        """F at a flat vector."""
        return np.asarray(self.F(self.leaves(x)), np.float64)


class Probes(NamedTuple):
    """Lines along which derivatives are taken: n of them.

    ``at (n,)`` is the coordinate that moves, or −1 − p for direction p; ``scale (n,)`` is the length of a step of
    1; ``directions`` are ``(start, v)``: v moves ``x[start : start + len(v)]``.
    """

    at: np.ndarray
    scale: np.ndarray
    directions: tuple[tuple[int, np.ndarray], ...] = ()

    def take(self, which: np.ndarray) -> Probes:
        """Choose some of the probes, by their numbers or a mask."""
        return Probes(self.at[which], self.scale[which], self.directions)

    def dot(self, g: np.ndarray) -> np.ndarray:
        """⟨g, v⟩ of each probe: ``(K, N) -> (K, n)``."""
        out = g[:, np.maximum(self.at, 0)]
        for r in np.flatnonzero(self.at < 0):
            start, v = self.directions[-1 - self.at[r]]
            out[:, r] = g[:, start : start + len(v)] @ v
        return out

    def length(self) -> np.ndarray:
        """√(coordinates that move), ``(n,)``: how independent errors of the coordinates add up."""
        return np.sqrt([1.0 if at >= 0 else float(len(self.directions[-1 - at][1])) for at in self.at])

    def add(self, rows: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Add ``t v`` to the rows ``(n, N)``, one row per probe, in place."""
        single = np.flatnonzero(self.at >= 0)
        rows[single, self.at[single]] += t[single]
        for r in np.flatnonzero(self.at < 0):
            start, v = self.directions[-1 - self.at[r]]
            rows[r, start : start + len(v)] += t[r] * v
        return rows


class Differences(NamedTuple):
    """Central differences at the best step of each probe, each ``(K, n)``.

    ``error`` bounds truncation and rounding at that step, and is infinite where no step gave a finite value;
    ``jump`` is the difference of the one-sided derivatives, 0 up to rounding unless a step crosses a kink.
    """

    value: np.ndarray
    error: np.ndarray
    jump: np.ndarray


def footprint(F: Callable[[list[Any]], jax.Array], leaves: list[Any]) -> int:
    """The size of the largest array that F makes of one point.

    >>> footprint(lambda v: jnp.sum(v[0][:, None] * v[0][None, :]), [np.ones(3, np.float32)])
    9
    """

    def largest(jaxpr: Any) -> int:
        sizes = [math.prod(variable.aval.shape) for eqn in jaxpr.eqns for variable in eqn.outvars]
        inner = [largest(value.jaxpr) for eqn in jaxpr.eqns for value in eqn.params.values() if hasattr(value, "jaxpr")]
        return max([1, *sizes, *inner])

    return largest(jax.make_jaxpr(F)(leaves))


def reverse(target: Target) -> np.ndarray:
    """∂F_k/∂x by reverse mode, ``(K, N)``.

    >>> reverse(Target(lambda v: jnp.sum(v[0] * v[0])[None], np.array([1.0, 3.0], np.float32), np.zeros(1)))
    array([[2., 6.]], dtype=float32)
    """

    def jacobian(leaves: list[jax.Array]) -> list[list[jax.Array]]:
        out, pull = jax.vjp(target.F, leaves)
        return [pull(jnp.asarray(row, out.dtype))[0] for row in np.eye(len(target.rounding))]

    rows = (jax.jit(jacobian) if target.jit else jacobian)(target.leaves(target.x))
    return np.stack([np.concatenate([np.ravel(np.asarray(leaf)) for leaf in row]) for row in rows])


def forward(target: Target, probes: Probes, offset: float = 0.0) -> np.ndarray:
    """dF/dt along each probe by forward mode, at ``x + offset · scale · v``; ``(K, n)``.

    >>> target = Target(lambda v: jnp.sum(v[0] * v[0])[None], np.array([1.0, 3.0], np.float32), np.zeros(1))
    >>> forward(target, Probes(np.array([1]), np.ones(1)))
    array([[6.]], dtype=float32)
    """

    def along(leaves: list[jax.Array], v: list[jax.Array]) -> jax.Array:
        return jax.jvp(target.F, (leaves,), (v,))[1]

    def rows(which: np.ndarray) -> tuple[np.ndarray, ...]:
        part = probes.take(which)
        at = np.tile(target.x, (len(which), 1))
        v = part.add(np.zeros_like(at), np.ones(len(which)))
        return part.add(at, offset * part.scale), v

    return _evaluate(target, along, rows, len(probes.at)).T


def differences(target: Target, probes: Probes) -> Differences:
    """Central differences over the sweep `STEPS`, extrapolated once, at the step with the smallest own error.

    With D(h) = (F(x + hv) − F(x − hv))/2h, the value is R = (16 D(h/4) − D(h))/15, whose truncation is of order h⁴.
    Its error is judged by how R changes from step to step, and by the rounding of F over h. The one-sided quotients
    D₊, D₋ give the jump (4 J(h/4) − J(h))/3 of J = D₊ − D₋: it vanishes as h³ where F is smooth, and is the jump of
    the derivative where a step crosses a kink.

    >>> target = Target(lambda v: jnp.abs(v[0]), np.zeros(1, np.float32), np.array([1e-7]))
    >>> at_kink = differences(target, Probes(np.array([0]), np.ones(1)))
    >>> at_kink.value, at_kink.jump.round(3)
    (array([[0.]]), array([[2.]]))
    """
    x, n, K = target.x, len(probes.at), len(target.rounding)
    # every step to both sides of every probe, in one sweep
    h = np.concatenate([STEPS, -STEPS])
    every = probes.take(np.tile(np.arange(n), len(h)))
    t = np.repeat(h, n) * every.scale
    sides = _evaluate(target, target.F, _displaced(x, every, t), len(t)).T.reshape(K, 2, len(STEPS), n)
    values = np.moveaxis(sides, 1, 0).astype(np.float64)
    centre = target.at(x)[:, None, None]
    # the step that was taken, after rounding
    single = x[np.maximum(every.at, 0)]
    taken = np.where(every.at >= 0, (single + t).astype(x.dtype) - single, t)
    spans = taken.reshape(2, len(STEPS), n)
    with np.errstate(invalid="ignore", over="ignore"):
        D = (values[0] - values[1]) / (spans[0] - spans[1])
        R = (16 * D[:, 1:] - D[:, :-1]) / 15
        J = (values[0] - centre) / spans[0] - (values[1] - centre) / spans[1]
        jump = np.abs(4 * J[:, 1:] - J[:, :-1])[:, 1:-1] / 3
        change = np.abs(np.diff(R, axis=1))
        error = np.maximum(change[:, :-1], change[:, 1:]) + target.rounding[:, None, None] / spans[0, 2:-1]
        total = error + jump / 2
    total = np.where(np.isfinite(total), total, np.inf)
    best = np.argmin(total, axis=1)[:, None]
    unknown = np.isinf(np.take_along_axis(total, best, axis=1)[:, 0])

    def chosen(a: np.ndarray, otherwise: float) -> np.ndarray:
        return np.where(unknown, otherwise, np.take_along_axis(a, best, axis=1)[:, 0])

    return Differences(chosen(R[:, 1:-1], 0), chosen(error, np.inf), chosen(jump, 0))


def complex_step(target: Target, probes: Probes) -> np.ndarray:
    """Im F(x + iεv)/ε with ε = 2⁻¹⁰⁰, exact to rounding where F is analytic; ``(K, n)``.

    Whatever F raises for complex numbers (for an operation without them, or an imaginary part thrown away) passes.
    Source: Squire & Trapp 1998.

    >>> target = Target(lambda v: v[0] ** 3, np.array([2.0], np.float32), np.zeros(1))
    >>> complex_step(target, Probes(np.array([0]), np.ones(1))).round(4)
    array([[12.]], dtype=float32)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = target.x.astype(np.result_type(target.x.dtype, np.complex64))
        rows = _displaced(x, probes, np.full(len(probes.at), _COMPLEX_STEP * 1j))
        return _evaluate(target, target.F, rows, len(probes.at)).imag.T / np.float32(_COMPLEX_STEP)


def _displaced(x: np.ndarray, probes: Probes, t: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    def rows(which: np.ndarray) -> tuple[np.ndarray, ...]:
        return (probes.take(which).add(np.tile(x, (len(which), 1)), t[which]),)

    return rows


def _evaluate(
    target: Target, f: Callable[..., jax.Array], rows: Callable[[np.ndarray], tuple[np.ndarray, ...]], n: int
) -> np.ndarray:
    """``f`` of n points, which ``rows(numbers)`` makes, a chunk at a time; ``(n, K)``."""
    size = max(1, min(_ROWS, _CHUNK // max(len(target.x), target.footprint)))
    batched: Any = jax.jit(jax.vmap(f)) if target.jit else jax.vmap(f)
    parts = []
    for start in range(0, n, size):
        which = np.minimum(np.arange(start, start + size), n - 1)
        parts.append(np.asarray(batched(*(target.leaves(row) for row in rows(which))))[: n - start])
    return np.concatenate(parts)
