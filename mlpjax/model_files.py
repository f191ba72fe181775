"""Model files: a trained network and what is needed to use it, in one ``.npz`` that describes itself.

It is a sealed file (see `mlpjax.sealed`): plain arrays and a JSON header under a SHA-256.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.config import Config
from mlpjax.errors import InputError, ModelFileError
from mlpjax.files import atomic_write
from mlpjax.layers import BatchNormState
from mlpjax.parameters import Layer, Params, State, init
from mlpjax.preprocess import Scaler
from mlpjax.sealed import Kind, read_sealed, seal, usable
from mlpjax.versions import versions

MODEL = Kind(
    name="model file",
    format="mlpjax model",
    version=1,
    writer="`mlpjax train --save` or mlpjax.save",
    remedy="use another copy or train again",
    error=ModelFileError,
)


class Model(NamedTuple):
    """What a model file holds.

    ``config``, ``params`` and ``state`` are the network's; ``preprocessing`` is the `Scaler` that raw inputs go
    through, or ``None``; ``classes`` are the labels that class 0, 1, … stand for, or ``None``; ``features`` and
    ``targets`` are column names, or ``None``; ``versions`` say what wrote the file; ``info`` is the writer's own.
    """

    config: Config
    params: Params
    state: State
    preprocessing: Scaler | None
    classes: tuple[Any, ...] | None
    features: tuple[str, ...] | None
    targets: tuple[str, ...] | None
    versions: dict[str, str]
    info: dict[str, Any]


def save(
    path: str | os.PathLike[str],
    config: Config,
    params: Params,
    state: State = (),
    *,
    preprocessing: Scaler | None = None,
    classes: Sequence[Any] | None = None,
    features: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a model file, whole or not at all. The arguments are the fields of `Model`.

    Raises:
        InputError: if ``params`` and ``state`` do not fit the config, or something is not plain JSON.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> config = Config(sizes=(2, 3))
    >>> params, state = init(config, jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(pathlib.Path(folder, "m.npz"), config, params, state, classes=["cat", "dog", "fish"])
    ...     load(pathlib.Path(folder, "m.npz")).classes
    ('cat', 'dog', 'fish')
    """
    _check_fit(config, params, state, InputError)
    _check_rest(config, preprocessing, classes, features, targets, InputError)
    arrays = {name: np.asarray(value) for name, value in _named_arrays(params, state).items()}
    if preprocessing is not None:
        arrays |= {"preprocessing/shift": preprocessing.shift, "preprocessing/scale": preprocessing.scale}
    for name, array in arrays.items():
        _check_dtype(name, array.dtype, InputError)
    header = {
        "config": config.to_dict(),
        "preprocessing": None if preprocessing is None else preprocessing.kind,
        "classes": None if classes is None else list(classes),
        "features": None if features is None else list(features),
        "targets": None if targets is None else list(targets),
        "versions": versions(),
        "info": dict(info or {}),
    }
    atomic_write(path, seal(MODEL, header, arrays))


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model file, after checking every byte of it against its digest.

    Raises:
        ModelFileError: (a `ValueError`) if the file is damaged, is not a model file, is of a newer format, or
            holds arrays that do not fit its config.
        OSError: if the file cannot be read.

    >>> load("README.md")
    Traceback (most recent call last):
        ...
    mlpjax.errors.ModelFileError: README.md: not a model file, or one that was cut short: it does not end ...
    """
    header, arrays = read_sealed(MODEL, path)
    with usable(MODEL, os.fspath(path)):
        return _model(header, arrays)


def _named_arrays(params: Params, state: State) -> dict[str, Any]:
    """Name each array: ``params/1/W``, ``state/1/mean``; layers count from 1, as in the lecture."""
    named: dict[str, Any] = {}
    trees: tuple[tuple[str, Any], ...] = (("params", params), ("state", state))
    for kind, records in trees:
        for l, record in enumerate(records, start=1):
            fields = record._asdict().items()
            named |= {f"{kind}/{l}/{field}": value for field, value in fields if value is not None}
    return named


def _check_fit(config: Config, params: Params, state: State, error: type[InputError]) -> None:
    """Raise unless the shapes of params and state are those of the config."""
    if len(params) != config.depth:
        raise error(f"there are parameters of {len(params)} layers: the config expects {config.depth}")
    expected_trees = jax.eval_shape(init, config, jax.random.key(0))
    expected = {name: value.shape for name, value in _named_arrays(*expected_trees).items()}
    got = {name: np.shape(value) for name, value in _named_arrays(params, state).items()}
    for name in sorted(expected.keys() | got.keys()):
        if expected.get(name) != got.get(name):
            raise error(f"{name} has shape {got.get(name)}: the config expects {expected.get(name)}")


def _check_rest(
    config: Config,
    preprocessing: Scaler | None,
    classes: Sequence[Any] | None,
    features: Sequence[str] | None,
    targets: Sequence[str] | None,
    error: type[InputError],
) -> None:
    """Raise unless what surrounds the network has its widths."""
    n_classes = 2 if config.head == "binary" else config.sizes[-1]
    lists = {"classes": (classes, bool | int | float | str), "features": (features, str), "targets": (targets, str)}
    for name, (values, kind) in lists.items():
        if values is None:
            continue
        if isinstance(values, str | Mapping) or not all(isinstance(value, kind) for value in values):
            expected = "text, numbers or bools of Python" if name == "classes" else "names"
            raise error(f"{name} is {values!r}: expected a list of {expected}")
    if classes is not None and len(classes) != n_classes:
        raise error(f"there are {len(classes)} classes: the config expects {n_classes}")
    if features is not None and len(features) != config.sizes[0]:
        raise error(f"there are {len(features)} features: the config expects {config.sizes[0]}")
    if preprocessing is not None and len(preprocessing.shift) != config.sizes[0]:
        raise error(f"preprocessing is for {len(preprocessing.shift)} features: the config expects {config.sizes[0]}")


def _model(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Model:
    for name, array in arrays.items():
        _check_dtype(name, array.dtype, ModelFileError)
    config = Config.from_dict(header["config"])
    params = tuple(Layer(**fields) for fields in _records(arrays, "params"))
    state = tuple(BatchNormState(**fields) for fields in _records(arrays, "state"))
    _check_fit(config, params, state, ModelFileError)
    preprocessing = None
    if header["preprocessing"] is not None:
        shift, scale = arrays["preprocessing/shift"], arrays["preprocessing/scale"]
        preprocessing = Scaler(kind=header["preprocessing"], shift=shift, scale=scale)
    used = [*_named_arrays(params, state), *(("preprocessing/shift", "preprocessing/scale") if preprocessing else ())]
    if extra := arrays.keys() - set(used):
        raise ModelFileError(f"{min(extra)} is an array that the config has no use for")
    _check_rest(config, preprocessing, header["classes"], header["features"], header["targets"], ModelFileError)
    classes, features, targets = (
        None if header[key] is None else tuple(header[key]) for key in ("classes", "features", "targets")
    )
    return Model(
        config, params, state, preprocessing, classes, features, targets, dict(header["versions"]), dict(header["info"])
    )


def _check_dtype(name: str, dtype: np.dtype, error: type[InputError]) -> None:
    kind, _, field = name.partition("/")
    if kind == "preprocessing":
        expected = ["float64"]
    else:
        expected = ["int32"] if field.endswith("/count") else ["float32", "float64"]
    if dtype.name not in expected:
        raise error(f"{name} is {dtype.name}: expected {' or '.join(expected)}")
    if dtype == np.float64 and kind != "preprocessing" and jnp.result_type(float) != np.float64:
        raise error(f"{name} is float64, which JAX has switched off: set JAX_ENABLE_X64=1")


def _records(arrays: Mapping[str, np.ndarray], kind: str) -> list[dict[str, jax.Array]]:
    """Collect ``kind/l/field`` into one dict per layer, l = 1 to L."""
    records: dict[str, dict[str, jax.Array]] = {}
    for name, array in arrays.items():
        what, _, rest = name.partition("/")
        if what == kind:
            l, _, field = rest.partition("/")
            records.setdefault(l, {})[field] = jnp.asarray(array)
    return [records[l] for l in itertools.takewhile(records.__contains__, map(str, itertools.count(1)))]
