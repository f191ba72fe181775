"""The network at the edge of what it is given: rows of weight 0 that hold anything, dtypes, huge and tiny scales.

`test_every_public_function_has_its_edges` says where each public function is looked at.
"""

import ast
import dataclasses
import functools
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_properties import MORE, STRUCTURES, M, networks, rngs

import mlpjax
from mlpjax import Batch, Config
from mlpjax.per_example import per_example_norms
from mlpjax.r_operator import gnvp, hvp

ELSEWHERE = {
    "check_gradients": "test_audit.py and test_audit_network.py: NaN, kinks, every dtype; it has no formula of its own",
    "examine": "test_doctor.py: it trains by fit, and judges what it measures by limits",
    "find_fault": "test_provenance.py: it repeats the passes that are looked at here, and names what is not finite",
    "first_differing_epoch": "test_certificate.py: it compares digests, and computes nothing",
    "load_dataset": "test_data.py, test_tables.py and test_idx.py: what files hold; numbers pass check_finite",
    "replay": "test_provenance.py: as find_fault",
    "search": "test_sweep.py: it trains by fit_many and evaluates, which are looked at here",
    "write_replay": "test_provenance.py: it writes arrays to a file, bit by bit",
}
"""Public functions that have no test here, with the reason."""
KEY = jax.random.key(0)
ANYTHING = st.floats(width=32) | st.sampled_from((1e30, -1e38, 3.4028234663852886e38, np.inf, -np.inf, np.nan, 1e-45))
DROPPING = Config(sizes=(3, 6, 5, 2), head="multiclass", activation=("gelu_tanh", "relu"), dropout=(0.2, 0.5, None))
NARROW = Config(sizes=(3, 6, 2), head="regression", activation="silu", batch_norm=True, compute_dtype="float16")
ABSENT = (STRUCTURES[3], DROPPING, NARROW)
"""Batch-norm and dropout, activations that do not saturate, and products in float16."""
MORE_ABSENT = tuple(STRUCTURES[i] for i in (0, 7, 9))
"""The other heads."""


def test_every_public_function_has_its_edges():
    """A function of `mlpjax.__all__` is called in one of these files, or is listed with the reason why not."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(__file__).parent.glob("test_edges*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    seen = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "mlpjax"}
    functions = {name for name in mlpjax.__all__ if inspect.isroutine(getattr(mlpjax, name))}
    assert functions - seen == set(ELSEWHERE), "call it in a property here, or list it with the reason"


# --- rows of weight 0 ------------------------------------------------------------------------------------------------


@st.composite
def absent_rows(draw, configs):
    """A case, and two ways to fill the rows of weight 0 that are strewn into it: with zeros, and with anything."""
    case, rng = draw(networks(configs, scales=(1.0,), shapes=("generic",), kinds=("equal", "many sizes"))), draw(rngs)
    at = np.sort(rng.permutation(MORE)[:M])
    config, (x, y, weight) = case.config, case.batch
    filler = np.zeros((MORE, x.shape[1])), draw(arrays(np.float32, (MORE, x.shape[1]), elements=ANYTHING))
    label = 0, draw(ANYTHING) if y.dtype.kind == "f" else draw(st.sampled_from((-1, 99)))
    batches = []
    for x_0, y_0 in zip(filler, label, strict=True):
        full = Batch(np.float32(x_0), np.full((MORE, *y.shape[1:]), y_0, y.dtype), np.zeros(MORE, np.float32))
        for whole, part in zip(full, (x, y, weight), strict=True):
            whole[at] = part
        batches.append(full)
    return Case(config, case.params, case.state, batches[0], KEY), batches[1], at


def without_rows(tree):
    """J, its parts, the new state and the gradients: all but the scores, of which absent rows have their own."""
    (J, aux), grads = tree
    return J, aux._replace(z=None), grads


@jax.jit
def all_answers(config, params, state, batch, key):
    """What the functions of a weighted batch say of it, the rows' own answers apart."""
    z, after = mlpjax.forward(config, params, state, batch.x, train=True, key=key, weight=batch.weight)
    hand = mlpjax.backward(config, params, state, batch, key)
    auto = mlpjax.autodiff(config, params, state, batch, key)
    dx = mlpjax.input_gradient(config, params, state, batch, key, train=True)
    return (*map(without_rows, (hand, auto)), after, mlpjax.loss(config, params, state, batch, key)[0]), (z, dx)


