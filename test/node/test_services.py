"""What services change between two scans, and what they answer."""

from __future__ import annotations

from scene import SECOND, cloud
from std_srvs.srv import SetBool, Trigger

POINTS = [(float(i), 2.0 * i, -2.0) for i in range(8)]


def pause(robot, paused):
    return robot.world.call(SetBool, "pause", data=paused)


class TestPause:
    def test_no_steps_are_taken_until_it_ends(self, start):
        robot = start(adaptation__steps=3)
        assert pause(robot, True).message == "adaptation is paused"
        assert robot.segmenter.settings.steps == 0
        assert pause(robot, False).message == "adaptation goes on"
        assert robot.segmenter.settings.steps == 3

    def test_scans_are_answered_and_the_report_says_why_there_are_no_steps(self, start):
        robot = start()
        robot.stand()
        pause(robot, True)
        robot.answer(cloud(POINTS))
        robot.world.wait_until(lambda: robot.world.reports)
        assert robot.world.reports[0]["stopped_by"] == "paused"

    def test_a_change_of_parameters_does_not_end_it(self, start):
        robot = start()
        pause(robot, True)
        assert robot.world.set_parameters(adaptation__steps=7, adaptation__scope="encoder").successful
        assert (robot.segmenter.settings.steps, robot.segmenter.settings.scope) == (0, "encoder")
        pause(robot, False)
        assert robot.segmenter.settings.steps == 7

    def test_asked_for_twice_it_is_done_once(self, start):
        robot = start()
        assert pause(robot, True).success
        assert pause(robot, True).success
        assert robot.segmenter.events == ["configure"]


class TestWeights:
    def test_weights_are_saved_to_and_loaded_from_the_parameters_path(self, start):
        robot = start(weights_path="/robot/street.safetensors")
        assert robot.world.call(Trigger, "save_weights").message == "the weights are in /robot/street.safetensors"
        assert robot.world.set_parameters(weights_path="/robot/yard.safetensors").successful
        assert robot.world.call(Trigger, "load_weights").success
        assert robot.segmenter.events == ["save /robot/street.safetensors", "load /robot/yard.safetensors"]

    def test_a_path_below_the_home_directory_is_found_when_it_is_set_later_too(self, start, monkeypatch):
        monkeypatch.setenv("HOME", "/home/robot")
        robot = start()
        assert robot.world.set_parameters(weights_path="~/street.safetensors").successful
        assert robot.world.call(Trigger, "save_weights").success
        assert robot.segmenter.events == ["save /home/robot/street.safetensors"]

    def test_without_a_path_the_parameter_is_named(self, start):
        robot = start()
        for service in ("save_weights", "load_weights"):
            response = robot.world.call(Trigger, service)
            assert not response.success
            assert "'weights_path' is empty" in response.message
        assert robot.segmenter.events == []

    def test_what_the_segmenter_refuses_is_answered_with_the_reason(self, start):
        robot = start(weights_path="other.safetensors")
        robot.segmenter.refusal = "other.safetensors: was not adapted from this model"
        response = robot.world.call(Trigger, "load_weights")
        assert not response.success
        assert response.message == "other.safetensors: was not adapted from this model"

    def test_a_node_that_refused_goes_on(self, start):
        robot = start()
        robot.stand()
        assert not robot.world.call(Trigger, "load_weights").success
        assert robot.answer(cloud(POINTS, stamp=2 * SECOND)).header.stamp.sec == 2
