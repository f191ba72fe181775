"""What L1 and L2 penalties do to weights: zeros by the soft threshold, shrinking by ridge and by weight decay.

The least-squares problem of this module is, in the package's scale,

    min_w (1/2m) ‖y − X w‖² + l1 ‖w‖₁ + (l2/2) ‖w‖²        X (m, n), y (m,), w (n,)

With the lecture's λ's: ``l1 = λ₁/(2m)``, ``l2 = λ₂/m``. There is no bias: centre X and y for one that is free.

Source: lecture, section *Regularisation*.
"""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_number
from mlpjax.errors import InputError


def soft_threshold(u: jax.Array, tau: float | jax.Array) -> jax.Array:
    """S(u, τ) = sign(u) max(|u| − τ, 0): the minimiser of ½(w − u)² + τ|w|; exactly 0 for |u| ≤ τ.

    Source: ``reg-lasso-prox``, ``reg-lasso-sparse``.

    >>> soft_threshold(jnp.array([3.0, -0.5, -2.0]), 1.0)
    Array([ 2.,  0., -1.], dtype=float32)
    """
    return jnp.where(jnp.abs(u) <= tau, 0, u - tau * jnp.sign(u))


def proximal_step(
    w: jax.Array, dw: jax.Array, alpha: float | jax.Array, l1: float | jax.Array, l2: float | jax.Array = 0.0
) -> jax.Array:
    """w ← S(w − α dw, α l1)/(1 + α l2): a gradient step on the data's part, then the penalties' minimiser.

    ``dw`` is the gradient without penalties. A subgradient step, −α l1 sign(w), would step over 0 and not stay there.
    Source: ``reg-lasso-prox``, ``reg-elastic-net``, ``err-l1-sparse``.

    >>> proximal_step(jnp.array([1.0, 0.1]), jnp.array([1.0, 0.0]), 0.5, 0.4, 0.0)
    Array([0.3, 0. ], dtype=float32)
    """
    return soft_threshold(w - alpha * dw, alpha * l1) / (1 + alpha * l2)


def ista(X: jax.Array, y: jax.Array, l1: float, l2: float = 0.0, *, steps: int = 500) -> jax.Array:
    """Minimise the penalised least squares by proximal gradient steps from w = 0 (lasso, ridge, elastic net).

    The step is 1/λ_max(XᵀX/m), under which the objective never rises. What the L1 penalty sets to zero is exactly 0.

    Raises:
        InputError: for wrong shapes, or a penalty below 0.

    Source: ``reg-lasso-sparse``, ``reg-elastic-net``, ``reg-contours`` (Beck & Teboulle 2009).

    >>> ista(2 * jnp.eye(4), jnp.array([6.0, 1.0, -4.0, 0.2]), 1.0)
    Array([ 2.,  0., -1.,  0.], dtype=float32)
    """
    m = _check_least_squares(X, y, l1, l2)
    c, X, l1_c, l2_c = _scaled(X, l1, l2)
    square = jnp.linalg.norm(X, 2) ** 2
    alpha = m / jnp.where(square > 0, square, 1)

    def step(_: int, w: jax.Array) -> jax.Array:
        return proximal_step(w, X.T @ (X @ w - y) / m, alpha, l1_c, l2_c)

    return jax.lax.fori_loop(0, steps, step, jnp.zeros_like(X, shape=X.shape[1])) / c


def ridge(X: jax.Array, y: jax.Array, l2: float) -> jax.Array:
    """w = (XᵀX/m + l2 I)⁻¹ Xᵀy/m, that is (XᵀX + λ₂ I)⁻¹ Xᵀy: small weights, none of them exactly 0.

    Raises:
        InputError: for wrong shapes, or ``l2 < 0``.

    Source: ``reg-ridge-small``, ``reg-goal``.

    >>> ridge(2 * jnp.eye(4), jnp.array([6.0, 1.0, -4.0, 0.2]), 1.0)
    Array([ 1.5 ,  0.25, -1.  ,  0.05], dtype=float32)
    """
    m = _check_least_squares(X, y, 0.0, l2)
    c, X, _, l2_c = _scaled(X, 0.0, l2)
    return jnp.linalg.solve(X.T @ X / m + l2_c * jnp.eye(X.shape[1], dtype=X.dtype), X.T @ y / m) / c


def orthonormal_solution(w_ols: jax.Array, l1: float, l2: float = 0.0) -> jax.Array:
    """w = S(w_ols, l1)/(1 + l2): the minimiser where XᵀX/m = I, from the unpenalised w_ols = Xᵀy/m.

    l2 = 0 is the lasso, which shifts and cuts; l1 = 0 is ridge, which scales; both are the elastic net.
    Source: ``reg-lasso-sparse``, ``reg-ridge-small``, ``reg-elastic-net``, ``err-elastic``.

    >>> orthonormal_solution(jnp.array([3.0, -0.5, -2.0]), 1.0, 1.0)
    Array([ 1. ,  0. , -0.5], dtype=float32)
    """
    return soft_threshold(w_ols, l1) / (1 + l2)


