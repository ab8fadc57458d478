"""The network of the method: backbone ψ with the heads ρ_Y and ρ_2D."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.backbone import Backbone, BackboneConfig
from ttt_kd_ros.model.reduction import Reduction
from ttt_kd_ros.model.unet import UNetConfig
from ttt_kd_ros.model.voxel_input import FEATURES, VoxelInput, voxel_input


@dataclass(frozen=True)
class TeacherSpec:
    """The image model that a network was trained with.

    Parameters
    ----------
    name
        Its canonical name (`Teacher.name`).
    source
        What `load_teacher` loads it from.
    long_side
        Size to which the long side of a picture is brought [px]; 0 keeps the picture's size.
    feature_size
        Size of its features.
    """

    name: str
    source: str
    long_side: int
    feature_size: int


@dataclass(frozen=True)
class NetworkConfig:
    """All that fixes the shape of a network and of its input.

    Parameters
    ----------
    classes
        What ρ_Y predicts.
    teacher
        What ρ_2D predicts features of.
    voxel_size
        Edge length of a voxel [m].
    target_size
        Number of principal components of the teacher's features that ρ_2D predicts.
    backbone
        Kind and size of the backbone.
    """

    classes: ClassList
    teacher: TeacherSpec
    voxel_size: float = 0.2
    target_size: int = 16
    backbone: BackboneConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        if not self.voxel_size > 0:
            raise InputError(f"voxel_size is {self.voxel_size}; it must be positive")


def most_likely(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax probability (V,) of the most likely class, and the class (V,) int64, of (V, classes) logits."""
    best = torch.max(logits, dim=1)
    return 1 / (logits - best.values[:, None]).exp_().sum(dim=1), best.indices


class Network(nn.Module):
    """Backbone ψ, label head ρ_Y, feature head ρ_2D and the reduction of the teacher's features.

    Parameters
    ----------
    config
        Shape of the network.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = config.backbone.build(len(FEATURES))
        self.label_head = nn.Linear(self.backbone.out_channels, len(config.classes.names))
        self.feature_head = nn.Linear(self.backbone.out_channels, config.target_size)
        self.reduction = Reduction(config.teacher.feature_size, config.target_size)

    def voxel_input(self, points: Tensor, batch: Tensor | None = None) -> VoxelInput:
        """What this network sees of (N, 3) points [m] in the base frame."""
        return voxel_input(points, self.config.voxel_size, self.config.backbone, batch)

    def forward(self, voxels: VoxelInput) -> tuple[Tensor, Tensor]:
        """Logits (V, classes) of ρ_Y and features (V, target_size) of ρ_2D of every voxel."""
        return self.heads(self.backbone(voxels.features, voxels.pyramid))

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` returns, from the backbone's features (V, C)."""
        return self.label_head(features), self.feature_head(features)
