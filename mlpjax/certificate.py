"""A certificate of a run: by it anybody can train again, and see at which epoch the numbers part, if they do.

`RunCertificate` is a callback for `mlpjax.fit` that takes the SHA-256 of all numbers at the end of each epoch;
`first_differing_epoch` compares two. ``mlpjax train --certificate`` writes one with the options, and ``mlpjax verify``
trains again (see `mlpjax.certificate_file`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import optax

from mlpjax.config import Config
from mlpjax.environment import environment
from mlpjax.loop import Progress
from mlpjax.memory import check_memory
from mlpjax.snapshots import digest
from mlpjax.step import TrainState, start_program

PARTS = TrainState._fields
"""What is certified of an epoch: the parameters, the batch-norm statistics, the optimiser's state."""


class EpochHashes(NamedTuple):
    """Where training stood at the end of an epoch; epoch 0 is the start.

    ``loss`` is the epoch's mean data loss, ``None`` at the start. The others are SHA-256 over dtypes, shapes and bytes
    of the arrays of a part of the `mlpjax.TrainState`, in the order of ``jax.tree.leaves``: equal if every bit is.
    """

    epoch: int
    loss: float | None
    params: str
    state: str
    opt_state: str


class Difference(NamedTuple):
    """The first epoch at which two runs part, and what of it differs: names among `PARTS`, in their order."""

    epoch: int
    parts: tuple[str, ...]


class RunCertificate:
    """A callback for `mlpjax.fit` that certifies every epoch in ``epochs``, a list of `EpochHashes`.

    ``then`` is another callback, called after it, whose answer ends training or not.

    >>> import numpy as np
    >>> config, xor = mlpjax.Config(sizes=(2, 1), head="binary"), mlpjax.Batch(np.eye(2), np.array([0, 1]))
    >>> def certified(alpha):
    ...     certificate = RunCertificate()
    ...     key = jax.random.key(0)
    ...     _ = mlpjax.fit(config, optax.adam(alpha), xor, epochs=2, batch_size=2, key=key, callback=certificate)
    ...     return certificate.epochs
    >>> first_differing_epoch(certified(0.1), certified(0.1))
    >>> first_differing_epoch(certified(0.1), certified(0.2))
    Difference(epoch=1, parts=('params',))
    """

    def __init__(self, then: Callable[[Progress], bool | None] | None = None) -> None:
        self.then = then
        self.epochs: list[EpochHashes] = []

    def __call__(self, progress: Progress) -> bool | None:
        """Certify the epoch, if it has ended."""
        if progress.record is not None:
            loss = progress.record["train_loss"]
            self.epochs.append(epoch_hashes(progress.epoch, loss, progress.train_state))
        return None if self.then is None else self.then(progress)

    def certify_start(self, config: Config, optimizer: optax.GradientTransformation, key: jax.Array) -> None:
        """Certify, as epoch 0, what `mlpjax.fit` starts from if it is given no parameters."""
        check_memory(config)
        start = start_program()(config, optimizer=optimizer, key=key)
        self.epochs.append(epoch_hashes(0, None, start))

    def to_dict(self) -> dict[str, Any]:
        """The epochs and the environment (see `mlpjax.environment.environment`), as JSON has them."""
        return {"environment": environment(), "epochs": [epoch._asdict() for epoch in self.epochs]}


def epoch_hashes(epoch: int, loss: float | None, train_state: TrainState) -> EpochHashes:
    """Certify where training stands; a ``loss`` that is not finite, which JSON lacks, becomes ``None``."""
    parts = (digest(jax.tree.leaves(part)) for part in train_state)
    return EpochHashes(epoch, loss if loss is not None and math.isfinite(loss) else None, *parts)


def first_differing_epoch(first: Iterable[EpochHashes], second: Iterable[EpochHashes]) -> Difference | None:
    """Find the first epoch that two runs both have and that is not the same in both; ``None`` if there is none.

    >>> a = EpochHashes(1, 0.5, "aa", "bb", "cc")
    >>> first_differing_epoch([a], [a._replace(epoch=2), a._replace(params="dd", opt_state="ee")])
    Difference(epoch=1, parts=('params', 'opt_state'))
    """
    others = {epoch.epoch: epoch for epoch in second}
    for own in sorted(first, key=lambda row: row.epoch):
        other = others.get(own.epoch, own)
        if parts := tuple(part for part in PARTS if getattr(own, part) != getattr(other, part)):
            return Difference(own.epoch, parts)
    return None
