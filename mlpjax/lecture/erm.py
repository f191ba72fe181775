"""The checks of section *Empirical risk minimisation*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.cases import make_case
from mlpjax.chunks import epoch_order
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.config import Config
from mlpjax.errors import ConfigError
from mlpjax.heads import HEADS
from mlpjax.labels import stratified_split
from mlpjax.landscapes import LANDSCAPES, trajectory
from mlpjax.mlp import autodiff, backward, loss, predict
from mlpjax.optim import make_optimizer
from mlpjax.parameters import Batch
from mlpjax.risk import (
    LinearWorld,
    convexity_gap,
    draw,
    empirical_risk,
    gradient_descent,
    largest_stable_step,
    minimise_empirical_risk,
    permute_hidden,
    risk,
    steepest_ascent,
)
from mlpjax.step import batch_rows
from mlpjax.train import fit


def erm_network() -> tuple[Claim, ...]:
    """ŷ = f_θ(x) and nothing else: the same θ and x give the same ŷ, which a sum in NumPy gives too."""
    case = make_case(Config(sizes=(3, 4, 2), activation="tanh"))
    x, (W1, b1, W2, b2) = case.batch.x, (np.asarray(leaf) for leaf in jax.tree.leaves(case.params))
    e = np.exp(np.tanh(x @ W1 + b1[None, :]) @ W2 + b2[None, :])
    f = jax.jit(lambda params, x: predict(case.config, params, case.state, x))
    yhat, again = (f(case.params, x) for _ in range(2))
    return (
        agree("Ŷ (m, n_L) by NumPy", yhat, e / e.sum(axis=1, keepdims=True)),
        equal("the same bits when asked again", yhat, again),
    )


def erm_risk() -> tuple[Claim, ...]:
    """Where p(x, y) is known the risk is a number: by formula, by quadrature, and by drawing many examples."""
    world, theta = _world(), np.array([0.5, 1.0])
    # Gauss–Hermite nodes are exact for the polynomial that the loss is
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    u, v, noise = (axis.ravel() for axis in np.meshgrid(nodes, nodes, nodes))
    w = np.prod(np.meshgrid(weights, weights, weights), axis=0).ravel() / (2 * np.pi) ** 1.5
    x = np.column_stack([u, v]) @ np.linalg.cholesky(world.covariance).T
    quadrature = np.sum(w * (x @ theta - x @ world.theta - world.noise * noise) ** 2) / 2
    R, m = risk(world, theta), 40_000
    error = abs(float(empirical_risk(theta, *draw(world, m, seed=1))) - R)
    standard = np.sqrt(2 / m) * R  # of the mean of m halved squares of a normal variable
    return (
        agree("R by quadrature", R, quadrature),
        holds("R̂ of 40,000 examples within 4 standard errors", error < 4 * standard, f"{error / standard:.2f} of them"),
        agree("R(θ*) = ½ σ², which no θ goes below", risk(world, world.theta), world.noise**2 / 2),
    )


def erm_empirical() -> tuple[Claim, ...]:
    """The empirical risk is the mean of the losses of the examples: of a network, and of a linear model."""
    case = make_case(Config(sizes=(3, 4, 2), activation="tanh"))
    J, aux = jax.jit(lambda: case.call(loss))()
    z, y = np.asarray(aux.z), np.asarray(case.batch.y)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]
    x, t = draw(_world(), 9, seed=0)
    half_squares = [(a * 2.0 + b * 3.0 - c) ** 2 / 2 for (a, b), c in zip(x, t, strict=True)]
    return (
        agree("J of a network, by NumPy", J, np.mean(losses)),
        agree("R̂ of a linear model, by NumPy", empirical_risk(np.array([2.0, 3.0]), x, t), np.mean(half_squares)),
    )


@printed("err-fit-on-test", lambda train, test: np.concatenate([train, test]))
def erm_split(fitted_on: Callable[..., Any] = lambda train, test: train) -> tuple[Claim, ...]:
    """Train and test are disjoint, and the test value is right on average only if θ is fitted on train alone."""
    world, optimism = LinearWorld(np.arange(5.0), np.eye(5), 1.0), []
    for seed in range(200):
        x, y = draw(world, 40, seed)
        train, test = stratified_split(y, 0.5, seed)
        rows = fitted_on(train, test)
        theta = minimise_empirical_risk(x[rows], y[rows])
        optimism.append(float(np.mean((x[test] @ theta - y[test]) ** 2) / 2) - risk(world, theta))
    mean, error = np.mean(optimism), np.std(optimism) / np.sqrt(200)
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    train, test = stratified_split(labels, 0.3, seed=0)
    return (
        equal("train and test together are all, each once", np.sort([*train, *test]), np.arange(60)),
        equal("the same seed gives the same split", stratified_split(labels, 0.3, seed=0)[1], test),
        equal("each class gives its share", np.bincount(labels[test]), [3, 6, 9]),
        holds("test value − risk of θ̂ is 0 on average", abs(mean) < 4 * error, f"{mean:.4f} ± {error:.4f}"),
    )


def erm_gradient_vector() -> tuple[Claim, ...]:
    """The gradient has one partial derivative per parameter: ∂L/∂w₁, ∂L/∂w₂ and ∂L/∂b of a single sigmoid unit."""
    case = make_case(Config(sizes=(2, 1), head="binary"))
    x, y = np.asarray(case.batch.x), np.asarray(case.batch.y)
    w, b = (np.ravel(leaf) for leaf in jax.tree.leaves(case.params))

    def J(theta: np.ndarray) -> float:
        z = x @ theta[:2] + theta[2]
        return float(np.mean(np.log1p(np.exp(z)) - y * z))

    _, (grads,) = jax.jit(lambda: case.call(backward))()
    g, theta, steps = (
        np.concatenate([np.ravel(leaf) for leaf in grads if leaf is not None]),
        np.array([*w, *b]),
        1e-5 * np.eye(3),
    )
    differences = [(J(theta + h) - J(theta - h)) / 2e-5 for h in steps]
    error = 1 / (1 + np.exp(-(x @ w + b[0]))) - y
    return (
        holds("one per parameter, in their tree", _shapes(grads) == _shapes(case.params[0]), _shapes(grads)[:2]),
        agree("(1/m) Σ (ŷ − y)(x₁, x₂, 1)", g, [*(x.T @ error / len(y)), error.mean()]),
        agree("central differences", g, differences, tol=1e-8),
    )


def erm_steepest_ascent() -> tuple[Claim, ...]:
    """Of 720 directions none grows faster than that of the gradient, which grows by its length."""

    def f(theta: jax.Array) -> jax.Array:
        return 3 * theta[0] - 4 * theta[1] + theta[0] ** 2

    start, angle = jnp.zeros(2), np.arange(720) * np.pi / 360
    u, slope = steepest_ascent(jax.grad(f)(start))
    around = jnp.asarray(np.column_stack([np.cos(angle), np.sin(angle)]))
    slopes = np.asarray(jax.vmap(lambda d: jax.jvp(f, (start,), (d,))[1])(around))
    best = np.asarray(around)[np.argmax(slopes)]
    return (
        agree("its slope is ‖g‖ = 5", slope, 5.0),
        agree("slope along u, by a small step", (f(start + 1e-6 * u) - f(start - 1e-6 * u)) / 2e-6, 5.0, tol=1e-8),
        holds("no direction is steeper", slopes.max() <= slope, float(slopes.max())),
        holds("the steepest of them is beside u", best @ u > np.cos(np.pi / 360), f"{best.round(3)}"),
    )


def erm_gd_step() -> tuple[Claim, ...]:
    """Steps against the gradient go down for α < 2/λ_max and up beyond: on a bowl with λ_max = 10 the limit is 0.2."""
    H = jnp.diag(jnp.array([1.0, 10.0]))
    start = jnp.array([1.0, 1.0])
    slow, fast = (np.asarray(gradient_descent(lambda t: H @ t, start, alpha, 60)) for alpha in (0.19, 0.21))
    costs = [np.einsum("ki,ij,kj->k", path, H, path) / 2 for path in (slow, fast)]
    powers = np.arange(61)
    return (
        agree("2/λ_max", largest_stable_step(H), 0.2),
        agree("2/λ_max of a turned bowl", largest_stable_step(_turned(H)), 0.2),
        agree("θ_k = (1 − αλ)ᵏ θ₀", slow, np.column_stack([0.81**powers, (-0.9) ** powers])),
        holds("α = 0.19 goes down", np.all(np.diff(costs[0]) < 0), f"{costs[0][0]:.3g} to {costs[0][-1]:.3g}"),
        holds("α = 0.21 goes up in the end", costs[1][-1] > costs[1][0], f"{costs[1][0]:.3g} to {costs[1][-1]:.3g}"),
    )


def erm_issue_loss_choice() -> tuple[Claim, ...]:
    """Each kind of problem has its output and the loss that belongs to it: −log of the probability, or half squares."""
    z = np.array([[-2.0, 0.5, 1.0], [3.0, -1.0, 0.0]])
    y = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    yhat = {name: np.asarray(HEADS[name].link(jnp.asarray(z))) for name in HEADS}
    L = {name: np.asarray(HEADS[name].loss(jnp.asarray(z), jnp.asarray(y))) for name in HEADS}
    p = yhat["multilabel"]
    return (
        agree("binary, per unit: P(y) = σ(z)", yhat["binary"], 1 / (1 + np.exp(-z))),
        agree("classes: Σ P(c) = 1", yhat["multiclass"].sum(axis=1), [1.0, 1.0]),
        equal("regression: any value", yhat["regression"], z),
        equal("regression ≥ 0: none below", yhat["regression_relu"], np.maximum(z, 0)),
        agree("labels: −log Π P(y_o)", L["multilabel"], -np.log(np.prod(np.where(y == 1, p, 1 - p), axis=1))),
        agree("classes: −log P(class)", L["multiclass"], -np.log(np.sum(y * yhat["multiclass"], axis=1))),
        agree("regression: ½ ‖ŷ − y‖²", L["regression"], np.sum((z - y) ** 2, axis=1) / 2),
    )


def erm_issue_differentiable() -> tuple[Claim, ...]:
    """Nothing reaches the layers before a threshold, by hand or by autodiff, so training refuses it."""
    claims, batch = [], None
    for name in ("binary_step", "sigmoid"):
        case = make_case(Config(sizes=(3, 4, 1), activation=name, head="binary"))
        batch = case.batch
        grads = jax.jit(lambda case=case: [case.call(by)[1][0].W for by in (backward, autodiff)])()
        largest = [float(np.max(np.abs(dW))) for dW in grads]
        through = name == "sigmoid"
        claims.append(holds(f"∂J/∂W[1] through {name}", (min(largest) > 0) == through, f"at most {max(largest):.3g}"))
    config = Config(sizes=(3, 4, 1), activation="binary_step", head="binary")
    try:
        fit(config, optax.sgd(0.1), batch, epochs=1, batch_size=9, key=jax.random.key(0))  # type: ignore[arg-type]
        said = "nothing"
    except ConfigError as error:
        said = str(error)
    return (*claims, holds("fit refuses binary_step", "derivative is 0" in said, said))


def erm_issue_nonconvex() -> tuple[Claim, ...]:
    """The cost is not convex in θ: between two equal networks it is higher; in the scores the losses are convex."""
    case = make_case(Config(sizes=(2, 3, 1), activation="tanh", head="regression"))
    x, config = case.batch.x, case.config
    f = jax.jit(lambda params: predict(config, params, (), x))
    y = f(case.params)  # so that these parameters are a minimum, with J = 0
    other = permute_hidden(case.params, 1, [2, 0, 1])

    J = jax.jit(lambda params: loss(config, params, (), Batch(x, y))[0])
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(3 * rng.normal(size=(20, 3))) for _ in range(2))
    label = jnp.asarray(np.eye(3)[rng.integers(0, 3, 20)])
    gaps = {name: _largest_gap(HEADS[name].loss, a, b, label) for name in ("multilabel", "multiclass", "regression")}
    curve = jax.grad(jax.grad(lambda w: (jax.nn.sigmoid(w) - 1) ** 2 / 2))(-3.0)  # ½(σ(wx) − y)², x = y = 1
    gap = convexity_gap(J, case.params, other)
    return (
        agree("units in another order: the same ŷ", f(other), y),
        holds("J half-way is above both ends", gap > 0.01, gap),
        *[holds(f"{name}: convex in z", value <= 1e-12, value) for name, value in gaps.items()],
        holds("half squares of σ are not convex even with one weight", curve < -0.03, float(curve)),
    )


def erm_issue_optimiser() -> tuple[Claim, ...]:
    """In a curved valley, which is not convex, momentum, Nesterov and Adam get further than plain descent."""
    valley = LANDSCAPES["rosenbrock"]  # whose minimum is 0
    # of ten times the rate, the average takes a tenth per gradient: that of sgd, which diverges from 2/λ_max on
    rates = {"sgd": 1e-3, "momentum": 1e-2, "nesterov": 1e-2, "adam": 5e-2}
    limit = 2 / np.linalg.eigvalsh(np.asarray(valley.ddf(jnp.asarray(valley.start))))[-1]
    ends = {
        name: float(valley.f(trajectory(valley, make_optimizer(name, rate), 500)[-1])) for name, rate in rates.items()
    }
    saddle = np.linalg.eigvalsh(np.asarray(valley.ddf(jnp.array([0.0, 1.0]))))[0]
    return (
        holds("not convex: a negative curvature", saddle < 0, float(saddle)),
        holds("2/λ_max at the start, against the rate 0.001 of sgd", 1e-3 < limit < 2e-3, float(limit)),
        *[holds(f"{name} ends below sgd", ends[name] < ends["sgd"] / 2, f"{ends[name]:.3g} against {ends['sgd']:.3g}")
          for name in list(rates)[1:]],
    )  # fmt: skip


def erm_issue_backprop() -> tuple[Claim, ...]:
    """Back-propagation gives every derivative for a few times the cost of one forward pass, not one pass per weight."""
    case = make_case(Config(sizes=(16, 16, 16, 16), activation="tanh", head="multilabel"), m=32)
    hand, auto = jax.jit(lambda: [case.call(by)[1] for by in (backward, autodiff)])()
    count = sum(leaf.size for leaf in jax.tree.leaves(case.params))
    once, all_of_them = (_flops(case, by) for by in (loss, backward))
    return (
        *[agree(f"∂J/∂W[{l}] by jax.grad", g.W, h.W) for l, (g, h) in enumerate(zip(hand, auto, strict=True), 1)],
        holds(
            f"all {count} derivatives cost under 4 forward passes", all_of_them < 4 * once, f"{all_of_them / once:.2f}"
        ),
    )


def erm_issue_sampling() -> tuple[Claim, ...]:
    """Batch, mini-batch and stochastic steps see each example once per epoch; their gradients have one mean."""
    case = make_case(Config(sizes=(3, 2), head="regression"))
    x, y, _ = case.batch
    grad = jax.jit(lambda weight: case.call(backward, batch=Batch(x, y, weight))[1][0].W)
    claims, means = [], {}
    for name, size in (("batch", 9), ("mini-batch", 3), ("stochastic", 1)):
        rows = batch_rows(epoch_order(jax.random.key(0), 1, 9), size, 9 // size)
        claims.append(equal(f"{name}: {9 // size} steps, each example once", np.sort(rows.ravel()), np.arange(9)))
        means[name] = np.mean([grad(np.bincount(at, minlength=9).astype(float)) for at in rows], axis=0)
    return (
        *claims,
        agree("mini-batch gradients have the batch's as mean", means["mini-batch"], case.call(backward)[1][0].W),
        agree("and so have those of single examples", means["stochastic"], means["batch"]),
    )


def _world() -> LinearWorld:
    return LinearWorld(np.array([1.0, -1.0]), np.array([[2.0, 0.5], [0.5, 1.0]]), 0.7)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(jnp.shape, tree)


def _turned(H: jax.Array) -> np.ndarray:
    c, s = np.cos(0.6), np.sin(0.6)
    Q = np.array([[c, -s], [s, c]])
    return Q @ np.asarray(H) @ Q.T


def _largest_gap(f: Callable[..., jax.Array], a: jax.Array, b: jax.Array, y: jax.Array) -> float:
    """The largest `convexity_gap` in z of an example."""
    of_all = jax.jit(f)
    return max(convexity_gap(lambda z, i=i: np.asarray(of_all(z, y))[i], a, b) for i in range(len(y)))  # type: ignore[misc]


def _flops(case: Any, function: Callable[..., Any]) -> float:
    """The operations that the compiler counts."""
    traced = jax.jit(lambda params: function(case.config, params, case.state, case.batch, case.key))
    return float(traced.lower(case.params).cost_analysis()["flops"])  # type: ignore[index]
