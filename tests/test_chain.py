"""The chain rule, the two worked examples, the paths and the counts."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax import Batch, Config, ConfigError, InputError, Layer
from mlpjax.chain import (
    backward_unit,
    calculus,
    chain_rule,
    curvature,
    forward_unit,
    product_rule,
)
from mlpjax.chain_network import backward_network, forward_network, network_edges, paths_between
from mlpjax.counting import count_edges, count_operations, count_parameters, count_paths


def test_the_chain_rule_of_three_inner_functions():
    # f(x, y, z) = xyz along (t, t², t³): f = t⁶
    slope = chain_rule(
        [lambda x, y, z: y * z, lambda x, y, z: x * z, lambda x, y, z: x * y],
        [lambda t: t, lambda t: t**2, lambda t: t**3],
        [lambda t: 1, lambda t: 2 * t, lambda t: 3 * t**2],
    )
    assert slope(2.0) == 6 * 2**5
    np.testing.assert_array_equal(slope(np.array([0.0, 1.0])), [0, 6])


@pytest.mark.parametrize("counts", [(1, 2, 2), (2, 1, 2), (2, 2, 1), (0, 0, 0)])
def test_the_chain_rule_wants_as_many_of_each(counts):
    with pytest.raises(InputError, match=f"got {counts[0]} partial derivatives, {counts[1]} inner"):
        chain_rule(*([math.sin] * count for count in counts))


def test_the_product_rule():
    slope = product_rule(math.sin, math.cos, math.exp, math.exp)
    assert slope(0.7) == pytest.approx(math.exp(0.7) * (math.sin(0.7) + math.cos(0.7)), rel=1e-15)


def test_the_unit_by_hand(x64):
    cache = forward_unit(2.0, 0.5, -1.0, 1.0)  # z = 0
    grads = backward_unit(cache)
    assert [float(v) for v in (cache.z, cache.yhat, cache.loss)] == [0, 0.5, 0.125]
    assert [float(v) for v in grads] == [-0.5, -0.125, -0.25, -0.125]


def test_the_unit_by_autodiff_and_differences(x64):
    x, w, b, y = np.random.default_rng(0).normal(size=(4, 50))
    grads = backward_unit(forward_unit(x, w, b, y))

    def total(w, b):
        return jnp.sum(forward_unit(x, w, b, y).loss)

    dw, db = jax.grad(total, argnums=(0, 1))(w, b)
    np.testing.assert_allclose(grads.dw, dw, rtol=1e-13)
    np.testing.assert_allclose(grads.db, db, rtol=1e-13)
    h = 1e-6
    up, down = (forward_unit(x, w + step, b, y).loss for step in (h, -h))
    np.testing.assert_allclose(grads.dw, (up - down) / (2 * h), atol=1e-9)
    bent = (backward_unit(forward_unit(x, w + h, b, y)).dw - backward_unit(forward_unit(x, w - h, b, y)).dw) / (2 * h)
    np.testing.assert_allclose(curvature(x, w, b, y), bent, atol=1e-9)


def test_the_lines_of_calculus_class(x64):
    lines = calculus(0.8, -1.4, 0.3, 1.0)
    dw = backward_unit(forward_unit(0.8, -1.4, 0.3, 1.0)).dw
    assert len(lines) == 5
    for line in lines:
        h = 1e-6
        slope = (line.inside(-1.4 + h) - line.inside(-1.4 - h)) / (2 * h)
        np.testing.assert_allclose(line.factor * slope, dw, rtol=1e-8)
    np.testing.assert_allclose(lines[-1].factor, dw, rtol=1e-15)


def test_the_unit_in_float32():
    cache = forward_unit(jnp.float32(100), jnp.float32(10), jnp.float32(0), jnp.float32(0))
    assert cache.loss == 0.5
    assert backward_unit(cache).dw == 0
    assert backward_unit(cache).dw.dtype == np.float32


def network(n0=3, n1=4, n2=2):
    rng = np.random.default_rng(5)
    W1, b1, W2, b2 = (rng.normal(size=shape) for shape in ((n0, n1), n1, (n1, n2), n2))
    return rng.normal(size=n0), (Layer(W1, b1), Layer(W2, b2)), rng.normal(size=n2)


def test_example_2_by_autodiff(x64):
    x, params, y = network()
    cache = forward_network(x, params, y)
    grads = backward_network(cache)
    gradient = jax.jit(jax.grad(lambda x, params: forward_network(x, params, y).loss, argnums=(0, 1)))
    dx, (first, second) = gradient(x, params)
    for got, expected in (
        (grads.dx, dx), (grads.dW1, first.W), (grads.db1, first.b), (grads.dW2, second.W), (grads.db2, second.b),
    ):  # fmt: skip
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_example_2_is_the_network_of_the_package(x64):
    x, params, y = network()
    grads = backward_network(forward_network(x, params, y))
    config, batch = Config(sizes=(3, 4, 2), activation="sigmoid", head="regression"), Batch(x[None], y[None])
    (J, _), theirs = jax.jit(mlpjax.backward)(config, params, (), batch)
    np.testing.assert_allclose(forward_network(x, params, y).loss, J, rtol=1e-14)
    np.testing.assert_allclose(grads.dW1, theirs[0].W, rtol=1e-13)
    dx = jax.jit(mlpjax.input_gradient)(config, params, (), batch)
    np.testing.assert_allclose(grads.dx, dx[0], rtol=1e-13)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda x, params, y: (x[:2], params, y), "x has shape"),
        (lambda x, params, y: (x, params, y[None]), "y has shape"),
        (lambda x, params, y: (x, (params[0], Layer(params[1].W.T, params[1].b)), y), "W2 has shape"),
        (lambda x, params, y: (x, (Layer(params[0].W, params[0].b[:1]), params[1]), y), "b1 has shape"),
        (lambda x, params, y: (x, (params[0], Layer(params[1].W, params[0].b)), y), "b2 has shape"),
        (lambda x, params, y: (x, params[:1], y), "params has 1 layers"),
        (lambda x, params, y: (x, (params[0], Layer(params[1].W)), y), "expected two, each with W"),
        (lambda x, params, y: (x, (params[0], Layer(params[1].W[:, 0], params[1].b)), y), "expected two, each with W"),
    ],
)
def test_example_2_names_the_wrong_shape(change, name):
    with pytest.raises(InputError, match=name):
        forward_network(*change(*network()))


def test_every_derivative_is_a_sum_over_paths(x64):
    cache = forward_network(*network())
    grads, edges = backward_network(cache), network_edges(cache)
    for name, array in (("x", grads.dx), ("W1", grads.dW1), ("b1", grads.db1), ("W2", grads.dW2), ("a1", grads.da1)):
        for index in np.ndindex(array.shape):
            node = f"{name}[{','.join(str(i + 1) for i in index)}]"
            paths = paths_between(edges, node, "L")
            np.testing.assert_allclose(sum(path.product for path in paths), array[index], rtol=1e-12)
            assert all(path.nodes[0] == node and path.nodes[-1] == "L" for path in paths)
    assert len(paths_between(edges, "x[1]", "L")) == count_paths((3, 4, 2)) == 8


def test_paths_of_a_graph():
    edges = {("a", "b"): 2.0, ("b", "c"): 3.0, ("a", "c"): 5.0, ("d", "c"): 7.0}
    assert [p.nodes for p in paths_between(edges, "a", "c")] == [("a", "c"), ("a", "b", "c")]
    assert sum(p.product for p in paths_between(edges, "a", "c")) == 11
    assert paths_between(edges, "a", "d") == []
    with pytest.raises(InputError, match="'e' is not a node of the graph: expected one of a, b, c, d"):
        paths_between(edges, "e", "c")
    with pytest.raises(InputError, match="cycle"):
        paths_between({**edges, ("b", "a"): 1.0}, "a", "c")


def test_counts_of_a_network():
    sizes = (3, 4, 1)
    assert (count_parameters(sizes), count_edges(sizes), count_paths(sizes)) == (21, 16, 4)
    params, _ = mlpjax.init(Config(sizes=(5, 3, 2)), jax.random.key(0))
    assert count_parameters([5, 3, 2]) == sum(leaf.size for leaf in jax.tree.leaves(params))
    for count in (count_parameters, count_edges, count_paths):
        with pytest.raises(ConfigError, match="sizes"):
            count((3,))


def test_counts_of_operations():
    def loop(x, W):
        return jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ W), x)

    counts = count_operations(jax.jit(loop), np.ones((2, 3)), np.ones((3, 3)))
    assert (counts["dot_general"], counts["tanh"], counts["multiplications"]) == (5, 5, 5 * 2 * 3 * 3)
    # contraction over the first axis, a batch of products
    assert (
        count_operations(lambda a, b: jnp.einsum("bki,bkj->bij", a, b), np.ones((7, 5, 2)), np.ones((7, 5, 3)))[
            "multiplications"
        ]
        == 7 * 5 * 2 * 3
    )
