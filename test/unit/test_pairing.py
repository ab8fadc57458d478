"""Pairing of points and pixels: what is hidden, what is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.pairing import OcclusionSettings, pair_points
from ttt_kd_ros.geometry.projection import project, view_planes
from ttt_kd_ros.geometry.transforms import transform_points

CAMERA = Camera(1242, 375, np.array([[721.5, 0.0, 609.6], [0.0, 721.5, 172.9], [0.0, 0.0, 1.0]]))
HERE = np.eye(4)
"""``T_camera_scan`` of points that are given in the camera's frame."""


def surface(depth, x, y, step_deg=0.35):
    """Points (N, 3) of an upright rectangle at `depth` seen in steps of an angle, as a LiDAR at the camera would."""
    step = np.radians(step_deg) * depth
    xs, ys = np.meshgrid(np.arange(*x, step), np.arange(*y, step))
    return torch.tensor(np.stack([xs.ravel(), ys.ravel(), np.full(xs.size, float(depth))], axis=1), dtype=torch.float32)


def ground(height=1.7, beams=40):
    """Points of flat ground under the camera, one row for each beam."""
    depths = height / np.tan(np.radians(np.linspace(1.5, 20, beams)))
    rows = [np.stack([np.linspace(-0.6, 0.6, 200) * d, np.full(200, height), np.full(200, d)], axis=1) for d in depths]
    return torch.tensor(np.concatenate(rows), dtype=torch.float32)


def paired(points):
    mask = torch.zeros(len(points), dtype=torch.bool)
    mask[pair_points(points, HERE, CAMERA).points] = True
    return mask


def test_pairs_are_the_points_with_their_projections():
    points = surface(20.0, (-30, 30), (-6, 6))
    pairs = pair_points(points, HERE, CAMERA)
    pixels, visible = project(CAMERA, points)
    assert torch.equal(pairs.points, visible.nonzero().squeeze(1))
    assert torch.equal(pairs.pixels, pixels[visible])
    torch.testing.assert_close(pairs.depth, points[visible].norm(dim=1))


LENSES = {
    "pinhole": CAMERA,
    "skewed, the axis outside of the picture": Camera(
        200, 150, np.array([[90.0, 7.0, -40.0], [0, 110, 190], [0, 0, 1]])
    ),
    "plumb_bob": replace(CAMERA, distortion=(-0.37, 0.19, 0.002, -0.001, -0.05)),
    "fisheye": Camera(400, 400, np.array([[90.0, 0, 199.5], [0, 90, 199.5], [0, 0, 1]]), (0.1,), "equidistant"),
}


@pytest.mark.parametrize("camera", LENSES.values(), ids=LENSES.keys())
def test_no_visible_point_lies_behind_a_plane_of_the_view(camera):
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(100_000, 3)))
    visible = project(camera, points)[1].numpy()
    assert visible.sum() > 100
    assert (points.numpy()[visible] @ view_planes(camera).T > 0).all()


@pytest.mark.parametrize("camera", LENSES.values(), ids=LENSES.keys())
def test_points_of_a_scan_are_paired_as_their_places_before_the_camera(camera):
    T_camera_scan = np.array([[0, -1.0, 0, 0.3], [0, 0, -1, -0.2], [1, 0, 0, 0.1], [0, 0, 0, 1]])
    points = torch.from_numpy(np.random.default_rng(0).normal(scale=20, size=(20_000, 3))).float()
    pairs = pair_points(points, T_camera_scan, camera)
    expected = pair_points(transform_points(T_camera_scan, points), HERE, camera)
    assert torch.equal(pairs.points, expected.points)
    torch.testing.assert_close(pairs.pixels, expected.pixels, rtol=0, atol=1e-3)
    torch.testing.assert_close(pairs.depth, expected.depth)


def test_a_wall_behind_an_obstacle_is_hidden_and_the_wall_beside_it_is_not():
    obstacle, wall = surface(10.0, (-1, 1), (-1, 1)), surface(25.0, (-14, 14), (-4, 4))
    shown = paired(torch.cat([obstacle, wall]))
    assert shown[: len(obstacle)].all()
    x, y = wall[:, 0] / 2.5, wall[:, 1] / 2.5
    behind = (x.abs() < 0.9) & (y.abs() < 0.9)
    beside = (x.abs() > 1.2) | (y.abs() > 1.2)
    shown_wall = shown[len(obstacle) :]
    assert not shown_wall[behind].any()
    assert torch.equal(shown_wall[beside], project(CAMERA, wall)[1][beside])


def test_ground_hides_no_ground():
    points = ground()
    assert torch.equal(paired(points), project(CAMERA, points)[1])


def test_a_surface_slightly_behind_another_is_not_hidden():
    front, back = surface(20.0, (-2, 2), (-2, 2)), surface(20.4, (-2, 2), (-2, 2))
    assert paired(torch.cat([front, back])).all()


def test_a_fisheye_camera_pairs_points_beside_and_behind_itself_unless_they_are_hidden():
    camera = Camera(
        1000, 1000, np.array([[250.0, 0.0, 499.5], [0.0, 250.0, 499.5], [0.0, 0.0, 1.0]]), (), "equidistant"
    )
    ring = np.radians(np.arange(-100, 101, 0.5))
    circle = np.stack([np.sin(ring), np.zeros_like(ring), np.cos(ring)], axis=1)
    wall = torch.tensor(np.concatenate([20 * circle + [0, y, 0] for y in np.arange(-4, 4, 0.1)]), dtype=torch.float32)
    obstacle = wall[(wall[:, 2] < -2) & (wall[:, 0] > 0)] / 2
    shown = torch.zeros(len(wall) + len(obstacle), dtype=torch.bool)
    shown[pair_points(torch.cat([wall, obstacle]), HERE, camera).points] = True
    behind = (wall[:, 2] < -2.5) & (wall[:, 1].abs() < 3)
    assert shown[len(wall) :].all()
    assert shown[: len(wall)][behind & (wall[:, 0] < 0)].all()
    assert not shown[: len(wall)][behind & (wall[:, 0] > 0)].any()


def test_no_visible_point_gives_no_pair():
    pairs = pair_points(torch.tensor([[0.0, 0.0, -1.0]]), HERE, CAMERA)
    assert len(pairs.points) == 0
    assert pairs.pixels.shape == (0, 2)


@pytest.mark.parametrize("change", [{"cell_deg": 0.0}, {"window_deg": 0.1}, {"margin_m": -1.0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(InputError):
        OcclusionSettings(**change)


def test_a_depth_image_decides_what_is_hidden_where_it_tells():
    camera = Camera(40, 30, np.array([[30.0, 0, 19.5], [0, 30.0, 14.5], [0, 0, 1]]))
    points = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 2.2], [0.0, 0.0, 5.0], [1.0, 0.0, 2.2]])
    depth = torch.zeros(15, 20)
    depth[:, :11] = 2.0
    assert pair_points(points, HERE, camera, depth_image=depth).points.tolist() == [0, 3]
    assert pair_points(points, HERE, camera, depth_image=torch.full((60, 80), 2.0)).points.tolist() == [0]
    assert pair_points(points, HERE, camera).points.tolist() == [0, 1, 2, 3]
