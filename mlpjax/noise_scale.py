"""How much the gradients of the examples differ: their variance, and the batch size at which that stops to matter.

Let G be the gradient of the expected loss and Σ the covariance matrix of one example's gradient ∂Lᵢ/∂θ. The gradient
of a batch of B independent examples has mean G and covariance Σ/B, and

    B_simple = tr(Σ)/‖G‖²

is the batch size at which noise and gradient are equally long (McCandlish et al. 2018, the simple noise scale): far
below it, twice the batch allows about twice the step; far above it, nothing is gained.

Source: ``erm-issue-sampling``, ``chain-cost-grad``; McCandlish et al. 2018, *An empirical model of large-batch
training*.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.config import Config
from mlpjax.errors import DataError
from mlpjax.heads import HEADS
from mlpjax.parameters import Batch, Params, State
from mlpjax.per_example import RankOne, factored_backward, over_factors, run_rows


class GradientStatistics(NamedTuple):
    """What a batch says about G and Σ: see `gradient_statistics`."""

    mean: Params
    variance: Params
    trace: jax.Array
    square_norm: jax.Array
    noise_scale: jax.Array


def gradient_statistics(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = False,
) -> GradientStatistics:
    """Estimate G and Σ from a batch, without its gradients being formed one by one.

        ḡ = Σᵢ pᵢ ∂Lᵢ/∂θ = A[l−1]ᵀ (p ⊙ dZ[l])          s = (A[l−1]²)ᵀ (p ⊙ dZ[l]²)        pᵢ = wᵢ/Σw
        variance = (s − ḡ²)/(1 − Σ pᵢ²)      tr Σ = Σ variance       ‖G‖² = ‖ḡ‖² − tr Σ · Σ pᵢ²

    Without weights 1 − Σ pᵢ² is (m − 1)/m and Σ pᵢ² is 1/m. If the rows are independent draws, ``variance``,
    ``trace`` and ``square_norm`` are unbiased whatever the weights, of which only the ratios count; a row of weight
    2 is one draw that counts twice, not two draws, and a row of weight 0 is absent.

    Args:
        config: the network. Its penalties, which no example owns, are left out.
        params: from `mlpjax.init`.
        state: batch-norm's running statistics.
        batch: examples, labels and weights.
        key: needed when training with dropout, whose masks then add to Σ.
        train: drop units, with the masks that `mlpjax.backward` draws from ``key``.

    Returns:
        ``mean`` ḡ and ``variance``, the diagonal of Σ, like ``params``; ``trace`` tr Σ, ``square_norm`` ‖G‖² and
        ``noise_scale`` their ratio as `noise_scale` takes it, scalars. ``square_norm`` may be negative: it is where
        the batch is much smaller than the noise scale. The difference s − ḡ² is rounded to about 1e-7 ḡ² in float32,
        and is at least 0. All but ``mean`` is NaN where fewer than two rows have a weight.

    Raises:
        ConfigError: under batch-norm with ``train=True``, which couples the rows.
        DataError: for fewer than 2 rows.
        InputError: as `mlpjax.loss`.

    >>> config = Config(sizes=(1, 1), head="regression", bias=False)
    >>> params = (mlpjax.Layer(W=jnp.array([[1.0]])),)
    >>> batch = Batch(jnp.ones((3, 1)), jnp.array([-4.0, -5.0, -6.0]))  # gradients 5, 6, 7
    >>> statistics = gradient_statistics(config, params, (), batch)
    >>> statistics.mean[0].W, statistics.trace.round(3), statistics.square_norm.round(3)  # 36 − 1/3
    (Array([[6.]], dtype=float32), Array(1., dtype=float32), Array(35.667, dtype=float32))
    """
    this = run_rows(config, params, state, batch, key, train)
    if (m := this.z.shape[0]) < 2:
        raise DataError(f"the batch has {m} rows: expected at least 2, one example has no variance")
    factors = factored_backward(config, params, this, HEADS[config.head].dz(this.z, this.y))
    p = this.p

    def mean_of(one: RankOne) -> jax.Array:
        return one.left.T @ (one.right * p[:, None])

    def square_of(one: RankOne) -> jax.Array:
        return mean_of(RankOne(one.left * one.left, one.right * one.right))

    mean = over_factors(factors, mean_of, lambda rows: p @ rows)
    square = over_factors(factors, square_of, lambda rows: p @ (rows * rows))
    # 1 − Σp², and 0 where nothing counts
    spread = jnp.sum(p * (1 - p))
    spread = jnp.where(spread == 0, jnp.nan, spread)
    variance = jax.tree.map(lambda mean, square: jnp.maximum(square - mean * mean, 0) / spread, mean, square)
    trace = _total(variance)
    square_norm = _total(jax.tree.map(jnp.square, mean)) - trace * jnp.sum(p * p)
    return GradientStatistics(mean, variance, trace, square_norm, noise_scale(trace, square_norm))


def noise_scale(trace: jax.Array, square_norm: jax.Array) -> jax.Array:
    """B_simple = tr(Σ)/‖G‖²; ∞ where the estimate of ‖G‖² is not above 0: gradient and noise cannot be told apart.

    A ratio of unbiased estimates is not unbiased, and that of one small batch says little: average ``trace`` and
    ``square_norm`` over batches first, as McCandlish et al. (2018, appendix A) do.

    >>> noise_scale(jnp.array([6.0, 1.0]), jnp.array([2.0, -0.5]))
    Array([ 3., inf], dtype=float32)
    """
    return jnp.where(square_norm <= 0, jnp.inf, trace / jnp.where(square_norm == 0, 1, square_norm))


def _total(tree: Params) -> jax.Array:
    """The sum of all entries."""
    return jnp.sum(jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(tree)]))
