"""What the commands that train have in common: the data and the network that options name, scores, the saved model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mlpjax.checkpoint import Checkpoints
from mlpjax.config import Config
from mlpjax.data import load_dataset, split_dataset
from mlpjax.errors import ConfigError
from mlpjax.heads import HEADS
from mlpjax.loop import evaluate
from mlpjax.model_files import save
from mlpjax.options import TrainOptions
from mlpjax.parameters import Batch, Params, State
from mlpjax.preprocess import SCALERS, Scaler
from mlpjax.problems import Dataset, n_outputs
from mlpjax.train import FitResult


class Prepared(NamedTuple):
    """A data set, the scaler of its training part, and its scaled parts: ``train``, ``test`` and perhaps ``valid``."""

    dataset: Dataset
    scaler: Scaler
    batches: dict[str, Batch]

    def examples(self) -> dict[str, int]:
        """How many examples each part has."""
        return {name: len(batch.y) for name, batch in self.batches.items()}

    def describe(self) -> str:
        """Say the problem and the sizes of the parts in a line."""
        counts = ", ".join(f"{n:,} {name}" for name, n in self.examples().items())
        classes = "" if self.dataset.classes is None else f" of {len(self.dataset.classes)} classes"
        return f"{self.dataset.name}: {self.dataset.head}{classes}, {counts}"


def prepare(options: TrainOptions) -> Prepared:
    """Load the data that the options name, cut it into parts and scale these.

    Raises:
        DataError: see `mlpjax.load_dataset`.

    >>> prepare(TrainOptions(data="circle")).describe()
    'circle: binary of 2 classes, 400 train, 100 test'
    """
    dataset = load_dataset(
        options.data,
        targets=options.target,
        head=options.head,
        data_dir=None if options.data_dir is None else str(options.data_dir),
        download=options.download,
        seed=options.seed,
    )
    parts = split_dataset(dataset, options.test_fraction, options.valid_fraction, options.seed)
    scale = options.scale
    if scale == "auto":
        scale = "standardise" if dataset.image_shape is None else "minmax"
    scaler = SCALERS[scale](parts["train"][0])
    return Prepared(dataset, scaler, {name: Batch(scaler.transform(x), y) for name, (x, y) in parts.items()})


def count_steps(options: TrainOptions, data: Prepared) -> int:
    """The steps of a whole run, which must be fewer than 2^31."""
    steps = options.epochs * -(-len(data.batches["train"].y) // options.batch_size)
    if steps >= 2**31:
        raise ConfigError(f"--epochs {options.epochs} are {steps} steps: expected fewer than 2^31")
    return steps


def network_config(options: TrainOptions, dataset: Dataset) -> Config:
    """The network that the options name, with the inputs and outputs that the data has; a rate of 0 is none.

    >>> network_config(TrainOptions(hidden=(8,), dropout=(0.0,)), mlpjax.load_dataset("circle")).sizes
    (2, 8, 1)
    """
    rates = tuple(rate or None for rate in options.dropout)
    activation = options.activation
    return Config(
        sizes=(dataset.x.shape[1], *options.hidden, n_outputs(dataset)),
        activation=activation[0] if len(activation) == 1 else activation,
        head=dataset.head,
        init=options.init,
        bias=options.bias,
        batch_norm=options.batch_norm,
        batch_norm_convention=options.batch_norm_convention,
        dropout=None if not rates else rates[0] if len(rates) == 1 else rates,
        l1=options.l1 or None,
        l2=options.l2 or None,
        compute_dtype=options.compute_dtype,
    )


def checkpoints(options: TrainOptions) -> Checkpoints | None:
    """What the options say of checkpoints; the network and the data are compared without being told.

    >>> checkpoints(TrainOptions(checkpoint=Path("run"))).info["lr"]
    0.001
    """
    if options.checkpoint is None:
        return None
    names = ["optimizer", "convention", "lr", "schedule", "clip", "weight_decay", "proximal_l1", "accumulate"]
    # a schedule spans all epochs; without one a run may be made longer
    names += [] if options.schedule == "constant" else ["epochs"]
    info = {name: getattr(options, name) for name in names}
    return Checkpoints(
        options.checkpoint,
        resume=options.resume,
        seconds=options.checkpoint_seconds,
        chunks=options.checkpoint_chunks,
        keep=options.checkpoint_keep,
        info=info | {"augment": list(options.augment)},
    )


def score(config: Config, params: Params, state: State, batch: Batch) -> dict[str, float]:
    """The loss, the head's metric and, for regression, R² = 1 − Σ(ŷ − y)²/Σ(y − ȳ)²."""
    values = evaluate(config, params, state, batch)
    scores = {"loss": values["loss"], HEADS[config.head].metric_name: values["metric"]}
    if config.head.startswith("regression"):
        variance = float(np.mean((batch.y - batch.y.mean(axis=0)) ** 2))
        scores["r2"] = 1 - values["metric"] / variance if variance > 0 else float("nan")
    return scores


def save_model(path: Path, options: TrainOptions, data: Prepared, config: Config, result: FitResult) -> None:
    """Write a trained network with what ``mlpjax evaluate`` needs to find its test part again."""
    dataset = data.dataset
    save(
        path,
        config,
        result.params,
        result.state,
        preprocessing=data.scaler,
        classes=dataset.classes,
        features=dataset.features,
        targets=dataset.targets,
        info={
            "data": options.data,
            "data_sha256": data_fingerprint(dataset),
            "seed": options.seed,
            "test_fraction": options.test_fraction,
            "epoch": result.epoch,
            "stop_reason": result.stop_reason,
        },
    )


def parameter_facts(params: Params) -> dict[str, Any]:
    """How many parameters there are, and the SHA-256 over their bytes."""
    leaves = jax.tree.leaves(params)
    return {"parameters": sum(int(leaf.size) for leaf in leaves), "parameters_sha256": fingerprint(leaves)}


def fingerprint(arrays: Iterable[Any]) -> str:
    """SHA-256 over the bytes of arrays: equal if and only if every bit is."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def data_fingerprint(dataset: Dataset) -> str:
    """SHA-256 of a data set: by it a model file knows the data it was trained on."""
    return fingerprint((dataset.x, dataset.y, *(dataset.test or ())))


def plain_options(values: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON has them: a path is text."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
