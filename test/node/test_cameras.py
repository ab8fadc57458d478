"""What the node makes of the cameras' messages, over the real middleware."""

from __future__ import annotations

import re

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from scene import BASE, LIDAR, MS, ODOM, SECOND, camera_info, cloud, color_picture, image, transform

from ttt_kd_ros.ros.collector import SCANS_IN_VAIN
from ttt_kd_ros.ros.counts import BAD_CAMERA_INFO, NO_IMAGE, NO_STAMP, PLAIN_IMAGE, SCANS, USED, camera_subject

FRONT = camera_subject("front")
POINTS = [(float(i), 2.0 * i, -2.0) for i in range(8)]


@pytest.fixture
def robot(start):
    robot = start(cameras=["front"])
    robot.stand()
    return robot


def answered(robot, second, picture=None):
    """Views of a scan that comes with a picture."""
    robot.show(image(color_picture() if picture is None else picture, "rgb8", stamp=second * SECOND))
    robot.answer(cloud(POINTS, stamp=second * SECOND))
    return robot.segmenter.frames[-1].views


def test_a_fisheye_camera_reaches_the_segmenter_as_such(robot):
    info = camera_info()
    info.distortion_model, info.d = "equidistant", [0.1, 0.0, 0.0, 0.0]
    robot.calibrate(info)
    (view,) = answered(robot, 1)
    assert (view.camera.distortion_model, view.camera.distortion) == ("equidistant", (0.1, 0.0, 0.0, 0.0))


@pytest.mark.fault("CameraInfo changes", "the next scan uses the new one")
def test_a_changed_camera_info_holds_for_the_next_scan(robot):
    for second, focal in ((1, 20.0), (2, 25.0)):
        robot.calibrate(camera_info(focal=focal))
        (view,) = answered(robot, second)
        assert view.camera.K[0, 0] == focal


@pytest.mark.fault("picture of another size", "it is used with the intrinsics scaled")
def test_a_resized_picture_is_used_with_the_camera_info_of_the_large_one(robot):
    robot.calibrate(camera_info())
    (view,) = answered(robot, 1, color_picture(12, 16))
    assert view.image.shape == (12, 16, 3)
    assert (view.camera.width, view.camera.height) == (32, 24)


@pytest.mark.parametrize("bad", ["zero", "other shape", "unknown model", "not finite"])
@pytest.mark.fault("CameraInfo becomes bad", "scans are answered without pictures, the reason is told")
def test_while_the_camera_info_is_bad_scans_are_answered_without_pictures_and_the_reason_is_told(robot, bad):
    info = camera_info(focal=0.0 if bad == "zero" else 20.0)
    if bad == "other shape":
        info.height = 32
    if bad == "unknown model":
        info.distortion_model, info.d = "omni", [0.1]
    if bad == "not finite":
        info.d = [float("nan")] * 5
    robot.calibrate(info) if bad != "not finite" else robot.world.infos.publish(info)
    robot.world.wait_until(lambda: robot.node._assembler._infos)
    assert answered(robot, 1) == ()
    state = robot.world.wait_for_state(FRONT, BAD_CAMERA_INFO)
    assert state.level == DiagnosticStatus.WARN
    wrong = {
        "zero": "uncalibrated",
        "other shape": "describes 32x32",
        "unknown model": "'omni'",
        "not finite": "finite",
    }
    assert wrong[bad] in state.message
    robot.calibrate(camera_info())
    (view,) = answered(robot, 2)
    np.testing.assert_array_equal(view.image, color_picture())
    assert robot.count(FRONT, USED) == 1


@pytest.mark.parametrize(("level", "told"), [(0, "brightness of 0 to 8"), (255, "brightness of 247 to 255")])
@pytest.mark.fault("black or blown-out picture", "it is not used, and told")
def test_a_picture_that_shows_nothing_is_not_used_and_told(robot, level, told):
    robot.calibrate(camera_info())
    assert answered(robot, 1, np.full((24, 32, 3), level, np.uint8)) == ()
    state = robot.world.wait_for_state(FRONT, PLAIN_IMAGE)
    assert state.level == DiagnosticStatus.WARN
    assert told in state.message
    assert len(answered(robot, 2)) == 1


def test_the_share_of_one_brightness_that_is_allowed_can_be_changed_while_the_node_runs(robot):
    robot.calibrate(camera_info())
    assert robot.world.set_parameters(camera__front__max_plain_share=1.0).successful
    assert len(answered(robot, 1, np.zeros((24, 32, 3), np.uint8))) == 1


def test_the_offset_of_a_cameras_clock_is_taken_into_account(start):
    robot = start(cameras=["front"], fixed_frame=ODOM, camera__front__time_offset_ms=-700.0)
    robot.stand()
    for second in (0, 10):
        robot.world.transforms.sendTransform(transform(ODOM, BASE, (10 * second, 0, 0), stamp=second * SECOND))
    robot.world.wait_until(lambda: robot.knows(ODOM, LIDAR, 10 * SECOND))
    robot.calibrate(camera_info())
    robot.show(image(color_picture(), "rgb8", stamp=5 * SECOND + 740 * MS))
    robot.answer(cloud(POINTS, stamp=5 * SECOND))
    ((view,),) = (frame.views for frame in robot.segmenter.frames)
    np.testing.assert_allclose(view.T_camera_scan @ [10, 0, 0, 1], [0, 0, 10 - 0.4, 1], atol=1e-9)


@pytest.mark.fault("pictures with stamp 0", "they are not used, and told with their topic")
def test_pictures_without_stamps_are_told_with_their_topic(robot):
    robot.calibrate(camera_info())
    for second in range(1, 4):
        robot.show(image(color_picture(), "rgb8", stamp=0))
        robot.answer(cloud(POINTS, stamp=second * SECOND))
    assert not any(frame.views for frame in robot.segmenter.frames)
    state = robot.world.wait_for_state(FRONT, NO_STAMP)
    assert re.match(r"front/image_raw: .*x no stamp: pictures have stamp 0", state.message)


@pytest.mark.fault("scan with stamp 0", "it is answered without pictures, and told")
def test_a_scan_without_a_stamp_is_answered_and_told(robot):
    assert robot.answer(cloud(POINTS, stamp=0)).header.stamp.sec == 0
    assert robot.world.wait_for_state(SCANS, NO_STAMP).level == DiagnosticStatus.WARN


@pytest.mark.fault("one camera dies", "scans soon do not wait for it")
def test_a_dead_camera_does_not_delay_the_scans_for_long(start):
    robot = start(cameras=["front", "left"], image_wait_ms=300.0)
    robot.stand()
    robot.calibrate(camera_info())
    for second in range(1, SCANS_IN_VAIN + 3):
        answered(robot, second)
    robot.world.wait_until(lambda: len(robot.world.reports) == SCANS_IN_VAIN + 2)
    waits = [float(report["time_wait_ms"]) for report in robot.world.reports]
    assert min(waits[:SCANS_IN_VAIN]) > 290
    assert max(waits[SCANS_IN_VAIN + 1 :]) < 290
    assert [len(frame.views) for frame in robot.segmenter.frames] == [1] * (SCANS_IN_VAIN + 2)
    state = robot.world.wait_for_state(camera_subject("left"), NO_IMAGE)
    assert "nothing arrives" in state.message or "none has come yet" in state.message
