"""Time against the number of voxels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ttt_kd_ros.adaptation.cost import Clock
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.benchmark.limits import Machine, forward_work, maps_work, step_work, unet_on, voxelise_work
from ttt_kd_ros.benchmark.stages import STEP_ALL, Stage, Timing, measure, step_stage
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.voxel_input import VoxelInput, crop
from ttt_kd_ros.sparse.voxels import build_pyramid, voxelise

VOXELS = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000)


def scaling(
    network: Network,
    scans: Sequence[Tensor],
    settings: AdaptationSettings,
    machine: Machine,
    repeats: int,
    clock: Clock = time.perf_counter,
    counts: Sequence[int] = VOXELS,
) -> dict[int, dict[str, Timing]]:
    """Time the stages that depend on the number of voxels, on as many scans at once as it takes.

    Parameters
    ----------
    network
        The network.
    scans
        (N, 3) float32 [m] in the base frame each; used again where they are too few.
    settings
        How to step; every third point is paired.
    machine
        For the limits.
    repeats
        Of each measurement.
    clock
        Seconds.
    counts
        Numbers of voxels.
    """
    return {
        count: measure([_stages(network, sized(network, scans, count), settings)], machine, repeats, clock)
        for count in counts
    }


@dataclass(frozen=True)
class Sized:
    """A part of some scans with a given number of voxels; every third point is paired."""

    points: Tensor
    batch: Tensor
    voxels: VoxelInput
    pairs: PointTargets


def sized(network: Network, scans: Sequence[Tensor], count: int) -> Sized:
    """As many of the scans' voxels as asked for; targets are random."""
    points, batch = _points(network, scans, count)
    whole = network.voxel_input(points, batch)
    voxels = crop(whole, torch.arange(len(whole.grid), device=points.device) < count)
    kept = voxels.grid.inverse >= 0
    voxels = replace(voxels, grid=replace(voxels.grid, inverse=voxels.grid.inverse[kept]))
    rows = torch.arange(0, int(kept.sum()), 3, device=points.device)
    targets = torch.randn(len(rows), network.config.target_size, device=points.device)
    return Sized(points[kept], batch[kept], voxels, PointTargets(rows, targets))


def _points(network: Network, scans: Sequence[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Points that occupy at least `count` voxels, and the scan of each."""
    taken: list[Tensor] = []
    voxels = 0
    while voxels < count:
        taken.append(scans[len(taken) % len(scans)])
        voxels += len(voxelise(taken[-1], network.config.voxel_size))
    batch = [torch.full((len(points),), i, device=points.device) for i, points in enumerate(taken)]
    return torch.cat(taken), torch.cat(batch)


def _stages(network: Network, part: Sized, settings: AdaptationSettings) -> list[Stage]:
    points, voxels = part.points, part.voxels
    unet, pyramid = unet_on(network, voxels)

    @torch.no_grad()
    def forward() -> tuple[Tensor, Tensor]:
        return network(voxels)

    return [
        Stage(
            "voxelise",
            lambda: voxelise(points, network.config.voxel_size, part.batch),
            voxelise_work(points, len(voxels.grid)),
        ),
        Stage(
            "kernel maps",
            lambda: build_pyramid(voxels.grid.keys, unet.config.depth, unet.config.stem_kernel_size),
            maps_work(pyramid),
        ),
        Stage("forward", forward, forward_work(unet, pyramid)),
        step_stage(STEP_ALL, network, voxels, part.pairs, settings, step_work(unet, pyramid, settings.scope)),
    ]
