"""The layers: each backward pass against autodiff with random cotangents and against differences, and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax import Config, InputError, forward, init
from mlpjax.layers import (
    BATCH_NORM_EPS,
    BatchNormState,
    affine_backward,
    affine_forward,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    batch_norm_update,
    dropout_backward,
    dropout_forward,
)

M, N, N_OUT = 7, 4, 3


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def row_weights(kind="given", m=M):
    weight = np.ones(m) if kind == "none" else np.random.default_rng(5).uniform(0.5, 2, m)
    if kind == "zeros":
        weight[[0, m - 1]] = 0
    return jnp.asarray(weight / weight.sum())


def assert_backward(f, args, backward, rtol=1e-12):
    """``backward(dout)`` is the vector–Jacobian product of ``f(*args)``, by autodiff and by differences."""
    out, vjp = jax.vjp(f, *args)
    dout = normal(*out.shape, seed=9)
    hand = backward(dout)
    for arg, by_hand, auto in zip(args, hand, vjp(dout), strict=True):
        scale = float(jnp.abs(auto).max())
        assert by_hand.shape == arg.shape
        np.testing.assert_allclose(by_hand, auto, rtol=0, atol=rtol * scale)
    h = 1e-4
    for i, by_hand in enumerate(hand):

        def along(step, i=i):
            return jnp.sum(dout * f(*args[:i], args[i] + step, *args[i + 1 :]))

        steps = h * jnp.eye(args[i].size).reshape(-1, *args[i].shape)
        p1, m1, p2, m2 = (jax.vmap(along)(k * steps) for k in (1, -1, 2, -2))
        numeric = ((8 * (p1 - m1) - (p2 - m2)) / (12 * h)).reshape(by_hand.shape)
        np.testing.assert_allclose(by_hand, numeric, rtol=0, atol=1e-8 * float(jnp.abs(by_hand).max()) + 1e-10)


def test_affine(x64):
    x, W, b = normal(M, N), normal(N, N_OUT, seed=1), normal(N_OUT, seed=2)
    out, cache = affine_forward(x, W, b)
    np.testing.assert_allclose(out, np.asarray(x) @ np.asarray(W) + np.asarray(b), rtol=1e-13)
    assert_backward(lambda *args: affine_forward(*args)[0], (x, W, b), lambda dz: affine_backward(dz, cache))


def test_affine_without_bias(x64):
    x, W = normal(M, N), normal(N, N_OUT, seed=1)
    out, cache = affine_forward(x, W, None)
    np.testing.assert_allclose(out, np.asarray(x) @ np.asarray(W), rtol=1e-13)
    assert_backward(lambda x, W: affine_forward(x, W, None)[0], (x, W), lambda dz: affine_backward(dz, cache)[:2])


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
def test_affine_in_a_narrow_dtype(compute_dtype):
    """The factors are rounded, the sum is not: exactly the float32 product of the rounded factors."""
    x, W, dz = (normal(*shape, seed=s).astype(jnp.float32) for s, shape in enumerate([(M, N), (N, N_OUT), (M, N_OUT)]))
    z, cache = affine_forward(x, W, jnp.ones(N_OUT), compute_dtype)
    dx, dW, db = affine_backward(dz, cache, compute_dtype)
    rounded = [np.asarray(a.astype(compute_dtype).astype(jnp.float32)) for a in (x, W, dz)]
    assert {a.dtype for a in (z, dx, dW, db)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(z, rounded[0] @ rounded[1] + 1, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx, rounded[2] @ rounded[1].T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dW, rounded[0].T @ rounded[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(db, np.asarray(dz).sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "given", "zeros"])
def test_batch_norm(x64, kind):
    z, gamma, beta, p = normal(M, N), 1 + normal(N, seed=1) / 3, normal(N, seed=2), row_weights(kind)
    out, cache, (mean, var) = batch_norm_forward(z, gamma, beta, p)
    weights = np.asarray(p)
    np.testing.assert_allclose(mean, np.average(z, axis=0, weights=weights), rtol=1e-13)
    centred = np.asarray(z) - np.asarray(mean)
    np.testing.assert_allclose(var, np.average(centred**2, axis=0, weights=weights), rtol=1e-13)
    zhat = centred / np.sqrt(np.asarray(var) + 1e-5)
    np.testing.assert_allclose(out, np.asarray(gamma) * zhat + np.asarray(beta), rtol=1e-12, atol=1e-14)
    assert_backward(
        lambda *args: batch_norm_forward(*args, p)[0], (z, gamma, beta), lambda dout: batch_norm_backward(dout, cache)
    )


def test_batch_norm_inference(x64):
    z, gamma, beta = normal(M, N), 1 + normal(N, seed=1) / 3, normal(N, seed=2)
    state = BatchNormState(normal(N, seed=3), jnp.abs(normal(N, seed=4)), jnp.array(3))
    out, cache = batch_norm_inference(z, gamma, beta, state)
    # an affine map: z s + (β − μ̄ s)
    s = gamma / jnp.sqrt(state.var + 1e-5)
    np.testing.assert_allclose(out, z * s[None, :] + (beta - state.mean * s)[None, :], rtol=1e-12, atol=1e-13)
    assert_backward(
        lambda *args: batch_norm_inference(*args, state)[0],
        (z, gamma, beta),
        lambda dout: batch_norm_backward(dout, cache),
    )


def test_batch_norm_output_is_normal(x64):
    """Mean β and variance γ²σ²/(σ² + ε), under the weights."""
    p, gamma, beta = row_weights(), jnp.array([1.0, 2.0, 0.5, 1.5]), normal(N, seed=2)
    out, _, (_, var) = batch_norm_forward(5 + 3 * normal(M, N), gamma, beta, p)
    mean_out = jnp.sum(p[:, None] * out, axis=0)
    var_out = jnp.sum(p[:, None] * (out - mean_out[None, :]) ** 2, axis=0)
    np.testing.assert_allclose(mean_out, beta, rtol=1e-12)
    np.testing.assert_allclose(var_out, gamma**2 * var / (var + 1e-5), rtol=1e-12)


def test_batch_norm_variance_does_not_cancel():
    """Mean 1e4, standard deviation 1, in float32: E[z²] − μ² would be off by hundreds."""
    z = (1e4 + np.random.default_rng(0).normal(size=(512, 3))).astype(np.float32)
    out, _, (_, var) = batch_norm_forward(jnp.asarray(z), jnp.ones(3), jnp.zeros(3), jnp.full(512, 1 / 512))
    np.testing.assert_allclose(var, z.astype(np.float64).var(axis=0), rtol=1e-3)
    np.testing.assert_allclose(np.asarray(out).std(axis=0), 1.0, rtol=1e-3)


def test_batch_norm_of_one_row(x64):
    """A batch of one gives β, and no gradient reaches z."""
    z, gamma, beta, p = 100 * normal(1, N), 1 + normal(N, seed=1), normal(N, seed=2), jnp.ones(1)
    out, cache, (_, var) = batch_norm_forward(z, gamma, beta, p)
    np.testing.assert_array_equal(out[0], beta)
    np.testing.assert_array_equal(var, np.zeros(N))
    dz, dgamma, dbeta = batch_norm_backward(normal(1, N, seed=3), cache)
    np.testing.assert_allclose(dz, 0.0, atol=1e-12)
    np.testing.assert_array_equal(dgamma, np.zeros(N))
    np.testing.assert_array_equal(dbeta, normal(1, N, seed=3)[0])


def test_batch_norm_undoes_itself(x64):
    """The lecture's note: γ = √(σ² + ε), β = μ give z̃ = z."""
    z, p = 2 + 3 * normal(M, N), row_weights()
    _, _, (mean, var) = batch_norm_forward(z, jnp.ones(N), jnp.zeros(N), p)
    out, _, _ = batch_norm_forward(z, jnp.sqrt(var + BATCH_NORM_EPS), mean, p)
    np.testing.assert_allclose(out, z, rtol=1e-12)


