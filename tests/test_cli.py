"""The command line, as people use it and as they should not: in this process where that is enough."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import runner, texts_of

import mlpjax
from mlpjax import cli
from mlpjax.model_files import load, save
from mlpjax.optim import OPTIMIZERS, SCHEDULES
from mlpjax.options import EvaluateOptions, TrainOptions

TINY = ["--hidden", 4, "--epochs", 2, "--dropout", 0]
ROWS = [(i % 7 / 3, i * i % 11, "näin"[: 2 + i % 2]) for i in range(40)]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder that has one data set, own.csv."""
    monkeypatch.chdir(tmp_path)
    write("own.csv", "a,b,kind", *(f"{a},{b},{kind}" for a, b, kind in ROWS))

    return runner(capsys)


def write(name, *lines):
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def own(*more):
    return ["train", "--data", "own.csv", "--target", "kind", *TINY, *more]


def report(name="r.json"):
    """Read a report; what strict JSON has not is an error."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(Path(name).read_text(encoding="ascii"), parse_constant=refuse)


def train(run, *arguments):
    """Train, which must work, and return the report."""
    ran = run("train", *arguments, "--json", "r.json")
    assert ran.code == 0, ran.err
    return report()


# --- training ------------------------------------------------------------------------------------------------


def test_digits(run):
    ran = run("train", *TINY, "--json", "r.json", "--save", "m.npz")
    assert ran.code == 0
    assert "test accuracy" in ran.out
    assert ran.err == "digits: multiclass of 10 classes, 1,438 train, 359 test; network 64-4-10\n"
    result = report()
    assert result["grad"] == "hand"
    assert result["seed"] == 0
    assert 0 <= result["test_accuracy"] <= 1
    assert result["examples"] == {"train": 1438, "test": 359}
    assert result["config"]["sizes"] == [64, 4, 10]
    assert result["parameters"] == 64 * 4 + 4 + 4 * 10 + 10
    assert re.fullmatch("[0-9a-f]{64}", result["parameters_sha256"])
    assert result["history"]["epoch"] == [1, 2]
    assert {len(column) for column in result["history"].values()} == {2}
    assert result["seconds_total"] >= result["seconds_compile"] + result["seconds_train"] > 0
    assert {"jax", "mlpjax", "numpy", "optax", "python"} <= result["versions"].keys()
    assert result["options"]["epochs"] == 2
    assert (result["stop_reason"], result["diverged_at"]) == ("finished", None)
    model = load("m.npz")
    assert model.config.to_dict() == result["config"]
    assert model.classes == tuple(range(10))
    assert sorted(os.listdir()) == ["m.npz", "own.csv", "r.json"]


def test_the_same_seed_gives_the_same_bytes(run):
    for name in ("a", "b"):
        assert run(*own("--save", f"{name}.npz", "--json", f"{name}.json")).code == 0
    a, b = report("a.json"), report("b.json")
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    assert a["parameters_sha256"] == b["parameters_sha256"]
    assert run(*own("--seed", 1, "--json", "c.json")).code == 0
    assert report("c.json")["parameters_sha256"] != a["parameters_sha256"]


def test_both_gradients(run):
    hand = train(run, *own()[1:])
    auto = train(run, *own("--grad", "autodiff")[1:])
    assert (hand["grad"], auto["grad"]) == ("hand", "autodiff")
    assert auto["test_loss"] == pytest.approx(hand["test_loss"], rel=1e-4)


@pytest.mark.parametrize(("optimizer", "schedule"), list(zip(OPTIMIZERS, itertools.cycle(SCHEDULES), strict=False)))
def test_optimisers_and_schedules(run, optimizer, schedule):
    options = train(run, *own("--optimizer", optimizer, "--schedule", schedule, "--lr", "1e-2")[1:])["options"]
    assert (options["optimizer"], options["schedule"]) == (optimizer, schedule)


def test_a_single_step(run):
    result = train(run, *own("--schedule", "warmup_cosine", "--epochs", 1, "--batch-size", 100)[1:])
    assert result["history"]["epoch"] == [1]


OPTIONS = {
    "no hidden layer": (["--hidden", "--dropout", 0], {"parameters": 3}),
    "no hidden layer, defaults": (["--hidden", "--dropout", 0.2], {"parameters": 3}),
    "no dropout rates": (["--dropout"], {"parameters": 17}),
    "rates of layers": (["--hidden", 4, 3, "--dropout", 0.1, 0.2, 0.2], {"parameters": 31}),
    "activations": (["--hidden", 4, 3, "--activation", "tanh", "prelu", "--dropout", 0, 0.2, 0], {"parameters": 34}),
    "batch-norm": (["--batch-norm"], {"parameters": 8 + 4 + 4 + 4 + 1}),
    "batch-norm of keras": (["--batch-norm", "--batch-norm-convention", "keras"], {"parameters": 8 + 4 + 4 + 4 + 1}),
    "no bias": (["--no-bias", "--no-batch-norm"], {"parameters": 12}),
    "penalties": (["--l1", 0.01, "--l2", 0.1, "--clip", 1e-3], {"parameters": 17}),
    "decay": (["--weight-decay", 0.01, "--proximal-l1", 1e-4, "--convention", "torch"], {"parameters": 17}),
    "weights": (["--class-weight", "balanced", "--accumulate", 3], {"parameters": 17}),
    "augmentation": (["--augment", "jitter=0.1", "mixup=0.2"], {"parameters": 17}),
    "softmax": (["--head", "multiclass", "--init", "orthogonal"], {"parameters": 22}),
    "bfloat16": (["--compute-dtype", "bfloat16", "--scale", "minmax"], {"parameters": 17}),
    "validation": (["--valid-fraction", 0.25, "--scale", "none"], {"examples": {"train": 24, "test": 8, "valid": 8}}),
    "test part": (["--test-fraction", 0.5, "--batch-size", 7], {"examples": {"train": 20, "test": 20}}),
    "target by number": (["--target", -1, "--data-dir", "nowhere", "--no-download"], {"parameters": 17}),
}


SLOW_OPTIONS = (
    "augmentation",
    "rates of layers",
    "batch-norm of keras",
    "bfloat16",
    "penalties",
    "softmax",
    "activations",
    "test part",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW_OPTIONS else ()) for name in OPTIONS]
)
def test_options(run, name):
    more, expected = OPTIONS[name]
    result = train(run, *own(*more)[1:])
    assert {key: result[key] for key in expected} == expected
    assert np.isfinite(result["test_loss"])


def test_early_stopping(run):
    command = own("--valid-fraction", 0.25, "--patience", 2, "--monitor", "metric", "--epochs", 90, "--lr", 1e-30)
    ran = run(*command, "--json", "r.json")
    assert ran.code == 0
    assert ran.err.splitlines()[1].startswith("stopped after epoch 3: the validation metric has not improved for 2")
    result = report()
    assert (result["stop_reason"], result["epoch"]) == ("early stopping", 1)
    assert len(result["history"]["valid_metric"]) == 3


def test_every_option_is_tried():
    text = texts_of("cli", "checkpoint", "certificate")
    for field in dataclasses.fields(TrainOptions) + dataclasses.fields(EvaluateOptions):
        option = field.name.replace("_", "-")
        assert re.search(rf'"--(no-)?{option}"', text) or field.name == "model", option


@pytest.mark.parametrize(("data", "score"), [("spiral", "test_accuracy"), ("gauss_regression", "test_r2")])
def test_toys(run, data, score):
    result = train(run, "--data", data, *TINY)
    assert result[score] <= 1
    assert result["examples"] == {"train": 400, "test": 100}


def test_gates(run):
    result = train(run, "--data", "and_gate", "--hidden", "--dropout", 0, "--epochs", 300, "--lr", 0.1)
    assert result["examples"] == {"train": 4, "test": 4}
    assert result["test_accuracy"] == 1


# --- own files -----------------------------------------------------------------------------------------------


def test_npz(run):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2, 3))
    np.savez("own.npz", x=x, y=np.where(x[:, 0, 0] > 0, "ja", "nein"), x_test=x[:10], y_test=np.full(10, "ja"))
    result = train(run, "--data", "own.npz", *TINY, "--save", "m.npz")
    assert result["examples"] == {"train": 40, "test": 10}
    assert result["classes"] == ["ja", "nein"]
    ran = run("evaluate", "m.npz", "--json", "e.json")
    assert ran.code == 0, ran.err
    assert report("e.json")["accuracy"] == result["test_accuracy"]


@pytest.mark.parametrize(("values", "head"), [("01", "multilabel"), ("0123456789", "regression")])
def test_several_targets(run, values, head):
    rng = np.random.default_rng(0)
    rows = [f"{i},{rng.choice(list(values))},{rng.choice(list(values))},{i % 3}" for i in range(40)]
    write("two.csv", "a,u,v,b", *rows)
    result = train(run, "--data", "two.csv", "--target", "u", "v", *TINY, "--save", "m.npz")
    assert (result["config"]["head"], result["config"]["sizes"]) == (head, [2, 4, 2])
    ran = run("evaluate", "m.npz", "--json", "e.json")
    assert ran.code == 0, ran.err
    assert report("e.json")["loss"] == result["test_loss"]


@pytest.mark.parametrize(("labels", "classes"), [((3, 7), [3, 7]), ((1, 2, 30), [1, 2, 30])])
def test_numbers_as_labels(run, labels, classes):
    write("n.csv", "a,label", *(f"{i},{labels[i % len(labels)]}" for i in range(40)))
    result = train(run, "--data", "n.csv", "--target", "label", *TINY, "--save", "m.npz")
    assert result["classes"] == classes
    assert load("m.npz").classes == tuple(classes)


def test_a_class_of_one_example_is_trained_on(run):
    write("one.csv", "a,label", *(f"{i},{'x' if i == 5 else 'yz'[i % 2]}" for i in range(40)))
    result = train(run, "--data", "one.csv", "--target", "label", *TINY)
    assert result["classes"] == ["x", "y", "z"]
    assert np.isfinite(result["test_loss"])


# --- evaluation ----------------------------------------------------------------------------------------------


@pytest.fixture
def trained(run):
    """A model that was trained on own.csv, and what its training reported; trained once."""
    if not KEPT:
        result = train(run, *own("--save", "m.npz", "--valid-fraction", 0.25, "--seed", 5)[1:])
        KEPT.extend([Path("m.npz").read_bytes(), result])
        os.remove("r.json")
    Path("m.npz").write_bytes(KEPT[0])
    return KEPT[1]


KEPT: list[Any] = []


def evaluated(run, *arguments):
    ran = run("evaluate", *arguments, "--json", "e.json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    return report("e.json")


def test_the_examples_held_out_are_the_same(run, trained):
    for arguments in ([], ["--data", "own.csv"], ["--part", "test"]):
        result = evaluated(run, "m.npz", *arguments)
        assert result["examples"] == 8
        assert (result["accuracy"], result["loss"]) == (trained["test_accuracy"], trained["test_loss"])
    assert evaluated(run, "m.npz", "--part", "all")["examples"] == 40


def test_other_data_is_taken_whole(run, trained):
    rows = [f"{kind},{b},unused,{a}" for a, b, kind in ROWS]
    # columns in another order, one more, and another name for the target
    write("other.csv", "label,b,more,a", *rows, "nä,1,unused,1")
    assert evaluated(run, "m.npz", "--data", "other.csv", "--target", "label")["examples"] == 41
    write("same.csv", "kind,b,a", *(f"{kind},{b},{a}" for a, b, kind in ROWS))
    same = evaluated(run, "m.npz", "--data", "same.csv")
    assert (same["examples"], same["loss"]) == (8, trained["test_loss"]), "the same data by another name"
    write("few.csv", "a,b,kind", "1,2,nä")
    assert evaluated(run, "m.npz", "--data", "few.csv")["examples"] == 1


def test_evaluating_built_in_data(run):
    result = train(run, "--data", "circle", *TINY, "--save", "m.npz", "--seed", 3)
    assert evaluated(run, "m.npz", "--data-dir", ".")["loss"] == result["test_loss"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,kind", "1,nä"], "lacks the feature columns 'b', which the model was trained on; columns: a, kind"),
        (["a,b", "1,2"], "has no column 'kind'"),
        (["a,b,kind", "1,2,nein"], "line 2: the label 'nein' is not among the classes of the model: nä, näi"),
        (["a,b,kind", "1,nan,nä"], "line 2, column 'b': nan is no finite number"),
        (["a,b,kind"], "has a header line and no data"),
    ],
)
def test_data_that_does_not_fit_the_model(run, trained, lines, message):
    write("bad.csv", *lines)
    refused(run, message, "evaluate", "m.npz", "--data", "bad.csv")


def test_data_far_outside_the_range_of_the_training_data(run):
    write("small.csv", "a,kind", *(f"{i}e-30,{i % 2}" for i in range(40)))
    train(run, "--data", "small.csv", "--target", "kind", *TINY, "--save", "m.npz")
    write("large.csv", "a,kind", "1e30,0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the overflow
        refused(run, "column 0 .from 0. is inf: expected a finite", "evaluate", "m.npz", "--data", "large.csv")


INFOS = [
    {},
    {"data": 5},
    {"data": ["own.csv"]},
    {"data": "a\0b.csv"},
    {"data": "\ud800.csv"},
    {"data": "nowhere.csv"},
    {"data": "own.csv", "seed": "x"},
    {"data": "own.csv", "seed": -1},
    {"data": "own.csv", "seed": 1.5},
    {"data": "own.csv", "seed": True},
    {"data": "own.csv", "test_fraction": None},
    {"data": "own.csv", "test_fraction": 7.0},
    {"data": "own.csv", "test_fraction": -0.5},
    {"data": "own.csv", "test_fraction": 1e-9},
    {"data": "digits"},
    {"data": "own.npz"},
]


@pytest.mark.parametrize("info", INFOS, ids=repr)
def test_models_that_say_nonsense_of_their_training(run, trained, info):
    model = load("m.npz")
    names = {"classes": model.classes, "features": model.features, "targets": model.targets}
    save("m.npz", model.config, model.params, preprocessing=model.preprocessing, info=info, **names)
    refused(run, "", "evaluate", "m.npz", "--part", "test")


# --- bad input -----------------------------------------------------------------------------------------------


def refused(run, message, *command):
    """The command must end with exit code 2, one line that matches, and no trace in the folder."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    ran = run(*command)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("mlpjax: ")
    assert len(ran.err.splitlines()) == 1, ran.err
    assert ran.err.isprintable() or ran.err[:-1].isprintable()
    assert not message or re.search(message, ran.err), ran.err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


