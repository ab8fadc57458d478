"""What the node makes of the cameras' messages, over the real middleware."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from scene import SECOND, camera_info, cloud, color_picture, image

from ttt_kd_ros.ros.counts import BAD_CAMERA_INFO, PLAIN_IMAGE, USED, camera_subject

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


def test_a_changed_camera_info_holds_for_the_next_scan(robot):
    for second, focal in ((1, 20.0), (2, 25.0)):
        robot.calibrate(camera_info(focal=focal))
        (view,) = answered(robot, second)
        assert view.camera.K[0, 0] == focal


def test_a_resized_picture_is_used_with_the_camera_info_of_the_large_one(robot):
    robot.calibrate(camera_info())
    (view,) = answered(robot, 1, color_picture(12, 16))
    assert view.image.shape == (12, 16, 3)
    assert (view.camera.width, view.camera.height) == (32, 24)


@pytest.mark.parametrize("bad", ["zero", "other shape", "unknown model", "not finite"])
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
