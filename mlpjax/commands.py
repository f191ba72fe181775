"""What the commands of the command line do."""

from __future__ import annotations

import dataclasses
import time
import warnings
from typing import Any

import jax
import numpy as np

from mlpjax.augment_words import augmentation
from mlpjax.certificate import RunCertificate
from mlpjax.certificate_file import certificate_report
from mlpjax.cli import BAD_INPUT, INTERRUPTED, OK, complain
from mlpjax.compilation_cache import keep_compiled
from mlpjax.config import Config
from mlpjax.data import load_for_model, split_dataset
from mlpjax.display import number, progress_bar, said, say, show, write_json
from mlpjax.errors import CheckpointWarning, ConfigError, DataError, ModelFileError
from mlpjax.heads import HEADS
from mlpjax.interrupt import deferred_interrupt, late_interrupt
from mlpjax.mlp import autodiff, backward
from mlpjax.model_files import load
from mlpjax.optim import make_optimizer
from mlpjax.options import EvaluateOptions, TrainOptions
from mlpjax.parameters import Batch
from mlpjax.preparing import (
    Prepared,
    checkpoints,
    count_steps,
    data_fingerprint,
    network_config,
    parameter_facts,
    plain_options,
    prepare,
    save_model,
    score,
)
from mlpjax.problems import Dataset
from mlpjax.shrinkage import unstable_decay
from mlpjax.step import accumulate
from mlpjax.train import FitResult, fit
from mlpjax.versions import versions


def train(options: TrainOptions, started: float) -> int:
    """Run ``mlpjax train`` and return its exit code. ``started`` is when the process began its work."""
    if options.compilation_cache is not None:
        keep_compiled(options.compilation_cache)
    data = prepare(options)
    dataset, batches = data.dataset, data.batches
    arguments = fit_arguments(options, data)
    config = arguments["config"]
    title = f"{data.describe()}; network {'-'.join(map(str, config.sizes))}"
    # clipped steps are of bounded size, and other rules than plain gradient steps have other limits
    if options.optimizer == "sgd" and options.clip is None and (why := unstable_decay(options.lr, options.l2)):
        say(f"warning: with --lr as α, {why}")
    if why := unstable_decay(options.lr, options.weight_decay):
        say(f"warning: with --lr as α and --weight-decay as l2, {why}")
    if options.doctor:
        from mlpjax.doctor_command import doctor

        return doctor(options, data, config, arguments["optimizer"], arguments["grad_fn"], started)
    # one signal ends fit; what follows it is quick, and completes
    with deferred_interrupt(terminate=True):
        key = jax.random.key(options.seed)
        metric, checkpoint = HEADS[config.head].metric_name, checkpoints(options)
        with progress_bar(options.epochs, metric, title) as callback, said(CheckpointWarning):
            certificate = None if options.certificate is None else RunCertificate(callback)
            if certificate is not None:
                certificate.certify_start(config, arguments["optimizer"], key)
            result = fit(
                **arguments,
                key=key,
                callback=certificate or callback,
                checkpoint=checkpoint,
                debug_nans=options.debug_nans is not None,
            )
        scores = {name: score(config, result.params, result.state, batch) for name, batch in batches.items()}
        report = _train_report(options, data, config, result, scores, started)
        rows = _train_rows(options, report, scores)
        try:
            if options.save is not None:
                save_model(options.save, options, data, config, result)
                rows["saved"] = str(options.save)
            if certificate is not None and len(certificate.epochs) == 1:
                say("--certificate: no epoch has ended, so that there is nothing to certify")
            elif certificate is not None:
                whole = certificate_report(options, data, config, certificate, result, scores)
                write_json(options.certificate, whole)
                rows["certificate"] = str(options.certificate)
            _write_replay(options, data, result)
            write_json(options.json, report)
        finally:  # a full disk does not cost the result
            show(f"{dataset.name}, seed {options.seed}", rows)
        return _end(options, result)


def _write_replay(options: TrainOptions, data: Prepared, result: FitResult) -> None:
    """Write the step of the first number that is not finite, if there is one and it was looked for."""
    if options.debug_nans is None or result.faulty_step is None:
        return
    # most runs do without
    from mlpjax.provenance_replay import write_replay

    rule = optimizer_arguments(options, data)
    write_replay(
        options.debug_nans, result.faulty_step, optimizer=rule, grad=options.grad, accumulate=options.accumulate
    )


