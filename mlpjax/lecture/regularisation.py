"""Checks of the section *Regularisation*, first part: what L1, L2 and both do to the weights of a linear model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import minimize

import mlpjax
from mlpjax import Batch, Config, Layer, optim
from mlpjax.claims import Claim, agree, equal, holds
from mlpjax.penalties import elastic_net, elastic_net_gradient, l1_gradient, l1_penalty, l2_gradient, l2_penalty
from mlpjax.shrinkage import ista, orthonormal_solution, proximal_step, ridge, soft_threshold

_M, _LAMBDA_1, _LAMBDA_2 = 8, 0.6, 1.2
_L1, _L2 = _LAMBDA_1 / (2 * _M), _LAMBDA_2 / _M


def _least_squares(orthonormal: bool) -> tuple[Any, Any]:
    """Twenty examples of six features; with XᵀX/m = I, or correlated."""
    rng: Any = np.random.default_rng(2)
    X = rng.normal(size=(20, 6)) + rng.normal(size=(20, 1))
    if orthonormal:
        X = np.linalg.qr(X)[0] * np.sqrt(20)
    return X, X @ np.array([2.0, 0.0, -1.0, 0.0, 0.3, 0.0]) + 0.3 * rng.normal(size=20)


def _descend(X: Any, y: Any, l1: float, steps: int = 500) -> Any:
    """Subgradient descent on the lasso, as plain gradient steps would do it."""
    w = np.zeros(X.shape[1])
    for _ in range(steps):
        w = w - 0.1 * (X.T @ (X @ w - y) / len(y) + l1 * np.sign(w))
    return w


def reg_goal() -> tuple[Claim, ...]:
    """Few noisy points and many features: ridge lowers the error on new points, though it raises that of training."""
    errors = []
    for seed in range(7):
        rng: Any = np.random.default_rng(seed)
        x, new = rng.uniform(-1, 1, 15), np.linspace(-1, 1, 100)
        X, X_new = (jnp.asarray(np.polynomial.chebyshev.chebvander(points, 11)) for points in (x, new))
        y = np.sin(3 * x) + 0.3 * rng.normal(size=15)
        fits = [np.asarray(ridge(X, y, l2)) for l2 in (0.0, 0.02)]
        errors.append([[np.mean((X @ w - y) ** 2), np.mean((X_new @ w - np.sin(3 * new)) ** 2)] for w in fits])
    (train, test), (train_l2, test_l2) = np.median(errors, axis=0)
    return (
        holds("test error, median of 7 sets, without and with", test > 2 * test_l2, f"{test:.3g}, {test_l2:.3g}"),
        holds("training error", train < train_l2, f"{train:.3g}, {train_l2:.3g}"),
    )


def reg_logreg_cost() -> tuple[Claim, ...]:
    """J = (1/m) Σ L + (λ₁/2m) ‖w‖₁ + (λ₂/2m) ‖w‖₂² for logistic regression, b not penalised."""
    rng: Any = np.random.default_rng(0)
    X, y, w, b = rng.normal(size=(_M, 3)), rng.integers(0, 2, _M), np.array([0.5, -2.0, 1.5]), 3.0
    config = Config(sizes=(3, 1), head="binary", l1=_L1, l2=_L2)
    params = (Layer(jnp.asarray(w[:, None]), jnp.array([b])),)
    J, aux = jax.jit(mlpjax.loss)(config, params, (), Batch(X, y))
    yhat = 1 / (1 + np.exp(-(X @ w + b)))
    data = -np.mean(y * np.log(yhat) + (1 - y) * np.log(1 - yhat))
    penalty = _LAMBDA_1 / (2 * _M) * np.abs(w).sum() + _LAMBDA_2 / (2 * _M) * (w @ w)
    return agree("J against the sum by hand", J, data + penalty), agree("the penalty, without b", aux.penalty, penalty)


def reg_l1_norm() -> tuple[Claim, ...]:
    """‖w‖₁ = Σ |w_j|."""
    w: Any = np.array([0.5, -2.0, 0.0, 1.5])
    return (
        agree("against NumPy's norm", l1_penalty(w, 1.0), np.linalg.norm(w, 1)),
        agree("(λ₁/2m) ‖w‖₁", l1_penalty(w, _L1), 0.6 / 16 * 4.0),
    )


def reg_l2_norm() -> tuple[Claim, ...]:
    """‖w‖₂² = Σ w_j² = wᵀw."""
    w: Any = np.array([0.5, -2.0, 0.0, 1.5])
    return (
        agree("against wᵀw", l2_penalty(w, 2.0), w @ w),
        agree("against NumPy's norm, squared", l2_penalty(w, 2.0), np.linalg.norm(w) ** 2),
        agree("(λ₂/2m) ‖w‖₂²", l2_penalty(w, _L2), 1.2 / 16 * 6.5),
    )


def reg_l1_grad() -> tuple[Claim, ...]:
    """The subgradient of (λ₁/2m) Σ |w_j| is (λ₁/2m) sign(w), with 0 at 0."""
    w = jnp.array([0.5, -2.0, 1.5])
    by_grad = jax.grad(lambda w: _LAMBDA_1 / (2 * _M) * jnp.sum(jnp.abs(w)))(w)
    zero, h = jnp.zeros(1), 1e-3
    central = (l1_penalty(zero + h, _L1) - l1_penalty(zero - h, _L1)) / (2 * h)
    return (
        agree("against jax.grad of Σ|w|, no w at 0", l1_gradient(w, _L1), by_grad),
        agree("at 0, against the central difference", l1_gradient(zero, _L1)[0], central),
        agree("at 0, by jax.grad of our penalty", jax.grad(l1_penalty)(zero, _L1), np.zeros(1)),
    )


def reg_l2_grad() -> Claim:
    """The gradient of (λ₂/2m) Σ w_j² is (λ₂/m) w."""
    w = jnp.array([0.5, -2.0, 1.5])
    by_grad = jax.grad(lambda w: _LAMBDA_2 / (2 * _M) * jnp.vdot(w, w))(w)
    return agree("against jax.grad", l2_gradient(w, _L2), by_grad)


def reg_lasso_sparse() -> tuple[Claim, ...]:
    """The lasso's minimiser has exact zeros; plain subgradient steps never land on them."""
    X, y = _least_squares(orthonormal=True)
    found, steps = np.asarray(ista(X, y, 0.2)), _descend(X, y, 0.2)
    return (
        agree("X orthonormal: S(w_ols, l1)", found, orthonormal_solution(X.T @ y / 20, 0.2), 1e-10),
        holds("exact zeros of 6 weights, proximal steps", np.sum(found == 0) == 3, int(np.sum(found == 0))),
        holds("exact zeros, subgradient steps", np.all(steps != 0), int(np.sum(steps == 0))),
        holds("yet near the same place", np.abs(steps - found).max() < 0.03, float(np.abs(steps - found).max())),
    )


