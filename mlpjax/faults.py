"""A catalogue of wrong gradients: what the audit must find, and what a wrong gradient is compared with.

Each `Fault` is one realistic mistake in the backward pass of the network: other things remembered of the forward pass,
a wrong formula in the place of a right one, or a change of the finished gradients. `FAULTS` lists them by name. No two
give the same gradient on a network without symmetries, so that a wrong gradient names its cause.
"""

from __future__ import annotations

import jax

from mlpjax import passes
from mlpjax.config import Config
from mlpjax.faults_activations import ACTIVATION_FAULTS
from mlpjax.faults_affine import AFFINE_FAULTS
from mlpjax.faults_batch import BATCH_FAULTS
from mlpjax.faults_exercise import exercise_case, random_exercise, shows
from mlpjax.faults_heads import HEAD_FAULTS
from mlpjax.faults_layers import LAYER_FAULTS
from mlpjax.faults_record import Exercise, Fault, applies, wrong_gradient
from mlpjax.faults_result import PENALTY_FAULTS, RESULT_FAULTS
from mlpjax.parameters import Aux, Batch, Params, State
from mlpjax.step import GradFn

__all__ = [
    "FAULTS",
    "PEERS_13",
    "Exercise",
    "Fault",
    "applies",
    "catalogue",
    "exercise_case",
    "faulty",
    "random_exercise",
    "shows",
    "wrong_gradient",
]


def faulty(fault: Fault) -> GradFn:
    """The gradient function with the mistake: arguments and result of `mlpjax.backward`.

    >>> case = exercise_case(FAULTS["output-db-sign"].exercise)
    >>> (J, aux), grads = case.call(faulty(FAULTS["output-db-sign"]))
    >>> (J_right, aux), right = case.call(mlpjax.backward)
    >>> bool(J == J_right), bool((grads[-1].b == -right[-1].b).all())
    (True, True)
    """

    def backward(
        config: Config,
        params: Params,
        state: State,
        batch: Batch,
        key: jax.Array | None = None,
        *,
        train: bool = True,
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        this = passes.run_pass(config, params, state, batch, train, key)
        return passes.objective(config, params, this), wrong_gradient(fault, config, params, this)

    return backward


def catalogue() -> list[Fault]:
    """Every fault, in the lecture's order: the one in which a diagnosis prefers them."""
    return [
        *BATCH_FAULTS,
        *AFFINE_FAULTS,
        *ACTIVATION_FAULTS,
        *HEAD_FAULTS,
        *PENALTY_FAULTS,
        *LAYER_FAULTS,
        *RESULT_FAULTS,
    ]


FAULTS: dict[str, Fault] = {fault.name: fault for fault in catalogue()}

PEERS_13 = (
    "gradient-1-percent-large",
    "one-entry-zero",
    "average-forgotten",
    "last-sample-dropped",
    "one-label-wrong",
    "W-not-transposed",
    "derivative-forgotten",
    "derivative-of-a",
    "tanh-1-minus-abs-a",
    "first-db-zero",
    "output-db-zero",
    "first-db-averaged",
    "output-db-sign",
)
"""The 13 on which other checkers of gradients were measured, with a tanh network 20-16-5 and softmax."""
