"""Optimisers and learning-rate schedules by name, for the command line; all of them are optax's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import optax

from mlpjax.errors import ConfigError, unknown_name

OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad,
    "adadelta": optax.adadelta,
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
}
"""Optimisers by the lecture's names, as functions of the learning rate or its schedule.

Source: ``opt-momentum-v``, ``opt-momentum-theta``, ``opt-momentum-beta``, ``opt-momentum-heavyball``,
``opt-momentum-accelerate``, ``opt-momentum-damp``, ``opt-momentum-physics``, ``opt-nag-lookahead``, ``opt-nag``,
``opt-nag-compare``, ``opt-adagrad-notation``, ``opt-adagrad-G``, ``opt-adagrad-theta``, ``opt-adagrad-frequency``,
``opt-adagrad-shrink``, ``opt-adadelta-slide``, ``opt-adadelta-paper``, ``opt-rmsprop``, ``opt-rmsprop-axes``,
``opt-rmsprop-first-step``, ``opt-adam-v``, ``opt-adam-s``, ``opt-adam-theta-slide``, ``opt-adam-paper``,
``opt-adam-hparams``, ``opt-adam-composition``, ``opt-adam-bias``, ``opt-index-consistency``, ``opt-trajectories``,
``train-first-order``.
"""

SCHEDULES: dict[str, Callable[[float, int], Any]] = {
    "constant": lambda lr, steps: lr,
    "cosine": lambda lr, steps: optax.cosine_decay_schedule(lr, steps),
    "linear": lambda lr, steps: optax.linear_schedule(lr, 0.0, steps),
    "warmup_cosine": lambda lr, steps: _warmup_cosine(lr, steps),
}
"""Schedules by name, as functions of the peak learning rate and the number of steps."""


def _warmup_cosine(lr: float, steps: int) -> Any:
    """Warm up for a tenth of the steps; a single step has no room for it, and would be taken with a rate of 0."""
    return lr if steps < 2 else optax.warmup_cosine_decay_schedule(0.0, lr, max(1, steps // 10), steps)


def make_optimizer(
    name: str, lr: float, *, schedule: str = "constant", steps: int = 1, clip: float | None = None
) -> optax.GradientTransformation:
    """Put together an optimiser: gradients clipped to a global norm of ``clip``, if given, then the rule.

    Args:
        name: one of `OPTIMIZERS`.
        lr: the learning rate α, or its peak.
        schedule: one of `SCHEDULES`.
        steps: the number of updates that the schedule spans.
        clip: the largest norm of the whole gradient.

    Raises:
        ConfigError: for an unknown name, and for a learning rate or norm that is not finite and positive.

    Source: ``erm-issue-optimiser``.

    >>> make_optimizer("adamm", 1e-3)
    Traceback (most recent call last):
        ...
    mlpjax.errors.ConfigError: unknown optimizer 'adamm': did you mean 'adam'? known: sgd, ...
    """
    if name not in OPTIMIZERS:
        raise ConfigError(unknown_name("optimizer", name, OPTIMIZERS))
    if schedule not in SCHEDULES:
        raise ConfigError(unknown_name("schedule", schedule, SCHEDULES))
    for what, value in (("learning rate", lr), ("clip", clip)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{what} is {value}: expected a finite number > 0")
    rule = OPTIMIZERS[name](SCHEDULES[schedule](lr, max(1, steps)))
    return rule if clip is None else optax.chain(optax.clip_by_global_norm(clip), rule)
