"""scikit-learn in the experiment on speed: `MLPClassifier.fit`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from speed_peers import LeftOut
from speed_workloads import Job, Orders

import mlpjax


class Sklearn:
    """One call of ``fit``: it draws its own start values and orders, and its time has both."""

    tells_compile = False

    def __init__(self, job: Job) -> None:
        config = job.workload.config
        if job.device != "cpu":
            raise LeftOut("has no accelerator")
        if config.batch_norm or config.has_dropout:
            raise LeftOut("has no batch-norm and no dropout")
        self.job = job

    def start(self, seed: int) -> None:
        """Take the seed; the start values are the library's."""
        self.seed = seed

    def train(self, orders: Orders) -> dict[str, float] | None:
        """Train; no example of an epoch is left out, and no early stop."""
        self.fit(orders, self.job.workload.lr, self.seed)
        return None

    def fit(self, orders: Orders, lr: float, seed: int) -> None:
        """One call of ``fit``."""
        workload = self.job.workload
        self.model = MLPClassifier(
            hidden_layer_sizes=workload.config.sizes[1:-1],
            activation=workload.config.activations[0],
            solver=workload.rule,
            alpha=0.0,
            batch_size=min(workload.batch_size, orders.rows),
            learning_rate_init=lr,
            momentum=0.0,
            nesterovs_momentum=False,
            max_iter=orders.epochs,
            tol=0.0,
            n_iter_no_change=orders.epochs + 1,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model.fit(self.job.x[: orders.rows], self.job.y[: orders.rows])

    def params(self) -> Any:
        """Its ``coefs_`` and ``intercepts_``."""
        return tuple(mlpjax.Layer(W, b) for W, b in zip(self.model.coefs_, self.model.intercepts_, strict=True))


class SklearnAlone(Sklearn):
    """Some networks of a population, one after another, with a learning rate each; the time counts ``times``-fold."""

    def __init__(self, job: Job, rates: Sequence[float], times: float) -> None:
        super().__init__(job)
        self.rates, self.times = rates, times

    def train(self, orders: Orders) -> dict[str, float]:
        """Train; the parameters are those of the last."""
        started = time.perf_counter()
        for i, rate in enumerate(self.rates):
            self.fit(orders, rate, self.seed * len(self.rates) + i)
        return {"seconds": self.times * (time.perf_counter() - started)}


CONTENDERS = {"scikit-learn": Sklearn}
