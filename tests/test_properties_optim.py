"""The laws of `test_properties` after three steps of every optimiser, and class weights through `fit`."""

import functools

import jax
import numpy as np
import pytest
from cases import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from test_properties import (
    STRUCTURES,
    WEIGHTS,
    M,
    networks,
    orders_for,
    padded,
    rename,
    repeated,
    rngs,
    with_absent,
    with_rows,
)

import mlpjax
from mlpjax import Batch, TrainState
from mlpjax.optim import OPTIMIZERS
from mlpjax.step import train_step

RULES = {name: make(0.05) for name, make in OPTIMIZERS.items()}
# every head, with and without batch-norm
TRAINED = dict(zip(RULES, (STRUCTURES[i] for i in (6, 3, 2, 7, 4, 5, 1, 8)), strict=True))
# Adam divides by |g| + 1e-8: where g is near 0, its rounding of 1e-16 and more is 1e-7 of a step
ROUNDING = {"adam": 1e-6}
EVERY_OPTIMISER = pytest.mark.parametrize("name", RULES)
few = settings(max_examples=12)


def drawn(name):
    """Cases in which no gradient is 0 but for rounding: Adam would divide that rounding by 1e-8, and follow it."""
    return networks((TRAINED[name],), scales=(0.1, 1.0, 3.0), shapes=("generic",), kinds=WEIGHTS[:-1], zeros=0.0)


@functools.partial(jax.jit, static_argnums=1)
def three_steps(case, optimizer):
    config, params, state, batch, *_ = case

    def body(train_state, key):
        return train_step(config, optimizer, mlpjax.backward, train_state, batch, key)

    start = TrainState(params, state, optimizer.init(params))
    return jax.lax.scan(body, start, jax.random.split(jax.random.key(0), 3))


def trained(case, name):
    """Parameters and state after three steps on one batch, and J before each."""
    end, report = three_steps(case._replace(key=None, train=None), RULES[name])
    return jax.device_get((end.params, end.state, report.J))


@pytest.mark.slow
@EVERY_OPTIMISER
@few
@given(st.data(), rngs)
def test_training_on_multiplicities(x64, name, data, rng):
    """θ₃(x, y, k ⊙ w) = θ₃ on kᵢ copies of row i."""
    case = data.draw(drawn(name))
    weighted, copied = repeated(case, rng)
    assert_close(trained(weighted, name), trained(copied, name), ROUNDING.get(name, 1e-10))


@EVERY_OPTIMISER
@few
@given(st.data(), rngs, st.sampled_from((0.0, 1e6, np.nan, -np.inf)))
def test_training_with_absent_rows(x64, name, data, rng, filler):
    """θ₃(X ∪ X₀, w ∪ 0) = θ₃(X, w), whatever X₀ is; and so for padding."""
    case = data.draw(drawn(name))
    expected = trained(case, name)
    assert_close(trained(with_absent(case, rng, filler), name), expected, ROUNDING.get(name, 1e-10))
    assert_close(trained(padded(case), name), expected, ROUNDING.get(name, 1e-10))


@EVERY_OPTIMISER
@few
@given(st.data(), rngs)
def test_training_in_another_order(x64, name, data, rng):
    """θ₃(P X, P y, P w) = θ₃(X, y, w)."""
    case, order = data.draw(drawn(name)), rng.permutation(M)
    other = with_rows(case, order, case.batch.weight[order])
    assert_close(trained(other, name), trained(case, name), ROUNDING.get(name, 1e-10))


@EVERY_OPTIMISER
@few
@given(st.data(), rngs)
def test_training_of_renamed_units(x64, name, data, rng):
    """θ₃ from π θ₀ = π θ₃ from θ₀: no optimiser knows the order of the hidden units."""
    case = data.draw(drawn(name))
    orders = orders_for(case.config, rng)
    params, state = rename(case.config, case.params, case.state, orders)
    params_3, state_3, J = trained(case, name)
    expected = (*rename(case.config, params_3, state_3, orders), J)
    assert_close(trained(case._replace(params=params, state=state), name), expected, ROUNDING.get(name, 1e-10))


FITTED = (STRUCTURES[1], STRUCTURES[4])
PER_CLASS = st.lists(st.integers(0, 32).map(lambda n: n / 8), min_size=2, max_size=2).filter(any) | st.just("balanced")


@settings(max_examples=8)
@given(networks(FITTED, scales=(1.0,), shapes=("generic",)), PER_CLASS)
def test_class_weights_are_sample_weights(x64, case, class_weight):
    """fit with c_k per class = fit with c_{yᵢ} wᵢ per example, to the bit; balanced: c_k = m/(K m_k)."""
    x, y, weight = case.batch
    counts = np.bincount(y, minlength=2)
    balanced = np.where(counts > 0, M / (2 * np.maximum(counts, 1)), 0)
    per_class = np.asarray(balanced if class_weight == "balanced" else class_weight, float)
    fit = functools.partial(mlpjax.fit, case.config, RULES["adam"], epochs=2, batch_size=3, key=jax.random.key(1))
    start = {"params": case.params, "state": case.state}
    by_class = fit(train_data=Batch(x, y, weight), class_weight=class_weight, **start)
    by_sample = fit(train_data=Batch(x, y, per_class[y] * weight), **start)
    for result in (by_class, by_sample):
        del result.history["seconds"]
    assert_close(by_class[:4], by_sample[:4], 0.0)
