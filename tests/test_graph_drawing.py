"""The drawing of a graph: every node and edge, valid XML, and nothing on top of another."""

import itertools
import time
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax.graph import Function, Graph, Operation, Variable, apply
from mlpjax.graph_drawing import to_dot, to_svg
from mlpjax.graph_layout import layout, nodes_and_edges
from mlpjax.graph_modules import logistic_regression, total, two_layers
from mlpjax.graph_operations import OPERATIONS
from mlpjax.graph_trace import trace_graph

SVG = "{http://www.w3.org/2000/svg}"


def logreg(x="x"):
    x, y = Variable([[0.5, -1.2]], x, constant=True), Variable([[1.0]], "y", constant=True)
    return Graph(logistic_regression(x, Variable([[0.8], [0.3]], "W"), Variable([0.1], "b"), y))


def two_layer(folded=False):
    x, c = Variable(np.ones((5, 2)), "x", constant=True), Variable(np.ones((5, 2)), "c", constant=True)
    layers = [(Variable(np.eye(2), f"W{l}"), Variable(np.zeros(2), f"b{l}")) for l in (1, 2)]
    return Graph(two_layers(x, *layers, c, OPERATIONS["tanh"], folded=folded))


def crossing():
    def f(w):
        u = jnp.tanh(w["a"]) * w["b"] + w["c"]
        return jnp.sum(u * w["a"] / jnp.exp(w["c"]) + jnp.sin(w["a"]) * u)

    return trace_graph(f, {name: jnp.array(1.0) for name in "abc"}).graph


GRAPHS = {"logreg": logreg, "two layers": two_layer, "folded": lambda: two_layer(True), "crossing": crossing,
          "one variable": lambda: Graph(Variable(3.0, "x"))}  # fmt: skip


def run(graph):
    graph.forward()
    graph.backward()
    return graph


@pytest.mark.parametrize("name", GRAPHS)
def test_svg_has_every_node_edge_and_module(name):
    graph = run(GRAPHS[name]())
    nodes, edges = nodes_and_edges(graph)
    svg = ElementTree.fromstring(to_svg(graph))
    assert svg.tag == SVG + "svg"

    def count(tag, kind):
        return sum(element.get("class") == kind for element in svg.iter(SVG + tag))

    functions = sum(isinstance(node, Function) for node in nodes)
    assert count("rect", "function") == functions == len(graph.functions)
    assert count("ellipse", "variable") == len(nodes) - functions
    assert count("path", "edge") == len(edges)
    # one edge for every use of a variable, and one for the output that a function computes
    uses = sum(len(function.inputs) for function in graph.functions)
    assert len(edges) == uses + sum(output.producer is not None for output in graph.outputs)
    assert count("rect", "module") == {"logreg": 1, "two layers": 2}.get(name, 0)


@pytest.mark.parametrize("name", GRAPHS)
def test_dot_has_every_node_and_edge(name):
    graph = run(GRAPHS[name]())
    nodes, edges = nodes_and_edges(graph)
    dot = to_dot(graph)
    assert dot.startswith("digraph {\n")
    assert dot.endswith("}\n")
    assert dot.count("shape=") == len(nodes)
    assert dot.count(" -> ") == len(edges)
    assert dot.count("subgraph cluster_") == {"logreg": 1, "two layers": 2}.get(name, 0)


@pytest.mark.parametrize("name", GRAPHS)
def test_layout_goes_from_left_to_right_and_keeps_apart(name):
    graph = GRAPHS[name]()
    plan = layout(graph)
    for edge, route in zip(plan.edges, plan.routes, strict=True):
        assert (route[0], route[-1]) == (plan.places[edge.source], plan.places[edge.target])
        assert [at for at, _ in route] == list(range(route[0][0], route[-1][0] + 1))
    # bends included: no two nodes, and no node and an edge that passes by, share a place
    taken = sorted({*plan.places.values(), *itertools.chain.from_iterable(plan.routes)})
    for (at, y), (other, below) in itertools.pairwise(taken):
        assert at != other or below - y > 1 - 1e-9
    assert min(y for _, y in taken) == 0


