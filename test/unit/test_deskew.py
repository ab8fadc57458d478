"""Deskewing against scipy's interpolation and a simulated drive."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from ttt_kd_ros.geometry.deskew import KNOT_DISTANCE_S, Motion, deskew, knot_times
from ttt_kd_ros.geometry.transforms import rigid

RNG = np.random.default_rng(0)


def tumbling(knots, speed=1.0):
    """A motion that turns by up to 0.3 rad and moves by up to 1 m between knots, and its rotations and positions."""
    rotations = Rotation.from_rotvec(np.cumsum(RNG.uniform(-0.17, 0.17, (len(knots), 3)), axis=0) * speed)
    positions = np.cumsum(RNG.uniform(-0.5, 0.5, (len(knots), 3)), axis=0) * speed
    T = np.stack([rigid(R.as_matrix(), p) for R, p in zip(rotations, positions, strict=True)])
    return Motion(knots, T), rotations, positions


def scattered(count=5000):
    return RNG.uniform(-80, 80, (count, 3)).astype(np.float32)


@pytest.mark.parametrize("knots", [np.array([-0.05, 0.05]), np.linspace(-0.02, 0.09, 12)], ids=["two", "twelve"])
def test_every_point_is_moved_as_by_slerp_and_lerp_at_its_own_time(knots):
    motion, rotations, positions = tumbling(knots)
    points = scattered()
    times = RNG.uniform(knots[0], knots[-1], len(points))
    times[: len(knots)] = knots
    at = np.stack([np.interp(times, knots, positions[:, axis]) for axis in range(3)], axis=1)
    expected = Slerp(knots, rotations)(times).apply(points.astype(float)) + at
    np.testing.assert_allclose(deskew(points, times, motion), expected, atol=2e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-7, 3.0])
def test_tiny_and_large_turns_between_knots_are_exact(angle):
    axis = np.array([0.6, -0.48, 0.64])
    knots = np.array([0.0, 0.1])
    T = np.stack([np.eye(4), rigid(Rotation.from_rotvec(axis * angle).as_matrix(), np.zeros(3))])
    points = scattered(100)
    expected = Rotation.from_rotvec(axis * angle * 0.25).apply(points.astype(float))
    np.testing.assert_allclose(deskew(points, np.full(100, 0.025), Motion(knots, T)), expected, atol=2e-5)


def test_a_sensor_that_stands_leaves_points_as_they_are():
    points, knots = scattered(), np.linspace(0, 0.1, 11)
    motion = Motion(knots, np.tile(np.eye(4), (11, 1, 1)))
    np.testing.assert_array_equal(deskew(points, RNG.uniform(0, 0.1, len(points)), motion), points)


def test_invalid_points_stay_invalid_and_change_no_other():
    knots = np.linspace(0, 0.1, 11)
    motion, _, _ = tumbling(knots)
    points, times = scattered(100), RNG.uniform(0, 0.1, 100)
    expected = deskew(points, times, motion)
    points[10], points[20, 1] = np.nan, np.inf
    times[30:34] = np.nan, np.inf, -np.inf, 1e300
    with np.errstate(invalid="ignore"):
        result = deskew(points, times, motion)
    assert np.isnan(result[10]).all()
    assert not np.isfinite(result[20]).all()
    kept = np.setdiff1d(np.arange(100), [10, 20, 30, 31, 32, 33])
    np.testing.assert_array_equal(result[kept], expected[kept])


def test_the_points_that_are_given_are_not_changed():
    motion, _, _ = tumbling(np.array([0.0, 0.1]))
    points = scattered(10)
    before = points.copy()
    deskew(points, np.full(10, 0.07), motion)
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize(("first", "last"), [(-0.05, 0.05), (0.0, 0.0999), (0.3, 0.3001), (0.0, 1.999)])
def test_knots_reach_from_the_first_to_the_last_time_without_large_gaps(first, last):
    knots = knot_times(first, last)
    assert (knots[0], knots[-1]) == (first, last)
    assert (np.diff(knots) > 0).all()
    assert np.diff(knots).max() <= KNOT_DISTANCE_S + 1e-12
