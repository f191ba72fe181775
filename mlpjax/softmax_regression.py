"""Softmax regression: fit ŷ = P(Y = c | x) = softmax(x W + b)_c, the network without a hidden layer for K classes.

``W`` is ``(n, K)``, ``b`` ``(K,)``, ``X`` ``(m, n)``, ``y`` one-hot or soft ``(m, K)``. J is convex,

    J = −(1/m) Σᵢ Σ_c y_c log ŷ_c + (l2/2) Σ W²,

the bias not penalised: that of ``mlpjax.Config(sizes=(n, K), l2=l2)``. One class is redundant: with any ψ, W − ψ 1ᵀ
and b − ψ₀ 1 give the same ŷ, so that H is 0 in n + 1 directions (with l2 > 0 in the one of b). Neither method here
moves along them: gradients of all classes sum to 0, and the Newton step is the one of minimum norm. From a start
with Σ_c W_c = 0 and Σ_c b_c = 0, such as zeros, both keep these sums.

For K = 2 it is logistic regression with w = W₁ − W₀ and b = b₁ − b₀, and half of its l2.
Source: lecture, section *Types of problems*, multi-class.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_batch, check_number
from mlpjax.config import Config
from mlpjax.convex import Descent, Newton, Problem, fit_by_descent, fit_by_newton
from mlpjax.errors import DataError, InputError
from mlpjax.heads import softmax, softmax_cross_entropy, softmax_cross_entropy_dz
from mlpjax.logistic import Optimality, check_squares
from mlpjax.parameters import Batch
from mlpjax.penalties import l2_gradient, l2_penalty
from mlpjax.perceptron import augment
from mlpjax.targets import target_matrix


def predict(W: jax.Array, b: jax.Array, x: jax.Array) -> jax.Array:
    """ŷ = softmax(X W + b), ``(m, n) → (m, K)``.

    >>> predict(jnp.zeros((3, 2)), jnp.zeros(2), jnp.ones((1, 3)))
    Array([[0.5, 0.5]], dtype=float32)
    """
    return softmax(x @ W + b[None, :])


def cost(W: jax.Array, b: jax.Array, x: jax.Array, y: jax.Array, l2: float | jax.Array = 0.0) -> jax.Array:
    """J = −(1/m) Σᵢ Σ_c y_c log ŷ_c + (l2/2) Σ W², from the scores; a scalar.

    >>> cost(jnp.zeros((3, 2)), jnp.zeros(2), jnp.ones((1, 3)), jnp.array([[0.0, 1.0]])).round(4)  # log 2
    Array(0.6931, dtype=float32)
    """
    return jnp.mean(softmax_cross_entropy(x @ W + b[None, :], y)) + l2_penalty(W, l2)


def gradient(
    W: jax.Array, b: jax.Array, x: jax.Array, y: jax.Array, l2: float | jax.Array = 0.0
) -> tuple[jax.Array, jax.Array]:
    """∂J/∂W = (1/m) Xᵀ(Ŷ − Y) + l2 W ``(n, K)`` and ∂J/∂b = mean of the rows of Ŷ − Y ``(K,)``.

    >>> gradient(jnp.zeros((1, 2)), jnp.zeros(2), jnp.array([[2.0]]), jnp.array([[0.0, 1.0]]))
    (Array([[ 1., -1.]], dtype=float32), Array([ 0.5, -0.5], dtype=float32))
    """
    dz = softmax_cross_entropy_dz(x @ W + b[None, :], y)
    return x.T @ dz / len(x) + l2_gradient(W, l2), jnp.mean(dz, axis=0)


def hessian(W: jax.Array, b: jax.Array, x: jax.Array, l2: float | jax.Array = 0.0) -> jax.Array:
    """H[jc, kd] = (1/m) Σᵢ x̃_ij x̃_ik ŷ_ic (δ_cd − ŷ_id), plus l2 on the diagonal of W; ⪰ 0, with ``x̃ = (1, x)``.

    ``((n + 1) K, (n + 1) K)``, of Θ = (b; W) ``(n + 1, K)`` taken row by row. It does not depend on y.

    >>> hessian(jnp.zeros((1, 2)), jnp.zeros(2), jnp.array([[2.0]]))[:2, :2]  # of b
    Array([[ 0.25, -0.25],
           [-0.25,  0.25]], dtype=float32)
    """
    yhat, x1 = predict(W, b, x), augment(x)
    curvature = yhat[:, :, None] * (jnp.eye(len(b), dtype=x.dtype)[None] - yhat[:, None, :])
    blocks = jnp.einsum("ij,ik,icd->jckd", x1, x1, curvature) / len(x)
    return blocks.reshape(x1.shape[1] * len(b), -1) + _penalty_curvature(x1.shape[1], len(b), l2, x.dtype)


def hessian_bound(x: jax.Array, K: int, l2: float | jax.Array = 0.0) -> jax.Array:
    """B = (X̃ᵀX̃/m) ⊗ ½ (I − 11ᵀ/K), plus l2 as in `hessian`: B − H ⪰ 0 for all parameters (Böhning 1992).

    >>> hessian_bound(jnp.array([[2.0]]), 2)[:2, :2]
    Array([[ 0.25, -0.25],
           [-0.25,  0.25]], dtype=float32)
    """
    x1 = augment(x)
    most = (jnp.eye(K, dtype=x.dtype) - 1 / K) / 2
    return jnp.kron(x1.T @ x1 / len(x), most) + _penalty_curvature(x1.shape[1], K, l2, x.dtype)


def optimality(W: jax.Array, b: jax.Array, x: jax.Array, y: jax.Array, l2: float | jax.Array = 0.0) -> Optimality:
    """Measure the conditions of optimality: ‖∂J/∂(W, b)‖, and the calibration mean(ŷ_c) − mean(y_c) ``(K,)``.

    >>> optimality(jnp.zeros((1, 2)), jnp.zeros(2), jnp.ones((2, 1)), jnp.eye(2)).calibration
    Array([0., 0.], dtype=float32)
    """
    dW, db = gradient(W, b, x, y, l2)
    return Optimality(jnp.sqrt(jnp.sum(dW**2) + jnp.sum(db**2)), db)


def gradient_descent(
    x: Any,
    y: Any,
    *,
    n_classes: int,
    alpha: float,
    epochs: int,
    l2: float = 0.0,
    start: tuple[Any, Any] | None = None,
) -> Descent:
    """Fit by batch gradient descent: W ← W − α ∂J/∂W, b ← b − α ∂J/∂b, once per epoch.

    Args:
        x: ``(m, n)``.
        y: integers 0 … K − 1 ``(m,)``, or one-hot or soft rows ``(m, K)``.
        n_classes: K.
        alpha: the learning rate.
        epochs: the number of updates.
        l2: the strength of the penalty on W.
        start: ``(W, b)``; zeros by default, as J is convex.

    Raises:
        DataError: for wrong shapes or labels, and values that are not finite.
        InputError: for a wrong number.

    >>> fit = gradient_descent([[-1.0], [0.0], [1.0]], [0, 1, 2], n_classes=3, alpha=0.5, epochs=10)
    >>> fit.w.shape, bool(fit.costs[-1] < fit.costs[0])
    ((1, 3), True)
    """
    x, y = _checked(x, y, n_classes)
    return fit_by_descent(_value_and_gradient, _start(start, x, n_classes), x, y, alpha=alpha, epochs=epochs, l2=l2)


def newton(
    x: Any,
    y: Any,
    *,
    n_classes: int,
    l2: float = 0.0,
    tol: float = 1e-10,
    max_steps: int = 50,
    start: tuple[Any, Any] | None = None,
) -> Newton:
    """Fit by Newton's method, with steps of minimum norm, Θ ← Θ − t H⁺ ∂J/∂Θ, halved until J falls.

    A step costs O(((n + 1) K)³): for hundreds of parameters, not for thousands. All is as in
    `mlpjax.logistic.newton`; separable is what has a W and b that put each example into its class.

    Args:
        x: ``(m, n)``.
        y: integers 0 … K − 1 ``(m,)``, or one-hot or soft rows ``(m, K)``; each class must be there.
        n_classes: K.
        l2: the strength of the penalty on W.
        tol: the norm of the gradient at which to stop.
        max_steps: the largest number of steps.
        start: ``(W, b)``; zeros by default.

    Raises:
        DataError: for wrong shapes or labels, values that are not finite or whose squares are not, and a class without
            examples.
        InputError: for a wrong number.

    >>> fit = newton([[-1.0], [0.0], [1.0], [0.5]], [0, 1, 2, 1], n_classes=3, l2=0.1, tol=1e-6)
    >>> fit.reason, bool(abs(fit.w.sum()) < 1e-6)
    ('gradient', True)
    >>> newton([[-1.0], [0.0], [1.0]], [0, 1, 2], n_classes=3).reason
    'separable'
    """
    x, y = _checked(x, y, n_classes)
    if not bool(jnp.all(share := jnp.mean(y, axis=0))):
        missing = int(jnp.argmin(share))
        raise DataError(f"y has no example of class {missing}: expected all {n_classes}, else b grows for ever")
    check_squares(x)
    check_number("l2", l2)
    W, b = _start(start, x, n_classes)
    strength = jnp.asarray(l2, x.dtype)
    problem = Problem(
        cost=lambda theta: _cost(theta, x, y, strength),
        derivatives=lambda theta: _derivatives(theta, x, y, strength),
        bound=lambda: hessian_bound(x, n_classes, l2),
        recession=None if l2 > 0 else lambda theta: _recession(theta, x, y),
    )
    return fit_by_newton(problem, jnp.append(b, W), lambda theta: _unpacked(theta, x, y), tol=tol, max_steps=max_steps)


def _unpacked(theta: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Take W and b out of the flat Θ = (b; W)."""
    K = y.shape[1]
    return theta[K:].reshape(x.shape[1], K), theta[:K]


