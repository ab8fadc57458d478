"""The objective of test-time training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt_kd_ros.adaptation.targets import Targets


def distillation_loss(features: Tensor, targets: Targets) -> Tensor:
    """Mean of one minus the cosine between ρ_2D's features and the teacher's, over the paired voxels.

    Parameters
    ----------
    features
        (V, D) features of ρ_2D.
    targets
        The teacher's features of the paired voxels.
    """
    return 1 - F.cosine_similarity(features[targets.voxels], targets.features, dim=1).mean()


def mean_entropy(logits: Tensor) -> Tensor:
    """Mean entropy [nat] of the softmax of (V, classes) logits."""
    log_probability = torch.log_softmax(logits.T.contiguous(), dim=0)  # few long rows are quicker than many short ones
    return -(log_probability.exp() * log_probability).sum(dim=0).mean()
