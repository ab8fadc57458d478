"""Training samples: augmented scans with labels and distillation targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transforms3d.euler import euler2mat

from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.training.config import Augmentation


@dataclass(frozen=True)
class TrainingScan:
    """A scan as training keeps it in memory.

    Parameters
    ----------
    points
        (N, 3) float32 [m] in the base frame, finite.
    labels
        (N,) uint8; all `IGNORE_LABEL` without ground truth.
    pairs
        Targets of its points; None without pictures.
    folder
        Name of the folder that it comes from.
    kind
        Kind of that folder.
    """

    points: Tensor
    labels: Tensor
    pairs: PointTargets | None
    folder: str
    kind: str

    @property
    def labelled(self) -> bool:
        """Whether any point has a label."""
        return bool((self.labels != IGNORE_LABEL).any())


def spread(scans: Sequence[TrainingScan], most: int) -> list[TrainingScan]:
    """All scans, or of more than `most` so many, evenly spread."""
    places = np.linspace(0, len(scans) - 1, min(len(scans), most)).round().astype(int)
    return [scans[place] for place in places]


def augment(scan: TrainingScan, settings: Augmentation, rng: np.random.Generator) -> TrainingScan:
    """Turn, mirror, tilt, scale, lift, jitter and thin out a scan."""
    tilt = np.radians(settings.tilt_deg)
    rotation = euler2mat(rng.normal(0, tilt), rng.normal(0, tilt), rng.uniform(0, 2 * np.pi))
    rotation = (
        rotation @ np.diag([1.0, rng.choice([-1.0, 1.0]), 1.0]) * rng.uniform(1 - settings.scale, 1 + settings.scale)
    )
    scan = select(scan, torch.from_numpy(rng.random(len(scan.points)) >= rng.uniform(0, settings.dropout)))
    points = scan.points @ torch.as_tensor(rotation.T, dtype=torch.float32)
    points = points + torch.from_numpy(rng.normal(0, settings.jitter_m, points.shape).astype(np.float32))
    points[:, 2] += rng.normal(0, settings.height_m)
    return replace(scan, points=points)


def select(scan: TrainingScan, kept: Tensor) -> TrainingScan:
    """The points that the (N,) bool mask keeps, with their labels and targets."""
    pairs = scan.pairs
    if pairs is not None:
        rank = torch.cumsum(kept, dim=0) - 1
        still = kept[pairs.points]
        pairs = PointTargets(rank[pairs.points[still]], pairs.features[still])
    return replace(scan, points=scan.points[kept], labels=scan.labels[kept], pairs=pairs)


def class_weights(scans: Sequence[TrainingScan], classes: int) -> Tensor:
    """(classes,) weights that grow with the inverse square root of a class's share of the labels, with mean 1."""
    counts = torch.zeros(classes)
    for scan in scans:
        counts += torch.bincount(scan.labels[scan.labels != IGNORE_LABEL].long(), minlength=classes)
    weights = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), 0.0)
    return weights / weights[weights > 0].mean()


def voxel_labels(labels: Tensor, inverse: Tensor, voxels: int, classes: int) -> Tensor:
    """(V,) int64: the most frequent label of each voxel's (N,) points, `IGNORE_LABEL` where none has one."""
    known = labels != IGNORE_LABEL
    votes = torch.zeros(voxels * classes, device=labels.device)
    index = inverse[known] * classes + labels[known].long()
    most, label = votes.index_add_(0, index, torch.ones_like(index, dtype=votes.dtype)).view(voxels, classes).max(dim=1)
    return torch.where(most > 0, label, IGNORE_LABEL)
