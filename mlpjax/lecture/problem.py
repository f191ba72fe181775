"""Checks of the section *Types of problems*: the choice of a head, and regression."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.heads import HEADS, relu_squared_error, relu_squared_error_dz, squared_error
from mlpjax.likelihood import gaussian_loglik, gaussian_logpdf
from mlpjax.risk import LinearWorld, draw


def _scores(n_L: int = 3, m: int = 4) -> tuple[Any, Any]:
    """Scores and labels of 0 and 1, ``(m, n_L)``."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(m, n_L)), rng.integers(0, 2, (m, n_L)).astype(float)


def _logistic(z: np.ndarray) -> Any:
    return 1 / (1 + np.exp(-z))


def _lecture_heads() -> dict[str, tuple[Any, Any]]:
    """Link and loss of each head as the slides write them, from probabilities, in NumPy."""

    def labels(yhat: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -(y * np.log(yhat) + (1 - y) * np.log(1 - yhat)).sum(axis=1)

    def classes(yhat: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -(y * np.log(yhat)).sum(axis=1)

    def half_squares(yhat: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ((yhat - y) ** 2).sum(axis=1) / 2

    return {
        "binary": (_logistic, labels),
        "multilabel": (_logistic, labels),
        "multiclass": (lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), classes),
        "regression": (lambda z: z, half_squares),
        "regression_relu": (lambda z: np.maximum(z, 0), half_squares),
    }


def _targets(head: str) -> tuple[Any, Any]:
    """Scores and targets that suit a head."""
    z, y = _scores()
    if head == "binary":
        return z[:, :1], y[:, :1]
    return z, np.eye(3)[[0, 2, 1, 0]] if head == "multiclass" else y


def prob_dispatch() -> tuple[Claim, ...]:
    """The head's name decides link and loss: each is what its slide says."""
    claims = [equal("the heads", sorted(HEADS), sorted(_lecture_heads()))]
    for name, (link, loss) in _lecture_heads().items():
        z, y = _targets(name)
        claims.append(agree(f"link of {name}", HEADS[name].link(z), link(z)))
        claims.append(agree(f"loss of {name}", HEADS[name].loss(z, y), loss(link(z), y)))
    return tuple(claims)


def prob_canonical() -> tuple[Claim, ...]:
    """Where link and loss are matched, autodiff of the loss gives ŷ − y; a ReLU output is the exception."""
    claims = []
    for name, (link, _) in _lecture_heads().items():
        z, y = _targets(name)
        dz = jax.jit(jax.grad(lambda z, loss=HEADS[name].loss, y=y: jnp.sum(loss(z, y))))(z)
        residual = link(z) - y
        expected = residual * (z > 0) if name == "regression_relu" else residual
        claims += [agree(f"jax.grad of {name}", dz, expected), agree(f"dz of {name}", HEADS[name].dz(z, y), dz)]
    return tuple(claims)


def prob_reg_model() -> tuple[Claim, ...]:
    """Several real outputs, none of which depends on the score of another; a wrong shape is refused."""
    config = mlpjax.Config(sizes=(2, 3), head="regression")
    params = (mlpjax.Layer(W=jnp.ones((2, 3)), b=jnp.zeros(3)),)
    yhat = jax.jit(mlpjax.predict)(config, params, (), np.ones((4, 2)))
    cross = {
        name: jax.jit(jax.jacobian(HEADS[name].link))(np.ones((1, 2)))[0, 0, 0, 1]
        for name in ("regression", "multiclass")
    }
    try:
        mlpjax.loss(config, params, (), mlpjax.Batch(np.ones((4, 2)), np.ones(4)))
        refused = False
    except mlpjax.DataError:
        refused = True
    return (
        equal("the shape of Ŷ", yhat.shape, (4, 3)),
        equal("∂ŷ₁/∂z₂ of regression", cross["regression"], 0),
        holds("∂ŷ₁/∂z₂ of softmax is not 0", cross["multiclass"] < -0.2, float(cross["multiclass"])),
        holds("y (m,) for three outputs is refused", refused, refused),
    )


def prob_reg_linear_out() -> tuple[Claim, ...]:
    """With the identity as output and no hidden layer, the gradient vanishes at the least-squares solution."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    solution = np.linalg.lstsq(x, y, rcond=None)[0]
    config = mlpjax.Config(sizes=(3, 2), head="regression", bias=False)

    @jax.jit
    def gradient(W: jax.Array) -> jax.Array:
        return mlpjax.backward(config, (mlpjax.Layer(W=W),), (), mlpjax.Batch(x, y))[1][0].W

    return (
        agree("dW at W = 0 is −XᵀY/m", gradient(np.zeros((3, 2))), -x.T @ y / 8),
        agree("dW at the solution is 0", gradient(solution), np.zeros((3, 2))),
    )


def prob_reg_relu_out() -> tuple[Claim, ...]:
    """A ReLU output is never negative, and has no gradient where its score is ≤ 0."""
    z, y = jnp.array([[-2.0, 0.0, 0.5], [1.0, -1.0, 3.0]]), jnp.ones((2, 3))
    dz = relu_squared_error_dz(z, y)
    return (
        equal("ŷ", HEADS["regression_relu"].link(z), np.maximum(z, 0)),
        equal("dz where z ≤ 0", np.asarray(dz)[np.asarray(z) <= 0], np.zeros(3)),
        agree("dz against jax.grad", dz, jax.jit(jax.grad(lambda z: jnp.sum(relu_squared_error(z, y))))(z)),
        agree("a target of −1 costs ½ at least", relu_squared_error(z[:, :1] - 2, -y[:, :1]), [0.5, 0.5]),
    )


@printed("err-reg-sign", lambda z, y: -jnp.sum((y - z) ** 2, axis=1) / 2)
def prob_reg_loss(form: Any = squared_error) -> tuple[Claim, ...]:
    """Twice our loss is the sum of squares; a step against its gradient comes nearer to the target."""
    z, y = _scores()
    gradient = jax.jit(jax.grad(lambda z: jnp.sum(form(z, y))))(z)
    before, after = (float(np.sum((at - y) ** 2)) for at in (z, z - 0.1 * gradient))
    return (
        agree("twice the loss", 2 * form(z, y), ((y - z) ** 2).sum(axis=1)),
        agree("its gradient is ŷ − y", gradient, z - y),
        holds("a step of descent comes nearer", after < before, f"{before:.3f} to {after:.3f}"),
    )


def prob_reg_gaussian() -> tuple[Claim, ...]:
    """y = ŷ + N(0, σ²): the residuals of drawn examples have mean 0, variance σ² and the likelihood of the noise."""
    m, std = 4000, 0.7
    world = LinearWorld(np.array([1.0, -2.0]), np.eye(2), std)
    x, y = draw(world, m, seed=0)
    yhat = x @ world.theta
    mean, variance = float(np.mean(y - yhat)), float(np.var(y - yhat))
    loglik, expected = float(gaussian_loglik(y, yhat, std)) / m, -math.log(2 * math.pi * math.e * std**2) / 2
    # four standard errors: std/√m, √2 std²/√m, and that of −ε²/(2σ²), whose variance is ½
    return (
        holds("mean 0", abs(mean) < 4 * std / math.sqrt(m), mean),
        holds(
            "variance σ²", abs(variance - std**2) < 4 * std**2 * math.sqrt(2 / m), f"{variance:.4f}, σ² = {std**2:.4f}"
        ),
        holds(
            "mean log-likelihood −½ log(2πeσ²)",
            abs(loglik - expected) < 4 * math.sqrt(0.5 / m),
            f"{loglik:.4f}, expected {expected:.4f}",
        ),
    )


def _printed_loglik(y: jax.Array, yhat: jax.Array, std: Any) -> jax.Array:
    """The slide's (2πσ)^{1/2} for (2πσ²)^{1/2}."""
    return -jnp.sum((y - yhat) ** 2) / (2 * std**2) - jnp.size(y) / 2 * jnp.log(2 * math.pi * std)


@printed("err-gauss-const", _printed_loglik)
def prob_reg_likelihood(form: Any = gaussian_loglik) -> tuple[Claim, ...]:
    """The density is the normal one: it has the right values, and integrates to 1."""
    rng = np.random.default_rng(0)
    y, yhat = rng.normal(size=(2, 5))
    grid = jnp.linspace(-20, 20, 4001)
    density = jax.jit(jax.vmap(lambda y, std: jnp.exp(form(y, jnp.zeros_like(y), std)), in_axes=(0, None)))
    claims = []
    for std in (0.5, 2.0):
        known = [math.log(NormalDist(mean, std).pdf(value)) for value, mean in zip(y, yhat, strict=True)]
        claims.append(agree(f"log p at σ = {std}", form(y, yhat, std), sum(known)))
        claims.append(agree(f"the integral at σ = {std}", jnp.trapezoid(density(grid, std), grid), 1, 1e-10))
    return tuple(claims)


def prob_reg_likelihood_prod() -> tuple[Claim, ...]:
    """The product of m densities has the factor (2πσ²)^{−m/2} and the sum of squares in one exponent."""
    rng = np.random.default_rng(0)
    (y, yhat), std = jnp.asarray(rng.normal(size=(2, 5))), 0.7
    joint = (2 * math.pi * std**2) ** (-5 / 2) * math.exp(-np.sum((y - yhat) ** 2) / (2 * std**2))
    return (
        agree("Πᵢ p(yᵢ)", jnp.prod(jnp.exp(gaussian_logpdf(y, yhat, std))), joint),
        agree("log p of all", gaussian_loglik(y, yhat, std), math.log(joint)),
    )


def prob_reg_mle_mse() -> tuple[Claim, ...]:
    """For one fixed σ the likelihood is largest where the sum of squares is least; not when σ differs by example."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(8, 2))), jnp.asarray(rng.normal(size=8))
    solution = np.linalg.lstsq(x, y, rcond=None)[0]
    gradient = jax.jit(jax.grad(lambda w, std: -jnp.sum(gaussian_logpdf(y, x @ w, std))))
    uneven = np.where(np.arange(8) < 4, 0.5, 3.0)
    rest = [gaussian_loglik(y, x @ w, 0.7) + np.sum((y - x @ w) ** 2) / (2 * 0.7**2) for w in (solution, np.ones(2))]
    return (
        agree("−log p − SSE/(2σ²) does not depend on w", rest[0], rest[1]),
        agree("∂(−log p)/∂w at least squares, σ = ½", gradient(solution, np.full(8, 0.5)), np.zeros(2)),
        holds("σ by example: another optimum", np.abs(gradient(solution, uneven)).max() > 0.1, "gradient not 0"),
    )


@printed("err-gauss-const", _printed_loglik)
def prob_reg_mle_sigma(form: Any = gaussian_loglik) -> tuple[Claim, ...]:
    """The likeliest σ² is SSE/m: there the derivative with respect to σ is 0, and it falls on both sides."""
    rng = np.random.default_rng(0)
    y, yhat = rng.normal(size=(2, 5))
    best = math.sqrt(np.mean((y - yhat) ** 2))
    below, at, above = (float(form(y, yhat, factor * best)) for factor in (0.9, 1, 1.1))
    return (
        agree("∂ log p/∂σ at √(SSE/m)", jax.jit(jax.grad(form, argnums=2))(y, yhat, best), 0),
        holds("it is the largest", below < at > above, f"{below:.3f} < {at:.3f} > {above:.3f}"),
    )


@printed("err-reg-mean", lambda z, y: jnp.sum((z - y) ** 2))
def prob_reg_cost(mean: Any = lambda z, y: jnp.mean(HEADS["regression"].metric(z, y))) -> tuple[Claim, ...]:
    """The slide's cost is the sum over examples, m times the mean square; data seen twice do not change a mean."""
    z, y = _scores(n_L=1)
    return (
        agree("Σᵢ(yᵢ − ŷᵢ)² = m · MSE", len(z) * mean(z, y), np.sum((z - y) ** 2)),
        agree("Σᵢ(yᵢ − ŷᵢ)² = 2 Σᵢ Lᵢ", 2 * jnp.sum(squared_error(z, y)), np.sum((z - y) ** 2)),
        agree("the mean of the data twice", mean(np.tile(z, (2, 1)), np.tile(y, (2, 1))), mean(z, y)),
    )
