"""Checks of *Activation functions*: ReLU and its variations, and the list of activations."""

from __future__ import annotations

from math import log
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

import mlpjax
from mlpjax.activations import (
    ACTIVATIONS,
    LEAKY_SLOPE,
    PRELU_START,
    arctan,
    arctan_derivative,
    binary_step,
    binary_step_derivative,
    identity,
    identity_derivative,
    leaky_relu,
    leaky_relu_derivative,
    prelu,
    prelu_derivative,
    prelu_slope_derivative,
    relu,
    relu_derivative,
    sigmoid,
    softplus,
    softplus_derivative,
)
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.exponential import elu, elu_derivative
from mlpjax.lecture.activation import grid, slope
from mlpjax.passes import activation_backward
from mlpjax.vanishing import dying_relu


def _with_zero() -> jax.Array:
    """The grid, the last number replaced by 0."""
    return grid().at[-1].set(0)


def act_identity() -> tuple[Claim, ...]:
    """The identity returns what it is given, and its slope is 1."""
    z = grid()
    return equal("g(z)", identity(z), z), equal("g′(z)", identity_derivative(z), slope(identity, z))


def act_binary_step() -> tuple[Claim, ...]:
    """The step is 1 from 0 on; its slope is 0, at 0 too, and autodiff says the same."""
    z = jnp.array([-2.0, -1e-300, 0.0, 1e-300, 3.0])
    return (
        equal("the step", binary_step(z), [0, 0, 1, 1, 1]),
        equal("its slope", binary_step_derivative(z), np.zeros(5)),
        equal("autodiff", slope(binary_step, z), np.zeros(5)),
    )


def act_relu() -> tuple[Claim, ...]:
    """ReLU is the larger of z and 0, and the two cases of the list."""
    z = np.asarray(_with_zero())
    return (
        equal("max(0, z)", relu(jnp.asarray(z)), np.maximum(0, z)),
        equal("the two cases", relu(jnp.asarray(z)), np.where(z < 0, 0, z)),
    )


@printed("err-relu-0", lambda z: jnp.where(z < 0, 0.0, 1.0))
def act_relu_deriv(form: Any = relu_derivative) -> tuple[Claim, ...]:
    """ReLU′ off 0 against central differences, and 0 at 0, where autodiff of our ReLU says the same."""
    z, at_zero = grid(), jnp.zeros(())
    differences = (np.asarray(relu(z + 1e-3)) - np.asarray(relu(z - 1e-3))) / 2e-3
    return (
        agree("off 0", form(z), differences, tol=1e-10),
        equal("at 0", form(at_zero), 0.0),
        equal("autodiff at 0", form(at_zero), jax.grad(relu)(at_zero)),
    )


def act_leaky() -> Claim:
    """Leaky ReLU is the larger of 0.01 z and z."""
    z = np.asarray(_with_zero())
    return equal("max(0.01 z, z)", leaky_relu(jnp.asarray(z)), np.maximum(0.01 * z, z))


def act_leaky_slope() -> tuple[Claim, ...]:
    """The slope is 0.01, in the constant and in what the function does, and jax.nn's default is the same."""
    z = jnp.array([-1.0, -200.0])
    return (
        equal("leaky ReLU of −1 and −200", leaky_relu(z), [-LEAKY_SLOPE, -2.0]),
        equal("jax.nn.leaky_relu", jax.nn.leaky_relu(z), [-LEAKY_SLOPE, -2.0]),
    )


@printed("err-leaky-0", lambda z: jnp.where(z > 0, 1.0, 0.01))
def act_leaky_deriv(form: Any = leaky_relu_derivative) -> tuple[Claim, ...]:
    """Its slopes against autodiff; 1 at 0."""
    z = _with_zero()
    return (
        agree("against autodiff", form(z), slope(leaky_relu, z)),
        equal("at −3, 0 and 3", form(jnp.array([-3.0, 0.0, 3.0])), [0.01, 1.0, 1.0]),
    )


