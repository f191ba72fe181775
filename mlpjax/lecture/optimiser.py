"""Gradient descent, momentum and Nesterov: each rule as the slides index it, in NumPy, against the package's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax import optim_rules as rules
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.lecture._walks import (
    ALPHA,
    CURVATURE,
    START,
    STEPS,
    alternating,
    by_rule,
    constant,
    follow,
    once,
    ravine,
    walk,
)
from mlpjax.optim import OPTIMIZERS, gradient_descent, look_back, momentum, nesterov

BETA = 0.9
"""The lecture's usual choice."""

_X, _Y = np.array([[1.0, 2.0], [0.0, -1.0], [2.0, 1.0]]), np.array([3.0, -1.0, 0.5])
"""Three examples for a linear unit, whose gradient is Xᵀ(Xw − y)/3."""


def opt_gd() -> tuple[Claim, ...]:
    """Gradient descent: θ[t] = θ[t−1] − α dθ[t−1], on a ravine in closed form and on a network."""
    closed_form = (1 - ALPHA * CURVATURE) ** np.arange(STEPS + 1)[:, None] * START
    w = START
    for _ in range(5):
        w = w - ALPHA * _unit_gradient(w)
    return (
        agree(
            "the rule: θ[t] = (1 − αc)ᵗ θ[0]", by_rule(rules.gradient_descent, ravine, ALPHA, memory=()), closed_form
        ),
        agree("the optimiser", walk(gradient_descent, ravine, alpha=ALPHA), closed_form),
        agree("W of a linear unit after 5 steps", _train_unit(gradient_descent(ALPHA))[0][0].W[:, 0], w),
    )


def opt_momentum_v() -> tuple[Claim, ...]:
    """V is an exponential average of the gradients that starts at 0, so that the first step is a tenth of α."""
    path, V = _velocities(ravine)
    d = ravine(path[:-1])
    t = np.arange(1, STEPS + 1)
    weights = np.where(t[:, None] >= t, (1 - BETA) * BETA ** np.maximum(t[:, None] - t, 0.0), 0.0)
    return (
        agree("V[1] = (1 − β) dθ[0]", V[0], (1 - BETA) * d[0]),
        agree("V[t] = β V[t−1] + (1 − β) dθ[t−1]", V[1:], BETA * V[:-1] + (1 - BETA) * d[1:]),
        agree("V[t] = (1 − β) Σ_τ β^(t−τ) dθ[τ−1]", V, weights @ d),
    )


def opt_momentum_theta() -> tuple[Claim, ...]:
    """θ[t] = θ[t−1] − α V[t], the whole path."""
    theta, V = [START], np.zeros(2)
    for _ in range(STEPS):
        V = BETA * V + (1 - BETA) * ravine(theta[-1])
        theta.append(theta[-1] - ALPHA * V)
    return (
        agree("the rule's path", by_rule(rules.momentum, ravine, ALPHA, BETA), theta),
        agree("the optimiser's", walk(momentum, ravine, alpha=ALPHA), theta),
    )


def opt_momentum_beta() -> Claim:
    """The default of β is 0.9: of a gradient that was there once, each step keeps so much of the step before."""
    steps = np.diff(walk(momentum, once, alpha=ALPHA), axis=0)
    return agree("each step over the one before", steps[1:] / steps[:-1], np.full((STEPS - 1, 2), 0.9))


@printed("err-mom-ema", lambda alpha, beta: alpha)
def opt_momentum_heavyball(form: Callable[..., Any] = lambda alpha, beta: alpha * (1 - beta)) -> tuple[Claim, ...]:
    """The average with α is Polyak's heavy ball with rate α(1 − β); with α itself the ball is 1/(1 − β) faster."""
    average = walk(momentum, constant, 200, alpha=ALPHA)
    fast = walk(momentum, constant, 200, alpha=ALPHA, form="heavy_ball")
    return (
        agree(
            "the rule with that rate, against the average",
            by_rule(rules.heavy_ball, ravine, form(ALPHA, BETA), BETA),
            walk(momentum, ravine, alpha=ALPHA),
        ),
        agree("the optimiser", walk(momentum, constant, 200, alpha=form(ALPHA, BETA), form="heavy_ball"), average),
        agree("terminal velocity with α", fast[-1] - fast[-2], (average[-1] - average[-2]) / (1 - BETA)),
    )


