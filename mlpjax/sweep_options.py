"""What ``mlpjax sweep`` can be told: like ``mlpjax train``, but an option of `AXES` takes several values.

This module imports no jax, so that ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any, Literal

from mlpjax.config import ActivationName, ComputeDtype, HeadName, InitName
from mlpjax.errors import ConfigError
from mlpjax.optim_conventions import library_form
from mlpjax.options import (
    ConventionName,
    DataOptions,
    OptimizerName,
    ScheduleName,
    TrainOptions,
    check_checkpoint,
    check_writable,
)

AXES = (
    "hidden", "activation", "init", "batch_norm", "dropout", "l1", "l2", "batch_size", "optimizer", "convention",
    "lr", "schedule", "clip", "weight_decay", "proximal_l1",
)  # fmt: skip
"""The options that span the search."""
MOST_NETWORKS = 100_000
"""More networks than this are taken for a mistake."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions(DataOptions):
    """Search over networks and optimisers: train all combinations of the values given, many at once, and rank them."""

    valid_fraction: float = 0.2
    """Part of the training data held out for validation, by which networks are ranked."""

    random: int | None = None
    """Draw so many points instead of taking all combinations: lr, clip, l1, l2, weight-decay and proximal-l1
    log-uniform between the smallest and the largest value given, dropout uniform; 0 stays a choice, as often as it is
    among the values. All else is drawn among the values."""
    seeds: int = 1
    """Networks per point, from seed, seed + 1, ... : points are ranked by the mean over them."""
    top: int = 10
    """How many points the table shows."""

    hidden: tuple[str, ...] = ("64", "128", "64,64")
    """Widths of the hidden layers, joined by commas: 32 64,32; none: no hidden layer."""
    activation: tuple[ActivationName, ...] = ("relu",)
    """Activation of all hidden layers."""
    head: HeadName | None = None
    """The problem; found from the data by default."""
    init: tuple[InitName, ...] = ("auto",)
    """Initialiser; auto: He before the ReLU family, LeCun before SELU, Glorot otherwise."""
    bias: bool = True
    """Whether layers have a bias."""
    batch_norm: tuple[bool, ...] = (False,)
    """Batch-normalise the pre-activations of the hidden layers."""
    dropout: tuple[float, ...] = (0.0, 0.2)
    """Probability of dropping a hidden unit."""
    l1: tuple[float, ...] = (0.0,)
    """Strength of the penalty l1 * sum |W|."""
    l2: tuple[float, ...] = (0.0,)
    """Strength of the penalty l2/2 * sum W^2."""
    compute_dtype: ComputeDtype | None = None
    """Type of the factors of matrix products (bfloat16 on an accelerator)."""

    epochs: int = 30
    """How often each example is seen."""
    batch_size: tuple[int, ...] = (32,)
    """Examples per step."""
    optimizer: tuple[OptimizerName, ...] = ("adam",)
    """Rule of the update, as for train."""
    convention: tuple[ConventionName | None, ...] = (None,)
    """Library whose form and constants the rule takes; by default the lecture's or the paper's."""
    lr: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Learning rate, or its peak."""
    schedule: tuple[ScheduleName, ...] = ("cosine",)
    """Course of the learning rate over the run."""
    clip: tuple[float, ...] = ()
    """Largest norm of the gradient."""
    weight_decay: tuple[float, ...] = (0.0,)
    """Strength of the decay of W beside the rule, lr * weight_decay * W per step (with adam: AdamW)."""
    proximal_l1: tuple[float, ...] = (0.0,)
    """Strength of an L1 penalty that makes weights exactly 0: each step cuts lr * proximal_l1 off |W|."""
    own_order: bool = False
    """Each network sees the examples in an order of its own; by default all of a batch size share one order, so that
    their first layers are one wide product, which is faster."""
    patience: int | None = None
    """Stop a network after so many epochs without a better validation value; the best epoch is kept in any case."""
    monitor: Literal["loss", "metric"] = "loss"
    """The validation value that ranks, at the best epoch of each network."""
    seed: int = 0
    """Seed of the split, the start values, the training and the random points."""

    save: Path | None = None
    """Write the best model to this file (.npz)."""
    json: Path | None = None
    """Write the results of every network to this file (JSON)."""
    compilation_cache: Path | None = None
    """Keep compiled programs in this folder, which is yours alone, and start from them the next time."""
    checkpoint: Path | None = None
    """Write checkpoints into this folder, also on Ctrl-C and SIGTERM."""
    resume: bool = False
    """Go on from the newest checkpoint in the folder, as if nothing had happened; start if there is none."""
    checkpoint_seconds: float = 60.0
    """Write a checkpoint when so many seconds have passed since the last one, and after each group of networks."""

    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The values of each axis, as the fields of `mlpjax.options.TrainOptions`."""
        values: dict[str, tuple[Any, ...]] = {name: getattr(self, name) for name in AXES}
        return values | {
            "hidden": tuple(map(_widths, self.hidden)),
            "activation": tuple((name,) for name in self.activation),
            "dropout": self.dropout,
            "clip": self.clip or (None,),
        }

    def single(self, point: dict[str, Any]) -> TrainOptions:
        """The options of ``mlpjax train`` for a point of the search, a value for each of `AXES`.

        >>> options = SweepOptions(epochs=5)
        >>> options.single(dict.fromkeys(AXES, 0) | {"hidden": (8,)}).epochs
        5
        """
        names = {field.name for field in dataclasses.fields(TrainOptions)}
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name in names}
        # with more patience than epochs a network never stops, and its best epoch is kept
        patience = self.epochs if self.patience is None else self.patience
        own = {"dropout": (point["dropout"],), "patience": patience, "checkpoint": None, "resume": False}
        return TrainOptions(**shared | point | own)

    def validate(self) -> None:
        """Raise `ConfigError` for what no data can make right."""
        axes = self.axes()
        for name, values in axes.items():
            _check_values(_option(name), values)
        for name, count in (("--random", self.random), ("--seeds", self.seeds), ("--top", self.top)):
            if count is not None and count < 1:
                raise ConfigError(f"{name} is {count}: expected an integer >= 1")
        if self.valid_fraction == 0:
            raise ConfigError("--valid-fraction is 0: networks are ranked by validation data; give one such as 0.2")
        first = {name: values[0] for name, values in axes.items()}
        for name, values in axes.items():
            for value in values:
                self.single(first | {name: value}).validate()
        for rule, convention in itertools.product(self.optimizer, self.convention):
            library_form(rule, convention)
        if any(self.l1) and any(self.proximal_l1):
            self.single(first | {"l1": max(self.l1), "proximal_l1": max(self.proximal_l1)}).validate()
        if self.seed + self.seeds > 2**63:
            raise ConfigError(f"--seed is {self.seed} with --seeds {self.seeds}: expected a sum up to 2^63")
        points = math.prod(map(len, axes.values())) if self.random is None else self.random
        if points * self.seeds > MOST_NETWORKS:
            hint = "give fewer values, or draw points by --random" if self.random is None else "draw fewer"
            raise ConfigError(
                f"{points:,} points of {self.seeds} seeds are {points * self.seeds:,} networks: expected at most "
                f"{MOST_NETWORKS:,}; {hint}"
            )
        check_writable("--save", self.save, {"--data": self.data})
        check_writable("--json", self.json, {"--data": self.data, "--save": self.save})
        check_checkpoint(self.checkpoint, self.resume, self.checkpoint_seconds)


def _widths(text: str) -> tuple[int, ...]:
    """Read the widths of hidden layers.

    >>> _widths("64,32"), _widths("none")
    ((64, 32), ())
    """
    if text == "none":
        return ()
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"--hidden is {text!r}: expected widths joined by commas, such as 64 or 64,32") from None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_values(option: str, values: tuple[Any, ...]) -> None:
    if not values:
        raise ConfigError(f"{option} has no value: expected one or more")
    for i, value in enumerate(values):
        if value in values[:i]:
            shown = value if not isinstance(value, tuple) else ",".join(map(str, value)) or "none"
            raise ConfigError(f"{option} has {shown} twice: give each value once")
