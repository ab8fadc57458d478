"""What a fit changed in the labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.evaluation.metrics import confusion, mean_iou
from ttt_kd_ros.fit.passes import Survey
from ttt_kd_ros.frame import Frame
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.segmenter import Segmenter


@dataclass(frozen=True)
class Change:
    """Points by their labels before and after, and the scores where there is ground truth.

    Parameters
    ----------
    names
        Names of the classes.
    points
        (C, C) int64; row: label of the source model, column: label of the fitted one.
    miou_before, miou_after
        Mean IoU over the labelled points; NaN without ground truth.
    """

    names: tuple[str, ...]
    points: NDArray[np.int64]
    miou_before: float
    miou_after: float

    @property
    def changed(self) -> dict[str, float]:
        """Share of each class's points that have another label now; NaN for a class without points."""
        total = self.points.sum(axis=1)
        share = np.where(total > 0, 1 - np.diagonal(self.points) / np.maximum(total, 1), np.nan)
        return dict(zip(self.names, share.tolist(), strict=True))

    @property
    def agreement(self) -> float:
        """Share of all points that kept their label."""
        return float(np.trace(self.points) / max(1, self.points.sum()))

    def share(self, axis: int) -> dict[str, float]:
        """Share of all points that each class has: before (axis 1) or after (axis 0)."""
        share = self.points.sum(axis=axis) / max(1, self.points.sum())
        return dict(zip(self.names, share.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "agreement": self.agreement,
            "changed": self.changed,
            "share_before": self.share(1),
            "share_after": self.share(0),
            "points": self.points.tolist(),
            "miou_before": self.miou_before,
            "miou_after": self.miou_after,
        }


def measure_change(network: Network, frames: Iterable[Frame], source: Survey) -> Change:
    """Label every scan with the fitted network, as the node does with it and adaptation off."""
    segmenter = Segmenter(network, None, AdaptationSettings(mode="off"))
    names = segmenter.classes.names
    points, *scores = (np.zeros((len(names), len(names) + 1), np.int64) for _ in range(3))
    for frame, before in zip(frames, source.labels, strict=True):
        after = segmenter.segment(frame).labels
        points += confusion(after, before, len(names))
        if frame.labels is not None:
            for score, labels in zip(scores, (before, after), strict=True):
                score += confusion(labels, frame.labels, len(names))
    return Change(names, points[:, :-1], *map(mean_iou, scores))
