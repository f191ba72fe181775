"""What the checks of the one hidden layer's versions share: a network, examples, and an oracle for its gradients."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax import one_hidden
from mlpjax.one_hidden import Forward, Gradients
from mlpjax.parameters import Layer, Params

M = 5


class Case(NamedTuple):
    """A network 3-4-2 of tanh units, examples, and what a version finds, the gradients of the oracle beside it."""

    params: Params
    x: Any
    y: Any
    forward: Forward
    found: Gradients
    auto: dict[str, Any]


def drawn() -> tuple[Params, Any, Any]:
    rng: Any = np.random.default_rng(3)
    W1, b1, W2, b2 = (rng.normal(scale=0.7, size=shape) for shape in ((3, 4), 4, (4, 2), 2))
    return (Layer(W1, b1), Layer(W2, b2)), rng.normal(size=(M, 3)), rng.integers(0, 2, (M, 2)) * 1.0


@jax.jit
def _oracle(params: Params, x: jax.Array, y: jax.Array) -> dict[str, Any]:
    """∂J/∂v of every v, J written with log; something added to a node, 0, has the node's derivative."""
    (W1, b1), (W2, b2) = (layer[:2] for layer in params)
    at = {"W1": W1, "b1": b1, "W2": W2, "b2": b2}
    at |= {name: jnp.zeros((len(x), n)) for name, n in (("z1", 4), ("a1", 4), ("z2", 2), ("a2", 2))}

    def J(v: dict[str, Any]) -> jax.Array:
        a1 = jnp.tanh(x @ v["W1"] + v["b1"][None, :] + v["z1"]) + v["a1"]
        a2 = 1 / (1 + jnp.exp(-(a1 @ v["W2"] + v["b2"][None, :] + v["z2"]))) + v["a2"]
        return -jnp.sum(y * jnp.log(a2) + (1 - y) * jnp.log(1 - a2)) / len(x)

    return jax.grad(J)(at)


def one_example() -> Case:
    """Version 2 on one example, in which a label is 0 and the other 1."""
    params, x, y = drawn()
    i = int(np.flatnonzero(y.sum(axis=1) == 1)[0])
    x, y = x[i : i + 1], y[i : i + 1]
    forward = one_hidden.forward_example(params, x)
    return Case(params, x, y, forward, one_hidden.backward_example(params, x, y, forward), _oracle(params, x, y))


def all_examples() -> Case:
    """Version 3 on all examples."""
    params, x, y = drawn()
    forward = one_hidden.forward_v3(params, x)
    return Case(params, x, y, forward, one_hidden.backward_v3(params, x, y, forward), _oracle(params, x, y))


def by_hand(params: Params, x: Any) -> list[Any]:
    """z[1], a[1], z[2], a[2] by Python numbers."""
    rows = []
    for x_i in x.tolist():
        z1 = [sum(u * w for u, w in zip(x_i, column, strict=True)) for column in params[0].W.T.tolist()]
        z1 = [z + b for z, b in zip(z1, params[0].b.tolist(), strict=True)]  # type: ignore[union-attr]
        a1 = [math.tanh(z) for z in z1]
        z2 = [sum(u * w for u, w in zip(a1, column, strict=True)) for column in params[1].W.T.tolist()]
        z2 = [z + b for z, b in zip(z2, params[1].b.tolist(), strict=True)]  # type: ignore[union-attr]
        rows.append((z1, a1, z2, [1 / (1 + math.exp(-z)) for z in z2]))
    return [np.array(value) for value in zip(*rows, strict=True)]
