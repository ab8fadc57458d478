"""Which voxels the gradient steps run on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt_kd_ros.adaptation.targets import PointTargets, Targets, voxel_targets
from ttt_kd_ros.model.voxel_input import VoxelInput, crop
from ttt_kd_ros.sparse.kernel_map import unpack
from ttt_kd_ros.sparse.voxels import Pyramid, VoxelGrid

NEARLY_ALL = 0.97
"""Share of a scan's voxels from which a view is the whole scan."""
SQUARE = 64
"""Edge of the squares that a view is split into, seen from above [voxels]: within one, a decoder sees as if there were
no others, and smaller ones have more voxels at their edges."""


@dataclass(frozen=True)
class View:
    """The voxels near the paired ones of a scan.

    Parameters
    ----------
    near
        (V,) bool, which voxels of the scan they are.
    voxels
        What a network sees of them.
    targets
        The teacher's features of the paired ones among those that it is asked for.
    asked
        (W,) bool, which of them a network is asked for; None for all.
    """

    near: Tensor
    voxels: VoxelInput
    targets: Targets
    asked: Tensor | None = None


def view_of(voxels: VoxelInput, pairs: PointTargets, distance: float) -> View:
    """The voxels within at least a horizontal distance [voxels] of the paired ones, of which there must be some.

    Where these are nearly all, as with cameras all round, it is the whole scan: to leave out the few that are not takes
    longer than the steps take on them.
    """
    targets = voxel_targets(pairs, voxels.grid.inverse)
    near = near_voxels(voxels.grid, targets.voxels, distance)
    if near.sum() >= NEARLY_ALL * len(near):
        return View(torch.ones_like(near), voxels, targets)
    rank = near.cumsum(dim=0) - 1
    return View(near, crop(voxels, near), Targets(rank[targets.voxels], targets.features))


def split(view: View, count: int) -> tuple[Tensor | None, ...]:
    """What of a view a network is asked for in each of so many parts: squares, as the fields of a chessboard.

    Parameters
    ----------
    view
        All of it.
    count
        How many parts, at least one.

    Returns
    -------
    tuple of (W,) bool
        Each voxel is asked for in one part. A single None, for all, where a part would have no target, and for
        backbones that walk no kernel maps.
    """
    if count == 1 or not isinstance(view.voxels.pyramid, Pyramid):
        return (None,)
    square = unpack(view.voxels.grid.keys)[:, 1:3].div(SQUARE, rounding_mode="floor")
    part = square.sum(dim=1) % count
    if (torch.bincount(part[view.targets.voxels], minlength=count) == 0).any():
        return (None,)
    return tuple(part == i for i in range(count))


def part_of(view: View, asked: Tensor | None) -> View:
    """A view of which a network sees all and is asked for some: most of a U-Net's work is its decoder's.

    Parameters
    ----------
    view
        All of it.
    asked
        (W,) bool, one of the parts of `split`.
    """
    pyramid = view.voxels.pyramid
    if asked is None or not isinstance(pyramid, Pyramid):
        return view
    rank = asked.cumsum(dim=0) - 1
    paired = asked[view.targets.voxels]
    targets = Targets(rank[view.targets.voxels[paired]], view.targets.features[paired])
    return View(view.near, replace(view.voxels, pyramid=pyramid.decoding(asked)), targets, asked)


def parts_of(view: View, count: int) -> tuple[View, ...]:
    """All parts of a view (see `split` and `part_of`)."""
    return tuple(part_of(view, asked) for asked in split(view, count))


def near_voxels(grid: VoxelGrid, seeds: Tensor, distance: float) -> Tensor:
    """Voxels near some of the voxels, seen from above.

    Parameters
    ----------
    grid
        Voxels of one scan.
    seeds
        (T,) int64 rows of the grid, at least one.
    distance
        Horizontal distance [voxels].

    Returns
    -------
    (V,) bool
        True for every voxel within `distance` of a seed in x and in y, and for some up to twice as far, because whole
        cells of half the distance are taken.
    """
    cell = max(1, math.ceil(distance / 2))
    reach = math.ceil(distance / cell)
    cells = unpack(grid.keys)[:, 1:3].div(cell, rounding_mode="floor")
    low = cells[seeds].amin(dim=0) - reach
    size = cells[seeds].amax(dim=0) + reach - low + 1
    cells -= low
    inside = ((cells >= 0) & (cells < size)).all(dim=1)
    width = int(size[1])
    index = torch.where(inside, cells[:, 0] * width + cells[:, 1], 0)
    seeded = torch.zeros(1, 1, int(size[0]), width, device=index.device)
    seeded.view(-1)[index[seeds]] = 1
    marked = F.max_pool2d(seeded, kernel_size=2 * reach + 1, stride=1, padding=reach).bool().flatten()
    return inside & marked[index]
