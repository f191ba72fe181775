"""What the command line can be told: one dataclass per command, from which its options are generated.

This module imports no jax, so that ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mlpjax.config import ActivationName, BatchNormConvention, ComputeDtype, HeadName, InitName
from mlpjax.errors import ConfigError
from mlpjax.optim_conventions import library_form

OptimizerName = Literal["sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adam_slide"]
ConventionName = Literal["torch", "keras", "optax", "sklearn"]
ScheduleName = Literal["constant", "cosine", "linear", "warmup_cosine"]

_SMALL, _LARGE = 1e-37, 1e38
"""What float32 can hold: beyond, a rate would be taken for 0 or infinity."""
MOST_CERTIFIED = 40_000
"""A certificate of more epochs would be larger than `mlpjax.certificate_file` reads."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The data that the commands which train take, and how they are scaled and weighed."""

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
    class_weight: Literal["none", "balanced"] = "none"
    """balanced: each class counts the same in the loss."""
    test_fraction: float = 0.2
    """Part of the data held out for the test, stratified; a set with a test part of its own keeps that."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(DataOptions):
    """Train a network and test it: by default on the digits that come with scikit-learn."""

    valid_fraction: float = 0.0
    """Part of the training data held out for validation."""

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
    batch_norm_convention: BatchNormConvention | None = None
    """The library whose batch-norm is taken: epsilon, momentum and variance of the running statistics."""
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
    """Rule of the update; momentum and nesterov average the gradients, as the lecture does, so that their steps are
    0.1 times those of a library's heavy ball (--convention torch)."""
    convention: ConventionName | None = None
    """Library whose form and constants the rule takes; by default the lecture's or the paper's."""
    lr: float = 1e-3
    """Learning rate, or its peak; that of adadelta is 1 in the paper."""
    schedule: ScheduleName = "cosine"
    """Course of the learning rate over the run."""
    clip: float | None = None
    """Largest norm of the gradient."""
    weight_decay: float = 0.0
    """Strength of the decay of W beside the rule, lr * weight_decay * W per step (with adam: AdamW)."""
    proximal_l1: float = 0.0
    """Strength of an L1 penalty that makes weights exactly 0: each step cuts lr * proximal_l1 off |W|."""
    accumulate: int = 1
    """Parts in which a batch is taken, to save memory."""
    augment: tuple[str, ...] = ()
    """Random changes to every training batch, NAME=NUMBER. Of images: shift, elastic and smooth (pixels), rotate and
    shear (degrees), scale, flip (probability), noise. Of any rows: jitter (noise), mixup (alpha of its Beta). Inputs
    are scaled first: noise and jitter are in units of scaled inputs."""
    grad: Literal["hand", "autodiff"] = "hand"
    """The gradient: derived by hand, or by jax.grad."""
    patience: int | None = None
    """Stop after so many epochs without a better validation value, and keep the best (needs --valid-fraction)."""
    monitor: Literal["loss", "metric"] = "loss"
    """The validation value that patience watches."""
    doctor: bool = False
    """Examine the run instead of making it: data, network and short runs, each measure with its limit, the evidence
    and what to change."""
    seed: int = 0
    """Seed of the split, the start values and the training."""

    save: Path | None = None
    """Write the trained model to this file (.npz)."""
    json: Path | None = None
    """Write the results to this file (JSON)."""
    certificate: Path | None = None
    """Write a certificate to this file (JSON): SHA-256 of all numbers after each epoch, for `mlpjax verify`."""
    debug_nans: Path | None = None
    """Look at every number of every step: the first that is not finite ends the run, is named by epoch, step, layer,
    quantity and example, and its step is written to this file (.npz), for mlpjax.replay."""
    compilation_cache: Path | None = None
    """Keep compiled programs in this folder, which is yours alone, and start from them the next time."""
    checkpoint: Path | None = None
    """Write checkpoints into this folder, also on Ctrl-C and SIGTERM."""
    resume: bool = False
    """Go on from the newest checkpoint in the folder, as if nothing had happened; start if there is none."""
    checkpoint_seconds: float = 60.0
    """Write a checkpoint when so many seconds have passed since the last one."""
    checkpoint_chunks: int | None = None
    """Write a checkpoint after so many chunks; a chunk is an epoch, or the part of one that takes about 2 seconds."""
    checkpoint_keep: int = 3
    """How many checkpoints are kept, the newest."""

    def validate(self) -> None:
        """Raise `ConfigError` for what no data can make right."""
        for name, count in (("--epochs", self.epochs), ("--batch-size", self.batch_size)):
            _at_least_one(name, count)
        for width in self.hidden:
            _at_least_one("--hidden", width)
            if width >= 2**31:
                raise ConfigError(f"--hidden is {width}: expected an integer below 2^31")
        _at_least_one("--accumulate", self.accumulate)
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"--accumulate is {self.accumulate}: a batch of {self.batch_size} has no more parts than examples"
            )
        if self.patience is not None:
            _at_least_one("--patience", self.patience)
            if self.valid_fraction == 0:
                raise ConfigError("--patience watches validation data: give --valid-fraction too, such as 0.1")
        for name, number in (("--lr", self.lr), ("--clip", self.clip)):
            if number is not None and not _SMALL <= number <= _LARGE:
                raise ConfigError(f"{name} is {number}: expected a number > 0, from {_SMALL:g} to {_LARGE:g}")
        strengths = {
            "--l1": self.l1,
            "--l2": self.l2,
            "--weight-decay": self.weight_decay,
            "--proximal-l1": self.proximal_l1,
        }
        for name, number in strengths.items():
            if not 0 <= number <= _LARGE:
                raise ConfigError(f"{name} is {number}: expected a number from 0 to {_LARGE:g}")
        if self.l1 and self.proximal_l1:
            raise ConfigError("--l1 and --proximal-l1 are one penalty: choose one; --proximal-l1 gives exact zeros")
        library_form(self.optimizer, self.convention)
        if self.doctor and (self.save is not None or self.checkpoint is not None or self.certificate is not None):
            raise ConfigError("--doctor examines and does not train: leave out --save, --checkpoint and --certificate")
        if not 0 < self.test_fraction < 1:
            raise ConfigError(f"--test-fraction is {self.test_fraction}: expected a number between 0 and 1")
        if not 0 <= self.valid_fraction < 1:
            raise ConfigError(f"--valid-fraction is {self.valid_fraction}: expected a number from 0 up to below 1")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"--seed is {self.seed}: expected an integer from 0 up to 2^63 - 1")
        check_writable("--save", self.save, {"--data": self.data})
        check_writable("--json", self.json, {"--data": self.data, "--save": self.save})
        others = {"--data": self.data, "--save": self.save, "--json": self.json}
        check_writable("--certificate", self.certificate, others)
        if self.certificate is not None and self.epochs > MOST_CERTIFIED:
            raise ConfigError(f"--certificate holds {MOST_CERTIFIED:,} epochs: --epochs is {self.epochs:,}")
        others["--certificate"] = self.certificate
        check_writable("--debug-nans", self.debug_nans, others)
        check_checkpoint(self.checkpoint, self.resume, self.checkpoint_seconds)
        _at_least_one("--checkpoint-keep", self.checkpoint_keep)
        if self.checkpoint_chunks is not None:
            _at_least_one("--checkpoint-chunks", self.checkpoint_chunks)


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

    def validate(self) -> None:
        """Raise `ConfigError` for what no data can make right."""
        check_writable("--json", self.json, {"the model": self.model, "--data": self.data})


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """Check the hand-derived gradients of this package, or find the mistake in a gradient of your own."""

    config: str | None = None
    """One network instead of all: its config as JSON, or a file of it, such as '{"sizes": [4, 8, 3]}'."""
    weight: Literal["none", "given", "zeros"] = "none"
    """Sample weights of that network's batch: none, random, or random and two of them 0."""
    train: bool = True
    """Training; with --no-train, evaluation: running statistics, nothing dropped."""
    examples: int = 9
    """Examples in that network's batch."""
    seed: int = 0
    """Seed of that network and its batch."""
    dtype: Literal["float64", "float32", "float16", "bfloat16"] = "float64"
    """Precision of the hand-derived gradient; below float64 it runs on the default device, and is judged by float64."""
    explain: Path | None = None
    """Find the mistake in this file's gradient: an .npz with x, y, W1, b1, ..., dW1, db1, ..., and config (JSON)."""
    json: Path | None = None
    """Write the results to this file (JSON)."""

    def validate(self) -> None:
        """Raise `ConfigError` for what no data can make right."""
        _at_least_one("--examples", self.examples)
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"--seed is {self.seed}: expected an integer from 0 up to 2^63 - 1")
        single = {"--weight": self.weight != "none", "--no-train": not self.train, "--examples": self.examples != 9}
        unused = [name for name, given in {**single, "--seed": self.seed != 0}.items() if given]
        if unused and self.config is None:
            raise ConfigError(f"{unused[0]} is for one network: give its --config too")
        if self.weight == "zeros" and self.examples < 3:
            raise ConfigError(f"--weight zeros takes two of the examples out: --examples is {self.examples}, not 3")
        if self.explain is not None and self.config is not None:
            raise ConfigError("--explain and --config exclude each other: the file has a config of its own")
        check_writable("--json", self.json, {"--explain": self.explain})


