"""From the oracles' numbers to a verdict on each leaf."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlpjax.oracles import STEPS, Differences, Probes, Target, complex_step, differences, forward
from mlpjax.reports import VERDICTS, Comparison, LeafReport
from mlpjax.subject import Subject

CODES = {verdict: code for code, verdict in enumerate(VERDICTS)}
"""Verdicts as numbers, the graver the larger."""
_SAFETY = 4
"""By how much the own error of a difference may fall short: it is an estimate."""
_BESIDE = 2.0**-42
"""How far beside a point its one-sided derivatives are taken, in units of the step's scale."""
WORST = 256
_DIRECTIONS = 4
_FEWEST = 64
_WORK = 2**31
"""Numbers that the differences of one leaf may touch in all; beyond, fewer of a large leaf's elements are probed."""


class Judged(NamedTuple):
    """The leaves' reports, and why an oracle could not be asked."""

    leaves: tuple[LeafReport, ...]
    notes: tuple[str, ...]


class _Seen(NamedTuple):
    """All that is known of each probe, ``(K, n)``; ``None`` where an oracle could not be asked."""

    hand: np.ndarray
    reverse: np.ndarray
    forward: np.ndarray | None
    diff: Differences
    complex: np.ndarray | None
    tolerance: np.ndarray


def choose_probes(subject: Subject, x: np.ndarray, excess: np.ndarray, max_elements: int, seed: int) -> list[Probes]:
    """Choose the probes of each leaf: all its elements, or up to ``max_elements`` of a large one and projections.

    Of a large leaf those are the worst by autodiff, by ``excess (N,)``, and random ones; fewer where their
    differences would touch more than 2³¹ numbers. What is chosen of a leaf does not depend on the other leaves.
    """
    chosen = []
    for path, end, shape in zip(subject.paths, subject.ends, subject.shapes, strict=True):
        size = int(np.prod(shape, dtype=np.int64))
        start = end - size
        rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
        own = x[start:end]
        rms = float(np.sqrt(np.mean(own**2))) if size else 0.0
        directions: tuple[tuple[int, np.ndarray], ...] = ()
        at = np.arange(start, end)
        if size > max_elements:
            count = int(min(max_elements, max(_FEWEST, _WORK // (2 * len(STEPS) * len(x)))))
            worst = np.argsort(-excess[start:end], kind="stable")[: count // 2]
            worst = worst[excess[start:end][worst] > 0]
            rest = np.setdiff1d(rng.choice(size, min(size, count), replace=False), worst)[: count - len(worst)]
            at = start + np.concatenate([worst, rest])
            directions = tuple((start, rng.choice([-1.0, 1.0], size)) for _ in range(_DIRECTIONS))
        sizes = np.maximum(np.abs(x[at]), rms)
        # a power of two, so that x + h is exact where it can be
        scale = 2.0 ** np.ceil(np.log2(np.where(sizes > 0, sizes, 1.0)))
        along = np.full(len(directions), 2.0 ** np.ceil(np.log2(rms or 1.0)))
        at = np.concatenate([at, -1 - np.arange(len(directions))])
        chosen.append(Probes(at.astype(np.int64), np.concatenate([scale, along]), directions))
    return chosen


def judge(
    subject: Subject,
    target: Target,
    hand: np.ndarray,
    auto: np.ndarray,
    tolerance: np.ndarray,
    probes: list[Probes],
    between: bool,
) -> Judged:
    """Ask the other oracles along the probes, and give each leaf its verdict.

    ``hand`` and ``auto`` are ``(K, N)``, ``tolerance (K, N)`` is what they may differ by; ``between`` lets a value
    at a kink be any between the one-sided derivatives.
    """
    # one table of directions for all leaves, so that every oracle is asked once
    every = _joined(probes)
    notes: list[str] = []
    length = every.length()[None, :]
    clean = np.where(np.isfinite(hand), hand, 0), np.where(np.isfinite(auto), auto, 0)
    at = np.maximum(every.at, 0)
    seen = _Seen(
        hand=np.where(every.at >= 0, hand[:, at], every.dot(clean[0])),
        reverse=np.where(every.at >= 0, auto[:, at], every.dot(clean[1])),
        forward=_ask("forward mode", lambda: forward(target, every), notes),
        diff=differences(target, every),
        complex=_ask("the complex step", lambda: complex_step(target, every), notes),
        tolerance=tolerance[:, _representative(every)] * length,
    )
    seen = _without_false_complex(seen, notes)
    codes = _classify(target, every, seen, between)
    reports, start = [], 0
    for leaf, part in enumerate(probes):
        stop = start + len(part.at)
        reports.append(_report(subject, leaf, hand, auto, tolerance, every, seen, codes, slice(start, stop)))
        start = stop
    return Judged(tuple(reports), tuple(notes))


def _joined(probes: list[Probes]) -> Probes:
    ats: list[np.ndarray] = []
    directions: list[tuple[int, np.ndarray]] = []
    for part in probes:
        ats.append(np.where(part.at >= 0, part.at, part.at - len(directions)))
        directions += part.directions
    return Probes(np.concatenate(ats), np.concatenate([part.scale for part in probes]), tuple(directions))


def _representative(probes: Probes) -> np.ndarray:
    """A coordinate of each probe."""
    starts = np.asarray([start for start, _ in probes.directions] or [0])
    return np.where(probes.at >= 0, probes.at, starts[np.clip(-1 - probes.at, 0, len(starts) - 1)])


def _ask(oracle: str, question: Callable[[], np.ndarray], notes: list[str]) -> np.ndarray | None:
    """An oracle's answer, or a note with its reason: f may have no forward rule, or take no complex numbers."""
    try:
        return question()
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        notes.append(f"{oracle} could not be asked: {reason[:160]}")
        return None


def _without_false_complex(seen: _Seen, notes: list[str]) -> _Seen:
    """Drop the complex step where f is not analytic: there it contradicts the differences along the real line."""
    if seen.complex is None:
        return seen
    slack = _SAFETY * seen.diff.error + seen.diff.jump / 2 + seen.tolerance
    if bool(np.all(np.abs(seen.complex - seen.diff.value) <= slack)):
        return seen
    notes.append("the complex step could not be asked: f is not analytic in all of its complex arguments")
    return seen._replace(complex=None)


def _classify(target: Target, probes: Probes, seen: _Seen, between: bool) -> np.ndarray:
    """The verdict code of each probe, ``(K, n)``."""
    hand, auto, tolerance = seen.hand, seen.reverse, seen.tolerance
    slack = _SAFETY * seen.diff.error + tolerance
    with np.errstate(invalid="ignore"):
        as_auto = np.abs(hand - auto) <= tolerance
        exactly = np.abs(hand - seen.diff.value) <= slack
        as_diff = np.abs(hand - seen.diff.value) <= slack + seen.diff.jump / 2
        auto_as_diff = np.abs(auto - seen.diff.value) <= slack + seen.diff.jump / 2
        one_mode = np.ones_like(as_auto) if seen.forward is None else np.abs(seen.forward - auto) <= tolerance
        as_complex = seen.complex is None or np.abs(hand - seen.complex) <= slack
    codes = np.where(as_auto, CODES["agrees"], CODES["wrong"])
    codes = np.where(~as_auto & exactly & ~auto_as_diff, CODES["autodiff"], codes)
    codes = np.where(as_auto & ~(as_diff & as_complex), CODES["rule"], codes)
    codes = np.where(as_auto & as_diff & ~exactly, CODES["kink"], codes)
    # a kink can explain what a mode says only if the other says it too
    open_questions = one_mode & (~as_auto | (codes == CODES["rule"]))
    codes = np.where(one_mode | (codes == CODES["wrong"]), codes, CODES["modes"])
    which = np.flatnonzero((open_questions & np.isfinite(hand) & np.isfinite(auto)).any(axis=0))
    if len(which) and seen.forward is not None:
        part = probes.take(which)
        below, above = forward(target, part, -_BESIDE), forward(target, part, _BESIDE)
        h, r, tol = hand[:, which], auto[:, which], tolerance[:, which]
        diff = Differences(*(value[:, which] for value in seen.diff))
        at_kink = _at_kink(h, r, tol, diff, below, above, between)
        codes[:, which] = np.where(at_kink & open_questions[:, which], CODES["kink"], codes[:, which])
        # where the derivative is another within the smallest step, the differences do not see what f does here
        gap = 0.1 * np.abs(h - diff.value)
        near = [np.abs(forward(target, part, sign * STEPS[-1]) - r) for sign in (-1, 1)]
        unseen = (codes[:, which] == CODES["rule"]) & (np.maximum(*near) > gap)
        codes[:, which] = np.where(unseen, CODES["agrees"], codes[:, which])
    broken = ~np.isfinite(hand) | ~np.isfinite(auto)
    if seen.forward is not None:
        broken |= ~np.isfinite(seen.forward)
    return np.where(broken, CODES["not finite"], codes)


def _at_kink(
    hand: np.ndarray,
    auto: np.ndarray,
    tolerance: np.ndarray,
    diff: Differences,
    below: np.ndarray,
    above: np.ndarray,
    between: bool,
) -> np.ndarray:
    """Whether a kink explains what the gradient is, from the derivatives ``below`` and ``above`` the point."""
    low, high = np.minimum(below, above), np.maximum(below, above)
    size = np.maximum(np.abs(low), np.abs(high))
    # beside a smooth point the derivative changes too, in proportion to the distance
    slack = tolerance + 1e-9 * size
    inside = between & (high - low > slack) & (hand >= low - slack) & (hand <= high + slack)
    # several kinks in one point: autodiff says one thing there, and the differences' at both sides of it
    meets = np.abs(hand - auto) <= tolerance
    meets &= (np.abs(low - auto) > slack) | (np.abs(high - auto) > slack)
    middle = np.abs((low + high) / 2 - diff.value) <= _SAFETY * diff.error + diff.jump / 2 + slack
    return inside | (meets & middle)


def _report(
    subject: Subject,
    leaf: int,
    hand: np.ndarray,
    auto: np.ndarray,
    tolerance: np.ndarray,
    probes: Probes,
    seen: _Seen,
    codes: np.ndarray,
    own: slice,
) -> LeafReport:
    """Put together what is said about one leaf, with its worst element."""
    shape, end = subject.shapes[leaf], int(subject.ends[leaf])
    size = int(np.prod(shape, dtype=np.int64))
    where = slice(end - size, end)
    if size == 0:
        return empty_leaf(subject, leaf, "reverse")
    scale = float(np.max(np.abs(np.where(np.isfinite(auto[:, where]), auto[:, where], 0)))) or 1.0
    compared = [Comparison("reverse", size, largest(hand[:, where] - auto[:, where]) / scale)]
    others = {"forward": seen.forward, "differences": seen.diff.value, "complex step": seen.complex}
    single = probes.at[own] >= 0
    for oracle, values in others.items():
        if values is not None:
            error = largest((seen.hand - values)[:, own][:, single]) / scale
            compared.append(Comparison(oracle, int(single.sum()), error))
    code = int(codes[:, own].max())
    verdict = list(VERDICTS)[code]
    oracle, expected = _against(verdict, seen)
    with np.errstate(invalid="ignore"):
        gap = np.abs(seen.hand - expected)[:, own]
        gap = np.where(np.isfinite(gap), gap, np.inf)
    # elements before projections: they can be named
    order = np.where(codes[:, own] == code, gap, -1.0) * np.where(single, 1.0, 1e-300)
    if verdict == "agrees":
        order = gap * single
    k, probe = np.unravel_index(int(np.argmax(order)), order.shape)
    at = int(probes.at[own][probe])
    index = None if at < 0 else tuple(int(i) for i in np.unravel_index(at - where.start, shape))
    got, want = float(seen.hand[k, own][probe]), float(np.broadcast_to(expected, seen.hand.shape)[k, own][probe])
    beyond = ~(np.abs(hand[:, where] - auto[:, where]) <= tolerance[:, where]).all(axis=0)
    wrong = (
        0
        if verdict in ("agrees", "kink")
        else max(int(beyond.sum()), int((codes[:, own] == code).any(axis=0)[single].sum()))
    )
    return LeafReport(
        path=subject.paths[leaf],
        shape=shape,
        verdict=verdict,
        oracle=oracle,
        index=index,
        expected=want,
        got=got,
        relative=abs(got - want) / scale,
        ulp=abs(got - want) / float(np.spacing(abs(want))) if np.isfinite(want) else float("nan"),
        tolerance=float(seen.tolerance[k, own][probe]) / scale,
        wrong=wrong,
        comparisons=tuple(compared),
    )


def empty_leaf(subject: Subject, leaf: int, oracle: str) -> LeafReport:
    """The report of a leaf without elements."""
    return LeafReport(subject.paths[leaf], subject.shapes[leaf], "agrees", oracle, None, 0.0, 0.0, 0.0, 0.0, 0.0, 0, ())


def _against(verdict: str, seen: _Seen) -> tuple[str, np.ndarray]:
    """The oracle that a verdict speaks for, and its values."""
    if verdict == "modes" and seen.forward is not None:
        return "forward", seen.forward
    if verdict in ("rule", "autodiff"):
        return "differences", seen.diff.value
    if verdict == "not finite" and seen.forward is not None and bool(np.isfinite(seen.reverse).all()):
        return "hand" if not np.isfinite(seen.hand).all() else "forward", seen.forward
    return "reverse", seen.reverse


def largest(values: Any) -> float:
    """max|v|; infinite where a value is not finite."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0)) if finite.size == values.size else float("inf")
