"""Bags: data folders converted and read back, and what is found in a bag."""

import hashlib
import json
from itertools import pairwise

import cv2
import data_folders
import numpy as np
import pytest
from data_folders import WRITERS
from numpy.testing import assert_allclose, assert_array_equal
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.replay.bag import BagWriter, bag_sha256, open_bag, read
from ttt_kd_ros.replay.convert import convert
from ttt_kd_ros.replay.discovery import discover
from ttt_kd_ros.replay.messages import (
    TYPES,
    camera_info,
    cloud_field,
    compressed_image,
    deserialize,
    image,
    point_cloud,
    stamp_of,
    transforms,
)
from ttt_kd_ros.replay.settings import ReplaySettings, plan

CLASSES = load_classes("street6")
XYZ = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
XYZ_LABEL = np.dtype([*XYZ.descr, ("label", "u1")])
XYZ_PREDICTED = np.dtype([*XYZ_LABEL.descr, ("confidence", "<f4")])


def messages(bag):
    """All messages by topic, as another library call reads them."""
    found = {}
    with AnyReader([bag]) as reader:
        for connection, time, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            stamped = message.transforms[0] if connection.topic.startswith("/tf") else message
            stamp = stamped.header.stamp.sec * 10**9 + stamped.header.stamp.nanosec
            assert stamp == time
            found.setdefault(connection.topic, []).append((stamp, message))
    return found


def as_matrix(transform):
    r, t = transform.transform.rotation, transform.transform.translation
    return data_folders.as_matrix(Rotation.from_quat([r.x, r.y, r.z, r.w]).as_matrix(), [t.x, t.y, t.z])


def transform_tree(found):
    """T_base_x of every mounted frame, and T_odom_base by stamp."""
    mounted = {t.child_frame_id: as_matrix(t) for t in found["/tf_static"][0][1].transforms}
    moving = {stamp: as_matrix(message.transforms[0]) for stamp, message in found.get("/tf", [])}
    return mounted, moving


def converted(kind, tmp_path, **options):
    folder = open_folder(WRITERS[kind](tmp_path / "folder"), CLASSES)
    convert(folder, tmp_path / "bag", **options)
    return folder, tmp_path / "bag"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("kind", WRITERS)
def test_points_and_stamps_of_a_bag_equal_those_of_the_folder(kind, storage, tmp_path):
    folder, bag = converted(kind, tmp_path, storage=storage)
    scans = messages(bag)["/points"]
    assert [stamp for stamp, _ in scans] == list(folder.stamps)
    for index, (_, cloud) in enumerate(scans):
        assert bytes(cloud.data) == folder.record(index).points.tobytes()
        assert (cloud.header.frame_id, cloud.height, cloud.width) == ("lidar", 1, len(folder.record(index).points))
        assert [f.name for f in cloud.fields] == ["x", "y", "z", "intensity"]
        assert cloud.is_dense == bool(np.isfinite(folder[index].scan.points).all())


@pytest.mark.parametrize("kind", WRITERS)
def test_ground_truth_has_the_points_of_the_scan_in_their_order_and_their_labels(kind, tmp_path):
    folder, bag = converted(kind, tmp_path)
    truths = messages(bag).get("/ground_truth", [])
    assert [stamp for stamp, _ in truths] == (list(folder.stamps) if folder.label_map else [])
    for index, (_, cloud) in enumerate(truths):
        xyz = np.column_stack([cloud_field(cloud, axis) for axis in "xyz"])
        assert_array_equal(xyz, folder[index].scan.points)
        assert_array_equal(cloud_field(cloud, "label"), folder[index].labels)


@pytest.mark.parametrize("kind", ["KITTI raw", "SemanticKITTI", "nuScenes keyframe", "PandaSet"])
def test_static_and_moving_transforms_together_give_the_calibration_of_each_frame(kind, tmp_path):
    folder, bag = converted(kind, tmp_path)
    mounted, moving = transform_tree(messages(bag))
    for index in range(len(folder)):
        for picture in folder.record(index).pictures:
            T_base_camera, T_base_scan = mounted[f"{picture.camera_name}_optical"], mounted["lidar"]
            T_odom_base_picture = moving.get(picture.stamp, np.eye(4))
            T_odom_base_scan = moving.get(folder.stamps[index], np.eye(4))
            T = np.linalg.inv(T_odom_base_picture @ T_base_camera) @ T_odom_base_scan @ T_base_scan
            assert_allclose(T, picture.T_camera_scan, atol=1e-7)
        assert_allclose(mounted["lidar"], folder.T_base_scan, atol=1e-9)


