"""Targets of distillation: the teacher's features at the voxels that a camera sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ttt_kd_ros.frame import CameraView
from ttt_kd_ros.geometry.pairing import Pairs, pair_points
from ttt_kd_ros.geometry.projection import scale_camera
from ttt_kd_ros.model.reduction import Reduction
from ttt_kd_ros.sparse.voxels import mean_by_row
from ttt_kd_ros.teacher.features import sample
from ttt_kd_ros.teacher.load import Teacher


@dataclass(frozen=True)
class PointTargets:
    """The teacher's reduced features at the pixels of points; a point seen by two cameras occurs twice.

    Parameters
    ----------
    points
        (M,) int64, rows of the scan.
    features
        (M, D) float32.
    """

    points: Tensor
    features: Tensor


@dataclass(frozen=True)
class Targets:
    """The teacher's reduced features of paired voxels.

    Parameters
    ----------
    voxels
        (T,) int64, rows of the voxel grid, sorted.
    features
        (T, D) float32, mean over the pairs of each voxel.
    """

    voxels: Tensor
    features: Tensor


def paired_points(points: Tensor, views: Iterable[CameraView]) -> Iterator[tuple[CameraView, Pairs]]:
    """Pair points with the pixels of each picture that shows any.

    Parameters
    ----------
    points
        (N, 3) float32 [m], finite, in the scan frame.
    views
        The pictures.
    """
    for view in views:
        height, width = view.image.shape[:2]
        camera = scale_camera(view.camera, width, height)
        depth = None if view.depth is None else torch.as_tensor(view.depth, device=points.device)
        pairs = pair_points(points, view.T_camera_scan, camera, depth_image=depth)
        if len(pairs.points):
            yield view, pairs


def point_targets(
    points: Tensor, views: Iterable[CameraView], teacher: Teacher | None, reduction: Reduction
) -> PointTargets:
    """Pair points with pixels and sample the teacher's features there.

    Parameters
    ----------
    points
        (N, 3) float32 [m], finite, in the scan frame.
    views
        The pictures.
    teacher
        The frozen image model; without one the features have size 0.
    reduction
        The fixed projection of its features.
    """
    shown = list(paired_points(points, views))
    rows = torch.cat([points.new_empty(0, dtype=torch.long), *(pairs.points for _, pairs in shown)])
    if teacher is None:
        return PointTargets(rows, points.new_empty(len(rows), 0))
    grids = teacher.features([torch.as_tensor(view.image, device=points.device) for view, _ in shown])
    features = [
        reduction(sample(of_picture, pairs.pixels)) for of_picture, (_, pairs) in zip(grids, shown, strict=True)
    ]
    return PointTargets(rows, torch.cat([points.new_empty(0, reduction.components.shape[1]), *features]))


def voxel_targets(pairs: PointTargets, inverse: Tensor) -> Targets:
    """Mean target of each voxel.

    Parameters
    ----------
    pairs
        Targets of points.
    inverse
        (N,) int64, voxel of each point; pairs whose point has voxel -1 are left out.
    """
    voxel = inverse[pairs.points]
    kept = voxel >= 0
    voxels, position, counts = torch.unique(voxel[kept], return_inverse=True, return_counts=True)
    return Targets(voxels, mean_by_row(pairs.features[kept], position, counts))
