"""What optax has not: the slides' rules and other libraries' forms against loops in NumPy, indexed as on the slides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optim_paths import ALPHA, BETA, START, STEPS, assert_paths, literal, paths, rate, rates

from mlpjax import optim
from mlpjax import optim_rules as rules

T = range(1, STEPS + 1)


def momentum_rate_inside(theta_0, d):
    theta, V = {0: theta_0}, {0: 0}
    for t in T:
        V[t] = BETA * V[t - 1] + rate(t) * d(theta[t - 1], t)
        theta[t] = theta[t - 1] - V[t]
    return theta


def two_points(new, theta_0, d):
    """θ, and the points at which the gradient was taken: V[t] = βV[t−1] + (weight of the new) ∂L(θ[t−1] − αβV[t−1])."""
    theta, V, points = {0: theta_0}, {0: 0}, {0: theta_0}
    for t in T:
        V[t] = BETA * V[t - 1] + new * d(theta[t - 1] - rate(t) * BETA * V[t - 1], t)
        theta[t] = theta[t - 1] - rate(t) * V[t]
        points[t] = theta[t] - rate(t + 1) * BETA * V[t]
    return theta, points


def two_points_rate_inside(theta_0, d):
    theta, V, points = {0: theta_0}, {0: 0}, {0: theta_0}
    for t in T:
        V[t] = BETA * V[t - 1] + rate(t) * d(theta[t - 1] - BETA * V[t - 1], t)
        theta[t] = theta[t - 1] - V[t]
        points[t] = theta[t] - BETA * V[t]
    return theta, points


def adagrad_outside(theta_0, d):
    theta, gradients = {0: theta_0}, {}
    for t in T:
        gradients[t - 1] = d(theta[t - 1], t)
        G = sum(gradients[tau] ** 2 for tau in range(t))
        theta[t] = theta[t - 1] - rate(t) * gradients[t - 1] / (np.sqrt(G) + 1e-10)
    return theta


def adagrad(theta_0, d):
    theta, gradients = {0: theta_0}, {}
    for t in T:
        gradients[t - 1] = d(theta[t - 1], t)
        G = sum(gradients[tau] ** 2 for tau in range(t))
        theta[t] = theta[t - 1] - rate(t) * gradients[t - 1] / np.sqrt(G + 1e-8)
    return theta


def rmsprop(gamma, eps, theta_0, d):
    """S[t−1] holds dθ[t−1] and divides it; S[−1] = 0."""
    theta, S, gradients = {0: theta_0}, {-1: 0}, {}
    for t in T:
        gradients[t - 1] = d(theta[t - 1], t)
        S[t - 1] = gamma * S[t - 2] + (1 - gamma) * gradients[t - 1] ** 2
        theta[t] = theta[t - 1] - rate(t) * gradients[t - 1] / np.sqrt(S[t - 1] + eps)
    return theta


def adadelta(theta_0, d):
    theta, E, D = {0: theta_0}, {0: 0}, {0: 0}
    for t in T:
        g = d(theta[t - 1], t)
        E[t] = 0.95 * E[t - 1] + 0.05 * g**2
        step = -np.sqrt(D[t - 1] + 1e-6) / np.sqrt(E[t] + 1e-6) * g
        D[t] = 0.95 * D[t - 1] + 0.05 * step**2
        theta[t] = theta[t - 1] + step
    return theta


def adam(divided, theta_0, d, b1=0.9, b2=0.999):
    """V and S of Adam; ``divided(V, S, t)`` makes the step over α of them."""
    theta, V, S = {0: theta_0}, {0: 0}, {0: 0}
    for t in T:
        g = d(theta[t - 1], t)
        V[t] = b1 * V[t - 1] + (1 - b1) * g
        S[t] = b2 * S[t - 1] + (1 - b2) * g * g
        theta[t] = theta[t - 1] - rate(t) * divided(V[t], S[t], t)
    return theta


def slide(V, S, t):
    return V / np.sqrt(S + 1e-8)


def paper(V, S, t):
    return V / (1 - 0.9**t) / (np.sqrt(S / (1 - 0.999**t)) + 1e-8)


def hat(eps):
    return lambda V, S, t: np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * V / (np.sqrt(S) + eps)


LITERAL = {
    "momentum, keras": (optim.momentum(rates, convention="keras"), momentum_rate_inside),
    "momentum, sklearn": (optim.momentum(rates, convention="sklearn"), momentum_rate_inside),
    "adagrad": (optim.adagrad(rates), adagrad),
    "adagrad, torch": (optim.adagrad(rates, convention="torch"), adagrad_outside),
    "adadelta": (optim.adadelta(), adadelta),
    "adadelta, slide": (optim.adadelta_slide(rates), functools.partial(rmsprop, 0.9, 1e-8)),
    "rmsprop": (optim.rmsprop(rates), functools.partial(rmsprop, 0.9, 1e-8)),
    "rmsprop, keras": (optim.rmsprop(rates, convention="keras"), functools.partial(rmsprop, 0.9, 1e-7)),
    "adam": (optim.adam(rates), functools.partial(adam, paper)),
    "adam, slide": (optim.adam_slide(rates), functools.partial(adam, slide)),
    "adam, keras": (optim.adam(rates, convention="keras"), functools.partial(adam, hat(1e-7))),
    "adam, sklearn": (optim.adam(rates, convention="sklearn"), functools.partial(adam, hat(1e-8))),
    "adam, sklearn, ε": (optim.adam(rates, eps=1e-3, convention="sklearn"), functools.partial(adam, hat(1e-3))),
}
AHEAD = {
    "ahead": (optim.nesterov(rates), functools.partial(two_points, 1 - BETA)),
    "ahead, heavy ball": (optim.nesterov(rates, form="heavy_ball"), functools.partial(two_points, 1.0)),
    "ahead, keras": (optim.nesterov(rates, convention="keras"), two_points_rate_inside),
    "ahead, sklearn": (optim.nesterov(rates, convention="sklearn"), two_points_rate_inside),
}
ADAM = {"β₁ = 0": optim.adam_slide(rates, 0.0, 0.95), "γ = β₂": optim.rmsprop(rates, 0.95)}
AT_ONE_RATE = {
    "at one rate, torch": optim.nesterov(ALPHA, convention="torch"),
    "at one rate": optim.nesterov(ALPHA, form="heavy_ball"),
}
CLIPPED = {
    "before": optax.chain(optax.clip(0.1), optim.nesterov(rates)),
    "between": optax.chain(optax.clip(0.1), optim.nesterov(rates), optim.decoupled_decay(rates, 0.0)),
}


@functools.cache
def walked():
    """All paths, from one program."""

    @jax.jit
    def walk():
        plain = {name: optimizer for name, (optimizer, _) in LITERAL.items()} | ADAM
        ahead = {name: optimizer for name, (optimizer, _) in AHEAD.items()} | AT_ONE_RATE | CLIPPED
        return paths(plain), paths(ahead, lambda params, state: (params, optim.look_back(params, state)))

    with jax.enable_x64(True):
        plain, ahead = jax.device_get(walk())
    return plain | ahead


@pytest.mark.parametrize("name", LITERAL)
def test_the_slides_and_the_libraries(name):
    assert_paths(walked()[name], literal(LITERAL[name][1]))


@pytest.mark.parametrize("name", AHEAD)
def test_the_gradient_is_taken_at_the_point_ahead(name):
    """The parameters are the points at which the two-point form takes the gradient; look_back finds its θ."""
    points, theta = walked()[name]
    assert_paths(theta, literal(lambda *problem: AHEAD[name][1](*problem)[0]))
    assert_paths(points, literal(lambda *problem: AHEAD[name][1](*problem)[1]))
    assert np.abs(points["W"] - theta["W"]).max() > 1e-3


@pytest.mark.parametrize("name", CLIPPED)
def test_look_back_in_a_chain(name):
    """θ of the two-point form on clipped gradients, with the state inside a chain."""

    def clipped(theta_0, d):
        return two_points(1 - BETA, theta_0, lambda theta, t: np.clip(d(theta, t), -0.1, 0.1))[0]

    points, theta = walked()[name]
    assert_paths(theta, literal(clipped))
    assert np.abs(points["W"] - theta["W"]).max() > 1e-4


def test_at_one_rate_the_library_looks_back_the_same():
    assert_paths(walked()["at one rate, torch"], walked()["at one rate"])


def test_adam_without_averaging_is_rmsprop():
    """β₁ = 0 ⇒ RMSprop with γ = β₂."""
    assert_paths(walked()["β₁ = 0"], walked()["γ = β₂"])


def test_adam_with_unit_squares_is_momentum(x64):
    """S = 1 that stays 1, ε = 0 ⇒ momentum."""
    V = W = jnp.asarray(START["W"])
    S = jnp.ones_like(V)
    for t in range(1, 6):
        dtheta = jnp.cos(t * V)
        step, V_adam, S = rules.adam_slide(dtheta, V, S, 0.1, BETA, 1.0, 0.0)
        expected, V = rules.momentum(dtheta, V, 0.1, BETA)
        np.testing.assert_array_equal(S, 1.0)
        np.testing.assert_allclose(V_adam, V, rtol=1e-15)
        np.testing.assert_allclose(step, expected, rtol=1e-15)
        W = W + step


def test_adam_keeps_its_rate_in_float32():
    """Under a constant gradient every step is α, though 1 − 0.999 has four digits in float32."""
    optimizer = optim.adam(0.5)
    state = optimizer.init(jnp.zeros(()))
    for _ in range(20):
        update, state = optimizer.update(jnp.float32(3.0), state)
        assert float(update) == pytest.approx(-0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "first"),
    [
        (lambda: optim.rmsprop(0.1), -0.1 / np.sqrt(0.1)),
        (lambda: optim.adam_slide(0.1), -0.1 * 0.1 / np.sqrt(0.001)),
        (lambda: optim.adadelta(), -np.sqrt(1e-6 / 0.05)),
        (lambda: optim.adagrad(0.1), -0.1),
        (lambda: optim.momentum(0.1), -0.1 * 0.1 * 3e3),
        (lambda: optim.nesterov(0.1), -0.1 * (0.1 + 0.9 * 0.1) * 3e3),
    ],
)
def test_first_steps(make, first):
    optimizer = make()
    update, _ = optimizer.update(jnp.float32(3e3), optimizer.init(jnp.zeros(())))
    assert float(update) == pytest.approx(first, rel=1e-5)
