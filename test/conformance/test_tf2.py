"""Behaviour of tf2 that the product counts on, of the original and of the stand-in."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from transforms3d.affines import compose
from transforms3d.axangles import axangle2mat, mat2axangle
from transforms3d.quaternions import mat2quat, quat2mat

rclpy = pytest.importorskip("rclpy")
tf2_ros = pytest.importorskip("tf2_ros")

from geometry_msgs.msg import TransformStamped  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.time import Time  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402

Matrix = NDArray[np.float64]
LATEST = Time()


def at(seconds: float) -> Time:
    return Time(nanoseconds=round(seconds * 1e9))


def random_pose(rng: np.random.Generator) -> Matrix:
    axis = rng.normal(size=3)
    return compose(rng.uniform(-50, 50, 3), axangle2mat(axis, rng.uniform(-np.pi, np.pi)), np.ones(3))


def shift(x: float) -> Matrix:
    return compose([x, 0, 0], np.eye(3), np.ones(3))


def stamped(parent: str, child: str, T_parent_child: Matrix, stamp: float = 0.0, sign: float = 1.0) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = at(stamp).to_msg()
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = T_parent_child[:3, 3].tolist()
    rotation.w, rotation.x, rotation.y, rotation.z = (sign * mat2quat(T_parent_child[:3, :3])).tolist()
    return message


def matrix(message: TransformStamped) -> Matrix:
    t, r = message.transform.translation, message.transform.rotation
    return compose([t.x, t.y, t.z], quat2mat([r.w, r.x, r.y, r.z]), np.ones(3))


def halfway(older: Matrix, newer: Matrix, ratio: float) -> Matrix:
    """Straight line for the translation, constant angular velocity about one axis for the rotation."""
    axis, angle = mat2axangle(older[:3, :3].T @ newer[:3, :3])
    translation = older[:3, 3] + ratio * (newer[:3, 3] - older[:3, 3])
    return compose(translation, older[:3, :3] @ axangle2mat(axis, ratio * angle), np.ones(3))


@pytest.fixture
def buffer() -> tf2_ros.Buffer:
    return tf2_ros.Buffer()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_a_static_transform_is_known_at_all_times(buffer, rng):
    T = random_pose(rng)
    buffer.set_transform_static(stamped("base", "lidar", T, stamp=5.0), "test")
    for moment in (LATEST, at(0.001), at(1e9)):
        np.testing.assert_allclose(matrix(buffer.lookup_transform("base", "lidar", moment)), T, atol=1e-12)


def test_a_lookup_maps_source_coordinates_to_target_coordinates(buffer):
    quarter_turn_left = compose([1, 2, 3], axangle2mat([0, 0, 1], np.pi / 2), np.ones(3))
    buffer.set_transform_static(stamped("base", "lidar", quarter_turn_left), "test")
    T_base_lidar = matrix(buffer.lookup_transform("base", "lidar", LATEST))
    np.testing.assert_allclose(T_base_lidar @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)


def test_the_answer_names_frames_and_stamp(buffer):
    buffer.set_transform(stamped("odom", "base", shift(0), stamp=1.0), "test")
    buffer.set_transform(stamped("odom", "base", shift(1), stamp=2.0), "test")
    message = buffer.lookup_transform("base", "odom", at(1.25))
    assert (message.header.frame_id, message.child_frame_id) == ("base", "odom")
    assert Time.from_msg(message.header.stamp).nanoseconds == 1_250_000_000


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["same sign", "opposite sign"])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_between_two_stamps_it_interpolates_on_the_shorter_way(buffer, rng, ratio, sign):
    for trial in range(20):
        child = f"base{trial}"
        older, newer = random_pose(rng), random_pose(rng)
        buffer.set_transform(stamped("odom", child, older, stamp=1.0), "test")
        buffer.set_transform(stamped("odom", child, newer, stamp=3.0, sign=sign), "test")
        found = matrix(buffer.lookup_transform("odom", child, at(1.0 + 2.0 * ratio)))
        np.testing.assert_allclose(found, halfway(older, newer, ratio), atol=1e-9)


def test_a_transform_that_stands_still_interpolates_to_itself(buffer, rng):
    T = random_pose(rng)
    for stamp in (1.0, 2.0):
        buffer.set_transform(stamped("odom", "base", T, stamp), "test")
    np.testing.assert_allclose(matrix(buffer.lookup_transform("odom", "base", at(1.5))), T, atol=1e-12)


def test_chains_are_followed_both_ways(buffer, rng):
    """map > odom > base > (lidar, mast > camera), of which odom > base moves."""
    T_map_odom, T_base_lidar, T_base_mast, T_mast_camera, start, end = (random_pose(rng) for _ in range(6))
    buffer.set_transform_static(stamped("map", "odom", T_map_odom), "test")
    buffer.set_transform_static(stamped("base", "lidar", T_base_lidar), "test")
    buffer.set_transform_static(stamped("base", "mast", T_base_mast), "test")
    buffer.set_transform_static(stamped("mast", "camera", T_mast_camera), "test")
    buffer.set_transform(stamped("odom", "base", start, stamp=10.0), "test")
    buffer.set_transform(stamped("odom", "base", end, stamp=11.0), "test")
    T_odom_base = halfway(start, end, 0.3)
    T_map = {"map": np.eye(4), "odom": T_map_odom, "base": T_map_odom @ T_odom_base}
    T_map["lidar"] = T_map["base"] @ T_base_lidar
    T_map["mast"] = T_map["base"] @ T_base_mast
    T_map["camera"] = T_map["mast"] @ T_mast_camera
    for target in T_map:
        for source in T_map:
            found = matrix(buffer.lookup_transform(target, source, at(10.3)))
            np.testing.assert_allclose(found, np.linalg.inv(T_map[target]) @ T_map[source], atol=1e-9)


def test_time_zero_is_the_latest_time_that_all_links_have(buffer):
    for stamp in (1.0, 2.0, 3.0):
        buffer.set_transform(stamped("map", "odom", shift(stamp), stamp), "test")
    for stamp in (1.0, 2.0):
        buffer.set_transform(stamped("odom", "base", shift(10 * stamp), stamp), "test")
    buffer.set_transform_static(stamped("base", "lidar", shift(100)), "test")
    message = buffer.lookup_transform("map", "lidar", LATEST)
    assert message.header.stamp.sec == 2
    assert message.transform.translation.x == pytest.approx(122.0)


def test_time_zero_ignores_links_beside_the_way(buffer):
    buffer.set_transform(stamped("base", "arm", shift(1), stamp=1.0), "test")
    buffer.set_transform(stamped("base", "head", shift(2), stamp=5.0), "test")
    buffer.set_transform_static(stamped("head", "camera", shift(3)), "test")
    message = buffer.lookup_transform("base", "camera", LATEST)
    assert (message.header.stamp.sec, message.transform.translation.x) == (5, 5.0)


def test_a_frame_in_itself_is_the_identity_even_if_it_is_unknown(buffer):
    np.testing.assert_array_equal(matrix(buffer.lookup_transform("nowhere", "nowhere", at(3.0))), np.eye(4))
    assert buffer.can_transform("nowhere", "nowhere", at(3.0))


def test_a_lookup_through_a_fixed_frame_joins_two_times(buffer, rng):
    poses = [random_pose(rng) for _ in range(3)]
    T_base_lidar, T_base_camera = random_pose(rng), random_pose(rng)
    for stamp, T_odom_base in zip((1.0, 2.0, 3.0), poses, strict=True):
        buffer.set_transform(stamped("odom", "base", T_odom_base, stamp), "test")
    buffer.set_transform_static(stamped("base", "lidar", T_base_lidar), "test")
    buffer.set_transform_static(stamped("base", "camera", T_base_camera), "test")
    message = buffer.lookup_transform_full("camera", at(2.75), "lidar", at(1.5), "odom")
    T_odom_lidar = halfway(poses[0], poses[1], 0.5) @ T_base_lidar
    T_odom_camera = halfway(poses[1], poses[2], 0.75) @ T_base_camera
    np.testing.assert_allclose(matrix(message), np.linalg.inv(T_odom_camera) @ T_odom_lidar, atol=1e-9)
    assert (message.header.frame_id, message.child_frame_id) == ("camera", "lidar")
    assert Time.from_msg(message.header.stamp).nanoseconds == 2_750_000_000


def test_a_lookup_through_a_fixed_frame_needs_all_three_frames(buffer):
    buffer.set_transform_static(stamped("base", "lidar", shift(1)), "test")
    for frames in (("base", "lidar", "odom"), ("odom", "lidar", "base"), ("base", "odom", "lidar")):
        target, source, fixed = frames
        assert not buffer.can_transform_full(target, at(1.0), source, at(1.0), fixed)
        with pytest.raises(tf2_ros.LookupException, match="odom"):
            buffer.lookup_transform_full(target, at(1.0), source, at(1.0), fixed)


def test_an_unknown_frame_raises_a_lookup_exception_that_names_it(buffer):
    buffer.set_transform_static(stamped("base", "lidar", shift(1)), "test")
    with pytest.raises(tf2_ros.LookupException, match="camera"):
        buffer.lookup_transform("base", "camera", LATEST)


@pytest.mark.parametrize("moment", [LATEST, at(1.0)], ids=["latest", "given time"])
def test_two_trees_raise_a_connectivity_exception(buffer, moment):
    buffer.set_transform_static(stamped("base", "lidar", shift(1)), "test")
    buffer.set_transform_static(stamped("other", "camera", shift(1)), "test")
    with pytest.raises(tf2_ros.ConnectivityException):
        buffer.lookup_transform("lidar", "camera", moment)


@pytest.mark.parametrize(("target", "source"), [("odom", "lidar"), ("lidar", "odom")])
@pytest.mark.parametrize(("moment", "direction"), [(0.9, "past"), (3.1, "future")])
def test_times_outside_of_the_stored_ones_raise_an_extrapolation_exception(buffer, target, source, moment, direction):
    for stamp in (1.0, 2.0, 3.0):
        buffer.set_transform(stamped("odom", "base", shift(stamp), stamp), "test")
    buffer.set_transform_static(stamped("base", "lidar", shift(1)), "test")
    assert not buffer.can_transform(target, source, at(moment))
    with pytest.raises(tf2_ros.ExtrapolationException, match=direction):
        buffer.lookup_transform(target, source, at(moment))


def test_a_single_transform_is_known_only_at_its_stamp(buffer):
    buffer.set_transform(stamped("odom", "base", shift(4), stamp=1.0), "test")
    assert buffer.lookup_transform("odom", "base", at(1.0)).transform.translation.x == 4.0
    with pytest.raises(tf2_ros.ExtrapolationException):
        buffer.lookup_transform("odom", "base", at(1.1))


def test_a_failed_lookup_keeps_nothing_of_its_caller(buffer):
    buffer.set_transform(stamped("map", "robot", shift(1), stamp=5), "test")

    def ask() -> weakref.ref[object]:
        scan = threading.Event()
        with pytest.raises(tf2_ros.ExtrapolationException):
            buffer.lookup_transform("map", "robot", at(9))
        return weakref.ref(scan)

    gc.disable()
    try:
        assert ask()() is None
    finally:
        gc.enable()


def test_all_errors_are_transform_exceptions():
    for name in ("Lookup", "Connectivity", "Extrapolation", "InvalidArgument", "Timeout"):
        assert issubclass(getattr(tf2_ros, f"{name}Exception"), tf2_ros.TransformException)


def test_a_leading_slash_is_dropped_when_storing_and_refused_when_looking_up(buffer):
    buffer.set_transform_static(stamped("/base", "/lidar", shift(1)), "test")
    assert buffer.can_transform("base", "lidar", LATEST)
    assert not buffer.can_transform("/base", "lidar", LATEST)
    with pytest.raises(tf2_ros.InvalidArgumentException):
        buffer.lookup_transform("/base", "lidar", LATEST)


def test_an_empty_frame_name_is_refused(buffer):
    buffer.set_transform_static(stamped("base", "lidar", shift(1)), "test")
    with pytest.raises(tf2_ros.InvalidArgumentException):
        buffer.lookup_transform("base", "", LATEST)


def test_it_keeps_ten_seconds_unless_told_otherwise():
    for buffer, length in ((tf2_ros.Buffer(), 10), (tf2_ros.Buffer(Duration(seconds=3)), 3)):
        for stamp in range(1, 31):
            buffer.set_transform(stamped("odom", "base", shift(stamp), stamp), "test")
        assert buffer.can_transform("odom", "base", at(30.5 - length))
        assert not buffer.can_transform("odom", "base", at(28.5 - length))


def test_data_older_than_the_cache_is_ignored(buffer):
    for stamp in (20.0, 21.0):
        buffer.set_transform(stamped("odom", "base", shift(stamp), stamp), "test")
    buffer.set_transform(stamped("odom", "base", shift(1.0), 1.0), "test")
    assert not buffer.can_transform("odom", "base", at(15.0))


def test_data_may_arrive_out_of_order(buffer):
    for stamp in (1.0, 4.0, 2.0, 3.0):
        buffer.set_transform(stamped("odom", "base", shift(stamp**2), stamp), "test")
    for moment, expected in ((1.5, 2.5), (2.5, 6.5), (3.5, 12.5)):
        found = buffer.lookup_transform("odom", "base", at(moment))
        assert found.transform.translation.x == pytest.approx(expected)


def test_a_frame_may_change_its_parent(buffer):
    buffer.set_transform(stamped("left", "box", shift(1), stamp=1.0), "test")
    buffer.set_transform(stamped("left", "box", shift(2), stamp=2.0), "test")
    buffer.set_transform(stamped("right", "box", shift(3), stamp=3.0), "test")
    buffer.set_transform(stamped("right", "box", shift(4), stamp=4.0), "test")
    assert buffer.lookup_transform("left", "box", at(1.5)).transform.translation.x == pytest.approx(1.5)
    assert buffer.lookup_transform("left", "box", at(2.5)).transform.translation.x == pytest.approx(2.0)
    assert buffer.lookup_transform("right", "box", at(3.5)).transform.translation.x == pytest.approx(3.5)
    with pytest.raises(tf2_ros.ConnectivityException):
        buffer.lookup_transform("right", "left", at(3.5))


@pytest.mark.parametrize("moment", [LATEST, at(1.0)], ids=["latest", "given time"])
def test_a_loop_raises_a_lookup_exception(buffer, moment):
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a"), ("other", "camera")):
        buffer.set_transform(stamped(parent, child, shift(1), stamp=1.0), "test")
    with pytest.raises(tf2_ros.LookupException, match="loop"):
        buffer.lookup_transform("camera", "c", moment)


@pytest.mark.parametrize("length", [0.5, 0.99, 1.2])
def test_a_quaternion_of_another_length_is_its_rotation(buffer, rng, length):
    T = random_pose(rng)
    buffer.set_transform_static(stamped("base", "lidar", T, sign=length), "test")
    np.testing.assert_allclose(matrix(buffer.lookup_transform("base", "lidar", LATEST)), T, atol=1e-12)


@pytest.mark.parametrize("spoil", ["nan", "zero quaternion", "same frame", "no parent", "no child"])
def test_a_transform_that_cannot_be_is_not_stored(buffer, spoil):
    message = stamped("base", "lidar", shift(1))
    if spoil == "nan":
        message.transform.translation.x = float("nan")
    elif spoil == "zero quaternion":
        message.transform.rotation.w = 0.0
    elif spoil == "same frame":
        message.header.frame_id = "lidar"
    elif spoil == "no parent":
        message.header.frame_id = ""
    else:
        message.child_frame_id = ""
    buffer.set_transform_static(message, "test")
    with pytest.raises(tf2_ros.TransformException):
        buffer.lookup_transform("base", "lidar", LATEST)


def test_clearing_forgets_what_moves_and_keeps_what_is_static(buffer):
    buffer.set_transform_static(stamped("base", "lidar", shift(1)), "test")
    buffer.set_transform(stamped("odom", "base", shift(2), stamp=1.0), "test")
    buffer.clear()
    assert buffer.can_transform("base", "lidar", LATEST)
    assert not buffer.can_transform("odom", "base", LATEST)
    assert not buffer.can_transform("odom", "base", at(1.0))


def test_a_time_may_be_a_message(buffer):
    for stamp in (1.0, 2.0):
        buffer.set_transform(stamped("odom", "base", shift(stamp), stamp), "test")
    assert buffer.lookup_transform("odom", "base", at(1.5).to_msg()).transform.translation.x == pytest.approx(1.5)


def test_can_transform_says_why_not(buffer):
    buffer.set_transform_static(stamped("base", "lidar", shift(1)), "test")
    possible, reason = buffer.can_transform("base", "camera", LATEST, return_debug_tuple=True)
    assert not possible
    assert reason


def test_a_wait_ends_when_the_transform_arrives(buffer):
    arrival = threading.Timer(0.2, buffer.set_transform_static, (stamped("base", "lidar", shift(7)), "test"))
    start = time.monotonic()
    arrival.start()
    message = buffer.lookup_transform("base", "lidar", LATEST, Duration(seconds=20))
    assert message.transform.translation.x == 7.0
    assert 0.15 < time.monotonic() - start < 10.0


def test_a_wait_through_a_fixed_frame_ends_when_the_later_transform_arrives(buffer):
    for stamp in (1.0, 2.0):
        buffer.set_transform(stamped("odom", "base", shift(stamp), stamp), "test")
    arrival = threading.Timer(0.2, buffer.set_transform, (stamped("odom", "base", shift(3), 3.0), "test"))
    arrival.start()
    message = buffer.lookup_transform_full("base", at(2.5), "base", at(1.0), "odom", Duration(seconds=20))
    assert message.transform.translation.x == pytest.approx(1.0 - 2.5)


def test_a_wait_in_vain_ends_at_its_timeout_with_the_reason(buffer):
    start = time.monotonic()
    with pytest.raises(tf2_ros.LookupException):
        buffer.lookup_transform("base", "lidar", LATEST, Duration(seconds=0.2))
    assert 0.19 < time.monotonic() - start < 5.0


def test_without_a_timeout_it_does_not_wait(buffer):
    start = time.monotonic()
    assert not buffer.can_transform("base", "lidar", LATEST)
    assert time.monotonic() - start < 0.1


@pytest.fixture
def node(ros: None) -> Iterator[Node]:
    node = rclpy.create_node("conformance")
    yield node
    node.destroy_node()


def spin_until(node: Node, condition: Callable[[], bool]) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end, "nothing came within 10 s"
        executor.spin_once(timeout_sec=0.1)
    executor.remove_node(node)


def test_a_listener_hears_a_broadcaster(node, buffer, rng):
    listener = tf2_ros.TransformListener(buffer, node)
    broadcaster = tf2_ros.TransformBroadcaster(node)
    T = random_pose(rng)
    spin_until(node, lambda: broadcaster.pub_tf.get_subscription_count() > 0)
    broadcaster.sendTransform(stamped("odom", "base", T, stamp=1.0))
    broadcaster.sendTransform([stamped("odom", "base", T, stamp=2.0), stamped("base", "arm", shift(1), stamp=2.0)])
    spin_until(node, lambda: buffer.can_transform("base", "arm", LATEST))
    np.testing.assert_allclose(matrix(buffer.lookup_transform("odom", "base", at(1.5))), T, atol=1e-12)
    listener.unregister()


def test_a_listener_that_comes_late_hears_static_transforms(node, buffer):
    broadcaster = tf2_ros.StaticTransformBroadcaster(node)
    broadcaster.sendTransform([stamped("base", "lidar", shift(1)), stamped("base", "camera", shift(2))])
    listener = tf2_ros.TransformListener(buffer, node)
    spin_until(node, lambda: buffer.can_transform("lidar", "camera", at(99.0)))
    assert buffer.lookup_transform("lidar", "camera", at(99.0)).transform.translation.x == pytest.approx(1.0)
    listener.unregister()


def test_a_listener_with_a_thread_of_its_own_serves_a_wait(node, buffer):
    listening_node = rclpy.create_node("conformance_listener")
    listener = tf2_ros.TransformListener(buffer, listening_node, spin_thread=True)
    broadcaster = tf2_ros.StaticTransformBroadcaster(node)
    broadcaster.sendTransform(stamped("base", "lidar", shift(5)))
    message = buffer.lookup_transform("base", "lidar", LATEST, Duration(seconds=10))
    assert message.transform.translation.x == 5.0
    listener.executor.shutdown()
    listener.dedicated_listener_thread.join(10.0)
    assert not listener.dedicated_listener_thread.is_alive()


@pytest.mark.skipif(
    not hasattr(tf2_ros.Buffer, "time_jump_callback"), reason="this ROS release keeps transforms when time jumps back"
)
def test_when_simulated_time_jumps_back_it_forgets_what_moves(node):
    node.set_parameters([Parameter("use_sim_time", value=True)])
    clock = node.create_publisher(Clock, "/clock", 10)
    buffer = tf2_ros.Buffer(node=node)

    def reach(seconds: float) -> None:
        def reached() -> bool:
            clock.publish(Clock(clock=at(seconds).to_msg()))
            return node.get_clock().now() == Time(seconds=seconds, clock_type=node.get_clock().clock_type)

        spin_until(node, reached)

    reach(100.0)
    buffer.set_transform_static(stamped("base", "lidar", shift(1)), "test")
    buffer.set_transform(stamped("odom", "base", shift(2), stamp=100.0), "test")
    reach(101.0)
    assert buffer.can_transform("odom", "lidar", LATEST)
    reach(50.0)
    assert not buffer.can_transform("odom", "lidar", LATEST)
    assert buffer.can_transform("base", "lidar", LATEST)
