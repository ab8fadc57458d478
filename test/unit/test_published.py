"""Readers of published data sets, on tiny directories in their formats."""

import json
import shutil
import warnings

import data_sets
import numpy as np
import pytest
import torch
from data_sets import INDOOR, OUTDOOR, WRITERS
from numpy.testing import assert_allclose

from ttt_kd_ros.adaptation.targets import paired_points
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.data import DATA_SETS, open_folder
from ttt_kd_ros.data.published.coverage import PICTURES
from ttt_kd_ros.data.published.dataset import splits
from ttt_kd_ros.data.published.ply import read_ply
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.replay.convert import convert

STREET, ROOM = load_classes("street6"), load_classes("scannet20")
ROAD, STRUCTURE = STREET.names.index("road"), STREET.names.index("structure")
PAGES = {data_set.kind: data_set.page for data_set in DATA_SETS}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return {kind: write(tmp_path_factory.mktemp("sets") / "root") for kind, write in WRITERS.items()}


@pytest.fixture
def copy(roots, tmp_path):
    """A data set that the test may damage."""
    return lambda kind: shutil.copytree(roots[kind], tmp_path / "copy")


def classes_of(kind):
    return ROOM if kind in INDOOR else STREET


def in_base(frame):
    T = frame.scan.T_base_scan
    return frame.scan.points @ T[:3, :3].T + T[:3, 3]


def seen(frame):
    """(N,) how many pictures show each point."""
    count = np.zeros(len(frame.scan.points), int)
    for _, pairs in paired_points(torch.from_numpy(frame.scan.points), frame.views):
        np.add.at(count, pairs.points.numpy(), 1)
    return count


@pytest.mark.parametrize("kind", WRITERS)
def test_every_data_set_is_recognised_and_all_its_scenes_are_read(kind, roots):
    folder = open_folder(roots[kind], classes_of(kind))
    assert folder.kind == kind
    assert len(folder.scenes) >= 2
    assert sum(len(scene) for scene in folder.scenes) == len(folder)
    for stamp, frame in zip(folder.stamps, folder, strict=True):
        assert frame.scan.stamp == stamp > 0
        assert frame.scan.points.dtype == np.float32
        assert frame.labels is None or len(frame.labels) == len(frame.scan.points)
        assert frame.views


@pytest.mark.parametrize("kind", OUTDOOR)
def test_the_base_frame_is_on_the_road_with_x_ahead(kind, roots):
    frame = open_folder(roots[kind], STREET)[0]
    base = in_base(frame)
    road, wall = frame.labels == ROAD, frame.labels == STRUCTURE
    assert abs(np.median(base[road, 2])) < 0.03
    assert base[wall, 2].max() > 1
    assert base[wall, 0].max() > 15
    assert np.median(base[wall, 1]) > 3


@pytest.mark.parametrize("kind", OUTDOOR)
def test_pictures_ahead_show_the_points_ahead(kind, roots):
    frame = open_folder(roots[kind], STREET)[0]
    ahead = in_base(frame)[:, 0] - in_base(frame)[:, 0].min() > 20
    front = next(v for v in frame.views if "back" not in v.name)
    assert (seen(type(frame)(frame.scan, (front,)))[ahead] > 0).mean() > 0.5
    behind = in_base(frame)[:, 0] < 0
    assert not seen(type(frame)(frame.scan, (front,)))[behind].any()


@pytest.mark.parametrize("kind", INDOOR)
def test_a_room_stands_on_its_floor_and_its_pictures_together_show_it(kind, roots):
    frame = open_folder(roots[kind], ROOM)[0]
    assert_allclose(np.percentile(in_base(frame)[:, 2], 5), 0, atol=1e-3)
    names = {name: (frame.labels == ROOM.names.index(name)) for name in ("floor", "wall")}
    assert names["floor"].sum() > 100
    assert names["wall"].sum() > 300
    assert in_base(frame)[names["floor"], 2].max() < 0.01
    assert 3 <= len(frame.views) <= PICTURES
    assert (seen(frame)[names["wall"]] > 0).mean() > 0.6


