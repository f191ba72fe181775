"""The gradients of single examples: those that autodiff finds for one example at a time, and never formed for norms."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, make_case, sizes_of

import mlpjax
from mlpjax import ACTIVATIONS, HEADS, Batch, Config, Layer
from mlpjax.cases import on_kink
from mlpjax.errors import ConfigError, DataError, InputError
from mlpjax.per_example import (
    per_example_factors,
    per_example_gradients,
    per_example_norms,
    per_example_square_norms,
    score_jacobian,
)

# every activation and every head once
NETWORKS = {
    "binary": (("binary_step", "tanh", "prelu"), {"bias": False}),
    "multilabel": (("sigmoid", "arctan", "relu"), {"batch_norm": True}),
    "multiclass": (("leaky_relu", "elu", "selu"), {}),
    "regression": (("softplus", "prelu", "gelu"), {"batch_norm": True, "bias": False}),
    "regression_relu": (("gelu_tanh", "silu", "identity"), {}),
}


def case_of(head, weight="zeros"):
    activation, options = NETWORKS[head]
    config = Config(sizes=sizes_of(head, 3), activation=activation, head=head, l1=0.02, l2=0.3, **options)
    case = make_case(config, weight, train=False)
    if head == "regression_relu":  # most rows above the kink of the output
        output = case.params[-1]
        case = case._replace(params=(*case.params[:-1], output._replace(b=output.b + 1.5)))
    return case


@jax.jit
def by_autodiff(config, params, state, batch):
    """vmap(grad) of the loss of one example in a batch of its own."""

    def loss_of_one(params, x, y):
        return mlpjax.loss(config, params, state, Batch(x[None], y[None]), train=False)[0]

    return jax.vmap(jax.grad(loss_of_one), (None, 0, 0))(params, batch.x, batch.y)


@jax.jit
def by_hand(config, params, state, batch):
    args = (config, params, state, batch)
    return per_example_gradients(*args), per_example_square_norms(*args)


def square_norms(grads):
    return jax.tree.map(lambda leaf: np.sum(np.square(leaf), axis=tuple(range(1, leaf.ndim))), grads)


def test_networks_cover_the_tables():
    assert NETWORKS.keys() == HEADS.keys()
    assert {name for names, _ in NETWORKS.values() for name in names} == set(ACTIVATIONS)


SLOW = ("binary", "multilabel", "multiclass", "regression_relu")


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=pytest.mark.slow if head in SLOW else ()) for head in NETWORKS]
)
def test_an_example_has_the_gradient_of_its_own_loss(x64, head):
    case = case_of(head)
    config, params, state, batch = case[:4]
    expected = by_autodiff(dataclasses.replace(config, l1=None, l2=None), params, state, batch._replace(weight=None))
    present = np.asarray(batch.weight != 0, float)
    expected = jax.tree.map(lambda leaf: leaf * present.reshape(-1, *(1,) * (leaf.ndim - 1)), expected)
    grads, squares = by_hand(config, params, state, batch)
    assert_close(grads, expected, 1e-12)
    assert_close(squares, square_norms(expected), 1e-12)
    assert np.count_nonzero(squares[-1].W) >= 5


def test_on_the_kinks(x64):
    config = Config(sizes=(3, 4, 2), activation="prelu", head="regression_relu")
    case = on_kink(make_case(config, train=False))
    assert_close(by_hand(*case[:4])[0], by_autodiff(*case[:4]), 1e-12)


def test_with_dropout_and_weights_they_add_up_to_backward(x64):
    """Weight e_i makes J of the batch Lᵢ, with the masks of the batch: autodiff then has ∂Lᵢ/∂θ."""
    config = Config(sizes=(3, 4, 2), activation="prelu", head="regression", dropout=(0.3, 0.4))
    case = make_case(config, "zeros")

    @jax.jit
    def both(case):
        def by_weight(weight):
            return mlpjax.autodiff(*case[:3], case.batch._replace(weight=weight), case.key)[1]

        rows = jnp.diag((case.batch.weight != 0).astype(float))
        norms = per_example_norms(*case[:5], train=True)
        return per_example_gradients(*case[:5], train=True), norms, jax.vmap(by_weight)(rows)

    grads, norms, expected = both(case._replace(train=None))
    assert_close(grads, expected, 1e-12)
    assert_close(norms, np.sqrt(sum(jax.tree.leaves(square_norms(expected)))), 1e-12)
    p = case.batch.weight / case.batch.weight.sum()
    penalised = dataclasses.replace(config, l1=0.1, l2=0.2)
    _, whole = jax.jit(mlpjax.backward)(penalised, *case[1:5])
    summed = jax.tree.map(lambda leaf: np.tensordot(p, leaf, 1), grads)
    with_penalty = tuple(
        layer._replace(W=layer.W + 0.1 * np.sign(before.W) + 0.2 * before.W)
        for layer, before in zip(summed, case.params, strict=True)
    )
    assert_close(with_penalty, whole, 1e-12)


def test_worked_example(x64):
    """1 – 1 – 1 with PReLU, z₁ = −2x: x = 1 gives a = −½, ŷ = −1, L = ½(−1 − 1)²; x = −1 gives a = 2, ŷ = 4."""
    config = Config(sizes=(1, 1, 1), activation="prelu", head="regression")
    hidden = Layer(W=jnp.array([[-2.0]]), b=jnp.zeros(1), slope=jnp.array([0.25]))
    params = (hidden, Layer(W=jnp.array([[2.0]]), b=jnp.zeros(1)))
    first, second = per_example_gradients(config, params, (), Batch(np.array([[1.0], [-1.0]]), np.array([1.0, 1.0])))
    # dz₂ = −2 and 3, da = −4 and 6, dz₁ = −1 and 6
    np.testing.assert_allclose(second.W[:, 0, 0], [1.0, 6.0])
    np.testing.assert_allclose(second.b[:, 0], [-2.0, 3.0])
    np.testing.assert_allclose(first.W[:, 0, 0], [-1.0, -6.0])
    np.testing.assert_allclose(first.slope[:, 0], [8.0, 0.0])


@pytest.mark.parametrize("head", ["multilabel", pytest.param("binary", marks=pytest.mark.slow)])
def test_score_jacobian(x64, head):
    config, params, state, batch = case_of(head, "none")[:4]
    z, jacobian = jax.jit(score_jacobian)(config, params, state, batch.x)

    def scores(params):
        z, _ = mlpjax.forward(config, params, state, batch.x)
        return z, z

    expected, z_expected = jax.jit(jax.jacrev(scores, has_aux=True))(params)
    assert_close((z, jacobian), (z_expected, expected), 1e-12)
    dz = np.asarray(HEADS[head].dz(z, np.reshape(batch.y, z.shape)))
    chained = jax.tree.map(lambda leaf: np.einsum("ic,ic...->i...", dz, leaf), jacobian)
    assert_close(chained, by_autodiff(dataclasses.replace(config, l1=None, l2=None), params, state, batch), 1e-12)


def test_no_gradient_is_formed_for_norms():
    """No array in the program of the norms has three axes, of which that of the gradients has some."""
    case = make_case(Config(sizes=(3, 7, 2), activation="prelu", head="regression"), train=False)

    def three_axes(function):
        return re.findall(r"f32\[\d+,\d+,\d+\]", str(jax.make_jaxpr(function)(*case[:4])))

    assert three_axes(per_example_gradients)
    for function in (per_example_norms, per_example_square_norms, per_example_factors):
        assert not three_axes(function)


def test_a_row_of_weight_0_may_hold_anything():
    config = Config(sizes=(2, 4, 3), activation="relu")
    params, state = mlpjax.init(config, jax.random.key(0))
    x, y = np.array([[1.0, 2.0], [np.nan, 1e30], [1e30, -1e30]], np.float32), np.array([2, -1, 1])
    batch = Batch(x, y, np.array([1.0, 0.0, 0.0], np.float32))
    alone = by_autodiff(config, params, state, Batch(x[:1], y[:1]))
    grads, squares = by_hand(config, params, state, batch)
    assert_close(jax.tree.map(lambda leaf: leaf[:1], grads), alone, 1e-6)
    for leaf in jax.tree.leaves((grads, squares)):
        np.testing.assert_array_equal(leaf[1:], 0.0)


def test_an_invalid_weight_is_an_error_or_nan():
    case = make_case(Config(sizes=(3, 5, 2)), train=False)
    batch = case.batch._replace(weight=np.array([-1.0] + [1.0] * 8, np.float32))
    with pytest.raises(DataError, match=r"weight is -1\.0 in row 0"):
        per_example_norms(*case[:3], batch)
    assert np.isnan(jax.jit(per_example_norms)(*case[:3], batch)).all()


@pytest.mark.parametrize("compute_dtype", [None, "bfloat16"])
def test_float32(compute_dtype):
    """With 1/m a power of 2, rounding the deltas to ``compute_dtype`` commutes with weighing them."""
    config = Config(sizes=(3, 4, 2), activation="prelu", head="regression", compute_dtype=compute_dtype)
    case = make_case(config, train=False, m=8)
    grads, squares = by_hand(*case[:4])
    assert {leaf.dtype for leaf in jax.tree.leaves((grads, squares))} == {jnp.dtype("float32")}
    mean = jax.tree.map(lambda leaf: np.mean(leaf, axis=0), grads)
    assert_close(mean, jax.jit(mlpjax.backward)(*case[:5])[1], 1e-6)
    assert_close(squares, square_norms(grads), 1e-6)


def test_what_is_refused():
    normed = make_case(Config(sizes=(3, 5, 2), head="regression", batch_norm=True))
    with pytest.raises(ConfigError, match=r"batch_norm with train=True couples the rows.*use train=False"):
        per_example_gradients(*normed[:4], train=True)
    flat = make_case(Config(sizes=(3, 2), head="regression", batch_norm=True))
    assert per_example_norms(*flat[:4], train=True).shape == (9,)
    dropping = make_case(Config(sizes=(3, 5, 2), head="regression", dropout=0.5))
    with pytest.raises(InputError, match="training with dropout draws masks: give a key"):
        per_example_norms(*dropping[:4], train=True)
    with pytest.raises(DataError, match="expected one label per example"):
        per_example_norms(*dropping[:3], Batch(dropping.batch.x, dropping.batch.y[:4]))
    with pytest.raises(DataError, match=r"x has shape \(9, 2\): expected \(m, 3\)"):
        score_jacobian(*dropping[:3], dropping.batch.x[:, :2])
