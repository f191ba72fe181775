"""Gradient files: what plain NumPy wrote is what is examined, and every mistake in such a file is named."""

from __future__ import annotations

import json
import re
import zipfile

import jax
import numpy as np
import pytest

import mlpjax
from mlpjax import Batch, Config
from mlpjax.cases import make_case
from mlpjax.errors import DataError
from mlpjax.gradient_files import read_gradient, write_gradient

RNG = np.random.default_rng(0)
CONFIGS = {
    "plain": (Config(sizes=(3, 4, 2)), {}),
    "no hidden layer": (Config(sizes=(3, 1), head="binary", bias=False, l1=0.1), {}),
    "prelu": (Config(sizes=(3, 4, 5, 2), activation=("prelu", "tanh"), head="regression"), {}),
    "batch-norm": (Config(sizes=(3, 4, 2), batch_norm=True, activation="prelu"), {}),
    "batch-norm, evaluation": (Config(sizes=(3, 4, 5, 2), batch_norm=True, head="multilabel"), {"train": False}),
    "dropout": (Config(sizes=(3, 4, 2), dropout=(0.2, None), l2=0.1), {"weight": "zeros"}),
    "weights": (Config(sizes=(3, 4, 2), head="regression_relu", param_dtype="float32"), {"weight": "given"}),
}


def numpy_network():
    """A person's own network of tanh and softmax in NumPy, its backward pass and the file's arrays."""
    x, y = RNG.normal(size=(6, 3)), np.array([0, 1, 1, 0, 1, 0])
    W1, b1, W2, b2 = (RNG.normal(size=shape) for shape in ((3, 4), (4,), (4, 2), (2,)))
    a = np.tanh(x @ W1 + b1)
    e = np.exp(a @ W2 + b2)
    dz2 = (e / e.sum(axis=1, keepdims=True) - np.eye(2)[y]) / len(x)
    dz1 = dz2 @ W2.T * (1 - a**2)
    grads = {"dW1": x.T @ dz1 + 0.1 * W1, "db1": dz1.sum(0), "dW2": a.T @ dz2 + 0.1 * W2, "db2": dz2.sum(0)}
    return {"x": x, "y": y, "W1": W1, "b1": b1, "W2": W2, "b2": b2, **grads}


ARRAYS = numpy_network()
CONFIG = '{"activation": "tanh", "head": "multiclass", "l2": 0.1}'
NORM = {"gamma1": np.ones(4), "beta1": np.zeros(4), "dgamma1": np.ones(4), "dbeta1": np.ones(4)}
STATISTICS = {"mean1": np.zeros(4), "var1": np.ones(4)}
SLOPE = {"slope1": np.full(4, 0.25), "dslope1": np.zeros(4)}


@pytest.fixture
def save(tmp_path):
    """Write the network of `ARRAYS` with some arrays changed, added, or (``None``) left out."""

    def write(**changes):
        path = tmp_path / "mine.npz"
        arrays = {**ARRAYS, "config": CONFIG, **changes}
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
        return path

    return write


