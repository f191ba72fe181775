"""Multi-layer perceptrons in JAX, with gradients derived by hand.

The command line, ``mlpjax train`` and ``mlpjax evaluate``.

Arguments are parsed before jax is imported. Whatever a person gave wrong ends as one line on stderr and exit
code 2; Ctrl-C ends with exit code 130.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
import time
from collections.abc import Sequence

import tyro

from mlpjax.errors import InputError, unknown_name
from mlpjax.options import Command, EvaluateOptions, TrainOptions

BAD_INPUT, INTERRUPTED = 2, 130
COMMANDS: dict[str, type] = {"train": TrainOptions, "evaluate": EvaluateOptions}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    started = time.perf_counter()
    try:
        options = _parse(sys.argv[1:] if argv is None else argv)
        options.check()
        from mlpjax import commands

        if isinstance(options, TrainOptions):
            return commands.train(options, started)
        return commands.evaluate(options, started)
    except InputError as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"{error.filename or 'file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("mlpjax: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parse(argv: Sequence[str]) -> Command:
    """Parse the arguments; what tyro complains about in a box becomes the one line of an `InputError`."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(Command, args=argv, prog="mlpjax", description=__doc__.splitlines()[0])
    except SystemExit as error:
        if error.code in (0, None):
            raise
        raise InputError(_one_line(complaint.getvalue(), argv)) from None


def _one_line(box: str, argv: Sequence[str]) -> str:
    """Take the first paragraph out of a drawn box, and say what to do."""
    lines: list[str] = []
    for line in box.splitlines():
        text = line.strip(" │|")
        if text and not set(text) & set("╭╰") and not set(text) <= set("─-"):
            lines.append(text)
        elif lines:
            break
    message = " ".join(lines) or "the arguments could not be parsed"
    if unknown := re.match(r"Unrecognized options: ([^ ,]+)", message):
        return _unknown(unknown[1], argv)
    return f"{message.rstrip('.')}; see mlpjax {' '.join(a for a in argv[:1] if a in COMMANDS)} --help"


def _unknown(word: str, argv: Sequence[str]) -> str:
    """Word the message for an option or a command that does not exist."""
    if not argv or argv[0] not in COMMANDS:
        return unknown_name("command", word, COMMANDS)
    fields = dataclasses.fields(COMMANDS[argv[0]])
    return unknown_name("option", word, [f"--{field.name.replace('_', '-')}" for field in fields])


def _complain(message: str) -> int:
    print(f"mlpjax: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
