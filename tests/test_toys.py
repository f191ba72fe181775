"""The generated plane sets and the gates, against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlpjax.errors import DataError
from mlpjax.toys import GATES, TOYS, blobs, circle, discs, gate, gauss, gauss_regression, plane, spiral, xor

CLASSIFICATION = ["circle", "xor", "gauss", "spiral"]
REGRESSION = ["plane", "gauss_regression"]


def test_the_table_has_every_set():
    assert sorted(TOYS) == sorted(CLASSIFICATION + REGRESSION)


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_shapes_types_and_the_seed(name, noise):
    x, y = TOYS[name](201, 3, noise=noise)
    assert x.shape == (201, 2)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    if name in CLASSIFICATION:
        assert y.shape == (201,)
        assert y.dtype == np.int32
        assert set(y.tolist()) == {0, 1}
    else:
        assert y.shape == (201, 1)
        assert y.dtype == np.float32
    same, other = TOYS[name](201, 3, noise=noise), TOYS[name](201, 4, noise=noise)
    np.testing.assert_array_equal(x, same[0])
    np.testing.assert_array_equal(y, same[1])
    assert not np.array_equal(x, other[0])


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classes_come_in_random_order(name):
    y = TOYS[name](400, 0)[1]
    assert 60 < y[:200].sum() < 140


@pytest.mark.parametrize("name", ["circle", "gauss", "spiral"])
def test_half_of_the_points_are_of_each_class(name):
    assert TOYS[name](201, 0)[1].sum() == 100


def test_circle_is_a_disc_in_a_ring():
    x, y = circle(2000, 1)
    r = np.hypot(*x.T)
    assert r[y == 1].max() < 2.5
    assert r[y == 0].min() > 3.499
    assert r[y == 0].max() < 5.001
    # the radius, not the area, is uniform
    assert abs(r[y == 1].mean() - 1.25) < 5 * 2.5 / math.sqrt(12 * 1000)
    assert np.all(np.histogram(np.arctan2(*x.T), bins=4, range=(-math.pi, math.pi))[0] > 400)


def test_xor_is_the_sign_of_the_product_away_from_the_axes():
    x, y = xor(2000, 1)
    assert 0.3 <= np.abs(x).min() < 0.32
    assert 5.25 < np.abs(x).max() < 5.3
    np.testing.assert_array_equal(y, x[:, 0] * x[:, 1] > 0)


@pytest.mark.parametrize("noise", [0.0, 0.25, 0.5])
def test_gauss_has_the_variance_of_the_playground(noise):
    x, y = gauss(20000, 1, noise=noise)
    variance = 0.5 + 7 * noise  # 0.5 … 4 for the slider's 0 … 0.5
    for label, centre in ((1, 2.0), (0, -2.0)):
        cloud = x[y == label].astype(np.float64)
        np.testing.assert_allclose(cloud.mean(axis=0), centre, atol=5 * math.sqrt(variance / 10000))
        np.testing.assert_allclose(cloud.var(axis=0), variance, rtol=0.08)


def test_spiral_is_on_its_curve():
    x, y = spiral(200, 1)
    for label, turn in ((1, 0.0), (0, math.pi)):
        arm = x[y == label]
        r = np.hypot(*arm.T)
        arm, r = arm[np.argsort(r)], np.sort(r)
        np.testing.assert_allclose(r, 5 * np.arange(100) / 100, atol=1e-5)
        t = 1.75 * 2 * math.pi * r / 5 + turn
        np.testing.assert_allclose(arm, np.stack([r * np.sin(t), r * np.cos(t)], axis=1), atol=1e-4)


def test_spiral_noise_moves_the_points_by_at_most_its_size():
    clean, noisy = spiral(200, 1), spiral(200, 1, noise=0.5)
    for label in (0, 1):
        points, moved = (x[y == label] for x, y in (clean, noisy))
        gap = np.abs(points[:, None] - moved).max(axis=2)
        assert 0.1 < gap.min(axis=0).max() <= 0.5, "every moved point is within the noise of a clean one"
        assert np.hypot(*moved.T).max() <= 5 + math.sqrt(0.5)


def test_label_noise_flips_labels_and_leaves_the_points():
    for toy in (circle, xor):
        x, y = toy(1000, 1)
        x_noisy, y_noisy = toy(1000, 1, noise=0.5)
        np.testing.assert_array_equal(x, x_noisy)
        assert 0.05 < np.mean(y != y_noisy) < 0.5


def test_circle_noise_judges_the_displaced_point_by_the_same_radius():
    x, y = circle(20000, 1, noise=0.5)
    moved = x + 0.5 * np.random.default_rng(99).uniform(-5, 5, x.shape)
    expected = np.mean(np.hypot(*moved.T) < 2.5)
    assert abs(y.mean() - expected) < 5 * math.sqrt(2 * 0.25 / 20000)


def test_plane_is_a_tenth_of_the_sum():
    x, y = plane(1000, 1)
    np.testing.assert_allclose(y[:, 0], (x[:, 0] + x[:, 1]) / 10, atol=1e-6)
    assert 5.9 < np.abs(x).max() <= 6
    assert np.abs(plane(1000, 1, noise=0.5)[1] - y).max() <= 0.6


def test_gauss_regression_by_hand():
    x, y = gauss_regression(3000, 1)
    signs = {(-4, 2.5): 1, (0, 2.5): -1, (4, 2.5): 1, (-4, -2.5): -1, (0, -2.5): 1, (4, -2.5): -1}
    for point, value in zip(x.tolist(), y[:, 0].tolist(), strict=True):
        centre = min(signs, key=lambda c: math.dist(c, point))
        expected = signs[centre] * max(0.0, 1 - math.dist(centre, point) / 2)
        assert value == pytest.approx(expected, abs=1e-6)
    assert y.max() > 0.9
    assert y.min() < -0.9
    assert np.mean(y == 0) > 0.3


@pytest.mark.parametrize("name", TOYS)
def test_what_a_set_refuses(name):
    with pytest.raises(DataError, match="m is 1: expected at least 2 points"):
        TOYS[name](1, 0)
    for noise in (-0.1, math.inf, math.nan):
        with pytest.raises(DataError, match=r"noise is .*: expected a finite number ≥ 0"):
            TOYS[name](10, 0, noise=noise)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("and_gate", lambda a, b: a and b),
        ("or_gate", lambda a, b: a or b),
        ("xor_gate", lambda a, b: a != b),
        ("nand_gate", lambda a, b: not (a and b)),
        ("nor_gate", lambda a, b: not (a or b)),
        ("xnor_gate", lambda a, b: a == b),
    ],
)
def test_the_truth_tables(name, rule):
    x, y = gate(name)
    assert x.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert x.dtype == np.float32
    assert y.dtype == np.int32
    assert y.tolist() == [int(rule(bool(a), bool(b))) for a, b in x]
    assert len(GATES) == 6


def test_an_unknown_gate():
    with pytest.raises(DataError, match="unknown gate 'xo_gate': did you mean 'xor_gate'"):
        gate("xo_gate")


def test_five_classes_are_clouds_on_a_circle():
    x, y = blobs(2000, 1)
    assert np.bincount(y).tolist() == [400] * 5
    for k in range(5):
        centre = 4 * np.array([math.sin(2 * math.pi * k / 5), math.cos(2 * math.pi * k / 5)])
        assert np.abs(x[y == k].mean(axis=0) - centre).max() < 5 * math.sqrt(0.5 / 400)
        assert abs(x[y == k].var(axis=0).mean() - 0.5) < 5 * 0.5 * math.sqrt(2 / 800)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_five_labels_are_overlapping_discs(noise):
    x, y = discs(2000, 1, noise=noise)
    assert y.shape == (2000, 5)
    centres = 2 * np.array([[math.sin(2 * math.pi * o / 5), math.cos(2 * math.pi * o / 5)] for o in range(5)])
    inside = np.linalg.norm(x[:, None, :] - centres, axis=2) < 3
    wrong = np.mean(inside != y)
    assert wrong == 0 if noise == 0 else 0.05 < wrong < 0.5


@pytest.mark.parametrize("draw", [blobs, discs])
def test_the_seed_decides_five_classes_and_labels(draw):
    for once, again in zip(draw(50, 3), draw(50, 3), strict=True):
        np.testing.assert_array_equal(once, again)
    assert not np.array_equal(draw(50, 3)[0], draw(50, 4)[0])
    assert draw(50)[0].dtype == np.float32
    assert draw(50)[1].dtype == np.int32
    with pytest.raises(DataError, match="m is 1"):
        draw(1)
