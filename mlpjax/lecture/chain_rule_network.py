"""Checks of the section *Chain rule and back-propagation*: example 2, and all paths through it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax import counting
from mlpjax.activations import sigmoid_derivative
from mlpjax.chain_network import backward_network, forward_network, network_edges, paths_between
from mlpjax.claims import Claim, agree, equal, printed
from mlpjax.parameters import Layer


def _drawn() -> tuple[Any, ...]:
    """x, y, W[1], b[1], W[2], b[2] with 3-4-2 units."""
    rng = np.random.default_rng(1)
    return tuple(rng.normal(size=shape) for shape in (3, 2, (3, 4), 4, (4, 2), 2))


def _network() -> tuple[Any, Any, dict[str, Any]]:
    """Example 2: its cache, its gradients, and jax.grad with respect to every node."""
    x, y, W1, b1, W2, b2 = _drawn()
    cache = forward_network(x, (Layer(W1, b1), Layer(W2, b2)), y)
    names = {"x": x, "W1": W1, "b1": b1, "W2": W2, "b2": b2}
    offsets = {"z1": np.zeros(4), "a1": np.zeros(4), "yhat": np.zeros(2)}
    return cache, backward_network(cache), _network_gradient({**names, **offsets}, y)


@jax.jit
def _network_gradient(at: dict[str, jax.Array], y: jax.Array) -> dict[str, jax.Array]:
    """Differentiate example 2 in matrix form; something added to a node, 0, has the node's derivative."""

    def loss(v: dict[str, jax.Array]) -> jax.Array:
        z1 = v["x"] @ v["W1"] + v["b1"] + v["z1"]
        a1 = 1 / (1 + jnp.exp(-z1)) + v["a1"]
        yhat = a1 @ v["W2"] + v["b2"] + v["yhat"]
        return jnp.sum((yhat - y) ** 2) / 2

    return jax.grad(loss)(at)


def chain_ex2_forward() -> tuple[Claim, ...]:
    """The sums of the slide, index by index, are the matrix form x W[1] + b[1], σ, a W[2] + b[2]."""
    cache, (x, _, W1, b1, W2, b2) = _network()[0], _drawn()
    z1 = [sum(x[i] * W1[i, j] for i in range(3)) + b1[j] for j in range(4)]
    a1 = [1 / (1 + math.exp(-z)) for z in z1]
    return (
        agree("z[1] by loops", cache.z1, z1),
        agree("a[1] by loops", cache.a1, a1),
        agree("ŷ as a matrix product", cache.yhat, np.array(a1) @ W2 + b2),
    )


def chain_ex2_loss() -> tuple[Claim, ...]:
    """L = ½ Σ_k (ŷ_k − y_k)²: a sum over the outputs, not a mean."""
    cache = _network()[0]
    return (
        agree("against optax.l2_loss, summed", cache.loss, optax.l2_loss(cache.yhat, cache.y).sum()),
        agree("against a loop", cache.loss, sum((p - t) ** 2 for p, t in zip(cache.yhat, cache.y, strict=True)) / 2),
    )


def chain_ex2_dyhat() -> Claim:
    """∂L/∂ŷ_k = ŷ_k − y_k."""
    _, grads, auto = _network()
    return agree("against jax.grad", grads.dyhat, auto["yhat"])


def chain_ex2_dW2() -> tuple[Claim, ...]:
    """∂L/∂w_jk[2] = (ŷ_k − y_k) a_j: an outer product, in the shape of W[2]."""
    cache, grads, auto = _network()
    return agree("against jax.grad", grads.dW2, auto["W2"]), equal("shape", grads.dW2.shape, cache.W2.shape)


def chain_ex2_db2() -> Claim:
    """∂L/∂b_k[2] = ŷ_k − y_k."""
    _, grads, auto = _network()
    return agree("against jax.grad", grads.db2, auto["b2"])


def chain_ex2_da1() -> Claim:
    """∂L/∂a_j = Σ_k (ŷ_k − y_k) w_jk[2]: the hidden unit hears of every output."""
    _, grads, auto = _network()
    return agree("against jax.grad with respect to a[1]", grads.da1, auto["a1"])


@printed("err-missing-layer-index", lambda cache, grads: grads.da1 * sigmoid_derivative(cache.yhat))
def chain_ex2_dz1(form: Any = lambda cache, grads: grads.dz1) -> Claim:
    """∂L/∂z_j[1] = ∂L/∂a_j σ′(z_j[1]), the z of the hidden layer and not that of the output."""
    cache, grads, auto = _network()
    return agree("against jax.grad with respect to z[1]", form(cache, grads), auto["z1"])


def chain_ex2_dW1() -> Claim:
    """∂L/∂w_ij[1] = x_i ∂L/∂z_j[1]."""
    _, grads, auto = _network()
    return agree("against jax.grad", grads.dW1, auto["W1"])


def chain_ex2_db1() -> Claim:
    """∂L/∂b_j[1] = ∂L/∂z_j[1]."""
    _, grads, auto = _network()
    return agree("against jax.grad", grads.db1, auto["b1"])


def chain_ex2_dx() -> tuple[Claim, ...]:
    """∂L/∂x_i = Σ_j ∂L/∂z_j w_ij[1]: the same recursion one layer further, down to the data."""
    cache, grads, auto = _network()
    return agree("against jax.grad", grads.dx, auto["x"]), equal("shape", grads.dx.shape, cache.x.shape)


def chain_ex2_paths() -> tuple[Claim, ...]:
    """How much w₁₁ or x₂ changes L: the sum over all paths is what one sweep back finds."""
    cache, grads, _ = _network()
    edges = network_edges(cache)
    from_w11, from_x2 = paths_between(edges, "W1[1,1]", "L"), paths_between(edges, "x[2]", "L")
    to_output = paths_between({edge: 1.0 if edge[0][:2] == "z1" else edges[edge] for edge in edges}, "x[2]", "yhat[1]")
    return (
        agree("w₁₁: paths against back-propagation", sum(p.product for p in from_w11), grads.dW1[0, 0]),
        agree("x₂: paths against back-propagation", sum(p.product for p in from_x2), grads.dx[1]),
        equal("2 paths from w₁₁, 4 · 2 from x₂", [len(from_w11), len(from_x2)], [2, counting.count_paths((3, 4, 2))]),
        agree("without σ: an entry of W[1] W[2]", sum(p.product for p in to_output), (cache.W1 @ cache.W2)[1, 0]),
    )


def chain_comp_graph_def() -> tuple[Claim, ...]:
    """Nodes are inputs and computed values; an edge says "is computed directly from". Example 2 with 3-4-2 units."""
    edges = list(network_edges(_network()[0]))
    starts, ends = ({edge[side] for edge in edges} for side in (0, 1))
    reads = sorted(start for start, end in edges if end == "z1[2]")
    return (
        equal("nodes that nothing leads to: x, W and b", len(starts - ends), 3 + 3 * 4 + 4 + 4 * 2 + 2),
        equal("nodes that lead nowhere", sorted(ends - starts), ["L"]),
        equal("z₂[1] reads", reads, sorted(["b1[2]", *(f"{v}]" for i in "123" for v in (f"x[{i}", f"W1[{i},2"))])),
    )
