"""The checks of section *Logistic regression*: gradient descent, the way back through one unit, the slide's program."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import special

from mlpjax import logistic, slide_program
from mlpjax.activations import sigmoid
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.lecture.logreg import formula, gradient, logreg_case, logreg_data, slope
from mlpjax.logistic_unit import bce, bce_da, decide, example_backward, glm_step, predict, score
from mlpjax.modes import epoch_rows
from mlpjax.toys import GATES, gate

ALPHA = 0.3
back_through = jax.jit(example_backward)


def logreg_gd() -> tuple[Claim, ...]:
    """θ ← θ − α ∂J/∂θ: one epoch is one step of optax's SGD on the gradient of autodiff."""
    w, b, x, y = logreg_case()
    fit = logistic.gradient_descent(x, y, alpha=ALPHA, epochs=1, start=(w, b))
    sgd = optax.sgd(ALPHA)
    updates, _ = sgd.update(slope(w, b, x, y), sgd.init((w, b)))
    step = optax.apply_updates((w, b), updates)
    return (
        agree("w", fit.w, step[0]),
        agree("b", fit.b, step[1]),
        holds("J falls", fit.costs[1] < fit.costs[0], f"{fit.costs[0]:.4f} to {fit.costs[1]:.4f}"),
    )


def _descended(x: jax.Array, y: jax.Array, w: Any, b: Any, epochs: int) -> Any:
    fit = logistic.gradient_descent(x, y, alpha=ALPHA, epochs=epochs, start=(w, b))
    return np.append(fit.w, fit.b)


def _update_per_example(x: jax.Array, y: jax.Array, w: Any, b: Any, epochs: int) -> Any:
    for _ in range(epochs):
        for i in range(len(x)):
            w, b = glm_step(w, b, x[i], y[i], ALPHA)
    return np.append(w, b)


@printed("err-gd-nesting", _update_per_example)
def logreg_gd_algorithm(form: Callable[..., Any] = _descended) -> tuple[Claim, ...]:
    """The update comes after the loop over the examples; with a small α the cost falls in every epoch."""
    w, b, x, y = logreg_case()
    theta = [float(w[0]), float(w[1]), float(b)]
    for _ in range(3):
        _, *slopes = slide_program.one_pass(np.asarray(x), np.asarray(y), *theta)
        theta = [value - ALPHA * change for value, change in zip(theta, slopes, strict=True)]
    fit = logistic.gradient_descent(x, y, alpha=ALPHA, epochs=50)
    return (
        agree("three epochs, against loops over epochs and examples", form(x, y, w, b, 3), theta),
        holds("J never rises in 50 epochs", np.all(np.diff(fit.costs) < 0), f"{fit.costs[0]:.4f}, {fit.costs[-1]:.4f}"),
    )


def logreg_forward_z() -> Claim:
    """z = w₁x₁ + w₂x₂ + b."""
    w, b, x, _ = logreg_case()
    by_feature = [float(w[0]) * float(row[0]) + float(w[1]) * float(row[1]) + float(b) for row in x]
    return agree("z, feature by feature", score(w, b, x), by_feature)


def logreg_forward_a() -> Claim:
    """ŷ = a = σ(z) = 1/(1 + e^−z)."""
    w, b, x, _ = logreg_case()
    return agree("a, example by example", predict(w, b, x), [1 / (1 + math.exp(-z)) for z in score(w, b, x).tolist()])


def logreg_back_da() -> tuple[Claim, ...]:
    """∂L/∂a = −(y/a − (1 − y)/(1 − a)) = (a − y)/(a(1 − a)); at a sure and wrong a it is infinite."""
    a, y = jnp.array([0.1, 0.4, 0.9, 0.4]), jnp.array([0.0, 1.0, 1.0, 0.25])
    da, h = bce_da(a, y), 1e-6
    return (
        agree("against jax.grad", da, jax.jit(jax.grad(lambda a: bce(a, y).sum()))(a)),
        agree("the form with two fractions", da, -(y / a - (1 - y) / (1 - a))),
        agree("central differences", da, (bce(a + h, y) - bce(a - h, y)) / (2 * h), 1e-8),
        equal("a = 1 for y = 1, and for y = 0", bce_da(jnp.ones(2), jnp.array([1.0, 0.0])), [-1, np.inf]),
    )


