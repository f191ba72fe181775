"""One short proof for every formula, branch and message of the heads, as in test_formulas.py.

Then labels: each form that is accepted, and each refusal word for word.
"""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from mlpjax import HEADS
from mlpjax.errors import DataError
from mlpjax.targets import as_array, check_targets, target_matrix

EXACT = {"rtol": 4e-15, "atol": 1e-15}
SCORES = np.array([[1.0, -2.0, 0.5], [400.0, 401.0, 398.0]])
DIRECTION = np.array([[1.0, -0.5, 2.0], [0.25, 3.0, -1.0]])
HARD, SOFT = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [[0.3, 0.6, 0.1], [0.5, 0.0, 0.2]]


def link_and_loss(head, z, y):
    """ŷ and Lᵢ by the loops; σ(400) is 1 to the last digit, and there log(1 − ŷ) is −z."""
    z = [float(z_c) for z_c in z]
    yhat = oracle.LINKS[head](z)
    if head in ("binary", "multilabel") and max(z) > 100:
        return yhat, sum((1 - t) * z_o for z_o, t in zip(z, y, strict=True))
    return yhat, oracle.LOSSES[head](yhat, y)


@pytest.mark.parametrize("y", [HARD, SOFT])
@pytest.mark.parametrize("head", HEADS)
def test_head(x64, head, y):
    """Two rows of three outputs, one far from the other: no row may see another's maximum."""
    rule, z, targets = HEADS[head], jnp.array(SCORES), jnp.array(y)
    yhat, loss = (np.array(part) for part in zip(*map(lambda z, y: link_and_loss(head, z, y), SCORES, y), strict=True))
    np.testing.assert_allclose(rule.link(z), yhat, **EXACT)
    np.testing.assert_allclose(rule.loss(z, targets), loss, **EXACT)
    dz = yhat - np.array(y)
    if head == "multiclass":
        dz = yhat * np.sum(y, axis=1, keepdims=True) - y
    if head == "regression_relu":
        dz = dz * (SCORES > 0)
    np.testing.assert_allclose(rule.dz(z, targets), dz, **EXACT)
    gradient = jax.grad(lambda z: jnp.sum(rule.loss(z, targets)))
    np.testing.assert_allclose(gradient(z), dz, **EXACT)
    Rz = jnp.array(DIRECTION)
    product = rule.ddz(z, targets, Rz)
    for of_dz in (lambda z: rule.dz(z, targets), gradient):
        np.testing.assert_allclose(product, jax.jvp(of_dz, (z,), (Rz,))[1], **EXACT)


def test_head_products(x64):
    """(∂²L/∂z²) v where ŷ is ½: worked by hand, and in the dtype of z."""
    z, y, Rz = (
        jnp.array(a, jnp.bfloat16) for a in ([[0.0, 0.0], [0.0, 3.0]], [[1.0, 0.0], [0.0, 2.0]], [[4.0, 2.0]] * 2)
    )
    products = {name: rule.ddz(z, y, Rz) for name, rule in HEADS.items()}
    assert {product.dtype for product in products.values()} == {jnp.dtype(jnp.bfloat16)}
    assert products["multilabel"][0].tolist() == [1.0, 0.5]
    assert products["multiclass"][0].tolist() == [0.5, -0.5]
    assert products["regression"].tolist() == [[4.0, 2.0], [4.0, 2.0]]
    assert products["regression_relu"].tolist() == [[0.0, 0.0], [0.0, 2.0]]


