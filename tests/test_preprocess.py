"""Scaling, and the check for values that are not finite."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlpjax.errors import DataError
from mlpjax.finite import check_finite
from mlpjax.preprocess import SCALERS, Scaler, min_max, no_scaling, standardise

quick = settings(derandomize=True, deadline=None, max_examples=60)
matrices = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda v: round(v, 3)),
)


# --- scaling -------------------------------------------------------------------------------------------------


def test_standardise_takes_both_statistics_from_the_original_x():
    # mean 2.5, deviations −1.5 −.5 .5 1.5, σ² = 5/4; with x centred first and μ taken off twice it were 5/4 + μ²
    scaler = standardise(np.array([[1.0], [2.0], [3.0], [4.0]]))
    assert scaler.kind == "standardise"
    np.testing.assert_array_equal(scaler.shift, [2.5])
    np.testing.assert_allclose(scaler.scale, [np.sqrt(1.25)], rtol=1e-15)
    np.testing.assert_allclose(
        scaler.transform(np.array([[1.0], [6.0]])), [[-1.5 / np.sqrt(1.25)], [3.5 / np.sqrt(1.25)]], rtol=1e-7
    )


@quick
@given(matrices)
def test_standardise_agrees_with_numpy(x):
    scaler = standardise(x)
    varies = np.ptp(x, axis=0) > 0
    np.testing.assert_allclose(scaler.scale[varies], x.std(axis=0)[varies], rtol=1e-9)
    np.testing.assert_array_equal(scaler.scale[~varies], 1.0)
    np.testing.assert_allclose(scaler.shift, x.mean(axis=0), rtol=1e-9, atol=1e-9)


@quick
@given(matrices, st.sampled_from(sorted(SCALERS)))
def test_inverse_undoes_transform(x, kind):
    scaler = SCALERS[kind](x)
    assert scaler.kind == kind
    back = scaler.inverse(scaler.transform(x))
    assert back.dtype == np.float64
    size = np.abs(scaler.shift) + np.abs(scaler.scale) + np.abs(x).max(axis=0)
    assert np.all(np.abs(back - x) <= 1e-6 * size)


@quick
@given(matrices)
def test_min_max_fills_exactly_the_unit_interval(x):
    z = min_max(x).transform(x)
    varies = np.ptp(x, axis=0) > 0
    np.testing.assert_array_equal(z.min(axis=0), 0.0)
    np.testing.assert_array_equal(z.max(axis=0), varies.astype(np.float32))


def test_transform_uses_the_training_statistics_on_new_data():
    train, test = np.array([[0.0], [2.0]]), np.array([[10.0], [12.0]])
    np.testing.assert_array_equal(standardise(train).transform(test), [[9.0], [11.0]])
    np.testing.assert_array_equal(min_max(train).transform(test), [[5.0], [6.0]])


@pytest.mark.parametrize("fit", [standardise, min_max])
@pytest.mark.parametrize(
    "column",
    [
        np.full(5, 7.0),
        np.full(5, 0.1),
        np.full(1001, 1e18 + 4096),  # its rounded mean is off by hundreds
        np.array([0.3, 0.1 + 0.2, 0.3]),  # constant up to rounding
        np.full(7, 0.1, dtype=np.float32),
        np.full(7, 9, dtype=np.uint8),
    ],
)
def test_a_constant_column_is_divided_by_one(fit, column):
    scaler = fit(column[:, None])
    np.testing.assert_array_equal(scaler.scale, [1.0])
    assert np.abs(scaler.transform(column[:, None])).max() < 1e-15


def test_a_small_but_real_spread_is_no_constant():
    x = np.array([[1.0], [1.0 + 1e-9]])
    np.testing.assert_allclose(standardise(x).transform(x), [[-1], [1]], atol=1e-5)
    x = np.array([[0.0], [1e-200]])  # whose square is 0
    np.testing.assert_array_equal(standardise(x).transform(x), [[-1], [1]])


def test_bytes_are_scaled_in_blocks_and_not_in_bytes():
    x = np.tile(np.arange(256, dtype=np.uint8), 40)[:, None].repeat(50, axis=1)  # 10240 × 50, several blocks
    tracemalloc.start()
    scaler = standardise(x)
    z = scaler.transform(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert z.dtype == np.float32
    assert peak < 4.2 * x.size + 2048 * 50 * 8 * 5, "more than the result and some blocks were held"
    np.testing.assert_allclose(scaler.scale, np.sqrt((256**2 - 1) / 12), rtol=1e-12)
    np.testing.assert_allclose(z, (x - 127.5) / np.sqrt((256**2 - 1) / 12), rtol=1e-6)
    np.testing.assert_array_equal(min_max(x).transform(x), (x / 255).astype(np.float32))


def test_no_scaling_changes_only_the_type():
    x = np.array([[3, 255]], dtype=np.uint8)
    z = no_scaling(2).transform(x)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, x)


@pytest.mark.parametrize("method", ["transform", "inverse"])
def test_another_width_names_both(method):
    with pytest.raises(DataError, match=r"x has 3 columns, the scaler was fitted on 2: give"):
        getattr(no_scaling(2), method)(np.zeros((1, 3)))
    with pytest.raises(DataError, match=r"x has the shape \(2,\), the scaler was fitted on 2"):
        getattr(no_scaling(2), method)(np.zeros(2))


def test_a_scaler_refuses_what_it_cannot_divide_by():
    with pytest.raises(DataError, match="a scale of 0"):
        Scaler("minmax", np.zeros(1), np.zeros(1))
    with pytest.raises(DataError, match="not finite"):
        Scaler("minmax", np.array([np.nan]), np.ones(1))
    with pytest.raises(DataError, match=r"shift \(2,\) and scale \(1,\)"):
        Scaler("minmax", np.zeros(2), np.ones(1))
    with pytest.raises(DataError, match="unknown scaling 'min-max': did you mean 'minmax'"):
        Scaler("min-max", np.zeros(1), np.ones(1))
    with pytest.raises(DataError, match="at least one example"):
        standardise(np.zeros((0, 2)))


# --- finiteness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_check_finite_names_the_first_bad_place(dtype, bad):
    x = np.ones((4, 3), dtype=dtype)
    check_finite(x, "x")
    x[2, 1] = x[3, 0] = bad
    with pytest.raises(DataError, match=rf"file: x: row 2, column 1 \(from 0\) is {bad}: expected a finite"):
        check_finite(x, "file: x")
    with pytest.raises(DataError, match=r"y: row 2 \(from 0\) is"):
        check_finite(x[:, 1], "y")


def test_check_finite_means_finite_in_float32():
    with pytest.raises(DataError, match=r"row 0, column 0 \(from 0\) is 1e\+39"):
        check_finite(np.array([[1e39]]), "x")
    check_finite(np.array([[3.4e38]]), "x")
    check_finite(np.zeros((0, 3)), "x")
    check_finite(np.array([ml_dtypes.finfo(ml_dtypes.bfloat16).max]), "x")
    check_finite(np.zeros((0, 3), ml_dtypes.bfloat16), "x")
    check_finite(np.array([[2**62]]), "x")
