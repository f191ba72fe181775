"""Logistic regression: worked values, autodiff, the network without a hidden layer, scikit-learn, and no optimum."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

import mlpjax
from mlpjax import logistic
from mlpjax.activations import binary_step
from mlpjax.errors import DataError, InputError
from mlpjax.logistic_unit import bce, bce_da, decide, example_backward, glm_step, predict, score
from mlpjax.toys import gate

LN3 = math.log(3)
M, N = 60, 3


def data(seed=0):
    """Overlapping classes from a logistic model, in float64."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(M, N))
    return x, (rng.uniform(size=M) < special.expit(x @ [1.0, -2.0, 0.5] + 0.3)).astype(int)


def network(w, b, l2=None):
    config = mlpjax.Config(sizes=(len(w), 1), head="binary", l2=l2)
    return config, (mlpjax.Layer(W=jnp.asarray(w)[:, None], b=jnp.asarray(b)[None]),)


def separates(fit, x, y):
    return np.array_equal(decide(fit.w, fit.b, jnp.asarray(x)), y)


def test_worked_values_of_the_unit(x64):
    # z = ln 3, σ = ¾
    w, b, x = jnp.array([LN3, 5.0]), jnp.array(0.0), jnp.array([1.0, 0.0])
    assert float(score(w, b, x)) == LN3
    np.testing.assert_allclose(predict(w, b, x), 0.75, rtol=1e-15)
    np.testing.assert_allclose(bce(jnp.array(0.75), jnp.array([1.0, 0.0])), [math.log(4 / 3), math.log(4)], rtol=1e-15)
    back = example_backward(w, b, x, 1.0)
    np.testing.assert_allclose(back.da, -4 / 3, rtol=1e-14)
    np.testing.assert_allclose(back.da_dz, 3 / 16, rtol=1e-14)
    np.testing.assert_allclose([back.dz, back.db], -0.25, rtol=1e-14)
    np.testing.assert_allclose(back.dw, [-0.25, 0.0], rtol=1e-14)
    new_w, new_b = glm_step(w, b, x, 1.0, 0.5)
    np.testing.assert_allclose([*new_w, new_b], [LN3 + 0.125, 5.0, 0.125], rtol=1e-14)
    # the perceptron is right here: nothing changes
    np.testing.assert_array_equal(glm_step(w, b, x, 1.0, 0.5, binary_step)[0], w)


@pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
def test_bce_at_the_ends(y):
    """Certain and right costs 0, certain and wrong ∞; so is the derivative of what is wrong."""
    ends = jnp.array([0.0, 1.0])
    np.testing.assert_array_equal(bce(ends, y), np.where(ends == y, 0, np.inf))
    np.testing.assert_array_equal(bce_da(ends, jnp.full(2, y)), [1 if y == 0 else -np.inf, -1 if y == 1 else np.inf])
    assert np.isnan(bce(jnp.array([-0.1, 1.1]), y)).all()


def test_the_derivative_of_bce_at_a_soft_label(x64):
    np.testing.assert_allclose(bce_da(jnp.array([0.25]), jnp.array([0.5])), [-0.5 / 0.25 + 0.5 / 0.75])
    with pytest.raises(InputError, match="one label per output"):
        bce_da(jnp.ones(2), jnp.ones(3))


def test_decide_is_on_the_score():
    x = jnp.array([[-1e-30], [0.0], [1e-30]])
    np.testing.assert_array_equal(predict(jnp.ones(1), 0.0, x), 0.5)
    np.testing.assert_array_equal(decide(jnp.ones(1), 0.0, x), [0, 1, 1])


