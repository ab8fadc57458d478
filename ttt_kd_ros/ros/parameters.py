"""The node's parameters: one table that drives declaration, validation, ``config/segment.yaml`` and the documentation.

A camera's parameters are a second table, in which ``NAME`` stands for the camera's name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttt_kd_ros.adaptation.settings import (
    LOSSES,
    MAX_PARTS,
    MAX_STEPS,
    METHODS,
    MODES,
    OPTIMIZERS,
    SCHEDULES,
    SCOPE_DEFAULT,
    SCOPES,
    AdaptationSettings,
)
from ttt_kd_ros.backends import MATMUL_PRECISIONS, MAX_THREADS, SPARSE_BACKENDS, TEACHER_BACKENDS
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.ros.collector import Timing

Value = bool | int | float | str | tuple[str, ...]

CAMERA = "NAME"
TRANSPORTS = ("auto", "raw", "compressed")
COMPRESSED = "/compressed"
"""How the topics of compressed pictures end."""
NANOSECONDS_PER_MILLISECOND = 1_000_000
KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list of texts",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of the node.

    Parameters
    ----------
    name
        Name; dots are levels.
    default
        Its type is the parameter's: bool, int, float, str or tuple of str.
    description
        What it does, in one sentence.
    bounds
        Lowest and highest allowed number.
    choices
        Allowed words.
    live
        Whether it may be changed at any time; the others only while the node is unconfigured.
    fixed
        Whether it keeps the value that it had at the start.
    """

    name: str
    default: Value
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    fixed: bool = False

    @property
    def change(self) -> str:
        """When it may be changed."""
        return "never" if self.fixed else "any time" if self.live else "unconfigured"

    def check(self, value: Value) -> None:
        """Refuse a value that is not allowed.

        Raises
        ------
        InputError
            With the allowed ones in its message.
        """
        if self.choices and value not in self.choices:
            raise InputError(f"parameter '{self.name}' is '{value}'; choose one of {', '.join(self.choices)}")
        if self.bounds and not (isinstance(value, int | float) and self.bounds[0] <= value <= self.bounds[1]):
            raise InputError(f"parameter '{self.name}' is {value}; it must be {self.bounds[0]:,} to {self.bounds[1]:,}")

    def parse(self, value: Any) -> Value:
        """Value that is written as a launch argument, or of the parameter's type already.

        The words of a list are separated by commas. A whole number is a number, too.

        Raises
        ------
        InputError
            If it is no value of the parameter's type.
        """
        if isinstance(value, str):
            return self._parse_text(value)
        if isinstance(value, list):
            value = tuple(map(str, value))
        if isinstance(self.default, float) and type(value) is int:
            return float(value)
        if type(value) is not type(self.default):
            raise self._refusal(value)
        return value

    def _parse_text(self, text: str) -> Value:
        if isinstance(self.default, tuple):
            return tuple(word.strip() for word in text.split(",") if word.strip())
        if isinstance(self.default, bool):
            if text.lower() not in ("true", "false"):
                raise self._refusal(text)
            return text.lower() == "true"
        try:
            return type(self.default)(text)
        except ValueError as error:
            raise self._refusal(text) from error

    def _refusal(self, value: Any) -> InputError:
        return InputError(f"parameter '{self.name}' is '{value}'; it must be {KINDS[type(self.default)]}")


