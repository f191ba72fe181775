"""Checks of shapes while tracing (free at run time), and of values where they are known."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.activations import ACTIVATIONS, Activation
from mlpjax.config import Config
from mlpjax.errors import ConfigError, DataError, InputError, unknown_name
from mlpjax.finite import check_finite
from mlpjax.parameters import Batch, Params, State
from mlpjax.targets import as_array, check_targets

LARGEST_WEIGHT_SUM = 2.0**126
"""A compiler may divide by Σw as it multiplies by 1/Σw, which float32 has as 0 beyond this."""


def row_weights(weight: Any, m: int, dtype: jax.typing.DTypeLike) -> tuple[jax.Array, jax.Array]:
    """``p (m,)`` with pᵢ = wᵢ/Σw, by which a row counts, and Σw; without weights 1/m and m.

    With Σw = 0 every p is 0: nothing counts. Raises `DataError` for a wrong shape, and for weights that are
    negative or not finite, or whose sum is above 8.5e37; under ``jit``, where a value cannot raise, those become NaN.
    A weight below 1.2e-38 is 0 in float32, as which it counts beside others; all of them so small are an error too.

    >>> row_weights(jnp.array([1.0, 3.0]), 2, jnp.float32)
    (Array([0.25, 0.75], dtype=float32), Array(4., dtype=float32))
    """
    if weight is None:
        return jnp.full(m, 1 / max(m, 1), dtype), jnp.asarray(m, dtype)
    check_weight(weight, m)
    weight = as_array(weight, dtype).astype(dtype)
    weight = jnp.where((weight >= 0) & jnp.isfinite(weight), weight, jnp.nan)
    weight_sum = jnp.sum(weight)
    weight_sum = jnp.where(weight_sum <= LARGEST_WEIGHT_SUM, weight_sum, jnp.nan)
    return weight / jnp.where(weight_sum == 0, 1, weight_sum), weight_sum


def check_weight(weight: Any, m: int) -> None:
    """Raise the `DataError` of `row_weights`; of what is traced only the shape is looked at.

    >>> check_weight(np.array([1.0, -2.0]), 2)
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: weight is -2.0 in row 1: expected finite numbers ≥ 0
    """
    if np.shape(weight) != (m,):
        raise DataError(f"weight has shape {np.shape(weight)}: expected ({m},), one per row of x")
    try:
        values = np.asarray(weight)
    except jax.errors.TracerArrayConversionError:
        return
    bad = ~((values >= 0) & np.isfinite(values))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"weight is {values[row]} in row {row}: expected finite numbers ≥ 0")
    if values.sum(dtype=np.float64) > LARGEST_WEIGHT_SUM:
        raise DataError("the weights sum to more than float32 can divide by: scale them down, only their ratios count")
    if values.any() and not (values >= np.finfo(np.float32).tiny).any():
        raise DataError("the weights are less than float32 can hold: scale them up, only their ratios count")


def absent_as_zero(x: jax.Array, p: jax.Array, compute_dtype: str | None = None) -> jax.Array:
    """Let what has no finite square in a row of weight 0 be 0: what counts for nothing spreads nothing.

    NaN, ±∞, and what overflows on its way through a network, where 0 · ∞ would be NaN. The products are taken in
    ``compute_dtype``. Other values stay: such a row has a score of its own.

    >>> absent_as_zero(jnp.array([[jnp.nan, 1.0], [1e38, 2.0], [3.0, 1e38]]), jnp.array([0.0, 0.0, 1.0]))
    Array([[0.e+00, 1.e+00],
           [0.e+00, 2.e+00],
           [3.e+00, 1.e+38]], dtype=float32)
    """
    factor = x if compute_dtype is None else x.astype(compute_dtype)
    return jnp.where((p != 0)[:, None] | jnp.isfinite(factor * factor), x, 0)


def check_input(config: Config, params: Params, state: State, x: Any, train: bool, key: jax.Array | None) -> jax.Array:
    """Return ``x`` in the parameters' dtype, or say which of x, params, state, train or key is not as expected."""
    if not isinstance(train, bool | np.bool_):
        raise InputError(f"train is {train}: expected True or False; under jax.jit, static_argnames='train'")
    for name, rate in (("dropout", config.dropout), ("l1", config.l1), ("l2", config.l2)):
        if any(jnp.ndim(leaf) for leaf in jax.tree.leaves(rate)):
            raise InputError(f"{name} is an array of rates, a population: take its members with jax.vmap")
    expected = tuple(zip(config.sizes[:-1], config.sizes[1:], strict=True))
    shapes = tuple(jnp.shape(layer.W) for layer in params)
    if shapes != expected:
        raise InputError(f"params have weights of shapes {shapes}: the config's sizes expect {expected}")
    norms = config.depth - 1 if config.batch_norm else 0
    if len(state or ()) != norms:
        got = len(state or ())
        raise InputError(f"state has {got} records of batch-norm: the config expects {norms}; see mlpjax.init")
    _check_vectors(config, params, state)
    dtype = params[0].W.dtype
    x = as_array(x, dtype)
    # complex numbers come from the audit's complex step, for x and parameters together
    _check_x(config, x, (jnp.floating, jnp.integer, jnp.bool_, dtype))
    if train and key is None and config.has_dropout:
        raise InputError("training with dropout draws masks: give a key, key=jax.random.key(…), or train=False")
    return x.astype(dtype)