def test_the_files_of_pictures_are_kept_byte_for_byte(tmp_path):
    folder, bag = converted("SemanticKITTI", tmp_path)
    pictures = messages(bag)["/camera_gray_left/image_raw/compressed"]
    assert [stamp for stamp, _ in pictures] == list(folder.stamps[:2])
    for index, (_, message) in enumerate(pictures):
        assert bytes(message.data) == (tmp_path / "folder" / f"{index:06d}.png").read_bytes()
        assert message.format == "png"
        assert message.header.frame_id == "camera_gray_left_optical"


def test_raw_pictures_are_decoded_with_grey_ones_in_one_channel(tmp_path):
    _, bag = converted("SemanticKITTI", tmp_path, raw=True)
    (_, message), *_ = messages(bag)["/camera_gray_left/image_raw"]
    pixels = cv2.imread(str(tmp_path / "folder" / "000000.png"), cv2.IMREAD_UNCHANGED)
    assert (message.encoding, message.step) == ("mono8", 64)
    assert_array_equal(message.data.reshape(48, 64), pixels)


def test_raw_colour_pictures_are_rgb(tmp_path):
    folder, bag = converted("KITTI raw", tmp_path, raw=True)
    (_, message), *_ = messages(bag)["/camera_color_left/image_raw"]
    assert (message.encoding, message.step) == ("rgb8", 192)
    assert_array_equal(message.data.reshape(48, 64, 3), folder[0].views[0].image)


def test_camera_infos_describe_the_rectified_camera_at_the_stamps_of_the_pictures(tmp_path):
    folder, bag = converted("PandaSet", tmp_path)
    found = messages(bag)
    infos = found["/front_camera/camera_info"]
    pictures = found["/front_camera/image_raw/compressed"]
    assert [stamp for stamp, _ in infos] == [stamp for stamp, _ in pictures]
    info = infos[0][1]
    assert (info.width, info.height, info.distortion_model) == (64, 48, "plumb_bob")
    assert_array_equal(info.k.reshape(3, 3), folder[0].views[0].camera.K)
    assert_array_equal(info.p.reshape(3, 4)[:, :3], folder[0].views[0].camera.K)
    assert not info.d.any()


def test_the_same_folder_gives_the_same_bag(tmp_path):
    folder = open_folder(data_folders.pandaset(tmp_path / "folder"), CLASSES)
    for name in ("a", "b"):
        convert(folder, tmp_path / name / "bag")
    assert bag_sha256(tmp_path / "a" / "bag") == bag_sha256(tmp_path / "b" / "bag")


def test_a_bag_that_exists_is_left_alone(tmp_path):
    folder, bag = converted("KITTI raw", tmp_path)
    before = bag_sha256(bag)
    with pytest.raises(DataError, match="exists already"):
        convert(folder, bag)
    assert bag_sha256(bag) == before


def test_a_folder_that_breaks_off_leaves_no_bag_behind(tmp_path):
    path = data_folders.kitti_raw(tmp_path / "folder")
    (path / "000001.npz").write_bytes(b"cut")
    with pytest.raises(DataError, match="000001"):
        convert(open_folder(path, CLASSES), tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


def test_a_picture_that_cannot_be_decoded_is_refused(tmp_path):
    path = data_folders.kitti_raw(tmp_path / "folder")
    (path / "000001.jpg").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"000001.jpg is not a readable picture"):
        convert(open_folder(path, CLASSES), tmp_path / "bag", raw=True)


def test_the_stamp_of_a_message_is_read_from_its_bytes():
    cloud = point_cloud(1_532_402_927_647_951_123, "lidar", np.zeros(2, XYZ))
    for little_endian in (True, False):
        data = TYPES.serialize_cdr(cloud, cloud.__msgtype__, little_endian=little_endian)
        assert stamp_of(data) == 1_532_402_927_647_951_123


