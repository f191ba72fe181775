"""The cases of `provenance.py`: runs in which one number is not finite, and the fields of the fault that it makes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from provenance_plants import (
    COLUMN,
    DEAD,
    EPOCHS,
    FAILURES,
    INF,
    LINEAR,
    NAN,
    NORMALISED,
    PATH,
    PENALISED,
    PLAIN,
    PLANTING,
    RATED,
    SIZES,
    SQUARES,
    STEPS,
    Place,
    data_of,
    naive,
    place_in,
    plant,
    random_leaf,
    replaced,
    rows_of,
    start_of,
    with_plant,
)

import mlpjax
from mlpjax import Config, TrainState
from mlpjax.step import GradFn

NOWHERE = Place(0, -1, 0).augment()
"""An augmentation that changes nothing, so that there is one program."""


class Case(NamedTuple):
    """A run, and the fields of the fault that it has."""

    config: Config
    start: TrainState
    expected: dict[str, Any]
    augment: Any = NOWHERE
    optimizer: optax.GradientTransformation = PLANTING
    grad_fn: GradFn = mlpjax.backward


def bad(rng: np.random.Generator) -> float:
    """Draw a number that is not finite."""
    return float(rng.choice([NAN, INF, -INF]))


def at_start(quantity: str, layer: int, place: tuple[int, ...], value: float) -> dict[str, Any]:
    """The fields of a fault of what a run is given."""
    return {"at": (1, 1), "quantity": quantity, "layer": layer, "place": place, "value": value, "row": None}


def at_step(at: int, quantity: str, layer: int | None, place: tuple[int, ...], value: float) -> dict[str, Any]:
    """The fields of a fault of no example."""
    return {**at_start(quantity, layer, place, value), **Place(at, 0, 0).when()}


def hidden_layer(rng: np.random.Generator, first: int = 1, last: int = len(PATH) - 1) -> int:
    """Draw a layer."""
    return int(rng.integers(first, last + 1))


def failure(rng: np.random.Generator, what: str) -> tuple[float, float]:
    """Draw a number at which ``what`` fails, and what then stands there."""
    numbers = [(number, value) for number, (quantity, value) in FAILURES.items() if quantity == what]
    return numbers[rng.integers(len(numbers))]


def unit_before(l: int) -> int:
    """The unit of the path in layer l − 1, or the column of x."""
    return COLUMN if l == 1 else PATH[l - 2]


def case_x(rng: np.random.Generator) -> Case:
    """An input."""
    place, column, value = place_in(rng), int(rng.integers(SIZES[0])), bad(rng)
    return Case(PLAIN, start_of(PLAIN), place.expected("x", 0, column, value), place.augment(x=(column, value)))


def case_weight(rng: np.random.Generator) -> Case:
    """The weight of an example."""
    place, value = place_in(rng), float(rng.choice([NAN, INF]))
    return Case(PLAIN, start_of(PLAIN), place.expected("weight", 0, None, value), place.augment(weight=value))


def case_y(rng: np.random.Generator) -> Case:
    """A target."""
    place, column, value = place_in(rng), int(rng.integers(SIZES[-1])), bad(rng)
    return Case(SQUARES, start_of(SQUARES), place.expected("y", None, column, value), place.augment(y=(column, value)))


def case_parameter(rng: np.random.Generator) -> Case:
    """A parameter that the run is given."""
    start, value = start_of(PLAIN), bad(rng)
    l, field, _, place = random_leaf(rng, start.params)
    params = replaced(start.params, l, field, place, value)
    return Case(PLAIN, start._replace(params=params), at_start(field, l, place, value))


def case_given_moment(rng: np.random.Generator) -> Case:
    """A moment that the run is given."""
    start, value = start_of(PLAIN), bad(rng)
    l, field, _, place = random_leaf(rng, start.params)
    name = str(rng.choice(["mu", "nu"]))
    (adam, *rest), plants = start.opt_state
    adam = adam._replace(**{name: replaced(getattr(adam, name), l, field, place, value)})
    start = start._replace(opt_state=((adam, *rest), plants))
    return Case(PLAIN, start, at_start(f"moment {name} of {field}", l, place, value))


def case_statistics(rng: np.random.Generator) -> Case:
    """A running statistic of batch-norm that the run is given."""
    start, value = start_of(NORMALISED), bad(rng)
    l, field = int(rng.integers(1, 3)), str(rng.choice(["mean", "var"]))
    place = (int(rng.integers(NORMALISED.sizes[l])),)
    start = start._replace(state=replaced(start.state, l, field, place, value))
    return Case(NORMALISED, start, at_start(f"running_{field}", l, place, value))


def case_update(rng: np.random.Generator) -> Case:
    """An update."""
    start, value, at = start_of(PLAIN), bad(rng), place_in(rng).at
    l, field, number, place = random_leaf(rng, start.params)
    return Case(PLAIN, with_plant(start, plant(at, number, value)), at_step(at, f"update of {field}", l, place, value))


def case_moment(rng: np.random.Generator) -> Case:
    """A moment that the optimiser makes, beside a finite update."""
    start, value, at = start_of(PLAIN), bad(rng), place_in(rng).at
    l, field, number, place = random_leaf(rng, start.params)
    expected = at_step(at, f"moment mu of {field}", l, place, value)
    return Case(PLAIN, with_plant(start, plant(at, number, value, in_moment=True)), expected)


def case_new_parameter(rng: np.random.Generator) -> Case:
    """A weight and its update, both finite, whose sum is not."""
    start, at, sign, unit = start_of(PLAIN), place_in(rng).at, float(rng.choice([-1, 1])), int(rng.integers(SIZES[1]))
    start = start._replace(params=replaced(start.params, 1, "W", (DEAD, unit), sign * 3e38))
    # the first leaf is W of layer 1
    start = with_plant(start, plant(at, DEAD * SIZES[1] + unit, sign * 2e38))
    return Case(PLAIN, start, at_step(at, "new W", 1, (DEAD, unit), sign * INF))


def case_z(rng: np.random.Generator) -> Case:
    """A product that overflows in the scores of a layer."""
    place, l, sign = place_in(rng), hidden_layer(rng, last=len(PATH)), float(rng.choice([-1, 1]))
    # in the first layer every example meets the weight, and must leave the unit off
    weight, x = (100.0, 3e38) if l == 1 else (1e30, 1e15)
    start = start_of(PLAIN, path={l: sign * weight})
    return Case(PLAIN, start, place.expected("z", l, PATH[l - 1], sign * INF), place.augment(x=(COLUMN, x)))


def case_a(rng: np.random.Generator) -> Case:
    """An activation that fails."""
    (number, value), place, l = failure(rng, "a"), place_in(rng), hidden_layer(rng)
    start = start_of(PLAIN, path={l: 2.0})
    return Case(PLAIN, start, place.expected("a", l, PATH[l - 1], value), place.augment(x=(COLUMN, number / 2)))


def case_dz(rng: np.random.Generator) -> Case:
    """A derivative of an activation that fails."""
    (number, value), place, l = failure(rng, "dz"), place_in(rng), hidden_layer(rng)
    start = start_of(PLAIN, path={l: 2.0, l + 1: 0.5})
    return Case(PLAIN, start, place.expected("dz", l, PATH[l - 1], value), place.augment(x=(COLUMN, number / 2)))


def in_rule(rng: np.random.Generator, what: str, first: int) -> tuple[int, float, Place, TrainState, Any]:
    """A run in which the rule of affine layers fails in one layer, from layer ``first`` on."""
    (number, value), place, l = failure(rng, what), place_in(rng), hidden_layer(rng, first, len(PATH))
    start = start_of(PLAIN, path={l: 0.5} if l == 1 else {l - 1: 2.0, l: 0.5})
    return l, value, place, start, place.augment(x=(COLUMN, number if l == 1 else number / 2))


def case_dW(rng: np.random.Generator) -> Case:
    """A rule that fails in the gradient of W."""
    l, value, place, start, augment = in_rule(rng, "dW", 1)
    return Case(PLAIN, start, at_step(place.at, "dW", l, (unit_before(l), PATH[l - 1]), value), augment)


def case_db(rng: np.random.Generator) -> Case:
    """A rule that fails in the gradient of b."""
    l, value, place, start, augment = in_rule(rng, "db", 1)
    return Case(PLAIN, start, at_step(place.at, "db", l, (PATH[l - 1],), value), augment)


def case_da(rng: np.random.Generator) -> Case:
    """A rule that fails in what it hands to the layer before."""
    l, value, place, start, augment = in_rule(rng, "da", 2)
    return Case(PLAIN, start, place.expected("da", l - 1, PATH[l - 2], value), augment)


def case_loss(rng: np.random.Generator) -> Case:
    """The square of a finite score."""
    place = place_in(rng)
    expected = place.expected("L", None, None, INF)
    return Case(SQUARES, start_of(SQUARES, path={}), expected, place.augment(x=(COLUMN, 1e25)))


def case_var(rng: np.random.Generator) -> Case:
    """Batch-norm's variance of finite scores, which leaves a finite loss."""
    place, unit = place_in(rng), int(rng.integers(NORMALISED.sizes[1]))
    start = start_of(NORMALISED, columns={unit: 1.0})
    return Case(NORMALISED, start, at_step(place.at, "var", 1, (unit,), INF), place.augment(x=(COLUMN, 1e25)))


