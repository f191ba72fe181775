"""AdaGrad, AdaDelta and RMSprop: each rule as the slides index it, in NumPy, against the package's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlpjax import optim_rules as rules
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.lecture._walks import ALPHA, START, STEPS, by_rule, constant, follow, ravine, walk
from mlpjax.optim import adadelta, adadelta_slide, adagrad, adam, gradient_descent, rmsprop

GAMMA, RHO = 0.9, 0.95
BETA_1, BETA_2 = 0.9, 0.999
EPS, EPS_ADADELTA = 1e-8, 1e-6


def _without_square(dtheta: Any, E: Any, alpha: float, gamma: float, eps: float) -> tuple[Any, Any]:
    """The rule as printed, whose average is not one of squares, and can be negative."""
    E = gamma * E + (1 - gamma) * dtheta
    with np.errstate(invalid="ignore"):
        return -alpha * dtheta / np.sqrt(E + eps), E


def opt_adagrad_notation() -> tuple[Claim, ...]:
    """The label of dθ is where the gradient is taken, and every coordinate i goes its own way."""
    path = walk(gradient_descent, ravine, alpha=ALPHA)
    one, other = (walk(adagrad, ravine, at=np.array([2.0, second]), alpha=ALPHA) for second in (-1.0, 5.0))
    alone = by_rule(lambda d, G, *numbers: rules.adagrad(d[:1], G[:1], *numbers), ravine, ALPHA, EPS)
    return (
        agree(
            "dθ[t−1], which makes θ[t], is the gradient at θ[t−1]", -np.diff(path, axis=0), ALPHA * ravine(path[:-1])
        ),
        equal("θ₁ under AdaGrad, whatever θ₂ is", one[:, 0], other[:, 0]),
        agree("the rule for θ₁ alone", alone[:, 0], one[:, 0]),
    )


def opt_adagrad_G() -> tuple[Claim, ...]:
    """G is the diagonal of the sum of all dθ dθᵀ so far, from 0."""
    path, states = follow(adagrad, ravine, alpha=ALPHA)
    G, d = np.stack([state.G for state in states]), ravine(path[:-1])
    matrices = np.cumsum(d[:, :, None] * d[:, None, :], axis=0)
    return (
        agree("G[0] = (dθ[0])²", G[0], d[0] ** 2),
        agree("Gᵢᵢ[t] = Σ_{τ=0..t} (dθᵢ[τ])²", G, np.diagonal(matrices, axis1=1, axis2=2)),
        agree("the rule's G", rules.adagrad(d[1], G[0], ALPHA, EPS)[1], G[1]),
    )


def opt_adagrad_theta() -> tuple[Claim, ...]:
    """θ[t] = θ[t−1] − α dθ[t−1]/√(G[t−1] + ε), with the sum from τ = 0 taken anew at every step."""
    theta = [START]
    for _ in range(STEPS):
        d = ravine(np.stack(theta))
        theta.append(theta[-1] - ALPHA * d[-1] / np.sqrt(np.sum(d**2, axis=0) + EPS))
    tiny = walk(adagrad, lambda theta, t: np.full(2, 1e-4), 1, at=np.zeros(2), alpha=ALPHA)[-1]
    return (
        agree("the rule's path", by_rule(rules.adagrad, ravine, ALPHA, EPS), theta),
        agree("the optimiser's", walk(adagrad, ravine, alpha=ALPHA), theta),
        agree("ε = 10⁻⁸ under the root: a gradient of 10⁻⁴ makes α/√2", tiny, np.full(2, -ALPHA / np.sqrt(2))),
    )


def opt_adagrad_frequency() -> tuple[Claim, ...]:
    """A feature that occurs at every step gets smaller steps than one that occurs at every fifth."""
    steps = -np.diff(walk(adagrad, lambda theta, t: np.array([1.0, 1.0 * (t % 5 == 0)]), 50, alpha=ALPHA), axis=0)[45]
    return (
        agree("step 46: the frequent one α/√46, the rare one α/√10", steps, ALPHA / np.sqrt([46, 10]), tol=1e-8),
        holds("the rare one is larger", steps[1] > steps[0], str(steps)),
    )


def opt_adagrad_shrink() -> Claim:
    """Under a constant gradient the step is α/√t, which goes to 0."""
    steps = -np.diff(walk(adagrad, constant, 100, alpha=ALPHA), axis=0)
    t = np.arange(1, 101)[:, None]
    return agree("steps 1 to 100", steps, ALPHA / np.sqrt(t) * np.sign(constant()), tol=1e-7)


@printed("err-adadelta-square", _without_square)
def opt_adadelta_slide(form: Callable[..., Any] = rules.rmsprop) -> tuple[Claim, ...]:
    """What the slide calls AdaDelta is RMSprop, once the gradient in its average is squared."""
    path, states = follow(adadelta_slide, ravine, alpha=ALPHA)
    end = walk(adadelta_slide, constant, alpha=ALPHA)[-1]
    return (
        agree("the path on the ravine", by_rule(form, ravine, ALPHA, GAMMA, EPS), _literal(ravine)),
        agree("the optimiser's", path, _literal(ravine)),
        agree("the end under a constant gradient", by_rule(form, constant, ALPHA, GAMMA, EPS)[-1], end),
        equal("E against RMSprop's S", states[-1].E, follow(rmsprop, ravine, alpha=ALPHA)[1][-1].S),
    )


@printed("err-adadelta-not", lambda d, E, D, alpha, rho, eps: (*rules.rmsprop(d, E, alpha, rho, eps), D))
def opt_adadelta_paper(form: Callable[..., Any] = rules.adadelta) -> tuple[Claim, ...]:
    """Zeiler's AdaDelta: two exponential averages, a step in units of θ and no α to choose."""
    path = by_rule(form, ravine, 1.0, RHO, EPS_ADADELTA, memory=(0.0, 0.0))
    first = np.sqrt(EPS_ADADELTA / (1 - RHO))
    return (
        agree("the path on the ravine", path, _zeiler(ravine)),
        agree("the optimiser's, by default", walk(adadelta, ravine), _zeiler(ravine)),
        agree("first step −√(ε/(1 − ρ)) sign(g), 0.00447", path[1] - path[0], -first * np.sign(START), tol=1e-5),
    )


