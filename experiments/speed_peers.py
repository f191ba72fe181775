"""The contenders in the experiment on speed: mlpjax, and the libraries that are installed.

A contender gets its data when it is made, its start values with `start`, and trains with `train`, whose time is
measured. Libraries other than scikit-learn take the start values and the batches of `mlpjax.fit`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

import jax
from speed_workloads import Job, Orders

import mlpjax
from mlpjax import optim
from mlpjax.step import GradFn

PEERS = {
    "scikit-learn": ("sklearn", "speed_sklearn"),
    "PyTorch": ("torch", "speed_torch"),
    "torch.compile": ("torch", "speed_torch"),
    "Flax NNX": ("flax", "speed_flax"),
    "Equinox": ("equinox", "speed_equinox"),
}
"""The package that each peer needs, and the file here that trains with it."""


class LeftOut(Exception):
    """Why a library cannot do a workload."""


class Contender(Protocol):
    """One way to train a job; ``tells_compile``: `train` says itself how long it compiled."""

    job: Job
    tells_compile: bool

    def start(self, seed: int) -> None:
        """Set the start values: not measured."""

    def train(self, orders: Orders) -> dict[str, float] | None:
        """Train to the end; may return ``seconds`` and ``compile``, where they are not those of the call."""

    def params(self) -> Any:
        """The parameters, one `mlpjax.Layer` per layer; ``None`` for a floor."""


class Fit:
    """`mlpjax.fit`, which says itself how long it compiled."""

    tells_compile = True

    def __init__(self, job: Job, grad_fn: GradFn = mlpjax.backward) -> None:
        rule = {"sgd": optim.gradient_descent, "adam": optim.adam}[job.workload.rule]
        self.job, self.rule, self.grad_fn = job, rule(job.workload.lr), grad_fn
        # on the device, as those of the other libraries
        self.batch = mlpjax.Batch(jax.device_put(job.x), jax.device_put(job.y))

    def start(self, seed: int) -> None:
        """`mlpjax.fit` draws them itself, from its key."""

    def train(self, orders: Orders) -> dict[str, float]:
        """Train."""
        workload, started = self.job.workload, time.perf_counter()
        self.result = mlpjax.fit(
            workload.config,
            self.rule,
            self.batch,
            epochs=orders.epochs,
            batch_size=workload.batch_size,
            key=orders.key,
            grad_fn=self.grad_fn,
        )
        compiling = self.result.seconds_compile
        return {"seconds": time.perf_counter() - started - compiling, "compile": compiling}

    def params(self) -> Any:
        """The last ones."""
        return self.result.params


def peers(job: Job) -> tuple[dict[str, Contender], dict[str, str]]:
    """Make the peers that can do a job, and say why the others cannot."""
    found: dict[str, Contender] = {}
    left_out: dict[str, str] = {}
    for name, (package, module) in PEERS.items():
        if find_spec(package) is None:
            left_out[name] = "not installed"
            continue
        make: Callable[[Job], Contender] = importlib.import_module(module).CONTENDERS[name]
        try:
            found[name] = make(job)
        except LeftOut as reason:
            left_out[name] = str(reason)
    return found, left_out
