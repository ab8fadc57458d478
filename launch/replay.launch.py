"""Play a bag to the node `segment` and look at it in RViz.

    ros2 launch ttt_kd_ros replay.launch.py bag:=my_bag checkpoint:=street.safetensors points_topic:=/lidar/points

All arguments of `segment.launch.py` are arguments of this file too. The bag plays once the node is active.
"""

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessIO
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.ros.names import READY
from ttt_kd_ros.share import share_directory

SHARE = share_directory()
PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"

# name, default (None: must be given), description
ARGUMENTS = (
    ("bag", None, "The bag to play."),
    ("rate", "1.0", "Times the recorded speed."),
    ("delay", "3.0", "Seconds before the bag begins, in which node and RViz find the player's topics."),
    ("loop", "false", "Whether to begin again at the end of the bag."),
    ("rviz", "true", "Whether to start RViz."),
    ("rviz_config", str(SHARE / "config" / "segment.rviz"), "What RViz shows."),
)


def generate_launch_description() -> LaunchDescription:
    arguments = [DeclareLaunchArgument(name, default_value=d, description=text) for name, d, text in ARGUMENTS]
    big_messages = EnvironmentVariable(PROFILES, default_value=str(SHARE / "config" / "fastdds.xml"))
    segment = PythonLaunchDescriptionSource(str(SHARE / "launch" / "segment.launch.py"))
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", LaunchConfiguration("rviz_config")],
        parameters=[{"use_sim_time": True}],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [
            *arguments,
            SetEnvironmentVariable(PROFILES, big_messages),
            OpaqueFunction(function=play_when_ready),
            IncludeLaunchDescription(segment, launch_arguments={"use_sim_time": "true"}.items()),
            rviz,
        ]
    )


def play_when_ready(context: LaunchContext) -> list[RegisterEventHandler]:
    """Start the player when the node says that it is ready for the first time."""
    if (level := context.launch_configurations.get("log_level", "info").lower()) not in ("debug", "info"):
        raise InputError(f"log_level is {level}, but the bag plays once the node has logged at info that it is ready")
    loop = LaunchConfiguration("loop").perform(context).lower() in ("true", "1")
    speed = ["--rate", LaunchConfiguration("rate"), "--delay", LaunchConfiguration("delay")]
    command = ["ros2", "bag", "play", LaunchConfiguration("bag"), "--clock", *speed, *["--loop"] * loop]
    players = [ExecuteProcess(cmd=command, output="screen")]

    def on_output(event: ProcessIO) -> list[ExecuteProcess]:
        return [players.pop()] if players and READY.encode() in event.text else []

    return [RegisterEventHandler(OnProcessIO(on_stdout=on_output, on_stderr=on_output))]
