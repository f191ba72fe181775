"""Softmax regression: autodiff, the network without a hidden layer, logistic regression, the redundant class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression

import mlpjax
from mlpjax import logistic, softmax_regression
from mlpjax.errors import DataError, InputError

M, N, K = 60, 2, 3
W, B = np.array([[0.5, -1.0, 0.3], [1.0, 0.2, -0.7]]), np.array([0.1, -0.2, 0.4])


def data(seed=0):
    """Overlapping classes from a softmax model, in float64."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(M, N))
    yhat = special.softmax(x @ (2 * W) + B, axis=1)
    return x, (rng.uniform(size=(M, 1)) > np.cumsum(yhat, axis=1)).sum(axis=1)


@pytest.mark.parametrize("l2", [0.0, 0.7])
def test_cost_gradient_and_hessian(x64, l2):
    x, labels = data()
    y, w, b = jnp.eye(K)[labels], jnp.array(W), jnp.array(B)
    yhat = special.softmax(x @ W + B, axis=1)
    J = -np.mean(np.log(yhat[np.arange(M), labels])) + l2 / 2 * np.sum(W**2)
    np.testing.assert_allclose(softmax_regression.cost(w, b, x, y, l2), J, rtol=1e-14)
    np.testing.assert_allclose(softmax_regression.predict(w, b, x), yhat, rtol=1e-13)

    def cost(theta):
        return softmax_regression.cost(theta[K:].reshape(N, K), theta[:K], x, y, l2)

    theta = jnp.append(b, w)
    dW, db = softmax_regression.gradient(w, b, x, y, l2)
    np.testing.assert_allclose(jnp.append(db, dW), jax.jit(jax.grad(cost))(theta), rtol=1e-11)
    compiled = jax.jit(cost)
    difference = [(compiled(theta + e) - compiled(theta - e)) / 2e-5 for e in 1e-5 * np.eye(len(theta))]
    np.testing.assert_allclose(jnp.append(db, dW), difference, rtol=1e-7, atol=1e-10)
    hessian = softmax_regression.hessian(w, b, jnp.asarray(x), l2)
    np.testing.assert_allclose(hessian, jax.jit(jax.hessian(cost))(theta), rtol=1e-11, atol=1e-14)
    bound = softmax_regression.hessian_bound(jnp.asarray(x), K, l2)
    assert np.linalg.eigvalsh(bound - hessian)[0] > -1e-14
    optimality = softmax_regression.optimality(w, b, x, y, l2)
    np.testing.assert_allclose(optimality.gradient_norm, np.linalg.norm(jnp.append(db, dW)), rtol=1e-14)
    np.testing.assert_allclose(optimality.calibration, yhat.mean(axis=0) - np.eye(K)[labels].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("l2", [None, 0.7])
def test_it_is_the_network_without_a_hidden_layer(x64, l2):
    """Loss, gradients, predictions, and 20 steps of plain SGD on all examples."""
    x, labels = data()
    config = mlpjax.Config(sizes=(N, K), l2=l2)
    params = (mlpjax.Layer(W=jnp.array(W), b=jnp.array(B)),)
    batch = mlpjax.Batch(x, labels)
    (J, _), grads = mlpjax.backward(config, params, (), batch)
    arguments = (jnp.array(W), jnp.array(B), jnp.asarray(x), jnp.eye(K)[labels], l2 or 0.0)
    np.testing.assert_allclose(softmax_regression.cost(*arguments), J, rtol=1e-14)
    dW, db = softmax_regression.gradient(*arguments)
    np.testing.assert_allclose(dW, grads[0].W, rtol=1e-12)
    np.testing.assert_allclose(db, grads[0].b, rtol=1e-12)
    yhat = mlpjax.predict(config, params, (), x)
    np.testing.assert_allclose(softmax_regression.predict(*arguments[:3]), yhat, rtol=1e-14)
    options = {"n_classes": K, "alpha": 0.5, "epochs": 20, "l2": l2 or 0.0}
    descent = softmax_regression.gradient_descent(x, labels, start=(W, B), **options)
    trained = mlpjax.fit(
        config, optax.sgd(0.5), batch, epochs=20, batch_size=M, key=jax.random.key(0), params=params, state=()
    )
    np.testing.assert_allclose(descent.w, trained.params[0].W, rtol=1e-11)
    np.testing.assert_allclose(descent.b, trained.params[0].b, rtol=1e-11)
    J = np.add(trained.history["train_loss"], trained.history["penalty"])
    np.testing.assert_allclose(descent.costs[:-1], J, rtol=1e-12)


def test_newton_is_scikit_learns_optimum(x64):
    x, labels = data()
    fit = softmax_regression.newton(x, labels, n_classes=K, l2=1 / M)
    assert fit.converged
    assert fit.steps <= 8
    peer = LogisticRegression(C=1.0, solver="newton-cg", tol=1e-10, max_iter=1000).fit(x, labels)
    np.testing.assert_allclose(fit.w, peer.coef_.T, atol=1e-6)
    np.testing.assert_allclose(fit.b, peer.intercept_, atol=1e-6)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_two_classes_are_logistic_regression(x64, l2):
    """w = W₁ − W₀, b = b₁ − b₀; (l2/2)(‖W₀‖² + ‖W₁‖²) is (l2/4)‖w‖² where W₁ = −W₀."""
    x, labels = data()
    y = np.minimum(labels, 1)
    two = softmax_regression.newton(x, y, n_classes=2, l2=l2)
    one = logistic.newton(x, y, l2=l2 / 2)
    np.testing.assert_allclose(two.w[:, 1] - two.w[:, 0], one.w, atol=1e-9)
    np.testing.assert_allclose(two.b[1] - two.b[0], one.b, atol=1e-9)
    np.testing.assert_allclose(two.costs[-1], one.costs[-1], rtol=1e-12)


def test_nothing_moves_along_the_redundant_class(x64):
    """Adding ψ to the weights of each class changes no prediction: both fits leave the sum over classes alone."""
    x, labels = data()
    zero = softmax_regression.newton(x, labels, n_classes=K)
    np.testing.assert_allclose(zero.w.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(zero.b.sum(), 0, atol=1e-12)
    psi = np.array([3.0, -5.0])[:, None]
    start = (np.zeros((N, K)) + psi, np.full(K, 7.0))
    shifted = softmax_regression.newton(x, labels, n_classes=K, start=start)
    np.testing.assert_allclose(shifted.w, zero.w + psi, atol=1e-8)
    np.testing.assert_allclose(shifted.b, zero.b + 7, atol=1e-8)
    descent = softmax_regression.gradient_descent(x, labels, n_classes=K, alpha=1.0, epochs=20)
    np.testing.assert_allclose(descent.w.sum(axis=1), 0, atol=1e-12)
    assert zero.costs[-1] < descent.costs[-1] < descent.costs[0]
    hessian = softmax_regression.hessian(zero.w, zero.b, jnp.asarray(x))
    eigenvalues = np.linalg.eigvalsh(hessian)
    np.testing.assert_allclose(eigenvalues[: N + 1], 0, atol=1e-14)
    assert eigenvalues[N + 1] > 1e-3


@pytest.mark.parametrize("scale", [10.0, 100.0])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_newton_from_bad_starts(x64, scale, l2):
    x, labels = data()
    optimum = softmax_regression.newton(x, labels, n_classes=K, l2=l2)
    rng = np.random.default_rng(2)
    for _ in range(3):
        start = (scale * rng.normal(size=(N, K)), scale * rng.normal(size=K))
        fit = softmax_regression.newton(x, labels, n_classes=K, l2=l2, start=start)
        assert fit.converged, fit.message
        np.testing.assert_allclose(fit.costs[-1], optimum.costs[-1], rtol=1e-10)
        centred = [w - w.mean(axis=1, keepdims=True) for w in (fit.w, optimum.w)]
        np.testing.assert_allclose(*centred, atol=1e-6)
        assert (np.diff(fit.costs) <= 1e-15).all()


def test_the_optimum_is_calibrated(x64):
    x, labels = data()
    fit = softmax_regression.newton(x, labels, n_classes=K, l2=0.1)
    yhat = softmax_regression.predict(fit.w, fit.b, jnp.asarray(x))
    np.testing.assert_allclose(yhat.mean(axis=0), np.bincount(labels) / M, atol=1e-9)


def test_separable_classes_have_no_optimum(x64):
    x, labels = [[-1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.5, 0.1]], [0, 1, 2, 2]
    fit = softmax_regression.newton(x, labels, n_classes=3)
    assert (fit.reason, fit.converged) == ("separable", False)
    assert np.array_equal(np.argmax(softmax_regression.predict(fit.w, fit.b, jnp.asarray(x)), axis=1), labels)
    # one class on its own side, the two others overlapping
    x, labels = [[5.0, 0.0], [6.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]], [0, 0, 1, 2, 1, 2]
    assert softmax_regression.newton(x, labels, n_classes=3).reason == "separable"
    assert softmax_regression.newton(x, labels, n_classes=3, l2=0.01).converged


def test_soft_labels(x64):
    x, _ = data()
    y = special.softmax(x @ W + B, axis=1)
    fit = softmax_regression.newton(x, y, n_classes=K)
    np.testing.assert_allclose(fit.w, W - W.mean(axis=1, keepdims=True), atol=1e-8)
    np.testing.assert_allclose(fit.b, B - B.mean(), atol=1e-8)


def test_what_is_wrong_is_said():
    x, labels = data()
    newton, descend = softmax_regression.newton, softmax_regression.gradient_descent
    with pytest.raises(DataError, match="y has no example of class 3: expected all 4"):
        newton(x, labels, n_classes=4)
    with pytest.raises(DataError, match="y has a label outside the classes: 2"):
        newton(x, labels, n_classes=2)
    with pytest.raises(DataError, match=r"x has shape \(60,\): expected \(m, n\)"):
        newton(x[:, 0], labels, n_classes=K)
    with pytest.raises(InputError, match=r"start has W of shape \(2, 2\)"):
        newton(x, labels, n_classes=K, start=(np.zeros((2, 2)), np.zeros(K)))
    with pytest.raises(InputError, match="tol is nan"):
        newton(x, labels, n_classes=K, tol=float("nan"))
    with pytest.raises(InputError, match="l2 is -1"):
        newton(x, labels, n_classes=K, l2=-1)
    with pytest.raises(InputError, match="alpha is -1"):
        descend(x, labels, n_classes=K, alpha=-1, epochs=1)
    with pytest.raises(InputError, match="epochs is 0"):
        descend(x, labels, n_classes=K, alpha=1, epochs=0)


def test_float32():
    x, labels = data()
    fit = softmax_regression.newton(x, labels, n_classes=K, tol=1e-5)
    assert fit.converged
    assert fit.w.dtype == fit.b.dtype == jnp.float32
