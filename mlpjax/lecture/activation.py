"""Checks of *Activation functions*: why they are not linear, sigmoid, tanh, and the vanishing gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import log
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

import mlpjax
from mlpjax.activations import sigmoid, sigmoid_derivative, tanh, tanh_derivative
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.collapse import best_affine_accuracy, collapse, rank_bound
from mlpjax.heads import HEADS
from mlpjax.toys import gate


def grid() -> jax.Array:
    """48 numbers from −6 to 6, without 0."""
    return jnp.asarray(np.linspace(-6.0, 6.0, 48))


def slope(f: Callable[[jax.Array], jax.Array], z: jax.Array) -> jax.Array:
    """f′ by autodiff, element by element."""
    return jax.grad(lambda z: jnp.sum(f(z)))(z)


def _layers(*sizes: int, seed: int = 0) -> tuple[mlpjax.Layer, ...]:
    rng = np.random.default_rng(seed)
    shapes = itertools.pairwise(sizes)
    return tuple(mlpjax.Layer(jnp.asarray(rng.normal(size=s)), jnp.asarray(rng.normal(size=s[1]))) for s in shapes)


def act_why_nonlinear() -> tuple[Claim, ...]:
    """Three layers of identities compute what their one affine map computes; two layers give the slide's W′ and b′."""
    x, params = jnp.asarray(np.random.default_rng(1).normal(size=(9, 3))), _layers(3, 4, 2, 5)
    config = mlpjax.Config(sizes=(3, 4, 2, 5), activation="identity", head="regression")
    (W1, b1, *_), (W2, b2, *_) = params[:2]
    one, two = collapse(params), collapse(params[:2])
    return (
        agree(
            "x W′ + b′ against the network",
            np.asarray(x) @ np.asarray(one.W) + np.asarray(one.b),
            mlpjax.predict(config, params, (), x),
        ),
        agree("W′ of two layers", two.W, np.asarray(W1) @ np.asarray(W2)),
        agree("b′ of two layers", two.b, np.asarray(b1) @ np.asarray(W2) + np.asarray(b2)),
    )


def act_linear_rank() -> tuple[Claim, ...]:
    """The rank of W′ is the smallest width, wherever in the network it is."""
    narrow, wide = _layers(5, 2, 4, 5), _layers(5, 7, 6, 5)
    ranks = [int(np.linalg.matrix_rank(np.asarray(collapse(params).W))) for params in (narrow, wide)]
    return equal("rank of W′", ranks, [2, 5]), equal("the bound", [rank_bound(narrow), rank_bound(wide)], [2, 5])


def act_linear_decision() -> tuple[Claim, ...]:
    """A line gets three of XOR's four points; 50 deep linear networks get no more; two ReLU units get all."""
    x, y = gate("xor_gate")
    best = 0.0
    for seed in range(50):
        one = collapse(_layers(2, 4, 3, 1, seed=seed))
        best = max(best, float(np.mean((x @ np.asarray(one.W) + np.asarray(one.b) >= 0)[:, 0] == y)))
    config = mlpjax.Config(sizes=(2, 2, 1), head="binary")
    hidden = mlpjax.Layer(jnp.ones((2, 2)), jnp.array([0.0, -1.0]))
    params = hidden, mlpjax.Layer(jnp.array([[1.0], [-2.0]]), jnp.array([-0.5]))
    return (
        equal(
            "the best line on AND, OR, XOR",
            [best_affine_accuracy(*gate(f"{g}_gate")) for g in ("and", "or", "xor")],
            [1, 1, 0.75],
        ),
        equal("the best of 50 linear networks on XOR", best, 0.75),
        equal("two ReLU units on XOR", mlpjax.decide(config, mlpjax.predict(config, params, (), jnp.asarray(x))), y),
    )


def act_linear_output() -> tuple[Claim, ...]:
    """Only the identity reaches every real target; in a hidden layer it leaves the network affine."""
    z = grid()[:, None]
    lowest = {name: float(head.link(z).min()) for name, head in HEADS.items()}
    params, x, bend = _layers(3, 4, 2), jnp.asarray(np.random.default_rng(1).normal(size=(9, 3))), {}
    for name in ("identity", "tanh"):
        config = mlpjax.Config(sizes=(3, 4, 2), activation=name, head="regression")
        left, middle, right = (np.asarray(mlpjax.predict(config, params, (), x + d)) for d in (-0.5, 0.0, 0.5))
        bend[name] = float(np.abs(left - 2 * middle + right).max())
    return (
        equal("the link of regression", HEADS["regression"].link(z), z),
        holds("the heads with ŷ < 0", [name for name in lowest if lowest[name] < 0] == ["regression"], lowest),
        holds("a hidden identity leaves it affine", bend["identity"] < 1e-12, bend["identity"]),
        holds("a hidden tanh does not", bend["tanh"] > 1e-3, bend["tanh"]),
    )


def act_sigmoid() -> tuple[Claim, ...]:
    """σ against SciPy, and at ±800, where e^800 is no float64 any more."""
    z = grid()
    return (
        agree("σ against SciPy", sigmoid(z), expit(np.asarray(z))),
        equal("σ(±800)", sigmoid(jnp.array([-800.0, 800.0])), [0.0, 1.0]),
    )


def act_sigmoid_deriv() -> tuple[Claim, ...]:
    """σ′ against autodiff, and its value at 1."""
    z = grid()
    return (
        agree("σ′ against autodiff", sigmoid_derivative(z), slope(sigmoid, z)),
        agree("σ′(1) = e/(1 + e)²", sigmoid_derivative(jnp.ones(())), np.e / (1 + np.e) ** 2),
    )


