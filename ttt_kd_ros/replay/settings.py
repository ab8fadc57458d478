"""How a bag is replayed, and what the node or the segmenter is told of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.model.checkpoint import load_manifest
from ttt_kd_ros.replay.discovery import Layout, discover
from ttt_kd_ros.ros.parameters import PARAMETERS, NodeSettings, camera_parameters, settings_from
from ttt_kd_ros.share import embedded_checkpoint

KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class ReplaySettings:
    """How to replay.

    Parameters
    ----------
    checkpoint
        Checkpoint of the node; empty for the one that comes with the package.
    rate
        Times the recorded speed; 0: the next scan is sent when the node has answered the last one, so that none is
        dropped. A replay in this process has no rate.
    parameters
        More parameters of the node, as of its table of parameters.
    points_topic, base_frame, fixed_frame
        As for `discover`.
    out
        Directory for ``result.json`` and, from the node, ``node.log`` and the bag ``segmentation``; None writes none.
    """

    checkpoint: str = ""
    rate: float = 1.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    points_topic: str = ""
    base_frame: str = ""
    fixed_frame: str | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rate < math.inf:
            raise InputError(f"rate is {self.rate:g}; use a positive number, or 0 for as fast as the node answers")

    @property
    def checkpoint_file(self) -> Path:
        """File of the checkpoint."""
        return Path(self.checkpoint or embedded_checkpoint()).resolve()


@dataclass(frozen=True)
class Plan:
    """What is replayed, and with which parameters.

    Parameters
    ----------
    bag
        The bag.
    layout
        What of the bag is for the node.
    classes
        Classes of the checkpoint.
    parameters
        Parameters that the node is given; the others have their defaults.
    """

    bag: Path
    layout: Layout
    classes: ClassList
    parameters: Mapping[str, Any]

    @property
    def node_settings(self) -> NodeSettings:
        """All parameters of the node, validated.

        Raises
        ------
        InputError
            If a value is not allowed.
        """
        values = _defaults(self.layout) | dict(self.parameters)
        return settings_from(values | {"cameras": tuple(values["cameras"])})


def plan(bag: str | Path, settings: ReplaySettings) -> Plan:
    """Look into bag and checkpoint.

    Raises
    ------
    InputError
        If one cannot be used, they do not fit each other, or a parameter does not exist.
    """
    layout = discover(
        bag,
        points_topic=settings.points_topic,
        base_frame=settings.base_frame,
        fixed_frame=settings.fixed_frame,
    )
    if "cameras" in settings.parameters:
        layout = layout.only(_words(settings.parameters["cameras"]))
    classes = load_manifest(settings.checkpoint_file).network.classes
    _check_classes(layout, classes)
    return Plan(Path(bag), layout, classes, node_parameters(layout, settings))


def node_parameters(layout: Layout, settings: ReplaySettings) -> dict[str, Any]:
    """The node's parameters: what the bag tells, then the settings.

    Raises
    ------
    InputError
        If the settings name a parameter that the node has not, or give it a value of another type.
    """
    defaults = _defaults(layout)
    values = layout.parameters() | {"checkpoint": str(settings.checkpoint_file)}
    for name, value in settings.parameters.items():
        if name not in defaults:
            raise InputError(f"the node has no parameter '{name}'; it has: {', '.join(defaults)}")
        default = defaults[name]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(default, tuple):
            value = _words(value)
        elif not isinstance(value, type(default)):
            raise InputError(f"parameter '{name}' is {value!r}, but must be {KINDS[type(default)]}")
        values[name] = value
    return values


def _words(value: Any) -> list[str]:
    """A list as it is, or the words between the commas of a text."""
    return list(value) if isinstance(value, list | tuple) else [word.strip() for word in str(value).split(",") if word]


def _defaults(layout: Layout) -> dict[str, Any]:
    cameras = [p for camera in layout.cameras for p in camera_parameters(camera.name)]
    return {parameter.name: parameter.default for parameter in (*PARAMETERS, *cameras)}


def _check_classes(layout: Layout, classes: ClassList) -> None:
    if layout.classes is not None and layout.classes.names != classes.names:
        raise DataError(
            f"the bag's ground truth has the classes {', '.join(layout.classes.names)}, but the checkpoint predicts "
            f"{', '.join(classes.names)}; convert the data with the checkpoint's class list"
        )
