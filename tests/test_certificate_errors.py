"""Certificates that lie: every error is one line with exit code 2, and nothing is left behind."""

import json
import os
from pathlib import Path

import pytest
from certificates import certificate, change, folder, own, with_options

from mlpjax.certificate_file import MOST_BYTES
from mlpjax.options import MOST_CERTIFIED


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    return folder(tmp_path, monkeypatch, capsys)


@pytest.fixture
def certified(run):
    return certificate(run)


def refused(run, message, *more):
    """Exit code 2, one line that matches, and no trace in the folder."""
    before = {path: path.read_bytes() for path in Path().iterdir()}
    ran = run("verify", "c.json", *more)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("mlpjax: ")
    assert len(ran.err.splitlines()) == 1, ran.err
    assert message in ran.err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


CONTENTS = [
    (b"", "it is not JSON"),
    (b"\xff\xfe", "it is not JSON"),
    (b"[]", "it does not say that it is one"),
    (b"{}", "it does not say that it is one"),
    (b'{"format": "mlpjax model"}', "it does not say that it is one"),
    (b'{"format": "mlpjax certificate", "format_version": 2}', "format version 2: this mlpjax reads version 1"),
    (b'{"format": "mlpjax certificate", "format_version": true}', "format version True"),
    (b'{"format": "mlpjax certificate", "format_version": 1}', "it: expected a record of format, format_version"),
    (b'{"a": NaN}', "it has NaN, which is no JSON"),
    (b'{"a": 1, "a": 2}', "it has a name twice"),
    (b'{"a": ' + b"9" * 5000 + b"}", "it is not JSON"),
    (b"[" * 100_000, "it is not JSON"),
    (b" " * (MOST_BYTES + 1), "it has more than 16,777,216 bytes"),
]


@pytest.mark.parametrize(("content", "message"), CONTENTS, ids=[f"{row[1]} {row[0][:20]}" for row in CONTENTS])
def test_files_that_are_none(run, content, message):
    Path("c.json").write_bytes(content)
    refused(run, f"c.json: no certificate that mlpjax can use: {message}")


OPTIONS = [
    ({"optimizer": "adm"}, "unknown --optimizer 'adm': did you mean 'adam'"),
    ({"optimiser": "adam"}, "unknown option 'optimiser': did you mean 'optimizer'"),
    ({"save": "m.npz"}, "unknown option 'save'"),
    ({"checkpoint": "k"}, "unknown option 'checkpoint'"),
    ({"epochs": "4"}, "--epochs is '4': expected an integer"),
    ({"epochs": 4.0}, "--epochs is 4.0: expected an integer"),
    ({"epochs": True}, "--epochs is True: expected an integer"),
    ({"epochs": 0}, "--epochs is 0: expected an integer >= 1"),
    ({"epochs": 3}, "epoch is 4: expected an integer from 4 to 3"),
    ({"epochs": 10**10}, "--epochs 10000000000 are 40000000000 steps"),
    ({"bias": 1}, "--bias is 1: expected true or false"),
    ({"lr": "fast"}, "--lr is 'fast': expected a number"),
    ({"lr": None}, "--lr is None: expected a number"),
    ({"lr": 10**400}, "--lr is no finite number"),
    ({"lr": -1}, "--lr is -1.0: expected a number > 0"),
    ({"hidden": 4}, "--hidden is 4: expected a list"),
    ({"hidden": [4.5]}, "--hidden is 4.5: expected an integer"),
    ({"hidden": [1] * 1001}, "expected a list of at most 1,000 values"),
    ({"hidden": [2_000_000, 2_000_000], "dropout": [0]}, "weights, whose training takes"),
    ({"dropout": [1.5]}, "dropout rate is 1.5"),
    ({"data": "own\n.csv"}, "expected a printable text"),
    ({"data": "\ud800"}, "expected a printable text"),
    ({"data": "x" * 10_001}, "expected a printable text of at most 10,000 characters"),
    ({"data": "/dev/zero"}, "the certificate's data '/dev/zero' are neither a known set nor a file here: give --data"),
    ({"data": "gone.csv"}, "the certificate's data 'gone.csv' are neither a known set nor a file here: give --data"),
    ({"data": "mnist", "target": []}, "MNIST: "),
    ({"augment": ["elastc=1"]}, "elastc"),
]


