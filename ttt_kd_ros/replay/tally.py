"""What the node's messages tell of a replay."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.replay.messages import DIAGNOSTICS, cloud_labels, deserialize, stamp_of
from ttt_kd_ros.replay.result import Result, Scores
from ttt_kd_ros.ros.counts import ANSWERED, PUBLISHED, SCAN_CAUSES, SCANS

DROP_CAUSES = tuple(cause for cause in SCAN_CAUSES if cause not in ANSWERED)
"""Causes for which the node answers a scan with nothing."""
UNANSWERED = "unanswered"


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
        self._node_name = node_name
        self._scores = Scores(classes, has_truth)
        self._sent: dict[int, int] = {}
        self._node_counts: dict[str, dict[str, int]] = {}
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
        self._scores.truth(stamp_of(data), cloud_labels(data))

    def segmentation(self, data: bytes, time: int) -> None:
        """The answer to one of the scans arrived at a time (monotonic [ns])."""
        stamp = stamp_of(data)
        self.clouds_out += 1
        self._scores.answer(stamp, cloud_labels(data), (time - self._sent[stamp]) / 1e6)

    def report(self, data: bytes) -> None:
        """A report on a scan arrived."""
        self.reports += 1
        for status in deserialize(data, DIAGNOSTICS).status:
            values = {value.key: value.value for value in status.values}
            losses = _number(values.get("kd_loss_first")), _number(values.get("kd_loss_last"))
            if all(map(math.isfinite, losses)):
                self._scores.losses(stamp_of(data), losses)

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
        cameras = {s.removeprefix("camera "): c for s, c in self._node_counts.items() if s.startswith("camera ")}
        return self._scores.result(self.scans_in, dropped, cameras)

    def _counts(self, subject: str) -> Mapping[str, int]:
        return self._node_counts.get(subject, {})

    def _dropped(self) -> dict[str, int]:
        return {cause: self._counts(SCANS).get(cause, 0) for cause in DROP_CAUSES}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
