"""Operations of a computation graph that act element by element, each with its partial derivatives beside it.

Their Jacobians are diagonal: upstream × local is then a product of numbers. An input of a smaller shape is broadcast,
and its gradient summed back. What happens at the kinks is said in `mlpjax.graph_operations`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np
from scipy import special

from mlpjax.graph import Operation


def unbroadcast(g: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Sum a gradient over the axes along which an input was broadcast: each copy was a use of it.

    ``g`` has the shape of the result, what is returned that of ``like``. Source: ``graph-fanout``.

    >>> unbroadcast(np.ones((3, 2)), np.zeros(2))
    array([3., 3.])
    """
    g = g.sum(axis=tuple(range(g.ndim - like.ndim)))
    stretched = tuple(axis for axis in range(g.ndim) if like.shape[axis] == 1 != g.shape[axis])
    return g.sum(axis=stretched, keepdims=True) if stretched else g


def is_real(value: np.ndarray) -> bool:
    """Whether gradients flow through the value: floating point, bfloat16 included.

    >>> is_real(np.zeros(2)), is_real(np.zeros(2, int))
    (True, False)
    """
    return value.dtype.kind in "fV"


def local(
    name: str, forward: Callable[..., Any], *derivatives: Callable[..., Any], options: tuple[str, ...] = ()
) -> Operation:
    """Make an operation of z = f(x, y, …) and its local gradients ∂z/∂x, ∂z/∂y, …, functions of (z, x, y, …).

    >>> mul = local("mul", np.multiply, lambda z, x, y: y, lambda z, x, y: x)
    >>> mul.vjp(10.0, np.array([6.0]), np.array([2.0]), np.array([3.0]))
    (array([30.]), array([20.]))
    """

    def vjp(g: Any, z: Any, *values: Any, **chosen: Any) -> tuple[Any, ...]:
        return tuple(
            unbroadcast(np.asarray(g * derivative(z, *values, **chosen), value.dtype), value)
            if is_real(value)
            else None
            for value, derivative in zip(values, derivatives, strict=True)
        )

    return Operation(name, forward, vjp, options)


def flat(name: str, forward: Callable[..., Any], options: tuple[str, ...] = ()) -> Operation:
    """Make an operation through which no gradient flows: constant almost everywhere, or not of real numbers.

    >>> flat("sign", np.sign).vjp(1.0, 1.0, 5.0)
    (None,)
    """
    return Operation(name, forward, lambda g, z, *values, **chosen: (None,) * len(values), options)


def _chosen(z: Any, this: Any, other: Any) -> Any:
    """1 where this is the larger (or smaller) one, ½ where both are equal, 0 at NaN."""
    return np.where(this == other, 0.5, this == z)


def _divide(x: Any, y: Any) -> Any:
    return np.divide(x, y) if is_real(x) else np.trunc(np.divide(x, y)).astype(x.dtype)


def _whole_power(x: Any, y: int) -> Any:
    return np.power(x, y) if y >= 0 else 1 / np.power(x, -y)


def _whole_power_slope(z: Any, x: Any, y: int) -> Any:
    return y * _whole_power(x, y - 1) if y else np.zeros_like(x)


def _power_slope(z: Any, x: Any, y: Any) -> Any:
    # x⁰ is constant, also at x = 0
    return np.where(y == 0, 0, y * np.power(x, np.where(y == 0, 1, y - 1)))


def _shift_right(x: Any, y: Any) -> Any:
    bits = np.dtype(f"u{x.dtype.itemsize}")
    return np.right_shift(x.view(bits), y.view(bits)).view(x.dtype)


def _round(x: Any, rounding_method: int) -> Any:
    # JAX's methods: 0 takes halves away from 0, 1 to the even neighbour
    return np.rint(x) if int(rounding_method) else np.copysign(np.floor(np.abs(x) + 0.5), x)


