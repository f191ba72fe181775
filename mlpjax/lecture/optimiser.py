"""Gradient descent, momentum and Nesterov: each rule as the slides index it, in NumPy, against the package's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax.claims import Claim, agree, holds, printed
from mlpjax.lecture._walks import ALPHA, CURVATURE, START, STEPS, alternating, constant, once, ravine, walk
from mlpjax.optim import OPTIMIZERS, make_optimizer

BETA = 0.9
"""The lecture's usual choice."""


def opt_gd() -> tuple[Claim, ...]:
    """Gradient descent: θ[t] = θ[t−1] − α dθ[t−1], on a ravine in closed form and on a network."""
    path = walk("sgd", ALPHA, ravine)
    config = mlpjax.Config(sizes=(2, 1), head="regression", bias=False)
    params, batch = (
        (mlpjax.Layer(W=jnp.asarray(START[:, None])),),
        mlpjax.Batch(np.array([[1.0, 2.0]]), np.array([3.0])),
    )
    _, grads = mlpjax.backward(config, params, (), batch)
    rule = make_optimizer("sgd", ALPHA)
    after, _ = mlpjax.apply_update(rule, grads, rule.init(params), params)
    return (
        agree("θ[t] = (1 − αc)ᵗ θ[0]", path, (1 - ALPHA * CURVATURE) ** np.arange(STEPS + 1)[:, None] * START),
        agree("W of a linear unit: ŷ − y = −3", after[0].W[:, 0], START - ALPHA * -3 * np.array([1.0, 2.0])),
    )


def opt_momentum_v() -> tuple[Claim, ...]:
    """V is an exponential average of the gradients that starts at 0, so that the first step is a tenth of α."""
    path = walk("momentum", ALPHA * (1 - BETA), ravine)
    V = -np.diff(path, axis=0) / ALPHA
    d = ravine(path[:-1])
    return (
        agree("V[1] = (1 − β) dθ[0]", V[0], (1 - BETA) * d[0]),
        agree("V[t] = β V[t−1] + (1 − β) dθ[t−1]", V[1:], BETA * V[:-1] + (1 - BETA) * d[1:]),
    )


def opt_momentum_theta() -> Claim:
    """θ[t] = θ[t−1] − α V[t], the whole path."""
    theta, V = [START], np.zeros(2)
    for _ in range(STEPS):
        V = BETA * V + (1 - BETA) * ravine(theta[-1])
        theta.append(theta[-1] - ALPHA * V)
    return agree("the path", walk("momentum", ALPHA * (1 - BETA), ravine), theta)


def opt_momentum_beta() -> Claim:
    """The default of β is 0.9: of a gradient that was there once, each step keeps so much of the step before."""
    steps = np.diff(walk("momentum", ALPHA, once), axis=0)
    return agree("each step over the one before", steps[1:] / steps[:-1], np.full((STEPS - 1, 2), 0.9))


@printed("err-mom-ema", lambda alpha, beta: alpha)
def opt_momentum_heavyball(form: Callable[..., Any] = lambda alpha, beta: alpha * (1 - beta)) -> tuple[Claim, ...]:
    """The average with α is Polyak's heavy ball with step α(1 − β); with α itself the ball is 1/(1 − β) faster."""
    path, fast = (walk("momentum", lr, constant, steps=200) for lr in (form(ALPHA, BETA), ALPHA))
    V, theta = np.zeros(2), [START]
    for _ in range(200):
        V = BETA * V + (1 - BETA) * constant()
        theta.append(theta[-1] - ALPHA * V)
    return (
        agree("heavy ball with that step, against the average with α", path, theta),
        agree("terminal velocity of the two", fast[-1] - fast[-2], (path[-1] - path[-2]) / (1 - BETA)),
    )


def opt_momentum_accelerate() -> tuple[Claim, ...]:
    """Along a constant gradient g, V[t] = (1 − βᵗ) g grows to g."""
    V = -np.diff(walk("momentum", ALPHA * (1 - BETA), constant), axis=0) / ALPHA
    t = np.arange(1, STEPS + 1)[:, None]
    return (
        agree("V[t]", V, (1 - BETA**t) * constant()),
        agree("V/g at t = 1, 5, 22", (V / constant())[[0, 4, 21], 0], [0.1, 0.40951, 0.901523], tol=1e-6),
    )


def opt_momentum_damp() -> tuple[Claim, ...]:
    """Under a gradient that changes sign at every step, ∣V∣ falls to g(1 − β)/(1 + β), a nineteenth of g."""
    V = -np.diff(walk("momentum", ALPHA * (1 - BETA), alternating, steps=200), axis=0) / ALPHA
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
    path = walk("momentum", ALPHA * (1 - BETA), ravine)
    u = np.diff(path, axis=0)
    free = np.diff(walk("momentum", ALPHA, once), axis=0)
    return (
        agree("change of velocity on the ravine", np.diff(u, axis=0), form(u[:-1], ravine(path[1:-1]))),
        agree("change of velocity where L is flat", np.diff(free, axis=0), form(free[:-1], 0.0)),
    )


def opt_nag_lookahead() -> tuple[Claim, ...]:
    """The gradient is taken where the old velocity alone would lead; the package walks from such point to point."""
    ahead = walk("nesterov", ALPHA * (1 - BETA), ravine)
    theta = np.vstack([START, ahead[:-1] - ALPHA * (1 - BETA) * ravine(ahead[:-1])])
    V = -np.diff(theta, axis=0) / ALPHA
    return (
        agree("point ahead = θ[t] − αβV[t]", ahead[1:], theta[1:] - ALPHA * BETA * V),
        agree("the first is the start, V[0] being 0", ahead[0], START),
    )


def opt_nag() -> tuple[Claim, ...]:
    """Nesterov's rule as on the slide, whose look-ahead points are what the package returns."""
    theta, V, ahead = START, np.zeros(2), [START]
    for _ in range(STEPS):
        V = BETA * V + (1 - BETA) * ravine(theta - ALPHA * BETA * V)
        theta = theta - ALPHA * V
        ahead.append(theta - ALPHA * BETA * V)
    path = walk("nesterov", ALPHA * (1 - BETA), ravine)
    plain = walk("momentum", ALPHA * (1 - BETA), ravine)
    return (
        agree("the look-ahead points", path, ahead),
        holds("which momentum does not visit", np.abs(path - plain).max() > 0.1, float(np.abs(path - plain).max())),
    )


def opt_nag_compare() -> Claim:
    """On the ravine Nesterov's rule overshoots the minimum less than momentum does, on both axes."""
    rate = ALPHA * (1 - BETA)
    momentum, ahead = (walk(name, rate, ravine, steps=100) for name in ("momentum", "nesterov"))
    nag = ahead[:-1] - rate * ravine(ahead[:-1])
    over = [np.max(-path * np.sign(START), axis=0) for path in (momentum, nag)]
    return holds("furthest point beyond the minimum", np.all(over[1] < over[0]), f"{over[1]} against {over[0]}")


def opt_trajectories() -> tuple[Claim, ...]:
    """Every optimiser goes down the ravine to less than a hundredth of the height where it starts."""
    rates = {"sgd": 0.1, "momentum": 0.01, "nesterov": 0.01, "adagrad": 1.0, "adadelta": 10.0, "rmsprop": 0.02}
    claims = []
    for name in OPTIMIZERS:
        end = walk(name, rates.get(name, ALPHA), ravine, steps=200)[-1]
        height = float(CURVATURE @ end**2 / (CURVATURE @ START**2))
        claims.append(holds(f"{name}: height after 200 steps", height < 0.01, height))
    return tuple(claims)
