"""How well a network can be adapted: figures on scans with labels and pictures that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ttt_kd_ros.adaptation.objective import distillation_loss
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.adaptation.view import view_of
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.training.batches import collate
from ttt_kd_ros.training.samples import TrainingScan, voxel_labels


@dataclass(frozen=True)
class Adaptability:
    """Of one scan or the mean over several.

    Parameters
    ----------
    gradient_cosine
        Cosine of the gradients of distillation and cross-entropy with respect to the backbone, on the voxels that the
        steps of adaptation run on. It says whether a step towards the teacher is a step towards the labels: where it
        was near zero or negative, adaptation did harm.
    kd_cosine
        Mean cosine of ρ_2D with the teacher.
    """

    gradient_cosine: float
    kd_cosine: float


def adaptability(network: Network, scan: TrainingScan) -> Adaptability:
    """Measure a network in evaluation mode, on whatever device, on a scan with labels and pairs.

    Its gradients are left alone.
    """
    if scan.pairs is None:
        raise ValueError("the scan has no pairs")
    batch = collate([scan]).to(next(network.parameters()).device)
    whole = network.voxel_input(batch.points)
    view = view_of(whole, batch.pairs, AdaptationSettings().margin_m / network.config.voxel_size)
    grid = view.voxels.grid
    inside = grid.inverse >= 0
    with torch.enable_grad():
        logits, features = network(view.voxels)
        labels = voxel_labels(batch.labels[inside], grid.inverse[inside], len(grid), logits.shape[1])
        distillation = distillation_loss(features, view.targets)
        cross_entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL)
        parameters = list(network.backbone.parameters())
        towards_teacher = torch.autograd.grad(distillation, parameters, retain_graph=True)
        towards_labels = torch.autograd.grad(cross_entropy, parameters)
    a, b = (torch.cat([g.flatten() for g in gradients]) for gradients in (towards_teacher, towards_labels))
    return Adaptability(F.cosine_similarity(a, b, dim=0).item(), 1 - distillation.item())


def mean_adaptability(network: Network, scans: Sequence[TrainingScan]) -> Adaptability:
    """Mean over scans, each weighing the same."""
    each = [adaptability(network, scan) for scan in scans]
    return Adaptability(sum(a.gradient_cosine for a in each) / len(each), sum(a.kd_cosine for a in each) / len(each))
