"""What computes the sparse convolutions of this process: PyTorch alone, or what gives the same results sooner."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ttt_kd_ros.backends import SPARSE_BACKENDS
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.voxel_input import VoxelInput
from ttt_kd_ros.sparse import native, plain, products, spconv, triton
from ttt_kd_ros.sparse.kernel_map import KernelMap
from ttt_kd_ros.sparse.products import Products

TOLERANCE = 1e-3
"""Largest distance of a backend's products from those in float64, relative to their size."""
POINTS, MANY_POINTS = 4_000, 60_000
"""Of the scans made to compare results and times."""
REPEATS = 3
MODULES: Mapping[str, Products] = {"torch": plain, "native": native, "spconv": spconv, "triton": triton}


def use_sparse_backend(name: str, network: Network) -> str:
    """Choose what computes the sparse convolutions of this process from now on.

    Whatever is not PyTorch alone has to give each product of the network's forward and backward pass over a small made
    scan to `TOLERANCE`: several versions of spconv are wrong on some devices.

    Parameters
    ----------
    name
        ``torch``, ``native``, ``spconv``, ``triton`` or ``auto``: on a CPU ``native`` if it is right; else, of those
        that are installed and right, the one that is fastest on a larger made scan.
    network
        On the device to run on.

    Returns
    -------
    str
        The backend that is used.

    Raises
    ------
    InputError
        If one is asked for that cannot be used.
    """
    if name not in SPARSE_BACKENDS:
        raise InputError(f"sparse_backend is '{name}'; use {', '.join(SPARSE_BACKENDS)}")
    products.choose(plain)
    used = _fastest(network) if name == "auto" else _required(name, network)
    products.choose(MODULES[used])
    return used


def _required(name: str, network: Network) -> str:
    problem = MODULES[name].problem(_device(network)) or _disagreement(name, network)
    if problem:
        raise InputError(f"{name} cannot compute the sparse convolutions: {problem}")
    return name


def _fastest(network: Network) -> str:
    right, device = ["torch"], _device(network)
    for name, module in MODULES.items():
        if name == "torch":
            continue
        missing = module.problem(device)
        reason = missing or _disagreement(name, network)
        if not reason:
            right.append(name)
        elif not missing or (name, device.type) == ("native", "cpu"):
            warnings.warn(f"{name} is not used: {reason}", stacklevel=3)
    if "native" in right:  # always the faster one; a choice by chance would change the last bits from run to run
        return "native"
    return min(right, key=lambda name: _seconds(name, network)) if len(right) > 1 else right[0]


def _disagreement(name: str, network: Network) -> str:
    """How a backend's products differ from exact ones, empty if they do not."""
    if name == "torch":
        return ""
    comparison = _Comparison(MODULES[name])
    expected = _made_scan(network, POINTS)
    try:
        with products.using(comparison):
            found = _made_scan(network, POINTS)
            outputs_and_gradients(network, found)
    except Exception as error:  # noqa: BLE001  a compiler may fail in any way
        return f"it fails: {error}"
    if not _same(found, expected):
        return "its voxels or kernel maps are wrong on a scan made for this check"
    if comparison.worst <= TOLERANCE:
        return ""
    return (
        f"its products differ by {comparison.worst:.1e} of their size on a scan made for this check; "
        "install another version"
    )


class _Comparison:
    """Products of a module, each held against the exact one, which the network goes on with.

    Results of the whole network would not do: in deep ones rounding alone flips ReLUs.
    """

    def __init__(self, module: Products) -> None:
        self._module = module
        self.problem, self.suits, self.maps = module.problem, module.suits, module.maps
        self.worst = 0.0
        """Largest relative distance so far."""

    def convolve(self, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        exact = plain.convolve(features.double(), weight.double(), kernel_map)
        return self._compared(self._module.convolve(features, weight, kernel_map), exact)

    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        exact = plain.weight_gradient(features.double(), gradient.double(), weight.double(), kernel_map)
        return self._compared(self._module.weight_gradient(features, gradient, weight, kernel_map), exact)

    def _compared(self, found: Tensor, exact: Tensor) -> Tensor:
        distance = float((found.double() - exact).norm() / exact.norm().clamp_min(1e-30))
        self.worst = max(self.worst, distance if distance == distance else math.inf)
        return exact.to(found.dtype)


def _seconds(name: str, network: Network) -> float:
    """Least time of a forward and backward pass by a backend."""
    with products.using(MODULES[name]):
        return min(_timed(network) for _ in range(1 + REPEATS))


def _timed(network: Network) -> float:
    start = time.perf_counter()
    results = outputs_and_gradients(network, _made_scan(network, MANY_POINTS))
    torch.stack([result.sum() for result in results]).tolist()  # waits for the device
    return time.perf_counter() - start


def _made_scan(network: Network, count: int) -> VoxelInput:
    generator = torch.Generator().manual_seed(0)
    edge = (count / POINTS) ** 0.5 * 16.0
    points = torch.rand(count, 3, generator=generator) * torch.tensor([edge, edge, 2.0])
    return network.voxel_input(points.to(_device(network)))


def _same(found: Any, expected: Any) -> bool:
    """Whether all tensors and numbers in two values are equal."""
    if isinstance(expected, Tensor):
        return torch.equal(found, expected)
    if is_dataclass(expected):
        return all(_same(getattr(found, field.name), getattr(expected, field.name)) for field in fields(expected))
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return bool(found == expected)


def outputs_and_gradients(network: Network, voxels: VoxelInput) -> tuple[Tensor, ...]:
    """Logits and features of voxels, and the gradients of the backbone's weights with respect to their mean squares."""
    weights = {
        f"backbone.{name}": weight.detach().clone().requires_grad_()
        for name, weight in network.backbone.named_parameters()
    }
    logits, features = torch.func.functional_call(network, weights, (voxels,))
    loss = logits.square().mean() + features.square().mean()
    return (logits.detach(), features.detach(), *torch.autograd.grad(loss, tuple(weights.values())))


def _device(network: Network) -> torch.device:
    return next(network.parameters()).device
