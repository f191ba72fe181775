"""The lecture's claims about normalising the inputs, and about batch-norm, measured."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from advice_optimisers import NETWORK, RATES, trainee, unequal
from advice_population import Problem, data_loss, descend, digits_problems, error, population
from advice_report import Case, Side, claim, tuned

import mlpjax
from mlpjax import Config, optim
from mlpjax.preprocess import SCALERS
from mlpjax.step import TrainState

SCALES = ("none", "standardise", "minmax")
LOWER = tuple(float(f"{rate:.2g}") for rate in np.geomspace(1e-4, 10, 21))
"""A grid that reaches down to what inputs that are not normalised need."""
NORMALISED = (("relu", 1), ("tanh", 5), ("sigmoid", 5), ("relu", 5))
"""Activation and number of hidden layers of the networks for batch-norm."""


def scaled(kind: str, rng: np.random.Generator, problem: Problem) -> Problem:
    """Give the features unequal scales, from 1/10 to 10, then scale them by what the training part says."""
    problem = unequal(rng, problem)
    scaler = SCALERS[kind](np.asarray(problem.train.x))
    parts = (problem.train, problem.valid, problem.test)
    train, valid, test = (part._replace(x=scaler.transform(np.asarray(part.x))) for part in parts)
    return problem._replace(train=train, valid=valid, test=test)


def inputs(kind: str, seeds: int) -> Problem:
    """256 digits, 200 updates in batches of 32, features of unequal scales that are then scaled."""
    return digits_problems(seeds, train=256, updates=200, batch_size=32, change=functools.partial(scaled, kind))


@functools.cache
def by_scaling(kind: str, seeds: int) -> np.ndarray:
    """The training loss with each of `LOWER` as the rate of gradient descent, ``(rates, seeds)``."""
    settings = [np.float32([alpha]) for alpha in LOWER]
    return population(trainee(optim.gradient_descent, False), settings, inputs(kind, seeds))


def usable(rates: tuple[float, ...], losses: np.ndarray) -> np.ndarray:
    """For each seed the largest rate that halves the loss of guessing, log 10; ``(rates, seeds) → (seeds,)``."""
    return np.max(np.where(losses < np.log(10) / 2, np.array(rates)[:, None], 0), axis=0)


@claim("norm-gd-path", "norm-benefits", "norm-scale-example", seeds=20)
def normalised_inputs_train_faster(seeds: int) -> list[Case]:
    """With normalised inputs gradient descent goes straight to the minimum.

    Digits with features of scales from 1/10 to 10, 256 examples, 64-32-10 ReLU, gradient descent, 200 updates in
    batches of 32, each with its best rate: standardised, and scaled to [0, 1], against as they are.
    """
    sides = {kind: tuned(kind, LOWER, by_scaling(kind, seeds))[0] for kind in SCALES}
    return [Case(kind, "training loss", sides[kind], sides["none"]) for kind in SCALES[1:]]


@claim("norm-benefits", "norm-conditioning", seeds=20)
def normalised_inputs_allow_large_rates(seeds: int) -> list[Case]:
    """Without normalised inputs one needs a small learning rate, with them one can use a large one.

    The networks of ``normalised-inputs-train-faster``: the largest rate that brings the training loss below log(10)/2.
    """
    sides = {kind: Side(kind, usable(LOWER, by_scaling(kind, seeds))) for kind in SCALES}
    return [Case(kind, "largest rate that learns", sides[kind], sides["none"], higher=True) for kind in SCALES[1:]]


def saturation(setting: jax.Array, problem: Problem) -> jax.Array:
    """The member: the mean slope of the first layer's σ after training at the rate of the setting."""
    config = dataclasses.replace(NETWORK, activation="sigmoid")
    end, _ = descend(config, optim.gradient_descent(setting), problem)
    slope = jax.nn.sigmoid(problem.train.x @ end.params[0].W + end.params[0].b[None, :])
    return jnp.mean(slope * (1 - slope))


@claim("norm-benefits", seeds=20)
def normalised_inputs_saturate_less(seeds: int) -> list[Case]:
    """Normalised inputs avoid that activations are large (see σ).

    The data of ``normalised-inputs-train-faster``, 64-32-10 with σ, 200 updates at α = 0.1: the mean slope of σ in the
    hidden layer.
    """
    found = {kind: population(saturation, [np.float32(0.1)], inputs(kind, seeds))[0] for kind in SCALES}
    sides = {kind: Side(kind, found[kind]) for kind in SCALES}
    return [Case(kind, "mean σ′(z)", sides[kind], sides["none"], higher=True) for kind in SCALES[1:]]


