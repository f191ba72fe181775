"""How far two runs of the same training are apart: not at all, or by how much after 1, 10 and 50 epochs.

Three networks on the digits, with Adam: that of ``mlpjax train`` (64-256-128-10, dropout); a wide one, whose products
are shared among threads; a deep one, ten hidden layers of 64 with batch-norm. One run is the reference; each other
differs from it in one thing: the process, where chunks end, the threads, the precision, who derives the gradient, who
trains beside it, the device, the versions. ``parameters`` is the largest difference of an array's elements over the
largest element of that array; ``predictions`` the largest difference of a probability on the test part; ``accuracy``
the difference of accuracies.

Claims: what is in `BITWISE` gives the same bits. Elsewhere rounding differs, and training amplifies it: a ReLU whose
input is within rounding of 0 lets a gradient through or not, and Adam makes a whole step of any gradient that is not
quite 0. Then predictions stay within `PREDICTIONS`, but for the deep network (after 50 epochs they are as far apart as
with another seed), and accuracies within `ACCURACY`.

    uv run python experiments/reproducibility.py [--python PATH] [--device gpu]

``--python`` names the interpreter of another environment, such as one with a newer JAX; ``--device gpu`` adds the
accelerator, in its own default precision and in the highest. Writes experiments/results/reproducibility.json (what was
not measured now stays there), and exits with an error when a claim is missed.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import mlpjax
from mlpjax.environment import differences, environment
from mlpjax.optim import adam
from mlpjax.options import TrainOptions
from mlpjax.parameters import Params, State
from mlpjax.preparing import Prepared, prepare
from mlpjax.step import start_program

TARGET = Path(__file__).parent / "results" / "reproducibility.json"
DEEP = "64-64×10-10, batch-norm, batch 32"
NETWORKS = {
    "64-256-128-10, dropout, batch 32": (mlpjax.Config(sizes=(64, 256, 128, 10), dropout=0.2), 32),
    "64-512-512-10, batch 512": (mlpjax.Config(sizes=(64, 512, 512, 10)), 512),
    DEEP: (mlpjax.Config(sizes=(64, *(64,) * 10, 10), batch_norm=True), 32),
}
ALPHA, EPOCHS = 1e-3, (1, 10, 50)
GRADIENTS = {"hand": mlpjax.backward, "autodiff": mlpjax.autodiff}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """How a run differs from the reference."""

    way: Literal["callback", "chunks", "population", "twice"] = "callback"
    grad: Literal["hand", "autodiff"] = "hand"
    precision: str | None = None
    compute_dtype: str | None = None
    x64: bool = False
    seed: int = 0
    processors: int | None = None
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    device: Literal["cpu", "cuda"] = "cpu"
    other: bool = False
    """In the environment that ``--python`` names."""
    same_start: bool = False
    """From the start values of the reference, whatever is drawn there."""


REFERENCE, SEED = "reference", "another seed"
VARIANTS = {
    REFERENCE: Variant(),
    "the same process": Variant(way="twice"),
    "another process": Variant(),
    "no callback: chunks of many epochs": Variant(way="chunks"),
    "matmul precision bfloat16": Variant(precision="bfloat16"),
    "matmul precision highest": Variant(precision="highest"),
    "one processor": Variant(processors=1),
    "no threads inside an operation": Variant(variables={"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}),
    "by jax.grad": Variant(grad="autodiff"),
    "beside two others in a population": Variant(way="population"),
    "float64": Variant(x64=True, same_start=True),
    "factors in bfloat16": Variant(compute_dtype="bfloat16"),
    SEED: Variant(seed=1),
    "another environment": Variant(other=True),
    "another environment, the same start": Variant(other=True, same_start=True),
    "accelerator": Variant(device="cuda"),
    "accelerator, matmul precision highest": Variant(device="cuda", precision="highest"),
}
BITWISE = list(VARIANTS)[1:6]
PREDICTIONS = {
    "one processor": (1e-5, 1e-4, 1e-2),
    "no threads inside an operation": (1e-5, 1e-4, 1e-2),
    "by jax.grad": (1e-5, 1e-4, 1e-2),
    "beside two others in a population": (1e-5, 1e-4, 1e-2),
    "float64": (1e-5, 1e-2, 0.3),
    "factors in bfloat16": (0.1, 0.3, 0.5),
    "another environment": (1e-5, 1e-4, 1e-2),
    "another environment, the same start": (1e-5, 1e-4, 1e-2),
}
"""How far predictions may be apart after 1, 10 and 50 epochs, but for the deep network."""
ACCURACY, DEEP_ACCURACY = 0.01, 0.04
"""How far accuracies may be apart, in whatever a run differs but the seed."""

Arrays = dict[str, np.ndarray]


# --- the run, in a process of its own ------------------------------------------------------------------------


def snapshot(config: mlpjax.Config, params: Params, state: State, data: Prepared) -> Arrays:
    """What is compared of a network."""
    test = data.batches["test"]
    yhat = np.asarray(mlpjax.predict(config, params, state, test.x))
    arrays = {f"parameters/{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}
    return {**arrays, "predictions": yhat, "accuracy": np.mean(yhat.argmax(axis=1) == test.y)}


def trained(
    config: mlpjax.Config,
    batch_size: int,
    variant: Variant,
    data: Prepared,
    epochs: tuple[int, ...],
    start: list[np.ndarray] | None,
) -> dict[int, Arrays]:
    """Train as the variant says; snapshots by epoch, of which 0 is the start."""
    key, optimizer, train = jax.random.key(variant.seed), adam(ALPHA), data.batches["train"]
    first = start_program()(config, optimizer=optimizer, key=key)
    shared: dict[str, Any] = {"batch_size": batch_size, "grad_fn": GRADIENTS[variant.grad]}
    if start is not None:
        leaves, tree = jax.tree.flatten(first.params)
        given = [jnp.asarray(array, leaf.dtype) for array, leaf in zip(start, leaves, strict=True)]
        first = first._replace(params=jax.tree.unflatten(tree, given))
        shared |= {"params": first.params, "state": first.state}
    found = {0: snapshot(config, first.params, first.state, data)}

    def look(progress: mlpjax.Progress) -> None:
        if progress.record is not None and progress.epoch in epochs:
            now = progress.train_state
            found[progress.epoch] = snapshot(config, now.params, now.state, data)

    if variant.way in ("callback", "twice"):
        mlpjax.fit(config, optimizer, train, epochs=max(epochs), key=key, callback=look, **shared)
        return found
    for n in epochs:
        if variant.way == "population":
            keys = jnp.stack([jax.random.key(seed) for seed in range(3)])
            result = mlpjax.fit_many(config, adam, train, alphas=[ALPHA] * 3, epochs=n, keys=keys, **shared)[0]
        else:
            result = mlpjax.fit(config, optimizer, train, epochs=n, key=key, **shared)
        found[n] = snapshot(config, result.params, result.state, data)
    return found


def child(name: str, epochs: tuple[int, ...], folder: Path) -> int:
    """Train both networks in this process, and write what became of them."""
    variant, data = VARIANTS[name], prepare(TrainOptions())
    arrays: Arrays = {}
    if variant.processors is not None:  # before there are threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: variant.processors])
    before = np.load(folder / f"{REFERENCE}.npz") if variant.same_start else {}
    with jax.enable_x64(variant.x64), jax.default_matmul_precision(variant.precision):
        for network, (plain, batch_size) in NETWORKS.items():
            config = dataclasses.replace(plain, compute_dtype=variant.compute_dtype)
            start = [before[key] for key in before if key.startswith(f"{network}/0/parameters/")] or None
            for _ in range(2 if variant.way == "twice" else 1):
                runs = trained(config, batch_size, variant, data, epochs, start)
            for n, found in runs.items():
                arrays |= {f"{network}/{n}/{part}": array for part, array in found.items()}
        arrays["environment"] = np.array(json.dumps(environment()))
    np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]  # the stub takes any name for allow_pickle
    return 0


# --- the comparison ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how far two runs of the same training are apart."""

    device: Literal["cpu", "gpu"] = "cpu"
    """gpu: compare an accelerator with the processor too."""
    python: Path | None = None
    """The Python of another environment, to compare with this one."""
    quick: bool = False
    """After 1 and 2 epochs only, few variants; writes nothing."""
    child: str | None = None
    """Train this variant in this process, and do nothing else."""
    folder: Path | None = None
    """Where the child writes."""


