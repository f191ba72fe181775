"""Scaling, labels, targets and row weights where numbers end; what is right comes from fractions and float64."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import mlpjax
from mlpjax.checks import LARGEST_WEIGHT_SUM, row_weights
from mlpjax.errors import DataError, InputError
from mlpjax.finite import FLOAT32_MAX, check_finite
from mlpjax.fit_checks import with_class_weight
from mlpjax.labels import check_indices, class_weights, encode_labels, encode_with, sample_weights, stratified_split
from mlpjax.preprocess import SCALERS, min_max, standardise
from mlpjax.targets import target_matrix

TINY = float(np.finfo(np.float32).tiny)
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
finite_numbers = st.floats(-FLOAT32_MAX, FLOAT32_MAX) | st.sampled_from(
    (0.0, -0.0, 5e-324, 2.0**-1074 * 3, 1e-310, 1e-45, 1e-38, 1.0, 1.0 + 2**-52, FLOAT32_MAX, -FLOAT32_MAX)
)


# --- scaling ---------------------------------------------------------------------------------------------------------


def exactly(column):
    """Mean, deviation and range of a column, in fractions."""
    values = [Fraction(v) for v in column.tolist()]
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / len(values), max(values) - min(values)


@settings(max_examples=150)
@given(arrays(np.float64, st.tuples(st.integers(1, 6), st.just(1)), elements=finite_numbers))
def test_scaling_of_any_column(x):
    """Within the roundings that are the column's own: a spread below them, or below the smallest number, is none."""
    mean, variance, spread = exactly(x[:, 0])
    largest = Fraction(float(np.abs(x).max()))
    scaler, unit = standardise(x), min_max(x)
    rounding = 8 * 2**-52 * float(largest) + 2.3e-308
    assert abs(scaler.shift[0] - float(mean)) <= rounding
    if float(spread) <= 4 * 2**-52 * float(largest) or spread < Fraction(2.3e-308):
        np.testing.assert_array_equal((scaler.scale, unit.scale), 1.0)
    else:
        deviation = math.sqrt(variance / spread**2) * float(spread)
        assert scaler.scale[0] == pytest.approx(deviation, abs=2 * rounding, rel=1e-12)
        assert unit.scale[0] == pytest.approx(float(spread), rel=1e-15)
        z = unit.transform(x)
        assert (z.min(), z.max()) == (0, 1)
    for one in (scaler, unit):
        assert np.isfinite(one.transform(x)).all()
        size = np.abs(x).max() + np.abs(one.shift) + np.abs(one.scale)
        assert (np.abs(one.inverse(one.transform(x)) - x) <= 1e-6 * size).all()


@pytest.mark.parametrize("kind", SCALERS)
@settings(max_examples=20)
@given(data=st.data(), dtype=st.sampled_from((*INTEGERS, "bool", "float16", "float32", "bfloat16")))
def test_scaling_of_any_dtype(kind, data, dtype):
    """The same numbers in another dtype have the same scaling, and rows in another order, or twice, too."""
    bits = data.draw(arrays(np.int64, (5, 2), elements=st.integers(0, 1 if dtype == "bool" else 100)))
    x, wide = bits.astype(jnp.dtype(dtype)), bits.astype(np.float64)
    one, expected = SCALERS[kind](x), SCALERS[kind](wide)
    for other in (one, SCALERS[kind](wide[::-1]), SCALERS[kind](np.concatenate([wide, wide]))):
        np.testing.assert_allclose((other.shift, other.scale), (expected.shift, expected.scale), rtol=1e-14)
    np.testing.assert_array_equal(one.transform(x), one.transform(wide))
    np.testing.assert_array_equal(one.inverse(x), one.inverse(wide))


@pytest.mark.parametrize("fit", [standardise, min_max])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_scaling(fit, bad):
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        x = np.ones((4, 3), dtype)
        x[1, 2] = bad
        with pytest.raises(DataError, match=r"row 1, column 2 \(from 0\) is -?(nan|inf): expected a finite number"):
            fit(x)


@given(arrays(np.float64, (3, 2), elements=st.floats() | finite_numbers))
def test_check_finite_is_finiteness_in_float32(x):
    with np.errstate(over="ignore"):
        good = np.isfinite(x).all() and (np.abs(x) <= FLOAT32_MAX).all()
    if good:
        check_finite(x, "x")
    else:
        with pytest.raises(DataError, match="expected a finite number"):
            check_finite(x, "x")


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
@settings(max_examples=20)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_class_weights_of_any_integer_dtype(dtype, labels):
    """w_c = m/(K m_c) in every dtype of labels; all weights together are m, times the share of classes present."""
    y = np.array(labels, dtype)
    check_indices(y, 4)
    weights, m = class_weights(y, 4), len(labels)
    expected = [m / (4 * labels.count(c)) if c in labels else 0 for c in range(4)]
    np.testing.assert_allclose(weights, expected, rtol=1e-15)
    each = sample_weights(y, weights)
    assert each.sum() == pytest.approx(m * len(set(labels)) / 4, rel=1e-6)
    np.testing.assert_array_equal(sample_weights(y, np.ones(4)), 1)


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_a_split_of_any_dtype(dtype):
    y = (np.arange(20) % 2).astype(dtype)
    expected = stratified_split(np.arange(20) % 2, 0.3, 0)
    for got, right in zip(stratified_split(y, 0.3, 0), expected, strict=True):
        np.testing.assert_array_equal(got, right)


