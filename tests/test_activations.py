"""Each activation and its derivative: worked values, the loops' formula, autodiff, differences, kinks, extremes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlpjax import ACTIVATIONS

SLOPE = 0.25
LN2, LN3, SQRT3 = math.log(2), math.log(3), math.sqrt(3)
PHI_1 = 0.8413447460685429485852  # Φ(1), the normal distribution function
DENSITY_1 = 0.2419707245191433497978  # φ(1)
LAMBDA, ALPHA = 1.0507009873554804934, 1.6732632423543772848

# z, g(z), g′(z)
WORKED = {
    "identity": [(-2.0, -2.0, 1.0), (3.0, 3.0, 1.0)],
    "binary_step": [(-0.5, 0.0, 0.0), (0.0, 1.0, 0.0), (0.5, 1.0, 0.0)],
    # 1/(1 + 1/3) = 3/4, ¾ · ¼
    "sigmoid": [(0.0, 0.5, 0.25), (LN3, 0.75, 0.1875), (-LN3, 0.25, 0.1875)],
    # (2 − ½)/(2 + ½) = 0.6, 1 − 0.36
    "tanh": [(0.0, 0.0, 1.0), (LN2, 0.6, 0.64), (-LN2, -0.6, 0.64)],
    "arctan": [(1.0, math.pi / 4, 0.5), (-SQRT3, -math.pi / 3, 0.25)],
    "relu": [(-2.0, 0.0, 0.0), (0.0, 0.0, 0.0), (3.0, 3.0, 1.0)],
    "leaky_relu": [(-2.0, -0.02, 0.01), (0.0, 0.0, 1.0), (3.0, 3.0, 1.0)],
    "prelu": [(-2.0, -0.5, 0.25), (0.0, 0.0, 1.0), (3.0, 3.0, 1.0)],
    "elu": [(-LN2, -0.5, 0.5), (0.0, 0.0, 1.0), (3.0, 3.0, 1.0)],
    "selu": [(-LN2, -0.5 * LAMBDA * ALPHA, 0.5 * LAMBDA * ALPHA), (0.0, 0.0, LAMBDA), (2.0, 2 * LAMBDA, LAMBDA)],
    # log(1 + 2) and 2/3
    "softplus": [(0.0, LN2, 0.5), (LN2, LN3, 2 / 3)],
    "gelu": [(0.0, 0.0, 0.5), (1.0, PHI_1, PHI_1 + DENSITY_1), (-1.0, PHI_1 - 1, 1 - PHI_1 - DENSITY_1)],
    # ½(1 + tanh(√(2/π) 1.044715))
    "gelu_tanh": [(0.0, 0.0, 0.5), (1.0, 0.8411919906082768, 1.0829640838457826)],
    "silu": [(0.0, 0.0, 0.5), (LN3, 0.75 * LN3, 0.75 + 0.1875 * LN3)],
}
AT_ZERO = {"binary_step": 0.0, "relu": 0.0, "leaky_relu": 1.0, "prelu": 1.0, "elu": 1.0, "selu": LAMBDA}
"""The derivative pinned at each kink."""
POINTS = 40
"""One length for all arrays: few shapes to compile."""
GRID = np.linspace(-8.0, 8.0, POINTS)  # an even number: without 0
EXTREMES = np.resize(np.float32([-1e4, -30, -1e-30, -1e-40, -0.0, 0.0, 1e-40, 1e-30, 30, 1e4]), POINTS)
DTYPES = ("float32", "float64", "bfloat16", "float16")

anywhere = arrays(np.float64, (POINTS,), elements=st.floats(-50, 50, allow_subnormal=False))


def slopes(name, z):
    """The extra argument of an activation with a slope."""
    return () if ACTIVATIONS[name].df_dslope is None else (jnp.full(z.shape, SLOPE, z.dtype),)


def value(name, z):
    z = jnp.asarray(z)
    return ACTIVATIONS[name].f(z, *slopes(name, z))


def derivative(name, z):
    z = jnp.asarray(z)
    return ACTIVATIONS[name].df(z, *slopes(name, z))


def by_autodiff(name, z):
    """g′ at every element, from the forward function alone."""
    z = jnp.asarray(z)
    out, vjp = jax.vjp(lambda z: ACTIVATIONS[name].f(z, *slopes(name, z)), z)
    return vjp(jnp.ones_like(out))[0]


def test_every_activation_has_worked_values():
    assert set(WORKED) == set(oracle.ACTIVATIONS) == set(ACTIVATIONS)
    assert set(AT_ZERO) == set(oracle.KINKED)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_worked_values(x64, name):
    z, f, df = np.resize(np.array(WORKED[name]), (POINTS, 3)).T
    np.testing.assert_allclose(value(name, z), f, rtol=2e-15, atol=1e-16)
    np.testing.assert_allclose(derivative(name, z), df, rtol=3e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_is_the_formula(x64, name):
    expected = [oracle.ACTIVATIONS[name](float(z), SLOPE) for z in GRID]
    np.testing.assert_allclose(value(name, GRID), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_is_autodiff_and_differences(x64, name):
    hand = derivative(name, GRID)
    assert hand.shape == GRID.shape
    np.testing.assert_allclose(hand, by_autodiff(name, GRID), rtol=1e-12, atol=1e-14)
    h = 1e-3
    p1, m1, p2, m2 = (value(name, GRID + k * h) for k in (1, -1, 2, -2))
    np.testing.assert_allclose(hand, (8 * (p1 - m1) - (p2 - m2)) / (12 * h), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", [name for name, g in ACTIVATIONS.items() if g.df_dslope is not None])
def test_slope_derivative(x64, name):
    """∂g/∂slope = min(0, z): worked, by autodiff, and one slope per unit of a (m, n) matrix."""
    g = ACTIVATIONS[name]
    np.testing.assert_array_equal(g.df_dslope(jnp.array([-2.0, 0.0, 3.0])), [-2.0, 0.0, 0.0])
    z = jnp.concatenate([jnp.asarray(GRID), jnp.zeros(2)]).reshape(14, 3)
    slope = jnp.array([0.1, 0.5, 2.0])
    out, vjp = jax.vjp(lambda slope: g.f(z, slope), slope)
    np.testing.assert_allclose(vjp(jnp.ones_like(out))[0], jnp.sum(g.df_dslope(z), axis=0), rtol=1e-14)
    for unit in range(3):
        np.testing.assert_array_equal(out[:, unit], g.f(z[:, unit], slope[unit]))
        np.testing.assert_array_equal(g.df(z, slope)[:, unit], g.df(z[:, unit], slope[unit]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", AT_ZERO)
def test_kinks(x64, name, dtype):
    """The contract's value at exactly 0, of either sign, by the hand derivative and by autodiff."""
    zeros = jnp.array(np.resize([0.0, -0.0], POINTS), dtype)
    expected = np.full(POINTS, AT_ZERO[name], dtype)
    np.testing.assert_allclose(derivative(name, zeros), expected, rtol=1e-7 if dtype == "float32" else 1e-15)
    np.testing.assert_array_equal(by_autodiff(name, zeros), derivative(name, zeros))


