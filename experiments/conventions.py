"""What torch, keras, optax and scikit-learn do: their optimisers over 100 steps and their batch-norms over 100 batches.

The frozen numbers are tests/references/conventions.json, to which tests/test_conventions.py holds
``convention=...`` of `mlpjax.optim` and ``batch_norm_convention`` of `mlpjax.Config`. This script runs the libraries
themselves, with their own default constants, in float64 but for keras's batch-norm, which computes in float32 on every
backend but TensorFlow's; it does not import mlpjax:

    python -m venv libraries
    libraries/bin/pip install torch==2.13.0 keras==3.15.1 jax==0.10.2 optax==0.2.8 scikit-learn==1.9.1
    libraries/bin/python experiments/conventions.py            # compare with the frozen numbers
    libraries/bin/python experiments/conventions.py --write    # freeze them anew

Claim: the frozen numbers are the libraries', to 1e-10 of each number (1e-4 for keras's batch-norm, whose outputs
cancel); exits with an error when one is not.

Optimisers: J(θ) = Σ hᵢ(θᵢ − cᵢ)²/2 with a disturbed gradient, h(θ − c) + noise; one coordinate has gradients of 1e-7,
in which the place of ε shows; the rate changes every ten steps, in which a rate inside the velocity shows.
Batch-norm: batches of 4 rows, where n/(n − 1) shows, with one feature of variance 1e-3, in which ε shows.
"""

import json
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}

import jax.numpy as jnp
import keras
import numpy as np
import optax
import torch
from sklearn.neural_network import _stochastic_optimizers as sklearn_optimizers

keras.config.set_floatx("float64")

TARGET = Path(__file__).parents[1] / "tests" / "references" / "conventions.json"
TOLERANCE, TOLERANCE_FLOAT32 = 1e-10, 1e-4
STEPS = (1, 2, 3, 5, 10, 20, 50, 100)
RATES = {"sgd": 0.1, "momentum": 0.1, "nesterov": 0.1, "adagrad": 0.1, "adadelta": 1.0, "rmsprop": 0.01, "adam": 0.1}
"""The rate at first."""
RULES = {
    "torch": {
        "sgd": lambda theta, rate: torch.optim.SGD([theta], rate),
        "momentum": lambda theta, rate: torch.optim.SGD([theta], rate, momentum=0.9),
        "nesterov": lambda theta, rate: torch.optim.SGD([theta], rate, momentum=0.9, nesterov=True),
        "adagrad": lambda theta, rate: torch.optim.Adagrad([theta], rate),
        "adadelta": lambda theta, rate: torch.optim.Adadelta([theta], rate),
        "rmsprop": lambda theta, rate: torch.optim.RMSprop([theta], rate),
        "adam": lambda theta, rate: torch.optim.Adam([theta], rate),
    },
    "keras": {
        "sgd": lambda rate: keras.optimizers.SGD(rate),
        "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
        "nesterov": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        "adagrad": lambda rate: keras.optimizers.Adagrad(rate),
        "adadelta": lambda rate: keras.optimizers.Adadelta(rate),
        "rmsprop": lambda rate: keras.optimizers.RMSprop(rate),
        "adam": lambda rate: keras.optimizers.Adam(rate),
    },
    "optax": {
        "sgd": lambda rate: optax.sgd(rate),
        "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
        "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
        "adagrad": lambda rate: optax.adagrad(rate),
        "adadelta": lambda rate: optax.adadelta(rate),
        "rmsprop": lambda rate: optax.rmsprop(rate),
        "adam": lambda rate: optax.adam(rate),
    },
    "sklearn": {
        "sgd": lambda theta, rate: sklearn_optimizers.SGDOptimizer([theta], rate, momentum=0.0, nesterov=False),
        "momentum": lambda theta, rate: sklearn_optimizers.SGDOptimizer([theta], rate, nesterov=False),
        "nesterov": lambda theta, rate: sklearn_optimizers.SGDOptimizer([theta], rate),
        "adam": lambda theta, rate: sklearn_optimizers.AdamOptimizer([theta], rate),
    },
}
"""The libraries' optimisers by the package's names, with the constants that each has by default (momentum 0.9)."""

