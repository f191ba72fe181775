"""Batch-norm as a layer: the statistics of a batch, the scale and shift that are learnt, and the gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.layers import BATCH_NORM_EPS, affine_forward, batch_norm_backward, batch_norm_forward

M, N = 5, 3
P: Any = np.full(M, 1 / M)
"""The row weights of a batch of M examples that count alike."""


def norm_bn_mean() -> Claim:
    """μ is the mean of each unit over the batch."""
    z, gamma, beta, _ = _batch()
    return agree("μ, summed one by one", _forward(z, gamma, beta)[2][0], [sum(z[:, j]) / M for j in range(N)])


def norm_bn_var() -> tuple[Claim, ...]:
    """σ² is the mean square distance from μ, with 1/m and not 1/(m − 1)."""
    z, gamma, beta, _ = _batch()
    mean, var = _forward(z, gamma, beta)[2]
    far = _forward(z + 1e8, gamma, beta)[2][1]
    return (
        agree("σ² = E[z²] − μ²", var, np.mean(z**2, axis=0) - np.asarray(mean) ** 2),
        agree("σ² of numbers near 10⁸, where E[z²] − μ² cancels", far, var, tol=1e-6),
    )


def norm_bn_normalise() -> tuple[Claim, ...]:
    """ẑ has mean 0 and variance σ²/(σ² + ε), a little below 1."""
    z, gamma, beta, _ = _batch()
    _, cache, (_, var) = _forward(z, gamma, beta)
    zhat = np.asarray(cache.zhat)
    return (
        agree("ẑ = (z − μ)/√(σ² + ε)", zhat, (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)),
        agree("mean 0", zhat.mean(axis=0), np.zeros(N)),
        agree("variance σ²/(σ² + ε)", zhat.var(axis=0), var / (var + BATCH_NORM_EPS)),
    )


@printed("err-bn-gamma", lambda gamma, var: gamma + 0 * var)
def norm_bn_rescale(
    form: Callable[..., Any] = lambda gamma, var: gamma**2 * var / (var + BATCH_NORM_EPS),
) -> tuple[Claim, ...]:
    """γ sets the standard deviation, β the mean: z̃ has mean β and variance γ²σ²/(σ² + ε)."""
    z, gamma, beta, _ = _batch()
    out, cache, (_, var) = _forward(z, gamma, beta)
    return (
        agree("z̃ = γ ⊙ ẑ + β", out, gamma * np.asarray(cache.zhat) + beta),
        agree("mean β", np.mean(out, axis=0), beta),
        agree("variance", np.var(out, axis=0), form(gamma, np.asarray(var))),
    )


def norm_bn_identity() -> Claim:
    """With γ = √(σ² + ε) and β = μ, batch-norm gives back its input."""
    z, *_ = _batch()
    out, *_ = _forward(z, np.sqrt(z.var(axis=0) + BATCH_NORM_EPS), z.mean(axis=0))
    return agree("z̃ = z", out, z)


def norm_bn_grad_beta() -> tuple[Claim, ...]:
    """dβ = Σᵢ dz̃ᵢ, where dz̃ has the 1/m: the mean of what the lecture calls dZ̃."""
    z, gamma, beta, dout = _batch()
    dbeta = batch_norm_backward(dout / M, _forward(z, gamma, beta)[1])[2]
    return (
        agree("dβ against jax.grad", dbeta, _by_autodiff()[2] / M),
        agree("dβ is the mean over the batch", dbeta, dout.mean(axis=0)),
    )


def norm_bn_grad_gamma() -> tuple[Claim, ...]:
    """dγ = Σᵢ dz̃ᵢ ⊙ ẑᵢ, where dz̃ has the 1/m."""
    z, gamma, beta, dout = _batch()
    dgamma = batch_norm_backward(dout / M, _forward(z, gamma, beta)[1])[1]
    zhat = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + BATCH_NORM_EPS)
    return (
        agree("dγ against jax.grad", dgamma, _by_autodiff()[1] / M),
        agree("dγ is the mean of dZ̃ ⊙ ẑ", dgamma, (dout * zhat).mean(axis=0)),
    )


def norm_bn_grad_z() -> tuple[Claim, ...]:
    """dz has three terms, since μ and σ² depend on every row: each column sums to 0, alone and against ẑ (but ε)."""
    z, gamma, beta, dout = _batch()
    _, cache, (_, var) = _forward(z, gamma, beta)
    dz, dgamma, _ = (np.asarray(d) for d in batch_norm_backward(dout, cache))
    steps = 1e-5 * np.eye(M * N).reshape(-1, M, N)
    numeric = [np.sum(dout * (_by_numpy(z + s, gamma, beta) - _by_numpy(z - s, gamma, beta))) / 2e-5 for s in steps]
    along = gamma * dgamma * BATCH_NORM_EPS / (var + BATCH_NORM_EPS) ** 1.5
    return (
        agree("dz against jax.grad", dz, _by_autodiff()[0]),
        agree("dz against central differences", dz.ravel(), numeric, tol=1e-8),
        agree("Σᵢ dzᵢ = 0", dz.sum(axis=0), np.zeros(N)),
        agree("Σᵢ dzᵢ ⊙ ẑᵢ = γ dγ ε/(σ² + ε)^(3/2)", np.sum(dz * cache.zhat, axis=0), along, tol=1e-9),
    )


def norm_bn_minibatch() -> tuple[Claim, ...]:
    """Each mini-batch is normalised by its own μ and σ²: one example comes out differently in two of them."""
    z, gamma, beta, _ = _batch()
    first, second = z.copy(), z[::-1] * 2 + 1
    second[0] = first[0]
    outs = [_forward(batch, gamma, beta) for batch in (first, second)]
    claims = [
        agree(f"mini-batch {k} by its own μ and σ²", out[0], _by_numpy(batch, gamma, beta))
        for k, (batch, out) in enumerate(zip((first, second), outs, strict=True), start=1)
    ]
    apart = np.abs(outs[0][0][0] - outs[1][0][0]).max()
    return (*claims, holds("an example in two mini-batches", apart > 0.1, f"z̃ differs by {apart:.3g}"))


def norm_bn_bias_redundant() -> tuple[Claim, ...]:
    """A bias before batch-norm cancels: the output is the same and its gradient is 0."""
    z, gamma, beta, dout = _batch()
    W, b = jnp.array([[1.0, -2.0, 0.5], [0.3, 0.7, -1.0]]), jnp.array([3.0, -4.0, 5.0])
    with_b, _ = affine_forward(z[:, :2], W, b)
    without, _ = affine_forward(z[:, :2], W, None)
    out, cache, _ = _forward(with_b, gamma, beta)
    db = np.sum(batch_norm_backward(dout, cache)[0], axis=0)
    return (
        agree("z̃ with and without b", out, _forward(without, gamma, beta)[0]),
        agree("db = Σᵢ dzᵢ = 0", db, np.zeros(N)),
    )


def norm_bn_scale_invariant() -> tuple[Claim, ...]:
    """Only ε knows the scale of z: c z and z give the same z̃ while σ² is far above ε, and not below it."""
    z, gamma, beta, _ = _batch()
    large, larger = (_forward(c * z, gamma, beta)[0] for c in (1e5, 3e6))
    small = np.ptp(_forward(1e-5 * z, gamma, beta)[0], axis=0) / np.ptp(large, axis=0)
    return (
        agree("z̃ of 10⁵ z and of 3·10⁶ z", larger, large),
        holds("z̃ of 10⁻⁵ z shrinks", np.all(small < 0.01), str(small)),
    )


@printed("err-bn-coupled", lambda dout, z: sum(_dgamma(dout[i : i + 1], z[i : i + 1]) for i in range(M)))
def norm_bn_coupling(form: Callable[..., Any] = lambda dout, z: _dgamma(dout, z)) -> tuple[Claim, ...]:
    """The examples of a batch are coupled: the gradient is not the mean of gradients of single examples."""
    z, gamma, beta, dout = _batch()
    alone = batch_norm_forward(z[:1], gamma, beta, jnp.ones(1))[0]
    moved = z.copy()
    moved[0] += 1
    change = np.abs(np.asarray(_forward(moved, gamma, beta)[0]) - _forward(z, gamma, beta)[0])[1:].max()
    return (
        equal("a batch of one gives β, whatever it is", alone, beta[None, :]),
        holds("another example's z̃ moves when one moves", change > 0.1, float(change)),
        agree("dγ against jax.grad over the batch", form(dout, z), _by_autodiff()[1]),
    )


def _batch() -> tuple[Any, ...]:
    """Pre-activations z, scale γ, shift β, and ∂J/∂z̃ per example."""
    rng = np.random.default_rng(0)
    z, dout = 2 * rng.normal(size=(M, N)) + 1, rng.normal(size=(M, N))
    return z, np.array([0.5, -1.5, 2.0]), np.array([0.3, 1.0, -0.7]), dout


def _forward(z: Any, gamma: Any, beta: Any) -> tuple[Any, ...]:
    return batch_norm_forward(z, gamma, beta, P)


def _dgamma(dout: Any, z: Any) -> Any:
    """The gradient of γ from some of the examples, as a batch of their own."""
    _, gamma, beta, _ = _batch()
    return batch_norm_backward(dout, batch_norm_forward(z, gamma, beta, jnp.full(len(z), 1 / len(z)))[1])[1]


def _by_numpy(z: Any, gamma: Any, beta: Any) -> Any:
    return gamma * (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + BATCH_NORM_EPS) + beta


@functools.cache
def _by_autodiff() -> tuple[np.ndarray, ...]:
    """The gradients of Σ dz̃ ⊙ z̃ with respect to z, γ and β, by autodiff of the plain formula."""
    z, gamma, beta, dout = (jnp.asarray(value) for value in _batch())

    def total(z: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
        mean, var = jnp.mean(z, axis=0)[None, :], jnp.var(z, axis=0)[None, :]
        return jnp.sum(dout * (gamma[None, :] * (z - mean) / jnp.sqrt(var + BATCH_NORM_EPS) + beta[None, :]))

    return tuple(np.asarray(d) for d in jax.jit(jax.grad(total, argnums=(0, 1, 2)))(z, gamma, beta))