def same(got, expected):
    """Same structure, and every leaf the same numbers of the same dtype; keys by their data."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if isinstance(b, jax.Array) and jax.numpy.issubdtype(b.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        else:
            assert isinstance(a, np.ndarray | float | bool)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def round_trip(tmp_path, name):
    config, options = CONFIGS[name]
    case = make_case(config, **options)
    grads = jax.tree.map(lambda leaf: leaf + 1, case.params)
    path = tmp_path / "g.npz"
    write_gradient(path, case, grads)
    got = read_gradient(path)
    assert got.case.config.to_dict() == config.to_dict()
    same(tuple(got), (case, grads))
    return case, got


@pytest.mark.parametrize("name", CONFIGS)
def test_what_was_written_comes_back(tmp_path, name):
    _, got = round_trip(tmp_path, name)
    assert got.grads[0].W.dtype == np.float32


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "weights"])
def test_float64_comes_back_whole_also_where_jax_has_it_off(tmp_path, name):
    with jax.enable_x64(True):
        case, got = round_trip(tmp_path, name)
    again = read_gradient(tmp_path / "g.npz")
    same(again.case._replace(key=None), got.case._replace(key=None))
    same(again.grads, got.grads)
    assert again.case.params[0].W.dtype == np.float64
    with jax.enable_x64(True):
        same(again.case.key, case.key)


def test_a_file_of_plain_numpy_holds_the_gradient_that_it_says(save, x64):
    case, grads = read_gradient(str(save()))
    assert case.config == Config(sizes=(3, 4, 2), activation="tanh", l2=0.1)
    assert case.train is True
    assert case.key is None
    assert case.state == ()
    expected = case.call(mlpjax.autodiff)[1]
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def test_bias_and_batch_norm_follow_from_the_arrays(save):
    case, _ = read_gradient(save(b1=None, db1=None, **NORM))
    assert (case.config.bias, case.config.batch_norm) == (True, True)
    assert [s.tolist() for s in case.state[0]] == [[0.0] * 4, [1.0] * 4, 0]
    case, _ = read_gradient(save(b1=None, db1=None, b2=None, db2=None, config=None))
    assert case.config == Config(sizes=(3, 4, 2), bias=False)


@pytest.mark.parametrize("config", [CONFIG.encode(), np.array([CONFIG]), json.dumps({"sizes": [3, 4, 2]})])
def test_the_forms_of_config(save, config):
    assert read_gradient(save(config=config)).case.config.sizes == (3, 4, 2)


def test_seed_key_and_train(save):
    dropout = '{"dropout": 0.5}'
    data = jax.random.key_data(jax.random.key(7))
    for given in ({"seed": 7}, {"key": np.asarray(data)}, {"seed": np.array([7], np.uint8)}):
        np.testing.assert_array_equal(jax.random.key_data(read_gradient(save(config=dropout, **given)).case.key), data)
    case, _ = read_gradient(save(config=dropout, train=False))
    assert case.key is None
    assert case.train is False


def test_the_gradient_may_be_anything_but_the_network_must_be_finite(save):
    dW1 = np.where(ARRAYS["W1"] > 0, np.nan, np.inf)
    np.testing.assert_array_equal(read_gradient(save(dW1=dW1)).grads[0].W, dW1)


def test_big_endian_and_mixed_dtypes(save):
    case, grads = read_gradient(save(W1=ARRAYS["W1"].astype(">f8"), dW1=ARRAYS["dW1"].astype(">f4")))
    assert case.params[0].W.dtype.isnative
    np.testing.assert_array_equal(case.params[0].W, ARRAYS["W1"])
    assert grads[0].W.dtype == np.float32
    assert grads[1].W.dtype == np.float64


def bad(name, index=(0,)):
    array = ARRAYS[name].copy()
    array[index] = np.nan
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # names
        ({"x": None}, "has no array 'x'; it holds: y, W1,"),
        ({"y": None}, "has no array 'y'"),
        ({"X": ARRAYS["x"]}, "unknown array 'X': did you mean 'x'? Capitals count"),
        ({"dw2": ARRAYS["dW2"]}, "unknown array 'dw2': did you mean 'dW2'?"),
        ({"gama1": np.ones(4)}, "unknown array 'gama1': did you mean 'gamma1'? known: x, y, weight, config"),
        ({"W0": np.ones((3, 3))}, "unknown array 'W0': layers count from 1"),
        ({"dx": ARRAYS["x"]}, "unknown array 'dx'"),
        # who belongs to whom
        ({"dW2": None}, "has W2 but no dW2: give the gradient of every parameter"),
        ({"W2": None}, "has b2 but no W2: layers count from 1 to L, each with its W"),
        ({"b1": None}, "has db1 but no b1: give the parameters that the gradient is of"),
        ({"W1": None}, "has no array 'W1'"),
        ({"W4": np.ones((2, 2)), "dW4": np.ones((2, 2))}, "has no W3: layers count from 1"),
        # dtypes
        ({"W1": np.ones((3, 4), int)}, "W1 has dtype int64: expected float32 or float64; write W1.astype(float)"),
        ({"dW1": ARRAYS["dW1"] * 1j}, "dW1 has dtype complex128: expected float32"),
        ({"x": ARRAYS["x"].astype(str)}, "x has dtype <U32: expected real numbers"),
        ({"y": np.array(["cat"] * 6)}, "y has dtype <U3: expected real numbers; encode labels as 0, 1, …"),
        # shapes
        ({"x": ARRAYS["x"][0]}, "x has shape (3,): expected (m, n_0)"),
        ({"x": ARRAYS["x"][:0]}, "x has shape (0, 3): expected (m, n_0), one row per example, at least one"),
        ({"x": ARRAYS["x"].T}, "W1 has shape (3, 4), x (3, 6): expected (6, n_1), .* not examples: write x.T"),
        ({"W1": ARRAYS["W1"].T}, "W1 has shape (4, 3), x (6, 3): .*; transposed it fits: write W1.T and dW1.T"),
        ({"W2": ARRAYS["W2"][:3]}, "W2 has shape (3, 2), W1 (3, 4): expected (4, n_2), as z = a W + b with a row per"),
        ({"W2": ARRAYS["b2"]}, "W2 has shape (2,), W1 (3, 4): expected (4, n_2)"),
        ({"dW1": ARRAYS["dW1"].T}, "dW1 has shape (4, 3), W1 (3, 4): .*; it is exactly transposed: write dW1.T"),
        ({"dW1": ARRAYS["dW1"][:2]}, "dW1 has shape (2, 4), W1 (3, 4): expected the same shape$"),
        ({"db1": ARRAYS["db1"][None]}, "db1 has shape (1, 4), b1 (4,): expected the same shape; write db1.ravel()"),
        ({"b1": ARRAYS["b1"][None]}, "b1 has shape (1, 4): expected (4,), .* 4 columns; write b1.ravel()"),
        ({"b1": ARRAYS["b1"][:2]}, "b1 has shape (2,): expected (4,), as the W of its layer has 4 columns$"),
        # which parameters
        ({"b1": None, "db1": None}, "has no b1: the other layers, or config, have a bias: make them agree"),
        ({"config": '{"bias": false}'}, "has b1: the other layers, or config, exclude a bias"),
        (NORM, "has b1: under batch-norm β takes its place: leave b1 and db1 out, and take b1 off a mean1"),
        ({"config": '{"batch_norm": false}', **NORM}, "has gamma1: batch-norm has gamma and beta in every hidden"),
        ({"config": '{"batch_norm": true}', "b1": None, "db1": None}, "has no gamma1: batch-norm has gamma and"),
        ({"gamma2": np.ones(2), "dgamma2": np.ones(2), "b1": None, "db1": None}, "has no gamma1: batch-norm"),
        (
            {"b1": None, "db1": None, **NORM, "gamma2": np.ones(2), "dgamma2": np.ones(2)},
            "has gamma2: layer 2 is the output layer, which has W and b only",
        ),
        (SLOPE, "has slope1: the activation of layer 1 is 'tanh', and slope belongs to 'prelu': correct config"),
        ({"config": '{"activation": "prelu"}'}, "has no slope1: the activation of layer 1 is 'prelu'"),
        # values
        ({"x": bad("x", (1, 2))}, "x: row 1, column 2 (from 0) is nan: expected a finite number"),
        ({"W2": bad("W2", (3, 1))}, "W2[3, 1] is nan: expected finite numbers"),
        ({"b2": bad("b2")}, "b2[0] is nan"),
        ({"y": np.arange(6)}, "y has a label outside the classes: 2 in row 2, expected 0 to 1 for 2 classes"),
        ({"y": ARRAYS["x"]}, "y has shape (6, 3): head 'multiclass' with 2 outputs expects"),
        ({"y": ARRAYS["y"][:4]}, "x has 6 rows and y has 4"),
        ({"y": np.full((6, 2), np.nan), "config": '{"head": "regression"}'}, "y: row 0, column 0 (from 0) is nan"),
        ({"weight": np.ones(3)}, "weight has shape (3,): expected (6,)"),
        ({"weight": -np.ones(6)}, "weight is -1.0 in row 0: expected finite numbers ≥ 0"),
        # config
        ({"config": "tanh"}, "config is no JSON (Expecting value: line 1 column 1 (char 0)): expected JSON text"),
        ({"config": b"\xff\xff"}, "config is no JSON ("),
        ({"config": "[" * 100_000}, "config is no JSON ("),
        ({"config": "[1]"}, "config is the JSON of a list: expected JSON text"),
        ({"config": np.arange(3)}, "config has shape (3,) of int64: expected JSON text"),
        ({"config": '{"activaton": "tanh"}'}, "config: unknown config field 'activaton': did you mean 'activation'?"),
        ({"config": '{"activation": "tanhh"}'}, "config: unknown activation 'tanhh': did you mean 'tanh'?"),
        ({"config": '{"head": "binary"}'}, "config: head 'binary' has one output unit, got sizes[-1] = 2"),
        ({"config": '{"l2": NaN}'}, "config: l2 is nan: expected a finite number ≥ 0"),
        ({"config": '{"sizes": [3, 5, 2]}'}, "config has sizes [3, 5, 2], x and the W's [3, 4, 2]: leave sizes out"),
        ({"config": {"activation": "tanh"}}, "the array 'config' cannot be read .*, and config as text: json.dumps"),
        (
            {"config": None, "W2": np.ones((4, 1)), "dW2": np.ones((4, 1))},
            "no config, so that of mlpjax.Config(): head 'multiclass' needs at least 2 output units",
        ),
        # seed, key, train
        ({"config": '{"dropout": 0.5}'}, "has neither seed nor key: dropout draws its masks from jax.random.key(seed)"),
        ({"seed": 1, "key": np.zeros(2, np.uint32)}, "has seed and key: give one of them"),
        ({"seed": -1}, "seed is -1: expected one integer, 0 ≤ seed < 4294967296"),
        ({"seed": 0.5}, "seed is 0.5: expected one integer"),
        ({"seed": np.arange(2)}, "seed is an array of shape (2,): expected one integer"),
        ({"key": np.zeros(3, np.uint32)}, "key has shape (3,) of uint32: expected (2,) of uint32, as jax.random.key"),
        ({"key": np.zeros(2)}, "key has shape (2,) of float64"),
        ({"train": 1}, "train is 1: expected True or False"),
        # objects
        ({"b1": np.array([None] * 4)}, "the array 'b1' cannot be read (Object arrays .*; write plain arrays with"),
    ],
)
def test_every_mistake_in_a_file_is_named(save, changes, message):
    path = save(**changes)
    with pytest.raises(DataError) as caught:
        read_gradient(path)
    said = str(caught.value)
    assert "\n" not in said
    pattern = ".*".join(re.escape(part) for part in message.removesuffix("$").split(".*"))
    assert re.match(f"{re.escape(str(path))}: {pattern}{'$' if message.endswith('$') else ''}", said), said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": False}, "has no mean1: with train False batch-norm uses the running mean and var"),
        ({"train": False, "mean1": np.zeros(4)}, "has no var1: with train False"),
        ({"mean1": np.zeros(4)}, "has no var1: give both mean1 and var1, or none of them when training"),
        ({**STATISTICS, "var1": -np.ones(4)}, r"var1\[0\] is -1.0: expected finite numbers ≥ 0"),
        ({**STATISTICS, "mean1": np.full(4, np.inf)}, r"mean1\[0\] is inf: expected finite numbers"),
        ({**STATISTICS, "mean1": np.zeros(5)}, r"mean1 has shape \(5,\): expected \(4,\)"),
        ({**STATISTICS, "count1": -1}, "count1 is -1: expected one integer, 0 ≤ count1"),
        ({"mean2": np.zeros(2), "var2": np.ones(2)}, "has mean2 but no gamma2: running statistics belong to batch-no"),
        ({"dgamma1": np.ones(3)}, r"dgamma1 has shape \(3,\), gamma1 \(4,\)"),
    ],
)
def test_every_mistake_under_batch_norm_is_named(save, changes, message):
    path = save(**{"b1": None, "db1": None, **NORM, **changes})
    with pytest.raises(DataError, match=rf"mine\.npz: {message}"):
        read_gradient(path)


def test_evaluation_uses_the_running_statistics_of_the_file(save):
    case, _ = read_gradient(save(b1=None, db1=None, train=False, count1=3, **NORM, **STATISTICS))
    assert case.state[0].count == 3
    assert case.state[0].count.dtype == np.int32
    np.testing.assert_array_equal(case.state[0].var, np.ones(4))


def test_files_that_are_none(tmp_path):
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match=r"mine\.npz: cannot be read \(No such file or directory\): check the path"):
        read_gradient(path)
    path.write_text("W1 = 3")
    with pytest.raises(DataError, match=r"mine\.npz: is no \.npz file, or a damaged one: write it with numpy\.savez"):
        read_gradient(path)
    np.savez(path, **ARRAYS)
    whole = path.read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for place in (0, entry, entry + 6):  # the magic of the file, that of its directory, the version of zip
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        with pytest.raises(DataError, match=r"mine\.npz: is no \.npz file, or a damaged one"):
            read_gradient(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x", "y", "W1", "dW1"):
            archive.writestr(name, "text")
    with pytest.raises(DataError, match=r"x has dtype \|S4: expected real numbers"):
        read_gradient(path)


def test_objects_are_never_unpickled(save, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    with pytest.raises(DataError, match="the array 'weight' cannot be read"):
        read_gradient(save(weight=np.array([Trap()], dtype=object)))
    assert not (tmp_path / "sprung").exists()


def test_what_would_not_be_read_is_not_written(tmp_path):
    case = make_case(Config(sizes=(3, 4, 2), dropout=0.5))
    path = tmp_path / "g.npz"
    changes = (
        ({"grads": case.params[:1]}, "has W2 but no dW2"),
        ({"grads": (case.params[0]._replace(b=None), case.params[1])}, "has b1 but no db1"),
        ({"case": case._replace(key=None)}, "has neither seed nor key"),
        ({"case": case._replace(batch=Batch(case.batch.x, np.array([None] * 9)))}, "y has dtype object"),
        ({"case": case._replace(config=Config(sizes=(3, 5, 2)))}, r"config has sizes \[3, 5, 2\]"),
        ({"grads": jax.tree.map(lambda leaf: leaf.astype("bfloat16"), case.params)}, "dW1 has dtype bfloat16"),
    )
    for change, message in changes:
        with pytest.raises(DataError, match=rf"g\.npz: {message}"):
            write_gradient(path, **{"case": case, "grads": case.params, **change})
        assert list(tmp_path.iterdir()) == []
