"""Draw the computation graph of logistic regression on one example, with the values and gradients of both passes.

    uv run python experiments/graph_drawing.py

Writes experiments/results/graph_logreg.svg; ``to_dot`` in place of ``to_svg`` gives the same for Graphviz.
"""

from pathlib import Path

from mlpjax.graph import Graph, Variable
from mlpjax.graph_drawing import to_svg
from mlpjax.graph_modules import logistic_regression


def main() -> None:
    """Build the graph, run it forward and backward, and draw it."""
    x, y = Variable([[0.5, -1.2]], "x", constant=True), Variable([[1.0]], "y", constant=True)
    graph = Graph(logistic_regression(x, Variable([[0.8], [0.3]], "W"), Variable([0.1], "b"), y))
    graph.forward()
    graph.backward()
    target = Path(__file__).parent / "results" / "graph_logreg.svg"
    target.write_text(to_svg(graph), encoding="utf-8")
    print(f"wrote {target.name}, {len(graph.functions)} functions")


if __name__ == "__main__":
    main()
