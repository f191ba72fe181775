"""The user's own data: the record `Table` of features and raw target columns, and CSV files read into it.

Every error is one line that names the file, the line (from 1), the column, and what to do.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import itertools
import math
import os
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from mlpjax.errors import DataError, listed
from mlpjax.files import open_file
from mlpjax.finite import FLOAT32_MAX

MAX_ROW_BYTES = 2**22
"""A row is read whole: what is longer is no table, or one for ``.npz``."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """What a file holds: features, and targets not yet encoded.

    Args:
        path: the file, for messages.
        x: (m, n0), float32; uint8 where the file stores bytes.
        y: one array (m,) per target: integers, bools, floats, or objects that are `str`.
        features: the n0 names of the columns of ``x``, or ``None``.
        targets: the names of the columns of ``y``; the same names select them again.
        test: the same pair ``(x, y)`` for a test part that the file has.
        image_shape: the shape of one example that was flattened from two dimensions.
        lines: (m,) the line of the file on which each example begins, or ``None``.
    """

    path: str
    x: np.ndarray
    y: tuple[np.ndarray, ...]
    features: tuple[str, ...] | None
    targets: tuple[str, ...]
    test: tuple[np.ndarray, tuple[np.ndarray, ...]] | None = None
    image_shape: tuple[int, ...] | None = None
    lines: np.ndarray | None = None

    def where(self, i: int) -> str:
        """Word the place of example ``i`` (from 0) for a message."""
        return f"{self.path}, row {i} (from 0)" if self.lines is None else f"{self.path}, line {self.lines[i]}"


def read_csv(
    path: str | os.PathLike[str],
    targets: Sequence[str],
    *,
    features: Sequence[str] | None = None,
    text_targets: bool = False,
) -> Table:
    r"""Read a table of numbers with a header line; comma, semicolon or tab, whichever splits that line most.

    A first line of numbers only is data: its columns are named "0", "1", …. Blank lines are skipped. A target
    is integers if every cell is a whole number ("3" or "3.0"), floats if every cell is a number, else text.

    Args:
        path: a file in UTF-8.
        targets: the columns to predict, by name; a number that no column has as its name is a position, from
            "0", or from "-1" for the last column.
        features: the columns of ``x``, in this order; other columns are ignored. ``None``: all but the targets.
        text_targets: leave the targets as the text that the file has.

    Raises:
        DataError: the file cannot be read as such a table.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "own.csv")
    ...     _ = path.write_text("height,width,kind\n1,2,cat\n3,4,dog\n")
    ...     table = read_csv(path, ["kind"])
    >>> table.features, table.x.tolist(), table.y[0].tolist()
    (('height', 'width'), [[1.0, 2.0], [3.0, 4.0]], ['cat', 'dog'])
    """
    path = os.fspath(path)
    try:
        with open_file(path) as file:
            return _read_table(path, file, targets, features, text_targets)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error


def _read_table(
    path: str, file: BinaryIO, targets: Sequence[str], features: Sequence[str] | None, text_targets: bool
) -> Table:
    rows = _rows(path, file)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: is empty: expected a header line and one line per example")
    line, columns = first[0], [cell.strip() for cell in first[1]]
    if all(is_number(cell) for cell in columns):
        rows = itertools.chain([first], rows)
        columns = [str(k) for k in range(len(columns))]
    target_names, feature_names = _choose(path, line, columns, targets, features)
    at = {name: k for k, name in enumerate(columns)}
    target_at = [at[name] for name in target_names]
    feature_at = [at[name] for name in feature_names]
    # arrays grow by appending and take 4 bytes a number; the text of a row is dropped at once
    x, lines = array("f"), array("q")
    cells: list[list[str]] = [[] for _ in target_at]
    for line, row in rows:
        if len(row) != len(columns):
            raise DataError(
                f"{path}, line {line}: has {len(row)} cells, the first line has {len(columns)}: "
                "give every line the same columns, and quote text that has the delimiter in it"
            )
        values = _numbers([row[k] for k in feature_at])
        if values is None:
            raise _bad_cell(path, line, row, columns, feature_at)
        x.extend(values)
        for column, k in zip(cells, target_at, strict=True):
            if not (cell := row[k].strip()):
                raise DataError(f"{path}, line {line}, column {columns[k]!r}: is empty: fill it or remove the line")
            column.append(cell)
        lines.append(line)
    if not lines:
        raise DataError(f"{path}: has a header line and no data: expected one line per example")
    y = [
        np.array(column, dtype=object) if text_targets else _target(path, name, column, lines)
        for name, column in zip(target_names, cells, strict=True)
    ]
    return Table(
        path=path,
        x=np.frombuffer(x, dtype=np.float32).reshape(len(lines), -1),
        y=tuple(y),
        features=feature_names,
        targets=target_names,
        lines=np.frombuffer(lines, dtype=np.int64),
    )


def _rows(path: str, file: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank with the line on which it begins."""
    lines = _Lines(path, file)
    head = ""
    for head in lines:
        if head.strip():
            break
        lines.row_bytes = 0
    blank = max(0, lines.number - 1)
    delimiter = max(",;\t", key=lambda d: _width(head, d))
    reader = csv.reader(itertools.chain([head], lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        line = blank + reader.line_num + 1
        lines.row_bytes = 0
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: is not CSV ({error}): check the quotes") from error
        if len(row) > 1 or any(cell.strip() for cell in row):
            yield line, row


def _width(line: str, delimiter: str) -> int:
    """Count the cells that a line has with a delimiter; what is no CSV is found when it is read."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:
        return 0


class _Lines:
    """The lines of a file, decoded one by one, so that an error can name its line.

    A row may have several lines; whoever reads rows sets ``row_bytes`` to 0 at the beginning of each.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.number = self.row_bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline(MAX_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.row_bytes += len(line)
        if self.row_bytes > MAX_ROW_BYTES:
            raise DataError(
                f"{self.path}, line {self.number}: a row has more than {MAX_ROW_BYTES:,} bytes: check the quotes and "
                "the line breaks, or store the table as .npz"
            )
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            place = f"{self.path}, line {self.number}"
            raise DataError(f"{place}: is not UTF-8 text ({error.reason}): save it as UTF-8") from error
        return text.removeprefix("\ufeff") if self.number == 1 else text


def _choose(
    path: str, line: int, columns: list[str], targets: Sequence[str], features: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the target columns and of the feature columns."""
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise DataError(f"{path}, line {line}: two columns are named {twice[0]!r}: rename one")
    if not targets:
        raise DataError(f"{path}: no target is given: name the column to predict, one of {listed(columns)}")
    known = set(columns)
    chosen = tuple(name if name in known else _position(path, columns, name) for name in targets)
    if len(set(chosen)) < len(chosen):
        raise DataError(f"{path}: a target is given twice ({', '.join(chosen)}): name each column once")
    if features is not None:
        missing = [repr(name) for name in features if name not in known]
        if missing:
            raise DataError(
                f"{path}: lacks the feature columns {listed(missing)}, which the model was trained on; "
                f"columns: {listed(columns)}"
            )
        if taken := set(chosen) & set(features):
            raise DataError(
                f"{path}: {min(taken)!r} is one of the features of the model, not its target: name the target column"
            )
        return chosen, tuple(features)
    others = known.difference(chosen)
    rest = tuple(name for name in columns if name in others)
    if not rest:
        raise DataError(f"{path}: has no feature column: every column is a target ({', '.join(chosen)})")
    if "" in rest:
        # an index written by pandas would leak the order of the rows
        raise DataError(f"{path}, line {line}: column {columns.index('') + 1} has no name: name it, or remove it")
    return chosen, rest


def _position(path: str, columns: list[str], name: str) -> str:
    """Return the name of a column that is given by its position."""
    number = re.fullmatch(r"-?\d+", name)
    # more digits than int() takes are out of range too
    if number and len(name) < 10 and -len(columns) <= int(name) < len(columns):
        return columns[int(name)]
    # the time that this takes grows with the square of the length
    close = difflib.get_close_matches(name, columns[:1000], n=1) if len(name) <= 100 else []
    hint = f"did you mean {close[0]!r}? " if close else ""
    if number:
        hint += "a number counts the columns from 0, or from -1 for the last; "
    raise DataError(f"{path}: has no column {name!r}: {hint}columns: {listed(columns)}")


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number, nan and inf included.

    >>> is_number("-1e3"), is_number("1_000"), is_number("")
    (True, False, False)
    """
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python's own notation, not a table's


def _numbers(cells: list[str]) -> list[float] | None:
    """Read the cells of a row, or return ``None`` where one is no finite number of float32."""
    try:
        values = list(map(float, cells))
    except ValueError:
        return None
    # the sum is finite only if all are; this runs once per row, not once per cell
    fit = math.isfinite(sum(values)) and max(values) <= FLOAT32_MAX and min(values) >= -FLOAT32_MAX
    return values if fit and "_" not in "".join(cells) else None


def _bad_cell(path: str, line: int, row: list[str], columns: list[str], at: Iterable[int]) -> DataError:
    """Word the error for the first cell among ``at`` that is no finite number of float32."""
    k = next(k for k in at if _numbers([row[k]]) is None)
    cell, place = row[k].strip(), f"{path}, line {line}, column {columns[k]!r}"
    if not cell:
        return DataError(f"{place}: is empty: fill it, remove the line, or remove the column")
    if is_number(cell):
        return DataError(f"{place}: {cell} is no finite number of float32: correct it or remove the line")
    return DataError(
        f"{place}: {cell!r} is text, features are numbers: correct it, make it a target, or remove the column"
    )


def _target(path: str, name: str, cells: list[str], lines: Sequence[int]) -> np.ndarray:
    """Make a target column of integers, of floats, or of text."""
    if not all(is_number(cell) for cell in cells):
        return np.array(cells, dtype=object)
    numbers = [float(cell) for cell in cells]
    for value, line in zip(numbers, lines, strict=True):
        if not abs(value) <= FLOAT32_MAX:
            raise DataError(
                f"{path}, line {line}, column {name!r}: {value} is no finite number of float32: "
                "correct it or remove the line"
            )
    if all(value.is_integer() and abs(value) < 2.0**63 for value in numbers):
        return np.array([_integer(cell) for cell in cells], dtype=np.int64)
    return np.array(numbers)


def _integer(cell: str) -> int:
    """Read a whole number of 64 bits."""
    # int(cell) keeps the digits that a float has not, but takes only so many zeros before them
    short = len(cell) <= sys.int_info.str_digits_check_threshold
    return int(cell) if short and cell.lstrip("+-").isdigit() else int(float(cell))
