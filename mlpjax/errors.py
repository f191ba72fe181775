"""The errors that mlpjax raises for what a person gave it; all are `ValueError`s."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Something given by the caller is wrong: the message says what was got, what was expected, what to do.

    It is one printable line, whatever a file calls its arrays.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ConfigError(InputError):
    """A value of `mlpjax.Config` or of a training option is out of its range."""


class DataError(InputError):
    """A data set, or a batch, is not what the network or the reader expects."""


class CheckpointError(InputError):
    """A training checkpoint is damaged, is of another run, or cannot be written."""


class CheckpointWarning(UserWarning):
    """A run goes on from a checkpoint, but not from the newest, or not where that was written."""


class ModelFileError(InputError):
    """A model file is damaged, is not a model file, or is from another format version."""


def one_line(message: str, most: int = 8000) -> str:
    r"""Make a message one printable line of bounded length.

    >>> one_line("a\nb\x1b[2J")
    'a b\\x1b[2J'
    """
    words = " ".join(message.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return line if len(line) <= most else f"{line[:most]}…"


def unknown_name(what: str, got: object, known: Iterable[str]) -> str:
    """Word the message for a name that no table has.

    >>> unknown_name("activation", "rleu", ["relu", "tanh"])
    "unknown activation 'rleu': did you mean 'relu'? known: relu, tanh"
    """
    import difflib

    known = list(known)
    close = difflib.get_close_matches(str(got), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {what} {got!r}: {hint}known: {', '.join(known)}"


def listed(names: Iterable[Any], most: int = 20) -> str:
    """Word a list for a message, cut when it is long.

    >>> listed(["a", "b", "c"], most=2)
    'a, b, … (3 in all)'
    """
    words = [str(name) for name in names]
    return ", ".join(words) if len(words) <= most else f"{', '.join(words[:most])}, … ({len(words)} in all)"
