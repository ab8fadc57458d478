"""The fixed linear map from a teacher's features to the targets of distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ttt_kd_ros.errors import InputError


class Reduction(nn.Module):
    """Centre and project features onto principal components.

    Parameters
    ----------
    feature_size
        Size of the teacher's features.
    target_size
        Number of components.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, feature_size: int, target_size: int) -> None:
        super().__init__()
        if not 0 < target_size <= feature_size:
            raise InputError(f"the reduction must keep 1 to {feature_size} components, not {target_size}")
        self.register_buffer("mean", torch.zeros(feature_size))
        self.register_buffer("components", torch.eye(feature_size, target_size))

    def fit(self, features: Tensor) -> None:
        """Set mean and components from (M, feature_size) samples.

        Raises
        ------
        InputError
            If there are fewer samples than components.
        """
        if len(features) < self.components.shape[1]:
            raise InputError(f"{len(features)} teacher features cannot determine {self.components.shape[1]} components")
        samples = features.double()
        mean = samples.mean(dim=0)
        centred = samples - mean
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        components = vectors.flip(1)[:, : self.components.shape[1]]
        sign = torch.sign(components.gather(0, components.abs().argmax(dim=0, keepdim=True)))
        self.mean.copy_(mean)
        self.components.copy_(components * sign)

    def forward(self, features: Tensor) -> Tensor:
        """Targets (M, target_size) of (M, feature_size) features."""
        return (features - self.mean) @ self.components
