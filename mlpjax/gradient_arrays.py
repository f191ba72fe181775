"""From the arrays of a gradient file to a network, a batch and a gradient, with a message for what does not fit.

`mlpjax.gradient_files` says what the arrays are called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mlpjax.cases import Case
from mlpjax.checks import check_rows, row_weights
from mlpjax.config import Config
from mlpjax.errors import ConfigError, DataError
from mlpjax.finite import check_finite
from mlpjax.layers import BatchNormState
from mlpjax.parameters import Batch, Layer, Params, State
from mlpjax.targets import check_targets

PLAIN = ("x", "y", "weight", "config", "seed", "key", "train")
_GRADIENTS = tuple(f"d{field}" for field in Layer._fields)
NUMBERED = (*Layer._fields, *_GRADIENTS, *BatchNormState._fields)
NUMBERED_NAME = re.compile(rf"({'|'.join(NUMBERED)})([1-9][0-9]{{0,5}})")
_FLOATS = ("float16", "float32", "float64")
_SEEDS = 2**32
"""Below it a seed gives the same key with and without ``jax.enable_x64``."""


class GradientFile(NamedTuple):
    """What a gradient file holds: the arguments of `mlpjax.loss`, and the gradient to examine, a record per layer."""

    case: Case
    grads: Params


def gradient_file(path: str, arrays: Mapping[str, np.ndarray]) -> GradientFile:
    """Check the arrays and put them together."""
    try:
        arrays = {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in arrays.items()}
        _check_layers(arrays)
        _check_dtypes(arrays)
        config = _config(arrays, _sizes(arrays))
        params, grads = _params(arrays, config)
        batch = _batch(arrays, config)
        train = _train(arrays)
        return GradientFile(
            Case(config, params, _state(arrays, config, train), batch, _key(arrays, config, train), train), grads
        )
    except (ConfigError, DataError) as error:
        raise DataError(f"{path}: {error}") from None


def _numbered(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, str, int]]:
    """``(name, stem, l)`` of every array that belongs to a layer: ``("dW1", "dW", 1)``."""
    matches = [match for name in arrays if (match := NUMBERED_NAME.fullmatch(name))]
    return [(match[0], match[1], int(match[2])) for match in matches]


def _check_layers(arrays: Mapping[str, np.ndarray]) -> None:
    """Check that every layer has its W, and every parameter its gradient."""
    depth = max([l for _, stem, l in _numbered(arrays) if stem == "W"], default=1)
    for l in range(1, depth + 1):
        if f"W{l}" not in arrays:
            raise DataError(f"has no W{l}: layers count from 1 to L, each with its W")
    for name, stem, l in _numbered(arrays):
        if l > depth:
            raise DataError(f"has {name} but no W{l}: layers count from 1 to L, each with its W")
        if stem in Layer._fields and f"d{name}" not in arrays:
            raise DataError(f"has {name} but no d{name}: give the gradient of every parameter")
        if stem in _GRADIENTS and name[1:] not in arrays:
            raise DataError(f"has {name} but no {name[1:]}: give the parameters that the gradient is of")


def _check_dtypes(arrays: Mapping[str, np.ndarray]) -> None:
    for name in Batch._fields:
        if name in arrays and arrays[name].dtype.name not in _FLOATS and arrays[name].dtype.kind not in "biu":
            raise DataError(f"{name} has dtype {arrays[name].dtype}: expected real numbers; encode labels as 0, 1, …")
    for name, stem, _ in _numbered(arrays):
        if stem != "count" and arrays[name].dtype.name not in _FLOATS:
            raise DataError(
                f"{name} has dtype {arrays[name].dtype}: expected float32 or float64; write {name}.astype(float)"
            )


def _sizes(arrays: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """Check that x and the W's fit each other, and return the widths."""
    before, shape = "x", arrays["x"].shape
    if len(shape) != 2 or shape[0] == 0:
        raise DataError(f"x has shape {shape}: expected (m, n_0), one row per example, at least one")
    sizes = [shape[1]]
    for l in range(1, 1 + sum(stem == "W" for _, stem, _ in _numbered(arrays))):
        W = arrays[f"W{l}"].shape
        if len(W) != 2 or W[0] != shape[1]:
            hint = f"; transposed it fits: write W{l}.T and dW{l}.T" if W[1:] == shape[1:] else ""
            if not hint and before == "x" and W[:1] == shape[:1]:
                hint = "; or rows of x are not examples: write x.T"
            raise DataError(
                f"W{l} has shape {W}, {before} {shape}: expected ({shape[1]}, n_{l}), as z = a W + b with a row "
                f"per example{hint}"
            )
        before, shape = f"W{l}", W
        sizes.append(shape[1])
    return tuple(sizes)


