"""What can be wrong with data: scales, classes, copies, labels, and too few examples."""

from typing import Any

import numpy as np
from doctor_patients import Run, patient, raw
from doctor_sickness import changed, sickness

from mlpjax import Batch


@sickness("inputs_large", ("digits", 255), ("circle", 100), ("cancer", 100), ("iris", 200))
def inputs_times(strength: Any, seed: int) -> Run:
    """Inputs that are not scaled down."""
    name, factor = strength
    run = patient(name, seed)
    return changed(run, x=(run.x * factor).astype(np.float32))


@sickness("inputs_small", ("digits", 255), ("gauss relu", 1000), ("wine relu", 1000), ("digits momentum", 500))
def inputs_over(strength: Any, seed: int) -> Run:
    """Inputs that are scaled down twice."""
    name, factor = strength
    run = patient(name, seed)
    return changed(run, x=(run.x / factor).astype(np.float32))


@sickness("inputs_uneven", ("breast_cancer", "cancer"), ("wine", "wine"), ("wine", "wine relu"), ("breast_cancer", "cancer tanh"))  # fmt: skip  # noqa: E501
def raw_table(strength: Any, seed: int) -> Run:
    """A table whose columns have other units."""
    data, name = strength
    x, y = raw(data, seed)
    return changed(patient(name, seed), x=x, y=y)


@sickness("inputs_uneven", ("cancer", 1000), ("digits sgd", 500))
def one_feature(strength: Any, seed: int) -> Run:
    """One feature in thousandths."""
    name, factor = strength
    run = patient(name, seed)
    x = run.x.copy()
    x[:, np.argmax(x.std(axis=0))] *= factor
    return changed(run, x=x)


@sickness("inputs_constant", ("digits", 0.6), ("cancer", 0.5), ("wine", 0.5), ("digits wide", 0.7))
def constant_features(strength: Any, seed: int) -> Run:
    """Most features do not change."""
    name, share = strength
    run = patient(name, seed)
    rng = np.random.default_rng(seed)
    columns = rng.permutation(run.x.shape[1])[: round(share * run.x.shape[1])]
    x = run.x.copy()
    x[:, columns] = rng.uniform(0, 1, len(columns))
    return changed(run, x=x)


@sickness("labels", "digits", "circle", "blobs", "diabetes")
def shuffled_labels(name: str, seed: int) -> Run:
    """Labels in another order than inputs."""
    run = patient(name, seed)
    return changed(run, y=run.y[np.random.default_rng(seed).permutation(len(run.y))])


@sickness("labels", "digits wide", "cancer")
def shuffled_labels_validated(name: str, seed: int) -> Run:
    """The same, with validation data."""
    run = patient(name, seed, held_out=True)
    return changed(run, y=run.y[np.random.default_rng(seed).permutation(len(run.y))])


@sickness("labels", "wine", "bumps")
def sorted_labels(name: str, seed: int) -> Run:
    """Labels rolled on by some rows."""
    run = patient(name, seed)
    return changed(run, y=np.roll(run.y, 17, axis=0))


@sickness("imbalance", ("gauss", 50), ("circle", 50), ("blobs", 50), ("cancer", 50))
def rare_class(strength: Any, seed: int) -> Run:
    """One class 50 times as frequent as another."""
    name, ratio = strength
    run = patient(name, seed)
    rest, rare = np.flatnonzero(run.y != 1), np.flatnonzero(run.y == 1)
    common = int(np.bincount(run.y[rest]).max())
    rows = np.random.default_rng(seed).permutation(np.concatenate([rest, rare[: max(common // ratio, 2)]]))
    return changed(run, x=run.x[rows], y=run.y[rows])


@sickness("head", ("digits", "regression"), ("wine", "multilabel"), ("iris", "regression"), ("blobs", "multilabel"))
def wrong_head(strength: Any, seed: int) -> Run:
    """Classes as numbers, or as labels that do not exclude each other."""
    name, head = strength
    run = patient(name, seed)
    y = run.y.astype(np.float32) if head == "regression" else np.eye(run.config.sizes[-1], dtype=np.int32)[run.y]
    outputs = 1 if head == "regression" else run.config.sizes[-1]
    return changed(run, y=y, config={"head": head, "sizes": (*run.config.sizes[:-1], outputs)})


@sickness("head", "diabetes", "plane")
def negative_targets(name: str, seed: int) -> Run:
    """Targets below 0 for outputs that are not."""
    return changed(patient(name, seed), config={"head": "regression_relu"})


@sickness("targets", ("plane", 1000, 1), ("bumps", 100, 1), ("diabetes", 152, 77), ("diabetes tanh", 0, 500))
def unscaled_targets(strength: Any, seed: int) -> Run:
    """Targets that are off by a constant, or in small units."""
    name, shift, scale = strength
    run = patient(name, seed)
    return changed(run, y=run.y * scale + shift)


@sickness("duplicates", ("digits", 3), ("circle", 5), ("cancer", 2), ("diabetes", 4))
def repeated_rows(strength: Any, seed: int) -> Run:
    """Every example several times."""
    name, copies = strength
    run = patient(name, seed)
    return changed(run, x=np.tile(run.x, (copies, 1)), y=np.concatenate([run.y] * copies))


@sickness("leak", ("digits", 0.5), ("cancer", 0.2), ("wine", 1.0), ("blobs", 0.3))
def known_validation(strength: Any, seed: int) -> Run:
    """Training examples among the validation data."""
    name, share = strength
    run = patient(name, seed, held_out=True)
    n = round(share * len(run.valid.x))
    x, y = run.valid.x.copy(), run.valid.y.copy()
    x[:n], y[:n] = run.x[:n], run.y[:n]
    return changed(run, valid=Batch(x, y))


@sickness("overfitting", ("circle", 40), ("gauss", 40), ("diabetes", 60), ("xor", 60))
def few_noisy_examples(strength: Any, seed: int) -> Run:
    """A large network for few examples with noise."""
    name, m = strength
    run = patient(name, seed, held_out=True)
    rng = np.random.default_rng(seed)
    x, y, valid = run.x[:m], run.y[:m], run.valid
    if run.config.head == "binary":
        y, valid = (np.where(rng.uniform(size=len(part)) < 0.25, 1 - part, part) for part in (y, valid.y))
        valid = Batch(run.valid.x, valid)
    config = {"sizes": (run.config.sizes[0], 128, 128, run.config.sizes[-1]), "activation": "relu"}
    return changed(run, x=x, y=y, valid=valid, optimizer="adam", rate=5e-3, epochs=300, config=config)
