"""What the node is, has and keeps in each state of its lifecycle."""

from __future__ import annotations

import gc
import resource
import threading
import weakref
from pathlib import Path

import pytest
from scene import BASE, CAMERA_FRAME, LIDAR, LIDAR_FROM_OPTICAL, SECOND, camera_info, cloud, transform, unpacked
from std_srvs.srv import Trigger

from ttt_kd_ros.ros.counts import PUBLISHED, SCANS

POINTS = [(float(i), 2.0 * i, -2.0) for i in range(8)]
GROWTH_KB = 10
"""What a pair of configure and cleanup may cost at most: half of what a leaked subscription costs."""


def topics(endpoints) -> set[str]:
    return {endpoint.topic_name for endpoint in endpoints}


class TestStates:
    def test_a_node_starts_straight_to_active(self, start):
        robot = start()
        assert robot.started
        assert robot.world.lifecycle_state() == "active"

    def test_without_autostart_it_waits_unconfigured_with_nothing_loaded(self, start):
        robot = start(autostart=False)
        assert robot.world.lifecycle_state() == "unconfigured"
        assert robot.segmenters == []
        assert not {"points", "/points"} & topics(robot.node.subscriptions)

    def test_configure_loads_but_does_not_subscribe(self, start):
        robot = start(autostart=False)
        assert robot.world.transition("configure")
        assert robot.world.lifecycle_state() == "inactive"
        assert len(robot.segmenters) == 1
        assert "/points" not in topics(robot.node.subscriptions)
        assert "/segment/segmentation" in topics(robot.node.publishers)

    def test_activate_answers_scans(self, start):
        robot = start(autostart=False)
        assert robot.world.transition("configure")
        assert robot.world.transition("activate")
        robot.wait_until_connected()
        robot.stand()
        assert unpacked(robot.answer(cloud(POINTS)))["label"] == [0, 1, 2, 3, 4, 5, 0, 1]

    def test_deactivate_keeps_the_model_and_ends_the_subscriptions(self, start):
        robot = start()
        kept = robot.segmenter
        assert robot.world.transition("deactivate")
        assert not {"/points", "/tf", "/tf_static"} & topics(robot.node.subscriptions)
        assert robot.world.transition("activate")
        robot.wait_until_connected()
        robot.stand()
        robot.answer(cloud(POINTS))
        assert len(kept.frames) == 1
        assert robot.segmenters == [kept]
        assert "reset" not in kept.events

    def test_deactivate_lets_the_scan_in_work_be_answered(self, start):
        robot = start()
        robot.stand()
        robot.segmenter.may_go_on.clear()
        robot.world.points.publish(cloud(POINTS))
        robot.world.wait_until(lambda: robot.segmenter.frames)
        deactivating = threading.Thread(target=robot.world.transition, args=("deactivate",))
        deactivating.start()
        robot.world.wait_until(lambda: not topics(robot.node.subscriptions) & {"/points"})
        robot.segmenter.may_go_on.set()
        robot.world.wait_for_clouds(1)
        deactivating.join()
        assert robot.count(SCANS, PUBLISHED) == 1

    def test_a_calibration_outlives_deactivation(self, start):
        robot = start(cameras=["front"])
        robot.calibrate(camera_info())
        assert robot.world.transition("deactivate")
        assert robot.world.transition("activate")
        assert robot.node._assembler._infos.keys() == {"front"}

    def test_while_it_is_configured_no_garbage_collection_looks_at_what_was_loaded(self, start):
        robot = start(autostart=False)
        assert gc.get_freeze_count() == 0
        assert robot.world.transition("configure")
        assert gc.get_freeze_count() > 10_000, "a full collection would take as long as some scans"
        assert robot.world.transition("cleanup")
        assert gc.get_freeze_count() == 0

    def test_cleanup_frees_the_model_and_ends_the_publishers(self, start):
        robot = start()
        loaded = weakref.ref(robot.segmenters.pop())
        assert robot.world.transition("deactivate")
        assert robot.world.transition("cleanup")
        assert robot.world.lifecycle_state() == "unconfigured"
        assert loaded() is None
        assert "/segment/segmentation" not in topics(robot.node.publishers)

    def test_shutdown_from_active_ends_everything(self, start):
        robot = start()
        assert robot.world.transition("shutdown")
        assert robot.world.lifecycle_state() == "finalized"
        assert "/points" not in topics(robot.node.subscriptions)

    def test_activating_before_configuring_is_refused(self, start):
        robot = start(autostart=False)
        assert not robot.world.transition("activate")
        assert robot.world.lifecycle_state() == "unconfigured"


class TestParametersAtTheStart:
    def test_mistyped_ones_are_named_in_a_warning(self, start, capfd):
        start(autostart=False, cameras=["front"], adaptation__stepz=3, camera__fornt__time_offset_ms=5.0)
        (warning,) = [line for line in capfd.readouterr().err.splitlines() if "no such parameters" in line]
        assert "no such parameters: adaptation.stepz, camera.fornt.time_offset_ms; `ros2 param list`" in warning

    def test_those_of_the_node_its_cameras_its_topics_and_of_ros_are_taken_without_a_warning(self, start, capfd):
        of_a_topic = {"qos_overrides./segment/report.publisher.depth": 1}
        start(cameras=["front"], camera__front__time_offset_ms=5.0, use_sim_time=False, **of_a_topic)
        assert "no such parameters" not in capfd.readouterr().err


