"""Where the nodes of a computation graph stand in a drawing: in layers from left to right (Sugiyama et al. 1981).

A function stands one layer after the last function that it takes values from, a variable just before its first use.
An edge over several layers gets a bend in each. The order in a layer is that of the neighbours' mean place, which
leaves few crossings, and the heights are as near to the neighbours' as the distances allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlpjax.graph import Function, Graph, Variable

_SWEEPS = 8
_LIGHT = 1e-6
"""The weight of a variable's wish for its height; that of a function is 1."""

Node = Function | Variable
_Place = tuple[Any, ...]  # (node,), or (edge number, layer) for a bend


class Edge(NamedTuple):
    """An arrow of the drawing: the variable that passes, and the gradient that comes back along it.

    ``gradient`` is what the target returned to this use of the variable: ``None`` before a backward pass, and for a
    constant.
    """

    source: Node
    target: Node
    variable: Variable
    gradient: Any


class Layout(NamedTuple):
    """The drawn nodes with layer and height (in distances), the edges, and the points each edge passes."""

    places: dict[Node, tuple[int, float]]
    edges: list[Edge]
    routes: list[list[tuple[int, float]]]


def nodes_and_edges(graph: Graph) -> tuple[list[Node], list[Edge]]:
    """List what a drawing shows: inputs, functions and outputs as nodes; every use of a variable as an edge.

    A variable between two functions is the edge between them. Source: ``graph-draw``.

    >>> from mlpjax.graph_modules import total
    >>> nodes, edges = nodes_and_edges(Graph(total(Variable([1.0, 2.0], "x"), "l")))
    >>> len(nodes), [edge.variable.name for edge in edges]
    (3, ['x', 'l'])
    """
    nodes: list[Node] = [*graph.inputs, *graph.functions]
    edges = [
        Edge(variable.producer or variable, function, variable, None if variable.constant else gradient)
        for function in graph.functions
        for variable, gradient in itertools.zip_longest(function.inputs, function.gradients)
    ]
    for output in dict.fromkeys(graph.outputs):
        if output.producer is not None:
            nodes.append(output)
            edges.append(Edge(output.producer, output, output, output.grad))
    return nodes, edges


def layout(graph: Graph) -> Layout:
    """Place the nodes; neighbours in a layer are at least a distance of 1 apart.

    >>> from mlpjax.graph_modules import total
    >>> x = Variable([1.0, 2.0], "x")
    >>> layout(Graph(total(x))).places[x]
    (0, 0.0)
    """
    nodes, edges = nodes_and_edges(graph)
    layer = _layers(nodes, edges)
    routes: list[list[_Place]] = []
    columns: list[list[_Place]] = [[] for _ in range(max(layer.values()) + 1)]
    for node in nodes:
        columns[layer[node]].append((node,))
    for number, edge in enumerate(edges):
        bends: list[_Place] = [(number, at) for at in range(layer[edge.source] + 1, layer[edge.target])]
        for bend in bends:
            columns[bend[1]].append(bend)
        routes.append([(edge.source,), *bends, (edge.target,)])
    before: dict[_Place, list[_Place]] = {place: [] for column in columns for place in column}
    after: dict[_Place, list[_Place]] = {place: [] for column in columns for place in column}
    for a, b in itertools.chain.from_iterable(map(itertools.pairwise, routes)):
        after[a].append(b)
        before[b].append(a)
    columns = _ordered(columns, before, after)
    heights = _heights(columns, before, after)
    at = {place: (column, heights[place]) for column, places in enumerate(columns) for place in places}
    return Layout({node: at[node,] for node in nodes}, edges, [[at[place] for place in route] for route in routes])


def _layers(nodes: Sequence[Node], edges: Sequence[Edge]) -> dict[Node, int]:
    layer: dict[Node, int] = {}
    for node in nodes:  # functions come in topological order
        if isinstance(node, Function):
            layer[node] = 1 + max((layer[v.producer] for v in node.inputs if v.producer is not None), default=0)
    for edge in edges:
        if isinstance(edge.source, Variable):
            layer[edge.source] = min(layer.get(edge.source, layer[edge.target]), layer[edge.target] - 1)
        if isinstance(edge.target, Variable):
            layer[edge.target] = layer[edge.source] + 1
    for node in nodes:
        layer.setdefault(node, 0)  # an input that is an output
    return layer


def _ordered(
    columns: list[list[_Place]], before: dict[_Place, list[_Place]], after: dict[_Place, list[_Place]]
) -> list[list[_Place]]:
    """Sort every layer by the mean rank of the neighbours, forward and back in turn; the best order found."""
    best, fewest = columns, _crossings(columns, after)
    for sweep in range(_SWEEPS):
        columns = [list(column) for column in columns]
        rank = {place: position for column in columns for position, place in enumerate(column)}
        forward = sweep % 2 == 0
        neighbours = before if forward else after
        for column in columns if forward else reversed(columns):
            mean = {p: np.mean([rank[q] for q in neighbours[p]]) if neighbours[p] else rank[p] for p in column}
            column.sort(key=mean.__getitem__)
            rank.update((place, position) for position, place in enumerate(column))
        crossings = _crossings(columns, after)
        if crossings < fewest:
            best, fewest = columns, crossings
    return best


def _crossings(columns: list[list[_Place]], after: dict[_Place, list[_Place]]) -> int:
    count = 0
    for left, right in itertools.pairwise(columns):
        rank = {place: position for position, place in enumerate(right)}
        ends = np.array([rank[q] for place in left for q in sorted(after[place], key=rank.__getitem__)])
        count += sum(int(np.sum(ends[:i] > end)) for i, end in enumerate(ends))
    return count


def _heights(
    columns: list[list[_Place]], before: dict[_Place, list[_Place]], after: dict[_Place, list[_Place]]
) -> dict[_Place, float]:
    height = {place: float(position) for column in columns for position, place in enumerate(column)}
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 1  # the last time: a chain becomes a straight line
        for column in columns if forward else reversed(columns):
            wishes, weights = [], []
            for place in column:
                near = (before[place] or after[place]) if forward else (after[place] or before[place])
                # the line of functions decides, variables stand aside
                near = [q for q in near if not isinstance(q[0], Variable)] or near
                wishes.append(float(np.mean([height[q] for q in near])) if near else height[place])
                weights.append(_LIGHT if isinstance(place[0], Variable) else 1.0)
            height.update(zip(column, _apart(wishes, weights), strict=True))
    lowest = min(height.values())
    return {place: float(value - lowest) for place, value in height.items()}


def _apart(wishes: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The heights nearest to the wishes, least squares, that keep the order and a distance of 1 (pooled violators)."""
    blocks: list[list[float]] = []  # mean, weight, count
    for position, (wish, weight) in enumerate(zip(wishes, weights, strict=True)):
        blocks.append([wish - position, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, own, count = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * own) / (last[1] + own)
            last[1] += own
            last[2] += count
    flat = [block[0] for block in blocks for _ in range(int(block[2]))]
    return [value + position for position, value in enumerate(flat)]
