"""Why weights must not start equal: hidden units with equal weights get equal gradients, and stay one unit.

Hidden units are equal where the columns of W1, the entries of b1 and the rows of W2 are; W = 0 is one such start.

Source: lecture, section *Weight initialisation*: "Initialise W with all zeros?".
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.config import Config
from mlpjax.errors import InputError
from mlpjax.mlp import apply_update, backward
from mlpjax.parameters import Batch, Layer, Params

_EQUAL = 1e-6
"""Columns that differ by less than this part of the largest weight are equal but for rounding."""


class SpreadTrace(NamedTuple):
    """The column spread of W1 before each step and after the last ``(steps + 1,)``, of dW1 ``(steps,)``, the end."""

    W1: jax.Array
    dW1: jax.Array
    params: Params


def equal_units(incoming: Any, outgoing: Any, n_hidden: int) -> Params:
    """Start one hidden layer of equal units: every column of W1 is ``incoming``, every row of W2 ``outgoing``; b = 0.

    Args:
        incoming: the weights into a hidden unit ``(n_0,)``; zeros are the lecture's W1 = 0.
        outgoing: the weights out of a hidden unit ``(n_2,)``.
        n_hidden: n_1, how many units.

    Returns:
        Parameters of a network ``(n_0, n_1, n_2)``.

    Raises:
        InputError: the weights are not vectors, or there is no unit.

    Source: ``init-zero-setup``, ``err-zero-conditions``.

    >>> hidden, output = equal_units([0.4, 0.5], [0.7], 3)
    >>> hidden.W, output.W.T
    (Array([[0.4, 0.4, 0.4],
           [0.5, 0.5, 0.5]], dtype=float32), Array([[0.7, 0.7, 0.7]], dtype=float32))
    """
    incoming, outgoing = jnp.asarray(incoming, float), jnp.asarray(outgoing, float)
    if incoming.ndim != 1 or outgoing.ndim != 1 or n_hidden < 1:
        raise InputError(
            f"incoming {incoming.shape}, outgoing {outgoing.shape}, {n_hidden} units: "
            "expected the weights of one unit, (n_0,) and (n_2,), and at least 1 unit"
        )
    return (
        Layer(W=jnp.tile(incoming[:, None], (1, n_hidden)), b=jnp.zeros(n_hidden)),
        Layer(W=jnp.tile(outgoing[None, :], (n_hidden, 1)), b=jnp.zeros(outgoing.shape)),
    )


def column_spread(W: jax.Array) -> jax.Array:
    """max_i (max_j W_ij − min_j W_ij): 0 if and only if all columns are equal, [[u, u, u], [v, v, v]].

    ``W (n, k)``: weights, their gradient, or activations ``(m, n_1)``, one column per unit.
    Source: ``init-zero-forward``, ``init-zero-back-dW1``, ``init-random-rule``, ``init-bias-zero``.

    >>> column_spread(jnp.array([[1.0, 1.0], [2.0, 2.5]]))
    Array(0.5, dtype=float32)
    """
    return jnp.max(jnp.max(W, axis=1) - jnp.min(W, axis=1))


def score_after_step(x: jax.Array, w: jax.Array, dw: jax.Array, alpha: float) -> jax.Array:
    """z = x · (w − α dw): the score of a unit after one step; ``(m, n), (n,), (n,) → (m,)``.

    From w = 0 and dw = (u, v) it is −α (x₁u + x₂v), the same for every unit that started with w.
    Source: ``init-zero-update``, ``err-zero-alpha``.

    >>> score_after_step(jnp.array([[1.0, 2.0]]), jnp.zeros(2), jnp.array([3.0, 4.0]), 0.1)
    Array([-1.1], dtype=float32)
    """
    return x @ (w - alpha * dw)


def spread_over_training(
    config: Config, params: Params, batch: Batch, optimizer: optax.GradientTransformation, steps: int
) -> SpreadTrace:
    """Take steps on one batch and record the column spread of W1 and dW1: units that start equal keep it at 0.

    Where the product of the machine does not round every column alike, a spread of 1e-16 appears, and a long run can
    amplify it (Adam more than plain steps): equal units are kept by the rule, not by rounding.

    Args:
        config: a network without batch-norm.
        params: where to start, such as `equal_units` or `mlpjax.init`.
        batch: all of the training data.
        optimizer: any `optax.GradientTransformation`.
        steps: how many.

    Raises:
        InputError: for dropout, which treats equal units differently, for batch-norm, and as in `mlpjax.backward`.

    Source: ``init-zero-update``, ``init-random-rule``.

    >>> batch = mlpjax.Batch(jnp.array([[1.0, 2.0], [0.0, 1.0]]), jnp.array([1, 0]))
    >>> config = Config(sizes=(2, 3, 1), activation="tanh", head="binary")
    >>> found = spread_over_training(config, equal_units([0.4, 0.5], [0.7], 3), batch, optax.sgd(0.1), 100)
    >>> float(found.W1.max()) < 1e-6
    True
    """
    if config.has_dropout or config.batch_norm:
        raise InputError("the config has dropout or batch-norm: expected a network whose units differ by weights only")
    return _steps(config, params, batch, optimizer, steps)


def one_unit_network(params: Params) -> Params:
    """Find the network with one hidden unit that computes the same: the unit's own weights, and Σ_j of W2's rows.

    With equal rows of W2 that is n_1 times a row. ``(n_0, n_1, n_2) → (n_0, 1, n_2)``.

    Raises:
        InputError: there is not exactly one hidden layer, or its units differ.

    Source: ``init-zero-effective-width``.

    >>> hidden, output = one_unit_network(equal_units([0.4, 0.5], [0.7], 3))
    >>> hidden.W.T, output.W
    (Array([[0.4, 0.5]], dtype=float32), Array([[2.1]], dtype=float32))
    """
    if len(params) != 2:
        raise InputError(f"params have {len(params)} layers: expected one hidden layer and the output layer")
    hidden, output = params
    for name, leaf in zip(Layer._fields, hidden, strict=True):
        if leaf is None:
            continue
        spread = float(column_spread(jnp.atleast_2d(leaf)))
        if not spread <= _EQUAL * float(jnp.max(jnp.abs(leaf))):
            raise InputError(f"hidden units differ: the spread of {name} is {spread:.3g}, expected 0 (equal columns)")
    one = jax.tree.map(lambda leaf: leaf[..., :1], hidden)
    return one, output._replace(W=jnp.sum(output.W, axis=0, keepdims=True))


def frozen_parameters(config: Config, params: Params, batch: Batch) -> tuple[str, ...]:
    """Name the parameters whose gradient is exactly 0: plain gradient steps leave them where they are.

    With W1 = W2 = 0 and b = 0, dW1 and db1 are 0 for every g, as dA1 = dZ2 W2ᵀ = 0; where g(0) = 0 (tanh, ReLU) dW2
    is 0 too, so that only b2 ever moves. σ(0) = ½ moves W2, and from the second step on all.
    Source: ``init-zero-frozen``, ``err-zero-first-step``.

    >>> config = Config(sizes=(2, 3, 1), activation="tanh", head="binary")
    >>> batch = mlpjax.Batch(jnp.array([[1.0, 2.0]]), jnp.array([1]))
    >>> frozen_parameters(config, equal_units([0.0, 0.0], [0.0], 3), batch)
    ('W1', 'b1', 'W2')
    """
    _, grads = jax.jit(backward)(config, params, (), batch)
    return tuple(
        f"{name}{l}"
        for l, layer in enumerate(grads, start=1)
        for name, leaf in zip(Layer._fields, layer, strict=True)
        if leaf is not None and not np.any(leaf)
    )


@functools.partial(jax.jit, static_argnames=("optimizer", "steps"))
def _steps(
    config: Config, params: Params, batch: Batch, optimizer: optax.GradientTransformation, steps: int
) -> SpreadTrace:
    def step(carry: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], tuple[jax.Array, jax.Array]]:
        params, opt_state = carry
        grads = backward(config, params, (), batch)[1]
        after = apply_update(optimizer, grads, opt_state, params)
        return after, (column_spread(params[0].W), column_spread(grads[0].W))

    (params, _), (W1, dW1) = jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)
    return SpreadTrace(jnp.append(W1, column_spread(params[0].W)), dW1, params)
