"""The verdict on a gradient of low precision, from float64's answer at the same point and autodiff's beside it."""

from __future__ import annotations

import numpy as np

from mlpjax.judging import CODES, WORST, empty_leaf, largest
from mlpjax.oracles import Probes, Target, forward
from mlpjax.reports import VERDICTS, Comparison, LeafReport
from mlpjax.subject import Subject


def judge_low(
    subject: Subject,
    target: Target,
    hand: np.ndarray,
    truth: np.ndarray,
    beside: np.ndarray,
    tolerance: np.ndarray,
    eps: float,
    between: bool,
) -> tuple[LeafReport, ...]:
    """Judge a gradient of low precision, all ``(K, N)``: by float64's, or by autodiff in its own precision."""
    with np.errstate(invalid="ignore"):
        to_truth, to_beside = np.abs(hand - truth), np.abs(hand - beside)
    gap = np.fmin(to_truth, to_beside)
    codes = np.where(gap <= tolerance, CODES["agrees"], CODES["wrong"])
    codes = np.where(np.isfinite(hand), codes, CODES["not finite"])
    beyond = np.flatnonzero((codes == CODES["wrong"]).any(axis=0))
    worst = beyond[np.argsort(-gap[:, beyond].max(axis=0), kind="stable")][:WORST]
    if len(worst) and between:
        scale = np.maximum(np.abs(target.x[worst]), 1.0)
        # as far as rounding may have moved what a kink is in
        sides = [forward(target, Probes(worst, scale), sign * 64 * eps) for sign in (-1, 1)]
        low, high = np.minimum(*sides), np.maximum(*sides)
        slack = tolerance[:, worst] + 1e-3 * np.maximum(np.abs(low), np.abs(high))
        here = hand[:, worst]
        inside = (high - low > slack) & (here >= low - slack) & (here <= high + slack)
        codes[:, worst] = np.where(inside & (codes[:, worst] == CODES["wrong"]), CODES["kink"], codes[:, worst])
    return tuple(_low_report(subject, leaf, hand, truth, tolerance, gap, codes) for leaf in range(len(subject.paths)))


def _low_report(
    subject: Subject,
    leaf: int,
    hand: np.ndarray,
    truth: np.ndarray,
    tolerance: np.ndarray,
    gap: np.ndarray,
    codes: np.ndarray,
) -> LeafReport:
    shape, end = subject.shapes[leaf], int(subject.ends[leaf])
    start = end - int(np.prod(shape, dtype=np.int64))
    if start == end:
        return empty_leaf(subject, leaf, "float64")
    own = (slice(None), slice(start, end))
    scale = float(np.abs(truth[own]).max()) or 1.0
    code = int(codes[own].max())
    order = np.where(codes[own] == code, np.nan_to_num(gap[own], nan=np.inf), -1.0)
    k, at = np.unravel_index(int(np.argmax(order)), order.shape)
    got, want = float(hand[own][k, at]), float(truth[own][k, at])
    return LeafReport(
        path=subject.paths[leaf],
        shape=shape,
        verdict=list(VERDICTS)[code],
        oracle="float64",
        index=tuple(int(i) for i in np.unravel_index(at, shape)),
        expected=want,
        got=got,
        relative=abs(got - want) / scale,
        ulp=abs(got - want) / float(np.spacing(np.float32(abs(want)))),
        tolerance=float(tolerance[own][k, at]) / scale,
        wrong=int((codes[own] > CODES["kink"]).any(axis=0).sum()),
        comparisons=(Comparison("float64", end - start, largest(hand[own] - truth[own]) / scale),),
    )