def test_product_of_a_confident_row():
    """With ŷ₂ = e⁻⁴⁰ the product is e⁻⁴⁰ (v₁ − v₂, v₂ − v₁) to float32's digits, though 1 − ŷ₁ rounds to 0."""
    z, y, Rz = jnp.array([[0.0, -40.0], [-40.0, 0.0]]), jnp.eye(2), jnp.array([[3.0, 5.0], [3.0, 5.0]])
    expected = np.exp(-40) * np.array([[-2.0, 2.0], [-2.0, 2.0]])
    np.testing.assert_allclose(HEADS["multiclass"].ddz(z, y, Rz), expected, rtol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_products_at_extreme_scores(head):
    """At ±1e4 in float32: finite, and 0 where ŷ is certain."""
    z, y, Rz = jnp.array([[1e4, -1e4], [-1e4, 1e4]]), jnp.eye(2), jnp.array([[3.0, -5.0], [2.0, 1.0]])
    product = np.asarray(HEADS[head].ddz(z, y, Rz))
    kept = {"regression": np.ones((2, 2)), "regression_relu": np.eye(2)}.get(head, np.zeros((2, 2)))
    np.testing.assert_array_equal(product, kept * np.asarray(Rz))


def test_infinite_scores(x64):
    """A certain answer costs 0 where it is right and ∞ where it is wrong."""
    z, y = jnp.array([[jnp.inf, -jnp.inf], [-jnp.inf, 0.0]]), jnp.array([[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(HEADS["multilabel"].loss(z, y), [0.0, np.inf])
    np.testing.assert_array_equal(HEADS["multilabel"].dz(z, y), [[0.0, 0.0], [-1.0, -0.5]])
    z, y = jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(HEADS["multiclass"].loss(z, y), [0.0, np.inf])
    np.testing.assert_array_equal(HEADS["multiclass"].dz(z, y), [[0.0, 0.0], [1.0, -1.0]])


@pytest.mark.parametrize(
    ("head", "yhat", "decided"),
    [
        ("binary", [[0.5], [0.49], [1.0]], [1, 0, 1]),
        ("multilabel", [[0.5, 0.49], [0.0, 1.0]], [[1, 0], [0, 1]]),
        ("multiclass", [[0.2, 0.4, 0.4], [0.1, 0.2, 0.7]], [1, 2]),
    ],
)
def test_decisions(x64, head, yhat, decided):
    got = HEADS[head].decide(jnp.array(yhat))
    np.testing.assert_array_equal(got, decided)
    assert got.dtype == jnp.int32


def test_binary_decisions_are_those_of_the_first_output():
    np.testing.assert_array_equal(HEADS["binary"].decide(jnp.array([[0.9, 0.1], [0.1, 0.9]])), [1, 0])


@pytest.mark.parametrize(
    ("head", "z", "y", "metric"),
    [
        ("binary", [[0.0], [-1e-3], [0.5], [-0.5]], [[0.5], [1.0], [1.0], [0.4]], [1, 0, 1, 1]),
        ("multilabel", [[1.0, -1.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]], [1, 0]),
        ("multiclass", [[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 1.0, 3.0]], np.eye(3).tolist(), [1, 0, 1]),
        ("regression", [[1.0, 3.0], [2.0, 2.0]], [[0.0, 1.0], [2.0, -1.0]], [2.5, 4.5]),
        ("regression_relu", [[-1.0, 3.0], [2.0, -2.0]], [[0.0, 1.0], [2.0, 1.0]], [2.0, 0.5]),
    ],
)
def test_metric(x64, head, z, y, metric):
    got = HEADS[head].metric(jnp.array(z, jnp.bfloat16), jnp.array(y, jnp.bfloat16))
    np.testing.assert_array_equal(np.asarray(got, float), metric)
    assert got.dtype == jnp.bfloat16


def test_as_array():
    """Eight-byte integers become the dtype asked for; anything else keeps its own, as far as JAX has it."""
    given = jnp.arange(3, dtype=jnp.int8)
    assert as_array(given, jnp.float32) is given
    np.testing.assert_array_equal(as_array([5_000_000_000], jnp.float32), np.float32([5e9]))
    for dtype, kept in {
        "int64": "bfloat16", "uint64": "bfloat16", "int32": "int32", "uint8": "uint8", "bool": "bool",
        "float32": "float32", "float64": "float32", "float16": "float16", "bfloat16": "bfloat16",
    }.items():  # fmt: skip
        array = as_array(np.ones(2, jnp.dtype(dtype)), jnp.bfloat16)
        assert isinstance(array, jax.Array)
        assert (dtype, array.dtype) == (dtype, jnp.dtype(kept))
        assert array.tolist() == [1, 1]


@pytest.mark.parametrize("value", [["a", "b"], [1j], [None]])
def test_as_array_refuses(value):
    with pytest.raises(DataError) as error:
        as_array(value, jnp.float32)
    dtype = np.asarray(value).dtype
    assert str(error.value) == f"got an array of dtype {dtype}: expected real numbers; encode labels as 0, 1, …"


@pytest.mark.parametrize(
    ("head", "y", "n_L", "matrix"),
    [
        ("binary", [1, 0], 1, [[1], [0]]),
        ("binary", [[1], [0]], 1, [[1], [0]]),
        ("binary", [0.25], 1, [[0.25]]),
        ("multilabel", [[0, 1], [1, 0.5]], 2, [[0, 1], [1, 0.5]]),
        ("multiclass", [2, 0], 3, [[0, 0, 1], [1, 0, 0]]),
        ("multiclass", [[0.5, 0, 0.5]], 3, [[0.5, 0, 0.5]]),
        ("multiclass", [[0, 1, 0]], 3, [[0, 1, 0]]),
        ("regression", [[-1.5, 2.0]], 2, [[-1.5, 2]]),
        ("regression", [-1.5, 2.0], 1, [[-1.5], [2]]),
        ("regression_relu", [[3], [4]], 1, [[3], [4]]),
    ],
)
def test_target_matrix(x64, head, y, n_L, matrix):
    """From a list, a NumPy array, a JAX array and a traced one; nothing is promoted silently."""
    with jax.numpy_dtype_promotion("strict"):
        forms = [y, np.array(y), jnp.array(y)]
        outputs = [target_matrix(head, form, n_L, jnp.float32) for form in forms]
        outputs.append(jax.jit(lambda y: target_matrix(head, y, n_L, jnp.float32))(forms[-1]))
    for out in outputs:
        assert out.dtype == jnp.float32
        np.testing.assert_array_equal(out, matrix)


def test_more_classes_than_the_labels_can_count():
    matrix = target_matrix("multiclass", np.array([127, 0], np.int8), 300, jnp.float32)
    assert np.argwhere(matrix).tolist() == [[0, 127], [1, 0]]


def test_integer_targets_are_rounded_once():
    """Just above the middle of two float32 numbers: by way of float64 it would become the lower one."""
    matrix = target_matrix("regression", np.array([2**60 + 2**36 + 1]), 1, jnp.float32)
    assert matrix.tolist() == [[2.0**60 + 2.0**37]]


@pytest.mark.parametrize(
    ("head", "y", "n_L", "nan"),
    [
        ("binary", [0.0, 1.0, 1.5, -0.5], 1, [False, False, True, True]),
        ("multilabel", [[0.0, 1.0], [0.5, 1.5], [-0.5, 0.5]], 2, [False, True, True]),
        ("multiclass", [0, 2, 3, -1], 3, [False, False, True, True]),
        ("multiclass", [[0.0, 1.0, 0.0], [1.5, -0.5, 0.0]], 3, [False, True]),
        ("regression", [-7.0, 7.0], 1, [False, False]),
    ],
)
def test_a_bad_label_becomes_nan_under_jit(head, y, n_L, nan):
    matrix = jax.jit(lambda y: target_matrix(head, y, n_L, jnp.float32))(jnp.array(y))
    assert np.isnan(matrix).any(axis=1).tolist() == nan


def refusal(*args):
    with pytest.raises(DataError) as error:
        check_targets(*args)
    with pytest.raises(DataError) as again:
        target_matrix(*args[:3], jnp.float32, *args[3:])
    assert str(again.value) == str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("head", "shape", "n_L", "expected"),
    [
        ("binary", (), 1, "(m, 1) or (m,)"),
        ("binary", (3, 2), 1, "(m, 1) or (m,)"),
        ("binary", (3, 1, 1), 1, "(m, 1) or (m,)"),
        ("multilabel", (2,), 2, "(m, 2)"),
        ("regression", (2, 3), 2, "(m, 2)"),
        ("multiclass", (), 3, "integer (m,) or one-hot (m, 3)"),
        ("multiclass", (3, 1), 3, "integer (m,) or one-hot (m, 3)"),
        ("multiclass", (3, 3, 3), 3, "integer (m,) or one-hot (m, 3)"),
    ],
)
def test_shapes_are_refused(head, shape, n_L, expected):
    message = refusal(head, np.zeros(shape, np.int32), n_L)
    assert message == f"y has shape {shape}: head {head!r} with {n_L} outputs expects {expected}"


@pytest.mark.parametrize("shape", [(3,), (3, 3)])
def test_dtypes_are_refused(shape):
    dtype_error = "y has dtype {}: expected numbers; encode labels as integers 0, 1, …".format
    for dtype in ("complex64", "S1"):
        for head in ("regression", "multilabel") if len(shape) > 1 else ("multiclass",):
            with pytest.raises(DataError) as error:
                check_targets(head, np.zeros(shape, dtype), 3)
            assert str(error.value) == dtype_error(np.dtype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_classes_are_integers(dtype):
    message = refusal("multiclass", np.zeros(3, dtype), 3)
    assert message == f"y has dtype {dtype}: class labels (m,) must be integers 0 to 2"


@pytest.mark.parametrize(
    ("head", "y", "n_L", "label", "row", "expected"),
    [
        ("multiclass", [0, 2, 3], 3, "3", 2, "0 to 2 for 3 classes"),
        ("multiclass", [0, -1, 3], 3, "-1", 1, "0 to 2 for 3 classes"),
        ("multiclass", [[0, 1], [2, -1]], 2, "[2, -1]", 1, "0 or 1"),
        ("binary", [0.0, 1.0, 1.5], 1, "1.5", 2, "0 or 1"),
        ("binary", [[0], [-1]], 1, "[-1]", 1, "0 or 1"),
        ("binary", [0.5, float("nan")], 1, "nan", 1, "0 or 1"),
        ("multilabel", [[0, 1], [1, 2]], 2, "[1, 2]", 1, "0 or 1"),
    ],
)
def test_labels_are_refused(head, y, n_L, label, row, expected):
    message = refusal(head, np.array(y), n_L)
    assert message == f"y has a label outside the classes: {label} in row {row}, expected {expected}"


@pytest.mark.parametrize(
    ("y", "row", "total"),
    [
        ([[0, 1, 0], [0, 1, 1]], 1, "2"),
        ([[0, 0, 0], [0, 1, 0]], 0, "0"),
        ([[1, 0, 0], [0.5, 0.25, 0.248]], 1, "0.998"),
        ([[1, 0, 0], [0.5, 0.25, 0.252]], 1, "1.002"),
    ],
)
def test_rows_that_do_not_sum_to_1_are_refused(y, row, total):
    assert refusal("multiclass", np.array(y), 3) == (
        f"row {row} of y sums to {total}: classes exclude each other, so one-hot or soft labels sum to 1 "
        "(several true labels at once: head='multilabel')"
    )
    check_targets("multilabel", np.array(y), 3)
    check_targets("multiclass", np.array([[0.5, 0.25, 0.2495]]), 3)


@pytest.mark.parametrize(
    ("head", "y", "n_L"),
    [
        ("multiclass", [0, 7, 1], 3),
        ("multiclass", [[1, 0], [1, 1], [0, 1]], 2),
        ("multilabel", [[0, 1], [5, -1], [1, 1]], 2),
        ("binary", [0.0, float("nan"), 1.0], 1),
    ],
)
def test_a_row_of_weight_0_may_have_any_label(head, y, n_L):
    y = np.array(y)
    for weight in ([1.0, 0.0, 2.0], jnp.array([0.5, 0.0, 1.0])):
        check_targets(head, y, n_L, weight)
        target_matrix(head, y, n_L, jnp.float32, weight)
    refusal(head, y, n_L, [0.0, 2.0, 0.0])
    refusal(head, y, n_L, None)
    # a weight of another length is another check's to refuse
    check_targets(head, y, n_L, [1.0, 1.0])


def test_a_float64_beyond_float32_is_infinite_without_a_warning():
    assert np.isinf(as_array(np.array([1e39]), jnp.float32)).all()
