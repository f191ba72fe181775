"""Counts that say what a gradient costs: parameters, edges and paths of a network, and operations of a function.

The derivative of the loss with respect to an input is a sum over all paths from it to the loss. The paths multiply
from layer to layer; the edges only add up, and back-propagation visits each of them once.

Source: lecture, sections *Chain rule and back-propagation* and *One hidden layer*.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax

from mlpjax.config import Config


def count_parameters(sizes: Sequence[int]) -> int:
    """P = Σ_l (n_{l−1} + 1) n_l: the weights and biases of the network ``(n_0, …, n_L)``.

    Raises:
        ConfigError: ``sizes`` is not at least two integers ≥ 1.

    Source: ``mlp1-param-count``.

    >>> count_parameters((3, 4, 1))
    21
    """
    return count_edges(sizes) + sum(_widths(sizes)[1:])


def count_edges(sizes: Sequence[int]) -> int:
    """Σ_l n_{l−1} n_l: the edges between units, one per weight. Errors as in `count_parameters`.

    >>> count_edges((10,) * 10)
    900
    """
    widths = _widths(sizes)
    return sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths))


def count_paths(sizes: Sequence[int]) -> int:
    """Π_{l≥1} n_l: the paths from one input unit to the loss. Errors as in `count_parameters`.

    Source: ``chain-backprop-def``, ``err-min-storage``.

    >>> count_paths((10,) * 10)
    1000000000
    """
    return math.prod(_widths(sizes)[1:])


def count_operations(f: Callable[..., Any], *args: Any) -> Counter[str]:
    """Count the primitive operations of ``f(*args)`` by name, as JAX traces it; nothing is computed.

    What runs in a loop of known length counts once per round, in one of unknown length once in all; a ``cond`` is one
    operation, whatever its branches hold. ``dot_general`` is the matrix product. The key
    ``"multiplications"`` has the scalar products inside the matrix products.

    Source: ``chain-efficiency``, ``mlp1-vectorisation-speed``.

    >>> x, W = jax.numpy.ones((5, 3)), jax.numpy.ones((3, 2))
    >>> counts = count_operations(lambda x, W: jax.numpy.tanh(x @ W), x, W)
    >>> counts["dot_general"], counts["multiplications"], counts["tanh"]
    (1, 30, 1)
    """
    counts: Counter[str] = Counter()

    def visit(jaxpr: Any, times: int) -> None:
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            inner = [value.jaxpr for value in equation.params.values() if hasattr(value, "jaxpr")]
            for body in inner:
                visit(body, times * equation.params.get("length", 1))
            if not inner:
                counts[name] += times
            if name == "dot_general":
                summed = equation.params["dimension_numbers"][0][0]
                shape, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
                counts["multiplications"] += times * math.prod(out) * math.prod(shape[axis] for axis in summed)

    visit(jax.make_jaxpr(f)(*args).jaxpr, 1)
    return counts


def _widths(sizes: Sequence[int]) -> tuple[int, ...]:
    return Config(sizes=tuple(sizes), head="regression").sizes