def check_is_batch(batch: Any) -> None:
    """Raise `InputError` unless ``batch`` is a `Batch`."""
    if not isinstance(batch, Batch):
        raise InputError(f"batch is of type {type(batch).__name__}: expected mlpjax.Batch(x, y, weight=None)")


def check_rows(x: Any, y: Any) -> None:
    """Raise `DataError` unless x and y have the same number of rows."""
    if x.shape[0] != y.shape[0]:
        raise DataError(f"x has {x.shape[0]} rows and y has {y.shape[0]}: expected one label per example")


def check_values(config: Config, batch: Batch, name: str) -> None:
    """Check every value of a data set on the host; raises `DataError` naming ``name`` and the place of a mistake."""
    check_is_batch(batch)
    x, y = np.asarray(batch.x), np.asarray(batch.y)
    weight = None if batch.weight is None else np.asarray(batch.weight)
    try:
        _check_x(config, x)
        if x.shape[0] == 0:
            raise DataError("x has no rows: expected at least one example")
        if weight is not None:
            check_weight(weight, x.shape[0])
        check_targets(config.head, y, config.sizes[-1], weight)
        check_rows(x, y)
        check_finite(x, "x")
        check_finite(y, "y")
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def check_batch(config: Config, batch: Batch, name: str) -> Batch:
    """Check a data set with `check_values`, once, before training; returns it as JAX arrays.

    An array that is a JAX array already stays as it is, and where it is.
    """
    check_values(config, batch, name)
    dtype = jnp.result_type(float)
    labels = jnp.dtype(jnp.int32) if config.head == "multiclass" and np.ndim(batch.y) == 1 else dtype
    weight = None if batch.weight is None else as_array(batch.weight, dtype)
    return Batch(as_array(batch.x, dtype), as_array(batch.y, labels), weight)


def plain_activation(name: str) -> Activation:
    """Return the entry of `mlpjax.ACTIVATIONS`, for a use that has no learnt slope to give.

    Raises:
        InputError: there is no such activation, or it has a learnt slope.

    >>> plain_activation("prelu")
    Traceback (most recent call last):
        ...
    mlpjax.errors.InputError: unknown activation (without a learnt slope) 'prelu': did you mean 'relu'? known: ...
    """
    plain = [known for known, g in ACTIVATIONS.items() if g.df_dslope is None]
    if name not in plain:
        raise InputError(unknown_name("activation (without a learnt slope)", name, plain))
    return ACTIVATIONS[name]


def check_count(name: str, value: int) -> None:
    """Raise `ConfigError` unless ``value`` is an integer ≥ 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ConfigError(f"{name} is {value!r}: expected an integer ≥ 1")


def check_number(name: str, value: Any, *, positive: bool = False) -> None:
    """Raise `InputError` unless ``value`` is a finite number ≥ 0, or > 0 for ``positive``; a traced one passes.

    >>> check_number("alpha", 0.0, positive=True)
    Traceback (most recent call last):
        ...
    mlpjax.errors.InputError: alpha is 0.0: expected a finite number > 0
    """
    if isinstance(value, jax.core.Tracer):
        return
    number = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu"
    if not (number and 0 <= value < math.inf and (value > 0 or not positive)):
        raise InputError(f"{name} is {value!r}: expected a finite number {'> 0' if positive else '≥ 0'}")


def _check_x(
    config: Config, x: jax.Array | np.ndarray, kinds: tuple[Any, ...] = (jnp.floating, jnp.integer, jnp.bool_)
) -> None:
    n_0 = config.sizes[0]
    if x.ndim != 2 or x.shape[1] != n_0:
        raise DataError(f"x has shape {x.shape}: expected (m, {n_0}), as sizes[0] = {n_0}; one row per example")
    if not any(jnp.issubdtype(x.dtype, kind) for kind in kinds):
        raise DataError(f"x has dtype {x.dtype}: expected real numbers")


def _check_vectors(config: Config, params: Params, state: State) -> None:
    """Check what stands beside W: a vector of length 1 would be broadcast, a missing one left out, silently."""
    for i, (layer, n_l) in enumerate(zip(params, config.sizes[1:], strict=True)):
        hidden = i < config.depth - 1
        norm = hidden and config.batch_norm
        used = {
            # a network without b is one with b = 0
            "b": config.bias and not norm and layer.b is not None,
            "gamma": norm,
            "beta": norm,
            "slope": hidden and config.activations[i] == "prelu",
        }
        for name, present in used.items():
            _check_vector(f"params[{i}].{name}", getattr(layer, name), (n_l,) if present else None)
        if norm:
            _check_vector(f"state[{i}].mean", state[i].mean, (n_l,))
            _check_vector(f"state[{i}].var", state[i].var, (n_l,))


def _check_vector(name: str, value: Any, expected: tuple[int] | None) -> None:
    got = None if value is None else jnp.shape(value)
    if got != expected:
        raise InputError(f"{name} has shape {got}: the config expects {expected}; see mlpjax.init")
