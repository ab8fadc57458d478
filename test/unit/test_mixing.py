"""Mixed scans: every point keeps its label and its target."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.training.config import Augmentation
from ttt_kd_ros.training.mixing import exchange_sectors, mix, overlay
from ttt_kd_ros.training.samples import TrainingScan


def scan(seed, paired=True):
    """Labels and targets can be told from the place of their point."""
    points = torch.from_numpy(np.random.default_rng(seed).normal(size=(500, 3)).astype(np.float32)) * 10
    rows = torch.arange(0, 500, 3)
    return TrainingScan(
        points, label_of(points), PointTargets(rows, 2 * points[rows]) if paired else None, "a", "drive"
    )


def label_of(points):
    return ((points[:, 0] > 0).long() + 2 * (points[:, 2] > 0)).byte()


def consistent(mixed):
    pairs = mixed.pairs
    return torch.equal(mixed.labels, label_of(mixed.points)) and (
        pairs is None or torch.equal(pairs.features, 2 * mixed.points[pairs.points])
    )


def rows(points):
    return sorted(map(tuple, points.tolist()))


@pytest.mark.parametrize("paired", [(True, True), (True, False), (False, True), (False, False)])
def test_overlaid_scans_hold_the_points_and_pairs_of_both(paired):
    a, b = scan(0, paired[0]), scan(1, paired[1])
    both = overlay(a, b)
    assert rows(both.points) == rows(torch.cat([a.points, b.points]))
    assert consistent(both)
    assert (0 if both.pairs is None else len(both.pairs.points)) == 167 * sum(paired)


def test_exchanged_sectors_come_from_the_other_scan_and_nothing_is_lost():
    a, b = scan(0), scan(1, paired=False)
    first, second = exchange_sectors(a, b, start=3.0, width=1.0)
    assert consistent(first) and consistent(second)
    assert rows(torch.cat([first.points, second.points])) == rows(torch.cat([a.points, b.points]))
    assert len(first.pairs.points) + len(second.pairs.points) == 167
    of_a = set(rows(a.points))
    for point in first.points:
        beyond = (np.arctan2(point[1].item(), point[0].item()) - 3.0) % (2 * np.pi)
        assert (tuple(point.tolist()) in of_a) == (beyond >= 1.0)


def test_scans_are_mixed_two_by_two_and_an_odd_one_is_left():
    scans = [scan(i) for i in range(3)]
    mixed = mix(scans, Augmentation(mix3d=1.0, polarmix=1.0), np.random.default_rng(0))
    assert [len(s.points) for s in mixed] == [1000, 500]
    assert all(map(consistent, mixed))
    assert mixed[1] is scans[2]
    assert mix(scans, Augmentation(), np.random.default_rng(0)) == scans


def test_probabilities_out_of_range_are_refused():
    with pytest.raises(InputError, match="probabilities"):
        replace(Augmentation(), mix3d=1.5)
