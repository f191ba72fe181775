"""The ledger of the lecture: nothing is missing, and every row leads to its code and back."""

import importlib
import inspect
import pkgutil
from collections import Counter
from pathlib import Path

import pytest

import mlpjax.lecture
from mlpjax.claims import Claim
from mlpjax.errors import InputError
from mlpjax.ledger import CLASSES, KINDS, SECTIONS, TRAP_MODULES, find, load_ledger, place_of, section_of
from mlpjax.proofs import check_of, check_place, prove, prove_erratum, run

LEDGER = load_ledger()
# every id of the lecture, in its order: the list that the ledger is held against
IDS = (Path(__file__).parent / "lecture_ids.txt").read_text(encoding="utf-8").split()
MAY_REST = {"framework"}
WORDS_ONLY = {"err-elastic"}
"""Errata of class W that change no number: a wrong name."""


def test_no_id_is_missing():
    kinds = {"err": [], "trap": []}
    rows = []
    for id in IDS:
        kinds.get(id.partition("-")[0], rows).append(id)
    assert list(LEDGER.rows) == rows
    assert sorted(LEDGER.errata) == sorted(kinds["err"])
    assert sorted(LEDGER.traps) == sorted(kinds["trap"])


@pytest.mark.parametrize("row", LEDGER.rows.values(), ids=lambda row: row.id)
def test_a_row_leads_to_its_code_and_the_code_to_the_row(row):
    assert row.kind in KINDS
    assert row.formula
    assert row.slide
    assert row.lines
    if row.function is None:
        assert row.rests, "a row with a check is about code of this package"
        return
    module, name = row.function.rsplit(".", 1)
    assert hasattr(importlib.import_module(f"mlpjax.{module}"), name)
    place = place_of(row.function)
    assert row.id in place.doc, f"{place.file.name}:{place.line} does not name the row"


def test_a_row_without_a_check_says_why():
    rests = [row for row in LEDGER.rows.values() if check_of(row.id) is None]
    for row in rests:
        assert row.rests in ("reason", "figure"), row.id
        assert row.why, row.id
        assert row.kind == "V" or row.section in MAY_REST, row.id
    assert len(rests) <= 35
    assert not [row.id for row in LEDGER.rows.values() if row.rests and check_of(row.id) is not None]


def test_every_check_belongs_to_a_row_and_is_explained():
    known = {id.replace("-", "_") for id in (*LEDGER.rows, *LEDGER.traps)}
    modules = [info.name for info in pkgutil.iter_modules(mlpjax.lecture.__path__) if info.name[0] != "_"]
    assert sorted(modules) == sorted([*TRAP_MODULES, *(name for one in SECTIONS.values() for name in one.modules)])
    seen = Counter()
    for name in modules:
        module = importlib.import_module(f"mlpjax.lecture.{name}")
        for function, value in inspect.getmembers(module, inspect.isfunction):
            returns = str(inspect.signature(value).return_annotation)
            if value.__module__ == module.__name__ and not function.startswith("_") and "Claim" in returns:
                assert function in known, f"{name}.{function}"
                assert inspect.getdoc(value), f"{name}.{function}"
                seen[function] += 1
    assert set(seen.values()) == {1}
    assert set(seen) == {id.replace("-", "_") for id in (*LEDGER.rows, *LEDGER.traps) if check_of(id) is not None}


def test_errata_name_rows_that_exist():
    for erratum in LEDGER.errata.values():
        assert set(erratum.kind.split("/")) <= set(CLASSES), erratum.id
        assert all((erratum.lines, erratum.printed, erratum.right, erratum.ours)), erratum.id
        assert set(erratum.rows) <= set(LEDGER.rows), erratum.id


def test_every_printed_form_is_one_of_an_erratum_of_its_row():
    for row in LEDGER.rows.values():
        forms = vars(check_of(row.id) or object).get("printed", {})
        assert set(forms) <= {erratum.id for erratum in LEDGER.errata_of(row.id)}, row.id


@pytest.mark.parametrize("erratum", [e for e in LEDGER.errata.values() if "W" in e.kind], ids=lambda e: e.id)
def test_what_is_printed_wrong_turns_a_check_red(erratum):
    """And the same check is green on the right form: see `test_lecture_checks.py`."""
    outcomes = prove_erratum(erratum)
    assert bool(outcomes) != (erratum.id in WORDS_ONLY)
    for outcome in outcomes:
        assert outcome.status == "pass", outcome.why


def test_a_check_that_finds_nothing_or_breaks_is_red():
    for check in (lambda: (), lambda: 1 / 0, lambda: Claim("1 = 2", False, "1")):
        assert not all(claim.ok for claim in run(check))
    lost = LEDGER.rows["act-tanh-deriv"]._replace(id="act-not-there")
    assert prove(lost).status == "fail"


def test_unknown_ids_and_names():
    with pytest.raises(InputError, match="called 'act-tanh-derv': did you mean 'act-tanh-deriv' or"):
        find("act-tanh-derv")
    with pytest.raises(LookupError, match=r"no nowhere\.py"):
        place_of("nowhere.f")
    with pytest.raises(LookupError, match="has no nothing"):
        place_of("heads.nothing")
    assert section_of("prob-mc-loss") == "problem"


def test_places():
    place = place_of("heads.softmax")
    assert place.file.read_text(encoding="utf-8").splitlines()[place.line - 1].startswith("def softmax(")
    file, line = check_place("act-tanh-deriv")
    assert file.read_text(encoding="utf-8").splitlines()[line - 1].startswith(("def act_tanh_deriv(", "@printed"))
    assert check_place("fw-colab") is None