@pytest.mark.parametrize("l2", [0.0, 0.7])
def test_cost_gradient_and_hessian(x64, l2):
    x, y = (jnp.asarray(part, float) for part in data())
    w, b = jnp.array([0.5, -1.0, 2.0]), jnp.array(0.2)
    yhat = special.expit(np.asarray(x) @ w + b)
    J = -np.mean(y * np.log(yhat) + (1 - y) * np.log(1 - yhat)) + l2 / 2 * np.sum(np.square(w))
    np.testing.assert_allclose(logistic.cost(w, b, x, y, l2), J, rtol=1e-14)
    dw, db = logistic.gradient(w, b, x, y, l2)
    auto = jax.jit(jax.grad(logistic.cost, argnums=(0, 1)))(w, b, x, y, l2)
    np.testing.assert_allclose([*dw, db], [*auto[0], auto[1]], rtol=1e-12)
    cost = jax.jit(logistic.cost)
    for j, e in enumerate(1e-5 * np.eye(N)):
        difference = (cost(w + e, b, x, y, l2) - cost(w - e, b, x, y, l2)) / 2e-5
        np.testing.assert_allclose(dw[j], difference, rtol=1e-8)
    hessian = jax.jit(jax.hessian(lambda theta: logistic.cost(theta[1:], theta[0], x, y, l2)))(jnp.append(b, w))
    np.testing.assert_allclose(logistic.hessian(w, b, x, l2), hessian, rtol=1e-12, atol=1e-15)
    bound = logistic.hessian_bound(x, l2)
    assert np.linalg.eigvalsh(bound - hessian)[0] > 0
    np.testing.assert_allclose(bound, logistic.hessian(0 * w, 0.0, x, l2), rtol=1e-14)  # reached at 0
    optimality = logistic.optimality(w, b, x, y, l2)
    np.testing.assert_allclose(optimality.gradient_norm, np.linalg.norm([*dw, db]), rtol=1e-14)
    np.testing.assert_allclose(optimality.calibration, yhat.mean() - y.mean(), rtol=1e-12)


@pytest.mark.parametrize("l2", [None, 0.7])
def test_it_is_the_network_without_a_hidden_layer(x64, l2):
    """Loss, gradients, predictions and decisions, and 20 steps of plain SGD on all examples."""
    x, y = data()
    w, b = jnp.array([0.5, -1.0, 2.0]), jnp.array(0.2)
    config, params = network(w, b, l2)
    batch = mlpjax.Batch(x, y)
    arguments = (w, b, jnp.asarray(x), jnp.asarray(y, float), l2 or 0.0)
    (J, _), grads = mlpjax.backward(config, params, (), batch)
    np.testing.assert_allclose(logistic.cost(*arguments), J, rtol=1e-15)
    dw, db = logistic.gradient(*arguments)
    np.testing.assert_allclose(dw, grads[0].W[:, 0], rtol=1e-13)
    np.testing.assert_allclose(db, grads[0].b[0], rtol=1e-13)
    yhat = mlpjax.predict(config, params, (), x)
    np.testing.assert_allclose(predict(w, b, x), yhat[:, 0], rtol=1e-15)
    np.testing.assert_array_equal(decide(w, b, x), mlpjax.decide(config, yhat))

    descent = logistic.gradient_descent(x, y, alpha=0.5, epochs=20, l2=l2 or 0.0, start=(w, b))
    trained = mlpjax.fit(
        config, optax.sgd(0.5), batch, epochs=20, batch_size=M, key=jax.random.key(0), params=params, state=()
    )
    np.testing.assert_allclose(descent.w, trained.params[0].W[:, 0], rtol=1e-12)
    np.testing.assert_allclose(descent.b, trained.params[0].b[0], rtol=1e-12)
    J = np.add(trained.history["train_loss"], trained.history["penalty"])
    np.testing.assert_allclose(descent.costs[:-1], J, rtol=1e-12)


