"""Checks of the section *Computation graph*: the graphs of one and two layers, run forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.config import Config
from mlpjax.graph import Graph, Operation, Variable, apply
from mlpjax.graph_axes import dot_general
from mlpjax.graph_drawing import to_dot, to_svg
from mlpjax.graph_modules import Layered, logistic_regression, matmul, single_layer, total, two_layers
from mlpjax.graph_operations import CROSS_ENTROPY, OPERATIONS, SQUARED_ERROR
from mlpjax.parameters import Batch, Layer

TANH = OPERATIONS["tanh"]


class _Single(NamedTuple):
    """The lecture's first example in numbers, after both passes."""

    x: np.ndarray
    W: Variable
    c: np.ndarray
    nodes: Layered


def _single() -> _Single:
    rng = np.random.default_rng(0)
    x, c, W = rng.normal(size=(5, 3)), rng.normal(size=(5, 2)), Variable(rng.normal(size=(3, 2)), "W")
    nodes = single_layer(Variable(x, "x", constant=True), W, Variable(c, "c", constant=True), TANH)
    Graph(nodes.l).value_and_gradients()
    return _Single(x, W, c, nodes)


def _loss_in_jax(W: Any, x: Any, c: Any) -> jax.Array:
    return jnp.sum((jnp.tanh(x @ W) - c) ** 2) / 2


def _logreg() -> Graph:
    x, y = Variable([[0.5, -1.2]], "x", constant=True), Variable([[1.0]], "y", constant=True)
    graph = Graph(logistic_regression(x, Variable([[0.8], [0.3]], "W"), Variable([0.1], "b"), y))
    graph.value_and_gradients()
    return graph


def graph_definition() -> tuple[Claim, ...]:
    """In the graph of logistic regression every function connects variables with one variable, its output."""
    graph = _logreg()
    ends = [variable for function in graph.functions for variable in (*function.inputs, function.output)]
    names = [function.operation.name for function in graph.functions]
    return (
        equal("the inputs", sorted(variable.name for variable in graph.inputs), ["W", "b", "x", "y"]),
        equal("the operations", names, ["dot_general", "add", "logistic", CROSS_ENTROPY.name, "sum"]),
        holds("their inputs and outputs are variables", all(isinstance(v, Variable) for v in ends), len(ends)),
        agree("l = −log σ(xW + b)", graph.outputs[0].value, np.log(1 + np.exp(-(0.5 * 0.8 - 1.2 * 0.3 + 0.1)))),
    )


@printed("err-graph-column", lambda x, W: W @ x)
def graph_single_layer(form: Callable[..., Any] = dot_general) -> tuple[Claim, ...]:
    """y = f(xW) with examples as rows; the slide's f(Wx), with columns, has transposed values and gradients."""
    found = _single()
    W = Variable(found.W.value.T, "W")
    column = apply(TANH, matmul(W, Variable(found.x.T)))
    Graph(total(apply(SQUARED_ERROR, column, Variable(found.c.T)))).value_and_gradients()
    return (
        agree("y for W (n_in, n_out)", np.tanh(form(found.x, found.W.value)), found.nodes.yhat.value),
        agree("the slide's y is its transpose", column.value.T, found.nodes.yhat.value),
        agree("so is its gradient", np.asarray(W.grad).T, found.W.grad),
    )


def graph_label_node() -> tuple[Claim, ...]:
    """The label is a variable like the others: another one changes the loss, and no gradient is kept for it."""
    graph = _logreg()
    label = next(variable for variable in graph.inputs if variable.name == "y")
    yhat = next(variable.value for function in graph.functions for variable in function.inputs if variable.name == "a")
    losses = []
    for y in (1.0, 0.0):
        label.value = np.array([[y]])
        losses.append(graph.value_and_gradients()[0])
    return (
        agree("l for y = 1 and y = 0", losses, [-np.log(yhat.item()), -np.log(1 - yhat.item())]),
        holds("the label gets no gradient", label.grad is None, label.grad),
    )


def graph_forward_1() -> Claim:
    """The first step of the forward pass, a = x W, unit by unit."""
    found = _single()
    sums = [[sum(x[j] * found.W.value[j, k] for j in range(3)) for k in range(2)] for x in found.x]
    return agree("a = x W", found.nodes.a.value, sums)


def graph_forward_2() -> Claim:
    """The second step, y = f(a), element by element."""
    found = _single()
    e = np.exp(2 * (found.x @ found.W.value))
    return agree("y = tanh(a)", found.nodes.yhat.value, (e - 1) / (e + 1))


