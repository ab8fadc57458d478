"""What all teachers share: the picture's way into a frozen network, and the place of the cells that come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import Self

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.teacher.features import FeatureGrid, Grids

BATCHED = ("cuda",)
"""Devices on which pictures of one size go through the network together; on a CPU that takes longer
(docs/benchmarks.md)."""


@dataclass(frozen=True)
class Level:
    """One of the outputs of an image network.

    Parameters
    ----------
    channels
        Features per cell.
    stride
        Distance of neighbouring cells in the network's input [px].
    first
        Where the first cell is centred in the network's input, from the picture's edge [px]; ``stride / 2`` if the
        cells tile the picture evenly.
    """

    channels: int
    stride: int
    first: float


class FrozenTeacher(nn.Module):
    """A network that describes pictures and never changes.

    A picture is resized (bilinear, antialiased) so that its long side is near `long_side` and both sides are the
    nearest multiples of the coarsest stride. That changes the aspect by half a stride at most, and the cells' places
    are computed from the size that resulted, so that sampling them at a pixel is exact.

    Parameters
    ----------
    name
        Name of the model; a checkpoint trained with one teacher refuses another.
    network
        Maps normalised pictures (B, 3, H, W) float32 to one (B, C, h, w) tensor per level.
    levels
        What `network` gives.
    mean, std
        Normalisation of each colour that `network` was trained with, in 0..255.
    long_side
        Long side of the pictures that `network` gets [px]; 0 keeps their size.
    in_bfloat16
        Whether `network` computes in bfloat16 on GPUs that know it.

    Raises
    ------
    InputError
        If `long_side` is negative.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        levels: Sequence[Level],
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        long_side: int,
        in_bfloat16: bool = False,
    ) -> None:
        super().__init__()
        if long_side < 0:
            raise InputError(f"the long side of the teacher's pictures is {long_side} px; use 0 to keep their size")
        self.name = name
        self.feature_size = sum(level.channels for level in levels)
        self.long_side = long_side
        self.levels = tuple(levels)
        self.in_bfloat16 = in_bfloat16
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode.

        Raises
        ------
        RuntimeError
            If asked to train: a teacher is frozen.
        """
        if mode:
            raise RuntimeError(f"the teacher {self.name} is frozen; keep it out of the modules that are trained")
        return super().train(False)

    @torch.no_grad()
    def features(self, images: Sequence[Tensor]) -> list[Grids]:
        """Feature grids of pictures, one per level, as constants for autograd.

        Parameters
        ----------
        images
            Each (H, W, 3) uint8, RGB, on the teacher's device; a grey picture as three equal channels.

        Raises
        ------
        InputError
            If a picture is of another shape or type.
        """
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != torch.uint8:
                raise InputError(f"a picture must be (H, W, 3) uint8, got {tuple(image.shape)} {image.dtype}")
        grids: dict[int, Grids] = {}
        for places in _batches(images):
            grids.update(zip(places, self._features([images[place] for place in places]), strict=True))
        return [grids[place] for place in range(len(images))]

    def _features(self, images: Sequence[Tensor]) -> list[Grids]:
        """Of pictures of one size, in one batch."""
        batch = torch.stack(list(images)).permute(0, 3, 1, 2).float()
        height, width = batch.shape[2:]
        rows, columns = self._input_size(height, width)
        batch = functional.interpolate(batch, (rows, columns), mode="bilinear", antialias=True)
        half = self.in_bfloat16 and batch.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=half):
            outputs = self.network((batch - self.mean) / self.std)
        of_levels = [
            [
                FeatureGrid(
                    values,
                    (columns / (width * level.stride), rows / (height * level.stride)),
                    (-level.first / level.stride, -level.first / level.stride),
                )
                for values in output.float()
            ]
            for output, level in zip(outputs, self.levels, strict=True)
        ]
        return list(zip(*of_levels, strict=True))

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        multiple = max(level.stride for level in self.levels)
        factor = self.long_side / max(height, width) if self.long_side else 1.0
        rows, columns = (max(1, round(side * factor / multiple)) * multiple for side in (height, width))
        return rows, columns


def _batches(images: Sequence[Tensor]) -> list[list[int]]:
    """Which pictures, by their places, go through the network together."""
    batches: dict[Any, list[int]] = {}
    for place, image in enumerate(images):
        batches.setdefault(image.shape if image.device.type in BATCHED else place, []).append(place)
    return list(batches.values())
