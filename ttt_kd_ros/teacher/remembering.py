"""Features of pictures that were already seen, as where scans come faster than pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ttt_kd_ros.teacher.features import Grids
from ttt_kd_ros.teacher.load import Teacher

PICTURES = 8
"""As many cameras as a robot commonly has."""


class RememberingTeacher:
    """A teacher that describes each of the last pictures once.

    Pictures are compared pixel by pixel, which ends at the first that differs and is cheap on a GPU.

    Parameters
    ----------
    teacher
        Describes the pictures.
    pictures
        How many pictures are kept in mind, the most recently asked for.
    """

    def __init__(self, teacher: Teacher, pictures: int = PICTURES) -> None:
        self.name = teacher.name
        self.feature_size = teacher.feature_size
        self.long_side = teacher.long_side
        self._teacher = teacher
        self._pictures = pictures
        self._seen: list[tuple[Tensor, Grids]] = []

    def features(self, images: Sequence[Tensor]) -> list[Grids]:
        """Feature grids of pictures, as `Teacher.features` gives them."""
        entries = [self._recall(image) for image in images]
        missing = [place for place, entry in enumerate(entries) if entry is None]
        for place, grids in zip(missing, self._teacher.features([images[place] for place in missing]), strict=True):
            entries[place] = images[place].clone(), grids
        asked = [entry for entry in entries if entry is not None]
        others = [entry for entry in self._seen if all(entry is not now for now in asked)]
        self._seen = [*reversed(asked), *others][: self._pictures]
        return [grids for _, grids in asked]

    def forget(self) -> None:
        """Remember no picture."""
        self._seen = []

    def _recall(self, image: Tensor) -> tuple[Tensor, Grids] | None:
        return next((entry for entry in self._seen if torch.equal(image, entry[0])), None)