WORDS = [
    ("Expected one of {train, sweep, evaluate, verify, audit, lecture}; see mlpjax --help", []),
    ("unknown command 'trian': did you mean 'train'", ["trian"]),
    ("unknown command '--epochs'", ["--epochs", 3]),
    ("unknown command ''", [""]),
    ("unknown option '--epoch': did you mean '--epochs'", ["train", "--epoch", 3]),
    ("unknown option '--model': known: --data", ["evaluate", "m.npz", "--model", "m.npz"]),
    ("unexpected argument 'digits': expected an option", ["train", "digits"]),
    ("unexpected argument 'maybe'", ["train", "--bias", "maybe"]),
    ("unknown --activation 'rleu': did you mean 'relu'", ["train", "--activation", "rleu"]),
    ("unknown --activation 'tnh': did you mean 'tanh'", ["train", "--activation", "relu", "tnh"]),
    ("unknown --optimizer 'adm': did you mean 'adam'", ["train", "--optimizer", "adm"]),
    ("unknown --schedule 'step'", ["train", "--schedule", "step"]),
    ("unknown --head 'binray': did you mean 'binary'", ["train", "--head", "binray"]),
    ("unknown --init 'he'", ["train", "--init", "he"]),
    ("unknown --part 'train': known: all, auto, test", ["evaluate", "m.npz", "--part", "train"]),
    ("parsing --epochs: .*'many'; see mlpjax train --help", ["train", "--epochs", "many"]),
    ("parsing --epochs: .*'1.5'", ["train", "--epochs", 1.5]),
    ("parsing --lr: .*'fast'", ["train", "--lr", "fast"]),
    ("parsing --hidden", ["train", "--hidden", "wide"]),
    ("Missing value for argument '--lr'", ["train", "--lr"]),
    ("Missing from mlpjax evaluate", ["evaluate"]),
]
VALUES = [
    ("--epochs is 0: expected an integer >= 1", ["--epochs", 0]),
    ("--epochs is -1", ["--epochs", -1]),
    ("--epochs 9999999999 are 9999999999 steps: expected fewer", ["--epochs", 9999999999]),
    ("--batch-size is 0", ["--batch-size", 0]),
    ("--hidden is 0", ["--hidden", 0]),
    ("--hidden is -4", ["--hidden", -4]),
    ("--lr is nan", ["--lr", "nan"]),
    ("--lr is inf", ["--lr", "inf"]),
    ("--lr is -1.0", ["--lr", -1]),
    ("dropout rate is 1.5: expected a probability", ["--dropout", 1.5]),
    ("dropout rate is 1.0", ["--dropout", 1]),
    ("dropout rate is -0.1", ["--dropout", -0.1]),
    ("dropout has 3 rates, expected 2", ["--dropout", 0.1, 0.1, 0.1]),
    ("--l2 is -1.0", ["--l2", -1]),
    ("--test-fraction is 0.0", ["--test-fraction", 0]),
    ("--test-fraction is 1.0", ["--test-fraction", 1]),
    ("--test-fraction is 1.5", ["--test-fraction", 1.5]),
    ("holding out 0.001 of 40 examples leaves 40 and 0", ["--test-fraction", 0.001]),
    ("holding out 0.99 of 32 examples leaves 0 and 32", ["--valid-fraction", 0.99]),
    ("--patience watches validation data: give --valid-fraction", ["--patience", 3]),
    ("--save 'no/m.npz' cannot be written: the folder 'no' does not exist", ["--save", "no/m.npz"]),
    ("--save '.' cannot be written: it is a folder", ["--save", "."]),
    ("--save '.' cannot be written: it is a folder", ["--save", ""]),
    ("--json '.' cannot be written", ["--json", "."]),
    ("the compilation cache 'own.csv' is no folder", ["--compilation-cache", "own.csv"]),
    ("--save 'own.csv' cannot be written: it is the file of --data too", ["--save", "own.csv"]),
    ("File name too long", ["--save", "x" * 300]),
    ("activation has 3 names for 1 hidden layers", ["--activation", "relu", "tanh", "relu"]),
    ("activation has 0 names for 1 hidden layers", ["--activation"]),
    ("'binary_step' cannot be trained: its derivative is 0", ["--activation", "binary_step"]),
    ("MNIST: .* is not in nowhere or .*--data-dir DIR", ["--data", "mnist", "--target", "--data-dir", "nowhere"]),
    ("unknown data set 'dgits': did you mean 'digits'", ["--data", "dgits"]),
    ("unknown data set ''", ["--data", ""]),
    ("no.csv: cannot be read .No such file", ["--data", "no.csv"]),
    ("own.csv: no target is given: name the column to predict, one of a, b, kind", ["--target"]),
    ("has no column 'knd': did you mean 'kind'", ["--target", "knd"]),
    ("has no column '3': a number counts the columns from 0, or from -1 for the last", ["--target", "3"]),
    ("digits: its target is fixed", ["--data", "digits"]),
    ("target 'kind' is text .'nä'., head 'regression' takes numbers", ["--head", "regression"]),
    ("head 'multiclass' has one target column, got 2", ["--target", "a", "kind", "--head", "multiclass"]),
    ("line 2, column 'kind': 'nä' is text, features are numbers", ["--target", "a"]),
    ("digits: .*10 classes .*head 'binary' has 2", ["--data", "digits", "--target", "--head", "binary"]),
    (
        "class_weight needs one class per example",
        ["--target", "a", "b", "--data", "n.csv", "--class-weight", "balanced"],
    ),
    ("2000000.* weights, whose training takes .* GB or more: .*smaller", ["--hidden", 2_000_000, 2_000_000]),
]


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, ValueError])
def test_memory_that_runs_out_while_it_trains(run, monkeypatch, error):
    def full(*args, **kwargs):
        raise error("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr("mlpjax.commands.fit", full)
    refused(run, "not enough memory .RESOURCE_EXHAUSTED.*smaller layers", *own("--save", "m.npz"))


def case(value):
    return " ".join(map(str, value))[:40] if isinstance(value, list) else ""


@pytest.mark.parametrize(("message", "command"), WORDS, ids=case)
def test_words_that_nobody_knows(run, message, command):
    refused(run, message, *command)


@pytest.mark.parametrize(("message", "more"), VALUES, ids=case)
def test_values_that_cannot_be(run, message, more):
    write("n.csv", "a,b,c", *(f"{i},{i % 3 / 2},{i % 5}" for i in range(40)))
    files = [] if {"--save", "--json"} & set(more) else ["--save", "m.npz", "--json", "r.json"]
    refused(run, message, *own(*files, *more))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b,kind", "1,2,x", "1,inf,y"], "own.csv, line 3, column 'b': inf is no finite number"),
        (["a,b,kind", "1,nan,x"], "own.csv, line 2, column 'b': nan is no finite number"),
        (["a,b,kind", "1,1e39,x"], "own.csv, line 2, column 'b': 1e39 is no finite number of float32"),
        (["a,b,kind", "1,,x"], "own.csv, line 2, column 'b': is empty"),
        (["a,b,kind", "1,2,"], "own.csv, line 2, column 'kind': is empty"),
        (["a,b,kind", "1,two,x"], "own.csv, line 2, column 'b': 'two' is text"),
        (["a,b,kind", "1,2,x", "1,2"], "own.csv, line 3: has 2 cells, the first line has 3"),
        (["a,b,kind", "1,2,x", "1,2,3,y"], "own.csv, line 3: has 4 cells"),
        (["a,b,kind"], "own.csv: has a header line and no data"),
        ([""], "own.csv: is empty"),
        (["a,a,kind", "1,2,x"], "two columns are named 'a'"),
        (["kind", "x"], "has no feature column"),
        (["a,b,kind", *["1,2,x"] * 9], "target 'kind' has the single class 'x'"),
        (["a,b,kind", '1,2,"x'], "is not CSV"),
    ],
)
def test_tables_that_are_none(run, lines, message):
    write("own.csv", *lines)
    refused(run, message, *own("--save", "m.npz"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": [[1.0, np.nan]], "y": [1]}, r"own.npz: x: row 0, column 1 \(from 0\) is nan"),
        ({"x": [[1.0, 2.0]], "y": [1, 2]}, "own.npz: y has the shape"),
        ({"x": [["a"]], "y": [1]}, "own.npz: x has the shape"),
        ({"x": [[1.0]]}, "own.npz: has no array 'y'; it holds: x"),
        ({"x": np.array([[None]]), "y": [1]}, "cannot be read"),
    ],
)
def test_arrays_that_are_none(run, arrays, message):
    np.savez("own.npz", **arrays)
    refused(run, message, "train", "--data", "own.npz", *TINY)


