"""The start values: variance and bounds of each formula, the rule of ``auto``, and why zeros do not learn."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax import ACTIVATIONS, HEADS, INITIALIZERS, Batch, Config, ConfigError
from mlpjax.parameters import initializer_name

N_IN, N_OUT = 300, 200
VARIANCE = {
    "zeros": 0.0,
    "normal_001": 0.0001,
    "lecun_normal": 1 / N_IN,
    "lecun_uniform": 1 / N_IN,
    "glorot_normal": 2 / (N_IN + N_OUT),
    "glorot_uniform": 2 / (N_IN + N_OUT),
    "he_normal": 2 / N_IN,
    "he_uniform": 2 / N_IN,
    "orthogonal": 1 / N_IN,  # 200 columns of length 1 among 300 rows
}
LIMIT = {
    "lecun_uniform": math.sqrt(3 / N_IN),
    "glorot_uniform": math.sqrt(6 / (N_IN + N_OUT)),
    "he_uniform": math.sqrt(6 / N_IN),
}
AUTO = {
    "identity": "glorot_normal", "binary_step": "glorot_normal", "sigmoid": "glorot_normal",
    "tanh": "glorot_normal", "arctan": "glorot_normal", "softplus": "glorot_normal",
    "relu": "he_normal", "leaky_relu": "he_normal", "prelu": "he_normal", "elu": "he_normal",
    "gelu": "he_normal", "gelu_tanh": "he_normal", "silu": "he_normal", "selu": "lecun_normal",
}  # fmt: skip
AUTO_OUTPUT = {
    "binary": "glorot_normal", "multilabel": "glorot_normal", "multiclass": "glorot_normal",
    "regression": "glorot_normal", "regression_relu": "he_normal",
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    """One large matrix of each initialiser."""
    return {name: np.asarray(f(jax.random.key(3), (N_IN, N_OUT), jnp.float32)) for name, f in INITIALIZERS.items()}


def test_every_entry_has_expected_values():
    assert set(VARIANCE) == set(INITIALIZERS)
    assert set(AUTO) == set(ACTIVATIONS)
    assert set(AUTO_OUTPUT) == set(HEADS)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_variance_and_mean(drawn, name):
    """60 000 numbers: the sample variance of a normal has a standard error of √(2/60000) = 0.6 %; five of them."""
    W, variance = drawn[name], VARIANCE[name]
    assert (W.shape, W.dtype) == ((N_IN, N_OUT), np.float32)
    np.testing.assert_allclose(np.mean(W.astype(float) ** 2), variance, rtol=0.03)
    np.testing.assert_allclose(W.astype(float).mean(), 0.0, atol=5 * math.sqrt(variance / W.size) + 1e-12)


@pytest.mark.parametrize("name", LIMIT)
def test_uniform_bounds(drawn, name):
    assert 0.999 * LIMIT[name] < np.abs(drawn[name]).max() <= LIMIT[name] * (1 + 1e-6)


@pytest.mark.parametrize("name", [name for name in VARIANCE if name.endswith(("normal", "001"))])
def test_normals_are_not_truncated(drawn, name):
    """Of 60 000 normal numbers 4.55 % lie beyond 2σ and some beyond 3.5σ."""
    scaled = np.abs(drawn[name]) / math.sqrt(VARIANCE[name])
    np.testing.assert_allclose((scaled > 2).mean(), 0.0455, rtol=0.1)
    assert scaled.max() > 3.5


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_orthogonal(x64, shape):
    """The shorter side is orthonormal."""
    W = np.asarray(INITIALIZERS["orthogonal"](jax.random.key(0), shape, jnp.float64))
    assert W.shape == shape
    product = W.T @ W if shape[0] >= shape[1] else W @ W.T
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-14)


def test_orthogonal_has_no_preferred_sign():
    """A QR decomposition alone fixes the signs of a column; 200 draws of a 1 × 1 matrix have both."""
    draw = jax.vmap(lambda key: INITIALIZERS["orthogonal"](key, (1, 1), jnp.float32)[0, 0])
    signs = np.asarray(draw(jax.random.split(jax.random.key(0), 200)))
    np.testing.assert_allclose(np.abs(signs), 1.0, rtol=1e-6)
    assert 70 < (signs > 0).sum() < 130


@pytest.mark.parametrize("name", INITIALIZERS)
def test_columns_differ(drawn, name):
    """Random start values break the symmetry between units; zeros do not."""
    distinct = len(np.unique(drawn[name], axis=1).T)
    assert distinct == (1 if name == "zeros" else N_OUT)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_auto(activation, head):
    n_L = 1 if head == "binary" else 2
    config = Config(sizes=(3, 5, 4, n_L), activation=("tanh", activation), head=head)
    names = [initializer_name(config, l) for l in (1, 2, 3)]
    assert names == ["glorot_normal", AUTO[activation], AUTO_OUTPUT[head]]
    assert initializer_name(Config(sizes=(3, 5, n_L), head=head, init="zeros"), 1) == "zeros"


def test_init_draws_each_layer_from_its_own_key():
    """Layer l draws from fold_in(key, l)."""
    config = Config(sizes=(5, 5, 5), activation="tanh")
    params, _ = mlpjax.init(config, jax.random.key(1))
    again, _ = mlpjax.init(config, jax.random.key(1))
    other, _ = mlpjax.init(config, jax.random.key(2))
    for l in (1, 2):
        # compiled as init is: operation by operation a last bit differs
        drawn = jax.jit(INITIALIZERS["glorot_normal"], static_argnums=(1, 2))
        expected = drawn(jax.random.fold_in(jax.random.key(1), l), (5, 5), jnp.float32)
        np.testing.assert_array_equal(params[l - 1].W, expected)
        np.testing.assert_array_equal(params[l - 1].W, again[l - 1].W)
        assert not np.array_equal(params[l - 1].W, other[l - 1].W)
    assert not np.array_equal(params[0].W, params[1].W)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_init_of_the_rest(batch_norm, bias):
    """b = 0, γ = 1, β = 0, slope = ¼, and None where unused; running mean 0, variance 1, no update yet."""
    config = Config(sizes=(3, 5, 4, 2), activation=("relu", "prelu"), batch_norm=batch_norm, bias=bias)
    params, state = mlpjax.init(config, jax.random.key(0))
    assert [layer.W.shape for layer in params] == [(3, 5), (5, 4), (4, 2)]
    for layer, width in zip(params[:-1], (5, 4), strict=True):
        for leaf, present, value in (
            (layer.b, bias and not batch_norm, 0.0),
            (layer.gamma, batch_norm, 1.0),
            (layer.beta, batch_norm, 0.0),
            (layer.slope, width == 4, 0.25),
        ):
            assert (leaf is not None) == present
            if present:
                np.testing.assert_array_equal(leaf, np.full(width, value, np.float32))
    assert (params[-1].b is not None) == bias
    assert (params[-1].gamma, params[-1].beta, params[-1].slope) == (None, None, None)
    if not batch_norm:
        assert state == ()
        return
    for record, width in zip(state, (5, 4), strict=True):
        np.testing.assert_array_equal(record.mean, np.zeros(width))
        np.testing.assert_array_equal(record.var, np.ones(width))
        assert int(record.count) == 0


def test_param_dtype():
    config = Config(sizes=(3, 5, 2), batch_norm=True, param_dtype="float64")
    with pytest.raises(ConfigError, match="'float64', which JAX has switched off"):
        mlpjax.init(config, jax.random.key(0))
    with jax.enable_x64(True):
        params, _ = mlpjax.init(config, jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float64")}
        params, _ = mlpjax.init(Config(sizes=(3, 5, 2), param_dtype="float32"), jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (0.4, 0.7)])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_equal_columns_stay_equal(x64, activation, first, second):
    """Units that start equal get equal gradients: after five hand steps the hidden layer is still one unit."""
    config = Config(sizes=(2, 3, 1), activation=activation, head="regression", init="zeros")
    (hidden, output), _ = mlpjax.init(config, jax.random.key(0))
    params = (hidden._replace(W=hidden.W + first), output._replace(W=output.W + second))
    rng = np.random.default_rng(0)
    batch = Batch(rng.normal(size=(8, 2)), rng.normal(size=(8, 1)) + 1)
    for _ in range(5):
        _, grads = mlpjax.backward(config, params, (), batch)
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, grads)
        assert np.ptp(params[0].W, axis=1).max() == np.ptp(params[0].b) == np.ptp(params[1].W) == 0.0
    # with W = 0 tanh and ReLU stay frozen: only the last bias moves
    moved = [bool(np.any(leaf)) for leaf in (params[0].W, params[1].W, params[1].b)]
    assert moved == ([False, False, True] if first == 0.0 and activation != "sigmoid" else [True, True, True])


def test_random_columns_come_apart(x64):
    """A zero bias is no symmetry problem once W is random."""
    config = Config(sizes=(2, 3, 1), activation="tanh", head="regression")
    params, _ = mlpjax.init(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    _, grads = mlpjax.backward(config, params, (), Batch(rng.normal(size=(8, 2)), rng.normal(size=(8, 1))))
    assert len(np.unique(np.asarray(grads[0].W), axis=1).T) == 3
