"""A segmenter with a real network that is small enough for a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.model.unet import UNetConfig
from ttt_kd_ros.schedule import ScheduledSegmenter
from ttt_kd_ros.segmenter import Segmenter
from ttt_kd_ros.teacher.features import FeatureGrid, Grids

UNET = UNetConfig(8, 3, (8, 12), (12, 8), (1, 1), (1, 1))


class Colors:
    """An image model whose features are the colours of the pixels."""

    name, feature_size, long_side = "colors", 3, 0

    def features(self, images: Sequence[torch.Tensor]) -> list[Grids]:
        return [(FeatureGrid(image.permute(2, 0, 1).float() / 255, (1.0, 1.0), (0.0, 0.0)),) for image in images]


def tiny_network() -> Network:
    torch.manual_seed(0)
    config = NetworkConfig(load_classes("street6"), TeacherSpec("colors", "colors", 0, 3), 0.5, 2, UNET)
    return Network(config).eval()


def tiny_segmenter(teacher: Any, settings: AdaptationSettings) -> ScheduledSegmenter:
    return ScheduledSegmenter(Segmenter(tiny_network(), teacher, settings), {})
