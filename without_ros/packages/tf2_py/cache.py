"""What is known of one frame: its parent and its pose in it, over time."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from tf2_py.exceptions import ExtrapolationException
from tf2_py.pose import Pose, interpolate


class Link(NamedTuple):
    """A parent frame and the pose in it."""

    parent: str
    pose: Pose


class StaticCache:
    """One link for all times."""

    latest_stamp = 0

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def latest(self) -> Link | None:
        """The link."""
        return self._link

    def at(self, stamp: int) -> Link:
        """Return the link, whatever the time."""
        return self._link

    def clear(self) -> None:
        """Keep the link: what is static survives."""


class TimeCache:
    """Links in order of time [ns], none older than `length` before the newest."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._stamps: list[int] = []
        self._links: list[Link] = []

    @property
    def latest(self) -> Link | None:
        """The newest link, None if there is none."""
        return self._links[-1] if self._links else None

    @property
    def latest_stamp(self) -> int:
        """Time of the newest link, 0 if there is none."""
        return self._stamps[-1] if self._stamps else 0

    def insert(self, stamp: int, link: Link) -> bool:
        """Store a link; False if it is older than the cache is long."""
        oldest = self.latest_stamp - self._length
        expired = bisect_right(self._stamps, oldest - 1)
        del self._stamps[:expired], self._links[:expired]
        if self._stamps and stamp < oldest:
            return False
        position = bisect_right(self._stamps, stamp)
        self._stamps.insert(position, stamp)
        self._links.insert(position, link)
        return True

    def at(self, stamp: int) -> Link:
        """Link at a time, interpolated between its neighbours; across a change of parent the older one."""
        if not self._stamps or (len(self._stamps) == 1 and stamp != self._stamps[0]):
            raise ExtrapolationException(
                f"Lookup would require extrapolation at time {seconds(stamp)}, "
                f"but only time {seconds(self.latest_stamp)} is in the buffer"
            )
        earliest, latest = self._stamps[0], self._stamps[-1]
        if stamp > latest:
            raise ExtrapolationException(
                f"Lookup would require extrapolation into the future.  Requested time {seconds(stamp)} "
                f"but the latest data is at time {seconds(latest)}"
            )
        if stamp < earliest:
            raise ExtrapolationException(
                f"Lookup would require extrapolation into the past.  Requested time {seconds(stamp)} "
                f"but the earliest data is at time {seconds(earliest)}"
            )
        return self._between(stamp)

    def _between(self, stamp: int) -> Link:
        index = bisect_right(self._stamps, stamp) - 1
        older, since = self._links[index], self._stamps[index]
        if stamp == since or self._links[index + 1].parent != older.parent:
            return older
        ratio = (stamp - since) / (self._stamps[index + 1] - since)
        return Link(older.parent, interpolate(older.pose, self._links[index + 1].pose, ratio))

    def clear(self) -> None:
        """Forget all links; the frame itself stays known."""
        self._stamps.clear()
        self._links.clear()


def seconds(stamp: int) -> str:
    """Time in seconds as tf2 prints it."""
    return f"{stamp / 1e9:.6f}"
