"""Reading changed files and judging what happens, for `fuzz.py` and its rehearsal in the tests."""

from __future__ import annotations

import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from fuzz_formats import FORMATS

import mlpjax
from mlpjax.errors import CheckpointWarning

SECONDS, BYTES = 10.0, 10**9
"""No input may take longer, or more memory."""
MOST_CHARACTERS = 10_000
"""No message may be longer."""
FORBIDDEN = (
    "pickle.find_class", "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "ctypes.dlopen",
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
    "os.truncate", "shutil.rmtree",
)  # fmt: skip
"""What no reader does: Python's names of audited events."""


class Finding(NamedTuple):
    """What went wrong, where, and with which input."""

    what: str
    where: str
    input: bytes


class TooSlow(BaseException):
    """An input takes far too long; no reader catches it."""


class Session:
    """One format in one process."""

    def __init__(self, name: str, folder: Path) -> None:
        self.format, self.folder = FORMATS[name], folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"input{self.format.suffix}"
        self.quiet = name != "command"
        self.outcomes: Counter[str] = Counter()
        self.findings: dict[tuple[str, str], Finding] = {}
        self.seconds_most = 0.0
        self.reading = False
        self.events: list[str] = []
        self.seeds = self.format.seeds(folder)
        for content in self.seeds:
            self.try_input(content)
        if self.findings or not self.outcomes["read"]:
            raise RuntimeError(f"{name}: good inputs end in {dict(self.outcomes)}: {list(self.findings)}")
        self.outcomes.clear()
        self.seconds_most = 0.0
        self.start_bytes = self.seen_bytes = _peak()

    def try_input(self, content: bytes) -> None:
        """Read a file of this content, and remember how that ended."""
        self.path.write_bytes(content)
        self.events.clear()
        started = time.process_time()
        what, where = self._outcome()
        seconds = time.process_time() - started
        self.seconds_most = max(self.seconds_most, seconds)
        if seconds > SECONDS:
            what, where = "slow", f"{seconds:.0f} s of CPU"
        if (peak := _peak()) > getattr(self, "seen_bytes", peak) + BYTES:
            what, where, self.seen_bytes = "memory", f"{(peak - self.seen_bytes) / 1e6:.0f} MB", peak
        if self.events:
            what, where = "side effect", self.events[0]
        if where:
            self.findings.setdefault((what, where), Finding(what, where, content))
        self.outcomes[what] += 1

    def report(self) -> dict[str, Any]:
        """What was found so far, as plain values."""
        return {
            "inputs": sum(self.outcomes.values()),
            "outcomes": dict(sorted(self.outcomes.items())),
            "slowest_seconds": round(self.seconds_most, 3),
            "peak_bytes": _peak() - self.start_bytes,
        }

    def _outcome(self) -> tuple[str, str]:
        """How reading ends, and, where that is wrong, in which place."""
        signal.signal(signal.SIGALRM, _too_slow)
        signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
        self.reading = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", CheckpointWarning)
                self.format.read(self.path)
        except mlpjax.InputError as error:
            wrong = self._wrong(error)
            return (wrong, _place(error)) if wrong else (type(error).__name__, "")
        except OSError as error:
            # the system says what is wrong, and the path is an attribute
            return ("OSError", "") if error.filename else ("message: does not name the file", _place(error))
        except (Exception, TooSlow) as error:
            return f"crash: {type(error).__name__}", _place(error)
        finally:
            self.reading = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        return "read", ""

    def _wrong(self, error: BaseException) -> str:
        """What is wrong with an error for bad input: it is one line of bounded length, and names the file."""
        text = str(error)
        cause: BaseException | None = error
        while cause is not None:
            # Python's parser raises MemoryError for deep nesting
            if (
                isinstance(cause, MemoryError)
                and "ast.py" not in traceback.extract_tb(cause.__traceback__)[-1].filename
            ):
                return "memory: asked for more than there is"
            cause = cause.__context__
        if not text.isprintable():
            return "message: is not one printable line"
        if len(text) > MOST_CHARACTERS:
            return "message: is too long"
        source = ("--config",) if self.path.suffix == ".json" else ()
        if self.quiet and not any(name in text for name in (str(self.path), *source)):
            return "message: does not name the file"
        return ""

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of what no reader does, as a hook of `sys.addaudithook`."""
        if not self.reading:
            return
        writes = event == "open" and isinstance(arguments[1], str) and any(c in arguments[1] for c in "wax+")
        if event in FORBIDDEN or writes:
            self.events.append(f"{event} {arguments[:1]}")


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def _peak() -> int:
    """The most memory that this process has had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _place(error: BaseException) -> str:
    """The innermost line of mlpjax in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = next((frame for frame in reversed(frames) if "mlpjax" in Path(frame.filename).parts), frames[-1])
    return f"{Path(inner.filename).name}:{inner.lineno}"
