"""Augmentation of vectors: noise on the features, and mixtures of two examples with their labels.

Pass one to `mlpjax.fit` as ``augment=``; several by `mlpjax.augmenting.chain`. As in `mlpjax.augment`, example i of a
batch draws from ``fold_in(key, i)``, another strength does not recompile, and a strength of zero changes no bit.

Source: ``reg-augmentation``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax.augmenting import add_noise, example_keys, pytree, strength
from mlpjax.errors import ConfigError, DataError, InputError
from mlpjax.parameters import Batch

_MIXUP, _JITTER = range(2)
_SMALLEST_ALPHA = 1e-6
"""Below, Beta(α, α) is a fair coin all the same, and its logarithms would leave float32."""


@pytree()
@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorAugment:
    """Mix examples, then add noise.

        x̃ᵢ = λᵢ xᵢ + (1 − λᵢ) xⱼ + jitter · N(0, 1),    ỹᵢ = λᵢ yᵢ + (1 − λᵢ) yⱼ,    λᵢ ~ Beta(α, α)

    j is the row after i of the batch, whose rows `mlpjax.fit` shuffles. A row of weight 0 is nobody's partner, and
    row i keeps its own weight.

    Args:
        mixup: α; 0 mixes nothing, 1 draws λ uniformly.
        jitter: standard deviation of the noise, in units of x: one number, or one per feature ``(n_0,)``.

    Raises:
        ConfigError: naming what was got and what was expected. Traced values pass.

    Source: ``reg-augmentation``; Zhang et al. 2018, *mixup*, equation 1.

    >>> batch = Batch(jnp.array([[0.0], [1.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> x, y, _ = VectorAugment(mixup=1.0)(jax.random.key(0), batch)
    >>> bool(jnp.all(x == y[:, 1:]))
    True
    """

    mixup: Any = None
    jitter: Any = None

    def __post_init__(self) -> None:
        for name in ("mixup", "jitter"):
            checked = strength(name, getattr(self, name), lambda a: a >= 0, "a finite number ≥ 0")
            object.__setattr__(self, name, checked)
        if jnp.ndim(self.mixup if self.mixup is not None else 0):
            raise ConfigError(f"mixup is {self.mixup!r}: expected one number")

    def __call__(self, key: jax.Array, batch: Batch) -> Batch:
        """Return the batch, mixed and with noise; ``x`` keeps its dtype, integers become floats.

        Raises:
            InputError: mixup of labels that are not ``(m, n_L)`` floats, as `mlpjax.targets.target_matrix` makes them.
            DataError: if ``x`` is not ``(m, n_0)``, or ``jitter`` has another number of features.
        """
        x, y = jnp.asarray(batch.x), batch.y
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
        if x.ndim != 2:
            raise DataError(f"augment is for vectors: x has shape {x.shape}, expected (m, n_0)")
        keys = example_keys(key, x.shape[0])
        if self.mixup is not None:
            y = jnp.asarray(y)
            if y.ndim != 2 or not jnp.issubdtype(y.dtype, jnp.floating):
                raise InputError(
                    f"mixup needs targets (m, n_L) of floats, y has shape {y.shape} and dtype {y.dtype}: "
                    "mlpjax.fit makes them, as mlpjax.targets.target_matrix does"
                )
            share = 1 - mixing_weights(jax.vmap(jax.random.fold_in, (0, None))(keys, _MIXUP), self.mixup)[:, None]
            j = partners(x.shape[0], batch.weight)
            x, y = mix(x, x[j], share), mix(y, y[j], share)
        if self.jitter is not None:
            if jnp.ndim(self.jitter) and jnp.shape(self.jitter) != x.shape[1:]:
                raise DataError(
                    f"jitter has shape {jnp.shape(self.jitter)}: expected one number, or {x.shape[1:]}, one per feature"
                )
            x = add_noise(jax.vmap(jax.random.fold_in, (0, None))(keys, _JITTER), x, self.jitter)
        return batch._replace(x=x, y=y)


def partners(m: int, weight: Any = None) -> jax.Array:
    """The row after each of m rows that has a weight above 0; after the last one the first. ``(m,)`` int32.

    >>> partners(4, jnp.array([1.0, 0.0, 2.0, 0.0]))
    Array([2, 2, 0, 0], dtype=int32)
    """
    rows = jnp.arange(m, dtype=jnp.int32)
    if weight is None:
        return jnp.roll(rows, -1)
    # m stands for "none": the smallest of what follows is the next one
    following = jnp.roll(jax.lax.cummin(jnp.where(jnp.asarray(weight) > 0, rows, m), reverse=True), -1)
    following = jnp.where(following == m, following[-1:], following)
    return jnp.where(following == m, rows, following)


def mixing_weights(keys: jax.Array, alpha: Any) -> jax.Array:
    """λᵢ ~ Beta(α, α), drawn from ``keys[i]``: ``(m,)`` float32 in [0, 1]; 1 for α = 0. Mean ½, variance 1/(8α + 4).

    >>> mixing_weights(example_keys(jax.random.key(0), 3), 0.0)
    Array([1., 1., 1.], dtype=float32)
    """
    alpha = jnp.asarray(alpha, jnp.float32)
    a = jnp.maximum(alpha, _SMALLEST_ALPHA)
    drawn = jax.vmap(lambda key: jax.random.beta(key, a, a, dtype=jnp.float32))(keys)
    return jnp.where(alpha == 0, 1, drawn)


def mix(a: jax.Array, b: jax.Array, share: jax.Array) -> jax.Array:
    """(1 − share) a + share b, row by row, ``share (m, 1)``: never outside of a and b; a to the bit where share = 0.

    >>> mix(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]]), jnp.array([[0.25]]))
    Array([[0.75, 0.25]], dtype=float32)
    """
    between = jnp.clip(a + share.astype(a.dtype) * (b - a), jnp.minimum(a, b), jnp.maximum(a, b))
    return jnp.where(share == 0, a, between)
