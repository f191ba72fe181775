"""What ``mlpjax lecture`` does: find the code and the proof of a slide, and run the proofs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlpjax.claims import Claim
from mlpjax.cli import OK, WRONG
from mlpjax.display import counting_bar, say, show, show_columns, write_json
from mlpjax.interrupt import deferred_interrupt
from mlpjax.ledger import CLASSES, KINDS, SECTIONS, Erratum, Row, Trap, find, load_ledger, place_of, rows_about
from mlpjax.options import LectureOptions

_STYLES = {"pass": "green", "fail": "bold red"}


def lecture(options: LectureOptions, started: float) -> int:
    """Run ``mlpjax lecture`` and return its exit code: 1 where a check fails."""
    ledger = load_ledger()
    if options.id is None:
        return _check(options, list(ledger.rows.values()), started) if options.check else _contents(options)
    if options.id in SECTIONS:
        rows = [row for row in ledger.rows.values() if row.section == options.id]
        return _check(options, rows, started) if options.check else _rows(options, SECTIONS[options.id].title, rows)
    if options.id in ("errata", "traps"):
        return _list(options)
    known = options.id in (ledger.rows | ledger.errata | ledger.traps)
    if not known and (rows := rows_about(options.id)):
        return _check(options, rows, started) if options.check else _rows(options, f"about {options.id}", rows)
    entry = find(options.id)
    if isinstance(entry, Row):
        return _row(options, entry)
    return _erratum(options, entry) if isinstance(entry, Erratum) else _trap(options, entry)


def _contents(options: LectureOptions) -> int:
    ledger = load_ledger()
    counts = Counter(row.section for row in ledger.rows.values())
    errata = Counter(section for erratum in ledger.errata.values() for section in _sections(erratum))
    rows = [(name, section.title, str(counts[name]), str(errata[name])) for name, section in SECTIONS.items()]
    show_columns("the lecture", ("section", "title", "rows", "errata"), rows, [""] * len(rows))
    print(
        f"{len(ledger.rows)} rows, {len(ledger.errata)} errata, {len(ledger.traps)} traps\n"
        "mlpjax lecture SECTION, errata, traps, or words of a slide: what there is, and where the code is\n"
        "mlpjax lecture ID: all about a row, an erratum or a trap, and its proof; --check proves everything"
    )
    entries = {
        "rows": [row_dict(row) for row in ledger.rows.values()],
        "errata": [erratum._asdict() for erratum in ledger.errata.values()],
        "traps": [trap._asdict() for trap in ledger.traps.values()],
    }
    write_json(options.json, entries)
    return OK


def _rows(options: LectureOptions, title: str, rows: Sequence[Row]) -> int:
    table = [(row.id, f"{row.slide} ({row.lines})", row.formula, where(row.function)) for row in rows]
    show_columns(title, ("row", "slide (lines)", "formula", "code"), table, [""] * len(table))
    write_json(options.json, {"rows": [row_dict(row) for row in rows]})
    return OK


def _list(options: LectureOptions) -> int:
    ledger = load_ledger()
    table: list[tuple[str, ...]]
    if options.id == "traps":
        names: tuple[str, ...] = ("trap", "where", "what happens")
        table = [(trap.id, trap.where, trap.happens) for trap in ledger.traps.values()]
        write_json(options.json, {"traps": [trap._asdict() for trap in ledger.traps.values()]})
    else:
        names = ("erratum", "class", "printed", "right")
        table = [(e.id, e.kind, e.printed, e.right) for e in ledger.errata.values()]
        write_json(options.json, {"errata": [erratum._asdict() for erratum in ledger.errata.values()]})
    show_columns(options.id or "", names, table, [""] * len(table))
    return OK


def _check(options: LectureOptions, rows: Sequence[Row], started: float) -> int:
    from mlpjax.proofs import prove, prove_erratum, prove_trap
    from mlpjax.versions import versions

    ledger = load_ledger()
    ids = {row.id for row in rows}
    errata = [erratum for erratum in ledger.errata.values() if ids & set(erratum.rows)]
    traps = list(ledger.traps.values()) if options.id is None else []
    entries: list[Row | Erratum | Trap] = [*rows, *errata, *traps]
    say(f"{len(rows)} rows, {len(errata)} errata, {len(traps)} traps: each check runs in float64")
    outcomes = []
    with deferred_interrupt() as interrupted, counting_bar(len(entries), "check") as next_is:
        for entry in entries:
            if interrupted.is_set():
                raise KeyboardInterrupt
            next_is(entry.id)
            if isinstance(entry, Row):
                outcomes.append(prove(entry))
            elif isinstance(entry, Erratum):
                outcomes.extend(prove_erratum(entry))
            else:
                outcomes.append(prove_trap(entry))
    status = Counter(outcome.status for outcome in outcomes if outcome.kind == "row")
    refuted = sum(outcome.kind == "printed form" for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.status == "fail"]
    shown = [outcome for outcome in outcomes if options.id is not None or outcome.status != "pass"]
    table = [(outcome.id, outcome.status, outcome.why) for outcome in shown]
    if table:
        styles = [_STYLES.get(outcome.status, "") for outcome in shown]
        show_columns("checks", ("id", "status", "what was found, or why there is no check"), table, styles)
    seconds = time.perf_counter() - started
    print(
        f"{len(rows)} rows: {status['pass']} pass, {status['fail']} fail, {status['figure']} rest on a figure and "
        f"{status['reason']} on a reason; {refuted} printed forms refuted, {len(traps)} traps shown; "
        f"{len(failed)} wrong, {seconds:.0f} s"
    )
    report: dict[str, Any] = {
        "ok": not failed,
        "rows": [outcome.to_dict() for outcome in outcomes if outcome.kind == "row"],
        "printed_forms": [outcome.to_dict() for outcome in outcomes if outcome.kind == "printed form"],
        "traps": [outcome.to_dict() for outcome in outcomes if outcome.kind == "trap"],
        "seconds_total": seconds,
        "versions": versions(),
    }
    write_json(options.json, report)
    return WRONG if failed else OK


def _row(options: LectureOptions, row: Row) -> int:
    from mlpjax.proofs import check_place, prove

    about = {
        "slide": f"{row.slide} (lines {row.lines}), {SECTIONS[row.section].title}",
        "kind": KINDS[row.kind] + (", implied by the lecture" if row.implied else ""),
        "formula": row.formula,
        "shapes": row.shapes,
        "convention": row.convention,
        "code": row.function and f"mlpjax.{row.function}, {where(row.function)}",
        "figure": row.figure,
        "check": check_place(row.id) and _short(*check_place(row.id)),  # type: ignore[misc]
    }
    show(row.id, {name: text for name, text in about.items() if text})
    errata = load_ledger().errata_of(row.id)
    for erratum in errata:
        _show_erratum(erratum)
    outcome = prove(row)
    _show_claims(outcome.claims)
    print(f"{outcome.status}: {outcome.why}" if not outcome.claims else outcome.status)
    write_json(options.json, {**row_dict(row), **outcome.to_dict(), "errata": [e._asdict() for e in errata]})
    return WRONG if outcome.status == "fail" else OK


def _erratum(options: LectureOptions, erratum: Erratum) -> int:
    from mlpjax.proofs import prove_erratum

    _show_erratum(erratum)
    outcomes = prove_erratum(erratum)
    for outcome in outcomes:
        verdict = "fails, as it must" if outcome.status == "pass" else "passes: it does not tell the forms apart"
        print(f"\nunder the printed form, the check of {outcome.id} {verdict}")
        _show_claims(outcome.claims)
    write_json(options.json, {**erratum._asdict(), "printed_forms": [outcome.to_dict() for outcome in outcomes]})
    return WRONG if any(outcome.status == "fail" for outcome in outcomes) else OK


def _trap(options: LectureOptions, trap: Trap) -> int:
    from mlpjax.proofs import prove_trap

    about = {"where": trap.where, "what happens": trap.happens, "instead": trap.instead, "code": where(trap.function)}
    show(trap.id, {name: text for name, text in about.items() if text})
    outcome = prove_trap(trap)
    _show_claims(outcome.claims)
    print(outcome.status)
    write_json(options.json, {**trap._asdict(), **outcome.to_dict()})
    return WRONG if outcome.status == "fail" else OK


def _show_erratum(erratum: Erratum) -> None:
    about = {
        "class": ", ".join(CLASSES[letter] for letter in erratum.kind.split("/")),
        "lines": erratum.lines,
        "printed": erratum.printed,
        "right": erratum.right,
        "here": erratum.ours,
        "rows": ", ".join(erratum.rows),
        "source": erratum.source,
    }
    show(erratum.id, {name: text for name, text in about.items() if text})


def _show_claims(claims: Sequence[Claim]) -> None:
    if claims:
        table = [(claim.what, "holds" if claim.ok else "fails", claim.found) for claim in claims]
        styles = ["" if claim.ok else "bold red" for claim in claims]
        show_columns("claims", ("claim", "verdict", "found"), table, styles)


def row_dict(row: Row) -> dict[str, Any]:
    """Return a row as plain values, with its section and the place of its code."""
    return {**row._asdict(), "section": row.section, "where": where(row.function)}


def where(function: str | None) -> str:
    """Say where a function of the package is, as file and line.

    >>> where("activations.sigmoid").rpartition(":")[0].endswith("activations.py"), where(None)
    (True, '')
    """
    if function is None:
        return ""
    place = place_of(function)
    return _short(place.file, place.line)


def _short(file: Path, line: int) -> str:
    """Write a path from the current folder, where it is below it."""
    return f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}:{line}"


def _sections(erratum: Erratum) -> set[str]:
    ledger = load_ledger()
    return {ledger.rows[row].section for row in erratum.rows if row in ledger.rows}
