"""What the doctor says: a verdict on each measure, the limits it is held against, and which verdict explains which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Level = Literal["fine", "warning", "ill"]


class Limits(NamedTuple):
    """From which value a measure is a ``warning``, from which it is ``ill``, and why; ``ill`` may be the lower one."""

    warning: float
    ill: float
    reason: str


LIMITS: dict[str, Limits] = {
    "inputs_large": Limits(
        5, 30, "the median √E[x²] of the features; standardised data have 1, the toy sets at most 3.5"
    ),
    "inputs_small": Limits(0.05, 0.01, "the largest; min-max scaled images have 0.5, a feature on in 1 % of rows 0.1"),
    "inputs_uneven": Limits(30, 100, "the largest √E[x²] over the median one; a curvature ratio is its square"),
    "inputs_constant": Limits(0.25, 0.9, "the share of constant features; of images the border, about 15 %"),
    "targets": Limits(5, 30, "√E[y²] over the outputs; a fresh network answers about 1"),
    "head": Limits(0.5, 1, "1 where the targets contradict the head, ½ where they look like those of another"),
    "imbalance": Limits(
        10, 30, "the weight of the largest class over the smallest's; always guessing gives 97 % at 30"
    ),
    "duplicates": Limits(0.1, 0.5, "the share of examples that repeat an earlier one"),
    "leak": Limits(0.05, 0.3, "the share of validation examples that are training examples"),
    "labels": Limits(
        4, 3, "deviations of the neighbours' agreement from that of shuffled labels; chance stays below 3"
    ),
    "start_loss": Limits(6, 20, "the loss at the start over that of random scores of the inputs' scale"),
    "start_scale": Limits(6, 10, "the largest √(n_in E[W²]) of a layer; He's start has 1.4"),
    "symmetry": Limits(0.5, 1, "the share of hidden layers whose units all start equal, and stay so"),
    "gradients_vanish": Limits(1e-2, 1e-4, "the RMS of dz in the first layer over that in the last hidden one"),
    "gradients_explode": Limits(1e2, 1e4, "the same"),
    "dead_units": Limits(0.5, 0.8, "the largest share of a layer's units with g′ = 0 on all examples, at the start"),
    "dying_units": Limits(0.5, 0.8, "the same after training; of ReLU units a tenth may die without harm"),
    "saturation": Limits(0.5, 0.8, "the largest share of a layer's g′(z) below 1/20 of the steepest, at the start"),
    "gradient": Limits(1e-3, 1e-2, "the relative difference of the gradient from autodiff's; rounding is 1e-6"),
    "few_examples": Limits(0.3, 0.6, "the loss left of 20 examples after 1000 steps of Adam, of that of a constant"),
    "rate_high": Limits(
        0.5, 0.8, "the part of the fall of the loss that only a lower rate reaches; or ‖ΔW‖/‖W‖ of the first step"
    ),
    "rate_low": Limits(0.8, 0.9, "the part of the fall of the loss that only a higher rate reaches"),
    "updates_large": Limits(0.5, 0.8, "the largest ‖ΔW‖/‖W‖ of a layer in the first step; 1e-3 to 0.1 is usual"),
    "updates_small": Limits(1e-6, 1e-9, "the smallest; a layer that takes a million steps to change stands still"),
    "seeds": Limits(0.5, 0.8, "the part of the fall of the loss that a start which is stuck misses and the best has"),
    "penalty": Limits(0.5, 0.8, "the part of the fall of the data loss that is reached without penalties only"),
    "dropout": Limits(0.5, 0.8, "the part of the fall of the loss that is reached without dropout only"),
    "batch_norm": Limits(0.2, 0.5, "the loss by running statistics minus that by the batch's, over a constant's loss"),
    "overfitting": Limits(0.5, 1, "the validation loss minus the training loss, over a constant's loss"),
}
"""Every measure by name. A loss is the data's, without penalties; a constant's is that of the best constant ŷ."""

_INPUTS = ("inputs_large", "inputs_small", "inputs_uneven")
_DATA = (*_INPUTS, "inputs_constant", "targets", "head", "labels", "imbalance")
_WEIGHTS = ("gradient", "symmetry", "start_scale", "gradients_vanish", "gradients_explode", "dead_units", "saturation")
_BAD_START = (*_INPUTS, "targets", "gradient", "symmetry", "start_scale", "gradients_explode")
_RATES = ("rate_high", "rate_low")

EXPLAINED_BY: dict[str, tuple[str, ...]] = {
    "leak": ("duplicates",),
    "start_loss": (*_INPUTS, "targets", "head", "symmetry", "start_scale", "gradients_explode"),
    "saturation": (*_INPUTS, "symmetry", "start_scale"),
    "gradients_vanish": (*_INPUTS, "symmetry", "start_scale", "dead_units", "saturation"),
    "gradients_explode": (*_INPUTS, "symmetry", "start_scale", "saturation"),
    "targets": ("head",),
    "dead_units": (*_INPUTS, "symmetry", "start_scale", "seeds"),
    "dying_units": (*_BAD_START, "gradients_vanish", "dead_units", "rate_high", "penalty", "dropout", "seeds"),
    "few_examples": (*_DATA, *_WEIGHTS, "seeds"),
    "rate_high": (*_BAD_START, "penalty", "dropout"),
    "rate_low": (*_DATA, *_WEIGHTS, "penalty", "dropout"),
    "updates_large": (*_DATA, *_WEIGHTS, *_RATES),
    "updates_small": (*_DATA, *_WEIGHTS, *_RATES),
    "seeds": (*_DATA, *_BAD_START, "gradients_vanish", "saturation", *_RATES, "batch_norm", "dropout", "penalty"),
    "dropout": ("gradient", "symmetry"),
    "batch_norm": ("rate_high",),
    "overfitting": ("leak", "labels", *_INPUTS, "targets", "batch_norm"),
}
"""What is a consequence of what: a verdict needs no cure of its own where one of these is not fine."""


class Verdict(NamedTuple):
    """One measure: its ``level``, the ``value``, and the ``threshold`` it passed or, where it is fine, the nearest one.

    ``evidence`` says what was measured, ``advice`` what to change (empty where it is fine), ``explained_by`` which
    other verdicts it follows from.
    """

    name: str
    level: Level
    value: float
    threshold: float
    evidence: str
    advice: str
    explained_by: tuple[str, ...] = ()


def judge(name: str, value: float, evidence: str, advice: str) -> Verdict:
    """Hold a value against `LIMITS`; one that is not a number is ill.

    >>> judge("imbalance", 50.0, "49 of 50 examples are of class 0", "weigh the classes")[:4]
    ('imbalance', 'ill', 50.0, 30)
    >>> judge("imbalance", 2.0, "40 of 60 examples are of class 0", "weigh the classes").advice
    ''
    """
    warning, ill, _ = LIMITS[name]
    sign = 1 if ill > warning else -1

    def short_of(limit: float) -> bool:
        return sign * value < sign * limit

    if short_of(warning):
        return Verdict(name, "fine", value, warning, evidence, "")
    return Verdict(name, *(("warning", value, warning) if short_of(ill) else ("ill", value, ill)), evidence, advice)


def explain(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Note on each verdict that is not fine which others explain it.

    >>> large = judge("inputs_large", 50.0, "feature 3 has √E[x²] = 50", "scale")
    >>> explain([large, judge("start_loss", 20.0, "", "scale"), judge("imbalance", 1.0, "", "")])[1].explained_by
    ('inputs_large',)
    """
    bad = {verdict.name for verdict in verdicts if verdict.level != "fine"}
    return tuple(
        verdict._replace(explained_by=tuple(name for name in EXPLAINED_BY.get(verdict.name, ()) if name in bad))
        if verdict.name in bad
        else verdict
        for verdict in verdicts
    )


