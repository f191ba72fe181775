"""The network: `forward`, `predict`, `loss` and `backward`, pure functions over parameter pytrees.

Rows are examples: ``X (m, n_0)``, ``W[l] (n_{l−1}, n_l)``, ``b[l] (n_l,)``. Order in a hidden layer: affine →
batch-norm → activation → dropout. The objective is

    J = Σ wᵢLᵢ / Σ wᵢ + l1 Σ|W| + (l2/2) Σ W²

where weight 2 means the example twice and weight 0 its absence. With all weights zero, J is the penalty alone.

`backward` is the lecture's recursion, derived by hand; `autodiff` is the same call by `jax.value_and_grad`.
Source: lecture, section *Deep networks*.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mlpjax import passes
from mlpjax.checks import absent_as_zero, check_input, row_weights
from mlpjax.config import Config
from mlpjax.errors import DataError
from mlpjax.heads import HEADS
from mlpjax.parameters import Aux, Batch, Params, State


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
            It decides the program: under ``jax.jit`` give ``static_argnames="train"``.
        key: needed when training with dropout; layer l draws from ``fold_in(key, l)``, the input being layer 0.
        weight: ``(m,)``, weighs the batch statistics; a row of weight 0 is not seen by them. What is not finite
            in such a row, or has no finite square, counts as 0.

    Returns:
        ``(z, state)``: the last pre-activation ``(m, n_L)`` and the state after this batch (unchanged when not
        training).

    Raises:
        InputError: (a `ValueError`) when training with dropout without a key, or for wrong shapes.

    Source: ``deep-forward-Z``, ``deep-forward-A``, ``norm-bn-objective``, ``norm-bn-activation``, ``reg-dropout-test``.

    >>> config = Config(sizes=(2, 3, 1), head="binary")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> forward(config, params, state, jnp.zeros((5, 2)))[0].shape
    (5, 1)
    """
    x = check_input(config, params, state, x, train, key)
    p, weight_sum = row_weights(weight, x.shape[0], x.dtype)
    if weight is not None:
        x = absent_as_zero(x, p, config.compute_dtype)
    z, state, _ = passes.run_forward(config, params, state, x, p, weight_sum, train, key)
    return z, state


def predict(config: Config, params: Params, state: State, x: jax.Array) -> jax.Array:
    """Return Ŷ ``(m, n_L)``, the head's probabilities or values; nothing is dropped.

    Source: ``erm-network``, ``prob-dispatch``, ``prob-mc-forward``.

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
        ``multilabel``, Ŷ as it is for regression. NaN, which is no probability, counts as below ½ and as the largest
        class. Source: ``prob-ml-decision``, ``prob-mc-decision``.

    Raises:
        DataError: ``yhat`` is not ``(m, n_L)``.

    >>> decide(Config(sizes=(2, 3)), jnp.array([[0.2, 0.5, 0.3]]))
    Array([1], dtype=int32)
    """
    yhat = jnp.asarray(yhat)
    if yhat.ndim != 2 or yhat.shape[1] != config.sizes[-1]:
        raise DataError(f"yhat has shape {yhat.shape}: expected (m, {config.sizes[-1]}), as mlpjax.predict returns it")
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

    Raises:
        InputError: as `forward`; and its kind `DataError` for a label outside the classes, and for weights that are
            negative, not finite, too large or all too small to be divided. Under ``jit``, where a value cannot raise,
            J is NaN then.

    Source: ``erm-empirical``, ``chain-loss-single``, ``chain-cost``, ``logreg-cost``, ``reg-nn-cost``,
    ``reg-logreg-cost``, ``prob-dispatch``, ``err-m-batch``.

    >>> config = Config(sizes=(2, 3), init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> J, aux = loss(config, params, state, Batch(jnp.ones((1, 2)), jnp.array([0])))
    >>> J.round(4)  # log 3: every class is equally likely
    Array(1.0986, dtype=float32)
    """
    return passes.objective(config, params, passes.run_pass(config, params, state, batch, train, key))


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
    `loss`, and its errors. ``grads`` has the tree of ``params``.

    Source: ``erm-gradient-vector``, ``erm-issue-backprop``, ``mlp1-uat-trained``,
    ``deep-backprop-full``, ``deep-back-dZ-recursion``.

    >>> config = Config(sizes=(2, 3), init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> (J, aux), grads = backward(config, params, state, Batch(jnp.ones((1, 2)), jnp.array([0])))
    >>> grads[0].b.round(4)  # ŷ − y
    Array([-0.6667,  0.3333,  0.3333], dtype=float32)
    """
    this = passes.run_pass(config, params, state, batch, train, key)
    grads = passes.run_backward(config, params, this, passes.RULES).params
    return passes.objective(config, params, this), grads


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
    >>> params = (mlpjax.Layer(W=jnp.array([[2.0], [3.0]]), b=jnp.zeros(1)),)
    >>> input_gradient(config, params, (), Batch(jnp.ones((1, 2)), jnp.array([4.0])))  # (ŷ − y) Wᵀ
    Array([[2., 3.]], dtype=float32)
    """
    this = passes.run_pass(config, params, state, batch, train, key)
    return passes.run_backward(config, params, this, passes.RULES).x


def apply_update(
    optimizer: optax.GradientTransformation, grads: Params, opt_state: Any, params: Params, **extra: Any
) -> tuple[Params, Any]:
    """One parameter update: ``params + optimizer.update(grads, …)``; returns ``(params, opt_state)``.

    ``optimizer`` is any `optax.GradientTransformation`; ``extra`` goes to its ``update`` (``value=`` for
    reduce-on-plateau, ``value_fn=`` for L-BFGS). Source: ``deep-update``, ``opt-gd``, ``norm-bn-update``.

    >>> params, grads = (mlpjax.Layer(W=jnp.array([[1.0]])),), (mlpjax.Layer(W=jnp.array([[0.5]])),)
    >>> optimizer = optax.sgd(0.1)
    >>> apply_update(optimizer, grads, optimizer.init(params), params)[0][0].W
    Array([[0.95]], dtype=float32)
    """
    updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
    return optax.apply_updates(params, updates), opt_state
