"""The checks of section *Perceptron*: training, empirically and by a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import binary_step, binary_step_derivative
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.heads import sigmoid_cross_entropy, sigmoid_cross_entropy_dz
from mlpjax.lecture.perceptron import _case
from mlpjax.perceptron import (
    Perceptron,
    augment,
    perceptron_gradient,
    perceptron_predict,
    perceptron_step,
    predict_augmented,
    score,
)
from mlpjax.perceptron import perceptron_loss as loss
from mlpjax.perceptron_training import novikoff, perceptron_fit
from mlpjax.separability import certificate_sum, separate
from mlpjax.toys import gate

ALPHA = 0.3


def perceptron_update() -> tuple[Claim, ...]:
    """One step moves w by α (y − ŷ) x: a worked value, and −α times the gradient of the loss."""
    start = Perceptron(np.array([1.0, -2.0, 0.0]), 0.5)
    after = perceptron_step(start, np.array([3.0, 1.0, 9.0]), 0.0, ALPHA)  # z = 1.5, so ŷ = 1
    params, x, y = _case()
    moved, expected = [], []
    for x_i, y_i in zip(x[:6], y[:6], strict=True):
        moved.append(perceptron_step(params, x_i, y_i, ALPHA).w - params.w)
        expected.append(-ALPHA * jax.grad(loss)(params, x_i, y_i).w)
    return (
        agree("w of the worked example", after.w, [0.1, -2.3, -2.7]),
        agree("Δw = −α ∂L/∂w by jax.grad", moved, expected),
    )


@printed("err-perc-bias", lambda p, x, y, alpha: perceptron_step(p, x, y, alpha)._replace(b=p.b))
def perceptron_update_bias(step: Callable[..., Perceptron] = perceptron_step) -> tuple[Claim, ...]:
    """b moves by α (y − ŷ), as w̃₀ does in formulation 1; without that OR cannot be learnt."""
    params, x, y = _case()
    w_tilde = np.append(params.b, params.w)
    for x_i, y_i in zip(x, y, strict=True):
        params = step(params, x_i, y_i, ALPHA)
        x_tilde = augment(x_i)
        w_tilde = w_tilde + ALPHA * (y_i - predict_augmented(w_tilde, x_tilde)) * x_tilde
    learnt, (gates, target) = Perceptron(np.zeros(2), 0.0), gate("or_gate")
    for x_i, y_i in [*zip(gates, target, strict=True)] * 5:
        learnt = step(learnt, x_i, y_i, 1.0)
    return (
        agree("b after 12 examples is w̃₀", params.b, w_tilde[0]),
        agree("w is the rest of w̃", params.w, w_tilde[1:]),
        equal("OR after 5 epochs", perceptron_predict(learnt, gates), target),
    )


def perceptron_case_0() -> tuple[Claim, ...]:
    """A right answer changes nothing, to the last bit."""
    params, x, y = _case()
    right = _of_error(0, params, x, y)
    steps = [perceptron_step(params, x[i], y[i], ALPHA) for i in right]
    return (
        equal("w stays", [step.w for step in steps], np.tile(params.w, (len(right), 1))),
        equal("b stays", [step.b for step in steps], np.tile(params.b, len(right))),
    )


def perceptron_case_plus() -> tuple[Claim, ...]:
    """A missed 1: w grows where x is positive, shrinks where it is negative, and z rises by α(‖x‖² + 1)."""
    return _moved(+1, lambda error, x: np.sign(error * x))


@printed("err-perc-cases", lambda error, x: np.sign(x))
def perceptron_case_minus(direction: Callable[..., Any] = lambda error, x: np.sign(error * x)) -> tuple[Claim, ...]:
    """A 1 too many: both directions are reversed, and z falls by α(‖x‖² + 1)."""
    return _moved(-1, direction)


def perceptron_train_loop() -> tuple[Claim, ...]:
    """From 0 with α = 1 the gates are learnt; it stops after the first epoch without a mistake."""
    claims = []
    for name, w_tilde in (("and_gate", (-3, 2, 1)), ("or_gate", (-1, 1, 1))):
        x, y = gate(name)
        fit, (theta, counts) = perceptron_fit(x, y), _loop(x, y)
        claims += [
            equal(f"{name}: w̃", [fit.params.b, *fit.params.w], w_tilde),
            equal(f"{name}: w̃ of a loop in plain Python", theta, w_tilde),
            equal(f"{name}: mistakes per epoch, the last 0", fit.mistakes, counts),
            equal(f"{name}: the classes", perceptron_predict(fit.params, x), y),
        ]
    return tuple(claims)


def perceptron_loss() -> tuple[Claim, ...]:
    """The loss −(y − ŷ) z is max(0, −t z): 0 where right, the size of the score where wrong."""
    z = np.append(np.random.default_rng(0).normal(size=40), 0.0)
    one = Perceptron(jnp.ones(1), jnp.zeros(()))
    claims = []
    for y in (0, 1):
        L = loss(one, jnp.asarray(z)[:, None], jnp.full(41, y))
        claims.append(agree(f"y = {y}, 41 scores", L, np.maximum(0.0, -(2 * y - 1) * z)))
    return tuple(claims)


def perceptron_loss_grad_rule() -> tuple[Claim, ...]:
    """Of the product rule only −(y − ŷ) x stays, as ŷ does not move; at z = 0 too, unlike in the relu form."""
    params, x, y = _case()
    hand = [perceptron_gradient(params, *pair) for pair in zip(x, y, strict=True)]
    auto = [jax.grad(loss)(params, *pair) for pair in zip(x, y, strict=True)]
    zero, one = Perceptron(np.zeros(3), 0.0), x[0]
    relu_form = jax.grad(lambda p: jax.nn.relu(score(p, one)))(zero)  # max(0, −tz) of y = 0
    return (
        agree("∂L/∂w by jax.grad", [g.w for g in hand], [g.w for g in auto]),
        agree("∂L/∂b by jax.grad", [g.b for g in hand], [g.b for g in auto]),
        agree("at z = 0 and y = 0 the gradient is x", perceptron_gradient(zero, one, 0).w, one),
        agree("and jax.grad says so too", jax.grad(loss)(zero, one, 0.0).w, one),
        equal("relu(−t z) would not move from 0", relu_form.w, np.zeros(3)),
    )


def perceptron_gd_equivalence() -> tuple[Claim, ...]:
    """The rule is stochastic gradient descent on its loss: an epoch of each ends in the same place."""
    rule, x, y = _case()
    descent, updates = rule, 0
    for x_i, y_i in zip(x, y, strict=True):
        updates += int(perceptron_predict(rule, x_i) != y_i)
        rule = perceptron_step(rule, x_i, y_i, ALPHA)
        g = jax.grad(loss)(descent, x_i, y_i)
        descent = jax.tree.map(lambda leaf, d: leaf - ALPHA * d, descent, g)
    return (
        holds("the epoch has updates", updates >= 3, f"{updates} of {len(x)}"),
        agree("w after it", rule.w, descent.w),
        agree("b after it", rule.b, descent.b),
    )


def perceptron_nondiff() -> tuple[Claim, ...]:
    """A squared error behind a threshold has no gradient: slope 0 nearly everywhere, and none at 0."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=1000))
    g = jax.grad(lambda z: jnp.sum((binary_step(z) - 1) ** 2) / 2)(z)
    h = np.array([1e-2, 1e-4, 1e-6])
    quotient = (np.asarray(binary_step(jnp.asarray(h))) - np.asarray(binary_step(jnp.asarray(-h)))) / (2 * h)
    return (
        equal("gradient of ½(T(z) − y)² at 1000 points", g, np.zeros(1000)),
        equal("T′ by hand", binary_step_derivative(z), np.zeros(1000)),
        agree("at 0 the difference quotient is 1/2h: no limit", quotient, 1 / (2 * h)),
    )


