"""What must hold of any network: weights are multiplicities, order does not matter, a rate does not recompile."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, assert_close, make_case

import mlpjax
from mlpjax import Batch, Config, DataError, InputError
from mlpjax.layers import BatchNormState

SIZES = (3, 7, 6, 2)
PLAIN = Config(sizes=SIZES, head="regression", activation=("tanh", "prelu"), l1=0.02, l2=0.3)
NORMED = Config(sizes=SIZES, head="regression", activation=("tanh", "prelu"), l1=0.02, l2=0.3, batch_norm=True)
DROPPING = Config(sizes=SIZES, head="regression", activation="tanh", dropout=(0.2, 0.5, 0.3))
BOTH = pytest.mark.parametrize("config", [PLAIN, NORMED], ids=["plain", "batch_norm"])


def results(case):
    """J, its parts, the new state and the gradients, without what belongs to single rows."""
    (J, aux), grads = case.call(mlpjax.backward)
    return J, aux.data_loss, aux.penalty, aux.state, grads


def rows(case, index, weight=None):
    """The case on some of its rows."""
    x, y, _ = case.batch
    return case._replace(batch=Batch(x[index], y[index], weight))


@BOTH
def test_weight_2_is_the_example_twice_and_weight_0_its_absence(x64, config):
    case = make_case(config)
    weight = np.ones(9)
    weight[[1, 4]], weight[[3, 7]] = 2.0, 0.0
    twice = rows(case, [0, 1, 2, 4, 5, 6, 8, 1, 4])
    assert_close(results(rows(case, slice(None), weight)), results(twice), 1e-12)


@BOTH
def test_only_ratios_of_weights_count(x64, config):
    case = make_case(config, "given")
    scaled = case._replace(batch=case.batch._replace(weight=1000 * case.batch.weight))
    assert_close(results(case), results(scaled), 1e-12)
    equal = rows(case, slice(None), np.full(9, 0.3))
    assert_close(results(equal), results(rows(case, slice(None))), 1e-12)
    assert float(case.call(mlpjax.loss)[1].weight_sum) == pytest.approx(case.batch.weight.sum(), rel=1e-15)


@BOTH
@pytest.mark.parametrize("filler", [0.0, 1e6, np.nan, np.inf])
def test_padding_is_neutral(x64, config, filler):
    """Rows of weight 0, whatever is in them, change nothing; without weights the others count 1 each."""
    case = make_case(config)
    x, y, _ = case.batch
    padded = Batch(
        np.concatenate([x, np.full((3, 3), filler)]),
        np.concatenate([y, np.full((3, 2), filler)]),
        np.concatenate([np.ones(9), np.zeros(3)]),
    )
    assert_close(results(case._replace(batch=padded)), results(case), 1e-12)
    assert float(case._replace(batch=padded).call(mlpjax.loss)[1].weight_sum) == 9.0
    dx = case._replace(batch=padded).call(mlpjax.input_gradient)
    np.testing.assert_array_equal(dx[9:], np.zeros((3, 3)))


@BOTH
@pytest.mark.parametrize("grad_fn", [mlpjax.backward, mlpjax.autodiff], ids=["hand", "autodiff"])
def test_all_weights_0(x64, config, grad_fn):
    """J is the penalty, the gradient is the penalty's, and the state stays as it was."""
    case = rows(make_case(config), slice(None), np.zeros(9))
    (J, aux), grads = case.call(grad_fn)
    assert float(J) == float(aux.penalty) > 0
    assert (float(aux.data_loss), float(aux.weight_sum)) == (0.0, 0.0)
    assert_close(aux.state, case.state, 0.0)
    for layer, grad in zip(case.params, grads, strict=True):
        np.testing.assert_allclose(grad.W, 0.02 * np.sign(layer.W) + 0.3 * layer.W, rtol=1e-14)
        assert all(not np.any(leaf) for leaf in grad[1:] if leaf is not None)


@BOTH
def test_order_of_examples(x64, config):
    case = make_case(config, "given")
    order = np.random.default_rng(0).permutation(9)
    assert_close(results(rows(case, order, case.batch.weight[order])), results(case), 1e-12)


