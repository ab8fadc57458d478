"""Products on CPUs by this package's own kernels (`native.cpp`).

They gather, multiply and add up in one go: products stay in registers, the outputs of a block in the cache.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ttt_kd_ros.sparse import native_maps as maps
from ttt_kd_ros.sparse.compiled import CompileError
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import KernelMap
from ttt_kd_ros.sparse.native_library import Call, library, run

__all__ = [
    "convolve",
    "convolve_norm_relu",
    "convolve_norm_relu_gradients",
    "knows",
    "layer",
    "layer_gradients",
    "linear_norm",
    "maps",
    "problem",
    "suits",
    "weight_gradient",
]

OUTPUTS_AT_ONCE, PAIRS_AT_ONCE = 1024, 512
"""How many outputs and pairs of small networks stay in the cache."""
NO_NORM = None, None, None, None, 0.0


def problem(device: torch.device) -> str:
    """Why they cannot be used on a device, and the mend; empty if they can be tried."""
    if device.type != "cpu":
        return "they compute on CPUs; set the parameter 'device' to cpu or 'sparse_backend' to triton or torch"
    try:
        library()
    except CompileError as error:
        return str(error)
    return ""


def suits(features: Tensor, kernel_map: KernelMap) -> bool:
    """Whether the kernels know the type."""
    return knows(features)


def knows(features: Tensor) -> bool:
    """Whether the kernels know the type of features, with whatever map."""
    return features.is_cpu and features.dtype is torch.float32


def convolve(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """(outputs, D) from (inputs, C) and (K, C, D), without a gradient."""
    outputs = features.new_empty(kernel_map.outputs, weight.shape[2])
    _convolution(features, weight, kernel_map, outputs, *NO_NORM, None, 0.0, None)()
    return outputs


def convolve_norm_relu(
    features: Tensor, weight: Tensor, norm: FixedNorm, residual: Tensor | None, kernel_map: KernelMap, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """See `ttt_kd_ros.sparse.products.convolve_norm_relu`."""
    convolved = features.new_empty(kernel_map.outputs, weight.shape[2])
    output = torch.empty_like(convolved) if keep else convolved
    layer(features, weight, norm, residual, kernel_map, convolved, output)()
    return output, convolved if keep else None


def linear_norm(features: Tensor, weight: Tensor, norm: FixedNorm) -> Tensor:
    """See `ttt_kd_ros.sparse.products.linear_norm`."""
    output, rows = features.new_empty(len(features), len(weight)), KernelMap.identity(len(features))
    layer(features, weight.T[None], norm, None, rows, output, output, rectify=False)()
    return output


def layer(
    features: Tensor,
    weight: Tensor,
    norm: FixedNorm,
    residual: Tensor | None,
    kernel_map: KernelMap,
    convolved: Tensor,
    output: Tensor,
    rectify: bool = True,
) -> Call:
    """`convolve_norm_relu` into arrays that are there, which may be one, or the same without the ReLU."""
    residual, least = None if residual is None else residual.contiguous(), 0.0 if rectify else -math.inf
    return _convolution(features, weight, kernel_map, convolved, *_arguments(norm), residual, least, output)


def _convolution(
    features: Tensor,
    weight: Tensor,
    kernel_map: KernelMap,
    outputs: Tensor,
    *norm_residual_and_rectified: Tensor | float | None,
) -> Call:
    pairs = (kernel_map.sources, kernel_map.targets, kernel_map.starts)
    offsets, channels, out_channels = weight.shape
    sizes = (offsets, kernel_map.outputs, channels, out_channels, OUTPUTS_AT_ONCE)
    arrays, add = (features.contiguous(), weight.contiguous(), outputs), False
    return Call("convolve", *arrays, *pairs, *sizes, add, *norm_residual_and_rectified)


def convolve_norm_relu_gradients(
    gradient: Tensor,
    output: Tensor,
    convolved: Tensor | None,
    features: Tensor | None,
    weight: Tensor,
    norm: FixedNorm,
    kernel_map: KernelMap,
    of_features: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor]:
    """See `ttt_kd_ros.sparse.products.convolve_norm_relu_gradients`."""
    results = (
        gradient.new_empty(kernel_map.inputs, weight.shape[1]) if of_features else None,
        None if features is None else gradient.new_empty(weight.shape),
        None if convolved is None and features is None else gradient.new_empty(weight.shape[2]),
        gradient.new_empty(weight.shape[2]),
        torch.empty_like(gradient),
    )
    layer_gradients(gradient, output, convolved, features, weight, norm, kernel_map, results)()
    return results


def layer_gradients(
    gradient: Tensor,
    output: Tensor | None,
    convolved: Tensor | None,
    features: Tensor | None,
    weight: Tensor,
    norm: FixedNorm,
    kernel_map: KernelMap,
    results: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor],
    add: bool = False,
) -> Call:
    """`convolve_norm_relu_gradients` into arrays that are there; the last of them may be the gradient itself.

    The features' gradient is added to what is there where that is asked for; without the output there was no ReLU.
    """
    features = None if features is None else features.contiguous()
    pairs = (kernel_map.sources, kernel_map.targets, kernel_map.starts)
    offsets, channels, out_channels = weight.shape
    sizes = (offsets, kernel_map.inputs, kernel_map.outputs, channels, out_channels, OUTPUTS_AT_ONCE, PAIRS_AT_ONCE)
    given = (gradient, output, convolved, features, weight.contiguous(), *_arguments(norm))
    return Call("convolve_norm_relu_gradients", *given, *pairs, *sizes, add, *results)


def _arguments(norm: FixedNorm) -> tuple[Tensor | float, ...]:
    return norm.weight, norm.bias, norm.mean, norm.variance, norm.eps


def weight_gradient(features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Gradient (K, C, D) of the weight from the one (outputs, D) of the outputs."""
    features, gradient = features.contiguous(), gradient.contiguous()
    result = gradient.new_empty(weight.shape)
    pairs = (kernel_map.sources, kernel_map.targets, kernel_map.starts)
    run("weight_gradient", features, gradient, result, *pairs, *weight.shape, PAIRS_AT_ONCE)
    return result
