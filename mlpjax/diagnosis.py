"""What is wrong with a wrong gradient: the mistake that explains the difference from the right one.

Two sources of explanations: the catalogue `mlpjax.faults`, each of whose mistakes is made on the network at hand and
compared with the gradient that was given; and, for any function, simple relations between the given leaf and the
right one (`mlpjax.relations`). An explanation is judged by how much of the difference it accounts for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mlpjax import mlp, passes
from mlpjax.cases import Case
from mlpjax.config import Config
from mlpjax.faults import FAULTS, applies, wrong_gradient
from mlpjax.parameters import Batch
from mlpjax.relations import relations
from mlpjax.reports import Evidence

EXPLAINED = 0.99
"""The part of the difference that an explanation has to account for."""
_CLOSE = 0.5
"""The part from which one that falls short is worth a mention."""


class Explanation(NamedTuple):
    """One likely mistake.

    ``name`` of the fault or relation, ``cause`` what was done, ``meant`` the formula that was meant (empty for a
    relation), ``source`` its id in the lecture, and ``explains``, the part of the difference that it accounts for.
    """

    name: str
    cause: str
    meant: str
    source: str
    explains: float

    def __str__(self) -> str:
        """One line, as a person reads it."""
        meant = f"; meant was {self.meant} ({self.source})" if self.meant else ""
        # 99.97 % is not all of it
        part = f"{np.floor(1000 * self.explains) / 10:.1f} %" if self.explains < 1 - 1e-6 else "all"
        return f"{self.name}: {self.cause}{meant}; explains {part} of the difference"


def diagnose(evidence: Evidence, case: Case | None = None) -> list[Explanation]:
    """Name the most likely mistakes, the best explanation first.

    Args:
        evidence: from a `mlpjax.reports.GradientReport`.
        case: the network that the gradient is of; found by itself if f is `mlpjax.loss` of a config first.

    Returns:
        What explains at least 99 % of the difference, the most first; failing that, what comes nearest, if
        it explains half. Empty for a gradient that is right, or wrong in a way that nothing here explains.
    """
    case = case or _case_of(evidence)
    scales = [float(np.abs(leaf).max(initial=0)) or 1.0 for leaf in evidence.truth]
    given = _scaled(evidence.hand, scales)
    difference = given - _scaled(evidence.truth, scales)
    if not np.isfinite(difference).all():
        broken = [path for path, leaf in zip(evidence.paths, evidence.hand, strict=True) if not np.isfinite(leaf).all()]
        return [Explanation("not finite", f"the gradient is not finite in {', '.join(broken)}", "", "", 1.0)]
    whole = float(np.linalg.norm(difference))
    if whole == 0:
        return []

    def explains(leaves: Sequence[np.ndarray]) -> float:
        return 1 - float(np.linalg.norm(given - _scaled(leaves, scales))) / whole

    found: list[Explanation] = []
    for fault, leaves in _mistakes(case, evidence):
        found.append(Explanation(fault.name, fault.cause, fault.meant, fault.source, explains(leaves)))
    # a mistake of the catalogue says why, a relation only what: it comes after, unless it explains much more
    for relation in relations(evidence):
        found.append(Explanation(relation.name, relation.what, "", "", explains(relation.leaves)))
    found = [one for one in found if np.isfinite(one.explains)]
    catalogued = [one for one in found if one.meant]
    good = sorted((one for one in catalogued if one.explains >= EXPLAINED), key=_by_explained)
    others = sorted((one for one in found if not one.meant and one.explains >= EXPLAINED), key=_by_explained)
    if good or others:
        left = 1 - good[0].explains if good else 1.0
        better = [one for one in others if left > 1e-6 and 1 - one.explains < 1e-3 * left]
        return [*better, *good, *(one for one in others if one not in better)]
    return sorted((one for one in found if one.explains >= _CLOSE), key=_by_explained)[:3]


def _by_explained(one: Explanation) -> float:
    # what differs by rounding is equal: the catalogue's order decides
    return -round(one.explains, 6)


def _scaled(leaves: Sequence[np.ndarray], scales: list[float]) -> np.ndarray:
    """All leaves in one vector, each over its scale: a small leaf counts as much as a large one."""
    parts = [np.ravel(np.asarray(leaf, np.float64)) / scale for leaf, scale in zip(leaves, scales, strict=True)]
    return np.concatenate(parts)


def _case_of(evidence: Evidence) -> Case | None:
    """The network, where f is `mlpjax.loss`, or a `functools.partial` of it with ``train``."""
    f, args, train = evidence.f, evidence.args, True
    if isinstance(f, functools.partial) and not f.args and f.keywords.keys() <= {"train"}:
        train = f.keywords.get("train", True)
        f = f.func
    if f is not mlp.loss or not 4 <= len(args) <= 5 or not isinstance(args[0], Config):
        return None
    return Case(*args)._replace(train=train)


def _mistakes(case: Case | None, evidence: Evidence) -> list[tuple[Any, list[np.ndarray]]]:
    """Every mistake of the catalogue that can be made on the network, with the gradient that it gives."""
    if case is None:
        return []
    out = []
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("highest"):
        case = in_float64(case)
        this = passes.run_pass(case.config, case.params, case.state, case.batch, case.train, case.key)
        for fault in FAULTS.values():
            if not applies(fault, case.config, case.batch.weight is not None, case.train):
                continue
            wrong = wrong_gradient(fault, case.config, case.params, this)
            leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(wrong)]
            # what is behind the parameters, such as x, the catalogue has nothing to say of
            rest = evidence.truth[len(leaves) :]
            out.append((fault, [*leaves, *rest]))
    return out


def in_float64(case: Case) -> Case:
    """The case with its floating-point arrays in float64; needs `jax.enable_x64`."""

    def wide(leaf: Any) -> Any:
        floating = hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
        return jax.numpy.asarray(np.asarray(leaf, np.float64)) if floating else leaf

    params, state = jax.tree.map(wide, (case.params, case.state))
    return case._replace(params=params, state=state, batch=Batch(*(wide(part) for part in case.batch)))
