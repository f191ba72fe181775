"""What the solvers share: the loop with its history and reasons.

θ is all parameters in one vector ``(P,)``, as `jax.flatten_util.ravel_pytree` puts them. The loop is one
`jax.lax.while_loop` with a history of fixed size, so that it compiles once and can be taken by `jax.vmap`.

**Work** is counted in forward–backward equivalents, by matrix products of the size of a layer: forward has one per
layer, backward two (dW and dA), so that a forward pass alone is 1/3; R-forward has two and R-backward four.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mlpjax.checks import check_batch, check_count, check_number
from mlpjax.config import Config
from mlpjax.errors import ConfigError, InputError
from mlpjax.mlp import loss
from mlpjax.parameters import Batch, Params, State
from mlpjax.r_operator import quadratic_model

MESSAGES = {
    "running": "the solver has not stopped",
    "gradient": "the gradient norm is at most tol",
    "loss": "J is at most loss_tol",
    "no_descent": "no step along the direction lowers J, down to 2⁻³⁰ of it: there is a kink, or the dtype cannot "
    "resolve a further step (raise tol, or compute in float64: JAX_ENABLE_X64=1)",
    "damping": "no damping gives a step that lowers J: there is a kink, or the dtype cannot resolve a further step "
    "(raise tol, or compute in float64: JAX_ENABLE_X64=1)",
    "precision": "the gradient norm is above tol, but neither it nor J falls any more: the dtype cannot resolve a "
    "further step (raise tol, or compute in float64: JAX_ENABLE_X64=1)",
    "not_finite": "J or its gradient is not finite: start from smaller weights, or look for such values in the data",
    "max_steps": "max_steps were taken, and there is still a way down: raise max_steps",
}
"""Why a solver stopped, in words."""

REASONS = tuple(MESSAGES)
RUNNING, GRADIENT, LOSS, NO_DESCENT, DAMPING, PRECISION, NOT_FINITE, MAX_STEPS = range(len(REASONS))

MAX_DENSE = 4096
"""The most parameters for which a P × P matrix is made: 134 MB in float64."""

GRADIENT_WORK, FORWARD_WORK, HVP_WORK, GNVP_WORK = 1.0, 1 / 3, 2.0, 4 / 3
"""One forward and backward pass; a trial of J; H v and G v on a stored pass (G v: R-forward 2, backward 2 products)."""


class Solution(NamedTuple):
    """What a solver returns: a pytree of arrays, with a leading axis more under a `jax.vmap` over starts.

    The histories have ``max_steps + 1`` entries, one per iterate from the start on. Those after ``steps`` are NaN, or
    0 in ``work``.

    Attributes:
        params: where the solver ended.
        costs: J.
        gradient_norms: ‖∂J/∂θ‖.
        controls: what held back the step from this iterate to the next: its length t in the line search, or the
            damping λ. NaN at the last.
        work: what was spent at this iterate, in forward–backward equivalents; its sum is the total.
        steps: the number of steps taken.
        code: the place of the reason in `REASONS`.
    """

    params: Params
    costs: jax.Array
    gradient_norms: jax.Array
    controls: jax.Array
    work: jax.Array
    steps: jax.Array
    code: jax.Array

    @property
    def reason(self) -> Any:
        """Why the solver stopped, a key of `MESSAGES`; an array of keys for several starts."""
        return np.asarray(REASONS)[np.asarray(self.code)]

    @property
    def message(self) -> Any:
        """The reason in words."""
        return np.asarray(list(MESSAGES.values()))[np.asarray(self.code)]

    @property
    def converged(self) -> Any:
        """Whether the reason is ``"gradient"`` or ``"loss"``."""
        return np.isin(np.asarray(self.code), (GRADIENT, LOSS))


class Point(NamedTuple):
    """J near θ: its value, gradient and the gradient's norm, and the products v ↦ H v and v ↦ G v of vectors (P,)."""

    theta: jax.Array
    J: jax.Array
    g: jax.Array
    norm: jax.Array
    hvp: Callable[[jax.Array], jax.Array]
    gnvp: Callable[[jax.Array], jax.Array]


class Move(NamedTuple):
    """A step: the new θ, t or λ, the work it took, what the solver remembers, and `RUNNING` or why there is none."""

    theta: jax.Array
    control: jax.Array
    work: jax.Array
    memory: Any
    code: jax.Array


class Problem(NamedTuple):
    """J of a network on a full batch, in prediction mode, as a function of θ."""

    config: Config
    state: State
    batch: Batch
    unravel: Callable[[jax.Array], Params]

    def value(self, theta: jax.Array) -> jax.Array:
        """J(θ), by one forward pass."""
        return loss(self.config, self.unravel(theta), self.state, self.batch, train=False)[0]

    def at(self, theta: jax.Array) -> Point:
        """J near θ, by one forward and one backward pass."""
        model = quadratic_model(self.config, self.unravel(theta), self.state, self.batch, train=False)
        g = ravel_pytree(model.grads)[0]
        return Point(
            theta,
            model.J,
            g,
            jnp.linalg.norm(g),
            lambda v: ravel_pytree(model.hvp(self.unravel(v)))[0],
            lambda v: ravel_pytree(model.gnvp(self.unravel(v)))[0],
        )


