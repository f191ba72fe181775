"""Flax NNX in the experiment on speed: the functional loop of its guide to performance, with the state donated."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from speed_workloads import Job, Orders, optax_rule

import mlpjax


class Network(nnx.Module):
    """Affine → batch-norm → activation → dropout in each hidden layer."""

    def __init__(self, config: mlpjax.Config, rngs: nnx.Rngs) -> None:
        pairs = list(itertools.pairwise(config.sizes))
        norm, dtype = config.batch_norm, config.compute_dtype
        self.activation = {"relu": nnx.relu, "tanh": nnx.tanh}[config.activations[0]]
        self.hidden = nnx.List([nnx.Linear(*pair, use_bias=not norm, dtype=dtype, rngs=rngs) for pair in pairs[:-1]])
        self.norms = nnx.List([nnx.BatchNorm(n, momentum=0.9, rngs=rngs) for _, n in pairs[:-1]] if norm else [])
        self.dropout = None if config.dropout is None else nnx.Dropout(config.dropout, rngs=rngs)
        self.last = nnx.Linear(*pairs[-1], dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The scores."""
        for l, layer in enumerate(self.hidden):
            x = layer(x)
            x = self.activation(self.norms[l](x) if self.norms else x)
            x = x if self.dropout is None else self.dropout(x)
        return self.last(x).astype(jnp.float32)


@partial(jax.jit, static_argnames="binary", donate_argnums=1)
def step(graph: Any, state: Any, x: jax.Array, y: jax.Array, rows: jax.Array, binary: bool) -> tuple[Any, jax.Array]:
    """One update."""
    model, optimizer = nnx.merge(graph, state)

    def loss(model: Network) -> jax.Array:
        z, at = model(x[rows]), y[rows]
        if binary:
            return optax.sigmoid_binary_cross_entropy(z[:, 0], at).mean()
        return optax.softmax_cross_entropy_with_integer_labels(z, at).mean()

    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return nnx.state((model, optimizer)), value


class Flax:
    """One compiled call per step."""

    tells_compile = False

    def __init__(self, job: Job) -> None:
        self.job, self.rule = job, optax_rule(job.workload)
        self.x, self.y = jax.device_put((job.x, job.y))

    def start(self, seed: int) -> None:
        """Set the weights."""
        model = Network(self.job.workload.config, nnx.Rngs(seed))
        for layer, given in zip([*model.hidden, model.last], self.job.start(seed), strict=True):
            layer.kernel[...] = given.W
        self.graph, self.state = nnx.split((model, nnx.Optimizer(model, self.rule, wrt=nnx.Param)))

    def train(self, orders: Orders) -> None:
        """Train."""
        b, binary = self.job.workload.batch_size, self.job.workload.config.head == "binary"
        graph, state = self.graph, self.state
        for order in orders:
            for i in range(0, len(order), b):
                state, _ = step(graph, state, self.x, self.y, order[i : i + b], binary)
        self.state = jax.block_until_ready(state)

    def params(self) -> Any:
        """The variables."""
        model, _ = nnx.merge(self.graph, self.state)
        layers = [
            mlpjax.Layer(layer.kernel[...], layer.bias and layer.bias[...]) for layer in (*model.hidden, model.last)
        ]
        for l, norm in enumerate(model.norms):
            layers[l] = layers[l]._replace(gamma=norm.scale[...], beta=norm.bias[...])
        return tuple(layers)


CONTENDERS = {"Flax NNX": Flax}
