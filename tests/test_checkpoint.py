"""Checkpoints: a run that was stopped anywhere goes on bit by bit, and no damaged or foreign file gives numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from command_line import runner
from crashing import TRAIN, VALID, Killed, bits, crasher

import mlpjax
from mlpjax import Batch, CheckpointError, Checkpoints, CheckpointWarning, Config, DiskData, VectorAugment, fit
from mlpjax.checkpoint import CHECKPOINT, CheckpointFolder, read_checkpoint
from mlpjax.sealed import seal

CONFIG = Config(sizes=(4, 6, 3), batch_norm=True, dropout=0.2)
# made once, so that every test finds the compiled program
OPTIMIZER = optax.adam(optax.cosine_decay_schedule(0.05, 40))
EPOCHS = 8


def train(checkpoint=None, *, stop_after=None, **given):
    """The run that all tests interrupt; ``stop_after``: the chunk after which it crashes."""
    settings = {
        "epochs": EPOCHS, "batch_size": 8, "key": jax.random.key(3), "valid_data": VALID, "patience": 4,
        "callback": crasher(stop_after),
    }  # fmt: skip
    config, optimizer, data = (given.pop(n, d) for n, d in (("config", CONFIG), ("opt", OPTIMIZER), ("data", TRAIN)))
    return fit(config, optimizer, data, checkpoint=checkpoint, **settings | given)


def crash(folder, after, **given):
    with pytest.raises(Killed):
        train(Checkpoints(folder, seconds=0), stop_after=after, **given)


@pytest.mark.parametrize("after", [1, 2, 5])
def test_what_crashed_goes_on_as_if_nothing_had_happened(tmp_path, after):
    crash(tmp_path, after)
    resumed = train(Checkpoints(tmp_path, resume=True))
    assert bits(resumed) == bits(train())
    # the chunk in whose callback it crashed was not kept
    assert resumed.resumed_at == (5 * (after - 1) or None)


def test_early_stopping_goes_on_and_a_stopped_run_stays_stopped(tmp_path):
    slow = {"opt": optax.sgd(1e-6), "patience": 2}
    whole = train(**slow)
    assert whole.stop_reason == "early stopping"
    crash(tmp_path, 3, **slow)
    resumed = train(Checkpoints(tmp_path, resume=True), **slow)
    assert bits(resumed) == bits(whole)
    again = train(Checkpoints(tmp_path, resume=True), **slow)
    assert bits(again) == bits(whole)
    assert again.resumed_at == 5 * len(whole.history["epoch"])


def test_a_finished_run_is_returned_and_may_be_made_longer(tmp_path):
    steady = {"opt": optax.adam(0.01), "valid_data": None, "patience": None}
    short = train(Checkpoints(tmp_path), epochs=3, **steady)
    assert bits(train(Checkpoints(tmp_path, resume=True), epochs=3, **steady)) == bits(short)
    assert bits(train(Checkpoints(tmp_path, resume=True), **steady)) == bits(train(**steady))
    with pytest.raises(CheckpointError, match="epochs is 8 in it, 3 in this run, which may only be longer"):
        train(Checkpoints(tmp_path, resume=True), epochs=3, **steady)


def crash_after_write(folder, monkeypatch, step, **given):
    """Die when the checkpoint of a step is written."""
    write = CheckpointFolder.write

    def dies(self, snapshot):
        write(self, snapshot)
        if snapshot.step == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "write", dies)
        with pytest.raises(Killed):
            train(Checkpoints(folder, seconds=0), **given)


# a gradient step that multiplies a weight until it overflows; the step before is in the chunk before
EXPLOSIVE = {
    "config": Config(sizes=(1, 1), head="regression", bias=False), "opt": optax.sgd(1e3), "patience": None,
    "data": Batch(np.ones((8, 1)), np.zeros(8)), "valid_data": None, "epochs": 40,
}  # fmt: skip


def test_divergence_goes_back_to_the_same_place(tmp_path, monkeypatch):
    whole = train(**EXPLOSIVE)
    assert whole.stop_reason == "diverged"
    last = len(whole.history["epoch"])  # of one step each
    crash_after_write(tmp_path, monkeypatch, last, **EXPLOSIVE)
    resumed = train(Checkpoints(tmp_path, resume=True), **EXPLOSIVE)
    assert resumed.resumed_at == last
    assert bits(resumed) == bits(whole)


def test_divergence_after_a_run_that_was_cut_into_other_chunks(tmp_path):
    """All epochs are one chunk without a callback, and other epochs are another one."""
    whole = train(**EXPLOSIVE)
    last = len(whole.history["epoch"])
    fit(EXPLOSIVE["config"], EXPLOSIVE["opt"], EXPLOSIVE["data"], epochs=last, batch_size=8, key=jax.random.key(3),
        checkpoint=Checkpoints(tmp_path))  # fmt: skip
    resumed = train(Checkpoints(tmp_path, resume=True), **EXPLOSIVE)
    assert resumed.resumed_at == last
    assert bits(resumed) == bits(whole)


def test_an_interrupt_at_the_end_of_patience_is_no_longer_run(tmp_path):
    slow = {"opt": optax.sgd(1e-6), "patience": 2}
    whole = train(**slow)
    ended = train(Checkpoints(tmp_path), callback=lambda progress: progress.epoch == 3, **slow)
    assert bits(ended) == bits(train(Checkpoints(tmp_path, resume=True), **slow)) == bits(whole)


def test_augmented_class_weighted_and_from_given_parameters(tmp_path):
    given = {
        "augment": VectorAugment(jitter=0.1), "class_weight": [1.0, 2.0, 1.0], "order_key": jax.random.key(8),
        "grad_fn": mlpjax.accumulate(mlpjax.backward, 2), "params": mlpjax.init(CONFIG, jax.random.key(1))[0],
    }  # fmt: skip
    crash(tmp_path, 3, **given)
    for name, other in (
        ("augment", VectorAugment(jitter=0.2)),
        ("augment", VectorAugment(mixup=0.1)),
        ("augment", lambda key, batch: batch),
        ("grad_fn", mlpjax.accumulate(mlpjax.backward, 3)),
        ("start", {"params": mlpjax.init(CONFIG, jax.random.key(2))[0]}),
        ("train_data", {"class_weight": [2.0, 1.0, 1.0]}),
        ("order_key", jax.random.key(9)),
    ):
        changed = given | (other if isinstance(other, dict) else {name: other})
        with pytest.raises(CheckpointError, match=f"another run: {name} is"):
            train(Checkpoints(tmp_path, resume=True), **changed)
    assert bits(train(Checkpoints(tmp_path, resume=True), **given)) == bits(train(**given))


def test_inside_an_epoch_and_from_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(mlpjax.chunks, "CHUNK_STEPS", 2)
    np.save(tmp_path / "x.npy", TRAIN.x)
    np.save(tmp_path / "y.npy", TRAIN.y)
    disk = DiskData(tmp_path / "x.npy", tmp_path / "y.npy", block=4)
    for name, data in (("memory", TRAIN), ("disk", disk)):
        whole = train(data=data)
        crash(tmp_path / name, 5, data=data)
        resumed = train(Checkpoints(tmp_path / name, resume=True), data=data)
        assert resumed.resumed_at == 7  # an epoch of 5 steps, 2 of the next, and 2 that were lost
        assert bits(resumed) == bits(whole)


def test_bfloat16_moments_and_keys_in_the_optimisers_state(tmp_path):
    noisy = optax.chain(optax.add_noise(1e-3, 0.5, jax.random.key(5)), optax.adam(0.01, mu_dtype=jnp.bfloat16))
    crash(tmp_path, 3, opt=noisy)
    assert bits(train(Checkpoints(tmp_path, resume=True), opt=noisy)) == bits(train(opt=noisy))


def test_intervals_and_how_many_are_kept(tmp_path):
    train(Checkpoints(tmp_path / "chunks", chunks=3, seconds=1e9, keep=2))
    assert sorted(os.listdir(tmp_path / "chunks")) == [".lock", "step-000000000015.npz", "step-000000000030.npz"]
    train(Checkpoints(tmp_path / "end", seconds=1e9))
    assert sorted(os.listdir(tmp_path / "end")) == [".lock", "step-000000000030.npz"]


def test_what_a_crash_left_half_written_is_swept(tmp_path):
    (tmp_path / ".0123abcd.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    train(Checkpoints(tmp_path, seconds=1e9))
    assert sorted(os.listdir(tmp_path)) == [".lock", "notes.txt", "step-000000000030.npz"]


@pytest.mark.parametrize(
    ("given", "difference"),
    [
        ({"config": Config(sizes=(4, 6, 3), batch_norm=True, dropout=0.3)}, "config.dropout is 0.2 in it, 0.3 in this"),
        ({"data": TRAIN._replace(x=TRAIN.x + np.float32(1e-7))}, "train_data is [0-9a-f]{40}… in it"),
        ({"valid_data": TRAIN}, "valid_data is"),
        ({"batch_size": 10}, "batch_size is 8 in it, 10 in this run"),
        ({"key": jax.random.key(4)}, r"key is \['threefry2x32', 0, 3\] in it, \['threefry2x32', 0, 4\]"),
        ({"patience": 5}, "patience is 4 in it, 5 in this run"),
        ({"grad_fn": mlpjax.autodiff}, "grad_fn is mlpjax.mlp.backward in it, mlpjax.mlp.autodiff"),
        ({"opt": optax.sgd(0.1, 0.9)}, r"opt_state\[0\].trace\[0\].W is absent in it, \[\[4, 6\], 'float32'\] in the"),
        ({"opt": optax.sgd(0.1)}, r"opt_state.* in it, absent in the optimiser given"),
    ],
)
def test_another_run_is_refused_and_its_difference_named(tmp_path, given, difference):
    crash(tmp_path, 3)
    with pytest.raises(CheckpointError, match=f"step-0+10.npz is a checkpoint of another run: .*{difference}"):
        train(Checkpoints(tmp_path, resume=True), **given)
    with pytest.raises(CheckpointError, match=r"info\['lr'\] is absent in it, 1 in this run"):
        train(Checkpoints(tmp_path, resume=True, info={"lr": 1}))


def test_without_resume_a_folder_in_use_is_refused(tmp_path):
    crash(tmp_path, 3)
    with pytest.raises(CheckpointError, match="has checkpoints of a run already"):
        train(Checkpoints(tmp_path))


def test_two_processes_do_not_share_a_folder(tmp_path):
    def inside(_):
        with pytest.raises(CheckpointError, match="is in use by another process"):
            train(Checkpoints(tmp_path))
        return True

    train(Checkpoints(tmp_path), callback=inside)


def test_of_a_damaged_newest_the_one_before_is_used(tmp_path):
    crash(tmp_path, 5)
    newest = max(tmp_path.glob("step-*.npz"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.warns(CheckpointWarning, match=r"step-0+20.npz: damaged: .*; the checkpoint before it is wanted"):
        resumed = train(Checkpoints(tmp_path, resume=True))
    assert resumed.resumed_at == 15
    assert bits(resumed) == bits(train())


def test_damaged_newest_ones_are_not_kept_for_whole_ones(tmp_path):
    """Their steps are later than that of the next one which is written."""
    crash(tmp_path, 5)
    before, newest = sorted(tmp_path.glob("step-*.npz"))[-2:]
    before.write_bytes(b"")
    newest.write_bytes(b"")
    with pytest.warns(CheckpointWarning), pytest.raises(Killed):
        train(Checkpoints(tmp_path, resume=True, chunks=1, keep=1), stop_after=2)
    assert sorted(path.name for path in tmp_path.glob("step-*.npz")) == [before.name, newest.name]
    with pytest.warns(CheckpointWarning, match=newest.name):
        resumed = train(Checkpoints(tmp_path, resume=True))
    assert resumed.resumed_at == 15
    assert bits(resumed) == bits(train())


def test_info_that_is_no_json_is_refused_and_tuples_are_lists(tmp_path):
    with pytest.raises(CheckpointError, match="plain JSON"):
        train(Checkpoints(tmp_path, info={"a": {1}}))
    train(Checkpoints(tmp_path, info={"hidden": (8, 4)}))
    assert train(Checkpoints(tmp_path, resume=True, info={"hidden": (8, 4)})).resumed_at == 30


def test_a_folder_of_damaged_files_only_is_refused(tmp_path):
    (tmp_path / "step-000000000005.npz").write_bytes(b"")
    with (
        pytest.warns(CheckpointWarning, match="not a checkpoint, or one that was cut short"),
        pytest.raises(CheckpointError, match="none of its 1 checkpoints is whole"),
    ):
        train(Checkpoints(tmp_path, resume=True))


def test_another_version_is_said(tmp_path):
    crash(tmp_path, 3)
    path = max(tmp_path.glob("step-*.npz"))
    header, arrays = read_checkpoint(path)
    header["environment"]["versions"]["jax"] = "0.1.2"
    path.write_bytes(seal(CHECKPOINT, header, arrays))
    with pytest.warns(CheckpointWarning, match=r"the last bits may differ .*: versions.jax was 0.1.2, now"):
        train(Checkpoints(tmp_path, resume=True))


@pytest.mark.parametrize("name", ["now/params[0].W", "before/opt_state[0].mu[0].W", "unrecorded/J"])
def test_a_made_up_file_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr(mlpjax.chunks, "CHUNK_STEPS", 2)
    crash(tmp_path, 3)
    path = max(tmp_path.glob("step-*.npz"))
    header, arrays = read_checkpoint(path)
    for changed in ({n: a for n, a in arrays.items() if n != name}, arrays | {name: arrays[name].reshape(-1)[:1]}):
        path.write_bytes(seal(CHECKPOINT, header, changed))
        with pytest.raises(CheckpointError, match="not a checkpoint that mlpjax can use"):
            train(Checkpoints(tmp_path, resume=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"run": 5}, {"environment": None}, {"train_state": [1]}, {"step": 11}, {"before_step": 10}, {"epochs": "x"},
        {"best": ["0x1p1", 3]}, {"best": 1}, {"seconds": -1}, {"ended": "ab"}, {"ended": [1, 2]},
        {"unrecorded": True},
    ],
)  # fmt: skip
def test_a_made_up_header_is_refused(tmp_path, changes):
    crash(tmp_path, 3)
    path = max(tmp_path.glob("step-*.npz"))
    header, arrays = read_checkpoint(path)
    path.write_bytes(seal(CHECKPOINT, header | changes, arrays))
    with pytest.raises(CheckpointError, match=r"not a checkpoint that mlpjax can use"):
        train(Checkpoints(tmp_path, resume=True))


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    crash(tmp_path, 3)

    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mlpjax.checkpoint, "atomic_write", full)
        with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\): step 10 is kept"):
            train(Checkpoints(tmp_path, resume=True))
    assert bits(train(Checkpoints(tmp_path, resume=True))) == bits(train())


def test_what_is_given_is_checked():
    with pytest.raises(mlpjax.ConfigError, match="seconds is nan"):
        Checkpoints("x", seconds=float("nan"))
    with pytest.raises(mlpjax.ConfigError, match="keep"):
        Checkpoints("x", keep=0)


SMALL = ("train", "--hidden", 8, "--epochs", 6, "--batch-size", 256, "--valid-fraction", 0.2)


@pytest.mark.slow
def test_the_command_resumes(tmp_path, capsys):
    run = runner(capsys)
    folder = tmp_path / "run"
    whole = run(*SMALL, "--json", tmp_path / "whole.json")
    assert whole.code == 0
    first = run(*SMALL, "--checkpoint", folder, "--checkpoint-chunks", 1, "--checkpoint-keep", 9)
    assert first.code == 0
    for path in sorted(folder.glob("step-*.npz"))[1:]:
        path.unlink()  # as if it had been killed
    again = run(*SMALL, "--checkpoint", folder, "--resume", "--json", tmp_path / "again.json")
    assert again.code == 0
    assert "resumed" in again.out
    nothing = run(*SMALL, "--checkpoint", folder, "--resume", "--certificate", tmp_path / "c.json")
    assert (nothing.code, (tmp_path / "c.json").exists()) == (0, False)
    assert "there is nothing to certify" in nothing.err
    reports = [json.loads((tmp_path / name).read_text()) for name in ("whole.json", "again.json")]
    assert reports[0]["parameters_sha256"] == reports[1]["parameters_sha256"]
    for reason, options in (
        ("already", ("--checkpoint", folder)),
        ("info['lr'] is 0.001 in it, 0.002", ("--checkpoint", folder, "--resume", "--lr", 0.002)),
        ("info['epochs'] is 6 in it, 7 in", ("--checkpoint", folder, "--resume", "--epochs", 7)),
        ("give the folder too", ("--resume",)),
        ("is not a folder", ("--checkpoint", tmp_path / "whole.json")),
        ("--checkpoint-seconds is -1.0", ("--checkpoint", folder, "--checkpoint-seconds", -1)),
        ("--checkpoint-chunks is 0", ("--checkpoint", folder, "--checkpoint-chunks", 0)),
        ("--checkpoint-keep is 0", ("--checkpoint", folder, "--checkpoint-keep", 0)),
    ):
        failed = run(*SMALL, *options)
        assert failed.code == 2
        assert reason in failed.err
        assert failed.err.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint(tmp_path, capsys, monkeypatch, number, code):
    run = runner(capsys)
    options = (*SMALL, "--checkpoint", tmp_path / "run")
    take = mlpjax.chunks.Run.take

    def signalled(self, train_state, chunk):
        if chunk.first > 0:
            signal.raise_signal(number)
        return take(self, train_state, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(mlpjax.chunks.Run, "take", signalled)
        if number == signal.SIGTERM:
            with pytest.raises(SystemExit) as exited:
                run(*options)
            assert exited.value.code == code
            err = capsys.readouterr().err
        else:
            ended = run(*options)
            assert ended.code == code
            err = ended.err
    assert "interrupted after epoch 2" in err
    assert "--resume goes on" in err
    assert run(*options, "--resume").code == 0


KILL = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_checkpoint as t
from mlpjax import Checkpoints
chunks = 0
def kill(_):
    global chunks
    chunks += 1
    if chunks == 4:
        os.kill(os.getpid(), signal.SIGKILL)
t.train(Checkpoints(sys.argv[2], chunks=1), callback=kill)
"""


@pytest.mark.slow
def test_sigkill(tmp_path):
    ended = subprocess.run([sys.executable, "-c", KILL, os.path.dirname(__file__), tmp_path], check=False)
    assert ended.returncode == -signal.SIGKILL
    with warnings.catch_warnings():
        # this process has two CPU devices, that one had one
        warnings.simplefilter("ignore", CheckpointWarning)
        resumed = train(Checkpoints(tmp_path, resume=True))
    assert resumed.resumed_at == 15
    assert bits(resumed) == bits(train())
