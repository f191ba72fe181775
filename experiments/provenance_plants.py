"""How `provenance.py` plants one number in a run: in the batch, in the optimiser, in a function that fails."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import mlpjax
from mlpjax import ACTIVATIONS, Aux, Batch, Config, TrainState, passes
from mlpjax.augmenting import AUGMENT_STREAM
from mlpjax.checks import row_weights

KEY, M, BATCH_SIZE, STEPS, EPOCHS = jax.random.key(11), 29, 8, 4, 5
SIZES = (5, 6, 7, 3)
COLUMN, DEAD = 2, 4
"""Of x: where large numbers come in, and the one that is 0 for every example."""
PATH = (3, 5, 2)
"""One unit of each layer, through which a number passes unchanged; without it they are 0."""
PLAIN = Config(sizes=SIZES)
SQUARES = Config(sizes=SIZES, head="regression")
PENALISED = Config(sizes=SIZES, l2=1e-3)
NORMALISED = Config(sizes=SIZES, batch_norm=True)
LINEAR = Config(sizes=(5, 3), head="regression")
NAN, INF = float("nan"), float("inf")
FAILURES = {
    2.0**41: ("a", NAN), 2.0**43: ("a", INF), 2.0**45: ("a", -INF), 2.0**47: ("dz", NAN), 2.0**49: ("dW", NAN),
    2.0**51: ("dW", INF), 2.0**53: ("db", NAN), 2.0**55: ("db", -INF), 2.0**57: ("da", NAN), 2.0**59: ("da", INF),
}  # fmt: skip
"""The numbers at which the functions of `failing` fail: what then is not finite, and what it is."""


class Plant(NamedTuple):
    """State of an optimiser that replaces one number of its update, or of its first moment, at one step."""

    count: Any
    at: Any
    place: Any
    value: Any
    in_moment: Any


@contextlib.contextmanager
def failing() -> Iterator[None]:
    """Let relu, its derivative and the rule of affine layers fail at the numbers of `FAILURES`."""
    relu, affine = ACTIVATIONS["relu"], passes.RULES.affine

    def fails(what: str, at: jax.Array, value: jax.Array) -> jax.Array:
        for number, (quantity, bad) in FAILURES.items():
            value = jnp.where(at == number, bad, value) if quantity == what else value
        return value

    def rule(dz: jax.Array, cache: Any, compute_dtype: str | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        da, dW, db = affine(dz, cache, compute_dtype)
        # the one weight on the path of the number
        passing = jnp.where(cache.W != 0, jnp.max(cache.x, axis=0)[:, None], 0)
        return fails("da", cache.x, da), fails("dW", passing, dW), fails("db", jnp.max(passing, axis=0), db)

    own = relu._replace(f=lambda z: fails("a", z, relu.f(z)), df=lambda z: fails("dz", z, relu.df(z)))
    rules = passes.RULES
    ACTIVATIONS["relu"], passes.RULES = own, rules._replace(affine=rule)
    try:
        yield
    finally:
        ACTIVATIONS["relu"], passes.RULES = relu, rules


def planting(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Adam, whose update, or first moment, has another number in one place at one step; all of it is state."""

    def replaced(tree: Any, plant: Plant, of_moment: bool) -> Any:
        flat, back = ravel_pytree(tree)
        now = (plant.count == plant.at) & (plant.in_moment == of_moment)
        return back(jnp.where(now & (jnp.arange(flat.size) == plant.place), plant.value, flat))

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        before, plant = state
        updates, (moments, *rest) = adam.update(grads, before, params)
        moments = moments._replace(mu=replaced(moments.mu, plant, True))
        return replaced(updates, plant, False), ((moments, *rest), plant._replace(count=plant.count + 1))

    return optax.GradientTransformation(lambda params: (adam.init(params), plant()), update)


def plant(at: int = -1, place: int = 0, value: float = 0.0, in_moment: bool = False) -> Plant:
    """A plant; by default one that never happens."""
    return Plant(jnp.int32(0), jnp.int32(at), jnp.int32(place), jnp.float32(value), jnp.bool_(in_moment))


PLANTING = planting(optax.adam(0.0))
RATED = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)


def in_batch(plants: dict[str, Any], key: jax.Array, batch: Batch) -> Batch:
    """An augmentation that changes one row of x, y and the weights of one batch."""
    hit = jnp.all(jax.random.key_data(key) == plants["key"])
    row = hit & (jnp.arange(len(batch.x)) == plants["row"])

    def planted(name: str, matrix: jax.Array) -> jax.Array:
        column, value = plants[name]
        return jnp.where(row[:, None] & (jnp.arange(matrix.shape[1]) == column)[None, :], value, matrix)

    return Batch(planted("x", batch.x), planted("y", batch.y), jnp.where(row, plants["weight"], batch.weight))


