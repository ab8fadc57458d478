"""Which module computes voxels, maps and products of sparse convolutions: the plain one, or another where it suits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt_kd_ros.sparse import native, plain
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import Kept, KernelMap


class Maps(Protocol):
    """A module that builds voxels and maps, as `ttt_kd_ros.sparse.kernel_map` does."""

    def occupied_voxels(self, points: Tensor, voxel_size: float, batch: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Keys of the voxels that hold points, the voxel of each point, and the points in each voxel."""

    def downsampling_map(self, keys: Tensor) -> tuple[Tensor, KernelMap]:
        """Keys of the coarse voxels, and the map to them."""

    def submanifold_map(self, keys: Tensor, kernel_size: int) -> KernelMap:
        """Map from voxels to themselves."""

    def crop_map(self, kernel_map: KernelMap, inputs: Kept, outputs: Kept) -> KernelMap:
        """The pairs between kept voxels."""


class Products(Protocol):
    """A module that computes products."""

    @property
    def maps(self) -> Maps:
        """What builds the maps for them."""

    def problem(self, device: torch.device) -> str:
        """Why it cannot be used on a device, and the mend; empty if it can be tried."""

    def suits(self, features: Tensor, kernel_map: KernelMap) -> bool:
        """Whether it can compute this convolution."""

    def convolve(self, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """(outputs, D) from (inputs, C) and (K, C, D), without a gradient."""

    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """Gradient (K, C, D) of the weight from the one (outputs, D) of the outputs."""


_chosen: Products = plain


def choose(products: Products) -> None:
    """Let a module compute what it suits, from now on; the plain one computes the rest."""
    global _chosen
    _chosen = products


def by_kernels(features: Tensor) -> bool:
    """Whether the CPU's own kernels compute with these features."""
    return _chosen is native and native.knows(features)


@contextmanager
def using(products: Products) -> Iterator[None]:
    """Let a module compute what it suits for a while, then the one before again."""
    before = _chosen
    choose(products)
    try:
        yield
    finally:
        choose(before)


def convolve(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """(outputs, D) from (inputs, C) and (K, C, D), without a gradient."""
    return _for(features, kernel_map).convolve(features, weight, kernel_map)


def convolve_norm_relu(
    features: Tensor, weight: Tensor, norm: FixedNorm, residual: Tensor | None, kernel_map: KernelMap, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """``relu(norm(convolved) + residual)``, and ``convolved`` if it is to be kept.

    Parameters
    ----------
    features, weight
        (inputs, C) and (K, C, D).
    norm
        Of D channels.
    residual
        (outputs, D), or None.
    kernel_map
        Map with K offsets.
    keep
        Whether the convolved features are needed.
    """
    module = _for(features, kernel_map)
    if module is native:
        return native.convolve_norm_relu(features, weight, norm, residual, kernel_map, keep)
    convolved = module.convolve(features, weight, kernel_map)
    scale, shift = norm.affine()
    output = torch.addcmul(shift, convolved, scale, out=None if keep else convolved)
    if residual is not None:
        output += residual
    return output.relu_(), convolved if keep else None


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
    """Gradients of the features, of the weight, of the norm's weight and bias, and of the residual.

    Parameters
    ----------
    gradient
        (outputs, D), of the output.
    output, convolved
        Results of `convolve_norm_relu`.
    features, weight
        As there; without the features there is no gradient of the weight, and without them and the convolved ones none
        of the norm's weight.
    norm, kernel_map
        As there.
    of_features
        Whether the gradient of the features is needed.
    """
    module, gradient = _for(gradient, kernel_map), gradient.contiguous()
    if module is native:
        return native.convolve_norm_relu_gradients(
            gradient, output, convolved, features, weight, norm, kernel_map, of_features
        )
    normed = torch.ops.aten.threshold_backward(gradient, output, 0)
    of_norm_bias, scale = normed.sum(dim=0), norm.affine()[0]
    of_inputs, unscaled = gradients(features, normed, weight * scale, kernel_map, of_features)
    if convolved is not None:
        along = (normed * convolved).sum(dim=0)
    else:
        along = None if unscaled is None else (unscaled * weight).sum(dim=(0, 1))  # the same sum
    of_norm_weight = None
    if along is not None:
        of_norm_weight = (along - norm.mean * of_norm_bias) * torch.rsqrt(norm.variance + norm.eps)
    return of_inputs, None if unscaled is None else unscaled * scale, of_norm_weight, of_norm_bias, normed


def linear_norm(features: Tensor, weight: Tensor, norm: FixedNorm) -> Tensor:
    """``norm(features @ weight.T)``.

    Parameters
    ----------
    features, weight
        (V, C) and (D, C).
    norm
        Of D channels.
    """
    if by_kernels(features) and not torch.is_grad_enabled():
        return native.linear_norm(features, weight, norm)
    scale, shift = norm.affine()
    return F.linear(features, weight * scale[:, None], shift)


def gradients(
    features: Tensor | None, gradient: Tensor, weight: Tensor, kernel_map: KernelMap, of_features: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the features and of the weight.

    Parameters
    ----------
    features
        (inputs, C); without them there is no gradient of the weight.
    gradient
        (outputs, D), of the outputs.
    weight
        (K, C, D).
    kernel_map
        Map with K offsets.
    of_features
        Whether the gradient of the features is needed.
    """
    module, gradient, transposed = _for(gradient, kernel_map), gradient.contiguous(), weight.transpose(1, 2)
    if module is plain and of_features and features is not None:
        return plain.gradients(features, gradient, weight, transposed, kernel_map)
    return (
        module.convolve(gradient, transposed, kernel_map.transposed) if of_features else None,
        None if features is None else module.weight_gradient(features, gradient, weight, kernel_map),
    )


def maps() -> Maps:
    """What builds voxels and kernel maps."""
    return _chosen.maps


def _for(features: Tensor, kernel_map: KernelMap) -> Products:
    there = kernel_map.outputs and kernel_map.inputs
    return _chosen if there and _chosen.suits(features, kernel_map) else plain