class _Carry(NamedTuple):
    """What the loop carries: θ, J and ‖g‖ of the iterate before, the solver's memory, the count, and the history."""

    theta: jax.Array
    before: tuple[jax.Array, jax.Array]
    memory: Any
    steps: jax.Array
    code: jax.Array
    history: tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def check_problem(config: Config, batch: Batch, tol: float, loss_tol: float, **counts: int) -> Batch:
    """Check what a person gives to a solver, and return the batch as JAX arrays; traced values pass.

    Raises:
        ConfigError: dropout, l1, or ``binary_step``; a count below 1.
        DataError: a batch that does not fit the config, or a value that is not finite.
        InputError: ``tol`` or ``loss_tol`` is no finite number ≥ 0.
    """
    if config.has_dropout:
        raise ConfigError("config has dropout: a solver minimises one fixed J; use dropout=None, or mlpjax.fit")
    if config.l1 is not None:
        raise ConfigError(
            "config has l1, which has no derivative at 0, where it puts the weights: use l1=None (l2 is smooth), "
            "mlpjax.optim.proximal_l1 with mlpjax.fit, or mlpjax.shrinkage.ista for a linear model"
        )
    if "binary_step" in config.activations:
        raise ConfigError("activation 'binary_step' has derivative 0 everywhere: use 'sigmoid', a smooth step")
    check_number("tol", tol)
    check_number("loss_tol", loss_tol)
    for name, count in counts.items():
        check_count(name, count)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(batch)):
        return batch
    return check_batch(config, batch, "the batch")


def check_dense(what: str, params: Params, instead: str) -> None:
    """Raise `InputError` where P × P numbers are too many."""
    P = sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
    if P > MAX_DENSE:
        raise InputError(f"{what} makes a matrix of {P} × {P} numbers: expected at most {MAX_DENSE}; use {instead}")


def descend(
    problem: Problem,
    step: Callable[[Point, Any], Move],
    params: Params,
    memory: Any,
    *,
    tol: jax.Array,
    loss_tol: jax.Array,
    max_steps: int,
    second_order: bool = False,
) -> Solution:
    """Take steps from ``params`` until there is a reason to stop.

    ``step(point, memory)`` finds the next θ. With ``second_order`` it also decides where the gradient norm is at most
    ``tol``: such a point may be a saddle.
    """
    theta = ravel_pytree(params)[0]
    scalar = jnp.zeros((), theta.dtype)

    def classify(carry: _Carry, point: Point) -> jax.Array:
        J_before, norm_before = carry.before
        resolution = jnp.finfo(theta.dtype).eps * jnp.abs(point.J)
        stuck = (point.norm >= norm_before) & (J_before - point.J <= resolution)
        # the first that holds
        return jnp.select(
            [
                ~(jnp.isfinite(point.J) & jnp.isfinite(point.norm)),
                (point.norm <= tol) & (not second_order),
                point.J - loss_tol <= 0,
                (point.norm > tol) & stuck,
                (carry.steps >= max_steps) & ~(second_order & (point.norm <= tol)),
            ],
            [jnp.full((), code, jnp.int32) for code in (NOT_FINITE, GRADIENT, LOSS, PRECISION, MAX_STEPS)],
            jnp.full((), RUNNING, jnp.int32),
        )

    def body(carry: _Carry) -> _Carry:
        point = problem.at(carry.theta)
        code = classify(carry, point)
        stay = Move(carry.theta, scalar * jnp.nan, scalar, carry.memory, code)
        move = jax.lax.cond(code == RUNNING, lambda: step(point, carry.memory), lambda: stay)
        # the last point may be judged, but not left
        over = (move.code == RUNNING) & (carry.steps >= max_steps)
        move = move._replace(code=jnp.where(over, MAX_STEPS, move.code))
        moved = move.code == RUNNING
        now = (point.J, point.norm, jnp.where(moved, move.control, jnp.nan), GRADIENT_WORK + move.work)
        history = jax.tree.map(lambda column, value: column.at[carry.steps].set(value), carry.history, now)
        new_theta = jnp.where(moved, move.theta, carry.theta)
        return _Carry(new_theta, (point.J, point.norm), move.memory, carry.steps + moved, move.code, history)

    empty = jnp.full(max_steps + 1, jnp.nan, theta.dtype)
    start = _Carry(
        theta,
        (scalar + jnp.inf, scalar + jnp.inf),
        memory,
        jnp.zeros((), jnp.int32),
        jnp.full((), RUNNING, jnp.int32),
        (empty, empty, empty, jnp.zeros_like(empty)),
    )
    end = jax.lax.while_loop(lambda carry: carry.code == RUNNING, body, start)
    return Solution(problem.unravel(end.theta), *end.history, steps=end.steps, code=end.code)
