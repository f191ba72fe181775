"""The distributions of the labels: their Fisher matrices by enumeration, by autodiff and by drawing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax import HEADS
from mlpjax.distributions import DISTRIBUTIONS

WIDTH = {"binary": 1}
SCORES = np.array([[0.3, -1.2, 2.0], [-0.7, 0.4, 0.1], [5.0, 1.0, 4.0]])


def scores(head):
    return SCORES[:, : WIDTH.get(head, 3)]


def labels(head, z):
    """Label vectors and their probabilities, ``(m, labels, n_L)`` and ``(m, labels)``.

    Of a normal distribution points with its mean and covariance: the deltas are linear in y.
    """
    m, n = z.shape
    yhat = np.asarray(HEADS[head].link(z))
    if head == "multiclass":
        return np.broadcast_to(np.eye(n), (m, n, n)), yhat
    if head in ("binary", "multilabel"):
        y = np.array(list(itertools.product((0.0, 1.0), repeat=n)))
        return np.broadcast_to(y, (m, *y.shape)), np.prod(np.where(y, yhat[:, None], 1 - yhat[:, None]), axis=2)
    steps = np.sqrt(n) * np.concatenate([np.eye(n), -np.eye(n)])
    return yhat[:, None] + steps, np.full((m, 2 * n), 1 / (2 * n))


def test_there_is_one_for_every_head():
    assert DISTRIBUTIONS.keys() == HEADS.keys()


@pytest.mark.parametrize("head", DISTRIBUTIONS)
def test_root_of_the_fisher_matrix(x64, head):
    z = scores(head)
    y, probability = labels(head, z)

    def loss_of_one(z, y):
        return HEADS[head].loss(z[None], y[None])[0]

    @jax.jit
    def found(z, y):
        dz = jax.vmap(HEADS[head].dz, (None, 1), 1)(z, y)
        return DISTRIBUTIONS[head].root(z), dz, jax.vmap(jax.hessian(loss_of_one))(z, y[:, 0])

    root, dz, hessian = map(np.asarray, found(z, y))
    fisher = root @ root.swapaxes(1, 2)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(np.einsum("mk,mki->mi", probability, dz), np.zeros_like(z), atol=1e-14)
    np.testing.assert_allclose(np.einsum("mk,mki,mkj->mij", probability, dz, dz), fisher, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(hessian, fisher, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("head", DISTRIBUTIONS)
def test_samples_have_the_fisher_matrix(head):
    draws = 20000
    z = jnp.asarray(np.tile(scores(head)[:2], (draws, 1)), jnp.float32)

    @jax.jit
    def found(z):
        y = DISTRIBUTIONS[head].sample(jax.random.key(3), z)
        return y, HEADS[head].dz(z, y), DISTRIBUTIONS[head].root(z[:2])

    y, dz, root = map(np.asarray, found(z))
    assert y.shape == z.shape
    assert y.dtype == z.dtype
    dz = dz.astype(np.float64).reshape(draws, 2, -1)
    products = dz[..., :, None] * dz[..., None, :]
    for values, expected in ((dz, 0.0), (products, root @ root.swapaxes(1, 2))):
        error = values.std(axis=0) / np.sqrt(draws)
        assert (np.abs(values.mean(axis=0) - expected) <= 4.5 * error + 1e-6).all()


def test_a_certain_row_keeps_its_digits():
    """ŷ = (1 − 2e-9, 1e-9, 1e-9) to about that: in float32 1 − ŷ would be 0."""
    z = np.array([[np.log(1e9), 0.0, 0.0]])
    root = np.asarray(jax.jit(DISTRIBUTIONS["multiclass"].root)(jnp.asarray(z, jnp.float32)), np.float64)[0]
    e = np.exp(z[0])
    yhat, others = e / e.sum(), (e.sum() - e) / e.sum()
    exact = np.where(np.eye(3), yhat * others, -np.outer(yhat, yhat))
    np.testing.assert_allclose(root @ root.T, exact, rtol=1e-5)
    np.testing.assert_allclose(root[0, 0], 2e-9, rtol=1e-5)
    far = np.asarray(DISTRIBUTIONS["binary"].root(jnp.array([[40.0]])))
    np.testing.assert_allclose(far, [[[np.exp(-20.0)]]], rtol=1e-5)
