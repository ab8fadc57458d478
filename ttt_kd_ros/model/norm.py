"""A linear layer and its batch norm."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ttt_kd_ros.sparse.fixed_norm import FixedNorm


class LinearNorm(nn.Sequential):
    """A linear layer and its batch norm, one product where the statistics are fixed."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Linear(in_channels, out_channels, bias=False), nn.BatchNorm1d(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, out_channels) from (N, in_channels)."""
        linear, norm = cast(tuple[nn.Linear, nn.BatchNorm1d], tuple(self))
        if norm.training:
            return norm(linear(features))
        scale, shift = FixedNorm.of(norm).affine()
        return F.linear(features, linear.weight * scale[:, None], shift)
