"""One short proof for every formula and branch: what `experiments/mutation.py` runs against its mutants.

Nothing is shared between the tests, no fixture and no compiled function: a test meets every formula that it proves.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from mlpjax import ACTIVATIONS, INITIALIZERS, PENALTIES
from mlpjax.layers import (
    BatchNormCache,
    BatchNormState,
    affine_backward,
    affine_forward,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    batch_norm_update,
    dropout_backward,
    dropout_forward,
)

DTYPES = ("bfloat16", "float64")
Z = np.array([[-3.0, -2.0], [-0.5, -0.0], [0.0, 0.5], [2.0, 3.0]])
SLOPES = np.array([0.25, 0.5])
EXACT = {"rtol": 4e-15, "atol": 1e-15}


def normal_density(z):
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def gelu_tanh_derivative(z):
    """The product rule on ½z(1 + tanh u)."""
    t = math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))
    return (1 + t) / 2 + z / 2 * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z**2)


def gelu_tanh_second_derivative(z):
    """The product rule once more."""
    t, c = math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)), math.sqrt(2 / math.pi)
    du, ddu = c * (1 + 3 * 0.044715 * z**2), c * 6 * 0.044715 * z
    return (1 - t * t) * (du + z / 2 * ddu - z * t * du**2)


# g′(z), each in another form than the package's
DERIVATIVES = {
    "identity": lambda z, slope: 1.0,
    "binary_step": lambda z, slope: 0.0,
    "sigmoid": lambda z, slope: 1 / (2 + 2 * math.cosh(z)),
    "tanh": lambda z, slope: 1 / math.cosh(z) ** 2,
    "arctan": lambda z, slope: math.cos(math.atan(z)) ** 2,
    "relu": lambda z, slope: float(z > 0),
    "leaky_relu": lambda z, slope: 1.0 if z >= 0 else 0.01,
    "prelu": lambda z, slope: 1.0 if z >= 0 else slope,
    "elu": lambda z, slope: min(1.0, math.exp(z)),
    "selu": lambda z, slope: oracle.SELU_LAMBDA * (1.0 if z >= 0 else oracle.SELU_ALPHA * math.exp(z)),
    "softplus": lambda z, slope: (1 + math.tanh(z / 2)) / 2,
    "gelu": lambda z, slope: math.erfc(-z / math.sqrt(2)) / 2 + z * normal_density(z),
    "gelu_tanh": lambda z, slope: gelu_tanh_derivative(z),
    "silu": lambda z, slope: (z + math.sinh(z) + math.cosh(z) + 1) / (2 + 2 * math.cosh(z)),
}


# g″(z) likewise; 0 of the others
SECOND_DERIVATIVES = {
    "sigmoid": lambda z: -math.tanh(z / 2) / (2 + 2 * math.cosh(z)),
    "tanh": lambda z: -2 * math.sinh(z) / math.cosh(z) ** 3,
    "arctan": lambda z: -math.sin(2 * math.atan(z)) * math.cos(math.atan(z)) ** 2,
    "elu": lambda z: math.exp(z) if z < 0 else 0.0,
    "selu": lambda z: oracle.SELU_LAMBDA * oracle.SELU_ALPHA * math.exp(z) if z < 0 else 0.0,
    "softplus": lambda z: 1 / (2 + 2 * math.cosh(z)),
    "gelu": lambda z: 2 * normal_density(z) - z * z * normal_density(z),
    "gelu_tanh": gelu_tanh_second_derivative,
    "silu": lambda z: (2 - z * math.tanh(z / 2)) / (2 + 2 * math.cosh(z)),
}


def slope_of(name, dtype):
    return () if ACTIVATIONS[name].df_dslope is None else (jnp.array(SLOPES, dtype),)


def by_loops(f):
    return [[f(float(z), slope) for z, slope in zip(row, SLOPES, strict=True)] for row in Z]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(x64, name):
    g, slope, z = ACTIVATIONS[name], slope_of(name, jnp.float64), jnp.array(Z)
    out, vjp = jax.vjp(lambda z: g.f(z, *slope), z)
    np.testing.assert_allclose(out, by_loops(oracle.ACTIVATIONS[name]), **EXACT)
    hand = g.df(z, *slope)
    np.testing.assert_allclose(hand, by_loops(DERIVATIVES[name]), **EXACT)
    # also at the kinks, of either sign
    np.testing.assert_allclose(vjp(jnp.ones_like(out))[0], hand, **EXACT)
    # no d2f says that g″ is 0
    second = jnp.zeros_like(z) if g.d2f is None else g.d2f(z)
    expected = SECOND_DERIVATIVES.get(name, lambda z: 0.0)
    np.testing.assert_allclose(second, by_loops(lambda z, slope: expected(z)), **EXACT)
    for slow in (g.df, lambda z, *slope: jax.vjp(lambda z: g.f(z, *slope), z)[1](jnp.ones_like(z))[0]):
        by_autodiff = jax.vjp(lambda z, f=slow: f(z, *slope), z)[1](jnp.ones_like(z))[0]
        np.testing.assert_allclose(by_autodiff, second, rtol=4e-15, atol=4e-15)
    if g.df_dslope is not None:
        np.testing.assert_array_equal(g.d2f_dslope(z), Z < 0)
        np.testing.assert_array_equal(g.df_dslope(z), np.minimum(Z, 0))
        # ∂²g/∂z∂slope in either order, also at the kink
        for f, at in ((g.df_dslope, z), (lambda slope: g.df(z, slope), jnp.ones(Z.shape))):
            np.testing.assert_array_equal(jax.vjp(f, at)[1](jnp.ones(Z.shape))[0], Z < 0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_of_extremes(name):
    """NaN passes; at ±1e4, where e^z overflows, value, derivative and autodiff are finite in float32."""
    g, slope = ACTIVATIONS[name], slope_of(name, jnp.float32)
    z = jnp.array([[-1e4, jnp.nan], [jnp.nan, 1e4]], jnp.float32)
    out, vjp = jax.vjp(lambda z: g.f(z, *slope), z)
    np.testing.assert_array_equal(np.isnan(out), [[False, True], [True, False]])
    assert np.isfinite(np.diagonal(g.df(z, *slope))).all()
    assert np.isfinite(np.diagonal(vjp(jnp.ones_like(out))[0])).all()
    assert g.d2f is None or np.abs(np.diagonal(g.d2f(z))).max() < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_keeps_the_dtype(x64, name, dtype):
    g, slope, z = ACTIVATIONS[name], slope_of(name, dtype), jnp.array(Z, dtype)
    outputs = [g.f(z, *slope), g.df(z, *slope)]
    outputs += [f(z) for f in (g.df_dslope, g.d2f, g.d2f_dslope) if f is not None]
    assert {(out.dtype, out.shape) for out in outputs} == {(jnp.dtype(dtype), Z.shape)}


W = np.array([[1.5, -2.0], [0.0, 3.0]])  # Σ|w| = 6.5, Σw² = 15.25


@pytest.mark.parametrize(
    ("name", "strengths", "value", "gradient"),
    [
        ("l1", (0.5,), 3.25, 0.5 * np.sign(W)),
        ("l2", (0.75,), 5.71875, 0.75 * W),
        ("elastic_net", (0.5, 0.75), 8.96875, 0.5 * np.sign(W) + 0.75 * W),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_penalty(x64, name, strengths, value, gradient, dtype):
    rule, matrix = PENALTIES[name], jnp.array(W, dtype)
    got, df = rule.f(matrix, *strengths), rule.df(matrix, *strengths)
    assert got.dtype == df.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(got, value, rtol=float(jnp.finfo(dtype).eps))
    np.testing.assert_array_equal(df, gradient)
    np.testing.assert_array_equal(jax.grad(rule.f)(matrix, *strengths), gradient)
    V = jnp.array([[1.0, -3.0], [2.0, 0.5]], dtype)
    product, by_autodiff = rule.ddf(matrix, V, *strengths), jax.jvp(lambda W: rule.df(W, *strengths), (matrix,), (V,))
    assert product.dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(product, by_autodiff[1])
    np.testing.assert_array_equal(product, 0.0 if name == "l1" else strengths[-1] * V)


SHAPE = (6, 4)
VARIANCE = {"normal_001": 0.0001, "lecun": 1 / 6, "glorot": 2 / 10, "he": 2 / 6}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name != "orthogonal"])
def test_initializer(x64, name, dtype):
    """Exactly the scaled numbers of JAX, drawn in the dtype asked for."""
    key = jax.random.key(2)
    drawn = INITIALIZERS[name](key, SHAPE, jnp.dtype(dtype))
    variance = VARIANCE.get(name.removesuffix("_normal").removesuffix("_uniform"), 0.0)
    if name.endswith("uniform"):
        limit = math.sqrt(3 * variance)
        expected = jax.random.uniform(key, SHAPE, dtype, -limit, limit)
    else:
        expected = math.sqrt(variance) * jax.random.normal(key, SHAPE, dtype)
    assert drawn.dtype == jnp.dtype(dtype)
    rtol = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(drawn, float), np.asarray(expected, float), rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 3)])
def test_orthogonal(x64, shape, dtype):
    """The Q of NumPy for the same draw, its R made positive on the diagonal."""
    key = jax.random.key(4)
    drawn = INITIALIZERS["orthogonal"](key, shape, jnp.dtype(dtype))
    Q, R = np.linalg.qr(np.asarray(jax.random.normal(key, (max(shape), min(shape)), dtype), np.float64))
    Q = Q * np.sign(np.diagonal(R))
    assert drawn.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(drawn, Q if shape[0] >= shape[1] else Q.T, atol=40 * float(jnp.finfo(dtype).eps))


X = np.array([[1.0, 2.0, -1.0], [0.5, -3.0, 4.0]])
AFFINE_W = np.array([[1.0, 2.0], [3.0, -4.0], [0.5, 0.25]])
DZ = np.array([[10.0, -2.0], [1.0, 4.0]])


@pytest.mark.parametrize("bias", [True, False])
def test_affine(x64, bias):
    b = np.array([5.0, 7.0]) if bias else np.zeros(2)
    z, cache = affine_forward(jnp.array(X), jnp.array(AFFINE_W), jnp.array(b) if bias else None)
    np.testing.assert_array_equal(z, X @ AFFINE_W + b)
    for got, expected in zip(affine_backward(jnp.array(DZ), cache), (DZ @ AFFINE_W.T, X.T @ DZ, [11, 2]), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_affine_in_a_narrow_dtype():
    """Factors are rounded to bfloat16, 8 bits; the sum, and the result, are of the dtype of x."""
    x, w, dz = (jnp.array(a + 2.0**-12, jnp.float32) for a in (X, AFFINE_W, DZ))
    rounded = [np.asarray(a.astype(jnp.bfloat16), np.float32) for a in (x, w, dz)]
    assert all((r != np.asarray(a)).any() for r, a in zip(rounded, (x, w, dz), strict=True))
    z, cache = affine_forward(x, w, None, "bfloat16")
    dx, dW, _ = affine_backward(dz, cache, "bfloat16")
    products = [rounded[0] @ rounded[1], rounded[2] @ rounded[1].T, rounded[0].T @ rounded[2]]
    for got, expected in zip((z, dx, dW), products, strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.25, np.float32(0.25)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout(x64, dtype, rate):
    """Bernoulli(1 − rate) for every entry, over 1 − rate: the draws of float32, the dtype of a."""
    a, key = jnp.array(np.resize(X, (8, 6)), dtype), jax.random.key(1)
    out, cache = dropout_forward(a, rate, key)
    kept = np.asarray(jax.random.bernoulli(key, jnp.float32(0.75), a.shape))
    assert 0 < kept.sum() < kept.size
    mask = kept.astype(float) / 0.75
    rtol = float(jnp.finfo(dtype).eps)
    for got, expected in (
        (cache.mask, mask),
        (out, np.asarray(a, float) * mask),
        (dropout_backward(2 * a, cache), 2 * np.asarray(a, float) * mask),
    ):
        assert got.dtype == jnp.dtype(dtype)
        np.testing.assert_allclose(np.asarray(got, float), expected, rtol=rtol)


NORM_Z = np.array([[1.0, -2.0], [3.0, 0.5], [2.0, 7.0]])
GAMMA, BETA = np.array([1.5, -0.5]), np.array([0.25, 3.0])
P = np.array([0.5, 0.3, 0.2])
DOUT = np.array([[0.3, -1.0], [2.0, 0.7], [-0.4, 1.1]])


def normalised():
    """μ, σ² and ẑ with the weights P, by NumPy."""
    mean = P @ NORM_Z
    var = P @ (NORM_Z - mean) ** 2
    return mean, var, (NORM_Z - mean) / np.sqrt(var + 1e-5)


def test_batch_norm_forward(x64):
    mean, var, zhat = normalised()
    out, cache, statistics = batch_norm_forward(*(jnp.array(a) for a in (NORM_Z, GAMMA, BETA, P)))
    np.testing.assert_allclose(statistics, (mean, var), **EXACT)
    np.testing.assert_allclose(cache.zhat, zhat, **EXACT)
    np.testing.assert_allclose(cache.inv_std, 1 / np.sqrt(var + 1e-5), **EXACT)
    np.testing.assert_array_equal(cache.gamma, GAMMA)
    np.testing.assert_array_equal(cache.p, P)
    np.testing.assert_allclose(out, GAMMA * zhat + BETA, **EXACT)


def test_batch_norm_inference(x64):
    state = BatchNormState(jnp.array([2.0, -1.0]), jnp.array([4.0, 0.25]), jnp.array(3))
    out, cache = batch_norm_inference(jnp.array(NORM_Z), jnp.array(GAMMA), jnp.array(BETA), state)
    inv_std = 1 / np.sqrt(np.array([4.0, 0.25]) + 1e-5)
    zhat = (NORM_Z - np.array([2.0, -1.0])) * inv_std
    np.testing.assert_allclose(out, GAMMA * zhat + BETA, **EXACT)
    np.testing.assert_allclose(cache.zhat, zhat, **EXACT)
    np.testing.assert_allclose(cache.inv_std, inv_std, **EXACT)
    np.testing.assert_array_equal(cache.gamma, GAMMA)
    assert cache.p is None


@pytest.mark.parametrize("p", [P, None])
def test_batch_norm_backward(x64, p):
    """dz by the Jacobian ∂z̃/∂z = γ (I − 1pᵀ − ẑ(p ⊙ ẑ)ᵀ)/√(σ² + ε), written out; without p only γ/√(σ² + ε)."""
    _, var, zhat = normalised()
    inv_std = 1 / np.sqrt(var + 1e-5)
    cache = BatchNormCache(jnp.array(zhat), jnp.array(inv_std), jnp.array(GAMMA), None if p is None else jnp.array(p))
    dz, dgamma, dbeta = batch_norm_backward(jnp.array(DOUT), cache)
    for n in range(2):
        jacobian = np.eye(3)
        if p is not None:
            jacobian -= np.outer(np.ones(3), p) + np.outer(zhat[:, n], p * zhat[:, n])
        np.testing.assert_allclose(dz[:, n], GAMMA[n] * inv_std[n] * jacobian.T @ DOUT[:, n], rtol=1e-13)
    np.testing.assert_allclose(dgamma, (DOUT * zhat).sum(axis=0), rtol=1e-13)
    np.testing.assert_allclose(dbeta, DOUT.sum(axis=0), rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_update(x64, dtype):
    """At update 1 the batch's statistics; at update 3 with the weight (1 − 0.9)/(1 − 0.9³) = 100/271."""
    mean, var, batch_mean, batch_var = (jnp.array(a, dtype) for a in ([2.0, -1.0], [4.0, 0.5], [5.0, 3.0], [0.0, 2.0]))
    first = batch_norm_update(BatchNormState(mean, var, jnp.array(0)), batch_mean, batch_var)
    np.testing.assert_array_equal(first.mean, batch_mean)
    np.testing.assert_array_equal(first.var, batch_var)
    third = batch_norm_update(BatchNormState(mean, var, jnp.array(2)), batch_mean, batch_var)
    new, rtol = 100 / 271, 40 * float(jnp.finfo(dtype).eps)
    for got, old, batch in ((third.mean, mean, batch_mean), (third.var, var, batch_var)):
        assert got.dtype == jnp.dtype(dtype)
        old, batch = np.asarray(old, float), np.asarray(batch, float)
        np.testing.assert_allclose(np.asarray(got, float), old + new * (batch - old), rtol=rtol)
    assert (int(first.count), int(third.count), third.count.dtype.kind) == (1, 3, "i")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_at_infinity(name):
    """Where a product with 0 would be NaN: g and g′ have their limits there, and g″ is 0."""
    g, slope = ACTIVATIONS[name], slope_of(name, jnp.float32)
    far, z = jnp.array([[-1e6, 1e6]]), jnp.array([[-jnp.inf, jnp.inf]])
    limit = jnp.where(jnp.abs(g.f(far, *slope)) > 9, jnp.sign(far) * jnp.inf, g.f(far, *slope))
    np.testing.assert_allclose(g.f(z, *slope), limit, atol=2e-6)
    np.testing.assert_allclose(g.df(z, *slope), g.df(far, *slope), atol=2e-6)
    if g.d2f is not None:
        np.testing.assert_array_equal(g.d2f(z), [[0, 0]])
