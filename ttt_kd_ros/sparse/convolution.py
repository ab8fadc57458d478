"""Sparse convolutions with exact gradients, by the backend that `ttt_kd_ros.sparse.products` chooses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ttt_kd_ros.sparse import products
from ttt_kd_ros.sparse.backend import NormedConvolution
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import KernelMap


class _SparseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features if ctx.needs_input_grad[1] else None, weight)
        ctx.kernel_map = kernel_map
        return products.backend_for(features, kernel_map).convolve(features, weight, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (features, weight), kernel_map = ctx.saved_tensors, ctx.kernel_map
        backend, gradient = products.backend_for(gradient, kernel_map), gradient.contiguous()
        return *backend.gradients(features, gradient, weight, kernel_map, ctx.needs_input_grad[0]), None


class _ConvolutionNormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        residual: Tensor | None,
        norm: FixedNorm,
        kernel_map: KernelMap,
    ) -> Tensor:
        needs = ctx.needs_input_grad
        keep = needs[2] and not needs[1]
        layer, backend = NormedConvolution(weight, norm, kernel_map), products.backend_for(features, kernel_map)
        output, convolved = backend.convolve_norm_relu(features, layer, residual, keep)
        ctx.save_for_backward(features if needs[1] else None, weight, convolved, output)
        ctx.norm, ctx.kernel_map = norm, kernel_map
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, convolved, output = ctx.saved_tensors
        needs, layer = ctx.needs_input_grad, NormedConvolution(weight, ctx.norm, ctx.kernel_map)
        backend = products.backend_for(gradient, ctx.kernel_map)
        of_features, of_weight, of_norm_weight, of_norm_bias, of_normed = backend.convolve_norm_relu_gradients(
            gradient.contiguous(), output, convolved, features, layer, of_features=needs[0]
        )
        return (
            of_features,
            of_weight,
            of_norm_weight if needs[2] else None,
            of_norm_bias if needs[3] else None,
            of_normed if needs[4] else None,
            None,
            None,
        )


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
        Differentiable once, with respect to features and weight; in the type of autocast where that is on.
    """
    kind = features.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        features, weight = features.to(dtype), weight.to(dtype)
    return _SparseConvolution.apply(features, weight, kernel_map)


def convolution_norm_relu(
    features: Tensor, weight: Tensor, norm: FixedNorm, kernel_map: KernelMap, residual: Tensor | None = None
) -> Tensor:
    """``relu(norm(sparse_convolution(features, weight, kernel_map)) + residual)`` in few passes over memory.

    Parameters
    ----------
    features
        (inputs, C) floating point.
    weight
        (K, C, D), one matrix for each offset of the map.
    norm
        Of D channels.
    kernel_map
        Map with K offsets.
    residual
        (outputs, D); zero if None.

    Returns
    -------
    (outputs, D)
        Differentiable once, with respect to features, weight, residual and the norm's weight and bias.
    """
    if torch.is_grad_enabled():
        return _ConvolutionNormReLU.apply(features, weight, norm.weight, norm.bias, residual, norm, kernel_map)
    layer, backend = NormedConvolution(weight, norm, kernel_map), products.backend_for(features, kernel_map)
    return backend.convolve_norm_relu(features, layer, residual, keep=False)[0]


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
