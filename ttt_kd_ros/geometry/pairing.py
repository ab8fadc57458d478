"""Which point of a scan is seen at which pixel of a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.projection import project, view_planes
from ttt_kd_ros.geometry.transforms import affine, transform_points
from ttt_kd_ros.native.library import run, serves


@dataclass(frozen=True)
class OcclusionSettings:
    """How the depth buffer decides that a point is hidden.

    Parameters
    ----------
    cell_deg
        Angular size of a cell of the depth buffer.
    window_deg
        How far above and below a point nearer points are looked for; at least the angle between two beams.
    margin_m, margin_ratio
        A point is hidden if it lies more than ``margin_m + margin_ratio * depth`` behind the surface in front.
    measured_margin_m, measured_margin_ratio
        The same where a depth image tells the surface; the error of a depth camera grows with the distance.
    """

    cell_deg: float = 0.2
    window_deg: float = 1.0
    margin_m: float = 0.3
    margin_ratio: float = 0.03
    measured_margin_m: float = 0.05
    measured_margin_ratio: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.cell_deg <= self.window_deg:
            raise InputError("occlusion needs 0 < cell_deg <= window_deg")
        margins = (self.margin_m, self.margin_ratio, self.measured_margin_m, self.measured_margin_ratio)
        if min(margins) < 0:
            raise InputError("occlusion margins cannot be negative")


@dataclass(frozen=True)
class Pairs:
    """Points and the pixels that show them.

    Parameters
    ----------
    points
        (M,) int64, rows of the scan.
    pixels
        (M, 2) float32 [px].
    depth
        (M,) float32 [m], distance from the camera.
    """

    points: Tensor
    pixels: Tensor
    depth: Tensor


def pair_points(
    points: Tensor,
    T_camera_scan: NDArray[np.float64],
    camera: Camera,
    occlusion: OcclusionSettings = OcclusionSettings(),
    depth_image: Tensor | None = None,
) -> Pairs:
    """Pair every point that the camera sees with its pixel.

    Parameters
    ----------
    points
        (N, 3) float32 [m] in the scan frame.
    T_camera_scan
        (4, 4) float64, to the camera's optical frame.
    camera
        Intrinsics at the size of the picture.
    occlusion
        Settings of the depth buffer.
    depth_image
        (h, w) float32 [m] along the optical axis, 0 where unknown: where it tells, it decides what is hidden.
    """
    rows, points = _before(view_planes(camera) @ T_camera_scan[:3], points)
    points = transform_points(T_camera_scan, points)
    pixels, visible = project(camera, points)
    depth = torch.linalg.vector_norm(points, dim=1)
    hidden = _hidden(pixels, depth, visible, camera, occlusion)
    if depth_image is not None:
        surface = _at(depth_image, pixels, camera)
        behind = points[:, 2] > surface * (1 + occlusion.measured_margin_ratio) + occlusion.measured_margin_m
        hidden = torch.where(surface > 0, behind, hidden)
    shown = (visible & ~hidden).nonzero().squeeze(1)
    pixels = pixels.T.index_select(1, shown).T  # taken column by column, as they lie in memory
    return Pairs(rows.index_select(0, shown), pixels, depth.index_select(0, shown))


def _before(planes: NDArray[np.float64], points: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (M,) and points (M, 3) that lie before all planes (K, 4): few, where a picture shows a part of the scan."""
    if serves(points):
        points, rows = points.contiguous(), torch.empty(len(points), dtype=torch.long)
        kept, sides = torch.empty_like(points), torch.from_numpy(planes).float()
        found = run("before_planes", points, len(points), sides, len(sides), rows, kept)
        return rows[:found], kept[:found]
    before = affine(planes, points) > 0 if len(planes) else points.isfinite()
    rows = before.all(dim=1).nonzero().squeeze(1)
    return rows, points.index_select(0, rows)


def _hidden(pixels: Tensor, depth: Tensor, visible: Tensor, camera: Camera, settings: OcclusionSettings) -> Tensor:
    """Whether there is a nearer surface both above and below a visible point in the picture.

    A scan is sparse, so a depth buffer at pixel size has holes between the beams, and one with cells as large as the
    holes hides the ground, whose depth changes quickly from beam to beam. Ground has nearer points on one side only,
    a surface behind an obstacle has the obstacle on both.
    """
    focal = float(camera.K[0, 0])
    cell = focal * math.radians(settings.cell_deg)
    columns, rows = math.ceil(camera.width / cell), math.ceil(camera.height / cell)
    reach = max(1, round(settings.window_deg / settings.cell_deg))
    if serves(depth):
        hidden = torch.empty_like(visible)
        sizes = (len(depth), cell, columns, rows, reach, settings.margin_m, settings.margin_ratio)
        run("hidden", pixels.T.contiguous(), depth, visible, *sizes, hidden)
        return hidden
    column = ((pixels[:, 0] + 0.5) / cell).long().clamp_(0, columns - 1)
    row = ((pixels[:, 1] + 0.5) / cell).long().clamp_(0, rows - 1)
    index = torch.where(visible, row * columns + column, 0)
    nearest = depth.new_full((rows * columns,), math.inf)
    nearest.scatter_reduce_(0, index, torch.where(visible, depth, math.inf), "amin")
    nearest = F.pad(nearest.view(rows, columns), (1, 1, reach, reach), value=math.inf)
    nearest = _sliding_min(nearest, 3, dim=1)
    windows = _sliding_min(nearest, reach, dim=0)
    above, below = windows[:rows], windows[reach + 1 :]
    surface = torch.maximum(above, below).flatten()[index]
    return depth * (1 - settings.margin_ratio) - settings.margin_m > surface


def _at(depth_image: Tensor, pixels: Tensor, camera: Camera) -> Tensor:
    """(M,) depth at pixels (M, 2) of a picture, whatever the size of the depth image."""
    height, width = depth_image.shape
    scale = pixels.new_tensor([width / camera.width, height / camera.height])
    column, row = ((pixels + 0.5) * scale).long().unbind(dim=1)
    return depth_image[row.clamp(0, height - 1), column.clamp(0, width - 1)]


def _sliding_min(values: Tensor, size: int, dim: int) -> Tensor:
    """Minimum over each window of `size` neighbours along a dimension."""
    count = values.shape[dim] - size + 1
    result = values.narrow(dim, 0, count)
    for shift in range(1, size):
        result = torch.minimum(result, values.narrow(dim, shift, count))
    return result