def _end(options: TrainOptions, result: FitResult) -> int:
    """Say why training ended, where that is not the end that was asked for, and return the exit code."""
    if result.stop_reason in ("diverged", "interrupted"):
        saved = "" if options.save is None else f"; the parameters are saved in {options.save}"
        if options.checkpoint is not None and result.stop_reason == "interrupted":
            saved += f"; --checkpoint {options.checkpoint} --resume goes on"
        if result.faulty_step is not None:
            saved += f"; mlpjax.replay({str(options.debug_nans)!r}) takes the step again"
        complain(f"{result.message}{saved}")
        return BAD_INPUT if result.stop_reason == "diverged" else INTERRUPTED
    if result.stop_reason != "finished":
        say(result.message)
    return OK


def fit_arguments(options: TrainOptions, data: Prepared) -> dict[str, Any]:
    """What `mlpjax.fit` is called with for these options and data, but for the key and the callback."""
    grad_fn = backward if options.grad == "hand" else autodiff
    with warnings.catch_warnings():  # said elsewhere, with the names of the options
        warnings.filterwarnings("ignore", "α · l2", UserWarning)
        optimizer = make_optimizer(**optimizer_arguments(options, data))
    return {
        "config": network_config(options, data.dataset),
        "optimizer": optimizer,
        "train_data": data.batches["train"],
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "grad_fn": grad_fn if options.accumulate == 1 else accumulate(grad_fn, options.accumulate),
        "valid_data": data.batches.get("valid"),
        "class_weight": None if options.class_weight == "none" else options.class_weight,
        "augment": augmentation(options.augment, data.dataset),
        "patience": options.patience,
        "monitor": options.monitor,
    }


def optimizer_arguments(options: TrainOptions, data: Prepared) -> dict[str, Any]:
    """What `mlpjax.optim.make_optimizer` is called with, as plain values."""
    return {
        "name": options.optimizer,
        "lr": options.lr,
        "schedule": options.schedule,
        "steps": count_steps(options, data),
        "clip": options.clip,
        "convention": options.convention,
        "weight_decay": options.weight_decay or None,
        "proximal_l1": options.proximal_l1 or None,
    }


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
        part = "test" if data_fingerprint(dataset) == model.info.get("data_sha256") else "all"
    x, y = _part(dataset, part, model.info)
    if x.shape[1] != model.config.sizes[0]:
        raise DataError(f"{dataset.name}: has {x.shape[1]} features, the model was trained on {model.config.sizes[0]}")
    if model.preprocessing is not None:
        x = model.preprocessing.transform(x)
    with late_interrupt():
        scores = score(model.config, model.params, model.state, Batch(np.asarray(x, np.float32), y))
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


def _train_rows(options: TrainOptions, report: dict[str, Any], scores: dict[str, dict[str, float]]) -> dict[str, str]:
    """The rows of the table."""
    sizes = "-".join(map(str, report["config"]["sizes"]))
    return {
        "network": f"{sizes}, {report['parameters']:,} parameters",
        "gradient": "derived by hand" if options.grad == "hand" else "jax.grad",
        "epoch": f"{report['epoch']} of {options.epochs}",
        **({} if report["resumed_at"] is None else {"resumed": f"at step {report['resumed_at']:,}"}),
        **{f"{part} {name}": number(value) for part, values in scores.items() for name, value in values.items()},
        "seconds": f"{report['seconds_train']:.2f} training, {report['seconds_compile']:.2f} compiling",
    }


def _train_report(
    options: TrainOptions,
    data: Prepared,
    config: Config,
    result: FitResult,
    scores: dict[str, dict[str, float]],
    started: float,
) -> dict[str, Any]:
    dataset = data.dataset
    return {
        "data": dataset.name,
        "examples": data.examples(),
        "classes": None if dataset.classes is None else list(dataset.classes),
        "config": config.to_dict(),
        "options": plain_options(dataclasses.asdict(options)),
        "grad": options.grad,
        "seed": options.seed,
        "metric": HEADS[config.head].metric_name,
        **{f"{part}_{name}": value for part, values in scores.items() for name, value in values.items()},
        "epoch": result.epoch,
        "stop_reason": result.stop_reason,
        "message": result.message,
        "diverged_at": result.diverged_at,
        "fault": None if result.faulty_step is None else str(result.faulty_step.fault),
        "resumed_at": result.resumed_at,
        "history": result.history,
        **parameter_facts(result.params),
        "device": jax.devices()[0].device_kind,
        "seconds_compile": result.seconds_compile,
        "seconds_train": result.seconds_train,
        "seconds_total": time.perf_counter() - started,
        "versions": versions(),
    }
