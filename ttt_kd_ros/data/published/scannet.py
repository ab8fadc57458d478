"""ScanNet v2: reconstructed rooms with a label for each vertex, and the frames of the video that they were made of.

Layout as in https://github.com/ScanNet/ScanNet: ``scans/sceneNNNN_NN/sceneNNNN_NN_vh_clean_2.ply`` (z up) and
``..._vh_clean_2.labels.ply`` with a NYU40 id as ``label``. The frames are those that the official SensReader exports
from the ``.sens`` file into the directory of the scene: ``color/N.jpg``, ``depth/N.png`` (1000 a metre),
``pose/N.txt`` (camera to scene, not finite where tracking was lost) and ``intrinsic/intrinsic_color.txt``. The depth
image is taken as one of the colour camera at another size, because their calibrations agree up to the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import DepthPicture, Folder, Picture, picture_size
from ttt_kd_ros.data.published.coverage import CANDIDATES
from ttt_kd_ros.data.published.dataset import DataSet, SceneEntry, fail, need, read_numbers, words_of
from ttt_kd_ros.data.published.indoor import Room
from ttt_kd_ros.data.published.ply import read_ply
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import invert

LOST_LABEL = 255


class ScanNet(DataSet):
    """The directory that holds ``scans`` and ``scans_test``. Words: name of the scene, ``train``, ``val``, ``test``."""

    kind = "ScanNet"
    needs = "scans/sceneNNNN_NN"
    page = "http://www.scan-net.org"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are scenes."""
        return any(root.glob("scans*/scene????_??"))

    def scenes(self) -> Sequence[SceneEntry]:
        """The scenes that are there."""
        names = sorted(path.name for path in self.root.glob("scans*/scene????_??"))
        return [SceneEntry(name, words_of(name, "scannet")) for name in names]

    def open(self, scene: SceneEntry, classes: ClassList) -> Folder:
        """One scene."""
        return Scene(next(iter(sorted(self.root.glob(f"scans*/{scene.name}")))), classes)


class Scene(Room):
    """A scene; its labels are missing where the set has none to publish."""

    kind = ScanNet.kind

    def __init__(self, path: Path, classes: ClassList) -> None:
        self._path = path
        self._mesh = path / f"{path.name}_vh_clean_2.ply"
        self._labels = self._mesh.with_suffix(".labels.ply")
        self.label_map = "scannet" if "scans_test" not in path.parts else None
        super().__init__(path.name, classes)

    def _surface(self) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        points = np.stack([_vertices(self._mesh, axis) for axis in "xyz"], axis=1).astype(np.float32)
        if self.label_map is None:
            return points, None
        ids = _vertices(self._labels, "label")
        if len(ids) != len(points):
            fail(ScanNet, self._labels, f"{len(points)} vertices as {self._mesh.name} has, not {len(ids)}")
        return points, np.where(ids <= LOST_LABEL, ids, LOST_LABEL).astype(np.uint8)

    def _candidates(self, T_world_scan: NDArray[np.float64], points: NDArray[np.float32]) -> Sequence[Picture]:
        paths = sorted((self._path / "color").glob("*.jpg"), key=lambda path: int(path.stem))
        if not paths:
            return []
        some = paths[:: max(1, len(paths) // CANDIDATES)]
        poses = [(path, self._pose(path.stem)) for path in some]
        return [self._picture(path, T, T_world_scan) for path, T in poses if np.isfinite(T).all()]

    def _pose(self, frame: str) -> NDArray[np.float64]:
        """``T_world_camera``."""
        path = self._path / "pose" / f"{frame}.txt"
        return read_numbers(ScanNet, path, (4, 4), "sixteen numbers: camera to scene")

    def _picture(self, path: Path, T_world_camera: NDArray[np.float64], T_world_scan: NDArray[np.float64]) -> Picture:
        depth = need(ScanNet, self._path / "depth" / f"{path.stem}.png", "a depth image as SensReader exports it")
        T_camera_scan = invert(T_world_camera) @ T_world_scan
        return Picture("color", path, self.stamps[0], self._camera, T_camera_scan, DepthPicture(depth, 1000.0))

    @cached_property
    def _camera(self) -> Camera:
        path = self._path / "intrinsic" / "intrinsic_color.txt"
        K = read_numbers(ScanNet, path, (4, 4), "sixteen numbers, as SensReader exports them")[:3, :3]
        return Camera(*picture_size(next((self._path / "color").glob("*.jpg"))), K)


def _vertices(path: Path, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(read_ply(path)["vertex"][name])
    except (OSError, ValueError, KeyError) as error:
        fail(ScanNet, path, f"a PLY file whose vertices have '{name}'", error)
