"""What ``mlpjax sweep`` does: the search of `mlpjax.sweep` over what the options name, and its tables."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checkpoint import Checkpoints
from mlpjax.cli import INTERRUPTED, OK, complain
from mlpjax.compilation_cache import keep_compiled
from mlpjax.display import counting_bar, number, said, say, show, show_columns, write_json
from mlpjax.errors import CheckpointWarning
from mlpjax.heads import HEADS
from mlpjax.interrupt import deferred_interrupt
from mlpjax.options import TrainOptions
from mlpjax.population import PopulationProgress
from mlpjax.preparing import (
    Prepared,
    count_steps,
    network_config,
    parameter_facts,
    plain_options,
    prepare,
    save_model,
    score,
)
from mlpjax.sweep import Search, search
from mlpjax.sweep_options import AXES, SweepOptions
from mlpjax.sweep_points import draw, grid
from mlpjax.sweep_trials import Monitor, Trial
from mlpjax.versions import versions


def sweep(options: SweepOptions, started: float) -> int:
    """Run ``mlpjax sweep`` and return its exit code. ``started`` is when the process began its work."""
    if options.compilation_cache is not None:
        keep_compiled(options.compilation_cache)
    axes = options.axes()
    points = grid(axes) if options.random is None else draw(axes, options.random, np.random.default_rng(options.seed))
    singles = [options.single(point) for point in points]
    data = prepare(singles[0])
    # one interrupt ends the search; what follows it is quick, and completes
    with deferred_interrupt(terminate=True):
        keys = jnp.stack([jax.random.key(options.seed + i) for i in range(options.seeds)])
        title = f"{data.describe()}; {len(points):,} points, {len(points) * options.seeds:,} networks"
        with _bar(title) as callback, said(CheckpointWarning):
            found = search(
                [_point(single, data) for single in singles],
                data.batches["train"],
                data.batches["valid"],
                epochs=options.epochs,
                keys=keys,
                order_key=None if options.own_order else keys[0],
                class_weight=None if options.class_weight == "none" else options.class_weight,
                patience=options.patience,
                monitor=options.monitor,
                callback=callback,
                checkpoint=_checkpoints(options),
            )
        report = _report(options, singles, data, found, started)
        try:
            if options.save is not None and found.result is not None:
                best = found.trials[0]
                save_model(options.save, singles[best.number], data, best.config, found.result)
                report["best"]["saved"] = str(options.save)
            write_json(options.json, report)
        finally:  # a full disk does not cost the result
            _show(options, singles, data, found, report)
        if found.interrupted:
            saved = f"; the best so far is saved in {options.save}" if "saved" in (report["best"] or ()) else ""
            if options.checkpoint is not None:
                saved += f"; --checkpoint {options.checkpoint} --resume goes on"
            complain(f"interrupted: {len(found.trials):,} of {len(points):,} points were begun{saved}")
            return INTERRUPTED
    if found.result is None:
        return complain(f"no network can be ranked: {found.trials[0].runs[0].message}")
    return OK


def _checkpoints(options: SweepOptions) -> Checkpoints | None:
    """What the options say of checkpoints; the data are compared without being told."""
    if options.checkpoint is None:
        return None
    names = ("random", "seeds", "seed", "own_order")
    info = options.axes() | {name: getattr(options, name) for name in names}
    return Checkpoints(
        options.checkpoint,
        resume=options.resume,
        seconds=options.checkpoint_seconds,
        info={name: str(value) for name, value in info.items()},
    )


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Callable[[PopulationProgress], None]]:
    """Show a bar of the epochs of all groups, and yield the callback that says the title and moves it."""
    with contextlib.ExitStack() as stack:
        moves: list[Callable[[str], None]] = []
        at = 0

        def callback(progress: PopulationProgress) -> None:
            nonlocal title, at
            if not moves:
                bar = counting_bar(progress.groups * progress.epochs, "epoch")
                moves.append(stack.enter_context(bar))
            if title and progress.epoch > 0:  # not before: now nothing is wrong with the data and the options
                say(title)
                title = ""
            words = f"group {progress.group} of {progress.groups}, {progress.training} networks train"
            if progress.training == 0 and progress.group < progress.groups:
                words = f"group {progress.group + 1} of {progress.groups}, compiling"
            # a group whose networks have all stopped leaves epochs out
            epoch = progress.epoch if progress.training else progress.epochs
            while at < (progress.group - 1) * progress.epochs + epoch:
                moves[0](words)
                at += 1

        yield callback


def _point(single: TrainOptions, data: Prepared) -> dict[str, Any]:
    """The point of `mlpjax.search` that trains what ``mlpjax train`` would with these options."""
    count_steps(single, data)
    config = network_config(single, data.dataset)
    names = ("optimizer", "lr", "schedule", "clip", "convention", "weight_decay", "proximal_l1", "batch_size")
    return {**config.to_dict(), **{name: getattr(single, name) for name in names}}


def _command(single: TrainOptions) -> str:
    """The command that trains a point alone: the options that are not the default ones."""
    default = TrainOptions()
    own = ("save", "json", "compilation_cache", "checkpoint_seconds")
    words = ["mlpjax", "train"]
    for field in dataclasses.fields(TrainOptions):
        value, option = getattr(single, field.name), field.name.replace("_", "-")
        if field.name in own or (value == getattr(default, field.name) and field.name != "data"):
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def _report(
    options: SweepOptions, singles: list[TrainOptions], data: Prepared, found: Search, started: float
) -> dict[str, Any]:
    """What goes into the JSON file."""
    metric = HEADS[data.dataset.head].metric_name
    networks = len(found.trials) * options.seeds
    best: dict[str, Any] | None = None
    if found.result is not None:
        trial, result = found.trials[0], found.result
        scores = score(trial.config, result.params, result.state, data.batches["test"])
        best = {
            "point": trial.number,
            "seed": options.seed + found.best_key,
            "config": trial.config.to_dict(),
            "command": _command(singles[trial.number]),
            "epoch": result.epoch,
            **{f"test_{name}": value for name, value in scores.items()},
            "history": result.history,
            **parameter_facts(result.params),
        }
    return {
        "data": data.dataset.name,
        "examples": data.examples(),
        "options": plain_options(dataclasses.asdict(options)),
        "seed": options.seed,
        "metric": metric,
        "monitor": options.monitor,
        "points": len(singles),
        "networks": networks,
        "interrupted": found.interrupted,
        "trials": [_trial_report(options, trial, rank, singles, metric) for rank, trial in enumerate(found.trials, 1)],
        "best": best,
        "device": jax.devices()[0].device_kind,
        "seconds_search": found.seconds,
        "networks_per_second": networks / found.seconds,
        "seconds_total": time.perf_counter() - started,
        "versions": versions(),
    }


def _trial_report(
    options: SweepOptions, trial: Trial, rank: int, singles: list[TrainOptions], metric: str
) -> dict[str, Any]:
    single = singles[trial.number]
    return {
        "rank": rank,
        "point": trial.number,
        **{name: _axis(single, name) for name in AXES},
        "valid_loss": trial.mean("loss"),
        "valid_loss_spread": trial.spread("loss"),
        f"valid_{metric}": trial.mean("metric"),
        f"valid_{metric}_spread": trial.spread("metric"),
        "problem": trial.problem,
        "runs": [
            {
                "seed": options.seed + i,
                "epoch": run.epoch,
                "valid_loss": run.loss,
                f"valid_{metric}": run.metric,
                "stop_reason": run.stop_reason,
                "message": run.message,
            }
            for i, run in enumerate(trial.runs)
        ],
    }


def _show(
    options: SweepOptions, singles: list[TrainOptions], data: Prepared, found: Search, report: dict[str, Any]
) -> None:
    """Print the ranking, the best network and the command that trains it alone."""
    if not found.trials:  # interrupted before the first
        return
    metric, best = report["metric"], report["best"]
    shown = found.trials[: options.top]
    varied = [name for name in AXES if len({_axis(single, name) for single in singles}) > 1]
    problems = any(trial.problem for trial in shown)
    rows = [
        (
            str(rank),
            *(_word(_axis(singles[trial.number], name)) for name in varied),
            _value(trial, "loss"),
            _value(trial, "metric"),
            _span([run.epoch for run in trial.runs]),
            *([trial.problem] if problems else []),
        )
        for rank, trial in enumerate(shown, 1)
    ]
    names = ("rank", *varied, "valid loss", f"valid {metric}", "best epoch", *(["not ranked"] if problems else []))
    by = "loss" if options.monitor == "loss" else metric
    title = f"{data.dataset.name}: {len(shown)} of {len(found.trials):,} points, by validation {by}"
    show_columns(title, names, rows, ["" if not trial.problem else "dim" for trial in shown])
    facts = {}
    if best is not None:
        sizes = "-".join(map(str, best["config"]["sizes"]))
        scores = {name: best[f"test_{name}"] for name in ("loss", metric, "r2") if f"test_{name}" in best}
        facts = {
            "network": f"{sizes}, {best['parameters']:,} parameters, seed {best['seed']}, epoch {best['epoch']}",
            **{f"test {name}": number(value) for name, value in scores.items()},
            "test part": f"{len(data.batches['test'].y):,} examples, seen for this network only",
        }
    facts["seconds"] = (
        f"{found.seconds:.2f}: {report['networks']:,} networks, {report['networks_per_second']:.3g} a second"
    )
    if best is not None and "saved" in best:
        facts["saved"] = best["saved"]
    show("the best", facts)
    if best is not None:
        other = "" if found.best_key == 0 else f", from seed {options.seed} instead of {best['seed']}"
        print(f"to train it alone{other}:\n{best['command']}")


def _axis(single: TrainOptions, name: str) -> Any:
    """The value of an axis: one activation, one rate."""
    value = getattr(single, name)
    return value[0] if name in ("activation", "dropout") else value


def _word(value: Any) -> str:
    """A value of an axis, as the option takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _span(epochs: list[int]) -> str:
    low, high = min(epochs), max(epochs)
    return str(low) if low == high else f"{low}–{high}"


def _value(trial: Trial, name: Monitor) -> str:
    mean, spread = trial.mean(name), trial.spread(name)
    return number(mean) if np.isnan(spread) else f"{number(mean)} ± {spread:.2g}"
