"""AdaGrad, RMSprop, AdaDelta and Adam: each rule as the slides index it, in NumPy, against the package's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.lecture._walks import ALPHA, START, STEPS, constant, follow, once, ravine, stepper, walk
from mlpjax.optim import OPTIMIZERS, make_optimizer

GAMMA, EPS = 0.9, 1e-8
BETA_1, BETA_2 = 0.9, 0.999
ADAGRAD_START, ADAGRAD_EPS = 0.1, 1e-7
"""What the package's AdaGrad, which is optax's, has where the lecture has 0 and no number."""


def opt_adagrad_notation() -> tuple[Claim, ...]:
    """The label of dθ is where the gradient is taken, and every coordinate i goes its own way."""
    path = walk("sgd", ALPHA, ravine)
    one, other = (walk("adagrad", ALPHA, ravine, start=np.array([2.0, second])) for second in (-1.0, 5.0))
    return (
        agree(
            "dθ[t−1], which makes θ[t], is the gradient at θ[t−1]", -np.diff(path, axis=0), ALPHA * ravine(path[:-1])
        ),
        equal("θ₁ under AdaGrad, whatever θ₂ is", one[:, 0], other[:, 0]),
    )


def opt_adagrad_G() -> tuple[Claim, ...]:
    """Between two steps G grows by the square of the gradient, and by nothing else."""
    path = walk("adagrad", ALPHA, ravine)
    d = ravine(path[:-1])
    G = (ALPHA * d / np.diff(path, axis=0)) ** 2
    return (
        agree("G[0] = (dθ[0])², beside the start value", G[0] - ADAGRAD_START - ADAGRAD_EPS, d[0] ** 2, tol=1e-9),
        agree("G[t] − G[t−1] = (dθ[t])²", np.diff(G, axis=0), d[1:] ** 2, tol=1e-9),
    )


def opt_adagrad_theta() -> Claim:
    """θ[t] = θ[t−1] − α dθ[t−1]/√(G[t−1] + ε), with the sum from τ = 0 taken anew at every step."""
    theta = [START]
    for _ in range(STEPS):
        d = ravine(np.stack(theta))
        G = ADAGRAD_START + np.sum(d**2, axis=0)
        theta.append(theta[-1] - ALPHA * d[-1] / np.sqrt(G + ADAGRAD_EPS))
    return agree("the path", walk("adagrad", ALPHA, ravine), theta)


def opt_adagrad_frequency() -> tuple[Claim, ...]:
    """A feature that occurs at every step gets smaller steps than one that occurs at every fifth."""
    path = walk("adagrad", ALPHA, lambda theta, t: np.array([100.0, 100.0 * (t % 5 == 0)]), steps=50)
    steps = -np.diff(path, axis=0)[45]
    return (
        agree("49 steps on: the frequent one α/√46, the rare one α/√10", steps, ALPHA / np.sqrt([46, 10]), tol=1e-4),
        holds("the rare one is larger", steps[1] > steps[0], str(steps)),
    )


def opt_adagrad_shrink() -> Claim:
    """Under a constant gradient the step is α/√t, which goes to 0."""
    steps = -np.diff(walk("adagrad", ALPHA, lambda theta, t: 1e5 * constant(), steps=100), axis=0)
    t = np.arange(1, 101)[:, None]
    return agree("steps 1 to 100", steps, ALPHA / np.sqrt(t) * np.sign(constant()), tol=1e-9)


@printed("err-adadelta-square", lambda E, d: GAMMA * E + (1 - GAMMA) * d)
def opt_adadelta_slide(form: Callable[..., Any] = lambda E, d: GAMMA * E + (1 - GAMMA) * d**2) -> tuple[Claim, ...]:
    """What the slide calls AdaDelta is RMSprop, once the gradient in its average is squared."""
    end = walk("rmsprop", ALPHA, constant)[-1]
    return (
        agree("the path on the ravine", walk("rmsprop", ALPHA, ravine), _literal_rmsprop(form, ravine)),
        agree("the end under a constant gradient", end, _literal_rmsprop(form, constant)[-1]),
    )


@printed("err-adadelta-not", lambda gradient: _literal_rmsprop(_average, gradient))
def opt_adadelta_paper(form: Callable[..., Any] = lambda gradient: _zeiler(gradient)) -> tuple[Claim, ...]:
    """Zeiler's AdaDelta: two exponential averages, a step in units of θ and no α to choose."""
    path = walk("adadelta", 1.0, ravine)
    return (
        agree("the path on the ravine", path, form(ravine)),
        agree(
            "first step −√(ε/(1 − ρ)) sign(g), 0.00316", path[1] - path[0], -np.sqrt(1e-5) * np.sign(START), tol=1e-4
        ),
    )


