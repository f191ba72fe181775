"""The layers, as pairs: ``out, cache = f_forward(...)`` and ``dx, … = f_backward(dout, cache)``.

A cache is a NamedTuple that names what the backward pass remembers. ``dv`` means ∂J/∂v and has the shape of
``v``. No layer contains a 1/m: ``dout`` already carries the row weights.

Source: lecture, sections *Deep networks*, *Regularisation* (dropout) and *Normalisation* (batch-norm).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.errors import InputError
from mlpjax.threefry import bernoulli

BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.9


class BatchNormForm(NamedTuple):
    """Where libraries' batch-norms differ: ε, the weight of the old running statistics, how the new ones count.

    ``unbiased``: the running variance averages σ² n/(n − 1), n = Σwᵢ, not σ². ``debiased``: the first batch replaces
    the start values, mean 0 and variance 1; else they fade as 0.9ᵗ, and training and inference agree only after that.
    """

    eps: float = BATCH_NORM_EPS
    momentum: float = BATCH_NORM_MOMENTUM
    unbiased: bool = False
    debiased: bool = True


BATCH_NORM_FORMS: dict[str | None, BatchNormForm] = {
    None: BatchNormForm(),
    "torch": BatchNormForm(eps=1e-5, momentum=0.9, unbiased=True, debiased=False),
    "keras": BatchNormForm(eps=1e-3, momentum=0.99, debiased=False),
}
"""By ``config.batch_norm_convention``; ``None`` is the package's own. torch's "momentum = 0.1" is its 0.9 here.

