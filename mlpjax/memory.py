"""How much memory there is and how much a network needs, asked before any of it is taken."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp

from mlpjax.config import Config
from mlpjax.errors import ConfigError
from mlpjax.parameters import param_dtype

COPIES = 3
"""What every step holds at least: the parameters, their gradients, and the updated parameters."""


def device_bytes() -> int | None:
    """The memory of the default device in bytes: the accelerator's own, else the machine's; None where nobody says.

    >>> device_bytes() is None or device_bytes() > 2**20
    True
    """
    statistics = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    return machine_bytes()


def machine_bytes() -> int | None:
    """The memory of the machine in bytes; None where nobody says.

    >>> machine_bytes() is None or machine_bytes() > 2**20
    True
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def tree_bytes(tree: Any) -> int:
    """The size of all arrays of a tree, or of their shapes.

    >>> tree_bytes((jnp.zeros((2, 3)), jnp.zeros(4, jnp.int8)))
    28
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_memory(config: Config) -> None:
    """Refuse a network that no optimiser could train in this device's memory.

    An operating system may promise memory that it does not have, and stop the process when it is used.

    Raises:
        ConfigError: if `COPIES` times the weights are more than `device_bytes`.

    >>> check_memory(Config(sizes=(2, 3)))
    """
    limit = device_bytes()
    weights = sum(a * b for a, b in zip(config.sizes[:-1], config.sizes[1:], strict=True))
    needed = COPIES * weights * jnp.dtype(param_dtype(config)).itemsize
    if limit is not None and needed > limit:
        raise ConfigError(
            f"sizes {config.sizes} are {weights:,} weights, whose training takes {needed / 1e9:,.0f} GB or more: "
            f"this device has {limit / 1e9:,.0f} GB; try smaller layers"
        )
