"""Threefry-2x32, the generator behind `jax.random`, written so that a compiler makes one loop of it.

On a CPU JAX compiles its own as a loop of five rounds over arrays, which takes seven times as long. The bits are
the same. Source: Salmon, Moraes, Dror & Shaw 2011, *Parallel random numbers: as easy as 1, 2, 3*.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry(key: tuple[jax.Array, jax.Array], x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Encrypt the counters ``x`` with ``key``, each two uint32 words: 20 rounds of add, rotate, xor.

    >>> zero = jnp.uint32(0)
    >>> [hex(word) for word in threefry((zero, zero), (zero, zero))]
    ['0x6b200159', '0x99ba4efe']
    """
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(PARITY))
    x0, x1 = x[0] + keys[0], x[1] + keys[1]
    for i in range(5):
        for r in ROTATIONS[i % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << jnp.uint32(r)) | (x1 >> jnp.uint32(32 - r)))
        x0 = x0 + keys[(i + 1) % 3]
        x1 = x1 + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return x0, x1


def fold_in(key: jax.Array, data: int | jax.Array) -> jax.Array:
    """`jax.random.fold_in`, for a number that is not negative.

    >>> key = jax.random.key(0)
    >>> bool(fold_in(key, 7) == jax.random.fold_in(key, 7))
    True
    """
    if (words := _words(key)) is None:
        return jax.random.fold_in(key, data)
    folded = jnp.stack(threefry(words, (jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32))))
    return jax.random.wrap_key_data(folded) if _is_typed(key) else folded


def bernoulli(key: jax.Array, p: float | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`jax.random.bernoulli` with ``p`` in float32: true with probability p, bool of ``shape``.

    >>> key = jax.random.key(0)
    >>> bool(jnp.all(bernoulli(key, 0.3, (4, 5)) == jax.random.bernoulli(key, 0.3, (4, 5))))
    True
    """
    p = jnp.asarray(p, jnp.float32)
    n = math.prod(shape)
    if (words := _words(key)) is None or n >= 2**32:
        return jax.random.bernoulli(key, p, shape)
    counters = jax.lax.iota(jnp.uint32, n).reshape(shape)
    high, low = threefry(words, (jnp.zeros(shape, jnp.uint32), counters))
    # 23 random bits behind the exponent of 1 make a float in [1, 2)
    bits = ((high ^ low) >> jnp.uint32(9)) | jnp.uint32(0x3F800000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32) - 1 < p


def _words(key: jax.Array) -> tuple[jax.Array, jax.Array] | None:
    """The two words of a Threefry key; ``None`` for a key of another generator, or of one set up in another way."""
    settings: Any = jax.config
    if not settings.jax_threefry_partitionable or settings.jax_default_prng_impl != "threefry2x32":
        return None
    if _is_typed(key):
        if str(jax.random.key_impl(key)) != "threefry2x32":
            return None
        key = jax.random.key_data(key)
    return None if key.shape != (2,) else (key[0], key[1])


def _is_typed(key: jax.Array) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