def test_irls_on_breast_cancer_is_scikit_learns_optimum(x64):
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    fit = logistic.newton(x, y, l2=1 / len(x))
    assert fit.converged
    assert fit.reason == "gradient"
    assert fit.steps <= 10
    assert fit.gradient_norms[-1] <= 1e-10
    peer = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10).fit(x, y)
    np.testing.assert_allclose(fit.w, peer.coef_[0], atol=1e-6)
    np.testing.assert_allclose(fit.b, peer.intercept_[0], atol=1e-6)
    # quadratic convergence: the digits double
    assert fit.gradient_norms[-1] < 10 * fit.gradient_norms[-2] ** 1.5


def test_a_full_newton_step_is_reweighted_least_squares(x64):
    x, y = data()
    fit = logistic.newton(x, y, max_steps=1)
    x1 = np.column_stack([np.ones(M), x])
    # at 0: s = ŷ(1 − ŷ) = ¼, working response z + (y − ŷ)/s
    theta = np.linalg.lstsq(0.5 * x1, 0.5 * (y - 0.5) / 0.25, rcond=None)[0]
    np.testing.assert_allclose([fit.b, *fit.w], theta, rtol=1e-12)
    assert (fit.steps, fit.reason, fit.converged) == (1, "max_steps", False)


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 10.0, 1e3, 1e5])
def test_newton_from_bad_starts(x64, l2, scale):
    """From far away every unit is saturated and H says nothing; the optimum is found all the same."""
    x, y = data()
    optimum = logistic.newton(x, y, l2=l2)
    assert optimum.converged
    rng = np.random.default_rng(1)
    for _ in range(3):
        fit = logistic.newton(x, y, l2=l2, start=(scale * rng.normal(size=N), scale * rng.normal()))
        assert fit.converged, fit.message
        np.testing.assert_allclose([*fit.w, fit.b], [*optimum.w, optimum.b], atol=1e-7)
        assert (np.diff(fit.costs) <= 1e-15).all()
        assert len(fit.costs) == len(fit.gradient_norms) == fit.steps + 1


def test_the_optimum_is_calibrated_and_gradient_descent_goes_there(x64):
    x, y = data()
    fit = logistic.newton(x, y, l2=0.1)
    optimality = logistic.optimality(fit.w, fit.b, jnp.asarray(x), jnp.asarray(y, float), 0.1)
    assert float(optimality.gradient_norm) <= 1e-10
    assert abs(float(optimality.calibration)) <= 1e-10
    descent = logistic.gradient_descent(x, y, alpha=1.0, epochs=1000, l2=0.1)
    np.testing.assert_allclose([*descent.w, descent.b], [*fit.w, fit.b], atol=1e-9)
    assert descent.costs.shape == descent.gradient_norms.shape == (1001,)
    assert (np.diff(descent.costs) < 1e-15).all()
    np.testing.assert_allclose([descent.costs[0], descent.costs[-1]], [math.log(2), fit.costs[-1]], rtol=1e-12)


@pytest.mark.parametrize("name", ["and_gate", "or_gate", "nand_gate", "nor_gate"])
def test_separable_data_have_no_optimum_and_that_is_said(name):
    x, y = gate(name)
    fit = logistic.newton(x, y)
    assert fit.reason == "separable"
    assert not fit.converged
    assert "no finite optimum" in fit.message
    assert "l2" in fit.message
    assert separates(fit, x, y)


def test_classes_that_touch_have_no_optimum_either(x64):
    """Quasi-separable: at x = 0 both classes occur, all others are on their side; w grows for ever, b does not."""
    x, y = [[0.0], [0.0], [1.0], [2.0], [0.0]], [0, 1, 1, 1, 0]
    fit = logistic.newton(x, y)
    assert fit.reason == "separable"
    np.testing.assert_allclose(fit.b, math.log(1 / 2), atol=1e-6)
    assert logistic.newton(x, y, l2=1e-3).converged


@pytest.mark.parametrize("name", ["and_gate", "xor_gate"])
def test_with_l2_there_is_always_an_optimum(x64, name):
    fit = logistic.newton(*gate(name), l2=0.1)
    assert fit.converged
    if name == "xor_gate":
        np.testing.assert_allclose(fit.w, 0, atol=1e-12)


