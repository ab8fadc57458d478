"""The loaded model, as the node uses it: on one thread, changed between two scans."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import CameraView, Frame, Segmentation
from ttt_kd_ros.geometry.seen import SeenPoints, seen_points
from ttt_kd_ros.ros.model_thread import ModelThread
from ttt_kd_ros.schedule import ScheduledSegmenter


class Model:
    """A segmenter whose calls all run on the model thread, so that changes take effect between two scans.

    Parameters
    ----------
    load
        Makes the segmenter; called on the model thread.
    thread
        The model thread.
    settings
        How the segmenter was told to adapt.

    Raises
    ------
    InputError
        If the segmenter cannot be loaded.
    """

    def __init__(
        self, load: Callable[[], ScheduledSegmenter], thread: ModelThread, settings: AdaptationSettings
    ) -> None:
        self._thread = thread
        self._segmenter = thread.run(load)
        self._settings = settings
        self._paused = False

    @property
    def classes(self) -> ClassList:
        """What the labels mean."""
        return self._segmenter.classes

    def segment(self, frame: Frame, due: float = math.inf) -> Segmentation:
        """Adapt to a frame and label its points until a time on the monotonic clock [s]."""
        segmentation = self._thread.run(self._segmenter.segment, frame, due)
        report = segmentation.adaptation
        if self._paused and report.stopped_by == "off":
            return replace(segmentation, adaptation=replace(report, stopped_by="paused"))
        return segmentation

    def learn(self, frame: Frame) -> None:
        """Let a frame that was labelled without its pictures wait for training."""
        self._thread.run(self._segmenter.learn, frame)

    def seen_points(self, view: CameraView, points: NDArray[np.float32]) -> SeenPoints:
        """Which points of a scan a picture shows; computed on the model thread like everything else."""
        return self._thread.run(seen_points, view, points)

    def configure(self, settings: AdaptationSettings) -> None:
        """Change how to adapt.

        Raises
        ------
        InputError
            If the segmenter refuses; nothing is changed then.
        """
        if settings != self._settings:
            self._configure(settings, self._paused)

    def pause(self, paused: bool) -> None:
        """Take no steps until told otherwise; scans are labelled with the weights as they are."""
        if paused != self._paused:
            self._configure(self._settings, paused)

    def _configure(self, settings: AdaptationSettings, paused: bool) -> None:
        self._thread.run(self._segmenter.configure, replace(settings, steps=0) if paused else settings)
        self._settings, self._paused = settings, paused

    def reset(self) -> None:
        """Go back to the source weights."""
        self._thread.run(self._segmenter.reset)

    def save(self, path: str) -> None:
        """Write the weights to a file.

        Raises
        ------
        InputError
            If that cannot be done.
        """
        self._thread.run(self._segmenter.save_weights, _given(path))

    def load(self, path: str) -> None:
        """Go on with the weights from a file.

        Raises
        ------
        InputError
            If they cannot be used; the weights are as before then.
        """
        self._thread.run(self._segmenter.load_weights, _given(path))

    def close(self) -> None:
        """End what the segmenter does beside the scans."""
        self._thread.run(self._segmenter.close)

    def stop(self) -> None:
        """Begin no more steps, from now on and in the scan that is being segmented."""
        self._segmenter.stop()


def _given(path: str) -> str:
    if not path:
        raise InputError("the parameter 'weights_path' is empty; set it to the file to write or read")
    return path
