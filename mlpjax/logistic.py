"""Logistic regression: fit ŷ = P(Y = 1 | x) = σ(x·w + b), the network without a hidden layer.

``w`` is ``(n,)``, ``b`` a scalar, ``X`` ``(m, n)``; the unit itself is in `mlpjax.logistic_unit`. J is convex,

    J = (1/m) Σᵢ [softplus(zᵢ) − yᵢ zᵢ] + (l2/2) Σ w²,  z = X w + b,

the bias not penalised: that of ``mlpjax.Config(sizes=(n, 1), head="binary", l2=l2)``. It is minimised by gradient
descent or by Newton's method. Source: lecture, sections *Logistic regression* and *Binary classification*.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import sigmoid_derivative
from mlpjax.checks import check_batch, check_number
from mlpjax.config import Config
from mlpjax.convex import Descent, Newton, Problem, fit_by_descent, fit_by_newton
from mlpjax.errors import DataError, InputError
from mlpjax.heads import sigmoid_cross_entropy, sigmoid_cross_entropy_dz
from mlpjax.logistic_unit import score
from mlpjax.parameters import Batch
from mlpjax.penalties import l2_gradient, l2_penalty
from mlpjax.perceptron import augment


def cost(w: jax.Array, b: jax.Array | float, x: jax.Array, y: jax.Array, l2: float | jax.Array = 0.0) -> jax.Array:
    """J = −(1/m) Σᵢ [yᵢ log ŷᵢ + (1 − yᵢ) log(1 − ŷᵢ)] + (l2/2) Σ w², computed from the scores; a scalar.

    ``y`` is ``(m,)``. Without a penalty J is −log likelihood/m. Source: ``logreg-cost-bce``, ``logreg-cost-mle``,
    ``err-bce-cost-1m``, ``err-bce-bracket``.

    >>> cost(jnp.zeros(2), 0.0, jnp.ones((3, 2)), jnp.array([0.0, 1.0, 1.0])).round(4)  # log 2
    Array(0.6931, dtype=float32)
    """
    z = score(w, b, x)
    return jnp.mean(sigmoid_cross_entropy(z[:, None], y[:, None])) + l2_penalty(w, l2)


def gradient(
    w: jax.Array, b: jax.Array | float, x: jax.Array, y: jax.Array, l2: float | jax.Array = 0.0
) -> tuple[jax.Array, jax.Array]:
    """∂J/∂w = (1/m) Xᵀ(ŷ − y) + l2 w ``(n,)`` and ∂J/∂b = mean(ŷ − y) ``()``. Source: ``logreg-grad-w``.

    >>> gradient(jnp.zeros(2), 0.0, jnp.array([[1.0, 2.0]]), jnp.array([1.0]))
    (Array([-0.5, -1. ], dtype=float32), Array(-0.5, dtype=float32))
    """
    dz = sigmoid_cross_entropy_dz(score(w, b, x), y)
    return x.T @ dz / len(x) + l2_gradient(w, l2), jnp.mean(dz)


def hessian(w: jax.Array, b: jax.Array | float, x: jax.Array, l2: float | jax.Array = 0.0) -> jax.Array:
    """H = (1/m) X̃ᵀ diag(a(1 − a)) X̃ + l2 diag(0, 1, …, 1) ⪰ 0, ``(n + 1, n + 1)``, of θ = (b, w), X̃ = (1, X).

    It does not depend on y: J is convex. Source: ``logreg-convex``.

    >>> hessian(jnp.zeros(1), 0.0, jnp.array([[2.0], [2.0]]))
    Array([[0.25, 0.5 ],
           [0.5 , 1.  ]], dtype=float32)
    """
    x1 = augment(x)
    curvature = sigmoid_derivative(score(w, b, x))
    return x1.T @ (curvature[:, None] * x1) / len(x) + _penalty_curvature(x1, l2)


def hessian_bound(x: jax.Array, l2: float | jax.Array = 0.0) -> jax.Array:
    """B = X̃ᵀX̃/(4m) + l2 diag(0, 1, …, 1): B − H ⪰ 0 for all w and b, as a(1 − a) ≤ ¼ (Böhning & Lindsay 1988).

    >>> hessian_bound(jnp.array([[2.0], [2.0]]))
    Array([[0.25, 0.5 ],
           [0.5 , 1.  ]], dtype=float32)
    """
    x1 = augment(x)
    return x1.T @ x1 / (4 * len(x)) + _penalty_curvature(x1, l2)


class Optimality(NamedTuple):
    """How far parameters are from the optimum: both are 0 there.

    ``gradient_norm`` is ‖(∂J/∂w, ∂J/∂b)‖, and ``calibration`` is ∂J/∂b = mean(ŷ) − mean(y): at the optimum the mean
    prediction is the frequency of class 1, with or without l2.
    """

    gradient_norm: jax.Array
    calibration: jax.Array


def optimality(
    w: jax.Array, b: jax.Array | float, x: jax.Array, y: jax.Array, l2: float | jax.Array = 0.0
) -> Optimality:
    """Measure the conditions of optimality, which suffice as J is convex. Source: ``logreg-calibration``.

    >>> optimality(jnp.zeros(1), 0.0, jnp.array([[-1.0], [1.0]]), jnp.array([0.5, 0.5])).gradient_norm
    Array(0., dtype=float32)
    """
    dw, db = gradient(w, b, x, y, l2)
    return Optimality(jnp.sqrt(jnp.sum(dw**2) + db**2), db)


def gradient_descent(
    x: Any,
    y: Any,
    *,
    alpha: float,
    epochs: int,
    l2: float = 0.0,
    start: tuple[Any, Any] | None = None,
) -> Descent:
    """Fit by batch gradient descent: w ← w − α ∂J/∂w, b ← b − α ∂J/∂b, once per epoch, from all m examples.

    Args:
        x: ``(m, n)``.
        y: ``(m,)`` or ``(m, 1)``, labels 0 and 1, or probabilities.
        alpha: the learning rate; J falls at every step if it is below 2 over the largest eigenvalue of H, such as
            ``mlpjax.risk.largest_stable_step(hessian_bound(x, l2))``.
        epochs: the number of updates.
        l2: the strength of the penalty on w.
        start: ``(w, b)``; zeros by default, as J is convex.

    Raises:
        DataError: for wrong shapes or labels, and values that are not finite.
        InputError: for a wrong number.

    Source: ``logreg-gd``, ``logreg-gd-algorithm``, ``logreg-update-t``, ``logreg-batch-gd``, ``err-gd-nesting``.

    >>> from mlpjax.toys import gate
    >>> fit = gradient_descent(*gate("or_gate"), alpha=1.0, epochs=100)
    >>> fit.costs[0].round(3), fit.costs[-1].round(3)  # from log 2
    (np.float32(0.693), np.float32(0.089))
    """
    x, y = _checked(x, y)
    return fit_by_descent(_value_and_gradient, _start(start, x), x, y, alpha=alpha, epochs=epochs, l2=l2)


def newton(
    x: Any,
    y: Any,
    *,
    l2: float = 0.0,
    tol: float = 1e-10,
    max_steps: int = 50,
    start: tuple[Any, Any] | None = None,
) -> Newton:
    """Fit by Newton's method: (b, w) ← (b, w) − t H⁻¹ (∂J/∂b, ∂J/∂w), t halved until J falls (`mlpjax.convex`).

    It is also called IRLS, iteratively reweighted least squares: a full step solves the least squares of the working
    response z + (y − ŷ)/s on X̃, with the weights s = ŷ(1 − ŷ).

    Scikit-learn's ``C`` is ``l2 = 1/(m C)`` here. Columns that depend on each other give the solution of smallest
    norm. In float32 the rounding of the gradient is about 1e-7, and a smaller ``tol`` ends with ``"precision"``.

    Args:
        x: ``(m, n)``.
        y: ``(m,)`` or ``(m, 1)``, labels 0 and 1, or probabilities; both classes must be there.
        l2: the strength of the penalty on w.
        tol: the norm of the gradient at which to stop.
        max_steps: the largest number of steps.
        start: ``(w, b)``; zeros by default.

    Returns:
        A `mlpjax.convex.Newton`. If a hyperplane separates the classes and l2 = 0, there is no optimum: ``reason`` is
        then ``"separable"``, ``converged`` false, and ``message`` says so.

    Raises:
        DataError: for wrong shapes or labels, values that are not finite or whose squares are not, and data of one
            class.
        InputError: for a wrong number.

    Source: ``logreg-xor-ln2``, ``logreg-mle``, ``logreg-spam``, ``logreg-playground``.

    >>> from mlpjax.toys import gate
    >>> fit = newton(*gate("xor_gate"), start=([1.0, -2.0], 0.5), tol=1e-6)
    >>> fit.reason, fit.costs[-1].round(4)  # log 2
    ('gradient', np.float64(0.6931))
    >>> newton(*gate("and_gate")).reason
    'separable'
    """
    x, y = _checked(x, y)
    if not 0 < float(jnp.mean(y)) < 1:
        raise DataError(f"y is {float(y[0]):g} in all {len(y)} rows: expected both classes, else b grows for ever")
    check_squares(x)
    check_number("l2", l2)
    w, b = _start(start, x)
    strength = jnp.asarray(l2, x.dtype)
    problem = Problem(
        cost=lambda theta: _cost(theta, x, y, strength),
        derivatives=lambda theta: _derivatives(theta, x, y, strength),
        bound=lambda: hessian_bound(x, l2),
        recession=None if l2 > 0 else lambda theta: _recession(theta, x, y),
    )
    return fit_by_newton(problem, jnp.append(b, w), lambda theta: (theta[1:], theta[0]), tol=tol, max_steps=max_steps)


def check_squares(x: jax.Array) -> None:
    """Raise `DataError` where XᵀX, which bounds the Hessian, is not finite."""
    if not bool(jnp.isfinite(jnp.sum(x * x, axis=0)).all()):
        largest = float(jnp.max(jnp.abs(x)))
        raise DataError(f"x has values up to {largest:g}, whose squares overflow in {x.dtype}: scale its columns down")


def _penalty_curvature(x1: jax.Array, l2: float | jax.Array) -> jax.Array:
    """l2 on the diagonal, but for the bias, which comes first."""
    return jnp.diag(jnp.full(x1.shape[1], l2, x1.dtype).at[0].set(0))


def _value_and_gradient(
    params: tuple[jax.Array, jax.Array], x: jax.Array, y: jax.Array, l2: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return cost(*params, x, y, l2), gradient(*params, x, y, l2)


@jax.jit
def _cost(theta: jax.Array, x: jax.Array, y: jax.Array, l2: jax.Array) -> jax.Array:
    return cost(theta[1:], theta[0], x, y, l2)


@jax.jit
def _derivatives(theta: jax.Array, x: jax.Array, y: jax.Array, l2: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    w, b = theta[1:], theta[0]
    dw, db = gradient(w, b, x, y, l2)
    return cost(w, b, x, y, l2), jnp.append(db, dw), hessian(w, b, x, l2)


@jax.jit
def _recession(theta: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Far out, softplus(z) − y z grows as max(0, z) − y z."""
    z = augment(x) @ theta
    return jnp.max(jnp.maximum(z, 0) - y * z), jnp.max(jnp.abs(z))


def _checked(x: Any, y: Any) -> tuple[jax.Array, jax.Array]:
    """Return x ``(m, n)`` and y ``(m,)`` in JAX's default float, or raise `DataError`."""
    shape = np.shape(x)
    if len(shape) != 2 or 0 in shape:
        raise DataError(f"x has shape {shape}: expected (m, n), one row per example and at least one of each")
    batch = check_batch(Config(sizes=(shape[1], 1), head="binary"), Batch(x, y), "the data")
    dtype = jnp.result_type(float)
    return batch.x.astype(dtype), jnp.reshape(batch.y, shape[:1]).astype(dtype)


def _start(start: tuple[Any, Any] | None, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the start ``(w, b)`` in the dtype of x; zeros for ``None``."""
    w, b = (jnp.zeros(x.shape[1]), 0.0) if start is None else start
    if np.shape(w) != x.shape[1:] or np.shape(b) != ():
        raise InputError(
            f"start has w of shape {np.shape(w)} and b of shape {np.shape(b)}: expected ({x.shape[1]},) and ()"
        )
    return jnp.asarray(w, x.dtype), jnp.asarray(b, x.dtype)
