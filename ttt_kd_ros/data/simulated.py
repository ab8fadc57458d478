"""Folders of simulated drives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import Content, Picture, Pose, ScanFolder, matrix, scan_number
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import invert

KIND = "simulated drive"
VERSION = 1


class Simulated(ScanFolder):
    """Labelled scans of a simulated LiDAR with pictures of any number of cameras, and the motion of the car.

    The points are given at their own times, as a driver of a real sensor publishes them.
    """

    kind = KIND
    needs = f"'points' and 'label' in the scans; 'kind' = '{KIND}' in calib.json"
    label_map = "simulated"
    time_array = "t_offset"

    def __init__(self, content: Content, classes: ClassList) -> None:
        super().__init__(content, classes)
        calibration, where = content.calibration, content.path / "calib.json"
        if calibration.get("version") != VERSION:
            raise DataError(f"{where} has version {calibration.get('version')}, known is {VERSION}; simulate it anew")
        try:
            self.T_base_scan = matrix(calibration["T_base_lidar"], 4, 4, f"'T_base_lidar' of {where}")
            cameras = dict(calibration["cameras"].items())
            self._cameras = {name: _camera(camera, f"{name} in {where}") for name, camera in cameras.items()}
            self._mountings = {
                name: matrix(camera["T_camera_lidar"], 4, 4, f"'T_camera_lidar' of {name} in {where}")
                for name, camera in cameras.items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where} is damaged ({error!r}); simulate the folder anew") from error

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Whether the calibration says so."""
        return content.has("points", "label") and content.calibration.get("kind") == KIND

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """Mountings of the cameras."""
        return self._mountings

    def trajectory(self) -> tuple[Pose, ...]:
        """Poses at the start, stamp and end of each scan and at each picture."""
        return tuple(Pose(stamp, T) for stamp, T in sorted(self._motion.poses.items()))

    @cached_property
    def _motion(self) -> _Motion:
        path = self._content.path / "poses.json"
        try:
            return _Motion.from_dict(json.loads(path.read_text()), path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error!r}); simulate the folder anew") from error

    def _stamps_of(self, scan: Path) -> Mapping[str, Any]:
        number = scan_number(scan)
        if number >= len(self._motion.scans):
            raise DataError(f"{self._content.path / 'poses.json'} knows no scan {number}")
        return self._motion.scans[number]

    def _stamp(self, scan: Path) -> int:
        return int(self._stamps_of(scan)["stamp"])

    def _pictures(self, index: int) -> tuple[Picture, ...]:
        stamps = self._stamps_of(self._content.scans[index])["pictures"]
        return tuple(self._picture(index, name, int(stamps[name])) for name in self._cameras)

    def _picture(self, index: int, name: str, stamp: int) -> Picture:
        scan = self._content.scans[index]
        moved = invert(self._pose(stamp)) @ self._pose(self.stamps[index])
        T_base_scan = self.T_base_scan
        T_camera_scan = self._mountings[name] @ invert(T_base_scan) @ moved @ T_base_scan
        return Picture(name, scan.with_name(f"{scan.stem}_{name}.jpg"), stamp, self._cameras[name], T_camera_scan)

    def _pose(self, stamp: int) -> NDArray[np.float64]:
        if stamp not in self._motion.poses:
            raise DataError(f"{self._content.path / 'poses.json'} has no pose at the stamp {stamp}")
        return self._motion.poses[stamp]


@dataclass(frozen=True)
class _Motion:
    """Content of ``poses.json``: ``stamp`` and ``pictures`` (stamps by camera) of each scan, poses by stamp."""

    scans: tuple[Mapping[str, Any], ...]
    poses: Mapping[int, NDArray[np.float64]]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], path: Path) -> _Motion:
        scans = tuple({"stamp": int(s["stamp"]), "pictures": dict(s["pictures"])} for s in data["scans"])
        poses = {int(p["stamp"]): matrix(p["T_odom_base"], 4, 4, f"a pose of {path}") for p in data["poses"]}
        return cls(scans, poses)


def _camera(calibration: Mapping[str, Any], where: str) -> Camera:
    K = matrix(calibration["K"], 3, 3, f"'K' of {where}")
    try:
        width, height, D = int(calibration["width"]), int(calibration["height"]), tuple(map(float, calibration["D"]))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"'width', 'height' and 'D' of {where} must be numbers: {error}") from error
    return Camera(width, height, K, D)
