"""What a sickness is: one thing done to a healthy run; its cause is the name of the doctor's verdict."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from doctor_patients import Run

SICKNESSES: dict[str, "Sickness"] = {}


class Sickness(NamedTuple):
    """A cause, and how to make it: ``make(strength, seed)`` of each of its ``strengths``, an argument per run."""

    cause: str
    make: Callable[[Any, int], Run]
    strengths: tuple[Any, ...]


def sickness(cause: str, *strengths: Any) -> Callable[[Callable[[Any, int], Run]], Callable[[Any, int], Run]]:
    """Enter a function into `SICKNESSES`."""

    def enter(make: Callable[[Any, int], Run]) -> Callable[[Any, int], Run]:
        SICKNESSES[make.__name__.replace("_", " ")] = Sickness(cause, make, strengths)
        return make

    return enter


def changed(run: Run, **fields: Any) -> Run:
    """The run with other fields; those of its config by ``config=dict``."""
    config = fields.pop("config", {})
    return dataclasses.replace(run, config=dataclasses.replace(run.config, **config), **fields)


def with_params(run: Run, change: Callable[[int, Any], Any]) -> Run:
    """The run with start values that ``change(l, layer)`` makes of its own."""
    params, _ = run.start()
    return dataclasses.replace(run, params=tuple(change(l, layer) for l, layer in enumerate(params, 1)))
