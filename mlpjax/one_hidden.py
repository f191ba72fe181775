"""The network with one hidden layer, three times, as the lecture does it: ever fewer loops, always the same numbers.

Version 1 goes unit by unit and example by example, version 2 example by example with row vectors and outer products,
version 3 takes all examples at once. Hidden activation g, output σ, loss Lᵢ = the binary cross-entropy summed over
the outputs, cost J = (1/m) Σᵢ Lᵢ. `mlpjax.one_hidden_descent` trains with them; `mlpjax.backward` is version 3 for any
depth and head.

**The slides' dZ and dA are per example**: row i is ∂Lᵢ/∂zᵢ, which is m times ∂J/∂zᵢ. So it is in this module, while
everywhere else in mlpjax ``dz`` is ∂J/∂z. The 1/m comes in with dW and db, which are ∂J/∂W and ∂J/∂b in both.

Parameters are two `mlpjax.Layer`s with W ``(n_0, n_1)``, ``(n_1, n_2)`` and b; x is ``(m, n_0)``, y ``(m, n_2)`` of
0 and 1. Source: lecture, section *One hidden layer*.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import ACTIVATIONS, sigmoid
from mlpjax.errors import InputError, unknown_name
from mlpjax.layers import AffineCache, affine_backward, affine_forward
from mlpjax.parameters import Layer, Params
from mlpjax.slide_program import sigmoid as scalar_sigmoid


class Forward(NamedTuple):
    """What the forward pass computes: z¹ and a¹ ``(m, n_1)``, z² and a² = Ŷ ``(m, n_2)``."""

    z1: Any
    a1: Any
    z2: Any
    a2: Any


class Gradients(NamedTuple):
    """What the backward pass computes: dZ and dA per example (m times ∂J/∂·), dW and db of the cost J."""

    dz2: Any
    dW2: Any
    db2: Any
    da1: Any
    dz1: Any
    dW1: Any
    db1: Any


def forward_v1(params: Params, x: Any, g: str = "tanh") -> Forward:
    """Version 1: z_d = a·w_d + b_d and a_d = g(z_d) for every example i and every unit d; w_d is column d of W.

    In NumPy, one number after the other. Source: ``mlp1-v1-forward-1``, ``mlp1-v1-forward-2``.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 3, 1), head="multilabel", init="zeros"), jax.random.key(0))
    >>> forward_v1(params, np.ones((1, 2))).a2
    array([[0.5]], dtype=float32)
    """
    W1, b1, W2, b2 = _numpy(params, x, g)
    (g_scalar, _), x = _SCALAR[g], np.asarray(x)
    z1 = np.zeros((len(x), len(b1)), W1.dtype)
    z2 = np.zeros((len(x), len(b2)), W1.dtype)
    a1, a2 = np.zeros_like(z1), np.zeros_like(z2)
    for i in range(len(x)):
        for d in range(len(b1)):
            z1[i, d] = x[i] @ W1[:, d] + b1[d]
            a1[i, d] = g_scalar(z1[i, d])
        for d in range(len(b2)):
            z2[i, d] = a1[i] @ W2[:, d] + b2[d]
            a2[i, d] = scalar_sigmoid(z2[i, d])
    return Forward(z1, a1, z2, a2)


def backward_v1(params: Params, x: Any, y: Any, forward: Forward, g: str = "tanh") -> Gradients:
    """Version 1 backward, which the slides leave out: the gradients of version 2, entry by entry.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 3, 1), head="multilabel", init="zeros"), jax.random.key(0))
    >>> x, y = np.ones((4, 2)), np.ones((4, 1))
    >>> backward_v1(params, x, y, forward_v1(params, x)).db2
    array([-0.5], dtype=float32)
    """
    W1, b1, W2, b2 = _numpy(params, x, g, y)
    (_, g_slope), x, y, m = _SCALAR[g], np.asarray(x), np.asarray(y), len(x)
    dz1, da1, dz2 = np.zeros_like(forward.z1), np.zeros_like(forward.z1), np.zeros_like(forward.z2)
    dW1, db1, dW2, db2 = np.zeros_like(W1), np.zeros_like(b1), np.zeros_like(W2), np.zeros_like(b2)
    for i in range(m):
        for d in range(len(b2)):
            dz2[i, d] = forward.a2[i, d] - y[i, d]
            dW2[:, d] += forward.a1[i] * dz2[i, d] / m
            db2[d] += dz2[i, d] / m
        for d in range(len(b1)):
            da1[i, d] = dz2[i] @ W2[d]
            dz1[i, d] = da1[i, d] * g_slope(forward.z1[i, d])
            dW1[:, d] += x[i] * dz1[i, d] / m
            db1[d] += dz1[i, d] / m
    return Gradients(dz2, dW2, db2, da1, dz1, dW1, db1)


def forward_example(params: Params, x: jax.Array, g: str = "tanh") -> Forward:
    """Version 2, one example: z = a W + b with row vectors, x ``(1, n_0)``, z¹ ``(1, n_1)``, z² ``(1, n_2)``.

    Source: ``mlp1-v2-forward-1``, ``mlp1-v2-forward-2``.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 3, 1), head="multilabel"), jax.random.key(0))
    >>> [value.shape for value in forward_example(params, jnp.ones((1, 2)))]
    [(1, 3), (1, 3), (1, 1), (1, 1)]
    """
    W1, b1, W2, b2 = _layers(params, x, g)
    z1 = x @ W1 + b1[None, :]
    a1 = ACTIVATIONS[g].f(z1)
    z2 = a1 @ W2 + b2[None, :]
    return Forward(z1, a1, z2, sigmoid(z2))


def backward_example(params: Params, x: jax.Array, y: jax.Array, forward: Forward, g: str = "tanh") -> Gradients:
    """Version 2 backward, one example: every dW is a column times a row.

        ∂L/∂z² (1, n_2) = ∂L/∂a² ⊙ σ′(z²) = a² − y
        ∂L/∂W² (n_1, n_2) = a¹ᵀ ∂L/∂z²    ∂L/∂b² = ∂L/∂z²    ∂L/∂a¹ (1, n_1) = ∂L/∂z² W²ᵀ, W²ᵀ being (n_2, n_1)
        ∂L/∂z¹ (1, n_1) = ∂L/∂a¹ ⊙ g′(z¹)
        ∂L/∂W¹ (n_0, n_1) = xᵀ ∂L/∂z¹     ∂L/∂b¹ = ∂L/∂z¹

    Source: ``mlp1-v2-back-dz2``, ``mlp1-v2-back-dW2``, ``mlp1-v2-back-db2``, ``mlp1-v2-back-da1``,
    ``mlp1-v2-back-dz1``, ``mlp1-v2-back-dW1``, ``mlp1-v2-back-db1``, ``err-v2-wT-shape``, ``err-v2-dz1-garbled``.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 3, 1), head="multilabel"), jax.random.key(0))
    >>> x, y = jnp.ones((1, 2)), jnp.ones((1, 1))
    >>> [value.shape for value in backward_example(params, x, y, forward_example(params, x))]
    [(1, 1), (3, 1), (1,), (1, 3), (1, 3), (2, 3), (3,)]
    """
    _, _, W2, _ = _layers(params, x, g, y)
    dz2 = forward.a2 - y
    da1 = dz2 @ W2.T
    dz1 = da1 * ACTIVATIONS[g].df(forward.z1)
    return Gradients(dz2, forward.a1.T @ dz2, dz2[0], da1, dz1, x.T @ dz1, dz1[0])


@functools.partial(jax.jit, static_argnames="g")
def forward_v2(params: Params, x: jax.Array, g: str = "tanh") -> Forward:
    """Version 2: `forward_example` for i = 1 … m, one after the other.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 3, 1), head="multilabel", init="zeros"), jax.random.key(0))
    >>> forward_v2(params, jnp.ones((2, 2))).a2.T
    Array([[0.5, 0.5]], dtype=float32)
    """
    _layers(params, x, g)
    rows = jax.lax.map(lambda row: forward_example(params, row[None, :], g), x)
    return Forward(*(value[:, 0] for value in rows))


@functools.partial(jax.jit, static_argnames="g")
def backward_v2(params: Params, x: jax.Array, y: jax.Array, forward: Forward, g: str = "tanh") -> Gradients:
    """Version 2 backward: `backward_example` for i = 1 … m, one after the other; dW and db averaged over i.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 3, 1), head="multilabel", init="zeros"), jax.random.key(0))
    >>> x, y = jnp.ones((4, 2)), jnp.ones((4, 1))
    >>> backward_v2(params, x, y, forward_v2(params, x)).db2
    Array([-0.5], dtype=float32)
    """
    _layers(params, x, g, y)

    def body(total: tuple[Layer, ...], row: tuple[Any, ...]) -> tuple[tuple[Layer, ...], tuple[jax.Array, ...]]:
        x_i, y_i, forward_i = jax.tree.map(lambda value: value[None, :], row)
        grads = backward_example(params, x_i, y_i, forward_i, g)
        total = jax.tree.map(jnp.add, total, (Layer(grads.dW1, grads.db1), Layer(grads.dW2, grads.db2)))
        return total, (grads.dz2[0], grads.da1[0], grads.dz1[0])

    start = jax.tree.map(jnp.zeros_like, params)
    total, (dz2, da1, dz1) = jax.lax.scan(body, start, (x, y, forward))
    first, second = jax.tree.map(lambda value: value / x.shape[0], total)
    return Gradients(dz2, second.W, second.b, da1, dz1, first.W, first.b)


def forward_v3(params: Params, x: jax.Array, g: str = "tanh") -> Forward:
    """Version 3: Z = A W + b and A = g(Z) for all examples at once; rows are examples.

    Source: ``mlp1-v3-forward-1``, ``mlp1-v3-forward-2``, ``mlp1-v3-layout``, ``err-v3-D``.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 3, 1), head="multilabel", init="zeros"), jax.random.key(0))
    >>> forward_v3(params, jnp.ones((2, 2))).a2.T
    Array([[0.5, 0.5]], dtype=float32)
    """
    W1, b1, W2, b2 = _layers(params, x, g)
    z1, _ = affine_forward(x, W1, b1)
    a1 = ACTIVATIONS[g].f(z1)
    z2, _ = affine_forward(a1, W2, b2)
    return Forward(z1, a1, z2, sigmoid(z2))


def backward_v3(params: Params, x: jax.Array, y: jax.Array, forward: Forward, g: str = "tanh") -> Gradients:
    """Version 3 backward: two products per layer, and the 1/m in dW and db only.

        dZ² (m, n_2) = A² − Y                 dA¹ (m, n_1) = dZ² W²ᵀ
        dW² (n_1, n_2) = (1/m) A¹ᵀ dZ²        db² (n_2,) = (1/m) Σᵢ dZ²[i]
        dZ¹ (m, n_1) = dA¹ ⊙ g′(Z¹)
        dW¹ (n_0, n_1) = (1/m) Xᵀ dZ¹         db¹ (n_1,) = (1/m) Σᵢ dZ¹[i]

    dZ² = A² − Y holds because σ and the cross-entropy match; the sum over outputs stays a sum.
    Source: ``mlp1-v3-back-dZ2``, ``mlp1-v3-back-dW2``, ``mlp1-v3-back-db2``, ``mlp1-v3-back-dA1``,
    ``mlp1-v3-back-dZ1``, ``mlp1-v3-back-dW1``, ``mlp1-v3-back-db1``, ``err-L-vs-J``,
    ``err-double-mean``, ``err-multi-output-sum``.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 3, 1), head="multilabel", init="zeros"), jax.random.key(0))
    >>> x, y = jnp.ones((4, 2)), jnp.ones((4, 1))
    >>> backward_v3(params, x, y, forward_v3(params, x)).db2
    Array([-0.5], dtype=float32)
    """
    W1, _, W2, _ = _layers(params, x, g, y)
    m = x.shape[0]
    dz2 = forward.a2 - y
    da1, dW2, db2 = affine_backward(dz2, AffineCache(forward.a1, W2))
    dz1 = da1 * ACTIVATIONS[g].df(forward.z1)
    _, dW1, db1 = affine_backward(dz1, AffineCache(x, W1))
    return Gradients(dz2, dW2 / m, db2 / m, da1, dz1, dW1 / m, db1 / m)


class Version(NamedTuple):
    """A way to compute: ``forward(params, x, g)`` and ``backward(params, x, y, forward, g)``."""

    forward: Callable[..., Forward]
    backward: Callable[..., Gradients]


VERSIONS = {
    1: Version(forward_v1, backward_v1),
    2: Version(forward_v2, backward_v2),
    3: Version(forward_v3, backward_v3),
}
"""The lecture's versions by number. Source: ``mlp1-v123-equal``."""


