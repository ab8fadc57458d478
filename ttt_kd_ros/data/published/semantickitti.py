"""SemanticKITTI: the sequences of KITTI odometry with a label for each point.

Layout and ids as in the semantic-kitti-api (https://github.com/PRBonn/semantic-kitti-api): ``sequences/NN/velodyne``
has float32 x, y, z, remission; ``labels`` has uint32 with the class in the lower 16 bits. ``calib.txt`` has ``P0`` to
``P3`` (projections of the rectified cameras) and ``Tr`` (scanner to camera 0), ``poses.txt`` the pose of camera 0 in
the frame of its first scan, ``times.txt`` seconds. The colour pictures (``image_2``) are those of KITTI odometry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import FIRST_STAMP, Folder, Picture, Pose, Record, picture_size
from ttt_kd_ros.data.kitti import T_BASE_SCAN
from ttt_kd_ros.data.published.dataset import DataSet, SceneEntry, fail, need, read_binary, read_numbers, words_of
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import invert, rigid

MOVING = {252: 10, 253: 31, 254: 30, 255: 32, 256: 16, 257: 13, 258: 18, 259: 20}
"""Class of the resting object for each class of a moving one, as in the official learning map."""


class SemanticKitti(DataSet):
    """The directory that holds ``sequences``. Words: number of the sequence, ``train``, ``val`` or ``test``."""

    kind = "SemanticKITTI data set"
    needs = "sequences/NN/velodyne"
    page = "http://www.semantic-kitti.org/dataset.html#download and https://www.cvlibs.net/datasets/kitti/eval_odometry.php"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are sequences."""
        return (root / "sequences").is_dir()

    def scenes(self) -> Sequence[SceneEntry]:
        """The sequences that have scans."""
        names = sorted(path.parent.name for path in self.root.glob("sequences/*/velodyne"))
        return [SceneEntry(name, words_of(name, "semantickitti")) for name in names]

    def open(self, scene: SceneEntry, classes: ClassList) -> Folder:
        """One sequence."""
        return Drive(self.root / "sequences" / scene.name, classes)


class Drive(Folder):
    """A sequence; its labels are missing where the set has none to publish (11 to 21)."""

    kind = SemanticKitti.kind
    T_base_scan = T_BASE_SCAN
    camera_name = "image_2"

    def __init__(self, path: Path, classes: ClassList) -> None:
        self._path = path
        self._scans = sorted((path / "velodyne").glob("*.bin"))
        self.label_map = "semantickitti" if (path / "labels").is_dir() else None
        seconds = read_numbers(SemanticKitti, path / "times.txt", (-1,), "a time in seconds for each scan")
        if len(seconds) < len(self._scans):
            fail(SemanticKitti, path / "times.txt", f"{len(self._scans)} times, one for each scan")
        super().__init__(path.name, classes, [FIRST_STAMP + round(s * 1e9) for s in seconds[: len(self._scans)]])

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """Mounting of the colour camera, where its pictures are there."""
        return {self.camera_name: self._mounting} if (self._path / self.camera_name).is_dir() else {}

    def trajectory(self) -> tuple[Pose, ...]:
        """From ``poses.txt``, which sequences without ground truth of the motion do not have."""
        path = self._path / "poses.txt"
        if not path.is_file():
            return ()
        poses = read_numbers(SemanticKitti, path, (-1, 3, 4), "twelve numbers a line: camera 0 in its first frame")
        T_camera_scan = self._mounting_0
        T_camera_base = T_camera_scan @ invert(self.T_base_scan)
        T_odom_camera = invert(T_camera_base)
        motions = [T_odom_camera @ rigid(p[:, :3], p[:, 3]) @ T_camera_base for p in poses]
        return tuple(Pose(stamp, T) for stamp, T in zip(self.stamps, motions, strict=False))

    def record(self, index: int) -> Record:
        """One scan with the colour picture of its time."""
        scan = self._scans[index]
        points = read_binary(SemanticKitti, scan, np.float32, 4, "float32 x, y, z, remission")
        labels = None
        if self._classes is not None:
            labels = self._classes[self._ids(scan, len(points))]
        return Record(self.stamps[index], points, labels, self._pictures(scan, self.stamps[index]))

    def _ids(self, scan: Path, count: int) -> NDArray[np.int64]:
        path = self._path / "labels" / f"{scan.stem}.label"
        ids = read_binary(SemanticKitti, path, np.uint32, 1, f"{count} uint32 labels")[:, 0].astype(np.int64) & 0xFFFF
        if len(ids) != count:
            fail(SemanticKitti, path, f"{count} labels as {scan.name} has points, not {len(ids)}")
        if unknown := set(np.unique(ids).tolist()) - {*range(256), *MOVING}:
            fail(SemanticKitti, path, f"labels of SemanticKITTI; it also has {', '.join(map(str, sorted(unknown)))}")
        for moving, resting in MOVING.items():
            ids[ids == moving] = resting
        return ids

    def _pictures(self, scan: Path, stamp: int) -> tuple[Picture, ...]:
        path = self._path / self.camera_name / f"{scan.stem}.png"
        if not path.parent.is_dir():
            return ()
        need(SemanticKitti, path, "the picture of the left colour camera (KITTI odometry, colour)")
        return (Picture(self.camera_name, path, stamp, self._camera, self._mounting),)

    @cached_property
    def _calibration(self) -> dict[str, NDArray[np.float64]]:
        path, expected = self._path / "calib.txt", "lines 'P2: ' and 'Tr: ' with twelve numbers each"
        try:
            lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if line.strip())
            return {key: np.array(lines[key].split(), dtype=np.float64).reshape(3, 4) for key in ("P2", "Tr")}
        except (OSError, ValueError, KeyError) as error:
            fail(SemanticKitti, path, expected, error)

    @cached_property
    def _camera(self) -> Camera:
        path = next(iter(sorted((self._path / self.camera_name).glob("*.png"))))
        return Camera(*picture_size(path), self._calibration["P2"][:, :3])

    @property
    def _mounting_0(self) -> NDArray[np.float64]:
        """``T_camera0_scan``."""
        Tr = self._calibration["Tr"]
        return rigid(Tr[:, :3], Tr[:, 3])

    @property
    def _mounting(self) -> NDArray[np.float64]:
        """``T_camera_scan``: the projection of a rectified camera holds its baseline to camera 0, P2 = K [I | t]."""
        projection = self._calibration["P2"]
        baseline = np.linalg.inv(projection[:, :3]) @ projection[:, 3]
        return rigid(np.eye(3), baseline) @ self._mounting_0
