"""Layers as modules of a computation graph, and the graphs that the lecture draws.

A `Module` groups function nodes under one name. Folded, it is one node of the graph, whose forward and backward run
the nodes inside; unfolded, its nodes stand in the graph and the drawing frames them. Both give the same values.

Rows are examples: ``x (m, n_in)``, ``W (n_in, n_out)``, ``b (n_out,)``. Source: lecture, section *Computation graph*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlpjax.graph import Graph, Operation, Variable, apply
from mlpjax.graph_operations import CROSS_ENTROPY, OPERATIONS, SQUARED_ERROR


class Module(NamedTuple):
    """A part of a graph under one name: ``build(x, W, …)`` adds its nodes to variables and returns the output.

    Source: ``graph-module``.

    >>> layer = dense(OPERATIONS["tanh"])
    >>> inputs = Variable([[3.0, 4.0]], "x"), Variable([[1.0], [2.0]], "W"), Variable([0.5], "b")
    >>> folded, unfolded = Graph(layer.folded(*inputs)), Graph(layer.unfolded(*inputs))
    >>> [[function.operation.name for function in graph.functions] for graph in (folded, unfolded)]
    [['dense'], ['dot_general', 'add', 'tanh']]
    >>> folded.forward() == unfolded.forward()
    array([[ True]])
    """

    name: str
    build: Callable[..., Variable]

    def folded(self, *inputs: Variable) -> Variable:
        """Add the module as one node. Its backward pass runs the inside forward again: the node stores z alone."""
        return apply(Operation(self.name, self._forward, self._vjp), *inputs)

    def unfolded(self, *inputs: Variable) -> Variable:
        """Add the nodes of the module, marked as its group."""
        output = self.build(*inputs)
        seen, stack = {*inputs}, [output]
        while stack:
            variable = stack.pop()
            if variable not in seen and variable.producer is not None:
                # those of a module inside are marked already
                variable.producer.group = variable.producer.group or (self.name, output)
                stack.extend(variable.producer.inputs)
            seen.add(variable)
        return output

    def _run(self, values: tuple[Any, ...]) -> tuple[list[Variable], Graph]:
        inside = [Variable(value) for value in values]
        graph = Graph(self.build(*inside))
        graph.forward()
        return inside, graph

    def _forward(self, *values: Any) -> Any:
        return self._run(values)[1].outputs[0].value

    def _vjp(self, g: Any, z: Any, *values: Any) -> tuple[Any, ...]:
        inside, graph = self._run(values)
        graph.backward(g)
        return tuple(variable.grad for variable in inside)


def matmul(x: Variable, W: Variable, name: str = "") -> Variable:
    """Add the node X W. Source: ``graph-forward-1``.

    >>> Graph(matmul(Variable([[1.0, 2.0]]), Variable([[3.0], [4.0]]))).forward()
    array([[11.]])
    """
    return apply(OPERATIONS["dot_general"], x, W, name=name)


def total(x: Variable, name: str = "") -> Variable:
    """Add the node that sums every element to a scalar.

    >>> Graph(total(Variable([[1.0, 2.0]]))).forward()
    array(3.)
    """
    return apply(Operation("sum", lambda x: x.sum(), lambda g, z, x: (np.broadcast_to(g, x.shape),)), x, name=name)


def dense(activation: Operation, name: str = "dense") -> Module:
    """Make the module of a layer, A = g(X W + b), of three nodes; its inputs are x, W and b. Source: ``graph-module``.

    >>> identity = Operation("identity", lambda z: z, lambda g, a, z: (g,))
    >>> inputs = Variable([[1.0, 2.0]]), Variable([[3.0], [4.0]]), Variable([5.0])
    >>> Graph(dense(identity).folded(*inputs)).forward()
    array([[16.]])
    """
    return Module(
        name, lambda x, W, b: apply(activation, apply(OPERATIONS["add"], matmul(x, W), b, name="z"), name="a")
    )


class Layered(NamedTuple):
    """The variables of a graph with a loss on top: pre-activation a, output ŷ (the lecture's y⁽¹⁾), loss l."""

    a: Variable
    yhat: Variable
    l: Variable


def single_layer(x: Variable, W: Variable, label: Variable, activation: Operation) -> Layered:
    """Build the lecture's first example, ŷ = f(x W) with the loss node ½(ŷ − c)² summed on top; no bias.

    Rows are examples here, ``x (m, n_in)``, ``W (n_in, n_out)``; the slide has columns, W x (``err-graph-column``).
    Source: ``graph-single-layer``, ``graph-label-node``, ``graph-forward-2``, ``graph-forward-3``,
    ``graph-backward-2``.

    >>> x, W, c = Variable([[1.0, 2.0]], "x"), Variable([[0.0], [0.0]], "W"), Variable([[1.0]], "c", constant=True)
    >>> Graph(single_layer(x, W, c, OPERATIONS["tanh"]).l).value_and_gradients()[1]["W"].T
    array([[-1., -2.]])
    """
    a = matmul(x, W, "a")
    yhat = apply(activation, a, name="ŷ")
    return Layered(a, yhat, total(apply(SQUARED_ERROR, yhat, label), "l"))


def two_layers(
    x: Variable,
    first: tuple[Variable, Variable],
    second: tuple[Variable, Variable],
    label: Variable,
    activation: Operation,
    *,
    folded: bool = False,
) -> Variable:
    """Build a network of two dense layers ``(W, b)`` with the same activation and half squares as loss; returns l.

    Source: ``graph-two-layer``, ``graph-module``.

    >>> x, c = Variable([[1.0]], "x"), Variable([[1.0]], "c", constant=True)
    >>> layers = [(Variable([[1.0]], f"W{l}"), Variable([0.0], f"b{l}")) for l in (1, 2)]
    >>> [len(Graph(two_layers(x, *layers, c, OPERATIONS["tanh"], folded=folded)).functions) for folded in (False, True)]
    [8, 4]
    """
    modules = [dense(activation, f"layer {l}") for l in (1, 2)]
    one, two = (module.folded if folded else module.unfolded for module in modules)
    yhat = two(one(x, *first), *second)
    return total(apply(SQUARED_ERROR, yhat, label), "l")


def logistic_regression(x: Variable, W: Variable, b: Variable, y: Variable) -> Variable:
    """Build x → x W + b → σ → −y log ŷ − (1 − y) log(1 − ŷ), summed over the examples; returns l.

    ``x (m, n)``, ``W (n, 1)``, ``b (1,)``, ``y (m, 1)``. Source: ``graph-definition``, ``fw-list``.

    >>> inputs = Variable([[1.0, 2.0]], "x"), Variable([[0.0], [0.0]], "W"), Variable([0.0], "b")
    >>> l, gradients = Graph(logistic_regression(*inputs, Variable([[1.0]], "y", constant=True))).value_and_gradients()
    >>> round(float(l), 4), gradients["b"]  # log 2, and ŷ − y
    (0.6931, array([-0.5]))
    """
    yhat = dense(OPERATIONS["logistic"], "logistic unit").unfolded(x, W, b)
    return total(apply(CROSS_ENTROPY, yhat, y), "l")