ELEMENTWISE = (
    local("add", np.add, lambda z, x, y: 1, lambda z, x, y: 1),
    local("sub", np.subtract, lambda z, x, y: 1, lambda z, x, y: -1),
    local("mul", np.multiply, lambda z, x, y: y, lambda z, x, y: x),
    local("div", _divide, lambda z, x, y: 1 / y, lambda z, x, y: -z / y),
    local("rem", np.fmod, lambda z, x, y: 1, lambda z, x, y: -np.trunc(x / y)),
    local("neg", np.negative, lambda z, x: -1),
    local("exp", np.exp, lambda z, x: z),
    local("exp2", np.exp2, lambda z, x: z * np.log(2).astype(x.dtype)),
    local("expm1", np.expm1, lambda z, x: z + 1),
    local("log", np.log, lambda z, x: 1 / x),
    local("log1p", np.log1p, lambda z, x: 1 / (1 + x)),
    local("logistic", special.expit, lambda z, x: z * (1 - z)),
    local("tanh", np.tanh, lambda z, x: (1 - z) * (1 + z)),
    local("sinh", np.sinh, lambda z, x: np.cosh(x)),
    local("cosh", np.cosh, lambda z, x: np.sinh(x)),
    local("sin", np.sin, lambda z, x: np.cos(x)),
    local("cos", np.cos, lambda z, x: -np.sin(x)),
    local("tan", np.tan, lambda z, x: 1 + z * z),
    local("asin", np.arcsin, lambda z, x: 1 / np.sqrt((1 - x) * (1 + x))),
    local("acos", np.arccos, lambda z, x: -1 / np.sqrt((1 - x) * (1 + x))),
    local("atan", np.arctan, lambda z, x: 1 / (1 + x * x)),
    local("asinh", np.arcsinh, lambda z, x: 1 / np.sqrt(1 + x * x)),
    local("acosh", np.arccosh, lambda z, x: 1 / np.sqrt((x - 1) * (x + 1))),
    local("atanh", np.arctanh, lambda z, x: 1 / ((1 - x) * (1 + x))),
    local("atan2", np.arctan2, lambda z, x, y: y / (x * x + y * y), lambda z, x, y: -x / (x * x + y * y)),
    local("erf", special.erf, lambda z, x: np.exp(-x * x) * (2 / sqrt(pi))),
    local("erfc", special.erfc, lambda z, x: np.exp(-x * x) * (-2 / sqrt(pi))),
    local("sqrt", np.sqrt, lambda z, x: 1 / (2 * z)),
    local("rsqrt", lambda x: 1 / np.sqrt(x), lambda z, x: -z / (2 * x)),
    local("cbrt", np.cbrt, lambda z, x: z / (3 * x)),
    local("square", np.square, lambda z, x: 2 * x),
    local("integer_pow", _whole_power, _whole_power_slope, options=("y",)),
    local(
        "pow",
        lambda x, y: np.power(x, y).astype(x.dtype),
        _power_slope,
        lambda z, x, y: z * np.log(np.where(x == 0, 1, x)),
    ),
    local("max", np.maximum, lambda z, x, y: _chosen(z, x, y), lambda z, x, y: _chosen(z, y, x)),
    local("min", np.minimum, lambda z, x, y: _chosen(z, x, y), lambda z, x, y: _chosen(z, y, x)),
    local("abs", np.abs, lambda z, x: np.sign(x)),
    local(
        "clamp",
        lambda low, x, high: np.minimum(np.maximum(x, low), high),
        lambda z, low, x, high: (x < low) & (low < high),
        lambda z, low, x, high: (low < x) & (x < high),
        lambda z, low, x, high: high < x,
    ),
)
"""The operations through which gradients flow."""

FLAT = (
    flat("stop_gradient", np.asarray),
    flat("sign", np.sign),
    flat("floor", np.floor),
    flat("ceil", np.ceil),
    flat("round", _round, ("rounding_method",)),
    flat("is_finite", np.isfinite),
    flat("eq", np.equal),
    flat("ne", np.not_equal),
    flat("lt", np.less),
    flat("le", np.less_equal),
    flat("gt", np.greater),
    flat("ge", np.greater_equal),
    flat("and", np.bitwise_and),
    flat("or", np.bitwise_or),
    flat("xor", np.bitwise_xor),
    flat("not", np.invert),
    flat("shift_left", np.left_shift),
    flat("shift_right_logical", _shift_right),
    flat("bitcast_convert_type", lambda x, new_dtype: x.view(new_dtype), ("new_dtype",)),
)
"""The operations that let none pass."""
