"""Adam: the slide's rule and the paper's, index by index in NumPy, against the package's steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from mlpjax import optim_rules as rules
from mlpjax.claims import Claim, agree, equal, printed
from mlpjax.lecture._walks import ALPHA, START, STEPS, by_rule, constant, follow, once, ravine, walk
from mlpjax.optim import adam, adam_slide, momentum, rmsprop

BETA_1, BETA_2, EPS = 0.9, 0.999, 1e-8
GAMMA = 0.9
"""Of RMSprop."""


def opt_adam_v() -> tuple[Claim, ...]:
    """V[t] = β₁V[t−1] + (1−β₁) dθ[t−1] from V[0] = 0, as the state of the optimiser holds it."""
    path, states = follow(adam, ravine, alpha=ALPHA)
    V = np.zeros(2)
    expected = [V := BETA_1 * V + (1 - BETA_1) * ravine(theta) for theta in path[:-1]]
    rule = rules.adam(ravine(path[1]), jnp.asarray(expected[0]), jnp.zeros(2), 2, ALPHA)
    return (
        agree("V after each step", [state.V for state in states], expected),
        agree("V of the rule, from V[1]", rule[1], expected[1]),
    )


def opt_adam_s() -> tuple[Claim, ...]:
    """S[t] = β₂S[t−1] + (1−β₂) dθ[t−1] ⊙ dθ[t−1] from S[0] = 0, as the state of the optimiser holds it."""
    path, states = follow(adam, ravine, alpha=ALPHA)
    S = np.zeros(2)
    expected = [S := BETA_2 * S + (1 - BETA_2) * ravine(theta) ** 2 for theta in path[:-1]]
    rule = rules.adam(ravine(path[1]), jnp.zeros(2), jnp.asarray(expected[0]), 2, ALPHA)
    return (
        agree("S after each step", [state.S for state in states], expected),
        agree("S of the rule, from S[1]", rule[2], expected[1]),
    )


def opt_adam_theta_slide() -> tuple[Claim, ...]:
    """The slide's rule has no bias correction: it is Adam with a rate that is up to 6.6 times too large early on."""
    literal = _literal(ravine, corrected=False, inside=True)
    steps = -np.diff(walk(adam_slide, constant, 1000, alpha=ALPHA), axis=0)[:, 0] / ALPHA

    def rate(count: Any) -> Any:
        return ALPHA * _uncorrected(jnp.asarray(count + 1, float))

    return (
        agree("the rule's path", by_rule(rules.adam_slide, ravine, ALPHA, memory=(0.0, 0.0)), literal),
        agree("the optimiser's", walk(adam_slide, ravine, alpha=ALPHA), literal),
        agree(
            "ε → 0: the paper's with α(1 − β₁ᵗ)/√(1 − β₂ᵗ)",
            walk(adam, ravine, alpha=rate, eps=1e-30),
            walk(adam_slide, ravine, alpha=ALPHA, eps=1e-30),
            tol=1e-11,
        ),
        agree("steps over α at t = 1, 12, 1000, gradient constant", steps[[0, 11, 999]], [3.16, 6.57, 1.26], tol=1e-3),
        equal("the largest at t =", np.argmax(steps) + 1, 12),
    )


@printed("err-adam-bias", lambda d, V, S, t, *numbers: rules.adam_slide(d, V, S, *numbers))
@printed("err-adam-eps", lambda *arguments: _eps_inside(*arguments))
def opt_adam_paper(form: Callable[..., Any] = rules.adam) -> tuple[Claim, ...]:
    """Kingma and Ba's Adam: V̂ = V/(1 − β₁ᵗ), Ŝ = S/(1 − β₂ᵗ), θ ← θ − αV̂/(√Ŝ + ε)."""
    by_form = functools.partial(by_rule, form, memory=(0.0, 0.0), clock=True)
    numbers = (ALPHA, BETA_1, BETA_2, EPS)
    tiny = by_form(lambda theta, t: np.full(2, 1e-6), *numbers, steps=1)
    return (
        agree("the path on the ravine", by_form(ravine, *numbers), _literal(ravine)),
        agree("the optimiser's, by default", walk(adam, ravine, alpha=ALPHA), _literal(ravine)),
        agree("first step at a gradient of 10⁻⁶: 0.990 α", (tiny[0] - tiny[1]) / ALPHA, np.full(2, 1 / 1.01), tol=1e-9),
    )


