"""The network as one would first write it: the reference for speed and results."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.unet import SparseUNet, UNetConfig
from ttt_kd_ros.model.voxel_input import FEATURES
from ttt_kd_ros.sparse.convolution import SparseConvolution
from ttt_kd_ros.sparse.kernel_map import KernelMap
from ttt_kd_ros.sparse.voxels import Pyramid


class _PlainConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        return _accumulate(features, weight, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        features_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            features_gradient = _accumulate(gradient, weight.transpose(1, 2), ctx.kernel_map.transposed)
        if ctx.needs_input_grad[1]:
            products = [features[inputs].T @ gradient[outputs] for inputs, outputs in ctx.kernel_map.pairs]
            weight_gradient = torch.stack(products)
        return features_gradient, weight_gradient, None


def _accumulate(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    output = features.new_zeros(kernel_map.outputs, weight.shape[2])
    for (inputs, outputs), matrix in zip(kernel_map.pairs, weight, strict=True):
        output.index_add_(0, outputs, features.index_select(0, inputs) @ matrix)
    return output


def plain_convolution(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """The result of `sparse_convolution`: gather, multiply and scatter, offset by offset."""
    return _PlainConvolution.apply(features, weight, kernel_map)


def plain_backbone(unet: SparseUNet, features: Tensor, pyramid: Pyramid) -> Tensor:
    """The result of a backbone, layer by layer; shapes as in `SparseUNet.forward`."""
    features = _layer(unet.stem, features, pyramid.stem)
    skips: list[Tensor] = []
    for stage, down, neighbours in zip(unet.encoder, pyramid.down, pyramid.neighbours[1:], strict=True):
        skips.append(features)
        features = _blocks(stage, _layer(stage.resample, features, down), neighbours)
    part = pyramid.decoded
    if part.rows is not None:
        *skips, features = (one[rows] for one, rows in zip((*skips, features), part.rows, strict=True))
    for stage, down, neighbours in zip(unet.decoder, part.down[::-1], part.neighbours[::-1], strict=True):
        features = torch.cat([_layer(stage.resample, features, down.transposed), skips.pop()], dim=1)
        features = _blocks(stage, features, neighbours)
    return features


class PlainUNet(SparseUNet):
    """A backbone that computes layer by layer."""

    def tape(self, features: Tensor, pyramid: Pyramid, weights: Tensor) -> None:
        """There is no faster way."""

    def forward(self, features: Tensor, pyramid: Pyramid) -> Tensor:
        """See `SparseUNet.forward`."""
        return plain_backbone(self, features, pyramid)


def plain_network(network: Network) -> Network:
    """A network with the same weights that computes layer by layer."""
    plain = Network(network.config)
    plain.backbone = PlainUNet(len(FEATURES), cast(UNetConfig, network.config.backbone))
    plain.load_state_dict(network.state_dict())
    return plain.to(next(network.parameters()).device).eval()


def _blocks(stage: Any, features: Tensor, neighbours: KernelMap) -> Tensor:
    for block in stage.blocks:
        hidden = _layer(block.first, features, neighbours)
        shortcut = features
        for part in block.shortcut.children():
            shortcut = part(shortcut)
        features = torch.relu(block.norm(_convolve(block.second, hidden, neighbours)) + shortcut)
    return features


def _layer(layer: Any, features: Tensor, kernel_map: KernelMap) -> Tensor:
    return torch.relu(layer.norm(_convolve(layer.convolution, features, kernel_map)))


def _convolve(convolution: SparseConvolution, features: Tensor, kernel_map: KernelMap) -> Tensor:
    return plain_convolution(features, convolution.weight, kernel_map)
