"""Several labels: the steps against autodiff, the scores against hand counts; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax import Layer
from mlpjax.errors import DataError, InputError
from mlpjax.multilabel import label_scores, multilabel_steps


def example():
    rng = np.random.default_rng(1)
    x, W1, b1, W2, b2 = (rng.normal(size=shape) for shape in ((3,), (3, 4), (4,), (4, 2), (2,)))
    return (Layer(W1, b1), Layer(W2, b2)), x, np.array([0.0, 1.0])


def loss(params, x, y):
    (W1, b1), (W2, b2) = (layer[:2] for layer in params)
    yhat = 1 / (1 + jnp.exp(-((1 / (1 + jnp.exp(-(x @ W1 + b1)))) @ W2 + b2)))
    return -jnp.sum(y * jnp.log(yhat) + (1 - y) * jnp.log(1 - yhat))


def test_the_steps_against_autodiff_and_differences(x64):
    params, x, y = example()
    steps = jax.jit(multilabel_steps)(params, x, y)
    hidden, output = jax.jit(jax.grad(loss))(params, x, y)
    np.testing.assert_allclose(steps.dW1, hidden.W, rtol=1e-12)
    np.testing.assert_allclose(steps.dW2, output.W, rtol=1e-12)
    np.testing.assert_allclose(steps.dz, steps.yhat - y, rtol=1e-12)
    up, down = (params[0]._replace(W=params[0].W + sign * 1e-6 * np.eye(3, 4)) for sign in (1, -1))
    f = jax.jit(loss)
    difference = (f((up, params[1]), x, y) - f((down, params[1]), x, y)) / 2e-6
    np.testing.assert_allclose(np.trace(steps.dW1[:, :3]), difference, rtol=1e-8)


def test_the_scores_by_hand():
    decided = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    y = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
    scores = label_scores(decided, y)
    # TP 4, FP 2, FN 1
    assert scores == (1 / 3, 3 / 12, 4 / 6, 4 / 5, 8 / 11)
    assert label_scores(y, y)[:2] == (1, 0)


def test_nothing_to_find_and_nothing_found_is_right():
    nothing = np.zeros((2, 3), bool)
    assert label_scores(nothing, nothing) == (1, 0, 1, 1, 1)
    assert label_scores(nothing, ~nothing) == (0, 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("decided", "y", "message"),
    [
        ([1, 0], [1, 0], r"decided has shape \(2,\)"),
        ([[1, 0]], [[1, 0, 1]], r"y \(1, 3\)"),
        (np.ones((0, 3)), np.ones((0, 3)), r"with an example"),
        ([[0.5, 1]], [[0, 1]], "decided has a value that is neither 0 nor 1: decide first"),
        ([[0, 1]], [[0, 2]], "y has a value that is neither"),
    ],
)
def test_scores_refused(decided, y, message):
    with pytest.raises(DataError, match=message):
        label_scores(decided, y)


@pytest.mark.parametrize("name", ["x", "y"])
def test_steps_take_one_example(name):
    params, x, y = example()
    wrong = {"x": x, "y": y, name: np.ones((1, 3))}
    with pytest.raises(InputError, match=rf"{name} has shape \(1, 3\): expected"):
        multilabel_steps(params, **wrong)
