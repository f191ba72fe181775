"""The lecture's optimisers as optax's gradient transformations, by name for the command line, and schedules by name.

Each takes the learning rate α as a number, an array ``()`` (traced: a population is one ``jax.vmap``) or an optax
schedule, and works wherever an optax optimiser does: schedules, clipping, masks and accumulation are optax's.
``convention="torch" | "keras" | "optax" | "sklearn"`` selects the form and the constants of a library (see
`mlpjax.optim_conventions`); a constant that is given goes before them.

Source: lecture, section *Optimisation*; the rules themselves, for one array, are in `mlpjax.optim_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optax

from mlpjax import optim_decay
from mlpjax.checks import check_count
from mlpjax.errors import ConfigError, unknown_name
from mlpjax.optim_adaptive import adadelta, adadelta_slide, adagrad, adam, adam_slide, rmsprop
from mlpjax.optim_conventions import library_form
from mlpjax.optim_decay import coupled_decay, decoupled_decay, proximal_l1
from mlpjax.optim_lift import Alpha
from mlpjax.optim_momentum import gradient_descent, look_back, momentum, nesterov

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "adadelta",
    "adadelta_slide",
    "adagrad",
    "adam",
    "adam_slide",
    "assemble",
    "coupled_decay",
    "decoupled_decay",
    "gradient_descent",
    "look_back",
    "make_optimizer",
    "momentum",
    "nesterov",
    "proximal_l1",
    "rmsprop",
]

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": gradient_descent,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "rmsprop": rmsprop,
    "adam": adam,
    "adam_slide": adam_slide,
}
"""Optimisers by the lecture's names, as functions of the learning rate or its schedule.

Source: ``opt-trajectories``, ``train-first-order``.
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
    name: str,
    lr: float,
    *,
    schedule: str = "constant",
    steps: int = 1,
    clip: float | None = None,
    convention: str | None = None,
    weight_decay: float | None = None,
    proximal_l1: float | None = None,
) -> optax.GradientTransformation:
    """Put together an optimiser: clipping, the rule, decoupled weight decay and soft-thresholding, in this order.

    Args:
        name: one of `OPTIMIZERS`.
        lr: the learning rate α, or its peak.
        schedule: one of `SCHEDULES`.
        steps: the number of updates that the schedule spans.
        clip: the largest norm of the whole gradient.
        convention: the library whose form of the rule is taken.
        weight_decay: l2 of `mlpjax.optim_decay.decoupled_decay`; with Adam that is AdamW.
        proximal_l1: l1 of `mlpjax.optim_decay.proximal_l1`.

    Warns:
        UserWarning: α · l2 ≥ 2: the decay never settles.

    Raises:
        ConfigError: for an unknown name, a library that lacks the rule, and for a learning rate or norm that is not
            finite and positive.

    Source: ``erm-issue-optimiser``.

    >>> make_optimizer("adamm", 1e-3)
    Traceback (most recent call last):
        ...
    mlpjax.errors.ConfigError: unknown optimizer 'adamm': did you mean 'adam'? known: sgd, ...
    """
    if name not in OPTIMIZERS:
        adamw = "; for AdamW give 'adam' and weight_decay" if name.lower() == "adamw" else ""
        raise ConfigError(f"{unknown_name('optimizer', name, OPTIMIZERS)}{adamw}")
    if schedule not in SCHEDULES:
        raise ConfigError(unknown_name("schedule", schedule, SCHEDULES))
    for what, value in (("learning rate", lr), ("clip", clip)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{what} is {value}: expected a finite number > 0")
    library_form(name, convention)
    check_count("steps", steps)
    made = assemble(name, SCHEDULES[schedule](lr, steps), clip, convention, weight_decay, proximal_l1)
    if weight_decay is not None:
        optim_decay.warn_unstable(lr, weight_decay, stacklevel=3)
    return made


def assemble(
    name: str,
    alpha: Alpha,
    clip: Any = None,
    convention: str | None = None,
    weight_decay: Any = None,
    proximal_l1: Any = None,
) -> optax.GradientTransformation:
    """Put together what `make_optimizer` makes, out of parts that were checked: its numbers may be traced.

    >>> rule = assemble("sgd", 0.5)
    >>> rule.update(2.0, rule.init(0.0))[0]
    Array(-1., dtype=float32)
    """
    parts = [OPTIMIZERS[name](alpha, **({} if convention is None else {"convention": convention}))]
    if clip is not None:
        parts.insert(0, optax.clip_by_global_norm(clip))
    if weight_decay is not None:
        parts.append(decoupled_decay(alpha, weight_decay, warn=False))
    if proximal_l1 is not None:
        parts.append(optim_decay.proximal_l1(alpha, proximal_l1))
    return parts[0] if len(parts) == 1 else optax.chain(*parts)
