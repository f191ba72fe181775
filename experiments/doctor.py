"""Does the doctor find what is wrong? A library of training runs, sick and healthy, whose causes are known.

Each sick run is a healthy one to which one thing was done (`doctor_library`); the healthy ones (`doctor_patients`) are
networks, optimisers and data sets that go together. A cause that was made is found if it is among
``Examination.causes``; whatever else is among these is a false alarm, a mere consequence too. Precision and recall
count pairs of a run and a cause.

Limits were chosen on the part ``odd``. The part ``even`` was held out and run once; then the rules of `BEFORE` were
changed, so that it is seen too. The part ``held_out`` has the same sicknesses on data sets that no other part has, with
other networks, strengths and seeds; it was run once, after the last change. Claim: on it, precision and recall are at
least 90 %.

    uv run python experiments/doctor.py [odd] [even] [held_out] [--only WORD …] [--processes 2]

Writes experiments/results/doctor.json, where a part that is run replaces its own, and exits with an error when the
claim is missed.
"""

import gc
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from doctor_library import library

from mlpjax.doctor_verdicts import LIMITS
from mlpjax.versions import versions

CLAIM = 0.9
TARGET = Path(__file__).parent / "results" / "doctor.json"
BEFORE: dict[str, Any] = {
    "part": "even",
    "runs": 81,
    "precision": 55 / 59,
    "recall": 55 / 57,
    "exactly_right": 77,
    "healthy": 24,
    "called_healthy": 23,
    "then_changed": [
        "another rate, no penalty or no dropout count as a cure only with half of the best fall of the loss",
        "dead units at the start and after training are two measures",
        "seeds are judged only where the best start has less than half of the loss of a constant",
        "targets can follow from the head",
        "20 examples get 1000 steps, not 500",
        "start_loss is a warning from 6 on, not 4",
    ],
}
"""What the part ``even`` said when it was held out, and what was changed after that."""


def record(place: tuple[str, int]) -> dict[str, Any]:
    """What the doctor says of one run, named by its part of the library and its number."""
    part, number = place
    planned = library()[part][number]
    run = planned.make()
    started = time.perf_counter()
    found = run.examine()
    if number % 10 < 2:  # the system limits the memory maps that compiled programs take
        jax.clear_caches()
        gc.collect()
    bad = [verdict for verdict in found.verdicts if verdict.level != "fine"]
    row = {
        "number": number,
        "run": f"{planned.name}: {run.name}",
        "causes": list(planned.causes),
        "found": [verdict.name for verdict in found.causes],
        "values": {verdict.name: float(f"{verdict.value:.4g}") for verdict in found.verdicts},
        "consequences": {verdict.name: list(verdict.explained_by) for verdict in bad if verdict.explained_by},
    }
    right = "right" if set(row["causes"]) == set(row["found"]) else "WRONG"
    found_in = f"{time.perf_counter() - started:.1f} s"
    told = f"{', '.join(row['found']) or 'nothing'}; {', '.join(row['consequences'])}"
    print(f"{number:3d} {right} {row['run']}: {told} ({found_in})", flush=True)
    return row


def score(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Precision and recall over pairs of a run and a cause, and how many healthy runs are called healthy."""
    right = sum(len(set(row["causes"]) & set(row["found"])) for row in rows)
    made, told = (sum(len(row[which]) for row in rows) for which in ("causes", "found"))
    healthy = [row for row in rows if not row["causes"]]
    by_cause = {}
    for cause in dict.fromkeys(name for row in rows for name in (*row["causes"], *row["found"])):
        of = {which: {row["number"] for row in rows if cause in row[which]} for which in ("causes", "found")}
        both = len(of["causes"] & of["found"])
        by_cause[cause] = {"made": len(of["causes"]), "found": both, "false": len(of["found"]) - both}
    return {
        "runs": len(rows),
        "sick": len(rows) - len(healthy),
        "healthy": len(healthy),
        "called_healthy": sum(not row["found"] for row in healthy),
        "exactly_right": sum(set(row["causes"]) == set(row["found"]) for row in rows),
        "precision": right / told if told else 1.0,
        "recall": right / made if made else 1.0,
        "by_cause": by_cause,
    }


def told(name: str, scores: dict[str, Any]) -> str:
    """A half in a line."""
    return (
        f"{name}: {scores['runs']} runs, precision {scores['precision']:.1%}, recall {scores['recall']:.1%}, "
        f"exactly right {scores['exactly_right']}, healthy {scores['called_healthy']} of {scores['healthy']}"
    )


def main(
    parts: tyro.conf.Positional[tuple[Literal["odd", "even", "held_out"], ...]] = (),
    only: tuple[str, ...] = (),
    processes: int = 2,
) -> int:
    """Examine the library.

    Args:
        parts: of the library; all by default.
        only: runs whose name has one of these words; nothing is written then.
        processes: how many runs are examined at once.
    """
    found = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for part in parts or library():
            runs = library()[part]
            numbers = [number for number, run in runs.items() if not only or any(word in run.name for word in only)]
            rows: list[dict[str, Any]] = []
            for row in pool.imap_unordered(record, [(part, number) for number in numbers]):
                rows = sorted([*rows, row], key=lambda row: row["number"])
                found[part] = {**score(rows), "rows": rows}
                if not only:
                    write(found)
            print(told(part, found[part]), flush=True)
    held_out = found.get("held_out", {"precision": 0.0, "recall": 0.0})
    return int(min(held_out["precision"], held_out["recall"]) < CLAIM)


def write(found: dict[str, Any]) -> None:
    """Write what was found of each part; a part that was not run again stays as it was."""
    result = {
        "claim": CLAIM,
        "limits": {name: [limits.warning, limits.ill] for name, limits in LIMITS.items()},
        "before": BEFORE,
        **{part: found[part] for part in library() if part in found},
        "versions": versions(),
    }
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":")).replace('{"number"', '\n{"number"')
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
