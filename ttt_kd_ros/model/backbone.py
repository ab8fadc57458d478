"""The kinds of backbones: each is known by its key in manifests and training configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.points import PointNetwork, PointsConfig
from ttt_kd_ros.model.unet import SparseUNet, UNetConfig
from ttt_kd_ros.sparse.points import PointPyramid
from ttt_kd_ros.sparse.voxels import Pyramid

BackboneConfig: TypeAlias = UNetConfig | PointsConfig
Backbone: TypeAlias = SparseUNet | PointNetwork
AnyPyramid: TypeAlias = Pyramid | PointPyramid

KINDS: Mapping[str, type[UNetConfig] | type[PointsConfig]] = {"unet": UNetConfig, "points": PointsConfig}


def kind_of(config: BackboneConfig) -> str:
    """Key of a backbone's kind."""
    return next(kind for kind, cls in KINDS.items() if isinstance(config, cls))


def backbone_to_dict(config: BackboneConfig) -> dict[str, Any]:
    """A mapping with the kind as its only key."""
    return {kind_of(config): asdict(config)}


def take_backbone(values: dict[str, Any]) -> BackboneConfig:
    """Take the backbone out of a mapping that has its kind among its keys; without one it is the default U-Net.

    Raises
    ------
    InputError
        If there are two, a key of one is unknown or a value is of the wrong type.
    """
    found = [kind for kind in KINDS if kind in values]
    if len(found) > 1:
        raise InputError(f"there is one backbone, not {' and '.join(found)}")
    return _read(found[0], values.pop(found[0])) if found else UNetConfig()


def _read(kind: str, data: Mapping[str, Any]) -> BackboneConfig:
    """From plain values, as from JSON or YAML."""
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return KINDS[kind](**values)
    except (TypeError, AttributeError) as error:
        raise InputError(f"the backbone's configuration '{kind}' cannot be used: {error}") from error
