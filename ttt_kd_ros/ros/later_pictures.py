"""Frames that are labelled at once get their pictures afterwards."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from sensor_msgs.msg import PointCloud2

from ttt_kd_ros.frame import Frame
from ttt_kd_ros.ros.assembly import FrameAssembler, ImageMessage, ScanJob
from ttt_kd_ros.ros.collector import SCANS_KEPT, Collector
from ttt_kd_ros.ros.parameters import NodeSettings


class LaterPictures:
    """Frames without pictures, until these have come; used by the worker alone.

    Parameters
    ----------
    collector
        Knows the pictures that came.
    assembler
        Makes views of them.
    """

    def __init__(self, collector: Collector[PointCloud2, ImageMessage], assembler: FrameAssembler) -> None:
        self._collector = collector
        self._assembler = assembler
        self._waiting: deque[tuple[ScanJob, Frame]] = deque(maxlen=SCANS_KEPT)

    def add(self, job: ScanJob, frame: Frame) -> None:
        """Let a frame wait for its pictures; none does from before the time jumped back."""
        if self._waiting and 0 < job.stamp < self._waiting[-1][0].stamp:
            self.clear()
        self._waiting.append((job, frame))

    def clear(self) -> None:
        """Let none wait any more."""
        self._waiting.clear()

    def take(self, settings: NodeSettings) -> Frame | None:
        """The latest frame whose pictures have come, or will not, with its views; the older ones wait no more."""
        latest: tuple[ScanJob, Frame] | None = None
        while self._waiting:
            job, frame = self._waiting[0]
            pictures = self._collector.pictures(job)
            if pictures is None:
                break
            self._waiting.popleft()
            latest = replace(job, pictures=pictures), frame
        if latest is None:
            return None
        job, frame = latest
        return replace(frame, views=self._assembler.views(job, settings))
