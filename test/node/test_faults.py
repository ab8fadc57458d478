"""Faults that the other tests of the node do not have, over the real middleware."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from scene import BASE, CAMERA_FRAME, LIDAR, SECOND, camera_info, cloud, color_picture, image, transform, unpacked
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from tf2_ros import StaticTransformBroadcaster
from tiny import Colors, tiny_network, tiny_segmenter

from ttt_kd_ros.frame import AdaptationReport
from ttt_kd_ros.model.checkpoint import save_checkpoint
from ttt_kd_ros.ros.counts import ADAPTATION, ADAPTATION_CAUSES
from ttt_kd_ros.schedule import load_scheduled

FRONT = "camera front"
POINTS = [(5.0 + 0.01 * i, 0.5 * (i % 7) - 1.5, 0.2 * (i % 5)) for i in range(400)]
FEW_STEPS = {"adaptation__steps": 2, "adaptation__min_pairs": 1, "cameras": ["front"], "image_wait_ms": 2000.0}


def see(robot, stamp=SECOND):
    """A scan with its picture, its answer and its report."""
    robot.show(image(color_picture(), "rgb8", stamp=stamp))
    reports = len(robot.world.reports)
    answer = robot.answer(cloud(POINTS, stamp=stamp))
    robot.world.wait_until(lambda: len(robot.world.reports) > reports)
    assert all(map(math.isfinite, unpacked(answer)["confidence"]))
    return answer, robot.world.reports[-1]


@pytest.fixture
def start_tiny(start):
    """Start the node with a small real network, a teacher and one calibrated camera."""

    def start_robot(teacher=None, **parameters):
        def load(checkpoint, *, settings, **_):
            return tiny_segmenter(teacher or Colors(), settings)

        robot = start(load=load, **FEW_STEPS | parameters)
        robot.stand()
        robot.calibrate(camera_info())
        return robot

    return start_robot


class TestTransforms:
    @pytest.mark.fault("TF loop", "the scan is answered without the picture, counted; once mended, the picture is used")
    def test_a_loop_costs_the_picture_until_it_is_mended(self, start):
        robot = start(cameras=["front"])
        robot.send_static(transform(BASE, LIDAR, (0, 0, 2)), transform("mount", CAMERA_FRAME))
        robot.world.static_transforms.sendTransform(transform(CAMERA_FRAME, "mount"))
        robot.calibrate(camera_info())
        robot.show(image(color_picture(), "rgb8"))
        robot.answer(cloud(POINTS))
        assert robot.segmenter.frames[-1].views == ()
        StaticTransformBroadcaster(robot.world).sendTransform(transform(LIDAR, "mount"))
        robot.world.wait_until(lambda: robot.knows(LIDAR, CAMERA_FRAME))
        robot.show(image(color_picture(), "rgb8", stamp=2 * SECOND))
        robot.answer(cloud(POINTS, stamp=2 * SECOND))
        assert len(robot.segmenter.frames[-1].views) == 1


class TestScans:
    @pytest.mark.fault("clouds out of order", "each is answered with its own stamp")
    def test_clouds_out_of_order_are_answered(self, start):
        robot = start()
        robot.stand()
        stamps = [5, 4, 6, 3]
        answers = [robot.answer(cloud(POINTS[:8], stamp=stamp * SECOND)).header.stamp.sec for stamp in stamps]
        assert answers == stamps

    @pytest.mark.fault("ten times the points", "every point is answered, and the next scan as well")
    def test_ten_times_the_points_are_answered(self, start_tiny):
        robot = start_tiny(image_wait_ms=10.0)
        many = POINTS * 10
        for points in (POINTS, many, POINTS):
            assert robot.answer(cloud(points)).width == len(points)

    @pytest.mark.fault("subscriber that takes nothing", "the others are served as before")
    def test_a_slow_subscriber_does_not_stop_the_others(self, start):
        robot = start()
        robot.stand()
        slow = Node("slow")  # nobody spins it
        reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        slow.create_subscription(PointCloud2, "segment/segmentation", lambda _: None, reliable)
        robot.world.wait_until(lambda: slow.count_publishers("segment/segmentation"))
        for stamp in range(1, 21):
            robot.answer(cloud(POINTS[:8], stamp=stamp * SECOND))
        slow.destroy_node()


class TestAdaptation:
    @pytest.mark.fault("loss that is not finite", "the steps are undone, the last good weights answer")
    def test_a_loss_that_is_not_finite_is_undone(self, start_tiny):
        teacher = Colors()
        robot = start_tiny(teacher)
        assert see(robot)[1]["weight_version"] == "1"
        good = teacher.features
        teacher.features = lambda pictures: [
            (replace(grid, values=grid.values * math.nan),) for (grid,) in good(pictures)
        ]
        report = see(robot, 2 * SECOND)[1]
        assert (report["stopped_by"], report["weight_version"]) == ("not finite", "1")
        teacher.features = good
        assert see(robot, 3 * SECOND)[1]["weight_version"] == "2"

    @pytest.mark.fault("exploding gradients", "weights are finite or rolled back; no confidence is not finite")
    def test_exploding_gradients_give_finite_answers(self, start_tiny):
        robot = start_tiny(adaptation__learning_rate=1.0, adaptation__optimizer="sgd", adaptation__steps=20)
        for stamp in range(1, 4):
            see(robot, stamp * SECOND)

    @pytest.mark.fault("GPU out of memory", "the scan is answered; smaller scope, then the source model alone")
    def test_a_gpu_without_memory_falls_back_to_the_source_model(self, start_tiny):
        teacher = Colors()
        robot = start_tiny(teacher)

        def too_much(pictures):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        teacher.features = too_much
        reports = [see(robot, stamp * SECOND)[1] for stamp in range(1, 4)]
        assert {report["stopped_by"] for report in reports} == {"out of memory"}
        assert reports[-1]["weight_version"] == "0"
        assert robot.world.wait_for_state(ADAPTATION, "out of memory").level == DiagnosticStatus.WARN

    @pytest.mark.fault("time jumps back (bag loop)", "the source weights come back, told in report and diagnostics")
    def test_a_bag_that_begins_again_begins_with_the_source_weights(self, start_tiny):
        robot = start_tiny()
        see(robot, 10 * SECOND)
        assert see(robot, 11 * SECOND)[1]["weight_version"] == "2"
        report = see(robot, 2 * SECOND)[1]
        assert (report["reset_by"], report["weight_version"]) == ("time jump", "1")
        assert "jump_s" in robot.world.wait_for_state(ADAPTATION, "time jump").message

    @pytest.mark.fault("predictions collapse", "the source weights come back and label the scan, told in the report")
    def test_a_collapse_brings_the_source_weights_back(self, start_tiny):
        robot = start_tiny(adaptation__collapse_share=0.99, adaptation__trust=0.0)
        see(robot)
        network = robot.node._model._segmenter._segmenter._network
        with torch.no_grad():
            source_share = torch.nn.functional.one_hot(torch.tensor(unpacked(robot.world.clouds[-1])["label"]), 6)
            assert source_share.float().mean(dim=0).max() < 0.99
            for parameter in network.backbone.parameters():
                parameter.zero_()
        report = see(robot, 2 * SECOND)[1]
        assert (report["reset_by"], report["weight_version"]) == ("collapse", "0")

    @pytest.mark.fault("adaptation goes wrong", "the cause is told in the diagnostics, with the mend")
    @pytest.mark.parametrize("cause", ADAPTATION_CAUSES)
    def test_every_cause_is_told_with_its_mend(self, start, cause):
        robot = start()
        robot.stand()
        robot.segmenter.report = AdaptationReport(0, cause)
        robot.answer(cloud(POINTS[:8]))
        state = robot.world.wait_for_state(ADAPTATION, cause)
        assert state.level == DiagnosticStatus.WARN
        assert ADAPTATION_CAUSES[cause] in state.message

    @pytest.mark.fault("saving where no file can be", "the service answers with the reason, the node goes on")
    def test_weights_that_cannot_be_written_are_answered_with_the_reason(self, start_tiny, tmp_path):
        (tmp_path / "file").touch()
        robot = start_tiny(weights_path=str(tmp_path / "file" / "weights.safetensors"))
        response = robot.world.call(Trigger, "save_weights")
        assert not response.success
        assert "weights.safetensors" in response.message
        see(robot)


class TestCheckpoints:
    @pytest.mark.fault("truncated checkpoint", "configuring fails with the file named")
    def test_a_truncated_checkpoint_is_refused(self, start, tmp_path, capfd):
        path = tmp_path / "short.safetensors"
        save_checkpoint(path, tiny_network(), {})
        path.write_bytes(path.read_bytes()[:-100])
        robot = start(load=load_scheduled, checkpoint=str(path), adaptation__mode="off")
        assert not robot.started
        assert "short.safetensors" in capfd.readouterr().err

    @pytest.mark.fault("teacher that the checkpoint was not trained with", "configuring fails with both named")
    def test_another_teacher_is_refused(self, start, capfd):
        class Others(Colors):
            name = "others"

        robot = start(load=lambda checkpoint, *, settings, **_: tiny_segmenter(Others(), settings))
        assert not robot.started
        assert "others" in capfd.readouterr().err


def test_the_deadline_is_counted_from_the_scans_arrival_and_leaves_time_to_publish(start):
    robot = start(adaptation__deadline_ms=80.0)
    robot.stand()
    for stamp in (1, 2):
        before = time.monotonic()
        robot.answer(cloud(POINTS[:8], stamp=stamp * SECOND))
        assert before < robot.segmenter.dues[-1] < time.monotonic() + 0.08
    assert robot.world.set_parameters(adaptation__deadline_ms=0.0).successful
    robot.answer(cloud(POINTS[:8], stamp=3 * SECOND))
    assert robot.segmenter.dues[-1] == math.inf
