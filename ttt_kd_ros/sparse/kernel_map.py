"""Which voxels a sparse convolution connects.

A voxel is an int64 key that packs batch, x, y and z so that sorting by key sorts by them in this order. All maps are
built from sorted keys by binary search, one search per (x, y) column of the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

X_BITS, Y_BITS, Z_BITS = 20, 20, 16
BATCH_BITS = 63 - X_BITS - Y_BITS - Z_BITS
COORDINATE_LIMIT = 2 ** (Z_BITS - 1) - 64
"""Largest absolute voxel coordinate along any axis; the rest of the range is room for kernels."""

_SHIFTS = (X_BITS + Y_BITS + Z_BITS, Y_BITS + Z_BITS, Z_BITS, 0)
_BIASES = (0, 2 ** (X_BITS - 1), 2 ** (Y_BITS - 1), 2 ** (Z_BITS - 1))


def pack(coordinates: Tensor) -> Tensor:
    """Keys (V,) int64 of (V, 4) int64 coordinates: batch, x, y, z."""
    shifted = [
        (coordinates[:, i] + bias) << shift for i, (bias, shift) in enumerate(zip(_BIASES, _SHIFTS, strict=True))
    ]
    return shifted[0] | shifted[1] | shifted[2] | shifted[3]


def unpack(keys: Tensor) -> Tensor:
    """Coordinates (V, 4) int64 (batch, x, y, z) of keys."""
    widths = (BATCH_BITS, X_BITS, Y_BITS, Z_BITS)
    fields = zip(_BIASES, _SHIFTS, widths, strict=True)
    return torch.stack([((keys >> shift) & (2**width - 1)) - bias for bias, shift, width in fields], dim=1)


@dataclass(frozen=True)
class KernelMap:
    """Pairs of input and output voxels for each kernel offset.

    Parameters
    ----------
    pairs
        For each offset the rows of the inputs and of the outputs, (P,) int64 each; no output occurs twice in one
        offset, nor does an input.
    inputs, outputs
        Number of input and of output voxels.
    centre
        The offset that maps every voxel to itself, if the map has one.
    """

    pairs: tuple[tuple[Tensor, Tensor], ...]
    inputs: int
    outputs: int
    centre: int | None = None

    def transposed(self) -> KernelMap:
        """Map of the inverse convolution: inputs and outputs exchanged, same offsets."""
        return KernelMap(tuple((o, i) for i, o in self.pairs), self.outputs, self.inputs, self.centre)


def submanifold_map(keys: Tensor, kernel_size: int) -> KernelMap:
    """Map of a stride-1 convolution whose outputs are its inputs' voxels.

    Parameters
    ----------
    keys
        (V,) int64, sorted and distinct.
    kernel_size
        Odd edge length of the kernel. Offset ``((dx + r) * k + dy + r) * k + dz + r`` with ``r = k // 2`` connects
        the input at ``c + (dx, dy, dz)`` to the output at ``c``, as in a dense cross-correlation.
    """
    radius = kernel_size // 2
    count = kernel_size**3
    pairs: list[tuple[Tensor, Tensor]] = [(keys[:0], keys[:0])] * count
    for dx, dy in product(range(-radius, radius + 1), repeat=2):
        if (dx, dy) < (0, 0):
            continue
        first = ((dx + radius) * kernel_size + dy + radius) * kernel_size
        column = _column_pairs(keys, (dx << _SHIFTS[1]) + (dy << _SHIFTS[2]), radius)
        for offset, (inputs, outputs) in enumerate(column, start=first):
            pairs[offset] = (inputs, outputs)
            pairs[count - 1 - offset] = (outputs, inputs)
    return KernelMap(tuple(pairs), len(keys), len(keys), centre=count // 2)


def _column_pairs(keys: Tensor, delta: int, radius: int) -> list[tuple[Tensor, Tensor]]:
    """Pairs (input, output) for the z offsets -radius..radius of one (x, y) column of the kernel."""
    wanted = keys + (delta - radius)
    position = torch.searchsorted(keys, wanted)
    last = len(keys) - 1
    pairs = []
    for _ in range(2 * radius + 1):
        found = keys[position.clamp(max=last)] == wanted
        outputs = found.nonzero().squeeze(1)
        pairs.append((position[outputs], outputs))
        position = position + found
        wanted = wanted + 1
    return pairs


def downsampling_map(keys: Tensor) -> tuple[Tensor, KernelMap]:
    """Map of a convolution with kernel 2 and stride 2.

    Parameters
    ----------
    keys
        (V,) int64, sorted and distinct.

    Returns
    -------
    coarse_keys
        (W,) int64, sorted: every voxel of the coarse grid that holds an input.
    map
        Offset ``4 * (x % 2) + 2 * (y % 2) + z % 2`` connects an input to the coarse voxel that holds it.
    """
    coordinates = unpack(keys)
    halved = coordinates.clone()
    halved[:, 1:] >>= 1
    coarse_keys, parent = torch.unique(pack(halved), return_inverse=True)
    x, y, z = (coordinates[:, 1:] & 1).unbind(dim=1)
    offset = 4 * x + 2 * y + z
    rows = [(offset == k).nonzero().squeeze(1) for k in range(8)]
    return coarse_keys, KernelMap(tuple((r, parent[r]) for r in rows), len(keys), len(coarse_keys))
