"""Strict where the package is free: no silent rank promotion, and no data set from outside the repository."""

import gc
import signal
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, settings

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
# the processes that share the tests ignore Ctrl-C, which some tests send
signal.signal(signal.SIGINT, signal.default_int_handler)
# the same examples in every run; the first one compiles, so that there is no deadline
settings.register_profile(
    "proof",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("proof")


@pytest.fixture
def x64():
    """Float64 for proofs; float32, JAX's default, elsewhere."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Forget compiled programs before their memory maps reach the system's limit, 65,530: beyond, XLA crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 10_000:
        jax.clear_caches()
        gc.collect()
