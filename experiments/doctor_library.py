"""The library of training runs, sick and healthy, whose causes are known."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import doctor_held_out
from doctor_patients import MADE, PATIENTS, Run, patient
from doctor_sickness import SICKNESSES

for part in ("networks", "data"):
    importlib.import_module(f"doctor_sick_{part}")

HELD_OUT_SEED = 5000
SEEN = [name for name, (data, *_) in PATIENTS.items() if data not in MADE]
HEALTHY: tuple[tuple[str, dict[str, Any]], ...] = (
    *((name, {}) for name in SEEN),
    *((name, {"held_out": True}) for name in ("digits", "cancer", "iris", "circle")),
    *((name, {"held_out": True}) for name in ("blobs", "bumps", "discs", "digits wide")),
    *((name, {"batch_norm": True}) for name in ("digits", "cancer", "circle relu")),
    *(("digits wide", {"dropout": 0.3}), ("cancer", {"dropout": 0.2}), ("blobs", {"dropout": 0.1})),
    *(("digits", {"l2": 1e-3}), ("circle", {"l1": 1e-4}), ("wine", {"l2": 1e-3}), ("bumps", {"l2": 1e-5})),
)
"""The seen runs with nothing wrong: patients, and what is different about them."""


class Planned(NamedTuple):
    """A run that is not made yet: its name, what is wrong with it, and the function that makes it."""

    name: str
    causes: tuple[str, ...]
    make: Callable[[], Run]


def library() -> dict[str, dict[int, Planned]]:
    """All runs by part and number: each sickness gives half of its seen runs to ``odd`` and half to ``even``."""
    seen = numbered({name: sick.strengths for name, sick in SICKNESSES.items()}, HEALTHY, 0)
    return {
        "odd": {number: run for number, run in seen.items() if number % 2 == 1},
        "even": {number: run for number, run in seen.items() if number % 2 == 0},
        "held_out": numbered(doctor_held_out.STRENGTHS, doctor_held_out.HEALTHY, HELD_OUT_SEED),
    }


def numbered(
    strengths: Mapping[str, tuple[Any, ...]], healthy: Iterable[tuple[str, dict[str, Any]]], first: int
) -> dict[int, Planned]:
    """Runs whose numbers, from ``first`` on, are their seeds."""
    runs: dict[int, Planned] = {}
    for name, those in strengths.items():
        sick = SICKNESSES[name]
        for strength in those:
            seed = first + len(runs)
            runs[seed] = Planned(f"{name} {strength}", (sick.cause,), partial(sick.make, strength, seed))
    for name, more in healthy:
        seed = first + len(runs)
        runs[seed] = Planned(f"{name} {more or ''}".strip(), (), partial(patient, name, seed, **more))
    return runs
