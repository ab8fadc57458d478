"""Transforms from TF, against products of matrices written out by hand."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from scene import BASE, CAMERA_FRAME, LIDAR, LIDAR_FROM_OPTICAL, MS, ODOM, SECOND, transform
from tf2_ros import Buffer

from ttt_kd_ros.ros.counts import EXTRAPOLATION, NO_TRANSFORM
from ttt_kd_ros.ros.transforms import FrameAt, TransformError, Transforms, matrix

SCAN = FrameAt(LIDAR, 10 * SECOND)


def filled(*, static=(), moving=()) -> Buffer:
    buffer = Buffer()
    for each in static:
        buffer.set_transform_static(each, "test")
    for each in moving:
        buffer.set_transform(each, "test")
    return buffer


def now() -> int:
    return time.monotonic_ns()


def test_a_quaternion_becomes_its_rotation():
    half = np.sqrt(0.5)
    T = matrix(transform("a", "b", (1, 2, 3), (half, 0, 0, half)))
    expected = [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(T, expected, atol=1e-15)


def test_the_scan_is_mapped_to_the_base():
    transforms = Transforms(filled(static=[transform(BASE, LIDAR, (0, 0, 1.8))]), BASE, "")
    T = transforms.T_base_scan(SCAN, now())
    np.testing.assert_array_equal(T @ [3, 4, -1.8, 1], [3, 4, 0, 1])


def test_a_point_ahead_of_the_lidar_lies_on_the_optical_axis():
    static = [
        transform(BASE, LIDAR, (0, 0, 1.8)),
        transform(BASE, CAMERA_FRAME, (1, 0, 1.5), LIDAR_FROM_OPTICAL),
    ]
    transforms = Transforms(filled(static=static), BASE, "")
    T = transforms.T_camera_scan(FrameAt(CAMERA_FRAME, 0), SCAN, now())
    np.testing.assert_allclose(T @ [11, 0, -0.3, 1], [0, 0, 10, 1], atol=1e-12)
    np.testing.assert_allclose(T @ [11, 2, 0.7, 1], [-2, -1, 10, 1], atol=1e-12)


class TestMovingBase:
    """The base drives along x at 10 m/s; the picture is taken 50 ms after the scan."""

    STATIC = (transform(BASE, LIDAR, (0, 0, 2)), transform(BASE, CAMERA_FRAME, (1, 0, 2)))
    MOVING = tuple(transform(ODOM, BASE, (10.0 * k, 0, 0), stamp=k * SECOND) for k in range(8, 13))
    PICTURE = FrameAt(CAMERA_FRAME, SCAN.stamp + 50 * MS)

    def test_with_a_fixed_frame_the_motion_between_the_stamps_counts(self):
        transforms = Transforms(filled(static=self.STATIC, moving=self.MOVING), BASE, ODOM)
        T = transforms.T_camera_scan(self.PICTURE, SCAN, now())
        np.testing.assert_allclose(T @ [20, 0, 0, 1], [20 - 1 - 0.5, 0, 0, 1], atol=1e-9)

    def test_without_a_fixed_frame_it_does_not(self):
        transforms = Transforms(filled(static=self.STATIC, moving=self.MOVING), BASE, "")
        T = transforms.T_camera_scan(self.PICTURE, SCAN, now())
        np.testing.assert_allclose(T @ [20, 0, 0, 1], [20 - 1, 0, 0, 1], atol=1e-9)

    def test_a_transform_that_comes_in_time_is_waited_for(self):
        buffer = filled(static=self.STATIC, moving=self.MOVING[:3])
        transforms = Transforms(buffer, BASE, ODOM)
        late = threading.Timer(0.05, buffer.set_transform, [self.MOVING[3], "test"])
        late.start()
        T = transforms.T_camera_scan(self.PICTURE, SCAN, now() + 10 * SECOND)
        late.join()
        np.testing.assert_allclose(T @ [20, 0, 0, 1], [18.5, 0, 0, 1], atol=1e-9)

    def test_one_that_does_not_come_is_an_extrapolation(self):
        transforms = Transforms(filled(static=self.STATIC, moving=self.MOVING[:3]), BASE, ODOM)
        with pytest.raises(TransformError) as error:
            transforms.T_camera_scan(self.PICTURE, SCAN, now() + 20 * MS)
        assert error.value.cause == EXTRAPOLATION

    def test_a_scan_older_than_all_transforms_is_an_extrapolation(self):
        transforms = Transforms(filled(static=self.STATIC, moving=self.MOVING), ODOM, "")
        with pytest.raises(TransformError) as error:
            transforms.T_base_scan(FrameAt(LIDAR, SECOND), now())
        assert error.value.cause == EXTRAPOLATION


@pytest.mark.parametrize("frame_id", ["unknown", ""])
def test_a_frame_that_is_not_connected_is_not_waited_for(frame_id):
    transforms = Transforms(filled(static=[transform(BASE, LIDAR)]), BASE, "")
    start = now()
    with pytest.raises(TransformError) as error:
        transforms.T_camera_scan(FrameAt(frame_id, 0), SCAN, start + 60 * SECOND)
    assert error.value.cause == NO_TRANSFORM
    assert now() - start < 30 * SECOND


def test_the_error_says_which_frame_is_missing():
    transforms = Transforms(filled(static=[transform(BASE, LIDAR)]), "ground", "")
    with pytest.raises(TransformError, match="ground"):
        transforms.T_base_scan(SCAN, now())
