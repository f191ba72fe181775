"""Strict where the package is free: no silent rank promotion, and no data set from outside the repository."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Float64 for proofs; float32, JAX's default, elsewhere."""
    with jax.enable_x64(True):
        yield
