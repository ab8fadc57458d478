"""The layers that a sparse network is made of, whatever computes them."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from ttt_kd_ros.sparse.convolution import SparseConvolution, convolution_norm_relu
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import KernelMap

Features = TypeVar("Features")


class Layers(Protocol[Features]):
    """What computes layers, on features (V, C) at hand or on what stands for them."""

    def convolve(
        self,
        convolution: SparseConvolution,
        norm: nn.BatchNorm1d,
        features: Features,
        kernel_map: KernelMap,
        residual: Features | None = None,
    ) -> Features:
        """``relu(norm(convolution(features)) + residual)``."""

    def shortcut(self, module: nn.Module, features: Features) -> Features:
        """A block's input as its output is to have it: an `nn.Identity` or a `LinearNorm` of it."""

    def concatenate(self, features: Features, skip: Features) -> Features:
        """The channels of both."""

    def select(self, features: Features, rows: Tensor) -> Features:
        """The features at (W,) int64 rows, of which none occurs twice."""


class Eager:
    """Computes at once, by PyTorch's autograd."""

    def convolve(
        self,
        convolution: SparseConvolution,
        norm: nn.BatchNorm1d,
        features: Tensor,
        kernel_map: KernelMap,
        residual: Tensor | None = None,
    ) -> Tensor:
        """See `Layers`."""
        if not norm.training:
            return convolution_norm_relu(features, convolution.weight, FixedNorm.of(norm), kernel_map, residual)
        normed = norm(convolution(features, kernel_map))
        return torch.relu(normed if residual is None else normed + residual)

    def shortcut(self, module: nn.Module, features: Tensor) -> Tensor:
        """See `Layers`."""
        return module(features)

    def concatenate(self, features: Tensor, skip: Tensor) -> Tensor:
        """See `Layers`."""
        return torch.cat([features, skip], dim=1)

    def select(self, features: Tensor, rows: Tensor) -> Tensor:
        """See `Layers`."""
        return features.index_select(0, rows)
