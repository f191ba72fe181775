"""The network: `forward`, `predict`, `loss` and `backward`, pure functions over parameter pytrees.

Rows are examples: ``X (m, n_0)``, ``W[l] (n_{l−1}, n_l)``, ``b[l] (n_l,)``. Order in a hidden layer: affine →
batch-norm → activation → dropout. The objective is

    J = Σ wᵢLᵢ / Σ wᵢ + l1 Σ|W| + (l2/2) Σ W²

where weight 2 means the example twice and weight 0 its absence. With all weights zero, J is the penalty alone.

`backward` is the lecture's recursion, derived by hand; `autodiff` is the same call by `jax.value_and_grad`.
Source: lecture, section *Deep networks*.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mlpjax.activations import ACTIVATIONS
from mlpjax.checks import check_input, check_rows, row_weights
from mlpjax.config import Config
from mlpjax.heads import HEADS, target_matrix
from mlpjax.layers import (
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


class _HiddenCache(NamedTuple):
    """What the forward pass of a hidden layer remembers: z is the activation's input, after batch-norm."""

    affine: AffineCache
    norm: BatchNormCache | None
    z: jax.Array
    dropout: DropoutCache | None


class _Cache(NamedTuple):
    """What the whole forward pass remembers: input dropout, hidden layers 1 … L − 1, the output layer."""

    input_dropout: DropoutCache | None
    hidden: tuple[_HiddenCache, ...]
    output: AffineCache


class _Pass(NamedTuple):
    """A forward pass over a batch: scores, targets ``(m, n_L)``, row weights p = w/Σw, Σw, new state, cache."""

    z: jax.Array
    y: jax.Array
    p: jax.Array
    weight_sum: jax.Array
    state: State
    cache: _Cache


def forward(
    config: Config,
    params: Params,
    state: State,
    x: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
    weight: jax.Array | None = None,
) -> tuple[jax.Array, State]:
    """Compute the scores: a[l] = g(z[l]), z[l] = a[l−1] W[l] + b[l], from a[0] = x.

    Args:
        config: the network.
        params: from `init`.
        state: from `init`, or from the step before.
        x: ``(m, n_0)``, any real dtype.
        train: use the batch's statistics and drop units; otherwise the running statistics, dropping nothing.
        key: needed when training with dropout; layer l draws from ``fold_in(key, l)``, the input being layer 0.
        weight: ``(m,)``, weighs the batch statistics; a row of weight 0 is not seen by them.

    Returns:
        ``(z, state)``: the last pre-activation ``(m, n_L)`` and the state after this batch (unchanged when not
        training).

    Raises:
        InputError: (a `ValueError`) when training with dropout without a key, or for wrong shapes.

    Source: ``deep-forward-Z``, ``deep-forward-A``, ``norm-bn-activation``, ``reg-dropout-test``.

    >>> config = Config(sizes=(2, 3, 1), head="binary")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> forward(config, params, state, jnp.zeros((5, 2)))[0].shape
    (5, 1)
    """
    x = check_input(config, params, state, x, train, key)
    p, weight_sum = row_weights(weight, x.shape[0], x.dtype)
    z, state, _ = _forward(config, params, state, x, p, weight_sum, train, key)
    return z, state


def predict(config: Config, params: Params, state: State, x: jax.Array) -> jax.Array:
    """Return Ŷ ``(m, n_L)``, the head's probabilities or values; nothing is dropped. Source: ``prob-dispatch``.

    >>> config = Config(sizes=(2, 3), init="zeros")
    >>> predict(config, *mlpjax.init(config, jax.random.key(0)), jnp.ones((1, 2))).round(3)
    Array([[0.333, 0.333, 0.333]], dtype=float32)
    """
    z, _ = forward(config, params, state, x)
    return HEADS[config.head].link(z)


def decide(config: Config, yhat: jax.Array) -> jax.Array:
    """Decide from Ŷ ``(m, n_L)``: the labels with ŷ ≥ ½, the class of largest ŷ, or the values themselves.

    Returns:
        int32 ``(m,)`` for ``binary`` and ``multiclass`` (a tie goes to the lower class), int32 ``(m, n_L)`` for
        ``multilabel``, Ŷ as it is for regression. Source: ``prob-ml-decision``, ``prob-mc-decision``.

    >>> decide(Config(sizes=(2, 3)), jnp.array([[0.2, 0.5, 0.3]]))
    Array([1], dtype=int32)
    """
    return HEADS[config.head].decide(yhat)