def reg_lasso_prox() -> tuple[Claim, ...]:
    """w ← S(w − α∇, α l1): S minimises ½(w − u)² + τ|w|, and the steps end where the subgradient has 0."""
    u, tau = jnp.array([1.7, 0.4, -0.2, -2.3]), 0.6
    grid = np.linspace(-3, 3, 60_001)
    best = grid[np.argmin(0.5 * (grid[None, :] - u[:, None]) ** 2 + tau * np.abs(grid)[None, :], axis=1)]
    X, y = _least_squares(orthonormal=False)
    w = np.asarray(ista(X, y, 0.2, steps=2000))
    gradient = X.T @ (X @ w - y) / 20
    chain = optax.chain(optim.gradient_descent(0.5), optim.proximal_l1(0.5, 0.2, mask=True))
    update, _ = chain.update(jnp.ones(4), chain.init(u), u)
    return (
        agree("S against a search over 60,001 points", soft_threshold(u, tau), best, 1e-4),
        agree("one step by hand", proximal_step(u, jnp.ones(4), 0.5, 0.2), [1.1, 0.0, -0.6, -2.7]),
        agree("with optim.proximal_l1 last in the chain", u + update, [1.1, 0.0, -0.6, -2.7]),
        equal("which makes zeros that are exact", (u + update)[1], 0.0),
        agree("where w ≠ 0: ∇ = −l1 sign(w)", gradient[w != 0], -0.2 * np.sign(w[w != 0]), 1e-8),
        holds("where w = 0: |∇| < l1", np.all(np.abs(gradient[w == 0]) < 0.2), float(np.abs(gradient[w == 0]).max())),
    )


