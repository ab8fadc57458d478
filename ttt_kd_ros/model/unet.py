"""A residual sparse U-Net: the 3D backbone ψ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.layers import Eager, Features, Layers
from ttt_kd_ros.model.norm import LinearNorm
from ttt_kd_ros.model.tape import Tape
from ttt_kd_ros.sparse import products
from ttt_kd_ros.sparse.convolution import SparseConvolution
from ttt_kd_ros.sparse.kernel_map import KernelMap
from ttt_kd_ros.sparse.voxels import Pyramid, build_pyramid


@dataclass(frozen=True)
class UNetConfig:
    """Size of the backbone.

    Parameters
    ----------
    stem
        Channels of the first convolution.
    stem_kernel_size
        Its kernel, odd.
    encoder, decoder
        Channels of each stage, from fine to coarse and from coarse to fine; as many of one as of the other.
    encoder_blocks, decoder_blocks
        Residual blocks of each stage.
    """

    stem: int = 16
    stem_kernel_size: int = 3
    encoder: tuple[int, ...] = (16, 32, 48, 64)
    decoder: tuple[int, ...] = (64, 48, 32, 32)
    encoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)

    def __post_init__(self) -> None:
        stages = {len(self.encoder), len(self.decoder), len(self.encoder_blocks), len(self.decoder_blocks)}
        if len(stages) != 1 or not self.encoder:
            raise InputError("the U-Net's encoder, decoder and their block counts must have the same, non-zero length")
        if type(self.stem_kernel_size) is not int or self.stem_kernel_size % 2 == 0 or self.stem_kernel_size < 1:
            raise InputError(f"stem_kernel_size is {self.stem_kernel_size}; it must be odd and positive")
        sizes = (self.stem, *self.encoder, *self.decoder, *self.encoder_blocks, *self.decoder_blocks)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise InputError("the U-Net's channels and block counts must be whole numbers of at least 1")

    @property
    def depth(self) -> int:
        """Number of resolutions."""
        return len(self.encoder) + 1

    def pyramid(self, keys: Tensor, positions: Tensor) -> Pyramid:
        """Kernel maps for (V,) keys of voxels; where the points lie in them does not matter."""
        return build_pyramid(keys, self.depth, self.stem_kernel_size)

    def build(self, in_channels: int) -> SparseUNet:
        """A backbone of this size."""
        return SparseUNet(in_channels, self)


class _ConvNormReLU(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, offsets: int) -> None:
        super().__init__()
        self.convolution = SparseConvolution(in_channels, out_channels, offsets)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, features: Features, kernel_map: KernelMap, layers: Layers[Features]) -> Features:
        return layers.convolve(self.convolution, self.norm, features, kernel_map)


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = _ConvNormReLU(in_channels, out_channels, 27)
        self.second = SparseConvolution(out_channels, out_channels, 27)
        self.norm = nn.BatchNorm1d(out_channels)
        same = in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else LinearNorm(in_channels, out_channels)

    def forward(self, features: Features, neighbours: KernelMap, layers: Layers[Features]) -> Features:
        hidden = self.first(features, neighbours, layers)
        residual = layers.shortcut(self.shortcut, features)
        return layers.convolve(self.second, self.norm, hidden, neighbours, residual)


class _Stage(nn.Module):
    """Change of resolution, concatenation with the skip connection if there is one, residual blocks."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, skip_channels: int = 0) -> None:
        super().__init__()
        self.resample = _ConvNormReLU(in_channels, out_channels, 8)
        widths = [out_channels + skip_channels] + [out_channels] * blocks
        self.blocks = nn.ModuleList(_ResidualBlock(a, b) for a, b in pairwise(widths))

    def forward(
        self,
        features: Features,
        resampling: KernelMap,
        neighbours: KernelMap,
        layers: Layers[Features],
        skip: Features | None = None,
    ) -> Features:
        features = self.resample(features, resampling, layers)
        if skip is not None:
            features = layers.concatenate(features, skip)
        for block in self.blocks:
            features = block(features, neighbours, layers)
        return features


class SparseUNet(nn.Module):
    """Residual U-Net over a voxel pyramid.

    Parameters
    ----------
    in_channels
        Size of the input features.
    config
        Size of the network.

    Notes
    -----
    The layout is that of MinkUNet (Choy et al., "4D Spatio-Temporal ConvNets", CVPR 2019) in the form that is known
    as SpUNet: changes of resolution with kernel 2 and stride 2, basic residual blocks with kernel 3.
    """

    def __init__(self, in_channels: int, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = _ConvNormReLU(in_channels, config.stem, config.stem_kernel_size**3)
        fine = (config.stem, *config.encoder[:-1])
        self.encoder = nn.ModuleList(
            _Stage(a, b, n) for a, b, n in zip(fine, config.encoder, config.encoder_blocks, strict=True)
        )
        coarse = (config.encoder[-1], *config.decoder[:-1])
        self.decoder = nn.ModuleList(
            _Stage(a, b, n, skip)
            for a, b, n, skip in zip(coarse, config.decoder, config.decoder_blocks, reversed(fine), strict=True)
        )

    @property
    def out_channels(self) -> int:
        """Size of the output features."""
        return self.config.decoder[-1]

    def forward(self, features: Tensor, pyramid: Pyramid) -> Tensor:
        """Features (V, out_channels) of every voxel that is decoded from (V, in_channels)."""
        pyramid.look_up()
        return self._through(features, pyramid, Eager())

    def tape(self, features: Tensor, pyramid: Pyramid, weights: Tensor) -> Tape | None:
        """Forward and backward passes to be repeated on the same voxels, or None where there is no faster way.

        Parameters
        ----------
        features, pyramid
            As for `forward`.
        weights
            The one tensor that all parameters that move are views of.
        """
        if not products.chosen().by_kernels(features):
            return None
        tape = Tape(weights)
        tape.end(self._through(tape.begin(features), pyramid, tape))
        return tape

    def _through(self, features: Features, pyramid: Pyramid, layers: Layers[Features]) -> Features:
        features = self.stem(features, pyramid.stem, layers)
        skips = []
        for stage, down, neighbours in zip(self.encoder, pyramid.down, pyramid.neighbours[1:], strict=True):
            skips.append(features)
            features = stage(features, down, neighbours, layers)
        part = pyramid.decoded
        if part.rows is not None:
            encoded = zip((*skips, features), part.rows, strict=True)
            *skips, features = (layers.select(one, rows) for one, rows in encoded)
        for stage, down, neighbours in zip(self.decoder, reversed(part.down), reversed(part.neighbours), strict=True):
            features = stage(features, down.transposed, neighbours, layers, skips.pop())
        return features
