"""Levenberg and Marquardt's solver: damped steps with the Gauss–Newton matrix, for every head.

    θ ← θ − (G + λI)⁻¹ g,  G = Σ pᵢ Jᵢᵀ (∂²Lᵢ/∂z²) Jᵢ + ∂²penalty/∂θ²,  Jᵢ = ∂zᵢ/∂θ,  pᵢ = wᵢ/Σw

With the squared error ∂²Lᵢ/∂z² = I: this is the nonlinear least squares of the textbooks. What is said of J, batch-norm
and ``jax.vmap`` in `mlpjax.solvers` holds here too. Source: ``train-second-order``.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mlpjax import passes
from mlpjax.checks import check_number
from mlpjax.config import Config
from mlpjax.errors import ConfigError, unknown_name
from mlpjax.heads import HEADS
from mlpjax.parameters import Batch, Params, State
from mlpjax.per_example import jacobian_of_pass
from mlpjax.solver_loop import (
    FORWARD_WORK,
    GNVP_WORK,
    Move,
    Point,
    Problem,
    Solution,
    check_dense,
    check_problem,
    descend,
)
from mlpjax.solver_steps import Solved, conjugate_gradient, damped, forcing


def levenberg_marquardt(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    *,
    solve: Literal["dense", "cg"] = "dense",
    damping: float = 1.0,
    tol: float = 1e-8,
    loss_tol: float = 0.0,
    max_steps: int = 100,
    max_products: int = 100,
) -> Solution:
    """Minimise J by damped Gauss–Newton steps, θ ← θ − (G + λI)⁻¹ g, with λ by how well G foretold the fall of J.

    The gain ratio ρ = (fall of J)/(fall of the quadratic model) decides: where ρ > 0 the step is taken, and
    λ ← λ max(⅓, 1 − (2ρ − 1)³), otherwise λ grows by 2, then 4, 8, … and the step is solved for again. G is never
    indefinite. It lacks the curvature that residuals add: where they stay large at the minimum, the end is linear, and
    `mlpjax.solvers.newton` takes fewer steps; where they vanish it is superlinear.

    ``solve="dense"`` makes G of the Jacobian of the scores, (m, n_L, P) numbers, and factorises G + λI by Cholesky.
    The Jacobian takes ⅓ + ⅔ n_L forward–backward equivalents; G's 2 m n_L P² operations and the factors' P³/3 are not
    in ``work``. ``solve="cg"`` needs products G v only, 4/3 equivalents each, and solves to a relative residual of
    min(½, √‖g‖). Both take 1 for the gradient, and 1/3 for each λ that is tried.

    Args:
        config: the network.
        params: where to start.
        state: batch-norm's running statistics.
        batch: all examples, labels and weights.
        solve: how the step is found.
        damping: λ at the start, in the unit of G.
        tol: the gradient norm at which to stop.
        loss_tol: the J at which to stop.
        max_steps: the largest number of steps.
        max_products: the most products G v for one λ, with ``solve="cg"``.

    Raises:
        ConfigError: dropout, l1 or ``binary_step``; an unknown ``solve``; a count below 1.
        InputError: a wrong number; too many parameters for ``"dense"``; and `DataError` as `mlpjax.fit`.

    A saddle that is hit exactly, ‖g‖ ≤ ``tol``, is not noticed.

    Source: ``train-second-order``; Marquardt 1963, Nielsen 1999 (λ), Schraudolph 2002 (G).

    >>> config = Config(sizes=(1, 1), head="regression")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> batch = Batch(jnp.array([[0.0], [1.0]]), jnp.array([1.0, 3.0]))  # y = 1 + 2x
    >>> solution = levenberg_marquardt(config, params, state, batch, tol=1e-5)
    >>> str(solution.reason), solution.params[0].b.round(4)
    ('gradient', Array([1.], dtype=float32))
    """
    batch = check_problem(config, batch, tol, loss_tol, max_steps=max_steps, max_products=max_products)
    check_number("damping", damping, positive=True)
    if solve not in ("dense", "cg"):
        raise ConfigError(unknown_name("solve", solve, ("dense", "cg")))
    if solve == "dense":
        check_dense("solve='dense'", params, "solve='cg'")
    counts = {"max_steps": int(max_steps), "max_products": int(max_products)}
    return _levenberg_marquardt(config, params, state, batch, damping, tol, loss_tol, solve=solve, **counts)


def gauss_newton_matrix(config: Config, params: Params, state: State, batch: Batch) -> jax.Array:
    """G ``(P, P)``, in prediction mode, of the Jacobian of the scores, which has (m, n_L, P) numbers.

    The parameters are in the order of `jax.flatten_util.ravel_pytree`. Products alone: `mlpjax.r_operator.gnvp`.

    Raises:
        InputError: and `DataError` as `mlpjax.loss`.

    Source: Schraudolph 2002.

    >>> config = Config(sizes=(1, 1), head="regression", l2=0.5)
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> gauss_newton_matrix(config, params, state, Batch(jnp.array([[1.0], [3.0]]), jnp.zeros(2)))  # of W and b
    Array([[5.5, 2. ],
           [2. , 1. ]], dtype=float32)
    """
    this = passes.run_pass(config, params, state, batch, False, None)
    jacobian = jax.vmap(jax.vmap(lambda row: ravel_pytree(row)[0]))(jacobian_of_pass(config, params, this))
    curved = jax.vmap(lambda column: HEADS[config.head].ddz(this.z, this.y, column), in_axes=2, out_axes=2)(jacobian)
    G = jnp.einsum("icp,icq->pq", jacobian, curved * this.p[:, None, None])
    if (active := passes.active_penalty(config, G.dtype)) is not None:
        rule, strengths = active
        zeros = jax.tree.map(jnp.zeros_like, params)
        # the penalty's Hessian is diagonal: its product with 1 is the diagonal
        diagonal = tuple(
            zero._replace(W=rule.ddf(layer.W, jnp.ones_like(layer.W), *strengths))
            for zero, layer in zip(zeros, params, strict=True)
        )
        G = G + jnp.diag(ravel_pytree(diagonal)[0])
    return G


@functools.partial(jax.jit, static_argnames=("solve", "max_steps", "max_products"))
def _levenberg_marquardt(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    damping: jax.Array,
    tol: jax.Array,
    loss_tol: jax.Array,
    *,
    solve: str,
    max_steps: int,
    max_products: int,
) -> Solution:
    problem = Problem(config, state, batch, ravel_pytree(params)[1])

    def by_products(point: Point, damping: jax.Array) -> Move:
        def solved(damping: jax.Array) -> Solved:
            delta, residual, products = conjugate_gradient(
                lambda v: point.gnvp(v) + damping * v, -point.g, forcing(point.norm), max_products
            )
            return Solved(delta, residual, GNVP_WORK * products)

        return damped(problem.value, point, solved, damping)

    def by_factors(point: Point, damping: jax.Array) -> Move:
        G = gauss_newton_matrix(config, problem.unravel(point.theta), state, batch)
        identity = jnp.eye(len(G), dtype=G.dtype)

        def solved(damping: jax.Array) -> Solved:
            factors = jax.scipy.linalg.cho_factor(G + damping * identity)
            delta = -jax.scipy.linalg.cho_solve(factors, point.g)
            return Solved(delta, jnp.zeros_like(delta), jnp.zeros_like(point.J))

        move = damped(problem.value, point, solved, damping)
        return move._replace(work=FORWARD_WORK * (1 + 2 * config.sizes[-1]) + move.work)

    step = by_factors if solve == "dense" else by_products
    memory = jnp.asarray(damping, params[0].W.dtype)
    return descend(problem, step, params, memory, tol=tol, loss_tol=loss_tol, max_steps=max_steps)