_ADAPTATION = AdaptationSettings()

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "autostart",
        True,
        "Whether the node configures and activates itself at the start, and ends if it cannot; `false`: it waits for a "
        "lifecycle manager.",
        fixed=True,
    ),
    Parameter(
        "checkpoint", "", "Checkpoint file written by `ttt_kd train`; empty: the one that comes with the package."
    ),
    Parameter("teacher", "", "Where to load the image model from; empty: as named in the checkpoint."),
    Parameter("device", "cpu", "Torch device that everything runs on: `cpu`, `cuda` or `cuda:<index>`."),
    Parameter(
        "threads",
        0,
        "CPU threads that compute; 0: one for each core. Fewer are faster where other programs use the cores too: then "
        "threads wait for one another most of the time.",
        (0, MAX_THREADS),
    ),
    Parameter(
        "sparse_backend",
        "auto",
        "What computes sparse convolutions: PyTorch alone, kernels compiled for this CPU (`native`), or spconv and "
        "triton on a CUDA device. Others than torch are used only if they give the right results when the model is "
        "loaded; `auto`: the fastest of those that do.",
        choices=SPARSE_BACKENDS,
    ),
    Parameter(
        "float32_matmul_precision",
        "highest",
        "Of matrix products on a GPU, as `torch.set_float32_matmul_precision` has it; `high`: in TF32, faster for "
        "large networks, with relative errors of 1e-3.",
        choices=MATMUL_PRECISIONS,
    ),
    Parameter(
        "teacher_backend",
        "torch",
        "What computes the image model; `openvino`: on the CPU twice as fast, with the package openvino, after "
        "some seconds for the first picture.",
        choices=TEACHER_BACKENDS,
    ),
    Parameter("points_topic", "points", "PointCloud2 topic of the LiDAR."),
    Parameter("cameras", (), "Names of the cameras; each one has the parameters `camera.NAME.*` below.", fixed=True),
    Parameter(
        "base_frame", "base_link", "Frame whose xy plane is the ground and whose z points up; needs TF from the LiDAR."
    ),
    Parameter(
        "fixed_frame",
        "",
        "Frame that does not move (as `odom`), through which the motion between the stamps of scan and picture is "
        "taken into account; empty: both are taken at the scan's stamp.",
    ),
    Parameter(
        "deskew",
        True,
        "Move the points to where they were at the scan's stamp, if there is a fixed_frame and the clouds tell each "
        "point's time (field `t`, `time`, `timestamp`, `time_stamp` or `offset_time`). The published points are not "
        "moved.",
        live=True,
    ),
    Parameter("image_wait_ms", 100.0, "How long a scan waits for its pictures.", (0, 2000), live=True),
    Parameter("transform_wait_ms", 50.0, "How long a scan waits for late transforms.", (0, 2000), live=True),
    Parameter(
        "pass_fields",
        False,
        "Whether segmented clouds have the other fields of the scan (intensity, ring, time, ...) too.",
        live=True,
    ),
    Parameter(
        "weights_path",
        "",
        "File that `~/save_weights` writes and `~/load_weights` reads: a checkpoint with the adapted weights.",
        live=True,
    ),
    Parameter(
        "adaptation.mode",
        _ADAPTATION.mode,
        "`off`: the source model predicts; `offline`: the weights go back to it after each scan; `online`: they are "
        "kept for the next scan. A node started with `off` has loaded no teacher and stays `off`. Write `'off'` in "
        "quotes: without them YAML reads a boolean.",
        choices=MODES,
        live=True,
    ),
    Parameter(
        "adaptation.schedule",
        _ADAPTATION.schedule,
        "`before`: a scan is adapted to, then published; `background`: it is published at once with the newest "
        "weights, while a second process of low priority trains on the latest scan with pictures. `background` needs "
        "the mode `online`.",
        choices=SCHEDULES,
        live=True,
    ),
    Parameter(
        "adaptation.deadline_ms",
        _ADAPTATION.deadline_ms,
        "Time from a scan's arrival to its published cloud, which the schedule `before` keeps: no step is taken that, "
        "by what steps, prediction and publishing took lately, would end too late; 0: no deadline.",
        (0, 60_000),
        live=True,
    ),
    Parameter(
        "adaptation.method",
        _ADAPTATION.method,
        "What the steps minimise: `kd` is test-time training by distillation; the others are there to compare with.",
        choices=METHODS,
        live=True,
    ),
    Parameter(
        "adaptation.steps",
        _ADAPTATION.steps,
        "Gradient steps on each scan; -1: as many as suit the scope.",
        (-1, MAX_STEPS),
        live=True,
    ),
    Parameter(
        "adaptation.scope",
        _ADAPTATION.scope,
        "Parameters of the network that move: `norm` (scale and shift of the batch norms), `encoder`, `decoder`, "
        "`lora` (a low-rank change of every convolution) or `all`.",
        choices=SCOPES,
        live=True,
    ),
    Parameter(
        "adaptation.optimizer",
        _ADAPTATION.optimizer,
        "Optimizer of the steps; `default`: the one that suits the scope.",
        choices=(SCOPE_DEFAULT, *OPTIMIZERS),
        live=True,
    ),
    Parameter(
        "adaptation.learning_rate",
        _ADAPTATION.learning_rate,
        "Learning rate of the steps; 0: the one that suits the scope.",
        (0, 1),
        live=True,
    ),
    Parameter(
        "adaptation.budget_ms",
        _ADAPTATION.budget_ms,
        "No step starts once the steps on this scan have taken so long; 0: no limit.",
        (0, 60_000),
        live=True,
    ),
    Parameter(
        "adaptation.loss",
        _ADAPTATION.loss,
        "Distance between the network's image features and the teacher's.",
        choices=LOSSES,
        live=True,
    ),
    Parameter(
        "adaptation.entropy_weight",
        _ADAPTATION.entropy_weight,
        "Weight of the mean entropy of the predictions beside the distillation loss.",
        (0, 100),
        live=True,
    ),
    Parameter(
        "adaptation.source_weight",
        _ADAPTATION.source_weight,
        "Weight of the cross-entropy with the source model's confident labels: ties the adapted model to the source, "
        "which keeps a good model good and costs most of the gain where the source is confidently wrong.",
        (0, 1000),
        live=True,
    ),
    Parameter(
        "adaptation.pull",
        _ADAPTATION.pull,
        "Share of the way back to the source weights that the weights go after each step.",
        (0, 1),
        live=True,
    ),
    Parameter(
        "adaptation.collapse_share",
        _ADAPTATION.collapse_share,
        "The source weights come back if the adapted ones give more than this share of a scan one label and the source "
        "ones do not; 1: never.",
        (0, 1),
        live=True,
    ),
    Parameter(
        "adaptation.disagreement_share",
        _ADAPTATION.disagreement_share,
        "The source weights come back if, after the steps on a scan, more than this share of what lies near the view "
        "has another label than the source model gives it; 1: never.",
        (0, 1),
        live=True,
    ),
    Parameter(
        "adaptation.jump_s",
        _ADAPTATION.jump_s,
        "The source weights come back if a scan's stamp is earlier than the last one's by more than this, as when a "
        "bag begins again; 0: never.",
        (0, 1_000_000),
        live=True,
    ),
    Parameter(
        "adaptation.familiar",
        _ADAPTATION.familiar,
        "Where the cosine of the source model's image features with the teacher's is at least this share of its level "
        "in training, there is nothing to learn: no step is taken and the source model labels the scan; 0: every scan "
        "is adapted to.",
        (0, 1),
        live=True,
    ),
    Parameter(
        "adaptation.trust",
        _ADAPTATION.trust,
        "Where the cosine of the source model's image features with the teacher's is less than this share of its level "
        "in training, the adapted weights label only what lies near the view, and the source model the rest; 0: every "
        "scan is trusted.",
        (0, 1),
        live=True,
    ),
    Parameter(
        "adaptation.scan_statistics",
        _ADAPTATION.scan_statistics,
        "Share of the scan's own statistics in the batch norms, without a gradient or a camera, for one forward pass; "
        "try 0.3 on another sensor, and measure: in simulated rain it did harm; 0: the statistics of "
        "training.",
        (0, 1),
        live=True,
    ),
    Parameter(
        "adaptation.min_pairs",
        _ADAPTATION.min_pairs,
        "A scan with fewer points in the pictures is not adapted to.",
        (0, 1_000_000),
        live=True,
    ),
    Parameter(
        "adaptation.margin_m",
        _ADAPTATION.margin_m,
        "Steps run on the voxels within at least this horizontal distance of a point in a picture.",
        (0, 1000),
        live=True,
    ),
    Parameter(
        "adaptation.decoded_parts",
        _ADAPTATION.decoded_parts,
        "Each step encodes all of these voxels and decodes one of so many parts of them, in turns, and takes less "
        "time; 0: 3 on a CPU where the deadline leaves no time for five whole steps, else 1.",
        (0, MAX_PARTS),
        live=True,
    ),
)

