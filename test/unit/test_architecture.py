"""The rules of the house that a machine can see: who imports whom."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ttt_kd_ros"
ROS = {
    "rclpy", "sensor_msgs", "sensor_msgs_py", "geometry_msgs", "std_msgs", "std_srvs", "diagnostic_msgs", "tf2_msgs",
    "tf2_ros", "cv_bridge", "rcl_interfaces", "rosgraph_msgs", "builtin_interfaces", "visualization_msgs", "launch",
    "launch_ros", "lifecycle_msgs", "rosbags",
}  # fmt: skip
ALLOWED = {
    "frame": set(),
    "native": set(),
    "output": set(),
    "geometry": {"frame", "native"},
    "sparse": {"frame", "native"},
    "teacher": {"frame", "geometry", "sparse"},
    "model": {"frame", "geometry", "sparse"},
    "adaptation": {"frame", "geometry", "sparse", "model", "teacher"},
    "segmenter": {"frame", "geometry", "sparse", "model", "teacher", "adaptation"},
    "background": {"frame", "adaptation", "segmenter"},
    "trainer": {"segmenter", "background"},
    "warm_up": {"frame", "segmenter"},
    "schedule": {"frame", "adaptation", "segmenter", "background", "warm_up"},
    "data": {"frame", "geometry"},
    "training": {"frame", "geometry", "sparse", "model", "teacher", "adaptation", "segmenter", "data"},
    "evaluation": {"frame", "geometry", "sparse", "model", "teacher", "adaptation", "segmenter", "data"},
    "benchmark": {"frame", "geometry", "sparse", "model", "teacher", "adaptation", "segmenter", "data"},
    "fit": {"frame", "model", "teacher", "adaptation", "segmenter", "evaluation"},
    "ros": {"frame", "geometry", "adaptation", "segmenter", "schedule"},
    "replay": {"frame", "geometry", "model", "adaptation", "segmenter", "data", "evaluation", "ros", "output"},
    "cli": {"frame", "geometry", "model", "teacher", "adaptation", "segmenter", "data", "training", "evaluation",
            "benchmark", "fit", "replay", "output"},
}  # fmt: skip
EVERYWHERE = {"backends", "device", "errors", "classes", "plotting", "share"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Full names of all modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            if node.module == "ttt_kd_ros":
                names |= {f"ttt_kd_ros.{alias.name}" for alias in node.names}
    return names


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def label(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) in ALLOWED], ids=label)
def test_imports_run_one_way(path):
    part = part_of(path)
    parts = {name.split(".")[1] for name in imports(path) if name.startswith("ttt_kd_ros.")} - {"__version__"}
    assert parts <= ALLOWED[part] | {part} | EVERYWHERE


def test_every_part_has_a_rule():
    assert {part_of(p) for p in MODULES} - EVERYWHERE - {"__init__"} == set(ALLOWED)


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) not in ("ros", "replay")], ids=label)
def test_only_the_node_and_the_replay_import_ros(path):
    assert not {name.split(".")[0] for name in imports(path)} & ROS


def test_the_node_holds_no_tensor_code():
    assert not any("torch" in imports(path) for path in MODULES if part_of(path) == "ros")
