"""Products on CPUs by this package's own kernels (`native/kernels.cpp`).

They gather, multiply and add up in one go: products stay in registers, the outputs of a block in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ttt_kd_ros.native.compiled import CompileError
from ttt_kd_ros.native.library import Call, library, run
from ttt_kd_ros.sparse import native_maps
from ttt_kd_ros.sparse.backend import Backend, Gradients, NormedConvolution
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import KernelMap

OUTPUTS_AT_ONCE, PAIRS_AT_ONCE = 1024, 512
"""How many outputs and pairs of small networks stay in the cache."""
NO_NORM = None, None, None, None, 0.0


class Native(Backend):
    """The kernels of `native/kernels.cpp`."""

    maps = native_maps

    def problem(self, device: torch.device) -> str:
        """Why they cannot be used on a device, and the mend; empty if they can be tried."""
        if device.type != "cpu":
            return "they compute on CPUs; set the parameter 'device' to cpu or 'sparse_backend' to triton or torch"
        try:
            library()
        except CompileError as error:
            return str(error)
        return ""

    def suits(self, features: Tensor, kernel_map: KernelMap) -> bool:
        """Whether the kernels know the type."""
        return self.by_kernels(features)

    def by_kernels(self, features: Tensor) -> bool:
        """See `Backend`."""
        return features.is_cpu and features.dtype is torch.float32

    def look_up(self, maps: Sequence[KernelMap], back: Sequence[KernelMap]) -> None:
        """See `Backend`; nothing that takes time."""

    def convolve(self, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """See `Backend`."""
        outputs = features.new_empty(kernel_map.outputs, weight.shape[2])
        _convolution(features, weight, kernel_map, outputs, *NO_NORM, None, 0.0, None)()
        return outputs

    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """See `Backend`."""
        result = gradient.new_empty(weight.shape)
        arrays = (features.contiguous(), gradient.contiguous(), result, *_pairs(kernel_map))
        run("weight_gradient", *arrays, *weight.shape, PAIRS_AT_ONCE)
        return result

    def convolve_norm_relu(
        self, features: Tensor, layer: NormedConvolution, residual: Tensor | None, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend`."""
        convolved = features.new_empty(layer.kernel_map.outputs, layer.weight.shape[2])
        output = torch.empty_like(convolved) if keep else convolved
        forward(features, layer, residual, convolved, output)()
        return output, convolved if keep else None

    def convolve_norm_relu_gradients(
        self,
        gradient: Tensor,
        output: Tensor,
        convolved: Tensor | None,
        features: Tensor | None,
        layer: NormedConvolution,
        of_features: bool,
    ) -> Gradients:
        """See `Backend`."""
        _, channels, width = layer.weight.shape
        results = (
            gradient.new_empty(layer.kernel_map.inputs, channels) if of_features else None,
            None if features is None else gradient.new_empty(layer.weight.shape),
            None if convolved is None and features is None else gradient.new_empty(width),
            gradient.new_empty(width),
            torch.empty_like(gradient),
        )
        backward(gradient, output, convolved, features, layer, results)()
        return results

    def linear_norm(self, features: Tensor, weight: Tensor, norm: FixedNorm) -> Tensor:
        """See `Backend`."""
        if torch.is_grad_enabled() or not self.by_kernels(features):
            return super().linear_norm(features, weight, norm)
        output = features.new_empty(len(features), len(weight))
        layer = NormedConvolution(weight.T[None], norm, KernelMap.identity(len(features)))
        forward(features, layer, None, output, output, rectify=False)()
        return output


NATIVE = Native()


def forward(
    features: Tensor,
    layer: NormedConvolution,
    residual: Tensor | None,
    convolved: Tensor,
    output: Tensor,
    rectify: bool = True,
) -> Call:
    """`Backend.convolve_norm_relu` into arrays that are there, which may be one, or the same without the ReLU."""
    residual, least = None if residual is None else residual.contiguous(), 0.0 if rectify else -math.inf
    norm_and_residual = (*_arguments(layer.norm), residual, least, output)
    return _convolution(features, layer.weight, layer.kernel_map, convolved, *norm_and_residual)


def backward(
    gradient: Tensor,
    output: Tensor | None,
    convolved: Tensor | None,
    features: Tensor | None,
    layer: NormedConvolution,
    results: Gradients,
    add: bool = False,
) -> Call:
    """`Backend.convolve_norm_relu_gradients` into arrays that are there; the last of them may be the gradient itself.

    The features' gradient is added to what is there where that is asked for; without the output there was no ReLU.
    """
    weight, kernel_map = layer.weight.contiguous(), layer.kernel_map
    features = None if features is None else features.contiguous()
    offsets, channels, out_channels = weight.shape
    sizes = (offsets, kernel_map.inputs, kernel_map.outputs, channels, out_channels, OUTPUTS_AT_ONCE, PAIRS_AT_ONCE)
    given = (gradient, output, convolved, features, weight, *_arguments(layer.norm))
    return Call("convolve_norm_relu_gradients", *given, *_pairs(kernel_map), *sizes, add, *results)


def _convolution(
    features: Tensor,
    weight: Tensor,
    kernel_map: KernelMap,
    outputs: Tensor,
    *norm_residual_and_rectified: Tensor | float | None,
) -> Call:
    offsets, channels, out_channels = weight.shape
    sizes = (offsets, kernel_map.outputs, channels, out_channels, OUTPUTS_AT_ONCE)
    arrays, add = (features.contiguous(), weight.contiguous(), outputs), False
    return Call("convolve", *arrays, *_pairs(kernel_map), *sizes, add, *norm_residual_and_rectified)


def _pairs(kernel_map: KernelMap) -> tuple[Tensor, Tensor, Tensor]:
    return kernel_map.sources, kernel_map.targets, kernel_map.starts


def _arguments(norm: FixedNorm) -> tuple[Tensor | float, ...]:
    return norm.weight, norm.bias, norm.mean, norm.variance, norm.eps
