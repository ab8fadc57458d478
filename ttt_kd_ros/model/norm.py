"""A linear layer and its batch norm."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ttt_kd_ros.sparse import products
from ttt_kd_ros.sparse.fixed_norm import FixedNorm


class LinearNorm(nn.Sequential):
    """A linear layer and its batch norm, one product where the statistics are fixed."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Linear(in_channels, out_channels, bias=False), nn.BatchNorm1d(out_channels))

    @property
    def linear(self) -> nn.Linear:
        """The linear layer."""
        return cast(nn.Linear, self[0])

    @property
    def norm(self) -> nn.BatchNorm1d:
        """Its batch norm."""
        return cast(nn.BatchNorm1d, self[1])

    def forward(self, features: Tensor) -> Tensor:
        """(N, out_channels) from (N, in_channels)."""
        if self.norm.training:
            return self.norm(self.linear(features))
        return products.chosen().linear_norm(features, self.linear.weight, FixedNorm.of(self.norm))
