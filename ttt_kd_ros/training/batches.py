"""Batches of training scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.training.config import TrainingConfig
from ttt_kd_ros.training.mixing import mix
from ttt_kd_ros.training.samples import TrainingScan, augment

T = TypeVar("T")


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
    """The batches, each drawn and augmented from the seed and its number alone.

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

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng([self._seed, number])
        chosen = [_choose(rng, _choose_kind(rng, self._paired)) for _ in range(self._config.paired_per_step)]
        for _ in range(self._config.labelled_per_step):
            scans = _choose_kind(rng, self._labelled)
            folder = _choose(rng, sorted({s.folder for s in scans}))
            chosen.append(_choose(rng, [s for s in scans if s.folder == folder]))
        augmentation = self._config.augmentation
        return collate(mix([augment(scan, augmentation, rng) for scan in chosen], augmentation, rng))


def _by_kind(scans: Sequence[TrainingScan]) -> list[list[TrainingScan]]:
    return [[s for s in scans if s.kind == kind] for kind in sorted({s.kind for s in scans})]


def _choose_kind(rng: np.random.Generator, kinds: Sequence[list[TrainingScan]]) -> list[TrainingScan]:
    if len(kinds) == 1:
        return kinds[0]
    weights = np.sqrt([len(scans) for scans in kinds])
    return kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]


def _choose(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]
