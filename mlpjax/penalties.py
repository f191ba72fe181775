"""The penalties on the weights, each beside its gradient and its Hessian derived by hand.

Only weight matrices ``W`` are penalised, never ``b``, ``gamma``, ``beta`` or ``slope``. A penalty belongs to
the objective, not to the batch: it is added once, whatever the batch size.

Source: lecture, section *Regularisation*. With the lecture's λ₁ and λ₂ and m training examples,
``λ₁ = 2m · l1`` and ``λ₂ = m · l2``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Penalty(NamedTuple):
    """A penalty of one matrix, ``f(W, *strengths)``, its gradient ``df(W, *strengths)``, and its Hessian times V.

    That product is ``ddf(W, V, *strengths)``.
    """

    f: Callable[..., jax.Array]
    df: Callable[..., jax.Array]
    ddf: Callable[..., jax.Array]


def l1_penalty(W: jax.Array, l1: float | jax.Array) -> jax.Array:
    """``l1 Σ|W|`` (the lasso). Source: ``reg-l1-norm``, ``trap-abs0``.

    >>> l1_penalty(jnp.array([[1.0, -2.0]]), 0.5)
    Array(1.5, dtype=float32)
    """
    # |w| as w sign(w): autodiff then gives sign(w), 0 at 0, where jnp.abs gives 1 (``trap-abs0``)
    return jnp.sum(l1 * W * jnp.sign(W))


def l1_gradient(W: jax.Array, l1: float | jax.Array) -> jax.Array:
    """``l1 sign(W)``, the subgradient that is 0 at 0. Source: ``reg-l1-grad``, ``err-l1-at0``.

    >>> l1_gradient(jnp.array([[1.0, 0.0, -2.0]]), 0.5)
    Array([[ 0.5,  0. , -0.5]], dtype=float32)
    """
    return l1 * jnp.sign(W)


def l1_hessian_product(W: jax.Array, V: jax.Array, l1: float | jax.Array) -> jax.Array:
    """0: ``l1 Σ|W|`` is linear by pieces; 0 also at the kink, as l1 sign(W) is by autodiff.

    >>> l1_hessian_product(jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 4.0]]), 0.5)
    Array([[0., 0.]], dtype=float32)
    """
    return jnp.zeros_like(V)


def l2_penalty(W: jax.Array, l2: float | jax.Array) -> jax.Array:
    """``(l2/2) Σ W²`` (ridge; half the squared Frobenius norm).

    Source: ``reg-frobenius``, ``reg-nn-cost``, ``reg-l2-norm``, ``reg-intuition-1``, ``trap-norm0``.

    >>> l2_penalty(jnp.array([[1.0, -2.0]]), 0.5)
    Array(1.25, dtype=float32)
    """
    # the strength inside the sum: with l2 = 0 it is 0 for any W, where 0 · ∞ would be NaN
    return jnp.sum(l2 / 2 * W * W)


def l2_gradient(W: jax.Array, l2: float | jax.Array) -> jax.Array:
    """``l2 W``. Source: ``reg-nn-grad``, ``reg-l2-grad``.

    >>> l2_gradient(jnp.array([[1.0, -2.0]]), 0.5)
    Array([[ 0.5, -1. ]], dtype=float32)
    """
    return l2 * W


def l2_hessian_product(W: jax.Array, V: jax.Array, l2: float | jax.Array) -> jax.Array:
    """``l2 V``, at every W.

    >>> l2_hessian_product(jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 4.0]]), 0.5)
    Array([[1.5, 2. ]], dtype=float32)
    """
    return l2 * V


def elastic_net(W: jax.Array, l1: float | jax.Array, l2: float | jax.Array) -> jax.Array:
    """``l1 Σ|W| + (l2/2) Σ W²`` (Zou & Hastie 2005). Source: ``reg-elastic-net``, ``err-elastic``.

    >>> elastic_net(jnp.array([[1.0, -2.0]]), 0.5, 0.5)
    Array(2.75, dtype=float32)
    """
    return l1_penalty(W, l1) + l2_penalty(W, l2)


def elastic_net_gradient(W: jax.Array, l1: float | jax.Array, l2: float | jax.Array) -> jax.Array:
    """``l1 sign(W) + l2 W``. Source: ``reg-elastic-net``.

    >>> elastic_net_gradient(jnp.array([[1.0, -2.0]]), 0.5, 0.5)
    Array([[ 1. , -1.5]], dtype=float32)
    """
    return l1_gradient(W, l1) + l2_gradient(W, l2)


def elastic_net_hessian_product(W: jax.Array, V: jax.Array, l1: float | jax.Array, l2: float | jax.Array) -> jax.Array:
    """``l2 V``, as the lasso's part has none.

    >>> elastic_net_hessian_product(jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 4.0]]), 0.5, 0.5)
    Array([[1.5, 2. ]], dtype=float32)
    """
    return l1_hessian_product(W, V, l1) + l2_hessian_product(W, V, l2)


PENALTIES: dict[str, Penalty] = {
    "l1": Penalty(l1_penalty, l1_gradient, l1_hessian_product),
    "l2": Penalty(l2_penalty, l2_gradient, l2_hessian_product),
    "elastic_net": Penalty(elastic_net, elastic_net_gradient, elastic_net_hessian_product),
}
