"""Kronecker-factored curvature (K-FAC): a layer's block of the Fisher matrix as A ⊗ G, from activations and deltas.

The Fisher matrix of the model's distribution p(y | x), which for every head of mlpjax is the generalised Gauss–Newton
matrix Σᵢ pᵢ Jᵢᵀ (∂²Lᵢ/∂z²) Jᵢ too, is a mean of products of gradients. For layer l such a gradient is ā ⊗ d with the
layer's input ā = (a[l−1], 1), the 1 for a bias, and a delta d = ∂L/∂z[l]: its block is E[āāᵀ ⊗ ddᵀ]. K-FAC takes it
for the product of the means,

    A[l−1] = Σᵢ pᵢ āᵢāᵢᵀ,   G[l] = Σᵢ pᵢ E[dᵢdᵢᵀ],   block of layer l ≈ A[l−1] ⊗ G[l]     pᵢ = wᵢ/Σw

which is exact for one example, and where āāᵀ and E[ddᵀ] do not vary together, as in linear regression. Entries go as
``dW.ravel()`` with db as a last row: row (j, k) and column (j′, k′) hold A[j, j′] G[k, k′].

Source: Martens & Grosse 2015, *Optimizing neural networks with Kronecker-factored approximate curvature*.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlpjax.checks import check_number
from mlpjax.config import Config
from mlpjax.distributions import DISTRIBUTIONS
from mlpjax.errors import InputError, unknown_name
from mlpjax.heads import HEADS
from mlpjax.parameters import Batch, Layer, Params, State
from mlpjax.passes import Pass
from mlpjax.per_example import factored_backward, over_factors, run_rows

KINDS = ("exact", "sampled", "empirical")


class Curvature(NamedTuple):
    """What is kept of a layer: A ``(n_{l−1} + 1, …)`` (no + 1 without b), G ``(n_l, n_l)``, and three diagonals.

    ``gamma``, ``beta`` and ``slope`` are the diagonal of the same matrix for the vectors of that name, exactly;
    ``None`` where the layer has none.
    """

    A: jax.Array
    G: jax.Array
    gamma: jax.Array | None = None
    beta: jax.Array | None = None
    slope: jax.Array | None = None


def kfac_factors(
    config: Config,
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    kind: str = "exact",
    train: bool = False,
) -> tuple[Curvature, ...]:
    """A[l−1] and G[l] of every layer, in the order of l, from one forward pass and the deltas of its rows.

    Their average over batches is that of their leaves: ``jax.tree.map(lambda old, new: 0.95 * old + 0.05 * new, …)``.

    Args:
        config: the network. Its penalties are left out: l2 I is for the damping.
        params: from `mlpjax.init`.
        state: batch-norm's running statistics.
        batch: examples, labels and weights; a row of weight 0 is absent.
        key: needed to sample, and when training with dropout.
        kind: which deltas d:

            * ``"exact"``: E over all labels, by n_L backward passes that start from the columns of R, R Rᵀ = ∂²L/∂z²
              (`mlpjax.distributions`). The labels of the batch do not matter.
            * ``"sampled"``: of labels drawn from p(y | x), one a row, by one backward pass: unbiased for
              ``"exact"``, and what Martens & Grosse do.
            * ``"empirical"``: of the labels given, by one backward pass. That is not the Fisher matrix: where the
              network fits its labels it vanishes.
        train: drop units, with the masks that `mlpjax.backward` draws from ``key``.

    Raises:
        ConfigError: under batch-norm with ``train=True``, which couples the rows.
        InputError: for an unknown kind, without a key to sample, and as `mlpjax.loss`.

    >>> config = Config(sizes=(1, 2), head="regression")
    >>> params, state = mlpjax.init(config, jax.random.key(0))
    >>> (layer,) = kfac_factors(config, params, state, Batch(jnp.array([[1.0], [3.0]]), jnp.zeros((2, 2))))
    >>> layer.A, layer.G  # the means of (x, 1)(x, 1)ᵀ and of I
    (Array([[5., 2.],
           [2., 1.]], dtype=float32), Array([[1., 0.],
           [0., 1.]], dtype=float32))
    """
    if kind not in KINDS:
        raise InputError(unknown_name("kind", kind, KINDS))
    if kind == "sampled" and key is None:
        raise InputError("kind='sampled' draws labels: give a key, key=jax.random.key(…), or kind='exact'")
    this = run_rows(config, params, state, batch, key, train)

    def of_output(dz: jax.Array) -> tuple[list[jax.Array], Params]:
        factors = factored_backward(config, params, this, dz)
        return [layer.W.left for layer in factors], over_factors(factors, lambda one: one.right, lambda rows: rows)

    inputs, deltas = jax.vmap(of_output, out_axes=(None, 0))(_output_deltas(config, this, key, kind))
    return tuple(_curvature(this.p, a, of_layer) for a, of_layer in zip(inputs, deltas, strict=True))


def kfac_precondition(factors: tuple[Curvature, ...], grads: Params, damping: float | jax.Array) -> Params:
    """(A + π√λ I)⁻¹ (dW; db) (G + √λ/π I)⁻¹ for every layer, π² = (tr A/dim A)/(tr G/dim G): a natural gradient.

    That is (A ⊗ G + λI)⁻¹ but for the cross terms √λ(πI ⊗ G + A ⊗ I/π), which π keeps small (Martens & Grosse 2015,
    section 6.3); π = 1 where a factor is 0. The vectors γ, β and slope are divided by their diagonal + λ.

    Args:
        factors: from `kfac_factors`, or an average of such.
        grads: of the same network, from `mlpjax.backward`.
        damping: λ > 0. With an l2 penalty, whose Hessian is l2 I, add l2.

    Returns:
        A tree like ``grads``; a step against it is a descent step. Solved by Cholesky's method: NaN where λ is too
        small for the rounding of the factors.

    Raises:
        InputError: for a damping that is not above 0, and for factors of another network.

    >>> factors = (Curvature(A=jnp.array([[4.0]]), G=jnp.array([[1.0]])),)
    >>> kfac_precondition(factors, (Layer(W=jnp.array([[8.0]])),), 1e-6)[0].W.round(2)
    Array([[2.]], dtype=float32)
    """
    check_number("damping", damping, positive=True)
    got = [(layer.A.shape[0], layer.G.shape[0]) for layer in factors]
    expected = [(layer.W.shape[0] + (layer.b is not None), layer.W.shape[1]) for layer in grads]
    if got != expected:
        raise InputError(f"factors A and G have sizes {got}: grads expect {expected}")
    return tuple(_precondition(one, layer, damping) for one, layer in zip(factors, grads, strict=True))


def _output_deltas(config: Config, this: Pass, key: jax.Array | None, kind: str) -> jax.Array:
    """The ∂L/∂z ``(number of passes, m, n_L)`` that the backward passes start from."""
    model, dz = DISTRIBUTIONS[config.head], HEADS[config.head].dz
    if kind == "exact":
        return jnp.moveaxis(model.root(this.z), 2, 0)
    if kind == "empirical" or key is None:
        return dz(this.z, this.y)[None]
    # the layers that may drop units draw from fold_in(key, 0 … L − 1)
    return dz(this.z, model.sample(jax.random.fold_in(key, config.depth), this.z))[None]


def _curvature(p: jax.Array, a: jax.Array, deltas: Layer) -> Curvature:
    if deltas.b is not None:
        a = jnp.column_stack([a, jnp.ones_like(p)])

    def diagonal(rows: jax.Array | None) -> jax.Array | None:
        return None if rows is None else p @ jnp.sum(rows * rows, axis=0)

    d = jnp.reshape(deltas.W, (-1, deltas.W.shape[2]))
    weighted = jnp.reshape(deltas.W * p[None, :, None], d.shape)
    return Curvature(
        (a * p[:, None]).T @ a, weighted.T @ d, diagonal(deltas.gamma), diagonal(deltas.beta), diagonal(deltas.slope)
    )


def _precondition(one: Curvature, grads: Layer, damping: float | jax.Array) -> Layer:
    dtype = grads.W.dtype
    damping = jnp.asarray(damping, dtype)
    size_a, size_g = jnp.trace(one.A) / len(one.A), jnp.trace(one.G) / len(one.G)
    flat = (size_a == 0) | (size_g == 0)
    pi = jnp.where(flat, 1, jnp.sqrt(size_a / jnp.where(flat, 1, size_g)))
    stacked = grads.W if grads.b is None else jnp.concatenate([grads.W, grads.b[None, :]])
    step = _solve(one.A, pi * jnp.sqrt(damping), stacked)
    step = _solve(one.G, jnp.sqrt(damping) / pi, step.T).T

    def scaled(grad: jax.Array | None, diagonal: Any) -> jax.Array | None:
        return None if grad is None else grad / (diagonal + damping)

    return Layer(
        W=step[: grads.W.shape[0]],
        b=None if grads.b is None else step[-1],
        gamma=scaled(grads.gamma, one.gamma),
        beta=scaled(grads.beta, one.beta),
        slope=scaled(grads.slope, one.slope),
    )


def _solve(matrix: jax.Array, damping: jax.Array, right: jax.Array) -> jax.Array:
    return jax.scipy.linalg.solve(matrix + damping * jnp.eye(len(matrix), dtype=matrix.dtype), right, assume_a="pos")
