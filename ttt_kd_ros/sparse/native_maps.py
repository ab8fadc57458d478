"""Voxels and kernel maps on CPUs by the kernels of `native/kernels.cpp`: those of `kernel_map`, sooner."""

from __future__ import annotations

import torch
from torch import Tensor

from ttt_kd_ros.native.library import run
from ttt_kd_ros.sparse import kernel_map as plain
from ttt_kd_ros.sparse.kernel_map import BIASES, SHIFTS, Kept, KernelMap, half_columns

LAYOUT = torch.tensor(BIASES), torch.tensor(SHIFTS)
"""How keys are packed."""


def occupied_voxels(points: Tensor, voxel_size: float, batch: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The voxels of `ttt_kd_ros.sparse.kernel_map.occupied_voxels`, by a radix sort."""
    if not points.is_cpu or points.dtype is not torch.float32:
        return plain.occupied_voxels(points, voxel_size, batch)
    scan = torch.zeros(len(points), dtype=torch.long) if batch is None else batch.contiguous()
    keys, inverse, counts = torch.empty(3, len(points), dtype=torch.long)
    size = torch.tensor(voxel_size, dtype=torch.float32)
    found = run("occupied_voxels", points.contiguous(), scan, len(points), size, *LAYOUT, keys, inverse, counts)
    return keys[:found].clone(), inverse, counts[:found].clone()


def downsampling_map(keys: Tensor) -> tuple[Tensor, KernelMap]:
    """The map of `ttt_kd_ros.sparse.kernel_map.downsampling_map`."""
    if not keys.is_cpu:
        return plain.downsampling_map(keys)
    coarse, sources, targets = torch.empty(3, len(keys), dtype=torch.long)
    counts = torch.empty(8, dtype=torch.long)
    found = run("downsampling", keys, len(keys), *LAYOUT, coarse, sources, targets, counts)
    return coarse[:found].clone(), KernelMap(sources, targets, tuple(counts.tolist()), len(keys), found)


def submanifold_map(keys: Tensor, kernel_size: int) -> KernelMap:
    """The map of `ttt_kd_ros.sparse.kernel_map.submanifold_map`, by a walk along the sorted keys."""
    if not keys.is_cpu:
        return plain.submanifold_map(keys, kernel_size)
    deltas, own = half_columns(kernel_size, keys.device), kernel_size
    counts = torch.empty(len(deltas) * kernel_size, dtype=torch.long)
    run("count_submanifold", keys, len(keys), deltas, len(deltas), kernel_size, counts)
    all_counts = torch.cat([counts[own:].flip(0), counts])
    starts = all_counts.cumsum(dim=0) - all_counts
    mirrored = torch.cat([starts[:own], starts[: len(counts) - own].flip(0)])
    sources, targets = torch.empty(2, int(all_counts.sum()), dtype=torch.long).unbind()
    sizes = (len(deltas), kernel_size)
    run("fill_submanifold", keys, len(keys), deltas, *sizes, starts[-len(counts) :], mirrored, sources, targets)
    return KernelMap(sources, targets, tuple(all_counts.tolist()), len(keys), len(keys))


def crop_map(kernel_map: KernelMap, inputs: Kept, outputs: Kept) -> KernelMap:
    """The map of `ttt_kd_ros.sparse.kernel_map.crop_map`, in two passes over the pairs."""
    if not inputs.mask.is_cpu:
        return plain.crop_map(kernel_map, inputs, outputs)
    pairs = (kernel_map.sources, kernel_map.targets, kernel_map.starts, kernel_map.offsets)
    counts = torch.empty(kernel_map.offsets, dtype=torch.long)
    run("count_kept", *pairs, inputs.mask, outputs.mask, counts)
    starts = counts.cumsum(dim=0) - counts
    sources, targets = torch.empty(2, int(counts.sum()), dtype=torch.long).unbind()
    run("fill_kept", *pairs, inputs.mask, outputs.mask, inputs.rank, outputs.rank, starts, sources, targets)
    return KernelMap(sources, targets, tuple(counts.tolist()), inputs.count, outputs.count)