@pytest.mark.parametrize("configs", [ABSENT, pytest.param(MORE_ABSENT, marks=pytest.mark.slow)], ids=["some", "more"])
@settings(max_examples=60)
@given(data=st.data())
def test_a_row_of_weight_0_is_absent_to_the_bit(configs, data):
    """In float32, whatever such a row and its label hold: the same J, gradients and statistics; ∂J/∂x is 0 there."""
    case, odd, at = data.draw(absent_rows(configs))
    expected, (z, dx) = all_answers(*case[:5])
    got, (z_odd, dx_odd) = all_answers(*case._replace(batch=odd)[:5])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))
    assert_close(got, expected, 0.0)
    np.testing.assert_array_equal(z_odd[at], z[at])
    np.testing.assert_array_equal(dx_odd, dx)
    np.testing.assert_array_equal(np.delete(np.asarray(dx_odd), at, axis=0), 0)


@jax.jit
def second_order(config, params, state, batch):
    v = jax.tree.map(jnp.ones_like, params)
    products = [f(config, params, state, batch, v, train=False) for f in (hvp, gnvp)]
    accumulated = mlpjax.accumulate(mlpjax.backward, 5)(config, params, state, batch, train=False)
    return products, without_rows(accumulated), per_example_norms(config, params, state, batch)


@pytest.mark.slow
@given(absent_rows((STRUCTURES[3], STRUCTURES[7])))
def test_products_parts_and_norms_of_absent_rows(drawn):
    """H v and G v, accumulation over chunks of which some are absent, and the norms of the rows' gradients."""
    case, odd, at = drawn
    (*expected, norms), (*got, norms_odd) = (second_order(*case[:3], batch) for batch in (case.batch, odd))
    assert_close(got, expected, 0.0)
    np.testing.assert_array_equal(norms_odd[at], norms[at])
    np.testing.assert_array_equal(np.delete(np.asarray(norms_odd), at), 0)


@settings(max_examples=10)
@given(absent_rows((STRUCTURES[3],)), st.floats(1e-3, 1e3))
def test_with_no_weight_at_all_nothing_is_seen(drawn, l2):
    """J is the penalty, the gradient the penalty's, the state as it was, though every row holds anything."""
    case, odd, _ = drawn
    config = dataclasses.replace(case.config, l1=0.0, l2=l2)
    nothing = odd._replace(x=np.where(np.isnan(odd.x), np.nan, np.float32(3e38)), weight=np.zeros(MORE, np.float32))
    (hand, auto, after, J), _ = all_answers(config, case.params, case.state, nothing, KEY)
    for J_one, aux, grads in (hand, auto):
        assert J_one == J == aux.penalty > 0
        assert aux.data_loss == 0
        assert_close((aux.state, after), (case.state, case.state), 1e-7)
        for layer, grad in zip(case.params, grads, strict=True):
            np.testing.assert_allclose(grad.W, l2 * layer.W, rtol=1e-6)
            assert all(not np.any(leaf) for leaf in grad[1:] if leaf is not None)


def test_without_weights_no_row_is_looked_at():
    """The program of a batch without weights asks of no number whether it is finite."""
    params, state = plain_network()
    batch = Batch(np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32))
    for weight, asked in ((None, False), (np.ones(4, np.float32), True)):
        program = jax.jit(mlpjax.backward).lower(PLAIN, params, state, batch._replace(weight=weight)).as_text()
        assert ("is_finite" in program) == asked