def test_files_that_are_damaged(run, trained):
    np.savez("own.npz", x=np.ones((9, 2)), y=np.arange(9))
    for name in ("m.npz", "own.npz"):
        whole = Path(name).read_bytes()
        for content in (b"", whole[:-1], whole[: len(whole) // 2], b"text\n", whole[:200] + b"\xff" + whole[201:]):
            Path(name).write_bytes(content)
            if name == "m.npz":
                refused(run, "m.npz: ", "evaluate", "m.npz")
            else:
                refused(run, "own.npz: ", "train", "--data", "own.npz", *TINY)
    refused(run, "no.npz: No such file", "evaluate", "no.npz")
    refused(run, "own.csv: not a model file", "evaluate", "own.csv")
    refused(run, r"\.: Is a directory", "evaluate", ".")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with the bytes"),
        (b"\x1f\x8b\x08 no gzip", "is damaged gzip"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 9]), "9 bytes, and only 0 follow"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "at most"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 5]), "is not MNIST's train-images-idx3-ubyte: SHA-256"),
    ],
)
def test_mnist_files_that_lie(run, content, message):
    Path("train-images-idx3-ubyte").write_bytes(content)
    refused(run, f"train-images-idx3-ubyte: .*{message}", "train", "--data", "mnist", "--data-dir", ".")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is denied to a superuser")
