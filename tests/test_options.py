"""What the command line offers is what the tables have; what no data can make right is refused at once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import get_args

import pytest

from mlpjax.activations import ACTIVATIONS
from mlpjax.config import ActivationName, HeadName, InitName
from mlpjax.data import DATASETS
from mlpjax.errors import ConfigError
from mlpjax.heads import HEADS
from mlpjax.initializers import INITIALIZERS
from mlpjax.optim import OPTIMIZERS, SCHEDULES
from mlpjax.options import DataOptions, EvaluateOptions, OptimizerName, ScheduleName, TrainOptions
from mlpjax.preprocess import SCALERS
from mlpjax.toys import GATES


def choices(name: str) -> set[str]:
    """The words of a field's Literal, out of its annotation."""
    annotation = DataOptions.__annotations__[name]
    return set(re.findall(r"\w+", annotation.partition("[")[2]))


def test_the_lists_are_the_tables():
    assert list(get_args(OptimizerName)) == list(OPTIMIZERS)
    assert list(get_args(ScheduleName)) == list(SCHEDULES)
    assert set(get_args(ActivationName)) == set(ACTIVATIONS)
    assert set(get_args(HeadName)) == set(HEADS)
    assert set(get_args(InitName)) == {"auto", *INITIALIZERS}
    assert choices("scale") == {"auto", *SCALERS}


def test_the_help_names_every_data_set():
    import inspect

    source = inspect.getsource(DataOptions)
    text = source[source.index('data: str = "digits"') : source.index("target:")]
    # one gate stands for all
    for name in DATASETS.keys() - GATES.keys() | {"and_gate", "or_gate", "xor_gate"}:
        assert name in text, name


def test_the_defaults_are_right():
    TrainOptions().validate()
    EvaluateOptions(model=Path("m.npz")).validate()


BAD = [
    ({"epochs": 0}, "--epochs is 0: expected an integer >= 1"),
    ({"batch_size": -1}, "--batch-size is -1"),
    ({"hidden": (4, 0)}, "--hidden is 0"),
    ({"hidden": (2**31,)}, "--hidden is 2147483648: expected an integer below"),
    ({"accumulate": 0}, "--accumulate is 0"),
    ({"accumulate": 33}, "--accumulate is 33: a batch of 32 has no more parts than examples"),
    ({"patience": 0, "valid_fraction": 0.1}, "--patience is 0"),
    ({"patience": 3}, "--patience watches validation data: give --valid-fraction too"),
    ({"seed": -1}, "--seed is -1"),
    ({"seed": 2**63}, "--seed is 9223372036854775808"),
    *(({"lr": lr}, f"--lr is {lr}: expected a number > 0") for lr in (0.0, -1.0, 1e-40, 1e39, float("nan"))),
    *(({"clip": clip}, f"--clip is {clip}: expected a number > 0") for clip in (0.0, -1.0, float("inf"))),
    *(({"l1": l1}, f"--l1 is {l1}: expected a number from 0") for l1 in (-1.0, 1e39, float("nan"))),
    *(({"l2": l2}, f"--l2 is {l2}: expected a number from 0") for l2 in (-1.0, float("inf"))),
    *(({"test_fraction": f}, f"--test-fraction is {f}: expected") for f in (0.0, 1.0, 1.5, -0.1, float("nan"))),
    *(({"valid_fraction": f}, f"--valid-fraction is {f}: expected") for f in (1.0, -0.1, float("nan"))),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_values_out_of_range(values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainOptions(**values).validate()


@pytest.mark.parametrize("option", ["save", "json"])
def test_where_nothing_can_be_written(tmp_path, option):
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "file", "does not exist or is read-only"),
        (tmp_path / "file" / "below", "does not exist or is read-only"),
        (Path("/dev/null"), "it is not a regular file"),
    ):
        with pytest.raises(ConfigError, match=f"--{option} '{path}' cannot be written: .*{reason}"):
            TrainOptions(**{option: path}).validate()
    TrainOptions(**{option: tmp_path / "new"}).validate()
    TrainOptions(**{option: tmp_path / "file"}).validate()


def test_nothing_given_is_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.csv").touch()
    (tmp_path / "m.npz").touch()
    for options, message in (
        (TrainOptions(data="own.csv", save=tmp_path / "own.csv"), "--save .* the file of --data too"),
        (TrainOptions(data="own.csv", json=Path("./own.csv")), "--json .* the file of --data too"),
        (TrainOptions(save=Path("a"), json=tmp_path / "a"), "--json .* the file of --save too"),
        (EvaluateOptions(model=Path("m.npz"), json=tmp_path / "m.npz"), "--json .* the file of the model too"),
        (EvaluateOptions(model=Path("m.npz"), data="own.csv", json=Path("own.csv")), "the file of --data too"),
    ):
        with pytest.raises(ConfigError, match=message):
            options.validate()
    # a set's name is no file
    TrainOptions(data="digits", save=Path("digits")).validate()


def test_every_option_explains_itself():
    import inspect

    for options in (TrainOptions, EvaluateOptions):
        source = "".join(map(inspect.getsource, options.__mro__[:-1]))
        for field in dataclasses.fields(options):
            assert re.search(rf'^    {field.name}: [^\n]*\n    """[A-Za-z]', source, re.MULTILINE), field.name