_SCALAR: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "sigmoid": (scalar_sigmoid, lambda z: scalar_sigmoid(z) * (1 - scalar_sigmoid(z))),
    "tanh": (math.tanh, lambda z: 1 - math.tanh(z) ** 2),
    "relu": (lambda z: 0.0 if z <= 0 else z, lambda z: 0.0 if z <= 0 else 1.0),
}
"""g and g′ of one number: version 1 knows no arrays."""


def check_layers(params: Params, x: Any, y: Any = None, *, rows: bool = True) -> tuple[Any, Any, Any, Any]:
    """Return (W¹, b¹, W², b²) if they fit together, x and y: rows of examples, or one, ``(n_0,)`` and ``(n_2,)``.

    Raises:
        InputError: naming the first shape that does not fit.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(2, 3, 1), head="binary"), jax.random.key(0))
    >>> check_layers(params, np.ones((5, 4)))
    Traceback (most recent call last):
        ...
    mlpjax.errors.InputError: x has shape (5, 4): expected (5, 2), as W1 has shape (2, 3)
    """
    if len(params) != 2 or any(layer.b is None or jnp.ndim(layer.W) != 2 for layer in params):
        raise InputError(
            f"params has {len(params)} layers: expected two, each with W (n_in, n_out) and b (n_out,); see mlpjax.init"
        )
    (W1, b1), (W2, b2) = (layer[:2] for layer in params)
    n0, n1 = jnp.shape(W1)
    n2 = jnp.shape(W2)[1]
    m = jnp.shape(x)[:1] if rows else ()
    shapes = {"x": (x, (*m, n0)), "b1": (b1, (n1,)), "W2": (W2, (n1, n2)), "b2": (b2, (n2,))}
    if y is not None:
        shapes["y"] = (y, (*m, n2))
    for name, (value, expected) in shapes.items():
        if jnp.shape(value) != expected:
            raise InputError(f"{name} has shape {jnp.shape(value)}: expected {expected}, as W1 has shape {(n0, n1)}")
    return W1, b1, W2, b2


def _numpy(params: Params, x: Any, g: str, y: Any = None) -> list[np.ndarray]:
    return [np.asarray(value) for value in _layers(params, x, g, y)]


def _layers(params: Params, x: Any, g: str, y: Any = None) -> tuple[Any, Any, Any, Any]:
    if g not in _SCALAR:
        raise InputError(unknown_name("hidden activation", g, _SCALAR))
    return check_layers(params, x, y)
