"""The checks of section *Logistic regression*: what a line can and cannot separate, and the convex cost."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax import logistic
from mlpjax.claims import Claim, agree, equal, holds
from mlpjax.lecture.logreg import formula, logreg_case, logreg_data
from mlpjax.lecture.logreg_training import ALPHA
from mlpjax.logistic_unit import decide, predict
from mlpjax.perceptron import Perceptron, perceptron_predict
from mlpjax.separability import separate
from mlpjax.toys import GATES, TOYS, gate


def logreg_linear_limit() -> tuple[Claim, ...]:
    """Along any line the class changes at most once, for logistic regression and for the perceptron."""
    w, b, *_ = logreg_case()
    rng = np.random.default_rng(1)
    points, ways, t = rng.normal(size=(50, 1, 2)), rng.normal(size=(50, 1, 2)), np.linspace(-9, 9, 101)
    lines = jnp.asarray((points + t[None, :, None] * ways).reshape(-1, 2))
    changes = [
        np.abs(np.diff(np.asarray(classes, int).reshape(50, 101), axis=1)).sum(axis=1)
        for classes in (decide(w, b, lines), perceptron_predict(Perceptron(w, b), lines))
    ]
    return (
        equal("most changes along 50 lines, in each model", np.max(changes, axis=1), [1, 1]),
        holds("most lines cross the boundary", np.mean(changes) > 0.5, float(np.mean(changes))),
    )


def logreg_and() -> tuple[Claim, ...]:
    """AND: the line x₁ + x₂ = 1.5 separates it."""
    return _separated("and_gate", -1.5)


def logreg_or() -> tuple[Claim, ...]:
    """OR: the line x₁ + x₂ = 0.5 separates it."""
    return _separated("or_gate", -0.5)


def _separated(name: str, b: float) -> tuple[Claim, ...]:
    x, y = gate(name)
    fit = logistic.newton(x, y)
    return (
        equal("classes of w = (1, 1) and this b", decide(jnp.ones(2), b, jnp.asarray(x)), GATES[name]),
        holds("a linear program finds a separator", separate(x, y).separable, name),
        holds("so the cost has no minimum: Newton says so", fit.reason == "separable", fit.reason),
        equal("and has found a line", decide(fit.w, fit.b, jnp.asarray(x)), GATES[name]),
    )


def logreg_xor_fail() -> tuple[Claim, ...]:
    """XOR: no line separates it, and the best ones get three of the four right."""
    x, y = gate("xor_gate")
    grid = np.linspace(-2, 2, 17)
    w1, w2, b = (part.ravel() for part in np.meshgrid(grid, grid, grid))
    classes = np.asarray(decide(jnp.stack([w1, w2]), jnp.asarray(b)[None], jnp.asarray(x)))
    accuracy = np.mean(classes == y[:, None], axis=0)
    return (
        holds("a certificate that nothing separates", not separate(x, y).separable, "Σ λᵢ tᵢ x̃ᵢ = 0"),
        equal("best accuracy of 4913 lines", accuracy.max(), 0.75),
    )


def logreg_xor_ln2() -> tuple[Claim, ...]:
    """On XOR the only minimum is w = 0, b = 0 with J = log 2: Newton and gradient descent end there."""
    x, y = gate("xor_gate")
    start = ([1.0, -2.0], 0.5)
    fit = logistic.newton(x, y, start=start)
    descent = logistic.gradient_descent(x, y, alpha=1.0, epochs=2000, start=start)
    zero = logistic.optimality(jnp.zeros(2), 0.0, jnp.asarray(x), jnp.asarray(y))
    return (
        equal("the gradient at 0", zero.gradient_norm, 0.0),
        agree("Newton: (w, b)", np.append(fit.w, fit.b), np.zeros(3), 1e-9),
        agree("gradient descent: (w, b)", np.append(descent.w, descent.b), np.zeros(3), 1e-9),
        agree("J is log 2", [fit.costs[-1], descent.costs[-1]], [math.log(2)] * 2),
    )


def logreg_convex() -> tuple[Claim, ...]:
    """H = (1/m) X̃ᵀ diag(a(1 − a)) X̃ is the Hessian, and has no negative eigenvalue, here and at random points."""
    w, b, x, y = logreg_case()
    at = jax.jit(logistic.hessian)
    hessian = at(w, b, x)
    auto = jax.jit(jax.hessian(lambda theta: formula(theta[1:], theta[0], x, y)))(np.append(b, w))
    points = np.random.default_rng(2).normal(size=(20, 3)) * 5
    lowest = min(np.linalg.eigvalsh(at(p[1:], p[0], x))[0] for p in points)
    slack = np.linalg.eigvalsh(logistic.hessian_bound(x) - hessian)[0]
    return (
        agree("H against autodiff", hessian, auto),
        holds("lowest eigenvalue at 20 points", lowest >= -1e-12, float(lowest)),
        holds("H is below X̃ᵀX̃/(4m)", slack >= -1e-12, float(slack)),
    )


def logreg_calibration() -> tuple[Claim, ...]:
    """At the optimum the mean prediction is the frequency of class 1; with a penalty on w too."""
    x, y = logreg_data()
    fits = [logistic.newton(x, y, l2=l2) for l2 in (0.0, 0.5)]
    means = [predict(fit.w, fit.b, x).mean() for fit in fits]
    gaps = [logistic.optimality(fit.w, fit.b, x, y).calibration for fit in fits]
    early = logistic.gradient_descent(x, y, alpha=ALPHA, epochs=1)
    gap = float(logistic.optimality(early.w, early.b, x, y).calibration)
    return (
        agree("mean ŷ, without and with l2", means, [y.mean()] * 2, 1e-9),
        agree("mean (ŷ − y), as `optimality` says it", gaps, np.zeros(2), 1e-9),
        holds("not so after one epoch", abs(gap) > 1e-3, gap),
    )


def logreg_spam() -> Claim:
    """Two classes of messages, by how often eight words occur: better than always saying the frequent class."""
    rng = np.random.default_rng(3)
    y = (rng.uniform(size=80) < 0.35).astype(int)
    rate = np.where(y[:, None] == 1, [2.0, 1.5, 1.0, 0.3, 0.3, 0.5, 0.5, 0.5], [0.3, 0.4, 0.5, 1.0, 1.0, 0.5, 0.5, 0.5])
    words = rng.poisson(rate).astype(float)
    fit = logistic.newton(words[:40], y[:40], l2=0.1)
    right = float(np.mean(np.asarray(decide(fit.w, fit.b, jnp.asarray(words[40:]))) == y[40:]))
    frequent = max(y[40:].mean(), 1 - y[40:].mean())
    return holds(
        "accuracy on 40 new messages", right > frequent + 0.1, f"{right:.3f}; always 'no spam': {frequent:.3f}"
    )


def logreg_playground() -> tuple[Claim, ...]:
    """On the Playground's raw features it solves the two clouds, and is near chance on XOR, circle and spiral."""
    accuracy = {}
    for name in ("gauss", "xor", "circle", "spiral"):
        x, y = TOYS[name](200, 0)
        fit = logistic.newton(x, y)
        accuracy[name] = float(np.mean(np.asarray(decide(fit.w, fit.b, jnp.asarray(x))) == y))
    found = ", ".join(f"{name} {value:.2f}" for name, value in accuracy.items())
    return (
        holds("gauss solved", accuracy.pop("gauss") == 1.0, found),
        holds("the others below three quarters", max(accuracy.values()) < 0.75, found),
    )
