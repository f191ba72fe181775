"""What the checks of *Deep networks* share: a network with its formulas in NumPy beside it, and central differences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import expit

import mlpjax
from mlpjax.passes import Pass, run_pass

M = 9
"""The examples of every check here: no width is 9, so that axes cannot be taken for each other."""


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def differences(J: Callable[[np.ndarray], float], at: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """∂J/∂v by central differences, of the shape of v."""
    slopes = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[index] = h
        slopes[index] = (J(at + step) - J(at - step)) / (2 * h)
    return slopes


class Net:
    """3 inputs, 5 tanh units, 4 sigmoid units, 2 outputs, ½ squared error; the formulas in NumPy beside it."""

    config = mlpjax.Config(sizes=(3, 5, 4, 2), activation=("tanh", "sigmoid"), head="regression")

    def __init__(self) -> None:
        self.x, self.y = draw(M, 3), draw(M, 2)
        self.W = [draw(3, 5), draw(5, 4), draw(4, 2)]
        self.b = [draw(5), draw(4), draw(2)]
        self.params = tuple(mlpjax.Layer(jnp.asarray(W), jnp.asarray(b)) for W, b in zip(self.W, self.b, strict=True))
        self.batch = mlpjax.Batch(self.x, self.y)
        self.z1 = self.x @ self.W[0] + self.b[0]

    def forward_from(self, z1: np.ndarray) -> tuple[np.ndarray, ...]:
        """A[1], Z[2], A[2] and Z[3] from Z[1]."""
        a1 = np.tanh(z1)
        z2 = a1 @ self.W[1] + self.b[1]
        a2 = expit(z2)
        return a1, z2, a2, a2 @ self.W[2] + self.b[2]

    def losses(self, z1: np.ndarray) -> np.ndarray:
        """Lᵢ from Z[1]."""
        return np.sum((self.forward_from(z1)[-1] - self.y) ** 2, axis=1) / 2

    def run(self) -> Pass:
        """The forward pass of the package."""
        return run_pass(self.config, self.params, (), self.batch, True, None)


@functools.cache
def traced() -> tuple[Net, mlpjax.Trace]:
    net = Net()
    return net, mlpjax.trace(net.config, net.params, (), net.batch)
