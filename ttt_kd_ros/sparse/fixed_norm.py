"""A batch norm with fixed statistics: it scales and shifts each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FixedNorm:
    """``(values - mean) / sqrt(variance + eps) * weight + bias``.

    Parameters
    ----------
    weight, bias
        (C,), learned.
    mean, variance
        (C,), statistics of training.
    eps
        Keeps the root from zero.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    eps: float

    @classmethod
    def of(cls, norm: nn.BatchNorm1d) -> FixedNorm:
        """What a module does in evaluation."""
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        return cls(norm.weight, norm.bias, mean, variance, norm.eps)

    def double(self) -> FixedNorm:
        """The same in float64."""
        return FixedNorm(self.weight.double(), self.bias.double(), self.mean.double(), self.variance.double(), self.eps)

    def root(self) -> Tensor:
        """``1 / sqrt(variance + eps)``, (C,)."""
        return torch.rsqrt(self.variance + self.eps)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) of the values."""
        scale = self.weight * self.root()
        return scale, torch.addcmul(self.bias, self.mean, scale, value=-1)
