"""A computation graph as a picture: SVG that stands alone, and DOT for Graphviz.

Variables are ellipses (data and labels dashed), functions boxes, modules frames around them. An arrow carries the
value that passes forward, in blue, and the gradient that comes back along it, in red, once both passes have run.

    from mlpjax.graph_drawing import to_svg
    Path("graph.svg").write_text(to_svg(graph), encoding="utf-8")

Source: lecture, section *Computation graph*, whose pictures are lost (``err-images-lost``).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from xml.sax.saxutils import escape

import numpy as np

from mlpjax.graph import Function, Graph, Variable
from mlpjax.graph_layout import Edge, Layout, Node, layout, nodes_and_edges

SYMBOLS = {"dot_general": "·", "add": "+", "sub": "−", "mul": "×", "div": "÷", "neg": "−", "logistic": "σ",
           "reduce_sum": "Σ", "sum": "Σ", "sqrt": "√", "square": "x²"}  # fmt: skip
"""How an operation is written in a drawing, where it has a sign of its own."""

_MOST = 4
"""An array of more elements is shown by its shape, and its gradient by its norm."""
_FONT, _CHARACTER, _LINE = 13, 7.4, 16  # px
_ROW, _NODE_HEIGHT, _MARGIN, _FRAME = 78, 32, 40, 16  # px
_VALUE, _GRADIENT, _INK = "#1f4e8c", "#b3261e", "#333333"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_svg(graph: Graph) -> str:
    """Draw a graph as SVG, from left to right; the text of names is escaped.

    Source: ``graph-draw``.

    >>> from mlpjax.graph_modules import total
    >>> to_svg(Graph(total(Variable([1.0, 2.0], "x < 3"))))[:4]
    '<svg'
    """
    plan = layout(graph)
    left, right, width = _columns(plan)
    middle = {node: (left[at] + right[at]) / 2 for node, (at, _) in plan.places.items()}
    height = max(y for route in [*plan.routes, plan.places.values()] for _, y in route) * _ROW

    def point(at: int, y: float, side: str) -> tuple[float, float]:
        return {"left": left, "right": right}[side][at], _MARGIN + y * _ROW

    uses = Counter(edge.source for edge in plan.edges)
    frames, arrows, labels = [], [], []
    for (name, _), members in _groups(graph).items():
        xs = [middle[node] + sign * _width(node) / 2 for node in members for sign in (-1, 1)]
        ys = [point(*plan.places[node], "left")[1] for node in members]
        x, y = min(xs) - _FRAME, min(ys) - _NODE_HEIGHT / 2 - _FRAME
        wide, high = max(xs) + _FRAME - x, max(ys) - min(ys) + _NODE_HEIGHT + 2 * _FRAME + _LINE / 2
        frames.append(
            f'<rect class="module" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="10" '
            f'fill="#f3f1ea" stroke="#a49c83" stroke-dasharray="5 4"/>'
        )
        labels.append(_text(x + wide / 2, y + high - 6, name, "#7a7259"))
    for edge, route in zip(plan.edges, plan.routes, strict=True):
        stops = [(middle[edge.source] + _width(edge.source) / 2, point(*route[0], "right")[1])]
        for bend in route[1:-1]:
            stops += [point(*bend, "left"), point(*bend, "right")]
        stops.append((middle[edge.target] - _width(edge.target) / 2, point(*route[-1], "left")[1]))
        path = "".join(_curve(a, b) for a, b in itertools.pairwise(stops))
        start = f"M{stops[0][0]:.1f} {stops[0][1]:.1f}"
        arrows.append(f'<path class="edge" d="{start}{path}" fill="none" stroke="{_INK}" marker-end="url(#arrow)"/>')
        # between the columns, where the curves of one source, or to one target, are apart
        x, y = _on_curve(stops[0], stops[1], 0.7 if uses[edge.source] > 1 else 0.4)
        value, gradient = _labels(edge)
        labels.append(_text(x, y - 5, value, _VALUE) + _text(x, y + _LINE - 2, gradient, _GRADIENT))
    boxes = [_box(node, middle[node], point(*plan.places[node], "left")[1]) for node in plan.places]
    height += 2 * _MARGIN + _NODE_HEIGHT
    legend = _text(_MARGIN, height - 12, "on the arrows: value", _VALUE, "start") + _text(
        _MARGIN + 21 * _CHARACTER, height - 12, "gradient", _GRADIENT, "start"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" font-family="DejaVu Sans, Verdana, sans-serif" font-size="{_FONT}" role="img">',
            "<title>Computation graph</title>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{_INK}"/></marker></defs>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
            *frames,
            *arrows,
            *boxes,
            *labels,
            legend,
            "</svg>\n",
        ]
    )


def to_dot(graph: Graph) -> str:
    """Describe a graph in Graphviz's language, with the same nodes, edges, frames and labels as `to_svg`.

    Source: ``graph-draw``.

    >>> from mlpjax.graph_modules import total
    >>> print(to_dot(Graph(total(Variable([1.0, 2.0], "x"), "l"))))
    digraph {
      rankdir=LR;
      n0 [label="x", shape=ellipse];
      n1 [label="Σ", shape=box];
      n2 [label="l", shape=ellipse];
      n0 -> n1 [label="x = [1, 2]"];
      n1 -> n2 [label="l"];
    }
    <BLANKLINE>
    """
    nodes, edges = nodes_and_edges(graph)
    names = {node: f"n{number}" for number, node in enumerate(nodes)}
    lines = ["digraph {", "  rankdir=LR;"]
    for node in nodes:
        shape = "box" if isinstance(node, Function) else "ellipse"
        dashed = ", style=dashed" if isinstance(node, Variable) and node.constant else ""
        lines.append(f"  {names[node]} [label={_quoted(_title(node))}, shape={shape}{dashed}];")
    for number, (group, members) in enumerate(_groups(graph).items()):
        inside = " ".join(f"{names[node]};" for node in members)
        lines.append(f"  subgraph cluster_{number} {{ label={_quoted(group[0])}; style=dashed; {inside} }}")
    for edge in edges:
        text = "\n".join(label for label in _labels(edge) if label)
        lines.append(f"  {names[edge.source]} -> {names[edge.target]} [label={_quoted(text)}];")
    return "\n".join([*lines, "}", ""])


def _groups(graph: Graph) -> dict[tuple[str, Variable], list[Function]]:
    groups: dict[tuple[str, Variable], list[Function]] = {}
    for function in graph.functions:
        if function.group is not None:
            groups.setdefault(function.group, []).append(function)
    return groups


def _title(node: Node) -> str:
    if isinstance(node, Function):
        return SYMBOLS.get(node.operation.name, node.operation.name)
    return node.name or ("output" if node.producer else "constant" if node.constant else "variable")


def _labels(edge: Edge) -> tuple[str, str]:
    """The value and the gradient on an edge, or what there is of them."""
    value, name = edge.variable.value, edge.variable.name
    amount = "" if value is None else _amount(value) if value.size <= _MOST else str(value.shape)
    text = f"{name} = {amount}" if name and amount and value.size <= _MOST else f"{name} {amount}".strip()
    if edge.gradient is None:
        return text, ""
    gradient = np.asarray(edge.gradient)
    return text, _amount(gradient) if gradient.size <= _MOST else f"norm {np.linalg.norm(gradient):.3g}"


def _amount(array: np.ndarray) -> str:
    if array.size == 1:
        return f"{array.item():.3g}".replace("-", "−")
    return f"[{', '.join(_amount(part) for part in np.squeeze(array))}]"


def _width(node: Node) -> float:
    return max(_NODE_HEIGHT, len(_title(node)) * _CHARACTER + 18)


def _columns(plan: Layout) -> tuple[list[float], list[float], float]:
    """The left and right end of every layer, with room between two for the labels there, and the whole width."""
    count = max(at for at, _ in plan.places.values()) + 1
    widths, gaps = [0.0] * count, [60.0] * count
    for node, (at, _) in plan.places.items():
        widths[at] = max(widths[at], _width(node))
    for edge, route in zip(plan.edges, plan.routes, strict=True):
        at = route[0][0]
        gaps[at] = max(gaps[at], max(map(len, _labels(edge))) * _CHARACTER + 40)
    left, right, x = [], [], float(_MARGIN)
    for width, gap in zip(widths, gaps, strict=True):
        left.append(x)
        right.append(x + width)
        x += width + gap
    return left, right, right[-1] + _MARGIN


def _box(node: Node, x: float, y: float) -> str:
    wide = _width(node)
    if isinstance(node, Function):
        shape = (
            f'<rect class="function" x="{x - wide / 2:.1f}" y="{y - _NODE_HEIGHT / 2:.1f}" width="{wide:.1f}" '
            f'height="{_NODE_HEIGHT}" rx="5" fill="#e3ecf7" stroke="{_INK}"/>'
        )
    else:
        dashed = ' stroke-dasharray="3 2"' if node.constant else ""
        shape = (
            f'<ellipse class="variable" cx="{x:.1f}" cy="{y:.1f}" rx="{wide / 2:.1f}" ry="{_NODE_HEIGHT / 2}" '
            f'fill="white" stroke="{_INK}"{dashed}/>'
        )
    title = escape(_NOT_XML.sub("\ufffd", _title(node)))
    return f'{shape}<text x="{x:.1f}" y="{y + _FONT / 3:.1f}" fill="{_INK}" text-anchor="middle">{title}</text>'


def _text(x: float, y: float, text: str, colour: str, anchor: str = "middle") -> str:
    """Text with a white rim, readable over a line."""
    if not text:
        return ""
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    rim = ' stroke="white" stroke-width="4" stroke-linejoin="round"'
    clean = escape(_NOT_XML.sub("\ufffd", text))
    return f'<text {at} fill="white"{rim} aria-hidden="true">{clean}</text><text {at} fill="{colour}">{clean}</text>'


def _controls(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, ...]:
    bend = (b[0] - a[0]) / 2
    return a[0] + bend, a[1], b[0] - bend, b[1]


def _curve(a: tuple[float, float], b: tuple[float, float]) -> str:
    return "C" + " ".join(f"{value:.1f}" for value in (*_controls(a, b), *b))


def _on_curve(a: tuple[float, float], b: tuple[float, float], t: float) -> np.ndarray:
    c, d = np.reshape(_controls(a, b), (2, 2))
    s = 1 - t
    return s**3 * np.array(a) + 3 * s * s * t * c + 3 * s * t * t * d + t**3 * np.array(b)


def _quoted(text: str) -> str:
    """A string of the DOT language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\0", "\ufffd")
    return f'"{escaped}"'
