"""What the doctor asks of the data, before any network: scales, classes, copies, and whether labels go with inputs.

NumPy only, but for the formulas of the heads. x (m, n0), y (m, n_L) as the head wants it, weight (m,).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mlpjax.config import Config
from mlpjax.doctor_verdicts import Verdict, judge
from mlpjax.heads import HEADS
from mlpjax.preprocess import standardise

_FEW_VALUES = 20
"""So many different whole numbers as targets, or fewer, look like classes."""
_NEIGHBOURS, _SHUFFLES, _COMPARED, _TOO_FEW = 5, 200, 1000, 100
"""Of `labels_verdict`: k, shuffled labels, examples that are compared at most, and how many say nothing."""
_DRAWN = 4096
"""So many scores at least are drawn by `fresh_loss`."""
_TINY = 1e-12


class Sample(NamedTuple):
    """Examples on the host: ``x (m, n_0)``, ``y (m, n_L)``, ``weight (m,)``, none of them 0."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray


def constant_loss(head: str, sample: Sample) -> float:
    """The loss of the best constant ŷ, the weighted mean ȳ: what can be had without looking at x.

    >>> y = np.array([[0.0], [1.0], [1.0], [0.0]])
    >>> sample = Sample(y, y, np.ones(4))
    >>> round(constant_loss("binary", sample), 4), constant_loss("regression", sample)
    (0.6931, 0.125)
    """
    mean = np.average(sample.y, axis=0, weights=sample.weight)
    if head.startswith("regression"):
        return _loss_of(head, mean, sample)
    mean = np.clip(mean, _TINY, 1)
    return _loss_of(head, np.log(mean) - (0 if head == "multiclass" else np.log(np.maximum(1 - mean, _TINY))), sample)


def fresh_loss(head: str, sample: Sample, seed: list[int]) -> float:
    """The loss of scores z ~ N(0, s²) that know nothing, s² = E[x²] or 1: a well-scaled start keeps the inputs' scale.

    >>> y = np.zeros((2000, 1))
    >>> round(fresh_loss("regression", Sample(y, y, np.ones(2000)), [0]), 1)
    0.5
    """
    repeats = max(1, _DRAWN // len(sample.y))
    s = max(1.0, float(np.sqrt(np.mean(np.square(sample.x, dtype=np.float64)))))
    z = s * np.random.default_rng(seed).normal(size=(repeats * len(sample.y), sample.y.shape[1]))
    repeated = Sample(sample.x, np.tile(sample.y, (repeats, 1)), np.tile(sample.weight, repeats))
    return _loss_of(head, z, repeated)


def data_verdicts(config: Config, sample: Sample, valid: Sample | None, seed: list[int]) -> Iterator[Verdict]:
    """The verdicts on the data alone."""
    yield from _inputs(sample.x)
    if config.head.startswith("regression"):
        yield _targets(sample.y)
    else:
        yield _imbalance(config.head, sample)
    yield _head(config.head, sample.y)
    yield _duplicates(sample)
    if valid is not None:
        yield _leak(sample, valid)
    if len(sample.x) >= _TOO_FEW:
        yield labels_verdict(sample, seed)


def _inputs(x: np.ndarray) -> Iterator[Verdict]:
    size = np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=0))
    constant = x.max(axis=0) == x.min(axis=0)
    varying = size[~constant] if not constant.all() else size
    largest, median = float(varying.max()), float(np.median(varying))
    scale = "scale the inputs by their training part: mlpjax.preprocess.standardise, or min_max for images"
    evidence = f"√E[x²] is {largest:.3g} of the largest feature and {median:.3g} of the median one"
    yield judge("inputs_large", median, evidence, scale)
    yield judge("inputs_small", largest, evidence, f"{scale}; are they divided twice?")
    yield judge("inputs_uneven", largest / max(median, _TINY), evidence, f"the largest drowns the others: {scale}")
    evidence = f"{int(constant.sum())} of {len(constant)} features are constant"
    yield judge("inputs_constant", float(constant.mean()), evidence, "leave them out, or look how the data are read")


def _targets(y: np.ndarray) -> Verdict:
    mean, std = y.mean(axis=0), y.std(axis=0)
    size = float(np.sqrt(np.mean(np.square(y, dtype=np.float64))))
    evidence = f"y has mean {mean[0]:.3g} and standard deviation {std[0]:.3g}"
    advice = "standardise y, train on that, and scale ŷ back"
    return judge("targets", size, evidence, advice)


