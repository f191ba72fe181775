"""What `fuzz.py` reads: for each format good inputs to start from, their changes, and what is done with a file."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import gzip
import io
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from fuzz_archives import change_archive, change_sealed
from fuzz_inputs import change_command, change_csv, change_idx, change_json, change_npy

import mlpjax
import mlpjax.train
from mlpjax import cli
from mlpjax.audit_command import _read_config
from mlpjax.augment_words import augmentation
from mlpjax.cases import make_case
from mlpjax.certificate_file import read_certificate
from mlpjax.checkpoint import CheckpointFolder, open_folder, read_checkpoint
from mlpjax.data import load_dataset, load_for_model
from mlpjax.gradient_files import read_gradient, write_gradient
from mlpjax.idx import read_idx
from mlpjax.optim import adam
from mlpjax.options import AuditOptions, EvaluateOptions, TrainOptions
from mlpjax.preparing import count_steps, network_config, prepare
from mlpjax.preprocess import SCALERS
from mlpjax.provenance_replay import replay
from mlpjax.sweep_options import SweepOptions

X, Y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 1, 0])
CONFIG = mlpjax.Config(sizes=(3, 2, 1), head="binary", batch_norm=True, activation="prelu")


class Format(NamedTuple):
    """The good inputs, how one is changed, the end of the file's name, and its reader."""

    seeds: Callable[[Path], list[bytes]]
    change: Callable[[bytes, Random], bytes]
    suffix: str
    read: Callable[[Path], Any]


def _idx_seeds(folder: Path) -> list[bytes]:
    arrays = (np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.arange(5, dtype=np.uint8), np.zeros((0, 2), np.uint8))
    plain = [bytes([0, 0, 8, a.ndim]) + b"".join(n.to_bytes(4, "big") for n in a.shape) + a.tobytes() for a in arrays]
    return plain + [gzip.compress(content, mtime=0) for content in plain]


def _csv_seeds(folder: Path) -> list[bytes]:
    tables = (
        "a,b,y\n1,2.5,no\n-3,4e1,yes\n5,6,no\n",
        "1,2,0\n3,4,1\n5,6,2\n7,8,0\n",
        'a;"b c";y\n1;2;0.5\n3;4;1e3\n\n5;6;-7\n',
        "\ufeffa\tz\ty\r\n1\t0\t1\r\n0\t1\t0\r\n",
        'a,y\n1,"two\nlines"\n2,x\n',
    )
    return [table.encode() for table in tables]


def _read_csv(path: Path) -> None:
    _read_data(path, ("-1",))


def _npz_seeds(folder: Path) -> list[bytes]:
    text = np.array(["cat", "dog", "dog", "cat"])
    sets: tuple[dict[str, Any], ...] = (
        {"x": X, "y": Y},
        {"X": X.astype(np.uint8).reshape(4, 3, 1), "Y": text, "X_test": X[:2].reshape(2, 3, 1), "Y_test": text[:2]},
        {"x": X.astype(np.float16), "y": np.eye(4, dtype=bool)},
        {"x": np.asfortranarray(X, dtype=">f4"), "y": X[:, 0]},
    )
    return [_saved(save, arrays) for arrays in sets for save in (np.savez, np.savez_compressed)]


