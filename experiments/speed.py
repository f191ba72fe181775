"""How long mlpjax and other libraries take to train the same networks, and the floors below: matrix products alone.

Same data, batches, optimiser and number of steps in `mlpjax.fit`, scikit-learn, PyTorch (eager and `torch.compile`),
Flax NNX and Equinox, each in the fastest form that its documentation shows; what is not installed is left out. All
but scikit-learn have the start values and the order of the examples of `mlpjax.fit`, so that their final losses agree
to 2 %, and where units are dropped to 50 %; scikit-learn's, from its own start, to a factor of 4. Time is that of the
training loop: data on the device as float32, network made, programs compiled; for mlpjax and scikit-learn it is all of
``fit``, checks and start values too, less the time in which mlpjax compiles (``whole`` has it). In every round each has
its turn; a ratio is the median over the rounds of ratios within one round. A round in which other processes take over
a tenth of the processors is repeated, twice at most.

The floors are the bare products of the training, 3L − 1 in a step, in one compiled loop of XLA and in NumPy's and
PyTorch's BLAS. Other parts: `backward` against `autodiff` (the ratio of times in the same loop, and the temporary
memory of one gradient), and how time grows with epochs, depth, examples and width.

    python -m venv peers
    peers/bin/pip install . -r experiments/speed_requirements.txt
    peers/bin/python experiments/speed.py --data-dir DIR             # everything
    peers/bin/python experiments/speed.py --data-dir DIR --quick     # in 3 minutes; writes nothing
    uv run python experiments/speed.py --workloads tiny --parts peers    # without the peers
    peers/bin/python experiments/speed.py --device gpu               # adds a wide network in bfloat16

Writes experiments/results/speed.json, where what is measured replaces its own part, and exits with an error when a
claim is missed. ``--readme`` measures nothing and writes the README's tables from that file.

What was tried on the engine, on the machine of the JSON, each beside the engine without it:

    chunks of many epochs, no visit to the host between them     kept   tiny 2.3 times as fast, small 1.4 times
    a loop of as many steps as are wanted, instead of padding    kept   small 1.3 times as fast
      batches and a select on every parameter in every step
    dropout masks by a Threefry that compiles to one loop        kept   47 µs for 256 × 256, not 352; deep 1.4 times
    the start as one program, at a lower level of optimisation   kept   0.4 s of start-up, not 1.1 s
    a barrier: the loss is computed before the update            kept   as fast; no more memory than `autodiff`
    XLA's region-based copy insertion                            not    large 5 % slower, others as fast
    without XLA's YNNPACK products                               not    medium 5 % faster, large 12 % slower
    the train state donated to the chunk                         not    as fast; a run that diverged could not go back
    updates of weights in blocks that fit a cache                not    5 to 16 times as slow
    populations with the examples last, (N, units, batch)        not    a bare step of `many` takes 0.81 ms, not 1.18;
      but every layer would be written twice: XLA undoes it where it is asked for by transposes or layouts
    without the report of each step                              not    medium 4 % faster; it is the history
    gathers by promise_in_bounds, or without the padding mask    not    no difference
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from speed_floors import floors, flops
from speed_many import ORDERS, many
from speed_peers import Contender, Fit, peers
from speed_report import (
    alone,
    disagreements,
    disturbance,
    gradients,
    growth,
    rates,
    ratios,
    readme_block,
    rewrite,
    table,
    verdicts,
)
from speed_rounds import interleave
from speed_sections import backward_section, scaling_section
from speed_workloads import QUICK, WORKLOADS, Job, load_job

from mlpjax.errors import DataError
from mlpjax.versions import versions

TARGET = Path(__file__).parent / "results" / "speed.json"
README = Path(__file__).parents[1] / "README.md"
PEAKS = {
    "NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA A100-SXM4-40GB": 312e12, "NVIDIA L4": 121e12,
}  # fmt: skip
"""Floating-point operations per second in bfloat16, dense, by the vendor's data sheets."""