def test_an_absent_row_keeps_its_own_score():
    """A row that counts for nothing is predicted all the same; what would overflow there counts as 0."""
    config = Config(sizes=(2, 1), head="regression")
    params = (mlpjax.Layer(W=jnp.ones((2, 1)), b=jnp.ones(1)),)
    batch = Batch(np.float32([[1, 2], [3e38, 5], [np.nan, 7]]), np.zeros(3), np.zeros(3))
    np.testing.assert_array_equal(mlpjax.loss(config, params, (), batch)[1].z, [[4], [6], [8]])
    seen = mlpjax.trace(config, params, (), batch)
    np.testing.assert_array_equal(seen.input.x.value, [[1, 2], [0, 5], [0, 7]])
    np.testing.assert_array_equal(seen.output.z.value, [[4], [6], [8]])


# --- dtypes and scales of what is given ------------------------------------------------------------------------------

PLAIN = Config(sizes=(3, 5, 2), head="regression", activation="tanh", batch_norm=True, l2=0.1)
WHOLE = np.float32([0, 1, 2, 3, 200])
"""Numbers that every dtype holds."""


@functools.cache
def plain_network():
    return mlpjax.init(PLAIN, KEY)


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("float16", "float64", "uint8", "int64", "bool")),
    ],
)
@settings(max_examples=5)
@given(rng=rngs)
def test_the_same_numbers_in_any_dtype(dtype, rng):
    """x, y and weights of another dtype, and −0.0 for 0.0: the same answers to the bit."""
    few = np.float32([0, 1]) if dtype == "bool" else np.float32([0, 1, 2, 3, 100])
    x, y, weight = (rng.choice(few, shape) for shape in ((7, 3), (7, 2), 7))
    weight[0] = 1
    plain = Batch(x, y, weight)
    narrow = Batch(*(np.asarray(a).astype(jnp.dtype(dtype)) for a in plain))
    signed = plain._replace(x=np.where(x == 0, np.float32(-0.0), x))
    params, state = plain_network()
    expected = all_answers(PLAIN, params, state, plain, KEY)
    assert_close(all_answers(PLAIN, params, state, signed, KEY), expected, 0.0)
    # jit would cut 8 bytes to 4 before mlpjax sees them
    compiled = jax.tree.map(jnp.asarray, narrow)
    assert_close(all_answers(PLAIN, params, state, compiled, KEY), expected, 0.0)
    np.testing.assert_array_equal(*(mlpjax.predict(PLAIN, params, state, batch.x) for batch in (compiled, narrow)))
    assert mlpjax.evaluate(PLAIN, params, state, narrow) == mlpjax.evaluate(PLAIN, params, state, plain)


@jax.jit
def value_and_grads(config, params, state, batch):
    return mlpjax.backward(config, params, state, batch)


@settings(max_examples=30)
@given(networks((STRUCTURES[0], STRUCTURES[4]), scales=(1.0,), shapes=("generic",)), st.integers(-100, 100))
def test_units_of_the_input_do_not_matter(case, exponent):
    """x in units of 2^k with W[1] 2^−k: the same J to the bit, and dW[1] 2^k, also for x near either end of float32."""
    config = dataclasses.replace(case.config, **dict.fromkeys(("l1", "l2")))
    first, *rest = jax.tree.map(np.float32, case.params)
    x, factor = np.float32(case.batch.x), np.float32(2.0**exponent)
    scaled = (first._replace(W=first.W / factor), *rest)
    (J, aux), grads = value_and_grads(config, (first, *rest), case.state, case.batch._replace(x=x))
    (J_k, aux_k), grads_k = value_and_grads(config, scaled, case.state, case.batch._replace(x=x * factor))
    seen = case.batch.weight > 0
    assert_close((J_k, aux_k.z[seen], grads_k[1:]), (J, aux.z[seen], grads[1:]), 0.0)
    np.testing.assert_array_equal(grads_k[0].W, grads[0].W * factor)
    np.testing.assert_array_equal(grads_k[0].b, grads[0].b)


predict = jax.jit(mlpjax.predict)


