"""Faults of the cost: which examples count, how much each, and with which label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax.config import Config
from mlpjax.faults_record import TANH, WEIGHTED, Exercise, Fault, anywhere, has_head, network, weighted
from mlpjax.parameters import Params
from mlpjax.passes import Pass


def _weighing(p: Callable[[Pass], jax.Array]) -> dict[str, Any]:
    """The rows of dZ[L] weighted by ``p``; batch-norm keeps the right weights."""

    def before(config: Config, params: Params, this: Pass) -> Pass:
        return this._replace(p=p(this))

    return {"before": before}


def _labelled(y: Callable[[jax.Array], jax.Array]) -> dict[str, Any]:
    """dZ[L] of other targets."""

    def before(config: Config, params: Params, this: Pass) -> Pass:
        return this._replace(y=y(this.y))

    return {"before": before}


def _absent_rows_have_a_residual(config: Config, weighted: bool, train: bool) -> bool:
    """With the label of an absent row taken as 0: ŷ Σ_c y_c − y is then 0 too."""
    return weighted and config.head != "multiclass"


BATCH_FAULTS = (
    Fault(
        "average-forgotten", "the gradients are summed over the examples, not averaged",
        "dZ[L] = (∂L/∂Z[L]) w/Σw", "erm-empirical",
        TANH, anywhere, **_weighing(lambda this: this.p * this.weight_sum),
    ),
    Fault(
        "averaged-twice", "1/m stands in dZ[L] and again in dW and db",
        "dW = Xᵀ dZ, where dZ has the 1/m", "err-double-mean",
        TANH, anywhere, **_weighing(lambda this: this.p / this.p.shape[0]),
    ),
    Fault(
        "weights-ignored", "every example counts alike, whatever its weight",
        "dZ[L] = (∂L/∂Z[L]) w/Σw", "chain-cost-grad",
        WEIGHTED, weighted, **_weighing(lambda this: jnp.full_like(this.p, 1 / this.p.shape[0])),
    ),
    Fault(
        "weights-divided-by-m", "the weighted sum is divided by the number of examples, not by the sum of weights",
        "dZ[L] = (∂L/∂Z[L]) w/Σw", "train-minibatch-unbiased",
        WEIGHTED, weighted, **_weighing(lambda this: this.p * this.weight_sum / this.p.shape[0]),
    ),
    Fault(
        "weights-twice", "the loss's derivative is weighted and each row weighted again",
        "dZ[L] = (∂L/∂Z[L]) w/Σw", "chain-cost-grad",
        WEIGHTED, weighted, **_weighing(lambda this: this.p * this.p * this.weight_sum),
    ),
    Fault(
        "absent-rows-counted", "rows of weight 0, the padding of a last batch, count like rows of target 0",
        "a row of weight 0 adds nothing", "err-last-batch",
        Exercise(network(head="regression"), weight="zeros"), _absent_rows_have_a_residual,
        **_weighing(lambda this: jnp.where(this.p == 0, 1 / this.weight_sum, this.p)),
    ),
    Fault(
        "last-sample-dropped", "the loop over the examples ends one too early",
        "dW = Σᵢ xᵢᵀ dzᵢ over i = 1 … m", "err-minibatch-slice",
        TANH, anywhere, **_weighing(lambda this: this.p.at[-1].set(0)),
    ),
    Fault(
        "first-sample-dropped", "the loop over the examples starts at 1 where rows count from 0",
        "dW = Σᵢ xᵢᵀ dzᵢ over i = 1 … m", "train-minibatch-update",
        TANH, anywhere, **_weighing(lambda this: this.p.at[0].set(0)),
    ),
    Fault(
        "labels-of-next-row", "x and y are out of step by one row",
        "dzᵢ = ŷᵢ − yᵢ", "train-shuffle",
        TANH, anywhere, **_labelled(lambda y: jnp.roll(y, -1, axis=0)),
    ),
    Fault(
        "one-label-wrong", "the first example has the label of the next class",
        "dzᵢ = ŷᵢ − yᵢ", "train-dataset",
        TANH, has_head("multiclass"), **_labelled(lambda y: y.at[0].set(jnp.roll(y[0], 1))),
    ),
    Fault(
        "class-off-by-one", "classes 1 … K are used as 0 … K − 1",
        "y_c = 1 for the example's own class c", "err-ce-labels",
        TANH, has_head("multiclass"), **_labelled(lambda y: jnp.roll(y, 1, axis=1)),
    ),
)  # fmt: skip
