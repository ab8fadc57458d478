"""The node with a stand-in for the network, over the real middleware."""

from __future__ import annotations

import gc
import math
import weakref
from threading import Thread

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from robot import WatchedModelThread
from scene import (
    BASE,
    CAMERA_FRAME,
    LIDAR,
    LIDAR_FROM_OPTICAL,
    MS,
    ODOM,
    SECOND,
    camera_info,
    cloud,
    color_picture,
    compressed,
    image,
    transform,
    unpacked,
)
from sensor_msgs.msg import CompressedImage, PointCloud2, PointField

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.ros import health
from ttt_kd_ros.ros.counts import (
    BAD_CAMERA_INFO,
    BAD_IMAGE,
    EMPTY,
    EXTRAPOLATION,
    LATE_IMAGE,
    MALFORMED,
    NO_BASE_TRANSFORM,
    NO_CAMERA_INFO,
    NO_IMAGE,
    NO_TRANSFORM,
    OVERLOAD,
    PUBLISHED,
    RECEIVED,
    SCANS,
    SEGMENTER,
    USED,
    camera_subject,
)

FRONT = camera_subject("front")
POINTS = [(float(i), 2.0 * i, -2.0) for i in range(8)]
F32 = PointField.FLOAT32


class TestScans:
    def test_a_scan_is_answered_without_any_camera(self, start):
        robot = start()
        robot.stand()
        answer = robot.answer(cloud(POINTS))
        assert unpacked(answer)["label"] == [0, 1, 2, 3, 4, 5, 0, 1]
        (frame,) = robot.segmenter.frames
        assert frame.views == ()
        np.testing.assert_array_equal(frame.scan.points, np.array(POINTS, np.float32))
        np.testing.assert_array_equal(frame.scan.T_base_scan @ [0, 0, -2, 1], [0, 0, 0, 1])

    def test_drivers_may_send_reliably(self, start):
        robot = start()
        robot.stand()
        reliable = robot.world.create_publisher(
            PointCloud2, "points", QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        )
        robot.world.wait_until(reliable.get_subscription_count)
        reliable.publish(cloud(POINTS))
        robot.world.wait_for_clouds(1)

    def test_stamp_frame_and_order_are_the_scans(self, start):
        robot = start()
        robot.stand()
        stamps = [SECOND + 100 * MS * i + 1 for i in range(10)]
        for i, stamp in enumerate(stamps):
            answer = robot.answer(cloud([(float(i), 0.0, 0.0), (0.0, float(i), 0.0)], stamp=stamp))
            assert answer.header == cloud([], stamp=stamp).header
            assert (unpacked(answer)["x"], unpacked(answer)["y"]) == ([i, 0], [0, i])
        assert len(robot.world.clouds) == len(stamps)

    @pytest.mark.parametrize(
        "layout",
        [
            {"fields": (("x", F32), ("y", F32), ("z", F32))},
            {"point_padding": 16},
            {"big_endian": True},
            {"height": 2, "row_padding": 32},
        ],
        ids=["no intensity", "padded points", "big-endian", "organised"],
    )
    @pytest.mark.fault("big-endian, padded or organised cloud, no intensity", "it is answered in its shape")
    def test_any_layout_is_answered_in_its_shape(self, start, layout):
        robot = start()
        robot.stand()
        scan = cloud(POINTS, **layout)
        answer = robot.answer(scan)
        assert (answer.height, answer.width) == (scan.height, scan.width)
        assert list(zip(*(unpacked(answer)[axis] for axis in "xyz"), strict=True)) == POINTS

    @pytest.mark.fault("empty cloud", "it is answered with an empty cloud")
    def test_an_empty_cloud_is_answered_with_an_empty_cloud(self, start):
        robot = start()
        robot.stand()
        answer = robot.answer(cloud([], stamp=5 * SECOND))
        assert (answer.width * answer.height, len(answer.data), answer.header.stamp.sec) == (0, 0, 5)
        assert robot.count(SCANS, EMPTY) == 1

    def test_invalid_points_keep_their_place(self, start):
        robot = start()
        robot.stand()
        fields = unpacked(robot.answer(cloud([(math.nan,) * 3, (1.0, 2.0, 3.0), (0.0, math.inf, 0.0)])))
        assert fields["label"] == [255, 1, 255]
        assert fields["confidence"] == [0, 1, 0]

    @pytest.mark.fault("cloud of NaN alone", "every point is answered with label 255")
    def test_a_cloud_of_invalid_points_is_answered(self, start):
        robot = start()
        robot.stand()
        answer = robot.answer(cloud([(math.nan,) * 3] * 5))
        assert unpacked(answer)["label"] == [255] * 5
        assert not answer.is_dense

    @pytest.mark.fault("malformed cloud", "it is counted, the next one is answered")
    def test_a_malformed_cloud_is_counted_and_the_next_one_answered(self, start):
        robot = start()
        robot.stand()
        robot.world.points.publish(cloud([(1.0, 2.0)], fields=(("y", F32), ("z", F32))))
        robot.wait_for_count(SCANS, MALFORMED)
        robot.answer(cloud(POINTS))
        assert len(robot.world.clouds) == 1

    @pytest.mark.parametrize(
        "failure", [InputError("no"), RuntimeError("out of memory"), IndexError("row"), ZeroDivisionError("zero")]
    )
    @pytest.mark.fault("failure while computing", "it costs one scan, counted")
    def test_a_failure_of_the_segmenter_costs_one_scan(self, start, failure):
        robot = start()
        robot.stand()
        robot.segmenter.failures.append(failure)
        robot.world.points.publish(cloud(POINTS, stamp=SECOND))
        robot.wait_for_count(SCANS, SEGMENTER)
        assert robot.answer(cloud(POINTS, stamp=2 * SECOND)).header.stamp.sec == 2
        assert len(robot.world.clouds) == 1

    @pytest.mark.parametrize("part", ["_assembler.assemble", "_outputs.publish_cloud"])
    @pytest.mark.fault("failure while computing", "it costs one scan, counted")
    def test_a_failure_beside_the_segmenter_costs_one_scan_too(self, start, monkeypatch, part):
        robot = start()
        robot.stand()

        def fail(*_):
            raise MemoryError("too large")

        owner, name = part.split(".")
        monkeypatch.setattr(getattr(robot.node, owner), name, fail)
        robot.world.points.publish(cloud(POINTS, stamp=SECOND))
        robot.wait_for_count(SCANS, SEGMENTER)
        monkeypatch.undo()
        assert robot.answer(cloud(POINTS, stamp=2 * SECOND)).header.stamp.sec == 2
        assert "MemoryError: too large" in robot.world.wait_for_state(SCANS, SEGMENTER).message

    @pytest.mark.fault("failure of report or overlay", "the labels are published, the next scan is answered")
    def test_a_failure_of_the_report_costs_no_scan(self, start, monkeypatch):
        robot = start()
        robot.stand()

        def fail(*_):
            raise ValueError("no report")

        monkeypatch.setattr(robot.node._outputs, "publish_report", fail)
        for second in (1, 2):
            assert robot.answer(cloud(POINTS, stamp=second * SECOND)).header.stamp.sec == second

    @pytest.mark.fault("scan from before time 0", "not answered, counted; the next one is answered")
    def test_a_scan_from_before_time_0_is_counted(self, start):
        robot = start()
        robot.stand()
        early = cloud(POINTS)
        early.header.stamp.sec = -1
        robot.world.points.publish(early)
        robot.wait_for_count(SCANS, NO_BASE_TRANSFORM)
        robot.answer(cloud(POINTS))
        assert "before time 0" in robot.world.wait_for_state(SCANS, NO_BASE_TRANSFORM).message

    @pytest.mark.fault("scans faster than answers", "the older ones are dropped, counted; nothing piles up")
    def test_scans_that_come_too_fast_are_dropped_but_for_the_newest(self, start):
        robot = start()
        robot.stand()
        robot.segmenter.may_go_on.clear()
        for second in range(1, 6):
            robot.world.points.publish(cloud(POINTS, stamp=second * SECOND))
            robot.wait_for_count(SCANS, RECEIVED, second)
            robot.world.wait_until(lambda: robot.segmenter.frames)
        robot.segmenter.may_go_on.set()
        answers = robot.world.wait_for_clouds(2)
        assert [answer.header.stamp.sec for answer in answers] == [1, 5]
        assert robot.count(SCANS, OVERLOAD) == 3
        assert robot.count(SCANS, PUBLISHED) == 2


