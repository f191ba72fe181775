"""Run the checks of the lecture's rows, errata and traps, here and now, in float64."""

from __future__ import annotations

import importlib
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mlpjax.claims import Check, Claim
from mlpjax.ledger import SECTIONS, TRAP_MODULES, Erratum, Row, Trap, load_ledger, section_of


class Outcome(NamedTuple):
    """What became of a row, a trap, or a row's check under the form that the lecture prints.

    ``status`` is ``pass``, ``fail``, ``figure`` or ``reason``; a printed form passes when its check fails.
    """

    id: str
    kind: str
    status: str
    why: str
    claims: tuple[Claim, ...] = ()
    seconds: float = 0.0
    function: str | None = None
    erratum: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the JSON report says: ``id``, ``section``, ``function``, ``status``, ``why`` and the claims."""
        section = None if self.kind == "trap" else section_of(self.id)
        about = {"id": self.id, "section": section, "function": self.function, "status": self.status, "why": self.why}
        if self.erratum is not None:
            about["erratum"] = self.erratum
        claims = [claim._asdict() for claim in self.claims]
        return {**about, "claims": claims, "seconds": round(self.seconds, 3)}


def check_of(id: str) -> Check | None:
    """Find the check of a row or a trap; ``None`` where there is none.

    >>> check_of("act-tanh-deriv").__name__
    'act_tanh_deriv'
    """
    modules = TRAP_MODULES if id.startswith("trap-") else SECTIONS[section_of(id)].modules
    name = id.replace("-", "_")
    for module in modules:
        check = getattr(importlib.import_module(f"mlpjax.lecture.{module}"), name, None)
        if check is not None:
            return check
    return None


def check_place(id: str) -> tuple[Path, int] | None:
    """Find the file and the line of a check.

    >>> check_place("act-tanh-deriv")[0].parent.name
    'lecture'
    """
    check = check_of(id)
    return None if check is None else (Path(inspect.getfile(check)), check.__code__.co_firstlineno)


def prove(row: Row) -> Outcome:
    """Run the check of a row; without one, pass on what it rests on.

    >>> prove(load_ledger().rows["act-tanh-deriv"]).status
    'pass'
    """
    check = check_of(row.id)
    if check is None:
        why = row.why or "no check, and no reason why"
        return Outcome(row.id, "row", row.rests or "fail", why, function=row.function)
    started = time.perf_counter()
    claims = run(check)
    return _judged(row.id, "row", claims, time.perf_counter() - started, row.function)


def prove_trap(trap: Trap) -> Outcome:
    """Run the check of a trap: that it is one, and that the package is not in it.

    >>> prove_trap(load_ledger().traps["trap-naive-sigmoid"]).status
    'pass'
    """
    check = check_of(trap.id)
    if check is None:
        return Outcome(trap.id, "trap", "fail", "no check")
    started = time.perf_counter()
    claims = run(check)
    return _judged(trap.id, "trap", claims, time.perf_counter() - started, trap.function)


def prove_erratum(erratum: Erratum) -> list[Outcome]:
    """Run every check that has the printed form of this erratum, on that form: it passes when the check fails.

    >>> [(outcome.id, outcome.status) for outcome in prove_erratum(load_ledger().errata["err-sigmoid-proof"])]
    [('act-sigmoid-proof-1', 'pass')]
    """
    outcomes = []
    for id in erratum.rows:
        check = check_of(id)
        forms = vars(check).get("printed", {}) if check is not None else {}
        if check is None or erratum.id not in forms:
            continue
        started = time.perf_counter()
        with np.errstate(all="ignore"):  # a printed form may overflow
            claims = run(check, forms[erratum.id])
        failed = [claim for claim in claims if not claim.ok]
        why = f"fails as it must: {_joined(failed)}" if failed else "the printed form is not told from the right one"
        seconds = time.perf_counter() - started
        function = load_ledger().rows[id].function
        status = "pass" if failed else "fail"
        outcomes.append(Outcome(id, "printed form", status, why, claims, seconds, function, erratum.id))
    return outcomes


def run(check: Callable[..., Any], *form: Any) -> tuple[Claim, ...]:
    """Run a check in float64, on the form given; an exception is a claim that fails.

    >>> run(lambda: Claim("1 < 2", True, "1")), run(lambda: 1 / 0)[0].found
    ((Claim(what='1 < 2', ok=True, found='1'),), 'ZeroDivisionError: division by zero')
    """
    try:
        with jax.enable_x64(True):
            claims = check(*form)
    except Exception as error:  # a printed form may fail in any way
        return (Claim("the check runs", False, f"{type(error).__name__}: {error}".splitlines()[0]),)
    claims = (claims,) if isinstance(claims, Claim) else tuple(claims)
    return claims or (Claim("the check says something", False, "it returned no claim"),)


def _judged(id: str, kind: str, claims: tuple[Claim, ...], seconds: float, function: str | None) -> Outcome:
    failed = [claim for claim in claims if not claim.ok]
    return Outcome(id, kind, "fail" if failed else "pass", _joined(failed or claims), claims, seconds, function)


def _joined(claims: Any) -> str:
    return "; ".join(f"{claim.what}: {claim.found}" for claim in claims)
