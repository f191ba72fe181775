"""The laws of softmax: by itself, and as the head of the networks of `test_properties`."""

import dataclasses
import functools

import jax
import numpy as np
from cases import assert_close
from hypothesis import given
from hypothesis import strategies as st
from test_properties import STRUCTURES, M, many, networks, rngs, rounding, whole

from mlpjax import HEADS

SOFTMAX = tuple(config for config in STRUCTURES if config.head == "multiclass")


def assert_near(got, expected, tolerance):
    """Every number agrees, to the rounding of 1 at best: log ŷ and ŷ − y near ŷ = y are no more exact than that."""
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), got, expected)


@jax.jit
def softmax_parts(z, y):
    head = HEADS["multiclass"]
    return head.loss(z, y), head.dz(z, y), head.link(z), head.decide(head.link(z))


@many
@given(rngs, st.sampled_from((1, 1000)))
def test_softmax_does_not_see_a_shift(x64, rng, largest):
    """L(z + s 1ᵀ) = L(z), dz(z + s 1ᵀ) = dz(z), ŷ(z + s 1ᵀ) = ŷ(z), to the bit where z + s is exact."""
    z = np.round(rng.normal(scale=8.0, size=(M, 4)), 3) // 2**-30 * 2**-30
    soft = rng.dirichlet(np.ones(4), M)
    shift = rng.integers(-largest, largest, (M, 1), endpoint=True)
    assert_close(softmax_parts(z + shift, soft), softmax_parts(z, soft), 0.0)


@many
@given(networks(SOFTMAX), st.floats(-1e3, 1e3))
def test_a_shift_of_the_output_bias_changes_nothing(x64, case, shift):
    """J(b[L] + s) = J(b[L]) with softmax, and Σ_c db[L]_c = 0."""
    last = case.params[-1]
    shifted = case._replace(params=(*case.params[:-1], last._replace(b=last.b + shift)))
    expected = whole(case)[0]
    assert_near(whole(shifted)[0], expected, 1e-10)
    assert abs(expected[-1][-1].b.sum()) < 1e-15


@jax.jit
def logistic_parts(z, y):
    head = HEADS["binary"]
    return head.loss(z, y), head.dz(z, y), head.link(z), head.decide(head.link(z))


@many
@given(rngs, st.sampled_from((0.1, 3.0, 30.0)))
def test_softmax_of_two_classes_is_the_logistic_function(x64, rng, scale):
    """softmax(z₁, z₂)₂ = σ(z₂ − z₁): loss, ŷ and decision agree, and dz₂ = −dz₁ = dz."""
    z, y = rng.normal(scale=scale, size=(M, 2)), rng.integers(0, 2, M)
    L, dz, yhat, decided = jax.device_get(softmax_parts(z, np.eye(2)[y]))
    L_1, dz_1, yhat_1, decided_1 = jax.device_get(logistic_parts(z[:, 1:] - z[:, :1], y[:, None].astype(float)))
    assert_near((L, dz), (L_1, np.hstack([-dz_1, dz_1])), 1e-14)
    np.testing.assert_allclose(yhat[:, 1:], yhat_1, rtol=1e-13)
    np.testing.assert_array_equal(decided, decided_1)


@given(networks(SOFTMAX[:2]))
def test_a_network_of_two_classes_is_a_binary_one(x64, case):
    """J of softmax = J of σ with W = W[:, 1] − W[:, 0] and b alike; dW[:, 1] = −dW[:, 0] = dW."""
    rates = {"l1": None, "l2": None}
    case = case._replace(config=dataclasses.replace(case.config, **rates))
    config = dataclasses.replace(case.config, head="binary", sizes=(*case.config.sizes[:-1], 1))
    *hidden, last = case.params
    one = jax.tree.map(lambda leaf: leaf[..., 1:] - leaf[..., :1], last)
    (*parts, grads), z = whole(case)
    (*parts_1, grads_1), z_1 = whole(case._replace(config=config, params=(*hidden, one)))
    two = jax.tree.map(lambda leaf: np.concatenate([-leaf, leaf], axis=-1), grads_1[-1])
    assert_near((parts, grads, z[:, 1:] - z[:, :1]), (parts_1, (*grads_1[:-1], two), z_1), rounding(case))
