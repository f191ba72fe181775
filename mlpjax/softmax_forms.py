"""Softmax in all its forms: the Jacobian, the redundant class, the log-odds, two classes, and the derivation of ∂L/∂z.

Rows are examples: scores ``z (m, K)`` and probabilities ``yhat (m, K)``; column o is class o + 1 of the lecture.
With K scores one is redundant: taking the same ψ from every column of ``W (n, K)`` changes no probability.

Source: lecture, section *Types of problems*, multi-class.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.errors import InputError
from mlpjax.heads import softmax


def softmax_vjp(da: jax.Array, yhat: jax.Array) -> jax.Array:
    """∂L/∂z = ŷ ⊙ (dA − Σ_c dA_c ŷ_c), row by row, from dA = ∂L/∂ŷ; ``(m, K), (m, K) → (m, K)``.

    The row's Jacobian times dA, without forming the K × K matrix.
    Source: ``prob-mc-back-split``, ``deep-back-softmax``.

    >>> softmax_vjp(jnp.array([[-2.0, 0.0]]), jnp.array([[0.5, 0.5]]))
    Array([[-0.5,  0.5]], dtype=float32)
    """
    _check_same(da, yhat, "da")
    return yhat * (da - jnp.sum(da * yhat, axis=1, keepdims=True))


def quotient_rule(f: Any, df: Any, g: Any, dg: Any) -> Any:
    """(f/g)′ = f′/g − f g′/g², element by element; g = 0 gives what a division by 0 gives.

    Source: ``prob-mc-quotient``.

    >>> quotient_rule(3.0, 1.0, 2.0, 4.0)
    -2.5
    """
    # not over g², which is 0 or ∞ long before the result is
    return (df - f / g * dg) / g


def softmax_jacobian(yhat: jax.Array) -> jax.Array:
    """∂ŷ_c/∂z_o = ŷ_c(1 − ŷ_c) for c = o and −ŷ_c ŷ_o else: diag(ŷ) − ŷŷᵀ of one example; ``(K,) → (K, K)``.

    Symmetric, positive semi-definite, and each row sums to 0. Source: ``prob-mc-jac-diag``, ``prob-mc-jac-off``,
    ``prob-mc-jac-props``, ``err-softmax-index``.

    Raises:
        InputError: for anything but one example's probabilities (K,); rows go through ``jax.vmap``.

    >>> softmax_jacobian(jnp.array([0.5, 0.25, 0.25]))
    Array([[ 0.25  , -0.125 , -0.125 ],
           [-0.125 ,  0.1875, -0.0625],
           [-0.125 , -0.0625,  0.1875]], dtype=float32)
    """
    if jnp.ndim(yhat) != 1:
        raise InputError(
            f"yhat has shape {jnp.shape(yhat)}: expected (K,), one example; use jax.vmap(softmax_jacobian) for rows"
        )
    # the diagonal as ŷ(1 − ŷ): ŷ − ŷ² would cancel near 1
    off = -yhat[:, None] * yhat[None, :]
    return jnp.where(jnp.eye(len(yhat), dtype=bool), (yhat * (1 - yhat))[:, None], off)


def cross_entropy_dyhat(yhat: jax.Array, y: jax.Array) -> jax.Array:
    """∂L/∂ŷ_c = −y_c/ŷ_c of L = −Σ_c y_c log ŷ_c; ``(m, K), (m, K) → (m, K)``.

    A class with y_c = 0 does not count: 0, even at ŷ_c = 0. Source: ``prob-mc-back-dyhat``.

    >>> cross_entropy_dyhat(jnp.array([[0.25, 0.75, 0.0]]), jnp.array([[1.0, 0.0, 0.0]]))
    Array([[-4., -0., -0.]], dtype=float32)
    """
    _check_same(y, yhat, "y")
    return -y / jnp.where(y == 0, 1, yhat)


class SoftmaxSteps(NamedTuple):
    """The lines that lead from the chain rule to ŷ − y, each ``(m, K)``, in the lecture's order.

    The first six are equal whatever the labels; ``with_one`` and ``result`` need Σ_c y_c = 1.
    """

    chain: jax.Array
    split: jax.Array
    factors: jax.Array
    cancelled: jax.Array
    expanded: jax.Array
    collected: jax.Array
    with_one: jax.Array
    result: jax.Array


def softmax_steps(z: jax.Array, y: jax.Array) -> SoftmaxSteps:
    """Walk through the derivation of ∂L/∂z_o for L = −Σ_c y_c log ŷ_c, ŷ = softmax(z); ``(m, K), (m, K)``.

        chain      Σ_c ∂L/∂ŷ_c ∂ŷ_c/∂z_o
        split      ∂L/∂ŷ_o ∂ŷ_o/∂z_o + Σ_{c≠o} ∂L/∂ŷ_c ∂ŷ_c/∂z_o
        factors    −(y_o/ŷ_o) ŷ_o(1 − ŷ_o) + Σ_{c≠o} (y_c/ŷ_c) ŷ_c ŷ_o
        cancelled  −y_o(1 − ŷ_o) + Σ_{c≠o} y_c ŷ_o
        expanded   −y_o + y_o ŷ_o + Σ_{c≠o} y_c ŷ_o
        collected  −y_o + ŷ_o Σ_c y_c
        with_one   −y_o + ŷ_o · 1
        result     ŷ_o − y_o

    Labels need not be one-hot: where a row does not sum to 1, the last two lines differ from the others. A
    probability that underflows to 0 makes the first three NaN at its label. Source: ``prob-mc-back-split``,
    ``prob-mc-back-simplify``, ``prob-mc-back-dz``, ``err-softmax-sum-y``.

    >>> steps = softmax_steps(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 0.0]]))
    >>> steps.chain, steps.result
    (Array([[-0.5,  0.5]], dtype=float32), Array([[-0.5,  0.5]], dtype=float32))
    """
    yhat = softmax(z)
    dyhat = cross_entropy_dyhat(yhat, y)
    jacobian = jax.vmap(softmax_jacobian)(yhat)  # [i, c, o]
    own = jnp.eye(z.shape[1], dtype=bool)[None]
    others = ~own[0]
    terms = dyhat[:, :, None] * jacobian

    def over_others(of_pair: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(own, 0, of_pair), axis=1)

    diagonal = jnp.diagonal(jacobian, axis1=1, axis2=2)
    ratio = y / yhat
    rest = (y @ others.astype(y.dtype)) * yhat
    return SoftmaxSteps(
        chain=jnp.sum(terms, axis=1),
        split=dyhat * diagonal + over_others(terms),
        factors=-ratio * yhat * (1 - yhat) + over_others((ratio * yhat)[:, :, None] * yhat[:, None, :]),
        cancelled=-y * (1 - yhat) + rest,
        expanded=-y + y * yhat + rest,
        collected=-y + yhat * jnp.sum(y, axis=1, keepdims=True),
        with_one=-y + yhat * 1,
        result=yhat - y,
    )


def shift_weights(W: jax.Array, psi: jax.Array) -> jax.Array:
    """Take ψ ``(n,)`` from every class's vector, W − ψ1ᵀ; ``(n, K) → (n, K)``: the same probabilities.

    The row maximum that `softmax` takes off is the case ψ·x = max z. Along ψ1ᵀ the cost is flat.
    Source: ``prob-mc-redundancy``.

    >>> shift_weights(jnp.array([[1.0, 5.0], [2.0, 7.0]]), jnp.array([1.0, 2.0]))
    Array([[0., 4.],
           [0., 5.]], dtype=float32)
    """
    if jnp.ndim(W) != 2 or jnp.shape(psi) != (W.shape[0],):
        raise InputError(
            f"W has shape {jnp.shape(W)} and psi {jnp.shape(psi)}: expected (n, K) and (n,), one ψ for all classes"
        )
    return W - psi[:, None]


def reduced_weights(W: jax.Array) -> jax.Array:
    """v_o = w_o − w_K for o < K, which is ψ = w_K; ``(n, K) → (n, K − 1)``.

    Source: ``prob-mc-psi-wK``, ``err-softmax-reparam``.

    >>> reduced_weights(jnp.array([[1.0, 2.0, 5.0]]))
    Array([[-4., -3.]], dtype=float32)
    """
    _check_classes(W, "W", "n")
    return shift_weights(W, W[:, -1])[:, :-1]


def softmax_reduced(v: jax.Array) -> jax.Array:
    """The K probabilities from K − 1 scores v_o = z_o − z_K; ``(m, K − 1) → (m, K)``.

    ŷ_o = e^{v_o}/(1 + Σ_{c<K} e^{v_c}) for o < K and ŷ_K = 1/(1 + Σ_{c<K} e^{v_c}), without overflow.
    Source: ``prob-mc-psi-wK``, ``prob-mc-psi-PK``.

    >>> softmax_reduced(jnp.array([[0.0], [1e4]]))
    Array([[0.5, 0.5],
           [1. , 0. ]], dtype=float32)
    """
    if jnp.ndim(v) != 2:
        raise InputError(f"v has shape {jnp.shape(v)}: expected (m, K − 1), the scores less that of class K")
    shift = jnp.maximum(jnp.max(v, axis=1, keepdims=True), 0)
    e, last = jnp.exp(v - shift), jnp.exp(-shift)
    return jnp.concatenate([e, last], axis=1) / (last + jnp.sum(e, axis=1, keepdims=True))


def log_odds(z: jax.Array, reference: int = -1) -> jax.Array:
    """log(ŷ_o/ŷ_ref) = z_o − z_ref for every class, linear in x where z is; ``(m, K) → (m, K)``.

    The reference is class K by default; its own column is 0. Source: ``prob-mc-logodds``, ``err-softmax-logodds``.

    >>> log_odds(jnp.array([[1.0, 4.0, 2.0]]))
    Array([[-1.,  2.,  0.]], dtype=float32)
    """
    _check_classes(z, "z", "m")
    if not -z.shape[1] <= reference < z.shape[1]:
        raise InputError(f"reference is {reference}: expected a class index 0 … {z.shape[1] - 1}, or −1 for the last")
    return z - z[:, reference][:, None]


def softmax_as_logistic(W: jax.Array, b: jax.Array, positive: int = 0) -> tuple[jax.Array, jax.Array]:
    """Softmax of two classes as a logistic unit: w = w₁ − w₂, b = b₁ − b₂; ``(n, 2), (2,) → (n,), ()``.

    P(positive) = σ(x·w + b), and the other class has the rest. ``positive`` is column 0, the lecture's class 1,
    unless given. A step of gradient descent on the softmax moves w₁ − w₂ as twice the learning rate would move
    w. Source: ``prob-mc-k2-p1``, ``prob-mc-k2-p2``, ``prob-mc-k2-training``, ``err-softmax-psi``.

    >>> softmax_as_logistic(jnp.array([[3.0, 1.0]]), jnp.array([0.5, 0.0]))
    (Array([2.], dtype=float32), Array(0.5, dtype=float32))
    """
    if jnp.ndim(W) != 2 or W.shape[1] != 2 or jnp.shape(b) != (2,):
        raise InputError(
            f"W has shape {jnp.shape(W)} and b {jnp.shape(b)}: expected (n, 2) and (2,), as only two classes are "
            "one logistic unit"
        )
    if positive not in (0, 1):
        raise InputError(f"positive is {positive}: expected the column 0 or 1")
    return W[:, positive] - W[:, 1 - positive], b[positive] - b[1 - positive]


def logistic_as_softmax(w: jax.Array, b: jax.Array, positive: int = 0) -> tuple[jax.Array, jax.Array]:
    """A logistic unit as a softmax of two classes, the other class all 0 (ψ = its w); ``(n,), () → (n, 2), (2,)``.

    Source: ``prob-mc-k2-p2``.

    >>> logistic_as_softmax(jnp.array([2.0]), jnp.array([0.5])[0])
    (Array([[2., 0.]], dtype=float32), Array([0.5, 0. ], dtype=float32))
    """
    if jnp.ndim(w) != 1 or jnp.ndim(b) != 0:
        raise InputError(f"w has shape {jnp.shape(w)} and b {jnp.shape(b)}: expected (n,) and a number")
    if positive not in (0, 1):
        raise InputError(f"positive is {positive}: expected the column 0 or 1")
    on = jnp.arange(2) == positive
    return jnp.where(on[None, :], w[:, None], 0), jnp.where(on, b, 0)


def _check_same(value: jax.Array, yhat: jax.Array, name: str) -> None:
    if jnp.ndim(yhat) != 2 or jnp.shape(value) != jnp.shape(yhat):
        raise InputError(
            f"{name} has shape {jnp.shape(value)} and yhat {jnp.shape(yhat)}: expected both (m, K), one row per example"
        )


def _check_classes(value: jax.Array, name: str, rows: str) -> None:
    if jnp.ndim(value) != 2 or value.shape[1] < 2:
        raise InputError(f"{name} has shape {jnp.shape(value)}: expected ({rows}, K) with K ≥ 2 classes")
