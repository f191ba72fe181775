"""The checks of the traps that are facts about libraries and about float32."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.activations import tanh, tanh_derivative
from mlpjax.audit import check_gradients
from mlpjax.claims import Claim, agree, equal, holds
from mlpjax.initializers import he_normal
from mlpjax.lecture._walks import follow
from mlpjax.optim import adagrad, adam_slide, look_back, nesterov, rmsprop


def trap_optax_nesterov() -> tuple[Claim, ...]:
    """optax's Nesterov walks along the look-ahead points θ − αβV of the slides, with α(1 − β) as its rate."""
    alpha, beta, lam = 0.2, 0.9, np.array([1.0, 3.0])
    theta, V, ahead = np.ones(2), np.zeros(2), []
    for _ in range(6):
        V = beta * V + (1 - beta) * lam * (theta - alpha * beta * V)
        theta = theta - alpha * V
        ahead.append(theta - alpha * beta * V)
    theirs = optax.sgd(alpha * (1 - beta), momentum=beta, nesterov=True)
    walked = _walk(theirs, np.ones(2), lambda theta: lam * theta, 6)
    ours, states = follow(nesterov, lambda theta, t: lam * theta, 6, at=np.ones(2), alpha=alpha, beta=beta)
    return (
        agree("its iterates are the look-ahead points", walked, ahead),
        holds("trap: they are not the θ of the slides", np.abs(walked[-1] - theta).max() > 0.01, f"{theta}"),
        agree("ours are the same points, with α as on the slide", ours[1:], ahead),
        agree("from which look_back finds θ", look_back(ours[-1], states[-1]), theta),
    )


def trap_optax_adagrad() -> tuple[Claim, ...]:
    """optax's Adagrad starts its sum of squares at 0.1, not at 0; set, it is the slides', which ours is."""
    grads = np.array([1.0, 2.0, -0.5])
    exact = -np.cumsum(grads / np.sqrt(np.cumsum(grads**2) + 1e-8))
    shifted = -np.cumsum(grads / np.sqrt(0.1 + np.cumsum(grads**2) + 1e-7))
    rule = optax.adagrad(1.0, initial_accumulator_value=0.0, eps=1e-8)
    return (
        agree("trap: the default starts at 0.1", _given(optax.adagrad(1.0), grads), shifted),
        agree("with 0 and 1e-8", _given(rule, grads), exact),
        agree("ours by default", _given(adagrad(1.0), grads), exact),
        agree("ours with convention='optax'", _given(adagrad(1.0, convention="optax"), grads), shifted),
        holds("trap: the first step is 5 % shorter", abs(shifted[0] / exact[0] - 0.953) < 1e-3, shifted[0] / exact[0]),
    )


def trap_optax_adam() -> tuple[Claim, ...]:
    """optax's Adam always corrects the bias; without it step t is (1 − β₁ᵗ)/√(1 − β₂ᵗ) times as long."""
    grads, (b1, b2), t = np.array([1.0, 2.0, -0.5]), (0.9, 0.999), np.arange(1, 4)
    V, S, plain = 0.0, 0.0, []
    for g in grads:
        V, S = b1 * V + (1 - b1) * g, b2 * S + (1 - b2) * g * g
        plain.append(-V / np.sqrt(S))
    rate = np.sqrt(1 - b2**t) / (1 - b1**t)
    walked, ours = _given(optax.adam(1.0, b1, b2, eps=0.0), grads), _given(adam_slide(1.0, b1, b2, 1e-30), grads)
    names = [name for name in inspect.signature(optax.adam).parameters if "bias" in name or "correct" in name]
    return (
        equal("trap: no switch for it", len(names), 0),
        agree("trap: the first uncorrected step is 3.16 times as long", plain[0] / walked[0], 0.1 / np.sqrt(0.001)),
        agree("with ε = 0 the schedule makes up for it", walked, np.cumsum(rate * plain)),
        agree("optim.adam_slide does not correct", ours, np.cumsum(plain)),
    )


def trap_optax_rmsprop() -> tuple[Claim, ...]:
    """optax's RMSprop, as it is by default, is the slides' with ε under the root, decay 0.9 and a start of 0."""
    grads = np.array([1e-4, 2e-4, -5e-5])  # so small that ε counts
    S, under, beside = 0.0, [], []
    for g in grads:
        S = 0.9 * S + 0.1 * g * g
        under.append(-0.1 * g / np.sqrt(S + 1e-8))
        beside.append(-0.1 * g / (np.sqrt(S) + 1e-8))
    walked, other = _given(optax.rmsprop(0.1), grads), np.cumsum(beside)
    return (
        agree("no trap: the same iterates", walked, np.cumsum(under)),
        agree("ours", _given(rmsprop(0.1), grads), np.cumsum(under)),
        holds("ε beside the root would be another rule", np.all(np.abs(other / walked) > 1.2), f"{other / walked}"),
    )


def trap_init_trunc() -> tuple[Claim, ...]:
    """jax.nn.initializers draw a normal cut off at 2 of its deviations, with the right variance; ours is not cut."""
    std = np.sqrt(2 / 100)
    cut = np.asarray(jax.nn.initializers.he_normal()(jax.random.key(0), (100, 1000), jnp.float64)) / std
    ours = np.asarray(he_normal(jax.random.key(0), (100, 1000), jnp.float64)) / std
    return (
        agree("variance 2/n_in of theirs", cut.var(), 1.0, tol=0.02),
        holds("trap: theirs is never above 2.28 deviations", np.abs(cut).max() < 2.28, float(np.abs(cut).max())),
        agree("variance 2/n_in of ours", ours.var(), 1.0, tol=0.02),
        holds("ours reaches beyond 4, as a normal does", np.abs(ours).max() > 4, float(np.abs(ours).max())),
    )


def trap_f32() -> tuple[Claim, ...]:
    """In float32 no step makes a difference quotient exact to more than a few digits: a check has to run in float64."""
    z = 0.3

    def quotient(h: float, dtype: type) -> float:
        up, down = (float(tanh(jnp.asarray(z + s * h, dtype))) for s in (1, -1))
        return (up - down) / (2 * h)

    exact = 1 - np.tanh(z) ** 2
    single = [abs(quotient(h, np.float32) / exact - 1) for h in 10.0 ** -np.arange(1.0, 8.0)]
    report = check_gradients(tanh, tanh_derivative, np.float32(z))
    return (
        holds("trap: float32, the best of 7 steps", min(single) > 1e-6, min(single)),
        holds("trap: float32, the step 1e-7", single[-1] > 0.01, single[-1]),
        agree("float64, the step 1e-5", quotient(1e-5, np.float64), exact, tol=1e-9),
        holds("check_gradients takes a float32 argument in float64", report.ok, report.environment["dtype"]),
    )


def _walk(optimizer: optax.GradientTransformation, theta: Any, gradient: Callable[..., Any], steps: int) -> np.ndarray:
    """The iterates of an optimiser."""
    theta, path = jnp.asarray(theta), []
    state = optimizer.init(theta)
    for _ in range(steps):
        updates, state = optimizer.update(gradient(theta), state, theta)
        theta = theta + updates
        path.append(np.asarray(theta))
    return np.array(path)


def _given(optimizer: optax.GradientTransformation, gradients: np.ndarray) -> np.ndarray:
    """The iterates from 0 under gradients that are given."""
    left = iter(jnp.asarray(gradients))
    return _walk(optimizer, np.zeros(()), lambda theta: next(left), len(gradients))
