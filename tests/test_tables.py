"""CSV and NPZ files: what is read, and every way in which a file can be wrong."""

from __future__ import annotations

import csv
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpjax.archives import read_npz
from mlpjax.errors import DataError
from mlpjax.tables import read_csv


@pytest.fixture
def write(tmp_path):
    """Write a file and return its path."""

    def write(content: str | bytes, name: str = "own.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def columns(table):
    return [column.tolist() for column in table.y]


# --- CSV: what is read ---------------------------------------------------------------------------------------


def test_a_plain_table(write):
    path = write("a,b,label\n1,2.5,no\n-3,4e1,yes\n")
    table = read_csv(path, ["label"])
    assert table.path == path
    assert table.x.dtype == np.float32
    assert table.x.tolist() == [[1, 2.5], [-3, 40]]
    assert table.features == ("a", "b")
    assert table.targets == ("label",)
    assert columns(table) == [["no", "yes"]]
    assert table.test is None
    assert table.where(1) == f"{path}, line 3"


@pytest.mark.parametrize(
    "content",
    [
        "a;b;y\n1;2;3\n",
        "a\tb\ty\n1\t2\t3\n",
        "\ufeffa,b,y\r\n1,2,3\r\n",
        "a,b,y\n1,2,3",
        '"a","b","y"\n"1","2","3"\n',
        " a , b , y \n 1 , 2 , 3 \n",
        'a, "b", "y"\n1, "2", "3"\n',
        "\n\na,b,y\n\n1,2,3\n\n\n",
        '"a;b;c;d;e",b,y\n1,2,3\n',  # delimiters within quotes do not count
    ],
)
def test_dialects(write, content):
    table = read_csv(write(content), ["y"])
    assert table.x.tolist() == [[1, 2]]
    assert columns(table) == [[3]]


def test_a_byte_order_mark_is_no_part_of_a_name(write):
    assert read_csv(write("\ufeffa,b,y\n1,2,3\n"), ["y"]).features == ("a", "b")
    assert read_csv(write("\ufeff1,2,3\n"), ["2"]).x.tolist() == [[1, 2]]


def test_a_file_without_header_numbers_its_columns(write):
    path = write("1,2,3\n4,5,6\n")
    for target in ("2", "-1"):
        table = read_csv(path, [target])
        assert table.x.tolist() == [[1, 2], [4, 5]]
        assert (table.features, table.targets) == (("0", "1"), ("2",))
        assert columns(table) == [[3, 6]]
        assert table.lines.tolist() == [1, 2]
    assert read_csv(path, ["-3"]).targets == ("0",)
    with pytest.raises(DataError, match="has no column '-4'"):
        read_csv(path, ["-4"])


def test_minus_one_is_the_last_named_column_too(write):
    assert read_csv(write("a,b,y\n1,2,3\n"), ["-1"]).targets == ("y",)
    assert read_csv(write("a,-1,y\n1,2,3\n"), ["-1"]).targets == ("-1",)


@pytest.mark.parametrize(("number", "name"), [("0", "a"), ("2", "y"), ("02", "y"), ("-1", "y"), ("-3", "a")])
def test_a_number_is_the_position_of_a_named_column(write, number, name):
    table = read_csv(write("a,b,y\n1,2,3\n"), [number])
    assert table.targets == (name,)
    assert table.features == tuple(column for column in "aby" if column != name)


def test_a_name_goes_before_a_position(write):
    assert read_csv(write("2,0,y\n1,2,3\n"), ["0"]).targets == ("0",)
    assert columns(read_csv(write("2,0,y\n1,2,3\n"), ["2", "0"])) == [[1], [2]]
    assert read_csv(write("2,0,y\n1,2,3\n"), ["1"]).targets == ("0",)


@pytest.mark.parametrize("number", ["3", "-4", pytest.param("9" * 5000, id="long")])
def test_a_position_out_of_range(write, number):
    with pytest.raises(
        DataError,
        match=rf"own\.csv: has no column '{number}': a number counts .* from 0, .* from -1 .* columns: a, b, y$",
    ):
        read_csv(write("a,b,y\n1,2,3\n"), [number])


@pytest.mark.parametrize("word", ["1.0", "1_0", "--1", "+1", "²", ""])
def test_what_is_no_position(write, word):
    with pytest.raises(DataError, match=r"has no column '.*': columns: a, b, y$"):
        read_csv(write("a,b,y\n1,2,3\n"), [word])


def test_several_targets_keep_their_order(write):
    table = read_csv(write("p,a,q\n1,2,3.5\n4,5,6\n"), ["q", "p"])
    assert table.targets == ("q", "p")
    assert columns(table) == [[3.5, 6.0], [1, 4]]
    assert table.features == ("a",)


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "2", "-3"], "i", [1, 2, -3]),
        (["1.0", "2", "3"], "i", [1, 2, 3]),
        (["1.0", "0.0"], "i", [1, 0]),
        (["1", "2.5"], "f", [1.0, 2.5]),
        (["1e3", "+7"], "i", [1000, 7]),
        (["9007199254740993", "1"], "i", [9007199254740993, 1]),
        (["1" + "0" * 25, "1"], "f", [1e25, 1.0]),
        (["1", "x"], "O", ["1", "x"]),
        (["nan", "yes"], "O", ["nan", "yes"]),
        (["007", "1_0"], "O", ["007", "1_0"]),
        (["True", "False"], "O", ["True", "False"]),
    ],
)
def test_the_kind_of_a_target(write, cells, kind, values):
    path = write("a,y\n" + "".join(f"0,{cell}\n" for cell in cells))
    (column,) = read_csv(path, ["y"]).y
    assert column.dtype.kind == kind
    assert column.tolist() == values
    (text,) = read_csv(path, ["y"], text_targets=True).y
    assert text.tolist() == cells


