"""Activations where numbers end: ±1e4, ±∞, NaN, −0.0, subnormals, the largest float32.

What is right comes from NumPy and SciPy in float64, where none of these numbers is at the edge.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special

from mlpjax import ACTIVATIONS
from mlpjax.exponential import SELU_ALPHA, SELU_SCALE

LARGEST = float(np.finfo(np.float32).max)
TINY = float(np.finfo(np.float32).tiny)
"""The smallest float32 that is not subnormal: JAX takes what is below it for 0."""
EDGES = np.float32(
    [0, 1e-45, 1e-38, 1e-8, 0.5, 1, 9, 17, 30, 88.7, 104, 1e4, 7e12, 1.8e19, 1e20, LARGEST, np.inf]
)  # fmt: skip
EDGES = np.concatenate([EDGES, -EDGES, np.float32([np.nan])])
SLOPE = 0.25
rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def edges(shape, largest=np.inf):
    """Arrays of float32: numbers at an edge, and any others."""
    kept = [float(v) for v in EDGES if not abs(v) > largest]
    if largest == np.inf:
        return arrays(np.float32, shape, elements=st.sampled_from(kept) | st.floats(width=32))
    kept = [v for v in kept if not np.isnan(v)]
    return arrays(np.float32, shape, elements=st.sampled_from(kept) | st.floats(-largest, largest, width=32))


def assert_right(got, expected, rtol, atol=TINY, name=""):
    """Equal to the float64 value as float32 has it: beyond the largest it is ∞, and NaN is NaN."""
    with np.errstate(over="ignore"):
        expected = np.asarray(expected).astype(np.float32)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol, err_msg=name)


def gate(z, f, df, d2f):
    """g(z) = z P(z): beyond ±1000 it is z or 0, to the last digit."""
    far, on, c = np.abs(z) > 1e3, z > 0, np.clip(z, -1e3, 1e3)
    return np.where(far, np.where(on, z, 0), f(c)), np.where(far, on, df(c)), np.where(far, 0, d2f(c))


def normal_density(z):
    return np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


def of_gelu(z):
    return gate(
        z,
        lambda z: z * special.ndtr(z),
        lambda z: special.ndtr(z) + z * normal_density(z),
        lambda z: (2 - z * z) * normal_density(z),
    )


def of_gelu_tanh(z):
    def parts(z):
        c = np.sqrt(2 / np.pi)
        u, du, ddu = c * (z + 0.044715 * z**3), c * (1 + 0.134145 * z * z), c * 0.26829 * z
        return special.expit(2 * u), special.expit(-2 * u), du, ddu

    def first(z):
        a, b, du, _ = parts(z)
        return a + 2 * z * a * b * du

    def second(z):
        a, b, du, ddu = parts(z)
        return 2 * a * b * (2 * du + z * ddu + 2 * z * du * du * (b - a))

    return gate(z, lambda z: z * parts(z)[0], first, second)


def of_silu(z):
    a, b = special.expit, lambda z: special.expit(-z)
    return gate(
        z,
        lambda z: z * a(z),
        lambda z: a(z) + z * a(z) * b(z),
        lambda z: a(z) * b(z) * (2 + z * (b(z) - a(z))),
    )


def of_sigmoid(z):
    a, b = special.expit(z), special.expit(-z)
    return a, a * b, a * b * (b - a)


def of_tanh(z):
    return np.tanh(z), 1 / np.cosh(z) ** 2, -2 * np.tanh(z) / np.cosh(z) ** 2


def of_arctan(z):
    cosine = 1 / np.hypot(1, z)
    return np.arctan(z), cosine**2, -2 * np.sin(np.arctan(z)) * cosine**3


def by_sides(above, below, df_below, d2f_below=lambda z: 0):
    def parts(z):
        on = np.where(np.isnan(z), z, above * z)
        return np.where(z < 0, below(z), on), np.where(z < 0, df_below(z), above), np.where(z < 0, d2f_below(z), 0)

    return parts


EXACTLY = {
    "identity": by_sides(1, lambda z: z, lambda z: 1),
    "binary_step": lambda z: (np.where(np.isnan(z), z, z >= 0), 0 * np.ones_like(z), 0 * np.ones_like(z)),
    "sigmoid": of_sigmoid,
    "tanh": of_tanh,
    "arctan": of_arctan,
    "relu": lambda z: (np.where(z <= 0, 0, z), z > 0, 0 * np.ones_like(z)),
    "leaky_relu": by_sides(1, lambda z: 0.01 * z, lambda z: 0.01),
    "prelu": by_sides(1, lambda z: SLOPE * z, lambda z: SLOPE),
    "elu": by_sides(1, np.expm1, np.exp, np.exp),
    "selu": by_sides(
        SELU_SCALE,
        lambda z: SELU_SCALE * SELU_ALPHA * np.expm1(z),
        lambda z: SELU_SCALE * SELU_ALPHA * np.exp(z),
        lambda z: SELU_SCALE * SELU_ALPHA * np.exp(z),
    ),
    "softplus": lambda z: (np.logaddexp(z, 0), *of_sigmoid(z)[:2]),
    "gelu": of_gelu,
    "gelu_tanh": of_gelu_tanh,
    "silu": of_silu,
}
"""g, g′ and g″ of an activation in float64."""


def slopes(name, z):
    return () if ACTIVATIONS[name].df_dslope is None else (jnp.full(z.shape, SLOPE, z.dtype),)


@jax.jit
def all_parts(z):
    """g, g′, g″ and the derivative by autodiff, of every activation."""

    def parts(name, g):
        out, vjp = jax.vjp(lambda z: g.f(z, *slopes(name, z)), z)
        second = jnp.zeros_like(z) if g.d2f is None else g.d2f(z)
        return out, g.df(z, *slopes(name, z)), second, vjp(jnp.ones_like(out))[0]

    return {name: parts(name, g) for name, g in ACTIVATIONS.items()}


def check_activations(z):
    # a subnormal number is 0 to JAX, and on the kink
    subnormal = (np.abs(z) < TINY) & (z != 0)
    known, finite = ~np.isnan(z) & ~subnormal, np.isfinite(z)
    for name, (f, df, d2f, auto) in jax.device_get(all_parts(z)).items():
        with np.errstate(all="ignore"):
            right = EXACTLY[name](np.where(subnormal, 0, z).astype(np.float64))
        # Φ and σ carry the rounding of z into their tails, z² times as large
        assert_right(f, right[0], 2e-5, 1e-36, name)
        # 1 − a and 1 − tanh² have the rounding of 1
        assert_right(df[known], np.asarray(right[1])[known], 2e-5, 3e-6, name)
        assert_right(d2f[known], np.asarray(right[2])[known], 2e-5, 3e-6, name)
        np.testing.assert_allclose(auto[finite], df[finite], rtol=2e-5, atol=3e-6, err_msg=name)


@settings(max_examples=100)
@given(edges(len(EDGES)))
def test_activations_anywhere(z):
    """g, g′ and g″ at any float32 are those of float64: their limits at ±∞, and g(NaN) = NaN."""
    check_activations(z)


def test_activations_at_every_edge():
    """The same for every number of the list, whatever hypothesis draws."""
    check_activations(EDGES)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_activations_in_a_narrow_dtype(dtype):
    """g and g′ of a narrow z are those of the same z in float32, up to the rounding of its dtype."""
    eps = float(jnp.finfo(dtype).eps)
    z = jnp.asarray(np.concatenate([EDGES[:-1], np.linspace(-12, 12, 30, dtype=np.float32)])).astype(dtype)
    narrow, wide = all_parts(z), all_parts(z.astype(jnp.float32))
    for name in ACTIVATIONS:
        for got, expected in zip(narrow[name][:2], wide[name][:2], strict=True):
            assert got.dtype == dtype
            expected = expected.astype(dtype).astype(jnp.float32)
            np.testing.assert_allclose(got.astype(jnp.float32), expected, rtol=16 * eps, atol=8 * eps, err_msg=name)
