"""The lecture's claims about initial weights, measured on networks that train."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from advice_population import Problem, data_loss, descend, digits_problems, population
from advice_report import Case, Side, claim, tuned

import mlpjax
from mlpjax import Config
from mlpjax.optim import gradient_descent
from mlpjax.parameters import Params

VARIANCES: dict[str, Callable[[int, int], float]] = {
    "W = 0": lambda n_in, n_out: 0.0,
    "0.01 N(0, 1)": lambda n_in, n_out: 1e-4,
    "Var 1/n_in": lambda n_in, n_out: 1 / n_in,
    "Var 2/n_in": lambda n_in, n_out: 2 / n_in,
    "Var 2/(n_in + n_out)": lambda n_in, n_out: 2 / (n_in + n_out),
    "Var 2/(n_in n_out)": lambda n_in, n_out: 2 / (n_in * n_out),
    "N(0, 1)": lambda n_in, n_out: 1.0,
    "10 N(0, 1)": lambda n_in, n_out: 100.0,
}
"""Var(w) of a layer by name. The last but two is as printed (``err-bengio``)."""
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SHALLOW, DEEP = (64, 32, 10), (64, *(16,) * 10, 10)
LOSS = "training loss after 150 updates"


def drawn(config: Config, key: jax.Array, deviations: Any) -> Params:
    """Start values with W ~ N(0, deviation²) in each layer and b = 0."""
    params, _ = mlpjax.init(config, key)
    return tuple(
        layer._replace(W=deviation * jax.random.normal(jax.random.fold_in(key, l), layer.W.shape))
        for l, (layer, deviation) in enumerate(zip(params, deviations, strict=True))
    )


@functools.cache
def trained(activation: str, sizes: tuple[int, ...], seeds: int) -> dict[str, Side]:
    """The training loss from every start of `VARIANCES`, each with the best of `RATES`.

    200 digits, gradient descent with batches of 25, 150 updates.
    """
    config = Config(sizes=sizes, activation=activation)
    widths = list(itertools.pairwise(sizes))

    def member(setting: Any, problem: Problem) -> jax.Array:
        deviations, alpha = setting
        end, _ = descend(config, gradient_descent(alpha), problem, start=drawn(config, problem.key, deviations))
        return data_loss(config, end, problem.train)

    settings = [
        (np.sqrt([variance(*width) for width in widths], dtype=np.float32), np.float32(alpha))
        for variance in VARIANCES.values()
        for alpha in RATES
    ]
    problems = digits_problems(seeds, train=200, updates=150, batch_size=25)
    losses = population(member, settings, problems).reshape(len(VARIANCES), len(RATES), seeds)
    return {name: tuned(name, RATES, values)[0] for name, values in zip(VARIANCES, losses, strict=True)}


def against(advised: str, other: str, *where: tuple[str, tuple[int, ...]], seeds: int, **how: bool) -> list[Case]:
    """One start against another, for each activation and network."""
    cases = []
    for activation, sizes in where:
        sides = trained(activation, sizes, seeds)
        name = f"{activation}, {len(sizes) - 2} hidden of {sizes[1]}"
        cases.append(Case(name, LOSS, sides[advised], sides[other], **how))
    return cases


@claim("init-zero-setup", "init-zero-update", "init-zero-frozen", "init-random-rule", seeds=20)
def zero_weights_fail(seeds: int) -> list[Case]:
    """Weights that start at 0 are of no use: start them at random.

    Digits, 200 examples, one hidden layer, gradient descent, batches of 25; 0.01 N(0, 1) against W = 0, b = 0 in both.
    """
    where = [(activation, SHALLOW) for activation in ("tanh", "sigmoid", "relu")]
    return against("0.01 N(0, 1)", "W = 0", *where, seeds=seeds)


@claim("init-bias-zero", "err-bias-symmetry", seeds=20)
def zero_biases_are_fine(seeds: int) -> list[Case]:
    """Biases may start at 0: they have no problem of symmetry.

    Digits as above, W ~ N(0, 1/n_in); b = 0 must not be worse than b ~ 0.1 N(0, 1), each with the best rate.
    """
    cases = []
    problems = digits_problems(seeds, train=200, updates=150, batch_size=25)
    for activation in ("tanh", "relu"):
        config = Config(sizes=SHALLOW, activation=activation, init="lecun_normal")

        def member(setting: Any, problem: Problem, config: Config = config) -> jax.Array:
            deviation, alpha = setting
            params, _ = mlpjax.init(config, problem.key)
            key = jax.random.fold_in(problem.key, 99)
            start = tuple(layer._replace(b=deviation * jax.random.normal(key, layer.b.shape)) for layer in params)
            return data_loss(config, descend(config, gradient_descent(alpha), problem, start=start)[0], problem.train)

        settings = [(np.float32(deviation), np.float32(alpha)) for deviation in (0.0, 0.1) for alpha in RATES]
        zero, random = population(member, settings, problems).reshape(2, len(RATES), seeds)
        sides = tuned("b = 0", RATES, zero)[0], tuned("b ~ 0.1 N(0, 1)", RATES, random)[0]
        cases.append(Case(activation, LOSS, *sides, no_worse=True))
    return cases


@claim("init-big-w", seeds=20)
def large_weights_learn_slowly(seeds: int) -> list[Case]:
    """Large weights put σ and tanh on their flat parts: the slope is small, and learning slow.

    Digits, 200 examples, one hidden layer; N(0, 1/n_in) against N(0, 1) and 10 N(0, 1), each with the best rate.
    """
    where = [(activation, SHALLOW) for activation in ("tanh", "sigmoid")]
    cases = []
    for other in ("N(0, 1)", "10 N(0, 1)"):
        cases += against("Var 1/n_in", other, *where, seeds=seeds)
    return cases


@claim("init-small-w", "init-random-001", "err-001-depth", seeds=20)
def very_small_weights_are_better(seeds: int) -> list[Case]:
    """It is better to start from very small weights, 0.01 N(0, 1) (for σ and tanh).

    Digits, 200 examples; 0.01 N(0, 1) against N(0, 1) and against Var 1/n_in, with 1 and with 10 hidden layers.
    """
    cases = against("0.01 N(0, 1)", "N(0, 1)", ("tanh", SHALLOW), ("sigmoid", SHALLOW), seeds=seeds)
    where = [("tanh", SHALLOW), ("sigmoid", SHALLOW), ("tanh", DEEP)]
    return cases + against("0.01 N(0, 1)", "Var 1/n_in", *where, seeds=seeds)


@claim("init-explode-gradient", "init-deep-linear", "init-var-1n", "init-lecun", "init-neuron-sum", seeds=20)
def variance_one_over_n_saves_deep_networks(seeds: int) -> list[Case]:
    """In deep networks signals vanish or explode; Var(w) = 1/n avoids it.

    Digits, 200 examples, 10 hidden layers of 16; Var 1/n_in against weights too small (0.01) and too large (1).
    """
    where = [(activation, DEEP) for activation in ("identity", "tanh", "relu")]
    cases = []
    for other in ("0.01 N(0, 1)", "N(0, 1)"):
        cases += against("Var 1/n_in", other, *where, seeds=seeds)
    return cases


@claim("init-he", "err-he", seeds=20)
def two_over_n_for_relu(seeds: int) -> list[Case]:
    """For ReLU, Var(w) = 2/n works a bit better than 1/n.

    Digits, 200 examples, ReLU, 1 and 10 hidden layers, each start with the best rate.
    """
    return against("Var 2/n_in", "Var 1/n_in", ("relu", SHALLOW), ("relu", DEEP), seeds=seeds)


@claim("init-xavier-slide", "init-glorot", "err-xavier", seeds=20)
def one_over_n_for_tanh(seeds: int) -> list[Case]:
    """For tanh, Var(w) = 1/n is the choice ("Xavier").

    Digits, 200 examples, tanh; against ReLU's 2/n with 1 and 10 hidden layers, and no worse than 2/(n_in + n_out).
    """
    where = [("tanh", SHALLOW), ("tanh", DEEP)]
    cases = against("Var 1/n_in", "Var 2/n_in", *where, seeds=seeds)
    return cases + against("Var 1/n_in", "Var 2/(n_in + n_out)", *where, seeds=seeds, no_worse=True)


@claim("init-bengio-slide", "err-bengio", seeds=20)
def two_over_the_product_for_tanh(seeds: int) -> list[Case]:
    """For tanh, Var(w) = 2/(n_in n_out) is another possibility, as printed.

    Digits, 200 examples, tanh; no worse than 1/n and than the formula of the paper, 2/(n_in + n_out).
    """
    where, cases = [("tanh", SHALLOW), ("tanh", DEEP)], []
    for other in ("Var 1/n_in", "Var 2/(n_in + n_out)"):
        cases += against("Var 2/(n_in n_out)", other, *where, seeds=seeds, no_worse=True)
    return cases


@claim("init-var-1n", seeds=20)
def larger_n_smaller_weights(seeds: int) -> list[Case]:
    """The larger n is, the smaller the weights should be.

    Digits, 200 examples, tanh, 5 hidden layers of n units, 60 updates of gradient descent, the best of three rates: the
    deviation of the weights between the hidden layers with which the training loss is lowest, of a grid in steps of √2;
    Var 1/n_in in the first and the last layer.
    """
    deviations = 2.0 ** np.arange(-6, 1.5, 0.5, dtype=np.float32)
    rates = np.float32([0.1, 0.3, 1.0])
    best = {}
    for n in (8, 64):
        config = Config(sizes=(64, n, n, n, n, n, 10), activation="tanh")

        def member(setting: Any, problem: Problem, config: Config = config) -> jax.Array:
            deviation, alpha = setting
            hidden = (deviation,) * (config.depth - 2)
            start = drawn(config, problem.key, (64**-0.5, *hidden, config.sizes[-2] ** -0.5))
            return data_loss(config, descend(config, gradient_descent(alpha), problem, start=start)[0], problem.train)

        settings = [(deviation, alpha) for deviation in deviations for alpha in rates]
        problems = digits_problems(seeds, train=200, updates=60, batch_size=25)
        losses = population(member, settings, problems).reshape(len(deviations), len(rates), seeds)
        best[n] = deviations[losses.min(axis=1).argmin(axis=0)]
    sides = (Side(f"n = {n}", best[n]) for n in (64, 8))
    return [Case("64 against 8 units", "best deviation of the weights", *sides)]