class TestTransforms:
    @pytest.mark.fault(
        "no transform to the ground",
        "not answered, counted; the diagnostics name the transform to publish",
    )
    def test_without_the_ground_a_scan_is_not_answered_and_diagnostics_say_what_to_publish(self, start):
        robot = start()
        robot.world.points.publish(cloud(POINTS, stamp=SECOND))
        state = robot.world.wait_for_state(SCANS, NO_BASE_TRANSFORM)
        assert state.level == DiagnosticStatus.ERROR
        assert "publish the transform from the scan's frame_id to base_frame" in state.message
        robot.stand()
        assert robot.answer(cloud(POINTS, stamp=2 * SECOND)).header.stamp.sec == 2
        assert len(robot.world.clouds) == 1

    @pytest.mark.fault("late transform", "it is waited for, `transform_wait_ms` at most")
    def test_a_transform_that_is_late_is_waited_for(self, start):
        robot = start(base_frame=ODOM, transform_wait_ms=2000.0)
        robot.send_static(transform(BASE, LIDAR, (0, 0, 2)))
        robot.world.transforms.sendTransform(transform(ODOM, BASE, (1, 0, 0), stamp=1 * SECOND))
        robot.world.wait_until(lambda: robot.knows(ODOM, LIDAR))
        robot.world.points.publish(cloud(POINTS, stamp=2 * SECOND))
        robot.wait_for_count(SCANS, RECEIVED)
        robot.world.transforms.sendTransform(transform(ODOM, BASE, (3, 0, 0), stamp=3 * SECOND))
        robot.world.wait_for_clouds(1)
        np.testing.assert_allclose(robot.segmenter.frames[0].scan.T_base_scan[:3, 3], [2, 0, 2])

    @pytest.mark.fault("clock goes back", "transforms from before are not used")
    def test_after_the_stamps_went_back_transforms_from_before_are_not_used(self, start):
        robot = start(base_frame=ODOM)
        robot.send_static(transform(BASE, LIDAR))
        for second in (100, 102):
            robot.world.transforms.sendTransform(transform(ODOM, BASE, (second, 0, 0), stamp=second * SECOND))
        robot.world.wait_until(lambda: robot.knows(ODOM, LIDAR, 102 * SECOND))
        robot.answer(cloud(POINTS, stamp=101 * SECOND))
        robot.world.points.publish(cloud(POINTS, stamp=1 * SECOND))
        robot.wait_for_count(SCANS, NO_BASE_TRANSFORM)
        for second in (1, 3):
            robot.world.transforms.sendTransform(transform(ODOM, BASE, (second, 0, 0), stamp=second * SECOND))
        robot.world.wait_until(lambda: robot.knows(ODOM, LIDAR, 3 * SECOND))
        robot.answer(cloud(POINTS, stamp=2 * SECOND))
        assert [frame.scan.T_base_scan[0, 3] for frame in robot.segmenter.frames] == [101, 2]

    @pytest.mark.fault("scan with stamp 0", "it is answered without pictures, and told")
    def test_a_scan_without_a_stamp_does_not_make_the_others_transforms_forgotten(self, start):
        robot = start(base_frame=ODOM)
        robot.send_static(transform(BASE, LIDAR))
        for second in (100, 102):
            robot.world.transforms.sendTransform(transform(ODOM, BASE, (second, 0, 0), stamp=second * SECOND))
        robot.world.wait_until(lambda: robot.knows(ODOM, LIDAR, 102 * SECOND))
        for stamp in (101 * SECOND, 0, 101 * SECOND + 50 * MS):
            robot.answer(cloud(POINTS, stamp=stamp))
        assert len(robot.segmenter.frames) == 3

    @pytest.mark.fault("clock goes back", "transforms from before are not used")
    def test_what_was_heard_before_a_deactivation_does_not_hinder_after_it(self, start):
        robot = start(base_frame=ODOM)
        robot.send_static(transform(BASE, LIDAR))
        robot.world.transforms.sendTransform(transform(ODOM, BASE, stamp=100 * SECOND))
        robot.world.wait_until(lambda: robot.knows(ODOM, LIDAR, 100 * SECOND))
        robot.answer(cloud(POINTS, stamp=100 * SECOND))
        for step in ("deactivate", "activate"):
            assert robot.world.transition(step)
        robot.wait_until_connected()
        for second in (1, 3):
            robot.world.transforms.sendTransform(transform(ODOM, BASE, (second, 0, 0), stamp=second * SECOND))
        robot.world.wait_until(lambda: robot.knows(ODOM, LIDAR, 3 * SECOND))
        robot.answer(cloud(POINTS, stamp=2 * SECOND))
        assert robot.segmenter.frames[-1].scan.T_base_scan[0, 3] == 2

    def test_with_a_fixed_frame_the_motion_between_scan_and_picture_counts(self, start):
        robot = start(cameras=["front"], fixed_frame=ODOM)
        robot.stand()
        for second in (0, 10):
            robot.world.transforms.sendTransform(transform(ODOM, BASE, (10 * second, 0, 0), stamp=second * SECOND))
        robot.world.wait_until(lambda: robot.knows(ODOM, LIDAR, 10 * SECOND))
        robot.calibrate(camera_info())
        robot.show(image(color_picture(), "rgb8", stamp=5 * SECOND + 40 * MS))
        robot.answer(cloud(POINTS, stamp=5 * SECOND))
        ((view,),) = (frame.views for frame in robot.segmenter.frames)
        np.testing.assert_allclose(view.T_camera_scan @ [10, 0, 0, 1], [0, 0, 10 - 0.4, 1], atol=1e-9)


