"""The launch file of the node, with an executable that ends at once in place of it."""

from __future__ import annotations

import runpy

import pytest

launch = pytest.importorskip("launch", reason="needs ROS's package launch")
if not hasattr(launch, "LaunchDescription"):
    pytest.skip("needs ROS's package launch, this one is another", allow_module_level=True)

from launching import PROFILES, ROOT, Started, arguments  # noqa: E402

from ttt_kd_ros.adaptation.settings import AdaptationSettings  # noqa: E402
from ttt_kd_ros.errors import InputError  # noqa: E402
from ttt_kd_ros.ros.parameters import PARAMETERS  # noqa: E402


@pytest.fixture
def start(machine):
    """Launch with arguments."""

    def launch_with(**given: str) -> Started:
        (only,) = machine.launch("segment.launch.py", **given)
        return only

    return launch_with


def test_every_parameter_of_the_node_is_a_described_argument():
    found = arguments("segment.launch.py")
    assert {parameter.name for parameter in PARAMETERS} < found.keys()
    assert all(argument.description for argument in found.values())


def test_what_is_given_overrides_the_file_with_the_right_types(start):
    started = start(
        checkpoint="street.safetensors",
        cameras="front,left",
        autostart="false",
        adaptation__mode="off",
        adaptation__steps="3",
    )
    assert started.parameters["checkpoint"] == "street.safetensors"
    assert started.parameters["cameras"] == ["front", "left"]
    assert started.parameters["adaptation.mode"] == "off"
    assert started.parameters["adaptation.steps"] == 3
    assert started.parameters["autostart"] is False
    assert started.parameters["use_sim_time"] is False


def test_parameters_of_cameras_are_arguments_too(start):
    started = start(**{"cameras": "front", "camera.front.time_offset_ms": "-20", "camera.front.rectified": "true"})
    assert started.parameters["camera.front.time_offset_ms"] == -20.0
    assert started.parameters["camera.front.rectified"] is True


def test_a_parameter_that_cameras_do_not_have_is_refused():
    with pytest.raises(InputError, match=r"no parameter camera\.front\.offset"):
        runpy.run_path(str(ROOT / "launch" / "segment.launch.py"))["parameters"]({"camera.front.offset": "3"})


def test_what_is_not_given_is_as_in_the_file(start):
    started = start(checkpoint="street.safetensors")
    assert started.parameters["base_frame"] == "base_link"
    assert "adaptation.steps" not in started.parameters
    assert started.parameters["adaptation"]["steps"] == AdaptationSettings().steps


def test_the_file_namespace_clock_and_log_level_can_be_chosen(start, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("/**: {ros__parameters: {device: cuda}}")
    started = start(params_file=str(path), namespace="roof", use_sim_time="true", log_level="debug")
    assert started.parameters == {"device": "cuda", "use_sim_time": True}
    assert "__ns:=/roof" in " ".join(started.command)
    assert started.command[started.command.index("--log-level") + 1] == "debug"


def test_big_messages_get_the_profile_of_the_package(start):
    assert start().environment[PROFILES] == str(ROOT / "config" / "fastdds.xml")


def test_a_profile_that_is_already_chosen_stays(start, monkeypatch):
    monkeypatch.setenv(PROFILES, "mine.xml")
    assert start().environment[PROFILES] == "mine.xml"


def test_topics_can_have_other_names(start):
    command = " ".join(start(remappings="~/segmentation:=/semantics, points:=/lidar/points").command)
    assert "-r ~/segmentation:=/semantics -r points:=/lidar/points" in command


def test_remappings_that_are_none_are_refused_with_the_form():
    remappings = runpy.run_path(str(ROOT / "launch" / "segment.launch.py"))["remappings"]
    with pytest.raises(InputError, match="remappings are 'points'; write from:=to"):
        remappings("points")
