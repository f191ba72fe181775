"""Networks and batches on which a fault shows: the one of its record, and others drawn at random."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax import passes
from mlpjax.cases import Case, make_case
from mlpjax.config import ActivationName, Config, HeadName
from mlpjax.faults_record import Exercise, Fault, applies, wrong_gradient
from mlpjax.parameters import Layer
from mlpjax.passes import RULES

VISIBLE = 1e-6
"""A fault shows where it changes some entry by more than this part of the largest one."""
DRAWS = 3000
DRAWS_OF_A_SHAPE = 60


def exercise_case(exercise: Exercise, seed: int = 0) -> Case:
    """The network and batch of an exercise; the same seed gives the same case.

    >>> kink = Exercise(Config(sizes=(3, 2, 1), head="regression"), at_kink=True)
    >>> case = exercise_case(kink)
    >>> this = passes.run_pass(*case[:4], case.train, case.key)
    >>> this.cache.hidden[0].z[:, 0].any()
    Array(False, dtype=bool)
    """
    case = make_case(exercise.config, exercise.weight, exercise.train, seed=seed)
    return _on_kink(case) if exercise.at_kink else case


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
            sizes, m = _draw_shape(rng)
        exercise = _draw_exercise(rng, sizes)
        weighted = exercise.weight != "none"
        if not applies(fault, exercise.config, weighted, exercise.train):
            continue
        case = make_case(exercise.config, exercise.weight, exercise.train, m, seed * DRAWS + draw)
        case = _on_kink(case) if fault.exercise.at_kink else case
        if shows(fault, case):
            return case
    raise RuntimeError(f"no network of {DRAWS} showed the fault {fault.name!r}")


def shows(fault: Fault, case: Case) -> bool:
    """Whether a fault changes the gradient of a case by more than rounding.

    >>> from mlpjax.faults import FAULTS
    >>> shows(FAULTS["weights-ignored"], make_case(Config(sizes=(3, 2)), "given"))
    True
    """
    this = passes.run_pass(*case[:4], case.train, case.key)
    right = jax.tree.leaves(passes.run_backward(case.config, case.params, this, RULES).params)
    wrong = jax.tree.leaves(wrong_gradient(fault, case.config, case.params, this))
    scale = max(float(np.abs(leaf).max()) for leaf in right)
    change = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(wrong, right, strict=True))
    return change > VISIBLE * scale > 0


def _draw_shape(rng: np.random.Generator) -> tuple[tuple[int, ...], int]:
    """Widths, sometimes equal, and a number of examples that is none of them."""
    count = int(rng.integers(1, 4)) + 2
    sizes = rng.integers(2, 10, count).tolist()
    kind = rng.random()
    if kind < 0.2:
        sizes = sizes[:1] * count
    elif kind < 0.4:
        sizes[1:-1] = sizes[1:2] * (count - 2)
    m = rng.choice([m for m in range(5, 15) if m not in sizes])
    return tuple(sizes), int(m)


def _draw_exercise(rng: np.random.Generator, sizes: tuple[int, ...]) -> Exercise:
    """Everything but the widths, of which a head of one output replaces the last."""

    def perhaps(chance: float, low: float, high: float) -> float | None:
        return float(rng.uniform(low, high)) if rng.random() < chance else None

    head = str(rng.choice(get_args(HeadName)))
    hidden = len(sizes) - 2
    names = rng.choice(get_args(ActivationName), 1 if rng.random() < 0.5 else hidden).tolist()
    dropout: Any = perhaps(0.5, 0.1, 0.45)
    if dropout is not None and rng.random() < 0.5:
        dropout = tuple(perhaps(0.6, 0.1, 0.45) for _ in range(hidden + 1))
    config = Config(
        sizes=(*sizes[:-1], 1) if head == "binary" else sizes,
        activation=tuple(names) if len(names) == hidden else names[0],
        head=head,
        bias=bool(rng.random() < 0.85),
        batch_norm=bool(rng.random() < 0.4),
        dropout=dropout,
        l1=perhaps(0.35, 0.005, 0.05),
        l2=perhaps(0.35, 0.05, 0.5),
    )
    return Exercise(config, str(rng.choice(["none", "given", "zeros"])), bool(rng.random() < 0.85))


def _on_kink(case: Case) -> Case:
    """Unit 0 of every hidden layer at exactly 0, and output 0 too where the head has a kink there."""
    *inner, output = case.params
    params = [_at_zero(layer) for layer in inner]
    params.append(_at_zero(output) if case.config.head == "regression_relu" else output)
    state = tuple(one._replace(mean=one.mean.at[0].set(0)) for one in case.state)
    return case._replace(params=tuple(params), state=state)


def _at_zero(layer: Layer) -> Layer:
    def first_zero(leaf: jax.Array | None) -> jax.Array | None:
        return None if leaf is None else jnp.asarray(leaf).at[0].set(0)

    return layer._replace(W=layer.W.at[:, 0].set(0), b=first_zero(layer.b), beta=first_zero(layer.beta))
