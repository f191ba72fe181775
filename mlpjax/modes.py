"""The modes of training: batch, mini-batch and stochastic gradient descent differ only in the batch size n.

They are all `mlpjax.fit` with another ``batch_size``. Here is what follows from n: how many updates an epoch has,
which rows each of them takes, and what their gradients have to do with the gradient of all m examples.

Source: lecture, section *Types of training*.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpjax.checks import check_count
from mlpjax.chunks import epoch_order
from mlpjax.config import Config
from mlpjax.errors import InputError
from mlpjax.parameters import Batch, Params, State
from mlpjax.step import GradFn, batch_rows, take


def mode_of(m: int, batch_size: int) -> str:
    """Name the mode: ``"batch"`` (n ≥ m), ``"stochastic"`` (n = 1) or ``"mini-batch"``; m = 1 is ``"batch"``.

    Source: ``train-batch``, ``train-minibatch``, ``train-sgd``, ``err-sgd-name``.

    >>> [mode_of(100, n) for n in (100, 32, 1)]
    ['batch', 'mini-batch', 'stochastic']
    """
    if updates_per_epoch(m, batch_size) == 1:
        return "batch"
    return "stochastic" if batch_size == 1 else "mini-batch"


def updates_per_epoch(m: int, batch_size: int) -> int:
    """⌈m/n⌉: 1 in batch mode, m in stochastic mode; a smaller last batch counts like any other.

    Raises:
        ConfigError: if one of them is not an integer ≥ 1.

    Source: ``train-batch``, ``train-minibatch``, ``train-sgd``.

    >>> [updates_per_epoch(100, n) for n in (100, 32, 1)]
    [1, 4, 100]
    """
    check_count("m", m)
    check_count("batch_size", batch_size)
    return -(-m // batch_size)


def epoch_rows(key: jax.Array, epoch: int, m: int, batch_size: int) -> np.ndarray:
    """The rows that the updates of an epoch (from 1) take, as `mlpjax.fit` draws them; ``(⌈m/n⌉, n)`` int32.

    The order is new in every epoch and depends on (key, epoch) only. Update i takes the half-open slice
    in … (i + 1)n − 1 of it; where n does not divide m, the last batch is smaller and padded with −1.
    Source: ``train-minibatch``, ``train-shuffle``, ``err-minibatch-slice``, ``logreg-epoch``.

    >>> rows = epoch_rows(jax.random.key(0), 1, 5, 2)
    >>> rows.shape, sorted(rows.ravel().tolist())
    ((3, 2), [-1, 0, 1, 2, 3, 4])
    """
    updates = updates_per_epoch(m, batch_size)
    return batch_rows(epoch_order(key, epoch, m), min(batch_size, m), updates)


def batch_gradients(
    config: Config,
    params: Params,
    state: State,
    data: Batch,
    rows: np.ndarray,
    *,
    grad_fn: GradFn,
) -> tuple[Params, jax.Array]:
    """The gradient of each batch at the *same* parameters, stacked ``(batches, …)``, and each batch's Σwᵢ.

    ``rows (batches, n)`` are as `epoch_rows` gives them; every gradient is the mean over its batch, as in J.
    No masks are drawn here: for dropout, ``grad_fn`` is such as ``functools.partial(mlpjax.backward, train=False)``.
    Source: ``train-minibatch-update``, ``train-minibatch-unbiased``, ``err-minibatch-loss``.

    >>> config = mlpjax.Config(sizes=(1, 1), head="regression", bias=False)
    >>> data = mlpjax.Batch(jnp.ones((3, 1)), jnp.array([1.0, 3.0, 8.0]))
    >>> params, rows = (mlpjax.Layer(W=jnp.zeros((1, 1))),), np.array([[0, 1], [2, -1]])
    >>> gradients, counts = batch_gradients(config, params, (), data, rows, grad_fn=mlpjax.backward)
    >>> gradients[0].W.ravel(), counts
    (Array([-2., -8.], dtype=float32), Array([2., 1.], dtype=float32))
    """
    if np.ndim(rows) != 2:
        raise InputError(f"rows has shape {np.shape(rows)}: expected (batches, n), as epoch_rows returns it")

    def of_batch(batch_rows: jax.Array) -> tuple[Params, jax.Array]:
        (_, aux), grads = grad_fn(config, params, state, take(data, batch_rows))
        return grads, aux.weight_sum

    return jax.vmap(of_batch)(jnp.asarray(rows))


def epoch_mean(gradients: Any, counts: jax.Array) -> Any:
    """Σ_b n_b g_b / Σ_b n_b over the batches of an epoch: the gradient of all examples, whatever the batches.

    ``gradients`` is a pytree stacked ``(batches, …)`` and ``counts (batches,)`` the examples (or Σwᵢ) of each. The
    plain mean would let the examples of a smaller last batch count for more.
    Source: ``train-minibatch-unbiased``, ``err-last-batch``.

    >>> epoch_mean(jnp.array([-2.0, -8.0]), jnp.array([2.0, 1.0]))
    Array(-4., dtype=float32)
    """
    share = counts / jnp.sum(counts)
    return jax.tree.map(lambda leaf: jnp.tensordot(share, leaf, axes=1), gradients)