def test_stored_features_select_by_name_in_their_order(write):
    path = write("extra,b,y,a\ntext,2,0,1\n,4,1,3\n")
    table = read_csv(path, ["y"], features=("a", "b"))
    assert table.x.tolist() == [[1, 2], [3, 4]]
    assert table.features == ("a", "b")
    with pytest.raises(DataError, match="lacks the feature columns 'c', 'd', which the model was trained on; columns"):
        read_csv(path, ["y"], features=("a", "c", "d"))


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(finite, min_size=n, max_size=n), min_size=1, max_size=8)),
    st.sampled_from(",;\t"),
    st.data(),
)
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows, delimiter, data):
    label = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1).filter(
        lambda text: text == text.strip() and text
    )
    labels = [f"x{data.draw(label)}" for _ in rows]
    path = tmp_path_factory.mktemp("csv") / "own.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow([*[f"f{k}" for k in range(len(rows[0]))], "y"])
        writer.writerows([*row, text] for row, text in zip(rows, labels, strict=True))
    table = read_csv(path, ["y"])
    np.testing.assert_array_equal(table.x, np.array(rows, dtype=np.float32))
    assert columns(table) == [labels]


def test_quoted_line_breaks_do_not_shift_the_line_numbers(write):
    path = write('a,y\n1,"two\nlines"\nx,b\n')
    with pytest.raises(DataError, match=r"own\.csv, line 4, column 'a': 'x' is text"):
        read_csv(path, ["y"])


