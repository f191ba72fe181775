"""Each head: worked values, the loss from probabilities, its derivative three ways, ties, extremes, labels."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlpjax import HEADS
from mlpjax.errors import DataError
from mlpjax.targets import target_matrix

LN2, LN3 = math.log(2), math.log(3)
ROWS = 12

# z, y, ŷ, loss, dz, metric: one row each
WORKED = {
    # σ(ln 3) = ¾: −log ¾
    "binary": ([LN3], [1], [0.75], math.log(4 / 3), [-0.25], 1),
    # −log ¾ − log(1 − ½)
    "multilabel": ([LN3, 0.0], [1, 0], [0.75, 0.5], math.log(8 / 3), [-0.25, 0.5], 0),
    # softmax(log (1, 2, 3)) = (1, 2, 3)/6: −log ⅓
    "multiclass": ([0.0, LN2, LN3], [0, 1, 0], [1 / 6, 1 / 3, 1 / 2], LN3, [1 / 6, -2 / 3, 1 / 2], 0),
    # ½(1 + 4), mean (1 + 4)/2
    "regression": ([1.0, 3.0], [0, 1], [1.0, 3.0], 2.5, [1.0, 2.0], 2.5),
    # relu: (0, 3), ½(1 + 4)
    "regression_relu": ([-5.0, 3.0], [1, 1], [0.0, 3.0], 2.5, [0.0, 2.0], 2.5),
}
SOFT = {
    "binary": [[0.3]],
    "multilabel": [[0.3, 0.9]],
    "multiclass": [[0.2, 0.5, 0.3]],
    "regression": [[-0.7, 1.3]],
    "regression_relu": [[0.7, 1.3]],
}
BAD_SHAPES = {
    "binary": [((), 1), ((4, 2), 1), ((4, 1, 1), 1)],
    "multilabel": [((4,), 2), ((4, 3), 2), ((4, 2, 1), 2)],
    "multiclass": [((), 3), ((4, 1), 3), ((4, 2), 3)],
    "regression": [((4,), 2), ((4, 1), 2)],
    "regression_relu": [((4,), 2), ((2,), 2)],
}


def rows(values):
    """12 rows, one after another as often as needed: few shapes to compile."""
    values = np.asarray(values, float)
    return jnp.asarray(np.resize(values, (ROWS, *values.shape[1:])))


def hard_labels(head, n):
    """All 0/1 rows that suit a head, (rows, n)."""
    if head == "multiclass":
        return np.eye(n)
    return np.array(np.meshgrid(*[[0.0, 1.0]] * n)).reshape(n, -1).T


def scores_and_targets(head, bound=20.0, m=ROWS, seed=0):
    """Random scores in ±bound with hard and soft labels, (m, n) each."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(-bound, bound, (m, len(WORKED[head][0])))
    hard = hard_labels(head, z.shape[1])[np.arange(m // 2) % (2 if head == "binary" else 3)]
    soft = rng.uniform(0.1, 0.9, (m // 2, z.shape[1]))
    if head == "multiclass":
        soft /= soft.sum(axis=1, keepdims=True)
    return z, np.concatenate([hard, soft])


def by_autodiff(head, z, y):
    return jax.grad(lambda z: jnp.sum(HEADS[head].loss(z, y)))(z)


def test_every_head_has_worked_values():
    assert set(WORKED) == set(SOFT) == set(BAD_SHAPES) == set(oracle.LOSSES) == set(HEADS)


@pytest.mark.parametrize("head", HEADS)
def test_worked_values(x64, head):
    z, y, yhat, loss, dz, metric = (rows([value]) for value in WORKED[head])
    assert HEADS[head].loss(z, y).shape == HEADS[head].metric(z, y).shape == (ROWS,)
    np.testing.assert_allclose(HEADS[head].link(z), yhat, rtol=1e-15)
    np.testing.assert_allclose(HEADS[head].loss(z, y), loss, rtol=1e-15)
    np.testing.assert_allclose(HEADS[head].dz(z, y), dz, rtol=2e-15)
    np.testing.assert_allclose(HEADS[head].metric(z, y), metric, rtol=1e-15)


@pytest.mark.parametrize("head", HEADS)
def test_loss_is_the_formula_on_probabilities(x64, head):
    z, y = scores_and_targets(head)
    yhat = [oracle.LINKS[head](list(row)) for row in z]
    expected = [oracle.LOSSES[head](p, t) for p, t in zip(yhat, y, strict=True)]
    np.testing.assert_allclose(HEADS[head].link(jnp.asarray(z)), yhat, rtol=1e-14)
    # log(1 − ŷ) of the formula loses digits where ŷ is near 1
    np.testing.assert_allclose(HEADS[head].loss(jnp.asarray(z), jnp.asarray(y)), expected, rtol=1e-7)
    z, y = scores_and_targets(head, bound=4.0)
    expected = [oracle.LOSSES[head](oracle.LINKS[head](list(row)), t) for row, t in zip(z, y, strict=True)]
    np.testing.assert_allclose(HEADS[head].loss(jnp.asarray(z), jnp.asarray(y)), expected, rtol=1e-13)


@pytest.mark.parametrize("head", HEADS)
def test_dz_is_autodiff_and_differences(x64, head):
    z, y = (jnp.asarray(a) for a in scores_and_targets(head))
    hand = HEADS[head].dz(z, y)
    assert hand.shape == z.shape
    np.testing.assert_allclose(hand, by_autodiff(head, z, y), rtol=1e-12, atol=1e-15)
    h = 1e-4
    for c in range(z.shape[1]):
        step = h * np.eye(z.shape[1])[c]
        p1, m1, p2, m2 = (np.asarray(HEADS[head].loss(np.asarray(z) + k * step, y)) for k in (1, -1, 2, -2))
        np.testing.assert_allclose(hand[:, c], (8 * (p1 - m1) - (p2 - m2)) / (12 * h), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("head", HEADS)
def test_ties_at_zero(x64, head):
    """At z = 0, where stable forms with max and |z| give a wrong derivative: ½ − y, 1/K − y, −y, and 0."""
    n = len(WORKED[head][0])
    y = rows(np.concatenate([hard_labels(head, n), SOFT[head]]))
    z = rows(np.zeros((1, n)))
    yhat = {"binary": 0.5, "multilabel": 0.5, "multiclass": 1 / n}.get(head, 0.0)
    expected = np.zeros(y.shape) if head == "regression_relu" else yhat - np.asarray(y)
    np.testing.assert_allclose(HEADS[head].dz(z, y), expected, rtol=1e-15)
    np.testing.assert_allclose(by_autodiff(head, z, y), expected, rtol=1e-14)


@pytest.mark.parametrize("tied", [[[1.0, 1.0, -2.0]], [[1e4, 1e4, 0.0]]])
def test_ties_of_the_largest_score(x64, tied):
    """Two classes share the maximum that is taken off."""
    z, y = rows(tied), rows([[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(by_autodiff("multiclass", z, y), HEADS["multiclass"].dz(z, y), rtol=1e-14)


@pytest.mark.parametrize("head", HEADS)
def test_extremes_are_finite(head):
    """Scores up to ±1e4 in float32, on the right and on the wrong side."""
    n = len(WORKED[head][0])
    targets = rows(np.concatenate([hard_labels(head, n), SOFT[head]]))
    for size in (30.0, 1e3, 1e4):
        for sign in hard_labels("multilabel", n) * 2 - 1:
            z = rows([size * sign])
            loss, dz = HEADS[head].loss(z, targets), HEADS[head].dz(z, targets)
            assert loss.dtype == dz.dtype == jnp.float32
            assert np.isfinite(loss).all()
            assert np.isfinite(dz).all()
            assert (loss >= 0).all()
            np.testing.assert_allclose(by_autodiff(head, z, targets), dz, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_nan_passes(head):
    n = len(WORKED[head][0])
    z, y = rows(np.full((1, n), np.nan)), rows(SOFT[head])
    assert np.isnan(HEADS[head].loss(z, y)).all()
    assert np.isnan(HEADS[head].dz(z, y)).all()


def test_infinite_scores_on_the_right_side():
    """A certain and right answer costs 0 and pulls nowhere."""
    z, y = jnp.array([[jnp.inf], [-jnp.inf]]), jnp.array([[1.0], [0.0]])
    np.testing.assert_array_equal(HEADS["binary"].loss(z, y), [0.0, 0.0])
    np.testing.assert_array_equal(HEADS["binary"].dz(z, y), [[0.0], [0.0]])
    z, y = jnp.array([[0.0, -jnp.inf, -jnp.inf]]), jnp.array([[1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(HEADS["multiclass"].loss(z, y), [0.0])
    np.testing.assert_array_equal(HEADS["multiclass"].dz(z, y), [[0.0, 0.0, 0.0]])


def test_infinite_scores_on_the_wrong_side():
    z, y = jnp.array([[jnp.inf], [-jnp.inf]]), jnp.array([[0.0], [1.0]])
    np.testing.assert_array_equal(HEADS["binary"].loss(z, y), [np.inf, np.inf])
    np.testing.assert_array_equal(HEADS["binary"].dz(z, y), [[1.0], [-1.0]])


scores = arrays(np.float64, (ROWS, 3), elements=st.floats(-30, 30, allow_subnormal=False))


@given(scores, st.floats(-100, 100))
def test_softmax_does_not_see_a_shift(x64, z, shift):
    y = rows(np.eye(3))
    head = HEADS["multiclass"]
    z = jnp.asarray(z)
    np.testing.assert_allclose(head.link(z + shift), head.link(z), rtol=1e-12)
    np.testing.assert_allclose(head.loss(z + shift, y), head.loss(z, y), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(head.link(z), axis=1), 1.0, rtol=1e-15)
    # the direction of the shift is flat
    np.testing.assert_allclose(jnp.sum(head.dz(z, y), axis=1), 0.0, atol=1e-15)


@given(arrays(np.float64, (ROWS, 2), elements=st.floats(-30, 30, allow_subnormal=False)))
def test_two_classes_are_logistic(x64, z):
    """softmax(z)₂ = σ(z₂ − z₁), with the same loss and, with respect to the difference, the same gradient."""
    y = rows(np.eye(2))
    difference, target = jnp.asarray(z[:, 1:] - z[:, :1]), rows([[0.0], [1.0]])
    z = jnp.asarray(z)
    two, one = HEADS["multiclass"], HEADS["binary"]
    np.testing.assert_allclose(two.link(z)[:, 1], one.link(difference)[:, 0], rtol=1e-13)
    np.testing.assert_allclose(two.loss(z, y), one.loss(difference, target), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(two.dz(z, y)[:, 1], one.dz(difference, target)[:, 0], rtol=1e-12, atol=1e-15)


def test_multi_hot_rows_of_softmax(x64):
    """Where the labels of a row do not sum to 1, dz is ŷ Σy − y, not ŷ − y."""
    z, y = rows([[0.0, LN2, LN3], [1.0, 2.0, 4.0]]), rows([[1.0, 1.0, 0.0], [0.5, 0.0, 0.1]])
    hand = HEADS["multiclass"].dz(z, y)
    np.testing.assert_allclose(hand[0], [2 / 6 - 1, 2 / 3 - 1, 1.0], rtol=1e-14)
    np.testing.assert_allclose(hand, by_autodiff("multiclass", z, y), rtol=1e-14)


@given(arrays(np.float64, (ROWS, 2), elements=st.floats(-30, 30, allow_subnormal=False)))
def test_multilabel_is_a_sum_of_binary_heads(x64, z):
    y = np.resize([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.3, 0.6]], z.shape)
    columns = [np.asarray(HEADS["binary"].loss(jnp.asarray(z[:, [o]]), jnp.asarray(y[:, [o]]))) for o in range(2)]
    np.testing.assert_allclose(HEADS["multilabel"].loss(jnp.asarray(z), jnp.asarray(y)), sum(columns), rtol=1e-14)


@pytest.mark.parametrize(
    ("head", "theirs"),
    [
        ("binary", lambda z, y: optax.sigmoid_binary_cross_entropy(z, y).sum(-1)),
        ("multilabel", lambda z, y: optax.sigmoid_binary_cross_entropy(z, y).sum(-1)),
        ("multiclass", optax.softmax_cross_entropy),
        ("regression", lambda z, y: optax.l2_loss(z, y).sum(-1)),
        ("regression_relu", lambda z, y: optax.l2_loss(jax.nn.relu(z), y).sum(-1)),
    ],
)
def test_losses_are_those_of_optax(x64, head, theirs):
    z, y = (jnp.asarray(a) for a in scores_and_targets(head, seed=1))
    np.testing.assert_allclose(HEADS[head].loss(z, y), theirs(z, y), rtol=1e-12)


def test_decisions():
    """½ counts as on; the lower class wins a tie."""
    yhat = jnp.array([[0.5], [0.49], [0.51]])
    np.testing.assert_array_equal(HEADS["binary"].decide(yhat), [1, 0, 1])
    yhat = jnp.array([[0.5, 0.49], [0.2, 0.9]])
    np.testing.assert_array_equal(HEADS["multilabel"].decide(yhat), [[1, 0], [0, 1]])
    yhat = jnp.array([[0.2, 0.4, 0.4], [0.3, 0.3, 0.3], [0.1, 0.2, 0.7]])
    np.testing.assert_array_equal(HEADS["multiclass"].decide(yhat), [1, 0, 2])
    for head in ("binary", "multilabel", "multiclass"):
        assert HEADS[head].decide(jnp.full((2, 1 if head == "binary" else 2), 0.5)).dtype == jnp.int32
    for head in ("regression", "regression_relu"):
        np.testing.assert_array_equal(HEADS[head].decide(jnp.array([[1.5, -2.0]])), [[1.5, -2.0]])


def test_metrics():
    """Per example; a label is on from z = 0, decided on the score and not on its rounded probability."""
    binary = HEADS["binary"].metric
    z = jnp.array([[0.0], [-1e-17], [3.0], [-3.0]])
    np.testing.assert_array_equal(binary(z, jnp.ones((4, 1))), [1, 0, 1, 0])
    np.testing.assert_array_equal(binary(z, jnp.zeros((4, 1))), [0, 1, 0, 1])
    z = jnp.array([[1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(HEADS["multilabel"].metric(z, jnp.array([[1.0, 0.0], [1.0, 0.0]])), [1, 0])
    z = jnp.array([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 1.0, 3.0]])
    np.testing.assert_array_equal(HEADS["multiclass"].metric(z, jnp.eye(3)), [1, 0, 1])
    np.testing.assert_array_equal(HEADS["regression"].metric(jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 1.0]])), [2.5])
    assert {name: head.metric_name for name, head in HEADS.items()} == {
        "binary": "accuracy", "multilabel": "exact_match", "multiclass": "accuracy",
        "regression": "mse", "regression_relu": "mse",
    }  # fmt: skip
    assert [head.higher_is_better for head in HEADS.values()] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("head", "y", "n_L", "expected"),
    [
        ("binary", [0, 1], 1, [[0], [1]]),
        ("binary", [[0], [1]], 1, [[0], [1]]),
        ("binary", [False, True], 1, [[0], [1]]),
        ("binary", [0.25, 1.0], 1, [[0.25], [1]]),
        ("multilabel", [[0, 1], [1, 1]], 2, [[0, 1], [1, 1]]),
        ("multilabel", [0, 1], 1, [[0], [1]]),
        ("multiclass", [2, 0], 3, [[0, 0, 1], [1, 0, 0]]),
        ("multiclass", [[0, 0, 1]], 3, [[0, 0, 1]]),
        ("multiclass", [[0.5, 0.25, 0.25]], 3, [[0.5, 0.25, 0.25]]),
        ("regression", [[-1.5, 2.0]], 2, [[-1.5, 2.0]]),
        ("regression", [-1.5, 2.0], 1, [[-1.5], [2.0]]),
        ("regression_relu", [3, 4], 1, [[3], [4]]),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_target_matrix(head, y, n_L, expected, compiled):
    def matrix(y):
        return target_matrix(head, y, n_L, jnp.float32)

    got = (jax.jit(matrix) if compiled else matrix)(jnp.array(y))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, np.float32(expected))


@pytest.mark.parametrize(("head", "shape", "n_L"), [(h, *bad) for h, many in BAD_SHAPES.items() for bad in many])
def test_target_shapes_are_refused(head, shape, n_L):
    y = jnp.zeros(shape, jnp.int32)
    with pytest.raises(DataError) as error:
        target_matrix(head, y, n_L, jnp.float32)
    message = str(error.value)
    assert f"y has shape {shape}" in message
    assert f"head '{head}' with {n_L} outputs expects" in message
    assert f"(m, {n_L})" in message
    assert ("(m,)" in message) == (n_L == 1 or head == "multiclass")


@pytest.mark.parametrize(
    ("head", "y", "n_L", "message"),
    [
        ("multiclass", [0.0, 1.0], 3, r"y has dtype float32: class labels \(m,\) must be integers 0 to 2"),
        ("multiclass", [0, 3], 3, r"outside the classes: 3 in row 1, expected 0 to 2 for 3 classes"),
        ("multiclass", [0, -1], 3, r"outside the classes: -1 in row 1, expected 0 to 2 for 3 classes"),
        ("multiclass", [[0, 2, -1]], 3, r"outside the classes: \[0, 2, -1\] in row 0, expected 0 or 1"),
        ("multiclass", [[1, 0, 0], [1, 1, 0]], 3, r"row 1 of y sums to 2: .* head='multilabel'"),
        ("multiclass", [[0, 0, 0]], 3, r"row 0 of y sums to 0"),
        ("binary", [0, 2], 1, r"outside the classes: 2 in row 1, expected 0 or 1"),
        ("binary", [-1, 1], 1, r"outside the classes: -1 in row 0, expected 0 or 1"),
        ("binary", [0.0, float("nan")], 1, r"outside the classes: nan in row 1"),
        ("multilabel", [[0, 1], [0, 5]], 2, r"outside the classes: \[0, 5\] in row 1, expected 0 or 1"),
    ],
)
def test_target_values_are_refused(head, y, n_L, message):
    with pytest.raises(DataError, match=message):
        target_matrix(head, jnp.array(y), n_L, jnp.float32)


@pytest.mark.parametrize(
    ("head", "y", "n_L"),
    [("multiclass", [0, 3, -1], 3), ("binary", [0, 2, -1], 1), ("multilabel", [[0, 1], [0, 2], [-1, 0]], 2)],
)
def test_a_label_out_of_range_becomes_nan_under_jit(head, y, n_L):
    """A traced value cannot raise: the loss of such a row, and its gradient, are NaN and not a wrong number."""
    matrix = jax.jit(lambda y: target_matrix(head, y, n_L, jnp.float32))(jnp.array(y, jnp.int32))
    assert np.isnan(matrix).any(axis=1).tolist() == [False, True, True]
    z = jnp.zeros((3, n_L))
    assert np.isnan(HEADS[head].loss(z, matrix)).tolist() == [False, True, True]
    assert np.isnan(HEADS[head].dz(z, matrix)).any(axis=1).tolist() == [False, True, True]
    assert np.isnan(by_autodiff(head, z, matrix)).any(axis=1).tolist() == [False, True, True]
