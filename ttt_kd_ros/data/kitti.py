"""Folders of the KITTI drives: 64 beams at 10 Hz, x forward, z up."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import Content, Picture, ScanFolder, level, matrix, picture_size
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import rigid

# 1.73 m is the published height of the laser scanner (Geiger et al., "Vision meets Robotics: The KITTI Dataset",
# figure 3). Planes through the ground points within 15 m give 1.75 m in two drives and tilts that differ between
# them (0.2 and 1.8 degrees, 0.8 and 0.0 degrees): that is the road, not the mounting.
T_BASE_SCAN = level(1.73, 0.0, 0.0, forward="x")


class KittiRaw(ScanFolder):
    """Unlabelled scans, each with a rectified colour picture."""

    kind = "KITTI raw"
    needs = "'points' in the scans; 'K' and 'T_cam_lidar' in calib.json; pictures NNNNNN.jpg"
    T_base_scan = T_BASE_SCAN
    camera_name = "camera_color_left"

    def __init__(self, content: Content, classes: ClassList) -> None:
        super().__init__(content, classes)
        calibration, where = content.calibration, content.path / "calib.json"
        self._K = matrix(calibration["K"], 3, 3, f"'K' of {where}")
        self._T_camera_scan = matrix(calibration["T_cam_lidar"], 4, 4, f"'T_cam_lidar' of {where}")

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Whether the calibration is the one of a KITTI raw drive."""
        return content.has("points") and content.calibrates("K", "T_cam_lidar")

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """Mounting of the one camera."""
        return {self.camera_name: self._T_camera_scan}

    @cached_property
    def _camera(self) -> Camera:
        return Camera(*picture_size(self._path(0)), self._K)

    def _path(self, index: int) -> Path:
        return self._content.scans[index].with_suffix(".jpg")

    def _pictures(self, index: int) -> tuple[Picture, ...]:
        stamp = self.stamps[index]
        return (Picture(self.camera_name, self._path(index), stamp, self._camera, self._T_camera_scan),)


class SemanticKitti(ScanFolder):
    """Full labelled scans of a SemanticKITTI sequence, some with the grey picture of the left camera."""

    kind = "SemanticKITTI"
    needs = "'points' and 'label' in the scans; 'P0' and 'Tr' in calib.json; pictures NNNNNN.png for some scans"
    label_map = "semantickitti"
    T_base_scan = T_BASE_SCAN
    camera_name = "camera_gray_left"

    def __init__(self, content: Content, classes: ClassList) -> None:
        super().__init__(content, classes)
        where = content.path / "calib.json"
        projection = matrix(content.calibration["P0"], 3, 4, f"'P0' of {where}")
        mounting = matrix(content.calibration["Tr"], 3, 4, f"'Tr' of {where}")
        if projection[:, 3].any():
            raise DataError(f"'P0' of {where} must belong to the reference camera: its last column is not zero")
        self._K = projection[:, :3]
        self._T_camera_scan = rigid(mounting[:, :3], mounting[:, 3])
        self._paths = {path.stem: path for path in sorted(content.path.glob("*.png"))}

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Whether the calibration is the one of a KITTI odometry sequence."""
        return content.has("points", "label") and content.calibrates("P0", "Tr")

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """Mounting of the one camera."""
        return {self.camera_name: self._T_camera_scan} if self._paths else {}

    @cached_property
    def _camera(self) -> Camera:
        return Camera(*picture_size(next(iter(self._paths.values()))), self._K)

    def _pictures(self, index: int) -> tuple[Picture, ...]:
        path = self._paths.get(self._content.scans[index].stem)
        if path is None:
            return ()
        return (Picture(self.camera_name, path, self.stamps[index], self._camera, self._T_camera_scan),)


class SemanticKittiRangeImages(ScanFolder):
    """Pixels of range images of a SemanticKITTI sequence, with learning ids; no pictures."""

    kind = "SemanticKITTI range images"
    needs = "'points', 'label', 'row' and 'col' in the scans; intensity up to 1"
    label_map = "semantickitti_learning"
    T_base_scan = T_BASE_SCAN

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Whether the scans are range images with KITTI's intensity."""
        return content.has("points", "label", "row", "col") and content.highest_intensity <= 1.0