@BOTH
def test_order_of_hidden_units(x64, config):
    """Renaming the units of layer 1 renames its columns, and the rows of W[2], in the gradient too."""
    case = make_case(config, "given")
    order = np.random.default_rng(1).permutation(7)

    def renamed(params):
        first, second, *rest = params
        return (jax.tree.map(lambda leaf: leaf[..., order], first), second._replace(W=second.W[order]), *rest)

    state = tuple(jax.tree.map(lambda leaf: leaf[..., order] if leaf.ndim else leaf, s) for s in case.state[:1])
    other = case._replace(params=renamed(case.params), state=(*state, *case.state[1:]))
    (J, aux), grads = case.call(mlpjax.backward)
    (J_other, aux_other), grads_other = other.call(mlpjax.backward)
    assert_close((J_other, aux_other.z, grads_other), (J, aux.z, renamed(grads)), 1e-12)


def test_penalty_does_not_depend_on_the_batch(x64):
    """Ten times the examples, the same penalty: l1 Σ|W| + (l2/2) Σ W², over W alone."""
    case = make_case(PLAIN)
    many = rows(case, np.arange(90) % 9)
    penalties = [float(c.call(mlpjax.loss)[1].penalty) for c in (case, many)]
    by_hand = sum(0.02 * np.abs(layer.W).sum() + 0.15 * (np.asarray(layer.W) ** 2).sum() for layer in case.params)
    np.testing.assert_allclose(penalties, by_hand, rtol=1e-14)
    assert_close(results(many), results(case), 1e-12)


@BOTH
def test_only_W_is_penalised(x64, config):
    """The penalty of a network with other b, γ, β and slopes is the same, and its gradient there is 0."""
    case = make_case(config)
    others = tuple(jax.tree.map(lambda leaf: 5 * leaf + 1, layer)._replace(W=layer.W) for layer in case.params)
    changed = case._replace(params=others)
    assert float(changed.call(mlpjax.loss)[1].penalty) == float(case.call(mlpjax.loss)[1].penalty)
    weak = case._replace(config=Config.from_dict({**config.to_dict(), "l1": None, "l2": None}))
    for with_, without in zip(case.call(mlpjax.backward)[1], weak.call(mlpjax.backward)[1], strict=True):
        assert np.any(with_.W != without.W)
        assert_close(with_[1:], without[1:], 0.0)


def test_evaluation_drops_nothing_and_keeps_the_state(x64):
    config = Config(sizes=SIZES, head="regression", dropout=0.9, batch_norm=True)
    case = make_case(config, train=False)
    plain = Config(sizes=SIZES, head="regression", batch_norm=True)
    (_, aux), grads = case._replace(key=None).call(mlpjax.backward)
    assert aux.state is case.state
    (_, aux_plain), grads_plain = case._replace(config=plain).call(mlpjax.backward)
    assert_close((aux.z, grads), (aux_plain.z, grads_plain), 0.0)
    # and each row is scored by itself
    alone = jnp.concatenate([mlpjax.forward(config, case.params, case.state, row[None, :])[0] for row in case.batch.x])
    np.testing.assert_allclose(alone, aux.z, rtol=1e-12)


def test_a_key_fixes_the_masks(x64):
    case = make_case(DROPPING)
    again, other = case.call(mlpjax.loss), case.call(mlpjax.loss, key=jax.random.key(99))
    assert_close(case.call(mlpjax.loss), again, 0.0)
    assert not np.array_equal(again[1].z, other[1].z)


