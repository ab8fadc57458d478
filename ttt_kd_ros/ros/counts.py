"""What happens to scans and pictures, counted by cause, and how a user mends each cause."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from ttt_kd_ros.frame import AdaptationReport

SCANS = "scans"
ADAPTATION = "adaptation"

RECEIVED = "received"
PUBLISHED = "published"
USED = "used"
SILENCE = "silence"

OVERLOAD = "overload"
NO_STAMP = "no stamp"
EMPTY = "empty"
NOT_DESKEWED = "not deskewed"
MALFORMED = "malformed"
NO_BASE_TRANSFORM = "no base transform"
SEGMENTER = "segmenter"

NO_IMAGE = "no image"
STALE_IMAGE = "stale image"
LATE_IMAGE = "late image"
NO_CAMERA_INFO = "no camera info"
BAD_CAMERA_INFO = "bad camera info"
BAD_IMAGE = "bad image"
PLAIN_IMAGE = "black or blown-out image"
NO_TRANSFORM = "no transform"
EXTRAPOLATION = "extrapolation"

SCAN_CAUSES: Mapping[str, str] = {
    OVERLOAD: "scans come faster than they are answered; lower adaptation.steps or set adaptation.budget_ms",
    NO_STAMP: "clouds have stamp 0 and get no pictures; let their driver stamp them",
    EMPTY: "clouds have no points and are answered as such; check the LiDAR driver",
    NOT_DESKEWED: "points are used as if measured at once; publish the transforms to fixed_frame for the whole scan, "
    "raise transform_wait_ms, or set deskew to false",
    MALFORMED: "clouds cannot be read; mend their publisher",
    NO_BASE_TRANSFORM: "the height over ground is unknown; publish the transform from the scan's frame_id to "
    "base_frame, set base_frame, or raise transform_wait_ms where the transform comes late",
    SEGMENTER: "it could not be computed",
}
CAMERA_CAUSES: Mapping[str, str] = {
    NO_STAMP: "pictures have stamp 0 and belong to no scan; let their driver stamp them",
    NO_IMAGE: "no picture was taken within the camera's tolerance_ms; let camera and LiDAR use one clock, set "
    "time_offset_ms if their stamps differ by a fixed time, or raise tolerance_ms",
    STALE_IMAGE: "the newest picture is more than a second older than the scan; look whether the camera still sends, "
    "let camera and LiDAR use one clock, or set time_offset_ms if their stamps differ by a fixed time",
    LATE_IMAGE: "pictures arrive after their scan had to go on; raise image_wait_ms",
    NO_CAMERA_INFO: "nothing has arrived on the camera's info_topic; publish a CameraInfo there or set info_topic; one "
    "that is published only once needs qos_overrides.<info_topic>.subscription.durability: transient_local",
    BAD_CAMERA_INFO: "the CameraInfo cannot be used; publish a calibrated one",
    BAD_IMAGE: "pictures cannot be read; mend their publisher or set the camera's transport",
    PLAIN_IMAGE: "pictures show nothing; look at lens, exposure and driver, or raise max_plain_share",
    NO_TRANSFORM: "the camera's frame_id is not connected with the scan's; publish the transform between them",
    EXTRAPOLATION: "transforms are not known at the time of the picture or scan; publish them more often, or raise "
    "transform_wait_ms",
}
ADAPTATION_CAUSES: Mapping[str, str] = {
    "not finite": "the steps were undone; lower adaptation.learning_rate",
    "out of memory": "the GPU's memory does not suffice; choose a smaller adaptation.scope or fewer pictures",
    "collapse": "the adapted weights gave nearly all points one label, so the source weights are back; lower "
    "adaptation.learning_rate or steps",
    "disagreement": "the adapted weights changed too many labels, so the source weights are back; lower "
    "adaptation.learning_rate or steps, or raise adaptation.disagreement_share",
    "time jump": "stamps went back, so the source weights are back; set adaptation.jump_s to 0 to keep others",
    "trainer died": "the process that trains in the background ended and is started again; look at its last words in "
    "the log and at the memory that is left",
}
ANSWERED = frozenset({NO_STAMP, EMPTY, NOT_DESKEWED})
"""Causes for which a scan is answered nonetheless."""
SILENCE_MEND = (
    "check the topic's name and type, that its publisher runs and, if it sends big messages with Fast DDS, that it has "
    "the profile config/fastdds.xml"
)
ERRORS = frozenset({NO_BASE_TRANSFORM, SEGMENTER})


def camera_subject(camera: str) -> str:
    """Under which subject a camera's pictures are counted."""
    return f"camera {camera}"


