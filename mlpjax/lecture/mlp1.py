"""Checks of the section *One hidden layer*: its notation, its parameters and its training."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlpjax
from mlpjax import counting, logistic, one_hidden, one_hidden_descent, toys
from mlpjax.claims import Claim, agree, equal, holds
from mlpjax.config import Config
from mlpjax.layers import affine_forward
from mlpjax.parameters import Batch, Layer, Params
from mlpjax.step import TrainState, train_step


def _shapes_of(config: Config) -> tuple[Params, Any]:
    """What `mlpjax.init` returns, shapes in place of arrays."""
    return jax.eval_shape(partial(mlpjax.init, config), jax.random.key(0))


def mlp1_layer_count() -> tuple[Claim, ...]:
    """L counts the layers of weights: logistic regression has one, a network with one hidden layer two."""
    logreg, network = Config(sizes=(3, 1), head="binary"), Config(sizes=(3, 4, 1), head="binary")
    layers = [len(_shapes_of(config)[0]) for config in (logreg, network)]
    return (
        equal("L of sizes (3, 1) and (3, 4, 1)", [logreg.depth, network.depth], [1, 2]),
        equal("as many layers have a W", layers, [1, 2]),
    )


def mlp1_diagram_lr() -> tuple[Claim, ...]:
    """The pipeline of logistic regression, station by station: z = w₁x₁ + w₂x₂ + b, a = σ(z), L(ŷ = a, y)."""
    w1, w2, b, x1, x2 = 0.5, -1.5, 0.25, 2.0, 1.0
    params = (Layer(jnp.array([[w1], [w2]]), jnp.array([b])),)
    batch = Batch(jnp.array([[x1, x2]]), jnp.array([1.0]))
    stations = jax.jit(mlpjax.trace)(Config(sizes=(2, 1), head="binary"), params, (), batch)
    z = w1 * x1 + w2 * x2 + b
    return (
        agree("z", stations.output.z.value, [[z]]),
        agree("ŷ = a", stations.output.yhat.value, [[1 / (1 + np.exp(-z))]]),
        agree("L", stations.loss.L.value, [np.log(1 + np.exp(-z))]),
        equal("no hidden layer", len(stations.hidden), 0),
    )


def mlp1_notation() -> tuple[Claim, ...]:
    """a[0] = x, W[l] leads from layer l − 1 to layer l, and ŷ = a[L]."""
    config = Config(sizes=(3, 4, 1), activation="sigmoid", head="binary")
    params, x, _ = _training_case()
    a = x
    for W, b in (layer[:2] for layer in params):
        a = 1 / (1 + np.exp(-(a @ np.asarray(W) + np.asarray(b))))
    return (
        equal("W[l] is (n_{l−1}, n_l)", [layer.W.shape for layer in params], [(3, 4), (4, 1)]),
        agree("ŷ = a[2]", jax.jit(mlpjax.predict)(config, params, (), x), a),
    )


def mlp1_example_341() -> tuple[Claim, ...]:
    """n_0 = 3, n_1 = 4, n_2 = 1."""
    params, state = _shapes_of(Config(sizes=(3, 4, 1), head="binary"))
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    return holds("shapes", shapes == [(3, 4), (4,), (4, 1), (1,)], shapes), equal("no state", len(state), 0)


def mlp1_param_shapes() -> tuple[Claim, ...]:
    """θ = {W[1], b[1], W[2], b[2]}; b is stored as (n,), and adding it as the slide's row (1, n) is the same."""
    params, _ = _shapes_of(Config(sizes=(3, 4, 2), head="regression"))
    (hidden, _), x, _ = _training_case()
    z, _ = affine_forward(x, hidden.W, hidden.b)
    return (
        holds(
            "leaves", [leaf.shape for leaf in jax.tree.leaves(params)] == [(3, 4), (4,), (4, 2), (2,)], "two W, two b"
        ),
        agree("(n,) against (1, n)", z, x @ hidden.W + np.asarray(hidden.b)[None, :]),
    )


