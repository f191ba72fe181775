"""Targets: what a caller gives as labels, checked and brought to the one form that the heads use, ``(m, n_L)``.

Source: lecture, section *Types of problems*.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.errors import DataError


def as_array(value: Any, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Make a JAX array of what a caller gave; one that is a JAX array already stays as it is.

    Integers of 8 bytes, which JAX would cut to 4 without a word, become ``dtype`` first. What is beyond JAX's floats
    becomes ±∞.

    >>> as_array(np.array([5_000_000_000]), jnp.float32)
    Array([5.e+09], dtype=float32)
    """
    if isinstance(value, jax.Array):
        return value
    value = np.asarray(value)
    if value.dtype.kind not in "fiubV":
        raise DataError(f"got an array of dtype {value.dtype}: expected real numbers; encode labels as 0, 1, …")
    # no warning: it may stand in a row that counts for nothing
    with np.errstate(over="ignore"):
        return jnp.asarray(value.astype(dtype) if value.dtype.kind in "iu" and value.dtype.itemsize == 8 else value)


def target_matrix(head: str, y: Any, n_L: int, dtype: jax.typing.DTypeLike, weight: Any = None) -> jax.Array:
    """Bring labels to the form that the heads use: ``(m, n_L)`` of ``dtype``.

    Args:
        head: the head's name.
        y: integer ``(m,)`` or ``(m, 1)`` for ``binary``; integer ``(m,)``, or one-hot or soft ``(m, K)`` rows
            that sum to 1, for ``multiclass``; ``(m, n_L)`` for ``multilabel`` and regression, where ``(m,)`` is
            accepted if n_L = 1.
        n_L: the number of outputs.
        dtype: of the result.
        weight: row weights ``(m,)``; the label of a row of weight 0 may be anything, such as −1.

    Raises:
        DataError: for any other shape or dtype, and for a label outside the classes. Under ``jit``, where a
            value cannot raise, a row with such a label becomes NaN, and so do the loss and its gradient.

    Source: ``prob-mc-model``, ``err-mc-exclusive``.

    >>> target_matrix("multiclass", jnp.array([2, 0]), 3, jnp.float32)
    Array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    check_targets(head, y, n_L, weight)
    if head == "multiclass" and np.ndim(y) == 1:
        # first of all int32: K classes may be more than the labels' own dtype can count
        y = (y if isinstance(y, jax.Array) else np.asarray(y)).astype(jnp.int32)
        classes = jnp.arange(n_L, dtype=jnp.int32)
        matrix = (y[:, None] == classes[None, :]).astype(dtype)
        inside = (y >= 0) & (y < n_L)
        return jnp.where(inside[:, None], matrix, jnp.nan)
    y = as_array(y, dtype)
    matrix = jnp.reshape(y, (y.shape[0], n_L)).astype(dtype)
    if head.startswith("regression"):
        return matrix
    return jnp.where((matrix >= 0) & (matrix <= 1), matrix, jnp.nan)


def check_targets(head: str, y: Any, n_L: int, weight: Any = None) -> None:
    """Raise the `DataError` of `target_matrix`, without computing anything on a device.

    >>> check_targets("multiclass", np.array([0, 3]), 3)
    Traceback (most recent call last):
        ...
    mlpjax.errors.DataError: y has a label outside the classes: 3 in row 1, expected 0 to 2 for 3 classes
    """
    y = y if hasattr(y, "shape") else np.asarray(y)
    _check_target_shape(head, y, n_L)
    try:
        seen = np.ones(y.shape[0], bool) if weight is None else np.asarray(weight) != 0
        labels = np.asarray(y)
    except jax.errors.TracerArrayConversionError:
        return
    _check_target_values(head, labels, n_L, seen)


def _check_target_shape(head: str, y: jax.Array | np.ndarray, n_L: int) -> None:
    if head == "multiclass":
        right = y.ndim == 1 or y.shape[1:] == (n_L,)
        expected = f"integer (m,) or one-hot (m, {n_L})"
    else:
        right = y.shape[1:] == (n_L,) or (y.ndim == 1 and n_L == 1)
        expected = f"(m, {n_L})" + (" or (m,)" if n_L == 1 else "")
    if y.ndim == 0 or not right:
        raise DataError(f"y has shape {y.shape}: head {head!r} with {n_L} outputs expects {expected}")
    if not any(jnp.issubdtype(y.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise DataError(f"y has dtype {y.dtype}: expected numbers; encode labels as integers 0, 1, …")
    if head == "multiclass" and y.ndim == 1 and not jnp.issubdtype(y.dtype, jnp.integer):
        raise DataError(f"y has dtype {y.dtype}: class labels (m,) must be integers 0 to {n_L - 1}")


def _check_target_values(head: str, labels: np.ndarray, n_L: int, seen: np.ndarray) -> None:
    """Check the labels' range on the host, where they have values."""
    if head.startswith("regression"):
        return
    if len(seen) != len(labels):
        return  # another check says so
    if head == "multiclass" and labels.ndim == 1:
        bad = (labels < 0) | (labels >= n_L)
        expected = f"0 to {n_L - 1} for {n_L} classes"
    else:
        bad = ((labels < 0) | (labels > 1) | (labels != labels)).reshape(len(labels), -1).any(axis=1)
        expected = "0 or 1"
    bad &= seen
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"y has a label outside the classes: {labels[row].tolist()!r} in row {row}, expected {expected}"
        )
    if head == "multiclass" and labels.ndim == 2:
        sums = labels.astype(np.float64).sum(axis=1)
        off = (np.abs(sums - 1) > 1e-3) & seen
        if off.any():
            row = int(np.argmax(off))
            raise DataError(
                f"row {row} of y sums to {sums[row]:g}: classes exclude each other, so one-hot or soft labels sum "
                "to 1 (several true labels at once: head='multilabel')"
            )
