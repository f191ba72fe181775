"""What the doctor reads off a network at one moment: signals and gradients layer by layer, and the first update.

Source: lecture, sections *Weight initialisation* and *Activation functions* (vanishing gradient, dying ReLU).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpjax.activations import ACTIVATIONS
from mlpjax.config import Config
from mlpjax.doctor_verdicts import Verdict, judge
from mlpjax.glassbox import trace
from mlpjax.mlp import autodiff, loss
from mlpjax.parameters import Batch, Layer, Params, State
from mlpjax.passes import slope_of
from mlpjax.step import GradFn, TrainState, train_step
from mlpjax.symmetry import column_spread

BOUNDED = ("sigmoid", "tanh", "arctan")
"""The activations that saturate at both ends; the others have units that die instead."""
_FLAT = 0.05
"""An entry of g′(z) below this part of the steepest, g′(0), is saturated."""
_DEAD = 1e-6
"""A unit whose |g′(z)| is below this on all examples is dead; of ReLU it is exactly 0."""


class Signals(NamedTuple):
    """One pass over examples that drops nothing.

    ``loss`` is the data loss by the statistics of these examples, ``running`` by the running ones. ``dz (L,)`` is the
    RMS of dz of each layer; ``dead`` and ``flat (L − 1,)`` are the shares of units that are dead and of entries of
    g′(z) that are saturated.
    """

    loss: Any
    running: Any
    dz: Any
    dead: Any
    flat: Any


def signals(config: Config, params: Params, state: State, data: Batch) -> Signals:
    """Measure a network whose config has no dropout.

    >>> config = Config(sizes=(1, 2, 1), head="regression")
    >>> params = (Layer(jnp.array([[1.0, -1.0]]), jnp.array([0.0, -3.0])), Layer(jnp.ones((2, 1)), jnp.zeros(1)))
    >>> seen = signals(config, params, (), Batch(jnp.array([[1.0], [2.0]]), jnp.array([1.0, 4.0])))
    >>> seen.loss, seen.dead  # ½ (0² + 2²)/2; unit 1 has z < 0 on both
    (array(1., dtype=float32), array([0.5], dtype=float32))
    """
    return jax.device_get(_signals(config, params, state, data))


@jax.jit
def _signals(config: Config, params: Params, state: State, data: Batch) -> Signals:
    seen = trace(config, params, state, data)
    J = seen.loss.data_loss.value
    running = loss(config, params, state, data, train=False)[1].data_loss if config.batch_norm else J
    dead, flat = [], []
    for hidden, name, layer in zip(seen.hidden, config.activations, params[:-1], strict=True):
        z = hidden.z.value if hidden.norm is None else hidden.norm.z_tilde.value
        slope = jnp.abs(ACTIVATIONS[name].df(z, *slope_of(layer)))
        off, bounded = jnp.all(slope < _DEAD, axis=0), name in BOUNDED
        few = slope < _FLAT * ACTIVATIONS[name].df(jnp.zeros_like(z), *slope_of(layer))
        dead.append(jnp.zeros_like(J) if bounded else jnp.mean(off, dtype=J.dtype))
        flat.append(jnp.mean(few, dtype=J.dtype) if bounded else jnp.zeros_like(J))
    deltas = (*(hidden.dz for hidden in seen.hidden), seen.output.dz)
    dz = [jnp.sqrt(jnp.mean(jnp.square(delta.value))) for delta in deltas]
    return Signals(J, running, jnp.stack(dz), *(jnp.array(shares) for shares in (dead, flat)))


@functools.partial(jax.jit, static_argnames="size")
def loss_by_batches(config: Config, params: Params, state: State, data: Batch, size: int) -> jax.Array:
    """The data loss of batches of ``size``, each by its own statistics; what is left over at the end is left out."""
    n = len(data.x) // size
    batches = jax.tree.map(lambda part: jnp.reshape(part[: n * size], (n, size, *part.shape[1:])), data)
    return jnp.mean(jax.lax.map(lambda batch: loss(config, params, state, batch)[1].data_loss, batches))


class FirstStep(NamedTuple):
    """``updates (L,)`` are ‖ΔW‖/‖W‖ of one step; ``gradient`` is ‖g − g′‖/‖g′‖ of grad_fn's g and autodiff's g′.

    Where ‖W‖ is below √n_out, that of variance 1/n_in, it counts as √n_out.
    """

    updates: Any
    gradient: Any


@functools.partial(jax.jit, static_argnames=("optimizer", "grad_fn", "check"))
def first_step(
    config: Config,
    start: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    optimizer: optax.GradientTransformation,
    grad_fn: GradFn,
    check: bool,
) -> FirstStep:
    """Take one step and throw it away; ``check`` also compares the gradient with autodiff's, in evaluation."""
    after = train_step(config, optimizer, grad_fn, start, batch, key)[0].params
    moved = jax.tree.map(jnp.subtract, after, start.params)
    # a W that starts near 0 has to move: its size is taken as that of variance 1/n_in
    sizes = [jnp.maximum(jnp.linalg.norm(layer.W), layer.W.shape[1] ** 0.5) for layer in start.params]
    ratios = [jnp.linalg.norm(layer.W) / size for layer, size in zip(moved, sizes, strict=True)]
    if not check:
        return FirstStep(jnp.stack(ratios), jnp.zeros(()))
    ours, right = (f(config, start.params, start.state, batch, train=False)[1] for f in (grad_fn, autodiff))
    off = optax.tree.norm(jax.tree.map(jnp.subtract, ours, right)) / jnp.maximum(optax.tree.norm(right), 1e-30)
    return FirstStep(jnp.stack(ratios), off)