def loss(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = True,
) -> tuple[jax.Array, Aux]:
    """J = Σ wᵢLᵢ / Σ wᵢ + l1 Σ|W| + (l2/2) Σ W², and what came with it.

    Args:
        config: the network.
        params: from `init`.
        state: batch-norm's running statistics.
        batch: examples, labels and weights.
        key: needed when training with dropout.
        train: as in `forward`.

    Returns:
        ``(J, aux)``: a scalar and an `Aux`. With Σ wᵢ = 0, J is the penalty and ``aux.state`` is ``state``.

    Source: ``reg-nn-cost``, ``prob-dispatch``, ``err-m-batch``.

    >>> config = Config(sizes=(2, 3), init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> J, aux = loss(config, params, state, Batch(jnp.ones((1, 2)), jnp.array([0])))
    >>> J.round(4)  # log 3: every class is equally likely
    Array(1.0986, dtype=float32)
    """
    return _objective(config, params, _pass(config, params, state, batch, train, key))


def backward(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = True,
) -> tuple[tuple[jax.Array, Aux], Params]:
    """Return ``((J, aux), grads)``, the gradient derived by hand: the lecture's recursion from l = L to 1.

        dZ[L] = (∂L/∂Z[L]) w/Σw                the head's derivative, each row weighted once
        dW[l] = A[l−1]ᵀ dZ[l] + ∂penalty/∂W[l],  db[l] = Σᵢ dZ[l],  dA[l−1] = dZ[l] W[l]ᵀ
        dZ[l] = dA[l] ⊙ g′(Z[l])               before it dropout, after it batch-norm, where they are on

    Exactly what ``jax.value_and_grad(mlpjax.loss, argnums=1, has_aux=True)`` returns, and with the arguments of
    `loss`. ``grads`` has the tree of ``params``. Source: ``deep-backprop-full``, ``deep-back-dZ-recursion``.

    >>> config = Config(sizes=(2, 3), init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> (J, aux), grads = backward(config, params, state, Batch(jnp.ones((1, 2)), jnp.array([0])))
    >>> grads[0].b.round(4)  # ŷ − y
    Array([-0.6667,  0.3333,  0.3333], dtype=float32)
    """
    this = _pass(config, params, state, batch, train, key)
    grads, _ = _backward(config, params, this)
    return _objective(config, params, this), grads


def autodiff(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = True,
) -> tuple[tuple[jax.Array, Aux], Params]:
    """Return what `backward` returns, by `jax.value_and_grad` of `loss`: interchangeable with it everywhere.

    >>> config = Config(sizes=(2, 3), init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> (J, aux), grads = autodiff(config, params, state, Batch(jnp.ones((1, 2)), jnp.array([0])))
    >>> grads[0].b.round(4)
    Array([-0.6667,  0.3333,  0.3333], dtype=float32)
    """
    return jax.value_and_grad(loss, argnums=1, has_aux=True)(config, params, state, batch, key, train=train)


def input_gradient(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = False,
) -> jax.Array:
    """∂J/∂x ``(m, n_0)``, by hand: the recursion of `backward`, taken down to A[0] = X.

    The arguments are those of `loss`, but nothing is dropped unless asked. Source: ``deep-back-dAprev``.

    >>> config = Config(sizes=(2, 1), head="regression")
    >>> params = (Layer(W=jnp.array([[2.0], [3.0]]), b=jnp.zeros(1)),)
    >>> input_gradient(config, params, (), Batch(jnp.ones((1, 2)), jnp.array([4.0])))  # (ŷ − y) Wᵀ
    Array([[2., 3.]], dtype=float32)
    """
    _, dx = _backward(config, params, _pass(config, params, state, batch, train, key))
    return dx


def apply_update(
    optimizer: optax.GradientTransformation, grads: Params, opt_state: Any, params: Params, **extra: Any
) -> tuple[Params, Any]:
    """One parameter update: ``params + optimizer.update(grads, …)``; returns ``(params, opt_state)``.

    ``optimizer`` is any `optax.GradientTransformation`; ``extra`` goes to its ``update`` (``value=`` for
    reduce-on-plateau, ``value_fn=`` for L-BFGS). Source: ``deep-update``.

    >>> params, grads = (Layer(W=jnp.array([[1.0]])),), (Layer(W=jnp.array([[0.5]])),)
    >>> optimizer = optax.sgd(0.1)
    >>> apply_update(optimizer, grads, optimizer.init(params), params)[0][0].W
    Array([[0.95]], dtype=float32)
    """
    updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
    return optax.apply_updates(params, updates), opt_state


def _pass(config: Config, params: Params, state: State, batch: Batch, train: bool, key: jax.Array | None) -> _Pass:
    x = check_input(config, params, state, batch.x, train, key)
    y = target_matrix(config.head, batch.y, config.sizes[-1], x.dtype)
    check_rows(x, y)
    p, weight_sum = row_weights(batch.weight, x.shape[0], x.dtype)
    z, state, cache = _forward(config, params, state, x, p, weight_sum, train, key)
    return _Pass(z, y, p, weight_sum, state, cache)


