"""The lecture's claims about AdaGrad, AdaDelta, RMSprop and Adam, measured."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from advice_optimisers import MOMENTUM, RULES, SCALED, best, losses, versus
from advice_population import Problem, data_loss, descend, epochs_of_rows, population, stacked
from advice_report import Case, Side, claim, tuned

from mlpjax import Batch, Config

ADAM = "Adam, β = (0.9, 0.999)"
FEATURES, RARE = 60, 30
"""Of the sparse data: how many there are, and how many of them are called rare."""


def sparse_problems(seeds: int) -> Problem:
    """Logistic data with features that are 1 with a probability from 0.5 down to 0.01, and 0 otherwise.

    600 examples for training and 600 others; the label is drawn from σ(w · x), w ~ 2 N(0, 1). Batches of 20, 300
    updates.
    """
    often = np.geomspace(0.5, 0.01, FEATURES)
    problems = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x = np.float32(rng.random((1200, FEATURES)) < often)
        score = (x - often) @ (2 * rng.normal(size=FEATURES))
        y = np.int32(rng.random(1200) < 1 / (1 + np.exp(-score)))
        train, test = Batch(x[:600], y[:600]), Batch(x[600:], y[600:])
        problems.append(Problem(jax.random.key(seed), train, test, test, epochs_of_rows(rng, 600, 20, 300)))
    return stacked(problems)


@claim("train-problem-per-param", "opt-adagrad-frequency", seeds=20)
def adagrad_for_rare_features(seeds: int) -> list[Case]:
    """Sparse data want a rate for each parameter: AdaGrad takes larger steps for rare features.

    Logistic regression on 60 binary features, on in 50 % down to 1 % of 600 examples, 300 updates in batches of 20;
    each rule with the rate that is best for the loss on 600 others. That loss, the training loss of examples that have
    one of the 30 rare features, and how far w of the rare features moves, against w of the others.
    """
    config = Config(sizes=(FEATURES, 1), head="binary", init="zeros")
    found = {}
    problems = sparse_problems(seeds)
    for rule in ("AdaGrad", "gradient descent"):
        of, _, rates = RULES[rule]

        def member(alpha: Any, problem: Problem, of: Any = of) -> tuple[jax.Array, ...]:
            end, _ = descend(config, of(alpha), problem)
            has_rare = jnp.any(problem.train.x[:, -RARE:] > 0, axis=1)
            rare = data_loss(config, end, problem.train._replace(weight=has_rare.astype(jnp.float32)))
            size = jnp.abs(end.params[0].W[:, 0])
            return data_loss(config, end, problem.test), rare, jnp.mean(size[-RARE:]) / jnp.mean(size[:-RARE])

        held, rare, ratio = population(member, [np.float32(rate) for rate in rates], problems)
        side, place = tuned(rule, rates, held)
        found[rule] = side, *(Side(side.label, values[place]) for values in (rare, ratio))
    measures = (
        "loss on other examples",
        "training loss where a rare feature is on",
        "|w| of rare / of frequent features",
    )
    return [
        Case("sparse data", measure, one, two, higher=measure.startswith("|w|"))
        for measure, one, two in zip(measures, found["AdaGrad"], found["gradient descent"], strict=True)
    ]


@claim("opt-adagrad-shrink", seeds=20)
def adagrad_stops_learning(seeds: int) -> list[Case]:
    """AdaGrad's rates shrink, since it sums squared gradients from the beginning: it stops learning.

    Digits, batches of 32, AdaGrad and gradient descent each with its best rate: the training loss after 1000 updates,
    and 200 updates after every label has changed to another. Confirmed where gradient descent, whose rate stays, ends
    lower.
    """
    return versus("gradient descent", "AdaGrad", "1000 updates", "new labels", seeds=seeds)


@claim("opt-adadelta-slide", "opt-adadelta-paper", "opt-rmsprop", "err-adadelta-not", seeds=20)
def window_repairs_adagrad(seeds: int) -> list[Case]:
    """A window over past gradients, as in RMSprop and AdaDelta, repairs what AdaGrad's sum spoils.

    Digits, batches of 32, each rule with its best rate, against AdaGrad: the training loss after 1000 updates, and 200
    updates after every label has changed to another.
    """
    cases = []
    for rule in ("RMSprop", "AdaDelta"):
        for case in versus(rule, "AdaGrad", "1000 updates", "new labels", seeds=seeds):
            cases.append(case._replace(name=f"{rule}, {case.name}"))
    return cases


@claim("opt-rmsprop-axes", seeds=20)
def rmsprop_evens_the_axes(seeds: int) -> list[Case]:
    """RMSprop speeds up along flat axes and damps along steep ones.

    Digits, 200 updates, best rates, RMSprop against gradient descent and against momentum; features of unequal scales
    (1/10 to 10) make the axes unequal, beside them the digits as they are.
    """
    cases = []
    for other in ("gradient descent", MOMENTUM):
        for case in versus("RMSprop", other, "unequal scales", "mini-batches", seeds=seeds):
            cases.append(case._replace(name=f"{case.name}, against {other}"))
    return cases


@claim("opt-adam-composition", "opt-adam-paper", "train-first-order", seeds=20)
def adam_combines(seeds: int) -> list[Case]:
    """Adam is momentum and RMSprop together, and so better than either.

    Digits, 200 updates, each rule with its best rate: Adam (as in the paper) against RMSprop, momentum and AdaGrad.
    """
    cases = []
    for other in ("RMSprop", MOMENTUM, "AdaGrad"):
        for case in versus(ADAM, other, "mini-batches", "unequal scales", seeds=seeds):
            cases.append(case._replace(name=f"{case.name}, against {other}"))
    return cases


@claim("opt-adam-bias", "opt-adam-theta-slide", "err-adam-bias", seeds=20)
def adam_without_bias_correction(seeds: int) -> list[Case]:
    """Adam as the slide has it, without bias correction and with ε inside the root, is no worse than the paper's.

    Digits, batches of 32: both with their best rates after 200 and after 10 updates, and after 10 updates both at the
    rate that is best for the paper's.
    """
    slide = "Adam of the slide"
    cases = versus(slide, ADAM, "mini-batches", "10 updates", seeds=seeds, no_worse=True)
    side, place = tuned(ADAM, SCALED, losses(ADAM, "10 updates", seeds))
    same = Side(f"{slide}, α = {SCALED[place]:g}", losses(slide, "10 updates", seeds)[place])
    return [*cases, Case("10 updates at one rate", "training loss", same, side, no_worse=True)]


@claim("opt-adam-hparams", "err-adam-alpha", seeds=20)
def numbers_of_adam(seeds: int) -> list[Case]:
    """Adam's β₁ = 0.9 and β₂ = 0.999 can stay as they are, its α needs to be tuned.

    Digits, 200 updates, batches of 32, each with its best rate: these β must not be worse than three others; and the
    best rate must be better than the paper's 0.001.
    """
    cases = []
    for other in [rule for rule in RULES if rule.startswith("Adam, β") and rule != ADAM]:
        (case,) = versus(ADAM, other, "mini-batches", seeds=seeds, no_worse=True)
        cases.append(case._replace(name=other))
    default = Side("α = 0.001", losses(ADAM, "mini-batches", seeds)[SCALED.index(0.001)])
    return [*cases, Case("α", "training loss", best(ADAM, "mini-batches", seeds), default)]


@claim("opt-momentum-heavyball", "opt-trajectories", "err-alternatives", seeds=20)
def plain_gradient_descent_is_slowest(seeds: int) -> list[Case]:
    """The alternatives are better than gradient descent.

    Digits, 200 updates in batches of 32, every rule with its best rate of a grid of 13.
    """
    cases = []
    for rule in (MOMENTUM, "Nesterov", "AdaGrad", "AdaDelta", "RMSprop", ADAM):
        (case,) = versus(rule, "gradient descent", "mini-batches", seeds=seeds)
        cases.append(case._replace(name=rule))
    return cases
