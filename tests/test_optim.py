"""The optimisers against their formulas in NumPy, and the schedules at their ends."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlpjax.errors import ConfigError
from mlpjax.optim import OPTIMIZERS, SCHEDULES, make_optimizer

LR = 0.1
GRADIENTS = [np.array([1.0, -2.0, 0.5]), np.array([0.5, 1.0, -1.0]), np.array([-0.25, 0.0, 2.0])]


def sgd(memory, g):
    return g


def momentum(memory, g):
    memory["v"] = 0.9 * memory.get("v", 0) + g
    return memory["v"]


def nesterov(memory, g):
    return 0.9 * momentum(memory, g) + g


def adagrad(memory, g):
    memory["s"] = memory.get("s", 0.1) + g**2
    return g / np.sqrt(memory["s"] + 1e-7)


def adadelta(memory, g):
    memory["s"] = 0.9 * memory.get("s", 0) + 0.1 * g**2
    step = g * np.sqrt((memory.get("d", 0) + 1e-6) / (memory["s"] + 1e-6))
    memory["d"] = 0.9 * memory.get("d", 0) + 0.1 * step**2
    return step


def rmsprop(memory, g):
    memory["s"] = 0.9 * memory.get("s", 0) + 0.1 * g**2
    return g / np.sqrt(memory["s"] + 1e-8)


def adam(memory, g):
    t = memory["t"] = memory.get("t", 0) + 1
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    return memory["m"] / (1 - 0.9**t) / (np.sqrt(memory["v"] / (1 - 0.999**t)) + 1e-8)


RULES = {rule.__name__: rule for rule in (sgd, momentum, nesterov, adagrad, adadelta, rmsprop, adam)}


def test_every_optimiser_has_a_formula():
    assert RULES.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps(name):
    optimizer = make_optimizer(name, LR)
    params, theta, memory = jnp.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]), {}
    opt_state = optimizer.init(params)
    for g in GRADIENTS:
        updates, opt_state = optimizer.update(jnp.asarray(g, jnp.float32), opt_state, params)
        params = optax.apply_updates(params, updates)
        theta = theta - LR * RULES[name](memory, g)
        np.testing.assert_allclose(params, theta, rtol=2e-5)


def rates(name, steps):
    schedule = SCHEDULES[name](LR, steps)
    return np.array([schedule(t) if callable(schedule) else schedule for t in range(steps + 1)])


COURSES = {
    "constant": lambda t: 1.0,
    "cosine": lambda t: (1 + math.cos(math.pi * t / 20)) / 2,
    "linear": lambda t: 1 - t / 20,
    "warmup_cosine": lambda t: t / 2 if t < 2 else (1 + math.cos(math.pi * (t - 2) / 18)) / 2,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_course_of_the_rate(name):
    np.testing.assert_allclose(rates(name, 20), [LR * COURSES[name](t) for t in range(21)], atol=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 9, 11])
def test_short_runs_learn(name, steps):
    taken = rates(name, steps)[:steps]
    assert np.isfinite(taken).all()
    assert taken.max() == pytest.approx(LR)


def test_the_schedule_is_followed_by_the_optimiser():
    optimizer = make_optimizer("sgd", LR, schedule="linear", steps=2)
    params = jnp.zeros(())
    opt_state = optimizer.init(params)
    for rate in (LR, LR / 2, 0.0):
        update, opt_state = optimizer.update(jnp.ones(()), opt_state, params)
        assert float(update) == pytest.approx(-rate)


@pytest.mark.parametrize(("clip", "expected"), [(1.0, [-0.06, -0.08]), (5.0, [-0.3, -0.4]), (6.0, [-0.3, -0.4])])
def test_clipping_keeps_the_direction(clip, expected):
    optimizer = make_optimizer("sgd", LR, clip=clip)
    params = {"W": jnp.zeros(1), "b": jnp.zeros(1)}
    update, _ = optimizer.update({"W": jnp.array([3.0]), "b": jnp.array([4.0])}, optimizer.init(params), params)
    np.testing.assert_allclose([update["W"][0], update["b"][0]], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adamm", {}, r"unknown optimizer 'adamm': did you mean 'adam'\? known: sgd, "),
        ("adam", {"schedule": "cosin"}, r"unknown schedule 'cosin': did you mean 'cosine'\?"),
        ("adam", {"lr": 0.0}, "learning rate is 0.0: expected a finite number > 0"),
        ("adam", {"lr": -1.0}, "learning rate is -1.0"),
        ("adam", {"lr": math.nan}, "learning rate is nan"),
        ("adam", {"lr": math.inf}, "learning rate is inf"),
        ("adam", {"clip": 0.0}, "clip is 0.0: expected a finite number > 0"),
        ("adam", {"clip": math.nan}, "clip is nan"),
    ],
)
def test_bad_settings(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(name, **{"lr": LR} | settings)
