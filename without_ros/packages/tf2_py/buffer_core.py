"""The transform tree."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.logging import get_logger
from rclpy.time import Time

from tf2_py.cache import Link, StaticCache, TimeCache, seconds
from tf2_py.exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
)
from tf2_py.pose import IDENTITY, Pose, compose, inverse, normalized

DEFAULT_CACHE_NS = 10_000_000_000
MAX_GRAPH_DEPTH = 1000


class BufferCore:
    """Frames and the links between them; safe to use from several threads.

    Parameters
    ----------
    cache_time
        How long links are kept (`rclpy.duration.Duration`), 10 s if not given.
    """

    def __init__(self, cache_time: Any = None) -> None:
        self._cache_ns = DEFAULT_CACHE_NS if cache_time is None else _nanoseconds(cache_time)
        self._caches: dict[str, TimeCache | StaticCache] = {}
        self._frames: set[str] = set()
        self._changed = threading.Condition()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Store a link that is valid at its stamp; what cannot be stored is reported to the log."""
        link = _checked_link(transform, authority)
        if link is None:
            return
        child, stamp = _strip(transform.child_frame_id), _nanoseconds(transform.header.stamp)
        with self._changed:
            cache = self._caches.get(child)
            if not isinstance(cache, TimeCache):
                cache = self._caches[child] = TimeCache(self._cache_ns)
            self._frames.update((child, link.parent))
            stored = cache.insert(stamp, link)
            self._changed.notify_all()
        if not stored:
            get_logger("tf2").warning(
                f"TF_OLD_DATA ignoring data from the past for frame {child} at time {seconds(stamp)} "
                f"according to authority {authority}"
            )

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Store a link that is valid at all times."""
        link = _checked_link(transform, authority)
        if link is None:
            return
        child = _strip(transform.child_frame_id)
        with self._changed:
            self._caches[child] = StaticCache(link)
            self._frames.update((child, link.parent))
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget all links but the static ones."""
        with self._changed:
            for cache in self._caches.values():
                cache.clear()

    def can_transform_core(self, target_frame: str, source_frame: str, time: Any) -> tuple[bool, str]:
        """Whether `lookup_transform_core` would succeed, and if not, why."""
        try:
            self.lookup_transform_core(target_frame, source_frame, time)
        except TransformException as error:
            return False, str(error)
        return True, ""

    def can_transform_full_core(
        self, target_frame: str, target_time: Any, source_frame: str, source_time: Any, fixed_frame: str
    ) -> tuple[bool, str]:
        """Whether `lookup_transform_full_core` would succeed, and if not, why."""
        try:
            self.lookup_transform_full_core(target_frame, target_time, source_frame, source_time, fixed_frame)
        except TransformException as error:
            return False, str(error)
        return True, ""

    def lookup_transform_core(self, target_frame: str, source_frame: str, time: Any) -> TransformStamped:
        """Transform that maps source coordinates to target coordinates at a time; time 0 is the latest common one.

        Raises
        ------
        LookupException, ConnectivityException, ExtrapolationException, InvalidArgumentException
            If it is not known.
        """
        with self._changed:
            pose, stamp = self._lookup(target_frame, source_frame, _nanoseconds(time))
        return _message(target_frame, source_frame, pose, stamp)

    def lookup_transform_full_core(
        self, target_frame: str, target_time: Any, source_frame: str, source_time: Any, fixed_frame: str
    ) -> TransformStamped:
        """Transform from the source at one time to the target at another, through a frame that does not move.

        Raises
        ------
        LookupException, ConnectivityException, ExtrapolationException, InvalidArgumentException
            If it is not known.
        """
        with self._changed:
            for frame in (target_frame, source_frame, fixed_frame):
                self._validate(frame)
            T_fixed_source, _ = self._lookup(fixed_frame, source_frame, _nanoseconds(source_time))
            T_target_fixed, stamp = self._lookup(target_frame, fixed_frame, _nanoseconds(target_time))
        return _message(target_frame, source_frame, compose(T_target_fixed, T_fixed_source), stamp)

    def get_latest_common_time(self, target_frame: str, source_frame: str) -> Time:
        """Newest time at which all links between two frames are known.

        Raises
        ------
        LookupException, ConnectivityException, InvalidArgumentException
            If the frames are not connected.
        """
        with self._changed:
            self._validate(target_frame)
            self._validate(source_frame)
            return Time(nanoseconds=self._latest_common_time(target_frame, source_frame))

    def all_frames_as_string(self) -> str:
        """One line for each frame that has a parent."""
        with self._changed:
            latest = {child: cache.latest for child, cache in self._caches.items()}
        return "".join(
            f"Frame {child} exists with parent {link.parent if link else 'NO_PARENT'}.\n"
            for child, link in latest.items()
        )

    def _validate(self, frame: str) -> None:
        if not frame:
            raise InvalidArgumentException("a frame id cannot be empty")
        if frame.startswith("/"):
            raise InvalidArgumentException(f'frame id "{frame}" cannot start with a slash')
        if frame not in self._frames:
            raise LookupException(f'"{frame}" passed to lookupTransform does not exist')

    def _lookup(self, target: str, source: str, stamp: int) -> tuple[Pose, int]:
        if target == source:
            cache = self._caches.get(target)
            return IDENTITY, stamp or (cache.latest_stamp if cache else 0)
        self._validate(target)
        self._validate(source)
        stamp = stamp or self._latest_common_time(target, source)
        return self._pose(target, source, stamp), stamp

    def _pose(self, target: str, source: str, stamp: int) -> Pose:
        top, T_top_source, missing = self._climb(source, (target,), stamp)
        if top == target:
            return T_top_source
        end, T_end_target, error = self._climb(target, (top, source), stamp)
        if end == source:
            return inverse(T_end_target)
        if end == top:
            return compose(inverse(T_end_target), T_top_source)
        if error or missing:
            raise ExtrapolationException(
                f"{error or missing}, when looking up transform from frame [{source}] to frame [{target}]"
            )
        raise _not_connected(target, source)

    def _climb(self, frame: str, stops: tuple[str, ...], stamp: int) -> tuple[str, Pose, str | None]:
        """Go towards the root, to one of `stops` or as far as there is data; why it ended, if for lack of data."""
        pose = IDENTITY
        for _ in range(MAX_GRAPH_DEPTH):
            cache = self._caches.get(frame)
            if frame in stops or cache is None:
                return frame, pose, None
            try:
                # Time 0 is left only where all links are static or stamped 0: it means the newest.
                link = cache.at(stamp or cache.latest_stamp)
            except ExtrapolationException as error:
                return frame, pose, str(error)
            frame, pose = link.parent, compose(link.pose, pose)
        raise self._loop()

    def _latest_common_time(self, target: str, source: str) -> int:
        """Oldest of the newest stamps on the way; 0 where all links are static."""
        source_side: dict[str, list[int]] = {}
        stamps: list[int] = []
        for parent, stamp in self._ancestry(source):
            stamps = [*stamps, stamp]
            if parent == target:
                return _oldest(stamps)
            source_side.setdefault(parent, stamps)
        stamps = []
        for parent, stamp in self._ancestry(target):
            stamps = [*stamps, stamp]
            if parent == source or parent in source_side:
                return _oldest([*stamps, *source_side.get(parent, [])])
        raise _not_connected(target, source)

    def _ancestry(self, frame: str) -> Iterator[tuple[str, int]]:
        """Parents up to the root, each with the time of the newest link to it."""
        for _ in range(MAX_GRAPH_DEPTH):
            cache = self._caches.get(frame)
            if cache is None or cache.latest is None:
                return
            yield cache.latest.parent, cache.latest_stamp
            frame = cache.latest.parent
        raise self._loop()

    def _loop(self) -> LookupException:
        return LookupException(f"The tf tree is invalid because it contains a loop.\n{self.all_frames_as_string()}")