def test_layers_and_steps_draw_different_masks():
    """Three layers of one width under one key, and the keys of two steps: four different masks."""
    width, m = 8, 9
    key, masks = jax.random.key(0), []
    eye = tuple(mlpjax.Layer(W=jnp.eye(width)) for _ in range(3))
    for l, step in [(0, 0), (1, 0), (2, 0), (0, 1)]:
        rates = tuple(0.5 if layer == l else None for layer in range(3))
        config = Config(sizes=(width,) * 4, activation="identity", head="regression", dropout=rates)
        z, _ = mlpjax.forward(config, eye, (), jnp.ones((m, width)), train=True, key=jax.random.fold_in(key, step))
        masks.append(np.asarray(z))
        expected = jax.random.bernoulli(jax.random.fold_in(jax.random.fold_in(key, step), l), 0.5, (m, width))
        np.testing.assert_array_equal(z, 2.0 * expected)
    assert all(not np.array_equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


@pytest.mark.parametrize("call", [mlpjax.loss, mlpjax.backward, mlpjax.autodiff, mlpjax.input_gradient])
def test_dropout_without_a_key_is_an_error(call):
    case = make_case(DROPPING)._replace(key=None)
    with pytest.raises(InputError, match=r"training with dropout draws masks: give a key.*or train=False"):
        case.call(call, train=True)


NUMBERS = Config(sizes=(3, 6, 2), head="regression", activation="tanh", dropout=0.2, l1=0.01, l2=0.1)


def test_a_number_does_not_recompile_and_structure_does():
    """jit takes the config as it is: one trace for every rate, l1 and l2, another with batch-norm."""
    traces = []

    def traced(*args):
        traces.append(None)
        return mlpjax.backward(*args)

    compiled = jax.jit(traced)
    for rate, l1, l2 in [(0.2, 0.01, 0.1), (0.5, 0.01, 0.1), (0.5, 0.3, 0.2)]:
        config = Config.from_dict({**NUMBERS.to_dict(), "dropout": rate, "l1": l1, "l2": l2})
        case = make_case(config)
        got, expected = compiled(*case[:-1]), case.call(mlpjax.backward)
        assert len(traces) == 1
        assert_close(got, expected, 1e-5)
    case = make_case(Config.from_dict({**NUMBERS.to_dict(), "batch_norm": True}))
    compiled(*case[:-1])
    assert len(traces) == 2


def test_a_population_is_one_vmap():
    """Networks with different rates and strengths, in one call: the same as one after another."""
    case = make_case(NUMBERS)
    configs = [
        Config.from_dict({**NUMBERS.to_dict(), "dropout": rate, "l1": l1, "l2": l2})
        for rate, l1, l2 in [(0.1, 0.0, 0.5), (0.5, 0.1, 0.2), (0.8, 0.3, 0.0)]
    ]
    population = jax.tree.map(lambda *numbers: jnp.array(numbers), *configs)
    assert isinstance(population, Config)
    together = jax.vmap(mlpjax.backward, in_axes=(0, None, None, None, None))(population, *case[1:-1])
    for i, config in enumerate(configs):
        one = case._replace(config=config).call(mlpjax.backward)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), one, 1e-5)


