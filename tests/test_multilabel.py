"""Several labels: the steps against autodiff, the scores against hand counts; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpjax.errors import DataError, InputError
from mlpjax.multilabel import label_dyhat, label_scores, multilabel_steps


def example():
    rng = np.random.default_rng(1)
    shapes = ((3,), (3, 4), (4,), (4, 2), (2,))
    return [rng.normal(size=shape) for shape in shapes] + [np.array([0.0, 1.0])]


def loss(x, W1, b1, W2, b2, y):
    yhat = 1 / (1 + jnp.exp(-((1 / (1 + jnp.exp(-(x @ W1 + b1)))) @ W2 + b2)))
    return -jnp.sum(y * jnp.log(yhat) + (1 - y) * jnp.log(1 - yhat))


def test_the_steps_against_autodiff_and_differences(x64):
    args = example()
    steps = jax.jit(multilabel_steps)(*args)
    dW1, dW2 = jax.jit(jax.grad(loss, argnums=(1, 3)))(*args)
    np.testing.assert_allclose(steps.dW1, dW1, rtol=1e-12)
    np.testing.assert_allclose(steps.dW2, dW2, rtol=1e-12)
    np.testing.assert_allclose(steps.dz, steps.yhat - args[-1], rtol=1e-12)
    up, down = (args[1] + sign * 1e-6 * np.eye(3, 4) for sign in (1, -1))
    f = jax.jit(loss)
    difference = (f(args[0], up, *args[2:]) - f(args[0], down, *args[2:])) / 2e-6
    np.testing.assert_allclose(np.trace(steps.dW1[:, :3]), difference, rtol=1e-8)


def test_the_derivative_of_the_loss_at_labels_that_are_sure():
    dyhat = label_dyhat(jnp.array([1.0, 0.0, 1.0, 0.0]), jnp.array([1.0, 0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(dyhat, [-1, 1, np.inf, -np.inf])


def test_a_soft_label_uses_both_terms(x64):
    np.testing.assert_allclose(label_dyhat(jnp.array([0.25]), jnp.array([0.5])), [-0.5 / 0.25 + 0.5 / 0.75])


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


@pytest.mark.parametrize("name", ["x", "W1", "b1", "W2", "b2", "y"])
def test_steps_refused(name):
    args = example()
    at = ("x", "W1", "b1", "W2", "b2", "y").index(name)
    args[at] = args[at][..., None]
    with pytest.raises(InputError, match=f"{name} has shape .*: expected"):
        multilabel_steps(*args)


def test_one_label_per_output():
    with pytest.raises(InputError, match="one label per output"):
        label_dyhat(jnp.ones(2), jnp.ones(3))
