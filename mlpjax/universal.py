"""What a hidden layer is good for: XOR by a projection, any continuous function by steps, many pieces by depth.

Networks with weights that are given, not learnt, each as ``(config, params)`` for `mlpjax.forward` and `mlpjax.predict`
(state ``()``).

Source: lecture, section *One hidden layer*, its first slides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_count
from mlpjax.config import Config
from mlpjax.errors import InputError
from mlpjax.parameters import Layer, Params
from mlpjax.perceptron import Perceptron, perceptron_predict

AND = Perceptron((1.0, 1.0), -1.5)
"""AND(x₁, x₂) = T(x₁ + x₂ − 1½). Source: ``mlp1-xor-and``, ``err-xor-weights``."""

OR = Perceptron((1.0, 1.0), -0.5)
"""OR(x₁, x₂) = T(x₁ + x₂ − ½). Source: ``mlp1-xor-or``, ``err-xor-weights``, ``err-list-dash``."""

OR_NOT_AND = Perceptron((-1.0, 1.0), -0.5)
"""T(−x₁ + x₂ − ½) of x₁ = AND and x₂ = OR: the output unit of XOR. Source: ``mlp1-xor-output``."""


def xor_projection(x: Any) -> jax.Array:
    """x¹ = (AND(x₁, x₂), OR(x₁, x₂)), ``(m, 2) → (m, 2)``: the space in which a line separates the classes of XOR.

    Source: ``mlp1-xor-space``.

    >>> xor_projection(jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).tolist()
    [[0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]]
    """
    return jnp.stack([perceptron_predict(unit, x) for unit in (AND, OR)], axis=1)


def xor_network(sharpness: float | None = None) -> tuple[Config, Params]:
    """Build the network 2-2-1 that is XOR: the hidden units AND and OR, the output T(−AND + OR − ½).

    Args:
        sharpness: ``None`` for threshold units; a number s > 0 for the smooth copy, σ(s·z) in place of T(z), which
            is the nearer to it the larger s is.

    Raises:
        InputError: ``sharpness`` is not a finite number > 0.

    Source: ``mlp1-xor-output``, ``err-xor-weights``.

    >>> config, params = xor_network()
    >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> mlpjax.decide(config, mlpjax.predict(config, params, (), x))
    Array([0, 1, 1, 0], dtype=int32)
    """
    if sharpness is not None and not 0 < sharpness < math.inf:
        raise InputError(f"sharpness is {sharpness!r}: expected a finite number > 0, such as 20, or None for steps")
    s = 1.0 if sharpness is None else sharpness
    hidden = Layer(s * jnp.array([AND.w, OR.w]).T, s * jnp.array([AND.b, OR.b]))
    output = Layer(s * jnp.array(OR_NOT_AND.w)[:, None], s * jnp.array([OR_NOT_AND.b]))
    activation = "binary_step" if sharpness is None else "sigmoid"
    return Config(sizes=(2, 2, 1), activation=activation, head="binary"), (hidden, output)


def step_approximator(
    f: Callable[[np.ndarray], Any], N: int, low: float = 0.0, high: float = 1.0
) -> tuple[Config, Params]:
    """Build the network 1-N-1 of step units that approximates f on [low, high): f̂(x) = Σ_k c_k T(x − t_k).

    With h = (high − low)/N: the jumps are at t_k = low + k h, k = 0 … N − 1, and c_k lifts f̂ from f(mid_{k−1}) to
    f(mid_k), mid_k = t_k + h/2; c_0 = f(mid_0). So W¹ = 1 ``(1, N)``, b¹ = −t, W² = c ``(N, 1)``, b² = 0.

    A point of a step is at most h/2 from its middle, hence |f − f̂| ≤ ω_f(h/2) (`modulus_of_continuity`), which for a
    Lipschitz constant K is at most K h/2. It goes to 0 with N for a continuous f, and only for such.

    Args:
        f: of an array ``(N,)``, element by element.
        N: how many units.
        low: where the interval begins; below it f̂ is 0.
        high: where it ends.

    Raises:
        InputError: N below 1, an interval that is not finite or is empty, or an f that is not finite in a middle.

    Source: ``mlp1-uat-step-construct``, ``mlp1-uat``, ``mlp1-uat-3-units``, ``err-uat-any``, ``err-uat-3units``.

    >>> config, params = step_approximator(np.square, 2)
    >>> mlpjax.predict(config, params, (), jnp.array([[0.1], [0.4], [0.6]])).T
    Array([[0.0625, 0.0625, 0.5625]], dtype=float32)
    """
    check_count("N", N)
    _check_interval(low, high)
    t = low + (high - low) * np.arange(N) / N
    level = np.asarray(f(t + (high - low) / N / 2), float)
    if level.shape != (N,) or not np.isfinite(level).all():
        raise InputError(f"f of {N} points is {level}: expected {N} finite numbers, f working element by element")
    c = np.diff(level, prepend=0.0)
    hidden = Layer(jnp.ones((1, N)), jnp.asarray(-t, float))
    output = Layer(jnp.asarray(c[:, None], float), jnp.zeros(1))
    return Config(sizes=(1, N, 1), activation="binary_step", head="regression"), (hidden, output)


def modulus_of_continuity(
    f: Callable[[np.ndarray], Any], delta: float, low: float = 0.0, high: float = 1.0, points: int = 10_001
) -> float:
    """ω_f(δ) = max |f(x) − f(y)| over |x − y| ≤ δ, x and y on a grid of [low, high]: a bound from below for finer ones.

    Raises:
        InputError: δ is below the distance of two grid points, or the interval is not finite or is empty.

    >>> round(modulus_of_continuity(np.square, 0.1), 4)  # 1 − 0.9²
    0.19
    """
    _check_interval(low, high)
    check_count("points", points)
    reach = math.floor(delta / (high - low) * (points - 1) + 1e-9)
    if reach < 1:
        raise InputError(f"delta is {delta}: below the distance of {points} points on [{low}, {high}]; take more")
    values = np.asarray(f(np.linspace(low, high, points)), float)
    windows = np.lib.stride_tricks.sliding_window_view(values, min(reach + 1, points))
    return float(np.max(windows.max(axis=1) - windows.min(axis=1)))


def tent_network(depth: int) -> tuple[Config, Params]:
    """Build t∘t∘…∘t as a ReLU network with ``depth`` hidden layers of 2 units: 2^depth linear pieces on [0, 1].

    The tent t(x) = 2 relu(x) − 4 relu(x − ½) goes from 0 up to 1 at ½ and down to 0 at 1.

    One hidden layer of n ReLU units has at most n + 1 pieces, so it needs 2^depth − 1 of them (Telgarsky 2016). It is
    so for this function, not in general. Source: ``mlp1-depth-progressive``, ``err-depth-claim``.

    >>> config, params = tent_network(3)
    >>> config.sizes, len(linear_pieces(params)) - 1
    ((1, 2, 2, 2, 1), 8)
    """
    check_count("depth", depth)
    # from the units relu(x), relu(x − ½) of one tent to those of the next
    between = Layer(jnp.array([[2.0, 2.0], [-4.0, -4.0]]), jnp.array([0.0, -0.5]))
    first = Layer(jnp.ones((1, 2)), jnp.array([0.0, -0.5]))
    last = Layer(jnp.array([[2.0], [-4.0]]), jnp.zeros(1))
    config = Config(sizes=(1, *(2,) * depth, 1), activation="relu", head="regression")
    return config, (first, *(between,) * (depth - 1), last)


def linear_pieces(params: Params, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Find the pieces on [low, high] of a ReLU network with one input and one output, which is piecewise linear.

    Layer by layer, in float64: between two knots all pre-activations are linear, so a unit switches at most once.

    Returns:
        The ends of the pieces, from ``low`` to ``high``: one more than there are pieces.

    Raises:
        InputError: the network has not one input and one output, or the interval is not finite or is empty.

    >>> linear_pieces(tent_network(2)[1])
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    _check_interval(low, high)
    if jnp.shape(params[0].W)[0] != 1 or jnp.shape(params[-1].W)[1] != 1:
        raise InputError(
            f"W of the first layer has shape {jnp.shape(params[0].W)} and of the last {jnp.shape(params[-1].W)}: "
            "expected (1, n) and (n, 1), a function of one number"
        )
    weights = [(np.asarray(l.W, float), 0.0 if l.b is None else np.asarray(l.b, float)[None, :]) for l in params]

    def scores(x: np.ndarray, l: int) -> np.ndarray:
        z = x[:, None] @ weights[0][0] + weights[0][1]
        for W, b in weights[1 : l + 1]:
            z = np.maximum(z, 0) @ W + b
        return z

    knots = np.array([low, high])
    for l in range(len(weights) - 1):
        z = scores(knots, l)
        piece, unit = np.nonzero(z[:-1] * z[1:] < 0)
        before, after = z[piece, unit], z[piece + 1, unit]
        crossings = knots[piece] + (knots[piece + 1] - knots[piece]) * before / (before - after)
        knots = np.unique(np.concatenate([knots, crossings]))
    slopes = np.diff(scores(knots, len(weights) - 1)[:, 0]) / np.diff(knots)
    bends = np.abs(np.diff(slopes)) > 1e-9 * max(1.0, np.abs(slopes).max())
    return knots[np.concatenate([[True], bends, [True]])]


def _check_interval(low: float, high: float) -> None:
    if not -math.inf < low < high < math.inf:
        raise InputError(f"the interval is [{low}, {high}]: expected finite ends, the first below the second")
