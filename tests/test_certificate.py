"""Certificates of runs: the same bits in every process, and where two runs part."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from certificates import KEPT, ROWS, certificate, change, folder, own, report, with_options, write

import mlpjax
from mlpjax import Batch, Config
from mlpjax.certificate import PARTS, EpochHashes, RunCertificate, first_differing_epoch
from mlpjax.certificate_file import read_certificate
from mlpjax.environment import differences, environment
from mlpjax.interrupt import deferred_interrupt
from mlpjax.options import TrainOptions
from mlpjax.snapshots import digest

CONFIG = Config(sizes=(2, 4, 1), head="binary", dropout=0.2, batch_norm=True)
DATA = Batch(np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32), np.arange(12) % 2)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    return folder(tmp_path, monkeypatch, capsys)


@pytest.fixture
def certified(run):
    return certificate(run)


# --- the callback --------------------------------------------------------------------------------------------


def fitted(epochs=4, data=DATA, optimizer=None, key=0, then=None, certificate=True, **more):
    """Train; returns the certified epochs and the result."""
    seen = RunCertificate(then)
    result = mlpjax.fit(
        CONFIG,
        OPTIMIZER if optimizer is None else optimizer,
        data,
        epochs=epochs,
        batch_size=5,
        key=jax.random.key(key),
        callback=seen if certificate else None,
        **more,
    )
    return seen.epochs, result


def rule(step):
    """Adam, whose learning rate is halved at that step."""
    return optax.adam(optax.piecewise_constant_schedule(0.01, {step: 0.5}))


OPTIMIZER = rule(10)


def test_a_callback_and_chunks_change_no_bit():
    epochs, result = fitted()
    assert [row.epoch for row in epochs] == [1, 2, 3, 4]
    assert [row.loss for row in epochs] == result.history["train_loss"]
    # without a callback all epochs are one chunk; with validation each is a chunk of its own
    _, together = fitted(certificate=False)
    others, validated = fitted(valid_data=DATA)
    for other in (result, together, validated):
        assert digest(jax.tree.leaves(other.params)) == epochs[-1].params
        assert digest(jax.tree.leaves(other.opt_state)) == epochs[-1].opt_state
    assert others == epochs
    assert len({row.params for row in epochs}) == len({row.state for row in epochs}) == 4


def test_what_the_other_callback_says_counts():
    epochs, result = fitted(then=lambda progress: progress.epoch == 2)
    assert (len(epochs), result.stop_reason) == (2, "callback")
    assert first_differing_epoch(epochs, fitted()[0]) is None


def test_the_start_is_that_of_fit():
    certificate = RunCertificate()
    certificate.certify_start(CONFIG, OPTIMIZER, jax.random.key(0))
    (start,) = certificate.epochs
    assert (start.epoch, start.loss) == (0, None)
    _, still = fitted(1, optimizer=optax.sgd(0.0), certificate=False)
    assert digest(jax.tree.leaves(still.params)) == start.params


def test_where_runs_part():
    epochs, _ = fitted()
    changed = DATA._replace(x=DATA.x.copy())
    changed.x[7, 1] = np.nextafter(changed.x[7, 1], np.float32(9))
    for other in (fitted(key=1), fitted(data=changed)):
        assert first_differing_epoch(epochs, other[0]).epoch == 1
    # each epoch has 3 steps, and step 7, from 0, is the second of epoch 3
    found = first_differing_epoch(epochs, fitted(optimizer=rule(7))[0])
    assert (found.epoch, found.parts[0]) == (3, "params")


def test_each_part_is_told():
    row = EpochHashes(1, 0.5, "a", "b", "c")
    for part in PARTS:
        assert first_differing_epoch([row], [row._replace(**{part: "x"})]) == (1, (part,))
    assert first_differing_epoch([row], [row._replace(loss=0.25)]) is None


def test_the_environment_names_what_changes_numbers(monkeypatch):
    before = environment()
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_dump_to=/somewhere")
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("NPROC", "77")
    with jax.enable_x64(True), jax.default_matmul_precision("float32"):
        after = environment()
    assert "/somewhere" not in json.dumps(after)
    found = differences(before, after)
    assert found["flags.JAX_DEFAULT_MATMUL_PRECISION"] == (None, "highest")
    assert found["flags.XLA_FLAGS"][1] == "--xla_a=1"
    assert found["jax_config.jax_enable_x64"] == (False, True)
    assert found["jax_config.jax_default_matmul_precision"] == (None, "float32")
    assert found["machine.threads"] == (before["machine"]["threads"], 77)
    assert len(found) == 5
    assert before["device"]["kind"] == jax.devices()[0].device_kind


# --- mlpjax train --certificate ------------------------------------------------------------------------------


def test_what_a_certificate_holds(certified):
    assert list(certified) == ["format", "format_version", "options", "facts", "result", "epochs"]
    trained = KEPT[1]
    assert certified["options"].items() <= trained["options"].items()
    places = {"save", "json", "certificate", "compilation_cache", "checkpoint", "data_dir"}
    others = {"download", "resume", "checkpoint_seconds", "checkpoint_chunks", "checkpoint_keep"}
    assert places | others <= trained["options"].keys() - certified["options"].keys()
    assert certified["facts"]["config"] == trained["config"]
    assert {"data", "config", "versions", "flags", "jax_config", "device", "machine"} == certified["facts"].keys()
    assert [row["epoch"] for row in certified["epochs"]] == [0, 1, 2, 3, 4]
    assert [row["loss"] for row in certified["epochs"][1:]] == trained["history"]["train_loss"]
    assert certified["result"]["test_loss"] == trained["test_loss"]
    assert certified["result"]["stop_reason"] == "finished"
    read = read_certificate("c.json")
    assert read.options == TrainOptions(
        data="own.csv", target=("kind",), hidden=(4,), epochs=4, batch_size=10, dropout=(0.2,), batch_norm=True
    )


def test_two_processes_write_the_same_certificate(certified):
    command = [sys.executable, "-m", "mlpjax", *map(str, own("--certificate", "d.json"))]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    here, there = certified, report("d.json")
    # this process has two devices, by tests/conftest.py, and stricter settings
    assert here["facts"]["data"] == there["facts"]["data"]
    for part in ("options", "result", "epochs"):
        assert here[part] == there[part], part


def test_checkpoints_and_other_files_change_no_bit(run, certified):
    more = ["--checkpoint", "k", "--checkpoint-chunks", 1, "--save", "m.npz", "--json", "r.json"]
    assert run(*own("--certificate", "d.json", *more)).code == 0
    assert report("d.json") == certified


# --- mlpjax verify -------------------------------------------------------------------------------------------


def verified(run, *more):
    """Verify; returns what was printed and the report."""
    ran = run("verify", "c.json", *more, "--json", "v.json")
    assert ran.code in (0, 1), ran.err
    assert len(ran.err.splitlines()) <= 1, ran.err
    result = report("v.json")
    assert result["identical"] == (ran.code == 0)
    return ran, result


def test_the_same_bits(run, certified):
    ran, result = verified(run)
    assert ran.code == 0
    assert ran.err == "own.csv: binary of 2 classes, 32 train, 8 test; network 2-4-1; 4 epochs are certified\n"
    assert "the same bits up to epoch 4 of 4" in ran.out
    assert "the same data, versions, flags and device" in ran.out
    assert (result["last_epoch"], result["first_difference"], result["ends"], result["differs"]) == (4, None, {}, {})
    assert result["facts"] == certified["facts"]


@pytest.mark.parametrize(
    ("values", "epoch", "part"),
    [({"seed": 1}, 0, "params"), ({"lr": 0.0011}, 1, "params"), ({"hidden": [5]}, 0, "params")],
    ids=["seed", "learning rate", "width"],
)
def test_another_option_is_found(run, certified, values, epoch, part):
    with_options(**values)
    ran, result = verified(run)
    assert ran.code == 1
    assert (result["first_difference"]["epoch"], result["first_difference"]["parts"][0]) == (epoch, part)
    assert ("the start: parameters" if epoch == 0 else "epoch 1: parameters") in ran.out
    assert result["last_epoch"] == epoch, "nothing is trained beyond"


def test_one_changed_example_is_found(run, certified):
    write("other.csv", [*ROWS[:-1], f"5{ROWS[-1]}"])
    ran, result = verified(run, "--data", "other.csv", "--data-dir", ".", "--no-download")
    assert ran.code == 1
    assert result["first_difference"]["epoch"] == 1
    assert set(result["differs"]) == {"data.sha256", "data.batches_sha256"}
    assert "loss there" in ran.out
    assert "data.sha256" in ran.out


def test_the_same_examples_elsewhere_and_another_environment(run, certified):
    os.rename("own.csv", "moved.csv")
    facts = certified["facts"]
    facts["versions"]["jax"], facts["flags"]["XLA_FLAGS"] = "0.0.1", "--x"
    change(facts=facts)
    ran, result = verified(run, "--data", "moved.csv")
    assert ran.code == 0
    assert result["differs"]["versions.jax"] == ["0.0.1", jax.__version__]
    assert result["differs"]["flags.XLA_FLAGS"] == ["--x", environment()["flags"].get("XLA_FLAGS")]
    assert len(result["differs"]) == 2
    assert f"0.0.1 in the certificate, {jax.__version__} here" in ran.out


def test_an_epoch_that_differs(run, certified):
    rows, facts = certified["epochs"], certified["facts"]
    rows[3]["opt_state"], rows[3]["loss"], facts["machine"]["threads"] = "0" * 64, 0.5, 77
    change(epochs=rows, facts=facts)
    ran, result = verified(run)
    assert (ran.code, result["first_difference"]) == (1, {"epoch": 3, "parts": ["opt_state"]})
    assert "epoch 3: the optimiser's state" in ran.out
    assert "loss there" in ran.out
    assert "77 in the certificate" in ran.out
    assert "PJRT_NPROC=77 mlpjax verify" in ran.out
    assert result["last_epoch"] == 3


def test_ends_that_differ(run, certified):
    change(result={**certified["result"], "test_loss": 0.5})
    ran, result = verified(run)
    assert (ran.code, result["first_difference"]) == (1, None)
    assert result["ends"] == {"test_loss": [0.5, certified["result"]["test_loss"]]}
    assert "test_loss" in ran.out
    # a certificate that leaves out how its run went on
    change(epochs=certified["epochs"][:3], result=certified["result"])
    ran, result = verified(run)
    assert (ran.code, result["ends"]) == (1, {"epochs": [2, "more than 2"]})


@pytest.mark.slow
def test_runs_that_stop_early_or_diverge(run):
    stopping = ["--valid-fraction", 0.25, "--patience", 1, "--epochs", 30, "--lr", 1e-30]
    assert run(*own("--certificate", "c.json", *stopping)).code == 0
    assert verified(run)[1]["last_epoch"] == len(report("c.json")["epochs"]) - 1 < 30

    write("own.csv", [f"{i % 7},{i % 3},{i % 11}" for i in range(40)])
    numbers = ["--head", "regression", "--hidden", "--no-batch-norm", "--dropout"]
    assert run(*own("--certificate", "c.json", *numbers, "--optimizer", "sgd", "--lr", 5, "--epochs", 40)).code == 2
    assert report("c.json")["result"]["stop_reason"] == "diverged"
    ran, result = verified(run)
    assert ran.code == 0
    assert result["last_epoch"] == report("c.json")["epochs"][-1]["epoch"] > 1


@pytest.mark.slow
def test_ctrl_c(run, certified, monkeypatch):
    """Of a run that is certified, and of one that verifies; then the first goes on from its checkpoint."""

    def press(progress):
        if progress.epoch == 2:
            with deferred_interrupt() as interrupted:
                interrupted.set()

    whole = RunCertificate.__call__
    with monkeypatch.context() as patched:
        patched.setattr(RunCertificate, "__call__", lambda self, progress: (press(progress), whole(self, progress))[1])
        assert run(*own("--certificate", "d.json", "--checkpoint", "k")).code == 130
        ran = run("verify", "c.json", "--json", "v.json")
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == "mlpjax: interrupted: the same up to epoch 2 of 4 so far"
    assert report("v.json")["identical"] is False
    assert report("d.json")["epochs"] == certified["epochs"][:3]
    os.replace("d.json", "c.json")
    assert read_certificate("c.json").result["stop_reason"] == "interrupted"
    ran, result = verified(run)
    assert (ran.code, result["last_epoch"]) == (0, 2)
    assert run(*own("--certificate", "c.json", "--checkpoint", "k", "--resume")).code == 0
    resumed = report("c.json")
    assert resumed["epochs"] == [certified["epochs"][i] for i in (0, 3, 4)]
    assert resumed["result"] == certified["result"]
    assert verified(run)[0].code == 0
