"""How far round the paired points the gradient steps must look, and what they see of it in each part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ttt_kd_ros.adaptation.objective import distillation_loss
from ttt_kd_ros.adaptation.scope import scope_parameters
from ttt_kd_ros.adaptation.settings import PARTS_IN_TIME, AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets, Targets, voxel_targets
from ttt_kd_ros.adaptation.view import View, parts_of, view_of
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.voxel_input import VoxelInput

MARGINS_M = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class Margin:
    """Share of the voxels within a margin [m], and the cosine of the gradient there with that of the whole scan.

    Parameters
    ----------
    part
        Which of the parts that the steps take turns on is decoded, and empty for all.
    """

    margin_m: float
    voxels: float
    cosine: float
    part: str = ""


def gradient_cosines(
    network: Network,
    voxels: VoxelInput,
    pairs: PointTargets,
    settings: AdaptationSettings,
    margins_m: Iterable[float] = MARGINS_M,
) -> list[Margin]:
    """Compare gradients of the distillation loss with respect to the parameters of the settings' scope.

    Those within each margin come first, then those of the parts that steps take turns on before a near deadline.
    """
    whole = _gradient(network, voxels, voxel_targets(pairs, voxels.grid.inverse), settings.scope)

    def row(view: View, margin_m: float, part: str = "") -> Margin:
        gradient = _gradient(network, view.voxels, view.targets, settings.scope)
        cosine = torch.cosine_similarity(gradient.double(), whole.double(), dim=0).item()
        decoded = len(view.voxels.grid) if view.asked is None else int(view.asked.sum())
        return Margin(margin_m, decoded / len(voxels.grid), cosine, part)

    rows = [row(view_of(voxels, pairs, m / network.config.voxel_size), m) for m in margins_m]
    view = view_of(voxels, pairs, settings.margin_m / network.config.voxel_size)
    parts = parts_of(view, PARTS_IN_TIME)
    if len(parts) > 1:
        rows += [row(part, settings.margin_m, f", part {i} of {len(parts)}") for i, part in enumerate(parts, start=1)]
    return rows


def _gradient(network: Network, voxels: VoxelInput, targets: Targets, scope: str) -> Tensor:
    parameters = scope_parameters(network.backbone, scope)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        loss = distillation_loss(network(voxels)[1], targets)
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)])
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
