"""The optimisers as parts of larger things: dtypes, populations, accumulation and masks; and what they refuse."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlpjax
from mlpjax import Batch, Config, Layer, TrainState, optim
from mlpjax.errors import ConfigError, InputError
from mlpjax.optim import OPTIMIZERS
from mlpjax.step import train_step

EVERY = {**OPTIMIZERS, "adadelta_slide": optim.adadelta_slide}
RAMP = optax.linear_schedule(0.1, 0.02, 8)


def tree(dtype=jnp.float32):
    return {"layers": (Layer(W=jnp.array([[1.0, -2.0]], dtype), b=jnp.array([0.5, 3.0], dtype)), None), "c": 1.5}


def grads_of(params, t=0.0):
    return jax.tree.map(lambda theta: jnp.cos(theta + t), params)


def walk(optimizer, params, steps=4):
    """The parameters and the state after some steps."""

    def step(carry, t):
        params, state = carry
        updates, state = optimizer.update(grads_of(params, t), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(float(steps)))[0]


@functools.cache
def populations():
    """For every rule, a population of three rates in one vmap, and its members one by one."""
    alphas = jnp.array([0.01, 0.1, 0.5])
    params = jax.tree.map(jnp.asarray, tree())

    def end(make, alpha):
        return walk(make(alpha), params)[0]

    @jax.jit
    def both():
        return {
            name: (jax.vmap(functools.partial(end, make))(alphas), [end(make, alpha) for alpha in alphas])
            for name, make in EVERY.items()
        }

    return jax.device_get(both())


@pytest.mark.parametrize("name", EVERY)
def test_a_population_of_rates(name):
    population, alone = populations()[name]
    stacked = jax.tree.map(lambda *members: np.stack(members), *alone)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-6), population, stacked)
    W = population["layers"][0].W
    assert W.shape == (3, 1, 2)
    assert np.abs(W[0] - W[2]).max() > 1e-3


def test_a_population_of_other_constants():
    betas, params = jnp.array([0.5, 0.9]), jnp.array([1.0, -2.0])
    found = jax.vmap(lambda beta: walk(optim.adam(RAMP, beta, 0.99, beta * 1e-3), params)[0])(betas)
    alone = [walk(optim.adam(RAMP, beta, 0.99, beta * 1e-3), params)[0] for beta in (0.5, 0.9)]
    np.testing.assert_allclose(found, jnp.stack(alone), rtol=2e-6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("theta", "gradient", "memory"),
    [
        ("bfloat16", "bfloat16", "float32"),
        ("float16", "float32", "float32"),
        ("float32", "bfloat16", "float32"),
        ("float64", "float32", "float64"),
        ("float64", "float64", "float64"),
    ],
)
def test_dtypes(x64, name, theta, gradient, memory):
    """Memory has float32 at least, updates the dtype of θ; a step leaves shapes and dtypes of the state."""
    optimizer = EVERY[name](RAMP)
    params = {"W": jnp.ones((2, 3), theta), "b": None}
    state = optimizer.init(params)
    grads = {"W": jnp.ones((2, 3), gradient), "b": None}
    updates, after = jax.eval_shape(optimizer.update, grads, state, params)
    assert (updates["W"].shape, updates["W"].dtype) == ((2, 3), theta)
    arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert {leaf.dtype.name for leaf in arrays} == ({memory} if name != "sgd" else set())
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)


def test_memory_is_finer_than_its_gradients():
    """An average of bfloat16 gradients in float32: 1 − 0.9¹⁰ to six digits, where bfloat16 has two."""
    optimizer = optim.momentum(1.0)
    params = jnp.zeros((), jnp.bfloat16)
    state = optimizer.init(params)
    for _ in range(10):
        _, state = optimizer.update(jnp.ones((), jnp.bfloat16), state, params)
    assert float(state.V) == pytest.approx(1 - 0.9**10, rel=1e-6)


def test_accumulation_is_of_optax():
    """Two half batches under MultiSteps are one batch with the mean of their gradients."""
    optimizer = optax.chain(optax.clip(0.5), optim.nesterov(RAMP))
    halves = optax.MultiSteps(optimizer, 2)

    def step(carry, t):
        params, state, other, whole = carry
        parts = [grads_of(params, t), grads_of(params, 2 * t)]
        for grads in parts:
            updates, state = halves.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        updates, whole = optimizer.update(jax.tree.map(lambda a, b: (a + b) / 2, *parts), whole, other)
        return (params, state, optax.apply_updates(other, updates), whole), None

    start = jax.tree.map(jnp.asarray, tree())
    end, _ = jax.lax.scan(step, (start, halves.init(start), start, optimizer.init(start)), jnp.arange(6.0))
    params, state, other, whole = end
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), params, other)
    theta, expected = optim.look_back(params, state), optim.look_back(other, whole)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), theta, expected)


def test_look_back_where_only_some_look_ahead():
    labels = {"layers": (Layer(W="ahead", b="plain"), None), "c": "ahead slowly"}
    optimizer = optax.partition(
        {"ahead": optim.nesterov(RAMP), "plain": optim.adam(RAMP), "ahead slowly": optim.nesterov(0.01, 0.5)}, labels
    )
    params, state = walk(optimizer, jax.tree.map(jnp.asarray, tree()))
    theta = optim.look_back(params, state)
    alone = walk(optim.nesterov(RAMP), tree()["layers"][0].W)
    slowly = walk(optim.nesterov(0.01, 0.5), jnp.asarray(1.5))
    np.testing.assert_allclose(theta["layers"][0].W, optim.look_back(*alone), rtol=1e-6)
    np.testing.assert_allclose(theta["c"], optim.look_back(*slowly), rtol=1e-6)
    np.testing.assert_array_equal(theta["layers"][0].b, params["layers"][0].b)
    assert np.abs(alone[0] - optim.look_back(*alone)).max() > 1e-3


def test_look_back_keeps_the_dtype():
    params = jnp.ones(2, jnp.bfloat16)
    optimizer = optim.nesterov(0.5)
    updates, state = optimizer.update(params, optimizer.init(params), params)
    assert optim.look_back(optax.apply_updates(params, updates), state).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_there_is_nothing_to_look_back_from(name):
    with pytest.raises(InputError, match=r"opt_state has no look-ahead: expected the state of mlpjax\.optim\.nesterov"):
        optim.look_back(jnp.zeros(2), optax.chain(optax.clip(1.0), EVERY[name](0.1)).init(jnp.zeros(2)))


def test_constants_may_be_injected():
    """optax.inject_hyperparams keeps α in the state, where it can be changed."""
    injected = optax.inject_hyperparams(optim.rmsprop)(alpha=0.1, gamma=0.8, eps=1e-6)
    params, state = walk(injected, jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(params, walk(optim.rmsprop(0.1, 0.8, 1e-6), jnp.array([1.0, -2.0]))[0], rtol=1e-6)
    assert float(state.hyperparams["alpha"]) == pytest.approx(0.1)


def test_a_batch_without_weight_leaves_the_state():
    config = Config(sizes=(2, 3, 1), head="binary")
    params, state = mlpjax.init(config, jax.random.key(0))
    parts = (optim.nesterov(RAMP), optim.decoupled_decay(RAMP, 0.1), optim.proximal_l1(RAMP, 0.01))
    optimizer = optax.chain(*parts)
    x, y = jnp.ones((4, 2)), jnp.array([0, 1, 1, 0])
    step = jax.jit(train_step, static_argnums=(1, 2))
    start = TrainState(params, state, optimizer.init(params))
    arguments = (config, optimizer, mlpjax.backward)
    once, _ = step(*arguments, start, Batch(x, y, jnp.ones(4)), jax.random.key(1))
    again, _ = step(*arguments, once, Batch(x, y, jnp.zeros(4)), jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, again, once)
    assert int(once.opt_state[0].t) == 1


FINITE = "expected a finite number ≥ 0"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((functools.partial(make, -0.1), f"alpha is -0.1: {FINITE}") for make in EVERY.values()),
        (lambda: optim.adam(math.nan), f"alpha is nan: {FINITE}"),
        (lambda: optim.adam(math.inf), f"alpha is inf: {FINITE}"),
        (lambda: optim.adam("0.1"), f"alpha is '0.1': {FINITE}"),
        (lambda: optim.adam(True), f"alpha is True: {FINITE}"),
        (lambda: optim.adam(jnp.ones(3)), r"alpha has shape \(3,\): expected one number; .* jax\.vmap"),
        (lambda: optim.momentum(0.1, 1.0), "beta is 1.0: expected a number ≥ 0 and < 1"),
        (lambda: optim.nesterov(0.1, -0.5), "beta is -0.5: expected a number ≥ 0 and < 1"),
        (lambda: optim.adam(0.1, 1.5), "beta1 is 1.5"),
        (lambda: optim.adam_slide(0.1, beta2=1), "beta2 is 1: expected"),
        (lambda: optim.rmsprop(0.1, 1.0), "gamma is 1.0"),
        (lambda: optim.adadelta_slide(0.1, 2.0), "gamma is 2.0"),
        (lambda: optim.adadelta(rho=1.0), "rho is 1.0"),
        (lambda: optim.adam(0.1, eps=0.0), "eps is 0.0: expected a finite number > 0"),
        (lambda: optim.adagrad(0.1, -1e-8), "eps is -1e-08"),
        (lambda: optim.adagrad(0.1, start=-1.0), f"start is -1.0: {FINITE}"),
        (lambda: optim.momentum(0.1, form="ball"), "unknown form 'ball': known: ema, heavy_ball"),
        (lambda: optim.nesterov(0.1, form="rate_inside"), "unknown form 'rate_inside'"),
        (
            lambda: optim.momentum(0.1, form="ema", convention="torch"),
            "form 'ema' and convention 'torch' both choose the form: give one of them",
        ),
        (lambda: optim.gradient_descent(0.1, convention="jax"), r"unknown convention 'jax': .*known: torch, keras"),
        (lambda: optim.adagrad(0.1, convention="sklearn"), "sklearn has no 'adagrad': .*: torch, keras, optax$"),
    ],
)  # fmt: skip
def test_what_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