def test_second_derivatives(x64):
    """The hand-derived gradient is a function like any other: its derivative is that of autodiff's gradient."""
    case = make_case(PLAIN)
    direction = jax.tree.map(jnp.ones_like, case.params)

    @jax.jit
    def both(params):
        def hand(params):
            return case.call(mlpjax.backward, params=params)[1]

        def auto(params):
            return jax.grad(lambda params: case.call(mlpjax.loss, params=params)[0])(params)

        return [jax.jvp(gradient, (params,), (direction,))[1] for gradient in (hand, auto)]

    assert_close(*both(case.params), 1e-10)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_products_in_bfloat16(batch_norm):
    """Only the products are narrow: gradients stay float32, within 2 % of their scale, and autodiff agrees."""
    config = Config(sizes=SIZES, activation="tanh", head="regression", batch_norm=batch_norm, l2=0.1)
    narrow = Config.from_dict({**config.to_dict(), "compute_dtype": "bfloat16"})
    case = make_case(config, m=64)

    @jax.jit
    def three(*args):
        return mlpjax.backward(config, *args), mlpjax.backward(narrow, *args), mlpjax.autodiff(narrow, *args)

    ((J, _), wide_grads), ((J_narrow, aux), grads), (_, auto) = three(*case[1:-1])
    assert {leaf.dtype for leaf in jax.tree.leaves((J_narrow, aux.z, grads, auto))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(J_narrow, J, rtol=2e-2)
    assert float(J_narrow) != float(J)
    assert_close(grads, wide_grads, 2e-2)
    # autodiff rounds its cotangents to bfloat16, 8 bits
    assert_close(grads, auto, 2e-2)


ONE = make_case(Config(sizes=(3, 6, 2), head="regression"))
LABELLED = make_case(Config(sizes=(3, 6, 2)))
NORM = make_case(Config(sizes=(3, 6, 2), head="regression", batch_norm=True))
X, Y, _ = ONE.batch
W_1, W_2 = (layer.W for layer in ONE.params)


def with_batch(case, **changes):
    return case._replace(batch=case.batch._replace(**changes))


WRONG = {
    "x one row short of a matrix": (with_batch(ONE, x=X[0]), ["x has shape (3,)", "expected (m, 3)"]),
    "x too wide": (with_batch(ONE, x=np.ones((9, 4))), ["x has shape (9, 4)", "expected (m, 3)", "sizes[0] = 3"]),
    "x of rank 3": (with_batch(ONE, x=np.ones((9, 3, 1))), ["x has shape (9, 3, 1)", "expected (m, 3)"]),
    "x complex": (with_batch(ONE, x=X * 1j), ["dtype complex", "expected real numbers"]),
    "y shorter than x": (with_batch(ONE, y=Y[:8]), ["x has 9 rows and y has 8", "one label per example"]),
    "y of one row": (with_batch(ONE, y=Y[:1]), ["x has 9 rows and y has 1"]),
    "y as a vector": (with_batch(ONE, y=Y[:, 0]), ["y has shape (9,)", "2 outputs expects (m, 2)"]),
    "y as a column": (with_batch(ONE, y=Y[:, :1]), ["y has shape (9, 1)", "expects (m, 2)"]),
    "y a scalar": (with_batch(LABELLED, y=np.array(1)), ["y has shape ()", "integer (m,) or one-hot (m, 2)"]),
    "y of real classes": (with_batch(LABELLED, y=np.ones(9)), ["y has dtype float", "integers 0 to 1"]),
    "y out of range": (with_batch(LABELLED, y=np.full(9, 2)), ["2 in row 0", "expected 0 to 1 for 2 classes"]),
    "weight too short": (with_batch(ONE, weight=np.ones(8)), ["weight has shape (8,)", "expected (9,)"]),
    "weight as a column": (with_batch(ONE, weight=np.ones((9, 1))), ["weight has shape (9, 1)", "expected (9,)"]),
    "weight a scalar": (with_batch(ONE, weight=2.0), ["weight has shape ()", "expected (9,)"]),
    "weight negative": (with_batch(ONE, weight=-np.ones(9)), ["weight is -1.0 in row 0", "finite numbers ≥ 0"]),
    "weight NaN": (with_batch(ONE, weight=np.full(9, np.nan)), ["weight is nan in row 0", "finite numbers ≥ 0"]),
    "a layer missing": (ONE._replace(params=ONE.params[:1]), ["((3, 6),)", "expect ((3, 6), (6, 2))"]),
    "W transposed": (
        ONE._replace(params=(ONE.params[0]._replace(W=W_1.T), ONE.params[1])),
        ["((6, 3), (6, 2))", "expect ((3, 6), (6, 2))"],
    ),
    "b too short": (
        ONE._replace(params=(ONE.params[0]._replace(b=jnp.ones(5)), ONE.params[1])),
        ["(5,)", "(6,)"],
    ),
    "b of length 1": (
        ONE._replace(params=(ONE.params[0]._replace(b=jnp.ones(1)), ONE.params[1])),
        ["(1,)", "(6,)"],
    ),
    "gamma missing": (
        NORM._replace(params=(NORM.params[0]._replace(gamma=None), NORM.params[1])),
        ["gamma", "(6,)"],
    ),
    "gamma of length 1": (
        NORM._replace(params=(NORM.params[0]._replace(gamma=jnp.ones(1)), NORM.params[1])),
        ["gamma", "(1,)", "(6,)"],
    ),
    "state missing": (NORM._replace(state=()), ["state has 0 records", "expects 1", "mlpjax.init"]),
    "state too long": (ONE._replace(state=NORM.state), ["state has 1 records", "expects 0"]),
    "state of another width": (
        NORM._replace(state=(BatchNormState(jnp.ones(5), jnp.ones(5), jnp.array(0)),)),
        ["(5,)", "(6,)"],
    ),
    "state of length 1": (
        NORM._replace(state=(BatchNormState(jnp.ones(1), jnp.ones(1), jnp.array(0)),)),
        ["(1,)", "(6,)"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("train", [True, False])
def test_wrong_shapes_are_named(name, train):
    case, words = WRONG[name]
    for call in (mlpjax.loss, mlpjax.backward, mlpjax.input_gradient):
        with pytest.raises(InputError) as error:
            case.call(call, train=train)
        missing = [word for word in words if word not in str(error.value)]
        assert not missing, str(error.value)
        assert isinstance(error.value, ValueError)


def test_wrong_input_to_predict():
    with pytest.raises(DataError, match=re.escape("x has shape (4, 2): expected (m, 3)")):
        mlpjax.predict(*ONE[:3], np.ones((4, 2)))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool, np.float16])
def test_any_real_input_is_taken(dtype):
    """Images as bytes, counts as integers: the same as their float values."""
    x = (np.arange(27).reshape(9, 3) % 2).astype(dtype)
    got, expected = (with_batch(ONE, x=data).call(mlpjax.backward) for data in (x, x.astype(np.float32)))
    assert_close(got, expected, 0.0)


def test_a_case_is_what_loss_takes():
    assert Case._fields == ("config", "params", "state", "batch", "key", "train")
