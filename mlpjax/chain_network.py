"""The lecture's second worked example: one hidden layer, several outputs, least squares, and all paths through it.

One example at a time, in the slide's indices: `forward_network` and `backward_network`, which takes every derivative
once. The same derivatives are sums over paths (`network_edges`, `paths_between`): the question that the slide asks
first. Everything is per example, ∂L/∂v, with no 1/m.

Source: lecture, section *Chain rule and back-propagation*, example 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.activations import sigmoid, sigmoid_derivative
from mlpjax.errors import InputError
from mlpjax.one_hidden import check_layers
from mlpjax.parameters import Params


class NetworkCache(NamedTuple):
    """Example 2 forward: one example x ``(n_0,)``, y ``(n_2,)``, the weights, z¹, a¹ ``(n_1,)``, ŷ = z² and L."""

    x: Any
    y: Any
    W1: Any
    W2: Any
    z1: jax.Array
    a1: jax.Array
    yhat: jax.Array
    loss: jax.Array


class NetworkGradients(NamedTuple):
    """Example 2 backward, in the slide's order; ∂L/∂v under the name dv, in the shape of v."""

    dyhat: jax.Array
    dW2: jax.Array
    db2: jax.Array
    da1: jax.Array
    dz1: jax.Array
    dW1: jax.Array
    db1: jax.Array
    dx: jax.Array


def forward_network(x: Any, params: Params, y: Any) -> NetworkCache:
    """z_j¹ = Σ_i x_i w_ij¹ + b_j¹, a_j¹ = σ(z_j¹), ŷ_k = z_k² = Σ_j a_j¹ w_jk² + b_k², L = ½ Σ_k (ŷ_k − y_k)².

    Args:
        x: one example ``(n_0,)``.
        params: two layers, W ``(n_0, n_1)`` and ``(n_1, n_2)``, each with its b.
        y: the targets ``(n_2,)``.

    Raises:
        InputError: a shape does not fit.

    Source: ``chain-ex2-forward``, ``chain-ex2-loss``.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(3, 4, 2), init="zeros"), jax.random.key(0))
    >>> forward_network(jnp.ones(3), params, jnp.array([1.0, 2.0])).loss
    Array(2.5, dtype=float32)
    """
    W1, b1, W2, b2 = check_layers(params, x, y, rows=False)
    z1 = jnp.einsum("i,ij->j", x, W1) + b1
    a1 = sigmoid(z1)
    yhat = jnp.einsum("j,jk->k", a1, W2) + b2
    return NetworkCache(x, y, W1, W2, z1, a1, yhat, jnp.sum((yhat - y) ** 2) / 2)


def backward_network(cache: NetworkCache) -> NetworkGradients:
    """Go from ŷ back to x, every line a product with what the line before found.

        ∂L/∂ŷ_k = ŷ_k − y_k
        ∂L/∂w_jk² = ∂L/∂ŷ_k a_j¹    ∂L/∂b_k² = ∂L/∂ŷ_k    ∂L/∂a_j¹ = Σ_k ∂L/∂ŷ_k w_jk²
        ∂L/∂z_j¹ = ∂L/∂a_j¹ σ′(z_j¹)
        ∂L/∂w_ij¹ = ∂L/∂z_j¹ x_i    ∂L/∂b_j¹ = ∂L/∂z_j¹   ∂L/∂x_i = Σ_j ∂L/∂z_j¹ w_ij¹

    Source: ``chain-ex2-dyhat``, ``chain-ex2-dW2``, ``chain-ex2-db2``, ``chain-ex2-da1``, ``chain-ex2-dz1``,
    ``chain-ex2-dW1``, ``chain-ex2-db1``, ``chain-ex2-dx``, ``err-missing-layer-index``.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(3, 4, 2), init="zeros"), jax.random.key(0))
    >>> backward_network(forward_network(jnp.ones(3), params, jnp.array([1.0, 2.0]))).db2
    Array([-1., -2.], dtype=float32)
    """
    dyhat = cache.yhat - cache.y
    da1 = jnp.einsum("k,jk->j", dyhat, cache.W2)
    dz1 = da1 * sigmoid_derivative(cache.z1)
    return NetworkGradients(
        dyhat=dyhat,
        dW2=jnp.einsum("k,j->jk", dyhat, cache.a1),
        db2=dyhat,
        da1=da1,
        dz1=dz1,
        dW1=jnp.einsum("j,i->ij", dz1, cache.x),
        db1=dz1,
        dx=jnp.einsum("j,ij->i", dz1, cache.W1),
    )


