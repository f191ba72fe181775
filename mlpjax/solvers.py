"""Solvers for small networks on a full batch: Newton's method and Newton–CG; `mlpjax.gauss_newton` has a third.

    newton               θ ← θ − (|H| + λI)⁻¹ g       H = ∂²J/∂θ², all of it, by P products H v
    newton_cg            θ ← θ − t H̃⁻¹ g              by conjugate gradients, from products H v alone
    levenberg_marquardt  θ ← θ − (G + λI)⁻¹ g         G = Σ pᵢ Jᵢᵀ (∂²Lᵢ/∂z²) Jᵢ + ∂²penalty/∂θ²

J is that of `mlpjax.loss` with ``train=False``, penalty l2 included, weights counted: one deterministic function.
Batch-norm normalises with the running statistics of ``state``, which stay as they are; dropout and l1 are refused.
Every solver is one compiled loop that starts from ``params``; ``jax.vmap`` over ``params`` takes many starts at once.

In float32 convergence ends where rounding does, at gradient norms of 1e-4 to 1e-6, by the problem: give a ``tol`` that
it can reach.
Source: ``train-second-order``.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mlpjax.checks import check_number
from mlpjax.config import Config
from mlpjax.parameters import Batch, Params, State
from mlpjax.solver_loop import GRADIENT, HVP_WORK, Move, Point, Problem, Solution, check_dense, check_problem, descend
from mlpjax.solver_steps import Solved, backtrack, conjugate_gradient, damped, forcing


def newton(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    *,
    damping: float = 1.0,
    tol: float = 1e-8,
    loss_tol: float = 0.0,
    max_steps: int = 100,
) -> Solution:
    """Minimise J by damped Newton steps with the whole Hessian: θ ← θ − (|H| + λI)⁻¹ g.

    |H| has the eigenvectors of H and the absolute values of its eigenvalues: it is H near a minimum, and leads away
    from saddles. λ goes by what the step gained, as in `mlpjax.gauss_newton.levenberg_marquardt`; with λ → 0 the
    end is superlinear. A point with ‖g‖ ≤ ``tol`` is left along the eigenvector of the smallest eigenvalue if that is
    below −eps^⅔ max |H|, by a step that is halved until J falls: the reason ``"gradient"`` says that no eigenvalue is.

    A step takes 1 + 2P forward–backward equivalents, 1/3 more for each λ that is tried, and an eigendecomposition of
    H, O(P³), which is not in ``work``: for hundreds of parameters.

    Args:
        config: the network.
        params: where to start.
        state: batch-norm's running statistics.
        batch: all examples, labels and weights.
        damping: λ at the start, in the unit of H; close to 0, the first step is Newton's own.
        tol: the gradient norm at which to stop.
        loss_tol: the J at which to stop.
        max_steps: the largest number of steps.

    Raises:
        ConfigError: dropout, l1 or ``binary_step``; ``max_steps`` is no count.
        InputError: a wrong number; too many parameters for a matrix; and `DataError` as `mlpjax.fit`.

    Source: ``train-second-order``, ``err-alternatives``; Dauphin et al. 2014 (|H|), Nielsen 1999 (λ).

    >>> config = Config(sizes=(1, 1), head="regression")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> batch = Batch(jnp.array([[0.0], [1.0]]), jnp.array([1.0, 3.0]))  # y = 1 + 2x
    >>> solution = newton(config, params, state, batch, damping=1e-9, tol=1e-5)  # J is quadratic
    >>> int(solution.steps), str(solution.reason), solution.params[0].b.round(4)
    (1, 'gradient', Array([1.], dtype=float32))
    """
    batch = check_problem(config, batch, tol, loss_tol, max_steps=max_steps)
    check_number("damping", damping, positive=True)
    check_dense("mlpjax.solvers.newton", params, "mlpjax.solvers.newton_cg")
    return _newton(config, params, state, batch, damping, tol, loss_tol, max_steps=int(max_steps))


def newton_cg(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    *,
    tol: float = 1e-8,
    loss_tol: float = 0.0,
    max_steps: int = 100,
    max_products: int = 100,
) -> Solution:
    """Minimise J by truncated Newton steps: H d = −g by conjugate gradients to ‖H d + g‖ ≤ η ‖g‖, then θ ← θ + t d.

    η = min(½, √‖g‖) makes the end superlinear without solving exactly at the start. CG stops at a direction of negative
    curvature, with what it has; d leads down in any case. t is the first of 1, ½, ¼, … for which J falls by at least
    1e-4 t |gᵀd| (Armijo), up to rounding. A saddle that is hit exactly, ‖g‖ ≤ ``tol``, is not noticed.

    A step takes 1 forward–backward equivalent, 2 more for each product H v, and 1/3 for each trial of t.

    Args:
        config: the network.
        params: where to start.
        state: batch-norm's running statistics.
        batch: all examples, labels and weights.
        tol: the gradient norm at which to stop.
        loss_tol: the J at which to stop.
        max_steps: the largest number of steps.
        max_products: the most products H v in one step.

    Raises:
        ConfigError: dropout, l1 or ``binary_step``; ``max_steps`` or ``max_products`` is no count.
        InputError: a wrong number; and `DataError` as `mlpjax.fit`.

    Source: ``train-second-order``; Nocedal & Wright 2006, algorithm 7.1.

    >>> config = Config(sizes=(1, 1), head="regression")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> batch = Batch(jnp.array([[0.0], [1.0]]), jnp.array([1.0, 3.0]))
    >>> solution = newton_cg(config, params, state, batch, tol=1e-5)
    >>> str(solution.reason), solution.params[0].b.round(4)
    ('gradient', Array([1.], dtype=float32))
    """
    batch = check_problem(config, batch, tol, loss_tol, max_steps=max_steps, max_products=max_products)
    counts = {"max_steps": int(max_steps), "max_products": int(max_products)}
    return _newton_cg(config, params, state, batch, tol, loss_tol, **counts)


@functools.partial(jax.jit, static_argnames="max_steps")
def _newton(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    damping: jax.Array,
    tol: jax.Array,
    loss_tol: jax.Array,
    *,
    max_steps: int,
) -> Solution:
    problem = Problem(config, state, batch, ravel_pytree(params)[1])

    def step(point: Point, damping: jax.Array) -> Move:
        P = len(point.theta)
        H = jax.vmap(point.hvp)(jnp.eye(P, dtype=point.theta.dtype))
        values, vectors = jnp.linalg.eigh((H + H.T) / 2)
        along = vectors.T @ point.g

        def solve(damping: jax.Array) -> Solved:
            delta = -vectors @ (along / (jnp.abs(values) + damping))
            return Solved(delta, jnp.zeros_like(delta), jnp.zeros_like(point.J))

        def escape() -> Move:
            # of the two ways along the eigenvector, the one that does not rise
            direction = vectors[:, 0] * jnp.where(along[0] > 0, -1, 1)
            move = backtrack(problem.value, point, direction, values[0], damping)
            minimum = values[0] >= -(jnp.finfo(H.dtype).eps ** (2 / 3)) * jnp.max(jnp.abs(values))
            return move._replace(code=jnp.where(minimum, GRADIENT, move.code))

        move = jax.lax.cond(point.norm <= tol, escape, lambda: damped(problem.value, point, solve, damping))
        return move._replace(work=HVP_WORK * P + move.work)

    memory = jnp.asarray(damping, params[0].W.dtype)
    return descend(problem, step, params, memory, tol=tol, loss_tol=loss_tol, max_steps=max_steps, second_order=True)


@functools.partial(jax.jit, static_argnames=("max_steps", "max_products"))
def _newton_cg(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    tol: jax.Array,
    loss_tol: jax.Array,
    *,
    max_steps: int,
    max_products: int,
) -> Solution:
    problem = Problem(config, state, batch, ravel_pytree(params)[1])

    def step(point: Point, memory: None) -> Move:
        direction, _, products = conjugate_gradient(point.hvp, -point.g, forcing(point.norm), max_products)
        move = backtrack(problem.value, point, direction, jnp.zeros_like(point.J), memory)
        return move._replace(work=HVP_WORK * products + move.work)

    return descend(problem, step, params, None, tol=tol, loss_tol=loss_tol, max_steps=max_steps)
