"""The landscapes: values, derivatives three ways, minima, and how they are walked."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlpjax.errors import ConfigError, InputError
from mlpjax.landscapes import LANDSCAPES, bowl, newton_step, steps_to_leave_saddle, trajectory

POINTS = np.array([[0.7, -0.4], [-1.3, 0.6], [2.0, 1.0], [0.0, 0.0]])
EVERY = {**LANDSCAPES, "three": bowl((0.5, 2.0, 9.0))}


def points(one):
    return jnp.asarray(np.pad(POINTS, ((0, 0), (0, len(one.start) - 2)), constant_values=0.3))


@pytest.mark.parametrize("name", EVERY)
def test_the_derivatives(name, x64):
    one = EVERY[name]

    @jax.jit
    @jax.vmap
    def both(theta):
        return (one.df(theta), one.ddf(theta)), (jax.grad(one.f)(theta), jax.hessian(one.f)(theta))

    ours, by_jax = both(points(one))
    for mine, theirs in zip(ours, by_jax, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
    f, h = jax.jit(one.f), 1e-6
    for theta, gradient in zip(points(one), ours[0], strict=True):
        differences = [(f(theta + h * e) - f(theta - h * e)) / (2 * h) for e in np.eye(len(theta))]
        np.testing.assert_allclose(gradient, differences, rtol=1e-7, atol=1e-7)


def test_values(x64):
    assert float(LANDSCAPES["rosenbrock"].f(jnp.array([2.0, 3.0]))) == 101
    # (1.5 − 2·½)² + (2.25 − 2·¾)² + (2.625 − 2·⅞)²
    assert float(LANDSCAPES["beale"].f(jnp.array([2.0, 0.5]))) == 0.25 + 0.5625 + 0.765625
    assert float(LANDSCAPES["saddle"].f(jnp.array([1.0, 3.0]))) == -8
    assert float(bowl((2.0, 4.0)).f(jnp.array([1.0, 3.0]))) == 19


@pytest.mark.parametrize("name", [name for name, one in EVERY.items() if one.minimum])
def test_the_minimum(name, x64):
    one = EVERY[name]
    theta = jnp.array(one.minimum)
    assert float(one.f(theta)) == 0
    np.testing.assert_allclose(one.df(theta), 0, atol=1e-14)
    assert np.linalg.eigvalsh(one.ddf(theta))[0] > 0


def test_a_saddle_has_none():
    assert LANDSCAPES["saddle"].minimum is None
    np.testing.assert_array_equal(np.linalg.eigvalsh(LANDSCAPES["saddle"].ddf(jnp.zeros(2))), [-2, 2])


@pytest.mark.parametrize("name", EVERY)
def test_single_precision_stays(name):
    one, theta = EVERY[name], jnp.ones(len(EVERY[name].start), jnp.float32)
    assert {one.f(theta).dtype, one.df(theta).dtype, one.ddf(theta).dtype} == {jnp.dtype("float32")}


def test_the_path_of_an_optimiser_with_memory(x64):
    path = trajectory(bowl((1.0, 10.0)), optax.sgd(0.05, momentum=0.9), 30, (2.0, -1.0))
    theta, v = np.array([2.0, -1.0]), np.zeros(2)
    expected = [theta]
    for _ in range(30):
        v = 0.9 * v + np.array([1.0, 10.0]) * theta
        theta = theta - 0.05 * v
        expected.append(theta)
    np.testing.assert_allclose(path, expected, rtol=1e-12)


def test_newton(x64):
    three = EVERY["three"]
    np.testing.assert_allclose(newton_step(three, jnp.array([3.0, -7.0, 0.2])), 0, atol=1e-15)
    theta = jnp.array([3.1, 0.55])
    for _ in range(6):
        theta = newton_step(LANDSCAPES["beale"], theta)
    np.testing.assert_allclose(theta, (3, 0.5), rtol=1e-12)


@pytest.mark.parametrize(("y", "lr", "distance"), [(1e-6, 0.05, 1.0), (-1e-3, 0.2, 2.0), (0.3, 0.01, 0.31)])
def test_the_steps_that_it_takes_to_leave_the_saddle(y, lr, distance, x64):
    steps = steps_to_leave_saddle(y, lr, distance)
    away = np.abs(trajectory(LANDSCAPES["saddle"], optax.sgd(lr), steps, (1.0, y))[:, 1])
    assert away[-1] >= distance > away[-2]


def test_who_is_away_needs_no_step_and_who_is_on_the_ridge_never_leaves():
    assert steps_to_leave_saddle(2.0, 0.1) == 0
    assert steps_to_leave_saddle(0.0, 0.1) == math.inf


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bowl(()), InputError, "finite numbers > 0"),
        (lambda: bowl((1.0, 0.0)), InputError, "finite numbers > 0"),
        (lambda: bowl((1.0, math.inf)), InputError, "finite numbers > 0"),
        (lambda: trajectory(bowl((1.0, 2.0)), optax.sgd(0.1), 0), ConfigError, "steps is 0"),
        (lambda: trajectory(bowl((1.0,)), optax.sgd(0.1), 1, (1.0, 2.0)), InputError, r"start has shape \(2,\)"),
        (lambda: steps_to_leave_saddle(1e-6, 0.0), InputError, "lr is 0.0"),
        (lambda: steps_to_leave_saddle(1e-6, 0.1, math.nan), InputError, "distance is nan"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