@given(st.lists(st.floats() | st.integers(-(2**70), 2**70) | st.booleans(), min_size=1, max_size=6))
def test_labels_that_are_whole_numbers(values):
    """Whole floats, of any size and −0.0, are the integers that they equal; others are no label."""
    whole = [isinstance(v, int) or (math.isfinite(v) and v == int(v)) for v in values]
    if not all(whole):
        with pytest.raises(DataError, match=rf"row {whole.index(False)}: .* is no class label"):
            encode_labels(values)
        return
    y, classes = encode_labels(values)
    assert [classes[k] for k in y] == values
    assert list(classes) == sorted(set(values))
    np.testing.assert_array_equal(encode_with(values, classes), y)


# --- targets and weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool", "float16", "bfloat16", "float32", "float64"])
def test_targets_of_any_dtype(dtype):
    """0 and 1 in any dtype, with −0.0 for 0, are the same rows for every head."""
    y = np.array([[0, 1], [1, 0], [0, 1]])
    given_y = y.astype(jnp.dtype(dtype))
    for head in ("multilabel", "multiclass", "regression", "regression_relu"):
        np.testing.assert_array_equal(target_matrix(head, given_y, 2, jnp.float32), y)
    np.testing.assert_array_equal(target_matrix("binary", given_y[:, 0], 1, jnp.float32), y[:, :1])
    if jnp.issubdtype(given_y.dtype, jnp.floating):
        np.testing.assert_array_equal(target_matrix("binary", -given_y[:1, :1], 1, jnp.float32), [[0]])


@given(st.floats() | st.sampled_from((1 + 2**-52, 1 + 2**-23, -1e-45, 5e-324, np.nextafter(1, 0))))
def test_a_label_is_between_0_and_1(y):
    """0 ≤ y ≤ 1 is taken, and everything else is an error that names its row."""
    labels = np.array([[0.5], [y]])
    if 0 <= y <= 1:
        got = target_matrix("binary", labels, 1, jnp.float32)
        np.testing.assert_allclose(got, labels, rtol=1e-7, atol=1e-38)
    else:
        with pytest.raises(DataError, match=r"label outside the classes: .* in row 1, expected 0 or 1"):
            target_matrix("binary", labels, 1, jnp.float32)


weights = st.sampled_from((0.0, 1e-45, 1e-40, 1e-38, 1e-30, 1.0, 3.0, 1e30, 3e38)) | st.floats(0, 2.0**126, width=32)


@settings(max_examples=150)
@given(arrays(np.float32, 4, elements=weights))
def test_row_weights_of_any_size(weight):
    """pᵢ = wᵢ/Σw, subnormal weights being 0, while Σw can be divided by; else an error that says how to scale."""
    exactly = np.where(weight < TINY, 0, weight.astype(np.float64))
    total = exactly.sum()
    if total > LARGEST_WEIGHT_SUM:
        with pytest.raises(DataError, match="more than float32 can divide by: scale them down"):
            row_weights(weight, 4, jnp.float32)
    elif total == 0 and weight.any():
        with pytest.raises(DataError, match="less than float32 can hold: scale them up"):
            row_weights(weight, 4, jnp.float32)
    else:
        p, weight_sum = row_weights(weight, 4, jnp.float32)
        np.testing.assert_allclose(weight_sum, total, rtol=1e-6, atol=4e-38)
        if total > 1e-36:
            np.testing.assert_allclose(p, exactly / total, rtol=1e-6, atol=1e-37)


def test_weights_of_which_none_can_be_seen_are_refused_by_every_caller():
    config = mlpjax.Config(sizes=(2, 1), head="regression")
    params, state = mlpjax.init(config, jax.random.key(0))
    batch = mlpjax.Batch(np.ones((3, 2)), np.ones(3), np.full(3, 1e-42))
    for function in (mlpjax.loss, mlpjax.backward, mlpjax.evaluate):
        with pytest.raises(DataError, match="scale them up, only their ratios count"):
            function(config, params, state, batch)


@pytest.mark.parametrize("beyond", [1e39, -1e300])
def test_what_float32_cannot_hold_is_infinite(beyond):
    """Without a warning: an error in `evaluate`, nothing in a row of weight 0, and not finite elsewhere."""
    config = mlpjax.Config(sizes=(2, 1), head="regression")
    params, state = mlpjax.init(config, jax.random.key(0))
    x, y, weight = np.ones((3, 2)), np.ones(3), np.array([1.0, 2.0, 0.0])
    J, _ = mlpjax.loss(config, params, state, mlpjax.Batch(x, y, weight))
    x[2], y[2] = beyond, beyond
    assert mlpjax.loss(config, params, state, mlpjax.Batch(x, y, weight))[0] == J
    assert not np.isfinite(mlpjax.loss(config, params, state, mlpjax.Batch(x, y))[0])
    with pytest.raises(DataError, match="row 2, column 0"):
        mlpjax.evaluate(config, params, state, mlpjax.Batch(x, y, weight))


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ([1e38, 1e38], "more than float32 can divide by: scale them down"),
        ([3e38, 3e38], "more than float32 can divide by: scale them down"),
        ([1e-45, 1e-45], "less than float32 can hold: scale them up"),
        ([1e39, 1.0], "expected 2 finite numbers ≥ 0, one per class"),
    ],
)
def test_class_weights_that_float32_cannot_hold(class_weight, message):
    """An error before training, where the products of weights would be ∞ or 0."""
    data = mlpjax.Batch(np.ones((3, 2)), np.array([0, 1, 1]), np.full(3, 2.0))
    with pytest.raises(InputError, match=message):
        with_class_weight(mlpjax.Config(sizes=(2, 2)), data, class_weight)