@pytest.mark.parametrize("kind", INDOOR)
def test_pictures_are_chosen_by_what_they_add(kind, roots):
    yaws = [np.arctan2(v.T_camera_scan[2, 1], v.T_camera_scan[2, 0]) for v in open_folder(roots[kind], ROOM)[0].views]
    quarters = {round(yaw / (np.pi / 2)) % 4 for yaw in yaws}
    assert len(quarters) >= 3


@pytest.mark.parametrize("kind", INDOOR)
def test_a_depth_image_hides_what_lies_behind_its_surface(kind, roots):
    frame = open_folder(roots[kind], ROOM)[0]
    blocked = [type(v)(v.name, v.image, v.camera, v.T_camera_scan, np.full_like(v.depth, 0.5)) for v in frame.views]
    assert seen(frame).any()
    assert not seen(type(frame)(frame.scan, tuple(blocked))).any()


def test_labels_of_semantickitti_are_the_lower_half_and_moving_objects_are_what_they_are_at_rest(roots):
    labels = open_folder(f"{roots['SemanticKITTI data set']}@00", STREET)[0].labels
    names = [STREET.names[i] if i != IGNORE_LABEL else "" for i in labels[:9]]
    assert names == ["road", "sidewalk", "vegetation", "vehicle", "vehicle", "person", "", "", "person"]


def test_the_colour_camera_of_kitti_is_beside_the_reference_camera(roots):
    folder = open_folder(f"{roots['SemanticKITTI data set']}@00", STREET)
    assert_allclose(folder.mountings["image_2"][:3, 3], [-1.0, -0.1, -0.3])  # P2 = K [I | t], t = -40 / 40


def test_the_motion_of_kitti_is_that_of_the_base_ahead(roots):
    first, second = open_folder(f"{roots['SemanticKITTI data set']}@00", STREET).trajectory()
    assert_allclose(first.T_odom_base, np.eye(4), atol=1e-9)
    assert_allclose(second.T_odom_base[:3, 3], [0.8, 0, 0], atol=1e-9)


def test_a_split_without_labels_has_none(roots):
    assert open_folder(f"{roots['SemanticKITTI data set']}@test", STREET)[0].labels is None
    assert open_folder(f"{roots['ScanNet']}@test", ROOM)[0].labels is None


def test_labels_of_nuscenes_are_looked_up_by_name(tmp_path):
    for shuffled in (True, False):
        root = data_sets.nuscenes(tmp_path / str(shuffled), shuffled=shuffled)
        labels = open_folder(root, STREET)[0].labels
        assert [STREET.names[i] if i != IGNORE_LABEL else "" for i in labels[:3]] == ["sidewalk", "vehicle", ""]


def test_nuscenes_without_labels_says_what_is_missing_unless_none_were_published(tmp_path):
    for version in ("v1.0-mini", "v1.0-test"):
        root = data_sets.nuscenes(tmp_path / version, version=version)
        (root / version / "lidarseg.json").unlink()
    with pytest.warns(
        UserWarning, match=r"mini/lidarseg\.json does not exist: no scan has labels without nuScenes-lid"
    ):
        assert open_folder(tmp_path / "v1.0-mini", STREET)[0].labels is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_folder(tmp_path / "v1.0-test", STREET)[0].labels is None