def act_leaky_dying() -> tuple[Claim, ...]:
    """With a bias of −10 all units are off: ReLU's stay so; some leaky ones come back, and J falls below a tenth."""
    dead, back = dying_relu("relu", steps=200), dying_relu("leaky_relu", steps=6000)
    return (
        equal("ReLU: share of dead units, at every step", dead.dead, np.ones(201)),
        equal("ReLU: gradient of W[1], at every step", dead.dW_norm, np.zeros(201)),
        equal("ReLU: J, at every step", dead.loss, np.full(201, dead.loss[0])),
        holds(
            "leaky: gradient of W[1] at the start", back.dead[0] == 1 and back.dW_norm[0] > 0, float(back.dW_norm[0])
        ),
        holds(
            "leaky: J at the end over the start",
            back.loss[-1] < 0.1 * back.loss[0],
            float(back.loss[-1] / back.loss[0]),
        ),
        holds("leaky: share of dead units at the end", back.dead[-1] < 1, float(back.dead[-1])),
    )


@printed("err-prelu-max", lambda z, alpha: jnp.maximum(alpha * z, z))
def act_prelu(form: Any = prelu) -> tuple[Claim, ...]:
    """PReLU against its two cases, with slopes below and above 1; the maximum is right for the former only."""
    z = np.asarray(grid())
    slopes = [jnp.full(z.shape, alpha) for alpha in (PRELU_START, 2.0)]
    return (
        agree("α = 0.25", form(grid(), slopes[0]), np.maximum(0.25 * z, z)),
        agree("α = 2", form(grid(), slopes[1]), np.where(z < 0, 2 * z, z)),
        equal("α = 2, z = (−1, 0.5)", form(jnp.array([-1.0, 0.5]), jnp.full(2, 2.0)), [-2.0, 0.5]),
    )


@printed("err-leaky-0", lambda z, alpha: jnp.where(z > 0, 1.0, alpha))
def act_prelu_deriv(form: Any = prelu_derivative) -> tuple[Claim, ...]:
    """Its slopes against autodiff; 1 at 0."""
    z = _with_zero()
    alpha = jnp.full(z.shape, 0.3)
    return (
        agree("against autodiff", form(z, alpha), slope(lambda z: prelu(z, alpha), z)),
        equal("at −3, 0 and 3", form(jnp.array([-3.0, 0.0, 3.0]), jnp.full(3, 0.3)), [0.3, 1.0, 1.0]),
    )


def act_prelu_dalpha() -> tuple[Claim, ...]:
    """∂g/∂α is min(0, z); per unit it is summed over the examples, as autodiff does."""
    z, da = np.random.default_rng(0).normal(size=(2, 6, 4))
    alpha = jnp.full(4, PRELU_START)
    expected = jax.grad(lambda alpha: jnp.sum(da * prelu(jnp.asarray(z), alpha)))(alpha)
    _, dslope = activation_backward(
        "prelu", jnp.asarray(da), jnp.asarray(z), mlpjax.Layer(jnp.ones((1, 4)), slope=alpha)
    )
    return (
        equal("min(0, z)", prelu_slope_derivative(jnp.asarray(z)), np.minimum(0, z)),
        equal("at z = −2", prelu_slope_derivative(jnp.asarray(-2.0)), -2.0),
        agree("∂J/∂α per unit against autodiff", dslope, expected),
    )


@printed("err-softplus-stable", lambda x: np.log(1 + np.exp(x)))
def act_softplus(form: Any = softplus) -> tuple[Claim, ...]:
    """Softplus against log(1 + e^x), and where that overflows or loses the 1: at 800 and −40."""
    x = np.asarray(grid())
    return (
        agree("log(1 + e^x)", form(x), np.log(1 + np.exp(x))),
        agree("softplus(−40) = e^−40", form(np.asarray(-40.0)), np.exp(-40.0)),
        equal("softplus(800)", form(np.asarray(800.0)), 800.0),
    )


def act_softplus_deriv() -> tuple[Claim, ...]:
    """The slope of softplus is σ: against autodiff and SciPy; ½ at 0."""
    x = _with_zero()
    return (
        agree("against autodiff", softplus_derivative(x), slope(softplus, x)),
        agree("against SciPy's σ", softplus_derivative(x), expit(np.asarray(x))),
        equal("at 0", softplus_derivative(jnp.zeros(())), 0.5),
    )


