"""Values out of a file that anybody may have written, checked one by one."""

from __future__ import annotations

import math
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from mlpjax.errors import InputError, unknown_name

MOST_ITEMS, MOST_CHARACTERS = 1000, 10_000
"""Longer lists and texts are in no certificate."""

_EXPECTED = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


class FileError(InputError):
    """What is wrong inside a file; whoever reads the file adds its name."""


def fields(what: str, record: Any, names: tuple[str, ...]) -> list[Any]:
    """The values of a record that has these names and no others.

    >>> fields("it", {"b": 1, "a": 2}, ("a", "b"))
    [2, 1]
    """
    if not isinstance(record, dict) or record.keys() != set(names):
        raise FileError(f"{what}: expected a record of {', '.join(names)}")
    return [record[name] for name in names]


def text(what: str, value: Any) -> str:
    """A text that can be shown on a line.

    >>> text("data", "digits")
    'digits'
    """
    if not isinstance(value, str) or not value.isprintable() or len(value) > MOST_CHARACTERS:
        raise FileError(f"{what} is {value!r:.40}: expected a printable text of at most {MOST_CHARACTERS:,} characters")
    return value


def integer(what: str, value: Any, low: int, high: int) -> int:
    """An integer within bounds, which are allowed.

    >>> integer("epoch", 3, 1, 3)
    3
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FileError(f"{what} is {value!r:.40}: expected an integer from {low} to {high}")
    return value


def option_value(name: str, hint: Any, value: Any) -> Any:
    """The value of an option, of the type that the option has.

    >>> option_value("hidden", tuple[int, ...], [8, 4]), option_value("clip", float | None, 1)
    ((8, 4), 1.0)
    >>> option_value("grad", Literal["hand", "autodiff"], "hnd")
    Traceback (most recent call last):
        ...
    mlpjax.certificate_values.FileError: unknown --grad 'hnd': did you mean 'hand'? known: hand, autodiff
    """
    origin, option = get_origin(hint), f"--{name.replace('_', '-')}"
    if origin in (Union, UnionType):
        (inner,) = (one for one in get_args(hint) if one is not type(None))
        return None if value is None else option_value(name, inner, value)
    if origin is tuple:
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            raise FileError(f"{option} is {value!r:.40}: expected a list of at most {MOST_ITEMS:,} values")
        return tuple(option_value(name, get_args(hint)[0], item) for item in value)
    if origin is Literal:
        if text(option, value) not in get_args(hint):
            raise FileError(unknown_name(option, value, get_args(hint)))
        return value
    if hint is float and type(value) in (int, float):
        return _number(option, value)
    if type(value) is not hint:
        raise FileError(f"{option} is {value!r:.40}: expected {_EXPECTED[hint]}")
    return text(option, value) if hint is str else value


def _number(option: str, value: int | float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FileError(f"{option} is no finite number")
    return number
