"""The lecture's claims about penalties on the weights and data augmentation, measured."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from advice_population import Problem, data_loss, descend, digits_problems, error, population, squared_weights
from advice_report import Case, Side, claim

import mlpjax
from mlpjax import Config, optim
from mlpjax.augment import ImageAugment

NETWORK = Config(sizes=(64, 64, 10))
PLAIN = dataclasses.replace(NETWORK, dropout=0.0, l1=0.0, l2=0.0)
"""The same, in a population with others that are regularised."""
ALPHA = 3e-3
STRENGTHS: dict[str, tuple[float, ...]] = {
    "none": (0.0,),
    "L2": (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03),
    "L1": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "dropout": (0.1, 0.2, 0.3, 0.5, 0.7),
}
"""The grids: l2, l1, and the rate of dropping a hidden unit."""
KINDS = ("few examples", "wrong labels")


def mislabelled(rng: np.random.Generator, problem: Problem) -> Problem:
    """Give a fifth of the training examples a random label."""
    y = np.where(rng.random(len(problem.train.y)) < 0.2, rng.integers(0, 10, len(problem.train.y)), problem.train.y)
    return problem._replace(train=problem.train._replace(y=y.astype(np.int32)))


def overfitting(kind: str, seeds: int) -> Problem:
    """Data on which a network overfits: 150 digits, rightly or wrongly labelled; 500 updates in batches of 25."""
    change = mislabelled if kind == "wrong labels" else None
    return digits_problems(seeds, train=150, updates=500, batch_size=25, change=change)


def found_by(config: Config, end: Any, problem: Problem) -> dict[str, jax.Array]:
    """What is measured of a trained network; ``valid`` chooses the strength."""
    train, test = data_loss(config, end, problem.train), data_loss(config, end, problem.test)
    W = end.params[0].W
    hidden = jax.nn.relu(problem.test.x @ W + end.params[0].b[None, :])
    centred = hidden - jnp.mean(hidden, axis=0, keepdims=True)
    centred = centred / (jnp.linalg.norm(centred, axis=0, keepdims=True) + 1e-6)
    correlation = jnp.abs(centred.T @ centred)
    return {
        "valid": data_loss(config, end, problem.valid),
        "test error": error(config, end, problem.test),
        "test loss - training loss": test - train,
        "training loss": train,
        "sum of squared weights": squared_weights(end.params),
        "share of W[1] that is exactly 0": jnp.mean(W == 0),
        "mean |correlation| of hidden units": (jnp.sum(correlation) / len(correlation) - 1) / (len(correlation) - 1),
    }


def regularised(setting: Any, problem: Problem) -> dict[str, jax.Array]:
    """The member: Adam, the setting's penalties and dropout."""
    end, _ = descend(setting, optim.adam(ALPHA), problem)
    return found_by(setting, end, problem)


@functools.cache
def study(kind: str, seeds: int) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    """Train with every strength; for each of `STRENGTHS` what the one that validation chooses found, seed by seed.

    Each seed chooses for itself. ``"dropout 0.5"`` is that rate, whatever validation says.
    """
    settings = []
    for name, grid in STRENGTHS.items():
        for strength in grid:
            settings.append(PLAIN if name == "none" else dataclasses.replace(PLAIN, **{name.lower(): strength}))
    measured = population(regularised, settings, overfitting(kind, seeds))
    found, first = {}, 0
    for name, grid in STRENGTHS.items():
        found[name] = chosen(name, grid, {key: values[first : first + len(grid)] for key, values in measured.items()})
        if name == "dropout":
            half = first + grid.index(0.5)
            found["dropout 0.5"] = "dropout 0.5", {key: values[half] for key, values in measured.items()}
        first += len(grid)
    return found


