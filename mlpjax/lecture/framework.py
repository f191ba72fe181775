"""Checks of the section *Frameworks*."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlpjax
from mlpjax.claims import Claim, agree, equal, holds
from mlpjax.config import Config
from mlpjax.graph import Graph, Variable
from mlpjax.graph_modules import logistic_regression
from mlpjax.graph_trace import trace_graph
from mlpjax.parameters import Batch, Layer


def fw_list() -> tuple[Claim, ...]:
    """One model written twice, as NumPy nodes and as JAX functions, has the same loss and gradients."""
    config, rng = Config(sizes=(3, 1), head="binary"), np.random.default_rng(0)
    features, labels = rng.normal(size=(9, 3)), rng.integers(0, 2, (9, 1))
    W, b = Variable(rng.normal(size=(3, 1)), "W"), Variable(rng.normal(size=1), "b")
    x, y = Variable(features, "x", constant=True), Variable(1.0 * labels, "y", constant=True)
    l, gradients = Graph(logistic_regression(x, W, b, y)).value_and_gradients()
    params = (Layer(jnp.asarray(W.value), jnp.asarray(b.value)),)
    (J, _), grads = jax.jit(mlpjax.backward)(config, params, (), Batch(features, labels))
    m = len(features)
    return (
        agree("J", l / m, J),
        agree("dW", gradients["W"] / m, grads[0].W),
        agree("db", gradients["b"] / m, grads[0].b),
    )


def fw_tensorboard() -> tuple[Claim, ...]:
    """Training returns the curves that such a page plots, one number per epoch, and JSON keeps them as they are."""
    data = Batch(np.random.default_rng(0).normal(size=(8, 2)), np.array([0, 1] * 4))
    result = mlpjax.fit(
        Config(sizes=(2, 1), head="binary"), optax.sgd(0.5), data, epochs=3, batch_size=8, key=jax.random.key(0)
    )
    curve = result.history["train_loss"]
    return (
        equal("one number per epoch", [len(column) for column in result.history.values()], [3] * len(result.history)),
        holds("the loss falls", all(np.diff(curve) < 0), f"{curve[0]:.4f} to {curve[-1]:.4f}"),
        holds("JSON returns them bit by bit", json.loads(json.dumps(result.history)) == result.history, len(curve)),
    )


def fw_colab_sum() -> tuple[Claim, ...]:
    """The example that the slide's code stops short of: a matrix of ones plus the matrix 1 … 6."""

    def example(input1: jax.Array) -> jax.Array:
        input2 = jnp.reshape(jnp.arange(1, 7, dtype=jnp.float32), (2, 3))
        return input1 + input2

    traced = trace_graph(example, jnp.ones((2, 3), jnp.float32))
    result = traced.graph.forward()
    return (
        equal("ones + [[1, 2, 3], [4, 5, 6]]", result, [[2, 3, 4], [5, 6, 7]]),
        equal("by one addition", [function.operation.name for function in traced.graph.functions], ["add"]),
        equal("in float32", result.dtype.name, "float32"),
    )
