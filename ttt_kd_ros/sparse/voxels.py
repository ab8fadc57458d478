"""Points to voxels and back, and the pyramid of kernel maps that a U-Net walks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from ttt_kd_ros.sparse.kernel_map import COORDINATE_LIMIT, Grouping, Kept, KernelMap
from ttt_kd_ros.sparse.products import chosen, maps


@dataclass(frozen=True)
class VoxelGrid:
    """The occupied voxels of one or several scans.

    Parameters
    ----------
    keys
        (V,) int64, sorted and distinct (`ttt_kd_ros.sparse.kernel_map.unpack` gives the coordinates).
    inverse
        (N,) int64, the voxel of each point.
    counts
        (V,) int64, points in each voxel.
    """

    keys: Tensor
    inverse: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def mean(self, values: Tensor) -> Tensor:
        """(V, C) mean over each voxel's points of (N, C) values."""
        return mean_by_row(values, self.inverse, self.counts)


def mean_by_row(values: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    """Means of values, summed in their order: on GPUs too they repeat to the bit.

    Parameters
    ----------
    values
        (N, C).
    rows
        (N,) int64, where each value belongs, in 0..V-1.
    counts
        (V,) int64, how many belong to each row.

    Returns
    -------
    (V, C)
    """
    if values.device.type == "cpu":
        total = values.new_zeros(len(counts), values.shape[1]).index_add_(0, rows, values)
    else:
        total = Grouping.of(rows, counts).sum(values)
    return total / counts.to(values)[:, None]


def voxelise(points: Tensor, voxel_size: float, batch: Tensor | None = None) -> VoxelGrid:
    """Sort points into voxels.

    Parameters
    ----------
    points
        (N, 3) float [m], finite and within `coordinate_range` of the origin.
    voxel_size
        Edge length [m].
    batch
        (N,) int64, scan of each point; one scan if None.
    """
    return VoxelGrid(*maps().occupied_voxels(points, voxel_size, batch))


def coordinate_range(voxel_size: float) -> float:
    """Largest absolute coordinate [m] that a voxel grid can hold."""
    return COORDINATE_LIMIT * voxel_size


@dataclass(frozen=True)
class Part:
    """What a decoder walks.

    Parameters
    ----------
    rows
        Which voxels of each level of the pyramid, finest first, each (W,) int64; None for all.
    neighbours, down
        The pyramid's, of these voxels alone and without the coarsest level's neighbours.
    """

    rows: tuple[Tensor, ...] | None
    neighbours: tuple[KernelMap, ...]
    down: tuple[KernelMap, ...]


@dataclass(frozen=True)
class Pyramid:
    """Kernel maps of a voxel grid at every resolution; they do not change while the weights do.

    Parameters
    ----------
    stem
        Submanifold map of the first convolution, on the finest level.
    neighbours
        Submanifold maps with a 3x3x3 kernel, one for each level, finest first.
    down
        Map from each level to the next coarser one.
    asked
        What the network is asked for; None for every voxel.
    """

    stem: KernelMap
    neighbours: tuple[KernelMap, ...]
    down: tuple[KernelMap, ...]
    asked: Part | None = None

    @property
    def coarsest(self) -> int:
        """Number of voxels of the coarsest level."""
        return self.neighbours[-1].outputs

    @property
    def decoded(self) -> Part:
        """What the decoder walks."""
        return self.asked or Part(None, self.neighbours[:-1], self.down)

    def look_up(self, gradients: bool = False) -> None:
        """Have all there that passes, and their gradients, look up once (see `Backend`)."""
        up = (one.transposed for one in self.decoded.down)
        after_stem = (*self.neighbours[1:], *self.decoded.neighbours, *self.down, *up)
        chosen().look_up((self.stem, *after_stem), [one.transposed for one in after_stem] if gradients else [])

    def crop(self, keep: Tensor) -> Pyramid:
        """The maps that `build_pyramid` would build from the kept keys, cut from those of all keys.

        Parameters
        ----------
        keep
            (V,) bool, voxels of the finest level to keep; a coarse voxel stays if it holds one of them.
        """
        levels = self._levels(keep)
        neighbours = _crop_each(self.neighbours, zip(levels, levels, strict=True))
        same = self.stem is self.neighbours[0]
        stem = neighbours[0] if same else maps().crop_map(self.stem, levels[0], levels[0])
        return Pyramid(stem, neighbours, _crop_each(self.down, pairwise(levels)))

    def decoding(self, keep: Tensor) -> Pyramid:
        """The same, of which a decoder is asked for some voxels alone and sees no others.

        Parameters
        ----------
        keep
            (V,) bool, which ones of the finest level.
        """
        levels = self._levels(keep)
        fine = levels[:-1]
        part = Part(
            tuple(kept.mask.nonzero().squeeze(1) for kept in levels),
            _crop_each(self.neighbours[:-1], zip(fine, fine, strict=True)),
            _crop_each(self.down, pairwise(levels)),
        )
        return replace(self, asked=part)

    def _levels(self, keep: Tensor) -> list[Kept]:
        """The voxels of each level that hold kept ones of the finest."""
        levels = [Kept.of(keep)]
        for kernel_map in self.down:
            held = keep.new_zeros(kernel_map.outputs)
            held[kernel_map.targets[levels[-1].mask[kernel_map.sources]]] = True
            levels.append(Kept.of(held))
        return levels


def _crop_each(kernel_maps: Iterable[KernelMap], kept: Iterable[tuple[Kept, Kept]]) -> tuple[KernelMap, ...]:
    return tuple(maps().crop_map(one, *ends) for one, ends in zip(kernel_maps, kept, strict=True))


def build_pyramid(keys: Tensor, depth: int, stem_kernel_size: int = 3) -> Pyramid:
    """Kernel maps for a U-Net with `depth` resolutions.

    Parameters
    ----------
    keys
        (V,) int64, sorted and distinct.
    depth
        Number of levels, at least 1.
    stem_kernel_size
        Kernel size of the first convolution.
    """
    neighbours, down = [maps().submanifold_map(keys, 3)], []
    stem = neighbours[0] if stem_kernel_size == 3 else maps().submanifold_map(keys, stem_kernel_size)
    for _ in range(depth - 1):
        keys, kernel_map = maps().downsampling_map(keys)
        down.append(kernel_map)
        neighbours.append(maps().submanifold_map(keys, 3))
    return Pyramid(stem, tuple(neighbours), tuple(down))
