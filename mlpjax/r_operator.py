"""The Hessian and the Gauss–Newton matrix of J times a direction, by hand: Pearlmutter's R-operator.

The derivative along v of everything that `mlpjax.backward` computes is computed by two more passes of the same form:
an R-forward pass, then an R-backward pass, which ends in R{∂J/∂θ} = H v. No matrix is made, and no automatic
differentiation takes part. For G = Σ pᵢ Jᵢᵀ (∂²Lᵢ/∂z²) Jᵢ, with Jᵢ = ∂zᵢ/∂θ, the R-forward pass gives Jᵢ v, the head
multiplies it by ∂²Lᵢ/∂z², and the ordinary backward pass by Jᵢᵀ.

Source: Pearlmutter 1994 (H v); Schraudolph 2002 (G v).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlpjax import passes
from mlpjax.config import Config
from mlpjax.errors import InputError
from mlpjax.heads import HEADS
from mlpjax.parameters import Aux, Batch, Layer, Params, State
from mlpjax.passes import Gradients, Pass
from mlpjax.r_layers import (
    RAffineCache,
    RBatchNormCache,
    activation_r_backward,
    activation_r_forward,
    affine_r_backward,
    affine_r_forward,
    batch_norm_r_backward,
    batch_norm_r_forward,
)


class QuadraticModel(NamedTuple):
    """J near θ: J(θ + v) ≈ J + ⟨grads, v⟩ + ½⟨v, hvp(v)⟩; what `quadratic_model` returns.

    ``J``, ``aux`` and ``grads`` are those of `mlpjax.backward`. ``hvp(v)`` is H v and ``gnvp(v)`` is G v, linear
    functions of a ``v`` with the tree of the parameters, which run no forward or backward pass at θ again.
    """

    J: jax.Array
    aux: Aux
    grads: Params
    hvp: Callable[[Params], Params]
    gnvp: Callable[[Params], Params]


def quadratic_model(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = True,
) -> QuadraticModel:
    """One forward and one backward pass, kept for many products with H and G: what conjugate gradients need.

    The arguments are those of `mlpjax.backward`, and the masks of dropout those of the same ``key`` for every v. Call
    it inside the function that is compiled: two of its fields are functions, which ``jax.jit`` does not return.

    Raises:
        InputError: and `DataError` as in `mlpjax.backward`; a product, when v has not the tree or shapes of params.

    >>> config = Config(sizes=(2, 1), head="regression")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> model = quadratic_model(config, params, state, Batch(jnp.eye(2), jnp.zeros(2)))
    >>> model.hvp((mlpjax.Layer(W=jnp.array([[4.0], [6.0]]), b=jnp.zeros(1)),))[0].W.T  # XᵀX/m = I/2
    Array([[2., 3.]], dtype=float32)
    """
    this = passes.run_pass(config, params, state, batch, train, key)
    found = passes.run_backward(config, params, this, passes.RULES)
    J, aux = passes.objective(config, params, this)

    def hvp(v: Params) -> Params:
        return _hessian_product(config, params, this, found, v)

    def gnvp(v: Params) -> Params:
        return _gauss_newton_product(config, params, this, v)

    return QuadraticModel(J, aux, found.params, hvp, gnvp)


def hvp(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    v: Params,
    key: jax.Array | None = None,
    *,
    train: bool = True,
) -> Params:
    """H v, the Hessian of J times ``v``: R{∂J/∂θ}; ``v`` and the result have the tree of ``params``.

    What ``jax.jvp(jax.grad(loss), params, v)`` gives, for all that `mlpjax.loss` takes: batch-norm with its batch's
    statistics, dropout with the masks of ``key``, weights and penalties. At a kink the second derivative is that of
    the side to which the first belongs: 0 for all but ELU and SELU, and for those at 0 too. With all weights zero H
    is that of the penalty. Many products at the same parameters: `quadratic_model`.

    Raises:
        InputError: and `DataError` as in `mlpjax.backward`; when v has not the tree or the shapes of params.

    Source: Pearlmutter 1994.

    >>> config = Config(sizes=(2, 1), head="binary", init="zeros")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> v = (mlpjax.Layer(W=jnp.zeros((2, 1)), b=jnp.array([1.0])),)
    >>> hvp(config, params, state, Batch(jnp.array([[2.0, 4.0]]), jnp.array([0])), v)[0].W.T  # ŷ(1 − ŷ) x
    Array([[0.5, 1. ]], dtype=float32)
    """
    this = passes.run_pass(config, params, state, batch, train, key)
    return _hessian_product(config, params, this, passes.run_backward(config, params, this, passes.RULES), v)


def gnvp(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    v: Params,
    key: jax.Array | None = None,
    *,
    train: bool = True,
) -> Params:
    """G v with G = Σ pᵢ Jᵢᵀ (∂²Lᵢ/∂z²) Jᵢ + ∂²penalty/∂θ², Jᵢ = ∂zᵢ/∂θ; ``v`` and the result are like ``params``.

    G leaves out the curvature of z itself, which H has: it is positive semidefinite for every head, and is H where z
    is linear in the parameters. The arguments are those of `hvp`; under batch-norm J holds the batch's statistics.

    Raises:
        InputError: and `DataError` as in `hvp`.

    Source: Schraudolph 2002.

    >>> config = Config(sizes=(1, 1, 1), activation="tanh", head="regression", bias=False)
    >>> params = (mlpjax.Layer(W=jnp.zeros((1, 1))), mlpjax.Layer(W=jnp.array([[3.0]])))
    >>> v, batch = (mlpjax.Layer(W=jnp.ones((1, 1))),) * 2, Batch(jnp.ones((1, 1)), jnp.ones(1))
    >>> gnvp(config, params, (), batch, v)[0].W, hvp(config, params, (), batch, v)[0].W  # 3², 3² − 1
    (Array([[9.]], dtype=float32), Array([[8.]], dtype=float32))
    """
    return _gauss_newton_product(config, params, passes.run_pass(config, params, state, batch, train, key), v)


class RHiddenCache(NamedTuple):
    """What the R-forward pass of a hidden layer remembers: R{z} is that of the activation's input, after batch-norm."""

    affine: RAffineCache
    norm: RBatchNormCache | None
    Rz: jax.Array


