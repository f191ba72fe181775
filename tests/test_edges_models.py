"""Logistic and softmax regression, the perceptron, and the solvers where numbers end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import mlpjax
from mlpjax import Batch, Config, logistic, softmax_regression
from mlpjax.errors import DataError, InputError
from mlpjax.gauss_newton import levenberg_marquardt
from mlpjax.perceptron import (
    Perceptron,
    augment,
    mp_neuron,
    nearest_on_boundary,
    perceptron_gradient,
    perceptron_loss,
    perceptron_predict,
    perceptron_step,
    predict_augmented,
    signed_distance,
)
from mlpjax.perceptron_training import perceptron_fit
from mlpjax.solver_loop import MESSAGES
from mlpjax.solvers import newton, newton_cg

LARGEST = float(np.finfo(np.float32).max)
powers = st.integers(-100, 100).map(lambda k: np.float32(2.0**k))
rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)


# --- logistic and softmax regression ---------------------------------------------------------------------------------


@jax.jit
def logistic_parts(w, b, x, y):
    return logistic.cost(w, b, x, y), *logistic.gradient(w, b, x, y), logistic.hessian(w, b, x)


@jax.jit
def softmax_parts(W, b, x, y):
    return softmax_regression.cost(W, b, x, y), *softmax_regression.gradient(W, b, x, y)


@given(rngs, st.integers(-60, 60).map(lambda k: np.float32(2.0**k)))
def test_units_of_a_feature_do_not_matter(rng, c):
    """Features times c with weights over c: the same J and ∂J/∂b to the bit, ∂J/∂w times c, ∂²J/∂w² times c²."""
    x, w, b = (np.float32(rng.normal(size=shape)) for shape in ((5, 2), 2, ()))
    y = np.float32(rng.integers(0, 2, 5))
    J, dw, db, H = logistic_parts(w, b, x, y)
    J_c, dw_c, db_c, H_c = logistic_parts(w / c, b, x * c, y)
    np.testing.assert_array_equal((J_c, db_c), (J, db))
    np.testing.assert_array_equal(dw_c, dw * c)
    scale = np.float32([1, c, c])
    np.testing.assert_allclose(H_c, H * scale[:, None] * scale[None], rtol=1e-6)
    W, one_hot = np.stack([0 * w, w], axis=1), np.eye(2, dtype=np.float32)[y.astype(int)]
    J_2, dW, db_2 = softmax_parts(W / c, np.float32([0, b]), x * c, one_hot)
    np.testing.assert_allclose(J_2, J, rtol=1e-5)
    np.testing.assert_allclose(dW[:, 1], dw * c, rtol=1e-4, atol=1e-6 * c)
    np.testing.assert_allclose(db_2, [-db, db], atol=1e-6)


@given(arrays(np.float32, (5, 2), elements=st.floats(-1e4, 1e4, width=16)), st.sampled_from((1.0, 1e4)))
def test_scores_as_large_as_they_may_be(x, scale):
    """J and its gradient from scores of up to 1e8, of x that is constant, or 0, or one row many times."""
    w, y = np.float32([scale, -scale / 2]), np.float32([0, 1, 1, 0, 1])
    J, dw, db, H = logistic_parts(w, np.float32(0), x, y)
    z = np.asarray(x @ w, np.float64)
    expected = np.mean(np.logaddexp(0, np.where(y == 1, -z, z)))
    np.testing.assert_allclose(J, expected, rtol=1e-5, atol=1e-6)
    dz = np.exp(-np.logaddexp(0, -z)) - y
    np.testing.assert_allclose(dw, x.T @ dz / 5, rtol=1e-4, atol=1e-6 * max(1, np.abs(x).max()))
    np.testing.assert_allclose(db, dz.mean(), atol=1e-6)
    assert np.isfinite(H).all()


@pytest.mark.slow
@settings(max_examples=10)
@given(rngs, st.integers(-12, 12))
def test_newton_in_any_units_and_with_every_row_twice(x64, rng, k):
    """w(c x, c² l2) = w(x, l2)/c, and data twice over have the same optimum; a constant feature takes no part."""
    x, y, c = rng.normal(size=(12, 2)), np.arange(12) % 2, 2.0**k
    fit = logistic.newton(x, y, l2=0.1)
    other = logistic.newton(x * c, y, l2=0.1 * c * c, tol=1e-10 * max(1, c))
    np.testing.assert_allclose((*other.w * c, other.b), (*fit.w, fit.b), atol=1e-7)
    twice = logistic.newton(np.concatenate([x, x]), np.concatenate([y, y]), l2=0.1)
    np.testing.assert_allclose((*twice.w, twice.b), (*fit.w, fit.b), atol=1e-9)
    constant = logistic.newton(np.column_stack([x, np.zeros(12)]), y, l2=0.1)
    np.testing.assert_allclose((*constant.w, constant.b), (*fit.w, 0, fit.b), atol=1e-9)
    classes = softmax_regression.newton(x, y, n_classes=2, l2=0.2)
    np.testing.assert_allclose(classes.w[:, 1] - classes.w[:, 0], fit.w, atol=1e-7)


@pytest.mark.parametrize(
    "fit", [logistic.newton, functools.partial(softmax_regression.newton, n_classes=2)], ids=["2", "K"]
)
def test_features_whose_squares_overflow_are_refused(fit):
    with pytest.raises(DataError, match=r"x has values up to 1e\+20, whose squares overflow in float32: scale its col"):
        fit(np.float32([[1e20], [1]]), [0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("value", [1e20, LARGEST])
def test_features_whose_squares_overflow_can_be_scaled(value):
    """Their Hessian would be ∞; in float64, or scaled, they are a feature like any other."""
    x, y = np.float32([[value], [-value], [value / 2], [-1]]), [0, 1, 1, 0]
    for fit in (logistic.newton, functools.partial(softmax_regression.newton, n_classes=2)):
        assert fit(x / np.float32(value), y, l2=0.1, tol=1e-5).converged
        with jax.enable_x64(True):
            assert np.isfinite(fit(x.astype(np.float64), y, l2=0.1).w).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "bool"])
def test_the_same_data_in_any_dtype(dtype):
    x = np.array([[0, 1], [1, 0], [1, 1], [0, 0], [1, 1]])
    y = np.array([0, 1, 1, 0, 0])
    for fit in (
        functools.partial(logistic.newton, l2=0.1, tol=1e-5),
        functools.partial(logistic.gradient_descent, alpha=0.5, epochs=5),
        functools.partial(softmax_regression.gradient_descent, n_classes=2, alpha=0.5, epochs=5),
    ):
        np.testing.assert_array_equal(fit(x.astype(jnp.dtype(dtype)), y).w, fit(np.float32(x), y).w)


# --- the perceptron --------------------------------------------------------------------------------------------------

finite = st.floats(-(2.0**50), 2.0**50, width=32)


@given(arrays(np.float32, 3, elements=finite), arrays(np.float32, (4, 3), elements=finite), powers)
def test_distances_do_not_depend_on_the_length_of_w(w, x, c):
    """(c w, c b) has the boundary of (w, b) for c > 0, also where ‖c w‖² is ∞ or 0 in float32."""
    w = np.where(np.abs(w) < 2.0**-20, 0, w)
    if not w.any():
        with pytest.raises(InputError, match="w is 0"):
            signed_distance(Perceptron(jnp.asarray(w), 1.0), x)
        return
    w = w / np.abs(w).max()
    plain, scaled = (Perceptron(jnp.asarray(w * f), jnp.float32(0.5) * f) for f in (np.float32(1), c))
    z = x.astype(np.float64) @ w.astype(np.float64) + 0.5
    exactly = z / np.linalg.norm(w.astype(np.float64))
    size = np.abs(x.astype(np.float64)) @ np.abs(w) + 1
    # beyond the largest float32 a score has no number
    fits = size.max() * float(c) < LARGEST / 8 and size.max() < LARGEST / 8
    if fits:
        for params in (plain, scaled):
            d = signed_distance(params, x)
            assert (np.abs(d - exactly) <= 4e-6 * size).all()
            foot = nearest_on_boundary(params, x)
            assert np.isfinite(foot).all()


@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-45, -1e-45])
def test_a_score_of_0_is_class_1(zero):
    """T(0) = 1 for either sign; a subnormal number is 0 to JAX."""
    params = Perceptron(jnp.zeros(2), jnp.float32(zero))
    x = jnp.zeros((1, 2))
    assert perceptron_predict(params, x)[0] == 1
    assert predict_augmented(jnp.array([zero, 0.0, 0.0]), augment(x))[0] == 1
    assert perceptron_loss(params, x[0], 0) == 0
    assert perceptron_gradient(params, x[0], 0).b == 1
    assert perceptron_step(params, x[0], 1, 1.0).b == params.b


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite(bad):
    params, x = Perceptron(jnp.array([1.0]), jnp.array(0.0)), jnp.array([[bad]])
    yhat = perceptron_predict(params, x)
    np.testing.assert_array_equal(yhat, [{np.inf: 1.0, -np.inf: 0.0}.get(bad, np.nan)])
    with pytest.raises(DataError, match="row 0, column 0"):
        perceptron_fit(np.array([[bad], [1.0]]), [0, 1])


@settings(max_examples=20)
@given(rngs, st.integers(-60, 60))
def test_the_rule_in_any_units_of_alpha(rng, k):
    """α scales w and b and changes no prediction and no count: to the bit for powers of 2; with one row and many."""
    x = np.float32(np.round(rng.normal(size=(6, 2)), 2))
    y = (x[:, 0] > 0).astype(int)
    one, other = (perceptron_fit(x, y, alpha=alpha, max_epochs=8) for alpha in (1.0, 2.0**k))
    np.testing.assert_array_equal(other.mistakes, one.mistakes)
    np.testing.assert_array_equal(other.params.w, one.params.w * np.float32(2.0**k))
    alone = perceptron_fit(x[:1], y[:1], max_epochs=8)
    assert alone.converged
    assert perceptron_predict(alone.params, x[:1])[0] == y[0]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "bfloat16"])
def test_a_unit_of_mcculloch_and_pitts_in_any_dtype(dtype):
    on, off = (np.array(v).astype(jnp.dtype(dtype)) for v in ([[0, 1], [1, 1]], [[0], [1]]))
    assert mp_neuron(on, off, 1).tolist() == [1, 0]
    assert np.isnan(mp_neuron(on, np.zeros((2, 0)), np.nan)).all()


# --- solvers ---------------------------------------------------------------------------------------------------------

SOLVERS = (newton, newton_cg, levenberg_marquardt, functools.partial(levenberg_marquardt, solve="cg"))
SADDLE = Config(sizes=(1, 1, 1), activation="tanh", head="regression", bias=False, init="zeros")


@pytest.mark.parametrize("solver", SOLVERS[1:], ids=["newton_cg", "dense", "cg"])
def test_a_saddle_that_is_hit_exactly_is_not_called_a_minimum(x64, solver):
    """With all weights 0 the gradient is 0: these solvers see no more, and say no more; `newton` leaves."""
    batch = Batch(np.array([[1.0], [-2.0]]), np.tanh([1.0, -2.0]))
    solution = solver(SADDLE, *mlpjax.init(SADDLE, jax.random.key(0)), batch)
    assert (str(solution.reason), int(solution.steps)) == ("gradient", 0)
    assert str(solution.message) == "the gradient norm is at most tol"
    assert not any("minimum" in message or "optimum" in message for message in MESSAGES.values())
    assert solution.costs[0] > 0.2


LINE = Config(sizes=(1, 2, 1), activation="tanh", head="regression", l2=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS, ids=["newton", "newton_cg", "dense", "cg"])
def test_solvers_do_not_see_rows_of_weight_0(x64, solver):
    """Whatever they hold, to the bit; with no weight at all the penalty is minimised, by W = 0."""
    x, y, weight = (
        np.array([[1.0], [2.0], [3.0], [0.0]]),
        np.array([1.0, 0.0, 2.0, 0.0]),
        np.array([1.0, 2.0, 1.0, 0.0]),
    )
    odd = np.where(weight[:, None] == 0, 3e38, x)
    start = mlpjax.init(LINE, jax.random.key(0))
    plain, other, nothing = (
        solver(LINE, *start, Batch(features, y, w), max_steps=25, tol=1e-9)
        for features, w in ((x, weight), (odd, weight), (odd, 0 * weight))
    )
    jax.tree.map(np.testing.assert_array_equal, plain, other)
    assert nothing.converged
    for layer in nothing.params:
        np.testing.assert_allclose(layer.W, 0, atol=1e-7)
