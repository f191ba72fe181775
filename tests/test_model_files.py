"""Model files: what is saved comes back bit by bit, and no damaged or made-up file gives numbers."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlpjax
from mlpjax import Config, InputError, ModelFileError, init, load, predict, save, sealed
from mlpjax.preprocess import SCALERS, Scaler

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)

CONFIGS = {
    "binary": Config(sizes=(3, 4, 1), head="binary"),
    "multilabel": Config(sizes=(3, 4, 2), head="multilabel", activation="tanh"),
    "multiclass": Config(sizes=(3, 4, 3), activation="gelu_tanh", init="orthogonal"),
    "regression": Config(sizes=(3, 4, 2), head="regression", compute_dtype="bfloat16"),
    "regression_relu": Config(sizes=(3, 4, 1), head="regression_relu", param_dtype="float32"),
    "batch-norm": Config(sizes=(3, 4, 5, 3), batch_norm=True),
    "prelu": Config(sizes=(3, 4, 3), activation="prelu"),
    "no bias": Config(sizes=(3, 4, 3), bias=False),
    "mixed": Config(sizes=(3, 4, 5, 3), activation=("selu", "prelu"), batch_norm=True, bias=False),
    "no hidden layer": Config(sizes=(3, 2)),
    "rates": Config(sizes=(3, 4, 5, 3), dropout=(0.1, None, 0.3), l1=1e-3, l2=np.float32(0.1)),
}


def drawn(config, seed=1):
    """Parameters and statistics that are all different numbers."""
    leaves, structure = jax.tree.flatten(init(config, jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    leaves = [
        leaf + (3 if leaf.dtype == jnp.int32 else rng.uniform(0.1, 1, leaf.shape).astype(np.float32)) for leaf in leaves
    ]
    return jax.tree.unflatten(structure, leaves)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_was_saved_comes_back(tmp_path, name):
    config = CONFIGS[name]
    params, state = drawn(config)
    save(tmp_path / "m.npz", config, params, state)
    model = load(tmp_path / "m.npz")
    assert jax.tree.structure(model.config) == jax.tree.structure(config)
    assert model.config.to_dict() == config.to_dict()
    assert jax.tree.structure((model.params, model.state)) == jax.tree.structure((params, state))
    for got, expected in zip(jax.tree.leaves(model[1:3]), jax.tree.leaves((params, state)), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    yhat = predict(config, params, state, X)
    assert np.asarray(predict(model.config, model.params, model.state, X)).tobytes() == np.asarray(yhat).tobytes()
    assert model[3:7] == (None, None, None, None)
    assert model.info == {}


@pytest.mark.parametrize("classes", [["nein", "ja", "日本 \"'\n"], [3, -1, 10**12], [False, True, False], [1.5, 2, 3]])
def test_labels_keep_their_type(tmp_path, classes):
    config = Config(sizes=(3, 3))
    save(tmp_path / "m.npz", config, *drawn(config), classes=classes)
    got = load(tmp_path / "m.npz").classes
    assert got == tuple(classes)
    assert [type(label) for label in got] == [type(label) for label in classes]


@pytest.mark.parametrize("kind", SCALERS)
def test_scalers_and_names(tmp_path, kind):
    config = Config(sizes=(3, 1), head="binary")
    scaler = SCALERS[kind](X)
    names = {"features": ("größe", "b", ""), "targets": ["y"], "classes": (0, 1)}
    info = {"seed": 3, "nested": {"list": [1, None, "ä"]}}
    save(tmp_path / "m.npz", config, *drawn(config), preprocessing=scaler, info=info, **names)
    model = load(tmp_path / "m.npz")
    assert model.preprocessing.kind == kind
    assert model.preprocessing.transform(X).tobytes() == scaler.transform(X).tobytes()
    assert (model.features, model.targets, model.classes) == (("größe", "b", ""), ("y",), (0, 1))
    assert model.info == info
    assert model.versions == mlpjax.versions.versions()


def test_float64(tmp_path, x64):
    config = Config(sizes=(3, 4, 2), batch_norm=True, param_dtype="float64")
    params, state = drawn(config)
    save(tmp_path / "m.npz", config, params, state)
    model = load(tmp_path / "m.npz")
    assert model.params[0].W.dtype == np.float64
    np.testing.assert_array_equal(model.params[0].W, params[0].W)
    with jax.enable_x64(False), pytest.raises(ModelFileError, match=r"float64, which JAX has switched off: set JAX_"):
        load(tmp_path / "m.npz")


def test_the_same_model_gives_the_same_bytes(tmp_path, monkeypatch):
    config = CONFIGS["mixed"]
    for name, now in (("a", 0.0), ("b", 2e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        save(tmp_path / name, config, *drawn(config), info={"seed": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_anybody_can_read_the_file(tmp_path):
    config = CONFIGS["batch-norm"]
    params, state = drawn(config)
    save(tmp_path / "m.npz", config, params, state, classes=["a", "b", "c"])
    with np.load(tmp_path / "m.npz", allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        np.testing.assert_array_equal(archive["params/2/W"], params[1].W)
        np.testing.assert_array_equal(archive["state/1/var"], state[0].var)
        assert set(archive.files) == {"header", *header["arrays"]}
    assert (header["format"], header["format_version"]) == ("mlpjax model", 1)
    assert header["classes"] == ["a", "b", "c"]
    assert Config.from_dict(header["config"]) == config
    assert zipfile.ZipFile(tmp_path / "m.npz").testzip() is None


def bad_save(**changes):
    config = Config(sizes=(3, 2))
    values = {"config": config, "params": drawn(config)[0], "state": ()} | changes
    return [values.pop(name) for name in ("config", "params", "state")], values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": ()}, "parameters of 0 layers: the config expects 1"),
        ({"config": Config(sizes=(3, 3))}, r"params/1/W has shape \(3, 2\): the config expects \(3, 3\)"),
        ({"config": Config(sizes=(3, 2), bias=False)}, r"params/1/b has shape \(2,\): the config expects None"),
        ({"state": drawn(CONFIGS["batch-norm"])[1]}, r"state/1/count has shape \(\): the config expects None"),
        ({"params": (drawn(Config(sizes=(3, 2)))[0][0]._replace(b=np.zeros(2, np.float16)),)}, "params/1/b is float16"),
        ({"classes": ["a"]}, "there are 1 classes: the config expects 2"),
        ({"classes": "ab"}, "classes is 'ab': expected a list of text, numbers or bools"),
        ({"classes": np.arange(2)}, "classes is .*: expected a list of text, numbers or bools of Python"),
        ({"features": ["a"]}, "there are 1 features: the config expects 3"),
        ({"features": [1, 2, 3]}, r"features is \[1, 2, 3\]: expected a list of names"),
        ({"targets": "y"}, "targets is 'y': expected a list of names"),
        ({"preprocessing": SCALERS["none"](X[:, :2])}, "preprocessing is for 2 features: the config expects 3"),
        ({"info": {"a": math.nan}}, "header of a model file is plain JSON"),
        ({"info": {"a": np.ones(2)}}, "header of a model file is plain JSON"),
    ],
)
def test_saving_what_does_not_fit(tmp_path, changes, message):
    arguments, names = bad_save(**changes)
    with pytest.raises(InputError, match=message):
        save(tmp_path / "m.npz", *arguments, **names)
    assert os.listdir(tmp_path) == []


# --- damage --------------------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path):
    """A model file with all that one can have."""
    config = Config(sizes=(3, 2, 1), head="binary", batch_norm=True, activation="prelu")
    scaler = Scaler("minmax", np.zeros(3), np.ones(3))
    names = {"classes": ["no", "yes"], "features": ["a", "b", "c"], "targets": ["y"], "info": {"seed": 0}}
    save(tmp_path / "m.npz", config, *drawn(config), preprocessing=scaler, **names)
    return tmp_path / "m.npz"


def refused(path, message="."):
    with pytest.raises(ModelFileError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value).strip()


def test_a_flipped_bit_anywhere(good):
    content = good.read_bytes()
    for i in range(len(content)):
        damaged = bytearray(content)
        damaged[i] ^= 1 << i % 8
        good.write_bytes(damaged)
        with pytest.raises(ModelFileError):
            load(good)


def test_cut_or_prolonged_anywhere(good):
    content = good.read_bytes()
    for n in [*range(0, len(content), 7), *range(len(content) - 90, len(content))]:
        for damaged in (content[:n], content[n:] if n else b"", content[:n] + b"\x00" + content[n:]):
            good.write_bytes(damaged)
            with pytest.raises(ModelFileError):
                load(good)
    for more in (b"\x00", b"\n", bytes(64), content, content[-78:]):
        good.write_bytes(content + more)
        refused(good)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x05\x06" + bytes(18), b"a,b\n1,2\n", bytes(10_000)])
def test_other_files(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    refused(tmp_path / "other", "not a model file, or one that was cut short: it does not end with a digest; expected")


def test_other_npz_files(good):
    with np.load(good) as archive:
        np.savez(good.with_name("plain.npz"), **archive)
    refused(good.with_name("plain.npz"), "does not end with a digest")
    good.write_bytes(good.read_bytes()[:-1] + b"x")
    refused(good, "damaged: its bytes do not match its SHA-256; use another copy or train again")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "no.npz")
    with pytest.raises(OSError, match=r"[Dd]irectory|[Pp]ermission"):
        load(tmp_path)


# --- lies: files with a digest that is right -------------------------------------------------------------------


@pytest.fixture
def lie(good):
    """Change the arrays and the header of the good file, and seal it anew."""

    def lie(arrays=(), drop=(), header=None, raw=None, relist=True):
        with np.load(good) as archive:
            content = dict(archive)
        head = json.loads(content.pop("header").tobytes())
        content |= dict(arrays)
        for name in drop:
            del content[name]
        if relist:
            head["arrays"] = {name: [list(a.shape), a.dtype.name] for name, a in content.items()}
        for place, value in (header or {}).items():
            *path, last = place.split("/")
            inner = head
            for step in path:
                inner = inner[step]
            inner[last] = value
        text = json.dumps(head).encode() if raw is None else raw
        good.write_bytes(sealed.pack({"header": np.frombuffer(text, np.uint8), **content}))
        return good

    return lie


def f32(*shape):
    return np.ones(shape, np.float32)


def test_the_liar_is_honest_without_a_lie(lie):
    assert load(lie()).classes == ("no", "yes")


@pytest.mark.parametrize(
    ("arrays", "drop", "message"),
    [
        ({"params/1/W": f32(2, 3)}, (), r"params/1/W has shape \(2, 3\): the config expects \(3, 2\)"),
        ({"params/1/W": f32(3, 1)}, (), r"params/1/W has shape \(3, 1\)"),
        ({"params/1/gamma": f32(1)}, (), r"params/1/gamma has shape \(1,\)"),
        ({"params/2/b": f32()}, (), r"params/2/b has shape \(\)"),
        ({"state/1/count": np.zeros(2, np.int32)}, (), r"state/1/count has shape \(2,\)"),
        ({"params/1/W": f32(0, 2)}, (), r"params/1/W has shape \(0, 2\)"),
        ({}, ("params/2/b",), "params/2/b has shape None"),
        ({}, ("params/1/W",), "W"),
        ({}, ("state/1/mean",), "mean"),
        ({}, ("state/1/mean", "state/1/var", "state/1/count"), "state/1/count has shape None"),
        ({}, ("preprocessing/scale",), "no 'preprocessing/scale'"),
        ({}, ("params/2/W", "params/2/b"), "parameters of 1 layers: the config expects 2"),
        ({"params/1/b": f32(2)}, (), r"params/1/b has shape \(2,\): the config expects None"),
        ({"params/1/c": f32(2)}, (), "'c'"),
        ({"params/3/W": f32(1, 1)}, (), "parameters of 3 layers"),
        ({"params/9/W": f32(1, 1)}, (), "params/9/W is an array that the config has no use for"),
        ({"state/1/x": f32(1)}, (), "'x'"),
        ({"more": f32(1)}, (), "more is an array that the config has no use for"),
        ({"params/1/W": np.ones((3, 2), np.float16)}, (), "params/1/W is float16: expected float32 or float64"),
        ({"params/1/W": np.ones((3, 2), np.int32)}, (), "params/1/W is int32"),
        ({"params/1/W": np.ones((3, 2), np.complex64)}, (), "params/1/W is complex64"),
        ({"params/1/W": np.full((3, 2), "a")}, (), "params/1/W is str"),
        ({"params/1/W": np.ones((3, 2), [("a", "f4")])}, (), "params/1/W is void"),
        ({"params/1/W": np.ones((3, 2))}, (), "params/1/W is float64, which JAX has switched off"),
        ({"state/1/count": f32()}, (), "state/1/count is float32: expected int32"),
        ({"preprocessing/shift": f32(3)}, (), "preprocessing/shift is float32: expected float64"),
        ({"preprocessing/shift": np.ones(2)}, (), r"a scaler has shift \(2,\) and scale \(3,\)"),
        ({"preprocessing/shift": np.ones(4), "preprocessing/scale": np.ones(4)}, (), "preprocessing is for 4 features"),
        ({"preprocessing/scale": np.zeros(3)}, (), "a scale of 0"),
        ({"preprocessing/scale": np.full(3, np.nan)}, (), "not finite"),
    ],
)
def test_arrays_that_do_not_fit(lie, arrays, drop, message):
    refused(lie(arrays, drop), f"not a model file that mlpjax can use: .*{message}")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "other"}, "format 'other', version 1: this mlpjax reads 'mlpjax model', version 1"),
        ({"format_version": 2}, "version 2: this mlpjax reads .* version 1; a newer mlpjax may read it"),
        ({"arrays": {}}, "its arrays are not those that its header lists"),
        ({"arrays": None}, "its arrays are not those that its header lists"),
        ({"config": {}}, "params"),
        ({"config": None}, "."),
        ({"config": [1]}, "unknown config field 1"),
        ({"config/widths": [1]}, "unknown config field 'widths'"),
        ({"config/sizes": [4, 2, 1]}, r"params/1/W has shape \(3, 2\): the config expects \(4, 2\)"),
        ({"config/sizes": [3, 2, 0]}, "sizes has a width 0"),
        ({"config/sizes": [3, 2**70, 1]}, "."),
        ({"config/sizes": [10**9, 10**9, 1]}, "the config expects"),
        ({"config/sizes": [3, *[2] * 100_000, 1]}, "parameters of 2 layers: the config expects 100001"),
        ({"config/sizes": "abc"}, "sizes"),
        ({"config/sizes": 5}, "sizes"),
        ({"config/activation": "rleu"}, "unknown activation 'rleu': did you mean 'relu'"),
        ({"config/activation": "relu"}, "params/1/slope has shape"),
        ({"config/activation": {"relu": 1}}, "params/1/slope"),
        ({"config/activation": 5}, "."),
        ({"config/head": "multiclass"}, "head 'multiclass' needs at least 2"),
        ({"config/head": ["binary"]}, "unknown head"),
        ({"config/batch_norm": False}, "the config expects"),
        ({"config/batch_norm": 1}, "batch_norm is 1: expected True or False"),
        ({"config/dropout": 1.0}, "dropout rate is 1.0"),
        ({"config/dropout": [0.1]}, "dropout has 1 rates"),
        ({"config/dropout": {"a": 1}}, "dropout rate"),
        ({"config/l2": -1}, "l2 is -1"),
        ({"config/l1": math.nan}, "l1 is nan"),
        ({"config/l1": "1"}, "l1 is '1'"),
        ({"config/param_dtype": "float64"}, "float64"),
        ({"config/param_dtype": "int8"}, "unknown param_dtype 'int8'"),
        ({"preprocessing": "robust"}, "unknown scaling 'robust'"),
        ({"preprocessing": ["minmax"]}, "."),
        ({"preprocessing": None}, "preprocessing/scale is an array that the config has no use for"),
        ({"classes": ["a", "b", "c"]}, "there are 3 classes: the config expects 2"),
        ({"classes": "ab"}, "expected a list"),
        ({"classes": {"a": 1, "b": 2}}, "expected a list"),
        ({"classes": [["a"], ["b"]]}, "expected a list"),
        ({"classes": [None, "b"]}, "expected a list"),
        ({"classes": 2}, "."),
        ({"features": ["a", "b"]}, "there are 2 features: the config expects 3"),
        ({"features": [1, 2, 3]}, "expected a list of names"),
        ({"targets": [0]}, "expected a list of names"),
        ({"versions": "abc"}, "."),
        ({"info": 5}, "."),
    ],
)
def test_headers_that_lie(lie, header, message):
    refused(lie(header=header), f"not a model file that mlpjax can use: .*{message}")


@pytest.mark.parametrize("field", ["format", "config", "arrays", "preprocessing", "classes", "versions", "info"])
def test_headers_that_lack_something(lie, good, field):
    with np.load(good) as archive:
        head = json.loads(archive["header"].tobytes())
    del head[field]
    refused(lie(raw=json.dumps(head).encode()), f"not a model file that mlpjax can use: no '{field}'")


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b"5", b'"text"', b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b'{"format": "mlpjax'],
    ids=lambda raw: repr(raw[:8]),
)
def test_headers_that_are_no_json(lie, raw):
    refused(lie(raw=raw), "not a model file that mlpjax can use: .")


def test_without_a_header(good):
    good.write_bytes(sealed.pack({"params/1/W": f32(1, 1)}))
    refused(good, "no 'header'")
    good.write_bytes(sealed.pack({}))
    refused(good, "no 'header'")


def rezip(path, change):
    """Write the members of the good file anew, each as ``change(name, bytes)`` says, and seal the whole."""
    import hashlib

    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new_name, content, method = change(name, old.read(name))
            new.writestr(new_name, content, method)
        new.comment = b"mlpjax-sha256:" + b"0" * 64
    body = buffer.getvalue()[:-64]
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def npy(array, **settings):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **settings)
    return buffer.getvalue()


STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
HUGE = npy(f32(3, 2)).replace(b"(3, 2), }          ", b"(2000000000, 2000), }"[:19].ljust(19))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (lambda name, content: (name, content, DEFLATED), "unexpected member"),
        (lambda name, content: (name, content, zipfile.ZIP_BZIP2), "unexpected member"),
        (lambda name, content: (name.removesuffix(".npy"), content, STORED), "unexpected member 'header'"),
        (lambda name, content: (f"../{name}", content, STORED), "no 'header'"),
        (lambda name, content: (name, content[:20], STORED), "."),
        (lambda name, content: (name, b"", STORED), "."),
        (lambda name, content: (name, content[::-1], STORED), "."),
        (lambda name, content: (name, content if "header" in name else HUGE, STORED), "."),
    ],
    ids=["deflated", "bzip2", "no npy", "up", "cut", "empty", "reversed", "huge"],
)
def test_members_that_lie(good, member, message):
    rezip(good, member)
    refused(good, f"not a model file that mlpjax can use: .*{message}")


def test_nothing_is_unpickled(good):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(good.with_name("evil")),)

    pickled = npy(np.array([Evil()], dtype=object), allow_pickle=True)
    rezip(good, lambda name, content: (name, pickled if name == "params/1/W.npy" else content, STORED))
    refused(good, "Object arrays cannot be loaded when allow_pickle=False")
    assert not good.with_name("evil").exists()


def test_loading_in_another_process_predicts_the_same(tmp_path):
    config = CONFIGS["mixed"]
    params, state = drawn(config)
    save(tmp_path / "m.npz", config, params, state)
    code = (
        "import sys, numpy as np, mlpjax; model = mlpjax.load(sys.argv[1]); x = np.load(sys.argv[2]);"
        "print(np.asarray(mlpjax.predict(model.config, model.params, model.state, x)).tobytes().hex())"
    )
    np.save(tmp_path / "x.npy", X)
    command = [sys.executable, "-c", code, tmp_path / "m.npz", tmp_path / "x.npy"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip() == np.asarray(predict(config, params, state, X)).tobytes().hex()
