"""The layers under Pearlmutter's R-operator: for each formula of the two passes, its derivative along a direction.

R{f} = df(θ + t v)/dt at t = 0, where v moves all parameters at once: R{W} = v's W, R{x} = 0 for the input. It obeys
the rules of any derivative: R{f + g} = R{f} + R{g}, R{f g} = R{f} g + f R{g}, R{f(g)} = f′(g) R{g}. ``Rq`` means R{q}
and has the shape of ``q``. Nothing here depends on v but what starts with R, and in that everything is linear.

Source: Pearlmutter 1994, *Fast exact multiplication by the Hessian*; the formulas are those of `mlpjax.layers`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.activations import ACTIVATIONS
from mlpjax.layers import AffineCache, BatchNormCache, affine_backward, affine_forward
from mlpjax.parameters import Layer
from mlpjax.passes import slope_of


class RAffineCache(NamedTuple):
    """What `affine_r_backward` needs: R{x} ``(m, n_in)``, ``None`` for an input that does not move, and R{W}."""

    Rx: jax.Array | None
    RW: jax.Array


def affine_r_forward(
    Rx: jax.Array | None, RW: jax.Array, Rb: jax.Array | None, cache: AffineCache, compute_dtype: str | None = None
) -> tuple[jax.Array, RAffineCache]:
    """R{Z} = X R{W} + R{X} W + R{b}, of Z = X W + b; ``(m, n_out)``. Without ``Rx`` the input does not move.

    >>> cache = AffineCache(x=jnp.array([[1.0, 2.0]]), W=jnp.array([[3.0], [4.0]]))
    >>> affine_r_forward(jnp.array([[1.0, 0.0]]), jnp.array([[0.0], [1.0]]), jnp.array([10.0]), cache)[0]
    Array([[15.]], dtype=float32)
    """
    Rz, _ = affine_forward(cache.x, RW, Rb, compute_dtype)
    if Rx is not None:
        Rz = Rz + affine_forward(Rx, cache.W, None, compute_dtype)[0]
    return Rz, RAffineCache(Rx, RW)


def affine_r_backward(
    Rdz: jax.Array, dz: jax.Array, cache: AffineCache, Rcache: RAffineCache, compute_dtype: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """R{dX} = R{dZ} Wᵀ + dZ R{W}ᵀ, R{dW} = Xᵀ R{dZ} + R{X}ᵀ dZ, R{db} = Σᵢ R{dzᵢ}.

    >>> cache = AffineCache(x=jnp.array([[1.0, 2.0]]), W=jnp.array([[3.0], [4.0]]))
    >>> _, Rcache = affine_r_forward(jnp.array([[1.0, 0.0]]), jnp.array([[0.0], [1.0]]), None, cache)
    >>> Rdx, RdW, Rdb = affine_r_backward(jnp.array([[1.0]]), jnp.array([[10.0]]), cache, Rcache)
    >>> Rdx, RdW.T, Rdb
    (Array([[ 3., 14.]], dtype=float32), Array([[11.,  2.]], dtype=float32), Array([1.], dtype=float32))
    """
    Rdx, RdW, Rdb = affine_backward(Rdz, cache, compute_dtype)
    Rdx = Rdx + affine_forward(dz, Rcache.RW.T, None, compute_dtype)[0]
    if Rcache.Rx is not None:
        RdW = RdW + affine_backward(dz, AffineCache(Rcache.Rx, Rcache.RW), compute_dtype)[1]
    return Rdx, RdW, Rdb


class RBatchNormCache(NamedTuple):
    """What `batch_norm_r_backward` needs: R{ẑ} ``(m, n)``, R{γ} and R{√(σ² + ε)} ``(n,)``, 0 for running statistics."""

    Rzhat: jax.Array
    Rgamma: jax.Array
    Rstd: jax.Array


def batch_norm_r_forward(
    Rz: jax.Array, Rgamma: jax.Array, Rbeta: jax.Array, cache: BatchNormCache
) -> tuple[jax.Array, RBatchNormCache]:
    """R{z̃} = R{γ} ⊙ ẑ + γ ⊙ R{ẑ} + R{β}, through the batch's mean and variance, which move with every row.

    With s = √(σ² + ε): R{μ} = Σ pᵢ R{zᵢ}, R{s} = Σ pᵢ ẑᵢ ⊙ (R{zᵢ} − R{μ}) and R{ẑᵢ} = (R{zᵢ} − R{μ} − ẑᵢ R{s})/s. After
    `batch_norm_inference` the statistics are constants: R{ẑ} = R{z}/s.

    >>> cache = BatchNormCache(jnp.array([[-1.0], [1.0]]), jnp.ones(1), jnp.ones(1), jnp.array([0.5, 0.5]))
    >>> Rz, zero = jnp.array([[3.0], [5.0]]), jnp.zeros(1)  # shift and stretch: ẑ does not move
    >>> batch_norm_r_forward(Rz, zero, zero, cache)[0].T
    Array([[0., 0.]], dtype=float32)
    """
    zhat, p, Rstd = cache.zhat, cache.p, jnp.zeros_like(cache.inv_std)
    if p is not None:
        Rz = Rz - jnp.sum(p[:, None] * Rz, axis=0)[None, :]
        Rstd = jnp.sum(p[:, None] * zhat * Rz, axis=0)
        Rz = Rz - zhat * Rstd[None, :]
    Rzhat = Rz * cache.inv_std[None, :]
    Rout = Rgamma[None, :] * zhat + cache.gamma[None, :] * Rzhat + Rbeta[None, :]
    return Rout, RBatchNormCache(Rzhat, Rgamma, Rstd)


def batch_norm_r_backward(
    Rdout: jax.Array, dout: jax.Array, dz: jax.Array, cache: BatchNormCache, Rcache: RBatchNormCache
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """R{dz}, R{dγ} and R{dβ}: the product rule on every term of `mlpjax.layers.batch_norm_backward`.

    R{dγ} = Σᵢ R{dz̃ᵢ} ⊙ ẑᵢ + dz̃ᵢ ⊙ R{ẑᵢ}, R{dβ} = Σᵢ R{dz̃ᵢ}, R{dẑ} = R{dz̃} ⊙ γ + dz̃ ⊙ R{γ}, and with s = √(σ² + ε)

        R{dzᵢ} = (R{dẑᵢ} − pᵢ R{γ ⊙ dβ} − pᵢ R{ẑᵢ} ⊙ γ ⊙ dγ − pᵢ ẑᵢ ⊙ R{γ ⊙ dγ} − dzᵢ R{s})/s.

    Args:
        Rdout: R{dz̃} ``(m, n)``.
        dout: dz̃ ``(m, n)``.
        dz: what `batch_norm_backward` made of ``dout``.
        cache: of the forward pass.
        Rcache: of the R-forward pass.

    >>> cache = BatchNormCache(jnp.array([[-1.0], [1.0]]), jnp.ones(1), jnp.array([2.0]), None)
    >>> Rcache = RBatchNormCache(jnp.zeros((2, 1)), jnp.array([1.0]), jnp.zeros(1))  # only γ moves
    >>> dout = jnp.array([[3.0], [4.0]])
    >>> batch_norm_r_backward(jnp.zeros((2, 1)), dout, 2 * dout, cache, Rcache)[0].T
    Array([[3., 4.]], dtype=float32)
    """
    zhat, gamma, p = cache.zhat, cache.gamma, cache.p
    Rzhat, Rgamma, Rstd = Rcache
    Rdgamma = jnp.sum(Rdout * zhat + dout * Rzhat, axis=0)
    Rdbeta = jnp.sum(Rdout, axis=0)
    Rdz = Rdout * gamma[None, :] + dout * Rgamma[None, :]
    if p is not None:
        dgamma, dbeta = jnp.sum(dout * zhat, axis=0), jnp.sum(dout, axis=0)
        Rsum = Rgamma * dbeta + gamma * Rdbeta
        Rsum_zhat = Rgamma * dgamma + gamma * Rdgamma
        terms = Rsum[None, :] + Rzhat * (gamma * dgamma)[None, :] + zhat * Rsum_zhat[None, :]
        Rdz = Rdz - p[:, None] * terms - dz * Rstd[None, :]
    return Rdz * cache.inv_std[None, :], Rdgamma, Rdbeta


def activation_r_forward(name: str, Rz: jax.Array, z: jax.Array, layer: Layer, Rlayer: Layer) -> jax.Array:
    """R{A} = g′(Z) ⊙ R{Z}, and ∂g/∂slope ⊙ R{slope} where the slope is learnt.

    >>> layer = Layer(W=jnp.ones((1, 1)))
    >>> activation_r_forward("tanh", jnp.array([[2.0]]), jnp.array([[0.0]]), layer, layer)
    Array([[2.]], dtype=float32)
    """
    g = ACTIVATIONS[name]
    Ra = g.df(z, *slope_of(layer)) * Rz
    if g.df_dslope is not None and Rlayer.slope is not None:
        Ra = Ra + g.df_dslope(z) * Rlayer.slope[None, :]
    return Ra


def activation_r_backward(
    name: str, Rda: jax.Array, da: jax.Array, z: jax.Array, Rz: jax.Array, layer: Layer, Rlayer: Layer
) -> tuple[jax.Array, jax.Array | None]:
    """R{dZ} = R{dA} ⊙ g′(Z) + dA ⊙ R{g′(Z)}, and R{dslope} = Σᵢ R{dA} ⊙ ∂g/∂slope + dA ⊙ ∂²g/∂z∂slope ⊙ R{Z}.

    R{g′(Z)} = g″(Z) ⊙ R{Z}; of PReLU, where g″ = 0, it is ∂²g/∂z∂slope ⊙ R{slope}.

    >>> layer, one = Layer(W=jnp.ones((1, 1))), jnp.ones((1, 1))
    >>> activation_r_backward("softplus", 0 * one, one, 0 * one, one, layer, layer)  # σ′(0)
    (Array([[0.25]], dtype=float32), None)
    """
    g = ACTIVATIONS[name]
    Rdz = Rda * g.df(z, *slope_of(layer))
    if g.d2f is not None:
        Rdz = Rdz + da * g.d2f(z) * Rz
    if g.df_dslope is None or g.d2f_dslope is None or Rlayer.slope is None:
        return Rdz, None
    mixed = da * g.d2f_dslope(z)
    return Rdz + mixed * Rlayer.slope[None, :], jnp.sum(Rda * g.df_dslope(z) + mixed * Rz, axis=0)
