"""Label coding, class weights and the stratified split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlpjax.errors import DataError, listed
from mlpjax.labels import check_indices, class_weights, encode_labels, encode_with, sample_weights, stratified_split

quick = settings(derandomize=True, deadline=None, max_examples=60)
matrices = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda v: round(v, 3)),
)


# --- labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "classes", "indices"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        ([10, 9, 10], (9, 10), [1, 0, 1]),
        (["10", "9", "10"], ("9", "10"), [1, 0, 1]),
        (["10", "9", "x"], ("10", "9", "x"), [0, 1, 2]),
        ([True, False], (False, True), [1, 0]),
        ([-1.0, 1.0], (-1, 1), [0, 1]),
        (np.array([2.0, -3.0, 2.0], dtype=np.float32), (-3, 2), [1, 0, 1]),
        (np.array(["x", "y"]), ("x", "y"), [0, 1]),
        ([np.str_("x"), "w"], ("w", "x"), [1, 0]),
        ([np.int8(3), np.float64(1), 2, True], (1, 2, 3), [2, 0, 1, 0]),
    ],
)
def test_labels_of_any_kind(values, classes, indices):
    y, found = encode_labels(values)
    assert y.dtype == np.int32
    assert y.tolist() == indices
    assert found == classes
    assert [type(c) for c in found] == [type(c) for c in classes]
    np.testing.assert_array_equal(encode_with(values, classes), y)


@quick
@given(
    st.lists(st.integers(-(10**30), 10**30), min_size=1, max_size=20)
    | st.lists(st.text(max_size=3), min_size=1, max_size=20)
)
def test_encoding_is_lossless_and_sorted(values):
    y, classes = encode_labels(values)
    assert [classes[k] for k in y] == values
    assert len(set(classes)) == len(classes)
    assert sorted(set(y.tolist())) == list(range(len(classes)))
    if isinstance(values[0], int):
        assert list(classes) == sorted(classes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2.5], r"row 1: 2\.5 is no class label: expected text, a bool or a whole number"),
        ([1, float("nan")], r"row 1: nan is no class label"),
        ([None], r"row 0: None is no class label"),
        (np.eye(2), r"row 0: \[1\.0, 0\.0\] is no class label"),
        (["a", 1], r"row 1: the label 1 is a number, others are text: make all"),
        ([], "no label to encode"),
    ],
)
def test_what_is_no_label(values, message):
    with pytest.raises(DataError, match=message):
        encode_labels(values)


def test_unseen_labels_are_named_with_their_place():
    with pytest.raises(DataError, match=r"row 2: the label 'c' is not among the classes of the model: a, b; correct"):
        encode_with(["a", "b", "c"], ("a", "b"))
    with pytest.raises(DataError, match=r"^f\.csv, line 3: the label 5"):
        encode_with([0, 5], (0, 1), where=lambda i: f"f.csv, line {i + 2}")


def test_numbers_written_as_text_find_their_class():
    assert encode_with(["3", "1"], (1, 3)).tolist() == [1, 0]
    with pytest.raises(DataError, match="row 1: the label 'x'"):
        encode_with(["3", "x"], (1, 3))


def test_listed_cuts_long_lists():
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(25)).endswith("18, 19, … (25 in all)")


# --- weights -------------------------------------------------------------------------------------------------


def test_balanced_class_weights_by_hand():
    y = np.array([0, 0, 0, 2])
    np.testing.assert_allclose(class_weights(y, 3), [4 / (3 * 3), 0.0, 4 / (3 * 1)])
    weights = sample_weights(y, class_weights(y, 3))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [4 / 9, 4 / 9, 4 / 9, 4 / 3], rtol=1e-7)


@quick
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_every_present_class_gets_the_same_total(labels):
    y = np.array(labels)
    total = np.bincount(y, weights=class_weights(y, 5)[y], minlength=5)
    np.testing.assert_allclose(total[np.bincount(y, minlength=5) > 0], len(y) / 5)


@pytest.mark.parametrize("y", [np.array([0, 3]), np.array([-1, 0]), np.array([0.0, 1.0]), np.zeros((2, 1), int)])
def test_weights_refuse_what_is_no_index(y):
    with pytest.raises(DataError, match="class indices in 0 … 2: encode"):
        class_weights(y, 3)
    with pytest.raises(DataError, match="class indices in 0 … 2: encode"):
        sample_weights(y, [1.0, 1.0, 1.0])
    with pytest.raises(DataError, match="class indices"):
        check_indices(y, 3)


# --- split ---------------------------------------------------------------------------------------------------


@quick
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32),
)
def test_the_split_is_a_stratified_partition(labels, fraction, seed):
    y, m = np.array(labels), len(labels)
    total = round(fraction * m)
    if not 0 < total < m:
        with pytest.raises(DataError, match="both sides need at least one"):
            stratified_split(y, fraction, seed)
        return
    keep, held = stratified_split(y, fraction, seed)
    assert sorted([*keep, *held]) == list(range(m))
    assert len(held) == total
    assert np.all(np.diff(keep) > 0)
    assert np.all(np.diff(held) > 0)
    counts, out = np.bincount(y, minlength=6), np.bincount(y[held], minlength=6)
    several = counts >= 2
    # the bounds of the promise: one of each larger class on either side, lone examples kept
    if several.sum() <= total:
        assert np.all(out[several] >= 1)
    if total <= (counts - 1)[several].sum() + (counts == 1).sum():
        assert np.all(out[several] < counts[several])
    if total <= (counts - 1)[several].sum():
        assert np.all(out[counts == 1] == 0)
    again = stratified_split(y, fraction, seed)
    np.testing.assert_array_equal(held, again[1])


def test_three_classes_give_their_shares_by_largest_remainder():
    # 25 % of (10, 7, 5) is (2.5, 1.75, 1.25) of 22, held out: round(5.5) = 6; floors (2, 1, 1), remainders .73 .91 .36
    y = np.repeat([0, 1, 2], [10, 7, 5])
    _, held = stratified_split(y, 0.25, seed=0)
    assert np.bincount(y[held]).tolist() == [3, 2, 1]


def test_a_rare_class_is_on_both_sides_and_a_lone_example_is_kept():
    y = np.repeat([0, 1, 2], [97, 2, 1])
    for seed in range(20):
        keep, held = stratified_split(y, 0.1, seed)
        assert np.bincount(y[held], minlength=3).tolist() == [9, 1, 0]
        assert np.bincount(y[keep], minlength=3).tolist() == [88, 1, 1]


def test_the_seed_decides_the_split():
    y = np.repeat([0, 1], 50)
    splits = {tuple(stratified_split(y, 0.2, seed)[1]) for seed in range(10)}
    assert len(splits) == 10


def test_every_example_is_held_out_equally_often():
    y = np.repeat([3, 8], [6, 4])
    counts = np.zeros(10)
    for seed in range(400):
        counts[stratified_split(y, 0.5, seed)[1]] += 1
    assert np.all(np.abs(counts - 200) < 50)  # 5 standard deviations


@pytest.mark.parametrize("y", [np.linspace(0, 1, 20), np.zeros((20, 3), np.int32), np.zeros((20, 1), np.float32)])
def test_targets_without_classes_are_split_at_random(y):
    keep, held = stratified_split(y, 0.3, seed=1)
    assert sorted([*keep, *held]) == list(range(20))
    assert len(held) == 6
    assert held.tolist() != list(range(6))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_fraction_is_between_0_and_1(fraction):
    with pytest.raises(DataError, match="expected a number between 0 and 1"):
        stratified_split(np.zeros(10, int), fraction, 0)


@pytest.mark.parametrize(("m", "fraction"), [(3, 0.1), (3, 0.9), (1, 0.5)])
def test_no_side_may_be_empty(m, fraction):
    with pytest.raises(DataError, match=rf"of {m} examples leaves .* both sides need at least one"):
        stratified_split(np.zeros(m, int), fraction, 0)
