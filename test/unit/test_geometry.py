"""Transforms and camera models against independent references."""

import cv2
import numpy as np
import pytest
import torch

from ttt_kd_ros.errors import CalibrationError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.projection import project, scale_camera
from ttt_kd_ros.geometry.transforms import invert, rigid, transform_points

K = np.array([[721.5, 0.0, 609.6], [0.0, 718.3, 172.9], [0.0, 0.0, 1.0]])
DISTORTION = (-0.31, 0.12, 0.0011, -0.0007, -0.02)


def points_in_front(count=2000, seed=0):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 60, count)
    return np.stack([rng.uniform(-1.2, 1.2, count) * depth, rng.uniform(-0.5, 0.5, count) * depth, depth], axis=1)


def random_transform(seed=0):
    rotation, _ = cv2.Rodrigues(np.random.default_rng(seed).normal(size=3))
    return rigid(rotation, np.array([1.0, -2.0, 0.5]))


@pytest.mark.parametrize("distortion", [(), DISTORTION, DISTORTION[:4]], ids=["pinhole", "plumb_bob", "four numbers"])
def test_projection_equals_opencv(distortion):
    points = points_in_front()
    pixels, visible = project(Camera(1242, 375, K, distortion), torch.from_numpy(points))
    coefficients = np.array(distortion) if distortion else np.zeros(5)
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, coefficients)
    assert visible.sum() > 300
    np.testing.assert_allclose(pixels[visible], expected[visible, 0], atol=1e-8)


def test_every_point_that_opencv_puts_into_the_picture_near_the_axis_is_visible():
    points = points_in_front()
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(DISTORTION))[0][:, 0]
    inside = (expected >= -0.5).all(1) & (expected[:, 0] < 1241.5) & (expected[:, 1] < 374.5)
    near = np.hypot(points[:, 0], points[:, 1]) / points[:, 2] < 0.9
    _, visible = project(Camera(1242, 375, K, DISTORTION), torch.from_numpy(points))
    np.testing.assert_array_equal(visible.numpy()[near], inside[near])


def test_a_point_behind_or_on_the_camera_plane_has_no_pixel():
    points = torch.tensor([[0.0, 0.0, -5.0], [0.1, 0.1, 0.0], [0.0, 0.0, 5.0]])
    _, visible = project(Camera(1242, 375, K), points)
    assert visible.tolist() == [False, False, True]


def test_points_that_the_distortion_polynomial_folds_back_into_the_picture_have_no_pixel():
    camera = Camera(1242, 375, K, (-0.31, 0.0, 0.0, 0.0))
    folded = torch.tensor([[1.9, 0.0, 1.0]], dtype=torch.float64)
    pixels, visible = project(camera, folded)
    assert 0 <= pixels[0, 0] < 1242
    assert not visible[0]


def test_the_outer_half_of_the_border_pixels_belongs_to_the_picture():
    camera = Camera(4, 2, np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]))
    points = torch.tensor([[-0.49, -0.49, 1], [-0.51, 0, 1], [3.49, 1.49, 1], [3.51, 1, 1], [0, 1.51, 1]])
    assert project(camera, points)[1].tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("distortion", [(), DISTORTION])
def test_a_scaled_camera_sees_a_point_at_the_same_place_of_the_resized_picture(distortion):
    camera = Camera(1242, 375, K, distortion)
    points = torch.from_numpy(points_in_front())
    pixels, visible = project(camera, points)
    scaled, scaled_visible = project(scale_camera(camera, 640, 480), points)
    expected = (pixels + 0.5) * pixels.new_tensor([640 / 1242, 480 / 375]) - 0.5
    assert torch.equal(visible, scaled_visible)
    torch.testing.assert_close(scaled[visible], expected[visible])


def test_the_inverse_of_a_transform_brings_points_back():
    T = random_transform()
    points = torch.from_numpy(points_in_front())
    torch.testing.assert_close(transform_points(invert(T), transform_points(T, points)), points)
    np.testing.assert_allclose(invert(T), np.linalg.inv(T), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": np.zeros((3, 3))}, "uncalibrated"),
        ({"width": 0}, "0x375"),
        ({"K": np.full((3, 3), np.nan)}, "finite"),
        ({"distortion": (0.1,) * 8}, "plumb_bob takes up to five"),
        ({"distortion": (0.1, np.inf)}, "finite"),
        ({"distortion": (0.1,), "distortion_model": "equidistant"}, "'equidistant' is not supported"),
    ],
)
def test_numbers_that_describe_no_camera_are_refused_by_name(change, message):
    with pytest.raises(CalibrationError, match=message):
        Camera(**({"width": 1242, "height": 375, "K": K} | change))


def test_an_unknown_distortion_model_without_distortion_is_a_pinhole_camera():
    camera = Camera(1242, 375, K, (0.0, 0.0), "equidistant")
    points = torch.from_numpy(points_in_front())
    torch.testing.assert_close(project(camera, points)[0], project(Camera(1242, 375, K), points)[0])
