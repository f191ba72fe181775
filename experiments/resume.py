"""Runs that are killed, checkpoints that are damaged, a disk that is full: is anything lost, or wrong?

Kills: a process that trains on the digits, with dropout, batch-norm, Adam under a cosine schedule and early stopping,
and writes a checkpoint after every epoch, is ended by SIGKILL at a random moment, resumed, perhaps killed again, and
left to end. Its parameters, batch-norm statistics, optimiser state, key and history (but for its seconds) are compared,
byte by byte, with those of a process that was never interrupted and wrote no checkpoints. Most moments lie in or after
an epoch drawn at random, a tenth in the first seconds of the process. Claim: as many equal results as kills were asked
for.

Damages: of checkpoints and of a model file, at random places: a flipped bit, a byte set, a stretch deleted, zeroed,
doubled or taken from elsewhere, the end cut off, the file emptied. Claim: each is refused with an error of mlpjax, or
the file loads exactly the right numbers; and a run whose newest checkpoint was damaged resumes from the one before and
ends with the right bytes.

Full disk: a process whose files may have at most half as many bytes as a checkpoint takes, as on a disk that is full.
Claim: it ends with exit code 2 and one line, and all checkpoints from before are as they were.

    uv run python experiments/resume.py                # about 15 minutes on two cores
    uv run python experiments/resume.py --kills 2 --damages 20 --no-write

Writes experiments/results/resume.json, and exits with an error when a claim is missed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro

import mlpjax
from mlpjax import Batch, CheckpointError, Checkpoints, CheckpointWarning, Config, ModelFileError
from mlpjax.checkpoint import read_checkpoint
from mlpjax.chunks import key_words
from mlpjax.snapshots import digest
from mlpjax.versions import versions

EPOCHS, BATCH_SIZE, PATIENCE = 60, 32, 12
EPOCH_SECONDS = 0.05
"""About how long an epoch and its checkpoint take."""
RESULTS = Path(__file__).parent / "results" / "resume.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """Kill, damage and resume."""

    kills: int = 100
    """How many runs are killed and resumed."""
    damages: int = 500
    """How many files are damaged."""
    seed: int = 0
    """Of the moments and the damages."""
    processes: int = 2
    """How many runs go on at once."""
    write: bool = True
    """Write the results."""
    worker: Path | None = None
    """Train in this process, and write what came out into this file."""
    folder: Path | None = None
    """The worker's checkpoints."""