@printed("err-rms-square", lambda S, d: GAMMA * S + (1 - GAMMA) * d)
def opt_rmsprop(form: Callable[..., Any] = lambda S, d: GAMMA * S + (1 - GAMMA) * d**2) -> Claim:
    """S[t] = γS[t−1] + (1−γ)(dθ[t])², θ[t] = θ[t−1] − α dθ[t−1]/√(S[t−1] + ε): the path."""
    return agree("the path on the ravine", walk("rmsprop", ALPHA, ravine), _literal_rmsprop(form, ravine))


def opt_rmsprop_axes() -> tuple[Claim, ...]:
    """The rate of an axis is α/√S: long steps along the flat one, short ones along the steep one."""
    g = np.array([0.01, 10.0])
    steps = -np.diff(walk("rmsprop", ALPHA, lambda theta, t: g * [1.0, (-1.0) ** t]), axis=0)
    rates = np.abs(steps) / g
    return (
        agree(
            "ratio of the rates = √(S_steep/S_flat) = 1000", rates[:, 0] / rates[:, 1], np.full(STEPS, 1e3), tol=1e-3
        ),
        agree("equally long steps along both", np.abs(steps[:, 0]), np.abs(steps[:, 1]), tol=1e-3),
    )


def opt_rmsprop_first_step() -> Claim:
    """The first step is α/√(1 − γ), more than three times α, whatever the size of the gradient."""
    first = np.diff(walk("rmsprop", ALPHA, constant, steps=1), axis=0)[0]
    return agree("first step over α", np.abs(first) / ALPHA, np.full(2, np.sqrt(10)), tol=1e-6)


def opt_adam_v() -> Claim:
    """V[t] = β₁V[t−1] + (1−β₁) dθ[t−1] from V[0] = 0, as the state of the optimiser holds it."""
    path, states = _adam()
    V = np.zeros(2)
    expected = [V := BETA_1 * V + (1 - BETA_1) * ravine(theta) for theta in path[:-1]]
    return agree("V after each step", [state[0].mu for state in states], expected)


def opt_adam_s() -> Claim:
    """S[t] = β₂S[t−1] + (1−β₂) dθ[t−1] ⊙ dθ[t−1] from S[0] = 0, as the state of the optimiser holds it."""
    path, states = _adam()
    S = np.zeros(2)
    expected = [S := BETA_2 * S + (1 - BETA_2) * ravine(theta) ** 2 for theta in path[:-1]]
    return agree("S after each step", [state[0].nu for state in states], expected)


def opt_adam_theta_slide() -> tuple[Claim, ...]:
    """The slide's rule has no bias correction: it is Adam with a rate that is up to 6.6 times too large early on."""
    path, _ = follow(*stepper(OPTIMIZERS["adam"](lambda count: ALPHA * _uncorrected(count + 1))), ravine)
    steps = -np.diff(_literal_adam(constant, 1000, corrected=False, inside=True), axis=0)[:, 0] / ALPHA
    return (
        agree("Adam with α(1 − β₁ᵗ)/√(1 − β₂ᵗ)", path, _literal_adam(ravine, corrected=False, inside=True), tol=1e-5),
        agree("steps over α under a constant gradient", steps, _uncorrected(np.arange(1, 1001)), tol=1e-5),
        agree("at t = 1, 12, 1000", steps[[0, 11, 999]], [3.16, 6.57, 1.26], tol=1e-3),
        equal("the largest at t =", np.argmax(steps) + 1, 12),
    )