@dataclasses.dataclass(frozen=True, kw_only=True)
class LectureOptions:
    """Find the code and the proof of a row of the lecture, and run the proofs."""

    id: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[ID]")] = None
    """A section, words of a slide, the id of a row, an erratum or a trap; or errata, or traps. By default the table
    of contents."""
    check: bool = False
    """Run every check, of the lecture or of the section given."""
    json: Path | None = None
    """Write the results to this file (JSON)."""

    def validate(self) -> None:
        """Raise `ConfigError` for what no data can make right."""
        check_writable("--json", self.json, {})


def check_writable(name: str, path: Path | None, others: Mapping[str, Path | str | None]) -> None:
    """Raise `ConfigError` if ``path`` cannot be written, or is one of ``others``: before the work, not after it."""
    if path is None:
        return
    real = Path(os.path.realpath(path))
    reason = None
    if real.is_dir():
        reason = "it is a folder"
    elif real.exists() and not real.is_file():
        reason = "it is not a regular file"
    elif not real.parent.is_dir() or not os.access(real.parent, os.W_OK):
        reason = f"the folder {str(path.parent)!r} does not exist or is read-only"
    for other, taken in others.items():
        # --data may be a name, of a set
        if taken is not None and real == Path(os.path.realpath(taken)) and (other != "--data" or real.exists()):
            reason = f"it is the file of {other} too"
    if reason is not None:
        raise ConfigError(f"{name} {str(path)!r} cannot be written: {reason}")


def check_checkpoint(folder: Path | None, resume: bool, seconds: float) -> None:
    """Raise `ConfigError` for a folder of checkpoints that is a file, ``resume`` without one, or a negative time."""
    if folder is None and resume:
        raise ConfigError("--resume goes on from a checkpoint: give the folder too, by --checkpoint DIR")
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ConfigError(f"--checkpoint {str(folder)!r} is not a folder")
    if not seconds >= 0:
        raise ConfigError(f"--checkpoint-seconds is {seconds}: expected a number >= 0")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} is {value}: expected an integer >= 1")
