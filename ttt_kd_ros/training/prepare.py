"""From data folders to training scans: the teacher's features are reduced once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttt_kd_ros.adaptation.targets import PointTargets, point_targets
from ttt_kd_ros.data import Folder
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import IGNORE_LABEL, Frame
from ttt_kd_ros.geometry.transforms import transform_points
from ttt_kd_ros.model.reduction import Reduction
from ttt_kd_ros.teacher.load import Teacher
from ttt_kd_ros.training.samples import TrainingScan
from ttt_kd_ros.training.spill import spill

Progress = Callable[[Iterable[int], str], Iterable[int]]

NO_LABELS = "none of the folders has labels, which the cross-entropy needs; add one that has"
NOTHING_TO_MEASURE = "held-out folder '{}' has no scan with labels and pictures"
_FIT_FRAMES = 24
_FIT_FEATURES_PER_FRAME = 4000


def fit_reduction(
    frames: Sequence[Frame], teacher: Teacher, device: torch.device, target_size: int, seed: int
) -> Reduction:
    """Principal components of the teacher's features at paired points of some frames.

    Parameters
    ----------
    frames
        Frames with pictures.
    teacher, device
        The image model, and where it is.
    target_size
        Number of components.
    seed
        Seed of the choice of points.
    """
    generator = torch.Generator().manual_seed(seed)
    unreduced = Reduction(teacher.feature_size, teacher.feature_size).to(device)
    samples = []
    for frame in frames:
        points = torch.from_numpy(frame.scan.points[_finite(frame)]).to(device)
        features = point_targets(points, frame.views, teacher, unreduced).features.cpu()
        samples.append(features[torch.randperm(len(features), generator=generator)[:_FIT_FEATURES_PER_FRAME]])
    reduction = Reduction(teacher.feature_size, target_size)
    reduction.fit(torch.cat(samples))
    return reduction


def load_scans(
    folders: Sequence[Folder],
    teacher: Teacher,
    device: torch.device,
    target_size: int,
    seed: int,
    progress: Progress,
    spill_to: Path | None = None,
) -> tuple[list[TrainingScan], Reduction]:
    """All scans of the folders with their labels and reduced targets, and the reduction, on the CPU.

    Parameters
    ----------
    folders
        Data folders.
    teacher, device
        The image model, and where it is.
    target_size
        Number of principal components of its features.
    seed
        Seed of the choice of points for the components.
    progress
        Wraps an iterable of frame numbers with a title, such as a progress bar.
    spill_to
        Directory for files that hold the scans; None keeps them in memory.

    Raises
    ------
    DataError
        If no folder has pictures or none has labels.
    """
    pictured = [(f, i) for f in folders for i in range(len(f)) if f.record(i).pictures]
    if not pictured:
        raise DataError("none of the folders has pictures, which distillation needs; add one that has")
    if not any(scene.label_map for folder in folders for scene in folder.scenes):
        raise DataError(NO_LABELS)
    chosen = _spread_over_kinds([folder.kind for folder, _ in pictured])
    frames = [pictured[n][0][pictured[n][1]] for n in progress(chosen, "pictures")]
    reduction = fit_reduction(frames, teacher, device, target_size, seed).to(device)
    scans: list[TrainingScan] = []
    for folder in folders:
        for index in progress(range(len(folder)), folder.name):
            scan = _training_scan(folder[index], folder, teacher, device, reduction)
            scans.append(scan if spill_to is None else spill(scan, spill_to / f"{len(scans):06d}.pt"))
    if not any(scan.labelled for scan in scans):
        raise DataError(NO_LABELS)
    return scans, reduction.cpu()


def check_held_out(folders: Sequence[Folder]) -> None:
    """Raise DataError if a folder has no labels or no pictures, before any scan is prepared."""
    for folder in folders:
        labelled = any(scene.label_map for scene in folder.scenes)
        if not (labelled and any(folder.record(index).pictures for index in range(len(folder)))):
            raise DataError(NOTHING_TO_MEASURE.format(folder.name))


def held_out_scans(
    folders: Sequence[Folder],
    teacher: Teacher,
    device: torch.device,
    reduction: Reduction,
    progress: Progress,
) -> list[TrainingScan]:
    """Scans of the folders that have labels and points in a picture; the teacher is on the device.

    Raises
    ------
    DataError
        If a folder has no such scan.
    """
    found = []
    reduction = deepcopy(reduction).to(device)
    for folder in folders:
        with_pictures = [index for index in range(len(folder)) if folder.record(index).pictures]
        scans = [
            _training_scan(folder[index], folder, teacher, device, reduction)
            for index in progress(with_pictures, folder.name)
        ]
        usable = [scan for scan in scans if scan.labelled and scan.pairs is not None]
        if not usable:
            raise DataError(NOTHING_TO_MEASURE.format(folder.name))
        found += usable
    return found


def _spread_over_kinds(kinds: Sequence[str]) -> list[int]:
    """Numbers of frames to fit to, evenly over the frames of each kind and as many of each as there are."""
    share = -(-_FIT_FRAMES // len(set(kinds)))
    places = [[n for n, kind in enumerate(kinds) if kind == wanted] for wanted in sorted(set(kinds))]
    spread = [np.linspace(0, len(of_kind) - 1, share).round().astype(int) for of_kind in places]
    return sorted({of_kind[n] for of_kind, chosen in zip(places, spread, strict=True) for n in chosen})


def _finite(frame: Frame) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(frame.scan.points).all(axis=1))


def _training_scan(
    frame: Frame, folder: Folder, teacher: Teacher, device: torch.device, reduction: Reduction
) -> TrainingScan:
    finite = _finite(frame)
    points = torch.from_numpy(frame.scan.points[finite])
    labels = np.full(len(finite), IGNORE_LABEL, dtype=np.uint8) if frame.labels is None else frame.labels
    base_points = transform_points(frame.scan.T_base_scan, points)
    pairs = _pairs(frame, points.to(device), teacher, reduction)
    return TrainingScan(base_points, torch.from_numpy(labels[finite]), pairs, folder.name, folder.kind)


@torch.no_grad()
def _pairs(frame: Frame, points: Tensor, teacher: Teacher, reduction: Reduction) -> PointTargets | None:
    """Targets on the CPU; None where no picture shows a point."""
    pairs = point_targets(points, frame.views, teacher, reduction)
    return PointTargets(pairs.points.cpu(), pairs.features.cpu()) if len(pairs.points) else None