def graph_forward_3() -> tuple[Claim, ...]:
    """The third step, the loss node l(y, c): half squares here, and the cross-entropy of labels."""
    found = _single()
    yhat, y = np.array([0.2, 0.7]), np.array([0.0, 1.0])
    return (
        agree("l = ½ Σ (y − c)²", found.nodes.l.value, _loss_in_jax(found.W.value, found.x, found.c)),
        agree("−log of the label's probability", CROSS_ENTROPY.forward(yhat, y), -np.log([0.8, 0.7])),
    )


def graph_backward_1() -> tuple[Claim, ...]:
    """The first step of the backward pass, ∇_y l: y − c for half squares."""
    found = _single()
    yhat = found.nodes.yhat
    right = jax.jit(jax.grad(lambda y: jnp.sum((y - found.c) ** 2) / 2))(yhat.value)
    return (
        agree("∇_y l against jax.grad", yhat.grad, right),
        agree("y − c", yhat.grad, np.tanh(found.x @ found.W.value) - found.c),
    )


def graph_backward_2() -> tuple[Claim, ...]:
    """The second step, ∇_a l = ∇_y l ⊙ f′(a)."""
    found = _single()
    a, yhat = found.nodes.a, found.nodes.yhat
    right = jax.jit(jax.grad(lambda a: jnp.sum((jnp.tanh(a) - found.c) ** 2) / 2))(a.value)
    return (
        agree("∇_a l against jax.grad", a.grad, right),
        agree("∇_y l ⊙ f′(a)", a.grad, np.asarray(yhat.grad) * mlpjax.ACTIVATIONS["tanh"].df(jnp.asarray(a.value))),
    )


def graph_backward_3() -> tuple[Claim, ...]:
    """The third step, ∇_W l = xᵀ ∇_a l in rows, which is (∇_a l) xᵀ in columns."""
    found = _single()
    right = jax.jit(jax.grad(_loss_in_jax))(found.W.value, found.x, found.c)
    return (
        agree("∇_W l against jax.grad", found.W.grad, right),
        agree("xᵀ ∇_a l", found.W.grad, np.einsum("ij,ik->jk", found.x, np.asarray(found.nodes.a.grad))),
    )


def graph_two_layer() -> tuple[Claim, ...]:
    """The same two passes on two layers give the gradients of `mlpjax.backward` (ReLU in both, half squares)."""
    relu = Operation("relu", lambda z: np.maximum(z, 0), lambda g, a, z: (g * (z > 0),))
    config, rng = Config(sizes=(3, 4, 2), activation="relu", head="regression_relu"), np.random.default_rng(7)
    params = tuple(Layer(*(jnp.asarray(rng.normal(size=n)) for n in (shape, shape[1]))) for shape in ((3, 4), (4, 2)))
    batch = Batch(rng.normal(size=(9, 3)), rng.uniform(size=(9, 2)))
    one, two = ((Variable(layer.W, f"W{l}"), Variable(layer.b, f"b{l}")) for l, layer in enumerate(params, 1))
    x, c = (Variable(value, constant=True) for value in batch[:2])
    l, gradients = Graph(two_layers(x, one, two, c, relu)).value_and_gradients()
    (J, _), grads = jax.jit(mlpjax.backward)(config, params, (), batch)
    m = len(batch.x)
    return (
        agree("the loss", l / m, J),
        *(agree(f"dW[{l}]", gradients[f"W{l}"] / m, layer.W) for l, layer in enumerate(grads, 1)),
        *(agree(f"db[{l}]", gradients[f"b{l}"] / m, layer.b) for l, layer in enumerate(grads, 1)),
    )


def graph_draw() -> tuple[Claim, ...]:
    """The drawing has every variable, function, edge and module, with values and gradients on the edges."""
    graph = _logreg()
    svg, dot = to_svg(graph), to_dot(graph)
    kinds = [element.get("class") for element in ElementTree.fromstring(svg).iter()]
    yhat = 1 / (1 + np.exp(-0.14))
    shown = [f"a = {yhat:.3g}", f"−{1 / yhat:.3g}"]
    return (
        equal(
            "functions, variables, edges, modules",
            [kinds.count(k) for k in ("function", "variable", "edge", "module")],
            [5, 5, 9, 1],
        ),
        equal("the same in DOT", [dot.count(k) for k in ("box", "ellipse", "->", "cluster")], [5, 5, 9, 1]),
        holds("ŷ and ∂l/∂ŷ stand on an edge", all(text in svg and text in dot for text in shown), " and ".join(shown)),
    )
