"""Which pictures belong to which scan, and which scan comes next."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ttt_kd_ros.ros.counts import LATE_IMAGE, NO_IMAGE, OVERLOAD, RECEIVED, SCANS, Counts, camera_subject

ScanT = TypeVar("ScanT")
PictureT = TypeVar("PictureT")

PICTURES_KEPT = 16
SCANS_KEPT = 32


@dataclass(frozen=True)
class Picture(Generic[PictureT]):
    """A picture and its stamp [ns]."""

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
    """

    stamp: int
    scan: ScanT
    pictures: Mapping[str, Picture[PictureT]]
    arrival: int


@dataclass(eq=False)
class _Waiting(Generic[ScanT, PictureT]):
    stamp: int
    scan: ScanT
    arrival: int
    pictures: dict[str, Picture[PictureT]] = field(default_factory=dict)


class Collector(Generic[ScanT, PictureT]):
    """Collects scans and pictures from callbacks and hands jobs to one worker.

    The scan is the clock: it goes on as soon as no camera can have a better picture for it any more, which is once
    a picture taken at or after the scan has arrived (a camera's pictures arrive in the order of their stamps), or
    when it has waited long enough. Ready scans are taken in turn; those that still lie there when newer ones become
    ready while the worker is busy are dropped as overload. Memory is bounded by `PICTURES_KEPT` pictures for each
    camera and `SCANS_KEPT` waiting scans.

    Parameters
    ----------
    tolerances
        How far apart the stamps of a scan and its picture may be, for each camera [ns].
    wait
        How long a scan waits for its pictures [ns].
    counts
        Receives what happened.
    clock
        Monotonic [ns].
    """

    def __init__(
        self,
        tolerances: Mapping[str, int],
        wait: int,
        counts: Counts,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._tolerances = dict(tolerances)
        self._wait = wait
        self._counts = counts
        self._clock = clock
        self._pictures: dict[str, deque[Picture[PictureT]]] = {c: deque(maxlen=PICTURES_KEPT) for c in tolerances}
        self._gone_without: dict[str, deque[int]] = {c: deque(maxlen=SCANS_KEPT) for c in tolerances}
        self._waiting: deque[_Waiting[ScanT, PictureT]] = deque()
        self._ready: deque[_Waiting[ScanT, PictureT]] = deque()
        self._idle = False
        self._closed = False
        self._changed = threading.Condition()

    def configure(self, tolerances: Mapping[str, int], wait: int) -> None:
        """Change tolerances and waiting time; the cameras stay the same."""
        with self._changed:
            self._tolerances = dict(tolerances)
            self._wait = wait
            self._changed.notify()

    def add_scan(self, stamp: int, scan: ScanT) -> None:
        """Take in a scan."""
        self._counts.add(SCANS, RECEIVED)
        with self._changed:
            self._drop(self._waiting, SCANS_KEPT - 1)
            self._waiting.append(_Waiting(stamp, scan, self._clock()))
            self._settle()
            self._changed.notify()

    def add_picture(self, camera: str, stamp: int, picture: PictureT) -> None:
        """Take in a picture of one of the cameras."""
        self._counts.add(camera_subject(camera), RECEIVED)
        with self._changed:
            self._pictures[camera].append(Picture(stamp, picture))
            self._settle()
            self._note_late(camera, stamp)
            self._changed.notify()

    def take(self) -> Job[ScanT, PictureT] | None:
        """The next job if there is one now."""
        with self._changed:
            return self._take()

    def wait(self) -> Job[ScanT, PictureT] | None:
        """Wait for the next job; None once the collector is closed."""
        with self._changed:
            while not self._closed:
                job = self._take()
                if job is not None:
                    return job
                self._changed.wait(self._seconds_to_deadline())
            return None

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
        for camera in self._pictures.keys() - scan.pictures.keys():
            self._counts.add(camera_subject(camera), NO_IMAGE)
            self._gone_without[camera].append(scan.stamp)
        return Job(scan.stamp, scan.scan, scan.pictures, scan.arrival)

    def _settle(self) -> None:
        """Move the scans that need not or may not wait any longer."""
        now = self._clock()
        while self._waiting and self._waiting[0].arrival + self._wait <= now:
            self._hand_over([self._waiting.popleft()])
        decided = [scan for scan in self._waiting if self._is_decided(scan.stamp)]
        if decided:
            self._waiting = deque(scan for scan in self._waiting if scan not in decided)
            self._hand_over(decided)

    def _hand_over(self, scans: Iterable[_Waiting[ScanT, PictureT]]) -> None:
        self._drop(self._ready, SCANS_KEPT if self._idle else 0)
        for scan in scans:
            self._match(scan)
            self._ready.append(scan)

    def _drop(self, queue: deque[_Waiting[ScanT, PictureT]], keep: int) -> None:
        while len(queue) > keep:
            queue.popleft()
            self._counts.add(SCANS, OVERLOAD)

    def _is_decided(self, stamp: int) -> bool:
        return all(pictures and pictures[-1].stamp >= stamp for pictures in self._pictures.values())

    def _match(self, scan: _Waiting[ScanT, PictureT]) -> None:
        """Give the scan the nearest picture of each camera that has none for it yet."""
        for camera in self._pictures.keys() - scan.pictures.keys():
            picture = self._nearest(camera, scan.stamp)
            if picture is not None:
                scan.pictures[camera] = picture

    def _nearest(self, camera: str, stamp: int) -> Picture[PictureT] | None:
        latest_first = reversed(self._pictures[camera])
        nearest = min(latest_first, key=lambda picture: abs(picture.stamp - stamp), default=None)
        return nearest if nearest is not None and self._is_near(camera, nearest.stamp, stamp) else None

    def _is_near(self, camera: str, picture_stamp: int, scan_stamp: int) -> bool:
        return abs(picture_stamp - scan_stamp) <= self._tolerances[camera]

    def _note_late(self, camera: str, stamp: int) -> None:
        gone = self._gone_without[camera]
        for scan_stamp in [s for s in gone if self._is_near(camera, stamp, s)]:
            gone.remove(scan_stamp)
            self._counts.move(camera_subject(camera), NO_IMAGE, LATE_IMAGE)

    def _seconds_to_deadline(self) -> float | None:
        if not self._waiting:
            return None
        return max(0, self._waiting[0].arrival + self._wait - self._clock()) / 1e9
