"""A residual network of continuous convolutions on points: the other kind of 3D backbone ψ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.norm import LinearNorm
from ttt_kd_ros.sparse.points import PointConvolution, PointPyramid, WeightedSum, build_point_pyramid


@dataclass(frozen=True)
class PointsConfig:
    """Size of the backbone.

    Parameters
    ----------
    stem
        Channels of the first convolution.
    encoder, decoder
        Channels of each stage, from fine to coarse and from coarse to fine; as many of one as of the other.
    encoder_blocks
        Residual blocks of each stage of the encoder; the decoder has none, as in KPConv's networks.
    radius
        Radius of a neighbourhood in cells of its level; the voxels are the cells of the finest.
    """

    stem: int = 16
    encoder: tuple[int, ...] = (32, 64, 96)
    decoder: tuple[int, ...] = (64, 48, 32)
    encoder_blocks: tuple[int, ...] = (1, 1, 1)
    radius: float = 1.5

    def __post_init__(self) -> None:
        if len({len(self.encoder), len(self.decoder), len(self.encoder_blocks)}) != 1 or not self.encoder:
            raise InputError("the points' encoder, decoder and encoder_blocks must have the same, non-zero length")
        sizes = (self.stem, *self.encoder, *self.decoder, *self.encoder_blocks)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise InputError("the points' channels and block counts must be whole numbers of at least 1")
        if not 0.5 <= self.radius <= 4:
            raise InputError(f"the points' radius is {self.radius}; use 0.5 to 4 cells")

    def pyramid(self, keys: Tensor, positions: Tensor) -> PointPyramid:
        """Levels for (V,) keys of voxels and the (V, 3) means of their points [voxels]."""
        return build_point_pyramid(keys, positions, len(self.encoder) + 1, self.radius)

    def build(self, in_channels: int) -> PointNetwork:
        """A backbone of this size."""
        return PointNetwork(in_channels, self)


class _ConvNormReLU(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = PointConvolution(in_channels, out_channels)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, features: Tensor, neighbourhoods: WeightedSum) -> Tensor:
        return torch.relu(self.norm(self.convolution(features, neighbourhoods)))


class _ResidualBlock(nn.Module):
    """Narrow, convolve, widen, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        narrow = max(1, out_channels // 2)
        self.narrow = LinearNorm(in_channels, narrow)
        self.convolution = _ConvNormReLU(narrow, narrow)
        self.widen = LinearNorm(narrow, out_channels)
        same = in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else LinearNorm(in_channels, out_channels)

    def forward(self, features: Tensor, neighbourhoods: WeightedSum) -> Tensor:
        hidden = self.convolution(torch.relu(self.narrow(features)), neighbourhoods)
        return torch.relu(self.widen(hidden) + self.shortcut(features))


class _Stage(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, blocks: int) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.blocks = nn.ModuleList(_ResidualBlock(a, b) for a, b in pairwise(widths))

    def forward(self, features: Tensor, neighbourhoods: WeightedSum) -> Tensor:
        for block in self.blocks:
            features = block(features, neighbourhoods)
        return features


class PointNetwork(nn.Module):
    """Encoder of residual blocks with pooling between its stages, decoder of interpolations with skip connections.

    Parameters
    ----------
    in_channels
        Size of the input features.
    config
        Size of the network.

    Notes
    -----
    The layout is that of the segmentation network of KPConv (Thomas et al., ICCV 2019), with means over grid cells in
    place of strided convolutions.
    """

    def __init__(self, in_channels: int, config: PointsConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = _ConvNormReLU(in_channels, config.stem)
        fine = (config.stem, *config.encoder[:-1])
        self.encoder = nn.ModuleList(
            _Stage(a, b, blocks) for a, b, blocks in zip(fine, config.encoder, config.encoder_blocks, strict=True)
        )
        coarse = (config.encoder[-1], *config.decoder[:-1])
        self.decoder = nn.ModuleList(
            LinearNorm(a + skip, b) for a, b, skip in zip(coarse, config.decoder, reversed(fine), strict=True)
        )

    @property
    def out_channels(self) -> int:
        """Size of the output features."""
        return self.config.decoder[-1]

    def tape(self, features: Tensor, pyramid: PointPyramid, weights: Tensor) -> None:
        """See `SparseUNet.tape`: there is no faster way."""

    def forward(self, features: Tensor, pyramid: PointPyramid) -> Tensor:
        """Features (V, out_channels) of every point from (V, in_channels)."""
        features = self.stem(features, pyramid.neighbourhoods[0])
        skips = []
        for stage, down, neighbourhoods in zip(self.encoder, pyramid.down, pyramid.neighbourhoods[1:], strict=True):
            skips.append(features)
            features = stage(down(features), neighbourhoods)
        for stage, up in zip(self.decoder, reversed(pyramid.up), strict=True):
            features = torch.relu(stage(torch.cat([up(features), skips.pop()], dim=1)))
        return features