Name = Literal["tiny", "small", "medium", "large", "deep", "many", "wide"]
Part = Literal["peers", "backward", "scaling"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How long mlpjax and other libraries take to train the same networks."""

    workloads: tuple[Name, ...] = ()
    """Networks; by default all, wide only on an accelerator."""
    parts: tuple[Part, ...] = ("peers", "backward", "scaling")
    """What is measured."""
    rounds: int = 5
    """How often each contender has its turn."""
    quick: bool = False
    """Fewer examples and epochs, 3 rounds, no torch.compile; only peers."""
    data_dir: str | None = None
    """Folder of MNIST; by default MLPJAX_DATA_DIR."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where to train."""
    json: Path | None = None
    """Where to write; by default results/speed.json, and a quick form nowhere."""
    readme: bool = False
    """Write the README's tables from the JSON, and do nothing else."""


def jobs(options: Options) -> dict[str, Job]:
    """Load the data of the workloads; those whose data are missing are skipped, and a line says so."""
    found: dict[str, Job] = {}
    for name in options.workloads or [name for name in WORKLOADS if name != "wide" or options.device == "gpu"]:
        workload = dataclasses.replace(WORKLOADS[name], **QUICK[name] if options.quick else {})
        try:
            found[name] = load_job(workload, options.data_dir, options.device)
        except DataError as error:
            print(f"{name} is skipped: {error}")
    return found


def compare(name: str, job: Job, rounds: int, quick: bool) -> dict[str, Any]:
    """Train one workload in every library, and multiply; records by name."""
    tries = 1 if quick else 3
    if name == "many":
        titles = {order: f"many, {order}" for order in ORDERS}
        return {title: compared(title, job, rounds, tries, *many(job, order)) for order, title in titles.items()}
    others, left_out = peers(job)
    if quick and others.pop("torch.compile", None):
        left_out["torch.compile"] = "compiles longer than the quick form may take"
    return {name: compared(name, job, rounds, tries, {"mlpjax": Fit(job), **others, **floors(job)}, left_out)}


def compared(
    name: str, job: Job, rounds: int, tries: int, contenders: dict[str, Contender], left_out: dict[str, str]
) -> dict[str, Any]:
    """The record of one workload."""
    workload = job.workload
    rows = interleave(contenders, rounds, name, tries=tries)
    record = {
        "title": f"{workload.network}, batch {workload.batch_size}, {len(job.x):,} × {workload.epochs}",
        "steps": job.steps,
        "dropout": workload.config.has_dropout,
        "rounds": rounds,
        "contenders": rows,
        "ratios": ratios(rows),
        "left_out": left_out,
    }
    if job.device != "cpu" and "XLA" in rows:
        rate, peak = flops(job) / rows["mlpjax"]["median"], PEAKS.get(jax.devices()[0].device_kind)
        record |= {"flops_per_second": rate, "share_of_peak": None if peak is None else rate / peak}
    return record


def made_by(options: Options) -> dict[str, Any]:
    """The machine, the versions and the command."""
    changed = [
        f"--{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name in ("workloads", "parts", "rounds", "device")
        if (value := getattr(options, name)) != getattr(Options(), name)
    ]
    changed += ["--quick"] * options.quick
    others = {"scikit-learn": "sklearn", "torch": "torch", "flax": "flax", "equinox": "equinox"}
    return {
        "command": " ".join(["python experiments/speed.py --data-dir DIR", *changed]),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": jax.devices()[0].device_kind,
        },
        "versions": versions() | {name: version(name) for name, module in others.items() if find_spec(module)},
    }


def processor() -> str:
    """The name of the processor, from where Linux has it, or else from Python."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def measure(options: Options, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure what is asked for; print and keep it on the way."""
    rounds = min(options.rounds, 3) if options.quick else options.rounds
    parts = ("peers",) if options.quick else options.parts
    part: dict[str, Any] = {"workloads": {}, "backward": {}}
    found = jobs(options)
    for name, job in found.items() if "peers" in parts else ():
        records = compare(name, job, rounds, options.quick)
        part["workloads"] |= records
        print("\n".join([table({"workloads": records}), *alone(records), *rates(records)]))
        for title, record in records.items():
            lines = [f"{title}: without {peer}: {reason}" for peer, reason in record["left_out"].items()]
            print("\n".join([*lines, *disagreements(title, record), *disturbance(title, record), ""]), flush=True)
        keep({"workloads": records})
    for name, job in found.items() if "backward" in parts else ():
        part["backward"][name] = backward_section(job, rounds, name)
        keep({"backward": {name: part["backward"][name]}})
    if "backward" in parts:
        print(gradients(part["backward"]), flush=True)
    if "scaling" in parts:
        part["scaling"] = scaling_section(rounds, options.device)
        print(growth(part["scaling"]), flush=True)
        keep({"scaling": part["scaling"]})
    return part


def write(target: Path, device: str, part: dict[str, Any], made: dict[str, Any]) -> None:
    """Put what was measured into the file, and leave the rest of it."""
    result = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    before = result.setdefault(device, {})
    for name in ("workloads", "backward"):
        if name in part:
            records = before.get(name, {}) | {key: value | {"made": made} for key, value in part[name].items()}
            order = list(WORKLOADS)
            before[name] = dict(sorted(records.items(), key=lambda item: order.index(item[0].split(",")[0])))
    if "scaling" in part:
        before["scaling"] = part["scaling"] | {"made": made}
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(options: Options) -> int:
    """Measure, print and write; returns 1 when a claim is missed or a loss does not agree."""
    target = options.json or (None if options.quick else TARGET)
    if options.readme:
        result = json.loads((options.json or TARGET).read_text(encoding="utf-8"))
        README.write_text(rewrite(README.read_text(encoding="utf-8"), readme_block(result)), encoding="utf-8")
        return 0
    # read when the first array is made: PyTorch needs memory beside jax
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if options.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != options.device:
        print(f"--device {options.device}: jax found {jax.default_backend()} only: install mlpjax[cuda13]")
        return 1
    made = made_by(options)

    def keep(measured: dict[str, Any]) -> None:
        if target is not None:
            write(target, options.device, measured, made)

    part = measure(options, keep)
    wrong = [line for name, record in part["workloads"].items() for line in disagreements(name, record)]
    claims = verdicts(part) if options.device == "cpu" else []
    print("\n".join([line for _, line in claims] + wrong))
    return int(not options.quick and (bool(wrong) or not all(met for met, _ in claims)))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