def _value_and_gradient(
    params: tuple[jax.Array, jax.Array], x: jax.Array, y: jax.Array, l2: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return cost(*params, x, y, l2), gradient(*params, x, y, l2)


@jax.jit
def _cost(theta: jax.Array, x: jax.Array, y: jax.Array, l2: jax.Array) -> jax.Array:
    return cost(*_unpacked(theta, x, y), x, y, l2)


@jax.jit
def _derivatives(theta: jax.Array, x: jax.Array, y: jax.Array, l2: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    params = _unpacked(theta, x, y)
    dW, db = gradient(*params, x, y, l2)
    return cost(*params, x, y, l2), jnp.append(db, dW), hessian(*params, x, l2)


@jax.jit
def _recession(theta: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Far out, the loss grows as max_c z_c − Σ y_c z_c."""
    z = augment(x) @ theta.reshape(-1, y.shape[1])
    highest = jnp.max(z, axis=1)
    return jnp.max(highest - jnp.sum(y * z, axis=1)), jnp.max(highest - jnp.min(z, axis=1))


def _penalty_curvature(rows: int, K: int, l2: float | jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """l2 on the diagonal, but for the K entries of b, which come first."""
    return jnp.diag(jnp.full(rows * K, l2, dtype).at[:K].set(0))


def _checked(x: Any, y: Any, n_classes: int) -> tuple[jax.Array, jax.Array]:
    """Return x ``(m, n)`` and one-hot y ``(m, K)`` in JAX's default float, or raise `DataError`."""
    shape = np.shape(x)
    if len(shape) != 2 or 0 in shape:
        raise DataError(f"x has shape {shape}: expected (m, n), one row per example and at least one of each")
    batch = check_batch(Config(sizes=(shape[1], n_classes)), Batch(x, y), "the data")
    dtype = jnp.result_type(float)
    return batch.x.astype(dtype), target_matrix("multiclass", batch.y, n_classes, dtype)


def _start(start: tuple[Any, Any] | None, x: jax.Array, K: int) -> tuple[jax.Array, jax.Array]:
    """Return the start ``(W, b)`` in the dtype of x; zeros for ``None``."""
    W, b = (jnp.zeros((x.shape[1], K)), jnp.zeros(K)) if start is None else start
    if np.shape(W) != (x.shape[1], K) or np.shape(b) != (K,):
        raise InputError(
            f"start has W of shape {np.shape(W)} and b of shape {np.shape(b)}: expected ({x.shape[1]}, {K}) and ({K},)"
        )
    return jnp.asarray(W, x.dtype), jnp.asarray(b, x.dtype)
