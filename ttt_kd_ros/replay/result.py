"""What came of a replay: counts, latencies, losses and scores."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.evaluation.metrics import confusion, iou, mean_iou, without_nan
from ttt_kd_ros.replay.bag import bag_sha256
from ttt_kd_ros.ros.counts import SCAN_CAUSES

NODE_BAG = "segmentation"
"""Bag of what the node answered, beside ``result.json``."""


@dataclass(frozen=True)
class Answer:
    """What came of one scan.

    Parameters
    ----------
    stamp
        Of the scan [ns].
    latency_ms
        How long its answer took.
    packed_labels
        Its labels, one byte each, compressed: a long drive has a thousand million points.
    kd_losses
        KD losses of its gradient steps, from before the first to after the last; empty without steps.
    """

    stamp: int
    latency_ms: float
    packed_labels: bytes = field(repr=False)
    kd_losses: tuple[float, ...] = ()

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(N,) label of each point."""
        return np.frombuffer(zlib.decompress(self.packed_labels), np.uint8)


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
        From the sending of a scan to the arrival of its cloud, in this process the time in the segmenter: ``p50``,
        ``p95``, ``p99``.
    kd_loss
        KD loss before the first step and after the last, mean over the scans with steps: ``first``, ``last``.
    labels_sha256
        Hash over the labels of all clouds in the order of their arrival: equal for runs with the same outcome.
    miou
        Mean IoU over the classes that the ground truth holds.
    iou
        IoU of each class, NaN where the ground truth does not hold it; empty without ground truth.
    peak_memory_mib
        Most memory that the node's process held [MiB], the training beside not counted; NaN in this process.
    answers
        Each scan that got a cloud, in the order of their arrival.
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
    peak_memory_mib: float = math.nan
    answers: Sequence[Answer] = field(default=(), repr=False)

    def require_answers(self) -> None:
        """Refuse a replay that came to nothing.

        Raises
        ------
        DataError
            If there were scans and none was answered, with the mend of each cause.
        """
        if self.scans_in and not self.clouds_out:
            causes = [f"{n} x {cause}: {SCAN_CAUSES.get(cause, '')}" for cause, n in self.dropped.items() if n]
            why = "; ".join(cause.removesuffix(": ") for cause in causes)
            raise DataError(
                f"no scan was answered; {why or 'the node was silent'}; node.log in --out DIR may tell more"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN; without the answers."""
        return {
            "scans_in": self.scans_in,
            "clouds_out": self.clouds_out,
            "dropped": dict(self.dropped),
            "pictures": {camera: dict(counts) for camera, counts in self.pictures.items()},
            "latency_ms": without_nan(self.latency_ms),
            "kd_loss": without_nan(self.kd_loss),
            "labels_sha256": self.labels_sha256,
            "miou": without_nan(self.miou),
            "iou": without_nan(self.iou),
            "peak_memory_mib": without_nan(self.peak_memory_mib),
        }


def write_result(directory: Path, result: Result, bag: Path, how: Mapping[str, Any]) -> None:
    """Write ``result.json``: the result, the settings and the hash of the bag."""
    content = result.to_dict() | {"settings": {"bag": str(bag), **how}, "bag_sha256": bag_sha256(bag)}
    (directory / "result.json").write_text(json.dumps(content, indent=1) + "\n")


class Scores:
    """Takes in the answers to scans, and their ground truth before or after them.

    Parameters
    ----------
    classes
        What the labels mean.
    has_truth
        Whether ground truth will come.
    """

    def __init__(self, classes: ClassList, has_truth: bool) -> None:
        self._classes = classes
        self._has_truth = has_truth
        self._confusion = np.zeros((len(classes.names), len(classes.names) + 1), dtype=np.int64)
        self._truths: dict[int, NDArray[np.uint8]] = {}
        self._unscored: dict[int, Answer] = {}
        self._answers: list[Answer] = []
        self._losses: dict[int, tuple[float, ...]] = {}
        self._hash = hashlib.sha256()

    def answer(self, stamp: int, labels: NDArray[np.uint8], latency_ms: float) -> None:
        """A scan got its labels."""
        packed = labels.tobytes()
        answer = Answer(stamp, latency_ms, zlib.compress(packed, 1))
        self._answers.append(answer)
        self._hash.update(packed)
        if self._has_truth:
            self._unscored[stamp] = answer
            self._score(stamp)

    def losses(self, stamp: int, kd_losses: Sequence[float]) -> None:
        """KD losses of a scan's steps, at least before the first and after the last."""
        self._losses[stamp] = tuple(kd_losses)

    def truth(self, stamp: int, labels: NDArray[np.uint8]) -> None:
        """Ground truth of a scan.

        Raises
        ------
        DataError
            If it does not fit the answer.
        """
        self._truths[stamp] = labels
        self._score(stamp)

    def result(self, scans_in: int, dropped: Mapping[str, int], pictures: Mapping[str, Mapping[str, int]]) -> Result:
        """What has come of it so far."""
        answers = [Answer(a.stamp, a.latency_ms, a.packed_labels, self._losses.get(a.stamp, ())) for a in self._answers]
        latencies = [answer.latency_ms for answer in answers] or [math.nan]
        ends = [(losses[0], losses[-1]) for losses in self._losses.values()]
        first, last = np.mean(ends or [(math.nan, math.nan)], axis=0)
        scores = dict(zip(self._classes.names, iou(self._confusion).tolist(), strict=True)) if self._has_truth else {}
        return Result(
            scans_in,
            len(answers),
            dropped,
            pictures,
            {f"p{q}": float(np.percentile(latencies, q)) for q in (50, 95, 99)},
            {"first": float(first), "last": float(last)},
            self._hash.hexdigest(),
            mean_iou(self._confusion),
            scores,
            answers=answers,
        )

    def _score(self, stamp: int) -> None:
        """Score a scan once labels and truth are there; scans are answered in turn, so older truths are let go."""
        if stamp not in self._unscored or stamp not in self._truths:
            return
        labels = self._unscored.pop(stamp).labels
        try:
            self._confusion += confusion(labels, self._truths[stamp], len(self._classes.names))
        except InputError as error:
            raise DataError(f"scan {stamp}: {error}") from error
        self._truths = {other: truth for other, truth in self._truths.items() if other > stamp}
