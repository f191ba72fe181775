"""Short training runs that the doctor compares: the same one with other rates, other seeds, without penalty or dropout.

Each run is `mlpjax.fit` with the optimiser's updates times a factor, which is data: all runs are one program.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.config import Config
from mlpjax.doctor_signals import Signals, signals
from mlpjax.doctor_verdicts import Verdict, judge
from mlpjax.parameters import Batch, Params, State, init
from mlpjax.step import GradFn
from mlpjax.threefry import fold_in
from mlpjax.train import FitResult, fit

FACTORS = (0.01, 0.1, 10.0, 100.0)
"""By what the learning rate is multiplied."""
SEEDS = 5
"""How many other starts are tried."""
FEW, FEW_STEPS, FEW_RATE = 20, 1000, 0.01
"""How many examples are to be learnt by heart, in how many steps of Adam, with which rate."""
_ADAM = optax.adam(optax.cosine_decay_schedule(FEW_RATE, FEW_STEPS))
_ADVICE = {"penalty": "lower l1 and l2 tenfold", "dropout": "lower the dropout rate: 0.2 to 0.5 is usual"}
_STILL = 0.1
"""A run whose loss falls by a smaller part of the fall in the second half of its epochs is stuck."""
_SMALLEST_FALL = 0.05
"""A loss that no run can lower by this part tells nothing of rates and seeds."""


class ScaledState(NamedTuple):
    """The state of an optimiser, and the factor of its updates."""

    inner: Any
    factor: jax.Array


def scaled(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The optimiser with its updates times a factor in its state, 1 at first: another factor compiles nothing.

    >>> twice = scaled(optax.sgd(0.1))
    >>> state = twice.init(jnp.zeros(1))._replace(factor=jnp.array(2.0))
    >>> twice.update(jnp.ones(1), state)[0]
    Array([-0.2], dtype=float32)
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def start(params: Any) -> ScaledState:
        return ScaledState(optimizer.init(params), jnp.ones(()))

    def update(grads: Any, state: ScaledState, params: Any = None, **extra: Any) -> tuple[Any, ScaledState]:
        updates, inner = optimizer.update(grads, state.inner, params, **extra)
        updates = jax.tree.map(lambda step: step * state.factor.astype(step.dtype), updates)
        return updates, ScaledState(inner, state.factor)

    return optax.GradientTransformationExtraArgs(start, update)


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What all runs share: the network, the data that they train on and are ``measured`` on, and where they start.

    ``drawn``: the start is the one that the key draws.
    """

    config: Config
    optimizer: optax.GradientTransformation
    data: Batch
    measured: Batch
    epochs: int
    batch_size: int
    key: jax.Array
    grad_fn: GradFn
    params: Params
    state: State
    drawn: bool

    @property
    def quiet(self) -> Config:
        """The network without dropout."""
        return dataclasses.replace(self.config, dropout=None)

    def run(self, factor: float = 1.0, seed: int | None = None, config: Config | None = None) -> Run:
        """Train once; ``seed`` takes another key and start, ``config`` another penalty or dropout rate."""
        config = config or self.config
        key, params, state = self.key, self.params, self.state
        if seed is not None:
            key = fold_in(self.key, seed)
            params, state = init(config, key)
        opt_state = self.optimizer.init(params)._replace(factor=jnp.asarray(factor, float))
        result = fit(
            config, self.optimizer, self.data, epochs=self.epochs, batch_size=self.batch_size, key=key,
            grad_fn=self.grad_fn, params=params, state=state, opt_state=opt_state,
        )  # fmt: skip
        _raise_if_interrupted(result)
        seen = signals(self.quiet, result.params, result.state, self.measured)
        loss = math.inf if result.diverged_at is not None or not np.isfinite(seen.loss) else float(seen.loss)
        return Run(loss, seen, result)


class Run(NamedTuple):
    """A run's data loss at its end, on the measured examples with nothing dropped; infinite where it diverged."""

    loss: float
    seen: Signals
    result: FitResult


def run_verdicts(trainer: Trainer, base: Run, start: float, constant: float, moved: float) -> Iterator[Verdict]:
    """The verdicts for which other runs are compared with ``base``.

    ``start`` is the loss from which a fall counts: ``constant``, that of the best constant, or that before training if
    lower. ``moved`` is the largest ‖ΔW‖/‖W‖ of the first step.
    """
    rates = {factor: trainer.run(factor).loss for factor in FACTORS}
    without = {name: trainer.run(config=config).loss for name, config in _without(trainer.config).items()}
    best = min(base.loss, *rates.values(), *without.values())
    yield from rate_verdicts(base.loss, rates, start, moved, best)
    for name, loss in without.items():
        evidence = f"the loss ends at {base.loss:.3g}; at {loss:.3g} without it"
        yield judge(name, _cured(base.loss, loss, best, start), evidence, _ADVICE[name])
    if trainer.drawn:
        yield _seeds([base, *(trainer.run(seed=seed) for seed in range(1, SEEDS + 1))], start, constant)