def test_a_field_of_an_organised_padded_big_endian_cloud_is_read():
    values = np.arange(6, dtype=">f4").reshape(2, 3)
    rows = np.zeros((2, 50), np.uint8)
    rows[:, :48].reshape(2, 3, 16)[:, :, 4:8] = values.view(np.uint8).reshape(2, 3, 4)
    field = TYPES.types["sensor_msgs/msg/PointField"](name="label", offset=4, datatype=7, count=1)
    base = point_cloud(0, "lidar", np.zeros(1, XYZ))
    cloud = type(base)(base.header, 2, 3, [field], True, 16, 50, rows.ravel(), True)
    assert cloud_field(cloud, "label").tolist() == [0, 1, 2, 3, 4, 5]


def test_a_cloud_that_is_shorter_than_it_says_is_refused():
    base = point_cloud(0, "lidar", np.zeros(4, XYZ_LABEL))
    short = type(base)(base.header, 1, 4, base.fields, False, 13, 52, base.data[:40], True)
    with pytest.raises(DataError, match="1x4 points holds 40 bytes"):
        cloud_field(short, "label")


def test_a_field_of_an_unknown_type_is_refused():
    labelled = point_cloud(0, "lidar", np.zeros(4, XYZ_LABEL))
    labelled.fields[-1].datatype = 99
    with pytest.raises(DataError, match="'label' has datatype 99"):
        cloud_field(labelled, "label")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_bytes_that_break_off_are_no_message(share):
    cloud = point_cloud(0, "lidar", np.zeros(4, XYZ))
    data = bytes(TYPES.serialize_cdr(cloud, cloud.__msgtype__))
    with pytest.raises(DataError, match="no valid sensor_msgs/msg/PointCloud2"):
        deserialize(data[: int(share * len(data))], cloud.__msgtype__)


# What is found in a bag


def cloud(stamp=1, dtype=XYZ, frame="lidar"):
    return point_cloud(stamp, frame, np.zeros(5, dtype))


def picture(encoding="rgb8"):
    message = image(1, "camera_optical", np.zeros((4, 4, 3), np.uint8))
    return type(message)(message.header, 4, 4, encoding, 0, 12, message.data)


def compressed_depth():
    message = compressed_image(1, "camera_optical", b"", ".png")
    return type(message)(message.header, "16UC1; png compressed ", message.data)


def info():
    camera = open_camera()
    return camera_info(1, "camera_optical", camera)


def open_camera():
    return Camera(4, 4, np.array(data_folders.K))


def mount(parent, child):
    return transforms(1, [(parent, child, np.eye(4))])


def bag_with(path, *contents, storage="mcap"):
    with BagWriter(path, storage) as writer:
        for topic, message in contents:
            writer.write(topic, 1, message)
    return path


MOUNTED = ("/tf_static", mount("base_link", "lidar"))


def test_a_converted_bag_tells_all_that_the_node_needs(tmp_path):
    _, bag = converted("PandaSet", tmp_path)
    layout = discover(bag)
    assert layout.parameters() == {
        "points_topic": "/points",
        "base_frame": "base_link",
        "fixed_frame": "odom",
        "cameras": ["front_camera"],
        "camera.front_camera.image_topic": "/front_camera/image_raw",
        "camera.front_camera.info_topic": "/front_camera/camera_info",
        "camera.front_camera.transport": "compressed",
    }
    assert layout.ground_truth_topic == "/ground_truth"
    assert layout.classes == CLASSES


def test_raw_pictures_are_found_as_such(tmp_path):
    _, bag = converted("nuScenes keyframe", tmp_path, raw=True)
    layout = discover(bag)
    assert [(c.name, c.transport) for c in layout.cameras] == [("cam_back", "raw"), ("cam_front", "raw")]
    assert layout.cameras[0].published_topic == "/cam_back/image_raw"
    assert (layout.fixed_frame, layout.ground_truth_topic, layout.classes) == ("", "", None)


