"""The forward and the backward pass of the network: the lecture's recursions, layer by layer.

`run_forward` and `run_backward` read as the slides do; `mlpjax.mlp` makes the public calls of them.
Source: lecture, section *Deep networks*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.activations import ACTIVATIONS
from mlpjax.checks import absent_as_zero, check_input, check_is_batch, check_rows, row_weights
from mlpjax.config import Config
from mlpjax.heads import HEADS
from mlpjax.layers import (
    BATCH_NORM_FORMS,
    AffineCache,
    BatchNormCache,
    BatchNormState,
    DropoutCache,
    affine_backward,
    affine_forward,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    batch_norm_update,
    dropout_backward,
    dropout_forward,
)
from mlpjax.parameters import Aux, Batch, Layer, Params, State
from mlpjax.penalties import PENALTIES, Penalty
from mlpjax.targets import target_matrix
from mlpjax.threefry import fold_in


class HiddenCache(NamedTuple):
    """What the forward pass of a hidden layer remembers: z is the activation's input, after batch-norm."""

    affine: AffineCache
    norm: BatchNormCache | None
    z: jax.Array
    dropout: DropoutCache | None


class Cache(NamedTuple):
    """What the whole forward pass remembers: input dropout, hidden layers 1 … L − 1, the output layer."""

    input_dropout: DropoutCache | None
    hidden: tuple[HiddenCache, ...]
    output: AffineCache


class Pass(NamedTuple):
    """A forward pass over a batch: scores, targets ``(m, n_L)``, row weights p = w/Σw, Σw, new state, cache."""

    z: jax.Array
    y: jax.Array
    p: jax.Array
    weight_sum: jax.Array
    state: State
    cache: Cache


def run_pass(config: Config, params: Params, state: State, batch: Batch, train: bool, key: jax.Array | None) -> Pass:
    """Check a batch and run forward over it."""
    check_is_batch(batch)
    x = check_input(config, params, state, batch.x, train, key)
    y = target_matrix(config.head, batch.y, config.sizes[-1], x.dtype, batch.weight)
    check_rows(x, y)
    p, weight_sum = row_weights(batch.weight, x.shape[0], x.dtype)
    if batch.weight is not None:
        # a missing value or label of a row that counts for nothing must not spread
        x, y = absent_as_zero(x, p, config.compute_dtype), jnp.where((p != 0)[:, None], y, 0)
    z, state, cache = run_forward(config, params, state, x, p, weight_sum, train, key)
    return Pass(z, y, p, weight_sum, state, cache)


def objective(config: Config, params: Params, this: Pass) -> tuple[jax.Array, Aux]:
    """J = Σ pᵢLᵢ + penalty, and what is told beside it."""
    losses = HEADS[config.head].loss(this.z, this.y)
    # a row of weight 0 is absent, even one whose loss overflows
    data_loss = jnp.sum(jnp.where(this.p != 0, this.p * losses, 0))
    penalty = jnp.zeros_like(data_loss)
    if (active := active_penalty(config, data_loss.dtype)) is not None:
        rule, strengths = active
        penalty = sum((rule.f(layer.W, *strengths) for layer in params), penalty)
    aux = Aux(this.state, data_loss, penalty, this.weight_sum, this.z)
    return data_loss + penalty, aux


def run_forward(
    config: Config,
    params: Params,
    state: State,
    x: jax.Array,
    p: jax.Array,
    weight_sum: jax.Array,
    train: bool,
    key: jax.Array | None,
) -> tuple[jax.Array, State, Cache]:
    """The layers from l = 1 to L, each with what its backward pass needs. Source: ``deep-forward-A``."""
    a, input_dropout = _drop(config, 0, x, train, key)
    hidden: list[HiddenCache] = []
    new_state: list[BatchNormState] = []
    form = BATCH_NORM_FORMS[config.batch_norm_convention]
    for l in range(1, config.depth):
        layer = params[l - 1]
        z, affine = affine_forward(a, layer.W, layer.b, config.compute_dtype)
        norm = None
        if layer.gamma is not None and layer.beta is not None:
            before = state[l - 1]
            if train:
                z, norm, (mean, var) = batch_norm_forward(z, layer.gamma, layer.beta, p, form.eps)
                after = batch_norm_update(before, mean, var, weight_sum, form)
                # a batch of no weight was not seen
                new_state.append(jax.tree.map(lambda new, old: jnp.where(weight_sum != 0, new, old), after, before))
            else:
                z, norm = batch_norm_inference(z, layer.gamma, layer.beta, before, form.eps)
        a = ACTIVATIONS[config.activations[l - 1]].f(z, *slope_of(layer))
        a, dropout = _drop(config, l, a, train, key)
        hidden.append(HiddenCache(affine, norm, z, dropout))
    z, output = affine_forward(a, params[-1].W, params[-1].b, config.compute_dtype)
    return z, tuple(new_state) if train else state, Cache(input_dropout, tuple(hidden), output)


class Rules(NamedTuple):
    """The formulas of the backward pass, which `run_backward` puts together.

    The fault catalogue replaces one of them at a time, to see whether the audit notices.
    """

    output: Callable[[Config, Pass], jax.Array]
    dropout: Callable[[jax.Array, DropoutCache], jax.Array]
    activation: Callable[[str, jax.Array, jax.Array, Layer], tuple[jax.Array, jax.Array | None]]
    batch_norm: Callable[[jax.Array, BatchNormCache], tuple[jax.Array, jax.Array, jax.Array]]
    affine: Callable[[jax.Array, AffineCache, str | None], tuple[jax.Array, jax.Array, jax.Array]]
    penalty: Callable[[Config, jax.Array], jax.Array | None]


