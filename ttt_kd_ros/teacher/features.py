"""Feature grids of a picture and how they are read at a pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ttt_kd_ros.errors import InputError


@dataclass(frozen=True)
class FeatureGrid:
    """Features of one picture on a regular grid, and where its cells lie in the picture.

    The pixel (u, v), (0, 0) being the centre of the first pixel, lies at column ``scale[0] * (u + 0.5) + offset[0]``
    and row ``scale[1] * (v + 0.5) + offset[1]`` of the grid; (0, 0) is the centre of the first cell.
    Cells that tile the picture evenly have scale (w / W, h / H) and offset (-0.5, -0.5).

    Parameters
    ----------
    values
        (C, h, w) float32.
    scale
        Cells per pixel, along u and v.
    offset
        Cells, along u and v.
    """

    values: Tensor
    scale: tuple[float, float]
    offset: tuple[float, float]


Grids = tuple[FeatureGrid, ...]
"""Of one picture, one for each level of a teacher's network."""


def fingerprint(image: Tensor) -> str:
    """What tells a picture from others: a hash of its size and its pixels, (H, W, 3) uint8."""
    pixels = image.cpu().contiguous().numpy()
    return hashlib.blake2b(pixels.data, digest_size=16, key=str(pixels.shape).encode()).hexdigest()


def sample(grids: Sequence[FeatureGrid], pixels: Tensor) -> Tensor:
    """Features at pixels: bilinear in each grid at its own resolution, the border continued outside.

    Parameters
    ----------
    grids
        Grids of one picture.
    pixels
        (M, 2) finite floats, (u, v) in the original picture [px], on the device of the grids.

    Returns
    -------
    (M, C) float32
        The channels of all grids side by side.

    Raises
    ------
    InputError
        If there is no grid or `pixels` is not (M, 2).
    """
    if not grids:
        raise InputError("sampling needs at least one feature grid")
    if pixels.ndim != 2 or pixels.shape[1] != 2:
        raise InputError(f"pixels must be (M, 2), got {tuple(pixels.shape)}")
    return torch.cat([_sample_one(grid, pixels) for grid in grids], dim=1)


def _sample_one(grid: FeatureGrid, pixels: Tensor) -> Tensor:
    channels, rows, columns = grid.values.shape
    last = pixels.new_tensor((columns - 1, rows - 1))
    at = (pixels + 0.5) * pixels.new_tensor(grid.scale) + pixels.new_tensor(grid.offset)
    at = torch.minimum(at.clamp_min(0), last)
    low = at.floor()
    high = torch.minimum(low + 1, last)
    (left, top), (right, bottom) = low.long().unbind(1), high.long().unbind(1)
    to_right, to_bottom = (at - low).unbind(1)

    cells = torch.stack([row * columns + column for row in (top, bottom) for column in (left, right)], dim=1)
    weights = torch.stack([y * x for y in (1 - to_bottom, to_bottom) for x in (1 - to_right, to_right)], dim=1)
    table = grid.values.reshape(channels, -1).T
    return functional.embedding_bag(cells, table, mode="sum", per_sample_weights=weights.to(table.dtype))
