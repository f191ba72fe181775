"""Networks and batches on which a fault shows: the one of its record, and others drawn at random."""

from __future__ import annotations

import jax
import numpy as np

from mlpjax import passes
from mlpjax.cases import Case, make_case, on_kink, random_network, random_sizes
from mlpjax.faults_record import Exercise, Fault, applies, wrong_gradient
from mlpjax.passes import RULES

VISIBLE = 1e-6
"""A fault shows where it changes some entry by more than this part of the largest one."""
DRAWS = 3000
DRAWS_OF_A_SHAPE = 60


def exercise_case(exercise: Exercise, seed: int = 0) -> Case:
    """The network and batch of an exercise; the same seed gives the same case.

    >>> kink = Exercise(mlpjax.Config(sizes=(3, 2, 1), head="regression"), at_kink=True)
    >>> case = exercise_case(kink)
    >>> this = passes.run_pass(*case[:4], case.train, case.key)
    >>> this.cache.hidden[0].z[:, 0].any()
    Array(False, dtype=bool)
    """
    case = make_case(exercise.config, exercise.weight, exercise.train, seed=seed)
    return on_kink(case) if exercise.at_kink else case


def random_exercise(fault: Fault, seed: int) -> Case:
    """Draw a network and a batch on which a fault can be made and shows; the same seed gives the same case.

    Widths 2 … 9, up to 3 hidden layers, 5 … 14 examples, any head and activations, with or without weights,
    batch-norm, dropout and penalties. A seed offers all faults the same networks, and each takes the first that suits.

    Raises:
        RuntimeError: when none did.

    >>> from mlpjax.faults import FAULTS
    >>> "tanh" in random_exercise(FAULTS["tanh-as-sigmoid"], 0).config.activations
    True
    """
    rng = np.random.default_rng(seed)
    for draw in range(DRAWS):
        if draw % DRAWS_OF_A_SHAPE == 0:
            # held for a while: each new shape is compiled anew
            sizes, m = random_sizes(rng)
        exercise = Exercise(*random_network(rng, sizes))
        weighted = exercise.weight != "none"
        if not applies(fault, exercise.config, weighted, exercise.train):
            continue
        case = make_case(exercise.config, exercise.weight, exercise.train, m, seed * DRAWS + draw)
        case = on_kink(case) if fault.exercise.at_kink else case
        if shows(fault, case):
            return case
    raise RuntimeError(f"no network of {DRAWS} showed the fault {fault.name!r}")


def shows(fault: Fault, case: Case) -> bool:
    """Whether a fault changes the gradient of a case by more than rounding.

    >>> from mlpjax.faults import FAULTS
    >>> shows(FAULTS["weights-ignored"], make_case(mlpjax.Config(sizes=(3, 2)), "given"))
    True
    """
    this = passes.run_pass(*case[:4], case.train, case.key)
    right = jax.tree.leaves(passes.run_backward(case.config, case.params, this, RULES).params)
    wrong = jax.tree.leaves(wrong_gradient(fault, case.config, case.params, this))
    scale = max(float(np.abs(leaf).max()) for leaf in right)
    change = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(wrong, right, strict=True))
    return change > VISIBLE * scale > 0