class Place(NamedTuple):
    """A random step and example of a run: the step from 0, the row of its batch, that of the data."""

    at: int
    row: int
    example: int

    def when(self) -> dict[str, tuple[int, int]]:
        """Epoch and step of the epoch, from 1."""
        return {"at": (self.at // STEPS + 1, self.at % STEPS + 1)}

    def expected(self, quantity: str, layer: int | None, unit: int | None, value: float) -> dict[str, Any]:
        """The fields of a fault of this example."""
        found = {"quantity": quantity, "layer": layer, "unit": unit, "value": value}
        return {**self.when(), **found, "row": self.row, "example": self.example}

    def augment(self, **plants: Any) -> Any:
        """The augmentation that plants there: x and y by column and value, the weight by value."""
        key = jax.random.fold_in(jax.random.fold_in(KEY, self.at), AUGMENT_STREAM)
        values = {"x": (-1, 0.0), "y": (-1, 0.0), "weight": 1.0, **plants}
        floats = jax.tree.map(lambda value: jnp.float32(value), values)
        return jax.tree_util.Partial(in_batch, {**floats, "key": jax.random.key_data(key), "row": jnp.int32(self.row)})


def naive(
    config: Config, params: Any, state: Any, batch: Batch, key: Any = None, *, train: bool = True
) -> tuple[tuple[jax.Array, Aux], Any]:
    """A user's own gradient function: −Σ y log ŷ from probabilities, which takes the logarithm of 0."""

    def objective(params: Any) -> tuple[jax.Array, Aux]:
        z, _ = mlpjax.forward(config, params, state, batch.x, train=train, key=key, weight=batch.weight)
        p, weight_sum = row_weights(batch.weight, len(z), z.dtype)
        J = -jnp.sum(p[:, None] * batch.y * jnp.log(mlpjax.HEADS["multiclass"].link(z)))
        return J, Aux(state, J, jnp.zeros_like(J), weight_sum, z)

    return jax.value_and_grad(objective, has_aux=True)(params)


def data_of(config: Config) -> Batch:
    """The examples: x with a column of zeros, weights of 1."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (M, config.sizes[0])).astype(np.float32)
    x[:, DEAD] = 0
    n_L = config.sizes[-1]
    y = rng.integers(0, n_L, M) if config.head == "multiclass" else rng.uniform(-1, 1, (M, n_L)).astype(np.float32)
    return Batch(x, y, np.ones(M, np.float32))


def rows_of(at: int) -> np.ndarray:
    """The examples that a step takes: NumPy's permutation by the words of the key and the epoch, cut into batches."""
    words = np.asarray(jax.random.key_data(KEY)).tolist()
    order = np.random.default_rng([*words, at // STEPS + 1]).permutation(M)
    return order[at % STEPS * BATCH_SIZE :][:BATCH_SIZE]


def place_in(rng: np.random.Generator, first: int = 0) -> Place:
    """Draw a step, not before ``first``, and a row of its batch that is no padding."""
    at = int(rng.integers(first, STEPS * EPOCHS))
    row = int(rng.integers(len(rows_of(at))))
    return Place(at, row, int(rows_of(at)[row]))


def start_of(
    config: Config,
    optimizer: optax.GradientTransformation = PLANTING,
    path: dict[int, float] | None = None,
    columns: dict[int, float] | None = None,
) -> TrainState:
    """Where a run starts: with the path, of weights 1 or those of ``path``; with W of `COLUMN` as in ``columns``."""
    params, state = mlpjax.init(config, KEY)
    layers = [layer._replace(W=np.array(layer.W), b=None if layer.b is None else np.array(layer.b)) for layer in params]
    if path is not None:
        before = COLUMN
        for l, (layer, unit) in enumerate(zip(layers, PATH, strict=True), start=1):
            layer.W[before, :] = layer.W[:, unit] = 0
            layer.W[before, unit] = path.get(l, 1.0)
            # off unless a large number comes
            layer.b[unit] = 0 if l == len(PATH) else -1000
            before = unit
    if columns is not None:
        layers[0].W[COLUMN] = [columns.get(unit, 0.0) for unit in range(config.sizes[1])]
    params = jax.tree.map(jnp.asarray, tuple(layers))
    return TrainState(params, state, optimizer.init(params))


def with_plant(start: TrainState, plant: Plant) -> TrainState:
    """The start of a run whose optimiser will plant."""
    return start._replace(opt_state=(start.opt_state[0], plant))


def random_leaf(rng: np.random.Generator, params: Any) -> tuple[int, str, int, tuple[int, ...]]:
    """Draw a number of the parameters: its layer, its field, where it is among all and in its array."""
    flat, back = ravel_pytree(params)
    number = int(rng.integers(flat.size))
    numbered = back(jnp.arange(flat.size, dtype=flat.dtype))
    for path, leaf in jax.tree_util.tree_leaves_with_path(numbered):
        if len(found := np.argwhere(np.asarray(leaf) == number)):
            return path[0].idx + 1, path[1].name, number, tuple(found[0].tolist())
    raise AssertionError(number)


def replaced(params: Any, l: int, field: str, place: tuple[int, ...], value: float) -> Any:
    """Parameters, or a tree like them, with another number in one place."""
    layer = params[l - 1]
    layer = layer._replace(**{field: getattr(layer, field).at[place].set(value)})
    return (*params[: l - 1], layer, *params[l:])


def bad(rng: np.random.Generator) -> float:
    """Draw a number that is not finite."""
    return float(rng.choice([NAN, INF, -INF]))
