"""Camera models: points in a camera's optical frame to pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ttt_kd_ros.frame import Camera


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


def project(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor]:
    """Project points into the picture.

    Parameters
    ----------
    camera
        Intrinsics; distortion is plumb_bob (Brown-Conrady) as in OpenCV's ``projectPoints``.
    points
        (N, 3) float [m] in the camera's optical frame.

    Returns
    -------
    pixels
        (N, 2) float [px]; meaningless where not visible.
    visible
        (N,) bool: in front of the camera, inside the picture and inside the range of angles in which the distortion
        polynomial is monotonic. Outside of it points far off the axis would fold back into the picture.
    """
    z = points[:, 2]
    in_front = z > 0
    xy = points[:, :2] / torch.where(in_front, z, 1.0)[:, None]
    distorted, in_range = _distort(camera, xy)
    K = torch.as_tensor(camera.K, dtype=torch.float64).to(points)
    pixels = distorted @ K[:2, :2].T + K[:2, 2]
    size = pixels.new_tensor([camera.width, camera.height])
    inside = ((pixels >= -0.5) & (pixels < size - 0.5)).all(dim=1)
    return pixels, in_front & in_range & inside


def _distort(camera: Camera, xy: Tensor) -> tuple[Tensor, Tensor]:
    if not any(camera.distortion):
        return xy, torch.ones_like(xy[:, 0], dtype=torch.bool)
    k1, k2, p1, p2, k3 = (*camera.distortion, *[0.0] * (5 - len(camera.distortion)))
    x, y = xy.unbind(dim=1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    distorted = torch.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        dim=1,
    )
    return distorted, r2 < _monotonic_limit(k1, k2, k3)


def _monotonic_limit(k1: float, k2: float, k3: float) -> float:
    """Squared radius up to which ``r * (1 + k1 r^2 + k2 r^4 + k3 r^6)`` grows."""
    roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1.0])
    positive = roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)].real
    return float(positive.min(initial=np.inf))