In training all normalise by the biased σ². Source: ``err-bn-eps``, ``norm-bn-inference``.
"""


class AffineCache(NamedTuple):
    """What `affine_backward` needs: the input ``x (m, n_in)`` and ``W (n_in, n_out)``. Source: ``deep-cache``."""

    x: jax.Array
    W: jax.Array


def affine_forward(
    x: jax.Array, W: jax.Array, b: jax.Array | None, compute_dtype: str | None = None
) -> tuple[jax.Array, AffineCache]:
    """Z = X W + b; ``(m, n_in), (n_in, n_out), (n_out,) → (m, n_out)``.

    Args:
        x: the layer's input, the activations of the layer before.
        W: the weights.
        b: the bias, or ``None``.
        compute_dtype: dtype of the product's factors; sums keep the dtype of ``x``.

    Source: ``deep-forward-Z``, ``deep-cache``, ``init-neuron-sum``.

    >>> z, cache = affine_forward(jnp.array([[1.0, 2.0]]), jnp.array([[3.0], [4.0]]), jnp.array([5.0]))
    >>> z
    Array([[16.]], dtype=float32)
    """
    z = _product(x, W, compute_dtype)
    if b is not None:
        z = z + b[None, :]
    return z, AffineCache(x, W)


def affine_backward(
    dz: jax.Array, cache: AffineCache, compute_dtype: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """dX = dZ Wᵀ, dW = Xᵀ dZ, db = Σᵢ dzᵢ; from ``dz (m, n_out)``.

    Source: ``deep-back-dAprev``, ``deep-back-dW``, ``deep-back-db``, ``init-zero-back-dW2``, ``init-zero-back-da1``.

    >>> _, cache = affine_forward(jnp.array([[1.0, 2.0]]), jnp.array([[3.0], [4.0]]), jnp.array([5.0]))
    >>> dx, dW, db = affine_backward(jnp.array([[10.0]]), cache)
    >>> dx, dW.T, db
    (Array([[30., 40.]], dtype=float32), Array([[10., 20.]], dtype=float32), Array([10.], dtype=float32))
    """
    dx = _product(dz, cache.W.T, compute_dtype)
    dW = _product(cache.x.T, dz, compute_dtype)
    db = jnp.sum(dz, axis=0)
    return dx, dW, db


class DropoutCache(NamedTuple):
    """What `dropout_backward` needs: ``mask (m, n)``, 1/(1 − rate) where kept and 0 where dropped."""

    mask: jax.Array


def dropout_forward(a: jax.Array, rate: float | jax.Array, key: jax.Array) -> tuple[jax.Array, DropoutCache]:
    """A ⊙ M/(1 − rate), M ~ Bernoulli(1 − rate), drawn for each example and unit; inverted dropout.

    ``rate`` is the probability of *dropping*, so that the mean of the output is the input and nothing needs
    scaling when predicting. Source: ``reg-dropout-inverted``, ``reg-dropout-train``, ``reg-dropout-connections``,
    ``reg-dropout-per-example``, ``err-dropout-p`` (Srivastava et al. 2014).

    >>> out, cache = dropout_forward(jnp.ones((2, 4)), 0.5, jax.random.key(0))
    >>> sorted(set(out.ravel().tolist()))
    [0.0, 2.0]
    """
    # drawn in float32 whatever the precision of a: one key gives one mask
    keep = bernoulli(key, 1 - jnp.asarray(rate, jnp.float32), a.shape)
    # a rate that rounds to 1 keeps nothing: 0, where 0/0 would be NaN
    mask = jnp.where(keep, 1 / (1 - jnp.asarray(rate, a.dtype)), 0)
    return a * mask, DropoutCache(mask)


def dropout_backward(da: jax.Array, cache: DropoutCache) -> jax.Array:
    """dA ⊙ M/(1 − rate), with the mask of the forward pass. Source: ``reg-dropout-backward``.

    >>> dropout_backward(jnp.array([[3.0, 3.0]]), DropoutCache(jnp.array([[2.0, 0.0]])))
    Array([[6., 0.]], dtype=float32)
    """
    return da * cache.mask


class BatchNormState(NamedTuple):
    """Running statistics: ``mean (n,)``, ``var (n,)`` and ``count``, the updates seen.

    ``var`` is biased, as in training; under torch's convention it is not.
    """

    mean: jax.Array
    var: jax.Array
    count: jax.Array  # type: ignore[assignment]  # the field shadows tuple.count


class BatchNormCache(NamedTuple):
    """What the backward passes need: ẑ ``(m, n)``, 1/√(σ² + ε) ``(n,)``, γ ``(n,)`` and the row weights p."""

    zhat: jax.Array
    inv_std: jax.Array
    gamma: jax.Array
    p: jax.Array | None


def batch_norm_forward(
    z: jax.Array, gamma: jax.Array, beta: jax.Array, p: jax.Array, eps: float = BATCH_NORM_EPS
) -> tuple[jax.Array, BatchNormCache, tuple[jax.Array, jax.Array]]:
    """z̃ = γ ⊙ ẑ + β with ẑ = (z − μ)/√(σ² + ε), μ = Σ pᵢzᵢ, σ² = Σ pᵢ(zᵢ − μ)²: the training form.

    Args:
        z: pre-activations ``(m, n)``.
        gamma: scale ``(n,)``.
        beta: shift ``(n,)``.
        p: row weights ``(m,)``, Σ pᵢ = 1 (1/m each without sample weights; a padding row has 0).
        eps: ε.

    Returns:
        z̃ ``(m, n)``, the cache, and ``(μ, σ²)``. σ² is biased and two-pass: E[z²] − μ² would cancel. A batch
        of one gives z̃ = β. So does a column that is constant, up to γ|z| eps/√ε, the rounding of its mean; in
        float32 that is 1 from |z| ≈ 10⁵ on, and no more than γ.

    Source: ``norm-bn-mean``, ``norm-bn-var``, ``norm-bn-normalise``, ``norm-bn-rescale``,
    ``trap-std-const`` (Ioffe & Szegedy 2015);
    ``norm-bn-identity``, ``norm-bn-minibatch``, ``norm-bn-scale-invariant``, ``norm-bn-faster``,
    ``norm-bn-covariate-shift``.

    >>> p = jnp.array([0.5, 0.5])
    >>> out, _, (mean, var) = batch_norm_forward(jnp.array([[1.0], [3.0]]), jnp.ones(1), jnp.zeros(1), p)
    >>> mean, var, out.round(3).T
    (Array([2.], dtype=float32), Array([1.], dtype=float32), Array([[-1.,  1.]], dtype=float32))
    """
    mean = jnp.sum(p[:, None] * z, axis=0)
    centred = z - mean[None, :]
    var = jnp.sum(p[:, None] * centred * centred, axis=0)
    inv_std = 1 / jnp.sqrt(var + eps)
    zhat = centred * inv_std[None, :]
    out = gamma[None, :] * zhat + beta[None, :]
    return out, BatchNormCache(zhat, inv_std, gamma, p), (mean, var)


def batch_norm_inference(
    z: jax.Array, gamma: jax.Array, beta: jax.Array, state: BatchNormState, eps: float = BATCH_NORM_EPS
) -> tuple[jax.Array, BatchNormCache]:
    """z̃ = γ ⊙ (z − μ̄)/√(σ̄² + ε) + β with the running μ̄, σ̄²: an affine map. Source: ``norm-bn-inference``.

    >>> state = BatchNormState(jnp.array([2.0]), jnp.array([4.0]), jnp.array(1))
    >>> batch_norm_inference(jnp.array([[4.0]]), jnp.ones(1), jnp.zeros(1), state)[0].round(3)
    Array([[1.]], dtype=float32)
    """
    inv_std = 1 / jnp.sqrt(state.var + eps)
    zhat = (z - state.mean[None, :]) * inv_std[None, :]
    return gamma[None, :] * zhat + beta[None, :], BatchNormCache(zhat, inv_std, gamma, None)


def batch_norm_backward(dout: jax.Array, cache: BatchNormCache) -> tuple[jax.Array, jax.Array, jax.Array]:
    """dγ = Σᵢ dz̃ᵢ ⊙ ẑᵢ, dβ = Σᵢ dz̃ᵢ, and dz, for which μ and σ² depend on every row.

    dzᵢ = (dẑᵢ − pᵢ Σⱼ dẑⱼ − pᵢ ẑᵢ ⊙ Σⱼ dẑⱼ ⊙ ẑⱼ)/√(σ² + ε), with dẑ = dz̃ ⊙ γ.

    After `batch_norm_inference` the statistics are constants and only the first term stays.
    Source: ``norm-bn-grad-z``, ``norm-bn-grad-gamma``, ``norm-bn-grad-beta``, ``norm-bn-coupling``.

    >>> p = jnp.array([0.5, 0.5])
    >>> _, cache, _ = batch_norm_forward(jnp.array([[1.0], [3.0]]), jnp.ones(1), jnp.zeros(1), p)
    >>> dz, dgamma, dbeta = batch_norm_backward(jnp.array([[1.0], [0.0]]), cache)
    >>> dgamma.round(3), dbeta, abs(dz).max() < 1e-4
    (Array([-1.], dtype=float32), Array([1.], dtype=float32), Array(True, dtype=bool))
    """
    zhat, p = cache.zhat, cache.p
    dgamma = jnp.sum(dout * zhat, axis=0)
    dbeta = jnp.sum(dout, axis=0)
    dzhat = dout * cache.gamma[None, :]
    if p is not None:
        sum_dzhat = cache.gamma * dbeta
        sum_dzhat_zhat = cache.gamma * dgamma
        dzhat = dzhat - p[:, None] * (sum_dzhat[None, :] + zhat * sum_dzhat_zhat[None, :])
    return dzhat * cache.inv_std[None, :], dgamma, dbeta


def batch_norm_update(
    state: BatchNormState,
    mean: jax.Array,
    var: jax.Array,
    weight_sum: jax.Array | None = None,
    form: BatchNormForm = BATCH_NORM_FORMS[None],
) -> BatchNormState:
    """Move the running statistics towards a batch's: an exponential average with momentum 0.9, debiased.

    At update t the new value has weight (1 − 0.9)/(1 − 0.9ᵗ): the first batch replaces the start values, and on
    one repeated batch training and inference agree after any number of updates. Source: ``norm-bn-inference``.

    Args:
        state: the statistics before.
        mean: μ ``(n,)`` of the batch.
        var: σ² ``(n,)``, biased.
        weight_sum: n = Σwᵢ, for an unbiased ``form`` only, so that a row of weight 2 counts as two rows. A batch with
            n ≤ 1 has no unbiased variance, and leaves the running one as it was (torch raises an error).
        form: one of `BATCH_NORM_FORMS`; one that is not debiased gives every batch the weight 1 − momentum.

    >>> start = BatchNormState(jnp.zeros(1), jnp.ones(1), jnp.array(0))
    >>> batch_norm_update(start, jnp.array([5.0]), jnp.array([3.0]))[:2]
    (Array([5.], dtype=float32), Array([3.], dtype=float32))
    """
    count = state.count + 1
    # in one dtype throughout, so that the first weight is exactly 1
    momentum = jnp.asarray(form.momentum, mean.dtype)
    new = 1 - momentum
    if form.debiased:
        new = new / (1 - momentum ** count.astype(mean.dtype))
    if form.unbiased:
        if weight_sum is None:
            raise InputError("an unbiased running variance needs n = Σwᵢ: give weight_sum")
        known = weight_sum > 1
        var = jnp.where(known, var * weight_sum / jnp.where(known, weight_sum - 1, 1), state.var)
    return BatchNormState(mean=(1 - new) * state.mean + new * mean, var=(1 - new) * state.var + new * var, count=count)


def _product(a: jax.Array, b: jax.Array, compute_dtype: str | None) -> jax.Array:
    """The matrix product, its factors rounded to ``compute_dtype``, summed in the dtype of ``a``."""
    if compute_dtype is None:
        return a @ b
    return jnp.matmul(a.astype(compute_dtype), b.astype(compute_dtype), preferred_element_type=a.dtype)
