"""Checks of the section *Chain rule and back-propagation*: the rule, example 1, and the gradient of the cost."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax import chain, counting
from mlpjax.chain import backward_unit, calculus, chain_rule, curvature, forward_unit
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.config import Config
from mlpjax.heads import sigmoid_cross_entropy_dz
from mlpjax.layers import BatchNormState
from mlpjax.parameters import Batch, Layer, Params
from mlpjax.per_example import per_example_gradients


def chain_one_var() -> tuple[Claim, ...]:
    """The derivative of f(x(t)), here sin t², is f′ times x′: a total derivative, as t is the only variable."""
    t = np.linspace(-2, 2, 9)
    slope = chain_rule([np.cos], [np.square], [lambda t: 2 * t])(t)
    shifted = [np.sin((t + h) ** 2) for h in (1e-5, -1e-5)]
    return (
        agree("against jax.grad of sin t²", slope, jax.vmap(jax.grad(lambda t: jnp.sin(t**2)))(t)),
        agree("against central differences", slope, (shifted[0] - shifted[1]) / 2e-5, 1e-8),
    )


def chain_two_var() -> tuple[Claim, ...]:
    """f(x(t), y(t)) with f = x y², x = e^t, y = sin t changes by both: f_x x′ + f_y y′."""
    t = np.linspace(-1, 1, 7)
    partials, inner = [lambda x, y: y**2, lambda x, y: 2 * x * y], [np.exp, np.sin]
    slope = chain_rule(partials, inner, [np.exp, np.cos])(t)
    _, tangent = jax.jvp(lambda t: jnp.exp(t) * jnp.sin(t) ** 2, (jnp.asarray(t),), (jnp.ones(7),))
    return (
        agree("against forward mode (jax.jvp)", slope, tangent),
        agree("both terms, written out", slope, np.exp(t) * np.sin(t) ** 2 + 2 * np.exp(t) * np.sin(t) * np.cos(t)),
    )


def chain_ex_composite() -> Claim:
    """p = sin(z₁) z₂ with z₁ = x₁x₂, z₂ = x₁ + x₂²: x₁ reaches p in two ways, which add up."""
    inner = [lambda x1, x2: x1 * x2, lambda x1, x2: x1 + x2**2]
    slope = chain_rule(
        [lambda z1, z2: np.cos(z1) * z2, lambda z1, z2: np.sin(z1)], inner, [lambda x1, x2: x2, lambda x1, x2: 1.0]
    )
    auto = jax.grad(lambda x1, x2: jnp.sin(inner[0](x1, x2)) * inner[1](x1, x2))(0.7, -1.3)
    return agree("∂p/∂x₁ against jax.grad", slope(0.7, -1.3), auto)


def chain_ex_product() -> tuple[Claim, ...]:
    """The product rule is the chain rule of f·g."""
    x = np.linspace(-1, 2, 7)
    slope = chain.product_rule(np.exp, np.exp, lambda x: x**3, lambda x: 3 * x**2)(x)
    auto = jax.vmap(jax.grad(lambda x: jnp.exp(x) * x**3))(x)
    return agree("f′g + fg′ = e^x (x³ + 3x²)", slope, np.exp(x) * (x**3 + 3 * x**2)), agree("jax.grad", slope, auto)


def _counts(depth: int) -> Any:
    """The operations of `mlpjax.backward` with ``depth`` layers of weights, 3 units each, and of its forward pass."""
    config = Config(sizes=(3,) * (depth + 1), activation="tanh", head="regression")
    W: Any = np.ones((3, 3))
    params, batch = (Layer(W, W[0]),) * depth, Batch(np.ones((5, 3)), np.ones((5, 3)))
    return tuple(counting.count_operations(f, config, params, (), batch) for f in (mlpjax.backward, mlpjax.loss))


def chain_backprop_def() -> tuple[Claim, ...]:
    """One sweep back over what the forward pass stored: three matrix products per layer, while paths multiply."""
    deep, forward = _counts(6)
    sizes = (10,) * 10
    return (
        equal("6 layers: 6 products forward, 12 more back, none a second time", deep["dot_general"], 18),
        equal("the forward pass alone", forward["dot_general"], 6),
        equal("g and g′ once per hidden layer", deep["tanh"], 10),
        equal("edges of 10 layers of 10 units", counting.count_edges(sizes), sum(10 * 10 for _ in range(9))),
        equal("paths from one input of them to the loss", counting.count_paths(sizes), 10**9),
    )


_UNIT = (0.8, -1.4, 0.3, 1.0)
"""x, w, b, y of example 1."""


def _unit_loss(w: Any, b: Any, x: Any, y: Any) -> Any:
    return 0.5 * (1 / (1 + jnp.exp(-(x * w + b))) - y) ** 2


def chain_ex1_forward() -> tuple[Claim, ...]:
    """The logistic unit with least squares, against the math library."""
    x, w, b, y = _UNIT
    cache = forward_unit(x, w, b, y)
    a = 1 / (1 + math.exp(-(x * w + b)))
    return agree("z", cache.z, x * w + b), agree("ŷ", cache.yhat, a), agree("L", cache.loss, (a - y) ** 2 / 2)


def chain_ex1_calculus() -> tuple[Claim, ...]:
    """Each line of the derivation is the same number: its factor times the derivative of what is still inside."""
    x, w, b, y = _UNIT
    lines = calculus(*_UNIT)
    auto = jax.jit(jax.grad(_unit_loss))(w, b, x, y)
    differences = (_unit_loss(w + 1e-5, b, x, y) - _unit_loss(w - 1e-5, b, x, y)) / 2e-5
    return (
        *(agree(line.formula, line.factor * jax.jit(jax.grad(line.inside))(w), auto) for line in lines),
        agree("the last line against central differences", lines[-1].factor, differences, 1e-8),
    )


def chain_ex1_dyhat() -> Claim:
    """∂L/∂ŷ = ŷ − y: the pull-back of the last node."""
    cache = forward_unit(*_UNIT)
    _, pull = jax.vjp(lambda yhat: 0.5 * (yhat - cache.y) ** 2, cache.yhat)
    return agree("against jax.vjp of ½(ŷ − y)²", backward_unit(cache).dyhat, pull(jnp.ones(()))[0])


@printed("err-v3-matched", lambda cache: cache.yhat - cache.y)
def chain_ex1_dz(form: Any = lambda cache: backward_unit(cache).dz) -> Claim:
    """∂L/∂z = (ŷ − y) σ′(z); without σ′ it would belong to the cross-entropy."""
    x, w, b, y = _UNIT
    auto = jax.grad(lambda z: _unit_loss(0.0, z, x, y))(x * w + b)
    return agree("against jax.grad with respect to z", form(forward_unit(*_UNIT)), auto)


def chain_ex1_dw() -> Claim:
    """∂L/∂w = ∂L/∂z x, the number that calculus class arrives at."""
    dw = backward_unit(forward_unit(*_UNIT)).dw
    return agree("against jax.grad", dw, jax.grad(_unit_loss)(_UNIT[1], _UNIT[2], _UNIT[0], _UNIT[3]))


def chain_ex1_db() -> Claim:
    """∂L/∂b = ∂L/∂z."""
    db = backward_unit(forward_unit(*_UNIT)).db
    return agree("against jax.grad", db, jax.grad(_unit_loss, argnums=1)(_UNIT[1], _UNIT[2], _UNIT[0], _UNIT[3]))


def chain_ex1_equal() -> tuple[Claim, ...]:
    """Both derivations agree on 100 random units, and back-propagation finds σ′(z)(ŷ − y) once for w and b."""
    x, w, b, y = np.random.default_rng(0).normal(size=(4, 100))
    grads = backward_unit(forward_unit(x, w, b, y))
    a = 1 / (1 + np.exp(-(w * x + b)))
    counts = counting.count_operations(lambda x: backward_unit(forward_unit(x, w, b, y)), x)
    return (
        agree("∂L/∂w, both ways", grads.dw, calculus(x, w, b, y)[-1].factor, 1e-14),
        agree("∂L/∂b, written out", grads.db, (a - y) * a * (1 - a), 1e-14),
        equal("σ once forward and once for σ′, not again for b", counts["logistic"], 2),
    )


def chain_ex1_nonconvex() -> tuple[Claim, ...]:
    """Least squares behind a sigmoid has a second derivative of both signs in w; x = y = 1, b = 0."""
    w = jnp.array([-3.0, 0.0])
    ours = curvature(1.0, w, 0.0, 1.0)
    auto = jax.jit(jax.vmap(jax.hessian(lambda w: _unit_loss(w, 0.0, 1.0, 1.0))))(w)
    return (
        agree("against jax.hessian", ours, auto),
        holds("negative at w = −3, positive at 0", ours[0] < 0 < ours[1], f"{ours[0]:.4f} and {ours[1]:.4f}"),
        agree("at 0 it is 1/16", ours[1], 1 / 16),
    )


def chain_ex1_saturation() -> tuple[Claim, ...]:
    """A unit that is sure and wrong (z = 10, y = 0) learns next to nothing by least squares, fast by cross-entropy."""
    squared = backward_unit(forward_unit(1.0, 10.0, 0.0, 0.0)).dz
    entropy = sigmoid_cross_entropy_dz(jnp.full((1, 1), 10.0), jnp.zeros((1, 1)))[0, 0]
    a = 1 / (1 + math.exp(-10))
    return (
        agree("least squares: a · a(1 − a) = 4.5e-5", squared, a * a / (1 + math.exp(10))),
        agree("cross-entropy: a = 0.99995", entropy, a),
        holds("the ratio", entropy / squared > 2e4, float(entropy / squared)),
    )


def chain_efficiency() -> tuple[Claim, ...]:
    """The whole gradient costs about three forward passes, however deep; differences cost two per parameter."""
    ratios = []
    for depth in (2, 8):
        backward, forward = _counts(depth)
        ratios.append(backward["multiplications"] / forward["multiplications"])
    parameters = counting.count_parameters((3,) * 9)
    return (
        equal("2 layers and 8: the same ratio to a forward pass, in multiplications", ratios, [3.0, 3.0]),
        equal("P of 8 layers of 3 units", parameters, 8 * (3 * 3 + 3)),
        holds(
            "2P forward passes for central differences", 2 * parameters > 60 * ratios[1], f"{2 * parameters} against 3"
        ),
    )


def _single() -> tuple[Config, Params, Batch]:
    """Logistic regression on 6 examples of 3 features."""
    rng: Any = np.random.default_rng(0)
    params = (Layer(rng.normal(size=(3, 1)), rng.normal(size=1)),)
    return Config(sizes=(3, 1), head="binary"), params, Batch(rng.normal(size=(6, 3)), np.array([0, 1, 1, 0, 1, 0.0]))


@jax.jit
def _losses(params: Params, batch: Batch) -> jax.Array:
    """The loss of each example, written with log."""
    yhat = 1 / (1 + jnp.exp(-(batch.x @ params[0].W[:, 0] + params[0].b)))
    return -(batch.y * jnp.log(yhat) + (1 - batch.y) * jnp.log(1 - yhat))


def chain_loss_single() -> Claim:
    """L⁽ⁱ⁾ of ŷ⁽ⁱ⁾ = σ(x·w + b): the loss of a batch of one."""
    config, params, (x, y, _) = _single()
    loss = jax.jit(mlpjax.loss)
    ours = [loss(config, params, (), Batch(x[i : i + 1], y[i : i + 1]))[0] for i in range(6)]
    return agree("each example, against the formula with log", ours, _losses(params, Batch(x, y)))


def chain_cost() -> Claim:
    """J = (1/m) Σᵢ L⁽ⁱ⁾."""
    config, params, batch = _single()
    J, _ = jax.jit(mlpjax.loss)(config, params, (), batch)
    return agree("J against the mean of the losses", J, sum(np.asarray(_losses(params, batch))) / 6)


def chain_cost_grad() -> tuple[Claim, ...]:
    """The gradient of the cost is the mean of the gradients of the losses; under batch-norm no longer."""
    config, params, batch = _single()
    (each,) = jax.jit(per_example_gradients)(config, params, (), batch)
    (auto,) = jax.jit(jax.jacrev(_losses))(params, batch)
    _, (grads,) = jax.jit(mlpjax.backward)(config, params, (), batch)
    return (
        agree("of every example, against jax.jacrev", each.W, auto.W),
        agree("their mean is ∂J/∂w", each.W.mean(axis=0), grads.W),
        agree("their mean is ∂J/∂b", each.b.mean(axis=0), grads.b),
        holds("with batch-norm, the mean over two parts is not the gradient", (gap := _batch_norm_gap()) > 1e-3, gap),
    )


def _batch_norm_gap() -> float:
    """The largest difference of dW under batch-norm: all examples, against the mean over two halves of them."""
    _, (output,), batch = _single()
    ones, zeros, rng = jnp.ones(3), jnp.zeros(3), np.random.default_rng(1)
    params = (Layer(jnp.asarray(rng.normal(size=(3, 3))), gamma=ones, beta=zeros), output)
    state = (BatchNormState(zeros, ones, jnp.array(0)),)
    config = Config(sizes=(3, 3, 1), activation="tanh", head="binary", batch_norm=True)
    backward = jax.jit(mlpjax.backward)
    first = np.arange(6) < 3
    whole, *halves = (
        np.asarray(backward(config, params, state, batch._replace(weight=1.0 * weight))[1][0].W)
        for weight in (np.ones(6), first, ~first)
    )
    return float(np.abs(sum(halves) / 2 - whole).max())