class TestPictures:
    def start(self, start, **parameters):
        robot = start(cameras=["front"], **parameters)
        robot.stand()
        return robot

    def test_a_picture_reaches_the_segmenter_with_camera_and_pose(self, start):
        robot = self.start(start)
        robot.calibrate(camera_info())
        robot.show(image(color_picture()[..., ::-1], "bgr8", stamp=SECOND + 10 * MS))
        robot.answer(cloud(POINTS))
        ((view,),) = (frame.views for frame in robot.segmenter.frames)
        assert view.name == "front"
        np.testing.assert_array_equal(view.image, color_picture())
        assert view.camera.K[0].tolist() == [20, 0, 15.5]
        np.testing.assert_allclose(view.T_camera_scan @ [10, -1, -2, 1], [1, 2, 10, 1], atol=1e-12)
        assert robot.count(FRONT, USED) == 1
        robot.world.wait_until(lambda: robot.world.reports)
        assert robot.world.reports[0]["cameras"] == "front"

    def test_compressed_rectified_pictures_come_with_p(self, start):
        robot = self.start(start, camera__front__transport="compressed", camera__front__rectified=True)
        robot.calibrate(camera_info())
        robot.show(compressed(color_picture()[..., ::-1]))
        robot.answer(cloud(POINTS))
        ((view,),) = (frame.views for frame in robot.segmenter.frames)
        np.testing.assert_array_equal(view.image, color_picture())
        assert view.camera.K[0].tolist() == [40, 0, 15]

    def test_pictures_that_are_published_compressed_only_are_found(self, start):
        robot = self.start(start, camera__front__image_topic="late/image_raw")
        robot.calibrate(camera_info())
        pictures = robot.world.create_publisher(CompressedImage, "late/image_raw/compressed", qos_profile_sensor_data)
        with robot.world.repeating(pictures, compressed(color_picture()[..., ::-1])):
            robot.wait_for_count(FRONT, RECEIVED)
        robot.answer(cloud(POINTS))
        ((view,),) = (frame.views for frame in robot.segmenter.frames)
        np.testing.assert_array_equal(view.image, color_picture())

    def test_a_scan_waits_for_its_picture(self, start):
        robot = self.start(start, image_wait_ms=2000.0)
        robot.calibrate(camera_info())
        robot.world.points.publish(cloud(POINTS))
        robot.wait_for_count(SCANS, RECEIVED)
        robot.show(image(color_picture(), "rgb8", stamp=SECOND))
        robot.world.wait_for_clouds(1)
        assert len(robot.segmenter.frames[0].views) == 1

    def test_a_picture_beyond_the_tolerance_is_not_used(self, start):
        robot = self.start(start, camera__front__tolerance_ms=20.0)
        robot.calibrate(camera_info())
        robot.show(image(color_picture(), "rgb8", stamp=SECOND + 21 * MS))
        robot.answer(cloud(POINTS))
        assert robot.segmenter.frames[0].views == ()
        assert robot.count(FRONT, NO_IMAGE) == 1

    @pytest.mark.fault("late picture", "the scan does not wait for it; counted as late")
    def test_a_picture_that_comes_after_the_deadline_is_counted_as_late(self, start):
        robot = self.start(start, image_wait_ms=10.0)
        robot.answer(cloud(POINTS))
        robot.show(image(color_picture(), "rgb8", stamp=SECOND))
        assert (robot.count(FRONT, LATE_IMAGE), robot.count(FRONT, NO_IMAGE)) == (1, 0)

    @pytest.mark.fault("late picture", "the scan does not wait for it; counted as late")
    def test_a_deadline_bounds_the_waiting_for_pictures(self, start):
        robot = self.start(start, image_wait_ms=2000.0, adaptation__deadline_ms=300.0)
        robot.answer(cloud(POINTS))
        robot.world.wait_until(lambda: robot.world.reports)
        assert float(robot.world.reports[-1]["time_wait_ms"]) < 1000
        assert robot.world.set_parameters(adaptation__mode="off", adaptation__deadline_ms=0.0).successful

    def test_after_a_jump_back_scans_wait_for_their_own_pictures(self, start):
        robot = self.start(start, image_wait_ms=2000.0)
        robot.calibrate(camera_info())
        robot.show(image(color_picture(), "rgb8", stamp=9 * SECOND))
        robot.answer(cloud(POINTS, stamp=9 * SECOND))
        robot.world.points.publish(cloud(POINTS, stamp=SECOND))
        robot.wait_for_count(SCANS, RECEIVED, 2)
        robot.show(image(color_picture(), "rgb8", stamp=SECOND))
        robot.world.wait_for_clouds(2)
        assert [len(frame.views) for frame in robot.segmenter.frames] == [1, 1]

    def answered_without_view(self, robot, cause):
        robot.answer(cloud(POINTS))
        assert robot.segmenter.frames[-1].views == ()
        assert robot.count(FRONT, cause) == 1
        state = robot.world.wait_for_state(FRONT, cause)
        assert state.level == DiagnosticStatus.WARN
        assert cause in state.message
        return state.message

    @pytest.mark.fault("no CameraInfo", "the scan is answered without the picture, counted")
    def test_without_a_camera_info_the_scan_is_answered_and_the_reason_counted(self, start):
        robot = self.start(start)
        robot.show(image(color_picture(), "rgb8"))
        self.answered_without_view(robot, NO_CAMERA_INFO)

    @pytest.mark.fault("CameraInfo with a zero K", "the scan is answered without the picture, counted")
    def test_with_a_zero_k_the_scan_is_answered_and_the_reason_counted(self, start):
        robot = self.start(start)
        robot.calibrate(camera_info(focal=0.0))
        robot.show(image(color_picture(), "rgb8"))
        assert "uncalibrated" in self.answered_without_view(robot, BAD_CAMERA_INFO)

    @pytest.mark.fault("corrupt JPEG", "the scan is answered without the picture, counted")
    def test_with_a_corrupt_jpeg_the_scan_is_answered_and_the_reason_counted(self, start):
        robot = self.start(start, camera__front__transport="compressed")
        robot.calibrate(camera_info())
        picture = compressed(color_picture(), "jpg")
        picture.data = picture.data[20:]
        robot.show(picture)
        self.answered_without_view(robot, BAD_IMAGE)

    @pytest.mark.fault("no transform of the camera", "answered without the picture, the frame is named")
    def test_without_the_cameras_transform_the_scan_is_answered_and_the_reason_counted(self, start):
        robot = self.start(start)
        robot.calibrate(camera_info())
        robot.show(image(color_picture(), "rgb8", frame_id="unknown_optical"))
        assert "unknown_optical" in self.answered_without_view(robot, NO_TRANSFORM)

    @pytest.mark.fault("transforms of other times", "answered without the picture, counted as extrapolation")
    def test_with_transforms_of_other_times_the_scan_is_answered_and_the_reason_counted(self, start):
        robot = start(cameras=["front"], transform_wait_ms=10.0)
        robot.send_static(transform(BASE, LIDAR))
        moving = transform(BASE, CAMERA_FRAME, wxyz=LIDAR_FROM_OPTICAL, stamp=SECOND // 2)
        robot.world.transforms.sendTransform(moving)
        robot.world.wait_until(lambda: robot.knows(BASE, CAMERA_FRAME))
        robot.calibrate(camera_info())
        robot.show(image(color_picture(), "rgb8"))
        self.answered_without_view(robot, EXTRAPOLATION)

    def test_a_picture_without_frame_id_takes_that_of_the_camera_info(self, start):
        robot = self.start(start)
        robot.calibrate(camera_info())
        robot.show(image(color_picture(), "rgb8", frame_id=""))
        robot.answer(cloud(POINTS))
        assert robot.count(FRONT, USED) == 1


class TestReport:
    def test_every_scan_has_a_report(self, start):
        robot = start()
        robot.stand()
        robot.answer(cloud(POINTS))
        robot.world.wait_until(lambda: robot.world.reports)
        report = robot.world.reports[0]
        assert {"steps", "kd_loss_first", "kd_loss_last", "paired_points", "cameras"} <= report.keys()
        assert (report["stopped_by"], report["weight_version"]) == ("off", "1")
        stages = {key: float(value) for key, value in report.items() if key.startswith("time_")}
        assert stages.pop("time_predict_ms") == 1.5
        total = stages.pop("time_total_ms")
        assert 0 < sum(stages.values()) <= total

    def test_diagnostics_are_well_again_once_scans_are_answered(self, start):
        robot = start()
        robot.stand()
        robot.world.points.publish(cloud([(1.0, 2.0)], fields=(("y", F32), ("z", F32))))
        assert robot.world.wait_for_state(SCANS, MALFORMED).level == DiagnosticStatus.WARN
        with robot.world.repeating(robot.world.points, cloud(POINTS)):
            robot.world.wait_until(lambda: robot.world.states[f"segment: {SCANS}"].level == DiagnosticStatus.OK)
        state = robot.world.wait_for_state(SCANS, PUBLISHED)
        assert {pair.key: pair.value for pair in state.values}[MALFORMED] == "1"

    def test_diagnostics_tell_of_a_camera_that_is_silent(self, start):
        robot = start(cameras=["front"])
        robot.world.wait_until(lambda: f"segment: {FRONT}" in robot.world.states)
        state = robot.world.states[f"segment: {FRONT}"]
        assert state.level == DiagnosticStatus.WARN
        assert "front/image_raw" in state.message

    def test_who_waits_for_the_node_is_silent_from_its_answer_on(self, start, monkeypatch):
        monkeypatch.setattr(health, "PERIOD_S", 0.1)
        robot = start(cameras=["front"])
        robot.stand()
        robot.segmenter.may_go_on.clear()
        robot.show(image(color_picture(), "rgb8"))
        robot.world.points.publish(cloud(POINTS))
        robot.world.wait_for_state(SCANS, RECEIVED)
        robot.world.wait_for_diagnostics(10)
        assert not robot.world.tells_silence(SCANS)
        assert not robot.world.tells_silence(FRONT)
        robot.segmenter.may_go_on.set()
        robot.world.wait_until(lambda: robot.world.tells_silence(SCANS) and robot.world.tells_silence(FRONT))

    def test_a_camera_is_silent_however_busy_the_node_is(self, start, monkeypatch):
        monkeypatch.setattr(health, "PERIOD_S", 0.1)
        robot = start(cameras=["front"])
        robot.stand()
        robot.segmenter.may_go_on.clear()
        with robot.world.repeating(robot.world.points, cloud(POINTS)):
            robot.world.wait_until(lambda: robot.segmenter.events == ["begin"])
            robot.show(image(color_picture(), "rgb8"))
            robot.world.wait_for_state(FRONT, RECEIVED)
            robot.world.wait_until(lambda: robot.world.tells_silence(FRONT))


class TestParameters:
    def test_a_live_change_reaches_the_segmenter_as_one(self, start):
        robot = start()
        result = robot.world.set_parameters(adaptation__steps=3, adaptation__scope="encoder", image_wait_ms=7.0)
        assert result.successful, result.reason
        assert (robot.segmenter.settings.steps, robot.segmenter.settings.scope) == (3, "encoder")
        assert robot.node.get_parameter("image_wait_ms").value == 7.0

    def test_changes_add_up(self, start):
        robot = start()
        assert robot.world.set_parameters(adaptation__steps=3).successful
        assert robot.world.set_parameters(adaptation__scope="encoder").successful
        assert (robot.segmenter.settings.steps, robot.segmenter.settings.scope) == (3, "encoder")

    def test_other_changes_leave_the_segmenter_alone(self, start):
        robot = start()
        assert robot.world.set_parameters(image_wait_ms=7.0).successful
        assert robot.segmenter.events == []

    def test_a_change_that_is_partly_wrong_changes_nothing(self, start):
        robot = start()
        before = robot.segmenter.settings
        result = robot.world.set_parameters(adaptation__steps=3, adaptation__mode="fast")
        assert not result.successful
        assert "choose one of off, offline, online" in result.reason
        assert robot.segmenter.settings == before
        assert robot.node.get_parameter("adaptation.steps").value == before.steps

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"adaptation__steps": 1001}, "out of range"),
            ({"adaptation__steps": 2.0}, "Wrong parameter type"),
            ({"adaptation__learning_rate": math.nan}, "out of range"),
            ({"base_frame": "map"}, "base_frame is read when the node is configured"),
            ({"cameras": ["front"]}, "read-only"),
            ({"adaptation__step": 1}, "undeclared"),
        ],
    )
    def test_what_is_not_allowed_is_refused_with_a_reason(self, start, change, reason):
        robot = start()
        before = robot.segmenter.settings
        result = robot.world.set_parameters(**change)
        assert not result.successful
        assert reason in result.reason
        assert robot.segmenter.settings == before

    def test_what_the_segmenter_refuses_is_refused(self, start):
        robot = start(adaptation__mode="off")
        result = robot.world.set_parameters(adaptation__mode="online", image_wait_ms=7.0)
        assert not result.successful
        assert "teacher" in result.reason
        assert robot.node.get_parameter("image_wait_ms").value == 100.0

    def test_a_new_tolerance_holds_for_the_next_scan(self, start):
        robot = start(cameras=["front"])
        robot.stand()
        assert robot.world.set_parameters(camera__front__tolerance_ms=500.0).successful
        robot.calibrate(camera_info())
        robot.show(image(color_picture(), "rgb8", stamp=SECOND + 400 * MS))
        robot.answer(cloud(POINTS))
        assert robot.count(FRONT, USED) == 1

    def test_descriptors_tell_range_words_and_what_is_read_only(self, start):
        node = start(cameras=["front"]).node
        steps = node.describe_parameter("adaptation.steps")
        assert (steps.integer_range[0].from_value, steps.integer_range[0].to_value) == (-1, 1000)
        assert node.describe_parameter("image_wait_ms").floating_point_range[0].to_value == 2000
        assert "offline" in node.describe_parameter("adaptation.mode").additional_constraints
        transport = node.describe_parameter("camera.front.transport").additional_constraints
        assert transport == "one of auto, raw, compressed; changed only while the node is unconfigured"
        assert not node.describe_parameter("camera.front.tolerance_ms").additional_constraints
        assert node.describe_parameter("cameras").read_only
        assert all(node.describe_parameter(name).description for name in ("checkpoint", "camera.front.rectified"))

    @pytest.mark.parametrize(
        ("parameters", "error", "reason"),
        [
            ({"adaptation__mode": "fast"}, InputError, "choose one of off, offline, online"),
            ({"adaptation__steps": -2}, InvalidParameterValueException, "adaptation.steps"),
            ({"image_wait_ms": 100}, InvalidParameterTypeException, "image_wait_ms"),
            ({"cameras": ["front left"]}, InputError, "letters, digits"),
            ({"cameras": ["front"], "camera__front__transport": "zip"}, InputError, "auto, raw, compressed"),
        ],
    )
    def test_a_wrong_value_at_the_start_is_refused_with_a_reason(self, start, parameters, error, reason):
        with pytest.raises(error, match=reason):
            start(**parameters)


