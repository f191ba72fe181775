"""Gradient descent on the network with one hidden layer, by any of its three versions.

The slide's loop: initialise; then, again and again, forward, loss and backward over all examples, the cost, and one
update of the parameters. `mlpjax.fit` is the tool for training: any depth, mini-batches, every optimiser.

Source: lecture, section *One hidden layer*.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_count, check_number
from mlpjax.errors import InputError, unknown_name
from mlpjax.heads import sigmoid_cross_entropy
from mlpjax.one_hidden import VERSIONS, Forward, Gradients, check_layers
from mlpjax.parameters import Layer, Params


def cost(forward: Forward, y: Any) -> jax.Array:
    """J = −(1/m) Σᵢ Σ_o [y log a² + (1 − y) log(1 − a²)], from the scores z².

    >>> cost(Forward(None, None, jnp.zeros((5, 1)), None), jnp.ones((5, 1))).round(4)
    Array(0.6931, dtype=float32)
    """
    return jnp.mean(sigmoid_cross_entropy(jnp.asarray(forward.z2), jnp.asarray(y)))


def update(params: Params, grads: Gradients, alpha: float) -> Params:
    """W ← W − α ∂J/∂W and b ← b − α ∂J/∂b in both layers. Source: ``mlp1-update``.

    >>> params = (mlpjax.Layer(jnp.ones((1, 1)), jnp.ones(1)),) * 2
    >>> update(params, Gradients(*[jnp.ones((1, 1))] * 7)._replace(db1=jnp.ones(1), db2=jnp.ones(1)), 0.25)[0].W
    Array([[0.75]], dtype=float32)
    """
    gradients = (Layer(grads.dW1, grads.db1), Layer(grads.dW2, grads.db2))
    return jax.tree.map(lambda value, gradient: value - alpha * gradient, params, gradients)


def gradient_descent(
    params: Params, x: Any, y: Any, *, alpha: float, iterations: int, version: int = 3, g: str = "tanh"
) -> tuple[Params, np.ndarray]:
    """Repeat forward, loss, backward over all examples, and one update of the parameters per repetition.

    Args:
        params: where to start.
        x: all examples.
        y: their labels.
        alpha: the learning rate α.
        iterations: how often to repeat.
        version: 1, 2 or 3; the result is the same up to rounding.
        g: the hidden activation, ``"sigmoid"``, ``"tanh"`` or ``"relu"``.

    Returns:
        The parameters, and J before each update, ``(iterations,)``.

    Raises:
        InputError: for an unknown version or activation, shapes that do not fit, an α that is not finite and positive,
            or a count below 1.

    Source: ``mlp1-gd-algorithm``, ``mlp1-xor-trainable``, ``mlp1-playground``.

    >>> from mlpjax import one_hidden, toys
    >>> x, y = toys.gate("xor_gate")
    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 4, 1), activation="tanh", head="binary"), jax.random.key(0))
    >>> params, costs = gradient_descent(params, x, y[:, None], alpha=1.0, iterations=500)
    >>> one_hidden.forward_v3(params, x).a2.T.round()
    Array([[0., 1., 1., 0.]], dtype=float32)
    """
    if version not in VERSIONS:
        raise InputError(unknown_name("version", version, map(str, VERSIONS)))
    check_number("alpha", alpha, positive=True)
    check_count("iterations", iterations)
    check_layers(params, x, y)
    step = _step if version == 1 else _compiled_step
    costs = np.zeros(iterations)
    for t in range(iterations):
        params, costs[t] = step(params, x, y, alpha, version=version, g=g)
    return params, costs


def _step(params: Params, x: Any, y: Any, alpha: float, *, version: int, g: str) -> tuple[Params, jax.Array]:
    forward = VERSIONS[version].forward(params, x, g)
    grads = VERSIONS[version].backward(params, x, y, forward, g)
    return update(params, grads, alpha), cost(forward, y)


_compiled_step = jax.jit(_step, static_argnames=("version", "g"))
