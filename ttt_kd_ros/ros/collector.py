"""Which pictures belong to which scan, and which scan comes next."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ttt_kd_ros.ros.counts import (
    LATE_IMAGE,
    NO_IMAGE,
    NO_STAMP,
    OVERLOAD,
    RECEIVED,
    SCANS,
    STALE_IMAGE,
    Counts,
    camera_subject,
)

ScanT = TypeVar("ScanT")
PictureT = TypeVar("PictureT")

PICTURES_KEPT = 16
SCANS_KEPT = 32
SCANS_IN_VAIN = 10
"""After so many scans in a row without a picture in time, scans do not wait for the camera."""
STALE_NS = 1_000_000_000


@dataclass(frozen=True)
class Timing:
    """How the stamps of one camera's pictures relate to those of the scans.

    Parameters
    ----------
    tolerance
        How far apart the stamps of a scan and its picture may be [ns].
    offset
        Added to the stamps of the pictures [ns].
    """

    tolerance: int
    offset: int = 0


@dataclass(frozen=True)
class Picture(Generic[PictureT]):
    """A picture and when it was taken [ns]: its stamp and the camera's offset."""

    stamp: int
    message: PictureT


@dataclass(frozen=True)
class Job(Generic[ScanT, PictureT]):
    """A scan with the pictures that belong to it.

    Parameters
    ----------
    stamp
        Of the scan [ns].
    scan
        The scan's message.
    pictures
        By the camera's name; a camera without a picture for this scan is absent.
    arrival
        When the scan was received, on the collector's clock [ns].
    origin
        What the collector knows the scan by.
    """

    stamp: int
    scan: ScanT
    pictures: Mapping[str, Picture[PictureT]]
    arrival: int
    origin: CollectedScan[ScanT, PictureT] | None = None


@dataclass(eq=False)
class CollectedScan(Generic[ScanT, PictureT]):
    """A scan and the nearest pictures so far; the collector's own."""

    stamp: int
    scan: ScanT
    arrival: int
    pictures: dict[str, Picture[PictureT]] = field(default_factory=dict)


@dataclass(frozen=True)
class _GoneWithout:
    """A scan that went on without a picture of a camera, and why."""

    stamp: int
    arrival: int
    cause: str