def test_the_motion_between_scan_and_picture_is_in_the_transform_of_nuscenes(roots):
    folder = open_folder(f"{roots['nuScenes']}@scene-0061", STREET)
    poses = {pose.stamp: pose.T_odom_base for pose in folder.trajectory()}
    picture = next(p for p in folder.record(1).pictures if p.camera_name == "cam_front")
    moved = np.linalg.inv(poses[picture.stamp]) @ poses[folder.stamps[1]]
    assert_allclose(moved[0, 3], 0.15, atol=1e-6)  # 5 m/s for 30 ms
    T_base_scan = folder.T_base_scan
    expected = folder.mountings["cam_front"] @ np.linalg.inv(T_base_scan) @ moved @ T_base_scan
    assert_allclose(picture.T_camera_scan, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "scenes"),
    [
        ("", 3), ("singapore", 2), ("usa", 1), ("night", 1), ("day", 2), ("singapore+day", 1), ("scene-0061", 1),
        ("mini_train", 2), ("train", 2), ("val", 1), ("mini_val", 1), ("boston-seaport", 1),
    ],
)  # fmt: skip
def test_scenes_of_nuscenes_are_chosen_by_split_country_and_light(words, scenes, roots):
    folder = open_folder(f"{roots['nuScenes']}@{words}", STREET)
    assert len(folder.scenes) == scenes
    assert folder.name == (f"root@{words}" if words else "root")


def test_a_slice_takes_frames_of_the_chosen_scenes(roots):
    root = roots["SemanticKITTI data set"]
    assert len(open_folder(f"{root}@train", STREET)) == 2
    assert open_folder(f"{root}@train@1:", STREET).stamps == open_folder(f"{root}@train", STREET).stamps[1:]
    assert len(open_folder(f"{root}@::2", STREET)) == 3
    assert open_folder(f"{root}@val@::2", STREET).name == "root@val@::2"


def test_a_version_of_nuscenes_is_chosen_by_its_directory(roots):
    assert len(open_folder(roots["nuScenes"] / "v1.0-mini", STREET)) == 6


@pytest.mark.parametrize(
    ("part", "message"), [("@nowhere", "no scene 'nowhere'; scenes are chosen by"), ("@val@7:", "none of them in @7:")]
)
def test_a_part_that_is_not_there_is_refused(part, message, roots):
    with pytest.raises(DataError, match=message):
        open_folder(f"{roots['SemanticKITTI data set']}{part}", STREET)


def test_a_room_of_s3dis_is_not_another_whose_name_begins_alike(roots):
    folder = open_folder(f"{roots['S3DIS']}@Area_1+office_1", ROOM)
    assert [scene.name for scene in folder.scenes] == ["root@Area_1+office_1"]
    assert {p.path.name.split("_frame_")[0][-8:] for p in folder.record(0).pictures} == {"office_1"}


def test_a_part_with_a_slash_is_taken_for_a_part(roots):
    with pytest.raises(DataError, match="no scene 'Area_1/office_1'"):
        open_folder(f"{roots['S3DIS']}@Area_1/office_1", ROOM)


def test_what_s3dis_does_not_name_is_clutter(roots):
    classes = load_classes("s3dis13")
    labels = open_folder(f"{roots['S3DIS']}@Area_5", classes)[0].labels
    assert (labels == classes.names.index("clutter")).sum() == 3


def test_labels_of_matterport_go_from_triangles_to_vertices(roots):
    root = roots["Matterport3D"]
    frame = open_folder(f"{root}@region0", ROOM)[0]
    _, surface = data_sets.room(0, 1800)
    truth = np.array([ROOM.names.index("floor"), IGNORE_LABEL, ROOM.names.index("wall")])[surface]
    assert (frame.labels == truth).mean() > 0.99


def test_both_spellings_of_the_arrays_of_a2d2_are_read(tmp_path):
    old = open_folder(data_sets.a2d2(tmp_path / "old", prefix="", names=""), STREET)[0]
    new = open_folder(data_sets.a2d2(tmp_path / "new"), STREET)[0]
    assert_allclose(old.scan.points, new.scan.points)
    assert (old.labels == new.labels).all()


def test_scans_of_a2d2_that_do_not_tell_the_pixels_of_their_points_are_left_out(tmp_path):
    root = data_sets.a2d2(tmp_path / "data")
    whole = open_folder(root, STREET)
    first = sorted(root.rglob("*lidar*.npz"))[0]
    arrays = {name: values for name, values in np.load(first).items() if not name.endswith(("row", "col"))}
    np.savez(first, **arrays)
    left = open_folder(root, STREET)
    assert len(left) == len(whole) - 1
    assert all(frame.labels is not None for frame in left)


