"""Training scans in files: the operating system keeps in memory what is in use."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.training.samples import TrainingScan


def spill(scan: TrainingScan, path: Path) -> TrainingScan:
    """Write a scan to a file; the one that is returned reads its points, labels and targets from there when asked.

    Parameters
    ----------
    scan
        The scan.
    path
        A file, replaced if it exists. Processes that write the same scan can share it.
    """
    tensors = {"points": scan.points, "labels": scan.labels}
    if scan.pairs is not None:
        tensors |= {"rows": scan.pairs.points, "features": scan.pairs.features}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    torch.save(tensors, unfinished)
    unfinished.replace(path)
    mapped = torch.load(path, mmap=True, weights_only=True)
    pairs = None if scan.pairs is None else PointTargets(mapped["rows"], mapped["features"])
    return replace(scan, points=mapped["points"], labels=mapped["labels"], pairs=pairs)
