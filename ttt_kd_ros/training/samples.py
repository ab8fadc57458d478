"""Training samples: augmented scans with voxel labels and distillation targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transforms3d.euler import euler2mat

from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.training.config import Augmentation, TrainingConfig

T = TypeVar("T")


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


def augment(scan: TrainingScan, settings: Augmentation, rng: np.random.Generator) -> TrainingScan:
    """Turn, mirror, tilt, scale, lift, jitter and thin out a scan."""
    tilt = np.radians(settings.tilt_deg)
    rotation = euler2mat(rng.normal(0, tilt), rng.normal(0, tilt), rng.uniform(0, 2 * np.pi))
    rotation = (
        rotation @ np.diag([1.0, rng.choice([-1.0, 1.0]), 1.0]) * rng.uniform(1 - settings.scale, 1 + settings.scale)
    )
    kept = torch.from_numpy(rng.random(len(scan.points)) >= rng.uniform(0, settings.dropout))
    points = scan.points[kept] @ torch.as_tensor(rotation.T, dtype=torch.float32)
    points = points + torch.from_numpy(rng.normal(0, settings.jitter_m, points.shape).astype(np.float32))
    points[:, 2] += rng.normal(0, settings.height_m)
    return replace(scan, points=points, labels=scan.labels[kept], pairs=_select(scan.pairs, kept))


def _select(pairs: PointTargets | None, kept: Tensor) -> PointTargets | None:
    if pairs is None:
        return None
    rank = torch.cumsum(kept, dim=0) - 1
    still = kept[pairs.points]
    return PointTargets(rank[pairs.points[still]], pairs.features[still])


@dataclass(frozen=True)
class Batch:
    """The scans of one step, concatenated.

    Parameters
    ----------
    points
        (N, 3) float32 [m].
    scan
        (N,) int64, scan of each point.
    labels
        (N,) uint8.
    pairs
        Targets; rows refer to the concatenated points.
    """

    points: Tensor
    scan: Tensor
    labels: Tensor
    pairs: PointTargets

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        pairs = PointTargets(self.pairs.points.to(device), self.pairs.features.to(device))
        return Batch(self.points.to(device), self.scan.to(device), self.labels.to(device), pairs)


def collate(scans: Sequence[TrainingScan]) -> Batch:
    """Concatenate scans, at least one of them with pairs."""
    starts = np.cumsum([0] + [len(s.points) for s in scans])
    paired = [(int(start), s.pairs) for start, s in zip(starts[:-1], scans, strict=True) if s.pairs is not None]
    return Batch(
        torch.cat([s.points for s in scans]),
        torch.arange(len(scans)).repeat_interleave(torch.tensor([len(s.points) for s in scans])),
        torch.cat([s.labels for s in scans]),
        PointTargets(torch.cat([start + p.points for start, p in paired]), torch.cat([p.features for _, p in paired])),
    )


class Steps(Dataset[Batch]):
    """The batch of each step, drawn and augmented from the seed and the number of the step alone.

    A kind of folder is drawn with a probability that grows with the square root of its number of scans, so that a few
    recorded drives are not lost among many simulated ones. Within a kind labelled scans are drawn evenly from the
    folders, so that a small folder counts as much as a large one, and paired scans evenly.

    Parameters
    ----------
    scans
        All scans; at least one has labels and one has pairs.
    config
        Settings.
    seed
        Seed of the draws.
    """

    def __init__(self, scans: Sequence[TrainingScan], config: TrainingConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        self._paired = _by_kind([s for s in scans if s.pairs is not None])
        self._labelled = _by_kind([s for s in scans if s.labelled])

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        chosen = [_choose(rng, _choose_kind(rng, self._paired)) for _ in range(self._config.paired_per_step)]
        for _ in range(self._config.labelled_per_step):
            scans = _choose_kind(rng, self._labelled)
            folder = _choose(rng, sorted({s.folder for s in scans}))
            chosen.append(_choose(rng, [s for s in scans if s.folder == folder]))
        return collate([augment(scan, self._config.augmentation, rng) for scan in chosen])


def _by_kind(scans: Sequence[TrainingScan]) -> list[list[TrainingScan]]:
    return [[s for s in scans if s.kind == kind] for kind in sorted({s.kind for s in scans})]


def _choose_kind(rng: np.random.Generator, kinds: Sequence[list[TrainingScan]]) -> list[TrainingScan]:
    if len(kinds) == 1:
        return kinds[0]
    weights = np.sqrt([len(scans) for scans in kinds])
    return kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]


def _choose(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


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
