"""A scan's message and its pictures' messages become a `Frame`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from ttt_kd_ros.errors import CalibrationError
from ttt_kd_ros.frame import CameraView, Frame, Scan
from ttt_kd_ros.ros.collector import Job, Picture
from ttt_kd_ros.ros.counts import (
    BAD_CAMERA_INFO,
    BAD_IMAGE,
    EMPTY,
    MALFORMED,
    NO_BASE_TRANSFORM,
    NO_CAMERA_INFO,
    PLAIN_IMAGE,
    SCANS,
    USED,
    Counts,
    camera_subject,
)
from ttt_kd_ros.ros.exposure import ExposureError, check_exposure
from ttt_kd_ros.ros.messages import MessageError, check_picture_size, read_camera, read_image, read_points
from ttt_kd_ros.ros.parameters import CameraSettings
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

    def assemble(self, job: ScanJob, cameras: Iterable[CameraSettings], transform_wait_ns: int) -> Frame | None:
        """Frame of one job, None if its cloud cannot be read or it is not known where the ground is.

        Parameters
        ----------
        job
            The scan and its pictures.
        cameras
            How to use each camera's messages.
        transform_wait_ns
            How long to wait for late transforms, all together [ns].
        """
        try:
            frame = self._frame(job, cameras, transform_wait_ns)
        except MessageError as error:
            self._counts.add(SCANS, MALFORMED, str(error))
            return None
        except TransformError as error:
            self._counts.add(SCANS, NO_BASE_TRANSFORM, str(error))
            return None
        if not len(frame.scan.points):
            self._counts.add(SCANS, EMPTY)
        return frame

    def _frame(self, job: ScanJob, cameras: Iterable[CameraSettings], transform_wait_ns: int) -> Frame:
        deadline = self._transforms.clock() + transform_wait_ns
        scan_frame = FrameAt(job.scan.header.frame_id, job.stamp)
        points = read_points(job.scan)
        scan = Scan(points, self._transforms.T_base_scan(scan_frame, deadline), job.stamp)
        views = [self._view(c, job.pictures[c.name], scan_frame, deadline) for c in cameras if c.name in job.pictures]
        return Frame(scan, tuple(view for view in views if view is not None))

    def _view(
        self, camera: CameraSettings, picture: Picture[ImageMessage], scan_frame: FrameAt, deadline: int
    ) -> CameraView | None:
        subject = camera_subject(camera.name)
        info = self._infos.get(camera.name)
        if info is None:
            self._counts.add(subject, NO_CAMERA_INFO, f"nothing on {camera.info_topic}")
            return None
        camera_frame = FrameAt(picture.message.header.frame_id or info.header.frame_id, picture.stamp)
        try:
            intrinsics = read_camera(info, rectified=camera.rectified)
            T_camera_scan = self._transforms.T_camera_scan(camera_frame, scan_frame, deadline)
            image = read_image(picture.message)
            check_picture_size(info, image)
            check_exposure(image, camera.max_plain_share)
        except CalibrationError as error:
            self._counts.add(subject, BAD_CAMERA_INFO, str(error))
        except TransformError as error:
            self._counts.add(subject, error.cause, str(error))
        except MessageError as error:
            self._counts.add(subject, BAD_IMAGE, str(error))
        except ExposureError as error:
            self._counts.add(subject, PLAIN_IMAGE, str(error))
        else:
            self._counts.add(subject, USED)
            return CameraView(camera.name, image, intrinsics, T_camera_scan)
        return None