def test_boxes_do_not_overlap_and_stay_inside():
    svg = ElementTree.fromstring(to_svg(run(two_layer())))
    width, height = (float(svg.get(side)) for side in ("width", "height"))
    boxes = []
    for rect in svg.iter(SVG + "rect"):
        if rect.get("class") == "function":
            boxes.append([float(rect.get(name)) for name in ("x", "y", "width", "height")])
    for ellipse in svg.iter(SVG + "ellipse"):
        cx, cy, rx, ry = (float(ellipse.get(name)) for name in ("cx", "cy", "rx", "ry"))
        boxes.append([cx - rx, cy - ry, 2 * rx, 2 * ry])
    for x, y, wide, high in boxes:
        assert min(x, y) >= 0
        assert x + wide <= width
        assert y + high <= height
    for (x, y, wide, high), (u, v, across, down) in itertools.combinations(boxes, 2):
        assert x + wide < u or u + across < x or y + high < v or v + down < y


def test_values_and_gradients_stand_on_the_edges():
    graph = run(logreg())
    texts = ["".join(element.itertext()) for element in ElementTree.fromstring(to_svg(graph)).iter(SVG + "text")]
    z = 0.5 * 0.8 - 1.2 * 0.3 + 0.1
    yhat = 1 / (1 + np.exp(-z))
    for shown in (f"z = {z:.3g}", f"a = {yhat:.3g}", f"l = {-np.log(yhat):.3g}"):
        assert shown in texts
        assert shown in to_dot(graph)
    # ŷ − y on b's edge, and nothing on those of the data
    assert f"{yhat - 1:.3g}".replace("-", "−") in texts
    labels = {edge.variable.name: edge.gradient for edge in nodes_and_edges(graph)[1]}
    assert labels["x"] is None
    assert labels["y"] is None


def test_a_variable_used_twice_shows_what_each_use_returned():
    x = Variable(3.0, "x")
    graph = run(Graph(apply(OPERATIONS["mul"], x, apply(OPERATIONS["exp"], x))))
    shares = [edge.gradient for edge in nodes_and_edges(graph)[1] if edge.variable is x]
    assert sorted(float(share) for share in shares) == [np.exp(3), 3 * np.exp(3)]
    assert sum(shares) == x.grad


def test_a_graph_that_has_not_run_is_drawn_without_numbers():
    graph = logreg()
    texts = ["".join(element.itertext()) for element in ElementTree.fromstring(to_svg(graph)).iter(SVG + "text")]
    assert {"z", "a", "l", "b = 0.1"} <= set(texts)
    assert all(edge.gradient is None for edge in nodes_and_edges(graph)[1])


def test_large_arrays_are_shown_by_shape_and_norm():
    x = Variable(np.full((3, 4), 2.0), "x")
    text = to_svg(run(Graph(total(apply(OPERATIONS["square"], x)))))
    assert "x (3, 4)" in text
    assert f"norm {4 * np.sqrt(12):.3g}" in text


def test_names_are_escaped():
    name = 'a<b & "c"\\\n\x00'
    graph = run(logreg(name))
    texts = ["".join(element.itertext()) for element in ElementTree.fromstring(to_svg(graph)).iter(SVG + "text")]
    assert 'a<b & "c"\\\n\ufffd' in texts
    dot = to_dot(graph)
    assert 'label="a<b & \\"c\\"\\\\\\n\ufffd"' in dot
    odd = Graph(apply(Operation("<&>", np.negative, lambda g, z, x: (-g,)), Variable(1.0)))
    assert "&lt;&amp;&gt;" in to_svg(odd)


def test_a_wide_graph_is_drawn_quickly():
    x = Variable(1.0, "x")
    parts = [apply(OPERATIONS["sin"], apply(OPERATIONS["mul"], x, Variable(float(k)))) for k in range(60)]
    while len(parts) > 1:
        parts.append(apply(OPERATIONS["add"], parts.pop(0), parts.pop(0)))
    started = time.perf_counter()
    ElementTree.fromstring(to_svg(run(Graph(parts[0]))))
    assert time.perf_counter() - started < 5
