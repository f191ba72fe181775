"""Checkpoints of populations and searches: what was stopped anywhere goes on bit by bit."""

from __future__ import annotations

import json
import os

import jax
import numpy as np
import optax
import pytest
from command_line import runner
from crashing import TRAIN, VALID, Killed, bits, crasher

from mlpjax import Batch, CheckpointError, Checkpoints, CheckpointWarning, Config, fit_many, population_loop, search
from mlpjax.sweep_points import grid

CONFIG = Config(sizes=(4, 6, 3), dropout=0.2)
N = 6
# the last diverges; a member of hardly any rate stops early
ALPHAS = [0.01, 0.03, 1e-8, 0.1, 1e-8, 1e30]


def train(checkpoint=None, *, stop_after=None, **given):
    """The population that all tests interrupt."""
    settings = {
        "alphas": ALPHAS, "epochs": [8, 8, 8, 5, 8, 8], "batch_size": 8, "keys": jax.random.split(jax.random.key(1), N),
        "valid_data": VALID, "patience": 2, "callback": crasher(stop_after),
    }  # fmt: skip
    return fit_many(CONFIG, optax.adam, TRAIN, checkpoint=checkpoint, **settings | given)


def all_bits(results):
    """All of the results but their times."""
    return [bits(result) for result in results]


def crash(folder, after, **given):
    with pytest.raises(Killed):
        train(Checkpoints(folder, seconds=0), stop_after=after, **given)


@pytest.mark.parametrize(("shared", "flops"), [(True, 1e99), pytest.param(False, 0, marks=pytest.mark.slow)])
def test_what_crashed_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch, shared, flops):
    # 0: members that have stopped are left out at once
    monkeypatch.setattr(population_loop, "COMPILE_FLOPS", flops)
    given = {"order_key": jax.random.key(9) if shared else None}
    whole = train(**given)
    assert {result.stop_reason for result in whole} == {"finished", "early stopping", "diverged"}
    for after in (2, 7):
        folder = tmp_path / str(after)
        crash(folder, after, **given)
        resumed = train(Checkpoints(folder, resume=True), **given)
        assert resumed[0].resumed_at == 5 * (after - 1)
        assert all_bits(resumed) == all_bits(whole)
    # of one that ended nothing is trained again
    again = train(Checkpoints(folder, resume=True), stop_after=1, **given)
    assert all_bits(again) == all_bits(whole)