def reg_ridge_small() -> tuple[Claim, ...]:
    """Ridge makes all weights smaller and none exactly 0: (XᵀX + λI)⁻¹Xᵀy."""
    X, y = _least_squares(orthonormal=False)
    lam = 4.0
    direct = np.linalg.lstsq(
        np.vstack([X, np.sqrt(lam) * np.eye(6)]), np.append(y, np.zeros(6)), rcond=None
    )[0]  # fmt: skip
    smallest = np.abs(np.asarray(ridge(X, y, 10.0))).min()
    norms = [np.linalg.norm(ridge(X, y, l2)) for l2 in (0.0, 0.1, 1.0, 10.0)]
    Q, target = _least_squares(orthonormal=True)
    w_ols = Q.T @ target / 20
    return (
        agree("λ = m l2: as least squares with rows √λ I", ridge(X, y, lam / 20), direct, 1e-10),
        agree("X orthonormal: w_ols/(1 + l2)", ridge(Q, target, 0.5), orthonormal_solution(w_ols, 0.0, 0.5), 1e-10),
        holds("norm falls with λ", np.all(np.diff(norms) < 0), ", ".join(f"{norm:.3g}" for norm in norms)),
        holds("no exact zero: smallest |w|", smallest > 0, float(smallest)),
    )


def reg_elastic_net() -> tuple[Claim, ...]:
    """Both penalties together, the elastic net: value, gradient, and S(w_ols, l1)/(1 + l2)."""
    X, y = _least_squares(orthonormal=True)
    w = jnp.array([0.5, -2.0, 1.5])
    by_grad = jax.grad(lambda w: _L1 * jnp.sum(jnp.abs(w)) + _L2 / 2 * jnp.vdot(w, w))(w)
    found = np.asarray(ista(X, y, 0.2, 0.5))
    return (
        agree("value by hand", elastic_net(w, _L1, _L2), 0.6 / 16 * 4.0 + 1.2 / 16 * 6.5),
        agree("gradient against jax.grad", elastic_net_gradient(w, _L1, _L2), by_grad),
        agree("X orthonormal", found, orthonormal_solution(X.T @ y / 20, 0.2, 0.5), 1e-10),
        holds("zeros of the lasso, weights smaller", np.sum(found == 0) == 3, int(np.sum(found == 0))),
    )


def reg_contours() -> tuple[Claim, ...]:
    """The ellipses of the squared error touch |β₁| + |β₂| ≤ t at a corner, and the disc where no weight is 0."""
    rng: Any = np.random.default_rng(0)
    X = rng.normal(size=(30, 2))
    y = X @ np.array([2.0, 0.3]) + 0.1 * rng.normal(size=30)

    def constrained(room: Any) -> np.ndarray:
        problem = {"type": "ineq", "fun": room}
        return minimize(
            lambda w: np.mean((X @ w - y) ** 2) / 2,
            [0.1, 0.1],
            method="SLSQP",
            constraints=[problem],
            options={"ftol": 1e-14},
        ).x

    lasso, small = np.asarray(ista(X, y, 0.8)), np.asarray(ridge(X, y, 0.8))
    # |w| split into w⁺ and w⁻ is not needed: at the contact w₁ > 0
    corner = constrained(lambda w: np.abs(lasso).sum() - np.abs(w).sum())
    disc = constrained(lambda w: small @ small - w @ w)
    return (
        holds("the lasso is at a corner", lasso[1] == 0 and lasso[0] > 0.5, f"({lasso[0]:.3g}, {lasso[1]:.3g})"),
        agree("contact with the diamond, by SLSQP", corner, lasso, 1e-5),
        agree("contact with the disc, by SLSQP", disc, small, 1e-5),
        holds("ridge has no zero", np.abs(small).min() > 0.05, f"({small[0]:.3g}, {small[1]:.3g})"),
    )
