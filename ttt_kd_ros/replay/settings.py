"""How a bag is replayed, and what the node or the segmenter is told of it."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.model.checkpoint import load_manifest
from ttt_kd_ros.replay.discovery import Layout, discover
from ttt_kd_ros.ros.parameters import NodeSettings, Value, all_parameters, in_home, settings_from
from ttt_kd_ros.share import embedded_checkpoint


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
        Parameters of the node, as of its table of parameters, or as texts. Topics, frames and cameras that they leave
        out are found in the bag.
    out
        Directory for ``result.json`` and, from the node, ``node.log`` and the bag ``segmentation``; None writes none.
    """

    checkpoint: str = ""
    rate: float = 1.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rate < math.inf:
            raise InputError(f"rate is {self.rate:g}; use a positive number, or 0 for as fast as the node answers")

    @property
    def checkpoint_file(self) -> Path:
        """File of the checkpoint."""
        given = self.checkpoint or self.parameters.get("checkpoint") or embedded_checkpoint()
        return Path(in_home(str(given))).resolve()


@dataclass(frozen=True)
class Plan:
    """What is replayed, and how.

    Parameters
    ----------
    bag
        The bag.
    settings
        How it was asked to be replayed.
    layout
        What of the bag is for the node.
    classes
        Classes of the checkpoint.
    parameters
        Parameters that the node is given; the others have their defaults.
    node_settings
        All parameters of the node, validated.
    """

    bag: Path
    settings: ReplaySettings
    layout: Layout
    classes: ClassList
    parameters: Mapping[str, Any]
    node_settings: NodeSettings


def plan(bag: str | Path, settings: ReplaySettings) -> Plan:
    """Look into bag and checkpoint.

    Raises
    ------
    InputError
        If one cannot be used, they do not fit each other, or the node has no such parameter or value of it.
    """
    chosen = _parsed(settings.parameters)
    layout = discover(bag, chosen)
    cameras = tuple(camera.name for camera in layout.cameras)
    _check_cameras(chosen, cameras)
    classes = load_manifest(settings.checkpoint_file).network.classes
    _check_classes(layout, classes)
    given = {name: value for name, value in chosen.items() if value not in ("", ())}
    parameters = layout.parameters() | given | {"checkpoint": str(settings.checkpoint_file)}
    node_settings = _validated(parameters, cameras)
    if not cameras and "cameras" not in chosen and node_settings.adaptation.mode != "off":
        warnings.warn(
            f"bag '{bag}' has no camera (pictures with a CameraInfo beside them), so that no scan is adapted to; the "
            "parameters cameras, camera.NAME.image_topic and camera.NAME.info_topic name other topics",
            stacklevel=1,
        )
    return Plan(Path(bag), settings, layout, classes, parameters, node_settings)


def settings_without_cameras(settings: ReplaySettings) -> NodeSettings:
    """What can be told of the node's parameters before there is a bag.

    Raises
    ------
    InputError
        If the node has no such parameter or value of it.
    """
    return _validated(_parsed(settings.parameters) | {"checkpoint": str(settings.checkpoint_file)}, ())


def _validated(parameters: Mapping[str, Value], cameras: tuple[str, ...]) -> NodeSettings:
    defaults = {parameter.name: parameter.default for parameter in all_parameters(cameras)}
    return settings_from({**defaults, **parameters, "cameras": cameras})


def _parsed(parameters: Mapping[str, Any]) -> dict[str, Value]:
    """The values in the types that the node gives them."""
    cameras = {match[1]: None for name in parameters if (match := re.fullmatch(r"camera\.(\w+)\.\w+", name))}
    known = {parameter.name: parameter for parameter in all_parameters(cameras)}
    for name in parameters:
        if name not in known:
            raise InputError(f"the node has no parameter '{name}'; it has: {', '.join(known)}")
    return {name: known[name].parse(value) for name, value in parameters.items()}


def _check_cameras(parameters: Mapping[str, Value], cameras: Collection[str]) -> None:
    for name in parameters:
        if name.startswith("camera.") and name.split(".")[1] not in cameras:
            raise InputError(
                f"parameter '{name}' is of a camera that is not used; used are: {', '.join(cameras) or 'none'}; the "
                "parameter 'cameras' names others"
            )


def _check_classes(layout: Layout, classes: ClassList) -> None:
    if layout.classes is not None and layout.classes.names != classes.names:
        raise DataError(
            f"the bag's ground truth has the classes {', '.join(layout.classes.names)}, but the checkpoint predicts "
            f"{', '.join(classes.names)}; convert the data with the checkpoint's class list"
        )
