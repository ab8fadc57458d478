"""Readers of data folders, on tiny folders of every format and on the real ones."""

import io
import json
import zipfile
from itertools import pairwise
from pathlib import Path

import cv2
import data_folders
import numpy as np
import pytest
from data_folders import POINTS, WRITERS
from numpy.testing import assert_allclose, assert_array_equal

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.data.folder import level
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import IGNORE_LABEL

CLASSES = load_classes("street6")
ROAD, SIDEWALK, STRUCTURE, VEGETATION, VEHICLE, PERSON = range(6)


def real(*names):
    return [pytest.param(name, marks=pytest.mark.data(name)) for name in names]


LABELLED = real("semantickitti_00", "scans_semantickitti_00", "scans_nuscenes", "scans_ika_vlp32", "pandaset_001")
PICTURED = real("semantickitti_00", "kitti_raw_0926", "pandaset_001", "pandaset_002", "nuscenes_6cam")


def in_base(frame):
    T = frame.scan.T_base_scan
    return frame.scan.points @ T[:3, :3].T + T[:3, 3]


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_is_recognised_by_its_content_whatever_the_folder_is_called(kind, tmp_path):
    folder = open_folder(WRITERS[kind](tmp_path / "anything"), CLASSES)
    assert (folder.kind, folder.name) == (kind, "anything")


@pytest.mark.parametrize("kind", WRITERS)
def test_every_frame_holds_all_points_and_matching_labels_views_and_stamps(kind, tmp_path):
    folder = open_folder(WRITERS[kind](tmp_path / "folder"), CLASSES)
    frames = list(folder)
    assert len(frames) == len(folder) > 0
    assert [frame.scan.stamp for frame in frames] == list(folder.stamps) == sorted(set(folder.stamps))
    for frame in frames:
        assert frame.scan.points.shape == (POINTS, 3)
        assert frame.scan.points.dtype == np.float32
        assert (frame.labels is None) == (folder.label_map is None)
        assert frame.labels is None or frame.labels.shape == (POINTS,)
        assert {view.name for view in frame.views} <= set(folder.camera_names)
        for view in frame.views:
            assert view.image.shape == (view.camera.height, view.camera.width, 3)


def test_labels_are_mapped_to_the_classes_and_those_without_a_class_are_ignored(tmp_path):
    labels = open_folder(data_folders.semantickitti(tmp_path / "f"), CLASSES)[0].labels
    expected = [ROAD, ROAD, SIDEWALK, STRUCTURE, VEGETATION, VEHICLE, PERSON, IGNORE_LABEL, IGNORE_LABEL]
    assert labels[:9].tolist() == expected


def test_a_grey_picture_becomes_three_equal_channels(tmp_path):
    path = data_folders.semantickitti(tmp_path / "f")
    image = open_folder(path, CLASSES)[0].views[0].image
    grey = cv2.imread(str(path / "000000.png"), cv2.IMREAD_UNCHANGED)
    for channel in range(3):
        assert_array_equal(image[:, :, channel], grey)


def test_a_colour_picture_is_rgb(tmp_path):
    path = data_folders.kitti_raw(tmp_path / "f")
    cv2.imwrite(str(path / "000000.jpg"), np.full((48, 64, 3), (250, 20, 10), dtype=np.uint8))
    red, green, blue = open_folder(path, CLASSES)[0].views[0].image[20, 20].astype(int)
    assert blue > 200 > 60 > max(red, green)


def test_a_scan_without_a_picture_has_no_view(tmp_path):
    folder = open_folder(data_folders.semantickitti(tmp_path / "f", scans=3, pictures=2), CLASSES)
    assert [len(frame.views) for frame in folder] == [1, 1, 0]


def test_numbered_scans_come_at_10_hz_from_a_time_that_is_not_zero(tmp_path):
    stamps = open_folder(data_folders.semantickitti(tmp_path / "f"), CLASSES).stamps
    assert stamps[0] > 0
    assert np.diff(stamps).tolist() == [100_000_000, 100_000_000]


