"""The parts of a solver's step: a line search, damping by the gain ratio, and conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.solver_loop import DAMPING, FORWARD_WORK, NO_DESCENT, RUNNING, Move, Point

_HALVINGS = 30
_ARMIJO = 1e-4
"""The share of the decrease promised by the model that a step must bring."""

_TRIALS = 16
"""How many λ are tried in one step: λ, 2λ, 2·4λ, … up to 2¹²⁰ λ."""


class Solved(NamedTuple):
    """δ for a damping λ, the residual −g − (B + λI) δ, and the work that took."""

    delta: jax.Array
    residual: jax.Array
    work: jax.Array


def backtrack(
    value: Callable[[jax.Array], jax.Array],
    point: Point,
    direction: jax.Array,
    curvature: jax.Array,
    memory: Any,
) -> Move:
    """θ + t d with the first t of 1, ½, ¼, … for which J falls by 1e-4 of t gᵀd + ½ t² min(dᵀHd, 0), up to rounding.

    ``curvature`` is dᵀHd; where it is negative it may lead down although gᵀd = 0. ``memory`` is passed on.
    """
    slope, bend = point.g @ direction, jnp.minimum(curvature, 0)
    rounding = 4 * jnp.finfo(point.J.dtype).eps * jnp.abs(point.J)

    def rises(trial: tuple[jax.Array, jax.Array]) -> jax.Array:
        halvings, J = trial
        t = 0.5**halvings
        return ~(-_ARMIJO * t * (slope + t * bend / 2) - rounding <= point.J - J)

    def halve(trial: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        halvings = trial[0] + 1
        return halvings, value(point.theta + 0.5**halvings * direction)

    zero = jnp.zeros_like(point.J)
    halvings, J = jax.lax.while_loop(
        lambda trial: rises(trial) & (trial[0] < _HALVINGS), halve, (zero, value(point.theta + direction))
    )
    t = 0.5**halvings
    code = jnp.where(rises((halvings, J)), NO_DESCENT, RUNNING).astype(jnp.int32)
    return Move(point.theta + t * direction, t, FORWARD_WORK * (halvings + 1), memory, code)


class _Conjugate(NamedTuple):
    """What conjugate gradients carry: x, b − B x, the direction, the products so far, and whether dᵀBd ≤ 0 was met."""

    x: jax.Array
    r: jax.Array
    d: jax.Array
    k: jax.Array
    negative: jax.Array


def conjugate_gradient(
    product: Callable[[jax.Array], jax.Array], b: jax.Array, tolerance: jax.Array, max_products: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Solve B x = b for a symmetric B, given v ↦ B v: returns x, the residual b − B x, and the number of products.

    It stops when ‖b − B x‖ ≤ ``tolerance``, and where it meets a direction d with dᵀBd ≤ 0: with x so far, or, when
    that is the first, with the x along b that the curvature's absolute value asks for. So xᵀb > 0 in any case.

    Source: Nocedal & Wright 2006, algorithm 7.1.

    >>> B = jnp.array([[2.0, 0.0], [0.0, 4.0]])
    >>> conjugate_gradient(lambda v: B @ v, jnp.array([2.0, 4.0]), 1e-6, 10)[0].round(4)
    Array([1., 1.], dtype=float32)
    """

    def body(carry: _Conjugate) -> _Conjugate:
        x, r, d, k, _ = carry
        Bd = product(d)
        curvature, square = d @ Bd, r @ r
        negative = ~(curvature > 0)
        alpha = jnp.where(curvature == 0, 1, square / jnp.where(curvature == 0, 1, jnp.abs(curvature)))
        alpha = jnp.where(negative & (k > 0), 0, alpha)
        r_new = r - alpha * Bd
        return _Conjugate(x + alpha * d, r_new, r_new + (r_new @ r_new) / square * d, k + 1, negative)

    def goes_on(carry: _Conjugate) -> jax.Array:
        return (jnp.linalg.norm(carry.r) > tolerance) & (carry.k < max_products) & ~carry.negative

    start = _Conjugate(jnp.zeros_like(b), b, b, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    end = jax.lax.while_loop(goes_on, body, start)
    return end.x, end.r, end.k


class _Trial(NamedTuple):
    """A trial of `damped`: θ + δ, its gain ratio, the next λ and the λ used, how λ grows, and what was spent."""

    theta: jax.Array
    gain: jax.Array
    damping: jax.Array
    used: jax.Array
    growth: jax.Array
    tries: jax.Array
    work: jax.Array


def damped(
    value: Callable[[jax.Array], jax.Array],
    point: Point,
    solve: Callable[[jax.Array], Solved],
    damping: jax.Array,
) -> Move:
    """θ + δ with (B + λI) δ = −g, for a symmetric B ⪰ 0 that stands for the curvature, and λ by the gain ratio ρ.

        ρ = (J(θ) − J(θ + δ)) / (−gᵀδ − ½ δᵀB δ)

    is what was gained to what B foretold. ρ > 0: the step is taken, and λ ← λ max(⅓, 1 − (2ρ − 1)³) is remembered.
    Otherwise λ grows by 2, then 4, 8, …, and the step is solved for again. Source: Nielsen 1999.
    """
    eps = jnp.finfo(point.J.dtype).eps
    rounding = 4 * eps * jnp.abs(point.J)

    def attempt(trial: _Trial) -> _Trial:
        delta, residual, work = solve(trial.damping)
        foretold = (delta @ (residual - point.g) + trial.damping * (delta @ delta)) / 2
        # near the end a good step may gain less than J is rounded; a shorter one must show its gain
        slack = jnp.where(trial.tries == 0, rounding, 0)
        gain = (point.J - value(point.theta + delta) + slack) / (foretold + slack)
        easier = jnp.maximum(trial.damping * jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3), eps**2)
        return _Trial(
            point.theta + delta,
            gain,
            jnp.where(gain > 0, easier, trial.damping * trial.growth),
            trial.damping,
            trial.growth * 2,
            trial.tries + 1,
            trial.work + FORWARD_WORK + work,
        )

    zero = jnp.zeros_like(point.J)
    start = _Trial(point.theta, zero, damping, damping, zero + 2, jnp.zeros((), jnp.int32), zero)
    end = jax.lax.while_loop(lambda trial: ~(trial.gain > 0) & (trial.tries < _TRIALS), attempt, start)
    code = jnp.where(end.gain > 0, RUNNING, DAMPING).astype(jnp.int32)
    return Move(end.theta, end.used, end.work, end.damping, code)


def forcing(norm: jax.Array) -> jax.Array:
    """η ‖g‖ with η = min(½, √‖g‖), the residual to which conjugate gradients solve: coarse at first, then exact.

    >>> forcing(jnp.array([0.25, 4.0]))
    Array([0.125, 2.   ], dtype=float32)
    """
    return jnp.minimum(0.5, jnp.sqrt(norm)) * norm
