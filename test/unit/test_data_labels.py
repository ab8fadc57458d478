"""Label maps: which of a data set's own labels becomes which class."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ttt_kd_ros.classes import load_classes, load_label_map
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.share import share_directory

CLASSES = load_classes("street6")
STREET_MAPS = ("a2d2", "nuscenes", "nuscenes_ika", "pandaset", "semantickitti", "semantickitti_learning", "simulated")
ROOM_MAPS = ("s3dis", "scannet")

# learning_map of semantic-kitti.yaml (semantic-kitti-api), ids that fit into a byte
LEARNING_MAP = {
    0: 0, 1: 0, 10: 1, 11: 2, 13: 5, 15: 3, 16: 5, 18: 4, 20: 5, 30: 6, 31: 7, 32: 8, 40: 9, 44: 10, 48: 11, 49: 12,
    50: 13, 51: 14, 52: 0, 60: 9, 70: 15, 71: 16, 72: 17, 80: 18, 81: 19, 99: 0, 252: 1, 253: 7, 254: 6,
}  # fmt: skip


def named(table, label):
    return "ignore" if table[label] == IGNORE_LABEL else CLASSES.names[table[label]]


def test_the_installed_maps_are_these():
    assert tuple(sorted(p.stem for p in (share_directory() / "config" / "labels").glob("*.yaml"))) == tuple(
        sorted(STREET_MAPS + ROOM_MAPS)
    )


@pytest.mark.parametrize("name", STREET_MAPS)
def test_no_label_has_two_classes_and_every_class_has_a_label(name):
    maps = yaml.safe_load((share_directory() / "config" / "labels" / f"{name}.yaml").read_text())["maps"]["street6"]
    ids = [i for sources in maps.values() for i in sources]
    assert len(ids) == len(set(ids))
    assert set(maps) == set(CLASSES.names)
    assert all(maps.values())


@pytest.mark.parametrize("name", STREET_MAPS)
def test_the_label_for_nothing_has_no_class(name):
    assert load_label_map(name, CLASSES)[255] == IGNORE_LABEL


def test_raw_and_learning_ids_of_semantickitti_mean_the_same():
    raw, learning = load_label_map("semantickitti", CLASSES), load_label_map("semantickitti_learning", CLASSES)
    assert {i: named(raw, i) for i in LEARNING_MAP} == {i: named(learning, j) for i, j in LEARNING_MAP.items()}
    unknown = [i for i in range(256) if i not in LEARNING_MAP]
    assert (raw[unknown] == IGNORE_LABEL).all()


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("semantickitti", 44, "road"),  # parking
        ("semantickitti", 49, "ignore"),  # other ground
        ("semantickitti", 72, "vegetation"),  # terrain
        ("semantickitti", 80, "structure"),  # pole
        ("semantickitti", 31, "person"),  # bicyclist
        ("nuscenes_ika", 3, "structure"),  # pole
        ("nuscenes_ika", 6, "person"),  # two-wheeler
        ("nuscenes_ika", 10, "ignore"),
        ("pandaset", 6, "vegetation"),  # ground
        ("pandaset", 8, "road"),  # lane line marking
        ("pandaset", 12, "ignore"),  # driveway
        ("pandaset", 42, "ignore"),  # other static object
        ("simulated", 3, "vegetation"),  # terrain
        ("simulated", 7, "structure"),  # pole
        ("simulated", 18, "ignore"),  # other object
    ],
)
def test_labels_on_which_data_sets_differ_are_decided(name, label, expected):
    assert named(load_label_map(name, CLASSES), label) == expected


@pytest.mark.data("pandaset_classes.json")
def test_every_name_of_pandaset_goes_where_its_words_belong(data_dir: Path):
    path = data_dir / "pandaset_classes.json"
    names = {int(i): name for i, name in json.loads(path.read_text()).items()}
    words = {
        "road": ("Road", "Marking"),
        "sidewalk": ("Sidewalk",),
        "structure": ("Barrier", "Sign", "Building"),
        "vegetation": ("Vegetation", "Ground"),
        "vehicle": ("Car", "Truck", "truck", "Vehicle", "Bus", "Train", "Trolley", "Tram", "Towed"),
        "person": ("Pedestrian", "cycle", "Scooter", "Mobility", "Pedicab"),
    }
    table = load_label_map("pandaset", CLASSES)
    for label, name in names.items():
        if table[label] != IGNORE_LABEL:
            assert any(word in name for word in words[named(table, label)]), name
    assert not np.isin(np.flatnonzero(table != IGNORE_LABEL), list(names), invert=True).any()
