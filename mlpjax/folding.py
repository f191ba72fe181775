"""Batch-norm folded into the weights: after training it is an affine map, and a layer already is one."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from mlpjax.checks import check_input
from mlpjax.config import Config
from mlpjax.layers import BATCH_NORM_FORMS, BatchNormState
from mlpjax.parameters import Layer, Params, State


def fold(config: Config, params: Params, state: State) -> tuple[Config, Params]:
    """Fold the inference form of batch-norm into the weights of a trained network.

    With s = γ/√(σ̄² + ε), z̃ = γ ⊙ (xW − μ̄)/√(σ̄² + ε) + β is x W̃ + b̃ with

        W̃ = W · diag(s),   b̃ = β − μ̄ ⊙ s

    so that every hidden layer is affine and activation again, and the network has no state.

    Args:
        config: the network.
        params: from training.
        state: its running statistics, one record per hidden layer.

    Returns:
        ``(config, params)`` of the folded network: ``batch_norm=False``, ``bias=True``, ``params`` as `mlpjax.init`
        would lay them out (an output layer that had no ``b`` gets b = 0). Its state is ``()``:
        ``mlpjax.predict(*fold(config, params, state), (), x)``. Without batch-norm, both as they were.

        The outputs in evaluation mode are equal up to rounding, that of ``compute_dtype`` included. The rest of the
        config is kept. Dropout drops nothing in evaluation mode, so nothing changes. The penalty is now that of W̃: J
        differs by it, the data loss does not. It is for inference: training goes on from the network that was folded.

    Raises:
        InputError: ``params`` or ``state`` are not those of the config.

    Source: ``norm-bn-inference``, ``err-bn-test`` (Ioffe & Szegedy 2015, algorithm 2).

    >>> config = mlpjax.Config(sizes=(1, 1, 1), head="regression", batch_norm=True)
    >>> one, zero = jnp.ones(1), jnp.zeros(1)
    >>> params = (Layer(W=jnp.array([[3.0]]), gamma=2 * one, beta=5 * one), Layer(W=jnp.array([[1.0]]), b=zero))
    >>> state = (BatchNormState(mean=one, var=4 * one, count=jnp.array(1)),)
    >>> folded, layers = fold(config, params, state)  # s = 2/√4
    >>> folded.batch_norm, bool(jnp.allclose(layers[0].W, 3, atol=1e-4)), layers[0].b.round(4)
    (False, True, Array([4.], dtype=float32))
    >>> x = jnp.array([[2.0]])
    >>> mlpjax.predict(config, params, state, x).round(3), mlpjax.predict(folded, layers, (), x).round(3)
    (Array([[10.]], dtype=float32), Array([[10.]], dtype=float32))
    """
    check_input(config, params, state, jnp.zeros((0, config.sizes[0])), False, None)
    if not config.batch_norm:
        return config, params
    *hidden, output = params
    if output.b is None:
        output = output._replace(b=jnp.zeros_like(output.W[0]))
    eps = BATCH_NORM_FORMS[config.batch_norm_convention].eps
    layers = [_folded(layer, statistics, eps) for layer, statistics in zip(hidden, state, strict=True)]
    folded = dataclasses.replace(config, batch_norm=False, batch_norm_convention=None, bias=True)
    return folded, (*layers, output)


def _folded(layer: Layer, statistics: BatchNormState, eps: float) -> Layer:
    gamma, beta, mean, var = (jnp.asarray(leaf) for leaf in (layer.gamma, layer.beta, statistics.mean, statistics.var))
    scale = gamma / jnp.sqrt(var + eps)
    return Layer(W=layer.W * scale[None, :], b=beta - mean * scale, slope=layer.slope)