CAMERA_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("camera.NAME.image_topic", "NAME/image_raw", "Topic of the pictures; their frame_id is the camera's."),
    Parameter("camera.NAME.info_topic", "NAME/camera_info", "Topic of the CameraInfo."),
    Parameter(
        "camera.NAME.transport",
        "auto",
        "`raw`: Image on image_topic; `compressed`: CompressedImage on `<image_topic>/compressed`; `auto`: the one "
        "that is published, `raw` if both are.",
        choices=TRANSPORTS,
    ),
    Parameter(
        "camera.NAME.tolerance_ms",
        50.0,
        "How far apart the stamps of a scan and its picture may be.",
        (0, 10_000),
        live=True,
    ),
    Parameter(
        "camera.NAME.time_offset_ms",
        0.0,
        "Added to the stamps of the pictures, to get the middle of their exposure on the LiDAR's clock.",
        (-10_000, 10_000),
        live=True,
    ),
    Parameter(
        "camera.NAME.rectified",
        False,
        "`true`: the pictures are rectified, P is used without distortion; `false`: K and D are used.",
    ),
    Parameter(
        "camera.NAME.max_plain_share",
        0.9,
        "A picture of which a larger share has one brightness (within nine of 256 levels) is black, blown out or "
        "covered, and is not used; 1: every picture is.",
        (0, 1),
        live=True,
    ),
)


