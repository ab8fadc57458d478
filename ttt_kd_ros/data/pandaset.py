"""Folders of PandaSet scenes: a spinning and a solid-state LiDAR, a front camera, and the motion of the car."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import Content, Picture, Pose, ScanFolder, array, level, matrix, picture_size, read_arrays
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import invert, rigid

SPINNING = 0

# Fitted to the poses of two scenes: with this mounting and the pictures taken this much before the scans' stamps, the
# motion of the car explains the calibration of each frame to 1 to 2.4 px (median).
CAMERA_DELAY = -49_000_000  # ns
T_CAMERA_SCAN = rigid(
    np.array(
        [
            [0.9998041994, 0.0050803769, 0.0191246618],
            [0.0191074153, 0.0034218488, -0.9998115811],
            [-0.0051448613, 0.9999812402, 0.0033241060],
        ]
    ),
    np.array([-0.0386, 1.8082, -0.8565]),
)


class PandaSet(ScanFolder):
    """Labelled scans with a colour picture each; in the scan frame x points right and y forward.

    The points are already free of ego motion: all are given at the scan's stamp.

    Parameters
    ----------
    content, classes
        As for every folder.
    spinning_only
        Leave out the points of the solid-state sensor.
    """

    kind = "PandaSet"
    needs = (
        "'points', 'label', 'sensor', 'K', 'T_cam_lidar', 'lidar_pose_R' and 'lidar_pose_t' in the scans; "
        "pictures NNNNNN.jpg"
    )
    label_map = "pandaset"
    # Planes through the road points of the spinning sensor within 15 m, two scenes: 0.24 and 0.30 m below the origin
    # (which is not at the sensor), rising to the right by 1.6 and 1.9 degrees, along y by -0.2 and 0.4 degrees. The
    # camera (1.0 degree) and gravity (2.1 to 3.0 degrees) show the same roll of the scan frame.
    T_base_scan = level(0.27, 0.030, 0.0, forward="y")
    camera_name = "front_camera"

    def __init__(self, content: Content, classes: ClassList, spinning_only: bool = False) -> None:
        super().__init__(content, classes)
        self._spinning_only = spinning_only

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Whether the scans hold sensor numbers and poses."""
        return content.has("points", "label", "sensor", "K", "T_cam_lidar", "lidar_pose_R", "lidar_pose_t")

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """Mounting of the one camera."""
        return {self.camera_name: T_CAMERA_SCAN}

    def trajectory(self) -> tuple[Pose, ...]:
        """Poses at the stamps of the scans and of the pictures.

        A frame's calibration is the pose of the camera at its own stamp relative to the scan at its own; with the
        pose of the scan and the mounting it gives the pose of the base at the picture's stamp.
        """
        T_scan_base = invert(self.T_base_scan)
        poses = []
        for stamp, (T_camera_scan, T_odom_scan) in zip(self.stamps, self._poses, strict=True):
            T_odom_camera = T_odom_scan @ invert(T_camera_scan)
            poses.append(Pose(stamp + CAMERA_DELAY, T_odom_camera @ T_CAMERA_SCAN @ T_scan_base))
            poses.append(Pose(stamp, T_odom_scan @ T_scan_base))
        return tuple(poses)

    @cached_property
    def _poses(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """``T_camera_scan`` between the two stamps and ``T_odom_scan``, of each scan."""
        return [_read_poses(path) for path in self._content.scans]

    @cached_property
    def _camera(self) -> Camera:
        path = self._content.scans[0]
        return Camera(*picture_size(path.with_suffix(".jpg")), matrix(self._content.first["K"], 3, 3, f"'K' of {path}"))

    def _pictures(self, index: int) -> tuple[Picture, ...]:
        path, (T_camera_scan, _) = self._content.scans[index].with_suffix(".jpg"), self._poses[index]
        return (Picture(self.camera_name, path, self.stamps[index] + CAMERA_DELAY, self._camera, T_camera_scan),)

    def _points(
        self, arrays: Mapping[str, NDArray[Any]], path: Path
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        points, labels = super()._points(arrays, path)
        if not self._spinning_only or labels is None:
            return points, labels
        sensor = array(arrays, "sensor", path)
        if sensor.shape != labels.shape:
            raise DataError(f"{path}: 'sensor' must be (N,)")
        return points[sensor == SPINNING], labels[sensor == SPINNING]


def _read_poses(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    arrays = read_arrays(path)
    rotation = matrix(array(arrays, "lidar_pose_R", path), 3, 3, f"'lidar_pose_R' of {path}")
    translation = matrix(array(arrays, "lidar_pose_t", path), 1, 3, f"'lidar_pose_t' of {path}")[0]
    return matrix(array(arrays, "T_cam_lidar", path), 4, 4, f"'T_cam_lidar' of {path}"), rigid(rotation, translation)
