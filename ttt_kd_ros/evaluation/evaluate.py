"""Scores of adaptation methods on labelled frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.evaluation.metrics import confusion, iou, mean_iou, without_nan
from ttt_kd_ros.frame import Frame
from ttt_kd_ros.geometry.pairing import pair_points
from ttt_kd_ros.geometry.projection import scale_camera
from ttt_kd_ros.geometry.transforms import transform_points
from ttt_kd_ros.segmenter import Segmenter


@dataclass(frozen=True)
class Method:
    """A name and the settings of adaptation that it stands for."""

    name: str
    settings: AdaptationSettings


@dataclass(frozen=True)
class Row:
    """Scores of one method with one checkpoint on one data set.

    Parameters
    ----------
    data, checkpoint, method, steps
        What was scored.
    miou, miou_view
        Mean IoU over the classes present, of all labelled points and of those in a picture; NaN if there are none.
    iou
        IoU of each class, all points; NaN for absent classes.
    kd_loss_first, kd_loss_last
        Distillation loss before the first and after the last step, mean over the scans with steps; NaN without steps.
    ms_per_scan
        Mean time of a scan [ms].
    """

    data: str
    checkpoint: str
    method: str
    steps: int
    miou: float
    miou_view: float
    iou: dict[str, float]
    kd_loss_first: float
    kd_loss_last: float
    ms_per_scan: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        return {name: without_nan(value) for name, value in asdict(self).items()}


def evaluate(
    segmenter: Segmenter, frames: Iterable[Frame], methods: Sequence[Method], *, data: str, checkpoint: str
) -> list[Row]:
    """Score methods on the same frames, each from the source weights and in the order of time.

    Parameters
    ----------
    segmenter
        With its teacher.
    frames
        Labelled frames of one drive.
    methods
        What to score.
    data, checkpoint
        Names for the rows.

    Raises
    ------
    DataError
        If no frame has labels.
    """
    labelled = [frame for frame in frames if frame.labels is not None]
    if not labelled:
        raise DataError(f"'{data}' has no labels to score against")
    views = [points_in_view(frame) for frame in labelled]
    return [_score(segmenter, labelled, views, method, data, checkpoint) for method in methods]


def points_in_view(frame: Frame) -> NDArray[np.bool_]:
    """(N,) bool: points that are paired with a pixel of any picture."""
    seen = np.zeros(len(frame.scan.points), dtype=np.bool_)
    finite = np.flatnonzero(np.isfinite(frame.scan.points).all(axis=1))
    points = torch.from_numpy(frame.scan.points[finite])
    for view in frame.views:
        camera = scale_camera(view.camera, view.image.shape[1], view.image.shape[0])
        seen[finite[pair_points(transform_points(view.T_camera_scan, points), camera).points.numpy()]] = True
    return seen


def _score(
    segmenter: Segmenter,
    frames: Sequence[Frame],
    views: Sequence[NDArray[np.bool_]],
    method: Method,
    data: str,
    checkpoint: str,
) -> Row:
    segmenter.configure(method.settings)
    segmenter.reset()
    names = segmenter.classes.names
    everywhere = np.zeros((len(names), len(names) + 1), dtype=np.int64)
    in_view = np.zeros_like(everywhere)
    losses, times = [], []
    for frame, seen in zip(frames, views, strict=True):
        result = segmenter.segment(frame)
        truth = np.asarray(frame.labels)
        everywhere += confusion(result.labels, truth, len(names))
        in_view += confusion(result.labels[seen], truth[seen], len(names))
        times.append(sum(result.timings_ms.values()))
        if result.adaptation.steps:
            losses.append((result.adaptation.kd_losses[0], result.adaptation.kd_losses[-1]))
    first, last = np.mean(losses or [(math.nan, math.nan)], axis=0).tolist()
    return Row(
        data,
        checkpoint,
        method.name,
        method.settings.steps if method.settings.mode != "off" else 0,
        mean_iou(everywhere),
        mean_iou(in_view),
        dict(zip(names, iou(everywhere).tolist(), strict=True)),
        first,
        last,
        float(np.mean(times)),
    )


def methods_from(names: Iterable[str], settings: AdaptationSettings) -> list[Method]:
    """Methods by name: an adaptation mode each."""
    return [Method(name, replace(settings, mode=name)) for name in names]


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each data set, mIoU of each method as ``all / view``, mean over checkpoints [%]."""
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = ["| data | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for data in dict.fromkeys(row.data for row in rows):
        cells = [_cell([row for row in rows if (row.data, row.method) == (data, method)]) for method in methods]
        lines.append(f"| {data} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row]) -> str:
    everywhere, in_view = (100 * np.array([getattr(row, name) for row in rows]) for name in ("miou", "miou_view"))
    if len(rows) == 1:
        return f"{everywhere[0]:.1f} / {in_view[0]:.1f}"
    return f"{everywhere.mean():.1f} ± {everywhere.std():.1f} / {in_view.mean():.1f} ± {in_view.std():.1f}"