@claim("norm-train-stats", seeds=20)
def training_statistics_for_test_data(seeds: int) -> list[Case]:
    """The test set is standardised with the mean and deviation of the training set.

    256 standardised digits, 64-32-10 ReLU, gradient descent at α = 0.1, 200 updates; the test error with the statistics
    of the training set against those of the test set itself: of all 1141 test examples, and of 10 at a time.
    """

    def test_with(size: int, rng: np.random.Generator, problem: Problem) -> Problem:
        x = np.asarray(problem.test.x)[: len(problem.test.x) // 10 * 10]
        y = problem.test.y[: len(x)]
        scaler = SCALERS["standardise"](problem.train.x)
        groups = np.split(x, len(x) // size) if size else [x]
        own = np.concatenate([SCALERS["standardise"](group).transform(group) for group in groups])
        train = problem.train._replace(x=scaler.transform(problem.train.x))
        return problem._replace(train=train, test=mlpjax.Batch(scaler.transform(x), y), valid=mlpjax.Batch(own, y))

    cases = []
    for name, size in (("all test examples", 0), ("10 test examples at a time", 10)):
        change = functools.partial(test_with, size)
        problems = digits_problems(seeds, train=256, updates=200, batch_size=32, change=change)
        found = population(both_errors, [np.float32(0.1)], problems)
        labels = ("statistics of the training set", "of the test set")
        cases.append(
            Case(name, "test error", *(Side(label, values[0]) for label, values in zip(labels, found, strict=True)))
        )
    return cases


def both_errors(setting: jax.Array, problem: Problem) -> tuple[jax.Array, jax.Array]:
    """The member: the error on ``test`` and on ``valid``."""
    end, _ = descend(NETWORK, optim.gradient_descent(setting), problem)
    return error(NETWORK, end, problem.test), error(NETWORK, end, problem.valid)


@functools.cache
def by_batch_norm(activation: str, hidden: int, batch_norm: bool, seeds: int) -> np.ndarray:
    """The training loss with each of `RATES`, ``(rates, seeds)``."""
    config = Config(sizes=(64, *(32,) * hidden, 10), activation=activation, batch_norm=batch_norm)

    def member(alpha: Any, problem: Problem) -> jax.Array:
        return data_loss(config, descend(config, optim.gradient_descent(alpha), problem)[0], problem.train)

    problems = digits_problems(seeds, train=256, updates=100, batch_size=32)
    return population(member, [np.float32(rate) for rate in RATES], problems)


@claim("norm-bn-faster", "norm-bn-objective", seeds=20)
def batch_norm_learns_faster(seeds: int) -> list[Case]:
    """Batch-norm allows to learn faster.

    Digits, 256 examples, layers of 32, gradient descent, 100 updates in batches of 32, each with its best rate; the
    training loss (with running statistics), with batch-norm against without.
    """
    cases = []
    for activation, hidden in NORMALISED:
        one, two = (
            tuned(label, RATES, by_batch_norm(activation, hidden, on, seeds))[0]
            for label, on in (("batch-norm", True), ("none", False))
        )
        cases.append(Case(f"{activation}, {hidden} hidden", "training loss", one, two))
    return cases


@claim("norm-bn-faster", seeds=20)
def batch_norm_allows_large_rates(seeds: int) -> list[Case]:
    """With batch-norm the learning rate can be larger (as for normalised inputs).

    The networks of ``batch-norm-learns-faster``: the largest rate that brings the training loss below log(10)/2.
    """
    cases = []
    for activation, hidden in NORMALISED:
        one, two = (
            Side(label, usable(RATES, by_batch_norm(activation, hidden, on, seeds)))
            for label, on in (("batch-norm", True), ("none", False))
        )
        cases.append(Case(f"{activation}, {hidden} hidden", "largest rate that learns", one, two, higher=True))
    return cases


@claim("norm-bn-covariate-shift", "err-bn-shift", seeds=20)
def batch_norm_reduces_covariate_shift(seeds: int) -> list[Case]:
    """Batch-norm reduces the covariate shift: how the inputs of a layer drift while the layers before it learn.

    64-32-32-10, 256 digits, gradient descent at α = 0.3, 100 updates in batches of 32: how far the mean of each input
    of the second layer moves in an update, in units of that input's deviation, over the training examples; the mean
    over units and updates, with batch-norm against without.
    """
    cases = []
    for activation in ("tanh", "relu"):
        sides = []
        for label, on in (("batch-norm", True), ("none", False)):
            config = Config(sizes=(64, 32, 32, 10), activation=activation, batch_norm=on)

            def member(alpha: Any, problem: Problem, config: Config = config) -> jax.Array:
                def watch(at: TrainState) -> tuple[jax.Array, jax.Array]:
                    z = problem.train.x @ at.params[0].W
                    if config.batch_norm:
                        z = (z - jnp.mean(z, axis=0, keepdims=True)) / (jnp.std(z, axis=0, keepdims=True) + 1e-5)
                        z = z * at.params[0].gamma[None, :] + at.params[0].beta[None, :]
                    else:
                        z = z + at.params[0].b[None, :]
                    a = mlpjax.ACTIVATIONS[config.activations[0]].f(z)
                    return jnp.mean(a, axis=0), jnp.std(a, axis=0)

                _, (mean, deviation) = descend(config, optim.gradient_descent(alpha), problem, watch=watch)
                return jnp.mean(jnp.abs(jnp.diff(mean, axis=0)) / (deviation[:-1] + 1e-3))

            problems = digits_problems(seeds, train=256, updates=100, batch_size=32)
            sides.append(Side(label, population(member, [np.float32(0.3)], problems)[0]))
        cases.append(Case(activation, "drift per update", *sides))
    return cases
