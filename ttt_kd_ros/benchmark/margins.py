"""How far round the paired points the gradient steps must look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ttt_kd_ros.adaptation.objective import distillation_loss
from ttt_kd_ros.adaptation.scope import scope_parameters
from ttt_kd_ros.adaptation.targets import PointTargets, Targets, voxel_targets
from ttt_kd_ros.adaptation.view import view_of
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.voxel_input import VoxelInput

MARGINS_M = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class Margin:
    """Share of the voxels within a margin [m], and the cosine of the gradient there with that of the whole scan."""

    margin_m: float
    voxels: float
    cosine: float


def gradient_cosines(
    network: Network, voxels: VoxelInput, pairs: PointTargets, scope: str, margins_m: Iterable[float] = MARGINS_M
) -> list[Margin]:
    """Compare gradients of the distillation loss with respect to the parameters of a scope."""
    whole = _gradient(network, voxels, voxel_targets(pairs, voxels.grid.inverse), scope)
    rows = []
    for margin_m in margins_m:
        view = view_of(voxels, pairs, margin_m / network.config.voxel_size)
        gradient = _gradient(network, view.voxels, view.targets, scope)
        cosine = torch.cosine_similarity(gradient.double(), whole.double(), dim=0).item()
        rows.append(Margin(margin_m, len(view.voxels.grid) / len(voxels.grid), cosine))
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