def opt_adam_hparams() -> tuple[Claim, ...]:
    """The defaults are the lecture's: β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸."""
    _, states = follow(adam, once, alpha=ALPHA)
    first, last = states[0], states[-1]
    small = np.diff(walk(adam, lambda theta, t: np.full(2, 1e-8), 1, alpha=ALPHA), axis=0)[0]
    return (
        agree("β₁: V decays by 0.9 a step", last.V / first.V, np.full(2, 0.9 ** (STEPS - 1))),
        agree("β₂: S decays by 0.999 a step", last.S / first.S, np.full(2, 0.999 ** (STEPS - 1))),
        agree("ε: a gradient of 10⁻⁸ makes half a step", small, np.full(2, -ALPHA / 2), tol=1e-6),
    )


def opt_adam_composition() -> tuple[Claim, ...]:
    """The slide's Adam is RMSprop when β₁ = 0, and momentum when S stays 1."""
    no_momentum = by_rule(rules.adam_slide, ravine, ALPHA, 0.0, GAMMA, EPS, memory=(0.0, 0.0))
    no_scaling = by_rule(rules.adam_slide, ravine, ALPHA, BETA_1, 1.0, 0.0, memory=(0.0, 1.0))
    return (
        agree("β₁ = 0, β₂ = γ: RMSprop", no_momentum, walk(rmsprop, ravine, alpha=ALPHA)),
        agree("S = 1, ε = 0: momentum", no_scaling, walk(momentum, ravine, alpha=ALPHA)),
        agree("the optimiser: RMSprop", walk(adam_slide, ravine, alpha=ALPHA, beta1=0.0, beta2=GAMMA), no_momentum),
    )


@printed("err-adam-bias", adam_slide)
def opt_adam_bias(form: Callable[..., Any] = adam) -> tuple[Claim, ...]:
    """Under a constant gradient every step of the corrected rule is α; the slide's are more, by a closed form."""
    corrected, printed = (-np.diff(walk(make, constant, 50, alpha=ALPHA), axis=0) for make in (form, adam_slide))
    direction = ALPHA * np.sign(constant())
    expected = np.broadcast_to(_uncorrected(np.arange(1, 51))[:, None], (50, 2))
    return (
        agree("50 steps over α", corrected / direction, np.ones((50, 2)), tol=1e-6),
        agree("the slide's: (1 − β₁ᵗ)/√(1 − β₂ᵗ)", printed / direction, expected, tol=1e-4),
    )


def _literal(gradient: Callable[..., Any], *, corrected: bool = True, inside: bool = False) -> np.ndarray:
    """Adam's recursion: ``corrected`` as in the paper or not, as on the slide; ε ``inside`` the root, as there."""
    theta: list[np.ndarray] = [START]
    V, S = np.zeros(2), np.zeros(2)
    for t in range(1, STEPS + 1):
        d = gradient(theta[t - 1], t - 1)
        V, S = BETA_1 * V + (1 - BETA_1) * d, BETA_2 * S + (1 - BETA_2) * d * d
        v, s = (V / (1 - BETA_1**t), S / (1 - BETA_2**t)) if corrected else (V, S)
        theta.append(theta[t - 1] - ALPHA * v / (np.sqrt(s + EPS) if inside else np.sqrt(s) + EPS))
    return np.stack(theta)


def _eps_inside(d: Any, V: Any, S: Any, t: int, alpha: float, beta1: float, beta2: float, eps: float) -> Any:
    """Bias correction as in the paper, and ε inside the root as printed."""
    V, S = beta1 * V + (1 - beta1) * d, beta2 * S + (1 - beta2) * d * d
    return -alpha * V / (1 - beta1**t) / np.sqrt(S / (1 - beta2**t) + eps), V, S


def _uncorrected(t: Any) -> Any:
    """What the slide's rule makes of α at step t under a constant gradient."""
    return (1 - BETA_1**t) / (1 - BETA_2**t) ** 0.5