class TestRefusals:
    @pytest.mark.fault("checkpoint that does not fit", "configuring fails with the reason, and can be tried again")
    def test_a_bad_checkpoint_fails_the_transition_with_the_reason_in_the_log(self, start, capfd):
        robot = start(autostart=False, checkpoint="broken.safetensors")
        assert not robot.world.transition("configure")
        assert robot.world.lifecycle_state() == "unconfigured"
        assert "cannot configure: broken.safetensors: the weights do not fit the manifest" in capfd.readouterr().err

    def test_after_a_refusal_another_checkpoint_can_be_configured(self, start):
        robot = start(autostart=False, checkpoint="broken.safetensors")
        assert not robot.world.transition("configure")
        assert robot.world.set_parameters(checkpoint="whole.safetensors").successful
        assert robot.world.transition("configure")
        assert robot.world.transition("activate")

    def test_a_topic_that_is_no_name_is_refused_before_anything_is_loaded(self, start, capfd):
        robot = start(autostart=False, points_topic="no topic")
        assert not robot.world.transition("configure")
        assert "cannot configure: Invalid topic name" in capfd.readouterr().err
        assert robot.segmenters == []

    def test_a_quality_of_service_that_does_not_exist_is_refused_and_nothing_stays(self, start, capfd):
        robot = start(autostart=False, **{"qos_overrides./segment/report.publisher.reliability": "perhaps"})
        assert not robot.world.transition("configure")
        assert "qos_overrides of topic ~/report cannot be used" in capfd.readouterr().err
        assert "/segment/segmentation" not in topics(robot.node.publishers)

    def test_a_start_that_fails_says_so(self, start):
        robot = start(checkpoint="broken.safetensors")
        assert not robot.started
        assert robot.world.lifecycle_state() == "unconfigured"

    def test_a_fault_while_loading_is_logged_and_leaves_the_node_unconfigured(self, start, capfd):
        robot = start(autostart=False, checkpoint="fault.safetensors")
        assert not robot.world.transition("configure")
        assert robot.world.lifecycle_state() == "unconfigured"
        assert "TypeError: a fault in the program" in capfd.readouterr().err


class TestParameters:
    def test_what_is_read_at_configure_may_change_before_it(self, start):
        robot = start(autostart=False)
        assert robot.world.set_parameters(points_topic="roof/points", adaptation__steps=2).successful
        assert robot.world.transition("configure")
        assert robot.world.transition("activate")
        assert "/roof/points" in topics(robot.node.subscriptions)
        assert robot.segmenter.settings.steps == 2

    def test_afterwards_it_is_refused_and_nothing_of_the_request_applies(self, start):
        robot = start()
        result = robot.world.set_parameters(points_topic="roof/points", image_wait_ms=7.0)
        assert not result.successful
        assert "clean the node up before (ros2 lifecycle set /segment cleanup)" in result.reason
        assert robot.node.get_parameter("image_wait_ms").value == 100.0

    def test_the_value_that_it_has_already_is_no_change(self, start):
        robot = start()
        assert robot.world.set_parameters(points_topic="points", image_wait_ms=7.0).successful

    def test_a_wrong_value_is_refused_while_unconfigured_too(self, start):
        robot = start(autostart=False)
        assert not robot.world.set_parameters(adaptation__mode="fast").successful
        assert not robot.world.set_parameters(base_frame="").successful

    def test_a_change_while_inactive_reaches_the_segmenter(self, start):
        robot = start(autostart=False)
        assert robot.world.transition("configure")
        assert robot.world.set_parameters(adaptation__steps=2).successful
        assert robot.segmenter.settings.steps == 2


class TestRepetition:
    def test_activation_can_be_repeated(self, start):
        robot = start(cameras=["front"])
        moving = transform(BASE, LIDAR, (0, 0, 2)), transform(LIDAR, CAMERA_FRAME, wxyz=LIDAR_FROM_OPTICAL)
        for round_ in range(1, 6):
            robot.send_static(*moving)
            assert robot.answer(cloud(POINTS, stamp=round_ * SECOND)).header.stamp.sec == round_
            assert robot.world.transition("deactivate")
            assert robot.world.transition("activate")
            robot.wait_until_connected()

    @pytest.mark.fault("configure and cleanup a hundred times", "nothing of the models stays")
    def test_configure_and_cleanup_do_not_grow(self, start):
        robot = start(autostart=False, cameras=["front"])
        self.repeat(robot, 20)
        before, threads = memory_kb(), threading.active_count()
        self.repeat(robot, 80)
        assert threading.active_count() <= threads
        assert memory_kb() - before < 80 * GROWTH_KB

    def repeat(self, robot, times):
        for _ in range(times):
            for label in ("configure", "activate", "deactivate", "cleanup"):
                assert robot.world.transition(label)
            robot.segmenters.clear()


def memory_kb() -> float:
    gc.collect()
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return resident_pages * resource.getpagesize() / 1024


@pytest.mark.parametrize("service", ["reset", "save_weights", "load_weights"])
def test_without_a_model_services_say_why_they_cannot_serve(start, service):
    response = start(autostart=False).world.call(Trigger, service)
    assert not response.success
    assert "not configured" in response.message
