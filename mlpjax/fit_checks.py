"""What `mlpjax.fit` and `mlpjax.fit_many` check before they train, and the weights that classes give to examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_count, check_weight
from mlpjax.config import Config
from mlpjax.errors import ConfigError, InputError
from mlpjax.finite import FLOAT32_MAX
from mlpjax.labels import class_weights, sample_weights
from mlpjax.parameters import Batch


def check_trainable(config: Config) -> None:
    """Raise `ConfigError` for a network through which no gradient flows."""
    if "binary_step" in config.activations:
        raise ConfigError(
            "activation 'binary_step' cannot be trained: its derivative is 0 everywhere, so no gradient reaches "
            "the layers before it; use 'sigmoid', a smooth step"
        )


def check_key(key: Any) -> None:
    """Raise `InputError` unless ``key`` is an array."""
    if not hasattr(key, "dtype"):
        raise InputError(f"key is {key!r}: expected a key of jax.random, such as jax.random.key(0)")


def check_monitor(monitor: str, patience: int | None, valid_data: Batch | None) -> None:
    """Raise `InputError` for an unknown ``monitor``, or ``patience`` without something to watch."""
    if monitor not in ("loss", "metric"):
        raise ConfigError(f"monitor is {monitor!r}: expected 'loss' or 'metric'")
    if patience is not None:
        check_count("patience", patience)
        if valid_data is None:
            raise InputError("patience (early stopping) watches validation data: give valid_data")


def with_class_weight(config: Config, data: Batch, class_weight: Sequence[float] | str | None) -> Batch:
    """Class weights become sample weights.

    Raises:
        ConfigError: unknown class weights, or not one finite number ≥ 0 per class.
        InputError: examples without one class each; `DataError` for weights that float32 cannot hold.
    """
    if class_weight is None:
        return data
    y = np.asarray(data.y)
    y = y.argmax(axis=1) if config.head == "multiclass" and y.ndim == 2 and set(np.unique(y)) <= {0, 1} else y
    y = y.reshape(-1) if config.head == "binary" else y
    if config.head not in ("binary", "multiclass") or y.ndim != 1 or (y != y.astype(np.int32)).any():
        raise InputError(
            f"class_weight needs one class per example: head {config.head!r} has y of shape {y.shape}; "
            "give weights in the batch instead"
        )
    y = y.astype(np.int32)
    n_classes = 2 if config.head == "binary" else config.sizes[-1]
    if isinstance(class_weight, str) and class_weight != "balanced":
        raise ConfigError(f"class_weight is {class_weight!r}: expected 'balanced' or one number per class")
    per_class = class_weights(y, n_classes) if isinstance(class_weight, str) else np.asarray(class_weight, float)
    if per_class.shape != (n_classes,) or not ((per_class >= 0) & (per_class <= FLOAT32_MAX)).all():
        raise ConfigError(f"class_weight is {class_weight!r}: expected {n_classes} finite numbers ≥ 0, one per class")
    dtype = jnp.result_type(float)
    weight = sample_weights(y, per_class, dtype)
    if data.weight is not None:
        # by NumPy, which keeps what is subnormal; too large a product is refused
        with np.errstate(over="ignore"):
            weight = weight * np.asarray(data.weight)
    check_weight(weight, len(y))
    return data._replace(weight=jnp.asarray(weight, dtype))