def unstable_decay(alpha: float, l2: float) -> str | None:
    """Say why steps of size α with the penalty l2 cannot settle, or ``None`` where they can: α l2 < 2.

    Source: ``reg-decay-stability``, ``err-lambda-big``.

    >>> unstable_decay(0.1, 1e-4) is None, unstable_decay(0.5, 5.0)
    (True, 'α · l2 is 2.5: each step multiplies W by 1 − α · l2 = -1.5, and never settles: choose α · l2 < 2')
    """
    product = alpha * l2
    if product < 2:
        return None
    return (
        f"α · l2 is {product:g}: each step multiplies W by 1 − α · l2 = {1 - product:g}, and never settles: "
        "choose α · l2 < 2"
    )


def decay_factor(alpha: float, l2: float) -> float:
    """1 − α l2, by which a gradient step with the penalty (l2/2)‖W‖² first multiplies W; 1 − αλ/m with λ = m l2.

    |1 − α l2| < 1, so that W shrinks, if and only if 0 < α l2 < 2; above 1 the sign flips at every step.

    Warns:
        UserWarning: α l2 ≥ 2: plain gradient steps diverge, whatever the data.

    Raises:
        InputError: α or l2 is not a finite number ≥ 0.

    Source: ``reg-weight-decay``, ``reg-decay-stability``, ``err-decay-brace``.

    >>> decay_factor(0.1, 0.5)
    0.95
    """
    return _decay_factor(alpha, l2, stacklevel=3)


def decay_step(W: jax.Array, dW: jax.Array, alpha: float, l2: float) -> jax.Array:
    """W ← (1 − α l2) W − α dW, where dW has no penalty: the same as W − α (dW + l2 W).

    It is the L2 penalty for plain gradient steps only: Adam divides the penalty's gradient too, and AdamW (Loshchilov &
    Hutter 2019) decays beside it. Warns and raises as `decay_factor`.
    Source: ``reg-nn-step``, ``reg-decay-stability``, ``err-l2-adam``.

    >>> decay_step(jnp.array([[2.0]]), jnp.array([[1.0]]), 0.1, 0.5)
    Array([[1.8]], dtype=float32)
    """
    return _decay_factor(alpha, l2, stacklevel=3) * W - alpha * dW


def linear_r2(X: jax.Array, yhat: jax.Array) -> float:
    """R² of the best affine function of X, as a description of ``yhat (m,)``: 1 where a network is linear on X.

    Raises:
        InputError: for wrong shapes, or a constant ``yhat``, which has no variance to describe.

    Source: ``reg-intuition-2``.

    >>> x = jnp.linspace(-1, 1, 5)[:, None]
    >>> round(linear_r2(x, jnp.tanh(x[:, 0])), 3), round(linear_r2(x, jnp.tanh(10 * x[:, 0])), 3)
    (0.993, 0.9)
    """
    design, target = np.asarray(X, np.float64), np.asarray(yhat, np.float64)
    _check_shapes(design, target)
    design = np.column_stack([np.ones(len(target)), design])
    deviation = target - target.mean()
    if not np.any(deviation):
        raise InputError(f"yhat is {target[0]:.3g} everywhere: expected values that differ")
    residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return float(1 - np.sum(residual**2) / np.sum(deviation**2))


def _decay_factor(alpha: float, l2: float, stacklevel: int) -> float:
    check_number("alpha", alpha)
    check_number("l2", l2)
    if (why := unstable_decay(alpha, l2)) is not None:
        warnings.warn(why, UserWarning, stacklevel)
    return 1 - alpha * l2


def _check_least_squares(X: jax.Array, y: jax.Array, l1: float, l2: float) -> int:
    _check_shapes(X, y)
    check_number("l1", l1)
    check_number("l2", l2)
    return X.shape[0]


def _scaled(X: jax.Array, l1: float, l2: float) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """c = max(|X|, 1), and the same problem in c w, in which no square of a large X overflows.

    The solution does not depend on c, and no derivative is taken of it.
    """
    c = jax.lax.stop_gradient(jnp.max(jnp.abs(X), initial=1))
    return c, X / c, l1 / c, l2 / c / c


def _check_shapes(X: jax.Array | np.ndarray, y: jax.Array | np.ndarray) -> None:
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise InputError(f"X and its targets have shapes {X.shape} and {y.shape}: expected (m, n) and (m,)")