def _objective(config: Config, params: Params, this: _Pass) -> tuple[jax.Array, Aux]:
    losses = HEADS[config.head].loss(this.z, this.y)
    # a row of weight 0 is absent, even one whose loss overflows
    data_loss = jnp.sum(jnp.where(this.p > 0, this.p * losses, 0))
    penalty = jnp.zeros_like(data_loss)
    if (active := _active_penalty(config)) is not None:
        rule, strengths = active
        penalty = sum((rule.f(layer.W, *strengths) for layer in params), penalty)
    aux = Aux(this.state, data_loss, penalty, this.weight_sum, this.z)
    return data_loss + penalty, aux


def _forward(
    config: Config,
    params: Params,
    state: State,
    x: jax.Array,
    p: jax.Array,
    weight_sum: jax.Array,
    train: bool,
    key: jax.Array | None,
) -> tuple[jax.Array, State, _Cache]:
    """The layers from l = 1 to L, each with what its backward pass needs."""
    a, input_dropout = _drop(config, 0, x, train, key)
    hidden: list[_HiddenCache] = []
    new_state: list[BatchNormState] = []
    for l in range(1, config.depth):
        layer = params[l - 1]
        z, affine = affine_forward(a, layer.W, layer.b, config.compute_dtype)
        norm = None
        if layer.gamma is not None and layer.beta is not None:
            before = state[l - 1]
            if train:
                z, norm, (mean, var) = batch_norm_forward(z, layer.gamma, layer.beta, p)
                after = batch_norm_update(before, mean, var)
                # a batch of no weight was not seen
                new_state.append(jax.tree.map(lambda new, old: jnp.where(weight_sum > 0, new, old), after, before))
            else:
                z, norm = batch_norm_inference(z, layer.gamma, layer.beta, before)
        a = ACTIVATIONS[config.activations[l - 1]].f(z, *_slope(layer))
        a, dropout = _drop(config, l, a, train, key)
        hidden.append(_HiddenCache(affine, norm, z, dropout))
    z, output = affine_forward(a, params[-1].W, params[-1].b, config.compute_dtype)
    return z, tuple(new_state) if train else state, _Cache(input_dropout, tuple(hidden), output)


def _backward(config: Config, params: Params, this: _Pass) -> tuple[Params, jax.Array]:
    """The recursion from dZ[L] down to dX: the gradients of all layers, and dX."""
    dz = HEADS[config.head].dz(this.z, this.y) * this.p[:, None]
    da, dW, db = affine_backward(dz, this.cache.output, config.compute_dtype)
    grads = [_gradients(config, params[-1], dW, db)]
    for l in range(config.depth - 1, 0, -1):
        layer, remembered = params[l - 1], this.cache.hidden[l - 1]
        activation = ACTIVATIONS[config.activations[l - 1]]
        dgamma = dbeta = dslope = None
        if remembered.dropout is not None:
            da = dropout_backward(da, remembered.dropout)
        if activation.df_dslope is not None:
            dslope = jnp.sum(da * activation.df_dslope(remembered.z), axis=0)
        dz = da * activation.df(remembered.z, *_slope(layer))
        if remembered.norm is not None:
            dz, dgamma, dbeta = batch_norm_backward(dz, remembered.norm)
        da, dW, db = affine_backward(dz, remembered.affine, config.compute_dtype)
        grads.append(_gradients(config, layer, dW, db, dgamma, dbeta, dslope))
    if this.cache.input_dropout is not None:
        da = dropout_backward(da, this.cache.input_dropout)
    return tuple(reversed(grads)), da


def _gradients(
    config: Config,
    layer: Layer,
    dW: jax.Array,
    db: jax.Array,
    dgamma: jax.Array | None = None,
    dbeta: jax.Array | None = None,
    dslope: jax.Array | None = None,
) -> Layer:
    """One layer's gradient: the penalty's added to dW, and no db where there is no b."""
    if (active := _active_penalty(config)) is not None:
        rule, strengths = active
        dW = dW + rule.df(layer.W, *strengths)
    return Layer(W=dW, b=None if layer.b is None else db, gamma=dgamma, beta=dbeta, slope=dslope)


def _active_penalty(config: Config) -> tuple[Penalty, tuple[Any, ...]] | None:
    """The entry of `PENALTIES` that the config asks for, with its strengths."""
    if config.l1 is not None and config.l2 is not None:
        return PENALTIES["elastic_net"], (config.l1, config.l2)
    if config.l1 is not None:
        return PENALTIES["l1"], (config.l1,)
    if config.l2 is not None:
        return PENALTIES["l2"], (config.l2,)
    return None


def _drop(
    config: Config, l: int, a: jax.Array, train: bool, key: jax.Array | None
) -> tuple[jax.Array, DropoutCache | None]:
    rate = config.dropout_rate(l)
    if not train or rate is None or key is None:
        return a, None
    return dropout_forward(a, rate, jax.random.fold_in(key, l))


def _slope(layer: Layer) -> tuple[jax.Array, ...]:
    """The extra argument of an activation with a learnt slope."""
    return () if layer.slope is None else (layer.slope,)
