"""The chain rule, and the lecture's first worked example of back-propagation.

The worked example is a logistic unit under least squares, z = xw + b, ŷ = σ(z), L = ½(ŷ − y)²: once as in calculus
class (`calculus`), once by back-propagation (`backward_unit`). Its derivatives are per example, ∂L/∂v, with no 1/m;
`mlpjax.per_example` has the same for any network of mlpjax. The second example is in `mlpjax.chain_network`.

Source: lecture, section *Chain rule and back-propagation*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.activations import sigmoid, sigmoid_derivative
from mlpjax.errors import InputError

Scalar = Callable[..., Any]
"""A function of one or several numbers; it takes arrays too, element by element."""


def chain_rule(partials: Sequence[Scalar], inner: Sequence[Scalar], inner_derivatives: Sequence[Scalar]) -> Scalar:
    """d f(x₁(t), …, x_n(t))/dt = Σ_k ∂f/∂x_k(x(t)) · x_k′(t), as a function of t.

    Args:
        partials: ∂f/∂x_1, …, ∂f/∂x_n, each a function of n numbers.
        inner: x_1, …, x_n. They may be functions of several numbers.
        inner_derivatives: x_1′, …, x_n′, all with respect to the same number.

    Returns:
        The derivative, a function of what the inner functions take.

    Raises:
        InputError: the three do not have the same length.

    Source: ``chain-one-var``, ``chain-two-var``, ``chain-ex-composite``, ``err-partial-total``.

    >>> slope = chain_rule([jnp.cos], [lambda t: t**2], [lambda t: 2 * t])  # of sin t²
    >>> slope(0.0), slope(1.0).round(4)
    (Array(0., dtype=float32, weak_type=True), Array(1.0806, dtype=float32, weak_type=True))
    """
    counts = len(partials), len(inner), len(inner_derivatives)
    if len(set(counts)) != 1 or not partials:
        raise InputError(
            f"got {counts[0]} partial derivatives, {counts[1]} inner functions and {counts[2]} of their derivatives: "
            "expected as many of each, at least one"
        )

    def derivative(*t: Any) -> Any:
        x = [x_k(*t) for x_k in inner]
        return sum(f_k(*x) * dx_k(*t) for f_k, dx_k in zip(partials, inner_derivatives, strict=True))

    return derivative


def product_rule(f: Scalar, df: Scalar, g: Scalar, dg: Scalar) -> Scalar:
    """h = f g ⇒ h′ = f′g + fg′: the chain rule of the product, whose partial derivatives are g and f.

    Source: ``chain-ex-product``.

    >>> product_rule(lambda x: x, lambda x: 1, lambda x: x**2, lambda x: 2 * x)(2.0)  # of x³
    12.0
    """
    return chain_rule([lambda u, v: v, lambda u, v: u], [f, g], [df, dg])


class UnitCache(NamedTuple):
    """Example 1 forward: the inputs, z, ŷ and L; numbers, or arrays of one shape."""

    x: Any
    y: Any
    z: jax.Array
    yhat: jax.Array
    loss: jax.Array


class UnitGradients(NamedTuple):
    """Example 1 backward: ∂L/∂ŷ, ∂L/∂z, ∂L/∂w and ∂L/∂b."""

    dyhat: jax.Array
    dz: jax.Array
    dw: jax.Array
    db: jax.Array


def forward_unit(x: Any, w: Any, b: Any, y: Any) -> UnitCache:
    """z = xw + b, ŷ = σ(z), L = ½(ŷ − y)². Source: ``chain-ex1-forward``.

    >>> forward_unit(2.0, 0.5, -1.0, 1.0).loss
    Array(0.125, dtype=float32, weak_type=True)
    """
    z = jnp.asarray(x * w + b)
    yhat = sigmoid(z)
    return UnitCache(x, y, z, yhat, (yhat - y) ** 2 / 2)


def backward_unit(cache: UnitCache) -> UnitGradients:
    """∂L/∂ŷ = ŷ − y, ∂L/∂z = ∂L/∂ŷ σ′(z), ∂L/∂w = ∂L/∂z x, ∂L/∂b = ∂L/∂z: each from the one before.

    σ′ makes ∂L/∂z vanish where the unit is confident, also where it is wrong: with the cross-entropy, the loss of
    logistic regression, it is ŷ − y. Source: ``chain-ex1-dyhat``, ``chain-ex1-dz``, ``chain-ex1-dw``,
    ``chain-ex1-db``, ``chain-ex1-equal``, ``chain-ex1-saturation``, ``err-lr-least-squares``, ``err-v3-matched``.

    >>> backward_unit(forward_unit(2.0, 0.5, -1.0, 1.0)).dw
    Array(-0.25, dtype=float32, weak_type=True)
    """
    dyhat = cache.yhat - cache.y
    dz = dyhat * sigmoid_derivative(cache.z)
    return UnitGradients(dyhat, dz, dz * cache.x, dz)


class CalculusLine(NamedTuple):
    """A line of a derivation, ∂L/∂w = ``factor`` · ∂``inside``/∂w; the last one has w inside, whose ∂/∂w is 1."""

    formula: str
    factor: jax.Array
    inside: Callable[[Any], Any]


def calculus(x: Any, w: Any, b: Any, y: Any) -> tuple[CalculusLine, ...]:
    """Derive ∂L/∂w of example 1 as in calculus class: five lines for ∂L/∂w, below the one that states L.

    From line to line something moves from inside the derivative to in front of it; all lines have the same value.
    The ``inside`` of the first is L itself, the ``factor`` of the last is ∂L/∂w. For ∂L/∂b the last line would have
    1 in place of x, and everything else would be computed once more: what back-propagation avoids.
    Source: ``chain-ex1-calculus``.

    >>> [line.factor.item() for line in calculus(2.0, 0.5, -1.0, 1.0)]
    [1.0, 0.5, -0.5, -0.125, -0.25]
    """

    def z(w: Any) -> Any:
        return w * x + b

    error = sigmoid(jnp.asarray(z(w))) - y
    slope = sigmoid_derivative(jnp.asarray(z(w)))
    one = jnp.ones_like(error)
    return (
        CalculusLine("∂/∂w [½(σ(wx+b) − y)²]", one, lambda w: (sigmoid(z(w)) - y) ** 2 / 2),
        CalculusLine("½ ∂/∂w (σ(wx+b) − y)²", one / 2, lambda w: (sigmoid(z(w)) - y) ** 2),
        CalculusLine("(σ(wx+b) − y) ∂/∂w (σ(wx+b) − y)", error, lambda w: sigmoid(z(w)) - y),
        CalculusLine("(σ(wx+b) − y) σ′(wx+b) ∂/∂w (wx+b)", error * slope, z),
        CalculusLine("(σ(wx+b) − y) σ′(wx+b) x", error * slope * x, lambda w: w),
    )


def curvature(x: Any, w: Any, b: Any, y: Any) -> jax.Array:
    """∂²L/∂w² = x² [σ′(z)² + (σ(z) − y) σ″(z)], σ″ = σ′(1 − 2σ), of example 1.

    It takes both signs: least squares behind a sigmoid is not convex in w. Source: ``chain-ex1-nonconvex``.

    >>> curvature(1.0, jnp.array([-3.0, 0.0]), 0.0, 1.0).round(4)
    Array([-0.0369,  0.0625], dtype=float32)
    """
    z = jnp.asarray(x * w + b)
    a, slope = sigmoid(z), sigmoid_derivative(z)
    return x**2 * (slope**2 + (a - y) * slope * (1 - 2 * a))