def test_batch_norm_weights_are_multiplicities(x64):
    """Weight 2 is the row twice, weight 0 its absence: statistics, output and gradients."""
    z, gamma, beta = normal(4, N), 1 + normal(N, seed=1) / 3, normal(N, seed=2)
    weight = np.array([1.0, 2.0, 0.0, 1.0])
    rows = np.array([0, 1, 1, 3])
    dout = normal(4, N, seed=3)
    weighted = batch_norm_forward(z, gamma, beta, jnp.asarray(weight / 4))
    repeated = batch_norm_forward(z[rows], gamma, beta, jnp.full(4, 0.25))
    np.testing.assert_allclose(weighted[2], repeated[2], rtol=1e-13)
    np.testing.assert_allclose(weighted[0][rows], repeated[0], rtol=1e-12, atol=1e-14)
    # the head gives a row its weight once
    dz, dgamma, dbeta = batch_norm_backward(dout * weight[:, None], weighted[1])
    dz_rep, dgamma_rep, dbeta_rep = batch_norm_backward(dout[rows], repeated[1])
    np.testing.assert_allclose(dgamma, dgamma_rep, rtol=1e-12)
    np.testing.assert_allclose(dbeta, dbeta_rep, rtol=1e-12)
    np.testing.assert_allclose(dz[1], dz_rep[1] + dz_rep[2], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(dz[jnp.array([0, 3])], dz_rep[jnp.array([0, 3])], rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(dz[2], np.zeros(N))


def test_batch_norm_gradient_sums_to_0(x64):
    """A bias before batch-norm would get no gradient; nor would a scale, but for ε."""
    z, p = normal(M, N), row_weights()
    _, cache, _ = batch_norm_forward(z, jnp.ones(N), jnp.zeros(N), p)
    dz, _, _ = batch_norm_backward(normal(M, N, seed=3), cache)
    np.testing.assert_allclose(jnp.sum(dz, axis=0), 0.0, atol=1e-14)
    np.testing.assert_allclose(jnp.sum(dz * z, axis=0), 0.0, atol=1e-3)


def test_running_statistics_are_a_debiased_average(x64):
    """Two batches: (0.9 · 0.1 · 5 + 0.1 · 7)/(1 − 0.81) = 115/19."""
    state = BatchNormState(jnp.zeros(1), jnp.ones(1), jnp.array(0))
    state = batch_norm_update(state, jnp.array([5.0]), jnp.array([3.0]))
    np.testing.assert_allclose([state.mean[0], state.var[0], state.count], [5.0, 3.0, 1], rtol=1e-14)
    state = batch_norm_update(state, jnp.array([7.0]), jnp.array([4.0]))
    np.testing.assert_allclose([state.mean[0], state.var[0], state.count], [115 / 19, 67 / 19, 2], rtol=1e-14)


@pytest.mark.parametrize("steps", [1, 10, 100])
def test_training_and_evaluation_agree(steps):
    """After any number of updates on one batch, in float32: the running statistics are that batch's."""
    config = Config(sizes=(3, 5, 4, 2), activation="tanh", batch_norm=True)
    params, state = init(config, jax.random.key(0))
    x = 3 + 2 * normal(16, 3)
    step = jax.jit(lambda state: forward(config, params, state, x, train=True))
    for _ in range(steps):
        z_train, state = step(state)
    z_eval, after = forward(config, params, state, x)
    np.testing.assert_allclose(z_eval, z_train, rtol=1e-4, atol=1e-5)
    assert [int(s.count) for s in state] == [steps, steps]
    assert after is state


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_dropout(x64, rate):
    """Kept units are scaled by 1/(1 − rate): kept fraction and mean within four standard errors."""
    a = 1 + normal(200, 150) / 10
    out, cache = dropout_forward(a, rate, jax.random.key(0))
    mask = np.asarray(cache.mask)
    values = {0.0: [1.0]}.get(rate, [0.0, 1 / (1 - rate)])
    np.testing.assert_allclose(np.unique(mask), values, rtol=1e-14)
    error = np.sqrt(rate * (1 - rate) / mask.size)
    assert abs((mask > 0).mean() - (1 - rate)) <= 4 * error
    np.testing.assert_allclose(np.asarray(out).mean(), np.asarray(a).mean(), rtol=4.2 * error / (1 - rate) + 1e-12)
    np.testing.assert_array_equal(out, np.asarray(a) * mask)


def test_dropout_backward(x64):
    """The same mask both ways, also after another draw in between."""
    a, key = normal(M, N), jax.random.key(4)
    _, cache = dropout_forward(a, 0.4, key)
    dropout_forward(a, 0.4, jax.random.key(5))
    assert 0 < int(jnp.sum(cache.mask == 0)) < M * N
    assert_backward(lambda a: dropout_forward(a, 0.4, key)[0], (a,), lambda da: (dropout_backward(da, cache),))


def test_dropout_masks_differ_between_rows_units_and_keys():
    ones = jnp.ones((40, 30))
    first, second = (np.asarray(dropout_forward(ones, 0.5, jax.random.key(k))[0]) for k in (0, 1))
    assert len(np.unique(first, axis=0)) == 40
    assert len(np.unique(first, axis=1).T) == 30
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, dropout_forward(ones, 0.5, jax.random.key(0))[0])


def test_dropout_rate_per_layer():
    """A tuple gives each layer its own rate: with W the identity, the fraction kept is seen in the scores."""
    width, m = 50, 400
    config = Config(sizes=(width, width, width), activation="identity", head="regression", bias=False)
    params, _ = init(config, jax.random.key(0))
    eye = tuple(layer._replace(W=jnp.eye(width)) for layer in params)
    for rates in [(0.25, None), (None, 0.6), (0.25, 0.6), 0.6]:
        rated = Config.from_dict({**config.to_dict(), "dropout": rates})
        z, _ = forward(rated, eye, (), jnp.ones((m, width)), train=True, key=jax.random.key(7))
        rate_0, rate_1 = rates if isinstance(rates, tuple) else (None, rates)
        kept = (1 - (rate_0 or 0)) * (1 - (rate_1 or 0))
        assert abs((np.asarray(z) != 0).mean() - kept) < 4 * np.sqrt(kept * (1 - kept) / z.size)
        np.testing.assert_allclose(np.asarray(z).max(), 1 / kept, rtol=1e-6)


def test_training_with_dropout_needs_a_key():
    config = Config(sizes=(3, 5, 2), dropout=0.5)
    with pytest.raises(InputError, match="training with dropout draws masks: give a key"):
        forward(config, *init(config, jax.random.key(0)), jnp.ones((4, 3)), train=True)
