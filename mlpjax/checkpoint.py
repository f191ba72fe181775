"""Checkpoints: files from which an interrupted run goes on as if nothing had happened, bit by bit.

A checkpoint is a sealed file (see `mlpjax.sealed`) named by its step, ``step-000000001200.npz``. It is written to a
temporary file, flushed and renamed, so that a crash at any moment leaves the one before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from mlpjax.checks import check_count
from mlpjax.environment import differences, environment
from mlpjax.errors import CheckpointError, CheckpointWarning, ConfigError
from mlpjax.files import TEMPORARY, atomic_write
from mlpjax.run_identity import first_difference
from mlpjax.sealed import Kind, read_sealed, seal, usable
from mlpjax.snapshots import Content, described

CHECKPOINT = Kind(
    name="checkpoint",
    format="mlpjax checkpoint",
    version=1,
    writer="`mlpjax train --checkpoint` or mlpjax.fit",
    remedy="use another checkpoint of the run",
    error=CheckpointError,
)
_NAME = re.compile(r"step-([0-9]{12})\.npz")


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Where and how often `mlpjax.fit` writes checkpoints: its argument ``checkpoint``.

    A checkpoint holds everything that influences the future of a run: parameters, batch-norm statistics, the
    optimiser's state and with it the place in a schedule, the key, the step, the history, the best parameters of early
    stopping, and what the run is: config, data (a SHA-256), batch size and the rest; it takes the space of two train
    states, or of three. A run that was killed and resumed
    returns, bit by bit, what it returns without interruption, if versions and device are the same; if not, a
    `CheckpointWarning` says so. Only the column ``seconds`` of the history differs.

    Args:
        folder: of this run alone; made if it is not there.
        resume: go on from the newest checkpoint, or start if there is none. If the newest is damaged, the one before
            is taken, with a `CheckpointWarning`. Without ``resume`` a folder that has checkpoints is refused. The
            epochs of a resumed run may be more than before.
        seconds: write a checkpoint when so many have passed since the last one.
        chunks: write one after so many chunks, too. A chunk takes about two seconds at most; with ``valid_data`` or
            ``callback`` one ends with each epoch.
        keep: how many checkpoints are kept, the newest.
        info: other plain values that must be the same when the run is resumed, such as a learning rate: of the
            optimiser only the structure of its state can be compared.

    Raises:
        ConfigError: if ``seconds`` is negative, or ``chunks`` or ``keep`` below 1.

    >>> import jax, optax, tempfile
    >>> config, optimizer = mlpjax.Config(sizes=(1, 2), head="multiclass"), optax.adam(0.1)
    >>> data = mlpjax.Batch(np.array([[1.0], [-1.0]]), np.array([0, 1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = dict(batch_size=2, key=jax.random.key(0), checkpoint=Checkpoints(folder, resume=True))
    ...     first = mlpjax.fit(config, optimizer, data, epochs=3, **settings)
    ...     longer = mlpjax.fit(config, optimizer, data, epochs=5, **settings)
    >>> longer.resumed_at, longer.history["epoch"]
    (3, [1, 2, 3, 4, 5])
    """

    folder: str | os.PathLike[str]
    resume: bool = False
    seconds: float = 60.0
    chunks: int | None = None
    keep: int = 3
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_count("keep", self.keep)
        if self.chunks is not None:
            check_count("chunks", self.chunks)
        if not self.seconds >= 0:
            raise ConfigError(f"seconds is {self.seconds}: expected a number ≥ 0")


class AnySnapshot(Protocol):
    """Where a run stands, or a population: see `mlpjax.snapshots`."""

    @property
    def step(self) -> int:
        """How many steps were taken."""

    def to_file(self) -> Content:
        """The header and the arrays of a file."""


S = TypeVar("S", bound=AnySnapshot)
Reader: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], S]


