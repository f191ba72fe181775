"""The quantities of a training step in the order in which they are computed, each by its name and place.

The names are those of `mlpjax.trace`: z, a, dz, dW, … What must be finite is in the lists, and nothing else: in a row
of weight 0 the forward pass may hold anything, a batch of no weight is looked at for its penalty only, and the numbers
of an optimiser that are no moments may be infinite by design, as the best loss so far is before the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax.config import Config
from mlpjax.glassbox import trace
from mlpjax.mlp import autodiff, backward
from mlpjax.parameters import Aux, Batch, Params, State
from mlpjax.passes import Gradients, Pass
from mlpjax.step import GradFn, TrainState
from mlpjax.traces import Quantity, Trace

NETWORKS_OWN: tuple[GradFn, ...] = (backward, autodiff)
"""The gradient functions that compute the quantities of `mlpjax.trace`; what another one computes is its own affair."""
NORM_FIELDS = ("mean", "var", "zhat", "z_tilde", "running_mean", "running_var")
BACKWARD_FIELDS = ("da", "dz_tilde", "dslope", "dgamma", "dbeta", "dz", "dW_penalty", "dW", "db")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("value",),
    meta_fields=("name", "layer", "per_example"),
)
@dataclass(frozen=True, eq=False)
class Seen:
    """A quantity, its layer (0: the input, ``None``: the whole network), and whether its rows are examples."""

    name: str
    layer: int | None
    value: jax.Array
    per_example: bool = False


def given(train_state: TrainState) -> list[Seen]:
    """What a step starts from: parameters, batch-norm's statistics, the optimiser's moments."""
    return [
        *_records("", train_state.params),
        *_statistics(train_state.state),
        *moments(train_state.opt_state, train_state.params),
    ]


def of_gradient(
    grad_fn: GradFn,
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None,
    train: bool,
    result: tuple[tuple[jax.Array, Aux], Params],
) -> list[Seen]:
    """The passes of a step, and the ``result`` of its ``grad_fn``."""
    recorded = trace(config, params, state, batch, key, train=train)
    (J, aux), grads = result
    weighed = recorded.loss.weight_sum.value != 0

    def counted(seen: Iterable[Seen]) -> list[Seen]:
        return [_where(weighed, one) for one in seen]

    own = grad_fn in NETWORKS_OWN
    seen = counted([*_input(recorded, batch), *_forward(recorded)])
    if own:
        seen += [*counted(_named(recorded, recorded.loss, None, ("y", "L", "data_loss"))), *_penalties(recorded)]
    # of a batch without any weight J is the penalty, and must be finite
    seen.append(Seen("J", None, J))
    if own:
        seen += counted(_backward(recorded))
    return [*seen, *counted([*_statistics(aux.state), *_records("d", grads)])]


def of_update(updates: Any, opt_state: Any, params: Params, taken: Any = True) -> list[Seen]:
    """What an optimiser makes of a gradient: moments, updates, new parameters; zeros if it is not ``taken``."""
    new = jax.tree.map(lambda theta, step: theta + step, params, updates)
    seen = [*moments(opt_state, params), *_records("update of ", updates), *_records("new ", new)]
    return [_where(taken, one) for one in seen]


def kept_by_passes(this: Pass, found: Gradients | None) -> list[jax.Array]:
    """What the passes remember of a batch: enough to know whether all that they computed was finite.

    What they forget does not hide: a is the next layer's input, and an infinite mean or variance of a batch is in the
    running ones.
    """
    rows = [this.z, this.cache.output.x]
    for hidden in this.cache.hidden:
        rows += [hidden.affine.x, hidden.z, *([] if hidden.norm is None else [hidden.norm.zhat])]
    kept = [jnp.where((this.p != 0)[:, None], value, 0) for value in rows]
    return kept if found is None else [*kept, *jax.tree.leaves((found.hidden, found.dz_output))]


def all_finite(values: Sequence[jax.Array]) -> jax.Array:
    """Whether every number of every array is finite: a bool ``()``.

    >>> all_finite([jnp.zeros(2), jnp.array([[0.0, jnp.inf]])])
    Array(False, dtype=bool)
    """
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in values]))


def moments(opt_state: Any, params: Params) -> list[Seen]:
    """The leaves of an optimiser's state that belong to a parameter: at its path, and of its shape or with axes before.

    >>> import optax
    >>> params = (mlpjax.Layer(W=jnp.ones((2, 1))),)
    >>> [(one.name, one.layer) for one in moments(optax.adam(0.1).init(params), params)]
    [('moment mu of W', 1), ('moment nu of W', 1)]
    """
    places = {
        jax.tree_util.keystr(path): (path[0].idx + 1, path[1].name, leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        layer, field, shape = places.get(jax.tree_util.keystr(path[-2:]), (0, "", None))
        if shape is not None and leaf.shape[leaf.ndim - len(shape) :] == shape:
            named = [f"{key.name} " for key in path[:-2] if hasattr(key, "name")]
            found.append(Seen(f"moment {''.join(named[-1:])}of {field}", layer, leaf))
    return found


def _input(recorded: Trace, batch: Batch) -> Iterator[Seen]:
    """What the batch brings: inputs, weights as they were given, and their shares p."""
    yield from _named(recorded, recorded.input, 0, ("x",))
    if batch.weight is not None:
        yield Seen("weight", 0, jnp.asarray(batch.weight), per_example=True)
    yield from _named(recorded, recorded.loss, 0, ("p",))
    yield from _named(recorded, recorded.input, 0, ("mask", "x_dropped"))


def _forward(recorded: Trace) -> Iterator[Seen]:
    for l, hidden in enumerate(recorded.hidden, start=1):
        yield from _named(recorded, hidden, l, ("z",))
        yield from _named(recorded, hidden.norm, l, NORM_FIELDS)
        yield from _named(recorded, hidden, l, ("a", "mask", "a_dropped"))
    yield from _named(recorded, recorded.output, len(recorded.hidden) + 1, ("z",))


def _penalties(recorded: Trace) -> Iterator[Seen]:
    for l, layer in enumerate((*recorded.hidden, recorded.output), start=1):
        yield from _named(recorded, layer, l, ("penalty",))


def _backward(recorded: Trace) -> Iterator[Seen]:
    layers = (*recorded.hidden, recorded.output)
    for l in range(len(layers), 0, -1):
        for name in BACKWARD_FIELDS:
            # ∂J/∂z̃ is recorded beside z̃
            part = getattr(layers[l - 1], "norm", None) if name == "dz_tilde" else layers[l - 1]
            yield from _named(recorded, part, l, (name,), masked=False)


def _named(
    recorded: Trace, part: Any, layer: int | None, names: Iterable[str], *, masked: bool = True
) -> Iterator[Seen]:
    """Quantities of a part of the trace, where it has them; ``masked``: without the rows of weight 0."""
    for name in names:
        quantity: Quantity | None = getattr(part, name, None)
        if quantity is not None:
            per_example = quantity.axes[:1] == ("m",)
            one = Seen(name, layer, quantity.value, per_example)
            present = recorded.loss.p.value != 0
            yield _where(present.reshape(-1, *[1] * (one.value.ndim - 1)), one) if per_example and masked else one


def _where(condition: jax.Array, one: Seen) -> Seen:
    return Seen(one.name, one.layer, jnp.where(condition, one.value, 0), one.per_example)


def _records(prefix: str, records: Any) -> Iterator[Seen]:
    """The fields of one record per layer."""
    for l, record in enumerate(records, start=1):
        for field, value in record._asdict().items():
            if value is not None:
                yield Seen(prefix + field, l, value)


def _statistics(state: State) -> Iterator[Seen]:
    for l, record in enumerate(state or (), start=1):
        yield Seen("running_mean", l, record.mean)
        yield Seen("running_var", l, record.var)