@pytest.mark.parametrize("shape", [(), (2,)])
def test_prelu_slope_gradient_is_0_at_0(x64, shape):
    g = ACTIVATIONS["prelu"]
    z, slope = jnp.zeros(shape), jnp.full(shape, SLOPE)
    np.testing.assert_array_equal(g.df_dslope(z), np.zeros(shape))
    np.testing.assert_array_equal(jax.grad(lambda slope: jnp.sum(g.f(z, slope)))(slope), np.zeros(shape))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_extremes_are_finite(name):
    """Huge, tiny and subnormal numbers in float32: value, derivative and autodiff are finite and agree."""
    hand = derivative(name, EXTREMES)
    assert np.isfinite(value(name, EXTREMES)).all()
    assert np.isfinite(hand).all()
    np.testing.assert_allclose(by_autodiff(name, EXTREMES), hand, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_limits(name):
    """At ±1e4 a sigmoid has saturated, and the others are lines or 0."""
    below, above = {
        "identity": (-1e4, 1e4), "binary_step": (0, 1), "sigmoid": (0, 1), "tanh": (-1, 1),
        "arctan": (-math.pi / 2 + 1e-4, math.pi / 2 - 1e-4), "relu": (0, 1e4), "leaky_relu": (-100, 1e4),
        "prelu": (-2500, 1e4), "elu": (-1, 1e4), "selu": (-LAMBDA * ALPHA, LAMBDA * 1e4), "softplus": (0, 1e4),
        "gelu": (0, 1e4), "gelu_tanh": (0, 1e4), "silu": (0, 1e4),
    }[name]  # fmt: skip
    ends = np.resize(np.float32([-1e4, 1e4]), POINTS)
    np.testing.assert_allclose(value(name, ends)[:2], [below, above], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_passes_and_dtype_is_kept(x64, name, dtype):
    z = jnp.array(np.resize([np.nan, -1.5, 2.0, 0.5], POINTS), dtype)
    outputs = [value(name, z), derivative(name, z)]
    if ACTIVATIONS[name].df_dslope is not None:
        outputs.append(ACTIVATIONS[name].df_dslope(z))
    assert [out.dtype for out in outputs] == [jnp.dtype(dtype)] * len(outputs)
    np.testing.assert_array_equal(np.isnan(np.asarray(outputs[0], np.float32)), np.arange(POINTS) % 4 == 0)


@given(anywhere)
def test_sigmoid_is_symmetric(x64, z):
    np.testing.assert_allclose(value("sigmoid", -z), 1 - value("sigmoid", z), atol=1e-15)
    assert (derivative("sigmoid", z) <= 0.25).all()


@given(anywhere)
def test_sigmoid_proof_lines(x64, z):
    """The lecture's proof: e^−z/(1 + e^−z)² = (1 + e^−z − 1)/(1 + e^−z)² = σ(1 − σ)."""
    e = np.exp(-np.abs(z))  # σ′ is even
    for line in (e / (1 + e) ** 2, (1 / (1 + e)) * (1 - 1 / (1 + e))):
        np.testing.assert_allclose(derivative("sigmoid", z), line, rtol=1e-12, atol=1e-15)


@given(anywhere)
def test_tanh_is_a_sigmoid(x64, z):
    np.testing.assert_allclose(value("tanh", z), 2 * value("sigmoid", 2 * z) - 1, atol=1e-15)
    np.testing.assert_allclose(derivative("tanh", z), 1 - value("tanh", z) ** 2, atol=1e-15)


@pytest.mark.parametrize("name", ["identity", "tanh", "arctan"])
@given(z=anywhere)
def test_odd_functions(x64, name, z):
    np.testing.assert_array_equal(value(name, -z), -value(name, z))
    np.testing.assert_array_equal(derivative(name, -z), derivative(name, z))


@pytest.mark.parametrize("name", ["softplus", "relu", "gelu", "gelu_tanh", "silu"])
@given(z=anywhere)
def test_difference_of_both_sides_is_z(x64, name, z):
    """g(z) − g(−z) = z for every z·h(z) with h(z) + h(−z) = 1, and for softplus."""
    np.testing.assert_allclose(value(name, z) - value(name, -z), z, rtol=1e-14, atol=1e-14)


@given(anywhere)
def test_softplus_is_above_relu(x64, z):
    gap = value("softplus", z) - value("relu", z)
    assert (gap >= 0).all()
    assert (gap <= LN2 + 1e-15).all()
    np.testing.assert_allclose(derivative("softplus", z), value("sigmoid", z), rtol=1e-15)


@given(anywhere)
def test_elu_family(x64, z):
    """elu′ = elu + 1 below 0; selu = λ · elu with its own α; leaky ReLU is a PReLU of slope 0.01."""
    below = z < 0
    derivative_below, value_below = (np.asarray(f("elu", z))[below] for f in (derivative, value))
    np.testing.assert_allclose(derivative_below, value_below + 1, atol=1e-15)
    scale = np.where(below, LAMBDA * ALPHA, LAMBDA)
    np.testing.assert_allclose(value("selu", z), scale * value("elu", z), rtol=1e-14)
    slope = jnp.full(z.shape, 0.01)
    np.testing.assert_array_equal(value("leaky_relu", z), ACTIVATIONS["prelu"].f(jnp.asarray(z), slope))


@given(anywhere)
def test_gelu_forms_are_close(x64, z):
    """The tanh form differs from z Φ(z) by less than 5e-4."""
    np.testing.assert_allclose(value("gelu_tanh", z), value("gelu", z), atol=5e-4)


def test_smooth_ones_become_steps(x64):
    """σ(kz) → the step and softplus(kz)/k → relu as k grows."""
    z = np.array([-2.0, -0.5, 0.5, 2.0])
    np.testing.assert_allclose(value("sigmoid", 50 * z), value("binary_step", z), atol=1e-10)
    np.testing.assert_allclose(value("softplus", 50 * z) / 50, value("relu", z), atol=1e-12)


def test_prelu_is_not_a_maximum(x64):
    """With slope 2, max(2z, z) would be z at −1; the piecewise form is −2."""
    assert ACTIVATIONS["prelu"].f(jnp.array([-1.0]), jnp.array([2.0])).tolist() == [-2.0]


def test_saturation(x64):
    np.testing.assert_allclose(derivative("sigmoid", [-10.0, 10.0]), 4.5396e-5, rtol=1e-3)
    np.testing.assert_allclose(derivative("tanh", [-10.0, 10.0]), 8.2446e-9, rtol=1e-3)
