"""Choosing a teacher by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ttt_kd_ros.backends import TEACHER_BACKENDS
from ttt_kd_ros.errors import InputError, TeacherError
from ttt_kd_ros.teacher import dinov2, efficientnet
from ttt_kd_ros.teacher.features import Grids
from ttt_kd_ros.teacher.frozen import FrozenTeacher
from ttt_kd_ros.teacher.openvino import OpenVinoNetwork


class Teacher(Protocol):
    """A frozen image model.

    Attributes
    ----------
    name
        Name of the model; a checkpoint trained with one teacher refuses another.
    feature_size
        Channels of all its feature grids together.
    long_side
        Long side of the pictures that its network gets [px]; 0 keeps their size.
    """

    name: str
    feature_size: int
    long_side: int

    def features(self, images: Sequence[Tensor]) -> list[Grids]:
        """Feature grids of pictures, each (H, W, 3) uint8 RGB on the teacher's device, as constants for autograd."""
        ...


def load_teacher(
    spec: str, *, long_side: int | None = None, device: torch.device | str = "cpu", backend: str = "torch"
) -> Teacher:
    """Load a frozen image model.

    Parameters
    ----------
    spec
        ``efficientnet-lite0``, ``dinov2:<directory, .pth file or hub name>``, or the name of a published DINOv2 model
        (``dinov2-vits14``, ``dinov2-vitb14-reg4``, ...), which is taken from the hub.
    long_side
        Long side of the pictures that the network gets [px]; 0 keeps their size, None takes the model's default.
    device
        Where it runs.
    backend
        What computes it: ``torch``, or ``openvino`` on the CPU.

    Raises
    ------
    TeacherError
        If the model is unknown, cannot be found or is damaged, or a package that it needs is not installed.
    InputError
        If `long_side` is negative, or the backend is unknown or does not run on the device.
    """
    if backend not in TEACHER_BACKENDS:
        raise InputError(f"teacher_backend is '{backend}'; use {' or '.join(TEACHER_BACKENDS)}")
    if backend == "openvino" and torch.device(device).type != "cpu":
        raise InputError(f"OpenVINO computes the teacher on the CPU, not on '{device}'; use the teacher_backend torch")
    teacher = _by_name(spec, long_side)
    if backend == "openvino":
        teacher.network = OpenVinoNetwork(teacher.network, any_size=spec == efficientnet.NAME)
    return teacher.to(device)


def _by_name(spec: str, long_side: int | None) -> FrozenTeacher:
    if spec == efficientnet.NAME:
        return efficientnet.efficientnet_lite0(long_side=long_side)
    source = spec.removeprefix("dinov2:") if spec.startswith("dinov2:") else dinov2.hub_name(spec)
    if not source:
        raise TeacherError(
            f"unknown teacher '{spec}'; use efficientnet-lite0, dinov2:<directory, .pth file or hub name> "
            "or the name of a DINOv2 model such as dinov2-vits14"
        )
    return dinov2.dinov2(source, long_side=long_side)