class HiddenDeltas(NamedTuple):
    """∂J/∂a, ∂J/∂z̃ (the activation's input) and ∂J/∂z of a hidden layer; without batch-norm z̃ is z."""

    da: jax.Array
    dz_tilde: jax.Array
    dz: jax.Array


class Gradients(NamedTuple):
    """What the recursion finds: the gradients of all layers, dX, and the deltas on the way, in the order of l."""

    params: Params
    x: jax.Array
    hidden: tuple[HiddenDeltas, ...]
    dz_output: jax.Array


def output_backward(config: Config, this: Pass) -> jax.Array:
    """dZ[L] = (∂L/∂Z[L]) w/Σw: the head's derivative, each row weighted once. Source: ``deep-back-start``."""
    return HEADS[config.head].dz(this.z, this.y) * this.p[:, None]


def activation_backward(name: str, da: jax.Array, z: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array | None]:
    """dZ = dA ⊙ g′(Z), and dslope = Σᵢ dA ⊙ ∂g/∂slope where it is learnt.

    Source: ``deep-back-dZ``, ``init-zero-back-dz1``.
    """
    activation = ACTIVATIONS[name]
    dz = da * activation.df(z, *slope_of(layer))
    if activation.df_dslope is None:
        return dz, None
    return dz, jnp.sum(da * activation.df_dslope(z), axis=0)


def penalty_gradient(config: Config, W: jax.Array) -> jax.Array | None:
    """∂penalty/∂W, or ``None`` without a penalty. Source: ``reg-nn-grad``."""
    if (active := active_penalty(config, W.dtype)) is None:
        return None
    rule, strengths = active
    return rule.df(W, *strengths)


RULES = Rules(
    output=output_backward,
    dropout=dropout_backward,
    activation=activation_backward,
    batch_norm=batch_norm_backward,
    affine=affine_backward,
    penalty=penalty_gradient,
)
"""The right formulas."""


def run_backward(config: Config, params: Params, this: Pass, rules: Rules) -> Gradients:
    """The recursion from dZ[L] down to dX. Source: ``deep-back-dZ-recursion``, ``act-vanish-reminder``."""
    dz_output = rules.output(config, this)
    da, dW, db = rules.affine(dz_output, this.cache.output, config.compute_dtype)
    grads = [_gradients(config, rules, params[-1], dW, db)]
    deltas: list[HiddenDeltas] = []
    for l in range(config.depth - 1, 0, -1):
        layer, remembered = params[l - 1], this.cache.hidden[l - 1]
        dgamma = dbeta = None
        if remembered.dropout is not None:
            da = rules.dropout(da, remembered.dropout)
        dz_tilde, dslope = rules.activation(config.activations[l - 1], da, remembered.z, layer)
        dz = dz_tilde
        if remembered.norm is not None:
            dz, dgamma, dbeta = rules.batch_norm(dz_tilde, remembered.norm)
        deltas.append(HiddenDeltas(da, dz_tilde, dz))
        da, dW, db = rules.affine(dz, remembered.affine, config.compute_dtype)
        grads.append(_gradients(config, rules, layer, dW, db, dgamma, dbeta, dslope))
    if this.cache.input_dropout is not None:
        da = rules.dropout(da, this.cache.input_dropout)
    return Gradients(tuple(reversed(grads)), da, tuple(reversed(deltas)), dz_output)


def _gradients(
    config: Config,
    rules: Rules,
    layer: Layer,
    dW: jax.Array,
    db: jax.Array,
    dgamma: jax.Array | None = None,
    dbeta: jax.Array | None = None,
    dslope: jax.Array | None = None,
) -> Layer:
    """One layer's gradient: the penalty's added to dW, and no db where there is no b."""
    if (penalty := rules.penalty(config, layer.W)) is not None:
        dW = dW + penalty
    return Layer(W=dW, b=None if layer.b is None else db, gamma=dgamma, beta=dbeta, slope=dslope)


def active_penalty(config: Config, dtype: jax.typing.DTypeLike) -> tuple[Penalty, tuple[Any, ...]] | None:
    """The entry of `PENALTIES` that the config asks for, with its strengths."""
    # in the parameters' dtype: a strength does not promote
    l1, l2 = (None if rate is None else jnp.asarray(rate, dtype) for rate in (config.l1, config.l2))
    if l1 is not None and l2 is not None:
        return PENALTIES["elastic_net"], (l1, l2)
    if l1 is not None:
        return PENALTIES["l1"], (l1,)
    if l2 is not None:
        return PENALTIES["l2"], (l2,)
    return None


def _drop(
    config: Config, l: int, a: jax.Array, train: bool, key: jax.Array | None
) -> tuple[jax.Array, DropoutCache | None]:
    rate = config.dropout_rate(l)
    if not train or rate is None or key is None:
        return a, None
    return dropout_forward(a, rate, fold_in(key, l))


def slope_of(layer: Layer) -> tuple[jax.Array, ...]:
    """The extra argument of an activation with a learnt slope."""
    return () if layer.slope is None else (layer.slope,)
