"""Risk and empirical risk, the gradient as a direction, gradient descent, and what a non-convex objective is.

The **loss** is of one example, the **risk** its expectation over p(x, y), the **empirical risk** (the cost J) its mean
over examples that were drawn from p. Here p is a `LinearWorld`, where the risk is known in closed form, so that what
the empirical risk estimates can be seen.

Source: lecture, section *Empirical Risk Minimisation*.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mlpjax.checks import check_count, check_number
from mlpjax.errors import DataError, InputError
from mlpjax.heads import squared_error
from mlpjax.parameters import Params


class LinearWorld(NamedTuple):
    """A known p(x, y): x ~ N(0, Σ), y = x·θ* + ε with ε ~ N(0, σ²) independent of x.

    ``theta (n,)`` is θ*, ``covariance (n, n)`` is Σ = E[x xᵀ], ``noise`` is σ. Source: ``erm-risk``.
    """

    theta: np.ndarray
    covariance: np.ndarray
    noise: float


def draw(world: LinearWorld, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw m examples of a world: ``x (m, n)`` and ``y (m,)``, float64.

    Raises:
        InputError: m is no integer ≥ 1, or the world is not one: shapes, Σ symmetric and without negative
            eigenvalues, σ ≥ 0, all finite.

    Source: ``erm-risk``, ``prob-reg-gaussian``.

    >>> x, y = draw(LinearWorld(np.array([1.0, 2.0]), np.eye(2), 0.0), 5, seed=0)
    >>> np.allclose(y, x @ [1, 2])
    True
    """
    _check_world(world)
    check_count("m", m)
    rng = np.random.default_rng(seed)
    eigenvalues, Q = np.linalg.eigh(world.covariance)
    x = rng.normal(size=(m, len(Q))) @ (Q * np.sqrt(np.maximum(eigenvalues, 0.0))).T
    return x, x @ world.theta + world.noise * rng.normal(size=m)


def risk(world: LinearWorld, theta: Any) -> float:
    """R(θ) = E[½ (x·θ − y)²] = ½ (σ² + (θ − θ*)ᵀ Σ (θ − θ*)), of the linear model x·θ; at least ½ σ².

    Raises:
        InputError: for a world as in `draw`, and a θ that is not ``(n,)``.

    Source: ``erm-risk``, ``err-risk-vs-loss``.

    >>> risk(LinearWorld(np.array([1.0, 2.0]), np.eye(2), 1.0), [1.0, 5.0])
    5.0
    """
    _check_world(world)
    if np.shape(theta) != np.shape(world.theta):
        raise InputError(f"theta has shape {np.shape(theta)}: expected {np.shape(world.theta)}, as the world's")
    off = np.asarray(theta, np.float64) - world.theta
    return float(world.noise**2 + off @ world.covariance @ off) / 2