def test_some_of_the_cameras_can_be_chosen(tmp_path):
    _, bag = converted("nuScenes keyframe", tmp_path)
    layout = discover(bag, {"cameras": ("cam_front",)})
    assert layout.parameters()["cameras"] == ["cam_front"]
    assert {topic for topic in layout.topics if "cam" in topic} == {
        "/cam_front/image_raw/compressed", "/cam_front/camera_info"
    }  # fmt: skip
    with pytest.raises(DataError, match=r"no camera cam_side .*, only cam_back, cam_front"):
        discover(bag, {"cameras": ("cam_side",)})


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_may_be_a_single_file(storage, tmp_path):
    _, bag = converted("KITTI raw", tmp_path, storage=storage)
    (file,) = (f for f in bag.iterdir() if f.suffix in (".mcap", ".db3"))
    assert discover(file).parameters() == discover(bag).parameters()


def test_several_clouds_are_listed_unless_one_is_named(tmp_path):
    bag = bag_with(tmp_path / "bag", ("/front/points", cloud()), ("/top/points", cloud()), MOUNTED)
    with pytest.raises(DataError, match=r"--points-topic: /front/points, /top/points"):
        discover(bag)
    assert discover(bag, {"points_topic": "/top/points"}).points_topic == "/top/points"
    with pytest.raises(DataError, match=r"no PointCloud2 on '/rear'.*/front/points"):
        discover(bag, {"points_topic": "/rear"})


def test_a_bag_without_scans_is_refused(tmp_path):
    bag = bag_with(tmp_path / "bag", ("/ground_truth", cloud(dtype=XYZ_LABEL)), MOUNTED)
    with pytest.raises(DataError, match=r"no scans .*/ground_truth, /tf_static"):
        discover(bag)


def test_a_labelled_cloud_of_any_name_is_the_ground_truth_but_of_several_only_the_one_named_so(tmp_path):
    labelled = cloud(dtype=XYZ_LABEL)
    one = bag_with(tmp_path / "one", ("/p", cloud()), ("/annotated", labelled), MOUNTED)
    two = bag_with(tmp_path / "two", ("/p", cloud()), ("/annotated", labelled), ("/other", labelled), MOUNTED)
    named = bag_with(tmp_path / "named", ("/p", cloud()), ("/a", labelled), ("/ground_truth", labelled), MOUNTED)
    assert [discover(bag).ground_truth_topic for bag in (one, two, named)] == ["/annotated", "", "/ground_truth"]


def test_a_recorded_output_of_the_node_is_neither_scan_nor_ground_truth(tmp_path):
    output = ("/segment/segmentation", cloud(dtype=XYZ_PREDICTED))
    alone = bag_with(tmp_path / "alone", ("/p", cloud()), output, MOUNTED)
    beside = bag_with(tmp_path / "beside", ("/p", cloud()), output, ("/truth", cloud(dtype=XYZ_LABEL)), MOUNTED)
    found = [(layout.points_topic, layout.ground_truth_topic) for layout in map(discover, (alone, beside))]
    assert found == [("/p", ""), ("/p", "/truth")]


def test_topics_of_cameras_can_be_chosen(tmp_path):
    bag = bag_with(
        tmp_path / "bag",
        ("/points", cloud()),
        ("/cam/image_color", picture()),
        ("/cam/image_raw", picture()),
        ("/cam/image_raw/compressed", compressed_image(1, "camera_optical", b"", ".jpg")),
        ("/cam/camera_info", info()),
        ("/calibration", info()),
        MOUNTED,
    )
    with pytest.warns(UserWarning, match=r"/cam/image_color, /cam/image_raw .* camera.cam.image_topic"):
        (camera,) = discover(bag).cameras
    assert camera.published_topic == "/cam/image_color"
    (camera,) = discover(bag, {"camera.cam.image_topic": "/cam/image_raw"}).cameras
    assert (camera.published_topic, camera.info_topic) == ("/cam/image_raw", "/cam/camera_info")
    topics = {"camera.front.image_topic": "/cam/image_raw", "camera.front.info_topic": "/calibration"}
    layout = discover(bag, {"cameras": ("front",), "camera.front.transport": "compressed", **topics})
    assert set(layout.topics) == {"/points", "/cam/image_raw/compressed", "/calibration", "/tf_static"}
    assert layout.parameters()["cameras"] == ["front"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"cameras": ("side",)}, r"no camera side .*, only cam; .* camera.side.image_topic and camera.side.info_topic"),
        ({"camera.cam.image_topic": "/rear"}, r"no pictures of camera.cam.image_topic '/rear'.* raw: /cam/image_raw; "),
        ({"camera.cam.transport": "compressed"}, r"camera.cam.transport 'compressed'.* compressed: /lone/image$"),
        ({"camera.cam.info_topic": "/rear"}, r"no CameraInfo on '/rear', only on: /cam/camera_info"),
    ],
)
def test_topics_of_cameras_that_the_bag_has_not_are_refused(chosen, message, tmp_path):
    files = compressed_image(1, "camera_optical", b"", ".jpg")
    cameras = ("/cam/image_raw", picture()), ("/cam/camera_info", info()), ("/lone/image/compressed", files)
    bag = bag_with(tmp_path / "bag", ("/points", cloud()), *cameras, MOUNTED)
    with pytest.raises(DataError, match=message):
        discover(bag, chosen)


