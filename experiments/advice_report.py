"""What a claim is, and the rule by which its verdict follows from the numbers."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

WINS = 0.8
"""The share of the seeds in which one side has to be better than the other."""
RELEVANT = 0.05
"""The difference of the medians that counts, as a share of the larger."""
VERDICTS = ("confirmed", "depends", "not confirmed")


class Side(NamedTuple):
    """One side of a comparison: what it is, and its number for each seed."""

    label: str
    values: np.ndarray


class Case(NamedTuple):
    """One comparison: what the lecture advises against something else, paired by seeds.

    ``no_worse``: the lecture says only that the advised side does not lose.
    """

    name: str
    measure: str
    advised: Side
    other: Side
    higher: bool = False
    no_worse: bool = False


class Claim(NamedTuple):
    """A sentence of the lecture, the ids of its rows, the set-up, and the function of ``seeds`` that measures it."""

    ids: tuple[str, ...]
    says: str
    setup: str
    seeds: int
    run: Callable[[int], list[Case]]


CLAIMS: dict[str, Claim] = {}
"""Every claim by name, as `claim` fills it."""


def claim(*ids: str, seeds: int) -> Callable[[Callable[[int], list[Case]]], Callable[[int], list[Case]]]:
    """Enter a function into `CLAIMS`: its docstring says what the lecture claims, and then the set-up."""

    def enter(run: Callable[[int], list[Case]]) -> Callable[[int], list[Case]]:
        says, _, setup = (inspect.getdoc(run) or "").partition("\n\n")
        CLAIMS[run.__name__.replace("_", "-")] = Claim(ids, says, " ".join(setup.split()), seeds, run)
        return run

    return enter


def gain(case: Case) -> np.ndarray:
    """By how much the advised side is better, seed by seed; what diverged is worse than all else."""
    worst = -np.inf if case.higher else np.inf
    advised, other = (np.where(np.isnan(side.values), worst, side.values) for side in (case.advised, case.other))
    with np.errstate(invalid="ignore"):
        difference = advised - other if case.higher else other - advised
    # both diverged
    return np.where(advised == other, 0.0, difference)


def verdict_of(case: Case) -> str:
    """``confirmed`` if the advised side wins, ``reversed`` if the other does, else ``open``.

    A side wins if it is better in at least `WINS` of the seeds, a tie being for neither, and if the medians differ by
    at least `RELEVANT` of the larger. A case that claims ``no_worse`` is confirmed unless it is reversed.
    """
    gains = gain(case)
    medians = sorted(abs(_median(side.values)) for side in (case.advised, case.other))
    relevant = medians[1] == np.inf or medians[1] - medians[0] >= RELEVANT * medians[1]
    if relevant and np.mean(gains < 0) >= WINS:
        return "reversed"
    return "confirmed" if case.no_worse or (relevant and np.mean(gains > 0) >= WINS) else "open"


def verdict(cases: list[Case]) -> str:
    """``confirmed`` if every case is, ``not confirmed`` if none is, else ``depends``."""
    confirmed = [verdict_of(case) == "confirmed" for case in cases]
    return "confirmed" if all(confirmed) else "depends" if any(confirmed) else "not confirmed"


def record(name: str, cases: list[Case], seeds: int, seconds: float) -> dict[str, Any]:
    """A claim and what was found, for JSON."""
    entry = CLAIMS[name]
    return {
        "ids": list(entry.ids),
        "says": entry.says,
        "setup": entry.setup,
        "seeds": seeds,
        "verdict": verdict(cases),
        "cases": [
            {
                "case": case.name,
                "measure": case.measure,
                "better": "higher" if case.higher else "lower",
                "claimed": "no worse" if case.no_worse else "better",
                "advised": {"what": case.advised.label, **spread(case.advised.values)},
                "other": {"what": case.other.label, **spread(case.other.values)},
                "gain": spread(gain(case)),
                "better_in": round(float(np.mean(gain(case) > 0)), 3),
                "worse_in": round(float(np.mean(gain(case) < 0)), 3),
                "verdict": verdict_of(case),
            }
            for case in cases
        ],
        "seconds": round(seconds, 1),
    }


def spread(values: np.ndarray) -> dict[str, float | None]:
    """Median, quartiles and extremes to four digits; ``None`` where that is not finite."""
    # between neighbours, one of them infinite, there is no mean
    quartiles = np.quantile(_comparable(values), [0.25, 0.75, 0, 1], method="nearest")
    found = dict(zip(("median", "q1", "q3", "min", "max"), [_median(values), *quartiles], strict=True))
    return {name: float(f"{value:.4g}") if np.isfinite(value) else None for name, value in found.items()}


def _comparable(values: np.ndarray) -> np.ndarray:
    """As float64, what is not a number as infinite."""
    values = np.asarray(values, np.float64)
    return np.where(np.isnan(values), np.inf, values)


def _median(values: np.ndarray) -> float:
    values = _comparable(values)
    middle = np.quantile(values, 0.5, method="nearest")
    return float(np.median(values) if np.isfinite(values).all() else middle)


def lines(name: str, found: dict[str, Any]) -> str:
    """A claim as it is printed."""
    rows = [f"{name}: {found['verdict']}  ({found['seeds']} seeds, {found['seconds']} s)", f"  {found['says']}"]
    for case in found["cases"]:
        sides = " | ".join(
            f"{side['what']}: {_number(side['median'])} [{_number(side['q1'])}, {_number(side['q3'])}]"
            for side in (case["advised"], case["other"])
        )
        wins = f"better in {case['better_in']:.0%}, worse in {case['worse_in']:.0%}"
        rows.append(f"  {case['verdict']:>9}  {case['case']}, {case['measure']}: {sides}; {wins}")
    return "\n".join(rows)


def _number(value: float | None) -> str:
    return "∞" if value is None else f"{value:.3g}"


def tuned(label: str, rates: tuple[float, ...], values: np.ndarray) -> tuple[Side, int]:
    """The best of a grid of learning rates: that with the lowest median over the seeds, and its place.

    ``values`` is ``(rates, seeds)``. The label says when the best is at an edge of the grid.
    """
    best = int(np.argmin([_median(row) for row in values]))
    edge = ", edge of the grid" if best in (0, len(rates) - 1) else ""
    return Side(f"{label}, α = {rates[best]:g}{edge}", values[best]), best
