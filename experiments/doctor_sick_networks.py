"""What can be wrong with networks and their training: rates, start values, depth, penalties, dropout, batch-norm."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from doctor_patients import Run, patient
from doctor_sickness import changed, sickness, with_params

from mlpjax.faults import FAULTS, faulty


@sickness("rate_high", ("digits sgd", 100), ("circle", 100), ("wine", 300), ("blobs selu", 100))
def rate_times(strength: Any, seed: int) -> Run:
    """The learning rate × 100."""
    name, factor = strength
    run = patient(name, seed)
    return changed(run, rate=run.rate * factor)


@sickness("rate_low", ("digits", 1000), ("gauss", 1000), ("blobs", 1000), ("cancer tanh", 1000))
def rate_over(strength: Any, seed: int) -> Run:
    """The learning rate ÷ 1000."""
    name, factor = strength
    run = patient(name, seed)
    return changed(run, rate=run.rate / factor)


@sickness("symmetry", "digits", "circle", "iris tanh", "digits sigmoid")
def zero_init(name: str, seed: int) -> Run:
    """All weights 0."""
    return changed(patient(name, seed), config={"init": "zeros"})


@sickness("symmetry", ("cancer", 0.1), ("spiral", 0.3))
def constant_init(strength: Any, seed: int) -> Run:
    """All weights of a layer equal."""
    name, value = strength
    return with_params(patient(name, seed), lambda l, layer: layer._replace(W=jnp.full_like(layer.W, value)))


@sickness("start_scale", ("digits", 10), ("wine", 12), ("circle relu", 10), ("diabetes", 15))
def large_init(strength: Any, seed: int) -> Run:
    """All start weights times ten and more."""
    name, factor = strength
    return with_params(patient(name, seed), lambda l, layer: layer._replace(W=factor * layer.W))


@sickness("dead_units", ("digits", -20), ("circle relu", -60), ("cancer", -60), ("bumps", -60))
def low_bias(strength: Any, seed: int) -> Run:
    """ReLU units whose bias keeps nearly all of them off."""
    name, low = strength
    run = patient(name, seed)

    def change(l: int, layer: Any) -> Any:
        off = jnp.arange(len(layer.b)) < 0.9 * len(layer.b)
        return layer._replace(b=jnp.where(off, low, 0.0)) if l == 1 else layer

    return with_params(run, change)


@sickness("saturation", ("digits sigmoid", 10), ("circle", 20), ("diabetes tanh", 9), ("iris tanh", 8))
def saturated(strength: Any, seed: int) -> Run:
    """Units of a bounded activation that start far out, by their biases."""
    name, size = strength
    run = patient(name, seed)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], run.config.sizes[1]).astype(np.float32)
    return with_params(run, lambda l, layer: layer._replace(b=size * jnp.asarray(signs)) if l == 1 else layer)


@sickness("gradients_vanish", ("digits sigmoid", 12), ("circle", 10), ("blobs", 12), ("cancer", 14))
def deep_sigmoids(strength: Any, seed: int) -> Run:
    """Many layers of sigmoids."""
    name, layers = strength
    run = patient(name, seed)
    sizes = (run.config.sizes[0], *(24,) * layers, run.config.sizes[-1])
    return changed(run, config={"sizes": sizes, "activation": "sigmoid"})


@sickness("gradients_vanish", ("digits", 6), ("gauss relu", 6))
def deep_small_init(strength: Any, seed: int) -> Run:
    """Many layers of weights ~ 0.01 N(0, 1)."""
    name, layers = strength
    run = patient(name, seed)
    sizes = (run.config.sizes[0], *(32,) * layers, run.config.sizes[-1])
    return changed(run, config={"sizes": sizes, "init": "normal_001"})


@sickness("gradients_explode", ("digits", 12, 2.5), ("cancer", 15, 2.2), ("blobs", 12, 2.5), ("diabetes", 14, 2.4))
def deep_large_init(strength: Any, seed: int) -> Run:
    """Many layers of weights that are more than twice too large."""
    name, layers, factor = strength
    run = patient(name, seed)
    run = changed(run, config={"sizes": (run.config.sizes[0], *(32,) * layers, run.config.sizes[-1])})
    return with_params(run, lambda l, layer: layer._replace(W=factor * layer.W))


@sickness("batch_norm", ("digits", 1), ("cancer", 2), ("wine", 3), ("circle relu", 1))
def lagging_statistics(strength: Any, seed: int) -> Run:
    """Running statistics that have not arrived after the few steps there are."""
    name, epochs = strength
    run = patient(name, seed)
    config = {"batch_norm": True, "batch_norm_convention": "keras"}
    # inputs off zero, as running means start there
    return changed(run, x=run.x + 2, rate=0.1 if run.optimizer == "momentum" else 0.01, epochs=epochs, config=config)


@sickness("batch_norm", ("digits", 2), ("wine", 2))
def batches_of_two(strength: Any, seed: int) -> Run:
    """Batch-norm whose batches have two examples."""
    name, batch_size = strength
    return changed(patient(name, seed), batch_size=batch_size, config={"batch_norm": True})


@sickness("penalty", ("digits", {"l2": 3.0}), ("circle", {"l2": 1.0}), ("cancer tanh", {"l1": 0.5}), ("bumps", {"l2": 2.0}))  # fmt: skip  # noqa: E501
def strong_penalty(strength: Any, seed: int) -> Run:
    """A penalty that leaves nothing of the weights."""
    name, config = strength
    return changed(patient(name, seed), config=config)


@sickness("dropout", ("digits deep", 0.9), ("circle relu", 0.9), ("spiral relu", 0.9), ("bumps", 0.95))
def strong_dropout(strength: Any, seed: int) -> Run:
    """Nine of ten units are dropped."""
    name, rate = strength
    return changed(patient(name, seed), config={"dropout": rate})


@sickness("gradient", ("digits sigmoid", "derivative-forgotten"), ("circle", "derivative-twice"), ("cancer tanh", "W-not-transposed"), ("digits deep", "first-layer-detached"))  # fmt: skip  # noqa: E501
def wrong_gradient(strength: Any, seed: int) -> Run:
    """A mistake in the backward pass."""
    name, fault = strength
    return changed(patient(name, seed), grad_fn=faulty(FAULTS[fault]))


@sickness("seeds", ("gauss", (2, 2, 2, 2)), ("plane", (2, 2, 2)), ("xor", (3, 3, 3, 3)), ("xor", (3,)))
def narrow_network(strength: Any, seed: int) -> Run:
    """So few ReLU units that of 32 other starts between a third and two thirds got stuck."""
    name, widths = strength
    run = patient(name, seed)
    rate = 0.01 if len(widths) > 1 else 0.03
    return changed(run, optimizer="adam", rate=rate, config={"sizes": (2, *widths, 1), "activation": "relu"})


@sickness("few_examples", ("digits", 1), ("spiral", 1), ("discs", 1), ("digits sigmoid", 1))
def bottleneck(strength: Any, seed: int) -> Run:
    """One hidden unit for what one cannot do."""
    name, width = strength
    run = patient(name, seed)
    return changed(run, config={"sizes": (run.config.sizes[0], width, run.config.sizes[-1])})
