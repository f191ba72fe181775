"""The command line in this process."""

from typing import Any, NamedTuple

from mlpjax import cli


class Ran(NamedTuple):
    """What a command did: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def runner(capsys):
    """A function that runs a command."""

    def run(*arguments: Any) -> Ran:
        code = cli.main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run
