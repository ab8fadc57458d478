"""Scores of adaptation methods on streams of frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ttt_kd_ros.adaptation.targets import paired_points
from ttt_kd_ros.evaluation.metrics import confusion, iou
from ttt_kd_ros.evaluation.protocol import Method, Protocol
from ttt_kd_ros.evaluation.rows import Row
from ttt_kd_ros.frame import IGNORE_LABEL, Frame, Segmentation
from ttt_kd_ros.segmenter import ADAPTATION_STAGES, Segmenter

SOURCE = "off"
"""Mode in which the source model answers."""


@dataclass(frozen=True)
class Stream:
    """Frames in the order of time, and the names that their rows get.

    Parameters
    ----------
    name
        Name of the data.
    frames
        Can be gone through again and again.
    """

    name: str
    frames: Iterable[Frame]


def evaluate(
    segmenter: Segmenter, stream: Stream, method: Method, protocol: Protocol, source: Sequence[NDArray[np.uint8]]
) -> Iterator[Row]:
    """Score a method at each of the protocol's numbers of steps, from the source weights and in one pass each.

    Parameters
    ----------
    segmenter
        With its teacher, if the method needs one.
    stream
        The frames.
    method
        What to score.
    protocol
        Numbers of steps and which points count.
    source
        Labels of the source model for each frame (see `source_labels`).

    Yields
    ------
    Row
        Without the checkpoint's name.
    """
    counts = protocol.counts(method)
    passes = [(count,) for count in counts] if method.settings.mode == "online" else [counts]
    for together in passes:
        settings = replace(method.settings, steps=together[-1]) if method.settings.mode != SOURCE else method.settings
        segmenter.configure(settings)
        segmenter.reset()
        segmenter.forget_pictures()
        tallies = [_Tally(segmenter.classes.names, protocol) for _ in together]
        for frame, before in zip(stream.frames, source, strict=True):
            seen = points_in_view(frame)
            for tally, answer in zip(tallies, segmenter.segment_after(frame, together), strict=True):
                tally.add(frame, answer, seen, before)
        for count, tally in zip(together, tallies, strict=True):
            yield tally.row(stream.name, method, count)


def source_labels(segmenter: Segmenter, frames: Iterable[Frame]) -> list[NDArray[np.uint8]]:
    """Labels of the source model for each frame."""
    segmenter.configure(replace(segmenter.settings, mode=SOURCE))
    return [segmenter.segment(frame).labels for frame in frames]


def points_in_view(frame: Frame) -> NDArray[np.bool_]:
    """(N,) bool: points that are paired with a pixel of any picture."""
    seen = np.zeros(len(frame.scan.points), dtype=np.bool_)
    finite = np.flatnonzero(np.isfinite(frame.scan.points).all(axis=1))
    points = torch.from_numpy(frame.scan.points[finite])
    for _, pairs in paired_points(points, frame.views):
        seen[finite[pairs.points.numpy()]] = True
    return seen


@dataclass
class _Tally:
    """What is counted while one method goes through a stream."""

    names: tuple[str, ...]
    protocol: Protocol
    everywhere: NDArray[np.int64] = field(init=False)
    in_view: NDArray[np.int64] = field(init=False)
    by_scan: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    adapt_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = (len(self.names), len(self.names) + 1)
        self.everywhere, self.in_view = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def add(self, frame: Frame, answer: Segmentation, seen: NDArray[np.bool_], source: NDArray[np.uint8]) -> None:
        valid = answer.labels != IGNORE_LABEL
        self.agreement.append(float((answer.labels == source)[valid].mean()) if valid.any() else math.nan)
        if frame.labels is not None:
            truth = self._counted(frame, frame.labels)
            scan = confusion(answer.labels, truth, len(self.names))
            self.everywhere += scan
            self.in_view += confusion(answer.labels[seen], truth[seen], len(self.names))
            self.by_scan.append(self._score(scan))
        report = answer.adaptation
        if report.steps:
            self.losses.append((report.kd_losses[0], report.kd_losses[-1]))
        self.steps.append(report.steps)
        self.adapt_ms.append(sum(answer.timings_ms.get(stage, 0.0) for stage in ADAPTATION_STAGES))
        self.total_ms.append(sum(answer.timings_ms.values()))

    def _counted(self, frame: Frame, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not self.protocol.max_range_m:
            return labels
        near = np.linalg.norm(frame.scan.points, axis=1) <= self.protocol.max_range_m
        return np.where(near, labels, np.uint8(IGNORE_LABEL))

    def _score(self, matrix: NDArray[np.int64]) -> float:
        scores = iou(matrix)
        if self.protocol.classes:
            scores = scores[[self.names.index(name) for name in self.protocol.classes]]
        present = scores[~np.isnan(scores)]
        return float(present.mean()) if present.size else math.nan

    def row(self, data: str, method: Method, steps: int) -> Row:
        first, last = np.mean(self.losses or [(math.nan, math.nan)], axis=0).tolist()
        return Row(
            data=data,
            checkpoint="",
            method=method.name,
            steps=steps,
            miou=self._score(self.everywhere),
            miou_view=self._score(self.in_view),
            iou=dict(zip(self.names, iou(self.everywhere).tolist(), strict=True)),
            iou_view=dict(zip(self.names, iou(self.in_view).tolist(), strict=True)),
            agreement=float(np.mean(self.agreement)),
            kd_loss_first=first,
            kd_loss_last=last,
            steps_taken=float(np.mean(self.steps)),
            adapt_ms=float(np.mean(self.adapt_ms)),
            total_ms=float(np.mean(self.total_ms)),
            miou_by_scan=self.by_scan,
            agreement_by_scan=self.agreement,
        )
