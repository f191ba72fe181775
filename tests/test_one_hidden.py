"""Versions 1, 2 and 3 of the network with one hidden layer, and gradient descent by them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax import Batch, Config, ConfigError, InputError, Layer
from mlpjax.one_hidden import VERSIONS, Gradients, backward_example, check_layers, forward_example, forward_v1
from mlpjax.one_hidden_descent import cost, gradient_descent, update

HIDDEN = ("sigmoid", "tanh", "relu")
SLOPES = {
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: 1 - a**2),
    "relu": (lambda z: np.maximum(z, 0), lambda a: (a > 0) * 1.0),
}


def case(dtype=np.float64, m=5):
    rng = np.random.default_rng(2)
    W1, b1, W2, b2 = (rng.normal(size=shape).astype(dtype) for shape in ((3, 4), 4, (4, 2), 2))
    x, y = rng.normal(size=(m, 3)).astype(dtype), rng.integers(0, 2, (m, 2)).astype(dtype)
    return (Layer(W1, b1), Layer(W2, b2)), x, y


def by_numpy(params, x, y, g):
    """The slides of version 3, in NumPy."""
    (W1, b1), (W2, b2) = (layer[:2] for layer in params)
    f, slope = SLOPES[g]
    z1 = x @ W1 + b1
    a1 = f(z1)
    z2 = a1 @ W2 + b2
    a2 = 1 / (1 + np.exp(-z2))
    dz2 = a2 - y
    da1 = dz2 @ W2.T
    dz1 = da1 * slope(a1)
    m = len(x)
    forward = (z1, a1, z2, a2)
    return forward, Gradients(dz2, a1.T @ dz2 / m, dz2.mean(axis=0), da1, dz1, x.T @ dz1 / m, dz1.mean(axis=0))


@pytest.mark.parametrize("g", HIDDEN)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_against_numpy(x64, version, g):
    params, x, y = case()
    forward = VERSIONS[version].forward(params, x, g)
    grads = VERSIONS[version].backward(params, x, y, forward, g)
    expected_forward, expected = by_numpy(params, x, y, g)
    for got, right in (*zip(forward, expected_forward, strict=True), *zip(grads, expected, strict=True)):
        np.testing.assert_allclose(got, right, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("version", VERSIONS)
def test_float32_stays_float32(version):
    params, x, y = case(np.float32)
    forward = VERSIONS[version].forward(params, x, "tanh")
    grads = VERSIONS[version].backward(params, x, y, forward, "tanh")
    assert {np.asarray(value).dtype for value in (*forward, *grads)} == {np.dtype(np.float32)}
    for got, right in zip(
        grads, by_numpy(*(jax.tree.map(np.float64, v) for v in (params, x, y)), "tanh")[1], strict=True
    ):
        np.testing.assert_allclose(got, right, rtol=2e-5, atol=2e-6)


def test_central_differences_of_the_cost(x64):
    params, x, y = case()
    forward = forward_v1(params, x)
    grads = VERSIONS[1].backward(params, x, y, forward)
    for l, (dW, db) in enumerate([(grads.dW1, grads.db1), (grads.dW2, grads.db2)]):
        for field, gradient in (("W", dW), ("b", db)):
            for index in np.ndindex(gradient.shape):
                J = []
                for h in (1e-6, -1e-6):
                    moved = getattr(params[l], field).copy()
                    moved[index] += h
                    layers = list(params)
                    layers[l] = layers[l]._replace(**{field: moved})
                    J.append(float(cost(forward_v1(tuple(layers), x), y)))
                assert gradient[index] == pytest.approx((J[0] - J[1]) / 2e-6, abs=1e-8)


def test_an_example_is_a_row(x64):
    params, x, y = case()
    forward = VERSIONS[3].forward(params, x, "tanh")
    for i in (0, 3):
        one = forward_example(params, x[i : i + 1])
        np.testing.assert_allclose(one.a2[0], forward.a2[i], rtol=1e-13)
        grads = backward_example(params, x[i : i + 1], y[i : i + 1], one)
        np.testing.assert_allclose(grads.dW1, np.outer(x[i], grads.dz1), rtol=1e-13)
        np.testing.assert_array_equal(grads.db2, grads.dz2[0])


def test_saturated_units_stay_finite():
    params = (Layer(np.full((1, 2), 1e4), np.zeros(2)), Layer(np.full((2, 1), 1e4), np.zeros(1)))
    x, y = np.array([[1.0], [-1.0]]), np.array([[0.0], [1.0]])
    for version in VERSIONS.values():
        for g in ("sigmoid", "tanh"):
            forward = version.forward(params, x, g)
            grads = version.backward(params, x, y, forward, g)
            assert all(np.isfinite(value).all() for value in (*forward, *grads))
            assert grads.dz2[0] == 1


def test_nan_passes():
    params, x, y = case(np.float32)
    x[1, 0] = np.nan
    for version in VERSIONS.values():
        for g in HIDDEN:
            forward = version.forward(params, x, g)
            assert np.isnan(forward.a2[1]).all()
            assert np.isfinite(np.asarray(forward.a2)[[0, 2, 3, 4]]).all()
            assert np.isnan(version.backward(params, x, y, forward, g).dW1).any()


def test_update_by_hand():
    params = (Layer(jnp.ones((1, 1)), jnp.ones(1)), Layer(jnp.ones((1, 1)), jnp.ones(1)))
    grads = Gradients(0, jnp.full((1, 1), 1.0), jnp.full(1, 2.0), 0, 0, jnp.full((1, 1), 3.0), jnp.full(1, 4.0))
    assert [float(leaf.sum()) for leaf in jax.tree.leaves(update(params, grads, 0.5))] == [-0.5, -1, 0.5, 0]


def test_gradient_descent_is_the_same_by_each_version(x64):
    params, x, y = case()
    found = [gradient_descent(params, x, y, alpha=0.3, iterations=4, version=version) for version in VERSIONS]
    for params, costs in found[1:]:
        np.testing.assert_allclose(costs, found[0][1], rtol=1e-13)
        np.testing.assert_allclose(params[0].W, found[0][0][0].W, rtol=1e-12)
    assert np.all(np.diff(found[0][1]) < 0)


def test_gradient_descent_is_the_batch_step_of_the_package(x64):
    params, x, y = case()
    config = Config(sizes=(3, 4, 2), activation="tanh", head="multilabel")
    (J, _), grads = jax.jit(mlpjax.backward)(config, params, (), Batch(x, y))
    after, costs = gradient_descent(params, x, y, alpha=0.3, iterations=1)
    np.testing.assert_allclose(costs, [J], rtol=1e-13)
    expected = jax.tree.map(lambda value, gradient: value - 0.3 * gradient, params, grads)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-15), after, expected)


def test_what_is_refused():
    params, x, y = case()
    with pytest.raises(InputError, match="unknown hidden activation 'rleu': did you mean 'relu'"):
        forward_v1(params, x, "rleu")
    with pytest.raises(InputError, match="unknown version 4"):
        gradient_descent(params, x, y, alpha=1.0, iterations=1, version=4)
    with pytest.raises(ConfigError, match="iterations is 0"):
        gradient_descent(params, x, y, alpha=1.0, iterations=0)
    with pytest.raises(InputError, match="alpha is 0"):
        gradient_descent(params, x, y, alpha=0, iterations=1)
    for version in VERSIONS.values():
        with pytest.raises(InputError, match=r"x has shape \(3, 5\): expected \(3, 3\)"):
            version.forward(params, x.T, "tanh")
        with pytest.raises(InputError, match=r"y has shape \(5,\): expected \(5, 2\)"):
            version.backward(params, x, y[:, 0], version.forward(params, x, "tanh"), "tanh")
    for bad, message in (
        (params[:1], "params has 1 layers"),
        ((params[0], Layer(params[1].W)), "expected two, each with W"),
        ((params[0]._replace(b=params[0].b[:1]), params[1]), r"b1 has shape \(1,\): expected \(4,\)"),
        ((params[0], params[1]._replace(W=params[1].W.T)), r"W2 has shape \(2, 4\)"),
        ((params[0], params[1]._replace(b=params[1].b[:1])), r"b2 has shape \(1,\): expected \(2,\)"),
    ):
        with pytest.raises(InputError, match=message):
            check_layers(bad, x)
