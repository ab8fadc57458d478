"""Launch the node `segment`.

Every parameter of the node is an argument of the same name; one that is not given is as in `params_file`:

    ros2 launch ttt_kd_ros segment.launch.py checkpoint:=street.safetensors cameras:=front,left adaptation.steps:=3 \
        camera.left.time_offset_ms:=-20
"""

from collections.abc import Mapping

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.ros.names import NODE
from ttt_kd_ros.ros.parameters import PARAMETERS, Value, all_parameters
from ttt_kd_ros.share import share_directory

CONFIG = share_directory() / "config"
PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"

# name, default, description
ARGUMENTS = (
    ("params_file", str(CONFIG / "segment.yaml"), "File with the node's parameters."),
    ("namespace", "", "Namespace of the node and of its topics that do not begin with a slash."),
    ("remappings", "", "Other names for topics, separated by commas: ~/segmentation:=/semantics,points:=/lidar/points"),
    ("use_sim_time", "false", "Whether to take the time from /clock."),
    ("log_level", "info", "Least level that is logged: debug, info, warn, error or fatal."),
    *((parameter.name, "", f"{parameter.description} Not given: as in params_file.") for parameter in PARAMETERS),
)


def generate_launch_description() -> LaunchDescription:
    arguments = [DeclareLaunchArgument(name, default_value=d, description=text) for name, d, text in ARGUMENTS]
    big_messages = EnvironmentVariable(PROFILES, default_value=str(CONFIG / "fastdds.xml"))
    return LaunchDescription(
        [*arguments, SetEnvironmentVariable(PROFILES, big_messages), OpaqueFunction(function=segment_node)]
    )


def segment_node(context: LaunchContext) -> list[Node]:
    overrides = parameters(context.launch_configurations)
    use_sim_time = LaunchConfiguration("use_sim_time").perform(context).lower() in ("true", "1")
    node = Node(
        package="ttt_kd_ros",
        executable="segment_node",
        name=NODE,
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), {"use_sim_time": use_sim_time, **overrides}],
        remappings=remappings(LaunchConfiguration("remappings").perform(context)),
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
        emulate_tty=True,
    )
    return [node]


def parameters(given: Mapping[str, str]) -> dict[str, Value]:
    """Values of the node's parameters among launch arguments, those of cameras (``camera.NAME.…``) included."""
    of_cameras = [name for name in given if name.startswith("camera.")]
    known = all_parameters({name.split(".")[1] for name in of_cameras})
    if unknown := set(of_cameras) - {parameter.name for parameter in known}:
        raise InputError(f"the node has no parameter {', '.join(sorted(unknown))}")
    return {each.name: each.parse(given[each.name]) for each in known if given.get(each.name)}


def remappings(text: str) -> list[tuple[str, str]]:
    """Pairs of names from ``from:=to,from:=to``."""
    rules = [rule.strip().partition(":=") for rule in text.split(",") if rule.strip()]
    for name, _, other in rules:
        if not (name and other):
            raise InputError(f"remappings are '{text}'; write from:=to, separated by commas")
    return [(name, other) for name, _, other in rules]