def test_scans_named_by_their_stamp_keep_it(tmp_path):
    stamps = open_folder(data_folders.ika_vlp32(tmp_path / "f"), CLASSES).stamps
    assert stamps == (1603960637314959526, 1603960637514871120)


def test_the_pictures_of_a_nuscenes_keyframe_keep_their_own_stamps(tmp_path):
    folder = open_folder(data_folders.nuscenes_keyframe(tmp_path / "f"), CLASSES)
    assert folder.stamps == (1532402927647951000,)
    assert [p.stamp for p in folder.record(0).pictures] == [1532402927612460000, 1532402927632460000]


def test_places_of_a_range_image_that_hold_no_measurement_become_invalid_points(tmp_path):
    frame = open_folder(data_folders.ika_vlp32(tmp_path / "f"), CLASSES)[0]
    invalid = np.isnan(frame.scan.points).all(axis=1)
    assert np.flatnonzero(invalid).tolist() == [5, 6, 7, 8]
    assert (frame.labels[invalid] == IGNORE_LABEL).all()
    assert np.isfinite(frame.scan.points[~invalid]).all()


def test_only_the_spinning_sensor_of_pandaset_is_left_if_asked_for(tmp_path):
    path = data_folders.pandaset(tmp_path / "f")
    both, spinning = open_folder(path, CLASSES)[1], open_folder(path, CLASSES, spinning_only=True)[1]
    chosen = np.load(path / "000001.npz")["sensor"] == 0
    assert 0 < chosen.sum() < POINTS
    assert_array_equal(spinning.scan.points, both.scan.points[chosen])
    assert_array_equal(spinning.labels, both.labels[chosen])


def test_the_intensity_is_kept_as_it_is(tmp_path):
    path = data_folders.nuscenes_keyframe(tmp_path / "f")
    assert_array_equal(open_folder(path, CLASSES).record(0).points, np.load(path / "scan.npz")["points"])


def test_folders_count_from_the_end_and_end_where_they_end(tmp_path):
    folder = open_folder(data_folders.kitti_raw(tmp_path / "f"), CLASSES)
    assert_array_equal(folder[-1].scan.points, folder[1].scan.points)
    assert_array_equal(folder[-1].views[0].image, folder[1].views[0].image)
    with pytest.raises(IndexError):
        folder[2]


@pytest.mark.parametrize("forward", ["x", "y"])
def test_the_base_frame_has_the_ground_at_zero_below_the_sensor_and_points_forward(forward):
    height, slope_x, slope_y = 1.7, 0.03, -0.02
    T = level(height, slope_x, slope_y, forward)
    xy = np.random.default_rng(0).uniform(-50, 50, (100, 2))
    ground = np.column_stack([xy, xy @ [slope_x, slope_y] - height])
    base = ground @ T[:3, :3].T + T[:3, 3]
    assert_allclose(base[:, 2], 0, atol=1e-9)
    assert_allclose(np.linalg.norm(base - base[0], axis=1), np.linalg.norm(ground - ground[0], axis=1))
    assert np.linalg.det(T[:3, :3]) > 0
    assert_allclose(T[:2, 3], 0)
    ahead = T[:3, :3] @ {"x": [1.0, 0, 0], "y": [0, 1.0, 0]}[forward]
    assert ahead[0] > 0.99
    assert_allclose(ahead[1], 0, atol=1e-12)


def two_time_transform(folder, index):
    """T_camera_scan through the frame that does not move, from the mounting and the poses at the two stamps."""
    poses = {pose.stamp: pose.T_odom_base for pose in folder.trajectory()}
    picture = folder.record(index).pictures[0]
    T_scan_base = np.linalg.inv(folder.T_base_scan)
    T_odom_base_picture, T_odom_base_scan = poses[picture.stamp], poses[folder.stamps[index]]
    T_camera_base = folder.mountings[picture.camera_name] @ T_scan_base
    return T_camera_base @ np.linalg.inv(T_odom_base_picture) @ T_odom_base_scan @ folder.T_base_scan


