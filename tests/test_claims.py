"""The claims that the lecture's checks are made of can fail, and say what was found."""

import numpy as np
import pytest

from mlpjax.claims import agree, equal, holds, printed


@pytest.mark.parametrize(
    ("got", "expected", "ok", "found"),
    [
        (1.0 + 1e-13, 1.0, True, "relative error 1.0e-13, tolerance 1e-12"),
        (1.0 + 1e-11, 1.0, False, "got 1, expected 1"),
        ([1e9, 1e-4], [1e9, 0.0], True, "relative error 1.0e-13, tolerance 1e-12"),
        (1e-11, 0.0, False, "got 1e-11, expected 0"),
        (1e-13, 0.0, True, "relative error 1.0e-13, tolerance 1e-12"),
        ([1.0, np.nan], [1.0, 2.0], False, "got nan, expected 2 at [1]"),
        (np.nan, np.nan, False, "got nan, expected nan"),
        (np.inf, np.inf, False, "got inf, expected inf"),
        (1.0, np.inf, False, "got 1, expected inf"),
        ([[1.0]], [1.0], False, "shape (1, 1), expected (1,)"),
        ([], [], False, "nothing to compare"),
        ([[1.0, 2.0], [3.0, 5.0]], [[1.0, 2.0], [3.0, 4.0]], False, "got 5, expected 4 at [1, 1]"),
    ],
)
def test_agree(got, expected, ok, found):
    claim = agree("x", got, expected)
    assert claim.ok is ok
    assert claim.found == found


def test_equal_is_bit_by_bit():
    assert equal("x", np.array([0.0, 1]), np.array([-0.0, 1])).ok
    assert not equal("x", 1 / 3, np.float32(1 / 3)).ok
    assert not equal("x", np.nan, np.nan).ok
    assert equal("x", [[1]], [1]).found == "shape (1, 1), expected (1,)"


def test_holds():
    claim = holds("x > 0", np.bool_(True), 0.25)
    assert claim.ok is True
    assert claim.found == "0.25"
    assert holds("none", [], "none").ok is False


def test_two_printed_forms_of_one_check():
    @printed("err-a", 1)
    @printed("err-b", 2)
    def check(form=0):
        return equal("the form", form, 0)

    assert check.printed == {"err-a": 1, "err-b": 2}
    assert check().ok
