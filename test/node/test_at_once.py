"""Scans that nothing is learned from before they are labelled do not wait for pictures."""

from __future__ import annotations

import numpy as np
import pytest
from scene import MS, SECOND, camera_info, cloud, color_picture, image
from sensor_msgs.msg import Image

from ttt_kd_ros.ros.counts import MALFORMED, NO_IMAGE, SCANS, USED, camera_subject

FRONT = camera_subject("front")
POINTS = [(float(i), 2.0 * i, -2.0) for i in range(8)]
WAIT_MS = 2000.0


def standing(start, **parameters):
    robot = start(cameras=["front"], image_wait_ms=WAIT_MS, **parameters)
    robot.stand()
    robot.calibrate(camera_info())
    return robot


def waited_ms(robot):
    """How long the last scan waited."""
    robot.world.wait_until(lambda: len(robot.world.reports) == len(robot.world.clouds))
    return float(robot.world.reports[-1]["time_wait_ms"])


def picture(stamp):
    return image(color_picture(), "rgb8", stamp=stamp)


@pytest.fixture
def in_background(start):
    return standing(start, adaptation__schedule="background")


def test_without_adaptation_a_scan_is_answered_before_its_picture_comes(start):
    robot = standing(start, adaptation__mode="off")
    for second in (1, 2):
        robot.answer(cloud(POINTS, stamp=second * SECOND))
        assert waited_ms(robot) < WAIT_MS / 2
        robot.show(picture(second * SECOND))
    assert all(frame.views == () for frame in robot.segmenter.frames)
    assert robot.segmenter.lessons == []
    assert robot.count(FRONT, NO_IMAGE) == robot.count(FRONT, USED) == 0


def test_in_the_background_a_scan_is_answered_at_once_and_learned_from_with_the_pictures_that_belong_to_it(
    in_background,
):
    robot = in_background
    robot.show(picture(SECOND - 40 * MS))
    robot.answer(cloud(POINTS, stamp=SECOND))
    assert waited_ms(robot) < WAIT_MS / 2
    robot.show(picture(SECOND + 10 * MS))
    robot.answer(cloud(POINTS, stamp=2 * SECOND))
    robot.world.wait_until(lambda: robot.segmenter.lessons)
    assert all(frame.views == () for frame in robot.segmenter.frames)
    (lesson,) = robot.segmenter.lessons
    assert lesson.scan.stamp == SECOND
    (view,) = lesson.views
    np.testing.assert_array_equal(view.image, color_picture())
    assert robot.count(FRONT, USED) == 1


def test_of_several_scans_whose_pictures_have_come_the_latest_is_learned_from(in_background):
    robot = in_background
    for second in (1, 2, 3):
        robot.answer(cloud(POINTS, stamp=second * SECOND))
    for second in (1, 2, 3):
        robot.show(picture(second * SECOND))
    robot.answer(cloud(POINTS, stamp=4 * SECOND))
    robot.world.wait_until(lambda: robot.segmenter.lessons)
    assert [lesson.scan.stamp for lesson in robot.segmenter.lessons] == [3 * SECOND]


def test_a_scan_from_before_the_time_jumped_back_does_not_wait_for_its_pictures(in_background):
    robot = in_background
    robot.answer(cloud(POINTS, stamp=9 * SECOND))
    robot.answer(cloud(POINTS, stamp=1 * SECOND))
    robot.show(picture(1 * SECOND))
    robot.answer(cloud(POINTS, stamp=2 * SECOND))
    robot.world.wait_until(lambda: robot.segmenter.lessons)
    assert [lesson.scan.stamp for lesson in robot.segmenter.lessons] == [1 * SECOND]


def test_a_cloud_that_cannot_be_read_is_counted_once_and_not_learned_from(in_background):
    robot = in_background
    broken = cloud(POINTS, stamp=SECOND)
    broken.fields = broken.fields[:2]
    robot.world.points.publish(broken)
    robot.wait_for_count(SCANS, MALFORMED)
    robot.show(picture(2 * SECOND))
    robot.answer(cloud(POINTS, stamp=2 * SECOND))
    robot.world.wait_until(lambda: robot.segmenter.lessons)
    assert [lesson.scan.stamp for lesson in robot.segmenter.lessons] == [2 * SECOND]
    assert robot.count(SCANS, MALFORMED) == 1


def test_a_change_of_the_mode_holds_for_the_next_scan(start):
    robot = standing(start)
    robot.world.points.publish(cloud(POINTS, stamp=SECOND))
    robot.wait_for_count(SCANS, "received")
    assert robot.world.set_parameters(adaptation__mode="off").successful
    robot.world.wait_for_clouds(1)
    assert waited_ms(robot) < WAIT_MS * 0.9


def test_overlays_show_the_latest_picture_that_has_come(start):
    robot = standing(start, adaptation__mode="off")
    shown = []
    robot.world.create_subscription(Image, "segment/overlay/front", shown.append, 10)
    robot.world.wait_until(lambda: robot.node._outputs.overlays_are_watched)
    robot.show(picture(SECOND - 20 * MS))
    robot.answer(cloud(POINTS, stamp=SECOND))
    robot.world.wait_until(lambda: shown)
    assert robot.segmenter.frames[-1].views == ()


def test_a_picture_that_is_shown_and_learned_from_counts_as_used_once(in_background):
    robot, shown = in_background, []
    robot.world.create_subscription(Image, "segment/overlay/front", shown.append, 10)
    robot.world.wait_until(lambda: robot.node._outputs.overlays_are_watched)
    robot.show(picture(SECOND))
    robot.answer(cloud(POINTS, stamp=SECOND))
    robot.world.wait_until(lambda: shown and robot.segmenter.lessons)
    assert robot.count(FRONT, USED) == 1