def mlp1_param_count() -> tuple[Claim, ...]:
    """P = Σ (n_{l−1} + 1) n_l."""
    sizes = (5, 7, 6, 2)
    params, _ = _shapes_of(Config(sizes=sizes))
    return (
        equal("3-4-1", counting.count_parameters((3, 4, 1)), 21),
        equal(
            "5-7-6-2, against the arrays",
            counting.count_parameters(sizes),
            sum(x.size for x in jax.tree.leaves(params)),
        ),
    )


def _training_case() -> tuple[Params, Any, Any]:
    """3-4-1 tanh units and 6 labelled examples."""
    rng: Any = np.random.default_rng(0)
    W1, b1, W2, b2 = (rng.normal(size=shape) for shape in ((3, 4), 4, (4, 1), 1))
    return (Layer(W1, b1), Layer(W2, b2)), rng.normal(size=(6, 3)), rng.integers(0, 2, (6, 1)) * 1.0


def mlp1_gd_algorithm() -> tuple[Claim, ...]:
    """The slide's loop, example by example, arrives where the batch step of `mlpjax.fit` arrives."""
    params, x, y = _training_case()
    config, optimizer = Config(sizes=(3, 4, 1), activation="tanh", head="binary"), optax.sgd(0.5)
    step = jax.jit(partial(train_step, config, optimizer, mlpjax.backward))
    fitted = TrainState(params, (), optimizer.init(params))
    reports = []
    for _ in range(5):
        fitted, report = step(fitted, Batch(x, y), jax.random.key(0))
        reports.append(report.J)
    claims = []
    for version in (1, 2):
        found, costs = one_hidden_descent.gradient_descent(params, x, y, alpha=0.5, iterations=5, version=version)
        claims += [
            agree(f"version {version}: J of 5 iterations", costs, reports),
            agree(f"version {version}: W[1] after them", found[0].W, fitted.params[0].W),
            agree(f"version {version}: b[2] after them", found[1].b, fitted.params[1].b),
        ]
    return *claims, holds("the cost falls", np.all(np.diff(reports) < 0), f"{reports[0]:.3f} to {reports[-1]:.3f}")


def mlp1_update() -> tuple[Claim, ...]:
    """W ← W − α ∂J/∂W, b ← b − α ∂J/∂b in both layers: what optax.sgd does."""
    params, x, y = _training_case()
    grads = one_hidden.backward_v1(params, x, y, one_hidden.forward_v1(params, x))
    ours = one_hidden_descent.update(params, grads, 0.3)
    tree = (Layer(grads.dW1, grads.db1), Layer(grads.dW2, grads.db2))
    optimizer = optax.sgd(0.3)
    theirs, _ = mlpjax.apply_update(optimizer, tree, optimizer.init(params), params)
    return (
        agree("W[1] by hand", ours[0].W, params[0].W - 0.3 * grads.dW1),
        *(
            agree(f"{v}{l + 1}, optax.sgd", getattr(ours[l], v), getattr(theirs[l], v))
            for l in (0, 1)
            for v in ("W", "b")
        ),
    )


def mlp1_playground() -> tuple[Claim, ...]:
    """On the Playground's circle and XOR one hidden layer is nearly always right, logistic regression is not."""
    claims = []
    for name in ("circle", "xor"):
        x, y = toys.TOYS[name](200, seed=1)
        x, y = x / 2.0, y * 1.0
        rng: Any = np.random.default_rng(0)
        start = (Layer(rng.normal(size=(2, 8)), jnp.zeros(8)), Layer(rng.normal(size=(8, 1)), jnp.zeros(1)))
        params, _ = one_hidden_descent.gradient_descent(start, x, y[:, None], alpha=1.0, iterations=300)
        line = logistic.gradient_descent(x, y, alpha=0.5, epochs=200)
        hidden = np.mean((one_hidden.forward_v1(params, x).a2[:, 0] >= 0.5) == y)
        linear = np.mean((x @ np.asarray(line.w) + float(line.b) >= 0) == y)
        claims.append(holds(f"{name}: accuracy", hidden > 0.95 and linear < 0.8, f"{hidden:.3f} against {linear:.3f}"))
    return tuple(claims)