class RPass(NamedTuple):
    """An R-forward pass: R{z} of the scores, and what the hidden layers and the output layer remember."""

    Rz: jax.Array
    hidden: tuple[RHiddenCache, ...]
    output: RAffineCache


def run_r_forward(config: Config, params: Params, this: Pass, v: Params) -> RPass:
    """R of `mlpjax.passes.run_forward` along ``v``, from R{X} = 0; R{Z[L]} is Jᵢ v in row i."""
    Ra = None
    hidden: list[RHiddenCache] = []
    for l in range(1, config.depth):
        layer, Rlayer, cache = params[l - 1], v[l - 1], this.cache.hidden[l - 1]
        Rz, affine = affine_r_forward(Ra, Rlayer.W, Rlayer.b, cache.affine, config.compute_dtype)
        norm = None
        if cache.norm is not None and Rlayer.gamma is not None and Rlayer.beta is not None:
            Rz, norm = batch_norm_r_forward(Rz, Rlayer.gamma, Rlayer.beta, cache.norm)
        Ra = activation_r_forward(config.activations[l - 1], Rz, cache.z, layer, Rlayer)
        if cache.dropout is not None:
            Ra = Ra * cache.dropout.mask
        hidden.append(RHiddenCache(affine, norm, Rz))
    Rz, output = affine_r_forward(Ra, v[-1].W, v[-1].b, this.cache.output, config.compute_dtype)
    return RPass(Rz, tuple(hidden), output)


