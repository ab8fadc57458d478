"""Features of pictures that were already seen, as where scans come faster than pictures."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from ttt_kd_ros.teacher.features import FeatureGrid, fingerprint
from ttt_kd_ros.teacher.load import Teacher

PICTURES = 8
"""As many cameras as a robot commonly has."""


class RememberingTeacher:
    """A teacher that describes each of the last pictures once.

    A picture is known by a hash of its pixels, which takes a hundredth of the smallest teacher's time.

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
        self._features: OrderedDict[str, tuple[FeatureGrid, ...]] = OrderedDict()

    def features(self, image: Tensor) -> tuple[FeatureGrid, ...]:
        """Feature grids of one picture, (H, W, 3) uint8 RGB on the teacher's device, as constants for autograd."""
        key = fingerprint(image)
        if key not in self._features:
            self._features[key] = self._teacher.features(image)
        self._features.move_to_end(key)
        while len(self._features) > self._pictures:
            self._features.popitem(last=False)
        return self._features[key]
