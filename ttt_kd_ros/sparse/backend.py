"""What computes sparse convolutions: two products, and whatever can be computed faster in one go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt_kd_ros.sparse import kernel_map as plain_maps
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


@dataclass(frozen=True)
class NormedConvolution:
    """A convolution along a kernel map and the norm after it.

    Parameters
    ----------
    weight
        (K, C, D).
    norm
        Of D channels.
    kernel_map
        Map with K offsets.
    """

    weight: Tensor
    norm: FixedNorm
    kernel_map: KernelMap

    def double(self) -> NormedConvolution:
        """The same in float64."""
        return replace(self, weight=self.weight.double(), norm=self.norm.double())


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor]
"""Of the features, of the weight, of the norm's weight and bias, and of the residual."""


class Backend(ABC):
    """What computes voxels, maps and products on some device, without autograd.

    The two products, and what they look up, must be there; the rest follows from them.
    """

    maps: Maps = plain_maps
    """What builds the maps for its products."""

    @abstractmethod
    def problem(self, device: torch.device) -> str:
        """Why it cannot be used on a device, and the mend; empty if it can be tried."""

    @abstractmethod
    def suits(self, features: Tensor, kernel_map: KernelMap) -> bool:
        """Whether it can compute this convolution."""

    @abstractmethod
    def look_up(self, maps: Sequence[KernelMap], back: Sequence[KernelMap]) -> None:
        """Have all there that passes look up once: recordings are to hold none of it, and at once it takes less time.

        Parameters
        ----------
        maps
            Those of the convolutions.
        back
            Transposed ones, along which gradients of features are computed; those of weights are only if there are any.
        """

    @abstractmethod
    def convolve(self, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """(outputs, D) from (inputs, C) and (K, C, D)."""

    @abstractmethod
    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """Gradient (K, C, D) of the weight from the contiguous one (outputs, D) of the outputs."""

    def by_kernels(self, features: Tensor) -> bool:
        """Whether the CPU's own kernels compute with these features, so that passes can be set down on a tape."""
        return False

    def gradients(
        self, features: Tensor | None, gradient: Tensor, weight: Tensor, kernel_map: KernelMap, of_features: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the features and of the weight of `convolve`.

        Parameters
        ----------
        features
            (inputs, C); without them there is no gradient of the weight.
        gradient
            (outputs, D), of the outputs, contiguous.
        weight, kernel_map
            As for `convolve`.
        of_features
            Whether the gradient of the features is needed.
        """
        return (
            self.convolve(gradient, weight.transpose(1, 2), kernel_map.transposed) if of_features else None,
            None if features is None else self.weight_gradient(features, gradient, weight, kernel_map),
        )

    def convolve_norm_relu(
        self, features: Tensor, layer: NormedConvolution, residual: Tensor | None, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """``relu(norm(convolved) + residual)``, and ``convolved`` if it is to be kept.

        Parameters
        ----------
        features
            (inputs, C).
        layer
            What is computed.
        residual
            (outputs, D), or None.
        keep
            Whether the convolved features are needed.
        """
        convolved = self.convolve(features, layer.weight, layer.kernel_map)
        scale, shift = layer.norm.affine()
        output = torch.addcmul(shift, convolved, scale, out=None if keep else convolved)
        if residual is not None:
            output += residual
        return output.relu_(), convolved if keep else None

    def convolve_norm_relu_gradients(
        self,
        gradient: Tensor,
        output: Tensor,
        convolved: Tensor | None,
        features: Tensor | None,
        layer: NormedConvolution,
        of_features: bool,
    ) -> Gradients:
        """Gradients of `convolve_norm_relu`.

        Parameters
        ----------
        gradient
            (outputs, D), of the output, contiguous.
        output, convolved
            Results of `convolve_norm_relu`.
        features
            As there; without them there is no gradient of the weight, and without them and the convolved ones none of
            the norm's weight.
        layer
            As there.
        of_features
            Whether the gradient of the features is needed.
        """
        weight, norm = layer.weight, layer.norm
        normed = torch.ops.aten.threshold_backward(gradient, output, 0)
        of_norm_bias, root = normed.sum(dim=0), norm.root()
        scale = norm.weight * root
        of_inputs, unscaled = self.gradients(features, normed, weight * scale, layer.kernel_map, of_features)
        if convolved is not None:
            along = (normed * convolved).sum(dim=0)
        else:
            along = None if unscaled is None else (unscaled * weight).sum(dim=(0, 1))  # the same sum
        of_norm_weight = None
        if along is not None:
            of_norm_weight = torch.addcmul(along, norm.mean, of_norm_bias, value=-1) * root
        return of_inputs, None if unscaled is None else unscaled * scale, of_norm_weight, of_norm_bias, normed

    def linear_norm(self, features: Tensor, weight: Tensor, norm: FixedNorm) -> Tensor:
        """``norm(features @ weight.T)``, with a gradient where autograd is on.

        Parameters
        ----------
        features, weight
            (V, C) and (D, C).
        norm
            Of D channels.
        """
        scale, shift = norm.affine()
        return F.linear(features, weight * scale[:, None], shift)
