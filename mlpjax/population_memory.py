"""How many networks train together in the memory that there is."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax.config import Config
from mlpjax.memory import COPIES, device_bytes, tree_bytes
from mlpjax.parameters import param_dtype
from mlpjax.population_step import MakeOptimizer, stack_configs, start_population


def members_that_fit(
    config: Config, optimizer: MakeOptimizer, alpha: Any, batch_size: int, memory: int | None = None
) -> float:
    """How many members with numbers like ``alpha`` fit into ``memory`` bytes, by default half of the device's.

    At least 1; infinity where nobody says how much memory there is. Nothing is allocated.

    >>> members_that_fit(Config(sizes=(4, 8, 3)), mlpjax.optim.adam, 0.1, batch_size=10, memory=15_000)
    2
    """
    total = device_bytes()
    budget = memory if memory is not None else math.inf if total is None else total // 2
    alphas = jax.tree.map(lambda number: jax.ShapeDtypeStruct((1, *jnp.shape(number)), jnp.result_type(number)), alpha)
    start = jax.eval_shape(
        functools.partial(start_population, optimizer=optimizer),
        stack_configs([config]),
        alphas,
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1)),
    )
    # the states now, at the start of this chunk and of the one before, and the best; gradients and updates; z, a and da
    activations = COPIES * batch_size * sum(config.sizes) * jnp.dtype(param_dtype(config)).itemsize
    return max(1, budget // (4 * tree_bytes(start) + 2 * tree_bytes(start.params) + activations))
