"""What the glass box records: a quantity of the network with its name in the lecture, and the tree of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np


@partial(jax.tree_util.register_dataclass, data_fields=("value",), meta_fields=("formula", "axes"))
@dataclass(frozen=True, eq=False)
class Quantity:
    """An array of the network, the lecture's id of its formula, and the names of its axes.

    ``axes`` is ``("m", "n_1")`` for a quantity of the units of layer 1 and of every example, ``("n_0", "n_1")`` for
    one of the weights between. An axis that `jax.vmap` adds comes before them. It is a pytree of one leaf.
    """

    value: jax.Array
    formula: str
    axes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the value."""
        return self.value.dtype


class InputTrace(NamedTuple):
    """Layer 0: ``x (m, n_0)``, dropout's ``mask`` and ``x_dropped``, and ``dx`` = ∂J/∂x."""

    x: Quantity
    mask: Quantity | None
    x_dropped: Quantity | None
    dx: Quantity


class BatchNormTrace(NamedTuple):
    """Batch-norm between z and the activation: z̃ = γ ⊙ ẑ + β with ẑ = (z − mean)/√(var + ε); ``dz_tilde`` = ∂J/∂z̃.

    ``mean`` and ``var`` are the batch's, in evaluation the running ones; ``running_…`` is the state after the batch.
    """

    mean: Quantity
    var: Quantity
    zhat: Quantity
    z_tilde: Quantity
    running_mean: Quantity
    running_var: Quantity
    running_count: Quantity
    dz_tilde: Quantity


class HiddenTrace(NamedTuple):
    """A hidden layer: z = a_in W + b, a = g(z), or g(z̃) under batch-norm, and a ⊙ mask; then the derivatives of J.

    ``mask`` is 1/(1 − rate) where a unit is kept; ``da`` belongs to ``a``, before dropout. ``dW`` is all of ∂J/∂W,
    and ``dW_penalty`` the part of it that comes from this layer's ``penalty``.
    """

    a_in: Quantity
    z: Quantity
    norm: BatchNormTrace | None
    a: Quantity
    mask: Quantity | None
    a_dropped: Quantity | None
    penalty: Quantity | None
    da: Quantity
    dz: Quantity
    dgamma: Quantity | None
    dbeta: Quantity | None
    dslope: Quantity | None
    dW: Quantity
    db: Quantity | None
    dW_penalty: Quantity | None


class OutputTrace(NamedTuple):
    """The output layer L: z = a_in W + b and ŷ, the head's link of z; then the derivatives of J."""

    a_in: Quantity
    z: Quantity
    yhat: Quantity
    penalty: Quantity | None
    dz: Quantity
    dW: Quantity
    db: Quantity | None
    dW_penalty: Quantity | None


class LossTrace(NamedTuple):
    """J = data_loss + penalty with data_loss = Σ pᵢLᵢ, p = w/Σw: targets ``y (m, n_L)``, ``p (m,)``, ``L (m,)``.

    In a row of weight 0 ``y`` is 0, and ``L`` may be anything: it does not count.
    """

    y: Quantity
    p: Quantity
    weight_sum: Quantity
    L: Quantity
    data_loss: Quantity
    penalty: Quantity
    J: Quantity


class Trace(NamedTuple):
    """One forward and one backward pass; ``hidden[l − 1]`` is layer l."""

    input: InputTrace
    hidden: tuple[HiddenTrace, ...]
    output: OutputTrace
    loss: LossTrace
