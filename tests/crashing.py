"""A crash in the middle of training, for tests of what is left then."""

import jax
import numpy as np

from mlpjax import Batch
from mlpjax.snapshots import digest

RNG = np.random.default_rng(0)
TRAIN = Batch(RNG.normal(size=(40, 4)).astype(np.float32), RNG.integers(0, 3, 40))
VALID = Batch(RNG.normal(size=(12, 4)).astype(np.float32), RNG.integers(0, 3, 12))


class Killed(Exception):
    """What a test raises in the place of a crash."""


def crasher(stop_after):
    """A callback that crashes in call number ``stop_after``, or never if that is ``None``."""
    calls = 0

    def crash(_):
        nonlocal calls
        calls += 1
        if calls == stop_after:
            raise Killed

    return crash


def bits(result):
    """All of the result of `mlpjax.fit`, or of a member, but its times."""
    history = {name: column for name, column in result.history.items() if name != "seconds"}
    leaves = jax.tree.leaves((result.params, result.state, result.opt_state))
    return digest(leaves), history, result.epoch, result.stop_reason, result.message, result.diverged_at
