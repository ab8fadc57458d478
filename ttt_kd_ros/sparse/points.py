"""Continuous convolutions on neighbourhoods of points, and the change of resolution between grids of points.

A level is a grid with one point in each occupied cell, the mean of what lies there; cells double from level to level.
Neighbours are found on the grid. Convolution, pooling and interpolation are the same operation with other weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ttt_kd_ros.sparse.kernel_map import KernelMap
from ttt_kd_ros.sparse.products import maps

SHELL, EXTENT = 0.7, 0.5
"""Distance of the outer kernel points from the centre and reach of each, as shares of the radius: near KPConv's own."""


@dataclass(frozen=True)
class WeightedSum:
    """Rows of sums of weighted features: a sparse matrix.

    Parameters
    ----------
    columns
        (P,) int64, row of the feature of each term; terms are sorted by the row of their sum.
    weights
        (P,) floating point, weight of each term.
    bounds
        (R + 1,) int64: the terms of sum r are ``bounds[r]`` to ``bounds[r + 1]``.
    inputs
        Number of features.
    """

    columns: Tensor
    weights: Tensor
    bounds: Tensor
    inputs: int

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, weights: Tensor, sums: int, inputs: int) -> WeightedSum:
        """From terms in any order."""
        order = torch.argsort(rows, stable=True)
        bounds = F.pad(torch.bincount(rows, minlength=sums).cumsum(dim=0), (1, 0))
        return cls(columns[order], weights[order], bounds, inputs)

    @cached_property
    def transposed(self) -> WeightedSum:
        """The transposed matrix."""
        sums = len(self.bounds) - 1
        rows = torch.arange(sums, device=self.columns.device).repeat_interleave(self.bounds.diff())
        return WeightedSum.of(self.columns, rows, self.weights, self.inputs, sums)

    def __call__(self, features: Tensor) -> Tensor:
        """Sums (R, C) of (inputs, C) features, differentiable once."""
        return _WeightedSum.apply(features, self)

    def product(self, features: Tensor) -> Tensor:
        """The sums without a gradient."""
        weights = self.weights.to(features.dtype)
        return F.embedding_bag(
            self.columns, features, self.bounds, mode="sum", per_sample_weights=weights, include_last_offset=True
        )


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, matrix: WeightedSum) -> Tensor:
        ctx.matrix = matrix
        return matrix.product(features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.matrix.transposed.product(gradient.contiguous()), None


def kernel_points() -> Tensor:
    """(15, 3) places in a ball of radius 1: its centre, and the faces' and corners' directions of a cube."""
    directions = torch.tensor([d for d in product((-1.0, 0.0, 1.0), repeat=3) if sum(map(abs, d)) in (1, 3)])
    return F.pad(SHELL * F.normalize(directions, dim=1), (0, 0, 1, 0))


def neighbourhoods(positions: Tensor, neighbours: KernelMap, radius: float) -> WeightedSum:
    """What each kernel point of each output collects: row ``output * 15 + kernel point``.

    Parameters
    ----------
    positions
        (V, 3).
    neighbours
        Pairs that hold all points within the radius of each other.
    radius
        Radius of a neighbourhood.

    Notes
    -----
    The linear correlation of Thomas et al., "KPConv: Flexible and Deformable Convolution for Point Clouds", ICCV 2019,
    eq. 3: a neighbour at y weighs ``max(0, 1 - |y - k| / extent)`` at the kernel point k.
    """
    offset = (positions[neighbours.sources] - positions[neighbours.targets]) / radius
    near = (offset.norm(dim=1) < 1).nonzero().squeeze(1)
    places = kernel_points().to(positions)
    distance = torch.cdist(offset[near], places, compute_mode="donot_use_mm_for_euclid_dist")  # as exact on any device
    influence = (1 - distance / EXTENT).clamp(min=0)
    pair, place = influence.nonzero().unbind(dim=1)
    rows = neighbours.targets[near][pair] * len(places) + place
    sums = neighbours.outputs * len(places)
    return WeightedSum.of(rows, neighbours.sources[near][pair], influence[pair, place], sums, neighbours.inputs)


def pooling(parents: Tensor, cells: int) -> WeightedSum:
    """Mean over the points of each of the coarser cells; `parents` (V,) int64 is the cell of each point."""
    counts = torch.bincount(parents, minlength=cells)
    return WeightedSum.of(
        parents, torch.arange(len(parents), device=parents.device), 1 / counts[parents], cells, len(parents)
    )


def interpolation(fine: Tensor, coarse: Tensor, parents: Tensor, neighbours: KernelMap) -> WeightedSum:
    """Features between coarse points: means weighted by the inverse squared distance (Shepard 1968).

    Parameters
    ----------
    fine, coarse
        (V, 3) and (W, 3) positions.
    parents
        (V,) int64, cell of the coarse grid that each fine point lies in.
    neighbours
        Pairs of the coarse points whose cells touch: a fine point takes those of its cell.
    """
    groups = neighbours.by_target
    first, counts = groups.bounds[parents], groups.bounds.diff()[parents]
    rows = torch.arange(len(fine), device=fine.device).repeat_interleave(counts)
    place = torch.arange(len(rows), device=fine.device) - (counts.cumsum(dim=0) - counts)[rows]
    columns = neighbours.sources[groups.pairs[first[rows] + place]]
    weights = 1 / ((fine[rows] - coarse[columns]).square().sum(dim=1) + 1e-6)
    sums = WeightedSum.of(rows, columns, weights, len(fine), len(coarse))
    total = sums.product(weights.new_ones(len(coarse), 1)).squeeze(1)  # in a fixed order, on GPUs too
    return replace(sums, weights=weights / total[rows])


@dataclass(frozen=True)
class PointPyramid:
    """Points at every resolution and the sums between them; they do not change while the weights do.

    Parameters
    ----------
    keys, positions
        (V,) int64 keys and (V, 3) positions [cells] of the finest level.
    radius
        Radius of a neighbourhood [cells of its level].
    neighbourhoods
        For the convolutions of each level, finest first.
    down, up
        Pooling from each level to the next coarser one, and interpolation back.
    """

    keys: Tensor
    positions: Tensor
    radius: float
    neighbourhoods: tuple[WeightedSum, ...]
    down: tuple[WeightedSum, ...]
    up: tuple[WeightedSum, ...]

    @property
    def coarsest(self) -> int:
        """Number of points of the coarsest level."""
        return len(self.neighbourhoods[-1].bounds) - 1

    def look_up(self, gradients: bool = False) -> None:
        """See `Pyramid`."""
        if gradients:
            _ = [sums.transposed for sums in (*self.neighbourhoods, *self.down, *self.up)]

    def crop(self, keep: Tensor) -> PointPyramid:
        """The pyramid of the finest points that the (V,) bool mask keeps."""
        depth = len(self.neighbourhoods)
        return build_point_pyramid(self.keys[keep], self.positions[keep], depth, self.radius)


def build_point_pyramid(keys: Tensor, positions: Tensor, depth: int, radius: float) -> PointPyramid:
    """Levels of a point network.

    Parameters
    ----------
    keys
        (V,) int64, sorted and distinct: the cell of each point.
    positions
        (V, 3) [cells].
    depth
        Number of levels, at least 1.
    radius
        Radius of a neighbourhood [cells of its level].
    """
    finest, around = (keys, positions), 2 * math.ceil(radius) + 1
    balls, down, up = [neighbourhoods(positions, maps().submanifold_map(keys, around), radius)], [], []
    for level in range(1, depth):
        keys, to_cells = maps().downsampling_map(keys)
        parents = torch.empty_like(to_cells.targets)
        parents[to_cells.sources] = to_cells.targets
        down.append(pooling(parents, len(keys)))
        coarse = down[-1].product(positions)
        up.append(interpolation(positions, coarse, parents, maps().submanifold_map(keys, 3)))
        balls.append(neighbourhoods(coarse, maps().submanifold_map(keys, around), radius * 2**level))
        positions = coarse
    return PointPyramid(*finest, radius, tuple(balls), tuple(down), tuple(up))


class PointConvolution(nn.Module):
    """A bias-free convolution with a matrix for each kernel point.

    Parameters
    ----------
    in_channels, out_channels
        Feature sizes.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(len(kernel_points()), in_channels, out_channels))
        nn.init.kaiming_uniform_(self.weight.view(-1, out_channels).T, nonlinearity="relu")

    def forward(self, features: Tensor, neighbourhoods: WeightedSum) -> Tensor:
        """Features (V, out_channels) from (V, in_channels)."""
        kernel, in_channels, out_channels = self.weight.shape
        collected = neighbourhoods(features).view(-1, kernel * in_channels)
        return collected @ self.weight.view(kernel * in_channels, out_channels)