Walk = list[np.ndarray]


def main(write: bool) -> int:
    """Compute the numbers and compare or write them; returns 1 when a frozen one is not a library's."""
    rng = np.random.default_rng(0)
    problem = {
        "start": [1.0, -2.0, 0.0],
        "curvature": [1.0, 0.05, 1e-7],
        "minimum": [3.0, -1.0, 1.0],
        "noise": (rng.uniform(-1, 1, (STEPS[-1], 3)) * [0.5, 0.05, 1e-7]).tolist(),
        "rate_factors": [(1.0, 0.25, 0.5)[t // 10 % 3] for t in range(STEPS[-1])],
    }
    rows = rng.standard_normal((STEPS[-1], 4, 3)) * [1.0, 0.03, 20.0] + [0.5, 2.0, -30.0]
    layer = {"gamma": [1.5, -0.5, 2.0], "beta": [0.1, 0.2, -0.3], "x": rows.round(4).tolist()}
    walks = {"torch": torch_walk, "keras": keras_walk, "optax": optax_walk, "sklearn": sklearn_walk}
    norms = {"torch": torch_batch_norm, "keras": keras_batch_norm}
    result = {
        "versions": {name: version(name) for name in ("torch", "keras", "jax", "optax", "scikit-learn", "numpy")},
        "steps": STEPS,
        "problem": problem,
        "rates": RATES,
        "default_rates": {
            "torch": {"adadelta": torch.optim.Adadelta([torch.zeros(1)]).param_groups[0]["lr"]},
            "keras": {"adadelta": float(keras.optimizers.Adadelta().learning_rate)},
        },
        "optimizers": {
            library: {name: stored(walks[library](problem, name)) for name in rules} for library, rules in RULES.items()
        },
        "layer": layer,
        "batch_norm": {library: norm(layer) for library, norm in norms.items()},
    }
    for library, rules in result["optimizers"].items():
        for name, walk in rules.items():
            print(f"{library:8} {name:9} θ[100] =", *(f"{value: .12e}" for value in walk[-1]))
    for library, record in result["batch_norm"].items():
        print(f"{library:8} batch-norm, running variance after 100 =", *record["var"][-1])
    if write:
        text = json.dumps(result, indent=1, ensure_ascii=False)
        # a row of numbers on one line
        text = re.sub(r"\[[^\[\]{}]*\]", lambda row: re.sub(r"\s+", " ", row[0]), text)
        TARGET.write_text(text + "\n", encoding="utf-8")
        return 0
    frozen = json.loads(TARGET.read_text(encoding="utf-8"))
    in_float32 = difference(result["batch_norm"].pop("keras"), frozen["batch_norm"].pop("keras"))
    worst = max(difference(result[name], frozen[name]) for name in frozen if name != "versions")
    print(f"largest relative difference from the frozen numbers: {worst:.1e}, keras's batch-norm {in_float32:.1e}")
    return int(not (worst <= TOLERANCE and in_float32 <= TOLERANCE_FLOAT32))


def rate_at(problem: dict, name: str, t: int) -> float:
    """The learning rate of step t, from 0."""
    return RATES[name] * problem["rate_factors"][t]


def gradient(problem: dict, theta: np.ndarray, t: int) -> np.ndarray:
    """The disturbed gradient of step t at θ."""
    slope = np.array(problem["curvature"]) * (np.asarray(theta) - problem["minimum"])
    return slope + problem["noise"][t]


def torch_walk(problem: dict, name: str) -> Walk:
    """100 steps of a torch optimiser; its rate is that of the parameter group."""
    theta = torch.tensor(problem["start"], dtype=torch.float64)
    optimizer, walk = RULES["torch"][name](theta, RATES[name]), []
    for t in range(STEPS[-1]):
        optimizer.param_groups[0]["lr"] = rate_at(problem, name, t)
        theta.grad = torch.from_numpy(gradient(problem, theta.numpy(), t))
        optimizer.step()
        walk.append(theta.numpy().copy())
    return walk


def keras_walk(problem: dict, name: str) -> Walk:
    """100 steps of a keras optimiser; its rate is assigned."""
    theta = keras.Variable(np.array(problem["start"]), dtype="float64")
    optimizer, walk = RULES["keras"][name](RATES[name]), []
    optimizer.build([theta])
    for t in range(STEPS[-1]):
        optimizer.learning_rate = rate_at(problem, name, t)
        optimizer.apply([jnp.asarray(gradient(problem, theta.value, t))], [theta])
        walk.append(np.array(theta.value))
    return walk


def optax_walk(problem: dict, name: str) -> Walk:
    """100 steps of an optax optimiser; its rate is a schedule."""
    rates = jnp.array([rate_at(problem, name, t) for t in range(STEPS[-1])])
    optimizer = RULES["optax"][name](lambda count: rates[count])
    theta, walk = jnp.array(problem["start"]), []
    state = optimizer.init(theta)
    for t in range(STEPS[-1]):
        updates, state = optimizer.update(jnp.asarray(gradient(problem, theta, t)), state, theta)
        theta = optax.apply_updates(theta, updates)
        walk.append(np.array(theta))
    return walk


def sklearn_walk(problem: dict, name: str) -> Walk:
    """100 steps of a scikit-learn optimiser, which moves θ in place."""
    theta = np.array(problem["start"])
    optimizer, walk = RULES["sklearn"][name](theta, RATES[name]), []
    attribute = "learning_rate_init" if name == "adam" else "learning_rate"
    for t in range(STEPS[-1]):
        setattr(optimizer, attribute, rate_at(problem, name, t))
        optimizer.update_params([theta], [gradient(problem, theta, t)])
        walk.append(theta.copy())
    return walk


def torch_batch_norm(layer: dict) -> dict:
    """100 training batches through `BatchNorm1d`, and batch 0 in evaluation after each."""
    norm = torch.nn.BatchNorm1d(3, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(layer["gamma"], dtype=torch.float64))
        norm.bias.copy_(torch.tensor(layer["beta"], dtype=torch.float64))
    batches, records = torch.tensor(layer["x"], dtype=torch.float64), []
    with torch.no_grad():
        for x in batches:
            out = norm.train()(x)
            evaluation = norm.eval()(batches[0])
            records.append([leaf.numpy().copy() for leaf in (out, norm.running_mean, norm.running_var, evaluation)])
    return fields(records, np.float64)


def keras_batch_norm(layer: dict) -> dict:
    """100 training batches through `BatchNormalization`, and batch 0 in evaluation after each."""
    norm = keras.layers.BatchNormalization(dtype="float32")
    batches, records = np.array(layer["x"]), []
    norm.build(batches[0].shape)
    norm.gamma.assign(layer["gamma"])
    norm.beta.assign(layer["beta"])
    for x in batches:
        out = norm(x, training=True)
        evaluation = norm(batches[0], training=False)
        leaves = (out, norm.moving_mean.value, norm.moving_variance.value, evaluation)
        records.append([np.array(leaf) for leaf in leaves])
    return fields(records, np.float32)


def fields(records: list[list[np.ndarray]], dtype: type) -> dict:
    """The four records of batch-norm by name, at the stored steps."""
    columns = zip(("out", "mean", "var", "evaluation"), zip(*records, strict=True), strict=True)
    return {name: stored(list(column), dtype) for name, column in columns}


def stored(walk: Walk, dtype: type = np.float64) -> list:
    """The values after 1, 2, 3, 5, … steps."""
    if any(value.dtype != dtype for value in walk):
        raise TypeError(f"a library did not stay in {dtype.__name__}")
    return [walk[t - 1].tolist() for t in STEPS]


def difference(got: dict | list | float, frozen: dict | list | float) -> float:
    """The largest relative difference of two records of one form."""
    if isinstance(frozen, dict):
        return max(difference(got[name], value) for name, value in frozen.items())
    a, b = np.array(got), np.array(frozen)
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(b), np.finfo(float).tiny)))


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