def _config(arrays: Mapping[str, np.ndarray], sizes: tuple[int, ...]) -> Config:
    given = _config_fields(arrays["config"]) if "config" in arrays else {}
    if given.get("sizes", list(sizes)) != list(sizes):
        raise DataError(f"config has sizes {given['sizes']}, x and the W's {list(sizes)}: leave sizes out")
    stems = {stem for _, stem, _ in _numbered(arrays)}
    found = {"bias": "b" in stems, "batch_norm": not stems.isdisjoint(("gamma", "beta"))}
    try:
        return Config.from_dict({**found, **given, "sizes": sizes})
    except ConfigError as error:
        where = "config" if "config" in arrays else "no config, so that of mlpjax.Config()"
        raise DataError(f"{where}: {error}") from None


def _config_fields(config: np.ndarray) -> dict[str, Any]:
    expected = 'expected JSON text, such as \'{"activation": "tanh", "l2": 0.1}\''
    if config.size != 1 or config.dtype.kind not in "US":
        raise DataError(f"config has shape {config.shape} of {config.dtype}: {expected}")
    try:
        fields = json.loads(config.item())
    except (ValueError, RecursionError) as error:
        raise DataError(f"config is no JSON ({error}): {expected}") from None
    if not isinstance(fields, dict):
        raise DataError(f"config is the JSON of a {type(fields).__name__}: {expected}")
    return fields


def _params(arrays: Mapping[str, np.ndarray], config: Config) -> tuple[Params, Params]:
    params, grads = [], []
    for l in range(1, config.depth + 1):
        _check_fields(arrays, config, l)
        fields = [field for field in Layer._fields if f"{field}{l}" in arrays]
        for name in (f"{field}{l}" for field in fields):
            if not name.startswith("W"):
                _check_vector(arrays, name, config.sizes[l])
            _check_values(arrays, name)
            got, expected = arrays[f"d{name}"].shape, arrays[name].shape
            if got != expected:
                hint = f"; it is exactly transposed: write d{name}.T" if got == expected[::-1] else ""
                if len(expected) == 1 and arrays[f"d{name}"].size == expected[0]:
                    hint = f"; write d{name}.ravel()"
                raise DataError(f"d{name} has shape {got}, {name} {expected}: expected the same shape{hint}")
        params.append(Layer(**{field: arrays[f"{field}{l}"] for field in fields}))  # type: ignore[arg-type]
        grads.append(Layer(**{field: arrays[f"d{field}{l}"] for field in fields}))  # type: ignore[arg-type]
    return tuple(params), tuple(grads)


def _check_fields(arrays: Mapping[str, np.ndarray], config: Config, l: int) -> None:
    """Check that a layer has the parameters that the config gives it."""
    hidden = l < config.depth
    norm = hidden and config.batch_norm
    activation = config.activations[l - 1] if hidden else None
    # in this order, so that a b beside gamma is told as that
    expected = {"b": config.bias and not norm, "gamma": norm, "beta": norm, "slope": activation == "prelu"}
    for field, wanted in expected.items():
        name = f"{field}{l}"
        if wanted == (name in arrays):
            continue
        if field == "b" and norm:
            why = f"under batch-norm β takes its place: leave b{l} and db{l} out, and take b{l} off a mean{l}"
        elif field == "b":
            why = f"the other layers, or config, {'have' if wanted else 'exclude'} a bias: make them agree"
        elif not hidden:
            why = f"layer {l} is the output layer, which has W and b only"
        elif field == "slope":
            why = f"the activation of layer {l} is {activation!r}, and slope belongs to 'prelu': correct config"
        else:
            why = "batch-norm has gamma and beta in every hidden layer, and config may not say otherwise"
        raise DataError(f"has {'no ' if wanted else ''}{name}: {why}")


def _check_vector(arrays: Mapping[str, np.ndarray], name: str, n_l: int) -> None:
    shape = arrays[name].shape
    if shape != (n_l,):
        hint = f"; write {name}.ravel()" if arrays[name].size == n_l else ""
        raise DataError(f"{name} has shape {shape}: expected ({n_l},), as the W of its layer has {n_l} columns{hint}")


