"""Class lists and label maps."""

import numpy as np
import pytest

from ttt_kd_ros.classes import ClassList, load_classes, load_label_map
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import IGNORE_LABEL

TWO = {"name": "two", "classes": [{"name": "a", "color": [1, 2, 3]}, {"name": "b", "color": [4, 5, 6]}]}


def test_a_class_list_comes_back_from_its_plain_values():
    classes = ClassList.from_dict(TWO)
    assert classes.names == ("a", "b")
    assert ClassList.from_dict(classes.to_dict()) == classes


def test_the_palette_gives_each_label_its_colour_and_black_to_the_others():
    palette = ClassList.from_dict(TWO).palette()
    assert palette.shape == (256, 3)
    np.testing.assert_array_equal(palette[:2], [[1, 2, 3], [4, 5, 6]])
    assert not palette[2:].any()


@pytest.mark.parametrize(
    "change",
    [
        {"classes": []},
        {"classes": [TWO["classes"][0]] * 2},
        {"classes": [{"name": "a", "color": [1, 2, 300]}]},
        {"classes": [{"name": "a"}]},
        {"classes": None},
    ],
)
def test_a_class_list_that_cannot_be_used_is_refused(change):
    with pytest.raises(InputError, match="class list"):
        ClassList.from_dict(TWO | change)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "{name: a, classes: [{name: b, color: red}]}", "\x00"])
def test_a_file_that_is_no_class_list_is_refused(text, tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"list\.yaml is no class list"):
        load_classes(path)


def test_a_class_list_that_is_not_installed_is_refused_with_those_that_are():
    with pytest.raises(InputError, match=r"'street7' is neither .* has .*street6"):
        load_classes("street7")


@pytest.fixture
def label_map(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text("maps: {two: {a: [3, 4], b: [7]}}")
    return path


def test_labels_without_a_class_are_ignored(label_map):
    table = load_label_map(label_map, ClassList.from_dict(TWO))
    assert table[[3, 4, 7]].tolist() == [0, 0, 1]
    assert (np.delete(table, [3, 4, 7]) == IGNORE_LABEL).all()


def test_a_label_map_to_other_classes_is_refused(label_map):
    with pytest.raises(InputError, match="no map to the class list 'three', only to two"):
        load_label_map(label_map, ClassList.from_dict(TWO | {"name": "three"}))


def test_a_label_map_with_an_unknown_class_is_refused(label_map):
    label_map.write_text("maps: {two: {c: [1]}}")
    with pytest.raises(InputError, match="'c' is no class of two"):
        load_label_map(label_map, ClassList.from_dict(TWO))
