"""Transforms and camera models against independent references."""

import math

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
RATIONAL = (0.62, -0.15, 0.0007, -0.0004, 0.011, 0.95, -0.02, 0.004)
FISHEYE_K = np.array([[200.0, 0.0, 609.5], [0.0, 200.0, 600.0], [0.0, 0.0, 1.0]])
FISHEYE = (-0.013, 0.0021, -0.0009, 0.0001)


def points_in_front(count=2000, seed=0):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 60, count)
    return np.stack([rng.uniform(-1.2, 1.2, count) * depth, rng.uniform(-0.5, 0.5, count) * depth, depth], axis=1)


def random_transform(seed=0):
    rotation, _ = cv2.Rodrigues(np.random.default_rng(seed).normal(size=3))
    return rigid(rotation, np.array([1.0, -2.0, 0.5]))


@pytest.mark.parametrize(
    ("distortion", "model"),
    [
        ((), "plumb_bob"),
        (DISTORTION, "plumb_bob"),
        (DISTORTION[:4], "plumb_bob"),
        (RATIONAL, "rational_polynomial"),
        (RATIONAL[:5], "rational_polynomial"),
        ((*RATIONAL, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), "rational_polynomial"),
    ],
    ids=["pinhole", "plumb_bob", "four numbers", "rational", "rational with five numbers", "rational with fourteen"],
)
def test_projection_equals_opencv(distortion, model):
    points = points_in_front()
    pixels, visible = project(Camera(1242, 375, K, distortion, model), torch.from_numpy(points))
    coefficients = np.array(distortion) if distortion else np.zeros(5)
    if model == "rational_polynomial" and len(coefficients) == 5:
        coefficients = np.append(coefficients, np.zeros(3))
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, coefficients)
    assert visible.sum() > 300
    np.testing.assert_allclose(pixels[visible], expected[visible, 0], atol=1e-8)


@pytest.mark.parametrize("distortion", [(), FISHEYE, FISHEYE[:2]], ids=["ideal", "fisheye", "two numbers"])
def test_a_fisheye_projection_equals_opencv(distortion):
    points = points_in_front() * [1.5, 1.5, 1]
    pixels, visible = project(Camera(1300, 1300, FISHEYE_K, distortion, "equidistant"), torch.from_numpy(points))
    coefficients = np.append(distortion, np.zeros(4 - len(distortion)))
    expected, _ = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), FISHEYE_K, coefficients)
    assert visible.sum() > 300
    np.testing.assert_allclose(pixels[visible], expected[visible, 0], atol=1e-8)


def test_a_fisheye_sees_points_beside_and_behind_the_camera_plane_at_their_angle():
    camera = Camera(1300, 1300, FISHEYE_K, FISHEYE, "equidistant")
    angles = np.radians([0, 45, 89.9, 90, 90.1, 105, 120])
    points = 7 * np.stack([np.sin(angles) * 0.6, np.sin(angles) * -0.8, np.cos(angles)], axis=1)
    pixels, visible = project(camera, torch.from_numpy(points))
    k1, k2, k3, k4 = FISHEYE
    bent = angles + k1 * angles**3 + k2 * angles**5 + k3 * angles**7 + k4 * angles**9
    expected = FISHEYE_K[:2, 2] + 200 * np.outer(bent, [0.6, -0.8])
    assert visible.all()
    np.testing.assert_allclose(pixels, expected, atol=1e-9)


def test_a_fisheye_sees_neither_what_is_right_behind_it_nor_its_own_place():
    camera = Camera(1300, 1300, FISHEYE_K, (), "equidistant")
    for dtype in (torch.float32, torch.float64):
        points = torch.tensor([[0, 0, -5], [0, 0, 0], [0, 0, 5], [0, 1e-6, -5], [math.nan] * 3], dtype=dtype)
        pixels, visible = project(camera, points)
        assert visible.tolist()[:3] == [False, False, True]
        assert not visible[4]
        assert pixels[2].tolist() == [609.5, 600.0]


@pytest.mark.parametrize("model", ["plumb_bob", "rational_polynomial"])
def test_a_point_that_is_not_finite_has_no_pixel(model):
    points = torch.tensor([[math.nan, 0, 1], [math.inf, 0, 1], [0, 0, math.nan], [0, 0, math.inf], [0, 0, 1]])
    _, visible = project(Camera(1242, 375, K, DISTORTION, model), points)
    assert visible.tolist()[:3] == [False] * 3
    assert visible[4]


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