def test_depth_pictures_and_pictures_without_camera_info_are_no_cameras(tmp_path):
    bag = bag_with(
        tmp_path / "bag",
        ("/points", cloud()),
        ("/rgbd/color/image_raw", picture()),
        ("/rgbd/color/camera_info", info()),
        ("/rgbd/depth/image_raw", picture("16UC1")),
        ("/rgbd/depth/camera_info", info()),
        ("/rgbd/registered/image_raw/compressed", compressed_depth()),
        ("/rgbd/registered/camera_info", info()),
        ("/lonely/image_raw", picture()),
        ("/blind/camera_info", info()),
        MOUNTED,
    )
    layout = discover(bag)
    assert [camera.name for camera in layout.cameras] == ["rgbd_color"]
    assert set(layout.topics) == {"/points", "/rgbd/color/image_raw", "/rgbd/color/camera_info", "/tf_static"}


def test_it_is_told_that_a_bag_has_no_camera_unless_none_is_needed(tmp_path, recwarn):
    bag = bag_with(tmp_path / "bag", ("/points", cloud()), ("/blind/camera_info", info()), MOUNTED)
    for parameters in ({"adaptation.mode": "off"}, {"cameras": ""}):
        plan(bag, ReplaySettings(parameters=parameters))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"has no camera.*camera.NAME.image_topic"):
        plan(bag, ReplaySettings())


def test_of_pictures_that_are_there_both_raw_and_compressed_the_raw_ones_are_taken(tmp_path):
    bag = bag_with(
        tmp_path / "bag",
        ("/points", cloud()),
        ("/cam/image_raw/compressed", compressed_image(1, "camera_optical", b"", ".jpg")),
        ("/cam/image_raw", picture()),
        ("/cam/camera_info", info()),
        MOUNTED,
    )
    (camera,) = discover(bag).cameras
    assert camera.published_topic == "/cam/image_raw"


@pytest.mark.parametrize(
    ("topic", "rectified"), [("image_rect", True), ("image_rect_color", True), ("image_raw", False), ("image", False)]
)
def test_pictures_that_image_proc_has_rectified_are_used_as_such(topic, rectified, tmp_path):
    bag = bag_with(
        tmp_path / "bag",
        ("/points", cloud()),
        (f"/cam/{topic}/compressed", compressed_image(1, "camera_optical", b"", ".jpg")),
        ("/cam/camera_info", info()),
        MOUNTED,
    )
    assert discover(bag).parameters().get("camera.cam.rectified", False) == rectified


@pytest.mark.parametrize(
    ("model", "distortion", "count"),
    [
        ("plumb_bob", (), 5),
        ("rational_polynomial", (0.1, 0.2, 0.0, 0.0, 0.05, 0.3), 8),
        ("equidistant", (0.1, -0.2), 4),
    ],
)
def test_a_camera_info_has_every_coefficient_of_its_model(model, distortion, count):
    message = camera_info(1, "camera_optical", Camera(4, 4, np.array(data_folders.K), distortion, model))
    assert message.distortion_model == model
    assert message.d.tolist() == [*distortion, *[0.0] * (count - len(distortion))]


