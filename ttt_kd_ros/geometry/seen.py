"""Which points of a scan a picture shows, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ttt_kd_ros.frame import CameraView
from ttt_kd_ros.geometry.pairing import pair_points
from ttt_kd_ros.geometry.projection import scale_camera


@dataclass(frozen=True)
class SeenPoints:
    """Points that a picture shows, the farthest first.

    Parameters
    ----------
    rows
        (M,) int64, rows of the scan.
    pixels
        (M, 2) int64, column and row of the picture.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.int64]


def seen_points(view: CameraView, points: NDArray[np.float32]) -> SeenPoints:
    """Points that a picture shows, hidden ones left out.

    Parameters
    ----------
    view
        The picture.
    points
        (N, 3) [m] in the scan frame; rows that are not finite are not seen.
    """
    finite = np.isfinite(points).all(axis=1).nonzero()[0]
    height, width = view.image.shape[:2]
    camera = scale_camera(view.camera, width, height)
    depth = None if view.depth is None else torch.from_numpy(view.depth)
    pairs = pair_points(torch.from_numpy(points[finite]), view.T_camera_scan, camera, depth_image=depth)
    order = pairs.depth.argsort(descending=True)
    pixels = pairs.pixels[order].round().long().clamp(min=0)
    return SeenPoints(finite[pairs.points[order].numpy()], pixels.numpy())
