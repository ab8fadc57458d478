"""Which voxels a sparse convolution connects.

A voxel is an int64 key that packs batch, x, y and z so that sorting by key sorts by them in this order. All maps are
built from sorted keys by binary search, one search per (x, y) column of the kernel, in few large operations: on a GPU
it is their number that counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product

import torch
import torch.nn.functional as F
from torch import Tensor

X_BITS, Y_BITS, Z_BITS = 20, 20, 16
BATCH_BITS = 63 - X_BITS - Y_BITS - Z_BITS
COORDINATE_LIMIT = 2 ** (Z_BITS - 1) - 64
"""Largest absolute voxel coordinate along any axis; the rest of the range is room for kernels."""
MASK_BITS = 31
"""Of `OffsetTable`: those of an int32 that are no sign."""
ALIGNMENT = 16
"""Of its parts, in numbers."""

SHIFTS = (X_BITS + Y_BITS + Z_BITS, Y_BITS + Z_BITS, Z_BITS, 0)
BIASES = (0, 2 ** (X_BITS - 1), 2 ** (Y_BITS - 1), 2 ** (Z_BITS - 1))


def pack(coordinates: Tensor) -> Tensor:
    """Keys (V,) int64 of (V, 4) int64 coordinates: batch, x, y, z."""
    shifted = [(coordinates[:, i] + bias) << shift for i, (bias, shift) in enumerate(zip(BIASES, SHIFTS, strict=True))]
    return shifted[0] | shifted[1] | shifted[2] | shifted[3]


def unpack(keys: Tensor) -> Tensor:
    """Coordinates (V, 4) int64 (batch, x, y, z) of keys."""
    widths = (BATCH_BITS, X_BITS, Y_BITS, Z_BITS)
    fields = zip(BIASES, SHIFTS, widths, strict=True)
    return torch.stack([((keys >> shift) & (2**width - 1)) - bias for bias, shift, width in fields], dim=1)


@dataclass(frozen=True)
class Grouping:
    """The pairs of each voxel, or its points.

    Parameters
    ----------
    pairs
        (P,) int64, pairs sorted by their voxel; those of one voxel in the order of their offsets.
    bounds
        (V + 1,) int64: the pairs of voxel v are ``pairs[bounds[v]:bounds[v + 1]]``.
    """

    pairs: Tensor
    bounds: Tensor

    @classmethod
    def of(cls, voxels: Tensor, counts: Tensor) -> Grouping:
        """From the voxel of each pair (P,) and the number of pairs of each voxel (V,)."""
        return cls(torch.sort(voxels, stable=True).indices, F.pad(counts.cumsum(dim=0), (1, 0)))

    def sum(self, values: Tensor) -> Tensor:
        """(V, C) sums of the pairs' values (P, C), in a fixed order."""
        return F.embedding_bag(self.pairs, values, self.bounds, mode="sum", include_last_offset=True)


@dataclass(frozen=True)
class OffsetTable:
    """The pairs of each output as a table, as kernels on a GPU read them.

    All begin at multiples of `ALIGNMENT` numbers: kernels are compiled anew for arrays that do not.

    Parameters
    ----------
    sources
        (K, V) int32, row of the input that an offset connects to an output, -1 if there is none.
    order
        (V,) int32, outputs sorted by their masks, so that neighbours in it lack the same offsets.
    masks
        (V, 1) int32, ascending: the mask of each output in this order, bit k set where there is an input at offset k;
        of the first 31 offsets.
    """

    sources: Tensor
    order: Tensor
    masks: Tensor


@dataclass(frozen=True)
class OffsetPairs:
    """The pairs of one kernel offset.

    Parameters
    ----------
    offset
        Its number.
    sources, targets
        (count,) int64, rows of the inputs and of the outputs; None where they are all rows in their order.
    count
        Number of pairs, at least one.
    """

    offset: int
    sources: Tensor | None
    targets: Tensor | None
    count: int