@pytest.mark.parametrize(
    ("static", "moving", "expected"),
    [
        ([("base_link", "lidar")], [], ("base_link", "")),
        ([("base_link", "lidar")], [("odom", "base_link")], ("base_link", "odom")),
        ([("base_link", "lidar")], [("map", "odom"), ("odom", "base_link")], ("base_link", "odom")),
        ([("base_link", "lidar")], [("world", "base_link")], ("base_link", "world")),
        ([("base_link", "lidar"), ("map", "base_link")], [], ("base_link", "")),
        ([("body", "mast"), ("mast", "lidar")], [("odom", "body")], ("body", "odom")),
        ([("base_link", "lidar")], [("base_link", "wheel")], ("base_link", "")),
    ],
)
def test_base_and_fixed_frame_are_found_in_the_tree_of_transforms(static, moving, expected, tmp_path):
    tree = [("/tf_static", mount(*pair)) for pair in static] + [("/tf", mount(*pair)) for pair in moving]
    layout = discover(bag_with(tmp_path / "bag", ("/points", cloud()), *tree))
    assert (layout.base_frame, layout.fixed_frame) == expected


def test_a_loop_of_transforms_does_not_hang(tmp_path):
    loop = [("/tf", mount(*pair)) for pair in pairwise(("a", "base_link", "odom", "a"))]
    assert discover(bag_with(tmp_path / "bag", ("/points", cloud()), *loop)).base_frame == "base_link"


def test_a_bag_without_a_frame_on_the_ground_is_refused_unless_one_is_named(tmp_path):
    bag = bag_with(tmp_path / "bag", ("/points", cloud()))
    with pytest.raises(DataError, match="--base-frame"):
        discover(bag)
    assert discover(bag, {"base_frame": "lidar"}).base_frame == "lidar"


def test_a_fixed_frame_that_is_named_wins(tmp_path):
    _, bag = converted("PandaSet", tmp_path)
    assert discover(bag, {"fixed_frame": ""}).fixed_frame == ""
    assert discover(bag, {"fixed_frame": "map"}).fixed_frame == "map"


def test_a_class_list_that_cannot_be_read_is_refused(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.remember("ttt_kd_classes", json.dumps({"name": "x"}))
        writer.write("/points", 1, cloud())
        writer.write("/tf_static", 1, MOUNTED[1])
    with pytest.raises(DataError, match="class list"):
        discover(tmp_path / "bag")


# Bags that cannot be read


def read_all(bag):
    discover(bag)
    with open_bag(bag) as reader:
        return sum(1 for _ in read(reader, {c.topic for c in reader.connections}))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9])
def test_a_truncated_bag_is_refused(storage, part, tmp_path):
    _, bag = converted("PandaSet", tmp_path, storage=storage)
    (file,) = (f for f in bag.iterdir() if f.suffix in (".mcap", ".db3"))
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    for path in (bag, file):
        with pytest.raises(DataError, match="bag"):
            read_all(path)


@pytest.mark.parametrize("text", ["", "no: [yaml", "rosbag2_bagfile_information: {version: 9}", "- 1"])
def test_a_bag_with_damaged_metadata_is_refused(text, tmp_path):
    _, bag = converted("KITTI raw", tmp_path)
    (bag / "metadata.yaml").write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        discover(bag)


def test_what_is_no_bag_is_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no bag")
    for path in (tmp_path / "nowhere", tmp_path, text):
        with pytest.raises(DataError, match="bag"):
            discover(path)


def test_the_hash_of_a_bag_covers_its_data_files_only(tmp_path):
    _, bag = converted("KITTI raw", tmp_path)
    expected = hashlib.sha256((bag / "bag.mcap").read_bytes()).hexdigest()
    assert bag_sha256(bag) == bag_sha256(bag / "bag.mcap") == expected
    (bag / "metadata.yaml").write_text("written anew")
    assert bag_sha256(bag) == expected
    (bag / "bag.mcap").write_bytes(b"other data")
    assert bag_sha256(bag) == hashlib.sha256(b"other data").hexdigest()