@dataclass(frozen=True)
class Snapshot:
    """Counts at one moment.

    Parameters
    ----------
    counts
        How often each event happened to each subject.
    details
        What was said about it the last time.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    details: Mapping[tuple[str, str], str] = field(default_factory=dict)


class Counts:
    """How often which event happened to which subject; may be used from several threads."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._details: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def add(self, subject: str, event: str, detail: str = "") -> None:
        """Count an event; `detail` says more about it."""
        with self._lock:
            self._counts[subject, event] += 1
            if detail:
                self._details[subject, event] = detail

    def move(self, subject: str, event: str, to: str) -> None:
        """Count as `to` what was counted as `event`."""
        with self._lock:
            self._counts[subject, event] -= 1
            self._counts[subject, to] += 1

    def snapshot(self) -> Snapshot:
        """The counts at this moment."""
        with self._lock:
            return Snapshot(self._counts.copy(), self._details.copy())


class Level(IntEnum):
    """Levels of ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Status:
    """How one subject fares.

    Parameters
    ----------
    subject
        ``scans``, ``adaptation``, ``camera <name>`` or ``qos``.
    level
        The worst of what happened lately.
    causes
        What went wrong lately.
    message
        The same in words, with how to mend it.
    counts
        Total of each event.
    """

    subject: str
    level: Level
    causes: tuple[str, ...]
    message: str
    counts: Mapping[str, int]


def status(subject: str, topic: str, now: Snapshot, before: Snapshot, long_before: Snapshot) -> Status:
    """State of one subject between two snapshots.

    Parameters
    ----------
    subject
        `SCANS` or a `camera_subject`.
    topic
        Where its messages come from.
    now, before
        Snapshots of `Counts`.
    long_before
        An older one: what has not come since then does not come.
    """
    mends, done = (SCAN_CAUSES, PUBLISHED) if subject == SCANS else (CAMERA_CAUSES, USED)
    totals = {event: now.counts[subject, event] for event in (RECEIVED, done, *mends)}
    recent = {event: total - before.counts[subject, event] for event, total in totals.items()}
    causes = tuple(cause for cause in mends if recent[cause] > 0)
    texts = [_text(cause, recent[cause], mends[cause], now.details.get((subject, cause), "")) for cause in causes]
    if totals[RECEIVED] == long_before.counts[subject, RECEIVED]:
        causes = (SILENCE, *causes)
        texts.insert(0, f"nothing arrives; {SILENCE_MEND}")
    message = f"{topic}: {'; '.join(texts)}" if texts else f"{recent[done]} {done}"
    return Status(subject, _worst(causes), causes, message, totals)


def count_adaptation(counts: Counts, report: AdaptationReport) -> None:
    """Count what test-time training did on a scan."""
    if report.steps:
        counts.add(ADAPTATION, USED)
    for cause in ADAPTATION_CAUSES.keys() & {report.stopped_by, report.reset_by}:
        counts.add(ADAPTATION, cause)


def adaptation_status(now: Snapshot, before: Snapshot) -> Status:
    """How adaptation fared between two snapshots of `Counts`."""
    totals = {event: now.counts[ADAPTATION, event] for event in (USED, *ADAPTATION_CAUSES)}
    recent = {event: total - before.counts[ADAPTATION, event] for event, total in totals.items()}
    causes = tuple(cause for cause in ADAPTATION_CAUSES if recent[cause])
    message = "; ".join(_text(cause, recent[cause], ADAPTATION_CAUSES[cause], "") for cause in causes)
    return Status(ADAPTATION, _worst(causes), causes, message or f"{recent[USED]} used", totals)


def _text(cause: str, times: int, mend: str, detail: str) -> str:
    return f"{times} x {cause}: {mend}" + (f" ({detail})" if detail else "")


def _worst(causes: Collection[str]) -> Level:
    if not causes:
        return Level.OK
    return Level.ERROR if ERRORS.intersection(causes) else Level.WARN