def perceptron_instability() -> tuple[Claim, ...]:
    """On XOR the weights go round for ever, and four multipliers prove that nothing separates it; AND converges."""
    x, y = gate("xor_gate")
    fit, proof = perceptron_fit(x, y, max_epochs=1000), separate(x, y)
    w_tilde = np.column_stack([fit.path.b, fit.path.w])
    known = {tuple(row) for row in w_tilde}
    return (
        holds("XOR: mistakes in each of 1000 epochs", fit.mistakes.min() >= 1, f"at least {fit.mistakes.min()}"),
        holds("XOR: few different weights in them", len(known) < 10, f"{len(known)} different ones"),
        agree("XOR: λ = ¼ each", getattr(proof, "multipliers", np.nan), np.full(4, 0.25)),
        agree("XOR: Σ λᵢ tᵢ x̃ᵢ = 0", certificate_sum([0.25] * 4, x, y), np.zeros(3)),
        holds("AND: converges, and has a separator", _separable_and_learnt("and_gate"), "true"),
        holds("OR: converges, and has a separator", _separable_and_learnt("or_gate"), "true"),
    )


def perceptron_alpha_scale() -> tuple[Claim, ...]:
    """From 0 the learning rate scales the weights and changes no prediction."""
    x, y = _separable(0)
    small, large = (perceptron_fit(x, y, alpha=alpha) for alpha in (0.1, 10.0))
    return (
        equal("the same mistakes", small.mistakes, large.mistakes),
        equal("the same classes", perceptron_predict(small.params, x), perceptron_predict(large.params, x)),
        agree("weights in the ratio of the rates", large.params.w, 100 * small.params.w),
    )


