"""Multi-layer perceptrons in JAX, with gradients derived by hand.

The command line: ``mlpjax train``, ``mlpjax sweep``, ``mlpjax evaluate``, ``mlpjax verify``, ``mlpjax audit`` and
``mlpjax lecture``.

Arguments are parsed before jax is imported. Whatever a person gave wrong ends as one line on stderr and exit
code 2; Ctrl-C ends with exit code 130, also while modules are being imported, which is why `main` imports them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlpjax.errors import InputError, unknown_name
from mlpjax.interrupt import late_interrupt

if TYPE_CHECKING:
    from mlpjax.command_options import Command

OK, READER_LEFT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
WRONG = 1
"""The audit, or a check of the lecture, found something wrong; or a certificate's run does not come out again."""
COMMANDS = ("train", "sweep", "evaluate", "verify", "audit", "lecture")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    started = time.perf_counter()
    try:
        _print_anything()
        with late_interrupt():
            options = _parse(sys.argv[1:] if argv is None else argv)
            options.validate()
            run = _command(options)
        return run(options, started)
    except InputError as error:
        return complain(str(error))
    except BrokenPipeError:
        return _reader_left()
    except OSError as error:
        return complain(f"{error.filename or 'file'}: {error.strerror or error}")
    except (MemoryError, RuntimeError, ValueError) as error:
        # jax reports it as a RuntimeError, or as a ValueError from an operation outside of jit
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return complain(f"not enough memory ({error}): try smaller layers, a smaller --batch-size or --accumulate")
    except KeyboardInterrupt:
        print("mlpjax: interrupted", file=sys.stderr)
        return INTERRUPTED


def _command(options: Command) -> Callable[[Any, float], int]:
    """Import what a command needs, and no more."""
    from mlpjax.options import AuditOptions, LectureOptions, TrainOptions
    from mlpjax.sweep_options import SweepOptions
    from mlpjax.verify_options import VerifyOptions

    if isinstance(options, AuditOptions):
        from mlpjax.audit_command import audit

        return audit
    if isinstance(options, LectureOptions):
        from mlpjax.lecture_command import lecture

        return lecture
    if isinstance(options, SweepOptions):
        from mlpjax.sweep_command import sweep

        return sweep
    if isinstance(options, VerifyOptions):
        from mlpjax.verify_command import verify

        return verify
    from mlpjax import commands

    return commands.train if isinstance(options, TrainOptions) else commands.evaluate


def _print_anything() -> None:
    """Let stdout replace, as stderr does, the characters that its encoding lacks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _parse(argv: Sequence[str]) -> Command:
    """Parse the arguments; what tyro complains about in a box becomes the one line of an `InputError`."""
    import tyro

    from mlpjax.command_options import Command

    def parse() -> Command:
        return tyro.cli(Command, args=argv, prog="mlpjax", description=__doc__.splitlines()[0])

    complaint = io.StringIO()
    # tyro draws by what stdout is: so that there is one kind of box, it is no terminal here
    plain = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(plain):
            return parse()
    except SystemExit as error:
        if error.code in (0, None):
            return parse()
        raise InputError(_one_line(complaint.getvalue(), argv)) from None


def _one_line(box: str, argv: Sequence[str]) -> str:
    """Take the first paragraph out of a drawn box, and say what to do."""
    lines: list[str] = []
    for line in re.sub(r"\x1b\[[\d;]*m", "", box).splitlines():
        text = line.strip(" │|")
        if text and not set(text) & set("╭╰") and not set(text) <= set("─-"):
            lines.append(text)
        elif lines:
            break
    message = " ".join(lines) or "the arguments could not be parsed"
    if unknown := re.match(r"Unrecognized(?: or misplaced)? options: ?([^ ,]*)", message):
        return _unknown(unknown[1], argv)
    if choice := re.match(r"invalid choice '(.*)' for argument '--([\w-]+)'\. Expected one of \((.*)\)", message):
        return unknown_name(f"--{choice[2]}", choice[1], sorted(re.findall(r"'([^']*)'", choice[3])))
    return f"{message.rstrip('.')}; see mlpjax {' '.join(a for a in argv[:1] if a in COMMANDS)} --help"


def _unknown(word: str, argv: Sequence[str]) -> str:
    """Word the message for an option or a command that does not exist."""
    import dataclasses

    from mlpjax.command_options import OPTIONS

    if not argv or argv[0] not in COMMANDS:
        return unknown_name("command", word, COMMANDS)
    if not word.startswith("-"):
        return f"unexpected argument {word!r}: expected an option, such as --data; see mlpjax {argv[0]} --help"
    fields = dataclasses.fields(OPTIONS[argv[0]])
    names = [f"--{field.name.replace('_', '-')}" for field in fields if field.name not in ("model", "id", "file")]
    return unknown_name("option", word, names)


def _reader_left() -> int:
    """End quietly where the reader of stdout did, such as ``head``; what Python still wants to write is dropped."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_LEFT


def complain(message: str) -> int:
    """Print a message of one line on stderr, and return the exit code of bad input."""
    print(f"mlpjax: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT
