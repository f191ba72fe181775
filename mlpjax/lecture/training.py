"""Checks of the section *Types of training*: the data, the three modes, and what is hard about descent."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlpjax
from mlpjax.chunks import Run
from mlpjax.claims import Claim, agree, equal, holds, printed
from mlpjax.landscapes import (
    LANDSCAPES,
    bowl,
    steps_to_leave_saddle,
    trajectory,
)
from mlpjax.modes import batch_gradients, epoch_mean, epoch_rows, mode_of, updates_per_epoch
from mlpjax.optim import adagrad
from mlpjax.risk import largest_stable_step
from mlpjax.step import TrainState, take, train_step

ALPHA = 0.1


def _data() -> tuple[mlpjax.Config, mlpjax.Batch, Any]:
    """Linear regression on 7 examples with 3 features: config, data and where training starts."""
    rng = np.random.default_rng(0)
    config = mlpjax.Config(sizes=(3, 2), head="regression")
    data = mlpjax.Batch(jnp.asarray(rng.normal(size=(7, 3))), jnp.asarray(rng.normal(size=(7, 2))))
    return config, data, (mlpjax.Layer(W=jnp.asarray(rng.normal(size=(3, 2))), b=jnp.asarray(rng.normal(size=2))),)


def _mean_gradient(x: Any, y: Any, params: Any) -> np.ndarray:
    """dW over some rows in NumPy: Xᵀ(Ŷ − Y)/m."""
    return np.asarray(x.T @ (x @ params[0].W + params[0].b[None, :] - y) / len(x))


def _epoch(batch_size: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Take an epoch of updates: how many, W after them, and W after the same rows in a NumPy loop."""
    config, data, params = _data()
    optimizer, key = optax.sgd(ALPHA), jax.random.key(0)
    rows = epoch_rows(key, 1, 7, batch_size)
    step = jax.jit(lambda now, at: train_step(config, optimizer, mlpjax.backward, now, take(data, at), key)[0])
    now = TrainState(params, (), optimizer.init(params))
    x, y, W, b = (np.asarray(value) for value in (*data[:2], *params[0][:2]))
    for at in rows:
        now = step(now, at)
        at = at[at >= 0]
        error = (x[at] @ W + b - y[at]) / len(at)
        W, b = W - ALPHA * x[at].T @ error, b - ALPHA * error.sum(axis=0)
    return len(rows), np.asarray(now.params[0].W), W


def train_dataset() -> tuple[Claim, ...]:
    """m pairs are an x (m, n_0) and a y (m, n_L) of the same m; anything else is refused."""
    config, data, params = _data()
    aux = mlpjax.loss(config, params, (), data)[1]
    refused = []
    for x, y in ((data.x, data.y[:6]), (data.x[0], data.y[0]), (data.x[:, :2], data.y)):
        try:
            mlpjax.loss(config, params, (), mlpjax.Batch(x, y))
        except mlpjax.DataError as error:
            refused.append(str(error))
    return (
        equal("scores (m, n_L)", aux.z.shape, (7, 2)),
        equal("examples counted", aux.weight_sum, 7),
        holds("6 labels for 7, no rows, 2 features for 3: refused", len(refused) == 3, f"{len(refused)} of 3"),
    )


def train_batch() -> tuple[Claim, ...]:
    """Batch mode: one update per epoch, with the gradient of all examples; the order does not matter."""
    count, ours, loop = _epoch(7)
    _, data, params = _data()
    full = params[0].W - ALPHA * _mean_gradient(data.x, data.y, params)
    return (
        equal("its name", mode_of(7, 7), "batch"),
        equal("updates per epoch", count, 1),
        agree("W after an epoch is one full step", ours, full),
        agree("W after an epoch, NumPy", ours, loop),
    )


def train_minibatch() -> tuple[Claim, ...]:
    """Mini-batches: ⌈m/n⌉ updates per epoch, in which each example is used once, the last batch being smaller."""
    count, ours, loop = _epoch(3)
    config, data, _ = _data()
    rows = epoch_rows(jax.random.key(0), 1, 7, 3)
    run = Run(config, optax.sgd(ALPHA), mlpjax.backward, data, 3, 1, jax.random.key(0))
    return (
        equal("its name", mode_of(7, 3), "mini-batch"),
        equal("updates per epoch", (count, updates_per_epoch(7, 3)), (3, 3)),
        equal("each example once", np.sort(rows[rows >= 0]), range(7)),
        equal("the rows that training takes", rows, run.epoch_rows(1).reshape(-1, 3)[:count]),
        agree("W after an epoch, NumPy", ours, loop),
    )


def train_sgd() -> tuple[Claim, ...]:
    """Stochastic mode: m updates per epoch of one example each."""
    count, ours, loop = _epoch(1)
    return (
        equal("its name", mode_of(7, 1), "stochastic"),
        equal("updates per epoch", (count, updates_per_epoch(7, 1)), (7, 7)),
        agree("W after an epoch, NumPy", ours, loop),
    )


def _slice_gradient(i: int, n: int) -> Any:
    """dW of the package on the rows i … i + n − 1."""
    config, data, params = _data()
    return jax.jit(mlpjax.backward)(config, params, (), take(data, jnp.arange(i, i + n)))[1][0].W


def _printed_slice(i: int, n: int) -> Any:
    """x^(i:i+n) read with both ends."""
    _, data, params = _data()
    return _mean_gradient(data.x[i : i + n + 1], data.y[i : i + n + 1], params)


def _printed_sum(i: int, n: int) -> Any:
    """∂L of a batch as the sum of its examples' losses."""
    _, data, params = _data()
    return n * _mean_gradient(data.x[i : i + n], data.y[i : i + n], params)


@printed("err-minibatch-slice", _printed_slice)
@printed("err-minibatch-loss", _printed_sum)
def train_minibatch_update(form: Any = _slice_gradient) -> tuple[Claim, ...]:
    """θ[t] = θ[t−1] − α ∂J/∂θ, J being the mean loss of the n rows i … i + n − 1."""
    config, data, params = _data()
    x, y = data.x[2:5], data.y[2:5]

    def cost(W: jax.Array) -> jax.Array:
        return jnp.sum((x @ W + params[0].b[None, :] - y) ** 2) / 2 / 3

    optimizer, gradient = optax.sgd(ALPHA), form(2, 3)
    start = TrainState(params, (), optimizer.init(params))
    rows, key = jnp.arange(2, 5), jax.random.key(0)
    after = jax.jit(lambda: train_step(config, optimizer, mlpjax.backward, start, take(data, rows), key)[0])()
    return (
        agree("the gradient of rows 2 to 4 against jax.grad", gradient, jax.jit(jax.grad(cost))(params[0].W)),
        agree("W after one update", after.params[0].W, params[0].W - ALPHA * gradient),
    )


def _plain_mean(gradients: Any, counts: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients)


@printed("err-last-batch", _plain_mean)
def train_minibatch_unbiased(mean: Any = epoch_mean) -> tuple[Claim, ...]:
    """The mini-batch gradients of an epoch average to the full one, weighted where the last batch is smaller."""
    config, data, params = _data()
    claims = []
    for m, name in ((6, "equal batches"), (7, "a smaller last batch")):
        part = mlpjax.Batch(data.x[:m], data.y[:m])
        rows = epoch_rows(jax.random.key(0), 1, m, 3)
        stacked = jax.jit(batch_gradients, static_argnames="grad_fn")(
            config, params, (), part, rows, grad_fn=mlpjax.backward
        )
        claims.append(agree(name, mean(*stacked)[0].W, _mean_gradient(part.x, part.y, params)))
    return tuple(claims)


def train_shuffle() -> tuple[Claim, ...]:
    """The order is a permutation, new in each epoch, the same again for the same key and epoch."""
    key = jax.random.key(0)
    first, again, second, other = (
        epoch_rows(key, epoch, 50, 10) for key, epoch in ((key, 1), (key, 1), (key, 2), (jax.random.key(1), 1))
    )
    # a place keeps its example by chance once per epoch on average
    firsts = [epoch_rows(key, epoch, 5, 1)[0, 0] for epoch in range(1, 501)]
    counts = np.bincount(firsts, minlength=5)
    return (
        equal("each example once", np.sort(first.ravel()), range(50)),
        equal("the same key and epoch", first, again),
        holds(
            "another epoch, another key: another order", (first != second).any() and (first != other).any(), "differ"
        ),
        holds("each example comes first equally often", np.abs(counts - 100).max() < 45, counts.tolist()),
    )


def train_notation() -> tuple[Claim, ...]:
    """t counts updates, not epochs, and θ is every W and b: 2 epochs of ⌈7/3⌉ updates make t = 6."""
    config, data, params = _data()
    result = mlpjax.fit(config, optax.adam(ALPHA), data, epochs=2, batch_size=3, key=jax.random.key(0), params=params)
    moved = jax.tree.map(lambda after, before: bool(np.all(after != before)), result.params, params)
    return (
        equal("t after 2 epochs", optax.tree_utils.tree_get(result.opt_state, "count"), 6),
        equal("W and b were updated", jax.tree.leaves(moved), [True, True]),
    )


def train_problem_nonconvex() -> tuple[Claim, ...]:
    """Descent can stop where it is flat: on x² − y² it never leaves y = 0, and needs 145 steps from 10⁻⁶."""
    saddle = LANDSCAPES["saddle"]
    stays = trajectory(saddle, optax.sgd(0.05), 200, (1.0, 0.0))
    leaves = np.abs(trajectory(saddle, optax.sgd(0.05), 200, (1.0, 1e-6))[:, 1])
    points = jnp.array([[0.7, -0.4], [1.5, 0.3]])
    claims = [
        equal("y from y = 0", stays[:, 1], np.zeros(201)),
        holds("x comes near 0, where the gradient vanishes", abs(stays[-1, 0]) < 1e-9, float(stays[-1, 0])),
        equal("steps until |y| ≥ 1", np.argmax(leaves >= 1), steps_to_leave_saddle(1e-6, 0.05)),
        equal("steps, worked", steps_to_leave_saddle(1e-6, 0.05), 145),
    ]
    for name in ("saddle", "rosenbrock", "beale"):
        one = LANDSCAPES[name]
        ours, by_jax = jax.jit(jax.vmap(lambda theta, one=one: (one.df(theta), jax.grad(one.f)(theta))))(points)
        claims.append(agree(f"the gradient of {name}", ours, by_jax))
    return tuple(claims)


def train_problem_lr() -> tuple[Claim, ...]:
    """On a quadratic cost descent converges for α < 2/λ_max, and no further."""
    ravine = bowl((1.0, 50.0))
    limit = largest_stable_step(ravine.ddf(jnp.ones(2)))
    ends = {factor: np.abs(trajectory(ravine, optax.sgd(factor * limit), 300)[-1]).max() for factor in (0.95, 1.05)}
    x = np.asarray(_data()[1].x)
    hessian = x.T @ x / 7
    of_least_squares = largest_stable_step(hessian)
    left = [np.linalg.matrix_power(np.eye(3) - a * of_least_squares * hessian, 400) for a in (0.95, 1.05)]
    small, large = (float(np.linalg.norm(matrix)) for matrix in left)
    return (
        agree("2/λ_max of the ravine", limit, 2 / 50),
        holds("just below it converges", ends[0.95] < 1e-4, f"{ends[0.95]:.1e}"),
        holds("just above it diverges", ends[1.05] > 1e6, f"{ends[1.05]:.1e}"),
        holds("the same for linear regression", small < 1e-3 < 1e3 < large, f"{small:.1e} and {large:.1e} are left"),
    )


def train_problem_per_param() -> tuple[Claim, ...]:
    """Rare features learn slowly under one rate for all; AdaGrad gives each its own, and rarity costs nothing."""
    frequency = np.array([0.9, 0.09, 0.01])
    # one feature at a time, y = 1: the cost is ½ Σ_d f_d (θ_d − 1)², a bowl around θ = 1
    x = np.repeat(np.eye(3), [90, 9, 1], axis=0)
    config = mlpjax.Config(sizes=(3, 1), head="regression", bias=False)
    theta = np.array([0.0, 0.5, 2.0])
    params = (mlpjax.Layer(W=jnp.asarray(theta[:, None])),)
    gradient = jax.jit(mlpjax.backward)(config, params, (), mlpjax.Batch(x, np.ones(100)))[1][0].W[:, 0]
    sparse = bowl(frequency.tolist())
    error = {
        "one rate": np.abs(trajectory(sparse, optax.sgd(1.0), 100)[-1]),
        "AdaGrad": np.abs(trajectory(sparse, adagrad(0.5, eps=1e-30), 100)[-1]),
    }
    return (
        agree("the data's gradient is the bowl's", gradient, sparse.df(jnp.asarray(theta - 1))),
        agree("one rate: (1 − α f_d)^t is left", error["one rate"], (1 - frequency) ** 100),
        holds("the rarest is far off", error["one rate"][2] > 0.3, float(error["one rate"][2])),
        agree("AdaGrad: as fast for all", error["AdaGrad"], np.full(3, error["AdaGrad"][0]), 1e-9),
        holds("AdaGrad is there", error["AdaGrad"].max() < 1e-6, float(error["AdaGrad"].max())),
    )
