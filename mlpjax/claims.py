"""What the checks of the lecture are made of: a claim is a sentence, whether it holds, and what was found.

A check is a function without required arguments that returns one `Claim` or a tuple of them. Where the lecture
prints a wrong formula, the check takes the formula as its argument, the right one by default, and `printed` names
the other: under it, at least one claim must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np


class Claim(NamedTuple):
    """A sentence, whether it holds, and the numbers that say so."""

    what: str
    ok: bool
    found: str


Check = Callable[..., "Claim | tuple[Claim, ...]"]
_Decorated = TypeVar("_Decorated", bound=Check)


def agree(what: str, got: Any, expected: Any, tol: float = 1e-12) -> Claim:
    """Claim that ``|got − expected| ≤ tol · max |expected|``, shapes included; an ``expected`` of 0 is absolute.

    What is not finite agrees with nothing.

    >>> agree("1/3", 0.333, 1 / 3, tol=1e-2).ok, agree("a row", np.ones((1, 2)), np.ones(2)).found
    (True, 'shape (1, 2), expected (2,)')
    """
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        return Claim(what, False, f"shape {got.shape}, expected {expected.shape}")
    if got.size == 0:
        return Claim(what, False, "nothing to compare")
    with np.errstate(invalid="ignore"):
        error = np.abs(got - expected)
    scale = float(np.max(np.abs(expected))) or 1.0
    worst = np.unravel_index(int(np.argmax(np.where(np.isfinite(error), error, np.inf))), error.shape)
    ok = bool(np.isfinite(error[worst]) and error[worst] <= tol * scale)
    if ok:
        return Claim(what, True, f"relative error {error[worst] / scale:.1e}, tolerance {tol:.0e}")
    return Claim(what, False, f"got {got[worst]:.6g}, expected {expected[worst]:.6g}{_place(worst)}")


def equal(what: str, got: Any, expected: Any) -> Claim:
    """Claim that two arrays are the same, bit by bit but for the sign of zero, and of one shape.

    >>> equal("AND", np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])).found
    'got 0, expected 1 at [2]'
    """
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        return Claim(what, False, f"shape {got.shape}, expected {expected.shape}")
    different = np.argwhere(got != expected)
    if len(different):
        worst = tuple(different[0])
        return Claim(what, False, f"got {got[worst]}, expected {expected[worst]}{_place(worst)}")
    return Claim(what, True, "equal")


def holds(what: str, condition: Any, found: Any) -> Claim:
    """Claim that a condition holds; ``found`` is the number or text that shows why.

    >>> holds("the cost falls", 0.3 < 0.7, "0.7 to 0.3")
    Claim(what='the cost falls', ok=True, found='0.7 to 0.3')
    """
    return Claim(what, bool(condition), f"{found:.6g}" if isinstance(found, float) else str(found))


def printed(erratum: str, form: Any) -> Callable[[_Decorated], _Decorated]:
    """Attach the form that the lecture prints, by its erratum, to the check that takes the form as its argument.

    >>> @printed("err-sigmoid-proof", lambda a: -a * (1 - a))
    ... def check(form=lambda a: a * (1 - a)):
    ...     return agree("the slope of σ at 0", form(0.5), 0.25)
    >>> check().ok, check(check.printed["err-sigmoid-proof"]).found
    (True, 'got -0.25, expected 0.25')
    """

    def attach(check: _Decorated) -> _Decorated:
        vars(check).setdefault("printed", {})[erratum] = form
        return check

    return attach


def _place(index: tuple[Any, ...]) -> str:
    return f" at [{', '.join(str(i) for i in index)}]" if index else ""
