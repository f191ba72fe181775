"""What a run is, so that a checkpoint of another one is not taken for its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.chunks import Run, key_words
from mlpjax.disk import DiskRun
from mlpjax.parameters import Batch
from mlpjax.snapshots import digest
from mlpjax.step import function_name, without_places

_SAMPLES = 64
"""How many blocks of a file count for its fingerprint: it may be larger than memory."""


def identity(
    run: Run,
    valid_data: Batch | None,
    patience: int | None,
    monitor: str,
    info: Mapping[str, Any],
) -> dict[str, Any]:
    """What decides the numbers of a run beside its start and its optimiser, as plain JSON, named as in `mlpjax.fit`.

    Data are known by a SHA-256: of an `mlpjax.DiskData`, over its shapes and a sample of its blocks.
    """
    return {
        **{f"config.{name}": value for name, value in run.config.to_dict().items()},
        **{f"info[{name!r}]": value for name, value in info.items()},
        "batch_size": run.batch_size,
        "key": [_generator(run.key), *key_words(run.key)],
        "order_key": run.words,
        "grad_fn": function_name(run.static["grad_fn"]),
        "augment": None if run.augment is None else _augmentation(run.augment),
        "train_data": _file_digest(run) if isinstance(run, DiskRun) else _digest(run.data),
        "valid_data": None if valid_data is None else _digest(valid_data),
        "patience": patience,
        "monitor": monitor,
    }


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], expected: str) -> str | None:
    """Name the first entry in which two mappings differ, and both values; ``None`` if there is none.

    >>> first_difference({"batch_size": 32}, {"batch_size": 64}, "this run")
    'batch_size is 32 in it, 64 in this run'
    """
    for name in [*new, *(name for name in old if name not in new)]:
        values = [_short(values[name]) if name in values else "absent" for values in (old, new)]
        if name not in old or name not in new or old[name] != new[name]:
            return f"{name} is {values[0]} in it, {values[1]} in {expected}"
    return None


def _generator(key: jax.Array) -> str:
    """The name of a key's generator; a raw key is of the default one."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return str(jax.random.key_impl(key)) if typed else "raw"


def _augmentation(augment: Any) -> list[str]:
    """What an augmentation is, and a SHA-256 of its numbers."""
    leaves, structure = jax.tree.flatten(augment)
    return [without_places(str(structure)), digest(map(jnp.asarray, leaves))]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:40]}…"


def _digest(batch: Batch) -> str:
    return digest(array for array in batch if array is not None)


def _file_digest(run: DiskRun) -> str:
    block, parts = run.disk.block, []
    for array in run.arrays:
        if array is not None:
            parts.append(np.array(array.shape))
            starts = np.unique(np.linspace(0, max(len(array) - block, 0), _SAMPLES).astype(int))
            parts += [np.asarray(array[at : at + block]) for at in starts]
    return digest(parts)
