"""Replay files: a step that met a number that is not finite, with all that it takes to take it again.

It is a sealed file (see `mlpjax.sealed`): plain arrays and a JSON header under a SHA-256.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.checks import check_count, check_input
from mlpjax.config import Config
from mlpjax.errors import DataError, InputError, unknown_name
from mlpjax.files import atomic_write
from mlpjax.mlp import autodiff, backward
from mlpjax.optim import make_optimizer
from mlpjax.parameters import Batch, Params, State, init
from mlpjax.provenance import FaultyStep, find_fault
from mlpjax.sealed import Kind, read_sealed, seal, usable
from mlpjax.snapshots import described, leaves, read_tree, tree_arrays
from mlpjax.step import GradFn, TrainState, accumulate
from mlpjax.versions import versions

REPLAY = Kind(
    name="replay file",
    format="mlpjax replay",
    version=1,
    writer="`mlpjax train --debug-nans` or mlpjax.write_replay",
    remedy="let the run write it again",
    error=DataError,
)
GRADIENTS: dict[str, GradFn] = {"hand": backward, "autodiff": autodiff}
_VALUES = re.compile(r"bool|bfloat16|float(16|32|64)|u?int(8|16|32|64)")


def write_replay(
    path: str | os.PathLike[str],
    faulty: FaultyStep,
    *,
    optimizer: Mapping[str, Any] | None = None,
    grad: str | None = None,
    accumulate: int = 1,
) -> None:
    """Write a step so that `replay` takes it again, whole or not at all.

    Functions are not written. An optimiser that `mlpjax.optim.make_optimizer` made is named by its arguments, as a dict
    of plain values (``{"name": "adam", "lr": 1e-3}``), a gradient function by ``"hand"`` or ``"autodiff"`` and the
    parts of `mlpjax.accumulate`; who names none gives them to `replay`.

    Raises:
        InputError: if the optimiser's arguments are not plain JSON.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> config, optimizer = mlpjax.Config(sizes=(1, 1), head="regression"), optax.sgd(0.1)
    >>> params = (mlpjax.Layer(W=jnp.array([[3e38]]), b=jnp.zeros(1)),)
    >>> before, batch = TrainState(params, (), optimizer.init(params)), Batch(jnp.array([[2.0]]), jnp.zeros(1))
    >>> fault = find_fault(config, optimizer, backward, before, batch, jax.random.key(0))
    >>> faulty = FaultyStep(fault, config, before, batch, jax.random.key(0), np.array([7]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_replay(pathlib.Path(folder, "fault.npz"), faulty)
    ...     print(replay(pathlib.Path(folder, "fault.npz"), optimizer, backward).fault)
    z of layer 1 is inf for example 7 (row 0 of the batch), unit 0; made of |x| ≤ 2, |W| ≤ 3e+38
    """
    typed = jnp.issubdtype(faulty.key.dtype, jax.dtypes.prng_key)
    arrays = tree_arrays({"train_state": faulty.train_state, "batch": faulty.batch})
    arrays["key"] = np.asarray(jax.random.key_data(faulty.key) if typed else faulty.key)
    arrays["rows"] = np.asarray(faulty.rows)
    header = {
        "config": faulty.config.to_dict(),
        "batch": described(faulty.batch),
        "key_impl": str(jax.random.key_impl(faulty.key)) if typed else None,
        "at": faulty.fault.at,
        "fault": str(faulty.fault),
        "optimizer": None if optimizer is None else dict(optimizer),
        "grad": grad,
        "accumulate": accumulate,
        "x64": jax.config.read("jax_enable_x64"),
        "versions": versions(),
    }
    atomic_write(path, seal(REPLAY, header, arrays))


def replay(
    path: str | os.PathLike[str],
    optimizer: optax.GradientTransformation | None = None,
    grad_fn: GradFn | None = None,
) -> FaultyStep | None:
    """Take the step of a replay file again, and find its fault.

    Args:
        path: the file.
        optimizer: the optimiser of the run; by default the one that the file names.
        grad_fn: its gradient function; by default the one that the file names.

    Returns:
        The step with the fault that was found; ``None`` if all numbers are finite, as another version or device may sum
        in another order.

    Raises:
        DataError: if the file is damaged, is not a replay file, is of a newer format, or holds arrays that do not fit
            its config or the optimiser.
        InputError: if neither the file nor the caller names the optimiser or the gradient function.
        OSError: if the file cannot be read.

    >>> replay("README.md")
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: README.md: not a replay file, or one that was cut short: it does not end with a digest; ...
    """
    name = os.fspath(path)
    header, arrays = read_sealed(REPLAY, path)
    for what, given in (("optimizer", optimizer), ("grad", grad_fn)):
        if given is None and header.get(what) is None:
            argument = "optimizer" if what == "optimizer" else "grad_fn"
            raise InputError(f"{name} does not name the run's {argument}: give it, replay({name!r}, {argument}=…)")
    with usable(REPLAY, name):
        optimizer = make_optimizer(**header["optimizer"]) if optimizer is None else optimizer
        grad_fn = _named_gradient(header, len(arrays["rows"])) if grad_fn is None else grad_fn
        config, train_state, batch, key, rows = _step(header, arrays, optimizer)
        at = None if header["at"] is None else (int(header["at"][0]), int(header["at"][1]))
    try:
        fault = find_fault(config, optimizer, grad_fn, train_state, batch, key, rows=rows)
    except InputError as error:
        raise DataError(f"{name}: {error}") from None
    return None if fault is None else FaultyStep(fault._replace(at=at), config, train_state, batch, key, rows)


def _named_gradient(header: Mapping[str, Any], m: int) -> GradFn:
    if header["grad"] not in GRADIENTS:
        raise DataError(unknown_name("grad", header["grad"], GRADIENTS))
    chunks = header["accumulate"]
    check_count("accumulate", chunks)
    if chunks > m:
        raise DataError(f"accumulate is {chunks}: a batch of {m} has no more parts than examples")
    return accumulate(GRADIENTS[header["grad"]], chunks)


def _step(
    header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], optimizer: optax.GradientTransformation
) -> tuple[Config, TrainState, Batch, jax.Array, np.ndarray]:
    """The parts of a `FaultyStep` that a file has."""
    if header["x64"] is not jax.config.read("jax_enable_x64"):
        raise DataError(f"it was written with JAX_ENABLE_X64={int(header['x64'] is True)}: set that")
    config = Config.from_dict(header["config"])
    params, state = _network(config, arrays)
    like = TrainState(params, state, optimizer.init(params))
    like_batch = Batch(**{name: _described(name, *value) for name, value in header["batch"].items()})
    used = {*(f"train_state/{path}" for path, _ in leaves(like)), *(f"batch/{path}" for path, _ in leaves(like_batch))}
    if unknown := arrays.keys() - used - {"key", "rows"}:
        raise DataError(f"{min(unknown)} is an array that neither the config nor the optimiser has a use for")
    train_state, batch = read_tree(arrays, "train_state", like), read_tree(arrays, "batch", like_batch)
    key = jnp.asarray(arrays["key"])
    if header["key_impl"] is not None:
        key = jax.random.wrap_key_data(key, impl=header["key_impl"])
    jax.eval_shape(jax.random.fold_in, key, 0)
    check_input(config, train_state.params, train_state.state, batch.x, True, key)
    rows = arrays["rows"]
    if rows.shape != batch.x.shape[:1] or rows.dtype.kind != "i":
        raise DataError(f"rows is {rows.dtype} of shape {rows.shape}: expected integers ({len(batch.x)},)")
    return config, train_state, batch, key, rows


def _network(config: Config, arrays: Mapping[str, np.ndarray]) -> tuple[Params, State]:
    """Parameters and statistics, whose shapes are known before anything is made of them."""
    weights = sum(re.fullmatch(r"train_state/params\[\d+\]\.W", name) is not None for name in arrays)
    if config.depth != weights:
        raise DataError(f"there are weights of {weights} layers: the config expects {config.depth}")
    params, state = jax.eval_shape(init, config, jax.random.key(0))
    # a network may have been given without b
    params = tuple(
        layer if f"train_state/params[{i}].b" in arrays else layer._replace(b=None) for i, layer in enumerate(params)
    )
    return read_tree(arrays, "train_state", TrainState(params, state, ()))[:2]


def _described(name: str, shape: Any, dtype: str) -> jax.ShapeDtypeStruct:
    if not _VALUES.fullmatch(dtype):
        raise DataError(f"{name} is {dtype}: expected real numbers")
    return jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
