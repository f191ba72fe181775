"""The lecture's claims about types of training, gradient descent, momentum and Nesterov's rule, measured."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from advice_population import Problem, data_loss, descend, digits_problems, population
from advice_report import Case, Side, claim, tuned
from jax.flatten_util import ravel_pytree

import mlpjax
from mlpjax import Batch, Config, optim
from mlpjax.step import TrainState

RATES = tuple(round(float(rate), 2) for rate in np.geomspace(0.03, 30, 13))
"""The grid of the rules whose steps are in proportion to the gradient."""
SCALED = tuple(float(f"{rate:.2g}") for rate in np.geomspace(1e-3, 1, 13))
"""The grid of the rules that scale it, to steps of about α."""


class Rule(NamedTuple):
    """An optimiser as a function of α and of its other numbers, and its grid."""

    of: Callable[..., optax.GradientTransformation]
    numbers: tuple[float, ...] = ()
    rates: tuple[float, ...] = SCALED


RULES = {
    "gradient descent": Rule(optim.gradient_descent, (), RATES),
    **{f"momentum, β = {beta}": Rule(optim.momentum, (beta,), RATES) for beta in (0.5, 0.9, 0.99)},
    "Nesterov": Rule(optim.nesterov, (), RATES),
    "AdaGrad": Rule(optim.adagrad),
    "RMSprop": Rule(optim.rmsprop),
    "AdaDelta": Rule(optim.adadelta, (), tuple(100 * rate for rate in SCALED)),
    **{
        f"Adam, β = {betas}": Rule(optim.adam, betas)
        for betas in ((0.9, 0.999), (0.5, 0.999), (0.99, 0.999), (0.9, 0.9))
    },
    "Adam of the slide": Rule(optim.adam_slide),
}
MOMENTUM = "momentum, β = 0.9"
NETWORK = Config(sizes=(64, 32, 10))


def unequal(rng: np.random.Generator, problem: Problem) -> Problem:
    """Give the features scales from 1/10 to 10."""
    scale = np.float32(10 ** rng.uniform(-1, 1, problem.train.x.shape[1]))
    parts = (problem.train, problem.valid, problem.test)
    train, valid, test = (part._replace(x=part.x * scale) for part in parts)
    return problem._replace(train=train, valid=valid, test=test)


def relabelled(rng: np.random.Generator, problem: Problem) -> Problem:
    """Every digit becomes the next one after half of the updates: the training data hold both, the second half last."""
    m, half = len(problem.train.y), len(problem.rows) // 2
    y = np.concatenate([problem.train.y, (problem.train.y + 1) % 10])
    rows = problem.rows.copy()
    rows[half:] += m
    # what is judged in the end
    valid = Batch(problem.train.x, y[m:])
    return problem._replace(train=Batch(np.concatenate([problem.train.x] * 2), y), valid=valid, rows=rows)


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "mini-batches": lambda seeds: digits_problems(seeds, train=256, updates=200, batch_size=32),
    "full batch": lambda seeds: digits_problems(seeds, train=128, updates=200),
    "unequal scales": lambda seeds: digits_problems(seeds, train=256, updates=200, batch_size=32, change=unequal),
    "10 updates": lambda seeds: digits_problems(seeds, train=256, updates=10, batch_size=32),
    "1000 updates": lambda seeds: digits_problems(seeds, train=256, updates=1000, batch_size=32),
    "new labels": lambda seeds: digits_problems(seeds, train=256, updates=400, batch_size=32, change=relabelled),
}
"""What the rules are compared on: 64-32-10 ReLU networks on the digits; mini-batches are of 32."""


def theta_of(of: Callable[..., Any], at: TrainState) -> TrainState:
    """The train state with θ for parameters: Nesterov's rule holds the point ahead of it."""
    return at._replace(params=optim.look_back(at.params, at.opt_state)) if of is optim.nesterov else at


@functools.cache
def trainee(of: Callable[..., optax.GradientTransformation], new_labels: bool) -> Callable[[Any, Problem], jax.Array]:
    """The member that trains by a rule, and says the training loss in the end."""

    def member(setting: Any, problem: Problem) -> jax.Array:
        end, _ = descend(NETWORK, of(*setting), problem)
        return data_loss(NETWORK, theta_of(of, end), problem.valid if new_labels else problem.train)

    return member


@functools.cache
def losses(rule: str, where: str, seeds: int) -> np.ndarray:
    """The training loss in the end, ``(rates, seeds)``."""
    of, numbers, rates = RULES[rule]
    settings = [np.float32((rate, *numbers)) for rate in rates]
    return population(trainee(of, where == "new labels"), settings, PROBLEMS[where](seeds))