def case_penalty(rng: np.random.Generator) -> Case:
    """The square of a finite weight, which a step has made."""
    start, at, unit = start_of(PENALISED), place_in(rng, first=1).at, int(rng.integers(SIZES[1]))
    start = with_plant(start, plant(at - 1, DEAD * SIZES[1] + unit, 1e25))
    return Case(PENALISED, start, at_step(at, "penalty", 1, (), INF))


def case_own_loss(rng: np.random.Generator) -> Case:
    """The logarithm of 0 in a loss of the user's own."""
    place = place_in(rng)
    augment = place.augment(x=(COLUMN, 5000.0))
    return Case(PLAIN, start_of(PLAIN, path={}), place.expected("J", None, None, NAN), augment, grad_fn=naive)


def case_gradient(rng: np.random.Generator) -> Case:
    """The product of a finite input and a finite dz."""
    place, unit, sign = place_in(rng), int(rng.integers(LINEAR.sizes[1])), float(rng.choice([-1, 1]))
    start = start_of(LINEAR, columns={unit: sign * 1e-36})
    return Case(LINEAR, start, at_step(place.at, "dW", 1, (COLUMN, unit), sign * INF), place.augment(x=(COLUMN, 3e38)))


def case_descent(rng: np.random.Generator) -> Case:
    """A rate that is too large, at which the weights grow until something overflows."""
    start, rate = start_of(SQUARES, RATED), 10.0 ** rng.uniform(1, 6)
    hyperparams = {"learning_rate": jnp.float32(rate)}
    start = start._replace(opt_state=start.opt_state._replace(hyperparams=hyperparams))
    return Case(SQUARES, start, first_in_numpy(start.params, rate), optimizer=RATED)


