"""S3DIS: scanned rooms of six building parts, with pictures of 2D-3D-S.

Layout of ``Stanford3dDataset_v1.2``: ``Area_N/ROOM/Annotations/CLASS_N.txt`` with x y z r g b in each line; a class
that is none of the thirteen (``stairs``) is clutter, as the authors' own code has it. The pictures are those of
2D-3D-S (https://github.com/alexsax/2D-3D-Semantics) in ``2D-3D-S/area_N/data``: ``rgb``, ``depth`` (512 a metre, 65535
where unknown) and ``pose`` with ``camera_k_matrix`` and ``camera_rt_matrix``, which maps scene to camera (its text says
4x3, the files hold 3x4).

Not certain: the two parts of area 5 have frames of their own in 2D-3D-S; the one of part b is moved as others have
fitted the meshes to each other (Pointcept, preprocessing of S3DIS). The ``Aligned_Version`` of the rooms is turned
against the pictures: the plain version is the one that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList, load_label_names
from ttt_kd_ros.data.folder import DepthPicture, Folder, Picture, matrix, picture_size
from ttt_kd_ros.data.published.coverage import CANDIDATES
from ttt_kd_ros.data.published.dataset import (
    DataSet,
    SceneEntry,
    fail,
    need,
    read_json,
    read_numbers,
    splits,
)
from ttt_kd_ros.data.published.indoor import Room
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import rigid

PARTS = {"Area_5": ("area_5a", "area_5b")}
T_SCENE_5B = rigid(
    np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.array([-4.09703582, 6.22617759, 0.0])
)
"""Maps the frame of ``area_5b`` to that of ``area_5a`` and of the rooms of area 5."""
UNKNOWN_DEPTH = 65535


class S3DIS(DataSet):
    """The directory that holds ``Area_1`` to ``Area_6``. Words: area, room, ``train`` or ``test`` (area 5)."""

    kind = "S3DIS"
    needs = "Area_N/ROOM/Annotations"
    page = "https://cvg-data.inf.ethz.ch/s3dis/ (pictures: https://github.com/alexsax/2D-3D-Semantics)"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are annotated rooms."""
        return any(root.glob("Area_[1-6]/*/Annotations"))

    def scenes(self) -> Sequence[SceneEntry]:
        """The rooms that are there."""
        rooms = sorted(path.parent for path in self.root.glob("Area_[1-6]/*/Annotations"))
        return [SceneEntry(f"{room.parent.name}/{room.name}", _words(room)) for room in rooms]

    def open(self, scene: SceneEntry, classes: ClassList) -> Folder:
        """One room."""
        return Scene(self.root, scene.name, classes)


class Scene(Room):
    """A room."""

    kind = S3DIS.kind
    label_map = "s3dis"

    def __init__(self, root: Path, name: str, classes: ClassList) -> None:
        self._root, self._path = root, root / name
        super().__init__(name, classes)

    def _surface(self) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        ids = {name: i for i, name in load_label_names("s3dis").items()}
        files = sorted((self._path / "Annotations").glob("*_*.txt"))
        if not files:
            fail(S3DIS, self._path / "Annotations" / "CLASS_N.txt", "the points of an object")
        parts = [read_numbers(S3DIS, path, (-1, 6), "x y z r g b in each line") for path in files]
        labels = [ids.get(path.stem.rsplit("_", 1)[0], ids["clutter"]) for path in files]
        return (
            np.concatenate(parts)[:, :3].astype(np.float32),
            np.repeat(np.array(labels, dtype=np.uint8), [len(part) for part in parts]),
        )

    def _candidates(self, T_world_scan: NDArray[np.float64], points: NDArray[np.float32]) -> Sequence[Picture]:
        area, room = self._path.parent.name, self._path.name
        pictures = []
        for part in PARTS.get(area, (area.lower(),)):
            T_part_scene = np.linalg.inv(T_SCENE_5B) if part == "area_5b" else np.eye(4)
            directory = self._root / "2D-3D-S" / part / "data"
            paths = sorted((directory / "rgb").glob(f"camera_*_{room}_frame_*_domain_*rgb.png"))
            step = max(1, len(paths) // CANDIDATES)
            pictures += [self._picture(directory, path, T_part_scene @ T_world_scan) for path in paths[::step]]
        return pictures

    def _picture(self, directory: Path, path: Path, T_part_scan: NDArray[np.float64]) -> Picture:
        pose_path = directory / "pose" / path.name.replace("rgb.png", "pose.json")
        expected = "camera_k_matrix (3x3) and camera_rt_matrix (3x4)"
        pose = read_json(S3DIS, pose_path, expected)
        try:
            K = matrix(pose["camera_k_matrix"], 3, 3, "camera_k_matrix")
            rt = matrix(pose["camera_rt_matrix"], 3, 4, "camera_rt_matrix")
        except (KeyError, TypeError, DataError) as error:
            fail(S3DIS, pose_path, expected, error)
        depth = need(S3DIS, directory / "depth" / path.name.replace("rgb.png", "depth.png"), "a depth image")
        camera = Camera(*picture_size(path), K)
        T_camera_scan = rigid(rt[:, :3], rt[:, 3]) @ T_part_scan
        return Picture("rgb", path, self.stamps[0], camera, T_camera_scan, DepthPicture(depth, 512.0, UNKNOWN_DEPTH))


def _words(room: Path) -> frozenset[str]:
    area = room.parent.name
    return frozenset({area, room.name, *(split for split, areas in splits("s3dis").items() if area in areas)})
