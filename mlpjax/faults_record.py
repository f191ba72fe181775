"""What a fault of the catalogue is: its record, the conditions under which it can occur, and the networks that show it.

`mlpjax.faults` puts the catalogue together of the modules ``faults_*``, one per part of the lecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from mlpjax import passes
from mlpjax.config import Config
from mlpjax.parameters import Params
from mlpjax.passes import RULES, Pass, Rules

Needs = Callable[[Config, bool, bool], bool]
"""``(config, weighted, train)``: whether a mistake can be made there, from the structure alone."""


class Exercise(NamedTuple):
    """A network on which a fault shows: arguments of `mlpjax.cases.make_case`.

    ``at_kink`` puts unit 0 of every hidden layer at exactly 0, and with a ReLU head output 0 too.
    """

    config: Config
    weight: str = "none"
    train: bool = True
    at_kink: bool = False


class Fault(NamedTuple):
    """One mistake.

    ``cause`` says in one line what was done, ``meant`` the formula that was meant, ``source`` its id in the lecture.
    ``exercise`` is a network on which it shows, ``needs`` tells where it can be made at all.

    The mistake itself is up to three changes: ``before``, ``(config, params, pass) -> pass``, of what the forward pass
    remembers; ``rules``, the formulas of the backward pass with a wrong one among them; and ``after``,
    ``(config, params, pass, grads) -> grads``, of the result.
    """

    name: str
    cause: str
    meant: str
    source: str
    exercise: Exercise
    needs: Needs
    rules: Rules = RULES
    before: Callable[[Config, Params, Pass], Pass] | None = None
    after: Callable[[Config, Params, Pass, Params], Params] | None = None


def applies(fault: Fault, config: Config, weighted: bool = False, train: bool = True) -> bool:
    """Whether a fault can be made on a network, with or without sample weights, in training or in evaluation.

    It goes by the structure alone, and where it is true the fault has the shapes it needs.

    >>> from mlpjax.faults import FAULTS
    >>> [applies(FAULTS["batch-norm-without-mean-term"], Config(batch_norm=norm)) for norm in (False, True)]
    [False, True]
    """
    return fault.needs(config, weighted, train)


def wrong_gradient(fault: Fault, config: Config, params: Params, this: Pass) -> Params:
    """The gradients with the mistake, from a forward pass that has been made.

    >>> from mlpjax.faults import FAULTS, exercise_case
    >>> case = exercise_case(FAULTS["output-db-zero"].exercise)
    >>> this = passes.run_pass(*case[:4], case.train, case.key)
    >>> wrong_gradient(FAULTS["output-db-zero"], case.config, case.params, this)[-1].b
    Array([0., 0., 0., 0.], dtype=float32)
    """
    changed = this if fault.before is None else fault.before(config, params, this)
    grads = passes.run_backward(config, params, changed, fault.rules).params
    return grads if fault.after is None else fault.after(config, params, this, grads)


SIZES = (3, 7, 6, 4)
"""Every width of the exercises differs, and from the number of rows,"""
SQUARE = (6, 6, 6, 6)
"""or none does, for what only equal widths allow."""
LEARNING_RATE = 0.1
"""Of a step taken too early."""


def network(activation: str | tuple[str, ...] = "tanh", head: str = "multiclass", **options: object) -> Config:
    """The config of an exercise: two hidden layers, so that a mistake in one differs from one in all.

    >>> network(head="binary").sizes
    (3, 7, 6, 1)
    """
    sizes = (*SIZES[:-1], 1) if head == "binary" else SIZES
    return Config(**{"sizes": sizes, "activation": activation, "head": head, **options})  # type: ignore[arg-type]


TANH = Exercise(network())
WEIGHTED = Exercise(network(), weight="given")
SQUARES = Exercise(network(sizes=SQUARE))
REGRESSION = Exercise(network(head="regression"))


def anywhere(config: Config, weighted: bool, train: bool) -> bool:
    """No condition."""
    return True


def both(*conditions: Needs) -> Needs:
    """Every one of the conditions."""
    return lambda config, weighted, train: all(needs(config, weighted, train) for needs in conditions)


def weighted(config: Config, weighted: bool, train: bool) -> bool:
    """With sample weights."""
    return weighted


def in_training(config: Config, weighted: bool, train: bool) -> bool:
    """In training."""
    return train


def hidden(config: Config, weighted: bool, train: bool) -> bool:
    """With a hidden layer."""
    return config.depth > 1


def deep(config: Config, weighted: bool, train: bool) -> bool:
    """With two hidden layers or more."""
    return config.depth > 2


def biased(config: Config, weighted: bool, train: bool) -> bool:
    """With a bias in the output layer."""
    return config.bias


def biased_hidden(config: Config, weighted: bool, train: bool) -> bool:
    """With a bias in the hidden layers as well, and a gradient that reaches them."""
    return config.bias and config.depth > 1 and not config.batch_norm and config.activations[-1] != "binary_step"


def normalised(config: Config, weighted: bool, train: bool) -> bool:
    """With batch-norm."""
    return config.batch_norm and config.depth > 1


def dropping(config: Config, weighted: bool, train: bool) -> bool:
    """With units of a hidden layer dropped; what is dropped of the input does not touch the parameters' gradients."""
    return train and any(config.dropout_rate(l) is not None for l in range(1, config.depth))


def penalised(config: Config, weighted: bool, train: bool) -> bool:
    """With a penalty."""
    return config.l1 is not None or config.l2 is not None


def several_outputs(config: Config, weighted: bool, train: bool) -> bool:
    """With more than one output."""
    return config.sizes[-1] > 1


def uses(*names: str) -> Needs:
    """With a hidden layer of one of these activations."""
    return lambda config, weighted, train: any(name in names for name in config.activations)


def has_head(*names: str) -> Needs:
    """With one of these heads."""
    return lambda config, weighted, train: config.head in names


def row(values: jax.Array) -> jax.Array:
    """A vector ``(n,)`` as a row ``(1, n)``: nothing is promoted silently.

    >>> row(jax.numpy.ones(2)).shape
    (1, 2)
    """
    return values[None, :]
