"""Two more questions of the experiment on speed: `backward` against `autodiff`, and how the time grows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from speed_floors import XLA
from speed_many import MEMBERS, Many
from speed_peers import Contender, Fit
from speed_rounds import interleave, ratio
from speed_workloads import Job, Workload, load_job

import mlpjax
from mlpjax.step import GradFn

GRADIENTS = {"backward": mlpjax.backward, "autodiff": mlpjax.autodiff}
WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
WIDTH_FLOPS = 4e10
"""About how many operations a training takes in the series over widths."""
_SMALL = Workload(config=mlpjax.Config(sizes=(64, 100, 10)), data="random", batch_size=100, epochs=50, examples=2000)
_EVEN = Workload(config=mlpjax.Config(sizes=(256, 10)), data="random", batch_size=128, epochs=2, examples=4096)
_MEDIUM = Workload(config=mlpjax.Config(sizes=(784, 128, 10)), data="random", batch_size=128, epochs=1, examples=4096)


def backward_section(job: Job, rounds: int, title: str) -> dict[str, Any]:
    """Train with either gradient, and ask how much temporary memory one gradient of a batch needs, in bytes.

    The networks of a population share their batches, and their memory is that of all.
    """
    population = title == "many"
    contenders: dict[str, Contender] = {
        name: Many(job, "shared order", grad_fn) if population else Fit(job, grad_fn)
        for name, grad_fn in GRADIENTS.items()
    }
    rows = interleave(contenders, rounds, f"{title}, gradients")
    memory = {name: temporary_bytes(job, grad_fn, population) for name, grad_fn in GRADIENTS.items()}
    return {"ratio": ratio(rows, "backward", "autodiff"), "temporary_bytes": memory, "contenders": rows}


def temporary_bytes(job: Job, grad_fn: GradFn, population: bool) -> int:
    """What the compiler plans for one batch, beside the arguments and the results."""
    config, b, key = job.workload.config, job.workload.batch_size, jax.random.key(0)
    start: Callable[..., Any] = partial(mlpjax.init, config)
    gradient: Callable[..., Any] = partial(grad_fn, config)
    if population:
        key, start, gradient = jax.random.split(key, MEMBERS), jax.vmap(start), jax.vmap(gradient, (0, 0, None, 0))
    batch = mlpjax.Batch(job.x[:b], job.y[:b])
    compiled = jax.jit(gradient).lower(*start(key), batch, key).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def series() -> dict[str, dict[int, Workload]]:
    """The trainings of the series whose exponents are fitted: over epochs, depth (hidden layers) and examples."""

    def deep(n: int) -> Workload:
        return dataclasses.replace(_EVEN, config=mlpjax.Config(sizes=(*(256,) * (n + 1), 10)))

    return {
        "epochs": {n: dataclasses.replace(_SMALL, epochs=n) for n in (25, 50, 100, 200)},
        "depth": {n: deep(n) for n in (2, 4, 8, 16)},
        "examples": {n: dataclasses.replace(_MEDIUM, examples=n) for n in (4096, 8192, 16384, 32768)},
    }


def wide(n: int) -> Workload:
    """A network with hidden layers n-n on n inputs, and as many examples as take `WIDTH_FLOPS`."""
    config = mlpjax.Config(sizes=(n, n, n, 10))
    batches = np.clip(WIDTH_FLOPS / (6 * parameters(config) * 128), 8, 512)
    return Workload(config=config, data="random", batch_size=128, epochs=1, examples=128 * int(batches))


def parameters(config: mlpjax.Config) -> int:
    """The number of weights."""
    return sum(a * b for a, b in itertools.pairwise(config.sizes))


def scaling_section(rounds: int, device: str) -> dict[str, Any]:
    """The exponents of time against each size, fitted on logarithms; the cost per example and weight over widths."""
    found: dict[str, Any] = {}
    for name, workloads in series().items():
        fits = {str(n): Fit(load_job(workload, None, device)) for n, workload in workloads.items()}
        seconds = {n: row["median"] for n, row in interleave(fits, rounds, f"growth with {name}").items()}
        exponent = np.polyfit(np.log(list(workloads)), np.log(list(seconds.values())), 1)[0]
        found[name] = {"exponent": float(exponent), "seconds": seconds}
    found["widths"] = [width_row(n, rounds, device) for n in WIDTHS]
    return found


def width_row(n: int, rounds: int, device: str) -> dict[str, Any]:
    """The time of one width beside the floor's, in nanoseconds per example and weight."""
    job = load_job(wide(n), None, device)
    rows = interleave({"mlpjax": Fit(job), "XLA": XLA(job)}, rounds, f"width {n}")
    unit = 1e-9 * len(job.x) * parameters(job.workload.config)
    costs = {name: row["median"] / unit for name, row in rows.items()}
    return {"width": n, "nanoseconds": costs, "share": ratio(rows, "XLA", "mlpjax")}