def _check_values(arrays: Mapping[str, np.ndarray], name: str, low: float = -np.inf) -> None:
    bad = ~(np.isfinite(arrays[name]) & (arrays[name] >= low))
    if bad.any():
        index = np.argwhere(bad)[0].tolist()
        expected = "finite numbers" if np.isinf(low) else f"finite numbers ≥ {low:g}"
        raise DataError(f"{name}{index} is {arrays[name][tuple(index)]}: expected {expected}; no gradient exists there")


def _batch(arrays: Mapping[str, np.ndarray], config: Config) -> Batch:
    batch = Batch(arrays["x"], arrays["y"], arrays.get("weight"))
    check_finite(batch.x, "x")
    # for its checks alone
    row_weights(batch.weight, len(batch.x), np.float32)
    check_targets(config.head, batch.y, config.sizes[-1], batch.weight)
    check_rows(batch.x, batch.y)
    check_finite(batch.y, "y")
    return batch


def _train(arrays: Mapping[str, np.ndarray]) -> bool:
    train = arrays.get("train", np.array(True))
    if train.size != 1 or train.dtype.kind != "b":
        raise DataError(f"train is {_shown(train)}: expected True or False")
    return bool(train.item())


def _state(arrays: Mapping[str, np.ndarray], config: Config, train: bool) -> State:
    norms = config.depth - 1 if config.batch_norm else 0
    for name, stem, l in _numbered(arrays):
        if stem in BatchNormState._fields and l > norms:
            raise DataError(f"has {name} but no gamma{l}: running statistics belong to batch-norm, leave {name} out")
    state = []
    for l in range(1, norms + 1):
        n_l, dtype = config.sizes[l], arrays[f"W{l}"].dtype
        start = {f"mean{l}": np.zeros(n_l, dtype), f"var{l}": np.ones(n_l, dtype), f"count{l}": np.array(0)}
        missing = [name for name in start if name not in arrays and not name.startswith("count")]
        if missing and not train:
            raise DataError(f"has no {missing[0]}: with train False batch-norm uses the running mean and var")
        if len(missing) == 1:
            raise DataError(f"has no {missing[0]}: give both mean{l} and var{l}, or none of them when training")
        given = {name: arrays.get(name, default) for name, default in start.items()}
        for name in (f"mean{l}", f"var{l}"):
            _check_vector(given, name, n_l)
            _check_values(given, name, 0.0 if name.startswith("var") else -np.inf)
        count = _integer(given[f"count{l}"], f"count{l}", 2**31)
        state.append(BatchNormState(given[f"mean{l}"], given[f"var{l}"], np.array(count, np.int32)))  # type: ignore[arg-type]
    return tuple(state)


def _key(arrays: Mapping[str, np.ndarray], config: Config, train: bool) -> jax.Array | None:
    if "seed" in arrays and "key" in arrays:
        raise DataError("has seed and key: give one of them")
    if "seed" in arrays:
        return jax.random.key(_integer(arrays["seed"], "seed", _SEEDS))
    if "key" in arrays:
        data, expected = arrays["key"], jax.eval_shape(jax.random.key_data, jax.random.key(0))
        if data.shape != expected.shape or data.dtype != expected.dtype:
            raise DataError(
                f"key has shape {data.shape} of {data.dtype}: expected {expected.shape} of {expected.dtype}, as "
                "jax.random.key_data gives it; or give seed"
            )
        return jax.random.wrap_key_data(jax.numpy.asarray(data))
    if train and config.has_dropout:
        raise DataError("has neither seed nor key: dropout draws its masks from jax.random.key(seed); or train=False")
    return None


def _integer(array: np.ndarray, name: str, end: int) -> int:
    if array.size != 1 or array.dtype.kind not in "iu" or not 0 <= array.item() < end:
        raise DataError(f"{name} is {_shown(array)}: expected one integer, 0 ≤ {name} < {end}")
    return int(array.item())


def _shown(array: np.ndarray) -> str:
    if array.size == 1 and array.dtype.kind in "biuf":
        return repr(array.item())
    return f"an array of shape {array.shape}" + ("" if array.dtype.kind in "biuf" else f" of {array.dtype}")
