"""What the machine can do at best, and what the network asks of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ttt_kd_ros.adaptation.cost import Clock
from ttt_kd_ros.adaptation.scope import scope_parameters
from ttt_kd_ros.device import device_name
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.unet import SparseUNet
from ttt_kd_ros.model.voxel_input import VoxelInput
from ttt_kd_ros.sparse.kernel_map import KernelMap
from ttt_kd_ros.sparse.voxels import Pyramid

_INDEX_BYTES = 8


@dataclass(frozen=True)
class Machine:
    """Rates measured on the device, with the threads, that computes.

    Parameters
    ----------
    name
        What people call it.
    operations_per_s
        Floating point operations of a large matrix product, float32.
    bytes_per_s
        Bytes read and written by a copy of a large array.
    """

    name: str
    operations_per_s: float
    bytes_per_s: float


def measure_machine(device: torch.device, clock: Clock, repeats: int = 7) -> Machine:
    """Best of some repeats, by a clock [s]."""
    edge, length = (8192, 2**28) if device.type == "cuda" else (1024, 2**24)
    matrix, array = torch.randn(edge, edge, device=device), torch.randn(length, device=device)
    product, copy = torch.empty_like(matrix), torch.empty_like(array)
    multiplying, copying = [], []
    for _ in range(repeats):
        start = clock()
        torch.mm(matrix, matrix, out=product)
        middle = clock()
        copy.copy_(array)
        multiplying.append(middle - start)
        copying.append(clock() - middle)
    return Machine(
        device_name(device), 2 * edge**3 / min(multiplying), 2 * array.numel() * array.itemsize / min(copying)
    )


@dataclass(frozen=True)
class Work:
    """Floating point operations, and bytes that must at least be read and written."""

    operations: int
    bytes: int

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.bytes + other.bytes)

    def limit_ms(self, machine: Machine) -> float:
        """Time that it takes at least [ms]: operations and traffic may overlap."""
        return 1e3 * max(self.operations / machine.operations_per_s, self.bytes / machine.bytes_per_s)


def mean_work(each: Sequence[Work]) -> Work:
    """Of several, at least one."""
    return Work(sum(one.operations for one in each) // len(each), sum(one.bytes for one in each) // len(each))


def voxelise_work(points: Tensor, voxels: int) -> Work:
    """Points in; keys, counts and the voxel of each point out."""
    return Work(0, points.nbytes + _INDEX_BYTES * (len(points) + 2 * voxels))


def maps_work(pyramid: Pyramid) -> Work:
    """Keys in, pairs out."""
    keys = sum(kernel_map.inputs for kernel_map in pyramid.neighbours)
    pairs = sum(len(kernel_map.sources) for kernel_map in (*pyramid.neighbours, *pyramid.down))
    return Work(0, _INDEX_BYTES * (keys + 2 * pairs))


def unet_on(network: Network, voxels: VoxelInput) -> tuple[SparseUNet, Pyramid]:
    """Backbone and kernel maps of a network whose work can be counted.

    Raises
    ------
    InputError
        If its backbone is of another kind.
    """
    unet, pyramid = network.backbone, voxels.pyramid
    if not isinstance(unet, SparseUNet) or not isinstance(pyramid, Pyramid):
        raise InputError("the benchmark counts the work of sparse U-Nets; the checkpoint's backbone is of another kind")
    return unet, pyramid


def forward_work(unet: SparseUNet, pyramid: Pyramid) -> Work:
    """All convolutions; each reads its inputs, weight and pairs once and writes its outputs once."""
    return sum((_work(weight, kernel_map) for weight, kernel_map in _convolutions(unet, pyramid)), Work(0, 0))


def step_work(unet: SparseUNet, pyramid: Pyramid, scope: str) -> Work:
    """What a step cannot do without that moves the weights of a scope.

    That is the convolutions that weights which move lead to, the gradients of features that such weights lead to, and
    those of the weights themselves.
    """
    moving = {id(parameter) for parameter in scope_parameters(unet, scope)}
    total, leads = Work(0, 0), False
    for weight, kernel_map in _convolutions(unet, pyramid):
        work, moves = _work(weight, kernel_map), id(weight) in moving
        needed = (leads or moves or scope == "norm", leads, moves)  # convolution, features' gradient, weight's gradient
        total = sum((work for each in needed if each), total)
        leads = needed[0]
    return total


def _work(weight: Tensor, kernel_map: KernelMap) -> Work:
    _, channels_in, channels_out = weight.shape
    pairs = len(kernel_map.sources)
    values = kernel_map.inputs * channels_in + kernel_map.outputs * channels_out + weight.numel()
    return Work(2 * pairs * channels_in * channels_out, weight.itemsize * values + 2 * _INDEX_BYTES * pairs)


def _convolutions(unet: SparseUNet, pyramid: Pyramid) -> Iterator[tuple[Tensor, KernelMap]]:
    """Weight and map of each convolution, in the order of the forward pass."""
    decoded = pyramid.decoded
    resampling = (*pyramid.down, *(kernel_map.transposed for kernel_map in decoded.down[::-1]))
    levels = (*pyramid.neighbours[1:], *decoded.neighbours[::-1])
    yield unet.stem.convolution.weight, pyramid.stem
    for stage, change, same in zip((*unet.encoder, *unet.decoder), resampling, levels, strict=True):
        weights = [p for name, p in stage.named_parameters() if p.ndim == 3]
        yield weights[0], change
        yield from ((weight, same) for weight in weights[1:])
