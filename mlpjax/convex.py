"""Minimise the convex cost of a linear model: gradient descent, and Newton's method with step halving.

    gradient descent:  θ ← θ − α g                                                   g = ∂J/∂θ
    Newton:            θ ← θ − t H⁻¹ g,  t = 1, ½, ¼, … until J falls enough         H = ∂²J/∂θ²

Near the optimum t = 1, and each Newton step doubles the number of right digits. The loops are here once;
`mlpjax.logistic` and `mlpjax.softmax_regression` give them their J, g and H.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_count, check_number

Reason = Literal["gradient", "separable", "precision", "max_steps"]

MESSAGES: dict[Reason, str] = {
    "gradient": "the gradient norm is at most tol: this is the optimum",
    "separable": "a hyperplane separates the classes, so J has no finite optimum: it falls for ever as the weights "
    "grow; give l2 > 0, or take the parameters for their boundary only",
    "precision": "the gradient norm is above tol, but the dtype cannot resolve a further step: raise tol, or compute "
    "in float64 (JAX_ENABLE_X64=1)",
    "max_steps": "the gradient norm is above tol after max_steps: raise max_steps",
}
"""Why Newton's method stopped, in words."""

_HALVINGS = 10
_ARMIJO = 1e-4
"""The share of the decrease promised by the slope that a step must bring."""

_Params = TypeVar("_Params")


class Newton(NamedTuple):
    """What a fit by Newton's method returns.

    ``w`` is ``(n,)`` or, in softmax regression, ``(n, K)``; ``b`` is ``()`` or ``(K,)``. ``costs`` and
    ``gradient_norms`` ``(steps + 1,)`` are J and ‖(∂J/∂w, ∂J/∂b)‖ from the start to the end. ``reason`` is a key of
    `MESSAGES`; ``converged`` is true for ``"gradient"`` only.
    """

    w: jax.Array
    b: jax.Array
    costs: np.ndarray
    gradient_norms: np.ndarray
    steps: int
    reason: Reason
    converged: bool

    @property
    def message(self) -> str:
        """The reason in words."""
        return MESSAGES[self.reason]


class Descent(NamedTuple):
    """What a fit by gradient descent returns; fields as in `Newton`, with ``epochs + 1`` costs and norms."""

    w: jax.Array
    b: jax.Array
    costs: np.ndarray
    gradient_norms: np.ndarray


class Problem(NamedTuple):
    """A convex cost as functions of a flat θ (p,).

    ``cost(θ)`` is J; ``derivatives(θ)`` is (J, g (p,), H (p, p)); ``bound()`` (p, p) is a B with B − H(θ) ⪰ 0 for
    every θ. ``recession(θ)`` is (max_i lim L_i(sθ)/s, max_i spread of example i's scores) for s → ∞, or ``None``
    where a penalty makes sure that there is an optimum.
    """

    cost: Callable[[jax.Array], jax.Array]
    derivatives: Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
    bound: Callable[[], jax.Array]
    recession: Callable[[jax.Array], tuple[jax.Array, jax.Array]] | None


class Path(NamedTuple):
    """Where Newton's steps ended, J and ‖g‖ from the start to the end, and why they ended."""

    theta: jax.Array
    costs: list[float]
    gradient_norms: list[float]
    reason: Reason


def minimum_norm_solution(H: jax.Array, g: jax.Array) -> jax.Array:
    """H⁺g: the shortest d with H d = g, for a symmetric H ⪰ 0; a direction in which H is 0 is left alone.

    Eigenvalues up to p · eps · (the largest) count as 0. Where H is regular this is H⁻¹g.

    >>> minimum_norm_solution(jnp.ones((2, 2)), jnp.ones(2)).round(4)
    Array([0.5, 0.5], dtype=float32)
    """
    values, vectors = jnp.linalg.eigh(H)
    regular = values > jnp.maximum(len(g) * jnp.finfo(H.dtype).eps * jnp.max(values), 0)
    return vectors @ jnp.where(regular, (vectors.T @ g) / jnp.where(regular, values, 1), 0)


