"""Networks with given weights: XOR, the approximation by steps, and the tent map."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax import ConfigError, InputError, Layer
from mlpjax.perceptron import perceptron_predict
from mlpjax.toys import gate
from mlpjax.universal import (
    AND,
    OR,
    OR_NOT_AND,
    linear_pieces,
    modulus_of_continuity,
    step_approximator,
    tent_network,
    xor_network,
    xor_projection,
)

predict = jax.jit(mlpjax.predict)


def test_the_gates():
    x, xor = gate("xor_gate")
    for unit, name in ((AND, "and_gate"), (OR, "or_gate")):
        np.testing.assert_array_equal(perceptron_predict(unit, x), gate(name)[1])
    np.testing.assert_array_equal(perceptron_predict(OR_NOT_AND, xor_projection(x)), xor)
    assert float(perceptron_predict(AND, [[0.75, 0.75]])[0]) == 1  # T(0) = 1


@pytest.mark.parametrize(("sharpness", "error"), [(None, 0.5), (20, 1e-4), (1000, 1e-12)])
def test_xor_and_its_smooth_copy(sharpness, error):
    x, y = gate("xor_gate")
    config, params = xor_network(sharpness)
    yhat = np.asarray(predict(config, params, (), x)[:, 0])
    assert np.abs(yhat - y).max() < error
    assert [leaf.dtype for layer in params for leaf in layer[:2]] == [np.float32] * 4
    np.testing.assert_array_equal(mlpjax.decide(config, jnp.asarray(yhat)[:, None]), y)


@pytest.mark.parametrize("sharpness", [0, -1, math.inf, math.nan])
def test_a_sharpness_that_is_refused(sharpness):
    with pytest.raises(InputError, match=f"sharpness is {sharpness}: expected a finite number > 0"):
        xor_network(sharpness)


def test_the_steps_by_hand(x64):
    config, (hidden, output) = step_approximator(np.square, 4, 1, 3)
    t, mid = np.array([1, 1.5, 2, 2.5]), np.array([1.25, 1.75, 2.25, 2.75])
    np.testing.assert_array_equal(hidden.W, np.ones((1, 4)))
    np.testing.assert_array_equal(hidden.b, -t)
    np.testing.assert_allclose(output.W[:, 0], [1.25**2, *(mid[1:] ** 2 - mid[:-1] ** 2)], rtol=1e-15)
    assert output.b.tolist() == [0]
    x = np.array([0.999, 1, 1.49, 1.5, 2.999])
    yhat = predict(config, (hidden, output), (), jnp.asarray(x)[:, None])[:, 0]
    np.testing.assert_allclose(yhat, [0, 1.25**2, 1.25**2, 1.75**2, 2.75**2], rtol=1e-14)


@pytest.mark.parametrize(("f", "lipschitz"), [(np.sin, 1.0), (lambda x: np.abs(x - 0.3), 1.0), (np.square, 4.0)])
def test_the_bound_of_the_steps(x64, f, lipschitz):
    x = np.linspace(0, 2, 241)[:-1]
    for N in (3, 12):
        config, params = step_approximator(f, N, 0, 2)
        error = np.abs(predict(config, params, (), jnp.asarray(x)[:, None])[:, 0] - f(x)).max()
        bound = modulus_of_continuity(f, 1 / N, 0, 2, points=241)
        assert error <= bound + 1e-14
        assert bound <= lipschitz / N + 1e-14


def test_the_modulus_of_continuity():
    assert modulus_of_continuity(np.square, 0.25) == pytest.approx(1 - 0.75**2)
    assert modulus_of_continuity(np.square, 5.0) == 1  # all of [0, 1]
    assert modulus_of_continuity(np.sqrt, 0.01) == pytest.approx(0.1)
    assert modulus_of_continuity(lambda x: 0 * x, 0.5) == 0
    assert modulus_of_continuity(lambda x: x * 3, 0.5, -1, 1, points=5) == 1.5
    with pytest.raises(InputError, match=r"delta is 0\.01: below the distance of 5 points"):
        modulus_of_continuity(np.square, 0.01, points=5)


def test_the_tents(x64):
    x = np.linspace(0, 1, 33)
    expected = x
    for depth in range(1, 5):
        expected = 1 - np.abs(2 * expected - 1)
        config, params = tent_network(depth)
        assert config.sizes == (1, *[2] * depth, 1)
        np.testing.assert_allclose(predict(config, params, (), jnp.asarray(x)[:, None])[:, 0], expected, atol=1e-14)
        np.testing.assert_allclose(linear_pieces(params), np.arange(2**depth + 1) / 2**depth, atol=1e-15)


def test_pieces_of_a_shallow_network():
    # a unit switches at −b/w; two at one place make one bend, or none if they cancel
    layers = (Layer(np.array([[1.0, -2.0, 1.0, 1.0]]), np.array([-1.0, 1.0, -3.0, -3.0])), None)
    output = np.array([[1.0], [1.0], [2.0], [-2.0]])
    assert linear_pieces((layers[0], Layer(output)), 0, 4).tolist() == [0, 0.5, 1, 4]
    output[3] = 0
    assert linear_pieces((layers[0], Layer(output)), 0, 4).tolist() == [0, 0.5, 1, 3, 4]
    assert linear_pieces((Layer(np.array([[2.0]]), np.array([1.0])),), -1, 1).tolist() == [-1, 1]


def test_pieces_of_random_networks_against_a_grid():
    rng = np.random.default_rng(0)
    for sizes in ((1, 5, 1), (1, 4, 3, 1), (1, 3, 3, 3, 1)):
        params = tuple(Layer(rng.normal(size=pair), rng.normal(size=pair[1])) for pair in itertools.pairwise(sizes))
        knots = linear_pieces(params, -5, 5)

        def f(x, params=params):
            a = x[:, None]
            for layer in params[:-1]:
                a = np.maximum(a @ layer.W + layer.b, 0)
            return (a @ params[-1].W + params[-1].b)[:, 0]

        x = np.linspace(-5, 5, 4001)
        np.testing.assert_allclose(np.interp(x, knots, f(knots)), f(x), atol=1e-12)
        slopes = np.diff(f(knots)) / np.diff(knots)
        assert np.abs(np.diff(slopes)).min() > 1e-9


def test_what_is_refused():
    with pytest.raises(ConfigError, match="N is 0"):
        step_approximator(np.sin, 0)
    with pytest.raises(ConfigError, match="depth is 0"):
        tent_network(0)
    for low, high in ((1, 1), (2, 1), (0, math.inf), (math.nan, 1)):
        with pytest.raises(InputError, match="expected finite ends, the first below the second"):
            step_approximator(np.sin, 3, low, high)
        with pytest.raises(InputError, match="the interval is"):
            linear_pieces(tent_network(1)[1], low, high)
        with pytest.raises(InputError, match="the interval is"):
            modulus_of_continuity(np.sin, 0.1, low, high)
    for f in (lambda x: 1.0, lambda x: x * math.nan):
        with pytest.raises(InputError, match="expected 3 finite numbers"):
            step_approximator(f, 3)
    two_inputs = (Layer(np.ones((2, 3)), np.ones(3)), Layer(np.ones((3, 1)), np.ones(1)))
    with pytest.raises(InputError, match=r"W of the first layer has shape \(2, 3\)"):
        linear_pieces(two_inputs)
