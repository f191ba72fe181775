"""What a gradient check found: a report, per leaf its worst element, the oracle that says so, and a verdict."""

from __future__ import annotations

import dataclasses
import io
import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from mlpjax.files import json_text

if TYPE_CHECKING:
    from mlpjax.cases import Case
    from mlpjax.diagnosis import Explanation

VERDICTS = {
    "agrees": "the gradient is the derivative of f",
    "kink": "at a kink of f: between the one-sided derivatives, or what both autodiff modes say where kinks meet",
    "autodiff": "the gradient agrees with differences of f, autodiff does not: stop_gradient or a rule of its own in f",
    "modes": "forward and reverse mode disagree with each other: a derivative rule in f is wrong",
    "rule": "hand and both autodiff modes agree, differences of f do not: a derivative rule in f is not its derivative",
    "wrong": "the gradient is not the derivative of f",
    "not finite": "a value that is not finite",
}
"""Every verdict on a leaf, from harmless to grave; the first two are right."""
RIGHT = ("agrees", "kink")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One oracle on one leaf: how many elements (or projections) it looked at, and the largest error found.

    ``error`` is relative to the leaf's scale, its largest element.
    """

    oracle: str
    compared: int
    error: float


@dataclasses.dataclass(frozen=True)
class LeafReport:
    """What was found about one leaf.

    ``index`` is its worst element (``None``: a projection of the whole leaf), where the hand-derived gradient is
    ``got`` and ``oracle`` says ``expected``; ``relative`` is their difference over the leaf's scale, its largest
    element, ``ulp`` over the spacing of floats at ``expected``, and ``tolerance`` what was allowed, also over the
    scale. ``wrong`` of ``size`` elements are beyond it.
    """

    path: str
    shape: tuple[int, ...]
    verdict: str
    oracle: str
    index: tuple[int, ...] | None
    expected: float
    got: float
    relative: float
    ulp: float
    tolerance: float
    wrong: int
    comparisons: tuple[Comparison, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def ok(self) -> bool:
        """Whether the verdict is a harmless one."""
        return self.verdict in RIGHT


class Evidence(NamedTuple):
    """What a diagnosis starts from: functions and arguments, the gradient that was given and the right one.

    ``paths`` and ``shapes`` name the leaves; ``hand`` and ``truth`` are their arrays in float64, of the first
    cotangent; ``leaves`` are the parameters' values.
    """

    f: Any
    args: tuple[Any, ...]
    paths: tuple[str, ...]
    leaves: tuple[Any, ...]
    hand: tuple[Any, ...]
    truth: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """The result of `mlpjax.check_gradients`.

    ``problems`` are what is wrong beside the leaves (a value that is not f's, a function that is not
    deterministic), ``notes`` what should be known (an oracle that could not be asked), ``environment`` the dtype,
    device, matmul precision, seed and versions.
    """

    leaves: tuple[LeafReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    environment: dict[str, Any]
    evidence: Evidence | None = dataclasses.field(repr=False, compare=False, default=None)

    @property
    def ok(self) -> bool:
        """Whether every leaf is right and there is no other problem."""
        return not self.problems and all(leaf.ok for leaf in self.leaves)

    def table(self, color: bool | None = None) -> str:
        """The leaves as an aligned table; coloured if ``color``, by default where stdout is a terminal."""
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for name in ("leaf", "shape", "worst element", "expected", "got", "rel. error", "ULP", "oracle", "verdict"):
            numeric = name in ("expected", "got", "rel. error", "ULP")
            table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
        for leaf in self.leaves:
            style = "green" if leaf.verdict == "agrees" else "yellow" if leaf.ok else "bold red"
            where = "projection" if leaf.index is None else str(list(leaf.index)) if leaf.shape else ""
            table.add_row(
                leaf.path, "×".join(map(str, leaf.shape)) or "scalar", where,
                f"{leaf.expected:.9g}", f"{leaf.got:.9g}", f"{leaf.relative:.1e}", f"{leaf.ulp:.3g}", leaf.oracle,
                leaf.verdict if leaf.ok else f"{leaf.verdict}: {leaf.wrong} of {leaf.size}",
                style=style,
            )  # fmt: skip
        color = sys.stdout.isatty() if color is None else color
        out = io.StringIO()
        console = Console(
            file=out, width=220, force_terminal=color, no_color=not color, markup=False, emoji=False, highlight=False,
            color_system="standard" if color else None,
        )  # fmt: skip
        console.print(table)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def diagnose(self, case: Case | None = None) -> list[Explanation]:
        """The mistakes that most likely explain a wrong gradient, the best explanation first.

        ``case`` is the network that the gradient is of; where f is `mlpjax.loss`, that is found without it. For other
        functions the explanations are simple relations to the right gradient. See `mlpjax.diagnosis.diagnose`.
        """
        from mlpjax.diagnosis import diagnose

        wrong = any(leaf.verdict in ("wrong", "not finite") for leaf in self.leaves)
        return diagnose(self.evidence, case) if wrong and self.evidence is not None else []

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        leaves = [{**dataclasses.asdict(leaf), "ok": leaf.ok} for leaf in self.leaves]
        return {
            "ok": self.ok,
            "leaves": leaves,
            "problems": list(self.problems),
            "notes": list(self.notes),
            "environment": self.environment,
        }

    def to_json(self) -> str:
        """The report as a JSON text; a number that is not finite is null."""
        return json_text(self.to_dict())

    def __str__(self) -> str:
        """The whole finding, as a failing test shows it with ``assert report.ok, str(report)``."""
        bad = [leaf for leaf in self.leaves if not leaf.ok]
        elements = sum(leaf.size for leaf in self.leaves)
        if self.ok:
            head = f"the gradient is right: {len(self.leaves)} leaves, {elements:,} elements"
        elif any(leaf.verdict in ("wrong", "not finite") for leaf in bad):
            head = f"the gradient is wrong in {len(bad)} of {len(self.leaves)} leaves"
        elif bad:
            head = f"the derivatives of f contradict each other in {len(bad)} of {len(self.leaves)} leaves"
        else:
            head = "the gradient cannot be trusted"
        lines = [f"{head}, {self.environment['dtype']}"]
        lines += [f"- {problem}" for problem in self.problems]
        lines += [f"- {leaf.path}: {leaf.verdict}: {VERDICTS[leaf.verdict]}" for leaf in bad]
        if self.leaves:
            lines.append(self.table())
        return "\n".join(lines + [f"note: {note}" for note in self.notes])