def test_mounting_and_motion_together_give_the_calibration_of_each_pandaset_frame(tmp_path):
    folder = open_folder(data_folders.pandaset(tmp_path / "f", speed=15.0, turn=0.5), CLASSES)
    stamps = [pose.stamp for pose in folder.trajectory()]
    assert stamps == sorted(stamps)
    for index in range(len(folder)):
        assert_allclose(two_time_transform(folder, index), folder[index].views[0].T_camera_scan, atol=1e-9)


def test_the_path_and_name_of_a_folder_may_have_an_at_sign(tmp_path):
    home = tmp_path / "user@lab"
    home.mkdir()
    for path in (data_folders.kitti_raw(home / "drive"), data_folders.kitti_raw(home / "drive@noon")):
        assert len(open_folder(path, CLASSES)) == 2
        part = open_folder(f"{path}@1:", CLASSES)
        assert (part.name, len(part)) == (f"{path.name}@1:", 1)
    with pytest.raises(DataError, match=f"'{home}/none' is not a directory"):
        open_folder(home / "none@1:", CLASSES)


@pytest.mark.parametrize("part", ["0:2:1:5", "0", "one:two", "::0"])
def test_a_part_that_is_no_slice_is_refused(part, tmp_path):
    path = data_folders.kitti_raw(tmp_path / "f")
    with pytest.raises(DataError, match=f"'@{part}' is no part of a folder; write @start:stop or @start:stop:step"):
        open_folder(f"{path}@{part}", CLASSES)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere' is not a directory"):
        open_folder(tmp_path / "nowhere", CLASSES)


@pytest.mark.parametrize("name", ["bag/metadata.yaml", "drive.mcap", "drive.db3"])
def test_a_bag_in_place_of_a_folder_is_refused_with_what_reads_it(tmp_path, name):
    (tmp_path / "bag").mkdir()
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"it is a bag, and bags are read by `ttt_kd fit`, .* `ttt_kd replay` alone"):
        open_folder(tmp_path / name.removesuffix("/metadata.yaml"), CLASSES)


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no scans: looked for \*.npz files$"):
        open_folder(tmp_path, CLASSES)


def test_a_folder_of_an_unknown_format_is_refused_with_what_was_found_and_what_was_looked_for(tmp_path):
    np.savez(tmp_path / "000000.npz", xyz=np.zeros((3, 3)))
    with pytest.raises(DataError, match=r"holds xyz.*does not exist") as error:
        open_folder(tmp_path, CLASSES)
    for kind in WRITERS:
        assert kind in str(error.value)


def test_a_folder_with_a_damaged_scan_is_refused(tmp_path):
    path = data_folders.kitti_raw(tmp_path / "f")
    scan = path / "000001.npz"
    scan.write_bytes(scan.read_bytes()[:200])
    folder = open_folder(path, CLASSES)
    with pytest.raises(DataError, match=r"000001.npz is not a readable npz file"):
        folder[1]


def with_wrong_bytes(scan):
    """A scan with an array whose header does not end, with a packing that nobody knows, and behind a password."""
    with zipfile.ZipFile(scan) as file:
        arrays = {info.filename: file.read(info) for info in file.infolist()}
    unended = io.BytesIO()
    with zipfile.ZipFile(unended, "w") as file:
        for name, content in arrays.items():
            file.writestr(name, content.replace(b"), }", b"(, }"))
    whole = scan.read_bytes()
    entry = whole.rindex(b"PK\x01\x02")
    altered = {10: b"\x63", 8: b"\x01"}  # offsets of method and flags in an entry of the list of files
    return [unended.getvalue(), *(whole[: entry + at] + to + whole[entry + at + 1 :] for at, to in altered.items())]


