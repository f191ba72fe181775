"""A catalogue of wrong gradients: what the audit must find, and what a wrong gradient is compared with.

Each `Fault` is one realistic mistake in the backward pass of the network: a wrong formula in the place of a right
one, or a change of the finished gradients. `FAULTS` lists them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from mlpjax import passes
from mlpjax.config import Config
from mlpjax.parameters import Aux, Batch, Params, State
from mlpjax.passes import RULES, Pass, Rules
from mlpjax.step import GradFn


class Exercise(NamedTuple):
    """A network on which a fault shows: arguments of `mlpjax.cases.make_case`."""

    config: Config
    weight: str = "none"
    train: bool = True


class Fault(NamedTuple):
    """One mistake.

    ``cause`` says in one line what was done, ``meant`` the formula that was meant, ``source`` its id in the lecture.
    ``exercise`` is a network on which it shows. The mistake itself is ``rules``, the formulas of the backward pass
    with a wrong one among them, and ``after``, a change ``(config, params, pass, grads) -> grads`` of the result.
    """

    name: str
    cause: str
    meant: str
    source: str
    exercise: Exercise
    rules: Rules = RULES
    after: Callable[[Config, Params, Pass, Params], Params] | None = None


def faulty(fault: Fault) -> GradFn:
    """The gradient function with the mistake: arguments and result of `mlpjax.backward`."""

    def backward(
        config: Config,
        params: Params,
        state: State,
        batch: Batch,
        key: jax.Array | None = None,
        *,
        train: bool = True,
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        this = passes.run_pass(config, params, state, batch, train, key)
        grads = passes.run_backward(config, params, this, fault.rules).params
        if fault.after is not None:
            grads = fault.after(config, params, this, grads)
        return passes.objective(config, params, this), grads

    return backward


def catalogue() -> list[Fault]:
    """Every fault, in the order in which a diagnosis prefers them."""
    return []


FAULTS: dict[str, Fault] = {fault.name: fault for fault in catalogue()}