def test_permission_denied(run, trained):
    for name in ("own.csv", "m.npz"):
        os.chmod(name, 0)
    ran = run(*own())
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "Permission denied" in run("evaluate", "m.npz").err
    Path("closed").mkdir(mode=0o500)
    assert "is read-only" in run(*own("--save", "closed/m.npz")).err


# --- what goes wrong on the way ------------------------------------------------------------------------------


def test_divergence(run):
    command = own("--optimizer", "sgd", "--lr", 1e30, "--schedule", "constant", "--batch-size", 8)
    ran = run(*command, "--save", "m.npz", "--json", "r.json")
    assert ran.code == 2
    assert re.fullmatch(
        r"mlpjax: the loss stopped being finite at epoch 1, step \d of 4: try a lower learning rate.*; "
        "the parameters are saved in m.npz",
        ran.err.splitlines()[-1],
    )
    result = report()
    assert result["stop_reason"] == "diverged"
    assert result["diverged_at"][0] == 1
    assert np.isfinite(result["train_loss"])
    for layer in load("m.npz").params:
        assert np.isfinite(layer.W).all()
    assert evaluated(run, "m.npz")["loss"] == result["test_loss"]


def test_a_failing_disk_leaves_the_old_model(run, monkeypatch):
    Path("m.npz").write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device", "m.npz")

    monkeypatch.setattr("mlpjax.files.os.replace", full)
    ran = run(*own("--save", "m.npz"))
    assert ran.code == 2
    assert "test accuracy" in ran.out
    assert "saved" not in ran.out
    assert ran.err.splitlines()[-1] == "mlpjax: m.npz: No space left on device"
    assert sorted(os.listdir()) == ["m.npz", "own.csv"]
    assert Path("m.npz").read_bytes() == b"old"