@pytest.mark.parametrize("which", range(3))
def test_a_scan_with_wrong_bytes_inside_is_refused(which, tmp_path):
    path = data_folders.kitti_raw(tmp_path / "f")
    scan = path / "000001.npz"
    scan.write_bytes(with_wrong_bytes(scan)[which])
    with pytest.raises(DataError, match=r"000001.npz is not a readable npz file"):
        open_folder(path, CLASSES)[1]


def test_a_single_array_under_the_name_of_an_npz_file_is_refused(tmp_path):
    path = data_folders.kitti_raw(tmp_path / "f")
    with (path / "000000.npz").open("wb") as file:
        np.save(file, data_folders.points())
    with pytest.raises(DataError, match=r"000000.npz is not a readable npz file: .* a single array"):
        open_folder(path, CLASSES)


@pytest.mark.parametrize("points", [np.zeros((0, 4), np.float32), np.zeros(240, np.float32)])
def test_range_images_whose_first_scan_tells_no_intensity_are_refused(points, tmp_path):
    path = data_folders.range_images(tmp_path / "f")
    arrays = dict(np.load(path / "000000.npz"))
    np.savez(path / "000000.npz", **arrays | {"points": points})
    with pytest.raises(DataError, match=r"000000.npz: the first scan's 'points' must be \(N, 4\) numbers"):
        open_folder(path, CLASSES)


def test_a_scan_that_lacks_an_array_is_refused(tmp_path):
    path = data_folders.semantickitti(tmp_path / "f")
    np.savez(path / "000001.npz", points=data_folders.points())
    with pytest.raises(DataError, match=r"000001.npz has no array 'label', only points"):
        open_folder(path, CLASSES)[1]


def test_a_scan_with_fewer_labels_than_points_is_refused(tmp_path):
    path = data_folders.semantickitti(tmp_path / "f")
    np.savez(path / "000001.npz", points=data_folders.points(), label=np.zeros(POINTS - 1, np.uint8))
    with pytest.raises(DataError, match=r"'label' \(N,\)"):
        open_folder(path, CLASSES)[1]


@pytest.mark.parametrize("wrong", [259, -1, 40.5, np.nan])
def test_a_label_that_no_byte_can_hold_is_refused_by_its_value(wrong, tmp_path):
    path = data_folders.semantickitti(tmp_path / "f")
    labels = np.full(POINTS, 40, dtype=np.asarray(wrong).dtype)
    labels[7] = wrong
    np.savez(path / "000001.npz", points=data_folders.points(), label=labels)
    with pytest.raises(DataError, match=rf"000001.npz has the label {wrong}; .* whole numbers from 0 to 255"):
        open_folder(path, CLASSES)[1]


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_labels_of_a_wider_type_are_read_as_those_of_a_byte(dtype, tmp_path):
    path = data_folders.semantickitti(tmp_path / "f")
    expected = open_folder(path, CLASSES)[1].labels
    arrays = dict(np.load(path / "000001.npz"))
    np.savez(path / "000001.npz", points=arrays["points"], label=arrays["label"].astype(dtype))
    assert_array_equal(open_folder(path, CLASSES)[1].labels, expected)


def test_a_damaged_picture_is_refused(tmp_path):
    path = data_folders.kitti_raw(tmp_path / "f")
    (path / "000001.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"000001.jpg is not a readable picture"):
        open_folder(path, CLASSES)[1]


def test_a_missing_picture_is_refused(tmp_path):
    path = data_folders.pandaset(tmp_path / "f")
    (path / "000002.jpg").unlink()
    with pytest.raises(DataError, match=r"000002.jpg does not exist"):
        open_folder(path, CLASSES)[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no json", "not readable JSON"),
        ("[1, 2]", "must hold an object"),
        ({"K": [1, 2, 3]}, "'K' of .* is not a 3x3 matrix"),
        ({"T_cam_lidar": "unit"}, "'T_cam_lidar' of .* is not a 4x4 matrix"),
        ({"T_cam_lidar": [float("nan")] * 16}, "'T_cam_lidar' of .* has numbers that are not finite"),
    ],
)
def test_a_damaged_calibration_is_refused(change, message, tmp_path):
    path = data_folders.kitti_raw(tmp_path / "f") / "calib.json"
    text = change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        open_folder(path.parent, CLASSES)