@pytest.mark.parametrize(("values", "message"), OPTIONS, ids=[message for _, message in OPTIONS])
def test_options_that_cannot_be(run, certified, values, message):
    with_options(**values)
    refused(run, message, "--data-dir", ".")


def test_a_number_beyond_any_float(run, certified):
    text = Path("c.json").read_text(encoding="ascii")
    Path("c.json").write_text(text.replace('"lr": 0.001', '"lr": 1e400'), encoding="ascii")
    refused(run, "--lr is no finite number")


ROW = {"epoch": 1, "loss": 0.5, "params": "0" * 64, "state": "0" * 64, "opt_state": "0" * 64}
PARTS = [
    ({"epochs": {}}, "epochs: expected a list"),
    ({"epochs": []}, "it has no epoch to compare"),
    ({"epochs": [{**ROW, "epoch": 0}]}, "it has no epoch to compare"),
    ({"epochs": [ROW, ROW]}, "epoch is 1: expected an integer from 2 to 4"),
    ({"epochs": [{**ROW, "epoch": -1}]}, "epoch is -1: expected an integer from 0 to 4"),
    ({"epochs": [{**ROW, "epoch": True}]}, "epoch is True"),
    ({"epochs": [{**ROW, "params": "g" * 64}]}, "expected SHA-256 of 64 hexadecimal digits"),
    ({"epochs": [{**ROW, "params": "0" * 63}]}, "expected SHA-256"),
    ({"epochs": [{**ROW, "state": None}]}, "expected SHA-256"),
    ({"epochs": [{**ROW, "loss": "0"}]}, "loss of epoch 1: expected a number or null"),
    ({"epochs": [{**ROW, "more": 1}]}, "an entry of epochs: expected a record of epoch, loss, params"),
    ({"epochs": [5]}, "an entry of epochs: expected a record"),
    ({"options": []}, "options is a list: expected a record"),
    ({"facts": {"versions": "0"}}, "facts: expected a record of few records"),
    ({"facts": {"versions": {"jax": {"a": {}}}}}, "versions.jax: expected a text or a number"),
    ({"facts": {"versions": {"jax": "\x1b[31m"}}}, "versions.jax is '\\x1b[31m': expected a printable text"),
    ({"facts": {"versions": {str(i): i for i in range(1001)}}}, "versions has 1,001 entries"),
    ({"result": {}}, "stop_reason: expected one of finished, "),
    ({"result": {"stop_reason": "finished", "epoch": {}}}, "epoch: expected a text or a number"),
    ({"result": {"stop_reason": "finished", "note": "\x1b"}}, "note: expected a text or a number"),
]


@pytest.mark.parametrize(("values", "message"), PARTS, ids=[message for _, message in PARTS])
def test_parts_that_cannot_be(run, certified, values, message):
    change(**values)
    refused(run, message)


def test_files_that_are_not_there(run, certified):
    ran = run("verify", "no.json")
    assert (ran.code, ran.err) == (2, "mlpjax: no.json: No such file or directory\n")
    os.remove("own.csv")
    refused(run, "the certificate's data 'own.csv' are neither a known set nor a file here: give --data FILE")
    refused(run, "gone.csv: cannot be read", "--data", "gone.csv")
    refused(run, "--json 'c.json' cannot be written: it is the file of the certificate too", "--json", "c.json")


def test_a_certificate_is_not_written_over_anything(run):
    for other in ("own.csv", "m.npz", "r.json"):
        ran = run(*own("--save", "m.npz", "--json", "r.json", "--certificate", other))
        assert ran.code == 2
        assert f"--certificate '{other}' cannot be written: it is the file of" in ran.err
    ran = run(*own("--certificate", "c.json", "--epochs", MOST_CERTIFIED + 1))
    assert (ran.code, ran.err) == (2, "mlpjax: --certificate holds 40,000 epochs: --epochs is 40,001\n")
    assert os.listdir() == ["own.csv"]
    row = json.dumps([{**ROW, "epoch": MOST_CERTIFIED, "loss": -1.2345678901234567e-300}], indent=2)
    assert MOST_CERTIFIED * len(row) < MOST_BYTES - 2**20
