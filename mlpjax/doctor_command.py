"""What ``mlpjax train --doctor`` does: it examines the run that the options describe, instead of making it."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import optax

from mlpjax.cli import OK
from mlpjax.config import Config
from mlpjax.display import say, show_columns, write_json
from mlpjax.doctor import STEPS, examine
from mlpjax.doctor_verdicts import Examination, remark
from mlpjax.options import TrainOptions
from mlpjax.preparing import Prepared, count_steps, plain_options
from mlpjax.step import GradFn
from mlpjax.versions import versions

STYLES = {"ill": "bold red", "warning": "yellow", "fine": ""}


def doctor(
    options: TrainOptions,
    data: Prepared,
    config: Config,
    optimizer: optax.GradientTransformation,
    grad_fn: GradFn,
    started: float,
) -> int:
    """Examine, and print the verdicts; whatever they are, the exit code is 0."""
    say(f"{data.describe()}; network {'-'.join(map(str, config.sizes))}; examining, which takes some seconds")
    if options.augment:
        say("the runs of the examination are without --augment")
    found = examine(
        config,
        optimizer,
        data.batches["train"],
        batch_size=options.batch_size,
        key=jax.random.key(options.seed),
        # beyond its end a schedule says nothing
        epochs=options.epochs if count_steps(options, data) <= STEPS else None,
        valid_data=data.batches.get("valid"),
        grad_fn=grad_fn,
        class_weight=None if options.class_weight == "none" else options.class_weight,
    )
    report: dict[str, Any] = {
        "data": data.dataset.name,
        "examples": data.examples(),
        "config": config.to_dict(),
        "options": plain_options(dataclasses.asdict(options)),
        "doctor": found.to_dict(),
        "seconds_total": time.perf_counter() - started,
        "versions": versions(),
    }
    write_json(options.json, report)
    _show(found, f"{data.dataset.name}, seed {options.seed}")
    return OK


def _show(found: Examination, title: str) -> None:
    verdicts = found.ordered
    rows = [
        (verdict.level, verdict.name, f"{verdict.value:.3g}", f"{verdict.threshold:g}", remark(verdict))
        for verdict in verdicts
    ]
    styles = ["" if verdict.explained_by else STYLES[verdict.level] for verdict in verdicts]
    show_columns(title, ("verdict", "measure", "value", "limit", "evidence and advice"), rows, styles)
    causes = ", ".join(verdict.name for verdict in found.causes)
    print(f"to be changed: {causes}" if causes else "nothing to be changed")