@printed("err-adam-bias", lambda gradient, steps: _literal_adam(gradient, steps, corrected=False, inside=True))
@printed("err-adam-eps", lambda gradient, steps: _literal_adam(gradient, steps, corrected=True, inside=True))
def opt_adam_paper(
    form: Callable[..., Any] = lambda gradient, steps: walk("adam", ALPHA, gradient, steps),
) -> tuple[Claim, ...]:
    """Kingma and Ba's Adam: V̂ = V/(1 − β₁ᵗ), Ŝ = S/(1 − β₂ᵗ), θ ← θ − αV̂/(√Ŝ + ε)."""
    tiny = form(lambda theta, t: np.full(2, 1e-6), 1)
    return (
        agree("the path on the ravine", form(ravine, STEPS), _literal_adam(ravine)),
        agree("first step at a gradient of 10⁻⁶: 0.990 α", (tiny[0] - tiny[1]) / ALPHA, np.full(2, 1 / 1.01), tol=1e-6),
    )


def opt_adam_hparams() -> tuple[Claim, ...]:
    """The defaults are the lecture's: β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸."""
    _, states = follow(*stepper(make_optimizer("adam", ALPHA)), once)
    first, last = states[0][0], states[-1][0]
    small = np.diff(walk("adam", ALPHA, lambda theta, t: np.full(2, 1e-8), steps=1), axis=0)[0]
    return (
        agree("β₁: V decays by 0.9 a step", last.mu / first.mu, np.full(2, 0.9 ** (STEPS - 1))),
        agree("β₂: S decays by 0.999 a step", last.nu / first.nu, np.full(2, 0.999 ** (STEPS - 1))),
        agree("ε: a gradient of 10⁻⁸ makes half a step", small, np.full(2, -ALPHA / 2), tol=1e-6),
    )


def opt_adam_composition() -> tuple[Claim, ...]:
    """The slide's Adam is RMSprop when β₁ = 0, and momentum when S stays 1."""
    momentum_alone = _literal_adam(ravine, corrected=False, eps=0.0, b2=1.0, S=1.0)
    rmsprop_alone = _literal_adam(ravine, corrected=False, inside=True, b1=0.0, b2=GAMMA)
    return (
        agree("β₁ = 0, β₂ = γ: RMSprop", walk("rmsprop", ALPHA, ravine), rmsprop_alone),
        agree("S = 1, ε = 0: momentum", walk("momentum", ALPHA * (1 - BETA_1), ravine), momentum_alone),
    )


@printed("err-adam-bias", lambda steps: _literal_adam(constant, steps, corrected=False, inside=True))
def opt_adam_bias(form: Callable[..., Any] = lambda steps: walk("adam", ALPHA, constant, steps)) -> Claim:
    """Under a constant gradient every step of the corrected rule is α, from the first on."""
    steps = -np.diff(form(50), axis=0) * np.sign(constant())
    return agree("50 steps over α", steps / ALPHA, np.ones((50, 2)), tol=1e-6)