def test_the_text_of_the_file_is_not_kept(write):
    m, n = 4000, 50
    path = write(",".join(f"c{k}" for k in range(n)) + "\n" + (",".join(["0.123456789"] * n) + "\n") * m)
    tracemalloc.start()
    table = read_csv(path, ["c0"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.x.shape == (m, n - 1)
    assert peak < 3 * table.x.nbytes


# --- CSV: what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "targets", "message"),
    [
        ("", ["y"], r"is empty: expected a header line and one line per example"),
        ("\n \n", ["y"], r"is empty: expected"),
        ("a,y\n", ["y"], r"has a header line and no data: expected one line per example"),
        ("a,y\n1,0\n", [], r"no target is given: name the column to predict, one of a, y"),
        ("age,y\n1,0\n", ["aeg"], r"has no column 'aeg': did you mean 'age'\? columns: age, y"),
        ("a,y\n1,0\n", ["zzz"], r"has no column 'zzz': columns: a, y"),
        ("a,y\n1,0\n", ["y", "-1"], r"a target is given twice \(y, y\): name each column once"),
        ("a,y\n1,0\n", ["y", "1"], r"a target is given twice \(y, y\): name each column once"),
        ("a,y\n1,0\n", ["a", "y"], r"has no feature column: every column is a target \(a, y\)"),
        ("a,b,a,y\n1,2,3,0\n", ["y"], r", line 1: two columns are named 'a': rename one"),
        (",a,y\n0,1,0\n", ["y"], r", line 1: column 1 has no name: name it, or remove it"),
        ("a,b,y\n1,2,0\n1,blue,0\n", ["y"], r", line 3, column 'b': 'blue' is text, features are numbers: correct it"),
        ("a,b,y\n1,2,0\nx,z,0\n", ["y"], r", line 3, column 'a': 'x' is text"),
        ("a,b,y\n1,2,0\n1,1_000,0\n", ["y"], r", line 3, column 'b': '1_000' is text"),
        ("a,b,y\n1,,0\n", ["y"], r", line 2, column 'b': is empty: fill it, remove the line, or remove the column"),
        ("a,b,y\n1, ,0\n", ["y"], r", line 2, column 'b': is empty"),
        ("a,y\n1,0\n1,\n", ["y"], r", line 3, column 'y': is empty: fill it or remove the line"),
        ("a,y\n1,0\nnan,0\n", ["y"], r", line 3, column 'a': nan is no finite number of float32: correct it or remove"),
        ("a,y\n1,0\n-inf,0\n", ["y"], r", line 3, column 'a': -inf is no finite number"),
        ("a,b,y\n1,nan,0\n", ["y"], r", line 2, column 'b': nan is no finite number"),
        ("a,b,y\n1,-1e39,0\n", ["y"], r", line 2, column 'b': -1e39 is no finite number of float32"),
        ("a,y\n1,0\n1e39,0\n", ["y"], r", line 3, column 'a': 1e39 is no finite number of float32"),
        ("a,y\n1,0.5\n1,nan\n", ["y"], r", line 3, column 'y': nan is no finite number of float32: correct it or"),
        ("a,y\n1,0.5\n1,inf\n", ["y"], r", line 3, column 'y': inf is no finite number"),
        ("a,b,y\n1,2,0\n1,2\n", ["y"], r", line 3: has 2 cells, the first line has 3: give every line the same"),
        ("a,b,y\n1,2,0,9\n", ["y"], r", line 2: has 4 cells, the first line has 3"),
        ('a,y\n1,"0\n', ["y"], r", line 2: is not CSV \(unexpected end of data\): check the quotes"),
        (b"a,y\n1,0\n1,\xff\n", ["y"], r", line 3: is not UTF-8 text \(invalid start byte\): save it as UTF-8"),
        ("a,y\n1,0\n".encode("utf-16"), ["y"], r", line 1: is not UTF-8 text"),
    ],
)
def test_every_fault_of_a_table_is_named_with_its_place(write, content, targets, message):
    path = write(content)
    with pytest.raises(DataError, match=r"own\.csv(: )?" + message) as caught:
        read_csv(path, targets)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_an_absent_file_and_a_folder(tmp_path):
    for read in (read_csv, read_npz):
        with pytest.raises(DataError, match=r"none: cannot be read \(No such file or directory\): check the path"):
            read(tmp_path / "none", ["y"])
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path, ["y"])


