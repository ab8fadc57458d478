"""What came of a replay: counts, latencies, losses and scores."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.evaluation.metrics import confusion, iou, mean_iou
from ttt_kd_ros.replay.messages import DIAGNOSTICS, POINT_CLOUD, cloud_field, deserialize, stamp_of
from ttt_kd_ros.ros.counts import EMPTY, PUBLISHED, SCAN_CAUSES, SCANS

DROP_CAUSES = tuple(cause for cause in SCAN_CAUSES if cause != EMPTY)
"""Causes for which the node answers a scan with nothing; an empty scan gets an empty cloud."""
UNANSWERED = "unanswered"


@dataclass(frozen=True)
class Result:
    """What came of a replay; numbers that cannot be told are NaN.

    Parameters
    ----------
    scans_in, clouds_out
        Scans sent and clouds received.
    dropped
        Scans without a cloud, by the node's cause; ``unanswered``: without any word.
    pictures
        For each camera the node's counts: ``received``, ``used``, and unused ones by cause.
    latency_ms
        From the sending of a scan to the arrival of its cloud: ``p50``, ``p95``, ``p99``.
    kd_loss
        KD loss before the first step and after the last, mean over the scans with steps: ``first``, ``last``.
    labels_sha256
        Hash over the labels of all clouds in the order of their arrival: equal for runs with the same outcome.
    miou
        Mean IoU over the classes that the ground truth holds.
    iou
        IoU of each class, NaN where the ground truth does not hold it; empty without ground truth.
    """

    scans_in: int
    clouds_out: int
    dropped: Mapping[str, int]
    pictures: Mapping[str, Mapping[str, int]]
    latency_ms: Mapping[str, float]
    kd_loss: Mapping[str, float]
    labels_sha256: str
    miou: float
    iou: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        return {
            "scans_in": self.scans_in,
            "clouds_out": self.clouds_out,
            "dropped": dict(self.dropped),
            "pictures": {camera: dict(counts) for camera, counts in self.pictures.items()},
            "latency_ms": _without_nan(self.latency_ms),
            "kd_loss": _without_nan(self.kd_loss),
            "labels_sha256": self.labels_sha256,
            "miou": None if math.isnan(self.miou) else self.miou,
            "iou": _without_nan(self.iou),
        }


class Tally:
    """Counts while the replay runs.

    Parameters
    ----------
    classes
        What the labels mean.
    node_name
        Name of the node in its diagnostics.
    has_truth
        Whether ground truth will come.
    """

    def __init__(self, classes: ClassList, node_name: str, has_truth: bool) -> None:
        self._classes = classes
        self._node_name = node_name
        self._has_truth = has_truth
        self._confusion = np.zeros((len(classes.names), len(classes.names) + 1), dtype=np.int64)
        self._sent: dict[int, int] = {}
        self._truths: dict[int, NDArray[np.uint8]] = {}
        self._labels: dict[int, NDArray[np.uint8]] = {}
        self._latencies_ms: list[float] = []
        self._losses: list[tuple[float, float]] = []
        self._node_counts: dict[str, dict[str, int]] = {}
        self._hash = hashlib.sha256()
        self._given_up = 0
        self.scans_in = 0
        self.clouds_out = 0
        self.reports = 0

    @property
    def all_answered(self) -> bool:
        """Whether the node has answered every scan or said that it dropped it."""
        return self.clouds_out + sum(self._dropped().values()) + self._given_up >= self.scans_in

    @property
    def all_reported(self) -> bool:
        """Whether the node's counts and reports are as recent as its answers."""
        accounted = self._counts(SCANS).get(PUBLISHED, 0) + sum(self._dropped().values())
        return accounted >= self.scans_in and self.reports >= self.clouds_out

    def sent(self, data: bytes, time: int) -> None:
        """A scan was sent at a time (monotonic [ns])."""
        self.scans_in += 1
        self._sent[stamp_of(data)] = time

    def give_up(self) -> None:
        """Expect no answer any more to the scans that have none yet."""
        self._given_up = self.scans_in - self.clouds_out - sum(self._dropped().values())

    def truth(self, data: bytes) -> None:
        """Ground truth of a scan."""
        stamp = stamp_of(data)
        self._truths[stamp] = _labels(data)
        self._score(stamp)

    def segmentation(self, data: bytes, time: int) -> None:
        """The answer to one of the scans arrived at a time (monotonic [ns])."""
        stamp = stamp_of(data)
        self.clouds_out += 1
        self._latencies_ms.append((time - self._sent[stamp]) / 1e6)
        labels = _labels(data)
        self._hash.update(labels.tobytes())
        if self._has_truth:
            self._labels[stamp] = labels
            self._score(stamp)

    def report(self, data: bytes) -> None:
        """A report on a scan arrived."""
        self.reports += 1
        for status in deserialize(data, DIAGNOSTICS).status:
            values = {value.key: value.value for value in status.values}
            first, last = _number(values.get("kd_loss_first")), _number(values.get("kd_loss_last"))
            if math.isfinite(first) and math.isfinite(last):
                self._losses.append((first, last))

    def diagnostics(self, data: bytes) -> None:
        """Diagnostics arrived, of the node or of another one."""
        for status in deserialize(data, DIAGNOSTICS).status:
            node, _, subject = status.name.partition(": ")
            if node == self._node_name:
                counts = {value.key: _number(value.value) for value in status.values}
                self._node_counts[subject] = {event: int(n) for event, n in counts.items() if math.isfinite(n)}

    def result(self) -> Result:
        """What has come of it so far."""
        dropped = self._dropped()
        dropped[UNANSWERED] = max(0, self.scans_in - self.clouds_out - sum(dropped.values()))
        latencies = self._latencies_ms or [math.nan]
        first, last = np.mean(self._losses or [(math.nan, math.nan)], axis=0)
        scores = dict(zip(self._classes.names, iou(self._confusion).tolist(), strict=True)) if self._has_truth else {}
        return Result(
            self.scans_in,
            self.clouds_out,
            dropped,
            {s.removeprefix("camera "): c for s, c in self._node_counts.items() if s.startswith("camera ")},
            {f"p{q}": float(np.percentile(latencies, q)) for q in (50, 95, 99)},
            {"first": float(first), "last": float(last)},
            self._hash.hexdigest(),
            mean_iou(self._confusion),
            scores,
        )

    def _counts(self, subject: str) -> Mapping[str, int]:
        return self._node_counts.get(subject, {})

    def _dropped(self) -> dict[str, int]:
        return {cause: self._counts(SCANS).get(cause, 0) for cause in DROP_CAUSES}

    def _score(self, stamp: int) -> None:
        """Score a scan once labels and truth are there; scans are answered in turn, so older truths are let go."""
        if stamp not in self._labels or stamp not in self._truths:
            return
        try:
            self._confusion += confusion(self._labels.pop(stamp), self._truths[stamp], len(self._classes.names))
        except InputError as error:
            raise DataError(f"scan {stamp}: {error}") from error
        self._truths = {other: truth for other, truth in self._truths.items() if other > stamp}


def _labels(data: bytes) -> NDArray[np.uint8]:
    return cloud_field(deserialize(data, POINT_CLOUD), "label").astype(np.uint8)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
