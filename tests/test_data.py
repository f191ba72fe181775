"""The record of a data set, the built-in sets, and files posed as problems."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpjax import data
from mlpjax.data import DATASETS, load_dataset, load_digits, load_for_model
from mlpjax.errors import DataError
from mlpjax.problems import Dataset, n_outputs
from mlpjax.toys import GATES, TOYS


@pytest.fixture
def write(tmp_path):
    """Write a CSV file and return its path."""

    def write(*lines: str, name: str = "own.csv") -> str:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write


@pytest.fixture
def save(tmp_path):
    def save(**arrays) -> str:
        np.savez(tmp_path / "own.npz", **arrays)
        return str(tmp_path / "own.npz")

    return save


def with_targets(*rows: str) -> list[str]:
    """Put a feature before the target cells of each row."""
    return [f"a,{rows[0]}", *(f"{i},{row}" for i, row in enumerate(rows[1:]))]


# --- built-in sets -------------------------------------------------------------------------------------------


def test_digits():
    digits = load_digits()
    assert digits.x.shape == (1797, 64)
    assert digits.x.dtype == np.float32
    assert (digits.x.min(), digits.x.max()) == (0, 16)
    assert digits.y.dtype == np.int32
    assert np.bincount(digits.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (digits.head, digits.classes, digits.image_shape) == ("multiclass", tuple(range(10)), (8, 8))
    assert digits.test is None
    # the first example is a 0, and this is its second row
    assert digits.y[0] == 0
    assert digits.x[0, 8:16].tolist() == [0, 0, 13, 15, 10, 15, 5, 0]


def test_the_data_layer_imports_neither_sklearn_nor_jax_nor_pandas():
    code = (
        "import sys; from mlpjax.data import load_dataset; load_dataset('digits');"
        "print([m for m in ('sklearn', 'jax', 'pandas', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_digits_without_scikit_learn(monkeypatch, tmp_path):
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"digits: scikit-learn, which ships them, is not installed: pip install"):
        load_digits()
    spec = type("Spec", (), {"origin": str(tmp_path / "sklearn" / "__init__.py")})
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match=r"digits: .*digits\.csv\.gz cannot be read .*: install scikit-learn anew"):
        load_digits()


def test_the_table_of_names():
    assert set(DATASETS) == {"digits", "mnist", *TOYS, *GATES}
    assert len(DATASETS) == 2 + len(TOYS) + len(GATES), "no name has two meanings"


@pytest.mark.parametrize("name", [*TOYS, *GATES])
def test_generated_sets(name):
    made = load_dataset(name, seed=5)
    assert made.name == name
    assert made.features == ("x1", "x2")
    if name in ("plane", "gauss_regression"):
        assert (made.head, made.classes, n_outputs(made)) == ("regression", None, 1)
    else:
        assert (made.head, made.classes, n_outputs(made)) == ("binary", (0, 1), 1)
    np.testing.assert_array_equal(made.x, load_dataset(name, seed=5).x)
    if name in TOYS:
        x, y = TOYS[name](500, 5)
        np.testing.assert_array_equal(made.x, x)
        np.testing.assert_array_equal(made.y, y)


def test_the_name_mnist_goes_to_its_folder(tmp_path):
    with pytest.raises(DataError, match=f"MNIST: .* is not in {tmp_path} or"):
        load_dataset("mnist", data_dir=str(tmp_path))


def test_another_problem_on_a_built_in_set():
    circle = load_dataset("circle")
    softmax = load_dataset("circle", head="multiclass")
    assert (softmax.head, softmax.classes, n_outputs(softmax)) == ("multiclass", (0, 1), 2)
    np.testing.assert_array_equal(softmax.y, circle.y)
    np.testing.assert_array_equal(softmax.x, circle.x)
    assert softmax.features == circle.features
    value = load_dataset("digits", head="regression")
    assert (value.head, value.classes, value.y.dtype, value.image_shape) == ("regression", None, np.float32, (8, 8))
    np.testing.assert_array_equal(value.y[:, 0], load_digits().y)
    with pytest.raises(DataError, match=r"digits: target 'digit' has 10 classes .* head 'binary' has 2: use head"):
        load_dataset("digits", head="binary")
    with pytest.raises(DataError, match=r"plane, row 0 \(from 0\): .* is no class label"):
        load_dataset("plane", head="multiclass")
    with pytest.raises(DataError, match=r"plane, row \d+ .*: head 'regression_relu' expects a number ≥ 0, use head"):
        load_dataset("plane", head="regression_relu")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("digit", {}, "unknown data set 'digit': did you mean 'digits'.*; or a path to a .csv or .npz file$"),
        ("circle", {"head": "multi"}, "unknown head 'multi'"),
        ("circle", {"targets": ["y"]}, "circle: its target is fixed, got y: targets are for files"),
        ("none.csv", {"targets": ["y"]}, "none.csv: cannot be read .No such file"),
        ("none.npz", {}, "none.npz: cannot be read .No such file"),
    ],
)
def test_names_that_are_wrong(name, arguments, message):
    with pytest.raises(DataError, match=message):
        load_dataset(name, **arguments)


# --- the problem of a file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "head", "classes", "y"),
    [
        (["no", "yes", "no"], "binary", ("no", "yes"), [0, 1, 0]),
        (["b", "a", "c"], "multiclass", ("a", "b", "c"), [1, 0, 2]),
        (["-1", "1", "1"], "binary", (-1, 1), [0, 1, 1]),
        (["10", "9", "2"], "multiclass", (2, 9, 10), [2, 1, 0]),
        (["1.0", "2.0", "1.0"], "binary", (1, 2), [0, 1, 0]),
        (["0.5", "1", "0.5"], "regression", None, [[0.5], [1.0], [0.5]]),
        ([str(i) for i in range(50)], "multiclass", tuple(range(50)), list(range(50))),
        ([str(i) for i in range(51)], "regression", None, [[float(i)] for i in range(51)]),
        ([f"id{i:02}" for i in range(60)], "multiclass", tuple(f"id{i:02}" for i in range(60)), list(range(60))),
    ],
)
def test_the_problem_is_guessed_from_one_target(write, cells, head, classes, y):
    path = write(*with_targets("y", *cells))
    own = load_dataset(path, targets=["y"])
    assert (own.name, own.head, own.classes) == ("own.csv", head, classes)
    assert own.y.tolist() == y
    assert own.y.dtype == (np.float32 if head == "regression" else np.int32)
    assert (own.features, own.targets) == (("a",), ("y",))


def test_bools_of_an_npz_are_classes(save):
    own = load_dataset(save(x=np.eye(2), y=np.array([True, False])))
    assert (own.head, own.classes, own.y.tolist()) == ("binary", (False, True), [1, 0])
    assert type(own.classes[0]) is bool


def test_the_problem_is_guessed_from_several_targets(write, save):
    own = load_dataset(write(*with_targets("p,q", "0,1", "1,1")), targets=["q", "p"])
    assert (own.head, own.targets, own.y.tolist()) == ("multilabel", ("q", "p"), [[1, 0], [1, 1]])
    assert own.y.dtype == np.int32
    assert n_outputs(own) == 2
    own = load_dataset(write(*with_targets("p,q", "0,1", "1,2")), targets=["p", "q"])
    assert (own.head, own.y.tolist()) == ("regression", [[0, 1], [1, 2]])
    assert own.y.dtype == np.float32
    own = load_dataset(save(x=np.eye(2), y=np.eye(2)))
    assert (own.head, own.targets) == ("multilabel", ("y[0]", "y[1]"))
    with pytest.raises(DataError, match=r"own\.csv, line 3: target 'q' is text \('x'\), head 'regression' takes num"):
        load_dataset(write(*with_targets("p,q", "0,1", "1,x")), targets=["p", "q"])


def test_a_given_head_overrides_the_guess(write):
    path = write(*with_targets("y", "0", "1", "1"))
    assert load_dataset(path, targets=["y"]).head == "binary"
    for head, y, width in [
        ("regression", [[0], [1], [1]], 1),
        ("regression_relu", [[0], [1], [1]], 1),
        ("multilabel", [[0], [1], [1]], 1),
        ("multiclass", [0, 1, 1], 2),
    ]:
        own = load_dataset(path, targets=["y"], head=head)
        assert (own.head, own.y.tolist(), n_outputs(own)) == (head, y, width)
    many = load_dataset(write(*with_targets("y", *map(str, range(70)))), targets=["y"], head="multiclass")
    assert n_outputs(many) == 70


@pytest.mark.parametrize(
    ("lines", "targets", "head", "message"),
    [
        (("y", "u", "u"), ["y"], None, r": target 'y' has the single class 'u': give examples of at least two, or"),
        (("y", "3", "3"), ["y"], None, r": target 'y' has the single class 3: give"),
        (("y", "3", "3"), ["y"], "multiclass", r": target 'y' has the single class 3"),
        (("y", "0", "1", "2"), ["y"], "binary", r": target 'y' has 3 classes \(0, 1, 2\), head 'binary' has 2: use"),
        (
            ("y", "1", "n/a"),
            ["y"],
            "regression",
            r", line 3: target 'y' is text \('n/a'\), head 'regression' takes num",
        ),
        (("y", "a", "b"), ["y"], "multilabel", r", line 2: target 'y' is text .* use head 'multiclass' or 'binary'"),
        (("y", "0.5", "1"), ["y"], "binary", r", line 2: 0\.5 is no class label: expected text, a bool or a whole"),
        (("y", "0", "2"), ["y"], "multilabel", r", line 3: target 'y' is 2: head 'multilabel' expects 0 or 1"),
        (("y", "1", "-2"), ["y"], "regression_relu", r", line 3: target 'y' is -2: .* expects a number ≥ 0, use head"),
        (("p,q", "0,1"), ["p", "q"], "multiclass", r": head 'multiclass' has one target column, got 2 \(p, q\): give"),
        (("p,q", "0,1"), [], None, r": no target is given: name the column to predict, one of a, p, q"),
    ],
)
def test_a_head_that_contradicts_the_data(write, lines, targets, head, message):
    path = write(*with_targets(*lines))
    with pytest.raises(DataError, match=r"own\.csv" + message) as caught:
        load_dataset(path, targets=targets, head=head)
    assert str(caught.value).startswith(path)


def test_a_path_object_and_another_suffix(write):
    path = write(*with_targets("y", "0", "1"), name="own.dat")
    assert load_dataset(path, targets=["y"]).x.tolist() == [[0], [1]]


def test_the_test_part_is_numbered_by_the_classes_of_the_training_part(save):
    x = np.eye(3)
    own = load_dataset(save(x=x, y=["b", "c", "a"], x_test=x[:2], y_test=["c", "c"]))
    assert own.test is not None
    assert own.test[1].tolist() == [2, 2]
    with pytest.raises(DataError, match=r"own\.npz, test row 1 \(from 0\): the label 'd' is not among the classes"):
        load_dataset(save(x=x, y=["b", "c", "a"], x_test=x[:2], y_test=["c", "d"]))
    values = load_dataset(save(x=x, y=[0.5, 1, 2], x_test=x[:1], y_test=[-1.5]))
    assert values.test is not None
    assert values.test[1].tolist() == [[-1.5]]


# --- data for a trained model --------------------------------------------------------------------------------


def model_of(dataset: Dataset) -> dict:
    """Give what a model file stores of the data, as JSON gives it back."""
    return {
        "head": dataset.head,
        "classes": None if dataset.classes is None else list(dataset.classes),
        "features": None if dataset.features is None else list(dataset.features),
        "targets": list(dataset.targets),
    }


@pytest.mark.parametrize("name", ["digits", *TOYS, *GATES])
def test_a_built_in_set_for_its_own_model(name):
    trained = load_dataset(name, seed=3)
    again = load_for_model(name, **model_of(trained), seed=3)
    for field in dataclasses.fields(Dataset):
        np.testing.assert_equal(getattr(again, field.name), getattr(trained, field.name))


@pytest.mark.parametrize("head", ["multiclass", "regression", "multilabel"])
def test_a_built_in_set_for_a_model_of_another_problem(head):
    trained = load_dataset("circle", head=head)
    again = load_for_model("circle", **model_of(trained))
    assert again.head == head
    np.testing.assert_array_equal(again.y, trained.y)


labels = st.lists(st.sampled_from(["a", "b", "7", "10", "x y"]), min_size=2, max_size=8)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(labels.filter(lambda values: len(set(values)) > 1), st.data())
def test_any_part_of_a_file_gets_the_numbers_of_the_whole(tmp_path_factory, values, drawn):
    folder = tmp_path_factory.mktemp("data")
    whole, part = folder / "whole.csv", folder / "part.csv"
    rows = [f"{i},{value}" for i, value in enumerate(values)]
    whole.write_text("\n".join(["a,y", *rows]))
    trained = load_dataset(whole, targets=["y"])
    chosen = drawn.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5))
    part.write_text("\n".join(["a,y", *(rows[i] for i in chosen)]))
    again = load_for_model(part, **model_of(trained))
    assert again.y.tolist() == trained.y[chosen].tolist()
    assert again.classes == trained.classes


def test_codes_with_leading_zeros_stay_text(write):
    trained = load_dataset(write(*with_targets("y", "007", "7", "A1")), targets=["y"])
    assert trained.classes == ("007", "7", "A1")
    again = load_for_model(write(*with_targets("y", "007", "7"), name="new.csv"), **model_of(trained))
    assert again.y.tolist() == [0, 1]


def test_columns_are_found_by_name_and_targets_can_be_renamed(write):
    trained = load_dataset(write("a,b,y", "1,2,u", "3,4,v"), targets=["y"])
    path = write("answer,note,b,a", "v,text,20,10", name="new.csv")
    again = load_for_model(path, **{**model_of(trained), "targets": ["answer"]})
    assert again.x.tolist() == [[10, 20]]
    assert (again.features, again.y.tolist()) == (("a", "b"), [1])
    with pytest.raises(DataError, match=r"new\.csv: has no column 'y'"):
        load_for_model(path, **model_of(trained))


def test_what_does_not_fit_the_model(write, save):
    trained = load_dataset(write("a,b,y", "1,2,u", "3,4,v"), targets=["y"])
    model = model_of(trained)
    with pytest.raises(DataError, match=r"new\.csv, line 3: the label 'w' is not among the classes of the model: u, v"):
        load_for_model(write("a,b,y", "1,2,u", "3,4,w", name="new.csv"), **model)
    with pytest.raises(DataError, match=r"new\.csv: lacks the feature columns 'b', which the model was trained on"):
        load_for_model(write("a,c,y", "1,2,u", name="new.csv"), **model)
    with pytest.raises(DataError, match=r"own\.npz: has 3 features, the model was trained on 2"):
        load_for_model(save(x=np.ones((1, 3)), y=["u"]), **model)
    assert load_for_model(save(x=np.ones((1, 2)), y=["v"]), **model).y.tolist() == [1]
    with pytest.raises(DataError, match=r"digits: has 64 features, the model was trained on 2"):
        load_for_model("digits", **{**model, "head": "multiclass", "classes": range(10)})
    with pytest.raises(DataError, match=r"circle: has the features x1, x2, the model was trained on a, b"):
        load_for_model("circle", **{**model, "classes": [0, 1]})
    with pytest.raises(DataError, match=r"circle: has the classes 0, 1, the model u, v"):
        load_for_model("circle", **model)
    with pytest.raises(DataError, match="unknown head 'bin'"):
        load_for_model("own.csv", **{**model, "head": "bin"})
    with pytest.raises(DataError, match="unknown data set 'own'"):
        load_for_model("own", **model)


@pytest.mark.parametrize("y", [np.array([[1.5, 2.0]] * 2), np.array([[1, 0], [0, 1]]), np.array([[2.5], [1.0]])])
def test_several_targets_of_an_npz_for_their_model(save, y):
    trained = load_dataset(save(x=np.eye(2), y=y))
    again = load_for_model(save(x=np.eye(2), y=y[::-1]), **model_of(trained))
    assert (again.head, again.targets) == (trained.head, trained.targets)
    np.testing.assert_array_equal(again.y, y[::-1])


# --- the record ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "multi"}, "unknown head 'multi'"),
        (
            {"x": np.ones(2)},
            r"own: x has the shape \(2,\) and y \(2,\): head 'binary' expects x \(examples, features\)",
        ),
        ({"y": np.array([0, 1, 1])}, r"own: x has the shape \(2, 2\) and y \(3,\)"),
        ({"y": np.array([[0], [1]])}, r"y of rank 1 with one row per example"),
        ({"head": "regression"}, r"y of rank 2 with one row per example"),
        ({"x": np.array([[1, 2], [np.inf, 0]])}, r"own: x: row 1, column 0 \(from 0\) is inf"),
        ({"classes": None}, r"own: head 'binary' needs the labels of its classes, at least two"),
        ({"y": np.array([0, 2])}, r"class indices in 0 … 1"),
        ({"y": np.array([0.0, 1.0])}, r"class indices in 0 … 1"),
        ({"test": (np.ones((1, 3)), np.array([0]))}, r"own: test x has the shape \(1, 3\)"),
        ({"test": (np.ones((2, 2)), np.array([0]))}, r"own: test x has the shape \(2, 2\) and test y \(1,\)"),
        ({"test": (np.full((1, 2), np.nan), np.array([0]))}, r"own: test x: row 0, column 0 \(from 0\) is nan"),
    ],
)
def test_a_record_is_checked(fields, message):
    good = {"name": "own", "x": np.eye(2), "y": np.array([0, 1]), "head": "binary", "classes": ("u", "v")}
    Dataset(**good)
    with pytest.raises(DataError, match=message):
        Dataset(**{**good, **fields})