def test_a_long_list_of_columns_is_cut(write):
    with pytest.raises(DataError, match=r"p19, … \(785 in all\)$") as caught:
        read_csv(write(",".join(f"p{k}" for k in range(785)) + "\n"), ["q"])
    assert len(str(caught.value)) < 400


# --- NPZ -----------------------------------------------------------------------------------------------------


@pytest.fixture
def save(tmp_path):
    def save(**arrays) -> str:
        np.savez_compressed(tmp_path / "own.npz", **arrays)
        return str(tmp_path / "own.npz")

    return save


def test_a_plain_npz(save):
    path = save(x=np.arange(6.0).reshape(3, 2), y=[1, 0, 1])
    table = read_npz(path)
    assert table.x.dtype == np.float32
    assert table.x.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert columns(table) == [[1, 0, 1]]
    assert (table.features, table.targets, table.test, table.image_shape) == (None, ("y",), None, None)
    assert table.where(2) == f"{path}, row 2 (from 0)"


def test_capital_letters_images_and_a_test_part(save):
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    table = read_npz(save(X=images, Y=["b", "a"], X_test=images[:1], Y_test=["a"]))
    assert table.x.dtype == np.uint8
    np.testing.assert_array_equal(table.x, np.arange(24).reshape(2, 12))
    assert table.image_shape == (3, 4)
    assert columns(table) == [["b", "a"]]
    assert table.targets == ("Y",)
    assert table.test is not None
    assert table.test[0].shape == (1, 12)
    assert table.test[1][0].tolist() == ["a"]


def test_targets_of_an_npz_name_arrays_and_their_columns(save):
    path = save(x=np.eye(2), y=[[1, 2], [3, 4]], labels=[7, 8], one=[[5], [6]])
    both = read_npz(path)
    assert both.targets == ("y[0]", "y[1]")
    assert columns(both) == [[1, 3], [2, 4]]
    again = read_npz(path, both.targets)  # the names select the same again
    assert (again.targets, columns(again)) == (both.targets, columns(both))
    assert columns(read_npz(path, ["y[1]"])) == [[2, 4]]
    assert columns(read_npz(path, ["labels"])) == [[7, 8]]
    one = read_npz(path, ["one"])
    assert (one.targets, columns(one)) == (("one",), [[5, 6]])
    mixed = read_npz(path, ["labels", "y[0]"])
    assert (mixed.targets, columns(mixed)) == (("labels", "y[0]"), [[7, 8], [1, 3]])


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint16, np.float16, np.float32, np.float64])
def test_numbers_of_any_kind_become_float32(save, dtype):
    table = read_npz(save(x=np.array([[0, 1]]).astype(dtype), y=[0]))
    assert table.x.dtype == np.float32
    assert table.x.tolist() == [[0, 1]]


X, Y = np.ones((3, 2)), np.zeros(3)
BAD = np.array([[1, 2], [3, np.nan], [np.inf, 0]])


