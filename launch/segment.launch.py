"""Launch the node `segment`.

Every parameter of the node is an argument of the same name; one that is not given is as in `params_file`:

    ros2 launch ttt_kd_ros segment.launch.py checkpoint:=street.safetensors cameras:=front,left adaptation.steps:=3
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.ros.names import NODE
from ttt_kd_ros.ros.parameters import PARAMETERS
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
    given = {parameter: LaunchConfiguration(parameter.name).perform(context) for parameter in PARAMETERS}
    overrides = {parameter.name: parameter.parse(text) for parameter, text in given.items() if text}
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


def remappings(text: str) -> list[tuple[str, str]]:
    """Pairs of names from ``from:=to,from:=to``."""
    rules = [rule.strip().partition(":=") for rule in text.split(",") if rule.strip()]
    for name, _, other in rules:
        if not (name and other):
            raise InputError(f"remappings are '{text}'; write from:=to, separated by commas")
    return [(name, other) for name, _, other in rules]
