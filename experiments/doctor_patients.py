"""Healthy training runs: data sets, networks and optimisers that go together, by name."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from sklearn import datasets

import mlpjax
from mlpjax import Batch, Config
from mlpjax.doctor import Examination, examine
from mlpjax.optim import adam
from mlpjax.preprocess import min_max, standardise
from mlpjax.toys import TOYS, blobs, discs

SETS: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    name: lambda seed, name=name: getattr(datasets, f"load_{name}")(return_X_y=True)
    for name in ("digits", "breast_cancer", "wine", "iris", "diabetes")
}
"""The data sets that scikit-learn ships."""
MADE: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "moons": lambda seed: datasets.make_moons(900, noise=0.15, random_state=seed),
    "classes": lambda seed: datasets.make_classification(
        900, 12, n_informative=8, n_redundant=2, n_classes=5, n_clusters_per_class=1, class_sep=1.5, random_state=seed
    ),
    "quantiles": lambda seed: datasets.make_gaussian_quantiles(
        n_samples=900, n_features=4, n_classes=3, random_state=seed
    ),
    "hastie": lambda seed: datasets.make_hastie_10_2(900, random_state=seed),
    "friedman": lambda seed: datasets.make_friedman1(900, noise=0.5, random_state=seed),
}
"""Data sets that scikit-learn makes, which only the held-out runs have."""
PLANE: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {**TOYS, "blobs": blobs, "discs": discs}
HEADS = {
    **dict.fromkeys(("digits", "wine", "iris", "blobs", "classes", "quantiles"), "multiclass"),
    **dict.fromkeys(("breast_cancer", "circle", "xor", "gauss", "spiral", "moons", "hastie"), "binary"),
    **dict.fromkeys(("diabetes", "plane", "gauss_regression", "friedman"), "regression"),
    "discs": "multilabel",
}
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, 0.9),
    "nesterov": lambda rate: optax.sgd(rate, 0.9, nesterov=True),
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
    "adamw": lambda rate: optax.adamw(rate, weight_decay=1e-4),
    "lecture": adam,
}
EXAMPLES = 900
"""Of a larger data set so many are taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A training run."""

    name: str
    config: Config
    optimizer: str
    rate: float
    x: np.ndarray
    y: np.ndarray
    batch_size: int
    seed: int
    valid: Batch | None = None
    epochs: int | None = None
    params: Any = None
    grad_fn: Any = mlpjax.backward

    def start(self) -> tuple[Any, Any]:
        """The start values that its key draws."""
        return mlpjax.init(self.config, jax.random.key(self.seed))

    def examine(self) -> Examination:
        """What the doctor says of it."""
        return examine(
            self.config,
            OPTIMIZERS[self.optimizer](self.rate),
            Batch(self.x, self.y),
            batch_size=self.batch_size,
            key=jax.random.key(self.seed),
            epochs=self.epochs,
            valid_data=self.valid,
            grad_fn=self.grad_fn,
            params=self.params,
        )


def raw(data: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples of a data set as they are, in an order of their own."""
    if data in PLANE:
        return PLANE[data](500, seed)
    x, y = {**SETS, **MADE}[data](seed)
    rows = np.random.default_rng(seed).permutation(len(x))[:EXAMPLES]
    labels = np.float32 if HEADS[data] == "regression" else np.int32
    y = y > 0 if data == "hastie" else y  # it has −1 and 1
    return x[rows].astype(np.float32), y[rows].astype(labels)