Edges = Mapping[tuple[str, str], float]
"""A graph without cycles: the derivative of the second node with respect to the first, for every edge."""


def network_edges(cache: NetworkCache) -> dict[tuple[str, str], float]:
    """List the local derivatives of example 2: one for every edge of its graph, from x and W to L.

    The nodes are ``x[1]``, ``W1[1,1]``, ``b1[1]``, ``z1[1]``, ``a1[1]``, ``W2[1,1]``, ``b2[1]``, ``yhat[1]`` and ``L``,
    counted from 1 as on the slide. Source: ``chain-comp-graph-def``, ``chain-ex2-paths``.

    >>> params, _ = mlpjax.init(mlpjax.Config(sizes=(1, 1, 1), head="regression"), jax.random.key(0))
    >>> list(network_edges(forward_network(jnp.ones(1), params, jnp.ones(1))))[:3]
    [('x[1]', 'z1[1]'), ('W1[1,1]', 'z1[1]'), ('b1[1]', 'z1[1]')]
    """
    n0, n1, n2 = (range(1, n + 1) for n in (*cache.W1.shape, cache.W2.shape[1]))
    slope, error = sigmoid_derivative(cache.z1), cache.yhat - cache.y
    edges = {}
    for j in n1:
        for i in n0:
            edges[f"x[{i}]", f"z1[{j}]"] = float(cache.W1[i - 1, j - 1])
            edges[f"W1[{i},{j}]", f"z1[{j}]"] = float(cache.x[i - 1])
        edges[f"b1[{j}]", f"z1[{j}]"] = 1.0
        edges[f"z1[{j}]", f"a1[{j}]"] = float(slope[j - 1])
    for k in n2:
        for j in n1:
            edges[f"a1[{j}]", f"yhat[{k}]"] = float(cache.W2[j - 1, k - 1])
            edges[f"W2[{j},{k}]", f"yhat[{k}]"] = float(cache.a1[j - 1])
        edges[f"b2[{k}]", f"yhat[{k}]"] = 1.0
        edges[f"yhat[{k}]", "L"] = float(error[k - 1])
    return edges


class Path(NamedTuple):
    """A path through a graph: its nodes, and the product of the derivatives along its edges."""

    nodes: tuple[str, ...]
    product: float


def paths_between(edges: Edges, source: str, target: str) -> list[Path]:
    """Enumerate all paths; ∂target/∂source is the sum of their products.

    Their number grows like the product of the widths (`mlpjax.counting.count_paths`): for small graphs only.

    Raises:
        InputError: ``source`` or ``target`` is not a node, or a path runs into a cycle.

    Source: ``chain-ex2-paths``.

    >>> edges = {("x", "u"): 2.0, ("x", "v"): 3.0, ("u", "L"): 5.0, ("v", "L"): 7.0}
    >>> [path.product for path in paths_between(edges, "x", "L")]
    [10.0, 21.0]
    """
    nodes = {node for edge in edges for node in edge}
    for node in (source, target):
        if node not in nodes:
            raise InputError(f"{node!r} is not a node of the graph: expected one of {', '.join(sorted(nodes))}")
    found, open_paths = [], [Path((source,), 1.0)]
    while open_paths:
        path = open_paths.pop(0)
        if path.nodes[-1] == target:
            found.append(path)
            continue
        for (start, end), derivative in edges.items():
            if start == path.nodes[-1]:
                if end in path.nodes:
                    raise InputError(f"the graph has a cycle through {end!r}: expected none, its paths have no end")
                open_paths.append(Path((*path.nodes, end), path.product * derivative))
    return found
