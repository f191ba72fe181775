"""Gradients of single examples, from the activations and deltas of one pass over the batch.

∂Lᵢ/∂W[l] = a[l−1]ᵢ ⊗ dz[l]ᵢ: the pass of a batch holds every example's gradient in factors, and what `backward` does
is to sum them. Here the recursion of `mlpjax.passes` runs with rules that do not sum.

* No weight and no penalty is in ∂Lᵢ/∂θ: Σᵢ pᵢ ∂Lᵢ/∂θ, with pᵢ = wᵢ/Σw, plus the penalty's gradient is what
  `mlpjax.backward` returns. A row of weight 0 is absent: its gradient is 0.
* Batch-norm must use its running statistics (``train=False``): with those of the batch, Lᵢ depends on every row.
* Dropout (``train=True`` and a key) draws the masks that `mlpjax.backward` draws from that key.

Source: ``deep-back-dW``, ``deep-back-db``, ``norm-bn-coupling``, ``err-L-vs-J``; Goodfellow 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlpjax import passes
from mlpjax.activations import ACTIVATIONS
from mlpjax.checks import check_input, row_weights
from mlpjax.config import Config
from mlpjax.errors import ConfigError
from mlpjax.heads import HEADS
from mlpjax.layers import AffineCache, BatchNormCache, affine_forward, batch_norm_backward
from mlpjax.parameters import Batch, Layer, Params, State


class RankOne(NamedTuple):
    """A matrix per row in factors: the i-th is ``left[i] ⊗ right[i]``; ``(m, n_in)`` and ``(m, n_out)``."""

    left: jax.Array
    right: jax.Array


def per_example_gradients(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = False,
) -> Params:
    """∂Lᵢ/∂θ of every example, ``params`` with a leading axis m: dW[i] = a[l−1]ᵢ ⊗ dz[l]ᵢ, db[i] = dz[l]ᵢ.

    Also dγ[i] = dz̃ᵢ ⊙ ẑᵢ, dβ[i] = dz̃ᵢ, and dslope[i] = daᵢ ⊙ ∂g/∂slope. It takes m times the memory of ``params``:
    `per_example_norms`, `per_example_factors` and `mlpjax.noise_scale.gradient_statistics` do without.

    Args:
        config: the network.
        params: from `mlpjax.init`.
        state: batch-norm's running statistics.
        batch: examples, labels and weights; ∂Lᵢ/∂θ is 0 in a row of weight 0, and otherwise without its weight.
        key: needed when training with dropout.
        train: drop units, with the masks that `mlpjax.backward` draws from ``key``.

    Raises:
        ConfigError: under batch-norm with ``train=True``, where no example has a loss of its own.
        InputError: as `mlpjax.loss`.

    Source: ``chain-cost-grad``, ``deep-back-dW``, ``deep-back-db``, ``err-bn-coupled``.

    >>> config = Config(sizes=(2, 1), head="regression")
    >>> params = (Layer(W=jnp.array([[2.0], [3.0]]), b=jnp.zeros(1)),)
    >>> batch = Batch(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0.0, 1.0]))
    >>> per_example_gradients(config, params, (), batch)[0].W[:, :, 0]  # (ŷᵢ − yᵢ) xᵢ
    Array([[2., 0.],
           [0., 2.]], dtype=float32)
    """
    return over_factors(per_example_factors(config, params, state, batch, key, train=train), _outer, lambda rows: rows)


def score_jacobian(config: Config, params: Params, state: State, x: jax.Array) -> tuple[jax.Array, Params]:
    """∂z[i, c]/∂θ, the Jacobian of the scores, by n_L backward passes over one stored forward pass.

    The c-th pass starts from the c-th unit vector in every row instead of ∂Lᵢ/∂z. Nothing is dropped, and batch-norm
    uses its running statistics. Jᵀ ∂L/∂z, row by row, is ∂Lᵢ/∂θ.

    Args:
        config: the network; its head, dropout and penalties do not matter.
        params: from `mlpjax.init`.
        state: batch-norm's running statistics.
        x: ``(m, n_0)``.

    Returns:
        ``(z, jacobian)``: the scores ``(m, n_L)`` and ``params`` with leading axes ``(m, n_L)``, in the dtype of
        ``params``; ``jacobian[l − 1].W`` is ``(m, n_L, n_{l−1}, n_l)``.

    Raises:
        InputError: for wrong shapes.

    Source: ``deep-back-dZ-recursion``.

    >>> config = Config(sizes=(2, 2), head="regression")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> z, jacobian = score_jacobian(config, params, state, jnp.array([[3.0, 5.0]]))
    >>> jacobian[0].W[0, 0]  # of z₁: x in column 1
    Array([[3., 0.],
           [5., 0.]], dtype=float32)
    """
    x = check_input(config, params, state, x, False, None)
    p, weight_sum = row_weights(None, x.shape[0], x.dtype)
    z, state, cache = passes.run_forward(config, params, state, x, p, weight_sum, False, None)
    return z, jacobian_of_pass(config, params, passes.Pass(z, z, p, weight_sum, state, cache))


def per_example_norms(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = False,
) -> jax.Array:
    """‖∂Lᵢ/∂θ‖ ``(m,)`` over all parameters, no gradient being formed: √ of the sum of `per_example_square_norms`.

    Costs one forward and one backward pass, the latter without dW. The arguments and errors are those of
    `per_example_gradients`.

    >>> config = Config(sizes=(2, 1), head="regression", bias=False)
    >>> params = (Layer(W=jnp.array([[2.0], [3.0]])),)
    >>> per_example_norms(config, params, (), Batch(jnp.array([[3.0, 4.0]]), jnp.array([17.0])))  # |ŷ − y| ‖x‖
    Array([5.], dtype=float32)
    """
    squares = per_example_square_norms(config, params, state, batch, key, train=train)
    return jnp.sqrt(sum(jax.tree.leaves(squares)))


def per_example_square_norms(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = False,
) -> Params:
    """‖∂Lᵢ/∂θ‖² for each array of ``params`` on its own: its tree, every leaf ``(m,)``.

    ‖∂Lᵢ/∂W[l]‖² = ‖a[l−1]ᵢ‖² ‖dz[l]ᵢ‖², as the norm of a ⊗ d is ‖a‖ ‖d‖ (Goodfellow 2015). The arguments and errors
    are those of `per_example_gradients`.

    >>> config = Config(sizes=(2, 1), head="regression")
    >>> params = (Layer(W=jnp.array([[2.0], [3.0]]), b=jnp.zeros(1)),)
    >>> squares = per_example_square_norms(config, params, (), Batch(jnp.array([[3.0, 4.0]]), jnp.array([16.0])))
    >>> squares[0].W, squares[0].b  # ŷ − y = 2
    (Array([100.], dtype=float32), Array([4.], dtype=float32))
    """
    factors = per_example_factors(config, params, state, batch, key, train=train)
    return over_factors(factors, lambda one: square_norm(one.left) * square_norm(one.right), square_norm)


def per_example_factors(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    train: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `per_example_gradients` with W's in factors, a `RankOne` of a[l−1] and dz[l].

    That takes m(n_in + n_out) numbers instead of m n_in n_out; the other leaves are ``(m, n_l)``. Under
    ``compute_dtype`` the factors are rounded to it, as `mlpjax.backward` rounds those of dW. The arguments and errors
    are those of `per_example_gradients`.

    >>> config = Config(sizes=(2, 1), head="regression")
    >>> params = (Layer(W=jnp.array([[2.0], [3.0]]), b=jnp.zeros(1)),)
    >>> per_example_factors(config, params, (), Batch(jnp.array([[3.0, 4.0]]), jnp.array([16.0])))[0].W
    RankOne(left=Array([[3., 4.]], dtype=float32), right=Array([[2.]], dtype=float32))
    """
    this = run_rows(config, params, state, batch, key, train)
    return factored_backward(config, params, this, HEADS[config.head].dz(this.z, this.y))


