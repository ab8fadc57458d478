"""When the steps are taken: before a scan is labelled, or beside the scans."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ttt_kd_ros.adaptation.session import FAMILIAR
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.background import DIED, Start, Trained, Trainer
from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.frame import AdaptationReport, Frame, Segmentation
from ttt_kd_ros.segmenter import Segmenter, load_segmenter
from ttt_kd_ros.warm_up import warm_up

BESIDE = "background"
TIME_JUMP = "time jump"


class ScheduledSegmenter:
    """A segmenter of a stream of scans, which adapts on the settings' schedule.

    In the background the scans are labelled with the newest weights that were trained beside; frames with pictures are
    trained on, and so are those that `learn` gets. The report of a scan is that of the training whose weights came with
    it, ``background`` if none came. While the latest scan trained on is
    not trusted (`AdaptationSettings.trust`) or familiar, the source weights label.

    Parameters
    ----------
    segmenter
        Labels the scans.
    how
        Arguments of `load_segmenter` that made it; the network that is trained beside is made of them too.
    make_trainer
        Begins the training beside.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        how: Mapping[str, Any],
        make_trainer: Callable[[Mapping[str, Any]], Trainer] = Trainer,
    ) -> None:
        self._segmenter = segmenter
        self._how = how
        self._make_trainer = make_trainer
        self._trainer: Trainer | None = None
        self._start: Start  # while there is a trainer
        self._starts = 0
        self._last_stamp = 0
        self._skipped = 0
        self.configure(segmenter.settings)

    @property
    def classes(self) -> ClassList:
        """What the labels mean."""
        return self._segmenter.classes

    @property
    def settings(self) -> AdaptationSettings:
        """How frames are adapted to."""
        return self._settings

    def configure(self, settings: AdaptationSettings) -> None:
        """Change how and when to adapt, between two frames (see `Segmenter.configure`).

        Raises
        ------
        TeacherError
            If adaptation is asked for and there is no teacher; nothing is changed then.
        """
        labelling = replace(settings, steps=0, scan_statistics=0.0)  # both come with the weights
        self._segmenter.configure(labelling if settings.in_background else settings)
        self._settings = settings
        if settings.in_background and self._trainer is None:
            self._trainer = self._make_trainer({**self._how, "settings": settings})
        if not settings.in_background:
            self.close()
        self._begin_anew()

    def reset(self) -> None:
        """Go back to the source weights."""
        self._segmenter.reset()
        self._begin_anew()

    def save_weights(self, path: str | Path) -> None:
        """Write the weights that label; see `Segmenter.save_weights`."""
        self._segmenter.save_weights(path)

    def load_weights(self, path: str | Path) -> None:
        """Go on with weights from a file; see `Segmenter.load_weights`."""
        self._segmenter.load_weights(path)
        self._begin_anew()

    def stop(self) -> None:
        """Begin no more gradient steps, the frame in work included; may be called from any thread."""
        self._segmenter.stop()
        if (trainer := self._trainer) is not None:
            trainer.stop()

    def close(self) -> None:
        """End the training beside."""
        trainer, self._trainer = self._trainer, None
        if trainer is not None:
            trainer.close()

    def segment(self, frame: Frame, due: float = math.inf) -> Segmentation:
        """Label a frame's points, after or beside adaptation to it (see `Segmenter.segment`).

        If the frame's stamp is before the last one's by more than `AdaptationSettings.jump_s`, the weights go back to
        the source's first.
        """
        jumped = self._has_jumped(frame.scan.stamp)
        if jumped:
            self.reset()
        trainer = self._trainer
        answer = self._segmenter.segment(frame, due) if trainer is None else self._label(frame, trainer)
        if jumped:
            return replace(answer, adaptation=replace(answer.adaptation, reset_by=TIME_JUMP))
        return answer

    def learn(self, frame: Frame) -> None:
        """Let a frame wait for training in the background, if it has pictures."""
        if self._trainer is not None and frame.views and self._settings.resolved().steps:
            self._skipped += self._trainer.offer(self._start, frame)

    def _has_jumped(self, stamp: int) -> bool:
        settings, last = self._settings, self._last_stamp
        if stamp:
            self._last_stamp = stamp
        return bool(stamp and settings.jump_s and settings.mode == "online" and stamp < last - settings.jump_s * 1e9)

    def _label(self, frame: Frame, trainer: Trainer) -> Segmentation:
        """Label with the newest weights, and let the frame wait for training."""
        trained = self._take_over(trainer)
        answer = self._segmenter.segment(frame)
        if answer.adaptation.reset_by:
            self._begin_anew()
        elif self._settings.resolved().steps:
            self.learn(frame)
            answer = replace(answer, adaptation=self._report(answer.adaptation, trained))
        return replace(answer, adaptation=replace(answer.adaptation, skipped=self._skipped))

    def _report(self, labelled: AdaptationReport, trained: Trained | None) -> AdaptationReport:
        if trained is None:
            return replace(labelled, stopped_by=BESIDE)
        return replace(trained.report, weight_version=labelled.weight_version)

    def _take_over(self, trainer: Trainer) -> Trained | None:
        """Use the newest weights, if some came that began at the latest start."""
        trained = trainer.take()
        if trained is None:
            return None
        if trained.report.stopped_by == DIED:
            self._begin_anew()
            return trained
        if trained.start != self._start.number:
            return None
        report = trained.report
        if report.reset_by or report.stopped_by == FAMILIAR or (report.steps and not report.trusted):
            self._segmenter.reset()
        elif report.steps and trained.weights is not None:
            self._segmenter.take(trained.weights)
        return trained

    def _begin_anew(self) -> None:
        """Let training go on from the weights that label now; what is being trained is of no use any more."""
        if self._trainer is None:
            return
        self._starts += 1
        settings = replace(self._settings, schedule="before")
        self._start = Start(self._starts, settings, self._segmenter.weights())


def load_scheduled(*, settings: AdaptationSettings = AdaptationSettings(), **how: Any) -> ScheduledSegmenter:
    """Load a segmenter of a stream of scans; the parameters are those of `load_segmenter`.

    Where scans are adapted to before they are labelled, it is warmed up (`warm_up`) if there is a deadline, and on a
    GPU, which takes seconds for what it does for the first time.
    """
    segmenter = load_segmenter(settings=settings, **how)
    if not settings.in_background and (settings.deadline_ms or segmenter.device.type == "cuda"):
        warm_up(segmenter)
    return ScheduledSegmenter(segmenter, how)
