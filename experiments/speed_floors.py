"""The floors in the experiment on speed: the matrix products of a training and nothing else.

Layer l of L has A[l] = A[l−1]·W[l], dW[l] = A[l−1]ᵀ·dZ[l] and, but for the first, dA[l−1] = dZ[l]·W[l]ᵀ: 3L − 1
products in a step. Here A[l] is the product itself, and what comes out of the last layer goes back in as dZ.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from speed_workloads import Job, Orders


def flops(job: Job) -> float:
    """The floating-point operations of the products in one training."""
    pairs = [a * b for a, b in itertools.pairwise(job.workload.config.sizes)]
    return 2.0 * len(job.x) * job.workload.epochs * (3 * sum(pairs) - pairs[0])


def weights(job: Job) -> list[np.ndarray]:
    """Matrices of the network's shapes that keep the size of what they multiply."""
    rng, sizes = np.random.default_rng(0), job.workload.config.sizes
    shapes = itertools.pairwise(sizes)
    return [(rng.normal(size=(a, b)) / np.sqrt(max(a, b))).astype(np.float32) for a, b in shapes]


def xla_products(x: jax.Array, W: list[jax.Array], dtype: Any) -> list[jax.Array]:
    """The products of one step; returns every dW."""
    product = partial(jnp.matmul, preferred_element_type=jnp.float32)
    W = [matrix.astype(dtype) for matrix in W]
    A = [x.astype(dtype)]
    for matrix in W:
        A.append(product(A[-1], matrix).astype(dtype))
    dZ, dW = A.pop(), []
    for l in reversed(range(len(W))):
        dW.append(product(A[l].T, dZ))
        dZ = product(dZ, W[l].T).astype(dtype) if l else dZ
    return dW[::-1]


@partial(jax.jit, static_argnames=("batch_size", "dtype"))
def xla_loop(x: jax.Array, W: list[jax.Array], steps: int, batch_size: int, dtype: Any) -> list[jax.Array]:
    """The products of all steps: each reads another batch, and writes its dW over that of the step before."""
    batches = jnp.int32(-(-len(x) // batch_size))

    def body(t: jax.Array, _: list[jax.Array]) -> list[jax.Array]:
        batch = jax.lax.dynamic_slice_in_dim(x, jax.lax.rem(t, batches) * batch_size, batch_size)
        return xla_products(batch, W, dtype)

    return jax.lax.fori_loop(0, steps, body, W)


class Floor:
    """A contender that trains nothing."""

    tells_compile = False

    def __init__(self, job: Job) -> None:
        self.b, self.sizes, self.W = min(job.workload.batch_size, len(job.x)), job.workload.config.sizes, weights(job)
        self.job, self.x = job, job.x

    def start(self, seed: int) -> None:
        """There is nothing to start."""

    def steps(self, orders: Orders) -> int:
        """The steps of a training."""
        return orders.epochs * -(-orders.rows // self.b)

    def params(self) -> None:
        """There are none."""


class XLA(Floor):
    """One compiled loop."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.on_device = jax.device_put((job.x, self.W))
        self.dtype = jnp.dtype(job.workload.config.compute_dtype or "float32")

    def train(self, orders: Orders) -> None:
        """Multiply."""
        x, W = self.on_device
        jax.block_until_ready(xla_loop(x, W, self.steps(orders), self.b, self.dtype))


class BLAS(Floor):
    """A loop that calls a product with the array to write into; ``mm(a, b, out=c)``, and ``a.T`` of its arrays."""

    def __init__(self, job: Job, mm: Callable[..., Any], array: Callable[[np.ndarray], Any]) -> None:
        super().__init__(job)
        self.mm, self.W, self.x = mm, [array(W) for W in self.W], array(job.x[: self.b])
        self.A = [array(np.zeros((self.b, n), np.float32)) for n in self.sizes[1:]]
        self.dA = [array(np.zeros((self.b, n), np.float32)) for n in self.sizes[:-1]]
        self.dW = [array(np.zeros(W.shape, np.float32)) for W in self.W]

    def train(self, orders: Orders) -> None:
        """Multiply."""
        for _ in range(self.steps(orders)):
            self.one_step()

    def one_step(self) -> None:
        """The products of one step."""
        mm, A, W = self.mm, [self.x, *self.A], self.W
        for l in range(len(W)):
            mm(A[l], W[l], out=A[l + 1])
        dZ = A[-1]
        for l in reversed(range(len(W))):
            mm(A[l].T, dZ, out=self.dW[l])
            if l:
                dZ = mm(dZ, W[l].T, out=self.dA[l])


def floors(job: Job) -> dict[str, Floor]:
    """The floors for a job: XLA's, and on CPUs those of the BLAS libraries at hand."""
    found: dict[str, Floor] = {"XLA": XLA(job)}
    if job.device == "cpu":
        found["NumPy"] = BLAS(job, np.matmul, np.ascontiguousarray)
        if find_spec("torch"):
            import torch

            found["torch.mm"] = BLAS(job, torch.mm, torch.from_numpy)
    return found
