"""Matterport3D: the regions of 90 buildings, with undistorted pictures and their depth.

Layout as in https://github.com/niessner/Matterport (data_organization.md): ``v1/scans/HOUSE/region_segmentations/
regionN.ply`` has triangles with ``face_category``, a row of ``category_mapping.tsv``, whose ``nyu40id`` is the label
here: so the classes are those of ScanNet. ``undistorted_camera_parameters/HOUSE.conf`` has the cameras (camera to
building, looking along -z with y up), ``undistorted_depth_images`` 4000 a metre. The table of categories is part of
the authors' repository (metadata/category_mapping.tsv) and lies beside the buildings, in ``v1/scans``.

Not certain: the page counts picture rows from below, but the principal points of the conf files are those of the
distorted pictures, which count from above; they are taken as counted from above.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import DepthPicture, Folder, Picture, picture_size
from ttt_kd_ros.data.published.coverage import CANDIDATES
from ttt_kd_ros.data.published.dataset import DataSet, SceneEntry, fail, need, splits
from ttt_kd_ros.data.published.indoor import Room
from ttt_kd_ros.data.published.ply import read_ply
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import invert

OPTICAL_FROM_CANONICAL = np.diag([1.0, -1.0, -1.0, 1.0])
NEAR = 0.5
"""Cameras at most this far outside the region's extent [m] are among its candidates."""


class Matterport3D(DataSet):
    """The directory that holds ``v1/scans``. Words: building, region, ``train``, ``val`` or ``test``."""

    kind = "Matterport3D"
    needs = "v1/scans/HOUSE/region_segmentations"
    page = "https://niessner.github.io/Matterport/"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are segmented regions."""
        return any(root.glob("v1/scans/*/region_segmentations"))

    def scenes(self) -> Sequence[SceneEntry]:
        """The regions that are there."""
        paths = self.root.glob("v1/scans/*/region_segmentations/region*.ply")
        return [
            SceneEntry(f"{path.parents[1].name}/{path.stem}", _words(path.parents[1].name, path.stem))
            for path in sorted(paths, key=lambda path: (path.parents[1].name, int(path.stem.removeprefix("region"))))
        ]

    def open(self, scene: SceneEntry, classes: ClassList) -> Folder:
        """One region."""
        house, region = scene.name.split("/")
        return Region(self.root / "v1" / "scans" / house, region, classes)


class Region(Room):
    """A region of a building."""

    kind = Matterport3D.kind
    label_map = "scannet"

    def __init__(self, house: Path, region: str, classes: ClassList) -> None:
        self._house, self._mesh = house, house / "region_segmentations" / f"{region}.ply"
        super().__init__(f"{house.name}/{region}", classes)

    def _surface(self) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        try:
            mesh = read_ply(self._mesh)
            points = np.stack([mesh["vertex"][axis] for axis in "xyz"], axis=1).astype(np.float32)
            names = mesh["face"].dtype.names or ()
            corners = mesh["face"]["vertex_indices" if "vertex_indices" in names else "vertex_index"]
            categories = mesh["face"]["face_category"]
        except (OSError, ValueError, KeyError) as error:
            fail(Matterport3D, self._mesh, "a PLY file of triangles with 'face_category'", error)
        ids = read_categories(self._house.parent / "category_mapping.tsv")
        known = np.where((categories >= 0) & (categories < len(ids)), categories, 0)
        return points, _by_vertex(len(points), corners, ids[known])

    def _candidates(self, T_world_scan: NDArray[np.float64], points: NDArray[np.float32]) -> Sequence[Picture]:
        if not (self._house / "undistorted_color_images").is_dir():
            return []
        low, high = points.min(axis=0) - NEAR, points.max(axis=0) + NEAR
        inside = []
        for K, depth, color, T_world_camera in read_conf(
            self._house / "undistorted_camera_parameters" / f"{self._house.name}.conf"
        ):
            centre = (invert(T_world_scan) @ T_world_camera)[:3, 3]
            if ((low <= centre) & (centre <= high)).all():
                inside.append((K, depth, color, OPTICAL_FROM_CANONICAL @ invert(T_world_camera) @ T_world_scan))
        step = max(1, len(inside) // CANDIDATES)
        return [self._picture(*camera) for camera in inside[::step]]

    def _picture(self, K: NDArray[np.float64], depth: str, color: str, T_camera_scan: NDArray[np.float64]) -> Picture:
        path = need(
            Matterport3D, self._house / "undistorted_color_images" / color, "a picture that the conf file names"
        )
        depth_path = need(Matterport3D, self._house / "undistorted_depth_images" / depth, "the depth of a picture")
        camera = Camera(*picture_size(path), K)
        return Picture("undistorted", path, self.stamps[0], camera, T_camera_scan, DepthPicture(depth_path, 4000.0))


Shot = tuple[NDArray[np.float64], str, str, NDArray[np.float64]]


@lru_cache(maxsize=4)
def read_conf(path: Path) -> tuple[Shot, ...]:
    """Intrinsics, names of depth and colour picture, and ``T_world_camera`` of each ``scan`` line."""
    expected = "lines 'intrinsics_matrix' with 9 numbers, followed by 'scan DEPTH COLOR' with 16 numbers"
    shots, K = [], np.eye(3)
    try:
        for line in path.read_text().splitlines():
            command, *rest = line.split() or [""]
            if command == "intrinsics_matrix":
                K = np.array(rest, dtype=np.float64).reshape(3, 3)
            elif command == "scan":
                shots.append((K, rest[0], rest[1], np.array(rest[2:], dtype=np.float64).reshape(4, 4)))
    except (OSError, ValueError, IndexError) as error:
        fail(Matterport3D, path, expected, error)
    if not shots:
        fail(Matterport3D, path, expected)
    return tuple(shots)


@lru_cache(maxsize=4)
def read_categories(path: Path) -> NDArray[np.uint8]:
    """(C,) NYU40 id of each category, 0 for none."""
    expected = "the authors' metadata/category_mapping.tsv with columns 'index' and 'nyu40id'"
    try:
        with path.open(newline="") as file:
            rows = [(int(r["index"]), int(r["nyu40id"] or 0)) for r in csv.DictReader(file, delimiter="\t")]
        table = np.zeros(max(index for index, _ in rows) + 1, dtype=np.uint8)
        for index, nyu40 in rows:
            table[index] = nyu40
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(Matterport3D, path, expected, error)
    return table


def _by_vertex(count: int, corners: NDArray[np.int32], ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(V,) the id that most of a vertex's triangles have, 0 for vertices without."""
    votes = np.zeros((count, int(ids.max(initial=0)) + 1), dtype=np.uint16)
    np.add.at(votes, (corners.ravel(), np.repeat(ids, 3)), 1)
    return votes.argmax(axis=1).astype(np.uint8)


def _words(house: str, region: str) -> frozenset[str]:
    return frozenset({house, region, *(split for split, houses in splits("matterport3d").items() if house in houses)})
