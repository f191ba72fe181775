"""Every reader of files against changed files: nothing may crash, hang, take memory, or do anything but read.

Formats: idx (plain and gzip), CSV, the user's NPZ, gradient files, model files, checkpoints and replay files (sealed by
a SHA-256, which is made right again after most changes, so that what is behind it is reached), certificates and configs
as JSON, the ``.npy`` of `mlpjax.DiskData`, and the words of the command line. Each format has a process of its own, in
which an input is written to a file and read. Good files are changed with their structure in mind (`fuzz_inputs`,
`fuzz_archives`); atheris, where it is installed, keeps what reaches new lines of mlpjax, and changes that further.
Seeds are fixed, so that a run differs from another one by its time only.

Claims, for every input: it is read, or refused by an error of `mlpjax.errors` or an `OSError`, whose message is one
printable line that names the file; within 10 s of CPU; memory never grows by 1 GB, nor is so much asked for; nothing is
unpickled, written, started or connected to meanwhile. And at least 10 minutes were spent on each format.

    uv run --with atheris python experiments/fuzz.py [--formats idx csv] [--minutes 10] [--folder DIR]
    uv run python experiments/fuzz.py --minutes 0.1 --formats csv    # a rehearsal, without atheris

An input that breaks a claim is kept in ``--folder``. What ran for a minute or longer is written to
experiments/results/fuzz.json, each format in place of its own part. Exits with an error when a claim is missed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

TARGET = Path(__file__).parent / "results" / "fuzz.json"
MINUTES, REHEARSAL = 10.0, 1.0
SILENT = 120.0
"""A process that says nothing for so many seconds hangs."""

Name = Literal[
    "idx", "csv", "npz", "gradient", "model", "checkpoint", "replay", "certificate", "config", "npy", "command"
]
NAMES: tuple[Name, ...] = get_args(Name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Read changed files."""

    formats: tuple[Name, ...] = NAMES
    """Which formats."""
    minutes: float = MINUTES
    """How long each."""
    seed: int = 0
    """Seed of the changes."""
    folder: Path | None = None
    """Where inputs that break a claim are kept; by default a new folder."""


def explore(options: Options, name: str, folder: Path) -> dict[str, Any]:
    """Run the processes of one format until its time is over: its record."""
    record: dict[str, Any] = {"inputs": 0, "outcomes": {}, "slowest_seconds": 0.0, "peak_bytes": 0, "findings": []}
    end, seed, cpu = time.monotonic() + 60 * options.minutes, options.seed, 0.0
    while (left := end - time.monotonic()) > 1:
        place = folder / name / f"seed-{seed}"
        died = watch(name, seed, left, place)
        if not (place / "report.json").exists():
            raise SystemExit(f"{name} did not begin: see {place / 'log.txt'}")
        done = json.loads((place / "report.json").read_text(encoding="utf-8"))
        if died:
            done["findings"].append({"what": died, "where": "process", "input": str(place / "work")})
        record["inputs"] += done["inputs"]
        cpu += done["cpu_seconds"]
        for what, count in done["outcomes"].items():
            record["outcomes"][what] = record["outcomes"].get(what, 0) + count
        for most in ("slowest_seconds", "peak_bytes"):
            record[most] = max(record[most], done[most])
        record["findings"] += [
            {**finding, "input": os.path.relpath(finding["input"], folder)} for finding in done["findings"]
        ]
        seed += 1
    return {
        "minutes": options.minutes,
        "seeds": list(range(options.seed, seed)),
        "per_second": record["inputs"] / (60 * options.minutes),
        "per_cpu_second": record["inputs"] / max(cpu, 1e-9),
        **record,
    }


def watch(name: str, seed: int, seconds: float, place: Path) -> str:
    """Run one process, and say how it died if it did not end by itself."""
    place.mkdir(parents=True, exist_ok=True)
    report = place / "report.json"
    script = Path(__file__).with_name("fuzz_process.py")
    command = [sys.executable, str(script), name, str(seed), str(seconds), str(place)]
    with open(place / "log.txt", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        heard, before = time.monotonic(), 0.0
        while process.poll() is None:
            time.sleep(0.5)
            now = report.stat().st_mtime if report.exists() else 0.0
            if now != before:
                heard, before = time.monotonic(), now
            if time.monotonic() - heard > SILENT:
                process.kill()
                process.wait()
                return f"hang: silent for {SILENT:.0f} s"
    return "" if process.returncode == 0 else f"died with exit code {process.returncode}"


def main(options: Options) -> int:
    """Print and write what was found; returns 1 when a claim is missed."""
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(f"inputs that break a claim are kept in {folder}", flush=True)
    found: dict[str, Any] = {}
    for name in options.formats:
        found[name] = record = explore(options, name, folder)
        told = ", ".join(f"{what} {count:,}" for what, count in sorted(record["outcomes"].items()))
        print(
            f"{name}, seeds {record['seeds']}: {record['inputs']:,} inputs, {record['per_second']:.0f}/s; {told}; "
            f"slowest {record['slowest_seconds']:.2f} s, memory +{record['peak_bytes'] / 1e6:.0f} MB",
            flush=True,
        )
        for finding in record["findings"]:
            print(f"  {finding['what']} at {finding['where']}: {finding['input']}", flush=True)
    if options.minutes >= REHEARSAL:
        write(found)
    short = REHEARSAL <= options.minutes < MINUTES
    return int(any(record["findings"] for record in found.values()) or short)


def write(found: dict[str, Any]) -> None:
    """Put the records of formats into the JSON."""
    from mlpjax.versions import versions

    whole = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {"formats": {}}
    whole["formats"] |= {
        name: {
            **{key: round(value, 3) if isinstance(value, float) else value for key, value in record.items()},
            "guided": find_spec("atheris") is not None,
        }
        for name, record in found.items()
    }
    claims = {"findings": 0, "minutes": MINUTES, "seconds": 10.0, "bytes": 10**9}
    records = [whole["formats"].get(name, {"findings": ["not run"], "minutes": 0}) for name in NAMES]
    met = all(not record["findings"] and record["minutes"] >= MINUTES for record in records)
    machine = {"cpu_count": os.cpu_count(), "machine": platform.machine()}
    whole = {"claims": claims, "met": met, **whole, "machine": machine, "versions": versions()}
    TARGET.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