def logreg_back_dadz() -> tuple[Claim, ...]:
    """∂a/∂z = a(1 − a)."""
    w, b, x, y = logreg_case()
    a = special.expit(np.asarray(x[:8]) @ w + b)
    da_dz = [back_through(w, b, x[i], y[i]).da_dz for i in range(8)]
    return (
        agree("a(1 − a)", da_dz, a * (1 - a)),
        agree("jax.grad of σ", da_dz, jax.jit(jax.vmap(jax.grad(sigmoid)))(score(w, b, x[:8]))),
    )


def logreg_back_dz() -> tuple[Claim, ...]:
    """∂L/∂z = ∂L/∂a ∂a/∂z = a − y; far out only a − y can be computed."""
    w, b, x, y = logreg_case()
    back = [back_through(w, b, x[i], y[i]) for i in range(8)]
    dz = [g.dz for g in back]
    auto = jax.jit(jax.vmap(jax.grad(lambda z, y: jnp.logaddexp(0, z) - y * z)))(score(w, b, x[:8]), y[:8])
    far = back_through(jnp.array([800.0, 0.0]), 0 * b, jnp.ones(2), 0 * b)
    return (
        agree("jax.grad of the loss from the score", dz, auto),
        agree("the product of the two factors", dz, [g.da * g.da_dz for g in back]),
        equal("at z = 800, y = 0", far.dz, 1.0),
        holds("where the product is NaN", jnp.isnan(far.da * far.da_dz), "∞ · 0"),
    )


def logreg_back_dw() -> tuple[Claim, ...]:
    """∂L/∂w₁ = x₁ ∂L/∂z and ∂L/∂w₂ = x₂ ∂L/∂z."""
    w, b, x, y = logreg_case()
    back = back_through(w, b, x[3], y[3])
    return (
        agree("dw against jax.grad", back.dw, slope(w, b, x[3:4], y[3:4])[0]),
        agree("x₁ dz and x₂ dz", back.dw, [x[3, 0] * back.dz, x[3, 1] * back.dz]),
    )


def logreg_back_db() -> tuple[Claim, ...]:
    """∂L/∂b = ∂L/∂z."""
    w, b, x, y = logreg_case()
    back = back_through(w, b, x[3], y[3])
    return (
        agree("db against jax.grad", back.db, slope(w, b, x[3:4], y[3:4])[1]),
        agree("ŷ − y", back.db, special.expit(x[3] @ w + b) - y[3]),
    )


def logreg_update_t() -> tuple[Claim, ...]:
    """θ[t] = θ[t−1] − α ∂J/∂θ at θ[t−1], for t = 1, 2, 3."""
    w, b, x, y = logreg_case()
    x_, y_, theta = np.asarray(x), np.asarray(y), np.append(w, b)
    costs = []
    for _ in range(3):
        z = x_ @ theta[:2] + theta[2]
        costs.append(np.mean(np.logaddexp(0, z) - y_ * z))
        error = special.expit(z) - y_
        theta = theta - ALPHA * np.append(x_.T @ error, error.sum()) / len(x_)
    fit = logistic.gradient_descent(x, y, alpha=ALPHA, epochs=3, start=(w, b))
    return agree("θ[3]", np.append(fit.w, fit.b), theta), agree("J at t = 0, 1, 2", fit.costs[:3], costs)


def _drawn_arrays(seed: int) -> tuple[Any, Any, float]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(1) * 0.01, rng.standard_normal(1) * 0.01, 0.0


@printed("err-code-shape", _drawn_arrays)
def logreg_code_init(form: Callable[[int], tuple[Any, Any, float]] = slide_program.initialise) -> tuple[Claim, ...]:
    """w₁, w₂ ~ 0.01 N(0, 1) are numbers, b = 0: J starts at about log 2."""
    x, y = (np.asarray(part) for part in logreg_data())
    start = form(0)
    draws = np.array([form(seed)[:2] for seed in range(1000)])
    return (
        holds("numbers, not arrays", all(np.ndim(value) == 0 for value in start), [np.shape(v) for v in start]),
        agree("J at the start is log 2", slide_program.one_pass(x, y, *start).J, math.log(2), 0.02),
        agree("the deviation of 2000 weights", draws.std(), 0.01, 0.05),
        equal("b", start[2], 0.0),
    )


