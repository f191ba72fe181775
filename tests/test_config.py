"""`Config`: every bad value is named, the good ones survive JSON and jax transformations; and the calls' signatures."""

import dataclasses
import inspect
import json
import pathlib
import subprocess
import sys
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax import ACTIVATIONS, HEADS, INITIALIZERS, Config, ConfigError
from mlpjax.config import NUMERIC_FIELDS, STATIC_FIELDS, ActivationName, HeadName, InitName

FULL = Config(
    sizes=(3, 5, 4, 2), activation=("tanh", "prelu"), head="regression", init="he_uniform", bias=False,
    batch_norm=True, batch_norm_convention="torch", dropout=(0.1, None, 0.5), l1=0.01, l2=0.1, param_dtype="float32",
    compute_dtype="bfloat16",
)  # fmt: skip

# what is given, and words of the message: got, expected, choices or what to do
BAD = [
    ({"sizes": (3,)}, [r"(3,)", "at least two integers"]),
    ({"sizes": ()}, ["()", "at least two integers"]),
    ({"sizes": 5}, ["sizes is 5", "(784, 256, 10)"]),
    ({"sizes": None}, ["sizes is None"]),
    ({"sizes": "34"}, ["width '3'", "integers ≥ 1"]),
    ({"sizes": (3, 0, 2)}, ["width 0", "integers ≥ 1"]),
    ({"sizes": (3, -1, 2)}, ["width -1"]),
    ({"sizes": (3, 2.5, 2)}, ["width 2.5"]),
    ({"sizes": (3, True, 2)}, ["width True"]),
    ({"activation": "rleu"}, ["'rleu'", "did you mean 'relu'?", *ACTIVATIONS]),
    ({"activation": ("relu", "tnah")}, ["'tnah'", "did you mean 'tanh'?"]),
    ({"activation": ("relu",)}, ["1 names for 2 hidden layers", "one per hidden layer"]),
    ({"activation": ("relu", "relu", "relu")}, ["3 names for 2 hidden layers"]),
    ({"activation": None}, ["None", *ACTIVATIONS]),
    ({"activation": 5}, ["5", *ACTIVATIONS]),
    ({"activation": (1, 2)}, ["unknown activation 1"]),
    ({"head": "multclass"}, ["'multclass'", "did you mean 'multiclass'?", *HEADS]),
    ({"head": None}, ["unknown head None"]),
    ({"head": ["binary"]}, ["unknown head ['binary']"]),
    ({"head": "binary"}, ["got sizes[-1] = 2", "one output unit", "head='multiclass'"]),
    ({"head": "multiclass", "sizes": (3, 5, 4, 1)}, ["at least 2 output units", "sizes[-1] = 1", "head='binary'"]),
    ({"init": "he"}, ["unknown init 'he'", "auto", *INITIALIZERS]),
    ({"bias": 1}, ["bias is 1", "True or False"]),
    ({"batch_norm": None}, ["batch_norm is None", "True or False"]),
    ({"batch_norm": True, "batch_norm_convention": "kears"}, ["'kears'", "did you mean 'keras'?", "torch"]),
    ({"batch_norm": True, "batch_norm_convention": "optax"}, ["optax has no batch-norm", "'torch', 'keras' or None"]),
    ({"batch_norm": True, "batch_norm_convention": "sklearn"}, ["sklearn has no batch-norm", "'torch', 'keras'"]),
    ({"batch_norm": True, "batch_norm_convention": True}, ["True", "torch, keras"]),
    ({"batch_norm_convention": "torch"}, ["'torch' without batch_norm=True", "give both, or neither"]),
    ({"dropout": 1.0}, ["dropout rate is 1.0", "[0, 1)"]),
    ({"dropout": -0.1}, ["dropout rate is -0.1", "[0, 1)"]),
    ({"dropout": 1.5}, ["dropout rate is 1.5"]),
    ({"dropout": float("nan")}, ["dropout rate is nan"]),
    ({"dropout": True}, ["dropout rate is True"]),
    ({"dropout": "0.5"}, ["dropout rate is '0.5'"]),
    ({"dropout": (0.1, 0.2)}, ["2 rates, expected 3", "(input, hidden 1, …, last hidden)"]),
    ({"dropout": ()}, ["0 rates, expected 3"]),
    ({"dropout": (0.1, 0.2, 1.0)}, ["dropout rate is 1.0"]),
    ({"dropout": np.float32(1.0)}, ["dropout rate is", "[0, 1)"]),
    ({"dropout": {"a": 1}}, ["dropout rate is {'a': 1}"]),
    ({"l1": -1e-9}, ["l1 is -1e-09", "finite number ≥ 0"]),
    ({"l1": float("inf")}, ["l1 is inf", "finite number ≥ 0"]),
    ({"l1": True}, ["l1 is True"]),
    ({"l2": -1}, ["l2 is -1"]),
    ({"l2": float("nan")}, ["l2 is nan"]),
    ({"l1": 1e39}, ["l1 is 1e+39", "below 3.4e38"]),
    ({"l2": np.array([0.1, -0.1])}, ["l2 is array"]),
    ({"l2": [0.1]}, ["l2 is [0.1]"]),
    ({"param_dtype": "bfloat16"}, ["unknown param_dtype 'bfloat16'", "float32, float64"]),
    ({"compute_dtype": "int8"}, ["unknown compute_dtype 'int8'", "bfloat16, float16, float32"]),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_bad_values_are_named(change, words):
    with pytest.raises(ConfigError) as error:
        Config(**{"sizes": (3, 5, 4, 2), **change})
    assert isinstance(error.value, ValueError)
    missing = [word for word in words if word not in str(error.value)]
    assert not missing, str(error.value)


def test_every_field_has_a_bad_value():
    assert {name for change, _ in BAD for name in change} == {field.name for field in dataclasses.fields(Config)}


def test_good_values():
    assert Config().sizes == (784, 256, 10)
    assert Config(sizes=(3, 2)).activations == ()
    assert Config(sizes=(3, 2), activation=()).activations == ()
    assert Config(sizes=(3, 4, 5, 2)).activations == ("relu", "relu")
    assert Config(sizes=np.array([3, 4, 2])).sizes == (3, 4, 2)
    assert all(type(n) is int for n in Config(sizes=np.array([3, 4, 2])).sizes)
    Config(sizes=(3, 4, 2), dropout=0, l1=0, l2=0.0)
    Config(sizes=(3, 4, 2), dropout=np.float32(0.5), l1=jnp.array([0.1, 0.2]), l2=np.int32(2))


def test_lists_become_tuples():
    config = Config(sizes=[3, 5, 4, 2], activation=["tanh", "relu"], dropout=[0.1, None, 0.2])
    assert (config.sizes, config.activation, config.dropout) == ((3, 5, 4, 2), ("tanh", "relu"), (0.1, None, 0.2))
    assert config == Config(sizes=(3, 5, 4, 2), activation=("tanh", "relu"), dropout=(0.1, None, 0.2))
    assert hash(config) == hash(Config(sizes=(3, 5, 4, 2), activation=("tanh", "relu"), dropout=(0.1, None, 0.2)))


def test_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.l2 = 0.5
    with pytest.raises(TypeError):
        Config((3, 2))


def test_names_are_those_of_the_tables():
    assert set(get_args(ActivationName)) == set(ACTIVATIONS)
    assert set(get_args(HeadName)) == set(HEADS)
    assert set(get_args(InitName)) == {"auto", *INITIALIZERS}


def test_dropout_rates_of_layers():
    config = Config(sizes=(3, 5, 4, 2), dropout=0.3)
    assert [config.dropout_rate(l) for l in range(3)] == [None, 0.3, 0.3]
    assert [FULL.dropout_rate(l) for l in range(3)] == [0.1, None, 0.5]
    assert (config.has_dropout, Config(sizes=(3, 5, 2)).has_dropout) == (True, False)
    assert not Config(sizes=(3, 5, 2), dropout=(None, None)).has_dropout
    # there is no hidden layer to drop from
    assert not Config(sizes=(3, 2), dropout=0.3).has_dropout


@pytest.mark.parametrize("config", [Config(), FULL, Config(sizes=(3, 5, 2), dropout=0.2, l1=jnp.float32(0.5))])
def test_round_trip_through_json(config):
    values = json.loads(json.dumps(config.to_dict()))
    assert Config.from_dict(values) == config
    assert list(values) == [field.name for field in dataclasses.fields(Config)]


def test_from_dict_refuses_unknown_keys():
    with pytest.raises(ConfigError, match=r"unknown config field 'dropuot': did you mean 'dropout'\? known: sizes"):
        Config.from_dict({"sizes": [3, 2], "dropuot": 0.5})
    with pytest.raises(ConfigError, match=r"dropout rate is 7"):
        Config.from_dict({"sizes": [3, 2], "dropout": 7})


def test_pytree_of_the_numbers():
    """The leaves are the numbers; the rest is structure."""
    assert {*STATIC_FIELDS, *NUMERIC_FIELDS} == {field.name for field in dataclasses.fields(Config)}
    assert jax.tree.leaves(FULL) == [0.1, 0.5, 0.01, 0.1]
    assert jax.tree.leaves(Config()) == []
    doubled = jax.tree.map(lambda number: number * 1.5, FULL)
    assert isinstance(doubled, Config)
    assert doubled == dataclasses.replace(FULL, dropout=(0.1 * 1.5, None, 0.75), l1=0.01 * 1.5, l2=0.1 * 1.5)
    other_numbers = dataclasses.replace(FULL, l1=0.5)
    assert jax.tree.structure(other_numbers) == jax.tree.structure(FULL)
    assert jax.tree.structure(dataclasses.replace(FULL, bias=True)) != jax.tree.structure(FULL)
    assert jax.tree.structure(dataclasses.replace(FULL, l1=None)) != jax.tree.structure(FULL)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(FULL)]
    assert paths == [".dropout[0]", ".dropout[2]", ".l1", ".l2"]