def train(
    checkpoint: Checkpoints | None, epochs: int = EPOCHS, tell: bool = False
) -> tuple[mlpjax.FitResult, jax.Array]:
    """The run that is interrupted."""
    data = mlpjax.load_dataset("digits")
    x, y = np.asarray(data.x, np.float32) / 16, data.y
    config = Config(sizes=(64, 96, 48, 10), batch_norm=True, dropout=0.2)
    steps = -(-1400 // BATCH_SIZE)
    optimizer, key = optax.adam(optax.cosine_decay_schedule(3e-3, EPOCHS * steps)), jax.random.key(7)

    def told(progress: mlpjax.Progress) -> None:
        print(progress.epoch, flush=True)

    result = mlpjax.fit(
        config,
        optimizer,
        Batch(x[:1400], y[:1400]),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        key=key,
        valid_data=Batch(x[1400:], y[1400:]),
        patience=PATIENCE,
        callback=told if tell else None,
        checkpoint=checkpoint,
    )
    return result, key


def outcome(result: mlpjax.FitResult, key: jax.Array) -> dict[str, Any]:
    """All that must be the same, as digests; ``epochs`` tells how far it came."""
    history = {name: column for name, column in result.history.items() if name != "seconds"}
    return {
        "params": digest(jax.tree.leaves(result.params)),
        "state": digest(jax.tree.leaves(result.state)),
        "opt_state": digest(jax.tree.leaves(result.opt_state)),
        "history": digest(np.asarray(column, np.float64) for column in history.values()),
        "key": key_words(key),
        "end": [result.epoch, result.stop_reason, result.message],
        "epochs": len(result.history["epoch"]),
    }


def start(folder: Path | None, out: Path, **limits: Any) -> subprocess.Popen[str]:
    """Start a worker."""
    command = [sys.executable, __file__, "--worker", str(out), *(["--folder", str(folder)] if folder else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **limits)


def complete(folder: Path | None, out: Path) -> dict[str, Any]:
    """Let a worker come to its end; what came out."""
    process = start(folder, out)
    _, err = process.communicate(timeout=300)
    if process.returncode != 0:
        raise RuntimeError(err)
    return json.loads(out.read_text())


def kill_once(folder: Path, out: Path, rng: np.random.Generator, epochs: int) -> bool:
    """Start a worker and kill it at a random moment; returns whether it was still alive."""
    process = start(folder, out)
    assert process.stdout is not None
    if rng.random() < 0.1:
        time.sleep(rng.uniform(0, 3))
    else:
        for _ in range(int(rng.integers(1, epochs + 1))):
            process.stdout.readline()
        time.sleep(rng.uniform(0, EPOCH_SECONDS))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def kills(options: Options) -> dict[str, Any]:
    """Kill, resume and compare."""
    with tempfile.TemporaryDirectory() as temporary:
        whole = complete(None, Path(temporary, "whole.json"))

        def one(number: int) -> dict[str, Any]:
            rng = np.random.default_rng([options.seed, number])
            folder, out = Path(temporary, f"run{number}"), Path(temporary, f"{number}.json")
            while not kill_once(folder, out, rng, whole["epochs"]):  # it had come to its end
                shutil.rmtree(folder)
            killed_at = [_step(folder)]
            for _ in range(int(rng.integers(0, 3))):
                if kill_once(folder, out, rng, whole["epochs"]):
                    killed_at.append(_step(folder))
            got = complete(folder, out)
            return {"killed_at": killed_at, "differs": [name for name in whole if got[name] != whole[name]]}

        with ThreadPoolExecutor(options.processes) as pool:
            runs = list(pool.map(one, range(options.kills)))
    return {
        "runs": len(runs),
        "kills": sum(len(run["killed_at"]) for run in runs),
        "equal": sum(not run["differs"] for run in runs),
        "whole": whole,
        "differing": [run for run in runs if run["differs"]],
        "resumed_from_step": " ".join(str(step) for step in sorted(step for run in runs for step in run["killed_at"])),
    }


def _step(folder: Path) -> int:
    """The step of the newest checkpoint, 0 if there is none."""
    names = sorted(path.name for path in folder.glob("step-*.npz")) if folder.exists() else []
    return int(names[-1][5:17]) if names else 0


def damaged(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Damage a file at a random place; what was done, and what it is then."""
    kinds = ["flip", "byte", "delete", "zero", "double", "move", "cut", "empty"]
    kind = kinds[rng.choice(8, p=[0.4, *[0.1] * 5, 0.09, 0.01])]
    a, length = int(rng.integers(len(content))), int(rng.integers(1, 200))
    changed = bytearray(content)
    if kind == "flip":
        changed[a] ^= 1 << int(rng.integers(8))
    elif kind == "byte":
        changed[a] = int(rng.integers(256))
    elif kind == "delete":
        del changed[a : a + length]
    elif kind == "zero":
        changed[a : a + length] = bytes(len(changed[a : a + length]))
    elif kind == "double":
        changed[a:a] = changed[a : a + length]
    elif kind == "move":
        b = int(rng.integers(len(content) - length))
        changed[b : b + length] = content[a : a + length]
    elif kind == "cut":
        del changed[a:]
    else:
        changed.clear()
    return kind, bytes(changed)


def damages(options: Options) -> dict[str, Any]:
    """Damage checkpoints and a model file, read them, and resume."""
    kinds: dict[str, int] = {}
    rng, counts = np.random.default_rng(options.seed), dict.fromkeys(("refused", "right", "wrong"), 0)
    resumed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, model = Path(temporary, "run"), Path(temporary, "model.npz")
        result, key = train(Checkpoints(folder, chunks=1, keep=3), epochs=6)
        right = outcome(result, key)
        mlpjax.save(model, Config(sizes=(64, 96, 48, 10), batch_norm=True), result.params, result.state)
        files = [*sorted(folder.glob("step-*.npz")), model]
        for number in range(options.damages):
            path = files[number % len(files)]
            content = path.read_bytes()
            kind, changed = damaged(content, rng)
            kinds[kind] = kinds.get(kind, 0) + 1
            path.write_bytes(changed)
            counts[_read(path, content)] += 1
            if path == files[-2]:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", CheckpointWarning)
                    again, _ = train(Checkpoints(folder, resume=True), epochs=6)
                resumed += outcome(again, key) == right
            path.write_bytes(content)
    asked = len(range(len(files) - 2, options.damages, len(files)))
    return {"damages": options.damages, "kinds": kinds, **counts, "newest_damaged": asked, "resumed_right": resumed}


def _read(path: Path, content: bytes) -> str:
    """Read a damaged file: was it refused, right or wrong?"""
    is_model = not path.name.startswith("step-")
    try:
        got = mlpjax.load(path)[1:3] if is_model else read_checkpoint(path)[1]
    except (CheckpointError, ModelFileError):
        return "refused"
    path.write_bytes(content)
    expected = mlpjax.load(path)[1:3] if is_model else read_checkpoint(path)[1]
    return "right" if digest(jax.tree.leaves(got)) == digest(jax.tree.leaves(expected)) else "wrong"


def full_disk() -> dict[str, Any]:
    """Resume where no whole checkpoint can be written."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "run")
        command = [sys.executable, "-m", "mlpjax", "train", "--checkpoint", str(folder), "--checkpoint-chunks", "1"]
        command += ["--schedule", "constant", "--resume", "--epochs"]
        subprocess.run([*command, "3"], check=True, capture_output=True)
        before = {path.name: path.read_bytes() for path in folder.glob("step-*.npz")}
        limit = min(map(len, before.values())) // 2

        def small() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        ended = subprocess.run([*command, "6"], check=False, capture_output=True, text=True, preexec_fn=small)
        after = {path.name: path.read_bytes() for path in folder.glob("*.npz")}
        left = sorted(path.name for path in folder.iterdir() if path.name not in before and path.name != ".lock")
        again = subprocess.run([*command, "6"], check=False, capture_output=True, text=True)
    said = [line for line in ended.stderr.splitlines() if line.startswith("mlpjax:")]
    return {
        "exit_code": ended.returncode,
        "said": [line.replace(temporary, "DIR") for line in said],
        "nothing_lost": after == before,
        "left_over": left,
        "resumes": again.returncode == 0,
    }


def main() -> int:
    """Run, and judge."""
    options = tyro.cli(Options, description=__doc__.splitlines()[0])
    if options.worker is not None:
        keep = None if options.folder is None else Checkpoints(options.folder, resume=True, chunks=1, seconds=1e9)
        options.worker.write_text(json.dumps(outcome(*train(keep, tell=True))))
        return 0
    started = time.perf_counter()
    found = {"full_disk": full_disk(), "damages": damages(options), "kills": kills(options)}
    claims = {
        "every killed run ends with the bytes of one that was never interrupted": found["kills"]["equal"]
        == options.kills,
        "no damage gives wrong numbers": found["damages"]["wrong"] == 0,
        "a run whose newest checkpoint is damaged ends with the right bytes": found["damages"]["resumed_right"]
        == found["damages"]["newest_damaged"],
        "a full disk costs nothing but the run": found["full_disk"]["exit_code"] == 2
        and len(found["full_disk"]["said"]) == 1
        and found["full_disk"]["nothing_lost"]
        and not found["full_disk"]["left_over"]
        and found["full_disk"]["resumes"],
    }
    made = {"command": "python experiments/resume.py", "versions": versions(), "cores": os.cpu_count()}
    report = {"made": made, "seconds": round(time.perf_counter() - started), "claims": claims, **found}
    print(json.dumps(report, indent=1))
    if options.write:
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    for claim, met in claims.items():
        print(f"{'met' if met else 'MISSED'}: {claim}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