def scaled(data: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples as the command line gives them to a network, with large targets standardised."""
    x, y = raw(data, seed)
    x = (min_max if data == "digits" else standardise)(x).transform(x)
    return x, standardise(y[:, None]).transform(y[:, None]) if data in ("diabetes", "friedman") else y


def healthy(data: str, hidden: tuple[int, ...], activation: str, optimizer: str, rate: float, batch_size: int, seed: int, *, held_out: bool = False, **more: Any) -> Run:  # fmt: skip  # noqa: E501
    """A run with nothing wrong; ``more`` are fields of `mlpjax.Config`."""
    x, y = scaled(data, seed)
    head = HEADS[data]
    outputs = int(y.max()) + 1 if head == "multiclass" else 5 if head == "multilabel" else 1
    name = f"{data} {'-'.join(map(str, hidden))} {activation} {optimizer} {rate:g} batch {batch_size}"
    name += "".join(f" {key} {value}" for key, value in more.items())
    keep = 3 * len(x) // 4 if held_out else len(x)
    return Run(
        name=name,
        config=Config(sizes=(x.shape[1], *hidden, outputs), activation=activation, head=head, **more),
        optimizer=optimizer,
        rate=rate,
        x=x[:keep],
        y=y[:keep],
        valid=Batch(x[keep:], y[keep:]) if held_out else None,
        batch_size=batch_size,
        seed=seed,
    )


# data, widths, activation, optimiser, learning rate, batch size
PATIENTS: dict[str, tuple[str, tuple[int, ...], str, str, float, int]] = {
    "digits": ("digits", (64,), "relu", "adam", 1e-3, 32),
    "digits sgd": ("digits", (64, 32), "tanh", "sgd", 0.2, 32),
    "digits deep": ("digits", (48, 48, 48), "elu", "adam", 1e-3, 32),
    "digits sigmoid": ("digits", (64,), "sigmoid", "adam", 3e-3, 32),
    "digits momentum": ("digits", (100,), "relu", "momentum", 0.03, 50),
    "digits wide": ("digits", (128, 64), "gelu", "adamw", 1e-3, 64),
    "cancer": ("breast_cancer", (32,), "relu", "adam", 3e-3, 32),
    "cancer tanh": ("breast_cancer", (16, 16), "tanh", "momentum", 0.03, 32),
    "cancer silu": ("breast_cancer", (32, 16), "silu", "rmsprop", 1e-3, 32),
    "wine": ("wine", (16,), "tanh", "adam", 1e-2, 16),
    "wine relu": ("wine", (32,), "relu", "sgd", 0.1, 16),
    "iris": ("iris", (16,), "relu", "adam", 1e-2, 16),
    "iris tanh": ("iris", (16, 8), "tanh", "nesterov", 0.03, 16),
    "diabetes": ("diabetes", (32,), "relu", "adam", 3e-3, 32),
    "diabetes tanh": ("diabetes", (16,), "tanh", "sgd", 0.03, 32),
    "circle": ("circle", (16,), "tanh", "adam", 1e-2, 32),
    "circle relu": ("circle", (24, 24), "relu", "momentum", 0.03, 32),
    "xor": ("xor", (16,), "relu", "adam", 1e-2, 32),
    "xor tanh": ("xor", (16, 16), "tanh", "lecture", 3e-3, 25),
    "gauss": ("gauss", (8,), "tanh", "sgd", 0.1, 32),
    "gauss relu": ("gauss", (16,), "leaky_relu", "adam", 3e-3, 50),
    "spiral": ("spiral", (32, 32), "tanh", "adam", 1e-2, 16),
    "spiral relu": ("spiral", (64, 64), "relu", "adam", 5e-3, 16),
    "blobs": ("blobs", (16,), "relu", "adam", 1e-2, 32),
    "blobs selu": ("blobs", (24, 24), "selu", "sgd", 0.03, 32),
    "discs": ("discs", (48,), "relu", "adam", 1e-2, 32),
    "discs tanh": ("discs", (48, 24), "tanh", "adam", 5e-3, 50),
    "plane": ("plane", (16,), "tanh", "adam", 5e-3, 32),
    "bumps": ("gauss_regression", (64, 64), "relu", "adam", 3e-3, 32),
    "bumps gelu": ("gauss_regression", (48, 48), "gelu", "adam", 5e-3, 32),
    "moons": ("moons", (24,), "relu", "adam", 5e-3, 32),
    "moons tanh": ("moons", (16, 16), "tanh", "momentum", 0.03, 25),
    "classes": ("classes", (48,), "relu", "adam", 3e-3, 32),
    "classes sgd": ("classes", (32, 32), "elu", "sgd", 0.05, 50),
    "classes sigmoid": ("classes", (48,), "sigmoid", "adam", 1e-2, 32),
    "quantiles": ("quantiles", (32,), "silu", "rmsprop", 3e-3, 32),
    "hastie": ("hastie", (48,), "gelu", "adam", 5e-3, 32),
    "friedman": ("friedman", (32,), "relu", "adam", 5e-3, 32),
    "friedman tanh": ("friedman", (24,), "tanh", "sgd", 0.05, 25),
}


def patient(name: str, seed: int, **more: Any) -> Run:
    """One of `PATIENTS`, on data and start values of a seed."""
    return healthy(*PATIENTS[name], seed, **more)