@printed("err-rms-square", _without_square)
def opt_rmsprop(form: Callable[..., Any] = rules.rmsprop) -> tuple[Claim, ...]:
    """S[t] = γS[t−1] + (1−γ)(dθ[t])², θ[t] = θ[t−1] − α dθ[t−1]/√(S[t−1] + ε): the path."""
    return (
        agree("the path on the ravine", by_rule(form, ravine, ALPHA, GAMMA, EPS), _literal(ravine)),
        agree("the optimiser's, by default", walk(rmsprop, ravine, alpha=ALPHA), _literal(ravine)),
    )


def opt_rmsprop_axes() -> tuple[Claim, ...]:
    """The rate of an axis is α/√S: long steps along the flat one, short ones along the steep one."""
    g = np.array([0.01, 10.0])
    path, states = follow(rmsprop, lambda theta, t: g * [1.0, (-1.0) ** t], alpha=ALPHA)
    rates, S = np.abs(np.diff(path, axis=0)) / g, np.stack([state.S for state in states])
    ratio = rates[:, 0] / rates[:, 1]
    return (
        agree("ratio of the rates = √(S_steep/S_flat)", ratio, np.sqrt(S[:, 1] / S[:, 0]), tol=1e-3),
        agree("which is 1000, the ratio of the gradients", ratio, np.full(STEPS, 1e3), tol=1e-3),
        agree("equally long steps along both", rates[:, 0] * g[0], rates[:, 1] * g[1], tol=1e-3),
    )


def opt_rmsprop_first_step() -> Claim:
    """The first step is α/√(1 − γ), more than three times α, whatever the size of the gradient."""
    first = np.diff(walk(rmsprop, constant, 1, alpha=ALPHA), axis=0)[0]
    return agree("first step over α", np.abs(first) / ALPHA, np.full(2, np.sqrt(10)), tol=1e-6)


@printed("err-rms-index", lambda path: path[max(len(path) - 2, 0)])
def opt_index_consistency(form: Callable[..., Any] = lambda path: path[-1]) -> tuple[Claim, ...]:
    """With dθ[t] = ∂L(θ[t])/∂θ all the slides mean the gradient at the newest point, and none a stale one."""

    def gradient(path: list[np.ndarray]) -> np.ndarray:
        return ravine(form(path))

    by_adagrad, by_rmsprop, by_adam = [START], [START], [START]
    G, S, V, S_adam = np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(1, STEPS + 1):
        G = G + gradient(by_adagrad) ** 2
        by_adagrad.append(by_adagrad[-1] - ALPHA * gradient(by_adagrad) / np.sqrt(G + EPS))
        S = GAMMA * S + (1 - GAMMA) * gradient(by_rmsprop) ** 2
        by_rmsprop.append(by_rmsprop[-1] - ALPHA * gradient(by_rmsprop) / np.sqrt(S + EPS))
        d = gradient(by_adam)
        V, S_adam = BETA_1 * V + (1 - BETA_1) * d, BETA_2 * S_adam + (1 - BETA_2) * d**2
        corrected = V / (1 - BETA_1**t), S_adam / (1 - BETA_2**t)
        by_adam.append(by_adam[-1] - ALPHA * corrected[0] / (np.sqrt(corrected[1]) + EPS))
    return (
        agree("AdaGrad: accumulate, then step", by_rule(rules.adagrad, ravine, ALPHA, EPS), by_adagrad),
        agree("RMSprop: the same", by_rule(rules.rmsprop, ravine, ALPHA, GAMMA, EPS), by_rmsprop),
        agree("Adam: the same, under another label", walk(adam, ravine, alpha=ALPHA), by_adam),
        agree("the slides' S[t−1] against it", _literal(ravine), by_rmsprop),
    )


def _literal(gradient: Callable[..., Any]) -> np.ndarray:
    """The slide's recursion, index by index: S[t] holds dθ[t], and S[t−1] divides dθ[t−1]; S[−1] = 0."""
    theta: list[np.ndarray] = [START]
    d, S = {}, {-1: np.zeros(2)}
    for t in range(1, STEPS + 1):
        d[t - 1] = gradient(theta[t - 1], t - 1)
        S[t - 1] = GAMMA * S[t - 2] + (1 - GAMMA) * d[t - 1] ** 2
        theta.append(theta[t - 1] - ALPHA * d[t - 1] / np.sqrt(S[t - 1] + EPS))
    return np.stack(theta)


def _zeiler(gradient: Callable[..., Any]) -> np.ndarray:
    """AdaDelta as in the paper (Zeiler 2012, algorithm 1)."""
    theta, E, D = [START], np.zeros(2), np.zeros(2)
    for t in range(STEPS):
        g = gradient(theta[-1], t)
        E = RHO * E + (1 - RHO) * g**2
        step = -np.sqrt(D + EPS_ADADELTA) / np.sqrt(E + EPS_ADADELTA) * g
        D = RHO * D + (1 - RHO) * step**2
        theta.append(theta[-1] + step)
    return np.stack(theta)