def chosen(name: str, grid: tuple[float, ...], measured: dict[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """What the strength with the lowest validation loss found, ``(strengths, seeds)`` to ``(seeds,)``, and a label."""
    best = np.argmin(measured["valid"], axis=0)
    low, high = min(grid[i] for i in best), max(grid[i] for i in best)
    label = name if len(grid) == 1 else f"{name} {low:g}" if low == high else f"{name} {low:g} to {high:g}"
    return label, {key: values[best, np.arange(len(best))] for key, values in measured.items()}


def compare(advised: str, measure: str, seeds: int, other: str = "none", **how: bool) -> list[Case]:
    """One regulariser against none, or another, on both kinds of data."""
    cases = []
    for kind in KINDS:
        sides = (study(kind, seeds)[name] for name in (advised, other))
        cases.append(Case(kind, measure, *(Side(label, found[measure]) for label, found in sides), **how))
    return cases


@claim("reg-goal", "reg-nn-cost", "reg-lambda", "reg-logreg-cost", seeds=20)
def l2_against_overfitting(seeds: int) -> list[Case]:
    """L2 regularisation avoids over-fitting.

    150 digits, rightly labelled, or a fifth of them at random; 64-64-10 ReLU, Adam with α = 0.003, 500 updates in
    batches of 25; each seed chooses its strength on 400 validation examples; 1247 test examples.
    """
    return [case for measure in ("test error", "test loss - training loss") for case in compare("L2", measure, seeds)]


@claim("reg-goal", "reg-l1-norm", "reg-lambda", seeds=20)
def l1_against_overfitting(seeds: int) -> list[Case]:
    """L1 regularisation avoids over-fitting.

    As for L2.
    """
    return [case for measure in ("test error", "test loss - training loss") for case in compare("L1", measure, seeds)]


@claim("reg-ridge-small", seeds=20)
def l2_ends_small(seeds: int) -> list[Case]:
    """L2 regularisation ends with small weights.

    The networks of ``l2-against-overfitting``: against no penalty.
    """
    return compare("L2", "sum of squared weights", seeds)


def thresholded(setting: Any, problem: Problem) -> dict[str, jax.Array]:
    """The member: gradient descent, then the soft threshold α l1."""
    rule = optim.gradient_descent(0.3)
    end, _ = descend(NETWORK, optax.chain(rule, optim.proximal_l1(0.3, setting)), problem)
    return found_by(NETWORK, end, problem)


@claim("reg-lasso-sparse", "reg-lasso-prox", "err-l1-sparse", seeds=20)
def l1_ends_sparse(seeds: int) -> list[Case]:
    """L1 regularisation ends with sparse weights, many of them 0; L2 does not.

    The networks of ``l1-against-overfitting``, penalties through their gradients, l1 sign(w); beside them L1 by
    gradient descent (α = 0.3) and the soft threshold; strengths chosen on validation data. Against L2.
    """
    measure = "share of W[1] that is exactly 0"
    cases = [
        case._replace(name=f"subgradient, {case.name}") for case in compare("L1", measure, seeds, "L2", higher=True)
    ]
    for kind in KINDS:
        settings = [np.float32(l1) for l1 in STRENGTHS["L1"]]
        label, found = chosen("L1", STRENGTHS["L1"], population(thresholded, settings, overfitting(kind, seeds)))
        other, of_l2 = study(kind, seeds)["L2"]
        sides = Side(f"{label}, soft threshold", found[measure]), Side(other, of_l2[measure])
        cases.append(Case(f"soft threshold, {kind}", measure, *sides, higher=True))
    return cases


@claim("reg-intuition-1", "reg-intuition-2", "err-hidden-inactive", seeds=20)
def large_penalties_simplify(seeds: int) -> list[Case]:
    """With a large λ the weights are almost 0: many hidden units are inactive, and a tanh network is almost linear.

    150 digits, 64-64-10 tanh, Adam, 500 updates; l2 = 0.03 and 0.3 against none. Inactive: over the test examples the
    output of the unit has a deviation below 0.05. Linear: the share of the variance of the scores that the best linear
    function of x leaves, over the test examples. Beside them the test error.
    """
    config = dataclasses.replace(PLAIN, activation="tanh")

    def member(setting: Any, problem: Problem) -> tuple[jax.Array, jax.Array, jax.Array]:
        end, _ = descend(setting, optim.adam(ALPHA), problem)
        hidden = jnp.tanh(problem.test.x @ end.params[0].W + end.params[0].b[None, :])
        scores, _ = mlpjax.forward(setting, end.params, end.state, problem.test.x)
        return jnp.mean(jnp.std(hidden, axis=0) < 0.05), scores, error(setting, end, problem.test)

    problems = overfitting("few examples", seeds)
    strengths = (0.0, 0.03, 0.3)
    inactive, scores, wrong = population(member, [dataclasses.replace(config, l2=l2) for l2 in strengths], problems)
    left = [
        [_unexplained(np.asarray(x, float), z) for x, z in zip(problems.test.x, each, strict=True)] for each in scores
    ]
    cases = []
    for i in (1, 2):
        name = f"l2 = {strengths[i]:g}"
        for measure, values, higher in (
            ("share of inactive units", inactive, True),
            ("variance left by a linear fit", np.array(left), False),
            ("test error", wrong, False),
        ):
            cases.append(Case(name, measure, Side(name, values[i]), Side("none", values[0]), higher=higher))
    return cases


def _unexplained(x: np.ndarray, z: np.ndarray) -> float:
    """The share of the variance of z that no affine function of x explains."""
    inputs = np.c_[np.ones(len(x)), np.float64(x)]
    rest = z - inputs @ np.linalg.lstsq(inputs, z, rcond=None)[0]
    return float(np.sum(rest**2) / np.sum((z - z.mean(axis=0)) ** 2))


@claim("reg-goal", "reg-intuition-1", seeds=20)
def smaller_networks_overfit_less(seeds: int) -> list[Case]:
    """A simpler network over-fits less.

    The data of ``l2-against-overfitting``; 64-8-10 against 64-64-10, without regularisation.
    """
    small = dataclasses.replace(PLAIN, sizes=(64, 8, 10))
    cases = []
    for kind in KINDS:
        found = population(regularised, [small], overfitting(kind, seeds))
        _, large = study(kind, seeds)["none"]
        for measure in ("test error", "test loss - training loss"):
            sides = Side("8 hidden units", found[measure][0]), Side("64 hidden units", large[measure])
            cases.append(Case(kind, measure, *sides))
    return cases


def augmented(setting: ImageAugment, problem: Problem) -> dict[str, jax.Array]:
    """The member: Adam on images that are changed anew at every update."""
    end, _ = descend(NETWORK, optim.adam(ALPHA), problem, augment=setting)
    return found_by(NETWORK, end, problem)


@claim("reg-augmentation", "err-augment-spec", seeds=20)
def augmentation_for_few_examples(seeds: int) -> list[Case]:
    """Data augmentation, changes of the images that keep their labels, lowers the test error.

    The data and networks of ``l2-against-overfitting``. Shifts of up to 0.5 to 1.5 pixels and rotations of up to 5 to
    15 degrees, strength chosen on validation data, against none.
    """
    grid = (0.5, 1.0, 1.5)
    cases = []
    for kind in KINDS:
        settings = [ImageAugment(shape=(8, 8), shift=shift, rotate=10 * shift) for shift in grid]
        label, found = chosen("shift", grid, population(augmented, settings, overfitting(kind, seeds)))
        _, none = study(kind, seeds)["none"]
        for measure in ("test error", "test loss - training loss"):
            cases.append(Case(kind, measure, Side(label, found[measure]), Side("none", none[measure])))
    return cases