def run_child(name: str, options: Options, folder: Path) -> tuple[Arrays, dict[str, Any]]:
    """Train a variant in a new process; what it wrote, and its environment."""
    variant = VARIANTS[name]
    python = options.python if variant.other else sys.executable
    command = [str(python), __file__, "--child", name, "--folder", str(folder), *["--quick"] * options.quick]
    root = str(Path(__file__).parent.parent)
    variables = {**os.environ, "JAX_PLATFORMS": variant.device, "PYTHONPATH": root, **variant.variables}
    subprocess.run(command, check=True, env=variables)
    with np.load(folder / f"{name}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    return arrays, json.loads(arrays.pop("environment").item())


def compare(reference: Arrays, other: Arrays, prefix: str) -> dict[str, Any]:
    """How far two networks are apart."""

    def largest(name: str) -> float:
        one, two = (np.asarray(arrays[prefix + name], np.float64) for arrays in (reference, other))
        scale = np.abs(one).max() if name.startswith("parameters") else 1.0
        return float(np.abs(one - two).max() / (scale or 1.0))

    names = [name.removeprefix(prefix) for name in reference if name.startswith(prefix)]
    return {
        "bitwise": all(reference[prefix + name].tobytes() == other[prefix + name].tobytes() for name in names),
        "parameters": max(largest(name) for name in names if name.startswith("parameters")),
        "predictions": largest("predictions"),
        "accuracy": largest("accuracy"),
    }


def missed_claims(name: str, rows: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """The claims that a variant misses."""
    missed = []
    for network, found in rows.items():
        bound = dict(zip(EPOCHS, PREDICTIONS.get(name, ()) if network != DEEP else (), strict=False))
        accuracy = DEEP_ACCURACY if network == DEEP else ACCURACY
        for n, row in found.items():
            if name in BITWISE and not row["bitwise"]:
                missed.append(f"{name}; {network}: not the same bits after {n} epochs")
            if name != SEED and row["accuracy"] > accuracy:
                missed.append(f"{name}; {network}: accuracies {row['accuracy']:.4f} apart after {n} epochs")
            if row["predictions"] > bound.get(n, np.inf):
                missed.append(f"{name}; {network}: predictions {row['predictions']:.1e} apart after {n} epochs")
    return missed


def main(options: Options) -> int:
    """Print and write what was found; returns 1 when a claim is missed."""
    epochs = (1, 2) if options.quick else EPOCHS
    if options.child is not None and options.folder is not None:
        return child(options.child, epochs, options.folder)
    names = [
        name
        for name, variant in VARIANTS.items()
        if name != REFERENCE
        and (not variant.other or options.python is not None)
        and (variant.device == "cpu" or options.device == "gpu")
    ]
    result = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {"variants": {}}
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        reference, here = run_child(REFERENCE, options, Path(folder))
        for name in names[:3] if options.quick else names:
            other, there = run_child(name, options, Path(folder))
            rows = {
                network: {n: compare(reference, other, f"{network}/{n}/") for n in (0, *epochs)} for network in NETWORKS
            }
            for network, found in rows.items():
                print(f"{name}; {network}: {'; '.join(f'{n}: {told(row)}' for n, row in found.items())}", flush=True)
            changed = {key: pair[1] for key, pair in differences(here, there).items()}
            result["variants"][name] = {"environment": changed, "epochs": rows}
            missed += missed_claims(name, rows)
    print("\n".join(missed) or "all claims are met")
    if not options.quick:
        claims = {"bitwise": BITWISE, "predictions": PREDICTIONS, "accuracy": [ACCURACY, DEEP_ACCURACY]}
        result |= {"claims": claims, "met": not missed, "reference": here}
        TARGET.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(bool(missed))


def told(row: dict[str, Any]) -> str:
    """A row in words."""
    if row["bitwise"]:
        return "the same bits"
    return f"parameters {row['parameters']:.1e}, predictions {row['predictions']:.1e}, accuracy {row['accuracy']:.4f}"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