def run_rows(
    config: Config, params: Params, state: State, batch: Batch, key: jax.Array | None, train: bool
) -> passes.Pass:
    """`mlpjax.passes.run_pass`, where no row may depend on another: batch-norm in training is a `ConfigError`."""
    if train and config.batch_norm and config.depth > 1:
        raise ConfigError(
            "batch_norm with train=True couples the rows, so that no example has a gradient of its own: "
            "use train=False, which takes the running statistics"
        )
    return passes.run_pass(config, params, state, batch, train, key)


def jacobian_of_pass(config: Config, params: Params, this: passes.Pass) -> Params:
    """The Jacobian of `score_jacobian`, of a pass that was run; rows of weight 0 are 0."""

    def of_output(unit: jax.Array) -> Params:
        dz = jnp.broadcast_to(unit[None, :], this.z.shape)
        return over_factors(factored_backward(config, params, this, dz), _outer, lambda rows: rows)

    return jax.vmap(of_output, out_axes=1)(jnp.eye(this.z.shape[1], dtype=this.z.dtype))


def factored_backward(config: Config, params: Params, this: passes.Pass, dz_output: jax.Array) -> tuple[Any, ...]:
    """The recursion from any ``dz_output (m, n_L)`` down, each row on its own: leaves as `per_example_factors` has.

    A row of weight 0 is 0 in every leaf, in both factors; weights that are not valid make NaN.
    """
    # 1 for a row that counts, 0 for an absent one
    present = jnp.sign(this.p)[:, None]

    def affine(dz: jax.Array, cache: AffineCache, dtype: str | None) -> tuple[jax.Array, Any, jax.Array]:
        dx, _ = affine_forward(dz, cache.W.T, None, dtype)
        return dx, RankOne(_rounded(cache.x * present, dtype), _rounded(dz, dtype)), dz

    rules = passes.Rules(
        output=lambda config, this: dz_output * present,
        dropout=passes.RULES.dropout,
        activation=_activation_rows,
        batch_norm=_batch_norm_rows,
        affine=affine,
        penalty=lambda config, W: None,
    )
    return passes.run_backward(config, params, this, rules).params


