"""Operations of a computation graph that move, repeat or sum along axes, and the matrix product.

All of these but the largest and smallest element are linear: each vjp is the transpose of its forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import numpy as np

from mlpjax.graph import Operation
from mlpjax.graph_elementwise import flat, is_real

DimensionNumbers = tuple[tuple[Sequence[int], Sequence[int]], tuple[Sequence[int], Sequence[int]]]
ROWS_BY_MATRIX: DimensionNumbers = (((1,), (0,)), ((), ()))
"""The dimension numbers of X W, ``(m, n_in), (n_in, n_out) → (m, n_out)``: the last axis of X with the first of W."""


def dot_general(
    x: np.ndarray,
    y: np.ndarray,
    dimension_numbers: DimensionNumbers = ROWS_BY_MATRIX,
    preferred_element_type: Any = None,
) -> np.ndarray:
    """Σ over the contracted axes of x ⊙ y; the shared (batch) axes come first. By default the matrix product X W.

    Source: ``graph-forward-1``.

    >>> dot_general(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    dtype = preferred_element_type or x.dtype
    x_axes, y_axes, z_axes = _letters(dimension_numbers, x.ndim, y.ndim)
    return np.einsum(f"{x_axes},{y_axes}->{z_axes}", x.astype(dtype), y.astype(dtype), optimize=True)


def dot_general_vjp(
    g: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    dimension_numbers: DimensionNumbers = ROWS_BY_MATRIX,
    preferred_element_type: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The matrix product's ``g Wᵀ`` and ``Xᵀ g``: g summed with the other factor over the axes that x has not.

    Source: ``graph-backward-3``, ``err-graph-column``.

    >>> dot_general_vjp(np.array([[10.0]]), np.array([[11.0]]), np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    (array([[30., 40.]]), array([[10.],
           [20.]]))
    """
    x_axes, y_axes, z_axes = _letters(dimension_numbers, x.ndim, y.ndim)
    dx = np.einsum(f"{z_axes},{y_axes}->{x_axes}", g, y.astype(g.dtype), optimize=True)
    dy = np.einsum(f"{x_axes},{z_axes}->{y_axes}", x.astype(g.dtype), g, optimize=True)
    return dx.astype(x.dtype), dy.astype(y.dtype)


def _letters(dimension_numbers: DimensionNumbers, x_ndim: int, y_ndim: int) -> tuple[str, str, str]:
    """The axes of x, y and z as letters, one letter per sum or pairing."""
    (x_sum, y_sum), (x_batch, y_batch) = dimension_numbers
    letters = iter(ascii_letters)
    x_axes, y_axes = {}, {}
    for i, j in zip((*x_batch, *x_sum), (*y_batch, *y_sum), strict=True):
        x_axes[i] = y_axes[j] = next(letters)
    batch = [x_axes[i] for i in x_batch]
    x_free = [x_axes.setdefault(i, next(letters)) for i in range(x_ndim) if i not in x_axes]
    y_free = [y_axes.setdefault(j, next(letters)) for j in range(y_ndim) if j not in y_axes]
    x_all, y_all = ("".join(axes[i] for i in range(n)) for axes, n in ((x_axes, x_ndim), (y_axes, y_ndim)))
    return x_all, y_all, "".join(batch + x_free + y_free)


def _select(which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    out = cases[0]
    for number, case in enumerate(cases[1:], start=1):
        out = np.where(which == number, case, out)
    return out


def _select_vjp(g: np.ndarray, z: np.ndarray, which: np.ndarray, *cases: np.ndarray) -> tuple[Any, ...]:
    zero = np.zeros_like(g)
    return (None, *(np.where(which == number, g, zero) for number in range(len(cases))))


def _broadcast(x: np.ndarray, shape: Sequence[int], broadcast_dimensions: Sequence[int]) -> np.ndarray:
    lengths = [1] * len(shape)
    for axis, length in zip(broadcast_dimensions, x.shape, strict=True):
        lengths[axis] = length
    return np.broadcast_to(x.reshape(lengths), shape)


def _broadcast_vjp(
    g: np.ndarray, z: np.ndarray, x: np.ndarray, shape: Sequence[int], broadcast_dimensions: Sequence[int]
) -> tuple[np.ndarray]:
    own = {axis for axis, length in zip(broadcast_dimensions, x.shape, strict=True) if length == shape[axis]}
    return (g.sum(axis=tuple(axis for axis in range(len(shape)) if axis not in own)).reshape(x.shape),)


def _spread(g: np.ndarray, x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Give every element of the sum the sum's gradient."""
    return np.broadcast_to(np.expand_dims(g, tuple(axes)), x.shape)


def _extreme_vjp(g: np.ndarray, z: np.ndarray, x: np.ndarray, axes: Sequence[int]) -> tuple[np.ndarray]:
    first = (x == np.expand_dims(z, tuple(axes))).astype(x.dtype)
    return (_spread(g, x, axes) * first / first.sum(axis=tuple(axes), keepdims=True),)


def _cumsum(x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    return np.flip(np.cumsum(np.flip(x, axis), axis), axis) if reverse else np.cumsum(x, axis)


def _slice(x: np.ndarray, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Any) -> np.ndarray:
    return x[_slices(start_indices, limit_indices, strides)]


def _slice_vjp(
    g: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    start_indices: Sequence[int],
    limit_indices: Sequence[int],
    strides: Any,
) -> tuple[np.ndarray]:
    dx = np.zeros_like(x)
    dx[_slices(start_indices, limit_indices, strides)] = g
    return (dx,)


def _slices(start: Sequence[int], limit: Sequence[int], strides: Sequence[int] | None) -> tuple[slice, ...]:
    return tuple(map(slice, start, limit, strides or (1,) * len(start)))


def _concatenate_vjp(g: np.ndarray, z: np.ndarray, *parts: np.ndarray, dimension: int) -> tuple[np.ndarray, ...]:
    ends = np.cumsum([part.shape[dimension] for part in parts])[:-1]
    return tuple(np.split(g, ends, dimension))


def _iota(dtype: Any, shape: Sequence[int], dimension: int) -> np.ndarray:
    return _broadcast(np.arange(shape[dimension], dtype=dtype), shape, (dimension,))


def _convert_vjp(g: np.ndarray, z: np.ndarray, x: np.ndarray, new_dtype: Any) -> tuple[Any]:
    return (g.astype(x.dtype) if is_real(x) and is_real(z) else None,)


def _as_input(g: np.ndarray, z: np.ndarray, x: np.ndarray, **options: Any) -> tuple[np.ndarray]:
    return (g.reshape(x.shape),)


AXES = (
    Operation("dot_general", dot_general, dot_general_vjp, ("dimension_numbers", "preferred_element_type")),
    Operation("select_n", _select, _select_vjp),
    Operation("broadcast_in_dim", _broadcast, _broadcast_vjp, ("shape", "broadcast_dimensions")),
    Operation("reshape", lambda x, new_sizes: x.reshape(new_sizes), _as_input, ("new_sizes",)),
    Operation("squeeze", lambda x, dimensions: np.squeeze(x, dimensions), _as_input, ("dimensions",)),
    Operation(
        "transpose",
        lambda x, permutation: x.transpose(permutation),
        lambda g, z, x, permutation: (g.transpose(np.argsort(permutation)),),
        ("permutation",),
    ),
    Operation(
        "rev",
        lambda x, dimensions: np.flip(x, dimensions),
        lambda g, z, x, dimensions: (np.flip(g, dimensions),),
        ("dimensions",),
    ),
    Operation("slice", _slice, _slice_vjp, ("start_indices", "limit_indices", "strides")),
    Operation(
        "concatenate",
        lambda *parts, dimension: np.concatenate(parts, dimension),
        _concatenate_vjp,
        ("dimension",),
    ),
    Operation(
        "reduce_sum",
        lambda x, axes: np.sum(x, axis=tuple(axes), dtype=x.dtype),
        lambda g, z, x, axes: (_spread(g, x, axes),),
        ("axes",),
    ),
    Operation("reduce_max", lambda x, axes: np.max(x, axis=tuple(axes)), _extreme_vjp, ("axes",)),
    Operation("reduce_min", lambda x, axes: np.min(x, axis=tuple(axes)), _extreme_vjp, ("axes",)),
    Operation(
        "cumsum",
        _cumsum,
        lambda g, z, x, axis, reverse: (_cumsum(g, axis, not reverse),),
        ("axis", "reverse"),
    ),
    Operation("convert_element_type", lambda x, new_dtype: x.astype(new_dtype), _convert_vjp, ("new_dtype",)),
    Operation("copy", np.array, _as_input),
    flat("iota", _iota, ("dtype", "shape", "dimension")),
    flat("reduce_and", lambda x, axes: np.all(x, axis=tuple(axes)), ("axes",)),
    flat("reduce_or", lambda x, axes: np.any(x, axis=tuple(axes)), ("axes",)),
    flat(
        "argmax",
        lambda x, axes, index_dtype: np.argmax(x, axis=axes[0]).astype(index_dtype),
        ("axes", "index_dtype"),
    ),
    flat(
        "argmin",
        lambda x, axes, index_dtype: np.argmin(x, axis=axes[0]).astype(index_dtype),
        ("axes", "index_dtype"),
    ),
)
"""Gradients flow through all but the last five."""
