"""Checks of the section *Types of training*: the methods that go down, of first and of second order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax import solvers
from mlpjax.claims import Claim, agree, equal, holds
from mlpjax.landscapes import LANDSCAPES, newton_step
from mlpjax.optim import OPTIMIZERS, make_optimizer


def train_first_order() -> tuple[Claim, ...]:
    """The methods of the list need the gradient alone, and the first step of each goes downhill."""
    ravine = LANDSCAPES["ravine"]
    start = jnp.asarray(ravine.start)
    gradient = ravine.df(start)
    names = ("momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam")
    claims = [holds("all of them are there", {*names} <= {*OPTIMIZERS}, ", ".join(OPTIMIZERS))]
    for name in names:
        optimizer = make_optimizer(name, 0.01)
        update, _ = optimizer.update(gradient, optimizer.init(start), start)
        slope = float(jnp.vdot(update, gradient))
        claims.append(holds(name, slope < 0, f"update · gradient = {slope:.2g}"))
    return tuple(claims)


def train_second_order() -> tuple[Claim, ...]:
    """Newton: θ − H⁻¹g reaches the bottom of any bowl in one step; a network with a convex cost needs a few."""
    rng = np.random.default_rng(0)
    rosenbrock = LANDSCAPES["rosenbrock"]
    on_ravine, on_saddle = jax.jit(
        lambda: [newton_step(LANDSCAPES[name], jnp.asarray(LANDSCAPES[name].start)) for name in ("ravine", "saddle")]
    )()
    step = jax.jit(
        lambda theta: (newton_step(rosenbrock, theta), rosenbrock.ddf(theta), jax.hessian(rosenbrock.f)(theta))
    )
    theta = np.array(rosenbrock.start)
    hessians = step(theta)[1:]
    for _ in range(6):
        theta = step(theta)[0]
    x = rng.normal(size=(30, 3))
    y = (rng.random(30) < 1 / (1 + np.exp(-x @ np.array([1.0, -1.0, 0.5])))).astype(int)
    config, start = mlpjax.Config(sizes=(3, 1), head="binary"), (mlpjax.Layer(jnp.zeros((3, 1)), jnp.zeros(1)),)
    found = solvers.newton(config, start, (), mlpjax.Batch(x, y), damping=1e-12, tol=1e-12, max_steps=20)
    X, weights, costs = np.column_stack([x, np.ones(30)]), np.zeros(4), []
    for _ in range(6):
        z = X @ weights
        yhat = 1 / (1 + np.exp(-z))
        costs.append(np.mean(np.log1p(np.exp(z)) - y * z))
        weights -= np.linalg.solve(X.T @ (X * (yhat * (1 - yhat))[:, None]), X.T @ (yhat - y))
    return (
        agree("one step on a ravine", on_ravine, np.zeros(2)),
        agree("the Hessian of rosenbrock against jax.hessian", *hessians),
        agree("six steps in a bent valley", theta, rosenbrock.minimum, 1e-9),
        equal("on x² − y² it goes to the saddle", on_saddle, np.zeros(2)),
        agree("a network without hidden layer: J after 0 to 5 steps", found.costs[:6], costs, 1e-9),
        holds("where ∂J/∂θ is 0 in a few steps", found.converged and found.steps <= 8, f"{found.steps} steps"),
    )