def opt_momentum_accelerate() -> tuple[Claim, ...]:
    """Along a constant gradient g, V[t] = (1 − βᵗ) g grows to g."""
    V = _velocities(constant, 200)[1] / constant()
    t = np.arange(1, 201)[:, None]
    return (
        agree("V[t]/g", V, np.broadcast_to(1 - BETA**t, (200, 2))),
        agree("at t = 1, 5, 22", V[[0, 4, 21], 0], [0.1, 0.40951, 0.901523], tol=1e-6),
        agree("in the end", V[-1], np.ones(2), tol=1e-8),
    )


def opt_momentum_damp() -> tuple[Claim, ...]:
    """Under a gradient that changes sign at every step, ∣V∣ falls to g(1 − β)/(1 + β), a nineteenth of g."""
    _, V = _velocities(alternating, 200)
    t = np.arange(200)[:, None]
    expected = (-1.0) ** t * (1 - BETA) / (1 + BETA) * (1 - (-BETA) ** (t + 1)) * constant()
    return (
        agree("V[t] in closed form", V, expected),
        agree("∣V∣/g in the end", np.abs(V[-1] / constant()), np.full(2, 1 / 19), tol=1e-6),
    )


@printed("err-mom-friction", lambda u, g: -BETA * u - ALPHA * (1 - BETA) * g)
@printed("err-mom-acceleration", lambda u, g: -(1 - BETA) * u + ALPHA * (1 - BETA) * g)
def opt_momentum_physics(
    form: Callable[..., Any] = lambda u, g: -(1 - BETA) * u - ALPHA * (1 - BETA) * g,
) -> tuple[Claim, ...]:
    """With u = θ[t] − θ[t−1]: friction takes the share 1 − β of the velocity, and −∂L/∂θ accelerates."""
    path = walk(momentum, ravine, alpha=ALPHA)
    u, free = np.diff(path, axis=0), np.diff(walk(momentum, once, alpha=ALPHA), axis=0)
    return (
        agree("change of velocity on the ravine", np.diff(u, axis=0), form(u[:-1], ravine(path[1:-1]))),
        agree("change of velocity where L is flat", np.diff(free, axis=0), form(free[:-1], 0.0)),
    )


def opt_nag_lookahead() -> tuple[Claim, ...]:
    """The gradient is taken where the old velocity alone would lead; `look_back` finds the θ of the slide."""
    ahead, states = follow(nesterov, ravine, alpha=ALPHA)
    theta, V = np.stack([START, *(look_back(p, s) for p, s in zip(ahead[1:], states, strict=True))]), np.zeros((1, 2))
    V = np.vstack([V, [state.V for state in states]])
    derived = theta[:-1] - ALPHA * BETA * V[:-1] - ALPHA * (1 - BETA) * ravine(ahead[:-1])
    return (
        agree("θ, found by look_back", theta, _slide_nag(ravine, START)[0]),
        agree("where the gradient is taken: θ[t−1] − αβV[t−1]", ahead, theta - ALPHA * BETA * V),
        agree("V put into the step: θ[t]", theta[1:], derived),
        equal("the first look is from the start, V[0] being 0", ahead[0], START),
    )