def first_in_numpy(params: Any, rate: float) -> dict[str, Any]:
    """The first number of a training by plain gradient steps that is not finite, written here once more."""
    data = data_of(SQUARES)
    layers = [(np.array(layer.W), np.array(layer.b)) for layer in params]
    with np.errstate(all="ignore"):
        for at in range(STEPS * EPOCHS):
            rows = rows_of(at)
            for name, layer, value in quantities(layers, data.x[rows], data.y[rows], np.float32(rate)):
                bad_ones = np.argwhere(~np.isfinite(value))
                if len(bad_ones) and name in ("z", "L", "da", "dz"):
                    row, *unit = bad_ones[0].tolist()
                    place = Place(at, row, int(rows[row]))
                    return place.expected(name, layer, unit[0] if unit else None, float(value[row, *unit]))
                if len(bad_ones):
                    index = tuple(bad_ones[0].tolist())
                    return at_step(at, name, layer, index, float(value[index]))
    raise AssertionError(f"at rate {rate} nothing overflows")


def quantities(layers: list[Any], x: np.ndarray, y: np.ndarray, rate: np.float32) -> Any:
    """The quantities of one step in their order; changes the layers."""
    L = len(layers)
    a, z = [x], []
    for l, (W, b) in enumerate(layers, start=1):
        z.append(a[-1] @ W + b)
        yield "z", l, z[-1]
        a.append(np.maximum(z[-1], 0))
    losses = np.sum((z[-1] - y) ** 2, axis=1) / 2
    yield "L", None, losses
    yield "data_loss", None, np.sum(losses / np.float32(len(x)))
    dz, gradients = (z[-1] - y) / np.float32(len(x)), {}
    for l in range(L, 0, -1):
        yield "dz", l, dz
        gradients[l] = a[l - 1].T @ dz, dz.sum(axis=0)
        yield "dW", l, gradients[l][0]
        yield "db", l, gradients[l][1]
        if l > 1:
            da = dz @ layers[l - 1][0].T
            yield "da", l - 1, da
            dz = da * (z[l - 2] > 0)
    for word, sign in (("update of", 0), ("new", 1)):
        for l in range(1, L + 1):
            for field, value, gradient in zip("Wb", layers[l - 1], gradients[l], strict=True):
                yield f"{word} {field}", l, sign * value - rate * gradient
    layers[:] = [(W - rate * gradients[l][0], b - rate * gradients[l][1]) for l, (W, b) in enumerate(layers, start=1)]


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    name.removeprefix("case_"): function for name, function in dict(globals()).items() if name.startswith("case_")
}
"""The kinds of cases."""