def _imbalance(head: str, sample: Sample) -> Verdict:
    shares = np.average(sample.y, axis=0, weights=sample.weight)
    if head == "multiclass":
        largest, smallest = int(shares.argmax()), int(shares.argmin())
        evidence = f"class {largest} has {shares[largest]:.1%} of the weight, class {smallest} {shares[smallest]:.1%}"
        ratio = shares[largest] / max(shares[smallest], _TINY)
    else:
        rarer = np.minimum(shares, 1 - shares)
        worst = int(rarer.argmin())
        ratio = (1 - rarer[worst]) / max(rarer[worst], _TINY)
        evidence = f"output {worst} is on in {shares[worst]:.1%} of the weight"
    advice = "weigh the classes (class_weight='balanced'), and look at more than accuracy"
    return judge("imbalance", float(ratio), evidence, advice)


def _head(head: str, y: np.ndarray) -> Verdict:
    below = int(np.sum(y < 0))
    one_hot = y.shape[1] > 1 and bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())
    distinct = np.unique(y)
    whole = y.shape[1] == 1 and len(distinct) <= min(_FEW_VALUES, len(y) // 5) and bool((distinct % 1 == 0).all())
    if head == "regression_relu" and below:
        return judge("head", 1.0, f"{below} targets are negative, which ŷ ≥ 0 cannot be", "take head='regression'")
    if head != "multiclass" and one_hot:
        return judge("head", 1.0, "every row of y has exactly one 1", "take head='multiclass'")
    if head.startswith("regression") and whole:
        evidence = f"all targets are among {len(distinct)} whole numbers"
        return judge("head", 0.5, evidence, "if they number classes, take head='multiclass', or 'binary' for two")
    return judge("head", 0.0, f"the targets fit the head {head!r}", "")


def _duplicates(sample: Sample) -> Verdict:
    rows = _rows(np.concatenate([sample.x, sample.y], axis=1))
    share = 1 - len(set(rows)) / len(rows)
    advice = "count each once, by weights if need be; split into parts after that, or copies lie in several"
    return judge("duplicates", share, f"{share:.1%} of {len(rows)} examples repeat an earlier one", advice)


def _leak(sample: Sample, valid: Sample) -> Verdict:
    known, rows = set(_rows(sample.x)), _rows(valid.x)
    share = sum(row in known for row in rows) / len(rows)
    advice = "take them out of one of the two: the validation values are too good"
    return judge("leak", share, f"{share:.1%} of {len(rows)} validation examples are training examples", advice)


def labels_verdict(sample: Sample, seed: list[int]) -> Verdict:
    """Do neighbours agree? The products of standardised targets of k nearest neighbours, against shuffled targets.

    The value is the distance of their mean from that of 200 shuffles, in standard deviations of those (Moran's I).

    >>> x = np.random.default_rng(0).normal(size=(100, 2))
    >>> y = x[:, :1] * x[:, 1:] > 0
    >>> labels_verdict(Sample(x, y.astype(float), np.ones(100)), [0]).level
    'fine'
    >>> labels_verdict(Sample(x, np.roll(y, 7).astype(float), np.ones(100)), [0]).level
    'ill'
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(sample.x))[:_COMPARED]
    x, y = (standardise(part[rows]).transform(part[rows]).astype(np.float64) for part in (sample.x, sample.y))
    squares = np.square(x).sum(axis=1)
    distance = squares[:, None] + squares[None, :] - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    near = np.argpartition(distance, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]

    def agreement(y: np.ndarray) -> float:
        return float(np.mean(y[:, None, :] * y[near]))

    shuffled = np.array([agreement(y[rng.permutation(len(y))]) for _ in range(_SHUFFLES)])
    value = (agreement(y) - shuffled.mean()) / max(float(shuffled.std()), _TINY)
    evidence = f"the {_NEIGHBOURS} nearest neighbours agree by {value:.1f} standard deviations more than by chance"
    advice = "look whether x and y are in the same order, and whether the labels are what they should be"
    return judge("labels", value, evidence, advice)


def _loss_of(head: str, z: np.ndarray, sample: Sample) -> float:
    scores = jnp.asarray(np.broadcast_to(z, sample.y.shape), float)
    losses = HEADS[head].loss(scores, jnp.asarray(sample.y, float))
    return float(np.average(np.asarray(losses, np.float64), weights=sample.weight))


def _rows(array: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in array]
