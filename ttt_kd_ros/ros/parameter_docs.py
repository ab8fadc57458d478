"""Writes ``docs/parameters.md`` and ``config/segment.yaml`` from the table of parameters.

Run ``python -m ttt_kd_ros.ros.parameter_docs`` in the root of the source tree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ttt_kd_ros.ros.parameters import CAMERA_PARAMETERS, PARAMETERS, Parameter, Value

SOURCE = "Written by `python -m ttt_kd_ros.ros.parameter_docs` from `ttt_kd_ros/ros/parameters.py`."

INTRODUCTION = f"""# Parameters of the node `segment`

{SOURCE}

Some parameters may be changed at any time (`ros2 param set /segment adaptation.steps 3`), others while the node is
[unconfigured](node.md#lifecycle). A change is checked as a whole before any of it takes effect, and takes effect
between two scans. A value that is not allowed is refused with the allowed ones named.
"""

HEADER = "| parameter | type | default | allowed | may change | what it does |\n|---|---|---|---|---|---|\n"


def markdown() -> str:
    """Text of ``docs/parameters.md``."""
    return (
        f"{INTRODUCTION}\n{HEADER}{''.join(map(_row, PARAMETERS))}\n"
        "## Cameras\n\nFor each name in `cameras`, with the name in place of `NAME`:\n\n"
        f"{HEADER}{''.join(map(_row, CAMERA_PARAMETERS))}"
    )


def yaml_text() -> str:
    """Text of ``config/segment.yaml``: every parameter with its default."""
    camera_block = "".join(f"    # {line}\n" if line else "\n" for line in _lines(CAMERA_PARAMETERS))
    return (
        f"# Defaults of the node's parameters; docs/parameters.md describes them.\n# {SOURCE.replace('`', '')}\n"
        "/**:\n  ros__parameters:\n"
        + "".join(f"    {line}\n" for line in _lines(PARAMETERS))
        + f"    # For each name in cameras:\n{camera_block}"
    )


def write(root: Path) -> None:
    """Write both files below the root of the source tree."""
    (root / "docs" / "parameters.md").write_text(markdown())
    (root / "config" / "segment.yaml").write_text(yaml_text())


def _row(parameter: Parameter) -> str:
    default = f"`{_yaml(parameter.default)}`"
    kind, allowed, change = _type(parameter.default), _allowed(parameter), parameter.change
    cells = (f"`{parameter.name}`", kind, default, allowed, change, parameter.description)
    return f"| {' | '.join(cells)} |\n"


def _allowed(parameter: Parameter) -> str:
    if parameter.bounds:
        return f"{parameter.bounds[0]:,} to {parameter.bounds[1]:,}"
    return ", ".join(f"`{choice}`" for choice in parameter.choices)


def _type(value: Value) -> str:
    return {bool: "bool", int: "int", float: "float", str: "string", tuple: "list of strings"}[type(value)]


def _lines(parameters: Iterable[Parameter]) -> Iterator[str]:
    """Nested YAML; an empty list is left out, because ROS reads it as no value."""
    level: list[str] = []
    for parameter in parameters:
        *groups, name = parameter.name.split(".")
        for depth, group in enumerate(groups):
            if level[: depth + 1] != groups[: depth + 1]:
                yield f"{'  ' * depth}{group}:"
        level = groups
        comment = "# " if parameter.default == () else ""
        yield f"{'  ' * len(groups)}{comment}{name}: {_yaml(parameter.default)}"


def _yaml(value: Value) -> str:
    return json.dumps(value)


if __name__ == "__main__":
    write(Path.cwd())
