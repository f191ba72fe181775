"""The gradients of the whole network: the hand-derived ones, autodiff's and central differences are one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import (
    all_pairs,
    assert_close,
    assert_gradients_agree,
    assert_loss_matches_oracle,
    covering_array,
    make_case,
    sizes_of,
    smooth_case,
)

import mlpjax
from mlpjax import ACTIVATIONS, HEADS, Batch, Config, Layer
from mlpjax.networks import FACTORS, row_config

ROWS = covering_array(FACTORS)
# each activation always with one head, and each head with some; with the others where slow tests run
PAIRS = [
    pytest.param(activation, head, marks=pytest.mark.slow if (i - j) % len(HEADS) else ())
    for i, activation in enumerate(ACTIVATIONS)
    for j, head in enumerate(HEADS)
]


def row_case(row):
    """The case of a row, and whether it keeps away from the kinks: W = 0 without b sits on them."""
    smooth = row["init"] != "zeros" or row["bias"]
    make = smooth_case if smooth else make_case
    return make(row_config(row), row["weight"], row["train"]), smooth


def row_id(row):
    return "-".join(f"{name}={value}" for name, value in row.items())


def test_rows_cover_all_pairs():
    covered = set()
    for row in ROWS:
        covered |= all_pairs({name: (value,) for name, value in row.items()})
    assert covered == all_pairs(FACTORS)
    assert len(ROWS) < 60


@pytest.mark.parametrize(("activation", "head"), PAIRS)
def test_every_activation_with_every_head(x64, activation, head):
    case = smooth_case(Config(sizes=sizes_of(head, 1, classes=8), activation=activation, head=head), "given")
    assert_gradients_agree(case)
    assert_loss_matches_oracle(case)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_every_pair_of_options(x64, row):
    case, smooth = row_case(row)
    assert_gradients_agree(case, differences=smooth)
    assert_loss_matches_oracle(case)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_input_gradient(x64, row):
    case, _ = row_case(row)

    def of_input(x):
        return case.call(mlpjax.loss, batch=case.batch._replace(x=x))[0]

    dx = case.call(mlpjax.input_gradient)
    assert dx.shape == case.batch.x.shape
    assert_close(dx, jax.grad(of_input)(jnp.asarray(case.batch.x)), 1e-10)


def test_input_gradient_drops_nothing_unless_asked(x64):
    case = make_case(Config(sizes=(3, 6, 2), head="regression", dropout=0.5, batch_norm=True))
    by_default = mlpjax.input_gradient(*case[:4])
    np.testing.assert_array_equal(by_default, case.call(mlpjax.input_gradient, train=False))


def test_worked_example(x64):
    """2 – 2 – 1, one example, by hand: z₁ = (1, −1), a₁ = relu = (1, 0), z₂ = 3·1 + ½ = 3.5, L = ½(3.5 − 1.5)² = 2."""
    params = (
        Layer(W=jnp.array([[1.0, 1.0], [0.0, -1.0]]), b=jnp.array([0.0, 0.0])),
        Layer(W=jnp.array([[3.0], [4.0]]), b=jnp.array([0.5])),
    )
    config = Config(sizes=(2, 2, 1), head="regression", l2=0.1)
    batch = Batch(jnp.array([[1.0, 2.0]]), jnp.array([1.5]))
    (J, aux), grads = mlpjax.backward(config, params, (), batch)
    # Σ W² = 3 + 25
    np.testing.assert_allclose([J, aux.data_loss, aux.penalty, aux.weight_sum], [3.4, 2.0, 1.4, 1.0], rtol=1e-15)
    np.testing.assert_allclose(grads[1].W, [[2.0 + 0.3], [0.0 + 0.4]], rtol=1e-15)
    np.testing.assert_allclose(grads[1].b, [2.0])
    # dA = (6, 8), relu′ = (1, 0), dZ = (6, 0)
    np.testing.assert_allclose(grads[0].W, [[6.0 + 0.1, 0.0 + 0.1], [12.0, -0.1]], rtol=1e-15)
    np.testing.assert_allclose(grads[0].b, [6.0, 0.0])
    np.testing.assert_allclose(mlpjax.input_gradient(config, params, (), batch), [[6.0, 0.0]])


KINKS = {"binary_step": 0, "relu": 0, "leaky_relu": 1, "prelu": 1, "elu": 1, "selu": 1.0507009873554805}


@pytest.mark.parametrize("grad_fn", [mlpjax.backward, mlpjax.autodiff], ids=["hand", "autodiff"])
@pytest.mark.parametrize("activation", KINKS)
def test_at_the_kinks_of_activations(x64, activation, grad_fn):
    """1 – 1 – 1 with z₁ = 0: dW₁ = (ŷ − y) w₂ g′(0) x."""
    config = Config(sizes=(1, 1, 1), head="regression", activation=activation)
    (first, second), state = mlpjax.init(config, jax.random.key(0))
    params = (first._replace(W=jnp.array([[0.0]])), second._replace(W=jnp.array([[3.0]])))
    _, grads = grad_fn(config, params, state, Batch(jnp.array([[5.0]]), jnp.array([2.0])))
    yhat = 3.0 if activation == "binary_step" else 0.0
    np.testing.assert_allclose(grads[0].W, [[(yhat - 2.0) * 3.0 * KINKS[activation] * 5.0]], rtol=1e-15)
    if activation == "prelu":
        np.testing.assert_array_equal(grads[0].slope, [0.0])


@pytest.mark.parametrize("grad_fn", [mlpjax.backward, mlpjax.autodiff], ids=["hand", "autodiff"])
def test_at_the_kinks_of_head_and_penalty(x64, grad_fn):
    """z = 0 at the ReLU output, w = 0 under l1: both gradients are 0."""
    config = Config(sizes=(2, 1), head="regression_relu", l1=0.5)
    params = (Layer(W=jnp.array([[0.0], [-2.0]]), b=jnp.array([2.0])),)
    _, grads = grad_fn(config, params, (), Batch(jnp.array([[7.0, 1.0]]), jnp.array([3.0])))
    np.testing.assert_array_equal(grads[0].W, [[0.0], [-0.5]])
    np.testing.assert_array_equal(grads[0].b, [0.0])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_zero_weights_and_zero_input(x64, activation):
    """Every unit exactly at its kink, under l1: hand and autodiff say the same."""
    config = Config(sizes=(3, 6, 2), activation=activation, head="regression", init="zeros", l1=0.1)
    params, state = mlpjax.init(config, jax.random.key(0))
    batch = Batch(jnp.zeros((9, 3)), jnp.ones((9, 2)))
    (_, hand), (_, auto) = (f(config, params, state, batch) for f in (mlpjax.backward, mlpjax.autodiff))
    assert_close(hand, auto, 1e-15)
    if activation != "binary_step":
        np.testing.assert_array_equal(hand[0].W, 0.0)
    np.testing.assert_allclose(hand[1].b, [-1.0, -1.0], rtol=1e-15)


def test_float32_gradients_are_float32():
    """The default dtype, compiled: hand and autodiff agree to its rounding, whatever the dtype of the data."""
    config = Config(sizes=(3, 7, 6, 8), activation=("gelu", "prelu"), batch_norm=True, dropout=0.3, l1=0.01, l2=0.1)
    case = make_case(config, "given")
    assert case.batch.x.dtype == np.float64
    both = jax.jit(lambda *args: (mlpjax.backward(*args), mlpjax.autodiff(*args)))
    ((J, aux), hand), (_, auto) = both(*case[:-1])
    assert {leaf.dtype for leaf in jax.tree.leaves((J, aux.z, hand, auto))} == {jnp.dtype("float32")}
    assert_close(hand, auto, 1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_predict_is_the_link_of_forward(x64, head):
    case = make_case(Config(sizes=sizes_of(head, 2), head=head, batch_norm=True))
    config, params, state, batch = case[:4]
    z, after = mlpjax.forward(config, params, state, batch.x)
    yhat = mlpjax.predict(config, params, state, batch.x)
    np.testing.assert_array_equal(yhat, HEADS[head].link(z))
    np.testing.assert_array_equal(mlpjax.decide(config, yhat), HEADS[head].decide(yhat))
    assert after is state


def test_forward_gives_the_scores_of_loss(x64):
    case = make_case(Config(sizes=(3, 7, 6, 8), batch_norm=True, dropout=0.3), "zeros")
    config, params, state, batch, key, _ = case
    z, new_state = mlpjax.forward(config, params, state, batch.x, train=True, key=key, weight=batch.weight)
    _, aux = case.call(mlpjax.loss)
    assert_close((z, new_state), (aux.z, aux.state), 0.0)


def test_apply_update_adds_the_updates():
    case = make_case(Config(sizes=(3, 6, 2), head="regression", activation="prelu"))
    _, grads = case.call(mlpjax.backward)
    optimizer = optax.sgd(0.1)
    params, _ = mlpjax.apply_update(optimizer, grads, optimizer.init(case.params), case.params)
    assert_close(params, jax.tree.map(lambda p, g: p - 0.1 * g, case.params, grads), 1e-6)
