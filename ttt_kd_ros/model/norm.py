"""Batch norms with fixed statistics, and a linear layer before one."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a batch norm with fixed statistics."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return scale, torch.addcmul(norm.bias, mean, scale, value=-1)


class LinearNorm(nn.Sequential):
    """A linear layer and its batch norm, one product where the statistics are fixed."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Linear(in_channels, out_channels, bias=False), nn.BatchNorm1d(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, out_channels) from (N, in_channels)."""
        linear, norm = cast(tuple[nn.Linear, nn.BatchNorm1d], tuple(self))
        if norm.training:
            return norm(linear(features))
        scale, shift = affine(norm)
        return F.linear(features, linear.weight * scale[:, None], shift)
