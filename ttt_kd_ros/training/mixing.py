"""Augmentations that make two scans of two: their labels and their targets stay with their points.

A target belongs to a point and not to a place, so that pairs remain right wherever the point ends up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.training.config import Augmentation
from ttt_kd_ros.training.samples import TrainingScan, select


def mix(scans: Sequence[TrainingScan], settings: Augmentation, rng: np.random.Generator) -> list[TrainingScan]:
    """Mix scans two by two, with the probabilities of the settings; an odd one at the end stays as it is."""
    mixed: list[TrainingScan] = []
    for first in range(0, len(scans) - 1, 2):
        a, b = scans[first : first + 2]
        if rng.random() < settings.polarmix:
            a, b = exchange_sectors(a, b, rng.uniform(-np.pi, np.pi), rng.uniform(0, np.pi))
        mixed += [overlay(a, b)] if rng.random() < settings.mix3d else [a, b]
    return [*mixed, *scans[len(scans) - len(scans) % 2 :]]


def overlay(a: TrainingScan, b: TrainingScan) -> TrainingScan:
    """Both scans in one place (Nekrasov et al., "Mix3D: Out-of-Context Data Augmentation for 3D Scenes", 3DV 2021)."""
    parts = [(0, a.pairs), (len(a.points), b.pairs)]
    paired = [(start, pairs) for start, pairs in parts if pairs is not None]
    pairs = None
    if paired:
        rows = torch.cat([start + pairs.points for start, pairs in paired])
        pairs = PointTargets(rows, torch.cat([pairs.features for _, pairs in paired]))
    return replace(a, points=torch.cat([a.points, b.points]), labels=torch.cat([a.labels, b.labels]), pairs=pairs)


def exchange_sectors(a: TrainingScan, b: TrainingScan, start: float, width: float) -> tuple[TrainingScan, TrainingScan]:
    """Exchange what lies in a sector around the sensor, without the copies of single objects.

    Xiao et al., "PolarMix: A General Data Augmentation Technique for LiDAR Point Clouds", NeurIPS 2022.

    Parameters
    ----------
    a, b
        Two scans.
    start, width
        Azimuth at which the sector begins, and its angle [rad].
    """
    in_a, in_b = (_sector(scan.points, start, width) for scan in (a, b))
    return (
        overlay(select(a, ~in_a), select(b, in_b)),
        overlay(select(b, ~in_b), select(a, in_a)),
    )


def _sector(points: Tensor, start: float, width: float) -> Tensor:
    azimuth = torch.atan2(points[:, 1], points[:, 0])
    return torch.remainder(azimuth - start, 2 * np.pi) < width
