"""Passes of the online method over a recording, and what protects the network in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.frame import IGNORE_LABEL, Frame
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.segmenter import Segmenter
from ttt_kd_ros.teacher.load import Teacher

Progress = Callable[[Iterable[Frame], str], Iterable[Frame]]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class FitSettings:
    """How a network is fitted.

    Parameters
    ----------
    adaptation
        The steps on each scan; the mode is ``online``, and the batch norms keep the statistics of training, because a
        checkpoint is for more than the last scan. Familiar scans are adapted to like others. The weights are pulled to
        the source's more weakly than on a robot: there are many steps, and a pass that goes too far is undone.
    passes
        How often the recording is gone through.
    min_agreement
        A pass in which a smaller share of the points has the source model's label, or in which the weights went back to
        the source's (`AdaptationSettings.collapse_share`), is undone and ends the fit.
    """

    adaptation: AdaptationSettings = AdaptationSettings(scan_statistics=0, familiar=0, pull=0.01)
    passes: int = 3
    min_agreement: float = 0.7

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise InputError(f"passes is {self.passes}; at least one is needed")
        if not 0 <= self.min_agreement <= 1:
            raise InputError(f"min_agreement is {self.min_agreement:g}; it is a share, 0 to 1")
        if self.adaptation.mode != "online":
            raise InputError(f"a fit adapts online, not {self.adaptation.mode}")
        if not self.adaptation.resolved().steps:
            raise InputError("a fit takes steps; steps is 0, at least one is needed, or -1 for the scope's own")
        if self.adaptation.scan_statistics:
            raise InputError("a fit keeps the statistics of training; set scan_statistics to 0")
        if self.adaptation.familiar:
            raise InputError("a fit adapts to every scan; set familiar to 0")


@dataclass(frozen=True)
class Survey:
    """What the source model makes of each scan.

    Parameters
    ----------
    labels
        Labels of each scan.
    paired
        Whether enough points are in a picture.
    trusted
        Whether, beside that, the image features can be predicted (`AdaptationSettings.trust`).
    """

    labels: Sequence[Labels]
    paired: Sequence[bool]
    trusted: Sequence[bool]


@dataclass(frozen=True)
class Pass:
    """One time through the recording.

    Parameters
    ----------
    steps
        Gradient steps in all.
    kd_loss_begin, kd_loss_end
        Distillation loss before the first and after the last step on a scan, mean over the scans.
    agreement
        Share of the points that have the source model's label after the steps on their scan, mean over the scans.
    undone_by
        Why the weights are those from before the pass: ``agreement``, or what sent them back to the source's; empty if
        they were kept.
    """

    steps: int
    kd_loss_begin: float
    kd_loss_end: float
    agreement: float
    undone_by: str = ""

    @property
    def kept(self) -> bool:
        """Whether the weights of this pass were kept."""
        return not self.undone_by


def survey(segmenter: Segmenter, frames: Iterable[Frame]) -> Survey:
    """Label every scan with the weights as they are and see which ones the network can be fitted to.

    Raises
    ------
    DataError
        If there is none: no scan, no pairs, or none that is trusted.
    """
    answers = [segmenter.segment_after(frame, (0,))[0] for frame in frames]
    paired = [answer.adaptation.stopped_by == "steps" for answer in answers]
    trusted = [there and answer.adaptation.trusted for there, answer in zip(paired, answers, strict=True)]
    settings = segmenter.settings
    if not any(paired):
        raise DataError(
            f"none of the {len(answers)} scans has {settings.min_pairs} points in a picture, which a fit needs; check "
            "that the recording has pictures, their calibration and the transforms to the LiDAR"
        )
    if not any(trusted):
        raise DataError(
            f"none of the {sum(paired)} scans with pictures is trusted: the checkpoint predicts the image features "
            f"with less than {settings.trust:g} of the cosine that it had in training; train with pictures of such "
            "places, or set the trust to 0 to fit all the same"
        )
    return Survey([answer.labels for answer in answers], paired, trusted)


def fit(
    network: Network,
    teacher: Teacher,
    frames: Iterable[Frame],
    settings: FitSettings,
    training: Mapping[str, Any],
    progress: Progress,
) -> tuple[Survey, list[Pass]]:
    """Fit a network in place.

    Steps are taken on trusted scans alone: weights that are written to a checkpoint label everything, also what no
    camera sees.

    Parameters
    ----------
    network, teacher
        On one device.
    frames
        The recording; can be gone through again and again.
    settings
        How to fit.
    training
        How the network was trained, as its checkpoint's manifest says.
    progress
        Wraps the frames with a title, such as a progress bar.

    Raises
    ------
    DataError
        If there is no scan to fit to (see `survey`).
    """
    segmenter = Segmenter(network, teacher, settings.adaptation, training=training)
    source = survey(segmenter, progress(frames, "source model"))
    passes: list[Pass] = []
    for number in range(1, settings.passes + 1):
        before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
        done = _pass(segmenter, progress(frames, f"pass {number} of {settings.passes}"), source)
        too_far = not done.undone_by and done.agreement < settings.min_agreement
        passes.append(replace(done, undone_by="agreement") if too_far else done)
        if not passes[-1].kept:
            network.backbone.load_state_dict(before)
            break
    return source, passes


def _pass(segmenter: Segmenter, frames: Iterable[Frame], source: Survey) -> Pass:
    steps, losses, agreement, reset_by = 0, [], [], ""
    for frame, labels, trusted in zip(frames, source.labels, source.trusted, strict=True):
        if not trusted:
            continue
        answer = segmenter.segment(frame)
        valid = labels != IGNORE_LABEL
        agreement.append(float((answer.labels == labels)[valid].mean()))
        steps += answer.adaptation.steps
        reset_by = reset_by or answer.adaptation.reset_by
        if answer.adaptation.steps:
            losses.append((answer.adaptation.kd_losses[0], answer.adaptation.kd_losses[-1]))
    begin, end = np.mean(losses or [(math.nan, math.nan)], axis=0).tolist()
    return Pass(steps, begin, end, float(np.mean(agreement)), reset_by)