@printed("err-rms-index", lambda path: path[max(len(path) - 2, 0)])
def opt_index_consistency(form: Callable[..., Any] = lambda path: path[-1]) -> tuple[Claim, ...]:
    """With dθ[t] = ∂L(θ[t])/∂θ all the slides mean the gradient at the newest point, and none a stale one."""

    def gradient(path: list[np.ndarray]) -> np.ndarray:
        return ravine(form(path))

    adagrad, rmsprop, adam = [START], [START], [START]
    G, S, V, S_adam = np.full(2, ADAGRAD_START), np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(1, STEPS + 1):
        G = G + gradient(adagrad) ** 2
        adagrad.append(adagrad[-1] - ALPHA * gradient(adagrad) / np.sqrt(G + ADAGRAD_EPS))
        S = GAMMA * S + (1 - GAMMA) * gradient(rmsprop) ** 2
        rmsprop.append(rmsprop[-1] - ALPHA * gradient(rmsprop) / np.sqrt(S + EPS))
        V, S_adam = BETA_1 * V + (1 - BETA_1) * gradient(adam), BETA_2 * S_adam + (1 - BETA_2) * gradient(adam) ** 2
        corrected = V / (1 - BETA_1**t), S_adam / (1 - BETA_2**t)
        adam.append(adam[-1] - ALPHA * corrected[0] / (np.sqrt(corrected[1]) + EPS))
    return tuple(
        agree(f"{name}: accumulate, then step", walk(name, ALPHA, ravine), path)
        for name, path in (("adagrad", adagrad), ("rmsprop", rmsprop), ("adam", adam))
    )


def _average(S: Any, d: Any) -> Any:
    return GAMMA * S + (1 - GAMMA) * d**2


def _literal_rmsprop(average: Callable[..., Any], gradient: Callable[..., Any]) -> np.ndarray:
    """The slide's recursion, index by index: S[t] holds dθ[t], and S[t−1] divides dθ[t−1]; S[−1] = 0."""
    theta: list[np.ndarray] = [START]
    d, S = {}, {-1: np.zeros(2)}
    for t in range(1, STEPS + 1):
        d[t - 1] = gradient(theta[t - 1], t - 1)
        S[t - 1] = average(S[t - 2], d[t - 1])
        with np.errstate(invalid="ignore"):  # without the square, S can be negative
            theta.append(theta[t - 1] - ALPHA * d[t - 1] / np.sqrt(S[t - 1] + EPS))
    return np.stack(theta)


def _zeiler(gradient: Callable[..., Any], rho: float = 0.9, eps: float = 1e-6) -> np.ndarray:
    """AdaDelta as in the paper (Zeiler 2012, algorithm 1), with the package's ρ."""
    theta, E, D = [START], np.zeros(2), np.zeros(2)
    for t in range(STEPS):
        g = gradient(theta[-1], t)
        E = rho * E + (1 - rho) * g**2
        step = -np.sqrt(D + eps) / np.sqrt(E + eps) * g
        D = rho * D + (1 - rho) * step**2
        theta.append(theta[-1] + step)
    return np.stack(theta)


def _literal_adam(
    gradient: Callable[..., Any],
    steps: int = STEPS,
    *,
    corrected: bool = True,
    inside: bool = False,
    b1: float = BETA_1,
    b2: float = BETA_2,
    eps: float = EPS,
    S: float = 0.0,
) -> np.ndarray:
    """Adam's recursion: ``corrected`` as in the paper or not, as on the slide; ε ``inside`` the root, as there."""
    theta: list[np.ndarray] = [START]
    V, squares = np.zeros(2), np.full(2, S)
    for t in range(1, steps + 1):
        d = gradient(theta[t - 1], t - 1)
        V, squares = b1 * V + (1 - b1) * d, b2 * squares + (1 - b2) * d * d
        v, s = (V / (1 - b1**t), squares / (1 - b2**t)) if corrected else (V, squares)
        theta.append(theta[t - 1] - ALPHA * v / (np.sqrt(s + eps) if inside else np.sqrt(s) + eps))
    return np.stack(theta)


def _uncorrected(t: Any) -> Any:
    """What the slide's rule makes of α at step t under a constant gradient."""
    return (1 - BETA_1**t) / (1 - BETA_2**t) ** 0.5


def _adam() -> tuple[np.ndarray, list[Any]]:
    """The path of the package's Adam on the ravine, and the state after each step."""
    return follow(*stepper(make_optimizer("adam", ALPHA)), ravine)
