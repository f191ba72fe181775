"""Many networks in the experiment on speed: 64 of them, each with its own start values and learning rate.

`mlpjax.fit_many` trains all in one program, on the same batches or on batches of their own; `mlpjax.fit` and
scikit-learn train one after another. Of those, 8 of the 64 are trained, and the time counts 8-fold.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from speed_peers import Contender
from speed_workloads import Job, Orders

import mlpjax
from mlpjax import optim
from mlpjax.step import GradFn

MEMBERS, TIMED = 64, 8
ALPHAS = np.geomspace(1e-4, 1e-2, MEMBERS)
ALONE = range(MEMBERS // TIMED - 1, MEMBERS, MEMBERS // TIMED)
"""The members that are trained one after another; the final loss is that of the last."""
ORDERS = ("shared order", "own orders")


class Many:
    """`mlpjax.fit_many`."""

    tells_compile = True

    def __init__(self, job: Job, order: str, grad_fn: GradFn = mlpjax.backward) -> None:
        self.job, self.shared, self.grad_fn = job, order == "shared order", grad_fn

    def start(self, seed: int) -> None:
        """The members draw their own."""

    def train(self, orders: Orders) -> dict[str, float]:
        """Train all."""
        workload, started = self.job.workload, time.perf_counter()
        self.results = mlpjax.fit_many(
            workload.config,
            optim.adam,
            mlpjax.Batch(self.job.x, self.job.y),
            alphas=ALPHAS,
            epochs=orders.epochs,
            batch_size=workload.batch_size,
            keys=jax.random.split(orders.key, MEMBERS),
            order_key=orders.key if self.shared else None,
            grad_fn=self.grad_fn,
        )
        compiling = self.results[0].seconds_compile
        return {"seconds": time.perf_counter() - started - compiling, "compile": compiling}

    def params(self) -> Any:
        """Those of the last member."""
        return self.results[-1].params


class FitAlone:
    """`mlpjax.fit`, one member after another."""

    tells_compile = True

    def __init__(self, job: Job, order: str) -> None:
        self.job, self.shared = job, order == "shared order"
        # made once: another optimiser is another program
        self.rules = [optim.adam(float(ALPHAS[i])) for i in ALONE]

    def start(self, seed: int) -> None:
        """The members draw their own."""

    def train(self, orders: Orders) -> dict[str, float]:
        """Train some."""
        workload, keys = self.job.workload, jax.random.split(orders.key, MEMBERS)
        started = time.perf_counter()
        results = [
            mlpjax.fit(
                workload.config,
                rule,
                mlpjax.Batch(self.job.x, self.job.y),
                epochs=orders.epochs,
                batch_size=workload.batch_size,
                key=keys[i],
                order_key=orders.key if self.shared else None,
            )
            for i, rule in zip(ALONE, self.rules, strict=True)
        ]
        self.last = results[-1].params
        seconds, compiling = time.perf_counter() - started, sum(result.seconds_compile for result in results)
        return {
            "seconds": MEMBERS / TIMED * (seconds - compiling),
            "compile": MEMBERS / TIMED * compiling,
        }

    def params(self) -> Any:
        """Those of the last member."""
        return self.last


def many(job: Job, order: str) -> tuple[dict[str, Contender], dict[str, str]]:
    """Make the contenders for the members' order, and say what is left out."""
    found: dict[str, Contender] = {"mlpjax": Many(job, order), "mlpjax.fit": FitAlone(job, order)}
    if find_spec("sklearn") is None:
        return found, {"scikit-learn": "not installed"}
    from speed_sklearn import SklearnAlone

    found["scikit-learn"] = SklearnAlone(job, [float(ALPHAS[i]) for i in ALONE], MEMBERS / TIMED)
    return found, {}