def empirical_risk(theta: ArrayLike, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """R̂(θ) = (1/m) Σᵢ ½ (xᵢ·θ − yᵢ)², the mean loss of the examples ``x (m, n)``, ``y (m,)``.

    On m examples drawn from a world it is a Monte Carlo estimate of the `risk`, with an error like 1/√m, as long as
    θ does not depend on them. Source: ``erm-empirical``, ``err-risk-vs-loss``.

    >>> empirical_risk(jnp.array([1.0]), jnp.array([[1.0], [2.0]]), jnp.array([0.0, 2.0]))
    Array(0.25, dtype=float32)
    """
    z, y = jnp.asarray(x) @ jnp.asarray(theta), jnp.asarray(y)
    return jnp.mean(squared_error(z[:, None], y[:, None]))


def minimise_empirical_risk(x: Any, y: Any) -> np.ndarray:
    """θ̂ ``(n,)``, the minimiser of R̂ over ``x (m, n)``, ``y (m,)``: least squares, the shortest where many minimise.

    The empirical risk of the examples that chose θ̂ is too low, on average by σ² n/m against the risk of θ̂ (to first
    order): choose on the training part alone. Raises `DataError` for other shapes.
    Source: ``erm-split``, ``err-fit-on-test``.

    >>> minimise_empirical_risk(np.array([[1.0], [2.0]]), np.array([1.0, 2.0]))
    array([1.])
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.shape != (len(x),) or len(x) == 0:
        raise DataError(f"x has shape {x.shape} and y {y.shape}: expected (m, n) and (m,), with m >= 1")
    return np.asarray(np.linalg.lstsq(x, y, rcond=None)[0])


def steepest_ascent(gradient: Any) -> tuple[np.ndarray, float]:
    """The unit vector u = g/‖g‖ along which a function grows the fastest, and how fast: g·u = ‖g‖.

    By Cauchy and Schwarz g·u ≤ ‖g‖ for every unit u. Raises `InputError` for g = 0, where no direction is the
    steepest, and a g that is no finite vector. Source: ``erm-steepest-ascent``.

    >>> steepest_ascent([3.0, -4.0])
    (array([ 0.6, -0.8]), 5.0)
    """
    g = np.asarray(gradient, np.float64)
    if g.ndim != 1 or not np.isfinite(g).all() or not g.any():
        raise InputError(f"the gradient is {g}: expected a finite vector (n,) that is not 0")
    # scaled first: the square of a small number may be 0
    largest = np.max(np.abs(g))
    length = largest * np.linalg.norm(g / largest)
    return g / length, float(length)


def gradient_descent(gradient: Callable[[Any], Any], theta: Any, alpha: float, steps: int) -> Any:
    """θ ← θ − α ∂L/∂θ, so many steps: all θ on the way.

    Args:
        gradient: θ ↦ ∂L/∂θ, in JAX, such as ``jax.grad(L)``; it returns the tree of θ.
        theta: where to start, any tree of arrays.
        alpha: the learning rate; see `largest_stable_step` for how large it may be.
        steps: how many.

    Returns:
        The tree of θ, every leaf with a first axis of ``steps + 1``; the start is its first entry.

    Raises:
        InputError: for an α that is not finite and positive, a count below 1, and a gradient of another tree or
            other shapes than θ.

    Source: ``erm-gd-step``.

    >>> gradient_descent(lambda theta: 2 * theta, jnp.array(1.0), 0.25, 3)  # of θ²
    Array([1.   , 0.5  , 0.25 , 0.125], dtype=float32)
    """
    check_count("steps", steps)
    check_number("alpha", alpha, positive=True)
    dtype = jnp.result_type(float)
    theta = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf, dtype)), theta)
    expected, got = (jax.tree.map(jnp.shape, tree) for tree in (theta, jax.eval_shape(gradient, theta)))
    if got != expected:
        raise InputError(f"the gradient has the shapes {got}: expected those of theta, {expected}")
    return _descend(gradient, theta, jnp.asarray(alpha, dtype), steps)


def largest_stable_step(hessian: Any) -> float:
    """2/λ_max: gradient descent on ½ θᵀ H θ converges for every α below it, and diverges above.

    Along an eigenvector the error is multiplied by 1 − αλ, which is below 1 in size only for 0 < αλ < 2.

    Raises:
        InputError: H is not symmetric, not finite, or has no positive eigenvalue.

    Source: ``erm-gd-step``, ``train-problem-lr``.

    >>> largest_stable_step(np.diag([1.0, 10.0]))
    0.2
    """
    H = np.asarray(hessian, np.float64)
    if H.ndim != 2 or H.shape[0] != H.shape[1] or not np.isfinite(H).all() or not np.allclose(H, H.T):
        raise InputError(f"hessian has shape {H.shape}: expected a finite symmetric matrix (n, n)")
    largest = float(np.linalg.eigvalsh(H)[-1])
    if largest <= 0:
        raise InputError(f"the largest eigenvalue of the hessian is {largest:g}: without a positive one nothing curves")
    return 2 / largest


def convexity_gap(f: Callable[[Any], Any], a: Any, b: Any) -> float:
    """f((a + b)/2) − ½ (f(a) + f(b)): at most 0 if f is convex, so that one positive value proves that it is not.

    ``a`` and ``b`` are trees of one structure, f is a scalar. Source: ``erm-issue-nonconvex``, ``err-nonconvex-in``.

    >>> convexity_gap(lambda t: t**2, 0.0, 2.0), convexity_gap(lambda t: -(t**2), 0.0, 2.0)
    (-1.0, 1.0)
    """
    middle = jax.tree.map(lambda u, v: (u + v) / 2, a, b)
    return float(f(middle) - (f(a) + f(b)) / 2)


def permute_hidden(params: Params, l: int, order: Sequence[int]) -> Params:
    """The same network with the units of hidden layer l (1 … L − 1) in another order: unit k is ``order[k]`` of before.

    The columns of W[l] and its vectors are reordered, and with them the rows of W[l+1], so that every output stays:
    each J comes at least n_l! times. With batch-norm the state of the layer has to be reordered too.

    Raises:
        InputError: there is no hidden layer l, or ``order`` is no permutation of its units.

    Source: ``erm-issue-nonconvex``.

    >>> params, state = mlpjax.init(mlpjax.Config(sizes=(2, 3, 2)), jax.random.key(0))
    >>> other = permute_hidden(params, 1, [2, 0, 1])
    >>> bool((other[0].W[:, 0] == params[0].W[:, 2]).all()), bool((other[1].W[0] == params[1].W[2]).all())
    (True, True)
    """
    if not 1 <= l < len(params):
        raise InputError(f"l is {l}: expected a hidden layer, 1 to {len(params) - 1}")
    n_l = params[l - 1].W.shape[1]
    at = np.asarray(order)
    if sorted(at.tolist()) != list(range(n_l)):
        raise InputError(f"order is {at.tolist()}: expected a permutation of 0 to {n_l - 1}")
    layer = jax.tree.map(lambda leaf: leaf[..., at], params[l - 1])
    after = params[l]._replace(W=params[l].W[at])
    return (*params[: l - 1], layer, after, *params[l + 1 :])


@functools.partial(jax.jit, static_argnames=("gradient", "steps"))
def _descend(gradient: Callable[[Any], Any], theta: Any, alpha: jax.Array, steps: int) -> Any:
    def step(theta: Any, _: None) -> tuple[Any, Any]:
        new = jax.tree.map(lambda leaf, g: leaf - (alpha * g).astype(leaf.dtype), theta, gradient(theta))
        return new, new

    _, path = jax.lax.scan(step, theta, length=steps)
    return jax.tree.map(lambda start, rest: jnp.concatenate([start[None], rest]), theta, path)


def _check_world(world: LinearWorld) -> None:
    theta, covariance = np.asarray(world.theta), np.asarray(world.covariance)
    if theta.ndim != 1 or covariance.shape != (theta.size, theta.size):
        raise InputError(f"theta has shape {theta.shape} and covariance {covariance.shape}: expected (n,) and (n, n)")
    if not (np.isfinite(theta).all() and np.isfinite(covariance).all() and 0 <= world.noise < math.inf):
        raise InputError(f"theta, covariance and noise (which is {world.noise}) are to be finite, and noise >= 0")
    if (
        not np.allclose(covariance, covariance.T)
        or np.linalg.eigvalsh(covariance)[0] < -1e-9 * np.abs(covariance).max()
    ):
        raise InputError("covariance is not one: expected a symmetric matrix without negative eigenvalues")