def test_a_label_that_semantickitti_does_not_have_is_refused_with_its_file(tmp_path):
    root = data_sets.semantickitti(tmp_path / "data")
    path = sorted(root.rglob("*.label"))[0]
    path.write_bytes(np.full(path.stat().st_size // 4, 300, np.uint32).tobytes())
    with pytest.raises(DataError, match=rf"{path.stem}\.label is malformed; expected labels .* 300"):
        open_folder(f"{root}@{path.parts[-3]}", STREET)[0]


def test_pandaset_is_read_in_the_frame_of_the_scanner(tmp_path):
    pytest.importorskip("pandas")
    root = data_sets.pandaset(tmp_path / "root")
    frame = open_folder(f"{root}@labelled", STREET)[0]
    assert_allclose(in_base(frame)[frame.labels == ROAD, 2], in_base(frame)[frame.labels == ROAD, 2].mean(), atol=0.3)
    spinning = open_folder(f"{root}@001", STREET, spinning_only=True)[0]
    assert len(spinning.labels) == len(spinning.scan.points) == len(frame.scan.points) * 3 // 4


MISSING = {
    "SemanticKITTI data set": ("sequences/00/calib.txt", "sequences/00/labels/000000.label",
                               "sequences/00/image_2/000000.png"),
    "nuScenes": ("v1.0-mini/ego_pose.json", "lidarseg/v1.0-mini/scene-0061-0_lidarseg.bin",
                 "samples/CAM_FRONT/scene-0061-0.jpg", "samples/LIDAR_TOP/scene-0061-0.pcd.bin"),
    "A2D2": ("class_list.json",
             "20180807_145028/label/cam_front_center/20180807145028_label_frontcenter_000000000.png"),
    "ScanNet": ("scans/scene0000_00/scene0000_00_vh_clean_2.labels.ply", "scans/scene0000_00/pose/0.txt",
                "scans/scene0000_00/depth/3.png", "scans/scene0000_00/intrinsic/intrinsic_color.txt"),
    "S3DIS": (f"2D-3D-S/area_1/data/pose/camera_{0:032x}_office_1_frame_0_domain_pose.json",),
    "Matterport3D": ("v1/scans/category_mapping.tsv",
                     "v1/scans/17DRP5sb8fy/undistorted_camera_parameters/17DRP5sb8fy.conf"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "file"), [(kind, file) for kind, files in MISSING.items() for file in files])
def test_a_missing_or_damaged_file_is_named_with_what_was_expected_and_where_to_get_it(kind, file, copy):
    root = copy(kind)
    for damage, words in ((b"x", "malformed"), (None, "does not exist")):
        if damage and file.endswith((".jpg", "image_2/000000.png", "depth/3.png")):
            continue
        (root / file).write_bytes(damage) if damage else (root / file).unlink()
        with pytest.raises(DataError) as error:
            open_folder(root, classes_of(kind))[0]
        for text in (file.split("/")[-1], words, "expected", PAGES[kind]):
            assert text in str(error.value)


def test_a_folder_of_unknown_kind_lists_the_data_sets_too(tmp_path):
    np.savez(tmp_path / "0.npz", x=np.zeros(1))
    with pytest.raises(DataError) as error:
        open_folder(tmp_path, STREET)
    assert all(kind in str(error.value) for kind in PAGES)


def test_a_bag_holds_one_scene_of_a_data_set(roots, tmp_path):
    with pytest.raises(DataError, match="holds 3 scenes; a bag holds one"):
        convert(open_folder(roots["nuScenes"], STREET), tmp_path / "bag")


def test_a_bag_without_the_mounting_of_its_cameras_is_refused(roots, tmp_path):
    with pytest.raises(InputError, match="where color is mounted is not known"):
        convert(open_folder(f"{roots['ScanNet']}@scene0000_00", ROOM), tmp_path / "bag")
    convert(open_folder(f"{roots['nuScenes']}@scene-0061", STREET), tmp_path / "bag")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("nuscenes", {"train": 700, "val": 150, "test": 150, "mini_train": 8, "mini_val": 2}),
        ("scannet", {"train": 1201, "val": 312, "test": 100}),
        ("matterport3d", {"train": 61, "val": 11, "test": 18}),
        ("semantickitti", {"train": 10, "val": 1, "test": 11}),
        ("a2d2", {"train": 20, "test": 1}),
        ("s3dis", {"train": 5, "test": 1}),
    ],
)
def test_splits_have_their_published_sizes_and_share_no_scene(name, sizes):
    parts = splits(name)
    assert {part: len(scenes) for part, scenes in parts.items()} == sizes
    main = [parts[part] for part in ("train", "val", "test") if part in parts]
    assert sum(map(len, main)) == len(frozenset.union(*main))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain text", "no PLY header"),
        (b"ply\nformat binary_big_endian 1.0\nend_header\n", "format is none of"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty float x\nend_header\n1234", "buffer"),
        (b"ply\nformat ascii 1.0\nelement face 1\nproperty list uchar int a\nend_header\n4 0 1 2\n", "no triangles"),
    ],
)
def test_a_ply_file_that_cannot_be_read_says_why(content, message, tmp_path):
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_ply(tmp_path / "a.ply")