def minimise(problem: Problem, theta: jax.Array, *, tol: float, max_steps: int) -> Path:
    """Take Newton steps from ``theta`` until ‖g‖ ≤ ``tol``, or until there is a reason why that cannot be.

    A full step that does not lower J enough is halved, up to 10 times. Then, and where H misses a part of g because
    units are saturated, damped steps −(H + λB)⁺g are tried too, with the bound B on H: with λ = 1 it is sure that J
    falls, and λ = ¼, 1/16, … follow as long as J falls further. The better of the two is taken.

    Without a penalty J has no finite optimum exactly when it falls for ever along some direction: this is asked of
    θ itself at each step, and of the last Newton step. ``tol`` may be any number ≥ 0.

    >>> zero, one = jnp.zeros(1), jnp.ones((1, 1))
    >>> bowl = Problem(lambda t: t @ t / 2, lambda t: (t @ t / 2, t, one), lambda: one, None)
    >>> minimise(bowl, zero + 3, tol=0.0, max_steps=5)
    Path(theta=Array([0.], dtype=float32), costs=[4.5, 0.0], gradient_norms=[3.0, 0.0], reason='gradient')
    """
    costs: list[float] = []
    norms: list[float] = []
    while True:
        J, g, H = problem.derivatives(theta)
        costs.append(float(J))
        direction, slope, norm, missed = _newton_direction(H, g)
        norms.append(float(norm))
        reason = _reason(problem, theta, costs, norms, tol, max_steps)
        if reason is not None:
            break
        new, value, t = _halved(problem.cost, theta, direction, costs[-1], float(slope))
        if t < 1 or missed > norm / 2:
            damped, other = _damped(problem.cost, theta, H, problem.bound(), g)
            new = damped if other < value else new
        theta = new
    if problem.recession is not None and _recedes(problem.recession(direction), 1e-6):
        reason = "separable"
    return Path(theta, costs, norms, reason)


def fit_by_newton(
    problem: Problem,
    theta: jax.Array,
    unpack: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    *,
    tol: float,
    max_steps: int,
) -> Newton:
    """Fit by `minimise`; ``unpack(θ)`` is ``(w, b)``.

    Raises:
        InputError: ``tol`` is no finite number ≥ 0, or ``max_steps`` no count.

    >>> zero, one = jnp.zeros(2), jnp.eye(2)
    >>> bowl = Problem(lambda t: t @ t / 2, lambda t: (t @ t / 2, t, one), lambda: one, None)
    >>> fit_by_newton(bowl, zero + 3, lambda t: (t[1:], t[0]), tol=0.0, max_steps=5).steps
    1
    """
    check_number("tol", tol)
    check_count("max_steps", max_steps)
    path = minimise(problem, theta, tol=tol, max_steps=max_steps)
    costs, norms = np.array(path.costs), np.array(path.gradient_norms)
    return Newton(*unpack(path.theta), costs, norms, len(costs) - 1, path.reason, path.reason == "gradient")


def fit_by_descent(
    value_and_gradient: Callable[..., tuple[jax.Array, tuple[jax.Array, jax.Array]]],
    params: tuple[jax.Array, jax.Array],
    x: jax.Array,
    y: jax.Array,
    *,
    alpha: float,
    epochs: int,
    l2: float,
) -> Descent:
    """Fit by gradient descent from ``params``; ``value_and_gradient(params, x, y, l2)`` is J and its gradient.

    Raises:
        InputError: α is not finite and positive, l2 no finite number ≥ 0, or ``epochs`` no count.

    >>> bowl = lambda params, x, y, l2: (params[0] @ params[0] / 2, params)
    >>> start = jnp.array([4.0]), jnp.array(0.0)
    >>> fit_by_descent(bowl, start, jnp.ones(1), jnp.ones(1), alpha=0.5, epochs=2, l2=0.0).w
    Array([1.], dtype=float32)
    """
    check_number("alpha", alpha, positive=True)
    check_number("l2", l2)
    check_count("epochs", epochs)
    data = (x, y, jnp.asarray(l2, x.dtype))
    (w, b), costs, norms = _descend(
        params, data, jnp.asarray(alpha, x.dtype), value_and_gradient=value_and_gradient, epochs=int(epochs)
    )
    return Descent(w, b, np.asarray(costs), np.asarray(norms))