def test_scans_with_other_names_than_numbers_are_refused(tmp_path):
    path = data_folders.kitti_raw(tmp_path / "f")
    (path / "000001.npz").rename(path / "last.npz")
    with pytest.raises(DataError, match=r"last.npz: scans of this format are named by a number"):
        open_folder(path, CLASSES)


@pytest.mark.parametrize("name", LABELLED)
def test_the_road_of_real_folders_lies_at_the_height_zero(name, data_dir: Path):
    folder = open_folder(data_dir / name, CLASSES)
    heights = []
    for frame in folder:
        points = in_base(frame)
        near = (frame.labels == ROAD) & (np.hypot(points[:, 0], points[:, 1]) < 25)
        heights.append(points[near, 2])
    height = np.concatenate(heights)
    assert abs(np.median(height)) < 0.1
    assert np.percentile(np.abs(height), 90) < 0.3


@pytest.mark.parametrize("name", PICTURED)
def test_the_front_camera_of_real_folders_sees_what_is_ahead_in_the_base_frame(name, data_dir: Path):
    frame = open_folder(data_dir / name, CLASSES)[0]
    view = frame.views[0]
    points = frame.scan.points @ view.T_camera_scan[:3, :3].T + view.T_camera_scan[:3, 3]
    pixels = points @ view.camera.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    seen = (points[:, 2] > 1) & (pixels >= 0).all(1) & (pixels < [view.camera.width, view.camera.height]).all(1)
    ahead = in_base(frame)[seen]
    assert seen.sum() > 1000
    assert (ahead[:, 0] > 0).all()
    assert abs(np.median(ahead[:, 1])) < 5
    left = pixels[seen, 0] < view.camera.width / 2
    assert np.median(ahead[left, 1]) > np.median(ahead[~left, 1])


@pytest.mark.data("semantickitti_00")
@pytest.mark.data("scans_semantickitti_00")
def test_both_sets_with_labels_of_kitti_00_agree_on_them(data_dir: Path):
    full = open_folder(data_dir / "semantickitti_00", CLASSES)
    pixels = open_folder(data_dir / "scans_semantickitti_00", CLASSES)
    for index in range(len(full)):
        counts = [np.bincount(folder[index].labels, minlength=256)[:6] for folder in (full, pixels)]
        assert counts[0].sum() > 30_000
        assert_allclose(counts[0], counts[1], atol=20)


@pytest.mark.parametrize("name", real("pandaset_001", "pandaset_002"))
def test_mounting_and_motion_together_give_the_calibration_of_each_real_frame(name, data_dir: Path):
    folder = open_folder(data_dir / name, CLASSES)
    for index in range(len(folder)):
        assert_allclose(two_time_transform(folder, index), folder[index].views[0].T_camera_scan, atol=1e-6)


@pytest.mark.data("pandaset_001")
def test_the_car_of_pandaset_001_drives_forward_evenly(data_dir: Path):
    poses = open_folder(data_dir / "pandaset_001", CLASSES).trajectory()
    for before, after in pairwise(poses):
        T = np.linalg.inv(before.T_odom_base) @ after.T_odom_base
        speed = T[:3, 3] / ((after.stamp - before.stamp) / 1e9)
        assert (np.abs(speed - [8.0, 0.0, 0.0]) < [0.5, 0.3, 0.35]).all()
