"""A bag through the segmenter in this process: the same bag and settings give the same labels."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.data.folder import require_unused
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.output import claim
from ttt_kd_ros.replay.bag import open_bag
from ttt_kd_ros.replay.frames import BagFrames
from ttt_kd_ros.replay.result import NODE_BAG, Result, Scores, write_result
from ttt_kd_ros.replay.settings import Plan
from ttt_kd_ros.replay.tally import DROP_CAUSES, UNANSWERED
from ttt_kd_ros.ros.counts import CAMERA_CAUSES, RECEIVED, SCANS, USED, Counts, Snapshot, camera_subject
from ttt_kd_ros.segmenter import Segmenter, load_segmenter

SEED = 0


def replay_in_process(what: Plan, stamps: Collection[int] | None = None) -> Result:
    """Segment every scan of a bag in its order, without middleware and dropping.

    A scan gets the nearest picture of the whole bag within each camera's tolerance, and all transforms are known. On
    the CPU the labels are the same whenever bag, settings and versions of the programs are; on other devices as far as
    torch has deterministic operations for them.

    Parameters
    ----------
    what
        What is replayed; the rate has no meaning here.
    stamps
        Scans to segment [ns]; None for all.

    Raises
    ------
    InputError
        If bag or checkpoint cannot be read, the outcome would not be the same each time, or the output directory holds
        what a node has answered.
    OSError
        If nothing can be written to the output directory; before the work.
    """
    out, node = what.settings.out, what.node_settings
    _check_repeatable(node.adaptation)
    if out:
        require_unused(out / NODE_BAG)
        claim(out)
    with _deterministic():
        segmenter = load_segmenter(**node.loading)
        result = _segment(what, segmenter, stamps)
    if out:
        how = {"in_process": True, "seed": SEED, "parameters": dict(what.parameters)}
        write_result(out, result, what.bag, how)
    return result


def _check_repeatable(settings: AdaptationSettings) -> None:
    if settings.mode == "off":
        return
    for name in ("budget_ms", "deadline_ms"):
        if value := getattr(settings, name):
            raise InputError(
                f"parameter 'adaptation.{name}' is {value:g}: how many steps fit into it is not the same each time; "
                "leave it 0 in process and bound the steps with adaptation.steps"
            )
    if settings.in_background:
        raise InputError(
            "parameter 'adaptation.schedule' is background: which scans are trained on is not the same each time; set "
            "it to before in process"
        )


def _segment(what: Plan, segmenter: Segmenter, stamps: Collection[int] | None) -> Result:
    counts = Counts()
    scores = Scores(what.classes, has_truth=bool(what.layout.ground_truth_topic))
    with open_bag(what.bag) as reader:
        for stamp, frame in BagFrames(reader, what.layout, what.node_settings, counts)(stamps):
            if frame is None:
                continue
            start = time.monotonic()
            segmentation = segmenter.segment(frame)
            latency_ms = (time.monotonic() - start) * 1e3
            if frame.labels is not None:
                scores.truth(stamp, frame.labels)
            if segmentation.adaptation.kd_losses:
                scores.losses(stamp, segmentation.adaptation.kd_losses)
            scores.answer(stamp, segmentation.labels, latency_ms)
    return _result(what, scores, counts.snapshot())


def _result(what: Plan, scores: Scores, now: Snapshot) -> Result:
    dropped = {cause: now.counts[SCANS, cause] for cause in DROP_CAUSES} | {UNANSWERED: 0}
    pictures = {
        camera.name: {e: now.counts[camera_subject(camera.name), e] for e in (RECEIVED, USED, *CAMERA_CAUSES)}
        for camera in what.node_settings.cameras
    }
    return scores.result(now.counts[SCANS, RECEIVED], dropped, pictures)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Fixed seed and deterministic operations, and torch as it was afterwards."""
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was, warn_only=warned)
