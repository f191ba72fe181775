"""Equinox in the experiment on speed: the low-overhead loop of its tricks, leaves between the steps, buffers donated.

That loop has `equinox.filter_jit`; with `jax.jit` in its place, which the documentation allows and does not show, a
step of the small workload takes half the time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from speed_peers import LeftOut
from speed_workloads import Job, Orders, optax_rule

import mlpjax


class Network(eqx.Module):
    """Affine → batch-norm → activation → dropout in each hidden layer, for one example."""

    linear: list[eqx.nn.Linear]
    norms: list[eqx.nn.BatchNorm]
    dropout: eqx.nn.Dropout | None
    activation: str = eqx.field(static=True)

    def __init__(self, config: mlpjax.Config, start: Any) -> None:
        key = jax.random.key(0)
        self.linear = []
        for given in start:
            n_in, n_out = given.W.shape
            layer = eqx.nn.Linear(n_in, n_out, use_bias=given.b is not None, key=key)
            self.linear.append(eqx.tree_at(lambda layer: layer.weight, layer, given.W.T))
            if given.b is not None:
                self.linear[-1] = eqx.tree_at(lambda layer: layer.bias, self.linear[-1], given.b)
        hidden = config.sizes[1:-1] if config.batch_norm else ()
        self.norms = [eqx.nn.BatchNorm(n, "batch", momentum=0.9, mode="batch") for n in hidden]
        self.dropout = None if config.dropout is None else eqx.nn.Dropout(config.dropout)
        self.activation = config.activations[0]

    def __call__(self, x: jax.Array, state: eqx.nn.State, key: jax.Array | None) -> tuple[jax.Array, eqx.nn.State]:
        """The scores of one example, under ``vmap(axis_name="batch")``."""
        for l, layer in enumerate(self.linear[:-1]):
            x = layer(x)
            if self.norms:
                x, state = self.norms[l](x, state)
            x = {"relu": jax.nn.relu, "tanh": jnp.tanh}[self.activation](x)
            if self.dropout is not None:
                x = self.dropout(x, key=jax.random.fold_in(key, l))
        return self.linear[-1](x), state


class Equinox:
    """One compiled call per step."""

    tells_compile = False

    def __init__(self, job: Job) -> None:
        config = job.workload.config
        if config.compute_dtype is not None:
            raise LeftOut("its layers have no compute dtype of their own")
        self.job, self.rule = job, optax_rule(job.workload)
        self.x, self.y = jax.device_put((job.x, job.y))
        self.step: Any = None

    def start(self, seed: int) -> None:
        """Set the weights."""
        build = partial(Network, self.job.workload.config, self.job.start(seed))
        model, state = eqx.nn.make_with_state(build)()
        trained = eqx.filter(model, eqx.is_inexact_array)
        tree = (model, state, self.rule.init(trained), jax.random.key(seed))
        arrays, static = eqx.partition(tree, eqx.is_array)
        self.leaves, structure = jax.tree.flatten(arrays)
        if self.step is None:
            # markers of the state are new in every model: what was compiled for the first serves for all
            self.structure, self.static = structure, static
            self.step = self.compiled_step()

    def compiled_step(self) -> Any:
        """One update: of leaves, by data (x, y, and the rows of the batch)."""
        structure, static, rule, config = self.structure, self.static, self.rule, self.job.workload.config

        def loss(model: Network, state: eqx.nn.State, x: jax.Array, y: jax.Array, keys: jax.Array | None) -> Any:
            across = (0, None, None if keys is None else 0)
            z, state = jax.vmap(model, in_axes=across, out_axes=(0, None), axis_name="batch")(x, state, keys)
            if config.head == "binary":
                return optax.sigmoid_binary_cross_entropy(z[:, 0], y).mean(), state
            return optax.softmax_cross_entropy_with_integer_labels(z, y).mean(), state

        @eqx.filter_jit(donate="all-except-first")
        def step(data: tuple[Any, ...], leaves: list[jax.Array]) -> tuple[list[jax.Array], jax.Array]:
            x, y, rows = data
            model, state, memory, key = eqx.combine(jax.tree.unflatten(structure, leaves), static)
            key, own = jax.random.split(key) if config.has_dropout else (key, key)
            keys = jax.random.split(own, len(rows)) if config.has_dropout else None
            (value, state), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model, state, x[rows], y[rows], keys)
            updates, memory = rule.update(grads, memory)
            model = eqx.apply_updates(model, updates)
            return jax.tree.leaves(eqx.filter((model, state, memory, key), eqx.is_array)), value

        return step

    def train(self, orders: Orders) -> None:
        """Train."""
        b, leaves = self.job.workload.batch_size, self.leaves
        for order in orders:
            for i in range(0, len(order), b):
                leaves, _ = self.step((self.x, self.y, order[i : i + b]), leaves)
        self.leaves = jax.block_until_ready(leaves)

    def params(self) -> Any:
        """The leaves of the model."""
        model, *_ = eqx.combine(jax.tree.unflatten(self.structure, self.leaves), self.static)
        layers = [mlpjax.Layer(layer.weight.T, layer.bias) for layer in model.linear]
        for l, norm in enumerate(model.norms):
            layers[l] = layers[l]._replace(gamma=norm.weight, beta=norm.bias)
        return tuple(layers)


CONTENDERS = {"Equinox": Equinox}
