"""Scenes of a published data set, one after the other, as one sequence of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.data.folder import Folder, Pose, Record
from ttt_kd_ros.frame import Frame


class Scenes(Folder):
    """Some frames of some scenes.

    Parameters
    ----------
    name
        What it is called.
    frames
        Scene and number in it of each frame; frames of a scene follow one another. At least one.
    """

    def __init__(self, name: str, frames: Sequence[tuple[Folder, int]]) -> None:
        first = frames[0][0]
        self.kind, self.label_map = first.kind, first.label_map  # type: ignore[misc]
        self.T_base_scan = first.T_base_scan
        super().__init__(name, first.classes, [scene.stamps[index] for scene, index in frames])
        self._frames = tuple(frames)

    @property
    def scenes(self) -> tuple[Folder, ...]:
        """Each scene with its frames that are meant."""
        by_scene = {id(scene): scene for scene, _ in self._frames}
        if len(by_scene) == 1:
            return (self,)
        return tuple(
            Scenes(scene.name, [frame for frame in self._frames if frame[0] is scene]) for scene in by_scene.values()
        )

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """Those of the scene; none for several, whose cameras may be mounted differently."""
        return self._frames[0][0].mountings if len(self.scenes) == 1 else {}

    def trajectory(self) -> tuple[Pose, ...]:
        """That of the scene; none for several, which have no frame in common."""
        return self._frames[0][0].trajectory() if len(self.scenes) == 1 else ()

    def __getitem__(self, index: int) -> Frame:
        scene, number = self._frames[index]
        return scene[number]

    def record(self, index: int) -> Record:
        """One scan, with intensity, and where its pictures lie."""
        scene, number = self._frames[index]
        return scene.record(number)