# --- names and terminals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ä ö.npz", "model[1].npz", "[red]m.npz", ":smile:.npz", "m[", "日本"])
def test_names_of_files(run, trained, name):
    os.rename("m.npz", name)
    os.rename("own.csv", f"{name}.csv")
    ran = run("evaluate", name, "--data", f"{name}.csv", "--json", f"{name}.json")
    assert (ran.code, ran.err) == (0, "")
    assert f"{name} on {name}.csv" in " ".join(ran.out.split())
    assert report(f"{name}.json")["model"] == name


def test_a_path_that_looks_like_markup(run):
    Path("m[").mkdir()
    ran = run(*own("--save", "m[/b].npz"))
    assert ran.code == 0
    assert "m[/b].npz" in ran.out
    assert load("m[/b].npz").classes == ("nä", "näi")


@pytest.mark.parametrize("variables", [{"COLUMNS": "5"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1"}])
def test_terminals(run, trained, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run("evaluate", "m.npz").code == 0
    refused_words = run("train", "--activation", "rleu")
    assert refused_words.code == 2
    assert refused_words.err.startswith("mlpjax: unknown --activation 'rleu': did you mean 'relu'? known: ")


def process(code, *arguments, **settings):
    """Run a line of Python with the command line in it; returns (exit code, stdout, stderr)."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=120, **settings)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_help_is_quick_and_complete(run):
    code = (
        "import sys; from mlpjax.cli import main\n"
        "for command in ([], ['train'], ['evaluate']):\n"
        "    try: main([*command, '--help'])\n"
        "    except SystemExit as end: print('exit', end.code)\n"
        "print('jax' in sys.modules, 'optax' in sys.modules)"
    )
    exit_code, out, err = process(code, env=os.environ | {"COLUMNS": "100"})
    assert (exit_code, err) == (0, "")
    overview, training, evaluation, rest = re.split(r"exit 0\n", out)
    assert rest == "False False\n"
    assert "train" in overview
    assert "evaluate" in overview
    for options, text in ((TrainOptions, training), (EvaluateOptions, evaluation)):
        for field in dataclasses.fields(options):
            assert f"--{field.name.replace('_', '-')}" in text or field.name == "model"


MAIN = "import sys; from mlpjax.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_encodings(run, variables):
    Path("own.csv").rename("größe ö.csv")
    command = ["train", "--data", "größe ö.csv", "--target", "kind", *TINY, "--save", "mö.npz", "--json", "ö.json"]
    exit_code, out, err = process(MAIN, *command, env=os.environ | variables)
    assert exit_code == 0, err
    assert "test accuracy" in out
    assert report("ö.json")["classes"] == ["nä", "näi"]


def test_the_module_is_a_command(tmp_path):
    command = [sys.executable, "-m", "mlpjax", "train", "--epochs", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mlpjax: --epochs is 0: expected an integer >= 1\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes and signals are POSIX's")
@pytest.mark.parametrize("command", [["train", "--help"], ["evaluate", "m.npz"]], ids=" ".join)
def test_a_reader_that_leaves(run, trained, command):
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *command], stdout=written, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(written)
    assert (done.returncode, done.stderr) == (cli.READER_LEFT, "")


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_a_terminal_gets_one_plain_line():
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", MAIN, "train", "--lr", "fast"]
    subprocess.run(command, stdout=theirs, stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    got = os.read(ours, 10_000).decode()
    os.close(ours)
    assert got == "mlpjax: Error parsing --lr: could not convert string to float: 'fast'; see mlpjax train --help\r\n"


# --- Ctrl-C --------------------------------------------------------------------------------------------------

# whoever runs the tests may have switched SIGINT off, which children inherit
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import mlpjax.cli, sys;"
    "print('ready', flush=True); sys.exit(mlpjax.cli.main(sys.argv[1:]))"
)


@contextlib.contextmanager
def started(*arguments):
    command = [sys.executable, "-c", INTERRUPTIBLE, *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes and signals are POSIX's")
def test_ctrl_c_while_training(run):
    with started(*own("--epochs", 10**7, "--save", "m.npz", "--json", "r.json")) as child:
        assert "network 2-4-1" in child.stderr.readline()
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert re.fullmatch(r"mlpjax: interrupted (after|during) epoch \d+; the parameters are saved in m\.npz\n", err)
    assert "test accuracy" in out
    result = report()
    assert result["stop_reason"] == "interrupted"
    assert len(result["history"]["epoch"]) >= result["epoch"] - 1 > 0
    assert evaluated(run, "m.npz")["loss"] == result["test_loss"]
    assert sorted(os.listdir()) == ["e.json", "m.npz", "own.csv", "r.json"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes and signals are POSIX's")
@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0, 2.0])
def test_ctrl_c_at_any_time(run, seconds):
    # while it parses, imports jax, reads data, compiles
    with started(*own("--epochs", 10**7, "--save", "m.npz")) as child:
        time.sleep(seconds)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err
    assert re.fullmatch("mlpjax: interrupted.*", err.splitlines()[-1])
    if os.path.exists("m.npz"):
        load("m.npz")
    assert not list(Path().glob(".*"))


# --- MNIST ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif("MLPJAX_DATA_DIR" not in os.environ, reason="MLPJAX_DATA_DIR does not say where MNIST is")
def test_mnist(run):
    result = train(run, "--data", "mnist", "--hidden", 32, "--epochs", 1, "--batch-size", 128, "--save", "m.npz")
    assert result["examples"] == {"train": 60000, "test": 10000}
    assert result["test_accuracy"] > 0.85
    assert evaluated(run, "m.npz")["accuracy"] == result["test_accuracy"]
    assert mlpjax.load("m.npz").preprocessing.kind == "minmax"


@pytest.mark.slow
def test_all_of_a_set_with_a_test_part_of_its_own_is_both_parts(run):
    rng = np.random.default_rng(0)
    parts = {"x": rng.normal(size=(12, 2)), "y": np.arange(12) % 2, "x_test": rng.normal(size=(5, 2))}
    np.savez("own.npz", **parts, y_test=np.arange(5) % 2)
    train(run, "--data", "own.npz", "--hidden", 4, "--epochs", 1, "--save", "m.npz")
    assert evaluated(run, "m.npz")["examples"] == 5
    assert evaluated(run, "m.npz", "--part", "all")["examples"] == 17


def test_debug_nans(run):
    command = own("--optimizer", "sgd", "--lr", 1e30, "--schedule", "constant", "--batch-size", 8)
    ran = run(*command, "--debug-nans", "f.npz", "--json", "r.json")
    assert ran.code == 2
    assert re.fullmatch(
        r"mlpjax: epoch 1, step \d: .* is (-?inf|nan).*; the parameters are the last ones with a finite loss; "
        r"mlpjax.replay\('f.npz'\) takes the step again",
        ran.err.splitlines()[-1],
    )
    fault = mlpjax.replay("f.npz").fault
    assert report()["fault"] == str(fault)
    assert report()["diverged_at"] == list(fault.at)


def test_debug_nans_of_a_finite_run(run):
    assert run(*own("--debug-nans", "f.npz")).code == 0
    assert not Path("f.npz").exists()
    assert "it is the file of --save too" in run(*own("--save", "f.npz", "--debug-nans", "f.npz")).err


@pytest.mark.slow
def test_doctor(run):
    command = ("train", "--data", "gauss", "--hidden", 8, "--lr", 30, "--optimizer", "sgd", "--doctor")
    ran = run(*command, "--json", "r.json")
    assert ran.code == 0
    assert report()["doctor"]["causes"][0] == "rate_high"
    assert "to be changed: rate_high" in ran.out + ran.err
    refused(run, "--doctor examines and does not train", *command, "--save", "m.npz")
