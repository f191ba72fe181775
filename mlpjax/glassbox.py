"""The glass box: every quantity of one forward and one backward pass, by the lecture's name, in one pytree.

`trace` reads what the passes of `mlpjax.passes` remember and find. What they do not keep it computes again with the
same functions of `mlpjax.layers`, so that `mlpjax.backward` knows nothing of it and pays nothing for it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from mlpjax import passes
from mlpjax.activations import ACTIVATIONS
from mlpjax.checks import absent_as_zero, check_input
from mlpjax.config import Config
from mlpjax.heads import HEADS
from mlpjax.layers import affine_forward, batch_norm_forward
from mlpjax.parameters import Batch, Layer, Params, State
from mlpjax.passes import Gradients, Pass
from mlpjax.traces import BatchNormTrace, HiddenTrace, InputTrace, LossTrace, OutputTrace, Quantity, Trace

LINK_AND_LOSS = {
    "binary": ("logreg-sigmoid", "logreg-bce"),
    "multilabel": ("prob-ml-forward-out", "prob-ml-loss"),
    "multiclass": ("prob-mc-softmax", "prob-mc-loss"),
    "regression": ("prob-reg-linear-out", "prob-reg-loss"),
    "regression_relu": ("prob-reg-relu-out", "prob-reg-loss"),
}
"""The formulas of a head: of Ŷ and of Lᵢ."""


class Row(NamedTuple):
    """What `describe` says of a quantity; ``norm`` is √Σv² over all its entries."""

    path: str
    shape: tuple[int, ...]
    formula: str
    axes: tuple[str, ...]
    norm: float


def trace(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = True,
) -> Trace:
    """Record one forward and one backward pass: every z, a, mask, statistic, dz, dW, db and part of the loss.

    The arguments are those of `loss`, the masks those of the same ``key``, the gradients those of `backward`. ``dv``
    is ∂J/∂v and has the shape of ``v``: the lecture's dZ and dA, which are per example, times pᵢ in row i.

    Returns:
        A `Trace`: a tree of `Quantity`, ``None`` where the network has no such thing. It passes through ``jax.jit``
        and ``jax.vmap``.

    Raises:
        InputError: and `DataError` as in `loss`.

    Source: ``deep-cache``, ``deep-backprop-full``, ``deep-scale-m``, ``deep-diagram-2layer``, ``mlp1-diagram-lr``;
    of each quantity, its ``formula``.

    >>> config = Config(sizes=(2, 3, 1), head="binary", init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> t = trace(config, params, state, Batch(np.ones((1, 2)), np.array([1])))
    >>> t.output.dz.value, t.output.dz.formula  # ŷ − y
    (Array([[-0.5]], dtype=float32), 'deep-back-start')
    >>> t.hidden[0].dW.shape, t.hidden[0].dW.axes, t.hidden[0].mask
    ((2, 3), ('n_0', 'n_1'), None)
    """
    this = passes.run_pass(config, params, state, batch, train, key)
    found = passes.run_backward(config, params, this, passes.RULES)
    x = check_input(config, params, state, batch.x, train, key)
    if batch.weight is not None:
        x = absent_as_zero(x, this.p, config.compute_dtype)
    first = _input(this, found, x)
    a_in = first.x_dropped or first.x
    hidden: list[HiddenTrace] = []
    for l in range(1, config.depth):
        hidden.append(_hidden(config, params, state, this, found, l, a_in, train))
        a_in = hidden[-1].a_dropped or hidden[-1].a
    return Trace(first, tuple(hidden), _output(config, params, this, found, a_in), _loss(config, params, this))


def describe(recorded: Trace) -> list[Row]:
    """List the quantities of a trace in the order in which they are computed, layer by layer.

    >>> config = Config(sizes=(2, 1), head="regression", init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> rows = describe(trace(config, params, state, Batch(np.ones((1, 2)), np.array([3.0]))))
    >>> [row for row in rows if row.path == "output.dz"]
    [Row(path='output.dz', shape=(1, 1), formula='deep-back-start', axes=('m', 'n_1'), norm=3.0)]
    """
    rows = jax.tree_util.tree_leaves_with_path(recorded, is_leaf=lambda node: isinstance(node, Quantity))
    return [
        Row(
            jax.tree_util.keystr(path).removeprefix("."),
            quantity.shape,
            quantity.formula,
            quantity.axes,
            float(np.linalg.norm(np.asarray(quantity.value, np.float64).ravel())),
        )
        for path, quantity in rows
    ]


def _input(this: Pass, found: Gradients, x: jax.Array) -> InputTrace:
    axes = _axes("m", 0)
    mask = x_dropped = None
    if (dropout := this.cache.input_dropout) is not None:
        mask = Quantity(dropout.mask, "reg-dropout-inverted", axes)
        x_dropped = Quantity(_inputs(this)[0], "reg-dropout-inverted", axes)
    dx_formula = "deep-back-dAprev" if mask is None else "reg-dropout-backward"
    return InputTrace(Quantity(x, "train-dataset", axes), mask, x_dropped, Quantity(found.x, dx_formula, axes))


def _hidden(
    config: Config, params: Params, state: State, this: Pass, found: Gradients, l: int, a_in: Quantity, train: bool
) -> HiddenTrace:
    layer, remembered, deltas, grads = params[l - 1], this.cache.hidden[l - 1], found.hidden[l - 1], found.params[l - 1]
    units, rows = _axes(l), _axes("m", l)
    # the cache keeps z̃ only
    z, _ = affine_forward(remembered.affine.x, layer.W, layer.b, config.compute_dtype)
    norm = _norm(layer, state, this, found, l, z, train)
    slope = () if layer.slope is None else (layer.slope,)
    a = ACTIVATIONS[config.activations[l - 1]].f(remembered.z, *slope)
    mask = a_dropped = None
    if remembered.dropout is not None:
        mask = Quantity(remembered.dropout.mask, "reg-dropout-inverted", rows)
        a_dropped = Quantity(_inputs(this)[l], "reg-dropout-inverted", rows)
    penalty, dW_penalty = _penalty(config, this, layer, l)
    return HiddenTrace(
        a_in=a_in,
        z=Quantity(z, "deep-forward-Z", rows),
        norm=norm,
        a=Quantity(a, "deep-forward-A" if norm is None else "norm-bn-activation", rows),
        mask=mask,
        a_dropped=a_dropped,
        penalty=penalty,
        da=Quantity(deltas.da, "deep-back-dAprev" if mask is None else "reg-dropout-backward", rows),
        dz=Quantity(deltas.dz, "deep-back-dZ" if norm is None else "norm-bn-grad-z", rows),
        dgamma=_maybe(grads.gamma, "norm-bn-grad-gamma", units),
        dbeta=_maybe(grads.beta, "norm-bn-grad-beta", units),
        dslope=_maybe(grads.slope, "act-prelu-dalpha", units),
        dW=_dW(grads, dW_penalty, l),
        db=_maybe(grads.b, "deep-back-db", units),
        dW_penalty=dW_penalty,
    )


def _norm(
    layer: Layer, state: State, this: Pass, found: Gradients, l: int, z: jax.Array, train: bool
) -> BatchNormTrace | None:
    remembered = this.cache.hidden[l - 1]
    if remembered.norm is None or layer.gamma is None or layer.beta is None:
        return None
    if train:
        _, _, (mean, var) = batch_norm_forward(z, layer.gamma, layer.beta, this.p)
    else:
        mean, var, _ = state[l - 1]
    units, rows, after = _axes(l), _axes("m", l), this.state[l - 1]
    return BatchNormTrace(
        mean=Quantity(mean, "norm-bn-mean" if train else "norm-bn-inference", units),
        var=Quantity(var, "norm-bn-var" if train else "norm-bn-inference", units),
        zhat=Quantity(remembered.norm.zhat, "norm-bn-normalise", rows),
        z_tilde=Quantity(remembered.z, "norm-bn-rescale", rows),
        running_mean=Quantity(after.mean, "norm-bn-inference", units),
        running_var=Quantity(after.var, "norm-bn-inference", units),
        running_count=Quantity(after.count, "norm-bn-inference", ()),
        dz_tilde=Quantity(found.hidden[l - 1].dz_tilde, "deep-back-dZ", rows),
    )


def _output(config: Config, params: Params, this: Pass, found: Gradients, a_in: Quantity) -> OutputTrace:
    L, grads = config.depth, found.params[-1]
    rows = _axes("m", L)
    link, _ = LINK_AND_LOSS[config.head]
    penalty, dW_penalty = _penalty(config, this, params[-1], L)
    return OutputTrace(
        a_in=a_in,
        z=Quantity(this.z, "deep-forward-Z", rows),
        yhat=Quantity(HEADS[config.head].link(this.z), link, rows),
        penalty=penalty,
        dz=Quantity(found.dz_output, "deep-back-start", rows),
        dW=_dW(grads, dW_penalty, L),
        db=_maybe(grads.b, "deep-back-db", _axes(L)),
        dW_penalty=dW_penalty,
    )


def _loss(config: Config, params: Params, this: Pass) -> LossTrace:
    J, aux = passes.objective(config, params, this)
    _, loss = LINK_AND_LOSS[config.head]
    return LossTrace(
        y=Quantity(this.y, "train-dataset", _axes("m", config.depth)),
        p=Quantity(this.p, "erm-empirical", ("m",)),
        weight_sum=Quantity(this.weight_sum, "erm-empirical", ()),
        L=Quantity(HEADS[config.head].loss(this.z, this.y), loss, ("m",)),
        data_loss=Quantity(aux.data_loss, "logreg-cost", ()),
        penalty=Quantity(aux.penalty, "reg-nn-cost", ()),
        J=Quantity(J, "reg-nn-cost", ()),
    )


def _penalty(config: Config, this: Pass, layer: Layer, l: int) -> tuple[Quantity | None, Quantity | None]:
    """The penalty on W of one layer and its gradient."""
    if (gradient := passes.penalty_gradient(config, layer.W)) is None:
        return None, None
    if config.l2 is None:
        value_formula, gradient_formula = "reg-l1-norm", "reg-l1-grad"
    elif config.l1 is None:
        value_formula, gradient_formula = "reg-frobenius", "reg-l2-grad"
    else:
        value_formula = gradient_formula = "reg-elastic-net"
    # the objective of the layer alone has the layer's penalty
    value = passes.objective(config, (layer,), this)[1].penalty
    return Quantity(value, value_formula, ()), Quantity(gradient, gradient_formula, _axes(l - 1, l))


def _dW(grads: Layer, dW_penalty: Quantity | None, l: int) -> Quantity:
    return Quantity(grads.W, "deep-back-dW" if dW_penalty is None else "reg-nn-grad", _axes(l - 1, l))


def _maybe(value: jax.Array | None, formula: str, axes: tuple[str, ...]) -> Quantity | None:
    return None if value is None else Quantity(value, formula, axes)


def _inputs(this: Pass) -> tuple[jax.Array, ...]:
    """What the layers 1 … L were given."""
    return (*(hidden.affine.x for hidden in this.cache.hidden), this.cache.output.x)


def _axes(*names: str | int) -> tuple[str, ...]:
    """Axes by name: ``"m"`` the examples, a number l the units of layer l."""
    return tuple(f"n_{name}" if isinstance(name, int) else name for name in names)
