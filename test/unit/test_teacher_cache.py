"""Features kept on disk are those of the teacher, whatever happens to the files."""

import os

import pytest
import torch
from stripes import StripesTeacher

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.teacher.cache import CachedTeacher
from ttt_kd_ros.teacher.features import FeatureGrid


class CountingTeacher(StripesTeacher):
    def __init__(self):
        self.asked = 0

    def features(self, images):
        self.asked += len(images)
        return super().features(images)


def image(seed):
    return torch.randint(0, 255, (48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def same(a, b):
    return all(
        torch.equal(x.values, y.values) and (x.scale, x.offset) == (y.scale, y.offset)
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture
def teacher():
    return CountingTeacher()


def test_a_picture_is_asked_for_once_and_gives_the_same_features(teacher, tmp_path):
    first = CachedTeacher(teacher, tmp_path / "cache", 10**6)
    again = CachedTeacher(teacher, tmp_path / "cache", 10**6)
    assert same(first.features([image(0)])[0], StripesTeacher().features([image(0)])[0])
    assert same(again.features([image(0)])[0], StripesTeacher().features([image(0)])[0])
    assert teacher.asked == 1
    again.features([image(1)])
    assert teacher.asked == 2
    assert (again.name, again.feature_size, again.long_side) == ("stripes", 6, 0)


def test_teachers_with_other_pictures_do_not_share_entries(teacher, tmp_path):
    CachedTeacher(teacher, tmp_path, 10**6).features([image(0)])
    teacher.long_side = 32
    CachedTeacher(teacher, tmp_path, 10**6).features([image(0)])
    assert teacher.asked == 2


def test_of_several_pictures_those_that_are_missing_are_asked_for_together(teacher, tmp_path):
    cached = CachedTeacher(teacher, tmp_path, 10**6)
    cached.features([image(0)])
    found = cached.features([image(1), image(0), image(2), image(1)])
    assert teacher.asked == 3
    for grids, seed in zip(found, (1, 0, 2, 1), strict=True):
        assert same(grids, StripesTeacher().features([image(seed)])[0])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_teachers_of_one_name_with_other_weights_do_not_share_entries(tmp_path, kind):
    class Weighted(torch.nn.Module):
        name, feature_size, long_side = "weighted", 1, 0

        def __init__(self, weight):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(weight, dtype=kind))

        def features(self, images):
            return [(FeatureGrid(self.weight.detach().float().view(1, 1, 1), (1.0, 1.0), (0.0, 0.0)),) for _ in images]

    found = [CachedTeacher(Weighted(w), tmp_path, 10**6).features([image(0)])[0][0].values.item() for w in (1.0, 2.0)]
    assert found == [1.0, 2.0]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_made_again(teacher, tmp_path, damage):
    cached = CachedTeacher(teacher, tmp_path, 10**6)
    cached.features([image(0)])
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"flip": bytes(content), "cut": bytes(content[: len(content) // 2]), "empty": b""}[damage])
    assert same(cached.features([image(0)])[0], StripesTeacher().features([image(0)])[0])
    assert same(cached.features([image(0)])[0], StripesTeacher().features([image(0)])[0])
    assert teacher.asked == 2


def test_a_full_cache_forgets_what_was_not_used_for_longest(teacher, tmp_path):
    cached = CachedTeacher(teacher, tmp_path, 10**6)
    cached.features([image(0)])
    (first,) = tmp_path.iterdir()
    small = CachedTeacher(teacher, tmp_path, 2 * first.stat().st_size)
    small.features([image(1)])
    for age, path in enumerate(sorted(tmp_path.iterdir(), key=lambda p: p != first)):
        os.utime(path, (age, age))
    small.features([image(0)])
    small.features([image(2)])
    assert len(list(tmp_path.iterdir())) == 2
    asked = teacher.asked
    small.features([image(0)])
    assert teacher.asked == asked
    small.features([image(1)])
    assert teacher.asked == asked + 1


def test_a_size_of_nothing_is_refused(teacher, tmp_path):
    with pytest.raises(InputError, match="must be positive"):
        CachedTeacher(teacher, tmp_path, 0)