def act_sigmoid_deriv_a() -> tuple[Claim, ...]:
    """a(1 − a) of the activation is the slope as a function of z, ¼ / cosh²(z/2)."""
    z = grid()
    a = np.asarray(sigmoid(z))
    expected = 0.25 / np.cosh(np.asarray(z) / 2) ** 2
    return agree("a(1 − a)", a * (1 - a), expected), agree("σ′(z)", sigmoid_derivative(z), expected)


@printed("err-sigmoid-proof", lambda z: -np.exp(-z) / (1 + np.exp(-z)) ** 2)
def act_sigmoid_proof_1(form: Any = lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2) -> tuple[Claim, ...]:
    """The first line of the proof is σ′, with a plus."""
    z = grid()
    return (
        agree("line 1 against σ′", form(np.asarray(z)), sigmoid_derivative(z)),
        agree("line 1 against autodiff at 0.7", form(0.7), jax.grad(sigmoid)(0.7)),
    )


def act_sigmoid_proof_2() -> Claim:
    """The second line of the proof is σ′."""
    e = np.exp(-np.asarray(grid()))
    return agree("line 2 against σ′", (1 + e - 1) / (1 + e) ** 2, sigmoid_derivative(grid()))


def act_sigmoid_proof_3() -> Claim:
    """The third line of the proof is σ′."""
    e = np.exp(-np.asarray(grid()))
    return agree("line 3 against σ′", 1 / (1 + e) * (1 - 1 / (1 + e)), sigmoid_derivative(grid()))


def act_sigmoid_symmetry() -> Claim:
    """σ(−z) is 1 − σ(z)."""
    return agree("σ(−z)", sigmoid(-grid()), 1 - np.asarray(sigmoid(grid())))


def act_sigmoid_max_deriv() -> tuple[Claim, ...]:
    """σ′ is ¼ at 0, less everywhere else, and level at 0."""
    largest = float(sigmoid_derivative(grid()).max())
    return (
        equal("σ′(0)", sigmoid_derivative(jnp.zeros(())), 0.25),
        holds("σ′ elsewhere", largest < 0.25, largest),
        equal("σ″(0)", jax.grad(sigmoid_derivative)(0.0), 0.0),
    )


def act_tanh() -> tuple[Claim, ...]:
    """tanh against the quotient of exponentials, which is not a number at 800, where tanh is 1."""
    z = np.asarray(grid())
    return (
        agree("tanh", tanh(grid()), (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z))),
        equal("tanh(±800)", tanh(jnp.array([-800.0, 800.0])), [-1.0, 1.0]),
    )


def act_tanh_deriv() -> tuple[Claim, ...]:
    """tanh′ against autodiff, and its value at log 2, where tanh is 3/5."""
    return (
        agree("tanh′ against autodiff", tanh_derivative(grid()), slope(tanh, grid())),
        agree("tanh′(log 2)", tanh_derivative(jnp.asarray(log(2))), 16 / 25),
    )


def act_tanh_deriv_a() -> tuple[Claim, ...]:
    """1 − a² of the activation is the slope as a function of z, 1/cosh² z."""
    a, expected = np.asarray(tanh(grid())), 1 / np.cosh(np.asarray(grid())) ** 2
    return agree("1 − a²", 1 - a**2, expected), agree("tanh′(z)", tanh_derivative(grid()), expected)


def act_tanh_sigmoid() -> Claim:
    """Our tanh is our sigmoid, stretched and moved."""
    return agree("2σ(2z) − 1", 2 * np.asarray(sigmoid(2 * grid())) - 1, tanh(grid()))


def act_tanh_alt() -> tuple[Claim, ...]:
    """The form of the list of activations is tanh, and so is its derivative."""
    f = 2 / (1 + np.exp(-2 * np.asarray(grid()))) - 1
    return agree("2/(1 + e^−2x) − 1", f, tanh(grid())), agree("1 − f²", 1 - f**2, tanh_derivative(grid()))


def act_tanh_range() -> tuple[Claim, ...]:
    """tanh lies inside (−1, 1) and is odd; its mean is 0 for z ~ N(0, 4), and 0.353 for z ~ N(1, 4)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    z, largest = 2 * jnp.asarray(nodes), float(jnp.abs(tanh(grid())).max())
    return (
        holds("∣tanh z∣ for ∣z∣ ≤ 6", largest < 1, largest),
        equal("tanh(−z)", tanh(-grid()), -np.asarray(tanh(grid()))),
        holds("its mean for N(0, 4)", abs(weights @ np.asarray(tanh(z))) < 1e-12, float(weights @ np.asarray(tanh(z)))),
        agree("its mean for N(1, 4)", weights @ np.asarray(tanh(1 + z)), 0.353, tol=2e-3),
        agree("the mean of σ for N(0, 4)", weights @ np.asarray(sigmoid(z)), 0.5),
        equal("tanh(20), by rounding", tanh(jnp.asarray(20.0)), 1.0),
    )


def act_saturation() -> tuple[Claim, ...]:
    """Far out the slopes are those of e^−∣z∣ and 4e^−2∣z∣: 4.5e-5 and 8.2e-9 at ±10."""
    z = jnp.array([-10.0, 10.0])
    return (
        agree("σ′(±10)", sigmoid_derivative(z), np.full(2, np.exp(-10)), tol=1e-4),
        agree("tanh′(±10)", tanh_derivative(z), np.full(2, 4 * np.exp(-20)), tol=1e-6),
        equal(
            "exactly 0 by rounding only: σ′(36) and σ′(40)",
            sigmoid_derivative(jnp.array([36.0, 40.0])) > 0,
            [True, False],
        ),
    )
