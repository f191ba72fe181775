"""Separators and certificates: verified by their own arithmetic, against hidden truths and another solver."""

import numpy as np
import pytest
from sklearn.svm import SVC

from mlpjax import separability
from mlpjax.errors import DataError
from mlpjax.separability import Certificate, Separator, certificate_sum, check_two_classes, margin_of, separate
from mlpjax.toys import GATES, TOYS, gate


def certified(found, x, y):
    """Whether a certificate proves what it says, in integers of its own scale."""
    return (
        found.multipliers.min() >= 0
        and abs(found.multipliers.sum() - 1) < 1e-12
        and np.abs(certificate_sum(found.multipliers, x, y)).max() <= 1e-12 * max(1, np.abs(x).max())
    )


@pytest.mark.parametrize("name", GATES)
def test_gates(name):
    x, y = gate(name)
    found = separate(x, y)
    if name in ("xor_gate", "xnor_gate"):
        assert isinstance(found, Certificate)
        assert not found.separable
        np.testing.assert_allclose(found.multipliers, [0.25] * 4, rtol=1e-12)
        assert np.array_equal(certificate_sum(found.multipliers, x, y), np.zeros(3))
        assert found.residual < 1e-15
    else:
        assert isinstance(found, Separator)
        assert found.separable
        assert np.array_equal(x @ found.w + found.b > 0, y == 1)
        np.testing.assert_allclose(np.hypot(found.b, np.linalg.norm(found.w)), 1)
        np.testing.assert_allclose(found.margin, np.min((2 * y - 1) * (x @ found.w + found.b)))


@pytest.mark.parametrize(("name", "separable"), [("circle", False), ("xor", False), ("spiral", False), ("gauss", True)])
def test_plane_sets(name, separable):
    x, y = TOYS[name](300)
    found = separate(x, y)
    assert found.separable == separable
    assert separable or certified(found, x, y)


def test_random_small_sets_on_every_scale():
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(300):
        m, n = rng.integers(1, 12), rng.integers(1, 5)
        x, y = rng.integers(-2, 3, (m, n)).astype(float), rng.integers(0, 2, m)
        found = separate(x, y)
        answers.append(found.separable)
        # neither a move nor the scale of a column changes the answer
        moved = separate(x * 10.0 ** rng.integers(-20, 20, n)[None, :] + 0.0, y)
        assert moved.separable == found.separable
        assert separate(x + 1000.0, y).separable == found.separable
        if found.separable:
            assert found.margin > 0
            assert margin_of(found.w, found.b, x, y) == pytest.approx(found.margin)
        else:
            assert certified(found, x, y)
    assert 50 < sum(answers) < 250


def test_the_margin_is_at_most_that_of_a_support_vector_machine():
    x, y = TOYS["gauss"](40)
    found = separate(x, y)
    # the largest margin of w̃ = (b, w) is that of a machine without intercept on x̃
    x_tilde = np.column_stack([np.ones(40), x]).astype(float)
    u = SVC(kernel="linear", C=1e9).fit(np.vstack([x_tilde, -x_tilde]), np.append(y, 1 - y)).coef_[0]
    largest = margin_of(u[1:], u[0], x, y)
    assert 0 < found.margin <= largest * (1 + 1e-3)
    assert found.margin > largest / 10


def test_contradicting_and_missing_classes():
    found = separate(np.array([[1.0, 2.0], [1.0, 2.0], [5.0, 0.0]]), [0, 1, 1])
    np.testing.assert_allclose(found.multipliers, [0.5, 0.5, 0.0], atol=1e-15)
    one = separate(np.array([[1.0], [2.0]]), [1, 1])
    assert one.separable
    assert margin_of(one.w, one.b, np.array([[1.0], [2.0]]), [1, 1]) > 0
    assert separate(np.array([[3.0, 7.0]]), [0]).separable
    # a constant column takes no part, however large
    assert separate(np.array([[1e30, 1.0], [1e30, 2.0]]), [0, 1]).w[0] == 0


@pytest.mark.parametrize("gap", [1e-3, 1e-9, 1e-14])
def test_near_points_far_from_zero(gap):
    found = separate(np.array([[1.0], [1.0 + gap]]), [0, 1])
    assert found.separable
    np.testing.assert_allclose(found.margin, gap / 2 / np.sqrt(2), rtol=0.2 if gap < 1e-12 else 1e-3)


def test_what_float64_cannot_tell_is_said():
    with pytest.raises(DataError, match="too near to each other"):
        separate(np.array([[1.0], [np.nextafter(1.0, 2.0)]]), [0, 1])


def test_a_program_that_failed_is_not_an_answer(monkeypatch):
    class Failed:
        status, message = 4, "numerical difficulties"

    monkeypatch.setattr(separability, "linprog", lambda **given: Failed())
    with pytest.raises(DataError, match="numerical difficulties"):
        separate(*gate("and_gate"))


def test_margin_by_hand():
    x, y = gate("or_gate")
    assert margin_of([2.0, 2.0], -1.0, x, y) == pytest.approx(1 / 3)
    assert margin_of([1.0, 1.0], 0.0, x, y) == 0  # (0, 0) is on the boundary
    assert margin_of([1.0, 0.0], -0.5, x, y) == pytest.approx(-0.5 / np.hypot(1, 0.5))


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (np.zeros(3), [0, 1, 0], "x has shape"),
        (np.zeros((0, 2)), [], "x has shape"),
        (np.zeros((2, 2)), [0, 1, 0], "y has shape"),
        (np.zeros((2, 2)), [[0], [1]], "y has shape"),
        (np.zeros((2, 2)), [0, -1], "y is -1 in row 1"),
        (np.zeros((2, 2)), [0.5, 1], "y is 0.5 in row 0"),
        (np.zeros((2, 2)), [np.nan, 1], "y is nan in row 0"),
        (np.array([[0.0], [np.inf]]), [0, 1], "inf"),
        (np.array([["a"], ["b"]]), [0, 1], "x has dtype"),
    ],
)
def test_other_data_are_refused(x, y, match):
    with pytest.raises(DataError, match=match):
        check_two_classes(x, y)


def test_other_separators_and_multipliers_are_refused():
    x, y = gate("xor_gate")
    for w, b, match in (([1.0], 0.0, r"expected \(2,\)"), ([0.0, 0.0], 0.0, "all 0")):
        with pytest.raises(DataError, match=match):
            margin_of(w, b, x, y)
    for multipliers, match in (
        ([1.0], "one per example"),
        ([1, 1, -1, 0], "minimum of -1"),
        ([1, 1, 0, 0], "sum of 2"),
    ):
        with pytest.raises(DataError, match=match):
            certificate_sum(multipliers, x, y)
