"""How the scale of signals changes with depth: activations on the way forward, gradients on the way back.

A score is a sum of n terms, so that Var(z) = n Var(w) E[x²]: the variance of the weights decides whether signals
keep their scale, vanish or explode over the layers.

Source: lecture, section *Weight initialisation*: "Vanishing/exploding gradients" and "for deep neural networks".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import plain_activation
from mlpjax.errors import InputError

WeightVariance = Callable[[int, int], float]

WEIGHT_VARIANCES: dict[str, WeightVariance] = {
    "0.01²": lambda n_in, n_out: 0.01**2,
    "1/n": lambda n_in, n_out: 1 / n_in,
    "2/n": lambda n_in, n_out: 2 / n_in,
    "glorot": lambda n_in, n_out: 2 / (n_in + n_out),
    "product": lambda n_in, n_out: 2 / (n_in * n_out),
    "1": lambda n_in, n_out: 1.0,
}
"""Var(w) of a layer ``(n_in, n_out)``, to compare. All but two are initialisers: 1, and the product as the lecture
prints it (``err-bengio``), which is there to show why not. Source: ``init-bengio-slide``, ``init-xavier-slide``."""

_QUADRATURE_NODES = 128


class Signals(NamedTuple):
    """Standard deviations of A[0] … A[L] and of dA[0] … dA[L], each ``(L + 1,)``."""

    activations: jax.Array
    gradients: jax.Array


def signal_std(
    sizes: Sequence[int], activation: str, variance: WeightVariance, key: jax.Array, *, m: int = 64
) -> Signals:
    """Measure the scale of activations and gradients in each layer of a fresh network with b = 0.

    A[l] = g(A[l−1] W[l]) from A[0] ~ N(0, 1) ``(m, n_0)``, and dA[l−1] = (dA[l] ⊙ g′(Z[l])) W[l]ᵀ from dA[L] ~ N(0, 1);
    every layer, the last one too, has the activation g.

    Args:
        sizes: (n_0, …, n_L).
        activation: a name of `mlpjax.ACTIVATIONS`, but for those with a learnt slope.
        variance: Var(w) as a function of (n_in, n_out), such as an entry of `WEIGHT_VARIANCES`.
        key: layer l draws from ``fold_in(key, l)``.
        m: rows.

    Raises:
        InputError: for an unknown activation, or fewer than two sizes.

    Source: ``init-std-depth``, ``err-001-depth``.

    >>> he = signal_std((256,) * 21, "relu", WEIGHT_VARIANCES["2/n"], jax.random.key(0))
    >>> lecun = signal_std((256,) * 21, "relu", WEIGHT_VARIANCES["1/n"], jax.random.key(0))
    >>> bool(0.3 < he.activations[-1] < 3), bool(lecun.activations[-1] < 3e-3)
    (True, True)
    """
    g = plain_activation(activation)
    if len(sizes) < 2:
        raise InputError(f"sizes is {tuple(sizes)}: expected at least two widths, (n_0, …, n_L)")
    a = jax.random.normal(jax.random.fold_in(key, 0), (m, sizes[0]))
    activations, scores, weights = [a], [], []
    for l, (n_in, n_out) in enumerate(itertools.pairwise(sizes), start=1):
        W = sqrt(variance(n_in, n_out)) * jax.random.normal(jax.random.fold_in(key, l), (n_in, n_out))
        z = activations[-1] @ W
        weights.append(W)
        scores.append(z)
        activations.append(g.f(z))
    gradients = [jax.random.normal(jax.random.fold_in(key, len(sizes)), scores[-1].shape)]
    for W, z in zip(reversed(weights), reversed(scores), strict=True):
        gradients.append((gradients[-1] * g.df(z)) @ W.T)
    return Signals(_stds(activations), _stds(gradients[::-1]))


def sum_variance(n: int, w_variance: float, x_square: float) -> float:
    """Var(z) = n Var(w) E[x²] of z = Σ_d w_d x_d, d = 1 … n: w independent, of mean 0, and independent of x.

    It is E[x²], not Var(x): what comes out of an activation has no mean of 0. Var(w) = 1/n gives Var(z) = E[x²].
    Source: ``init-var-1n``.

    >>> sum_variance(100, 1 / 100, 2.0)
    2.0
    """
    return n * w_variance * x_square


def mean_square(activation: str, variance: float = 1.0) -> float:
    """E[g(z)²] of z ~ N(0, variance), by Gauss–Hermite quadrature; ½ variance for ReLU, which is why He takes 2/n.

    With Var(w) = c/n the next layer's scores have the variance c E[g(z)²].

    Raises:
        InputError: for an unknown activation, or a variance below 0.

    Source: ``init-he``.

    >>> round(mean_square("relu"), 4), round(mean_square("tanh"), 4)
    (0.5, 0.3943)
    """
    g = plain_activation(activation)
    if not variance >= 0:
        raise InputError(f"variance is {variance}: expected a number ≥ 0")
    # an even number of nodes: none at 0, where ReLU has its kink, so that its half of z² is exact
    nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_NODES)
    values = np.asarray(g.f(jnp.asarray(sqrt(variance) * nodes)), np.float64)
    return float(np.sum(weights * values**2) / np.sum(weights))


def mean_slope(activation: str, std: float, sizes: tuple[int, int], key: jax.Array, *, m: int = 256) -> float:
    """Mean of g′(Z), Z = X W with X ~ N(0, 1) ``(m, n_in)`` and W ~ std · N(0, 1) ``(n_in, n_out)``.

    The larger the weights, the flatter σ and tanh are where they work: the slope is what the gradient is multiplied by.
    Source: ``init-big-w``, ``init-small-w``.

    >>> [round(mean_slope("tanh", std, (64, 64), jax.random.key(0)), 2) for std in (0.01, 0.1, 1.0, 10.0)]
    [0.99, 0.68, 0.09, 0.01]
    """
    g = plain_activation(activation)
    n_in, n_out = sizes
    X = jax.random.normal(jax.random.fold_in(key, 0), (m, n_in))
    W = std * jax.random.normal(jax.random.fold_in(key, 1), (n_in, n_out))
    return float(jnp.mean(g.df(X @ W)))


def scaled_identities(c: float, depth: int, W_out: Any) -> tuple[jax.Array, ...]:
    """W[l] = c I for l < L, then W[L] = ``W_out (n, n_L)``: c = 1.5 is the lecture's explosion, c = 0.5 its vanishing.

    Raises:
        InputError: ``depth`` is below 1, or ``W_out`` is no matrix.

    Source: ``init-explode-15``, ``init-vanish-05``.

    >>> scaled_identities(1.5, 2, [[1.0], [1.0]])[0]
    Array([[1.5, 0. ],
           [0. , 1.5]], dtype=float32)
    """
    W_out = jnp.asarray(W_out, float)
    if depth < 1 or W_out.ndim != 2:
        raise InputError(f"depth {depth}, W_out {W_out.shape}: expected a depth ≥ 1 and a matrix (n, n_L)")
    return (c * jnp.eye(W_out.shape[0]),) * (depth - 1) + (W_out,)


def scale_factor(c: float, depth: int) -> float:
    """c^{L−1}: by what L − 1 layers of weights c I multiply ŷ, and the gradient of X: both explode, or both vanish.

    Source: ``init-explode-gradient``, ``err-vanish-value``.

    >>> f"{scale_factor(1.5, 50):.2e}", f"{scale_factor(0.5, 50):.2e}"
    ('4.25e+08', '1.78e-15')
    """
    return c ** (depth - 1)


def deep_linear(x: jax.Array, weights: Sequence[jax.Array]) -> jax.Array:
    """Ŷ = X W[1] W[2] … W[L]: a deep network with g(z) = z and b = 0; ``(m, n_0) → (m, n_L)``.

    Source: ``init-deep-linear``, ``err-deep-y``.

    >>> deep_linear(jnp.array([[1.0, 2.0]]), scaled_identities(1.5, 3, [[1.0], [1.0]]))
    Array([[6.75]], dtype=float32)
    """
    for W in weights:
        x = x @ W
    return x


def deep_linear_dx(dyhat: jax.Array, weights: Sequence[jax.Array]) -> jax.Array:
    """dX = dŶ W[L]ᵀ … W[2]ᵀ W[1]ᵀ, the gradient of `deep_linear`; ``(m, n_L) → (m, n_0)``.

    Source: ``init-explode-gradient``.

    >>> deep_linear_dx(jnp.array([[1.0]]), scaled_identities(1.5, 3, [[1.0], [1.0]]))
    Array([[2.25, 2.25]], dtype=float32)
    """
    for W in reversed(weights):
        dyhat = dyhat @ W.T
    return dyhat


def _stds(arrays: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack([_std(a) for a in arrays])


@jax.jit
def _std(a: jax.Array) -> jax.Array:
    """The standard deviation, of the array scaled to 1: the square of a vanished signal is 0 in float32."""
    scale = jnp.max(jnp.abs(a))
    return scale * jnp.std(a / jnp.where(scale > 0, scale, 1))