def rate_verdicts(
    loss: float, others: dict[float, float], start: float, moved: float, best: float
) -> Iterator[Verdict]:
    """Is the learning rate too high or too low? Both verdicts, from the losses that other rates reach.

    A rate is too high as well where the first step moves a W by as much as its norm, ``moved``, whatever the loss does.
    ``best`` is the lowest loss of all runs, those without penalty and dropout included.

    >>> high, low = rate_verdicts(2.0, {0.1: 0.5, 10.0: 5.0}, 2.5, moved=0.01, best=0.5)
    >>> high.level, low.level, round(high.value, 3)  # 0.5 of a fall of 2 is reached
    ('warning', 'fine', 0.75)
    """
    for name, which, word in (("rate_high", lambda f: f < 1, "lower"), ("rate_low", lambda f: f > 1, "raise")):
        factor, reached = min(((f, other) for f, other in others.items() if which(f)), key=lambda pair: pair[1])
        value = _cured(loss, reached, best, start)
        evidence = f"the loss ends at {loss:.3g}; at {reached:.3g} with the learning rate times {factor:g}"
        advice = f"{word} the learning rate, {factor:g} times as large"
        if name == "rate_high" and moved > value:
            value, evidence = moved, f"the first step changes a W by {moved:.2g} of its norm"
            advice = "lower the learning rate tenfold"
        yield judge(name, value, evidence, advice)


def few_examples(trainer: Trainer, sample: Batch, constant: float) -> Verdict:
    """Learn a few examples by heart, without dropout and penalties."""
    config = dataclasses.replace(trainer.config, dropout=None, l1=None, l2=None)
    m = len(sample.x)
    result = fit(
        config, _ADAM, sample, epochs=FEW_STEPS, batch_size=m, key=trainer.key, params=trainer.params,
        state=trainer.state,
    )  # fmt: skip
    _raise_if_interrupted(result)
    end = math.inf if result.diverged_at is not None else result.history["train_loss"][-1]
    evidence = f"{m} examples have the loss {end:.2g} after {FEW_STEPS} steps of Adam; a constant has {constant:.2g}"
    advice = "look for contradicting labels; make the network wider, or start it anew"
    return judge("few_examples", end / max(constant, 1e-12), evidence, advice)


def batch_norm_verdict(by_batches: float, running: float, constant: float) -> Verdict:
    """Do the running statistics say what those of the batches do?"""
    gap = abs(running - by_batches) / max(constant, 1e-12)
    evidence = f"the loss is {by_batches:.3g} by the statistics of batches, {running:.3g} by the running ones"
    advice = "larger batches, more steps, or batch_norm_convention=None, whose statistics do not lag"
    return judge("batch_norm", gap if np.isfinite(gap) else math.inf, evidence, advice)


def overfitting_verdict(train: float, valid: float, constant: float) -> Verdict:
    """How much worse is the loss of examples that were not trained on?"""
    evidence = f"the loss is {train:.3g} in training, {valid:.3g} in validation; a constant has {constant:.3g}"
    advice = "more examples, patience= (early stopping), l2, dropout, or a smaller network"
    return judge("overfitting", (valid - train) / max(constant, 1e-12), evidence, advice)


def _without(config: Config) -> dict[str, Config]:
    """The network without its penalty, and without its dropout; as rates of 0, which compile nothing new."""
    others = {}
    if config.l1 is not None or config.l2 is not None:
        others["penalty"] = dataclasses.replace(config, l1=_zero(config.l1), l2=_zero(config.l2))
    if config.has_dropout:
        rates = config.dropout
        none = tuple(map(_zero, rates)) if isinstance(rates, tuple) else _zero(rates)
        others["dropout"] = dataclasses.replace(config, dropout=none)
    return others


def _seeds(runs: list[Run], start: float, constant: float) -> Verdict:
    """How much worse are those that got stuck? One that still learns is slow, which is another matter."""
    best = min(run.loss for run in runs)
    evidence = f"{len(runs)} starts end at losses from {best:.3g} to {max(run.loss for run in runs):.3g}"
    # where no start gets anywhere, it is not the start
    stuck = [run.loss for run in runs if best < constant / 2 and _is_stuck(run, start - best)]
    missed = max((_missed(loss, best, start) for loss in stuck), default=0.0)
    return judge("seeds", missed, evidence, "a wider network, or the best of several starts")


def _is_stuck(run: Run, fall: float) -> bool:
    """Whether a run diverged, or its loss fell by less than a tenth of ``fall`` in the second half of its epochs."""
    if math.isinf(run.loss):
        return True
    history = run.result.history["train_loss"]
    half = len(history) // 2
    return half > 0 and history[half - 1] - history[-1] < _STILL * fall


def _cured(loss: float, other: float, best: float, start: float) -> float:
    """The part of the fall to ``other`` that ``loss`` misses, if ``other`` has half of the fall to ``best``, else 0."""
    return _missed(loss, other, start) if _missed(other, best, start) <= 0.5 else 0.0


def _missed(loss: float, best: float, start: float) -> float:
    """The part of the fall from ``start`` to ``best`` that is missing in ``loss``: 0 where there is no such fall."""
    fall = start - best
    if fall <= _SMALLEST_FALL * abs(start):
        return 0.0
    return float(np.clip((loss - best) / fall, 0.0, 1.0))


def _raise_if_interrupted(result: FitResult) -> None:
    """What `mlpjax.fit` ends well, ends the examination."""
    if result.stop_reason == "interrupted":
        raise KeyboardInterrupt


def _zero(rate: Any) -> float | None:
    return None if rate is None else 0.0
