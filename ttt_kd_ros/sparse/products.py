"""Which module computes voxels, maps and products of sparse convolutions: the plain one, or another where it suits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
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


def norm_relu_gradient(
    gradient: Tensor, output: Tensor, convolved: Tensor | None, norm: FixedNorm, kernel_map: KernelMap
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of the normed and of the convolved features, of the norm's weight and of its bias.

    Parameters
    ----------
    gradient, output, convolved
        (outputs, D), of the output of `convolve_norm_relu`, and its results; without the convolved features the
        gradient of the norm's weight is None.
    norm
        Of D channels.
    kernel_map
        The map of the convolution.
    """
    if _for(gradient, kernel_map) is native:
        return native.norm_relu_gradient(gradient, output, convolved, norm)
    of_normed = torch.ops.aten.threshold_backward(gradient, output, 0)
    of_bias = of_normed.sum(dim=0)
    of_convolved = of_normed * norm.affine()[0]
    if convolved is None:
        return of_normed, of_convolved, None, of_bias
    centred = (of_normed * convolved).sum(dim=0) - norm.mean * of_bias
    return of_normed, of_convolved, centred * torch.rsqrt(norm.variance + norm.eps), of_bias


def weight_gradient(features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Gradient (K, C, D) of the weight from the one (outputs, D) of the outputs."""
    return _for(features, kernel_map).weight_gradient(features, gradient, weight, kernel_map)


def gradients(
    features: Tensor, gradient: Tensor, weight: Tensor, transposed: Tensor, kernel_map: KernelMap
) -> tuple[Tensor, Tensor]:
    """Gradients of the features and of the weight.

    Parameters
    ----------
    features, gradient
        (inputs, C), and (outputs, D) of the outputs.
    weight
        (K, C, D).
    transposed
        (K, D, C), what the outputs' gradient is multiplied with for the features'.
    kernel_map
        Map with K offsets.
    """
    module = _for(gradient, kernel_map)
    if module is plain:
        return plain.gradients(features, gradient, weight, transposed, kernel_map)
    return (
        module.convolve(gradient, transposed, kernel_map.transposed),
        module.weight_gradient(features, gradient, weight, kernel_map),
    )


def maps() -> Maps:
    """What builds voxels and kernel maps."""
    return _chosen.maps


def _for(features: Tensor, kernel_map: KernelMap) -> Products:
    there = kernel_map.outputs and kernel_map.inputs
    return _chosen if there and _chosen.suits(features, kernel_map) else plain