@pytest.mark.parametrize(
    ("distortion", "model", "point"),
    [
        ((-0.31,), "plumb_bob", (1.9, 0.0, 1.0)),
        ((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2), "rational_polynomial", (20.0, 0.0, 1.0)),
        ((0.0, 0.0, 0.0, 0.0, 0.0, -0.8), "rational_polynomial", (3.0, 0.0, 1.0)),
        ((-0.12,), "equidistant", (0.5, 0.0, -0.9)),
    ],
    ids=["plumb_bob", "rational that turns round", "rational beyond its pole", "equidistant"],
)
def test_points_that_the_distortion_folds_back_into_the_picture_have_no_pixel(distortion, model, point):
    camera = Camera(1242, 375, FISHEYE_K - [[0, 0, 0], [0, 0, 412.5], [0, 0, 0]], distortion, model)
    points = torch.tensor([point, (0.3, 0.0, 1.0)], dtype=torch.float64)
    pixels, visible = project(camera, points)
    assert 0 <= pixels[0, 0] < 1242
    assert visible.tolist() == [False, True]


@pytest.mark.parametrize(
    ("distortion", "model"),
    [(DISTORTION, "plumb_bob"), (RATIONAL, "rational_polynomial"), (FISHEYE, "equidistant"), ((-0.1,), "equidistant")],
)
def test_along_a_ray_the_pixels_of_visible_points_move_outwards(distortion, model):
    huge = np.array([[200.0, 0.0, 1999.0], [0.0, 200.0, 1999.0], [0.0, 0.0, 1.0]])
    angles = np.radians(np.linspace(0.1, 179.9, 2000))
    points = np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], axis=1)
    pixels, visible = project(Camera(3999, 3999, huge, distortion, model), torch.from_numpy(points))
    first_hidden = int((~visible).nonzero()[0]) if not visible.all() else len(points)
    assert visible[:first_hidden].all() and not visible[first_hidden:].any()
    assert first_hidden > 300
    assert (pixels[:first_hidden, 0].diff() > 0).all()


def test_the_outer_half_of_the_border_pixels_belongs_to_the_picture():
    camera = Camera(4, 2, np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]))
    points = torch.tensor([[-0.49, -0.49, 1], [-0.51, 0, 1], [3.49, 1.49, 1], [3.51, 1, 1], [0, 1.51, 1]])
    assert project(camera, points)[1].tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("distortion", "model"),
    [((), "plumb_bob"), (DISTORTION, "plumb_bob"), (RATIONAL, "rational_polynomial"), (FISHEYE, "equidistant")],
)
def test_a_scaled_camera_sees_a_point_at_the_same_place_of_the_resized_picture(distortion, model):
    camera = Camera(1242, 375, K, distortion, model)
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
        ({"K": np.eye(3)}, "1 and 1 in a picture of 1242x375; give K in pixels"),
        ({"distortion": (0.1,) * 8}, "plumb_bob takes 5 finite coefficients"),
        (
            {"distortion": (0.1,) * 12, "distortion_model": "rational_polynomial"},
            "takes 8 .*k4, k5, k6.* or use the rect",
        ),
        ({"distortion": (0.1,) * 5, "distortion_model": "equidistant"}, "takes 4 finite coefficients"),
        ({"distortion": (0.1, np.inf)}, "finite"),
        ({"distortion": (0.0, np.nan), "distortion_model": "equidistant"}, "finite"),
        ({"distortion": (0.1,), "distortion_model": "omni"}, "'omni' is not supported, only plumb_bob, rational"),
    ],
)
def test_numbers_that_describe_no_camera_are_refused_by_name(change, message):
    with pytest.raises(CalibrationError, match=message):
        Camera(**({"width": 1242, "height": 375, "K": K} | change))


def test_an_unknown_distortion_model_without_distortion_is_a_pinhole_camera():
    camera = Camera(1242, 375, K, (0.0, 0.0), "omni")
    points = torch.from_numpy(points_in_front())
    torch.testing.assert_close(project(camera, points)[0], project(Camera(1242, 375, K), points)[0])


@pytest.mark.gpu
def test_on_a_gpu_points_are_moved_exactly_even_where_tf32_is_allowed():
    rotation, _ = cv2.Rodrigues(np.array([0.1, -0.2, 0.3]))
    T = rigid(rotation, np.array([100.0, -20.0, 3.0]))
    points = torch.rand(1000, 3) * torch.tensor([200.0, 100.0, 10.0])
    torch.set_float32_matmul_precision("high")
    try:
        moved = transform_points(T, points.cuda()).cpu()
    finally:
        torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(moved, transform_points(T, points), rtol=0, atol=1e-4)