@pytest.mark.slow
def test_in_parts(tmp_path):
    # so little that each part is one member
    given = {"memory": 1, "alphas": ALPHAS[:2], "epochs": 3, "keys": jax.random.split(jax.random.key(1), 2)}
    crash(tmp_path, 5, **given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-001", "part-002"]
    resumed = train(Checkpoints(tmp_path, resume=True), **given)
    assert [result.resumed_at for result in resumed] == [15, 5]
    assert all_bits(resumed) == all_bits(train(**given))


def noisy(alpha):
    """An optimiser whose state holds a key."""
    return optax.chain(optax.add_noise(1e-3, 0.5, jax.random.key(5)), optax.sgd(alpha))


@pytest.mark.slow
def test_of_other_chunks_with_keys_and_a_member_that_diverges(tmp_path, monkeypatch):
    """Without a callback the epochs are one chunk; a member breaks in the update after the checkpoint."""
    monkeypatch.setattr(population_loop, "COMPILE_FLOPS", 0)
    config, data = Config(sizes=(1, 1), head="regression", bias=False), Batch(np.ones((8, 1)), np.zeros(8))
    keys = jax.random.split(jax.random.key(1), 3)

    def run(epochs, checkpoint=None, callback=None):
        return fit_many(config, noisy, data, alphas=[1e3, 1e-3, 1e-4], epochs=epochs, batch_size=8, keys=keys,
                        checkpoint=checkpoint, callback=callback)  # fmt: skip

    whole = run(30)
    last = len(whole[0].history["epoch"])
    assert whole[0].stop_reason == "diverged"

    def kill(progress):
        if progress.epoch == last + 1:
            raise Killed

    with pytest.raises(Killed):
        run(30, Checkpoints(tmp_path, chunks=1), kill)
    for callback in (None, lambda _: None):
        resumed = run(30, Checkpoints(tmp_path, resume=True), callback)
        assert resumed[0].resumed_at == last
        assert all_bits(resumed) == all_bits(whole)
        (tmp_path / "part-001" / "step-000000000030.npz").unlink()


def test_a_member_that_breaks_in_the_last_update(tmp_path):
    given = {"alphas": [0.01, 3e38], "epochs": 1, "batch_size": 40, "keys": jax.random.split(jax.random.key(1), 2)}
    data = TRAIN._replace(x=50 * TRAIN.x)
    results = fit_many(CONFIG, optax.sgd, data, checkpoint=Checkpoints(tmp_path), **given)
    assert results[1].stop_reason == "diverged"
    assert all_bits(
        fit_many(CONFIG, optax.sgd, data, checkpoint=Checkpoints(tmp_path, resume=True), **given)
    ) == all_bits(results)


@pytest.mark.slow
def test_a_search_killed_in_its_first_group_is_compared_too(tmp_path):
    with pytest.raises(Killed):
        look(Checkpoints(tmp_path, seconds=0), stop_after=3)
    with pytest.raises(CheckpointError, match=r"info\['search: monitor'\] is loss in it, metric in this run"):
        look(Checkpoints(tmp_path, resume=True), monitor="metric")


@pytest.mark.parametrize(
    ("given", "difference"),
    [
        ({"alphas": [0.02, *ALPHAS[1:]]}, "alphas is"),
        ({"epochs": 8}, r"epochs is \[8, 8, 8, 5, 8, 8\] in it, \[8, 8, 8, 8, 8, 8\] in this run"),
        ({"order_key": jax.random.key(9)}, "order_key is"),
    ],
)
def test_another_population_is_refused(tmp_path, given, difference):
    crash(tmp_path, 3)
    with pytest.raises(CheckpointError, match=difference):
        train(Checkpoints(tmp_path, resume=True), **given)


POINTS = grid({"sizes": [(4, 6, 3), (4, 5, 3)], "optimizer": ["adam", "sgd"], "lr": [1e-8, 0.05]})


def look(checkpoint=None, *, stop_after=None, **given):
    """The search that tests interrupt: four groups of two points."""
    settings = {"epochs": 3, "keys": jax.random.split(jax.random.key(2), 2), "callback": crasher(stop_after)}
    return search(POINTS, TRAIN, VALID, checkpoint=checkpoint, **settings | given)


def found(search):
    """All that a search found but its times."""
    result = search.result
    return (
        [(trial.number, trial.runs) for trial in search.trials],
        search.best_key,
        bits(result),
        result.history["epoch"],
    )


@pytest.mark.slow
def test_a_search_goes_on(tmp_path):
    whole = look()
    # after the call before the first, three in it: so in the third group
    with pytest.raises(Killed):
        look(Checkpoints(tmp_path, seconds=0), stop_after=11)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".lock", "group-003", "step-000000000001.npz", "step-000000000002.npz"]
    assert found(look(Checkpoints(tmp_path, resume=True))) == found(whole)
    assert sorted(os.listdir(tmp_path)) == [".lock", *(f"step-{n:012d}.npz" for n in (2, 3, 4))]
    # nothing is left to train
    assert found(look(Checkpoints(tmp_path, resume=True), stop_after=1)) == found(whole)
    newest = tmp_path / "step-000000000004.npz"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(CheckpointWarning, match="the checkpoint before it is wanted"):
        assert found(look(Checkpoints(tmp_path, resume=True))) == found(whole)
    for given, difference in (
        ({"epochs": 2}, "epochs is 3 in it, 2"),
        ({"monitor": "metric"}, "monitor is loss in it"),
    ):
        with pytest.raises(CheckpointError, match=difference):
            look(Checkpoints(tmp_path, resume=True), **given)


@pytest.mark.slow
def test_the_command_resumes(tmp_path, capsys):
    run = runner(capsys)
    options = ("sweep", "--hidden", 8, "--dropout", 0, "--lr", 0.01, "--epochs", 2, "--batch-size", 64, 128)
    folder = tmp_path / "run"
    assert run(*options, "--json", tmp_path / "whole.json").code == 0
    assert run(*options, "--checkpoint", folder, "--checkpoint-seconds", 0).code == 0
    (folder / "step-000000000002.npz").unlink()  # as if it had been killed in the second group
    assert run(*options, "--checkpoint", folder, "--resume", "--json", tmp_path / "again.json").code == 0
    whole, again = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "again.json"))
    whole["best"]["history"].pop("seconds"), again["best"]["history"].pop("seconds")
    assert again["best"] == whole["best"]
    assert "--checkpoint" not in whole["best"]["command"]
    for given, reason in (
        (("--resume",), "give the folder too"),
        (("--checkpoint", folder, "--resume", "--l2", 0.1), "info['l2'] is (0.0,) in it, (0.1,) in this run"),
        (("--checkpoint", folder, "--resume", "--epochs", 3), "epochs is 2 in it, 3 in this run"),
    ):
        refused = run(*options, *given)
        assert refused.code == 2
        assert reason in refused.err
