"""Where a chunk of steps left the finite numbers, found by taking its first steps again."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import numpy as np


def first_bad_step(losses: np.ndarray, lasts: Callable[[int], bool]) -> int:
    """The step of a chunk, from 0, whose loss is not finite, or the number n of its steps: then the next one's is not.

    ``losses (n,)`` are those of the steps; ``lasts(k)`` tells whether parameters and statistics are finite after k of
    them. The parameters after one step less are the last from which a finite loss came.

    >>> first_bad_step(np.array([0.5, np.inf, np.nan]), lambda k: k <= 1)
    1
    """
    bad = ~np.isfinite(losses)
    # all of these losses finite: the last update broke the parameters
    at = int(np.argmax(bad)) if bad.any() else len(losses)
    if at > 0 and not lasts(at - 1):
        # broken earlier, while the loss stayed finite (relu turns −∞ into 0)
        at = bisect.bisect_left(range(at - 1), True, key=lambda k: not lasts(k))
    return at


def whole_epochs(first: int, at: int, steps: int, lasts: Callable[[int], bool]) -> int:
    """How many steps of a chunk that starts at step ``first`` of its run belong to epochs that ended well.

    An epoch of ``steps`` steps ended well if it ended before the chunk's step ``at``, with finite parameters.
    """
    good = first + at
    end = good // steps * steps
    if end == good and end > first and not lasts(at):
        end -= steps
    return max(end - first, 0)


def divergence_message(epoch: int, step: int, steps: int, best_epoch: int | None) -> str:
    """What to tell of a run that diverged."""
    return (
        f"the loss stopped being finite at epoch {epoch}, step {step} of {steps}: try a lower learning "
        f"rate, gradient clipping or scaled inputs; {kept_parameters(best_epoch)}"
    )


def kept_parameters(best_epoch: int | None) -> str:
    """Say which parameters are left of a run that diverged."""
    kept = "the last ones with a finite loss" if best_epoch is None else f"those of epoch {best_epoch}, the best"
    return f"the parameters are {kept}"