class CheckpointFolder(Generic[S]):
    """The folder of a run while it is in use."""

    def __init__(
        self, options: Checkpoints, identity: Mapping[str, Any], epochs: int, like: Any, read: Reader[S]
    ) -> None:
        self.options, self.epochs, self.like, self.read = options, epochs, like, read
        # as it comes back from a file: a tuple is a list there
        self.identity = _plain(identity)
        self.folder = Path(options.folder)
        self.written: int | None = None
        self.waited = 0
        self.last_time = time.monotonic()

    def newest(self) -> S | None:
        """Where to go on: the newest checkpoint that is whole, or ``None`` if the run has to start."""
        paths = self.paths()
        if paths and not self.options.resume:
            raise CheckpointError(
                f"{self.folder} has checkpoints of a run already ({paths[-1].name}): resume it, or give another folder"
            )
        for path in reversed(paths):
            try:
                header, arrays = read_checkpoint(path)
            except (CheckpointError, OSError) as error:
                told = f"{path}: {error.strerror or error}" if isinstance(error, OSError) else error
                warnings.warn(f"{told}; the checkpoint before it is wanted", CheckpointWarning, stacklevel=4)
                continue
            return self.of_this_run(path, header, arrays)
        if paths:
            raise CheckpointError(
                f"{self.folder}: none of its {len(paths)} checkpoints is whole: start in another folder"
            )
        return None

    def of_this_run(self, path: Path, header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> S:
        """Read a checkpoint, if it is one of this run."""
        with usable(CHECKPOINT, str(path)):
            run, written_in, train_state = (_object(header, name) for name in ("run", "environment", "train_state"))
            step, epochs = int(header["step"]), int(header["epochs"])
        difference = first_difference(run, self.identity, "this run")
        difference = difference or first_difference(train_state, described(self.like), "the optimiser given")
        if difference is None and epochs > self.epochs:
            difference = f"epochs is {epochs} in it, {self.epochs} in this run, which may only be longer"
        if difference is not None:
            raise CheckpointError(f"{path} is a checkpoint of another run: {difference}")
        changed = differences(written_in, environment())
        if changed:
            name, (then, now) = next(iter(changed.items()))
            message = f"{path}: the last bits may differ from an uninterrupted run: {name} was {then}, now {now}"
            warnings.warn(message, CheckpointWarning, stacklevel=5)
        with usable(CHECKPOINT, str(path)):
            snapshot = self.read(header, arrays)
        self.written = step
        return snapshot

    def after_chunk(self, snapshot: Callable[[], S], *, last: bool) -> None:
        """Write a checkpoint if it is time, or if this is the ``last`` chance."""
        self.waited += 1
        due = time.monotonic() - self.last_time >= self.options.seconds
        if not (last or due or self.waited == self.options.chunks):
            return
        self.write(snapshot())
        self.waited, self.last_time = 0, time.monotonic()

    def write(self, snapshot: S) -> None:
        """Write a checkpoint, and remove those that are too many."""
        header, arrays = snapshot.to_file()
        header |= {"run": self.identity, "epochs": self.epochs, "environment": environment()}
        path = self.folder / f"step-{snapshot.step:012d}.npz"
        try:
            atomic_write(path, seal(CHECKPOINT, header, arrays))
        except OSError as error:
            kept = "there is none before it" if self.written is None else f"step {self.written:,} is kept"
            raise CheckpointError(
                f"{path} cannot be written ({error.strerror or error}): {kept}; make room and resume"
            ) from error
        self.written = snapshot.step
        # a later step could not be read, and does not count
        for old in [other for other in self.paths() if other.name <= path.name][: -self.options.keep]:
            with contextlib.suppress(OSError):
                old.unlink(missing_ok=True)

    def paths(self) -> list[Path]:
        """The checkpoints that are there, the oldest first."""
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and path.is_file())


@contextlib.contextmanager
def open_folder(
    options: Checkpoints, identity: Mapping[str, Any], epochs: int, like: Any, read: Reader[S]
) -> Iterator[CheckpointFolder[S]]:
    """Make the folder, keep other processes out of it while it is in use, and sweep what a crash has left.

    ``identity`` and ``epochs`` are what the run is; ``like`` has the tree, shapes and dtypes of its train state;
    ``read`` makes a snapshot of the header and the arrays of a file.
    """
    folder = Path(options.folder)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_alone(folder))
            for path in folder.iterdir():
                if TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot hold checkpoints: {error.strerror or error}") from error
        yield CheckpointFolder(options, identity, epochs, like, read)


def read_checkpoint(path: str | os.PathLike[str]) -> Content:
    """Read a checkpoint, after checking every byte of it against its digest: its header and its arrays.

    Raises:
        CheckpointError: (a `ValueError`) if the file is damaged, is not a checkpoint, or is of a newer format.
        OSError: if the file cannot be read.

    >>> read_checkpoint("README.md")
    Traceback (most recent call last):
        ...
    mlpjax.errors.CheckpointError: README.md: not a checkpoint, or one that was cut short: it does not end ...
    """
    return read_sealed(CHECKPOINT, path)


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(identity), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"info of checkpoints is plain JSON: {error}") from None


def _object(header: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(header[name], dict):
        raise CheckpointError(f"its {name} is a {type(header[name]).__name__}: expected a JSON object")
    return header[name]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a folder, where the system can; the lock ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"{folder} is in use by another process: wait for it, or give another folder"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
