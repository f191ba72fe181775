"""One sigmoid unit, example by example: ŷ = P(Y = 1 | x) = σ(x·w + b), its loss, and the way back through it.

``w`` is ``(n,)``, ``b`` a scalar, ``x`` ``(m, n)`` or one example ``(n,)``. The whole training set, and how to fit
it, is in `mlpjax.logistic`. Source: lecture, sections *From Perceptron to Logistic Regression*, *Logistic regression
(0 hidden layers)*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.activations import sigmoid, sigmoid_derivative
from mlpjax.errors import InputError
from mlpjax.likelihood import bernoulli_logpmf


def score(w: jax.Array, b: jax.Array | float, x: jax.Array) -> jax.Array:
    """z = x·w + b = w₁x₁ + … + w_n x_n + b; ``(m, n) → (m,)``, or ``(n,) → ()``. Source: ``logreg-forward-z``.

    >>> score(jnp.array([1.0, 2.0]), 3.0, jnp.array([[4.0, 5.0]]))
    Array([17.], dtype=float32)
    """
    return x @ w + b


def predict(w: jax.Array, b: jax.Array | float, x: jax.Array) -> jax.Array:
    """ŷ = a = σ(x·w + b), the probability of class 1; ``(m, n) → (m,)``, or ``(n,) → ()``.

    Source: ``logreg-model``, ``logreg-forward-a``, ``logreg-odds-1``, ``err-missing-b``.

    >>> predict(jnp.array([1.0, 2.0]), -14.0, jnp.array([[4.0, 5.0], [0.0, 0.0]])).round(2)
    Array([0.5, 0. ], dtype=float32)
    """
    return sigmoid(score(w, b, x))


def decide(w: jax.Array, b: jax.Array | float, x: jax.Array) -> jax.Array:
    """Class 1 where ŷ ≥ ½, class 0 elsewhere; int32, ``(m, n) → (m,)``.

    Decided on the score, z ≥ 0: σ(−1e-17) rounds to ½. The boundary is a hyperplane, as the perceptron's.
    Source: ``logreg-decision``, ``logreg-decision-eq-threshold``, ``logreg-linear-limit``.

    >>> decide(jnp.array([1.0]), 0.0, jnp.array([[-1e-30], [0.0], [2.0]]))
    Array([0, 1, 1], dtype=int32)
    """
    return (score(w, b, x) >= 0).astype(jnp.int32)


def bce(yhat: jax.Array, y: jax.Array) -> jax.Array:
    """L(ŷ, y) = −(y log ŷ + (1 − y) log(1 − ŷ)) ≥ 0, elementwise, from probabilities: the minus is before both terms.

    ∞ where the true class has probability 0; to train, use `mlpjax.heads.sigmoid_cross_entropy`, from scores. The
    prediction comes first, in every loss of the package. Source: ``logreg-bce``, ``err-bce-bracket``,
    ``err-arg-order``.

    >>> bce(jnp.array([0.5, 0.75, 0.0]), jnp.array([1.0, 0.0, 1.0])).round(4)
    Array([0.6931, 1.3863,    inf], dtype=float32)
    """
    return -bernoulli_logpmf(y, yhat)


def bce_da(a: jax.Array, y: jax.Array) -> jax.Array:
    """∂L/∂a = −(y/a − (1 − y)/(1 − a)) = (a − y)/(a(1 − a)), elementwise; a is ŷ, the prediction.

    A label of 0 or 1 uses one of the two terms only. ±∞ at a sure and wrong a, where no product with ∂a/∂z = 0 is
    right: ∂L/∂z is a − y. Raises `InputError` for other than one label per output.
    Source: ``logreg-back-da``, ``mlp1-v2-back-da2``, ``prob-ml-back-dyhat``, ``err-v2-da-sign``.

    >>> bce_da(jnp.array([0.5, 0.75, 1.0]), jnp.array([1.0, 0.0, 0.0]))
    Array([-2.,  4., inf], dtype=float32)
    """
    if jnp.shape(a) != jnp.shape(y):
        raise InputError(f"a has shape {jnp.shape(a)} and y {jnp.shape(y)}: expected one label per output")
    on = y / jnp.where(y == 0, 1, a)
    off = (1 - y) / jnp.where(y == 1, 1, 1 - a)
    return off - on


class ExampleGradients(NamedTuple):
    """The derivatives of one example's loss, in the order of the chain rule; ``dw`` is ``(n,)``, the others ``()``."""

    da: jax.Array
    da_dz: jax.Array
    dz: jax.Array
    dw: jax.Array
    db: jax.Array


def example_backward(w: jax.Array, b: jax.Array | float, x: jax.Array, y: jax.Array | float) -> ExampleGradients:
    """Go back through one example ``x (n,)``: ∂L/∂a, ∂a/∂z = a(1 − a), ∂L/∂z = a − y, ∂L/∂w = x ∂L/∂z, ∂L/∂b = ∂L/∂z.

    Source: ``logreg-back-dadz``, ``logreg-back-dz``, ``logreg-back-dw``, ``logreg-back-db``.

    >>> example_backward(jnp.array([0.0, 0.0]), 0.0, jnp.array([1.0, 2.0]), 1.0).dw
    Array([-0.5, -1. ], dtype=float32)
    """
    z = score(w, b, x)
    a = sigmoid(z)
    dz = a - y
    return ExampleGradients(da=bce_da(a, jnp.asarray(y)), da_dz=sigmoid_derivative(z), dz=dz, dw=x * dz, db=dz)


def glm_step(
    w: jax.Array,
    b: jax.Array | float,
    x: jax.Array,
    y: jax.Array | float,
    alpha: float,
    link: Callable[[jax.Array], jax.Array] = sigmoid,
) -> tuple[jax.Array, jax.Array]:
    """Learn from one example: w ← w + α (y − ŷ) x, b ← b + α (y − ŷ), with ŷ = link(x·w + b).

    One rule for two models: with σ it is the gradient step of logistic regression, with
    `mlpjax.activations.binary_step` the rule of the perceptron. Returns ``(w, b)``.
    Source: ``logreg-update-rule``, ``logreg-same-rule``.

    >>> w, b = glm_step(jnp.zeros(2), 0.0, jnp.array([1.0, 2.0]), 1.0, alpha=0.5)
    >>> w
    Array([0.25, 0.5 ], dtype=float32)
    """
    error = y - link(score(w, b, x))
    return w + alpha * error * x, b + alpha * error
