"""What the command line can be told: one dataclass per command, from which its options are generated.

This module imports no jax, so that ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mlpjax.config import ActivationName, ComputeDtype, HeadName, InitName
from mlpjax.errors import ConfigError

OptimizerName = Literal["sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam"]
ScheduleName = Literal["constant", "cosine", "linear", "warmup_cosine"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a network and test it: by default on the digits that come with scikit-learn."""

    data: str = "digits"
    """digits, mnist, a toy set (circle, xor, gauss, spiral, plane, gauss_regression), a logic gate (and_gate,
    or_gate, xor_gate, ...), or a .csv or .npz FILE."""
    target: tuple[str, ...] = ()
    """Target column of a FILE, by name or number; several columns are several outputs."""
    data_dir: Path | None = None
    """Folder of the MNIST files; the default is $MLPJAX_DATA_DIR, then a cache folder."""
    download: bool = False
    """Download MNIST if it is not there."""
    scale: Literal["auto", "minmax", "standardise", "none"] = "auto"
    """How inputs are scaled, by the training part; auto: minmax for images, standardise otherwise."""
    test_fraction: float = 0.2
    """Part of the data held out for the test, stratified; a set with a test part of its own keeps that."""
    valid_fraction: float = 0.0
    """Part of the training data held out for validation."""
    class_weight: Literal["none", "balanced"] = "none"
    """balanced: each class counts the same in the loss."""

    hidden: tuple[int, ...] = (256, 128)
    """Width of each hidden layer."""
    activation: tuple[ActivationName, ...] = ("relu",)
    """One activation for all hidden layers, or one per layer."""
    head: HeadName | None = None
    """The problem; found from the data by default."""
    init: InitName = "auto"
    """Initialiser; auto: He before the ReLU family, LeCun before SELU, Glorot otherwise."""
    bias: bool = True
    """Whether layers have a bias."""
    batch_norm: bool = False
    """Batch-normalise the pre-activations of the hidden layers."""
    dropout: tuple[float, ...] = (0.2,)
    """Probability of dropping a hidden unit; or one per layer: input, hidden 1, ... (0: no dropout)."""
    l1: float = 0.0
    """Strength of the penalty l1 * sum |W|."""
    l2: float = 0.0
    """Strength of the penalty l2/2 * sum W^2."""
    compute_dtype: ComputeDtype | None = None
    """Type of the factors of matrix products (bfloat16 on an accelerator)."""

    epochs: int = 50
    """How often each example is seen."""
    batch_size: int = 32
    """Examples per step."""
    optimizer: OptimizerName = "adam"
    """Rule of the update."""
    lr: float = 1e-3
    """Learning rate, or its peak."""
    schedule: ScheduleName = "cosine"
    """Course of the learning rate over the run."""
    clip: float | None = None
    """Largest norm of the gradient."""
    accumulate: int = 1
    """Parts in which a batch is taken, to save memory."""
    grad: Literal["hand", "autodiff"] = "hand"
    """The gradient: derived by hand, or by jax.grad."""
    patience: int | None = None
    """Stop after so many epochs without a better validation value, and keep the best (needs --valid-fraction)."""
    monitor: Literal["loss", "metric"] = "loss"
    """The validation value that patience watches."""
    seed: int = 0
    """Seed of the split, the start values and the training."""

    save: Path | None = None
    """Write the trained model to this file (.npz)."""
    json: Path | None = None
    """Write the results to this file (JSON)."""

    def check(self) -> None:
        """Raise `ConfigError` for what no data can make right."""
        for name, width in (("--epochs", self.epochs), ("--batch-size", self.batch_size)):
            _at_least_one(name, width)
        for width in self.hidden:
            _at_least_one("--hidden", width)
        _at_least_one("--accumulate", self.accumulate)
        if self.patience is not None:
            _at_least_one("--patience", self.patience)
            if self.valid_fraction == 0:
                raise ConfigError("--patience watches validation data: give --valid-fraction too, such as 0.1")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"--lr is {self.lr}: expected a finite number > 0")
        if self.clip is not None and not (math.isfinite(self.clip) and self.clip > 0):
            raise ConfigError(f"--clip is {self.clip}: expected a finite number > 0")
        if not 0 < self.test_fraction < 1:
            raise ConfigError(f"--test-fraction is {self.test_fraction}: expected a number between 0 and 1")
        if not 0 <= self.valid_fraction < 1:
            raise ConfigError(f"--valid-fraction is {self.valid_fraction}: expected a number from 0 up to below 1")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"--seed is {self.seed}: expected an integer from 0 up to 2^63 - 1")
        check_writable("--save", self.save)
        check_writable("--json", self.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Evaluate a saved model on data."""

    model: tyro.conf.Positional[Path]
    """Model file that `mlpjax train --save` wrote."""
    data: str | None = None
    """As for train; the default is the data that the model was trained on."""
    target: tuple[str, ...] = ()
    """Target column of a FILE, if it has another name than in training."""
    data_dir: Path | None = None
    """Folder of the MNIST files; the default is $MLPJAX_DATA_DIR, then a cache folder."""
    part: Literal["auto", "test", "all"] = "auto"
    """Which examples; auto: the test part of the data that the model was trained on, all of any other."""
    json: Path | None = None
    """Write the results to this file (JSON)."""

    def check(self) -> None:
        """Raise `ConfigError` for what no data can make right."""
        check_writable("--json", self.json)


Command = (
    Annotated[TrainOptions, tyro.conf.subcommand("train")]
    | Annotated[EvaluateOptions, tyro.conf.subcommand("evaluate")]
)


def check_writable(name: str, path: Path | None) -> None:
    """Raise `ConfigError` if a file cannot be written to ``path``: before the work, not after it."""
    import os

    if path is None:
        return
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        reason = "is a folder" if path.is_dir() else f"the folder {str(folder)!r} does not exist or is read-only"
        raise ConfigError(f"{name} {str(path)!r} cannot be written: {reason}")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} is {value}: expected an integer >= 1")