def _cost_with_log(x: np.ndarray, y: np.ndarray, w1: float, w2: float, b: float) -> float:
    with np.errstate(all="ignore"):
        a = 1 / (1 + np.exp(-(w1 * x[:, 0] + w2 * x[:, 1] + b)))
        return float(np.mean(-(y * np.log(a) + (1 - y) * np.log(1 - a))))


def _cost_of_program(*arguments: Any) -> float:
    return slide_program.one_pass(*arguments).J


@printed("err-code-undefined", _cost_with_log)
def logreg_code_loop(form: Callable[..., float] = _cost_of_program) -> tuple[Claim, ...]:
    """The loop accumulates J and the gradients of all examples; J stays finite where log(0) would come in."""
    w, b, x, y = logreg_case()
    theta = (float(w[0]), float(w[1]), float(b))
    _, *slopes = slide_program.one_pass(np.asarray(x), np.asarray(y), *theta)
    dw, db = slope(w, b, x, y)
    steep = (1000.0, 0.0, 0.0)
    z = 1000 * np.asarray(x)[:, 0]
    return (
        agree("dw₁, dw₂, db against jax.grad", slopes, np.append(dw, db)),
        agree("J", form(np.asarray(x), np.asarray(y), *theta), formula(w, b, x, y)),
        agree("J for w₁ = 1000", form(np.asarray(x), np.asarray(y), *steep), np.mean(np.logaddexp(0, z) - y * z)),
    )


def logreg_code_average() -> tuple[Claim, ...]:
    """J, dw₁, dw₂ and db are each divided by m: the mean over the examples, also of the data twice."""
    w, b, x, y = (np.asarray(part) for part in logreg_case())
    theta = (float(w[0]), float(w[1]), float(b))
    whole = slide_program.one_pass(x, y, *theta)
    alone = [slide_program.one_pass(x[i : i + 1], y[i : i + 1], *theta) for i in range(len(x))]
    twice = slide_program.one_pass(np.concatenate([x, x]), np.concatenate([y, y]), *theta)
    return (
        agree("the mean over the examples", whole, np.sum(alone, axis=0) / len(x)),
        agree("the data twice", twice, whole),
    )


def logreg_code_update() -> tuple[Claim, ...]:
    """The program, looping over examples for 1000 epochs, ends where the vectorised gradient descent does."""
    x, y = gate("or_gate")
    program = slide_program.run(x, y, alpha=ALPHA, seed=1)
    w1, w2, b = slide_program.initialise(1)
    fit = logistic.gradient_descent(x, y, alpha=ALPHA, epochs=1000, start=([w1, w2], b))
    return (
        agree("w₁, w₂, b", [program.w1, program.w2, program.b], np.append(fit.w, fit.b)),
        agree("J of every epoch", program.J, fit.costs[:-1]),
        equal("it computes OR", decide(fit.w, fit.b, jnp.asarray(x)), GATES["or_gate"]),
    )


def logreg_code_epochs() -> tuple[Claim, ...]:
    """1000 epochs are the default; α, which the slide leaves open, must be given."""
    x, y = gate("or_gate")
    alpha = inspect.signature(slide_program.run).parameters["alpha"].default
    return (
        equal("values of J", slide_program.run(x, y, alpha=ALPHA).J.shape, (1000,)),
        holds("α has no default", alpha is inspect.Parameter.empty, alpha),
    )


def logreg_epoch() -> tuple[Claim, ...]:
    """One epoch is one pass over all m examples, each once, whatever the size of the batches."""
    key = jax.random.key(0)
    return tuple(
        equal(f"batches of {size}", np.sort(rows[rows >= 0]), np.arange(40))
        for size in (1, 7, 40)
        for rows in [epoch_rows(key, 1, 40, size)]
    )


def logreg_batch_gd() -> tuple[Claim, ...]:
    """Batch gradient descent takes the gradient of all m examples: the mean of theirs, not that of a part."""
    w, b, x, y = logreg_case()
    whole = np.append(*gradient(w, b, x, y))
    single = np.array([np.append(*gradient(w, b, x[i : i + 1], y[i : i + 1])) for i in range(len(x))])
    part = float(abs(single[:20].mean(axis=0) - whole).max())
    fit = logistic.gradient_descent(x, y, alpha=1.0, epochs=1, start=(w, b))
    return (
        agree("the mean of the examples' gradients", whole, single.mean(axis=0)),
        agree("the step of an epoch", np.append(w, b) - np.append(fit.w, fit.b), whole),
        holds("half of the examples give another", part > 1e-3, part),
    )