def test_traced_numbers_pass():
    """A config can be built, or rebuilt, from traced numbers."""

    @jax.jit
    def strength(rate):
        config = Config(sizes=(3, 5, 2), dropout=rate, l1=rate, l2=(rate))
        return config.l2 + jax.tree.map(lambda number: number, config).dropout

    assert float(strength(0.5)) == 1.0


def test_config_imports_no_jax():
    """So that the command line explains itself at once."""
    code = "import sys, mlpjax.config; mlpjax.config.Config(); sys.exit('jax' in sys.modules)"
    root = pathlib.Path(mlpjax.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_config_is_a_pytree_before_anything_else_is_used():
    code = "import jax, mlpjax; assert jax.tree.leaves(mlpjax.Config(sizes=(2, 3), l2=0.5)) == [0.5]"
    root = pathlib.Path(mlpjax.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# the calls of the contract: (name, kind, default) of each parameter; / | * kind: p positional, k keyword-only
COMMON = ["config", "params", "state"]
CONTRACT = {
    "init": ["config", "key"],
    "forward": [*COMMON, "x", "*train=False", "*key=None", "*weight=None"],
    "predict": [*COMMON, "x"],
    "decide": ["config", "yhat"],
    "loss": [*COMMON, "batch", "key=None", "*train=True"],
    "backward": [*COMMON, "batch", "key=None", "*train=True"],
    "autodiff": [*COMMON, "batch", "key=None", "*train=True"],
    "input_gradient": [*COMMON, "batch", "key=None", "*train=False"],
    "apply_update": ["optimizer", "grads", "opt_state", "params", "**extra"],
}


def written(parameter):
    """``*name=default`` for a keyword-only parameter."""
    star = {parameter.KEYWORD_ONLY: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    default = "" if parameter.default is parameter.empty else f"={parameter.default}"
    return f"{star}{parameter.name}{default}"


@pytest.mark.parametrize("name", CONTRACT)
def test_signatures(name):
    parameters = inspect.signature(getattr(mlpjax, name)).parameters.values()
    assert [written(parameter) for parameter in parameters] == CONTRACT[name]


def test_records():
    assert mlpjax.Layer._fields == ("W", "b", "gamma", "beta", "slope")
    assert mlpjax.Batch._fields == ("x", "y", "weight")
    assert mlpjax.Batch(1, 2).weight is None
    assert mlpjax.Aux._fields == ("state", "data_loss", "penalty", "weight_sum", "z")
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    assert all(field.kw_only for field in dataclasses.fields(Config))
    assert defaults == {
        "sizes": (784, 256, 10), "activation": "relu", "head": "multiclass", "init": "auto", "bias": True,
        "batch_norm": False, "batch_norm_convention": None, "dropout": None, "l1": None, "l2": None,
        "param_dtype": None, "compute_dtype": None,
    }  # fmt: skip