class TestBetweenScans:
    def test_the_reset_service_resets_the_segmenter(self, start):
        robot = start()
        response = robot.world.reset()
        assert response.success
        assert robot.segmenter.events == ["reset"]

    def test_the_segmenter_is_made_and_called_on_one_thread(self, start):
        robot = start()
        robot.stand()
        robot.answer(cloud(POINTS))
        robot.world.reset()
        robot.world.set_parameters(adaptation__steps=1)
        assert robot.segmenter.events == ["begin", "end", "reset", "configure"]
        assert len(robot.segmenter.threads) == 1

    @pytest.mark.parametrize("request_", ["reset", "configure"])
    @pytest.mark.fault("reset or new parameters in a step", "they take effect after the scan")
    def test_what_is_asked_for_during_a_scan_is_done_after_it(self, start, request_):
        robot = start()
        robot.stand()
        model_thread = robot.node._model._thread = WatchedModelThread()
        robot.segmenter.may_go_on.clear()
        robot.world.points.publish(cloud(POINTS))
        robot.world.wait_until(lambda: robot.segmenter.frames)
        if request_ == "reset":
            asking = Thread(target=robot.world.reset)
        else:
            asking = Thread(target=robot.world.set_parameters, kwargs={"adaptation__steps": 1})
        asking.start()
        robot.world.wait_until(lambda: model_thread.asked == 2)
        robot.segmenter.may_go_on.set()
        asking.join()
        assert robot.segmenter.events == ["begin", "end", request_]
        robot.world.wait_for_clouds(1)


class TestLife:
    def test_nothing_of_an_answered_scan_is_kept(self, start):
        robot = start(cameras=["front"])
        robot.stand()
        robot.calibrate(camera_info())
        gc.disable()
        try:
            robot.show(image(color_picture(), "rgb8", frame_id="unknown_optical"))
            robot.answer(cloud(POINTS))
            frame = weakref.ref(robot.segmenter.frames.pop())
            robot.show(image(color_picture(), "rgb8", stamp=2 * SECOND))
            robot.answer(cloud(POINTS, stamp=2 * SECOND))
            assert frame() is None
        finally:
            gc.enable()
