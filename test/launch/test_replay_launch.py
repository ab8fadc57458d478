"""The launch file that plays a bag, with executables that end at once in place of the real ones."""

from __future__ import annotations

import runpy

import pytest

launch = pytest.importorskip("launch", reason="needs ROS's package launch")
if not hasattr(launch, "LaunchDescription"):
    pytest.skip("needs ROS's package launch, this one is another", allow_module_level=True)

import yaml  # noqa: E402
from launching import PROFILES, ROOT, arguments  # noqa: E402

from ttt_kd_ros.errors import InputError  # noqa: E402
from ttt_kd_ros.ros.parameters import PARAMETERS  # noqa: E402


@pytest.fixture
def start(machine):
    """Launch with arguments; what was started, by program."""
    return lambda **given: {each.program: each for each in machine.launch("replay.launch.py", **given)}


def test_only_the_bag_must_be_given():
    found = arguments("replay.launch.py")
    assert [name for name, argument in found.items() if argument.default_value is None] == ["bag"]
    assert {parameter.name for parameter in PARAMETERS} < found.keys()


def test_the_bag_is_played_with_its_clock_and_shown(start):
    started = start(bag="drive", rviz="true")
    assert started.keys() == {"segment_node", "ros2", "rviz2"}
    assert started["ros2"].command == ["ros2", "bag", "play", "drive", "--clock", "--rate", "1.0", "--delay", "3.0"]
    assert started["segment_node"].parameters["use_sim_time"] is True
    assert started["rviz2"].parameters["use_sim_time"] is True
    assert str(ROOT / "config" / "segment.rviz") in started["rviz2"].command


def test_the_player_starts_once_and_only_after_the_node_is_ready(start, machine):
    machine.install("ttt_kd_ros", "segment_node", "ready: classes road\nready: classes road")
    order = [each.program for each in machine.launch("replay.launch.py", bag="drive", rviz="false")]
    assert order == ["segment_node", "ros2"]


def test_a_node_that_never_gets_ready_is_played_nothing(start, machine):
    machine.install("ttt_kd_ros", "segment_node", "cannot configure")
    assert start(bag="drive", rviz="false").keys() == {"segment_node"}


def test_player_and_node_take_their_arguments(start):
    started = start(bag="drive", rviz="false", rate="0.5", delay="0", loop="true", checkpoint="a.safetensors")
    assert started["ros2"].command[-5:] == ["--rate", "0.5", "--delay", "0", "--loop"]
    assert started["segment_node"].parameters["checkpoint"] == "a.safetensors"


def test_a_log_level_at_which_the_node_does_not_tell_that_it_is_ready_is_refused():
    context = launch.LaunchContext()
    context.launch_configurations["log_level"] = "warn"
    with pytest.raises(InputError, match="log_level is warn"):
        runpy.run_path(str(ROOT / "launch" / "replay.launch.py"))["play_when_ready"](context)


def test_the_player_too_gets_the_profile_for_big_messages(start):
    started = start(bag="drive", rviz="false")
    assert {each.environment[PROFILES] for each in started.values()} == {str(ROOT / "config" / "fastdds.xml")}


def test_rviz_shows_cloud_overlay_legend_and_transforms():
    content = yaml.safe_load((ROOT / "config" / "segment.rviz").read_text())
    displays = {d["Name"]: d for d in content["Visualization Manager"]["Displays"]}
    assert displays["Segmentation"]["Color Transformer"] == "RGB8"
    topics = {name: d["Topic"]["Value"] for name, d in displays.items() if "Topic" in d}
    assert topics == {
        "Segmentation": "/segment/segmentation",
        "Legend": "/segment/legend",
        "Overlay": "/segment/overlay/front",
    }
    assert "TF" in displays