def best(rule: str, where: str, seeds: int) -> Side:
    """A rule with the best of its rates."""
    return tuned(rule, RULES[rule].rates, losses(rule, where, seeds))[0]


def versus(advised: str, other: str, *places: str, seeds: int, **how: bool) -> list[Case]:
    """One rule against another, each with its best rate."""
    return [
        Case(where, "training loss", best(advised, where, seeds), best(other, where, seeds), **how) for where in places
    ]


@claim("train-batch", "train-minibatch", "train-sgd", "err-sgd-name", seeds=20)
def mini_batches(seeds: int) -> list[Case]:
    """Mini-batches are the way between one example at a time and all at once (the lecture only lists the three).

    Digits, 256 examples, gradient descent, 10 passes over the data whatever the size of the batches, each size with the
    best rate: batches of 16 against all 256, and against single examples.
    """
    sides = {}
    for size in (1, 16, 256):
        problems = digits_problems(seeds, train=256, updates=10 * 256 // size, batch_size=size)
        found = population(trainee(optim.gradient_descent, False), [np.float32([rate]) for rate in RATES], problems)
        sides[size] = tuned(f"batches of {size}", RATES, found)[0]
    return [Case(f"16 against {size}", "training loss after 10 passes", sides[16], sides[size]) for size in (256, 1)]


@claim("train-shuffle", "train-minibatch-update", seeds=20)
def shuffling(seeds: int) -> list[Case]:
    """The examples are put into a new order for every epoch (implied by the lecture).

    Digits, 256 examples, gradient descent, batches of 32, 10 epochs, each order with the best rate; a new order against
    one random order kept, and against the examples sorted by class.
    """

    def kept(rng: np.random.Generator, problem: Problem) -> Problem:
        return problem._replace(rows=np.tile(problem.rows[:8], (10, 1)))

    def by_class(rng: np.random.Generator, problem: Problem) -> Problem:
        order = np.argsort(problem.train.y, kind="stable").reshape(8, 32)
        return problem._replace(rows=np.tile(order, (10, 1)))

    sides = {}
    for name, change in {"new order": None, "one order": kept, "sorted by class": by_class}.items():
        problems = digits_problems(seeds, train=256, updates=80, batch_size=32, change=change)
        found = population(trainee(optim.gradient_descent, False), [np.float32([rate]) for rate in RATES], problems)
        sides[name] = tuned(name, RATES, found)[0]
    measure = "training loss after 10 epochs"
    return [Case(name, measure, sides["new order"], sides[name]) for name in ("one order", "sorted by class")]


@claim("train-problem-nonconvex", "err-saddle-minima", seeds=20)
def no_guarantee(seeds: int) -> list[Case]:
    """Gradient descent does not guarantee good convergence: it gets stuck in poor minima or on plateaus.

    A case is confirmed when some of 16 starts end above 5 % of the loss at the start, in 80 % of the groups of 16: XOR
    (4 points, 3000 full-batch updates, α = 1) with 2 and with 16 hidden σ units; 64 digits (400 full-batch updates,
    α = 0.3) with 32 ReLU units.
    """
    gate = mlpjax.load_dataset("xor_gate")
    points = Batch(jnp.asarray(gate.x), jnp.asarray(gate.y))
    xor = Problem(None, points, points, points, jnp.tile(jnp.arange(4), (3000, 1)))
    some = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), digits_problems(1, train=64, updates=400))
    keys = jax.random.split(jax.random.key(0), 16 * seeds)
    cases = []
    for name, config, alpha, problem in (
        ("XOR, 2 units", Config(sizes=(2, 2, 1), activation="sigmoid", head="binary"), 1.0, xor),
        ("XOR, 16 units", Config(sizes=(2, 16, 1), activation="sigmoid", head="binary"), 1.0, xor),
        ("digits, 32 units", NETWORK, 0.3, some),
    ):

        def member(alpha: Any, key: Any, config: Config = config, problem: Problem = problem) -> jax.Array:
            start = TrainState(*mlpjax.init(config, key), None)
            end, _ = descend(config, optim.gradient_descent(alpha), problem._replace(key=key))
            return data_loss(config, end, problem.train) > 0.05 * data_loss(config, start, problem.train)

        share = population(member, [np.float32(alpha)], keys).reshape(seeds, 16).mean(axis=1)
        sides = Side("share that is stuck", share), Side("none", np.zeros(seeds))
        cases.append(Case(name, "share of 16 starts", *sides, higher=True))
    return cases


