"""Where the NaN came from: the first number of a run that is not finite, by epoch, step, layer, quantity and example.

`mlpjax.fit` finds the step: it trains with `watched` functions, under which the loss or the parameters are NaN as soon
as any number on the way is not finite, also one that would not have reached them (tanh(∞) = 1). `find_fault` then takes
that step in the open. Without this a run compiles what it always compiled, and pays nothing.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax import passes
from mlpjax.augmenting import Augment
from mlpjax.chunks import Run
from mlpjax.compiling import QUICK, compiler_options
from mlpjax.config import Config
from mlpjax.disk import DiskRun, block_order
from mlpjax.loop import Loop
from mlpjax.mlp import backward
from mlpjax.parameters import Aux, Batch, Params, State
from mlpjax.provenance_naming import Fault, first_fault_of, of_row, row_alone
from mlpjax.provenance_quantities import NETWORKS_OWN, Seen, all_finite, given, kept_by_passes, of_gradient, of_update
from mlpjax.step import GradFn, TrainState, batch_rows, take, update
from mlpjax.threefry import fold_in


class FaultyStep(NamedTuple):
    """A step that met a number that is not finite, with all that it takes to take it again.

    ``train_state`` is that before the step, ``batch`` what the step was given, after any augmentation, ``rows`` are the
    rows of the training data in it (−1 is padding), and ``key`` is the step's own.
    """

    fault: Fault
    config: Config
    train_state: TrainState
    batch: Batch
    key: jax.Array
    rows: np.ndarray


# one function for one: another would compile its own program
@functools.cache
def watched(grad_fn: GradFn) -> GradFn:
    """Return ``grad_fn`` with a J that is NaN if any number of the passes, or of its result, is not finite.

    For `mlpjax.backward` and `mlpjax.autodiff` every quantity of `mlpjax.trace` that training needs is looked at, for
    another function the forward pass and its result. The rest of the result is as it was.

    >>> config = mlpjax.Config(sizes=(1, 1, 1), activation="tanh", head="regression")
    >>> layers = mlpjax.Layer(W=jnp.array([[3e38]])), mlpjax.Layer(W=jnp.array([[1.0]]))
    >>> batch = Batch(jnp.array([[2.0]]), jnp.array([1.0]))  # z = 6e38 is infinite in float32, tanh(z) = 1
    >>> [float(f(config, layers, (), batch)[0][0]) for f in (mlpjax.backward, watched(mlpjax.backward))]
    [0.0, nan]
    """

    @functools.wraps(grad_fn)
    def watching(
        config: Config, params: Params, state: State, batch: Batch, key: jax.Array | None = None, *, train: bool = True
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        this = passes.run_pass(config, params, state, batch, train, key)
        found = None if grad_fn not in NETWORKS_OWN else passes.run_backward(config, params, this, passes.RULES)
        if grad_fn is backward and found is not None:
            # computed once
            (J, aux), grads = passes.objective(config, params, this), found.params
        else:
            (J, aux), grads = grad_fn(config, params, state, batch, key, train=train)
        finite = all_finite([J, *kept_by_passes(this, found), *jax.tree.leaves((aux.state, aux.data_loss, grads))])
        return (jnp.where(finite | (aux.weight_sum == 0), J, jnp.nan), aux), grads

    return watching


@functools.cache
def watched_optimizer(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return ``optimizer`` with updates that are NaN if any of its moments, updates or new parameters is not finite.

    Its state is the same.

    >>> params = (mlpjax.Layer(W=jnp.array([[1.0]])),)
    >>> adam = optax.adam(0.1)
    >>> for optimizer in (adam, watched_optimizer(adam)):  # the square of 1e20 is infinite in float32
    ...     optimizer.update(jax.tree.map(lambda W: 1e20 * W, params), optimizer.init(params), params)[0][0].W
    Array([[-0.]], dtype=float32)
    Array([[nan]], dtype=float32)
    """
    inner = optax.with_extra_args_support(optimizer)

    def watching(grads: Any, opt_state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, opt_state = inner.update(grads, opt_state, params, **extra)
        finite = all_finite([one.value for one in of_update(updates, opt_state, params)])
        return jax.tree.map(lambda step: jnp.where(finite, step, jnp.nan), updates), opt_state

    return optax.GradientTransformationExtraArgs(optimizer.init, watching)


def find_fault(
    config: Config,
    optimizer: optax.GradientTransformation,
    grad_fn: GradFn,
    train_state: TrainState,
    batch: Batch,
    key: jax.Array,
    augment: Augment | None = None,
    *,
    rows: Any = None,
) -> Fault | None:
    """Take one step, with the arguments of `mlpjax.step.train_step`, and name the first number that is not finite.

    In the order of computation: what the step is given (parameters, statistics, moments); x; layer by layer z,
    batch-norm's mean, var, ẑ and z̃, and a; L, the penalty, J; from the last layer to the first da, dz, dW, db; moments,
    updates, new parameters. Of a ``grad_fn`` other than `mlpjax.backward` and `mlpjax.autodiff` the forward pass, J and
    the gradient are seen; the example is the first that alone makes a batch whose result is not finite in that place.

    Args:
        config: the network.
        optimizer: the optimiser, whose update is taken too.
        grad_fn: the gradient function.
        train_state: where the step starts.
        batch: what the step is given.
        key: the step's own.
        augment: as in `mlpjax.fit`.
        rows: ``(m,)``, the rows of the training data that the batch has; 0 … m − 1 by default.

    Returns:
        The `Fault`, or ``None`` if all numbers are finite. Of a number near the largest of its dtype this may depend on
        the order in which a program sums.

    Raises:
        InputError: and `DataError` as in `mlpjax.loss`.

    >>> config = mlpjax.Config(sizes=(1, 1, 1), activation="tanh", head="regression")
    >>> params = mlpjax.Layer(W=jnp.array([[3e38]])), mlpjax.Layer(W=jnp.array([[1.0]]))
    >>> batch, key, optimizer = Batch(jnp.array([[1.0], [2.0]]), jnp.zeros(2)), jax.random.key(0), optax.sgd(0.1)
    >>> train_state = TrainState(params, (), optimizer.init(params))
    >>> print(find_fault(config, optimizer, mlpjax.backward, train_state, batch, key))
    z of layer 1 is inf for example 1 (row 1 of the batch), unit 0; made of |x| ≤ 2, |W| ≤ 3e+38
    """
    return _find(config, optimizer, grad_fn, train_state, batch, key, augment, rows)[0]


def first_fault(loop: Loop, optimizer: optax.GradientTransformation, grad_fn: GradFn) -> FaultyStep | None:
    """Find the fault of a run that diverged under `watched` functions, of this optimiser and gradient function.

    ``None`` for a run that did not diverge, and for one whose last steps, taken in the open, have finite numbers only:
    see `find_fault`.
    """
    if loop.diverged_at is None:
        return None
    run, (epoch, step) = loop.run, loop.diverged_at
    last = (epoch - 1) * run.steps + step - 1
    # an update that is not finite shows in the loss of the next step
    for at in (last - 1, last):
        for taken in loop.recent:
            chunk, within = taken.chunk, at - taken.chunk.first
            if not 0 <= within < chunk.n:
                continue
            train_state, _ = loop.replay(taken, within)
            batch = take(chunk.data, chunk.rows[within])
            key, rows = fold_in(run.key, at), step_rows(run, at)
            fault, batch = _find(run.config, optimizer, grad_fn, train_state, batch, key, run.augment, rows)
            if fault is not None:
                return FaultyStep(fault._replace(at=run.at(at)), run.config, train_state, batch, key, rows)
    return None


def step_rows(run: Run, at: int) -> np.ndarray:
    """The rows of the training data, or of its files, that step ``at`` of a run takes, from 0; −1 is padding."""
    epoch, step = run.at(at)
    if not isinstance(run, DiskRun):
        return run.epoch_rows(epoch)[step - 1]
    order = np.concatenate(list(block_order(run.words, epoch, run.m, run.disk.block)))
    return batch_rows(order, run.batch_size, run.steps)[step - 1]


def _find(
    config: Config,
    optimizer: optax.GradientTransformation,
    grad_fn: GradFn,
    train_state: TrainState,
    batch: Batch,
    key: jax.Array,
    augment: Augment | None,
    rows: Any,
) -> tuple[Fault | None, Batch]:
    """The fault of a step, and the batch after its augmentation."""
    program = _program()
    seen, batch = program(config, train_state, batch, key, augment, optimizer=optimizer, grad_fn=grad_fn)
    fault = first_fault_of(seen, rows)
    if fault is not None and fault.row is None and grad_fn not in NETWORKS_OWN:
        params, state, _ = train_state
        program = jax.jit(grad_fn)
        row = row_alone(fault, lambda batch: program(config, params, state, batch, key), batch)
        if row is not None:
            fault = of_row(fault, row, rows)._replace(cause="a batch of this example alone is enough")
    return fault, batch


def _in_the_open(
    config: Config,
    train_state: TrainState,
    batch: Batch,
    key: jax.Array,
    augment: Augment | None,
    *,
    optimizer: optax.GradientTransformation,
    grad_fn: GradFn,
) -> tuple[list[Seen], Batch]:
    """Take a step by `mlpjax.step.update`; what passes through its two functions, and the batch given to them."""
    seen = given(train_state)
    met: list[Any] = []
    inner = optax.with_extra_args_support(optimizer)

    def seeing(config: Config, params: Params, state: State, batch: Batch, key: jax.Array) -> Any:
        result = grad_fn(config, params, state, batch, key)
        met.extend((batch, result[0][1].weight_sum != 0))
        seen.extend(of_gradient(grad_fn, config, params, state, batch, key, True, result))
        return result

    def seeing_update(grads: Any, opt_state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, opt_state = inner.update(grads, opt_state, params, **extra)
        seen.extend(of_update(updates, opt_state, params, taken=met[1]))
        return updates, opt_state

    update(
        config,
        optax.GradientTransformationExtraArgs(optimizer.init, seeing_update),
        seeing,
        train_state,
        batch,
        key,
        may_be_absent=True,
        augment=augment,
    )
    return seen, met[0]


@functools.cache
def _program() -> Any:
    """`_in_the_open` under `jax.jit`; it runs once."""
    options = compiler_options(QUICK)
    return jax.jit(_in_the_open, static_argnames=("optimizer", "grad_fn"), compiler_options=options)
