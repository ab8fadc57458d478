"""Cameras: points in a camera's optical frame to pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.distortion import equidistant, pinhole, radial_tangential


def scale_camera(camera: Camera, width: int, height: int) -> Camera:
    """Camera of the same view whose picture has `width` x `height` pixels.

    The corners of the picture stay where they are; as the centre of the first pixel is (0, 0), a pixel coordinate u
    becomes ``(u + 0.5) * width / camera.width - 0.5``.
    """
    if (width, height) == (camera.width, camera.height):
        return camera
    sx, sy = width / camera.width, height / camera.height
    scaling = np.array([[sx, 0.0, 0.5 * sx - 0.5], [0.0, sy, 0.5 * sy - 0.5], [0.0, 0.0, 1.0]])
    return replace(camera, width=width, height=height, K=scaling @ camera.K)


def view_planes(camera: Camera) -> NDArray[np.float64]:
    """Planes through the camera that no visible point lies behind.

    Returns
    -------
    (K, 3) float64: ``n @ point > 0`` for every row n and every point that `project` calls visible. Without distortion
    these are the picture's sides with a pixel around it, with distortion the camera's plane; a fisheye has none.
    """
    if camera.distortion_model == "equidistant":
        return np.empty((0, 3))
    if any(camera.distortion):
        return np.array([[0.0, 0.0, 1.0]])
    u, v, z = camera.K[0], camera.K[1], np.array([0.0, 0.0, 1.0])
    return np.stack([u + 1.5 * z, (camera.width + 0.5) * z - u, v + 1.5 * z, (camera.height + 0.5) * z - v])


def project(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor]:
    """Project points into the picture.

    Parameters
    ----------
    camera
        Intrinsics.
    points
        (N, 3) float [m] in the camera's optical frame.

    Returns
    -------
    pixels
        (N, 2) float [px]; meaningless where not visible.
    visible
        (N,) bool: inside the picture and where the lens can be trusted (see `distortion`). With ``equidistant`` that
        may be behind the camera plane.
    """
    plane, in_range = _through_lens(camera, points)
    x, y = plane.unbind(dim=1)
    (fx, skew, cx), (_, fy, cy) = camera.K[:2].tolist()
    u, v = fx * x + skew * y + cx, fy * y + cy
    inside = (u >= -0.5) & (u < camera.width - 0.5) & (v >= -0.5) & (v < camera.height - 0.5)
    return torch.stack([u, v]).T, in_range & inside


def _through_lens(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor]:
    if camera.distortion_model == "equidistant":
        return equidistant(camera.coefficients, points)
    if any(camera.distortion):
        return radial_tangential(camera.coefficients, points)
    return pinhole(points)