def camera_parameters(camera: str) -> tuple[Parameter, ...]:
    """The parameters of one camera."""
    return tuple(
        replace(
            parameter,
            name=parameter.name.replace(CAMERA, camera),
            default=parameter.default.replace(CAMERA, camera)
            if isinstance(parameter.default, str)
            else parameter.default,
        )
        for parameter in CAMERA_PARAMETERS
    )


def all_parameters(cameras: Iterable[str]) -> tuple[Parameter, ...]:
    """The parameters of the node and of each camera."""
    return (*PARAMETERS, *(parameter for camera in cameras for parameter in camera_parameters(camera)))


@dataclass(frozen=True)
class CameraSettings:
    """Where one camera's messages come from and how they are used; see `CAMERA_PARAMETERS`."""

    name: str
    image_topic: str
    info_topic: str
    transport: str
    timing: Timing
    rectified: bool
    max_plain_share: float

    @property
    def picture_topics(self) -> tuple[str, ...]:
        """Topics that the pictures may come on; the first one that is published is used."""
        raw, compressed = self.image_topic, self.image_topic + COMPRESSED
        return {"raw": (raw,), "compressed": (compressed,)}.get(self.transport, (raw, compressed))


@dataclass(frozen=True)
class NodeSettings:
    """Valid values of all parameters; see `PARAMETERS`."""

    checkpoint: str
    teacher: str
    device: str
    threads: int
    sparse_backend: str
    float32_matmul_precision: str
    teacher_backend: str
    points_topic: str
    base_frame: str
    fixed_frame: str
    deskew: bool
    image_wait_ns: int
    transform_wait_ns: int
    autostart: bool
    pass_fields: bool
    weights_path: str
    adaptation: AdaptationSettings
    cameras: tuple[CameraSettings, ...]

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of `load_segmenter` and `load_scheduled`."""
        return {
            "checkpoint": self.checkpoint,
            "settings": self.adaptation,
            "teacher": self.teacher,
            "device": self.device,
            "threads": self.threads,
            "sparse_backend": self.sparse_backend,
            "float32_matmul_precision": self.float32_matmul_precision,
            "teacher_backend": self.teacher_backend,
        }

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Name of each camera."""
        return tuple(camera.name for camera in self.cameras)

    @property
    def input_topics(self) -> tuple[str, ...]:
        """Every topic that scans, pictures and calibrations may come on."""
        of_cameras = (topic for camera in self.cameras for topic in (*camera.picture_topics, camera.info_topic))
        return (self.points_topic, *of_cameras)

    @property
    def timings(self) -> dict[str, Timing]:
        """Timing of each camera."""
        return {camera.name: camera.timing for camera in self.cameras}