def start_verdicts(config: Config, params: Params, seen: Signals, later: Signals, fresh: float) -> Iterator[Verdict]:
    """The verdicts on a network before its first step; ``later`` is after the last one.

    ``fresh`` is the loss that a fresh network should have.
    """
    ratio = float(seen.loss) / fresh
    evidence = f"the loss starts at {seen.loss:.3g}; about {fresh:.3g} is right for the head and the labels"
    yield judge("start_loss", ratio, evidence, "make the outputs smaller: scale inputs and targets, smaller weights")
    yield _scale(config, params)
    if config.depth == 1:
        return
    yield _symmetry(params)
    yield from _flow(seen.dz[:-1])
    if set(config.activations) - set(BOUNDED):
        yield _dead("dead_units", seen.dead, "at the start", "start with b = 0 and init='auto'")
        yield _dead("dying_units", later.dead, "after training", "lower the learning rate; leaky_relu keeps a slope")
    if set(config.activations) & set(BOUNDED):
        l = int(np.argmax(seen.flat))
        evidence = f"{seen.flat[l]:.0%} of g′(z) in layer {l + 1} are below 1/20 of g′(0)"
        yield judge("saturation", float(seen.flat[l]), evidence, "make z smaller: scale inputs, smaller start weights")


def step_verdicts(found: FirstStep, check: bool) -> Iterator[Verdict]:
    """The verdicts on the first step."""
    if check:
        evidence = f"grad_fn differs from autodiff by {found.gradient:.1e} of its norm"
        yield judge("gradient", float(found.gradient), evidence, "see mlpjax.check_gradients, which says where")
    rates = np.asarray(found.updates, np.float64)
    large, small = int(np.argmax(rates)), int(np.argmin(rates))
    evidence = f"the first step changes W of layer {large + 1} by {rates[large]:.2g} of its norm"
    yield judge("updates_large", float(rates[large]), evidence, "lower the learning rate, or warm it up")
    evidence = f"the first step changes W of layer {small + 1} by {rates[small]:.2g} of its norm"
    yield judge("updates_small", float(rates[small]), evidence, "look at the gradient's way there; raise the rate")


def _scale(config: Config, params: Params) -> Verdict:
    # batch-norm divides by the scale of what comes before it
    first = config.depth if config.batch_norm else 1
    gains = [np.sqrt(len(layer.W)) * _rms(layer.W) for layer in params[first - 1 :]]
    l = int(np.argmax(gains))
    evidence = f"√(n_in E[W²]) is {gains[l]:.3g} in layer {first + l}"
    return judge("start_scale", gains[l], evidence, "start with init='auto': 1.4 before ReLU, 1 otherwise")


def _symmetry(params: Params) -> Verdict:
    pairs = [(layer, after) for layer, after in itertools.pairwise(params) if layer.W.shape[1] > 1]
    equal = [_equal_units(layer, after) for layer, after in pairs]
    evidence = f"in {sum(equal)} of {len(params) - 1} hidden layers all units start equal"
    advice = "they get equal gradients and stay one unit: draw W at random, init='auto'"
    return judge("symmetry", float(np.mean(equal)) if equal else 0.0, evidence, advice)


def _equal_units(layer: Layer, after: Layer) -> bool:
    """Whether the units of a layer have equal parameters, before and behind."""
    own = [jnp.atleast_2d(leaf) for leaf in layer if leaf is not None]
    return all(float(column_spread(leaf)) == 0 for leaf in (*own, after.W.T))


def _flow(dz: np.ndarray) -> Iterator[Verdict]:
    """The gradient's way through the hidden layers."""
    first, last = float(dz[0]), float(dz[-1])
    ratio = first / last if last > 0 else 1.0 if first == last else np.inf
    evidence = f"dz has the RMS {first:.1e} in layer 1 and {last:.1e} in the last hidden layer"
    advice = "fewer layers, batch_norm=True, or ReLU with init='auto'"
    yield judge("gradients_vanish", ratio, evidence, advice)
    yield judge("gradients_explode", ratio, evidence, "smaller start weights (init='auto'), or batch_norm=True")


def _dead(name: str, shares: np.ndarray, when: str, advice: str) -> Verdict:
    l = int(np.argmax(shares))
    evidence = f"{shares[l]:.0%} of the units of layer {l + 1} have g′(z) = 0 on all examples {when}"
    return judge(name, float(shares[l]), evidence, advice)


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))
