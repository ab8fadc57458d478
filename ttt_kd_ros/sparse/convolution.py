"""Sparse convolutions with exact gradients in plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ttt_kd_ros.sparse.kernel_map import KernelMap


class _SparseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        return _accumulate(features, weight, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        kernel_map: KernelMap = ctx.kernel_map
        gradient = gradient.contiguous()
        features_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            features_gradient = _accumulate(gradient, weight.transpose(1, 2), kernel_map.transposed())
        if ctx.needs_input_grad[1]:
            weight_gradient = _weight_gradient(features, gradient, weight, kernel_map)
        return features_gradient, weight_gradient, None


def _accumulate(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    centre = kernel_map.centre
    if centre is None:
        output = features.new_zeros(kernel_map.outputs, weight.shape[2])
    else:
        output = features @ weight[centre]
    for offset, (inputs, outputs) in enumerate(kernel_map.pairs):
        if offset != centre and len(inputs):
            output.index_add_(0, outputs, features.index_select(0, inputs) @ weight[offset])
    return output


def _weight_gradient(features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    result = torch.zeros_like(weight)
    for offset, (inputs, outputs) in enumerate(kernel_map.pairs):
        if offset == kernel_map.centre:
            torch.mm(features.T, gradient, out=result[offset])
        elif len(inputs):
            torch.mm(features.index_select(0, inputs).T, gradient.index_select(0, outputs), out=result[offset])
    return result


def sparse_convolution(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Convolve voxel features along a kernel map.

    Parameters
    ----------
    features
        (inputs, C) floating point.
    weight
        (K, C, D), one matrix for each offset of the map.
    kernel_map
        Map with K offsets.

    Returns
    -------
    (outputs, D)
        Differentiable once, with respect to features and weight.
    """
    return _SparseConvolution.apply(features, weight, kernel_map)


class SparseConvolution(nn.Module):
    """A bias-free sparse convolution; the kernel map given to `forward` makes it submanifold, strided or inverse.

    Parameters
    ----------
    in_channels, out_channels
        Feature sizes.
    offsets
        Number of kernel offsets: 27 for a 3x3x3 kernel, 8 for 2x2x2.
    """

    def __init__(self, in_channels: int, out_channels: int, offsets: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(offsets, in_channels, out_channels))
        bound = math.sqrt(6.0 / (in_channels * offsets))
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, features: Tensor, kernel_map: KernelMap) -> Tensor:
        """Features (outputs, out_channels) from (inputs, in_channels)."""
        return sparse_convolution(features, self.weight, kernel_map)
