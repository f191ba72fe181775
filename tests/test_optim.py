"""The optimisers against optax, step by step over 100 steps in float64; by name; and the schedules at their ends."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optim_paths import ALPHA, BETA, STEPS, assert_paths, paths, rates

from mlpjax import optim
from mlpjax.errors import ConfigError
from mlpjax.optim import OPTIMIZERS, SCHEDULES, make_optimizer

LR = 0.1
MASK = {"W": True, "b": False, "slope": False}


def ema(alpha):
    return optax.chain(optax.ema(BETA, debias=False), optax.scale_by_learning_rate(alpha))


# ours and optax's, as functions of α
SAME = {
    "gradient descent": (optim.gradient_descent, optax.sgd),
    "momentum": (optim.momentum, ema),
    "momentum, another β": (
        lambda a: optim.momentum(a, 0.5, form="heavy_ball"),
        lambda a: optax.sgd(a, momentum=0.5),
    ),
    "heavy ball": (lambda a: optim.momentum(a, form="heavy_ball"), lambda a: optax.sgd(a, momentum=BETA)),
    "momentum, optax": (lambda a: optim.momentum(a, convention="optax"), lambda a: optax.sgd(a, momentum=BETA)),
    "momentum, torch": (lambda a: optim.momentum(a, convention="torch"), lambda a: optax.sgd(a, momentum=BETA)),
    "nesterov, optax": (
        lambda a: optim.nesterov(a, convention="optax"),
        lambda a: optax.sgd(a, momentum=BETA, nesterov=True),
    ),
    "nesterov, torch, another β": (
        lambda a: optim.nesterov(a, 0.5, convention="torch"),
        lambda a: optax.sgd(a, momentum=0.5, nesterov=True),
    ),
    "adagrad": (optim.adagrad, lambda a: optax.adagrad(a, 0.0, 1e-8)),
    "adagrad, constants": (lambda a: optim.adagrad(a, 1e-3, start=0.5), lambda a: optax.adagrad(a, 0.5, 1e-3)),
    "adagrad, optax": (lambda a: optim.adagrad(a, convention="optax"), optax.adagrad),
    "adagrad, optax, ε": (lambda a: optim.adagrad(a, 1e-3, convention="optax"), lambda a: optax.adagrad(a, eps=1e-3)),
    "adadelta": (optim.adadelta, lambda a: optax.adadelta(a, 0.95, 1e-6)),
    "adadelta, α = 1": (lambda a: optim.adadelta(), lambda a: optax.adadelta(1.0, 0.95, 1e-6)),
    "adadelta, constants": (lambda a: optim.adadelta(a, 0.8, 1e-4), lambda a: optax.adadelta(a, 0.8, 1e-4)),
    "adadelta, optax": (lambda a: optim.adadelta(a, convention="optax"), optax.adadelta),
    "adadelta, keras": (lambda a: optim.adadelta(convention="keras"), lambda a: optax.adadelta(1e-3, 0.95, 1e-7)),
    "rmsprop": (optim.rmsprop, optax.rmsprop),
    "rmsprop, constants": (lambda a: optim.rmsprop(a, 0.7, 1e-3), lambda a: optax.rmsprop(a, 0.7, 1e-3)),
    "rmsprop, torch": (
        lambda a: optim.rmsprop(a, convention="torch"),
        lambda a: optax.rmsprop(a, 0.99, 1e-8, eps_in_sqrt=False),
    ),
    "adam": (optim.adam, optax.adam),
    "adam, constants": (lambda a: optim.adam(a, 0.8, 0.9, 1e-3), lambda a: optax.adam(a, 0.8, 0.9, 1e-3)),
    "adam, β₁ = 0": (lambda a: optim.adam(a, 0.0), lambda a: optax.adam(a, 0.0)),
    "adam, torch": (lambda a: optim.adam(a, convention="torch"), optax.adam),
    "coupled decay": (
        lambda a: optax.chain(optim.coupled_decay(0.1), optim.adam(a)),
        lambda a: optax.chain(optax.add_decayed_weights(0.1, MASK), optax.adam(a)),
    ),
    "decoupled decay": (
        lambda a: optax.chain(optim.adam(a), optim.decoupled_decay(a, 0.1)),
        lambda a: optax.adamw(a, weight_decay=0.1, mask=MASK),
    ),
    "decay of all": (
        lambda a: optax.chain(optim.adam(a), optim.decoupled_decay(a, 0.1, mask=True)),
        lambda a: optax.adamw(a, weight_decay=0.1),
    ),
    "decay of b": (
        lambda a: optax.chain(
            optim.coupled_decay(0.1, mask=lambda tree: {name: name == "b" for name in tree}),
            optim.momentum(a, form="heavy_ball"),
        ),
        lambda a: optax.chain(
            optax.add_decayed_weights(0.1, {"W": False, "b": True, "slope": False}), optax.sgd(a, momentum=BETA)
        ),
    ),
    "clipping": (
        lambda a: optax.chain(optax.clip_by_global_norm(0.5), optim.rmsprop(a)),
        lambda a: optax.chain(optax.clip_by_global_norm(0.5), optax.rmsprop(a)),
    ),
}
AT_ONE_RATE = {
    "nesterov": (optim.nesterov, lambda a: optax.sgd(a * (1 - BETA), momentum=BETA, nesterov=True)),
    "nesterov, heavy ball": (
        lambda a: optim.nesterov(a, form="heavy_ball"),
        lambda a: optax.sgd(a, momentum=BETA, nesterov=True),
    ),
    "momentum is a heavy ball with α(1 − β)": (
        optim.momentum,
        lambda a: optim.momentum(a * (1 - BETA), form="heavy_ball"),
    ),
    "the rate inside, at one rate": (
        lambda a: optim.momentum(a, convention="keras"),
        lambda a: optax.sgd(a, momentum=BETA),
    ),
    "the rate inside, ahead, at one rate": (
        lambda a: optim.nesterov(a, convention="sklearn"),
        lambda a: optax.sgd(a, momentum=BETA, nesterov=True),
    ),
}


@functools.cache
def compared():
    """Both paths of every pair, under a schedule and, where only that is claimed, at one rate: one program."""

    @jax.jit
    def walk():
        pairs = {name: (pair, rates) for name, pair in SAME.items()} | {n: (p, ALPHA) for n, p in AT_ONE_RATE.items()}
        return tuple(paths({name: pair[i](alpha) for name, (pair, alpha) in pairs.items()}) for i in range(2))

    with jax.enable_x64(True):
        ours, theirs = jax.device_get(walk())
    return {name: (ours[name], theirs[name]) for name in ours}


@pytest.mark.parametrize("name", [*SAME, *AT_ONE_RATE])
def test_the_path_of_optax(name):
    ours, theirs = compared()[name]
    assert ours["W"].shape == (STEPS, 3, 2)
    assert np.abs(theirs["W"][-1] - theirs["W"][0]).max() > 1e-4
    assert_paths(ours, theirs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("momentum", "heavy ball"),
        ("momentum, another β", "heavy ball"),
        ("adagrad", "adagrad, optax"),
        ("adagrad, constants", "adagrad, optax"),
        ("adadelta", "adadelta, optax"),
        ("rmsprop", "rmsprop, torch"),
        ("adam", "adam, constants"),
        ("coupled decay", "decoupled decay"),
        ("decoupled decay", "decay of all"),
        ("clipping", "rmsprop"),
    ],
)
def test_the_problem_tells_rules_apart(one, other):
    with pytest.raises(AssertionError):
        assert_paths(compared()[one][0], compared()[other][0], tol=1e-4)


NAMED = {
    "sgd": optim.gradient_descent,
    "momentum": optim.momentum,
    "nesterov": optim.nesterov,
    "adagrad": optim.adagrad,
    "adadelta": optim.adadelta,
    "rmsprop": optim.rmsprop,
    "adam": optim.adam,
    "adam_slide": optim.adam_slide,
}


def two_steps(optimizer):
    params = {"W": jnp.array([1.0, -2.0, 0.3])}
    state = optimizer.init(params)
    for g in ([3.0, 0.0, -0.5], [-1.0, 1e-3, 2.0]):
        updates, state = optimizer.update({"W": jnp.array(g)}, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params["W"])


def test_the_names():
    assert {**OPTIMIZERS} == NAMED


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_by_name(name):
    np.testing.assert_array_equal(two_steps(make_optimizer(name, LR)), two_steps(NAMED[name](LR)))


@pytest.mark.parametrize("convention", ["torch", "keras", "optax", "sklearn"])
def test_by_name_and_convention(convention):
    got = two_steps(make_optimizer("adam", LR, convention=convention))
    np.testing.assert_array_equal(got, two_steps(optim.adam(LR, convention=convention)))


def test_all_parts_by_name():
    whole = make_optimizer(
        "momentum", LR, schedule="linear", steps=4, clip=1.0, convention="torch", weight_decay=0.5, proximal_l1=0.2
    )
    linear = optax.linear_schedule(LR, 0.0, 4)
    parts = optax.chain(
        optax.clip_by_global_norm(1.0),
        optim.momentum(linear, convention="torch"),
        optim.decoupled_decay(linear, 0.5),
        optim.proximal_l1(linear, 0.2),
    )
    np.testing.assert_array_equal(two_steps(whole), two_steps(parts))
    # and by hand: the first gradient is clipped by 3.04, the second by 2.24
    W, V = np.array([1.0, -2.0, 0.3]), np.zeros(3)
    for alpha, g in ((0.1, np.array([3.0, 0.0, -0.5])), (0.075, np.array([-1.0, 1e-3, 2.0]))):
        V = 0.9 * V + g / np.linalg.norm(g)
        moved = W - alpha * V - alpha * 0.5 * W
        W = np.sign(moved) * np.maximum(np.abs(moved) - alpha * 0.2, 0)
    np.testing.assert_allclose(two_steps(whole), W, rtol=1e-6)


def course(name, steps):
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
    np.testing.assert_allclose(course(name, 20), [LR * COURSES[name](t) for t in range(21)], atol=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 9, 11])
def test_short_runs_learn(name, steps):
    taken = course(name, steps)[:steps]
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
        ("adamm", {}, r"unknown optimizer 'adamm': did you mean 'adam'\? known: sgd, .*, adam, adam_slide$"),
        ("AdamW", {}, r"unknown optimizer 'AdamW': .*known: sgd, .*; for AdamW give 'adam' and weight_decay$"),
        ("adam", {"schedule": "cosin"}, r"unknown schedule 'cosin': did you mean 'cosine'\?"),
        ("adam", {"lr": 0.0}, "learning rate is 0.0: expected a finite number > 0"),
        ("adam", {"lr": -1.0}, "learning rate is -1.0"),
        ("adam", {"lr": math.nan}, "learning rate is nan"),
        ("adam", {"lr": math.inf}, "learning rate is inf"),
        ("adam", {"clip": 0.0}, "clip is 0.0: expected a finite number > 0"),
        ("adam", {"clip": math.nan}, "clip is nan"),
        ("adam", {"weight_decay": -1.0}, "l2 is -1.0: expected a finite number ≥ 0"),
        ("adam", {"weight_decay": math.inf}, "l2 is inf"),
        ("adam", {"proximal_l1": -1.0}, "l1 is -1.0: expected a finite number ≥ 0"),
        ("adam", {"convention": "tourch"}, r"unknown convention 'tourch': did you mean 'torch'\? known: torch, keras"),
        ("rmsprop", {"convention": "sklearn"}, "sklearn has no 'rmsprop': expected a convention that has it: torch, "),
        ("adam_slide", {"convention": "keras"}, "keras has no 'adam_slide': no library has it; leave it out"),
    ],
)
def test_bad_settings(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(name, **{"lr": LR} | settings)
