"""The command line in this process."""

from pathlib import Path
from typing import Any, NamedTuple

from mlpjax import cli


class Ran(NamedTuple):
    """What a command did: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def texts_of(*names: str) -> str:
    """What stands in these files of tests: whether an option is tried."""
    return "".join(Path(__file__).with_name(f"test_{name}.py").read_text(encoding="utf-8") for name in names)


def runner(capsys):
    """A function that runs a command."""

    def run(*arguments: Any) -> Ran:
        code = cli.main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run