@claim("train-problem-lr", seeds=20)
def rates_depend_on_data(seeds: int) -> list[Case]:
    """The learning rate is hard to choose: it must be adapted to the data.

    Digits, gradient descent, 64-32-10, 200 updates in batches of 32: the rate that is best for these data against the
    rate that is best for the same digits with features of unequal scales, and the other way round.
    """
    places = ("mini-batches", "unequal scales")
    found = {where: losses("gradient descent", where, seeds) for where in places}
    chosen = {where: tuned("own rate", RATES, found[where]) for where in places}
    cases = []
    for here, there in (places, places[::-1]):
        place = chosen[there][1]
        other = Side(f"the other data's rate, α = {RATES[place]:g}", found[here][place])
        cases.append(Case(here, "training loss", chosen[here][0], other))
    return cases


@claim("opt-momentum-accelerate", seeds=20)
def momentum_accelerates(seeds: int) -> list[Case]:
    """Momentum accelerates gradient descent: faster convergence.

    Digits, 200 updates, each rule with its best rate, momentum as the lecture writes it with β = 0.9.
    """
    return versus(MOMENTUM, "gradient descent", "full batch", "mini-batches", "unequal scales", seeds=seeds)


@functools.cache
def motion(rule: str, where: str, alpha: float, seeds: int) -> tuple[Side, Side]:
    """How θ moves at a given rate: the length of its path against the way it came, and the share of updates that rise.

    The rise is of the loss of all training data.
    """
    of, numbers, _ = RULES[rule]

    def member(setting: Any, problem: Problem) -> tuple[jax.Array, jax.Array]:
        def watch(at: TrainState) -> tuple[jax.Array, jax.Array]:
            at = theta_of(of, at)
            return data_loss(NETWORK, at, problem.train), ravel_pytree(at.params)[0]

        _, (cost, theta) = descend(NETWORK, of(*setting), problem, watch=watch)
        path = jnp.sum(jnp.linalg.norm(jnp.diff(theta, axis=0), axis=1))
        return path / jnp.linalg.norm(theta[-1] - theta[0]), jnp.mean(jnp.diff(cost) > 0)

    detour, rising = population(member, [np.float32((alpha, *numbers))], PROBLEMS[where](seeds))
    label = f"{rule}, α = {alpha:g}"
    return Side(label, detour[0]), Side(label, rising[0])


def steadier(advised: str, other: str, rate_of: str, seeds: int) -> list[Case]:
    """Compare the motion of two rules at one rate, the best of ``rate_of``."""
    cases = []
    for where in ("full batch", "mini-batches"):
        alpha = RATES[tuned("", RATES, losses(rate_of, where, seeds))[1]]
        for measure, one, two in zip(
            ("length of the path / distance", "share of updates that raise the training loss"),
            motion(advised, where, alpha, seeds),
            motion(other, where, alpha, seeds),
            strict=True,
        ):
            cases.append(Case(where, measure, one, two))
    return cases


@claim("opt-momentum-damp", "opt-momentum-physics", seeds=20)
def momentum_damps(seeds: int) -> list[Case]:
    """Momentum dampens oscillations.

    Digits, 200 updates; momentum as the lecture writes it (β = 0.9) and gradient descent at the same rate, the one that
    is best for gradient descent.
    """
    return steadier(MOMENTUM, "gradient descent", "gradient descent", seeds)


@claim("opt-nag-compare", "opt-nag", seeds=20)
def nesterov_beats_momentum(seeds: int) -> list[Case]:
    """Nesterov's rule is a smarter ball: more responsive, it does not go too fast, where momentum follows blindly.

    Digits, 200 updates: the loss with the best rates; the motion of both at the rate that is best for momentum.
    """
    cases = versus("Nesterov", MOMENTUM, "full batch", "mini-batches", "unequal scales", seeds=seeds)
    return cases + steadier("Nesterov", MOMENTUM, MOMENTUM, seeds)


@claim("opt-momentum-beta", seeds=20)
def beta_of_momentum(seeds: int) -> list[Case]:
    """The usual choice of β is 0.9.

    Digits, 200 updates, each β with its best rate; 0.9 must not be worse than 0.5 and 0.99.
    """
    cases = []
    for beta in (0.5, 0.99):
        for case in versus(MOMENTUM, f"momentum, β = {beta}", "full batch", "mini-batches", seeds=seeds, no_worse=True):
            cases.append(case._replace(name=f"{case.name}, against {beta}"))
    return cases