def act_softplus_relu() -> tuple[Claim, ...]:
    """Softplus is above ReLU by log 2 at most, which it is at 0; sharpened 100 times, by 0.01 log 2 at most."""
    x = _with_zero()
    above = np.asarray(relu(x))
    gap, sharp = np.asarray(softplus(x)) - above, np.asarray(softplus(100 * x)) / 100 - above
    return (
        holds("softplus − ReLU", bool((gap >= 0).all()), f"{float(gap.min()):.2e} at least"),
        agree("the largest gap, at 0", [gap.max(), gap[-1]], [log(2)] * 2),
        agree("the largest gap of softplus(100x)/100", sharp.max(), log(2) / 100),
    )


def act_softplus_odd() -> Claim:
    """Softplus at x and at −x differ by x."""
    return agree("softplus(x) − softplus(−x)", softplus(grid()) - softplus(-grid()), grid())


def act_heaviside_limit() -> tuple[Claim, ...]:
    """σ(kz) nears the step as k grows; the step is ReLU′ off 0."""
    z, step = np.asarray(grid()), np.asarray(binary_step(grid()))
    errors = [float(np.abs(np.asarray(sigmoid(k * grid())) - step)[np.abs(z) > 0.5].max()) for k in (1, 5, 50)]
    return (
        holds(
            "largest distance for k = 1, 5, 50, ∣z∣ > ½",
            errors[0] > errors[1] > errors[2] and errors[2] < 1e-10,
            errors,
        ),
        equal("ReLU′ off 0", relu_derivative(grid()), binary_step(grid())),
    )


def act_arctan() -> tuple[Claim, ...]:
    """arctan undoes the tangent; its slope against autodiff and at 1."""
    angle = jnp.linspace(-1.5, 1.5, 48)
    return (
        agree("arctan(tan x)", arctan(jnp.asarray(np.tan(np.asarray(angle)))), angle),
        agree("its slope against autodiff", arctan_derivative(grid()), slope(arctan, grid())),
        equal("its slope at 1", arctan_derivative(jnp.ones(())), 0.5),
    )


def act_elu() -> tuple[Claim, ...]:
    """ELU against its two cases, with α = 1, and far out on both sides."""
    x = np.asarray(grid())
    return (
        agree("the two cases", elu(grid()), np.where(x < 0, np.expm1(np.minimum(x, 0)), x)),
        equal("at −1000, 0 and 1000", elu(jnp.array([-1000.0, 0.0, 1000.0])), [-1.0, 0.0, 1000.0]),
    )


def act_elu_deriv() -> tuple[Claim, ...]:
    """ELU′ is ELU + α below 0 and 1 from 0 on; autodiff agrees, at 0 and at 1000 too."""
    x = _with_zero().at[0].set(1000)
    below = np.asarray(grid()) < 0
    return (
        agree("against autodiff", elu_derivative(x), slope(elu, x)),
        agree("f(x) + α for x < 0", np.asarray(elu_derivative(grid()))[below], np.asarray(elu(grid()))[below] + 1),
        equal("at 0", elu_derivative(jnp.zeros(())), 1.0),
    )


_AT_ZERO = {
    "identity": (0, 1),
    "binary_step": (1, 0),
    "sigmoid": (0.5, 0.25),
    "tanh": (0, 1),
    "arctan": (0, 1),
    "relu": (0, 0),
    "prelu": (0, 1),
    "elu": (0, 1),
    "softplus": (log(2), 0.5),
}
"""Value and slope at 0 of the nine functions of the list, in its order."""


def act_table() -> tuple[Claim, ...]:
    """Each function of the list: its slope against central differences off 0, value and slope at 0 as documented."""
    claims = []
    z, around = grid(), _with_zero()
    for name, expected in _AT_ZERO.items():
        g = ACTIVATIONS[name]
        slope = () if g.df_dslope is None else (jnp.full(z.shape, PRELU_START),)
        up, down = (np.asarray(g.f(z + h, *slope)) for h in (1e-4, -1e-4))
        claims.append(agree(f"{name}: slope", g.df(z, *slope), (up - down) / 2e-4, tol=1e-6))
        there = [np.asarray(f(around, *slope))[-1] for f in (g.f, g.df)]
        claims.append(agree(f"{name}: value and slope at 0", there, expected))
    return tuple(claims)