def test_a_ply_file_of_text_is_read_as_a_binary_one_is(tmp_path):
    text = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty uchar red\nelement face 1\n"
    text += "property list uchar int vertex_indices\nproperty int face_category\nend_header\n"
    (tmp_path / "a.ply").write_text(text + "0.5 7\n1 8\n2 9\n3 0 1 2 41\n")
    mesh = read_ply(tmp_path / "a.ply")
    assert mesh["vertex"]["x"].tolist() == [0.5, 1, 2]
    assert mesh["vertex"]["red"].tolist() == [7, 8, 9]
    assert mesh["face"]["vertex_indices"].tolist() == [[0, 1, 2]]
    assert mesh["face"]["face_category"].tolist() == [41]


@pytest.mark.data("semantickitti_00")
def test_real_scans_of_kitti_are_the_same_in_the_official_layout(tmp_path, data_dir):
    real = open_folder(f"{data_dir / 'semantickitti_00'}@0:2", STREET)
    path = tmp_path / "sequences" / "00"
    calibration = json.loads((data_dir / "semantickitti_00" / "calib.json").read_text())
    rows = {"P2": calibration["P0"], "Tr": calibration["Tr"]}
    data_sets.write(path / "calib.txt", "".join(f"{k}: {' '.join(map(str, np.ravel(v)))}\n" for k, v in rows.items()))
    data_sets.write(path / "times.txt", "0.0\n0.1\n")
    (path / "image_2").mkdir()
    for i in range(2):
        arrays = np.load(data_dir / "semantickitti_00" / f"{i:06d}.npz")
        labels = np.where(arrays["label"] == 255, 0, arrays["label"]).astype(np.uint32)
        data_sets.write(path / "velodyne" / f"{i:06d}.bin", arrays["points"].astype(np.float32))
        data_sets.write(path / "labels" / f"{i:06d}.label", labels)
        shutil.copy(data_dir / "semantickitti_00" / f"{i:06d}.png", path / "image_2")
    for expected, frame in zip(real, open_folder(tmp_path, STREET), strict=True):
        assert (frame.scan.points == expected.scan.points).all()
        assert (frame.labels == expected.labels).all()
        assert_allclose(frame.views[0].T_camera_scan, expected.views[0].T_camera_scan)
        assert_allclose(frame.views[0].camera.K, expected.views[0].camera.K)
