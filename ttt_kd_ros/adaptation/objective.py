"""The terms that the steps of test-time training minimise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt_kd_ros.adaptation.targets import Targets

CONFIDENT = 0.9
"""Probability from which a label of the source model is confident."""


def distillation_loss(features: Tensor, targets: Targets, kind: str = "cosine") -> Tensor:
    """Distance between ρ_2D's features and the teacher's, mean over the paired voxels.

    Parameters
    ----------
    features
        (V, D) features of ρ_2D.
    targets
        The teacher's features of the paired voxels.
    kind
        ``cosine``: one minus the cosine. ``centred-cosine``: the same after the mean of the scan's targets was taken
        from both. ``l2``: the distance of the features at unit length (Puy et al., "Three Pillars Improving Vision
        Foundation Model Distillation for Lidar", CVPR 2024).
    """
    predicted, wanted = features.index_select(0, targets.voxels), targets.features
    if kind == "centred-cosine":
        mean = wanted.mean(dim=0)
        predicted, wanted = predicted - mean, wanted - mean
    if kind == "l2":
        return (F.normalize(predicted, dim=1) - F.normalize(wanted, dim=1)).norm(dim=1).mean()
    return 1 - F.cosine_similarity(predicted, wanted, dim=1).mean()


def entropy(logits: Tensor) -> Tensor:
    """Entropy (V,) [nat] of the softmax of (V, classes) logits."""
    log_probability = torch.log_softmax(logits.T.contiguous(), dim=0)  # few long rows are quicker than many short ones
    return -(log_probability.exp() * log_probability).sum(dim=0)


def confident_cross_entropy(logits: Tensor, source_logits: Tensor) -> Tensor:
    """Cross-entropy of (V, classes) logits with the source model's labels, mean over those that it is confident of."""
    probability, label = torch.softmax(source_logits, dim=1).max(dim=1)
    confident = probability >= CONFIDENT
    each = F.cross_entropy(logits, label, reduction="none")
    return (each * confident).sum() / confident.sum().clamp(min=1)