def run_r_backward(config: Config, params: Params, this: Pass, found: Gradients, v: Params, r_pass: RPass) -> Params:
    """R of `mlpjax.passes.run_backward`, which found the deltas: R{∂J/∂θ}, from R{dZ[L]} down to layer 1."""
    Rdz = _head_product(config, this, r_pass.Rz)
    Rda, RdW, Rdb = affine_r_backward(Rdz, found.dz_output, this.cache.output, r_pass.output, config.compute_dtype)
    result = [_with_penalty(config, params[-1], v[-1], Layer(W=RdW, b=Rdb))]
    for l in range(config.depth - 1, 0, -1):
        layer, Rlayer, cache = params[l - 1], v[l - 1], this.cache.hidden[l - 1]
        deltas, remembered = found.hidden[l - 1], r_pass.hidden[l - 1]
        Rdgamma = Rdbeta = None
        if cache.dropout is not None:
            Rda = Rda * cache.dropout.mask
        Rdz, Rdslope = activation_r_backward(
            config.activations[l - 1], Rda, deltas.da, cache.z, remembered.Rz, layer, Rlayer
        )
        if cache.norm is not None and remembered.norm is not None:
            Rdz, Rdgamma, Rdbeta = batch_norm_r_backward(Rdz, deltas.dz_tilde, deltas.dz, cache.norm, remembered.norm)
        Rda, RdW, Rdb = affine_r_backward(Rdz, deltas.dz, cache.affine, remembered.affine, config.compute_dtype)
        result.append(_with_penalty(config, layer, Rlayer, Layer(RdW, Rdb, Rdgamma, Rdbeta, Rdslope)))
    return tuple(reversed(result))


def _hessian_product(config: Config, params: Params, this: Pass, found: Gradients, v: Params) -> Params:
    v = _direction(params, v)
    return run_r_backward(config, params, this, found, v, run_r_forward(config, params, this, v))


def _gauss_newton_product(config: Config, params: Params, this: Pass, v: Params) -> Params:
    v = _direction(params, v)
    dz = _head_product(config, this, run_r_forward(config, params, this, v).Rz)
    # the backward pass is linear in dZ[L]: it multiplies any rows by the Jᵢᵀ
    rules = passes.RULES._replace(output=lambda config, this: dz, penalty=lambda config, W: None)
    products = passes.run_backward(config, params, this, rules).params
    return tuple(
        _with_penalty(config, layer, Rlayer, product)
        for layer, Rlayer, product in zip(params, v, products, strict=True)
    )


def _head_product(config: Config, this: Pass, Rz: jax.Array) -> jax.Array:
    """(∂²Lᵢ/∂z²) R{zᵢ} wᵢ/Σw, row by row: the head's Hessian, each row weighted once."""
    return HEADS[config.head].ddz(this.z, this.y, Rz) * this.p[:, None]


def _with_penalty(config: Config, layer: Layer, Rlayer: Layer, product: Layer) -> Layer:
    """One layer's product: the penalty's added to that of W, and none of b where there is no b."""
    RdW = product.W
    if (active := passes.active_penalty(config, RdW.dtype)) is not None:
        rule, strengths = active
        RdW = RdW + rule.ddf(layer.W, Rlayer.W, *strengths)
    return product._replace(W=RdW, b=None if layer.b is None else product.b)


def _direction(params: Params, v: Params) -> Params:
    """Return ``v`` in the dtypes of the parameters, or say where its tree or a shape differs from theirs."""
    expected, got = (str(jax.tree.structure(tree)) for tree in (params, v))
    if expected != got:
        raise InputError(f"v has the tree {got}: expected that of params, {expected}")
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(v), strict=True):
        if jnp.shape(leaf) != jnp.shape(other):
            place = jax.tree_util.keystr(path)
            raise InputError(f"v{place} has shape {jnp.shape(other)}: expected {jnp.shape(leaf)}, as params{place}")
    return jax.tree.map(lambda leaf, other: jnp.asarray(other, leaf.dtype), params, v)
