"""Where sensors were: transforms from TF as matrices."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.time import Time
from tf2_ros import Buffer, ExtrapolationException, TransformException
from transforms3d.quaternions import quat2mat

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.geometry.transforms import invert, rigid
from ttt_kd_ros.ros.counts import EXTRAPOLATION, NO_TRANSFORM


class TransformError(InputError):
    """A transform that is not known.

    Parameters
    ----------
    message
        What TF says.
    cause
        `EXTRAPOLATION` if it is known at other times, else `NO_TRANSFORM`.
    """

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class FrameAt:
    """A coordinate frame at a time [ns]."""

    frame_id: str
    stamp: int


@dataclass(frozen=True)
class Transforms:
    """Looks up transforms, and waits for those that are late.

    A transform that is known only at other times may still come and is waited for; one whose frames are not connected
    is not, so that a missing transform does not hold up every scan.

    Parameters
    ----------
    buffer
        Filled by another thread than the one that looks up.
    base_frame, fixed_frame
        As the node's parameters.
    clock
        Monotonic [ns]; deadlines refer to it.
    """

    buffer: Buffer
    base_frame: str
    fixed_frame: str
    clock: Callable[[], int] = time.monotonic_ns

    def T_base_scan(self, scan: FrameAt, deadline: float) -> NDArray[np.float64]:  # noqa: N802
        """(4, 4) from scan to base coordinates at the scan's stamp.

        Raises
        ------
        TransformError
            If it is not known by `deadline`.
        """
        return self._look_up(
            lambda timeout: self.buffer.lookup_transform(self.base_frame, scan.frame_id, _time(scan), timeout), deadline
        )

    def T_camera_scan(self, camera: FrameAt, scan: FrameAt, deadline: float) -> NDArray[np.float64]:  # noqa: N802
        """(4, 4) from scan coordinates to camera coordinates.

        With a fixed frame, scan coordinates at the scan's stamp to camera coordinates at the picture's; without one,
        both at the scan's stamp.

        Raises
        ------
        TransformError
            If it is not known by `deadline`.
        """
        if self.fixed_frame:
            return self._through_fixed_frame(camera, scan, deadline)
        return self._look_up(
            lambda timeout: self.buffer.lookup_transform(camera.frame_id, scan.frame_id, _time(scan), timeout), deadline
        )

    def T_stamp_time(self, scan: FrameAt, times_ns: Sequence[int], deadline: float) -> NDArray[np.float64]:  # noqa: N802
        """(K, 4, 4) from scan coordinates at each time after the scan's stamp [ns] to scan coordinates at the stamp.

        Needs a fixed frame. The last time is looked up first: once it is known, the others are.

        Raises
        ------
        TransformError
            If one is not known by `deadline`.
        """
        then = [FrameAt(scan.frame_id, scan.stamp + time_ns) for time_ns in reversed(times_ns)]
        T_fixed_time = np.stack([self._T_fixed_scan(each, deadline) for each in then][::-1])
        return invert(self._T_fixed_scan(scan, deadline)) @ T_fixed_time

    def _T_fixed_scan(self, scan: FrameAt, deadline: float) -> NDArray[np.float64]:  # noqa: N802
        fixed, stamp = self.fixed_frame, _time(scan)
        return self._look_up(
            lambda timeout: self.buffer.lookup_transform(fixed, scan.frame_id, stamp, timeout), deadline
        )

    def _through_fixed_frame(self, target: FrameAt, source: FrameAt, deadline: float) -> NDArray[np.float64]:
        """(4, 4) from source coordinates at the source's time to target coordinates at the target's."""
        return self._look_up(
            lambda timeout: self.buffer.lookup_transform_full(
                target.frame_id, _time(target), source.frame_id, _time(source), self.fixed_frame, timeout
            ),
            deadline,
        )

    def _look_up(self, look_up: Callable[[Duration], TransformStamped], deadline: float) -> NDArray[np.float64]:
        try:
            try:
                return matrix(look_up(Duration()))
            except ExtrapolationException:
                return matrix(look_up(Duration(nanoseconds=max(0, int(deadline - self.clock())))))
        except ExtrapolationException as error:
            raise TransformError(str(error), EXTRAPOLATION) from error
        except TransformException as error:
            raise TransformError(str(error), NO_TRANSFORM) from error


def matrix(transform: TransformStamped) -> NDArray[np.float64]:
    """(4, 4) matrix of a transform message."""
    translation, rotation = transform.transform.translation, transform.transform.rotation
    return rigid(
        quat2mat([rotation.w, rotation.x, rotation.y, rotation.z]),
        np.array([translation.x, translation.y, translation.z]),
    )


def _time(frame: FrameAt) -> Time:
    if frame.stamp < 0:
        message = f"no transform of {frame.frame_id} is known {-frame.stamp / 1e9:g} s before time 0"
        raise TransformError(message, EXTRAPOLATION)
    return Time(nanoseconds=frame.stamp)