def check_camera_names(names: Iterable[str]) -> None:
    """Refuse names that cannot be part of a parameter's or topic's name.

    Raises
    ------
    InputError
        If a name is no word of letters, digits and underscores, or is there twice.
    """
    for name, times in Counter(names).items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise InputError(f"parameter 'cameras' has '{name}'; use letters, digits and underscores, a letter first")
        if times > 1:
            raise InputError(f"parameter 'cameras' names '{name}' {times} times; give each camera its own name")


def settings_from(values: Mapping[str, Any]) -> NodeSettings:
    """Validate the values of all parameters together.

    Parameters
    ----------
    values
        A value for each of `PARAMETERS` and for the parameters of each camera.

    Raises
    ------
    InputError
        If a value is not allowed; the message names the allowed ones.
    """
    cameras: tuple[str, ...] = values["cameras"]
    check_camera_names(cameras)
    for parameter in all_parameters(cameras):
        parameter.check(values[parameter.name])
    if not values["base_frame"]:
        raise InputError("parameter 'base_frame' is empty; name the frame whose xy plane is the ground")
    adaptation = {n.removeprefix("adaptation."): v for n, v in values.items() if n.startswith("adaptation.")}
    return NodeSettings(
        checkpoint=in_home(values["checkpoint"]),
        teacher=values["teacher"],
        device=values["device"],
        threads=values["threads"],
        sparse_backend=values["sparse_backend"],
        float32_matmul_precision=values["float32_matmul_precision"],
        teacher_backend=values["teacher_backend"],
        points_topic=values["points_topic"],
        base_frame=values["base_frame"],
        fixed_frame=values["fixed_frame"],
        deskew=values["deskew"],
        image_wait_ns=_nanoseconds(values["image_wait_ms"]),
        transform_wait_ns=_nanoseconds(values["transform_wait_ms"]),
        autostart=values["autostart"],
        pass_fields=values["pass_fields"],
        weights_path=in_home(values["weights_path"]),
        adaptation=AdaptationSettings(**adaptation),
        cameras=tuple(_camera_settings(camera, values) for camera in cameras),
    )


def in_home(path: str) -> str:
    """The path with its leading ``~``, which no shell replaces in a parameter, as the home directory.

    Raises
    ------
    InputError
        If it is the home of a user that there is not.
    """
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError as error:
        raise InputError(f"'{path}' begins with a home directory that is not known; write the whole path") from error


def _camera_settings(name: str, values: Mapping[str, Any]) -> CameraSettings:
    prefix = f"camera.{name}."
    return CameraSettings(
        name=name,
        image_topic=values[prefix + "image_topic"],
        info_topic=values[prefix + "info_topic"],
        transport=values[prefix + "transport"],
        timing=Timing(_nanoseconds(values[prefix + "tolerance_ms"]), _nanoseconds(values[prefix + "time_offset_ms"])),
        rectified=values[prefix + "rectified"],
        max_plain_share=values[prefix + "max_plain_share"],
    )


def _nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * NANOSECONDS_PER_MILLISECOND)
