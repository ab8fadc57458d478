"""PandaSet in its official layout: sequences at 10 Hz with a spinning and a solid-state scanner and six cameras.

As in the devkit (https://github.com/scaleapi/pandaset-devkit): ``lidar/NN.pkl.gz`` and
``annotations/semseg/NN.pkl.gz`` are pickled pandas tables, points in the frame of the world, already free of ego
motion; ``poses.json`` gives the pose of the scanner and of each camera at each frame. A pickle can run code when it is
read: read only what comes from the data set's own page.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transforms3d.quaternions import quat2mat

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import Folder, Picture, Pose, Record, byte_labels, picture_size
from ttt_kd_ros.data.pandaset import SPINNING
from ttt_kd_ros.data.pandaset import PandaSet as ScanPandaSet
from ttt_kd_ros.data.published.dataset import DataSet, SceneEntry, fail, need, read_json
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import invert, rigid


class PandaSet(DataSet):
    """The directory that holds the sequences. Words: number of the sequence, ``labelled`` where it has labels."""

    kind = "PandaSet data set"
    needs = "NNN/lidar/poses.json"
    page = "https://pandaset.org"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are sequences with poses of the scanner."""
        return any(root.glob("[0-9]*/lidar/poses.json"))

    def scenes(self) -> Sequence[SceneEntry]:
        """The sequences; there is no official split."""
        paths = sorted(path.parents[1] for path in self.root.glob("[0-9]*/lidar/poses.json"))
        return [
            SceneEntry(path.name, frozenset({path.name, *(["labelled"] if _labels_of(path).is_dir() else [])}))
            for path in paths
        ]

    def open(self, scene: SceneEntry, classes: ClassList) -> Folder:
        """One sequence."""
        return Drive(self.root / scene.name, classes, self.spinning_only)


class Drive(Folder):
    """A sequence."""

    kind = PandaSet.kind
    T_base_scan = ScanPandaSet.T_base_scan

    def __init__(self, path: Path, classes: ClassList, spinning_only: bool) -> None:
        self._path, self._spinning_only = path, spinning_only
        self.label_map = "pandaset" if _labels_of(path).is_dir() else None
        seconds = read_json(PandaSet, path / "lidar" / "timestamps.json", "a list of seconds")
        super().__init__(path.name, classes, [round(float(s) * 1e6) * 1000 for s in seconds])

    def trajectory(self) -> tuple[Pose, ...]:
        """Poses at the stamps of the scans."""
        T_scan_base = invert(self.T_base_scan)
        return tuple(Pose(stamp, T @ T_scan_base) for stamp, T in zip(self.stamps, self._scan_poses, strict=True))

    def record(self, index: int) -> Record:
        """One scan in the frame of the scanner, with the pictures of its number."""
        name = f"{index % len(self):02d}"
        table = _read_table(self._path / "lidar" / f"{name}.pkl.gz", ("x", "y", "z", "i", "d"))
        kept = table["d"] == SPINNING if self._spinning_only else np.ones(len(table["d"]), dtype=np.bool_)
        T = invert(self._scan_poses[index])
        xyz = np.column_stack([table[axis] for axis in "xyz"]) @ T[:3, :3].T + T[:3, 3]
        points = np.column_stack([xyz, table["i"]]).astype(np.float32)[kept]
        labels = None
        if self._classes is not None:
            path = _labels_of(self._path) / f"{name}.pkl.gz"
            ids = _read_table(path, ("class",))["class"]
            if len(ids) != len(kept):
                fail(PandaSet, path, f"{len(kept)} labels, one for each point of the scan, not {len(ids)}")
            labels = self._classes[byte_labels(ids, path)][kept]
        pictures = tuple(self._picture(camera, index) for camera in self._cameras)
        return Record(self.stamps[index], points, labels, pictures)

    def _picture(self, name: str, index: int) -> Picture:
        path = self._path / "camera" / name / f"{index % len(self):02d}.jpg"
        need(PandaSet, path, f"the picture of {name}")
        camera = self._cameras[name]
        T_camera_scan = invert(camera["poses"][index]) @ self._scan_poses[index]
        return Picture(name, path, round(camera["stamps"][index] * 1e6) * 1000, camera["camera"], T_camera_scan)

    @cached_property
    def _cameras(self) -> Mapping[str, Mapping[str, Any]]:
        return {path.parent.name: _camera(path.parent) for path in sorted(self._path.glob("camera/*/intrinsics.json"))}

    @cached_property
    def _scan_poses(self) -> list[NDArray[np.float64]]:
        """``T_world_scan`` of each frame."""
        return _poses(self._path / "lidar" / "poses.json")


def _labels_of(path: Path) -> Path:
    return path / "annotations" / "semseg"


def _camera(directory: Path) -> dict[str, Any]:
    numbers = read_json(PandaSet, directory / "intrinsics.json", "fx, fy, cx, cy")
    try:
        K = np.array([[numbers["fx"], 0, numbers["cx"]], [0, numbers["fy"], numbers["cy"]], [0, 0, 1.0]])
    except (KeyError, TypeError) as error:
        fail(PandaSet, directory / "intrinsics.json", "fx, fy, cx, cy", error)
    first = need(PandaSet, directory / "00.jpg", "a picture")
    return {
        "camera": Camera(*picture_size(first), K),
        "poses": _poses(directory / "poses.json"),
        "stamps": read_json(PandaSet, directory / "timestamps.json", "a list of seconds"),
    }


def _poses(path: Path) -> list[NDArray[np.float64]]:
    """``T_world_sensor`` of each frame."""
    expected = "a list of poses with position x, y, z and heading w, x, y, z"
    try:
        return [
            rigid(
                quat2mat([pose["heading"][axis] for axis in "wxyz"]),
                np.array([pose["position"][axis] for axis in "xyz"], dtype=np.float64),
            )
            for pose in read_json(PandaSet, path, expected)
        ]
    except (KeyError, TypeError) as error:
        fail(PandaSet, path, expected, error)


def _read_table(path: Path, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Columns of a pickled table."""
    try:
        import pandas
    except ImportError as error:
        raise DataError("PandaSet's files are tables of pandas: pip install 'ttt_kd_ros[pandaset]'") from error
    try:
        table = pandas.read_pickle(path).sort_index()
        return {column: table[column].to_numpy() for column in columns}
    except (OSError, EOFError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        fail(PandaSet, path, f"a gzipped table of pandas with columns {', '.join(columns)}", error)
