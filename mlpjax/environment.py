"""What numbers depend on beside the program and its input: versions, flags, the device, the processor."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mlpjax.versions import versions

Environment = dict[str, dict[str, Any]]

VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
"""Variables of the environment that change numbers, beside ``JAX_…``."""
THREADS = ("PJRT_NPROC", "NPROC")
"""Variables from which XLA takes its number of threads; by default it is that of the processors it may use."""
CONFIG = (
    "jax_default_dtype_bits", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_disable_jit",
    "jax_disable_most_optimizations", "jax_enable_x64", "jax_numpy_dtype_promotion", "jax_num_cpu_devices",
    "jax_optimization_level", "jax_random_seed_offset", "jax_threefry_partitionable",
)  # fmt: skip
"""Values of ``jax.config`` that change numbers, of those that a version of JAX has."""
_PLACE = re.compile(r"JAX_.*_(DIR|PATH|FILE)")
_DUMP = re.compile(r"--xla_dump\S*")
_VECTOR = re.compile(r"sse4\w*|avx\w*|fma|f16c|amx\w*|asimd\w*|sve\w*")


def environment() -> Environment:
    """What the numbers of a run here depend on, section by section, as JSON has it.

    ``versions``; ``flags``, variables that are set, but no folders; ``jax_config``;
    ``device``; ``machine``: the processor, its vector instructions, and among how many threads XLA shares a product.

    >>> sorted(environment())
    ['device', 'flags', 'jax_config', 'machine', 'versions']
    """
    return {
        "versions": dict(versions()),
        "flags": {name: _flags(value) for name, value in sorted(os.environ.items()) if _is_flag(name)},
        "jax_config": {name: _plain(getattr(jax.config, name)) for name in CONFIG if hasattr(jax.config, name)},
        "device": _device(),
        "machine": _machine(),
    }


def differences(theirs: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Name what differs in two trees of JSON, each with both values; ``None`` for what is missing.

    >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}})
    {'a.c': (2, 3), 'a.d': (None, 4)}
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys((*theirs, *here)):
        one, other = theirs.get(name), here.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found |= differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found[f"{prefix}{name}"] = one, other
    return found


def processor() -> str:
    """The name of the processor, from where Linux has it, or else from Python."""
    return next(iter(_cpuinfo("model name")), platform.processor())


def _is_flag(name: str) -> bool:
    return name in VARIABLES or (name.startswith("JAX_") and not _PLACE.fullmatch(name))


def _flags(value: str) -> str:
    """Flags without those that name a folder for XLA's notes."""
    return " ".join(_DUMP.sub("", value).split())


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _device() -> dict[str, Any]:
    devices = jax.devices()
    version = " ".join(devices[0].client.platform_version.split())
    return {
        "kind": devices[0].device_kind,
        "platform": devices[0].platform,
        "platform_version": version,
        "count": len(devices),
    }


def _machine() -> dict[str, Any]:
    flags = next(iter(_cpuinfo("flags") or _cpuinfo("Features")), "")
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": processor(),
        "vector_instructions": " ".join(sorted(flag for flag in flags.split() if _VECTOR.fullmatch(flag))),
        "threads": _threads(),
    }


def _threads() -> int | None:
    for value in map(os.environ.get, THREADS):
        if value is not None and value.isdecimal() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpuinfo(name: str) -> list[str]:
    """The values of a line of Linux's ``/proc/cpuinfo``, one per processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name]
