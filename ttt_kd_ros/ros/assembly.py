"""A scan's message and its pictures' messages become a `Frame`."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from ttt_kd_ros.errors import CalibrationError
from ttt_kd_ros.frame import CameraView, Frame, Scan
from ttt_kd_ros.geometry.deskew import Motion, deskew, knot_times
from ttt_kd_ros.ros.collector import Job, Picture
from ttt_kd_ros.ros.counts import (
    BAD_CAMERA_INFO,
    BAD_IMAGE,
    EMPTY,
    MALFORMED,
    NO_BASE_TRANSFORM,
    NO_CAMERA_INFO,
    NOT_DESKEWED,
    PLAIN_IMAGE,
    SCANS,
    USED,
    Counts,
    camera_subject,
)
from ttt_kd_ros.ros.exposure import ExposureError, check_exposure
from ttt_kd_ros.ros.messages import MessageError, check_picture_size, read_camera, read_image, read_points
from ttt_kd_ros.ros.parameters import CameraSettings, NodeSettings
from ttt_kd_ros.ros.point_times import read_times
from ttt_kd_ros.ros.transforms import FrameAt, TransformError, Transforms

ImageMessage: TypeAlias = Image | CompressedImage
ScanJob: TypeAlias = Job[PointCloud2, ImageMessage]


class FrameAssembler:
    """Converts and transforms what a scan needs; a camera that lacks something is left out and counted.

    Parameters
    ----------
    transforms
        Where the sensors were.
    counts
        Receives why scans have no frame, which pictures were used and why others were not.
    """

    def __init__(self, transforms: Transforms, counts: Counts) -> None:
        self._transforms = transforms
        self._counts = counts
        self._infos: dict[str, CameraInfo] = {}

    def set_camera_info(self, camera: str, info: CameraInfo) -> None:
        """Use this calibration from now on."""
        self._infos[camera] = info

    def assemble(self, job: ScanJob, settings: NodeSettings, until: float = math.inf) -> Frame | None:
        """Frame of one job, None if its cloud cannot be read or it is not known where the ground is.

        Parameters
        ----------
        job
            The scan and its pictures.
        settings
            How to use the messages, and how long to wait for late transforms, all together.
        until
            When the waiting must end, on the monotonic clock [ns].
        """
        try:
            frame = self._frame(job, settings, min(self._transforms.clock() + settings.transform_wait_ns, until))
        except MessageError as error:
            self._counts.add(SCANS, MALFORMED, str(error))
            return None
        except TransformError as error:
            self._counts.add(SCANS, NO_BASE_TRANSFORM, str(error))
            return None
        if not len(frame.scan.points):
            self._counts.add(SCANS, EMPTY)
        return frame

    def _frame(self, job: ScanJob, settings: NodeSettings, deadline: float) -> Frame:
        scan_frame = FrameAt(job.scan.header.frame_id, job.stamp)
        points = read_points(job.scan)
        T_base_scan = self._transforms.T_base_scan(scan_frame, deadline)
        if settings.deskew and settings.fixed_frame and job.stamp:
            points = self._deskewed(points, job.scan, scan_frame, deadline)
        return Frame(Scan(points, T_base_scan, job.stamp), self._views(job, settings, deadline, self._counts))

    def views(self, job: ScanJob, settings: NodeSettings, counts: Counts | None = None) -> tuple[CameraView, ...]:
        """The pictures of one job alone, as in `assemble`; counted elsewhere, if `counts` is given."""
        deadline = self._transforms.clock() + settings.transform_wait_ns
        return self._views(job, settings, deadline, self._counts if counts is None else counts)

    def _views(self, job: ScanJob, settings: NodeSettings, deadline: float, counts: Counts) -> tuple[CameraView, ...]:
        scan_frame = FrameAt(job.scan.header.frame_id, job.stamp)
        cameras = [camera for camera in settings.cameras if camera.name in job.pictures]
        views = [self._view(camera, job.pictures[camera.name], scan_frame, deadline, counts) for camera in cameras]
        return tuple(view for view in views if view is not None)

    def _deskewed(
        self, points: NDArray[np.float32], scan: PointCloud2, scan_frame: FrameAt, deadline: float
    ) -> NDArray[np.float32]:
        """Points at the scan's stamp, or as they are where their times or the motion are not known."""
        measured = np.asarray(np.isfinite(points).all(axis=1))
        try:
            times = read_times(scan, scan_frame.stamp, measured)
            if times is None:
                return points
            knots = knot_times(times[measured].min(), times[measured].max())
            times_ns = [round(time * 1e9) for time in knots]
            T_stamp_time = self._transforms.T_stamp_time(scan_frame, times_ns, deadline)
        except (MessageError, TransformError) as error:
            self._counts.add(SCANS, NOT_DESKEWED, str(error))
            return points
        return deskew(points, times, Motion(knots, T_stamp_time))

    def _view(
        self,
        camera: CameraSettings,
        picture: Picture[ImageMessage],
        scan_frame: FrameAt,
        deadline: float,
        counts: Counts,
    ) -> CameraView | None:
        subject = camera_subject(camera.name)
        info = self._infos.get(camera.name)
        if info is None:
            counts.add(subject, NO_CAMERA_INFO, f"nothing on {camera.info_topic}")
            return None
        camera_frame = FrameAt(picture.message.header.frame_id or info.header.frame_id, picture.stamp)
        try:
            intrinsics = read_camera(info, rectified=camera.rectified)
            T_camera_scan = self._transforms.T_camera_scan(camera_frame, scan_frame, deadline)
            image = read_image(picture.message)
            check_picture_size(info, image)
            check_exposure(image, camera.max_plain_share)
        except CalibrationError as error:
            counts.add(subject, BAD_CAMERA_INFO, str(error))
        except TransformError as error:
            counts.add(subject, error.cause, str(error))
        except MessageError as error:
            counts.add(subject, BAD_IMAGE, str(error))
        except ExposureError as error:
            counts.add(subject, PLAIN_IMAGE, str(error))
        else:
            counts.add(subject, USED)
            return CameraView(camera.name, image, intrinsics, T_camera_scan)
        return None
