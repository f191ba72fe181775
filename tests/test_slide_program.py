"""The lecture's program: worked values of one pass, its equal by arrays, the start, what is repaired, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from mlpjax import logistic
from mlpjax.errors import DataError, InputError
from mlpjax.slide_program import EPOCHS, initialise, one_pass, run, sigmoid
from mlpjax.toys import gate


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 2))
    return x, (rng.uniform(size=12) < special.expit(x[:, 0])).astype(int)


def test_sigmoid_does_not_overflow():
    z = np.array([-1e4, -30.0, -1.0, 0.0, 1.0, 30.0, 1e4])
    np.testing.assert_allclose([sigmoid(value) for value in z], special.expit(z), rtol=1e-15)


def test_one_pass_worked_by_hand():
    # z = (ln 3, 0), a = (¾, ½), dz = (−¼, ½)
    x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1, 0])
    found = one_pass(x, y, math.log(3), 0.0, 0.0)
    expected = ((math.log(4 / 3) + math.log(2)) / 2, -1 / 8, 1 / 2, 1 / 8)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_the_loops_are_the_array_form(x64):
    x, y = data()
    program = run(x, y, alpha=0.5, epochs=200, seed=3)
    theta = np.array(initialise(3))
    x1, J = np.column_stack([x, np.ones(12)]), []
    for _ in range(200):
        z = x1 @ theta
        J.append(np.mean(np.logaddexp(0, z) - y * z))
        theta = theta - 0.5 * x1.T @ (special.expit(z) - y) / 12
    np.testing.assert_allclose([program.w1, program.w2, program.b], theta, atol=1e-12)
    np.testing.assert_allclose(program.J, J, atol=1e-12)
    w1, w2, b = initialise(3)
    fit = logistic.gradient_descent(x, y, alpha=0.5, epochs=200, start=([w1, w2], b))
    np.testing.assert_allclose([*fit.w, fit.b], theta, atol=1e-12)
    assert (np.diff(program.J) < 0).all()


def test_start_values():
    w1, w2, b = initialise(0)
    assert b == 0.0
    assert initialise(0) == (w1, w2, b)
    assert initialise(1) != (w1, w2, b)
    assert max(np.ndim(value) for value in (w1, w2, b)) == 0
    weights = np.array([initialise(seed)[:2] for seed in range(500)])
    np.testing.assert_allclose([weights.mean(), weights.std()], [0, 0.01], atol=1e-3)


def test_defaults_and_and():
    x, y = gate("and_gate")
    program = run(x, y, alpha=1.0)
    assert program.J.shape == (EPOCHS,) == (1000,)
    np.testing.assert_allclose(program.J[0], math.log(2), atol=0.01)
    np.testing.assert_array_equal(x @ [program.w1, program.w2] + program.b >= 0, y)
    assert all(isinstance(value, float) for value in program[:3])


def test_the_cost_stays_finite():
    """The slide's log(a) is −∞ here."""
    found = one_pass(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0, 1]), 1e4, 0.0, 0.0)
    np.testing.assert_array_equal(found, [1e4, 1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.ones((2, 3)), [0, 1], {}, r"x has shape \(2, 3\): expected \(m, 2\)"),
        (np.ones((2, 2)), [0, 2], {}, "y is 2 in row 1"),
        (np.ones((2, 2)), [0, 1, 1], {}, r"y has shape \(3,\)"),
        (np.ones((2, 2)), [0, 1], {"alpha": 0.0}, "alpha is 0.0: expected a finite number > 0"),
        (np.ones((2, 2)), [0, 1], {"epochs": 0}, "epochs is 0"),
    ],
)
def test_what_is_wrong_is_said(x, y, options, message):
    with pytest.raises((DataError, InputError), match=message):
        run(x, y, **{"alpha": 0.1, "epochs": 3, **options})
