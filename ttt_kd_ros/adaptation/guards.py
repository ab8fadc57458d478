"""What adapted predictions must not come to."""

from __future__ import annotations

import torch
from torch import Tensor


def largest_share(labels: Tensor) -> float:
    """Share of the most frequent label among (V,) labels."""
    return torch.bincount(labels).max().item() / len(labels)


def changed_share(labels: Tensor, source_labels: Tensor) -> float:
    """Share of (V,) labels that are not those of the source model."""
    return (labels != source_labels).float().mean().item()