class Examination(NamedTuple):
    """What `mlpjax.examine` found: the verdicts, in the order of the measures.

    >>> whole = Examination((judge("imbalance", 50.0, "49 of 50 examples are of class 0", "weigh the classes"),))
    >>> whole.causes[0].name
    'imbalance'
    >>> print(whole)
    1 of 1 measures: ill 1, warning 0
    ill      imbalance          50 (30): 49 of 50 examples are of class 0; weigh the classes
    """

    verdicts: tuple[Verdict, ...]

    @property
    def causes(self) -> tuple[Verdict, ...]:
        """The verdicts that are not fine and that no other explains: where to begin, what is ill first."""
        bad = [verdict for verdict in self.verdicts if verdict.level != "fine" and not verdict.explained_by]
        return tuple(sorted(bad, key=lambda verdict: verdict.level != "ill"))

    @property
    def ordered(self) -> list[Verdict]:
        """All verdicts: the causes, what they explain, and what is fine."""
        rest = [verdict for verdict in self.verdicts if verdict not in self.causes]
        return [*self.causes, *sorted(rest, key=lambda verdict: verdict.level == "fine")]

    def to_dict(self) -> dict[str, Any]:
        """The verdicts as plain values."""
        return {
            "causes": [verdict.name for verdict in self.causes],
            "verdicts": [
                {**verdict._asdict(), "explained_by": list(verdict.explained_by)} for verdict in self.verdicts
            ],
        }

    def __str__(self) -> str:
        """All verdicts as lines of text, `ordered`."""
        bad = [verdict.level for verdict in self.verdicts if verdict.level != "fine"]
        head = f"{len(bad)} of {len(self.verdicts)} measures: ill {bad.count('ill')}, warning {bad.count('warning')}"
        return "\n".join([head, *(_line(verdict) for verdict in self.ordered)])


def remark(verdict: Verdict) -> str:
    """What to read of a verdict: the evidence, and the advice or what explains it."""
    if verdict.explained_by:
        return f"{verdict.evidence}; see {', '.join(verdict.explained_by)}"
    return f"{verdict.evidence}; {verdict.advice}" if verdict.advice else verdict.evidence


def _line(verdict: Verdict) -> str:
    value = f"{verdict.value:.3g} ({verdict.threshold:g})"
    return f"{verdict.level:<8} {verdict.name:<18} {value}: {remark(verdict)}"