@pytest.mark.parametrize(
    ("arrays", "targets", "message"),
    [
        ({"y": Y}, [], r"has no array 'x'; it holds: y"),
        ({"x": X, "z": Y}, [], r"has no array 'y'; it holds: x, z"),
        ({"x": X, "y": Y}, ["labels"], r"has no array 'labels'; it holds: x, y"),
        ({}, [], r"has no array 'x'; it holds: nothing"),
        ({"x": Y, "y": Y}, [], r"x has the shape \(3,\) of float64: expected numbers \(examples, features\)"),
        ({"x": X.astype(complex), "y": Y}, [], r"x has the shape \(3, 2\) of complex128: expected numbers"),
        ({"x": X.astype(str), "y": Y}, [], r"x has the shape .* expected numbers"),
        ({"x": X[:0], "y": Y[:0]}, [], r"x has the shape \(0, 2\)"),
        ({"x": X, "y": Y[:2]}, [], r"y has the shape \(2,\) .* for the 3 rows of x"),
        ({"x": X, "y": np.zeros((3, 1, 1))}, [], r"y has the shape \(3, 1, 1\)"),
        ({"x": X, "y": np.zeros((3, 0))}, [], r"y has the shape \(3, 0\)"),
        ({"x": X, "y": Y.astype(complex)}, [], r"y has the shape \(3,\) of complex128: expected numbers or text"),
        ({"x": X, "y": X}, ["y[2]"], r"y has the shape \(3, 2\), and no column 2: columns count from 0"),
        ({"x": X, "y": Y}, ["y[0]"], r"y has the shape \(3,\), and no column 0"),
        ({"x": BAD, "y": Y}, [], r"x: row 1, column 1 \(from 0\) is nan: expected a finite number"),
        ({"x": X, "y": BAD}, [], r"y: row 1, column 1 \(from 0\) is nan"),
        ({"x": X * 1e39, "y": Y}, [], r"x: row 0, column 0 \(from 0\) is 1e\+39"),
        ({"x": X, "y": Y, "x_test": X}, [], r"has no array 'y_test'; it holds: x, y, x_test"),
        ({"x": X, "y": Y, "y_test": Y}, [], r"has no array 'x_test'"),
        ({"x": X, "y": Y, "x_test": X[:2], "y_test": Y}, [], r"y_test has the shape .* 2 rows of x_test"),
        ({"x": X, "y": Y, "x_test": BAD, "y_test": Y}, [], r"x_test: row 1, column 1"),
        ({"x": X, "y": Y, "x_test": X[:, :1], "y_test": Y}, [], r"x has 2 features .* x_test has 1 and 1: store both"),
        ({"x": X, "y": Y, "x_test": X, "y_test": X}, [], r"x has 2 features and 1 targets, x_test has 2 and 2"),
    ],
)
def test_every_fault_of_an_npz_is_named(save, arrays, targets, message):
    path = save(**arrays)
    with pytest.raises(DataError, match=r"own\.npz: " + message) as caught:
        read_npz(path, targets)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_objects_are_never_unpickled(save, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = save(x=X, y=np.array([Trap(), 1, 2], dtype=object))
    with pytest.raises(DataError, match=r"the array 'y' cannot be read .*; it holds: x, y; write plain arrays with"):
        read_npz(path)
    assert not (tmp_path / "sprung").exists()


def test_broken_archives(save, tmp_path):
    path = save(x=np.random.default_rng(0).normal(size=(50, 20)), y=np.zeros(50))
    whole = (tmp_path / "own.npz").read_bytes()
    for content in (b"", b"hello", whole[:-30], whole[: len(whole) // 2]):
        (tmp_path / "own.npz").write_bytes(content)
        with pytest.raises(
            DataError, match=r"own\.npz: is no \.npz file, or a damaged one: write it with numpy\.savez"
        ):
            read_npz(path)
    damaged = bytearray(whole)
    damaged[500:510] = bytes(10)
    (tmp_path / "own.npz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"the array 'x' cannot be read .*; it holds: x, y"):
        read_npz(path)
    np.save(tmp_path / "single.npy", X)
    with pytest.raises(DataError, match=r"is no \.npz file"):
        read_npz(tmp_path / "single.npy")


def test_members_that_are_no_arrays(tmp_path):
    path = tmp_path / "own.npz"
    for member, content in (("x", b"text"), ("x.npy", b"text"), ("x.npy", b"\x93NUMPY\x01\x00\xff\xff{")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, content)
        with pytest.raises(DataError, match=r"own\.npz: (the array 'x' cannot be read|x has the shape \(\))"):
            read_npz(path)


def test_an_npy_header_that_lies_about_its_size(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 8), }"
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    with pytest.raises(DataError, match="the array 'x' cannot be read"):
        read_npz(tmp_path / "own.npz")