def _saved(save: Callable[..., None], arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def _read_npz(path: Path) -> None:
    _read_data(path, ())


def _read_data(path: Path, targets: tuple[str, ...]) -> None:
    """Read data; what can be read once can be read again for a model, and is the same then."""
    found = load_dataset(path, targets=targets)
    assert np.isfinite(found.x).all()
    again = load_for_model(path, head=found.head, classes=found.classes, features=found.features, targets=found.targets)
    np.testing.assert_array_equal(again.x, found.x)
    np.testing.assert_array_equal(again.y, found.y)


def _gradient_seeds(folder: Path) -> list[bytes]:
    configs = (
        mlpjax.Config(sizes=(3, 2, 2), l2=0.1),
        mlpjax.Config(sizes=(2, 3, 1), head="binary", activation="prelu", dropout=0.3),
        mlpjax.Config(sizes=(2, 3, 2), head="regression", batch_norm=True),
    )
    written = []
    for config in configs:
        case = make_case(config, "given", m=4)
        write_gradient(folder / "seed.npz", case, case.params)
        written.append((folder / "seed.npz").read_bytes())
    return written


def _model_seeds(folder: Path) -> list[bytes]:
    scaler = SCALERS["standardise"](X)
    names: dict[str, Any] = {"classes": ["no", "yes"], "features": ["a", "b", "c"], "targets": ["y"]}
    plain = mlpjax.Config(sizes=(3, 2), dropout=(0.1,), l1=0.1)
    mlpjax.save(folder / "a.npz", CONFIG, *mlpjax.init(CONFIG, jax.random.key(0)), preprocessing=scaler, **names)
    mlpjax.save(folder / "b.npz", plain, *mlpjax.init(plain, jax.random.key(0)), info={"data": "digits", "seed": 0})
    return [(folder / name).read_bytes() for name in ("a.npz", "b.npz")]


_folders: list[CheckpointFolder[Any]] = []
"""The folder of a run, of which the changed checkpoints could be."""


@contextlib.contextmanager
def _remembered(*arguments: Any) -> Iterator[CheckpointFolder[Any]]:
    with open_folder(*arguments) as folder:
        _folders[:] = [folder]
        yield folder


def _checkpoint_seeds(folder: Path) -> list[bytes]:
    data, run = mlpjax.Batch(X.astype(np.float32), Y), Path(tempfile.mkdtemp(dir=folder))
    with mock.patch.object(mlpjax.train, "open_folder", _remembered):
        mlpjax.fit(
            CONFIG, adam(0.1), data, epochs=2, batch_size=2, key=jax.random.key(0), valid_data=data, patience=5,
            checkpoint=mlpjax.Checkpoints(run, chunks=1),
        )  # fmt: skip
    return [path.read_bytes() for path in sorted(run.glob("*.npz"))]


def _read_checkpoint(path: Path) -> None:
    header, arrays = read_checkpoint(path)
    _folders[0].of_this_run(path, header, arrays)


def _replay_seeds(folder: Path) -> list[bytes]:
    """Steps of two runs, one of whose weights overflow."""
    written = []
    for config, grad in ((CONFIG, "hand"), (mlpjax.Config(sizes=(3, 2), dropout=0.1), "autodiff")):
        params, state = mlpjax.init(config, jax.random.key(0))
        params = (params[0]._replace(W=params[0].W.at[0, 0].set(3e38)), *params[1:])
        optimizer, batch = adam(0.1), mlpjax.Batch(10 * X.astype(np.float32), Y)
        before = mlpjax.TrainState(params, state, optimizer.init(params))
        fault = mlpjax.find_fault(config, optimizer, mlpjax.backward, before, batch, jax.random.key(0))
        step = mlpjax.FaultyStep(fault, config, before, batch, jax.random.key(0), np.arange(len(Y)))
        mlpjax.write_replay(folder / "r.npz", step, optimizer={"name": "adam", "lr": 0.1}, grad=grad)
        written.append((folder / "r.npz").read_bytes())
    return written


_replayed = itertools.count(1)


def _read_replay(path: Path) -> None:
    replay(path)
    if next(_replayed) % 20 == 0:
        # each network is a program of its own, and JAX keeps them all
        jax.clear_caches()


def _certificate_seeds(folder: Path) -> list[bytes]:
    path, out = folder / "c.json", io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    words = ["train", "--data", "circle", "--hidden", "2", "--epochs", "2", "--certificate", str(path)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(words) == 0
    return [path.read_bytes()]


def _config_seeds(folder: Path) -> list[bytes]:
    configs = (CONFIG, mlpjax.Config(dropout=0.2, l2=1e-3), mlpjax.Config(sizes=(2, 3, 3), activation=("tanh",)))
    return [json.dumps(config.to_dict()).encode() for config in configs]


def _npy_seeds(folder: Path) -> list[bytes]:
    arrays = (X, X.astype(np.uint8), Y, X.astype(np.float16)[:, :2], np.zeros((0, 3)))
    return [_saved(np.save, {"arr": array}) for array in arrays]


def _read_npy(path: Path) -> None:
    other = path.with_name("other.npy")
    if not other.exists():
        np.save(other, np.arange(4))
    mlpjax.DiskData(path, other, path if path.stat().st_size % 3 == 0 else None).checked(mlpjax.Config(sizes=(3, 4)))


def _command_seeds(folder: Path) -> list[bytes]:
    lines = (
        "train --data own.csv --target y --hidden 4 4 --activation tanh relu --dropout 0 0.1 0.2 --epochs 3 --lr 1e-3",
        "train --data own.npz --batch-norm --batch-norm-convention keras --l2 0.1 --clip 1 --save m.npz --json r.json",
        "train --data circle --head binary --augment jitter=0.1 mixup=0.2 --valid-fraction 0.2 --patience 3 --seed 1",
        "train --data mnist --data-dir .. --optimizer momentum --convention torch --schedule linear --accumulate 2",
        "sweep --data own.csv --target 2 --hidden 8 8,4 none --lr 1e-3 1e-2 --random 3 --seeds 2 --top 4",
        "evaluate model.npz --data own.csv --target y --part all --json r.json",
        'audit --config {"sizes":[3,2]} --weight zeros --examples 5 --no-train --dtype float32',
        "audit --explain own.npz",
        "lecture relu --check",
        "--help",
    )
    return [line.encode().replace(b" ", b"\0") for line in lines]


def _read_command(path: Path) -> None:
    """Give the words to the command line, in a folder with data; what would train stops before it does."""
    words = [word.decode("utf-8", "surrogateescape") for word in path.read_bytes().split(b"\0")]
    said, out = io.StringIO(), io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with (
        contextlib.chdir(_folder_with_data()),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(out),
        mock.patch.object(cli, "_command", return_value=_without_training),
    ):
        try:
            code = cli.main(words)
        except SystemExit as error:
            code = error.code or 0
    lines = said.getvalue().splitlines()
    assert code in (0, 2), f"exit code {code}"
    assert code == 0 or (len(lines) == 1 and lines[0].startswith("mlpjax: ")), f"on stderr: {lines}"
    if code:
        raise mlpjax.InputError(lines[0])


def _without_training(options: Any, started: float) -> int:
    """Do what a command does with what it is given, up to the first step of a training."""
    if isinstance(options, SweepOptions):
        options = options.single({name: values[0] for name, values in options.axes().items()})
    if isinstance(options, TrainOptions):
        data = prepare(dataclasses.replace(options, download=False))
        network_config(options, data.dataset)
        count_steps(options, data)
        augmentation(options.augment, data.dataset)
    if isinstance(options, EvaluateOptions):
        mlpjax.load(options.model)
    if isinstance(options, AuditOptions) and options.explain is not None:
        read_gradient(options.explain)
    if isinstance(options, AuditOptions) and options.config is not None:
        _read_config(options.config)
    return 0


@functools.cache
def _folder_with_data() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-command-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "own.csv").write_bytes(_csv_seeds(folder)[0])
    (folder / "own.npz").write_bytes(_npz_seeds(folder)[0])
    (folder / "model.npz").write_bytes(_model_seeds(folder)[0])
    return folder


def _read_config_text(path: Path) -> None:
    """Read a config from a file, or from the argument itself."""
    content = path.read_bytes().replace(b"\0", b"")  # which no argument can have
    _read_config(content.decode("utf-8", "surrogateescape") if len(content) % 2 else str(path))


FORMATS = {
    "idx": Format(_idx_seeds, change_idx, ".idx", read_idx),
    "csv": Format(_csv_seeds, change_csv, ".csv", _read_csv),
    "npz": Format(_npz_seeds, change_archive, ".npz", _read_npz),
    "gradient": Format(_gradient_seeds, change_archive, ".npz", read_gradient),
    "model": Format(_model_seeds, change_sealed, ".npz", mlpjax.load),
    "checkpoint": Format(_checkpoint_seeds, change_sealed, ".npz", _read_checkpoint),
    "replay": Format(_replay_seeds, change_sealed, ".npz", _read_replay),
    "certificate": Format(_certificate_seeds, change_json, ".json", read_certificate),
    "config": Format(_config_seeds, change_json, ".json", _read_config_text),
    "npy": Format(_npy_seeds, change_npy, ".npy", _read_npy),
    "command": Format(_command_seeds, change_command, ".txt", _read_command),
}