class Collector(Generic[ScanT, PictureT]):
    """Collects scans and pictures from callbacks and hands jobs to one worker.

    The scan is the clock: it goes on as soon as no camera can have a better picture for it any more, which is once
    a picture taken at or after the scan has arrived (a camera's pictures arrive in the order of their stamps), or
    when it has waited long enough. A camera for which `SCANS_IN_VAIN` scans in a row have waited in vain, because it is
    dead, late or has another clock, is not waited for until a picture comes in time again.

    Where scans go on at once, they do so with the pictures that are there; `pictures` tells those that belong to them
    when they have come. Whoever holds a job holds its scan's pictures: they get nearer as they come.

    Ready scans are taken in turn; those that still lie there when newer ones become ready while the worker is busy are
    dropped as overload. Memory is bounded by `PICTURES_KEPT` pictures for each camera and `SCANS_KEPT` waiting scans.

    Parameters
    ----------
    timings
        Of each camera.
    wait
        How long a scan waits for its pictures [ns].
    counts
        Receives what happened.
    clock
        Monotonic [ns].
    at_once
        Whether scans go on at once.
    """

    def __init__(
        self,
        timings: Mapping[str, Timing],
        wait: int,
        counts: Counts,
        clock: Callable[[], int] = time.monotonic_ns,
        at_once: bool = False,
    ) -> None:
        self._timings = dict(timings)
        self._wait = wait
        self._at_once = at_once
        self._counts = counts
        self._clock = clock
        self._pictures: dict[str, deque[Picture[PictureT]]] = {c: deque(maxlen=PICTURES_KEPT) for c in timings}
        self._gone_without: dict[str, deque[_GoneWithout]] = {c: deque(maxlen=SCANS_KEPT) for c in timings}
        self._in_vain = dict.fromkeys(timings, 0)
        self._waiting: deque[CollectedScan[ScanT, PictureT]] = deque()
        self._ready: deque[CollectedScan[ScanT, PictureT]] = deque()
        self._held: weakref.WeakSet[CollectedScan[ScanT, PictureT]] = weakref.WeakSet()
        self._longest_wait = math.inf
        self._idle = False
        self._closed = False
        self._changed = threading.Condition()

    def configure(self, timings: Mapping[str, Timing], wait: int, at_once: bool = False) -> None:
        """Change what scans wait for; the cameras stay the same, and all of them are waited for again.

        An offset holds for the pictures that come from now on.
        """
        with self._changed:
            self._timings = dict(timings)
            self._wait = wait
            self._at_once = at_once
            self._in_vain = dict.fromkeys(timings, 0)
            self._changed.notify()

    def limit_wait(self, wait: float) -> None:
        """Let scans wait no longer than this [ns], however long is configured: they would be late."""
        with self._changed:
            self._longest_wait = wait
            self._changed.notify()

    def forget_pictures(self, after: int) -> None:
        """Know none of the pictures taken after this [ns]: they are of a time from which the stamps went back."""
        with self._changed:
            for camera, pictures in self._pictures.items():
                kept = [picture for picture in pictures if picture.stamp <= after]
                self._pictures[camera] = deque(kept, maxlen=PICTURES_KEPT)
                self._gone_without[camera].clear()

    def add_scan(self, stamp: int, scan: ScanT) -> None:
        """Take in a scan."""
        self._counts.add(SCANS, RECEIVED)
        if not stamp:
            self._counts.add(SCANS, NO_STAMP)
        with self._changed:
            self._drop(self._waiting, SCANS_KEPT - 1)
            collected: CollectedScan[ScanT, PictureT] = CollectedScan(stamp, scan, self._clock())
            self._match(collected)
            self._held.add(collected)
            self._waiting.append(collected)
            self._settle()
            self._changed.notify()

    def add_picture(self, camera: str, stamp: int, picture: PictureT) -> None:
        """Take in a picture of one of the cameras; one without a stamp belongs to no scan."""
        self._counts.add(camera_subject(camera), RECEIVED)
        if not stamp:
            self._counts.add(camera_subject(camera), NO_STAMP)
            return
        with self._changed:
            taken = stamp + self._timings[camera].offset
            self._pictures[camera].append(Picture(taken, picture))
            self._offer(camera, self._pictures[camera][-1])
            self._settle()
            self._note_late(camera, taken)
            self._changed.notify()

    def take(self) -> Job[ScanT, PictureT] | None:
        """The next job if there is one now."""
        with self._changed:
            return self._take()

    def pictures(self, job: Job[ScanT, PictureT]) -> Mapping[str, Picture[PictureT]] | None:
        """The pictures that belong to the scan of a job that went on at once; None while better ones can still come."""
        with self._changed:
            scan = job.origin
            if scan is None:
                return job.pictures
            if scan.arrival + self._patience > self._clock() and not self._is_decided(scan.stamp):
                return None
            self._note_whether_in_vain(scan)
            return dict(scan.pictures)

    def wait(self) -> Job[ScanT, PictureT] | None:
        """Wait for the next job; None once the collector is closed."""
        with self._changed:
            while not self._closed:
                job = self._take()
                if job is not None:
                    return job
                self._changed.wait(self._seconds_to_deadline())
            return None

    def is_idle(self) -> bool:
        """Whether the worker waits for a job."""
        with self._changed:
            return self._idle

    def close(self) -> None:
        """End the waiting for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self) -> Job[ScanT, PictureT] | None:
        self._settle()
        self._idle = not self._ready
        if self._idle:
            return None
        scan = self._ready.popleft()
        self._match(scan)
        if not self._at_once:
            self._note_whether_in_vain(scan)
        return Job(scan.stamp, scan.scan, dict(scan.pictures), scan.arrival, scan)

    @property
    def _patience(self) -> float:
        """How long a scan waits for its pictures [ns]."""
        return min(self._wait, self._longest_wait)

    def _settle(self) -> None:
        """Move the scans that need not or may not wait any longer."""
        now = self._clock()
        while self._waiting and self._waiting[0].arrival + self._patience <= now:
            self._hand_over([self._waiting.popleft()])
        decided = [scan for scan in self._waiting if self._at_once or self._is_decided(scan.stamp)]
        if decided:
            self._waiting = deque(scan for scan in self._waiting if scan not in decided)
            self._hand_over(decided)

    def _hand_over(self, scans: Iterable[CollectedScan[ScanT, PictureT]]) -> None:
        self._drop(self._ready, SCANS_KEPT if self._idle else 0)
        for scan in scans:
            self._match(scan)
            self._ready.append(scan)

    def _drop(self, queue: deque[CollectedScan[ScanT, PictureT]], keep: int) -> None:
        while len(queue) > keep:
            queue.popleft()
            self._counts.add(SCANS, OVERLOAD)

    def _is_decided(self, stamp: int) -> bool:
        return all(
            self._in_vain[camera] >= SCANS_IN_VAIN or (pictures and pictures[-1].stamp >= stamp)
            for camera, pictures in self._pictures.items()
        )

    def _match(self, scan: CollectedScan[ScanT, PictureT]) -> None:
        """Give the scan the nearest picture of each camera that has none for it yet."""
        for camera in self._pictures.keys() - scan.pictures.keys():
            picture = self._nearest(camera, scan.stamp)
            if picture is not None:
                scan.pictures[camera] = picture

    def _offer(self, camera: str, picture: Picture[PictureT]) -> None:
        """Give a new picture to the scans that have no nearer one of its camera."""
        for scan in self._held:
            nearest = scan.pictures.get(camera)
            if self._is_near(camera, picture.stamp, scan.stamp) and (
                nearest is None or abs(picture.stamp - scan.stamp) <= abs(nearest.stamp - scan.stamp)
            ):
                scan.pictures[camera] = picture

    def _nearest(self, camera: str, stamp: int) -> Picture[PictureT] | None:
        latest_first = reversed(self._pictures[camera])
        nearest = min(latest_first, key=lambda picture: abs(picture.stamp - stamp), default=None)
        return nearest if nearest is not None and self._is_near(camera, nearest.stamp, stamp) else None

    def _is_near(self, camera: str, picture_stamp: int, scan_stamp: int) -> bool:
        return abs(picture_stamp - scan_stamp) <= self._timings[camera].tolerance

    def _note_whether_in_vain(self, scan: CollectedScan[ScanT, PictureT]) -> None:
        for camera in self._pictures:
            if camera in scan.pictures:
                self._in_vain[camera] = 0
                continue
            self._in_vain[camera] += 1
            cause, detail = self._why_without(camera, scan.stamp)
            self._counts.add(camera_subject(camera), cause, detail)
            self._gone_without[camera].append(_GoneWithout(scan.stamp, scan.arrival, cause))

    def _why_without(self, camera: str, stamp: int) -> tuple[str, str]:
        pictures = self._pictures[camera]
        if not pictures:
            return NO_IMAGE, "none has come yet"
        if stamp - pictures[-1].stamp > STALE_NS:
            return STALE_IMAGE, f"the newest is {(stamp - pictures[-1].stamp) / 1e9:,.1f} s older than its scan"
        distance = min((picture.stamp - stamp for picture in pictures), key=abs)
        return (
            NO_IMAGE,
            f"the nearest is {abs(distance) / 1e6:,.0f} ms {'after' if distance > 0 else 'before'} its scan",
        )

    def _note_late(self, camera: str, stamp: int) -> None:
        """Count the scans that went on without this picture as such; wait for a camera that would have been in time."""
        gone = self._gone_without[camera]
        for scan in [s for s in gone if self._is_near(camera, stamp, s.stamp)]:
            gone.remove(scan)
            self._counts.move(camera_subject(camera), scan.cause, LATE_IMAGE)
            if self._clock() - scan.arrival <= self._patience:
                self._in_vain[camera] = 0

    def _seconds_to_deadline(self) -> float | None:
        if not self._waiting:
            return None
        return max(0, self._waiting[0].arrival + self._patience - self._clock()) / 1e9
