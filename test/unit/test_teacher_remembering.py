"""A picture that comes again is not described again."""

from collections.abc import Sequence

import pytest
import torch

from ttt_kd_ros.teacher.features import FeatureGrid, Grids
from ttt_kd_ros.teacher.remembering import RememberingTeacher


class CountingTeacher:
    """Its one feature is the mean of the picture."""

    name = "counting"
    feature_size = 1
    long_side = 0

    def __init__(self) -> None:
        self.asked = 0

    def features(self, images: Sequence[torch.Tensor]) -> list[Grids]:
        self.asked += len(images)
        return [(FeatureGrid(image.float().mean().view(1, 1, 1), (1.0, 1.0), (0.0, 0.0)),) for image in images]


@pytest.fixture
def teacher() -> CountingTeacher:
    return CountingTeacher()


def picture(seed: int, height: int = 6, width: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_the_same_pixels_get_the_same_features_without_asking_again(teacher):
    remembering = RememberingTeacher(teacher)
    first = remembering.features([picture(0)])[0]
    again = remembering.features([picture(0).clone()])[0]
    assert teacher.asked == 1
    assert again is first


def test_one_changed_pixel_is_another_picture(teacher):
    remembering = RememberingTeacher(teacher)
    changed = picture(0)
    changed[5, 3, 2] ^= 1
    (first,), (second,) = remembering.features([picture(0), changed])
    assert teacher.asked == 2
    assert first.values != second.values


def test_the_same_bytes_in_another_shape_are_another_picture(teacher):
    remembering = RememberingTeacher(teacher)
    remembering.features([picture(0)])
    remembering.features([picture(0).reshape(4, 6, 3)])
    assert teacher.asked == 2


def test_the_pictures_asked_for_last_are_kept(teacher):
    remembering = RememberingTeacher(teacher, pictures=2)
    for seed in (0, 1, 0, 2):
        remembering.features([picture(seed)])
    assert teacher.asked == 3
    remembering.features([picture(0)])
    assert teacher.asked == 3
    remembering.features([picture(1)])
    assert teacher.asked == 4


def test_pixels_that_do_not_lie_side_by_side_are_the_same_picture(teacher):
    remembering = RememberingTeacher(teacher)
    remembering.features([picture(0)])
    remembering.features([picture(0).permute(1, 0, 2).contiguous().permute(1, 0, 2)])
    assert teacher.asked == 1


def test_it_is_the_teacher_that_it_asks(teacher):
    remembering = RememberingTeacher(teacher)
    assert (remembering.name, remembering.feature_size, remembering.long_side) == ("counting", 1, 0)


def test_of_several_pictures_those_that_are_new_are_asked_for_together(teacher):
    remembering = RememberingTeacher(teacher, pictures=2)
    remembering.features([picture(0)])
    found = remembering.features([picture(1), picture(0), picture(2)])
    assert teacher.asked == 3
    assert found == [CountingTeacher().features([picture(seed)])[0] for seed in (1, 0, 2)]
