"""The launch file, with an executable that ends at once in place of the node."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import yaml

launch = pytest.importorskip("launch", reason="needs ROS's package launch")
if not hasattr(launch, "LaunchDescription"):
    pytest.skip("needs ROS's package launch, this one is another", allow_module_level=True)

from launch.actions import IncludeLaunchDescription, RegisterEventHandler  # noqa: E402
from launch.event_handlers import OnProcessStart  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402

from ttt_kd_ros.ros.parameters import PARAMETERS  # noqa: E402

ROOT = Path(__file__).parents[2]
SOURCE = PythonLaunchDescriptionSource(str(ROOT / "launch" / "segment.launch.py"))
PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"


class Started:
    """What the process was started with."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.command = command
        self.environment = environment
        self.parameters: dict[str, object] = {}
        for flag, path in itertools.pairwise(command):
            if flag == "--params-file":
                text = Path(path).read_text().replace("!!python/tuple", "")  # launch_ros's tag, which rcl passes over
                ((_, content),) = yaml.safe_load(text).items()
                self.parameters |= content["ros__parameters"]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Launch with arguments."""
    executable = tmp_path / "lib" / "ttt_kd_ros" / "segment_node"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "ttt_kd_ros").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join([str(tmp_path), os.environ.get("AMENT_PREFIX_PATH", "")]))
    monkeypatch.delenv(PROFILES, raising=False)

    def launch_with(**arguments: str) -> Started:
        started: list[Started] = []

        def remember(event, _):
            started.append(Started(event.cmd, dict(event.env or os.environ)))

        given = [(name.replace("__", "."), value) for name, value in arguments.items()]
        service = launch.LaunchService()
        service.include_launch_description(
            launch.LaunchDescription(
                [
                    RegisterEventHandler(OnProcessStart(on_start=remember)),
                    IncludeLaunchDescription(SOURCE, launch_arguments=given),
                ]
            )
        )
        assert service.run() == 0
        (only,) = started
        return only

    return launch_with


def test_every_parameter_of_the_node_is_a_described_argument():
    arguments = {a.name: a for a in SOURCE.get_launch_description(launch.LaunchContext()).get_launch_arguments()}
    assert {parameter.name for parameter in PARAMETERS} < arguments.keys()
    assert all(argument.description for argument in arguments.values())


def test_what_is_given_overrides_the_file_with_the_right_types(start):
    started = start(
        checkpoint="street.safetensors", cameras="front,left", adaptation__mode="off", adaptation__steps="3"
    )
    assert started.parameters["checkpoint"] == "street.safetensors"
    assert started.parameters["cameras"] == ["front", "left"]
    assert started.parameters["adaptation.mode"] == "off"
    assert started.parameters["adaptation.steps"] == 3
    assert started.parameters["use_sim_time"] is False


def test_what_is_not_given_is_as_in_the_file(start):
    started = start(checkpoint="street.safetensors")
    assert started.parameters["base_frame"] == "base_link"
    assert "adaptation.steps" not in started.parameters
    assert started.parameters["adaptation"]["steps"] == 5


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