def perceptron_novikoff() -> tuple[Claim, ...]:
    """On separable data there are at most (R/γ)² mistakes: the two growth rates that prove it hold all the way."""
    claims = []
    for seed in range(4):
        x, y = _separable(seed)
        fit = perceptron_fit(x, y)
        track = novikoff(fit, x, y)
        slack = (track.radius * np.sqrt(track.k) - track.norm).min(), (track.progress - track.margin * track.k).min()
        text = f"{fit.total} mistakes, bound {track.bound:.0f}"
        claims += [
            holds(f"set {seed}: mistakes at most (R/γ)²", fit.converged and 0 < fit.total <= track.bound, text),
            holds(f"set {seed}: ‖w̃‖ ≤ R√k and w̃·u ≥ γk", min(slack) >= -1e-9, f"slack at least {min(slack):.2g}"),
        ]
    return tuple(claims)


def perceptron_trivial_min() -> tuple[Claim, ...]:
    """w = 0, b = 0 minimises the loss of any data set, whatever the classes; cross-entropy has no such minimum."""
    params, x, y = _case()
    zero, z = Perceptron(np.zeros(3), 0.0), jnp.zeros((len(x), 1))
    target = jnp.asarray(y)[:, None]
    slope = np.max(np.abs(x.T @ sigmoid_cross_entropy_dz(z, target)))
    return (
        equal("L at 0", loss(zero, x, y), np.zeros(len(x))),
        equal("L at 0 with all classes swapped", loss(zero, x, 1 - y), np.zeros(len(x))),
        holds("L elsewhere is not below", np.min(loss(params, x, y)) >= 0, "true"),
        agree("cross-entropy at 0 is log 2", sigmoid_cross_entropy(z, target), np.full(len(x), np.log(2))),
        holds("and it has a slope there", slope > 0.1, float(slope)),
    )


def _of_error(error: int, params: Perceptron, x: np.ndarray, y: np.ndarray) -> list[int]:
    return np.flatnonzero(np.asarray(y - perceptron_predict(params, x)) == error).tolist()


def _moved(error: int, direction: Callable[..., Any]) -> tuple[Claim, ...]:
    """What a step does on the examples with this y − ŷ."""
    params, x, y = _case()
    at = _of_error(error, params, x, y)
    steps = [perceptron_step(params, x[i], y[i], ALPHA) for i in at]
    dz = [score(step, x[i]) - score(params, x[i]) for i, step in zip(at, steps, strict=True)]
    return (
        holds("there are such examples", len(at) >= 2, f"{len(at)} of {len(x)}"),
        equal("the sign of Δw", [np.sign(step.w - params.w) for step in steps], [direction(error, x[i]) for i in at]),
        agree("Δz", dz, [error * ALPHA * (float(x[i] @ x[i]) + 1) for i in at]),
    )


def _separable(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """40 points of the plane, on both sides of a line, none nearer than 0.1."""
    rng = np.random.default_rng(seed)
    w, b = rng.normal(size=2), rng.normal() / 2
    x = rng.normal(size=(400, 2))
    d = (x @ w + b) / np.linalg.norm(w)
    x, d = x[np.abs(d) > 0.1][:40], d[np.abs(d) > 0.1][:40]
    return x, (d > 0).astype(int)


def _separable_and_learnt(name: str) -> bool:
    x, y = gate(name)
    return separate(x, y).separable and perceptron_fit(x, y).converged


def _loop(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[int]]:
    """The training of the slide in Python floats, with α = 1: (b, w₁, w₂) and the mistakes per epoch."""
    b, w1, w2, counts = 0.0, 0.0, 0.0, [1]
    while counts[-1]:
        counts.append(0)
        for (x1, x2), target in zip(x.tolist(), y.tolist(), strict=True):
            error = target - (1 if b + w1 * x1 + w2 * x2 >= 0 else 0)
            b, w1, w2 = b + error, w1 + error * x1, w2 + error * x2
            counts[-1] += abs(error)
    return [b, w1, w2], counts[1:]
