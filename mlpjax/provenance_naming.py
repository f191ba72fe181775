"""From the quantities of a step to the name of the first that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mlpjax.parameters import Batch, Layer
from mlpjax.provenance_quantities import Seen

MAKERS: dict[str, tuple[tuple[str, int], ...]] = {
    "z": (("a", -1), ("W", 0), ("b", 0)),
    "mean": (("z", 0),),
    "var": (("z", 0),),
    "zhat": (("z", 0), ("var", 0)),
    "z_tilde": (("zhat", 0), ("gamma", 0), ("beta", 0)),
    "a": (("z_tilde", 0), ("z", 0)),
    "L": (("z", 0), ("y", 0)),
    "penalty": (("W", 0),),
    "da": (("dz", 1), ("W", 1)),
    "dz": (("da", 0), ("z", 0)),
    "dW": (("a", -1), ("dz", 0)),
    "db": (("dz", 0),),
}
"""Of what a quantity is made, each with its distance in layers."""


class Fault(NamedTuple):
    """The first number of a step that is not finite; as text, a sentence that says it.

    ``quantity`` has the lecture's name: one of `mlpjax.trace` (``z``, ``a``, ``L``, ``J``, ``dz``, ``dW``, …), or
    ``moment mu of W``, ``update of W``, ``new W``. ``layer`` is l = 1 … L, 0 for the input, ``None`` for what belongs
    to no layer. ``place`` is the index of the first such value, from 0, ``value`` what it is, ``places`` how many there
    are. Of a quantity of single examples ``row`` is the row of the batch and ``example`` that of the training data,
    else ``None``. ``unit`` is the unit of the layer, where there is one. ``at`` is (epoch, step of it), from 1, where
    known. ``cause`` says of what numbers it was made.
    """

    quantity: str
    layer: int | None
    place: tuple[int, ...]
    value: float
    places: int
    row: int | None = None
    example: int | None = None
    unit: int | None = None
    at: tuple[int, int] | None = None
    cause: str = ""

    def __str__(self) -> str:
        when = "" if self.at is None else f"epoch {self.at[0]}, step {self.at[1]}: "
        what = self.quantity + (f" of layer {self.layer}" if self.layer else "")
        where = f" at [{', '.join(map(str, self.place))}]" if self.place else ""
        if self.row is not None:
            where = f" for example {self.example} (row {self.row} of the batch)"
            if self.unit is not None:
                where += f", {'unit' if self.layer else 'column'} {self.unit}"
        more = self.places - 1
        others = f", and in {more:,} other place{'s' if more > 1 else ''}" if more else ""
        return f"{when}{what} is {self.value}{where}{others}{self.cause and '; '}{self.cause}"


def first_fault_of(seen: Sequence[Seen], rows: Any = None) -> Fault | None:
    """Name the first value that is not finite; ``rows (m,)`` are the examples of the batch.

    >>> z, W = Seen("z", 1, np.array([[0.0], [np.inf]]), per_example=True), Seen("W", 1, np.array([[3e38]]))
    >>> print(first_fault_of([W, Seen("x", 0, np.array([[1.0], [2.0]]), per_example=True), z], rows=[7, 4]))
    z of layer 1 is inf for example 4 (row 1 of the batch), unit 0; made of |x| ≤ 2, |W| ≤ 3e+38
    """
    for at, one in enumerate(seen):
        value = np.asarray(one.value)
        bad = np.argwhere(~np.isfinite(value))
        if len(bad):
            index = tuple(bad[0].tolist())
            fault = Fault(
                one.name, one.layer, index, float(value[index]), len(bad), cause=_cause(seen[:at], one, index)
            )
            if one.per_example:
                fault = of_row(fault, index[0], rows)
            # the last axis of everything but a vector over the examples
            return fault._replace(unit=index[-1]) if value.ndim > one.per_example else fault
    return None


def of_row(fault: Fault, row: int, rows: Any) -> Fault:
    """The fault as one of an example, given by its row of the batch."""
    return fault._replace(row=row, example=row if rows is None else int(np.asarray(rows)[row]))


def row_alone(fault: Fault, result_of: Callable[[Batch], Any], batch: Batch) -> int | None:
    """A row that, repeated, makes a batch whose result is not finite in the place of the fault: the first, by halves.

    ``result_of(batch)`` is what a gradient function returns. ``None`` if it takes several examples, or if the fault is
    not in J or the gradient.
    """
    field = fault.quantity[1:]
    if fault.quantity != "J" and not (fault.quantity[0] == "d" and field in Layer._fields):
        return None
    m = len(batch.x)

    def bad(low: int, high: int) -> bool:
        # repeated, so that the shapes and the program stay the same
        rows = np.resize(np.arange(low, high), m)
        (J, _), grads = result_of(jax.tree.map(lambda value: value[rows], batch))
        value = J if fault.layer is None else getattr(grads[fault.layer - 1], field)[fault.place]
        return not np.isfinite(value)

    low, high = 0, m
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bad(low, middle) else (middle, high)
    return low if bad(low, high) else None


def _cause(before: Sequence[Seen], one: Seen, index: tuple[int, ...]) -> str:
    """How large the numbers were of which a quantity was made; those of a row, if it has rows."""
    if one.name != "x" and all(other.name != "x" for other in before):
        return "the step was given it"
    told = []
    for made in _makers(before, one):
        value = np.asarray(made.value)
        largest = np.abs(value[index[0]] if made.per_example and one.per_example else value).max()
        if largest > 0:
            told.append(f"|{made.name}| ≤ {largest:.3g}")
    return f"made of {', '.join(told)}" if told else ""


def _makers(before: Sequence[Seen], one: Seen) -> Iterator[Seen]:
    kind, *_, field = one.name.split() if " " in one.name else (one.name, "")
    wanted = MAKERS.get(kind, ())
    if kind in ("moment", "update"):
        wanted = ((f"d{field}", 0),)
    elif kind == "new":
        wanted = ((field, 0), (f"update of {field}", 0))
    for name, distance in wanted:
        layer = None if one.layer is None else one.layer + distance
        # a layer is given what dropout has left
        names = ("x", "x_dropped") if (name, layer) == ("a", 0) else (name, f"{name}_dropped")
        found = [other for other in before if other.name in names and layer in (None, other.layer)]
        yield from found[-1:]
