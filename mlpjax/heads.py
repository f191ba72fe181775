"""The heads: what the output layer means, for each type of problem.

A head is a link ŷ(z), a loss Lᵢ(z, y), its derivatives ∂Lᵢ/∂z and ∂²Lᵢ/∂z² derived by hand, a decision and a metric.
Losses take **scores** z, not probabilities: they stay finite where ``log ŷ`` would be −∞, as long as the difference of
two scores, or the sum of squares, is a number of their dtype. Lᵢ sums over the outputs; neither Lᵢ nor ``dz`` has a
1/m: the row weight is applied once, in `mlpjax.backward`. NaN passes, but for decisions and metrics, which cannot say
it: there it counts as below ½, and as the largest of the classes.

| head | link | loss per example | ∂Lᵢ/∂z | (∂²Lᵢ/∂z²) v |
|---|---|---|---|---|
| `binary`, `multilabel` | σ(z) | −Σ_o y_o log ŷ_o + (1 − y_o) log(1 − ŷ_o) | ŷ − y | ŷ(1 − ŷ) ⊙ v |
| `multiclass` | softmax(z) | −Σ_c y_c log ŷ_c | ŷ Σ_c y_c − y | ŷ ⊙ (v − ŷ·v) Σ_c y_c |
| `regression` | z | ½ Σ_c (ŷ_c − y_c)² | ŷ − y | v |
| `regression_relu` | relu(z) | ½ Σ_c (ŷ_c − y_c)² | (ŷ − y) ⊙ relu′(z) | relu′(z) ⊙ v |

Inside a head ``z`` and ``y`` are both ``(m, n_L)``; `mlpjax.targets` brings labels to that form.

Source: lecture, section *Types of problems*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.activations import identity, relu, relu_derivative, sigmoid, sigmoid_derivative, softplus


class Head(NamedTuple):
    """One type of problem.

    ``link(z)`` is Ŷ ``(m, n_L)``; ``loss(z, y)`` is Lᵢ ``(m,)``; ``dz(z, y)`` is ∂Lᵢ/∂zᵢ ``(m, n_L)``;
    ``ddz(z, y, Rz)`` is (∂²Lᵢ/∂zᵢ²) R{zᵢ} ``(m, n_L)``, the Hessian of each row's loss times that row of ``Rz``;
    ``decide(yhat)`` are the decisions; ``metric(z, y)`` is a score per example ``(m,)`` whose weighted mean is
    reported as ``metric_name``.
    """

    link: Callable[[jax.Array], jax.Array]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    dz: Callable[[jax.Array, jax.Array], jax.Array]
    ddz: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    decide: Callable[[jax.Array], jax.Array]
    metric: Callable[[jax.Array, jax.Array], jax.Array]
    metric_name: str
    higher_is_better: bool


def sigmoid_cross_entropy(z: jax.Array, y: jax.Array) -> jax.Array:
    """Lᵢ = −Σ_o [y_o log σ(z_o) + (1 − y_o) log(1 − σ(z_o))], from scores; ``(m, n_L) → (m,)``.

    With −log σ(z) = softplus(−z) and −log(1 − σ(z)) = softplus(z). An infinite score on the right side costs 0.
    Source: ``prob-ml-loss``, ``logreg-bce-logits``, ``trap-maxabs``, ``trap-prob-bce``, ``trap-xlogy``.

    >>> sigmoid_cross_entropy(jnp.array([[0.0], [1e4]]), jnp.array([[1.0], [0.0]]))
    Array([6.931472e-01, 1.000000e+04], dtype=float32)
    """
    # 0 · ∞ is kept out: a label of exactly 0 or 1 uses one term only
    on = jnp.where(y != 0, y * softplus(-z), 0)
    off = jnp.where(y != 1, (1 - y) * softplus(z), 0)
    return jnp.sum(on + off, axis=1)


def sigmoid_cross_entropy_dz(z: jax.Array, y: jax.Array) -> jax.Array:
    """∂Lᵢ/∂z = ŷ − y with ŷ = σ(z). Source: ``prob-ml-back-dz``, ``init-zero-back-dz2``, ``trap-m-factor``.

    >>> sigmoid_cross_entropy_dz(jnp.array([[0.0], [1e4]]), jnp.array([[1.0], [0.0]]))
    Array([[-0.5],
           [ 1. ]], dtype=float32)
    """
    return sigmoid(z) - y


def sigmoid_cross_entropy_ddz(z: jax.Array, y: jax.Array, Rz: jax.Array) -> jax.Array:
    """(∂²Lᵢ/∂z²) R{z} = ŷ(1 − ŷ) ⊙ R{z}: diagonal, and without y.

    >>> sigmoid_cross_entropy_ddz(jnp.array([[0.0], [1e4]]), jnp.array([[1.0], [0.0]]), jnp.array([[2.0], [2.0]]))
    Array([[0.5],
           [0. ]], dtype=float32)
    """
    return sigmoid_derivative(z) * Rz


def softmax(z: jax.Array) -> jax.Array:
    """ŷ_c = e^{z_c} / Σ_o e^{z_o}, row by row, the row maximum taken off first.

    A score of −∞ is a class that cannot be. A row with +∞, or of −∞ alone, has no softmax: NaN.
    Source: ``prob-mc-softmax``, ``prob-mc-sum1``, ``trap-softmax-max``.

    >>> softmax(jnp.array([[0.0, 0.0], [1e4, 0.0]]))
    Array([[0.5, 0.5],
           [1. , 0. ]], dtype=float32)
    """
    e = jnp.exp(z - _row_max(z))
    return e / jnp.sum(e, axis=1, keepdims=True)


def softmax_cross_entropy(z: jax.Array, y: jax.Array) -> jax.Array:
    """Lᵢ = −Σ_c y_c log ŷ_c with ŷ = softmax(z), from scores; ``(m, K) → (m,)``.

    Source: ``prob-mc-loss``, ``logreg-loss-ce``, ``err-ce-labels``.

    >>> softmax_cross_entropy(jnp.array([[0.0, 0.0], [1e4, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    Array([6.931472e-01, 1.000000e+04], dtype=float32)
    """
    shifted = z - _row_max(z)
    log_yhat = shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=1, keepdims=True))
    # a class with y_c = 0 does not count, even at z_c = −∞
    return -jnp.sum(jnp.where(y != 0, y * log_yhat, 0), axis=1)


def softmax_cross_entropy_dz(z: jax.Array, y: jax.Array) -> jax.Array:
    """∂Lᵢ/∂z_o = ŷ_o Σ_c y_c − y_o, which is ŷ − y as labels sum to 1.

    Source: ``prob-mc-back-simplify``, ``prob-mc-same-as-binary``, ``prob-mc-hessian-null``.

    >>> softmax_cross_entropy_dz(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 0.0]]))
    Array([[-0.5,  0.5]], dtype=float32)
    """
    return softmax(z) * jnp.sum(y, axis=1, keepdims=True) - y


def softmax_cross_entropy_ddz(z: jax.Array, y: jax.Array, Rz: jax.Array) -> jax.Array:
    """(∂²Lᵢ/∂z²) R{z} = [ŷ ⊙ R{z} − ŷ (ŷ·R{z})] Σ_c y_c: (diag ŷ − ŷŷᵀ) R{z}, as labels sum to 1.

    Positive semidefinite; 0 for R{z} ∝ 1, so that R{z} may be taken relative to that of the likeliest class: a
    confident row then keeps its digits. Source: ``prob-mc-hessian-null``.

    >>> softmax_cross_entropy_ddz(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 0.0]]), jnp.array([[4.0, 0.0]]))
    Array([[ 1., -1.]], dtype=float32)
    """
    yhat = softmax(z)
    Rz = Rz - jnp.take_along_axis(Rz, jnp.argmax(z, axis=1, keepdims=True), axis=1)
    return yhat * (Rz - jnp.sum(yhat * Rz, axis=1, keepdims=True)) * jnp.sum(y, axis=1, keepdims=True)


def squared_error(z: jax.Array, y: jax.Array) -> jax.Array:
    """Lᵢ = ½ Σ_c (z_c − y_c)²; ``(m, n_L) → (m,)``.

    Source: ``prob-reg-loss``, ``prob-reg-cost``, ``logreg-loss-mse``, ``err-reg-sign``, ``err-mse-conventions``,
    ``trap-sum-outputs``.

    >>> squared_error(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 1.0]]))
    Array([2.5], dtype=float32)
    """
    return jnp.sum((z - y) ** 2, axis=1) / 2


def squared_error_dz(z: jax.Array, y: jax.Array) -> jax.Array:
    """∂Lᵢ/∂z = ŷ − y with ŷ = z. Source: ``prob-canonical``, ``prob-reg-linear-out``.

    >>> squared_error_dz(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 1.0]]))
    Array([[1., 2.]], dtype=float32)
    """
    return z - y


def squared_error_ddz(z: jax.Array, y: jax.Array, Rz: jax.Array) -> jax.Array:
    """(∂²Lᵢ/∂z²) R{z} = R{z}: the Hessian is I.

    >>> squared_error_ddz(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 1.0]]), jnp.array([[5.0, 6.0]]))
    Array([[5., 6.]], dtype=float32)
    """
    return Rz


def relu_squared_error(z: jax.Array, y: jax.Array) -> jax.Array:
    """Lᵢ = ½ Σ_c (relu(z_c) − y_c)², for targets ≥ 0; ``(m, n_L) → (m,)``. Source: ``prob-reg-relu-out``.

    >>> relu_squared_error(jnp.array([[-1.0, 3.0]]), jnp.array([[0.0, 1.0]]))
    Array([2.], dtype=float32)
    """
    return squared_error(relu(z), y)


def relu_squared_error_dz(z: jax.Array, y: jax.Array) -> jax.Array:
    """∂Lᵢ/∂z = (relu(z) − y) ⊙ relu′(z): zero where z ≤ 0. Source: ``prob-reg-relu-out``.

    >>> relu_squared_error_dz(jnp.array([[-1.0, 3.0]]), jnp.array([[0.0, 1.0]]))
    Array([[0., 2.]], dtype=float32)
    """
    return (relu(z) - y) * relu_derivative(z)


def relu_squared_error_ddz(z: jax.Array, y: jax.Array, Rz: jax.Array) -> jax.Array:
    """(∂²Lᵢ/∂z²) R{z} = relu′(z) ⊙ R{z}, as relu′² = relu′ and relu″ = 0; 0 where z ≤ 0.

    >>> relu_squared_error_ddz(jnp.array([[0.0, 3.0]]), jnp.array([[0.0, 1.0]]), jnp.array([[5.0, 6.0]]))
    Array([[0., 6.]], dtype=float32)
    """
    return relu_derivative(z) * Rz


def _decide_each(yhat: jax.Array) -> jax.Array:
    return (yhat >= 0.5).astype(jnp.int32)


def _decide_one(yhat: jax.Array) -> jax.Array:
    return _decide_each(yhat)[:, 0]


def _decide_class(yhat: jax.Array) -> jax.Array:
    return jnp.argmax(yhat, axis=1).astype(jnp.int32)


def _all_labels_right(z: jax.Array, y: jax.Array) -> jax.Array:
    # decided on the score: σ(−1e-17) rounds to ½ (``trap-decide-on-prob``)
    return jnp.all((z >= 0) == (y >= 0.5), axis=1).astype(z.dtype)


def _class_right(z: jax.Array, y: jax.Array) -> jax.Array:
    return (jnp.argmax(z, axis=1) == jnp.argmax(y, axis=1)).astype(z.dtype)


def _mean_square(z: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((z - y) ** 2, axis=1)


def _relu_mean_square(z: jax.Array, y: jax.Array) -> jax.Array:
    return _mean_square(relu(z), y)


HEADS: dict[str, Head] = {
    "binary": Head(
        sigmoid, sigmoid_cross_entropy, sigmoid_cross_entropy_dz, sigmoid_cross_entropy_ddz,
        _decide_one, _all_labels_right, "accuracy", True,
    ),
    "multilabel": Head(
        sigmoid, sigmoid_cross_entropy, sigmoid_cross_entropy_dz, sigmoid_cross_entropy_ddz,
        _decide_each, _all_labels_right, "exact_match", True,
    ),
    "multiclass": Head(
        softmax, softmax_cross_entropy, softmax_cross_entropy_dz, softmax_cross_entropy_ddz,
        _decide_class, _class_right, "accuracy", True,
    ),
    "regression": Head(
        identity, squared_error, squared_error_dz, squared_error_ddz, identity, _mean_square, "mse", False
    ),
    "regression_relu": Head(
        relu, relu_squared_error, relu_squared_error_dz, relu_squared_error_ddz,
        identity, _relu_mean_square, "mse", False,
    ),
}  # fmt: skip
"""The heads by name.

Source: ``prob-dispatch``, ``prob-canonical``, ``prob-reg-model``, ``prob-ml-model``, ``logreg-single-output``,
``erm-issue-loss-choice``, ``trap-decide-on-prob``.
"""


def _row_max(z: jax.Array) -> jax.Array:
    # a constant shift of a row changes nothing (``prob-mc-redundancy``), so neither does its derivative
    return jax.lax.stop_gradient(jnp.max(z, axis=1, keepdims=True))
