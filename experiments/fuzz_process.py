"""One process of `fuzz.py`: ``fuzz_process.py FORMAT SEED SECONDS FOLDER`` writes FOLDER/report.json while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if find_spec("atheris"):
    import atheris

    # only what is imported in here reports which of its lines are reached
    with atheris.instrument_imports(include=["mlpjax"]):
        from fuzz_session import BYTES, Session
else:
    from fuzz_session import BYTES, Session

EVERY = 2.0
"""Seconds between two reports."""
CHANGED_BYTES = 2**18
"""Inputs grow by their changes; larger ones are not taken."""


class Process:
    """A session with its reports."""

    def __init__(self, name: str, seed: int, seconds: float, folder: Path) -> None:
        self.folder, self.seed = folder, seed
        self.session = Session(name, folder / "work")
        self.end, self.next = time.monotonic() + seconds, 0.0
        self.kept: list[dict[str, str]] = []
        self.report()

    def one(self, content: bytes) -> None:
        """Read one input, and report from time to time."""
        self.session.try_input(content)
        now = time.monotonic()
        if now >= self.next or len(self.session.findings) > len(self.kept):
            self.next = now + EVERY
            self.report()
        if now >= self.end:
            # atheris ends by exiting in any case
            self.report()
            os._exit(0)

    def report(self) -> None:
        """Write what was found so far, and the inputs that are to be kept."""
        for i, finding in enumerate(self.session.findings.values()):
            if i >= len(self.kept):
                path = self.folder / f"finding-{i}{self.session.format.suffix}"
                path.write_bytes(finding.input)
                self.kept.append({"what": finding.what, "where": finding.where, "input": str(path)})
        whole = {**self.session.report(), "cpu_seconds": time.process_time(), "findings": self.kept}
        temporary = self.folder / "report.tmp"
        temporary.write_text(json.dumps(whole), encoding="utf-8")
        temporary.replace(self.folder / "report.json")

    def change(self, content: bytes, most: int, seed: int) -> bytes:
        """Change an input, as atheris asks for it."""
        changed = self.session.format.change(content, random.Random(seed))
        return changed if len(changed) <= most else content

    def unguided(self) -> None:
        """Change good inputs, without a look at what they reach."""
        rng = random.Random(self.seed)
        while True:
            content = rng.choice(self.session.seeds)
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                content = self.change(content, CHANGED_BYTES, rng.getrandbits(32))
            self.one(content)

    def guided(self) -> None:
        """Let atheris choose what to change."""
        corpus = self.folder / "corpus"
        corpus.mkdir(exist_ok=True)
        for i, content in enumerate(self.session.seeds):
            (corpus / f"seed-{i}").write_bytes(content)
        flags = [
            f"-seed={self.seed + 1}",
            f"-max_len={CHANGED_BYTES}",
            "-timeout=0",
            "-rss_limit_mb=0",
            "-mutate_depth=2",
            f"-artifact_prefix={self.folder}/",
        ]
        atheris.Setup([sys.argv[0], *flags, str(corpus)], self.one, custom_mutator=self.change)
        atheris.Fuzz()


def limit_memory() -> None:
    """Let what asks for far more memory than is allowed fail, before the machine does."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + 3 * BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    """Run until the time is over."""
    name, seed, seconds, folder = sys.argv[1:]
    process = Process(name, int(seed), float(seconds), Path(folder))
    limit_memory()
    sys.addaudithook(process.session.watch)
    run: Callable[[], Any] = process.guided if find_spec("atheris") else process.unguided
    run()


if __name__ == "__main__":
    main()
