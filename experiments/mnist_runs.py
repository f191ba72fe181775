"""What the experiments on MNIST share: the images, one training run, and the record of the machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import mlpjax
from mlpjax.augment import ImageAugment
from mlpjax.display import progress_bar
from mlpjax.versions import versions

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """How a network is trained: Adam with a cosine schedule from ``lr`` to 0, and the last epoch counts."""

    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    lr: float
    dropout: tuple[float | None, ...] | None = None
    batch_norm: bool = False
    augment: dict[str, float] | None = None


def load(data_dir: str | None) -> tuple[mlpjax.Batch, mlpjax.Batch]:
    """The 60,000 training and the 10,000 test images, pixels from 0 to 1."""
    mnist = mlpjax.load_dataset("mnist", data_dir=data_dir)
    assert mnist.test is not None
    (x, y), (x_test, y_test) = (mnist.x, mnist.y), mnist.test
    return mlpjax.Batch(_unit(x), y), mlpjax.Batch(_unit(x_test), y_test)


def split_last(data: mlpjax.Batch, n: int) -> tuple[mlpjax.Batch, mlpjax.Batch]:
    """All examples but the last n, and the last n."""
    return mlpjax.Batch(data.x[:-n], data.y[:-n]), mlpjax.Batch(data.x[-n:], data.y[-n:])


def train(setting: Setting, data: mlpjax.Batch, held: mlpjax.Batch, seed: int, title: str) -> dict[str, Any]:
    """Train once and evaluate once, after the last epoch; ``held`` has no part in the training."""
    n_classes = int(data.y.max()) + 1
    config = mlpjax.Config(
        sizes=(data.x.shape[1], *setting.hidden, n_classes), dropout=setting.dropout, batch_norm=setting.batch_norm
    )
    steps = setting.epochs * -(-len(data.x) // setting.batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(setting.lr, steps))
    side = round(data.x.shape[1] ** 0.5)
    augment = None if setting.augment is None else ImageAugment(shape=(side, side), **setting.augment)
    started = time.perf_counter()
    with progress_bar(setting.epochs, "accuracy", f"{title}, seed {seed}") as callback:
        result = mlpjax.fit(
            config,
            optimizer,
            data,
            epochs=setting.epochs,
            batch_size=setting.batch_size,
            key=jax.random.key(seed),
            augment=augment,
            callback=callback,
        )
    scores = mlpjax.evaluate(config, result.params, result.state, held)
    if result.stop_reason != "finished":
        raise SystemExit(result.message)
    return {
        "seed": seed,
        "error_percent": round(100 * (1 - scores["metric"]), 4),
        "loss": scores["loss"],
        "train_loss": result.history["train_loss"][-1],
        "seconds_compile": result.seconds_compile,
        "seconds_train": result.seconds_train,
        "seconds_total": time.perf_counter() - started,
    }


def write(name: str, result: dict[str, Any]) -> None:
    """Write the numbers, with what they were made on."""
    device = jax.devices()[0].device_kind
    machine = {"cpu_count": os.cpu_count(), "machine": platform.machine(), "device": device}
    text = json.dumps({**result, "machine": machine, "versions": versions()}, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32) / 255
