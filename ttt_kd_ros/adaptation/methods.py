"""What the steps of each method minimise: test-time training by distillation and what it is measured against.

- ``kd``: distillation from the teacher, with the mean entropy of the predictions beside it.
- ``kd-mean``: control, every target replaced by the mean of the scan's targets.
- ``kd-permuted``: control, the targets permuted over the voxels.
- ``confident``: cross-entropy with the source model's confident labels.
- ``tent``: mean entropy (Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021).
- ``sar``: entropy of the reliable predictions at a flat minimum (Niu et al., "Towards Stable Test-Time Adaptation in
  Dynamic Wild World", ICLR 2023).
- ``statistics``: no gradient, the batch norms' statistics drift to the scan's (Mirza et al., "The Norm Must Go On:
  Dynamic Unsupervised Domain Adaptation by Normalization", CVPR 2022).

All see the same voxels, and all but ``statistics`` keep the statistics of training: with those of a single scan every
method is worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ttt_kd_ros.adaptation.objective import confident_cross_entropy, distillation_loss, entropy
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.adaptation.targets import Targets

Objective = Callable[[Tensor, Tensor], Tensor]
"""Loss of the logits (V, classes) and features (V, D) of the voxels in view."""

NEEDS_TEACHER = ("kd", "kd-mean", "kd-permuted")
RELIABLE_ENTROPY = 0.4
"""Of `sar`: share of the largest possible entropy below which a prediction is reliable."""


def objective(settings: AdaptationSettings, targets: Targets, source_logits: Callable[[], Tensor]) -> Objective:
    """Loss of a method on one scan.

    Parameters
    ----------
    settings
        Method and weights.
    targets
        The teacher's features of the paired voxels.
    source_logits
        Gives the (V, classes) logits of the source model; called only by methods that compare with them.
    """
    if settings.method == "tent":
        return lambda logits, features: entropy(logits).mean()
    if settings.method == "sar":
        return lambda logits, features: _reliable_entropy(logits)
    if settings.method == "confident":
        source = source_logits()
        return lambda logits, features: confident_cross_entropy(logits, source)
    return _distillation(settings, _controlled(settings.method, targets), source_logits)


def _distillation(settings: AdaptationSettings, targets: Targets, source_logits: Callable[[], Tensor]) -> Objective:
    source = source_logits() if settings.source_weight else None

    def loss(logits: Tensor, features: Tensor) -> Tensor:
        total = distillation_loss(features, targets, settings.loss)
        if settings.entropy_weight:
            total = total + settings.entropy_weight * entropy(logits).mean()
        if source is not None:
            total = total + settings.source_weight * confident_cross_entropy(logits, source)
        return total

    return loss


def _controlled(method: str, targets: Targets) -> Targets:
    if method == "kd-mean":
        mean = targets.features.mean(dim=0, keepdim=True)
        return Targets(targets.voxels, mean.expand_as(targets.features))
    if method == "kd-permuted":
        order = torch.randperm(len(targets.voxels), generator=torch.Generator().manual_seed(0))
        return Targets(targets.voxels, targets.features[order.to(targets.voxels.device)])
    return targets


def _reliable_entropy(logits: Tensor) -> Tensor:
    each = entropy(logits)
    reliable = each < RELIABLE_ENTROPY * math.log(logits.shape[1])
    return (each * reliable).sum() / reliable.sum().clamp(min=1)
