"""Rooms: a reconstructed scene is one frame, with those of its many pictures that show most of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import FIRST_STAMP, Folder, Picture, Record
from ttt_kd_ros.data.published.coverage import choose_by_coverage
from ttt_kd_ros.geometry.transforms import rigid

FLOOR_PERCENTILE = 1.0
"""Share of a scene's points [%] below its floor: noise of the reconstruction."""


class Room(Folder):
    """One scene.

    The scan frame is the scene's own, with its z axis moved so that the floor is at 0: there is no sensor, so this is
    the base frame too. There is no intensity (0).
    """

    T_base_scan = np.eye(4)

    def __init__(self, name: str, classes: ClassList) -> None:
        super().__init__(name, classes, [FIRST_STAMP])
        self._taken: tuple[Picture, ...] | None = None

    @abstractmethod
    def _surface(self) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """Points (N, 3) [m] of the scene, z up, and their labels (N,) in the data set's own ids."""

    @abstractmethod
    def _candidates(self, T_world_scan: NDArray[np.float64], points: NDArray[np.float32]) -> Sequence[Picture]:
        """Pictures of the scene, given its frame in the data set's and its points (N, 3) [m] in the scan frame."""

    def record(self, index: int) -> Record:
        """The scene; 0 is the only index."""
        stamp = self.stamps[index]
        xyz, ids = self._surface()
        floor = float(np.percentile(xyz[:, 2], FLOOR_PERCENTILE))
        points = np.column_stack([xyz[:, :2], xyz[:, 2] - floor, np.zeros(len(xyz))]).astype(np.float32)
        labels = self._classes[ids] if self._classes is not None and ids is not None else None
        return Record(stamp, points, labels, self._pictures(points[:, :3], floor))

    def _pictures(self, points: NDArray[np.float32], floor: float) -> tuple[Picture, ...]:
        """Choosing takes looking at many depth images: it is done once."""
        if self._taken is None:
            candidates = self._candidates(rigid(np.eye(3), np.array([0.0, 0.0, floor])), points)
            self._taken = tuple(choose_by_coverage(points, candidates))
        return self._taken