@given(networks((STRUCTURES[0], STRUCTURES[3]), scales=(1e-30, 1.0, 1e4), shapes=("generic", "constant", "twin")))
def test_a_batch_of_one_is_a_row_of_a_larger_batch(x64, case):
    """Predictions and decisions belong to rows: those of each row alone, of twins equal, with constant features too."""
    config, params, state, (x, _, _), *_ = case
    yhat = predict(config, params, state, x)
    for i in range(0, M, 3):
        np.testing.assert_allclose(predict(config, params, state, x[i : i + 1])[0], yhat[i], rtol=1e-10, atol=0)
    decided = mlpjax.decide(config, yhat)
    np.testing.assert_array_equal(decided, np.asarray(yhat >= 0.5, np.int32).reshape(np.shape(decided)))
    for i, j in zip(*np.nonzero((x[:, None] == x[None]).all(axis=2)), strict=True):
        np.testing.assert_array_equal(yhat[i], yhat[j])


@pytest.mark.parametrize("head", ["binary", "multiclass", "regression"])
def test_scores_of_1e4(head):
    """|z| = 1e4 in float32, on the right and on the wrong side: J, gradients and evaluation are finite and right."""
    n = {"binary": 1, "multiclass": 3, "regression": 2}[head]
    config = Config(sizes=(1, n), head=head, bias=False)
    params = (mlpjax.Layer(W=jnp.asarray(np.resize(np.float32([1e4, -1e4]), (1, n)))),)
    x = np.float32([[1], [-1], [1]])
    y = np.zeros((3, n), np.float32) if head == "regression" else np.array([1, 1, 0])
    (J, _), (grads,) = value_and_grads(config, params, (), Batch(x, y))
    # of the scores (1e4, −1e4, 1e4): the rows lose 0, 1e4, 1e4 and 2e4 + log 2, 0, log 2
    losses = {"binary": [0, 1e4, 1e4], "multiclass": [2e4 + np.log(2), 0, np.log(2)], "regression": [1e8] * 3}[head]
    np.testing.assert_allclose(J, np.mean(losses), rtol=1e-6)
    assert np.isfinite(grads.W).all()
    assert mlpjax.evaluate(config, params, (), Batch(x, y))["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_no_rows_are_nothing():
    """A batch of 0 rows: J is the penalty, the state stays; there is nothing to predict or decide."""
    params, state = plain_network()
    empty = Batch(np.zeros((0, 3)), np.zeros((0, 2)))
    for provider in (mlpjax.backward, mlpjax.autodiff):
        (J, aux), grads = jax.jit(provider)(PLAIN, params, state, empty)
        assert J == aux.penalty > 0
        assert_close(aux.state, state, 0.0)
        np.testing.assert_allclose(grads[0].W, 0.1 * params[0].W, rtol=1e-6)
    assert mlpjax.predict(PLAIN, params, state, empty.x).shape == (0, 2)
    with pytest.raises(mlpjax.DataError, match="x has no rows"):
        mlpjax.evaluate(PLAIN, params, state, empty)


@settings(max_examples=20)
@given(rng=rngs, power=st.integers(-30, 30))
def test_folding_at_the_edge(x64, rng, power):
    """A statistic of variance 0, γ = 0, a mean far from 0, and any scale: the folded network predicts the same."""
    # the network may have been drawn in float32
    params, state = (jax.tree.map(lambda leaf: np.array(leaf, np.float64), part) for part in plain_network())
    record = state[0]
    record.mean[:], record.var[:] = rng.normal(size=5) * 1e3, 10.0**power * rng.uniform(0.5, 2, 5)
    record.var[0], params[0].gamma[1] = 0.0, 0.0
    x = rng.normal(size=(4, 3)) * 10.0 ** (power / 2)
    folded, layers = mlpjax.fold(PLAIN, params, state)
    expected = mlpjax.predict(PLAIN, params, state, x)
    np.testing.assert_allclose(mlpjax.predict(folded, layers, (), x), expected, rtol=1e-6, atol=1e-9)


@settings(max_examples=20)
@given(arrays(np.float32, (3, 5), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_a_model_file_keeps_every_bit(tmp_path_factory, W):
    """−0.0, subnormals and the largest numbers come back as they were."""
    params, state = plain_network()
    params = (params[0]._replace(W=jnp.asarray(W)), *params[1:])
    path = tmp_path_factory.mktemp("edges") / "model.npz"
    mlpjax.save(path, PLAIN, params, state)
    loaded = mlpjax.load(path)
    assert np.asarray(loaded.params[0].W).tobytes() == W.tobytes()
