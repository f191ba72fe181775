"""Model files: a trained network and what is needed to use it, in one ``.npz`` that describes itself.

A model file is a plain, uncompressed NumPy ``.npz``: a JSON header (as the uint8 array ``header``) and the arrays
it lists. The archive's comment, the last bytes of the file, is the SHA-256 of **every byte before the digest**;
a zip by itself checks its members only, so that flipped bits in its directory pass. Nothing is pickled and
nothing in a file is run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mlpjax
from mlpjax.config import Config
from mlpjax.errors import InputError, ModelFileError
from mlpjax.files import atomic_write
from mlpjax.layers import BatchNormState
from mlpjax.parameters import Layer, Params, State, init
from mlpjax.preprocess import Scaler

FORMAT = "mlpjax model"
FORMAT_VERSION = 1
_DIGEST_TAG = b"mlpjax-sha256:"
_DIGEST_LENGTH = 64
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The earliest date a zip knows: the same model gives the same bytes at any time."""


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
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config.to_dict(),
        "preprocessing": None if preprocessing is None else preprocessing.kind,
        "classes": None if classes is None else list(classes),
        "features": None if features is None else list(features),
        "targets": None if targets is None else list(targets),
        "versions": versions(),
        "info": dict(info or {}),
        "arrays": {name: [list(array.shape), array.dtype.name] for name, array in arrays.items()},
    }
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"a model file's header is plain JSON: {error}") from None
    atomic_write(path, _seal({"header": np.frombuffer(text.encode(), np.uint8), **arrays}))


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
    with open(path, "rb") as file:
        content = file.read()
    name = os.fspath(path)
    _check_digest(content, name)
    try:
        arrays = _read_arrays(content)
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != FORMAT or header["format_version"] != FORMAT_VERSION:
            raise ModelFileError(
                f"format {header['format']!r}, version {header['format_version']!r}: this mlpjax reads {FORMAT!r}, "
                f"version {FORMAT_VERSION}; a newer mlpjax may read it"
            )
        listed = {key: [list(array.shape), array.dtype.name] for key, array in arrays.items()}
        if listed != header["arrays"]:
            raise ModelFileError("its arrays are not those that its header lists")
        return _model(header, arrays)
    except Exception as error:
        # made up and sealed: zipfile, numpy, json and Config raise a dozen kinds of errors
        reason = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ModelFileError(f"{name}: not a model file that mlpjax can use: {reason}") from None


def versions() -> dict[str, str]:
    """Return the versions that a result depends on.

    >>> sorted(versions())
    ['jax', 'jaxlib', 'mlpjax', 'numpy', 'optax', 'python']
    """
    import jaxlib
    import optax

    return {
        "mlpjax": mlpjax.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "optax": optax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


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


def _seal(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Pack arrays into the bytes of an ``.npz`` that ends with the digest of all bytes before it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EARLIEST), "w", force_zip64=True) as member:
                # not ascontiguousarray, which makes a number a vector
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
        archive.comment = _DIGEST_TAG + b"0" * _DIGEST_LENGTH
    body = buffer.getvalue()[:-_DIGEST_LENGTH]
    return body + hashlib.sha256(body).hexdigest().encode()


def _check_digest(content: bytes, name: str) -> None:
    body, digest = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    if not body.endswith(_DIGEST_TAG):
        raise ModelFileError(
            f"{name}: not a model file, or one that was cut short: it does not end with a digest; "
            "expected a file that `mlpjax train --save` or mlpjax.save wrote"
        )
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ModelFileError(f"{name}: damaged: its bytes do not match its SHA-256; use another copy or train again")


def _read_arrays(content: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        # compressed or overlapping members could unpack to any size
        if sum(member.file_size for member in members) > len(content):
            raise ModelFileError("its members are larger than the file")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or not member.filename.endswith(".npy"):
                raise ModelFileError(f"unexpected member {member.filename!r}")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


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
    records: list[dict[str, jax.Array]] = []
    while True:
        prefix = f"{kind}/{len(records) + 1}/"
        fields = {name.removeprefix(prefix): jnp.asarray(a) for name, a in arrays.items() if name.startswith(prefix)}
        if not fields:
            return records
        records.append(fields)
