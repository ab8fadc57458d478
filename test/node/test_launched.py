"""The launch files with the real node, over the real middleware."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

launch_pytest = pytest.importorskip("launch_pytest", reason="needs ROS's package launch_pytest")

from launch.actions import IncludeLaunchDescription, RegisterEventHandler  # noqa: E402
from launch.event_handlers import OnProcessExit  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from scene import BASE, LIDAR, SECOND, cloud, transform, unpacked  # noqa: E402

from launch import LaunchDescription  # noqa: E402
from ttt_kd_ros.cli import main  # noqa: E402
from ttt_kd_ros.replay.discovery import discover  # noqa: E402

ROOT = Path(__file__).parents[2]
POINTS = [(float(i), float(i % 7), -1.5 + 0.1 * (i % 3)) for i in range(60)]
SCANS = 3
LOADING_AND_PLAYING_S = 120.0


class Launched:
    """A launch file with arguments, and how its processes ended."""

    def __init__(self, file: str, **arguments: str) -> None:
        self.exit_codes: dict[str, int] = {}
        given = [(name.replace("__", "."), value) for name, value in arguments.items()]
        source = PythonLaunchDescriptionSource(str(ROOT / "launch" / file))
        self.description = LaunchDescription(
            [
                RegisterEventHandler(OnProcessExit(on_exit=self._remember)),
                IncludeLaunchDescription(source, launch_arguments=given),
                launch_pytest.actions.ReadyToTest(),
            ]
        )

    def _remember(self, event, _):
        self.exit_codes[Path(event.cmd[0]).name] = event.returncode


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package's node as a ROS installation has it."""
    node = tmp_path / "lib" / "ttt_kd_ros" / "segment_node"
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    node.parent.mkdir(parents=True)
    index.mkdir(parents=True)
    (index / "ttt_kd_ros").touch()
    node.write_text(f'#!/bin/sh\nexec {sys.executable} -m ttt_kd_ros.ros.segment_node "$@"\n')
    node.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join([str(tmp_path), os.environ.get("AMENT_PREFIX_PATH", "")]))


@pytest.fixture
def bag(tmp_path):
    path = tmp_path / "drive"
    small = ["--domain", "beams16", "--columns", "200", "--size", "64x40"]
    assert main(["simulate", str(path), "--bag", "--frames", str(SCANS), "--interval", "2", *small]) == 0
    return path


@launch_pytest.fixture
def segment(installed):
    launched = Launched("segment.launch.py", adaptation__mode="off", threads="1", points_topic="/points")
    return launched.description, launched


@pytest.mark.launch(fixture=segment)
def test_the_launched_node_answers_a_scan_and_ends_cleanly(segment, world):
    world.static_transforms.sendTransform(transform(BASE, LIDAR, (0, 0, 1.5)))
    with world.repeating(world.points, cloud(POINTS, stamp=SECOND)):
        answer = world.wait_for_clouds(1)[0]
    assert len(unpacked(answer)["label"]) == len(POINTS)
    yield
    _, launched = segment
    assert launched.exit_codes == {"segment_node": 0}


@launch_pytest.fixture
def replayed(installed, bag):
    layout = discover(bag)
    launched = Launched(
        "replay.launch.py",
        bag=str(bag),
        rviz="false",
        points_topic=layout.points_topic,
        cameras=",".join(camera.name for camera in layout.cameras),
        threads="1",
        adaptation__steps="1",
    )
    return launched.description, launched


@pytest.mark.skipif(shutil.which("ros2") is None, reason="needs ROS's command ros2 with its verb bag")
@pytest.mark.launch(fixture=replayed)
def test_the_launched_replay_labels_every_scan_of_the_bag_with_its_pictures(replayed, world):
    for publisher in (world.images, world.files):  # the bag has them
        world.destroy_publisher(publisher)
    world.wait_until(lambda: len(world.clouds) == len(world.reports) == SCANS, LOADING_AND_PLAYING_S)
    assert [report["cameras"] for report in world.reports] == ["front"] * SCANS
    _, launched = replayed
    world.wait_until(lambda: "ros2" in launched.exit_codes)  # the player ends after its last message
    yield
    assert launched.exit_codes == {"segment_node": 0, "ros2": 0}