def test_soft_labels_and_dependent_columns(x64):
    """Probabilities as labels; with a column twice the solution of smallest norm shares the weight."""
    x, _ = data()
    y = special.expit(x @ [1.0, -2.0, 0.5] + 0.3)
    fit = logistic.newton(x, y)
    np.testing.assert_allclose([*fit.w, fit.b], [1.0, -2.0, 0.5, 0.3], atol=1e-8)
    twice = logistic.newton(x[:, [0, 1, 2, 0]], y)
    assert twice.converged
    np.testing.assert_allclose(twice.w, [0.5, -2.0, 0.5, 0.5], atol=1e-8)
    # labels between 0 and 1 hold every direction, unless their scores stay 0 along it
    x, y = [[-1.0], [1.0], [2.0], [0.0]], [0.0, 0.9, 1.0, 0.5]
    assert logistic.newton(x, y).reason == "gradient"
    assert logistic.newton(x[:3], y[:3]).reason == "separable"


def test_float32_says_when_it_can_do_no_more():
    x, y = data()
    fit = logistic.newton(x, y)
    assert fit.w.dtype == jnp.float32
    assert fit.reason == "precision"
    assert "float64" in fit.message
    assert fit.gradient_norms[-1] < 1e-6
    assert logistic.newton(x, y, tol=1e-5).converged


@pytest.mark.parametrize(
    "fitted", [logistic.newton, functools.partial(logistic.gradient_descent, alpha=0.1, epochs=2)], ids=["newton", "gd"]
)
@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.ones(3), [0, 1, 1], {}, r"x has shape \(3,\): expected \(m, n\)"),
        (np.ones((0, 2)), [], {}, r"x has shape \(0, 2\)"),
        (np.ones((3, 2)), [0, 1], {}, "x has 3 rows and y has 2"),
        (np.ones((3, 2)), [0, 1, 2], {}, "y has a label outside the classes: 2 in row 2"),
        (np.ones((3, 2)), [[0, 1]] * 3, {}, r"y has shape \(3, 2\)"),
        (np.array([[1.0], [np.nan]]), [0, 1], {}, "row 1, column 0"),
        (np.ones((2, 2)), [0, 1], {"l2": -1.0}, "l2 is -1.0: expected a finite number ≥ 0"),
        (np.ones((2, 2)), [0, 1], {"l2": math.nan}, "l2 is nan"),
        (np.ones((2, 2)), [0, 1], {"start": (np.zeros(3), 0.0)}, r"start has w of shape \(3,\)"),
        (np.ones((2, 2)), [0, 1], {"start": (np.zeros(2), [0.0])}, r"b of shape \(1,\)"),
    ],
)
def test_what_is_wrong_is_said(fitted, x, y, options, message):
    with pytest.raises((DataError, InputError), match=message):
        fitted(x, y, **options)


def test_what_is_wrong_with_one_of_the_fits_is_said():
    x, y = data()
    with pytest.raises(DataError, match="y is 1 in all 60 rows: expected both classes"):
        logistic.newton(x, np.ones(M))
    with pytest.raises(InputError, match="tol is -1"):
        logistic.newton(x, y, tol=-1)
    with pytest.raises(InputError, match="max_steps is 0"):
        logistic.newton(x, y, max_steps=0)
    with pytest.raises(InputError, match="alpha is 0: expected a finite number > 0"):
        logistic.gradient_descent(x, y, alpha=0, epochs=1)
    with pytest.raises(InputError, match=r"epochs is 1\.5"):
        logistic.gradient_descent(x, y, alpha=0.1, epochs=1.5)


def test_labels_may_be_a_column(x64):
    x, y = data()
    np.testing.assert_array_equal(logistic.newton(x, y[:, None]).w, logistic.newton(x, y).w)
