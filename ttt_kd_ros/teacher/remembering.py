"""Features of pictures that were already seen, as where scans come faster than pictures."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from ttt_kd_ros.teacher.features import FeatureGrid
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
        self._seen: deque[tuple[Tensor, tuple[FeatureGrid, ...]]] = deque(maxlen=pictures)

    def features(self, image: Tensor) -> tuple[FeatureGrid, ...]:
        """Feature grids of one picture, (H, W, 3) uint8 RGB on the teacher's device, as constants for autograd."""
        for place, entry in enumerate(self._seen):
            if torch.equal(image, entry[0]):
                del self._seen[place]
                break
        else:
            entry = image.clone(), self._teacher.features(image)
        self._seen.appendleft(entry)
        return entry[1]
