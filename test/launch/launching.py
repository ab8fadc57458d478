"""Launches a file with executables that end at once in place of the real ones; needs ROS's package launch."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import yaml
from launch.actions import IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.launch_description_sources import PythonLaunchDescriptionSource

import launch

ROOT = Path(__file__).parents[2]
PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"


def source(name: str) -> PythonLaunchDescriptionSource:
    """A launch file of the package."""
    return PythonLaunchDescriptionSource(str(ROOT / "launch" / name))


def arguments(name: str) -> dict[str, launch.actions.DeclareLaunchArgument]:
    """What `ros2 launch -s` shows of a launch file."""
    return {a.name: a for a in source(name).get_launch_description(launch.LaunchContext()).get_launch_arguments()}


@dataclass(frozen=True)
class Started:
    """What a process was started with."""

    command: list[str]
    environment: dict[str, str]

    @property
    def program(self) -> str:
        return Path(self.command[0]).name

    @property
    def parameters(self) -> dict[str, object]:
        result: dict[str, object] = {}
        for flag, path in itertools.pairwise(self.command):
            if flag == "--params-file":
                text = Path(path).read_text().replace("!!python/tuple", "")  # launch_ros's tag, which rcl passes over
                ((_, content),) = yaml.safe_load(text).items()
                result |= content["ros__parameters"]
        return result


class Machine:
    """A ROS installation whose executables only say something.

    Parameters
    ----------
    prefix
        Where it lies.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix

    def install(self, package: str, executable: str, says: str = "") -> None:
        """Add an executable of a package."""
        index = self.prefix / "share" / "ament_index" / "resource_index" / "packages"
        index.mkdir(parents=True, exist_ok=True)
        (index / package).touch()
        self.write(self.prefix / "lib" / package / executable, says)

    def write(self, path: Path, says: str = "") -> None:
        """Add an executable at a path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(0o755)

    def launch(self, name: str, **given: str) -> list[Started]:
        """Launch a file with arguments (`__` stands for a dot) until all that it started has ended."""
        started: list[Started] = []

        def remember(event, _):
            started.append(Started(event.cmd, dict(event.env or os.environ)))

        values = [(name.replace("__", "."), value) for name, value in given.items()]
        service = launch.LaunchService()
        service.include_launch_description(
            launch.LaunchDescription(
                [
                    RegisterEventHandler(OnProcessStart(on_start=remember)),
                    IncludeLaunchDescription(source(name), launch_arguments=values),
                ]
            )
        )
        assert service.run() == 0
        return started