def over_factors(
    factors: tuple[Any, ...], of_matrix: Callable[[RankOne], jax.Array], of_rows: Callable[[jax.Array], jax.Array]
) -> Params:
    """Map the leaves of `per_example_factors`, the `RankOne` of W and the rows ``(m, n_l)`` of a vector."""

    def is_matrix(leaf: Any) -> bool:
        return isinstance(leaf, RankOne)

    return jax.tree.map(lambda leaf: of_matrix(leaf) if is_matrix(leaf) else of_rows(leaf), factors, is_leaf=is_matrix)


def square_norm(rows: jax.Array) -> jax.Array:
    """Σⱼ rows[i, j]², row by row.

    >>> square_norm(jnp.array([[3.0, 4.0]]))
    Array([25.], dtype=float32)
    """
    return jnp.sum(rows * rows, axis=1)


def _outer(one: RankOne) -> jax.Array:
    return one.left[:, :, None] * one.right[:, None, :]


def _activation_rows(name: str, da: jax.Array, z: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array | None]:
    """The activation's rule without the sum over the examples in dslope."""
    dz, _ = passes.activation_backward(name, da, z, layer)
    df_dslope = ACTIVATIONS[name].df_dslope
    return dz, None if df_dslope is None else da * df_dslope(z)


def _batch_norm_rows(dout: jax.Array, cache: BatchNormCache) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The rule of batch-norm's inference form without the sums over the examples in dγ and dβ."""
    dz, _, _ = batch_norm_backward(dout, cache)
    return dz, dout * cache.zhat, dout


def _rounded(a: jax.Array, dtype: str | None) -> jax.Array:
    return a if dtype is None else a.astype(dtype).astype(a.dtype)
