"""Landscapes to descend: small functions with gradient and Hessian by hand, on which training is shown.

A point is ``theta (n,)``; n = 2 but for `bowl`. `trajectory` is the way of any optimiser down one of them.

Source: lecture, section *Alternatives to gradient descent*, its list of problems.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mlpjax.checks import check_count, check_number
from mlpjax.errors import InputError


class Landscape(NamedTuple):
    """A function and its derivatives by hand, with a usual start and where it is lowest.

    ``f(theta)`` is ``()``, ``df(theta)`` the gradient ``(n,)``, ``ddf(theta)`` the Hessian ``(n, n)``;
    ``minimum`` is ``None`` for a function without one.
    """

    f: Callable[[jax.Array], jax.Array]
    df: Callable[[jax.Array], jax.Array]
    ddf: Callable[[jax.Array], jax.Array]
    start: tuple[float, ...]
    minimum: tuple[float, ...] | None


def bowl(eigenvalues: Sequence[float]) -> Landscape:
    """½ Σ_d λ_d θ_d²: a bowl whose Hessian has the eigenvalues λ, a ravine where they differ much.

    With λ_d the share of examples that have feature d alone, it is the cost of learning sparse features.
    Source: ``train-problem-per-param``.

    Raises:
        InputError: if an eigenvalue is not finite and positive, or there is none.

    >>> ravine = bowl((1.0, 50.0))
    >>> ravine.f(jnp.array([2.0, 1.0])), ravine.df(jnp.array([2.0, 1.0]))
    (Array(27., dtype=float32), Array([ 2., 50.], dtype=float32))
    """
    curvature = tuple(float(value) for value in eigenvalues)
    if not curvature or not all(0 < value < math.inf for value in curvature):
        raise InputError(f"eigenvalues are {eigenvalues!r}: expected finite numbers > 0, one per dimension")
    return Landscape(
        f=lambda theta: jnp.sum(jnp.asarray(curvature, theta.dtype) * theta * theta) / 2,
        df=lambda theta: jnp.asarray(curvature, theta.dtype) * theta,
        ddf=lambda theta: jnp.diag(jnp.asarray(curvature, theta.dtype)),
        start=(1.0,) * len(curvature),
        minimum=(0.0,) * len(curvature),
    )


def saddle(theta: jax.Array) -> jax.Array:
    """f(x, y) = x² − y²: up along x, down along y, flat at (0, 0). Source: ``train-problem-nonconvex``.

    >>> saddle(jnp.array([2.0, 1.0]))
    Array(3., dtype=float32)
    """
    x, y = theta
    return x * x - y * y


def saddle_gradient(theta: jax.Array) -> jax.Array:
    """(2x, −2y). Source: ``train-problem-nonconvex``.

    >>> saddle_gradient(jnp.array([2.0, 1.0]))
    Array([ 4., -2.], dtype=float32)
    """
    x, y = theta
    return jnp.stack([2 * x, -2 * y])


def saddle_hessian(theta: jax.Array) -> jax.Array:
    """diag(2, −2) everywhere: a negative eigenvalue is what makes it a saddle.

    >>> saddle_hessian(jnp.array([2.0, 1.0])).tolist()
    [[2.0, 0.0], [0.0, -2.0]]
    """
    return jnp.diag(jnp.asarray([2, -2], theta.dtype))


def rosenbrock(theta: jax.Array) -> jax.Array:
    """f(x, y) = (1 − x)² + 100 (y − x²)²: a bent valley, lowest at (1, 1) (Rosenbrock 1960).

    >>> rosenbrock(jnp.array([-1.0, 1.0]))
    Array(4., dtype=float32)
    """
    x, y = theta
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def rosenbrock_gradient(theta: jax.Array) -> jax.Array:
    """(−2(1 − x) − 400 x (y − x²), 200 (y − x²)).

    >>> rosenbrock_gradient(jnp.array([-1.0, 1.0]))
    Array([-4.,  0.], dtype=float32)
    """
    x, y = theta
    off = y - x * x
    return jnp.stack([-2 * (1 - x) - 400 * x * off, 200 * off])


def rosenbrock_hessian(theta: jax.Array) -> jax.Array:
    """[[2 − 400 (y − 3x²), −400 x], [−400 x, 200]].

    >>> rosenbrock_hessian(jnp.array([1.0, 1.0])).tolist()
    [[802.0, -400.0], [-400.0, 200.0]]
    """
    x, y = theta
    return jnp.stack([jnp.stack([2 - 400 * (y - 3 * x * x), -400 * x]), jnp.stack([-400 * x, 200 * jnp.ones_like(x)])])


_BEALE = (1.5, 2.25, 2.625)
"""The constants c_k of `beale`."""


def beale(theta: jax.Array) -> jax.Array:
    """f(x, y) = Σ_k r_k², r_k = c_k − x(1 − y^k), c = (1.5, 2.25, 2.625): plateaus, lowest at (3, ½) (Beale 1958).

    >>> beale(jnp.array([3.0, 0.5])), beale(jnp.array([0.0, 0.0]))
    (Array(0., dtype=float32), Array(14.203125, dtype=float32))
    """
    x, y = theta
    return sum(((c - x * (1 - y**k)) ** 2 for k, c in enumerate(_BEALE, 1)), jnp.zeros_like(x))


def beale_gradient(theta: jax.Array) -> jax.Array:
    """(−2 Σ_k r_k (1 − y^k), 2 Σ_k r_k x k y^(k−1)).

    >>> beale_gradient(jnp.array([0.0, 0.0]))
    Array([-12.75,   0.  ], dtype=float32)
    """
    x, y = theta
    dx = dy = jnp.zeros_like(x)
    for k, c in enumerate(_BEALE, 1):
        r = c - x * (1 - y**k)
        dx = dx - 2 * r * (1 - y**k)
        dy = dy + 2 * r * x * k * y ** (k - 1)
    return jnp.stack([dx, dy])


def beale_hessian(theta: jax.Array) -> jax.Array:
    """With u = 1 − y^k, s = x k y^(k−1): Σ_k 2 [[u², r k y^(k−1) − u s], [·, s² + r x k(k−1) y^(k−2)]].

    >>> beale_hessian(jnp.array([0.0, 0.0])).tolist()
    [[6.0, 3.0], [3.0, 0.0]]
    """
    x, y = theta
    dxx = dxy = dyy = jnp.zeros_like(x)
    for k, c in enumerate(_BEALE, 1):
        u, slope = 1 - y**k, k * y ** (k - 1)
        r, s = c - x * u, x * slope
        bend = k * (k - 1) * y ** (k - 2) if k > 1 else 0.0
        dxx = dxx + 2 * u * u
        dxy = dxy + 2 * (r * slope - u * s)
        dyy = dyy + 2 * (s * s + r * x * bend)
    return jnp.stack([jnp.stack([dxx, dxy]), jnp.stack([dxy, dyy])])


LANDSCAPES: dict[str, Landscape] = {
    "ravine": bowl((1.0, 50.0))._replace(start=(10.0, 1.0)),
    "saddle": Landscape(saddle, saddle_gradient, saddle_hessian, (1.0, 1e-6), None),
    "rosenbrock": Landscape(rosenbrock, rosenbrock_gradient, rosenbrock_hessian, (-1.2, 1.0), (1.0, 1.0)),
    "beale": Landscape(beale, beale_gradient, beale_hessian, (1.0, 1.0), (3.0, 0.5)),
}
"""The landscapes by name."""


def trajectory(
    landscape: Landscape, optimizer: optax.GradientTransformation, steps: int, start: Any = None
) -> jax.Array:
    """Take ``steps`` steps of an optimiser with the gradient by hand; the path ``(steps + 1, n)`` with its start.

    A path that diverges goes on to infinity or NaN. Source: ``train-problem-nonconvex``, ``train-problem-lr``.

    Raises:
        InputError: if ``start`` has not the landscape's dimension, or ``steps`` is below 1.

    >>> path = trajectory(bowl((1.0, 4.0)), optax.sgd(0.25), 2)
    >>> path.tolist()
    [[1.0, 1.0], [0.75, 0.0], [0.5625, 0.0]]
    """
    check_count("steps", steps)
    theta = jnp.asarray(landscape.start if start is None else start, jnp.result_type(float))
    if theta.shape != (len(landscape.start),):
        raise InputError(f"start has shape {theta.shape}: expected ({len(landscape.start)},)")

    def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], jax.Array]:
        theta, memory = carry
        updates, memory = optimizer.update(landscape.df(theta), memory, theta)
        theta = theta + updates
        return (theta, memory), theta

    _, path = jax.lax.scan(step, (theta, optimizer.init(theta)), length=steps)
    return jnp.concatenate([theta[None, :], path])


def newton_step(landscape: Landscape, theta: jax.Array) -> jax.Array:
    """θ − H⁻¹ g, Newton's step: the point where the local parabola is flat; ``(n,) → (n,)``.

    One step is enough on a `bowl`. What is flat may be a saddle or a maximum: Newton is drawn to those as well.
    Source: ``train-second-order``.

    >>> newton_step(bowl((1.0, 50.0)), jnp.array([10.0, 1.0])).tolist()
    [0.0, 0.0]
    """
    return theta - jnp.linalg.solve(landscape.ddf(theta), landscape.df(theta))


def steps_to_leave_saddle(y: float, lr: float, distance: float = 1.0) -> float:
    """How many steps of gradient descent on `saddle` until |y| ≥ ``distance``; infinite from y = 0.

    Each step multiplies y by 1 + 2α, so it takes ⌈log(distance/|y|)/log(1 + 2α)⌉.
    Source: ``train-problem-nonconvex``.

    Raises:
        InputError: if ``lr`` or ``distance`` is not finite and positive.

    >>> steps_to_leave_saddle(1e-6, 0.05), steps_to_leave_saddle(0.0, 0.05)
    (145, inf)
    """
    check_number("lr", lr, positive=True)
    check_number("distance", distance, positive=True)
    if y == 0:
        return math.inf
    return max(0, math.ceil(math.log(distance / abs(y)) / math.log1p(2 * lr)))
