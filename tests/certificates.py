"""A command line with one data set, and the certificate of one run on it."""

import json
import os
from pathlib import Path

import pytest
from command_line import runner

TINY = ["--hidden", 4, "--epochs", 4, "--batch-size", 10, "--dropout", 0.2, "--batch-norm"]
ROWS = [f"{i % 7 / 3},{i * i % 11},{'näin'[: 2 + i % 2]}" for i in range(40)]


def folder(tmp_path, monkeypatch, capsys):
    """Go to an empty folder that has one data set, own.csv; a function that runs a command there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write("own.csv", ROWS)
    return runner(capsys)


def write(name, rows):
    Path(name).write_text("\n".join(["a,b,kind", *rows]) + "\n", encoding="utf-8")


def own(*more):
    return ["train", "--data", "own.csv", "--target", "kind", *TINY, *more]


def report(name):
    return json.loads(Path(name).read_text(encoding="ascii"), parse_constant=pytest.fail)


KEPT = []


def certificate(run):
    """Write the certificate of a run, which is trained once for all tests, as c.json; what it says."""
    if not KEPT:
        assert run(*own("--certificate", "c.json", "--json", "r.json")).code == 0
        KEPT.extend([Path("c.json").read_bytes(), report("r.json")])
        os.remove("r.json")
    Path("c.json").write_bytes(KEPT[0])
    return report("c.json")


def change(**values):
    """Rewrite parts of the certificate."""
    Path("c.json").write_text(json.dumps({**report("c.json"), **values}), encoding="ascii")


def with_options(**values):
    change(options={**report("c.json")["options"], **values})
