"""The lecture's claims about dropout, measured."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from advice_population import Problem, data_loss, descend, digits_problems, error, population
from advice_regularisation import ALPHA, KINDS, NETWORK, compare, overfitting
from advice_report import Case, Side, claim, tuned

from mlpjax import Config, optim

MASKS = 50
"""How many sub-networks are averaged."""


@claim("reg-dropout-effect", "reg-dropout-train", "reg-dropout-test", "reg-dropout-inverted", seeds=20)
def dropout_regularises(seeds: int) -> list[Case]:
    """Dropout acts as a powerful regularisation.

    The data and networks of ``l2-against-overfitting``, the rate chosen on validation data, against no dropout.
    """
    return [case for what in ("test error", "test loss - training loss") for case in compare("dropout", what, seeds)]


@claim("reg-dropout-effect", "reg-lambda", seeds=20)
def dropout_against_l2(seeds: int) -> list[Case]:
    """Dropout is *powerful*: no worse than L2 regularisation.

    The data and networks of ``l2-against-overfitting``; both strengths chosen on validation data.
    """
    return compare("dropout", "test error", seeds, "L2", no_worse=True)


@claim("reg-dropout-default", seeds=20)
def half_is_the_rate(seeds: int) -> list[Case]:
    """Hidden units are turned off with probability 0.5.

    The data and networks of ``l2-against-overfitting``; 0.5 is better than nothing, and no worse than the rate that
    validation data choose among 0.1, 0.2, 0.3, 0.5 and 0.7.
    """
    cases = compare("dropout 0.5", "test error", seeds)
    return cases + compare("dropout 0.5", "test error", seeds, "dropout", no_worse=True)


@claim("reg-dropout-l2", seeds=20)
def dropout_shrinks_weights(seeds: int) -> list[Case]:
    """Dropout shrinks the squared norm of the weights, similar to L2 regularisation.

    The networks of ``l2-against-overfitting``, 0.5 against none after the same number of updates.
    """
    return compare("dropout 0.5", "sum of squared weights", seeds)


def copies(rng: np.random.Generator, problem: Problem) -> Problem:
    """Give every feature twice."""
    parts = (problem.train, problem.valid, problem.test)
    train, valid, test = (part._replace(x=np.tile(part.x, (1, 2))) for part in parts)
    return problem._replace(train=train, valid=valid, test=test)


@claim("reg-dropout-coadapt", seeds=20)
def dropout_spreads_weights(seeds: int) -> list[Case]:
    """Dropout prevents co-adaptation: no unit relies on one feature, and weights are spread out.

    (1) The hidden units of ``l2-against-overfitting``: how they correlate over the test examples, 0.5 against none.
    (2) 150 digits whose every feature comes twice, softmax regression, Adam, 500 updates, inputs dropped with 0.5
    against not: Σ|w − w′|/Σ(|w| + |w′|) over the two copies, from start values that differ.
    """
    cases = compare("dropout 0.5", "mean |correlation| of hidden units", seeds)
    config = Config(sizes=(128, 10), dropout=(0.5,))

    def member(setting: Any, problem: Problem) -> jax.Array:
        W = descend(setting, optim.adam(ALPHA), problem)[0].params[0].W
        return jnp.sum(jnp.abs(W[:64] - W[64:])) / jnp.sum(jnp.abs(W))

    problems = digits_problems(seeds, train=150, updates=500, batch_size=25, change=copies)
    with_it, without = population(member, [config, dataclasses.replace(config, dropout=(0.0,))], problems)
    sides = Side("inputs dropped, 0.5", with_it), Side("none", without)
    return [*cases, Case("copies of a feature", "difference of their weights", *sides)]


def ensemble(setting: Config, problem: Problem) -> tuple[jax.Array, ...]:
    """The member: the validation loss of the whole network, of the mean of sub-networks, and of the mean one alone."""
    end, _ = descend(setting, optim.adam(ALPHA), problem)
    x, y = problem.valid.x, problem.valid.y

    def log_p(key: jax.Array) -> jax.Array:
        # one mask for all examples: a sub-network
        mask = jax.random.bernoulli(key, 1 - setting.dropout, (NETWORK.sizes[1],)) / (1 - setting.dropout)
        hidden = jax.nn.relu(x @ end.params[0].W + end.params[0].b[None, :]) * mask[None, :]
        return jax.nn.log_softmax(hidden @ end.params[1].W + end.params[1].b[None, :])

    each = jax.vmap(log_p)(jax.random.split(jax.random.fold_in(problem.key, 99), MASKS))
    mean = jax.nn.logsumexp(each, axis=0) - jnp.log(MASKS)
    right = jnp.arange(len(y)), y
    return data_loss(setting, end, problem.valid), -jnp.mean(mean[right]), -jnp.mean(each[:, *right])


@claim("reg-dropout-ensemble", "err-dropout-average", seeds=20)
def dropout_averages(seeds: int) -> list[Case]:
    """Dropout averages models that share parameters.

    The data and networks of ``l2-against-overfitting``, trained with dropout 0.5. The whole network, which drops
    nothing, is better than a sub-network is on average, and no worse than the mean of the probabilities of 50
    sub-networks.
    """
    cases = []
    for kind in KINDS:
        config = dataclasses.replace(NETWORK, dropout=0.5)
        whole, mean, alone = (values[0] for values in population(ensemble, [config], overfitting(kind, seeds)))
        one = Side("whole network", whole)
        cases.append(Case(kind, "validation loss", one, Side("a sub-network", alone)))
        cases.append(Case(kind, "validation loss", one, Side(f"mean of {MASKS}", mean), no_worse=True))
    return cases


@claim("err-dropout-easier", "reg-dropout-effect", seeds=20)
def dropout_is_easier_to_train(seeds: int) -> list[Case]:
    """With dropout the network is smaller, and so easier to train.

    Digits, 256 examples, 64-64-10 ReLU, gradient descent, 200 updates in batches of 32, each with its best rate: the
    training loss, nothing dropped, of dropout 0.5 against none.
    """
    rates = tuple(round(float(rate), 3) for rate in np.geomspace(0.03, 3, 9))

    def member(setting: Any, problem: Problem) -> jax.Array:
        config, alpha = setting
        return data_loss(config, descend(config, optim.gradient_descent(alpha), problem)[0], problem.train)

    dropped = (0.5, 0.0)
    settings = [(dataclasses.replace(NETWORK, dropout=rate), np.float32(alpha)) for rate in dropped for alpha in rates]
    problems = digits_problems(seeds, train=256, updates=200, batch_size=32)
    found = population(member, settings, problems).reshape(2, len(rates), seeds)
    sides = (tuned(f"dropout {rate:g}", rates, values)[0] for rate, values in zip(dropped, found, strict=True))
    return [Case("digits", "training loss", *sides)]


def two_layers(setting: Config, problem: Problem) -> jax.Array:
    """The member: the test error of a network with a rate for each hidden layer."""
    return error(setting, descend(setting, optim.adam(ALPHA), problem)[0], problem.test)


@claim("reg-dropout-per-layer", seeds=20)
def higher_rates_for_large_matrices(seeds: int) -> list[Case]:
    """The rate may vary over the layers: higher for a large W, lower for a small one.

    The data of ``l2-against-overfitting``, 64-128-16-10 ReLU: W has 8192, 2048 and 160 entries. Rates 0.5 and 0.1 for
    the layer of 128 and that of 16, against the same the other way round and against 0.3 for both.
    """
    config = Config(sizes=(64, 128, 16, 10))
    rates = ((0.5, 0.1), (0.1, 0.5), (0.3, 0.3))
    settings = [dataclasses.replace(config, dropout=(0.0, *pair)) for pair in rates]
    cases = []
    for kind in KINDS:
        found = population(two_layers, settings, overfitting(kind, seeds))
        sides = [Side(f"{pair[0]:g} and {pair[1]:g}", values) for pair, values in zip(rates, found, strict=True)]
        cases += [Case(kind, "test error", sides[0], other) for other in sides[1:]]
    return cases