@functools.partial(jax.jit, static_argnames=("value_and_gradient", "epochs"))
def _descend(
    params: _Params,
    data: tuple[Any, ...],
    alpha: jax.Array,
    *,
    value_and_gradient: Callable[..., tuple[jax.Array, _Params]],
    epochs: int,
) -> tuple[_Params, jax.Array, jax.Array]:
    """θ ← θ − α ∂J/∂θ, ``epochs`` times; returns θ, and J and ‖g‖ before every update and at the end.

    ``value_and_gradient(params, *data)`` returns J and a gradient with the tree of ``params``.
    """

    def measured(params: _Params) -> tuple[_Params, tuple[jax.Array, jax.Array]]:
        J, g = value_and_gradient(params, *data)
        return g, (J, jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(g))))

    def body(params: _Params, _: None) -> tuple[_Params, tuple[jax.Array, jax.Array]]:
        g, report = measured(params)
        return jax.tree.map(lambda p, dp: p - alpha * dp, params, g), report

    params, (costs, norms) = jax.lax.scan(body, params, length=epochs)
    _, (J, norm) = measured(params)
    return params, jnp.append(costs, J), jnp.append(norms, norm)


@jax.jit
def _newton_direction(H: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """d = −H⁺g, the slope of J along it, ‖g‖, and ‖H d + g‖, the part of g that H misses."""
    direction = -minimum_norm_solution(H, g)
    return direction, direction @ g, jnp.linalg.norm(g), jnp.linalg.norm(H @ direction + g)


def _reason(
    problem: Problem, theta: jax.Array, costs: list[float], norms: list[float], tol: float, max_steps: int
) -> Reason | None:
    if problem.recession is not None and _recedes(problem.recession(theta), 0.0):
        return "separable"
    if norms[-1] <= tol:
        return "gradient"
    resolution = float(jnp.finfo(theta.dtype).eps) * abs(costs[-1])
    if len(norms) > 1 and norms[-1] >= norms[-2] and costs[-1] >= costs[-2] - resolution:
        return "precision"
    return "max_steps" if len(norms) > max_steps else None


def _recedes(recession: tuple[jax.Array, jax.Array], tolerance: float) -> bool:
    """Whether no loss grows along a direction that changes some score: J then falls along it for ever."""
    growth, spread = (float(value) for value in recession)
    return spread > 0 and growth <= tolerance * spread


def _halved(
    cost: Callable[[jax.Array], jax.Array], theta: jax.Array, direction: jax.Array, J: float, slope: float
) -> tuple[jax.Array, float, float]:
    """θ + t d with the first t of 1, ½, ¼, … that lowers J by Armijo's rule, up to rounding; J there, and t.

    If there is none, θ itself, J and 0.
    """
    rounding = 4 * float(jnp.finfo(theta.dtype).eps) * abs(J)
    for halving in range(_HALVINGS + 1):
        t = 0.5**halving
        new = theta + t * direction
        value = float(cost(new))
        if value <= J + _ARMIJO * t * slope + rounding:
            return new, value, t
    return theta, J, 0.0


def _damped(
    cost: Callable[[jax.Array], jax.Array], theta: jax.Array, H: jax.Array, bound: jax.Array, g: jax.Array
) -> tuple[jax.Array, float]:
    """θ − (H + λB)⁺g with the last λ of 1, ¼, 1/16, … before J rises again, and J there."""
    best, J, damping = theta, math.inf, 1.0
    while True:
        new = theta + _newton_direction(H + damping * bound, g)[0]
        value = float(cost(new))
        if not value < J:
            return best, J
        best, J, damping = new, value, damping / 4
