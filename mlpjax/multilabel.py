"""Several labels at once: the lecture's steps from ∂L/∂ŷ down to the first layer, and the scores of decided labels.

The labels do not exclude each other: each output is a logistic unit of its own, on hidden units that all share.

Source: lecture, section *Types of problems*, multi-label.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import sigmoid, sigmoid_derivative
from mlpjax.errors import DataError
from mlpjax.logistic_unit import bce_da
from mlpjax.one_hidden import check_layers
from mlpjax.parameters import Params


class MultiLabelSteps(NamedTuple):
    """What the slides of forward and backward name, for one example.

    ``z_h``, ``a_h (n_1,)`` and ``z_o``, ``yhat (n_L,)`` of the forward pass; then ``dyhat``, ``dyhat_dz``, ``dz``
    ``(n_L,)`` (∂L/∂ŷ_o, ∂ŷ_o/∂z_o and ∂L/∂z_o as their product), ``dz_dw (n_1,)`` (∂z_o/∂w_ho = a_h for every o),
    ``dW2 (n_1, n_L)`` and ``dW1 (n_0, n_1)``.
    """

    z_h: jax.Array
    a_h: jax.Array
    z_o: jax.Array
    yhat: jax.Array
    dyhat: jax.Array
    dyhat_dz: jax.Array
    dz: jax.Array
    dz_dw: jax.Array
    dW2: jax.Array
    dW1: jax.Array


def multilabel_steps(params: Params, x: jax.Array, y: jax.Array) -> MultiLabelSteps:
    """Walk one example through a network of one hidden sigmoid layer and sigmoid outputs, and back.

        z_h = Σ_i w_ih x_i + b_h,  a_h = σ(z_h),  z_o = Σ_h w_ho a_h + b_o,  ŷ_o = σ(z_o)
        ∂L/∂w_ho = ∂L/∂ŷ_o · ∂ŷ_o/∂z_o · ∂z_o/∂w_ho                        = (ŷ_o − y_o) a_h
        ∂L/∂w_ih = Σ_o ∂L/∂z_o · ∂z_o/∂a_h · ∂a_h/∂z_h · ∂z_h/∂w_ih       = Σ_o (ŷ_o − y_o) w_ho a_h(1 − a_h) x_i

    The factors are multiplied as they stand, nothing is cancelled beforehand. The slides have no biases; give
    zeros for that. Source: ``prob-ml-back-chain``, ``prob-ml-back-dzdw``, ``prob-ml-back-dW2``,
    ``prob-ml-back-dW1``, ``prob-ml-forward-hidden``, ``prob-ml-forward-out``.

    Args:
        params: two layers, W ``(n_0, n_1)`` and ``(n_1, n_L)``, each with its b.
        x: the example ``(n_0,)``.
        y: its labels ``(n_L,)``, each 0 or 1.

    Raises:
        InputError: for shapes that do not fit each other.

    >>> params = mlpjax.Layer(jnp.zeros((1, 1)), jnp.zeros(1)), mlpjax.Layer(jnp.ones((1, 1)), jnp.array([-0.5]))
    >>> steps = multilabel_steps(params, jnp.ones(1), jnp.ones(1))
    >>> steps.dyhat, steps.dz, steps.dW2  # ŷ = σ(½ − ½)
    (Array([-2.], dtype=float32), Array([-0.5], dtype=float32), Array([[-0.25]], dtype=float32))
    """
    W1, b1, W2, b2 = check_layers(params, x, y, rows=False)
    z_h = x @ W1 + b1
    a_h = sigmoid(z_h)
    z_o = a_h @ W2 + b2
    yhat = sigmoid(z_o)
    dyhat, dyhat_dz = bce_da(yhat, y), sigmoid_derivative(z_o)
    dz = dyhat * dyhat_dz
    dW2 = a_h[:, None] * dz[None, :]
    dz_h = jnp.sum(dz[None, :] * W2, axis=1) * sigmoid_derivative(z_h)
    return MultiLabelSteps(z_h, a_h, z_o, yhat, dyhat, dyhat_dz, dz, a_h, dW2, x[:, None] * dz_h[None, :])


class LabelScores(NamedTuple):
    """How well decided labels fit: all of these are 1 at best, but ``hamming_loss``, which is 0."""

    exact_match: float
    hamming_loss: float
    micro_precision: float
    micro_recall: float
    micro_f1: float


def label_scores(decided: Any, y: Any) -> LabelScores:
    """Score decided labels against the true ones, both ``(m, n_L)`` of 0 and 1.

    ``exact_match`` is the share of examples with every label right, ``hamming_loss`` the share of single labels
    that are wrong. With TP, FP, FN counted over all labels: ``micro_precision`` = TP/(TP + FP),
    ``micro_recall`` = TP/(TP + FN), ``micro_f1`` = 2TP/(2TP + FP + FN); a ratio 0/0, nothing to find and
    nothing found, is 1. Source: ``prob-ml-decision``.

    Raises:
        DataError: for other shapes, no example, or a value that is neither 0 nor 1.

    >>> label_scores([[1, 0, 1], [0, 1, 0]], [[1, 0, 0], [0, 1, 0]])
    LabelScores(exact_match=0.5, hamming_loss=0.16..., micro_precision=0.66..., micro_recall=1.0, micro_f1=0.8)
    """
    decided, y = np.asarray(decided), np.asarray(y)
    if decided.ndim != 2 or decided.shape != y.shape or decided.size == 0:
        raise DataError(
            f"decided has shape {decided.shape} and y {y.shape}: expected both (m, n_L), with an example and a label"
        )
    for name, labels in (("decided", decided), ("y", y)):
        if not np.isin(labels, (0, 1)).all():
            raise DataError(f"{name} has a value that is neither 0 nor 1: decide first, as mlpjax.decide does")
    on, true = decided == 1, y == 1
    hit, false, missed = (int(np.sum(both)) for both in (on & true, on & ~true, ~on & true))
    wrong = on != true
    return LabelScores(
        exact_match=float(np.mean(~wrong.any(axis=1))),
        hamming_loss=float(np.mean(wrong)),
        micro_precision=_share(hit, hit + false),
        micro_recall=_share(hit, hit + missed),
        micro_f1=_share(2 * hit, 2 * hit + false + missed),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