@dataclass(frozen=True)
class KernelMap:
    """Pairs of input and output voxels, sorted by kernel offset.

    Within an offset the rows of the inputs ascend, and so do those of the outputs; no row occurs twice.

    Parameters
    ----------
    sources, targets
        (P,) int64, row of the input and of the output of each pair.
    counts
        Number of pairs of each offset.
    inputs, outputs
        Number of input and of output voxels.
    """

    sources: Tensor
    targets: Tensor
    counts: tuple[int, ...]
    inputs: int
    outputs: int

    @classmethod
    def identity(cls, count: int) -> KernelMap:
        """Map of a kernel of one offset that connects each of so many voxels with itself, on the CPU."""
        rows = torch.arange(count)
        return cls(rows, rows, (count,), count, count)

    @property
    def pairs(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """For each offset the rows of its inputs and of its outputs."""
        return tuple(zip(self.sources.split(self.counts), self.targets.split(self.counts), strict=True))

    @cached_property
    def starts(self) -> Tensor:
        """(K + 1,) int64, where each offset's pairs begin and the last one's end."""
        return torch.tensor(tuple(accumulate(self.counts, initial=0)), device=self.sources.device)

    @cached_property
    def connected(self) -> tuple[OffsetPairs, ...]:
        """The offsets that connect anything, looked up once for all convolutions along the map."""
        return tuple(
            OffsetPairs(offset, None if n == self.inputs else sources, None if n == self.outputs else targets, n)
            for offset, ((sources, targets), n) in enumerate(zip(self.pairs, self.counts, strict=True))
            if n
        )

    @cached_property
    def by_target(self) -> Grouping:
        """The pairs of each output."""
        return Grouping.of(self.targets.int(), torch.bincount(self.targets, minlength=self.outputs))

    @property
    def offsets(self) -> int:
        """Number of kernel offsets K."""
        return len(self.counts)

    @cached_property
    def by_offset(self) -> OffsetTable:
        """The pairs as a table."""
        return _tables((self,))[0]

    @cached_property
    def transposed(self) -> KernelMap:
        """Map of the inverse convolution: inputs and outputs exchanged, same offsets."""
        return KernelMap(self.targets, self.sources, self.counts, self.outputs, self.inputs)


def tabulate(maps: Iterable[KernelMap]) -> None:
    """Make the tables (`KernelMap.by_offset`) of all maps that have none at once, one for maps of the same pairs."""
    same: defaultdict[tuple[int, int], list[KernelMap]] = defaultdict(list)
    for one in maps:
        same[id(one.sources), id(one.targets)].append(one)
    tables = {pairs: one.by_offset for pairs, those in same.items() for one in those if "by_offset" in vars(one)}
    lacking = [pairs for pairs in same if pairs not in tables]
    if lacking:
        tables |= dict(zip(lacking, _tables([same[pairs][0] for pairs in lacking]), strict=True))
    for pairs, those in same.items():
        for one in those:
            vars(one)["by_offset"] = tables[pairs]  # where the property keeps it


def _tables(maps: Sequence[KernelMap]) -> list[OffsetTable]:
    """Tables that begin where kernels like to read: padded, and cut from one array and one sort of all outputs."""
    device, every = maps[0].sources.device, 2**MASK_BITS - 1
    cells = list(accumulate((_padded(one.offsets * one.outputs) for one in maps), initial=0))
    rows = list(accumulate((_padded(one.outputs) for one in maps), initial=0))
    first_cell, first_row, bit, counts = torch.tensor(
        [
            (cell + k * one.outputs, row, 1 << k if k < MASK_BITS else 0, count)
            for one, cell, row in zip(maps, cells, rows, strict=False)
            for k, count in enumerate(one.counts)
        ],
        device=device,
    ).T.contiguous()
    targets = torch.cat([one.targets for one in maps])
    offset = torch.repeat_interleave(counts, output_size=len(targets))
    sources = torch.full((cells[-1],), -1, dtype=torch.int32, device=device)
    sources[first_cell[offset] + targets] = torch.cat([one.sources for one in maps]).int()
    first_mask, start, counts = torch.tensor(
        [
            (i << MASK_BITS | padding, row, count)
            for i, (one, row) in enumerate(zip(maps, rows, strict=False))
            for padding, count in ((0, one.outputs), (every, _padded(one.outputs) - one.outputs))
        ],
        device=device,
    ).T.contiguous()
    part = torch.repeat_interleave(counts, output_size=rows[-1])
    masks = first_mask[part].scatter_add(0, first_row[offset] + targets, bit[offset])
    masks, order = torch.sort(masks, stable=True)
    order, masks = (order - start[part]).int(), (masks & every).int()
    return [
        OffsetTable(
            sources[cell : cell + one.offsets * one.outputs].view(one.offsets, one.outputs),
            order[row : row + one.outputs],
            masks[row : row + one.outputs, None],
        )
        for one, cell, row in zip(maps, cells, rows, strict=False)
    ]


def _padded(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def occupied_voxels(points: Tensor, voxel_size: float, batch: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The voxels that hold points.

    Parameters
    ----------
    points
        (N, 3) float [m], finite and within the range of the coordinates.
    voxel_size
        Edge length [m].
    batch
        (N,) int64, scan of each point; one scan if None.

    Returns
    -------
    keys
        (V,) int64, sorted and distinct.
    inverse
        (N,) int64, the voxel of each point.
    counts
        (V,) int64, points in each voxel.
    """
    cells = torch.floor(points / voxel_size).long()
    scan = cells.new_zeros(len(cells)) if batch is None else batch
    return torch.unique(pack(torch.cat([scan[:, None], cells], dim=1)), return_inverse=True, return_counts=True)


def half_columns(kernel_size: int, device: torch.device) -> Tensor:
    """(columns,) int64, what leads from a voxel's key to the lowest one of a column of the kernel.

    The column of the voxel itself comes first, then those after it; the ones before it are these, mirrored.
    """
    radius = kernel_size // 2
    columns = [column for column in product(range(-radius, radius + 1), repeat=2) if column >= (0, 0)]
    return torch.tensor([(dx << SHIFTS[1]) + (dy << SHIFTS[2]) - radius for dx, dy in columns], device=device)


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
    wanted = keys + half_columns(kernel_size, keys.device)[:, None]
    position = torch.searchsorted(keys, wanted)
    there, inputs = [], []
    for _ in range(kernel_size):
        there.append(keys[position.clamp(max=len(keys) - 1)] == wanted)
        inputs.append(position)
        position, wanted = position + there[-1], wanted + 1
    place, targets, counts = _places(torch.stack(there, dim=1).view(-1, len(keys)))
    sources = torch.stack(inputs, dim=1).flatten().index_select(0, place)
    of_half = slice(None, kernel_size - 1, -1)  # the offsets before the first column are those after it, mirrored
    return KernelMap(
        torch.cat([*targets.split(counts)[of_half], sources]),
        torch.cat([*sources.split(counts)[of_half], targets]),
        counts[of_half] + counts,
        len(keys),
        len(keys),
    )


def _places(there: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Where (K, V) bool holds: places in the flat table, their columns, and how many there are in each row."""
    place = there.flatten().nonzero().squeeze(1)
    return place, place % there.shape[1], tuple(there.sum(dim=1).tolist())


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
    _, sources, counts = _places(offset == torch.arange(8, device=keys.device)[:, None])
    return coarse_keys, KernelMap(sources, parent.index_select(0, sources), counts, len(keys), len(coarse_keys))


@dataclass(frozen=True)
class Kept:
    """Some of the voxels of a level.

    Parameters
    ----------
    mask
        (V,) bool.
    rank
        (V,) int64, their new rows.
    count
        How many they are.
    """

    mask: Tensor
    rank: Tensor
    count: int

    @classmethod
    def of(cls, mask: Tensor) -> Kept:
        """Those that a (V,) bool mask selects."""
        return cls(mask, mask.cumsum(dim=0) - 1, int(mask.count_nonzero()))


def crop_map(kernel_map: KernelMap, inputs: Kept, outputs: Kept) -> KernelMap:
    """The pairs between kept voxels: the map that would be built from their keys."""
    kept = inputs.mask.index_select(0, kernel_map.sources) & outputs.mask.index_select(0, kernel_map.targets)
    pairs = kept.nonzero().squeeze(1)
    return KernelMap(
        inputs.rank.index_select(0, kernel_map.sources.index_select(0, pairs)),
        outputs.rank.index_select(0, kernel_map.targets.index_select(0, pairs)),
        tuple(torch.searchsorted(pairs, kernel_map.starts).diff().tolist()),
        inputs.count,
        outputs.count,
    )