def opt_nag() -> tuple[Claim, ...]:
    """Nesterov's rule as on the slide: its look-ahead points are what the package trains, on a network too."""
    _, ahead = _slide_nag(ravine, START)
    v, sutskever = np.zeros(2), [START]
    for _ in range(STEPS):
        v = BETA * v - ALPHA * (1 - BETA) * ravine(sutskever[-1] + BETA * v)
        sutskever.append(sutskever[-1] + v)
    theta, points = _slide_nag(_unit_gradient, START, 5)
    params, opt_state = _train_unit(nesterov(ALPHA))
    apart = float(np.abs(ahead - walk(momentum, ravine, alpha=ALPHA)).max())
    return (
        agree("the rule's look-ahead points", by_rule(rules.nesterov, ravine, ALPHA, ALPHA, BETA), ahead),
        agree("the optimiser's", walk(nesterov, ravine, alpha=ALPHA), ahead),
        agree("θ is Sutskever's, with rate α(1 − β)", _slide_nag(ravine, START)[0], sutskever),
        agree("so is the heavy-ball form", walk(nesterov, ravine, alpha=ALPHA * (1 - BETA), form="heavy_ball"), ahead),
        agree("W of a linear unit after 5 steps, ahead", params[0].W[:, 0], points[-1]),
        agree("and looking back", look_back(params, opt_state)[0].W[:, 0], theta[-1]),
        holds("points that momentum does not visit", apart > 0.1, apart),
    )


def opt_nag_compare() -> Claim:
    """On the ravine Nesterov's rule overshoots the minimum less than momentum does, on both axes."""
    ahead, states = follow(nesterov, ravine, 100, alpha=ALPHA)
    theta = np.stack([look_back(point, state) for point, state in zip(ahead[1:], states, strict=True)])
    over = [np.max(-path * np.sign(START), axis=0) for path in (walk(momentum, ravine, 100, alpha=ALPHA), theta)]
    return holds("furthest point beyond the minimum", np.all(over[1] < over[0]), f"{over[1]} against {over[0]}")


def opt_trajectories() -> tuple[Claim, ...]:
    """Every optimiser goes down the ravine, and leaves the saddle x² − y² from 10⁻⁶ beside its ridge."""
    rates = {"adagrad": 1.0, "adadelta": 10.0, "rmsprop": 0.02, "adam_slide": 0.05}
    claims = []
    for name, make in OPTIMIZERS.items():
        alpha = rates.get(name, ALPHA)
        end = walk(make, ravine, 200, alpha=alpha)[-1]
        height = float(CURVATURE @ end**2 / (CURVATURE @ START**2))
        y = walk(make, lambda theta, t: theta * [2.0, -2.0], 200, at=np.array([1.0, 1e-6]), alpha=alpha)[-1, 1]
        claims.append(holds(f"{name}: height after 200 steps down the ravine", height < 1e-4, height))
        claims.append(holds(f"{name}: from the saddle, at y", y > 1, float(y)))
    return tuple(claims)


def _velocities(gradient: Callable[..., Any], steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """The path of momentum, and its V after each step."""
    path, states = follow(momentum, gradient, steps, alpha=ALPHA)
    return path, np.stack([state.V for state in states])


def _slide_nag(gradient: Callable[..., Any], theta: np.ndarray, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """The slide's rule, in NumPy: θ[0], θ[1], … and from each the next look-ahead point."""
    V, path, ahead = np.zeros(2), [theta], [theta]
    for _ in range(steps):
        V = BETA * V + (1 - BETA) * gradient(theta - ALPHA * BETA * V)
        theta = theta - ALPHA * V
        path.append(theta)
        ahead.append(theta - ALPHA * BETA * V)
    return np.stack(path), np.stack(ahead)


def _unit_gradient(w: np.ndarray) -> np.ndarray:
    return _X.T @ (_X @ w - _Y) / 3


def _train_unit(optimizer: Any, steps: int = 5) -> tuple[Any, Any]:
    """The parameters of a linear unit, and the optimiser's state, after some steps from W = START."""
    config = mlpjax.Config(sizes=(2, 1), head="regression", bias=False)
    params, batch = (mlpjax.Layer(W=jnp.asarray(START[:, None])),), mlpjax.Batch(_X, _Y)
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params: Any, opt_state: Any) -> Any:
        return mlpjax.apply_update(optimizer, mlpjax.backward(config, params, (), batch)[1], opt_state, params)

    for _ in range(steps):
        params, opt_state = step(params, opt_state)
    return params, opt_state
