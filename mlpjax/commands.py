"""What the commands of the command line do."""

from __future__ import annotations

import dataclasses
import hashlib
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlpjax.augment_words import augmentation
from mlpjax.checkpoint import load, save, versions
from mlpjax.cli import BAD_INPUT, INTERRUPTED, OK, complain
from mlpjax.config import Config
from mlpjax.data import load_dataset, load_for_model, split_dataset
from mlpjax.display import number, progress_bar, say, show, write_json
from mlpjax.errors import ConfigError, DataError, ModelFileError
from mlpjax.heads import HEADS
from mlpjax.interrupt import deferred_interrupt, late_interrupt
from mlpjax.loop import evaluate as evaluate_batch
from mlpjax.mlp import autodiff, backward
from mlpjax.optim import make_optimizer
from mlpjax.options import EvaluateOptions, TrainOptions
from mlpjax.parameters import Batch, Params, State
from mlpjax.preprocess import SCALERS, Scaler
from mlpjax.problems import Dataset, n_outputs
from mlpjax.shrinkage import unstable_decay
from mlpjax.step import accumulate
from mlpjax.train import FitResult, fit


def train(options: TrainOptions, started: float) -> int:
    """Run ``mlpjax train`` and return its exit code. ``started`` is when the process began its work."""
    dataset = load_dataset(
        options.data,
        targets=options.target,
        head=options.head,
        data_dir=None if options.data_dir is None else str(options.data_dir),
        download=options.download,
        seed=options.seed,
    )
    parts = split_dataset(dataset, options.test_fraction, options.valid_fraction, options.seed)
    scaler = SCALERS[_scale(options, dataset)](parts["train"][0])
    batches = {name: Batch(scaler.transform(x), y) for name, (x, y) in parts.items()}
    config = _config(options, dataset)
    steps = options.epochs * -(-len(parts["train"][0]) // options.batch_size)
    if steps >= 2**31:
        raise ConfigError(f"--epochs {options.epochs} are {steps} steps: expected fewer than 2^31")
    grad_fn = backward if options.grad == "hand" else autodiff
    with warnings.catch_warnings():  # said below, with the names of the options
        warnings.filterwarnings("ignore", "α · l2", UserWarning)
        optimizer = make_optimizer(
            options.optimizer,
            options.lr,
            schedule=options.schedule,
            steps=steps,
            clip=options.clip,
            convention=options.convention,
            weight_decay=options.weight_decay or None,
            proximal_l1=options.proximal_l1 or None,
        )
    augment = augmentation(options.augment, dataset)
    title = _describe(dataset, parts, config)
    # clipped steps are of bounded size, and other rules than plain gradient steps have other limits
    if options.optimizer == "sgd" and options.clip is None and (why := unstable_decay(options.lr, options.l2)):
        say(f"warning: with --lr as α, {why}")
    if why := unstable_decay(options.lr, options.weight_decay):
        say(f"warning: with --lr as α and --weight-decay as l2, {why}")
    # one interrupt ends fit; what follows it is quick, and completes
    with deferred_interrupt():
        with progress_bar(options.epochs, HEADS[config.head].metric_name, title) as callback:
            result = fit(
                config,
                optimizer,
                batches["train"],
                epochs=options.epochs,
                batch_size=options.batch_size,
                key=jax.random.key(options.seed),
                grad_fn=grad_fn if options.accumulate == 1 else accumulate(grad_fn, options.accumulate),
                valid_data=batches.get("valid"),
                class_weight=None if options.class_weight == "none" else options.class_weight,
                augment=augment,
                patience=options.patience,
                monitor=options.monitor,
                callback=callback,
            )
        scores = {name: _score(config, result.params, result.state, batch) for name, batch in batches.items()}
        report = _train_report(options, dataset, parts, config, result, scores, started)
        rows = _train_rows(options, report, scores)
        try:
            if options.save is not None:
                _save(options, dataset, config, scaler, result)
                rows["saved"] = str(options.save)
            write_json(options.json, report)
        finally:  # a full disk does not cost the result
            show(f"{dataset.name}, seed {options.seed}", rows)
    if result.stop_reason in ("diverged", "interrupted"):
        saved = "" if options.save is None else f"; the parameters are saved in {options.save}"
        complain(f"{result.message}{saved}")
        return BAD_INPUT if result.stop_reason == "diverged" else INTERRUPTED
    if result.stop_reason != "finished":
        say(result.message)
    return OK


def evaluate(options: EvaluateOptions, started: float) -> int:
    """Run ``mlpjax evaluate`` and return its exit code. ``started`` is when the process began its work."""
    with late_interrupt():
        model = load(options.model)
    data = options.data if options.data is not None else _trained_on(model.info)
    dataset = load_for_model(
        data,
        head=model.config.head,
        classes=model.classes,
        features=model.features,
        targets=options.target or model.targets or (),
        data_dir=None if options.data_dir is None else str(options.data_dir),
        seed=_info(model.info, "seed", int, 0),
    )
    part = options.part
    if part == "auto":
        part = "test" if _data_fingerprint(dataset) == model.info.get("data_sha256") else "all"
    x, y = _part(dataset, part, model.info)
    if x.shape[1] != model.config.sizes[0]:
        raise DataError(f"{dataset.name}: has {x.shape[1]} features, the model was trained on {model.config.sizes[0]}")
    if model.preprocessing is not None:
        x = model.preprocessing.transform(x)
    with late_interrupt():
        scores = _score(model.config, model.params, model.state, Batch(np.asarray(x, np.float32), y))
    metric = HEADS[model.config.head].metric_name
    report = {
        "model": str(options.model),
        "data": data,
        "part": part,
        "examples": len(y),
        "metric": metric,
        **scores,
        "seconds_total": time.perf_counter() - started,
        "versions": versions(),
    }
    write_json(options.json, report)
    which = "the test part" if part == "test" else "all"
    rows = {"examples": f"{len(y):,}, {which}", **{name: number(value) for name, value in scores.items()}}
    show(f"{options.model} on {dataset.name}", rows)
    return OK


def _part(dataset: Dataset, part: str, info: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Choose the examples to evaluate: all, or the part that was held out for the test."""
    if part == "all":
        wholes = [(dataset.x, dataset.y), *([dataset.test] if dataset.test else [])]
        x, y = (np.concatenate(arrays) for arrays in zip(*wholes, strict=True))
        return x, y
    fraction = _info(info, "test_fraction", float, 0.2)
    return split_dataset(dataset, fraction, 0.0, _info(info, "seed", int, 0))["test"]


def _trained_on(info: dict[str, Any]) -> str:
    """Read the name of the data from a model file, which anybody may have written."""
    data = info.get("data")
    if not isinstance(data, str) or not data.isprintable():
        raise ConfigError("the model does not say what data it was trained on: give --data")
    return data


def _info(info: dict[str, Any], name: str, kind: type[int] | type[float], default: Any) -> Any:
    """Read what a model file says of its training, which anybody may have written."""
    value = info.get(name, default)
    if not isinstance(value, kind) or isinstance(value, bool) or value < 0:
        raise ModelFileError(f"the model file says {name} = {value!r}: expected a {kind.__name__} ≥ 0")
    return value


def _scale(options: TrainOptions, dataset: Dataset) -> str:
    if options.scale != "auto":
        return options.scale
    return "standardise" if dataset.image_shape is None else "minmax"


def _config(options: TrainOptions, dataset: Dataset) -> Config:
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


def _score(config: Config, params: Params, state: State, batch: Batch) -> dict[str, float]:
    """The loss, the head's metric and, for regression, R² = 1 − Σ(ŷ − y)²/Σ(y − ȳ)²."""
    values = evaluate_batch(config, params, state, batch)
    scores = {"loss": values["loss"], HEADS[config.head].metric_name: values["metric"]}
    if config.head.startswith("regression"):
        variance = float(np.mean((batch.y - batch.y.mean(axis=0)) ** 2))
        scores["r2"] = 1 - values["metric"] / variance if variance > 0 else float("nan")
    return scores


def _save(options: TrainOptions, dataset: Dataset, config: Config, scaler: Scaler, result: FitResult) -> None:
    save(
        options.save or "",
        config,
        result.params,
        result.state,
        preprocessing=scaler,
        classes=dataset.classes,
        features=dataset.features,
        targets=dataset.targets,
        info={
            "data": options.data,
            "data_sha256": _data_fingerprint(dataset),
            "seed": options.seed,
            "test_fraction": options.test_fraction,
            "epoch": result.epoch,
            "stop_reason": result.stop_reason,
        },
    )


def _train_rows(options: TrainOptions, report: dict[str, Any], scores: dict[str, dict[str, float]]) -> dict[str, str]:
    """The rows of the table."""
    sizes = "-".join(map(str, report["config"]["sizes"]))
    return {
        "network": f"{sizes}, {report['parameters']:,} parameters",
        "gradient": "derived by hand" if options.grad == "hand" else "jax.grad",
        "epoch": f"{report['epoch']} of {options.epochs}",
        **{f"{part} {name}": number(value) for part, values in scores.items() for name, value in values.items()},
        "seconds": f"{report['seconds_train']:.2f} training, {report['seconds_compile']:.2f} compiling",
    }


def _train_report(
    options: TrainOptions,
    dataset: Dataset,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    config: Config,
    result: FitResult,
    scores: dict[str, dict[str, float]],
    started: float,
) -> dict[str, Any]:
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(options).items()}
    return {
        "data": dataset.name,
        "examples": {name: len(y) for name, (_, y) in parts.items()},
        "classes": None if dataset.classes is None else list(dataset.classes),
        "config": config.to_dict(),
        "options": settings,
        "grad": options.grad,
        "seed": options.seed,
        "metric": HEADS[config.head].metric_name,
        **{f"{part}_{name}": value for part, values in scores.items() for name, value in values.items()},
        "epoch": result.epoch,
        "stop_reason": result.stop_reason,
        "message": result.message,
        "diverged_at": result.diverged_at,
        "history": result.history,
        "parameters": _n_parameters(result.params),
        "parameters_sha256": _fingerprint(jax.tree.leaves(result.params)),
        "device": jax.devices()[0].device_kind,
        "seconds_compile": result.seconds_compile,
        "seconds_train": result.seconds_train,
        "seconds_total": time.perf_counter() - started,
        "versions": versions(),
    }


def _n_parameters(params: Params) -> int:
    return sum(int(leaf.size) for leaf in jax.tree.leaves(params))


def _fingerprint(arrays: Iterable[Any]) -> str:
    """SHA-256 over the bytes of arrays: equal if and only if every bit is."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _data_fingerprint(dataset: Dataset) -> str:
    return _fingerprint((dataset.x, dataset.y, *(dataset.test or ())))


def _describe(dataset: Dataset, parts: dict[str, tuple[np.ndarray, np.ndarray]], config: Config) -> str:
    counts = ", ".join(f"{len(y):,} {name}" for name, (_, y) in parts.items())
    classes = "" if dataset.classes is None else f" of {len(dataset.classes)} classes"
    return f"{dataset.name}: {config.head}{classes}, {counts}; network {'-'.join(map(str, config.sizes))}"
