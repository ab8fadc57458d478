"""Settings of joint training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ttt_kd_ros.classes import ClassList, load_classes
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.backbone import KINDS, BackboneConfig, take_backbone
from ttt_kd_ros.model.unet import UNetConfig
from ttt_kd_ros.share import config_file

AMOUNT = "a finite number of at least 0"


def _require(settings: object, names: tuple[str, ...], holds: Callable[[Any], bool], what: str) -> None:
    """Raise InputError with the first setting for which it does not hold."""
    for name in names:
        if not holds(value := getattr(settings, name)):
            raise InputError(f"{name} must be {what}, not {value!r}")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf  # type: ignore[operator]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training scan, in the base frame; every scan is also turned about z and mirrored.

    Parameters
    ----------
    tilt_deg
        Standard deviation of roll and pitch.
    scale
        Largest relative change of size.
    height_m
        Standard deviation of the height over ground.
    jitter_m
        Standard deviation of each coordinate.
    dropout
        Largest share of points left out; the share is drawn evenly up to it.
    mix3d, polarmix
        Probability that two scans of a step are laid over each other, and that they exchange a sector
        (`ttt_kd_ros.training.mixing`).
    """

    tilt_deg: float = 1.0
    scale: float = 0.05
    height_m: float = 0.05
    jitter_m: float = 0.01
    dropout: float = 0.6
    mix3d: float = 0.0
    polarmix: float = 0.0

    def __post_init__(self) -> None:
        _require(self, tuple(f.name for f in fields(self)), _is_amount, AMOUNT)
        if self.dropout >= 1:
            raise InputError(f"dropout must be below 1, not {self.dropout}")
        if max(self.mix3d, self.polarmix) > 1:
            raise InputError("mix3d and polarmix are probabilities, 0 to 1")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of joint training: cross-entropy of ρ_Y on labelled scans and distillation into ρ_2D on paired ones.

    Parameters
    ----------
    classes
        Classes to learn.
    voxel_size
        Edge length of a voxel [m].
    target_size
        Principal components of the teacher's features.
    backbone
        Kind and size of the backbone; the key in a file is its kind, ``unet`` or ``points``.
    steps
        Optimizer steps.
    labelled_per_step, paired_per_step
        Scans of each kind in a step; a paired scan that has labels is used for both losses.
    learning_rate
        Peak of the one-cycle schedule of AdamW.
    weight_decay
        Weight decay of AdamW.
    kd_weight
        Weight of the distillation loss beside the cross-entropy, whose classes are weighted by how rare they are.
    lovasz_weight
        Weight of the Lovász-softmax loss beside the cross-entropy.
    augmentation
        Random changes of each scan.
    """

    classes: ClassList
    voxel_size: float = 0.2
    target_size: int = 16
    backbone: BackboneConfig = field(default_factory=UNetConfig)
    steps: int = 600
    labelled_per_step: int = 2
    paired_per_step: int = 1
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    kd_weight: float = 1.0
    lovasz_weight: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        counts = "target_size", "steps", "labelled_per_step", "paired_per_step"
        _require(self, counts, _is_count, "a whole number of at least 1")
        amounts = "voxel_size", "learning_rate", "weight_decay", "kd_weight", "lovasz_weight"
        _require(self, amounts, _is_amount, AMOUNT)
        if not (self.voxel_size and self.learning_rate):
            raise InputError("voxel_size and learning_rate must be positive")


def load_training_config(name: str | Path) -> TrainingConfig:
    """Training configuration from a YAML file or one of the installed ones (``config/training``).

    Raises
    ------
    InputError
        If it does not exist, names an unknown key or a value is out of range.
    """
    path = config_file("training", name)
    try:
        values: dict[str, Any] = dict(yaml.safe_load(path.read_text()))
        unknown = values.keys() - {f.name for f in fields(TrainingConfig)} - KINDS.keys()
        if unknown:
            raise InputError(f"unknown keys: {', '.join(sorted(unknown))}")
        return TrainingConfig(
            classes=load_classes(values.pop("classes")),
            backbone=take_backbone(values),
            augmentation=Augmentation(**values.pop("augmentation", {})),
            **values,
        )
    except (InputError, TypeError, ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {error}") from error
