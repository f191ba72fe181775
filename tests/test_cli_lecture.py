"""``mlpjax lecture`` as people use it: from a slide to file and line, to the proof, and what goes wrong."""

import json
import re
from pathlib import Path

import pytest

import mlpjax
from mlpjax import cli
from mlpjax.claims import Claim
from mlpjax.lecture import activation
from mlpjax.ledger import SECTIONS, load_ledger

PACKAGE = Path(mlpjax.__file__).parent


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments):
        code = cli.main(["lecture", *(str(argument) for argument in arguments)])
        return code, *capsys.readouterr()

    return run


def report():
    with open("r.json", encoding="utf-8") as file:
        return json.load(file, parse_constant=pytest.fail)


def test_contents(run):
    code, out, err = run("--json", "r.json")
    assert (code, err) == (0, "")
    assert all(section.title in out for section in SECTIONS.values())
    assert "427 rows, 168 errata, 21 traps" in out
    entries = report()
    assert len(entries["rows"]) == 427
    tanh = next(row for row in entries["rows"] if row["id"] == "act-tanh-deriv")
    assert tanh["section"] == "activation"
    assert re.fullmatch(re.escape(f"{PACKAGE}/activations.py:") + r"\d+", tanh["where"])


def test_a_section_leads_to_file_and_line(run):
    code, out, _ = run("activation", "--json", "r.json")
    assert code == 0
    line = next(line for line in out.splitlines() if "act-tanh-deriv " in line)
    file, number = re.search(r"(\S+):(\d+) ", line).groups()
    assert Path(file).read_text(encoding="utf-8").splitlines()[int(number) - 1].startswith("def tanh_derivative(")
    assert len(report()["rows"]) == 45


def test_words_of_a_slide_lead_to_its_rows(run):
    code, out, _ = run("Universal function APPROXIMATOR", "--json", "r.json")
    assert code == 0
    assert "universal.py:" in out
    found = [row["id"] for row in report()["rows"]]
    assert "mlp1-uat" in found
    assert all(id.startswith("mlp1-") for id in found)


def test_a_row(run):
    code, out, _ = run("act-sigmoid-proof-1", "--json", "r.json")
    assert code == 0
    for word in ("activations.py:", "lecture/activation.py:", "err-sigmoid-proof", "holds", "wrong"):
        assert word in out
    assert out.endswith("pass\n")
    row = report()
    assert row["status"] == "pass"
    assert row["errata"][0]["id"] == "err-sigmoid-proof"
    assert all(claim["ok"] for claim in row["claims"])


def test_a_row_that_rests_on_a_reason(run):
    code, out, _ = run("fw-colab")
    assert code == 0
    assert re.search(r"\nreason: .+\n$", out)


def test_paths_are_short_where_they_can_be(run, monkeypatch):
    monkeypatch.chdir(PACKAGE.parent)
    assert "mlpjax/activations.py:" in run("act-tanh-deriv")[1]


def test_an_erratum_shows_that_the_printed_form_is_wrong(run):
    code, out, _ = run("err-sigmoid-proof", "--json", "r.json")
    assert code == 0
    assert "under the printed form, the check of act-sigmoid-proof-1 fails, as it must" in out
    assert report()["printed_forms"][0]["status"] == "pass"


def test_a_trap(run):
    code, out, _ = run("trap-naive-sigmoid", "--json", "r.json")
    assert code == 0
    assert out.endswith("pass\n")
    assert report()["claims"]


@pytest.mark.parametrize(("what", "count"), [("errata", 168), ("traps", 21)])
def test_lists(run, what, count):
    code, out, _ = run(what, "--json", "r.json")
    assert code == 0
    assert all(entry["id"] in out for entry in report()[what])
    assert len(report()[what]) == count


def test_check_of_a_section(run):
    code, out, err = run("graph", "--check", "--json", "r.json")
    assert code == 0
    assert err.startswith("21 rows, ")
    assert re.search(r"21 rows: \d+ pass, 0 fail, .*; 0 wrong, \d+ s\n$", out)
    whole = report()
    assert whole["ok"] is True
    assert {"id", "section", "function", "status", "why"} <= set(whole["rows"][0])
    assert [row["id"] for row in whole["rows"]] == [
        row.id for row in load_ledger().rows.values() if row.section == "graph"
    ]
    assert any(form["erratum"] == "err-graph-column" for form in whole["printed_forms"])


def test_a_wrong_formula_is_exit_code_1(run, monkeypatch):
    monkeypatch.setattr(activation, "act_tanh_deriv", lambda: Claim("tanh′ against jax.grad", False, "got 2"))
    code, out, _ = run("act-tanh-deriv", "--json", "r.json")
    assert code == 1
    assert out.endswith("fail\n")
    assert report()["why"] == "tanh′ against jax.grad: got 2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["act-tanh-derv"], "mlpjax: nothing in the lecture is called 'act-tanh-derv': did you mean 'act-tanh-deriv'"),
        (["--chek"], "mlpjax: unknown option '--chek': did you mean '--check'?"),
        (["--json", "no/where.json"], "mlpjax: --json 'no/where.json' cannot be written"),
    ],
)
def test_errors_are_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
