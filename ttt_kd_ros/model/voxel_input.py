"""What the network sees of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ttt_kd_ros.model.backbone import AnyPyramid, BackboneConfig
from ttt_kd_ros.sparse.kernel_map import unpack
from ttt_kd_ros.sparse.voxels import VoxelGrid, voxelise

FEATURES = ("one", "height", "offset x", "offset y", "offset z")
"""Input features of a voxel, means over its points: 1, height over ground [m], offset from its centre [voxels]."""


@dataclass(frozen=True)
class VoxelInput:
    """Voxels of one or several scans with their input features and what connects them.

    Parameters
    ----------
    grid
        The voxels.
    features
        (V, len(FEATURES)) float32.
    pyramid
        What the backbone walks.
    """

    grid: VoxelGrid
    features: Tensor
    pyramid: AnyPyramid


def voxel_input(points: Tensor, voxel_size: float, backbone: BackboneConfig, batch: Tensor | None = None) -> VoxelInput:
    """Voxelise points.

    Parameters
    ----------
    points
        (N, 3) float32 [m], finite, in the base frame: z is the height over ground, which makes a model independent of
        where the sensor is mounted.
    voxel_size
        Edge length [m].
    backbone
        The backbone that the pyramid is for.
    batch
        (N,) int64, scan of each point; one scan if None.
    """
    grid = voxelise(points, voxel_size, batch)
    mean = grid.mean(points)
    offset = mean / voxel_size - (unpack(grid.keys)[:, 1:] + 0.5).to(mean)
    features = torch.cat([torch.ones_like(mean[:, :1]), mean[:, 2:], offset], dim=1)
    return VoxelInput(grid, features, backbone.pyramid(grid.keys, mean / voxel_size))


def crop(voxels: VoxelInput, keep: Tensor) -> VoxelInput:
    """The voxels selected by the (V,) bool mask `keep`, with the pyramid of these alone.

    The points' voxel is -1 where it was left out.
    """
    rank = torch.cumsum(keep, dim=0) - 1
    inverse = torch.where(keep, rank, -1)[voxels.grid.inverse]
    rows = keep.nonzero().squeeze(1)
    grid = VoxelGrid(voxels.grid.keys[rows], inverse, voxels.grid.counts[rows])
    return VoxelInput(grid, voxels.features[rows], voxels.pyramid.crop(keep))
