"""Folders with nuScenes data, and of the sensor whose scans carry the same labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import Content, Picture, ScanFolder, level, matrix, picture_size, scan_number
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera


class NuScenesKeyframe(ScanFolder):
    """One scan of 32 beams with the pictures of six cameras round the car; x right, y forward."""

    kind = "nuScenes keyframe"
    needs = "one scan.npz with 'points'; 'cameras', 'lidar_timestamp' and 'lidar2ego' in calib.json; CAMERA.jpg"

    def __init__(self, content: Content, classes: ClassList) -> None:
        self._where = content.path / "calib.json"
        super().__init__(content, classes)
        # nuScenes' ego frame is x forward, y left, z up, on the ground below the rear axle. Points within 25 m put
        # the ground 1.84 m below the sensor and 1.5 degrees to it, as this calibration does.
        self.T_base_scan = matrix(content.calibration["lidar2ego"], 4, 4, f"'lidar2ego' of {self._where}")
        self._cameras: Mapping[str, Mapping[str, Any]] = content.calibration["cameras"]

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Whether the calibration is the one of a nuScenes keyframe."""
        return content.has("points") and content.calibrates("cameras", "lidar_timestamp", "lidar2ego")

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """As the calibration has it for this keyframe; what the car moved between the stamps cannot be told apart."""
        return {picture.camera_name: picture.T_camera_scan for picture in self._keyframe}

    def _stamp(self, scan: Path) -> int:
        return self._nanoseconds(self._content.calibration["lidar_timestamp"])

    def _nanoseconds(self, seconds: Any) -> int:
        if not isinstance(seconds, float | int):
            raise DataError(f"a timestamp of {self._where} is {seconds!r}, not a number of seconds")
        return round(seconds * 1e6) * 1000  # written with microseconds

    def _pictures(self, index: int) -> tuple[Picture, ...]:
        return self._keyframe

    @cached_property
    def _keyframe(self) -> tuple[Picture, ...]:
        return tuple(self._picture(name) for name in self._cameras)

    def _picture(self, name: str) -> Picture:
        calibration, path = self._cameras[name], self._content.path / f"{name}.jpg"
        missing = {"K", "T_cam_lidar", "timestamp"} - calibration.keys()
        if missing:
            raise DataError(f"camera {name} of {self._where} has no {', '.join(sorted(missing))}")
        camera = Camera(*picture_size(path), matrix(calibration["K"], 3, 3, f"'K' of {name}"))
        mounting = matrix(calibration["T_cam_lidar"], 4, 4, f"'T_cam_lidar' of {name}")
        return Picture(name.lower(), path, self._nanoseconds(calibration["timestamp"]), camera, mounting)


class NuScenesRangeImages(ScanFolder):
    """Pixels of range images of the nuScenes scanner; no pictures. x right, y forward."""

    kind = "nuScenes range images"
    needs = "'points', 'label', 'row' and 'col' in the scans; intensity up to 255; scans named by a short number"
    label_map = "nuscenes_ika"
    # Height and tilt of nuScenes' own calibration (calibrated_sensor of LIDAR_TOP). Planes through the road points
    # within 15 m of 32 scans give 1.86 m and 1.1 degrees in y, against 1.84 m and 1.4 degrees.
    T_base_scan = level(1.84, 0.0059, 0.0242, forward="y")

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Whether the scans are range images with an intensity of 8 bits and numbers as names."""
        return _has_8_bit_range_images(content) and not _named_by_stamp(content)


class IkaVlp32(ScanFolder):
    """Front sector of a 32-beam scanner as range images; no pictures. x forward."""

    kind = "ika VLP-32 range images"
    needs = "'points', 'label', 'row' and 'col' in the scans; intensity up to 255; scans named by their stamp [ns]"
    label_map = "nuscenes_ika"
    # Plane through the road points within 25 m of 32 scans of one drive: 1.79 +- 0.01 m, 0.7 +- 0.2 degrees in x and
    # 0.6 +- 0.1 in y. Whether that tilt is the mounting or the road, one drive cannot tell.
    T_base_scan = level(1.79, 0.0126, 0.0106, forward="x")
    fill = (10.0, 10.0, 10.0)
    """Coordinates that the scans have where the range image is empty: 256 points in each."""

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Whether the scans are range images with an intensity of 8 bits and stamps as names."""
        return _has_8_bit_range_images(content) and _named_by_stamp(content)

    def _stamp(self, scan: Path) -> int:
        return scan_number(scan)

    def _points(
        self, arrays: Mapping[str, NDArray[Any]], path: Path
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        points, labels = super()._points(arrays, path)
        empty = (points[:, :3] == self.fill).all(axis=1)
        return np.where(empty[:, None], np.float32(np.nan), points), labels


def _has_8_bit_range_images(content: Content) -> bool:
    return content.has("points", "label", "row", "col") and content.highest_intensity > 1.0


def _named_by_stamp(content: Content) -> bool:
    return len(content.scans[0].stem) >= 19