def _oldest(stamps: list[int]) -> int:
    return min((stamp for stamp in stamps if stamp), default=0)


def _not_connected(target: str, source: str) -> ConnectivityException:
    return ConnectivityException(
        f"Could not find a connection between '{target}' and '{source}' because they are not part of the same tree."
        "Tf has two or more unconnected trees."
    )


def _checked_link(transform: TransformStamped, authority: str) -> Link | None:
    parent, child = _strip(transform.header.frame_id), _strip(transform.child_frame_id)
    t, r = transform.transform.translation, transform.transform.rotation
    pose = Pose(normalized((r.x, r.y, r.z, r.w)), (t.x, t.y, t.z))
    if not child:
        problem = "TF_NO_CHILD_FRAME_ID: child_frame_id not set"
    elif not parent:
        problem = "TF_NO_FRAME_ID: frame_id not set"
    elif parent == child:
        problem = "TF_SELF_TRANSFORM: frame_id and child_frame_id are the same"
    elif any(math.isnan(number) for part in pose for number in part):
        problem = "TF_NAN_INPUT: a nan value or a zero quaternion"
    else:
        return Link(parent, pose)
    get_logger("tf2").error(f'Ignoring transform to "{child}" from authority "{authority}": {problem}')
    return None


def _message(target: str, source: str, pose: Pose, stamp: int) -> TransformStamped:
    message = TransformStamped(child_frame_id=source)
    message.header.frame_id = target
    message.header.stamp = Time(nanoseconds=stamp).to_msg()
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = pose.translation
    rotation.x, rotation.y, rotation.z, rotation.w = normalized(pose.rotation)
    return message


def _strip(frame: str) -> str:
    return frame.removeprefix("/")


def _nanoseconds(time: Any) -> int:
    """Nanoseconds of a time or duration, of rclpy or a message."""
    if hasattr(time, "nanosec"):
        return int(time.sec) * 1_000_000_000 + int(time.nanosec)
    if hasattr(time, "nanoseconds"):
        return int(time.nanoseconds)
    raise TypeError("time must have sec and nanosec, or nanoseconds.")
