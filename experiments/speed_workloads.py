"""What the experiment on speed trains: networks, data, and the order of the examples, the same for every library."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import mlpjax
from mlpjax import Config
from mlpjax.chunks import epoch_order
from mlpjax.toys import spiral

EVALUATED = 10_000
"""How many training examples the final loss is taken on, at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A network, its data and how it is trained.

    ``data`` is ``spiral``, ``digits``, ``mnist``, or ``random``, which has ``examples`` rows for the network's sizes.
    ``examples`` takes only the first rows of the others; ``None`` takes all.
    """

    config: Config
    data: str
    batch_size: int
    epochs: int
    rule: str = "adam"
    lr: float = 1e-3
    examples: int | None = None

    @property
    def network(self) -> str:
        """The widths, as 784-128-10 or 784-256×12-10."""
        first, *hidden, last = self.config.sizes
        equal = len(hidden) > 3 and len(set(hidden)) == 1
        return "-".join(map(str, [first, f"{hidden[0]}×{len(hidden)}" if equal else "-".join(map(str, hidden)), last]))


_DEEP = Config(sizes=(784, *(256,) * 12, 10), batch_norm=True, dropout=0.1)
_WIDE = Config(sizes=(784, *(8192,) * 4, 10), compute_dtype="bfloat16")

WORKLOADS = {
    "tiny": Workload(
        config=Config(sizes=(2, 8, 8, 1), activation="tanh", head="binary"),
        data="spiral", batch_size=32, epochs=200, rule="sgd", lr=0.1,
    ),
    "small": Workload(config=Config(sizes=(64, 100, 10)), data="digits", batch_size=100, epochs=60),
    "medium": Workload(config=Config(sizes=(784, 128, 10)), data="mnist", batch_size=128, epochs=2),
    "large": Workload(config=Config(sizes=(784, 1024, 1024, 10)), data="mnist", batch_size=512, epochs=1),
    "deep": Workload(config=_DEEP, data="mnist", batch_size=256, epochs=1),
    "many": Workload(config=Config(sizes=(64, 32, 10)), data="digits", batch_size=100, epochs=30),
    "wide": Workload(config=_WIDE, data="random", batch_size=1024, epochs=1, lr=1e-4, examples=60_000),
}  # fmt: skip
"""By name; ``many`` is one of 64 networks, which differ in their learning rates; ``wide`` is for accelerators."""
QUICK = {
    "tiny": {"epochs": 40}, "small": {"epochs": 20}, "medium": {"epochs": 1, "examples": 12_800},
    "large": {"examples": 5_120}, "many": {"epochs": 10}, "deep": {"examples": 5_120}, "wide": {"examples": 10_240},
}  # fmt: skip
"""What the quick form changes."""


class Orders(NamedTuple):
    """The order of the examples in each of some epochs, cut to its first ``rows``."""

    key: jax.Array
    m: int
    epochs: int
    rows: int

    def __iter__(self) -> Iterator[np.ndarray]:  # type: ignore[override]
        """Draw one epoch after another, as `mlpjax.fit` does: inside the time that is measured."""
        for epoch in range(1, self.epochs + 1):
            yield epoch_order(self.key, epoch, self.m)[: self.rows]


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A workload with its examples in memory, and the device to train on."""

    workload: Workload
    x: np.ndarray
    y: np.ndarray
    device: str

    @property
    def steps(self) -> int:
        """Updates in the whole training."""
        return self.workload.epochs * -(-len(self.x) // self.workload.batch_size)

    def orders(self, seed: int) -> Orders:
        """The orders of a whole training."""
        return Orders(jax.random.key(seed), len(self.x), self.workload.epochs, len(self.x))

    def first_orders(self) -> Orders:
        """A training of a step or two: a full batch, and the smaller last one if there is one."""
        m, b = len(self.x), min(self.workload.batch_size, len(self.x))
        return Orders(jax.random.key(0), m, 1, b + m % b)

    def start(self, seed: int) -> mlpjax.parameters.Params:
        """The weights that every library which can be given weights starts from: those of `mlpjax.fit`."""
        return mlpjax.init(self.workload.config, jax.random.key(seed))[0]

    def loss(self, params: Any) -> float:
        """The mean loss of the first training examples, without dropout and with the batch-norm statistics of them."""
        config = dataclasses.replace(self.workload.config, dropout=None, compute_dtype=None)
        state = mlpjax.init(config, jax.random.key(0))[1]
        batch = mlpjax.Batch(self.x[:EVALUATED], self.y[:EVALUATED])
        return float(mlpjax.loss(config, params, state, batch)[1].data_loss)


def load_job(workload: Workload, data_dir: str | None, device: str) -> Job:
    """Read or draw the examples: float32, pixels from 0 to 1.

    Raises:
        DataError: if MNIST is not in the folder.
    """
    if workload.data == "random":
        rng = np.random.default_rng(0)
        x = rng.random((workload.examples, workload.config.sizes[0]), np.float32)
        return Job(workload, x, rng.integers(0, workload.config.sizes[-1], len(x)).astype(np.int32), device)
    if workload.data == "spiral":
        x, y = spiral(1000)
    else:
        dataset = mlpjax.load_dataset(workload.data, data_dir=data_dir)
        x, y = np.asarray(dataset.x, np.float32) / {"digits": 16, "mnist": 255}[workload.data], dataset.y
    return Job(workload, np.ascontiguousarray(x[: workload.examples]), np.asarray(y[: workload.examples]), device)


def optax_rule(workload: Workload) -> optax.GradientTransformation:
    """The optimiser of the libraries on optax."""
    return {"sgd": optax.sgd, "adam": optax.adam}[workload.rule](workload.lr)
