"""What computes the sparse convolutions of this process: PyTorch alone, or what gives the same results sooner."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ttt_kd_ros.backends import SPARSE_BACKENDS
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.voxel_input import VoxelInput
from ttt_kd_ros.sparse import products
from ttt_kd_ros.sparse.backend import Backend, Gradients, NormedConvolution
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import KernelMap
from ttt_kd_ros.sparse.native import NATIVE
from ttt_kd_ros.sparse.plain import PLAIN
from ttt_kd_ros.sparse.spconv import SPCONV
from ttt_kd_ros.sparse.triton import TRITON

TOLERANCE = 1e-3
"""Largest distance of a backend's products from those in float64, relative to their size."""
POINTS, MANY_POINTS = 4_000, 60_000
"""Of the scans made to compare results and times."""
REPEATS = 3
BACKENDS: Mapping[str, Backend] = {"torch": PLAIN, "native": NATIVE, "spconv": SPCONV, "triton": TRITON}


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
    products.choose(PLAIN)
    used = _fastest(network) if name == "auto" else _required(name, network)
    products.choose(BACKENDS[used])
    return used


def _required(name: str, network: Network) -> str:
    problem = BACKENDS[name].problem(_device(network)) or _disagreement(name, network)
    if problem:
        raise InputError(f"{name} cannot compute the sparse convolutions: {problem}")
    return name


def _fastest(network: Network) -> str:
    right, device = ["torch"], _device(network)
    for name, backend in BACKENDS.items():
        if name == "torch":
            continue
        missing = backend.problem(device)
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
    comparison = _Comparison(BACKENDS[name])
    expected = _made_scan(network, POINTS)
    try:
        with products.using(comparison):
            found = _made_scan(network, POINTS)
            for norms_alone in (False, True):  # backends keep and compute something else for each
                outputs_and_gradients(network, found, norms_alone)
    except Exception as error:  # noqa: BLE001  a compiler may fail in any way
        return f"it fails: {error}"
    if not _same((found.grid, found.pyramid), (expected.grid, expected.pyramid)):
        return "its voxels or kernel maps are wrong on a scan made for this check"
    if comparison.worst <= TOLERANCE:
        return ""
    return (
        f"its products differ by {comparison.worst:.1e} of their size on a scan made for this check; "
        "install another version"
    )


class _Comparison(Backend):
    """All that a backend computes, each held against the exact result, which the network goes on with.

    Results of the whole network would not do: in deep ones rounding alone flips ReLUs.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.maps = backend.maps
        self.worst = 0.0
        """Largest relative distance so far."""

    def problem(self, device: torch.device) -> str:
        return self._backend.problem(device)

    def suits(self, features: Tensor, kernel_map: KernelMap) -> bool:
        return self._backend.suits(features, kernel_map)

    def look_up(self, maps: Sequence[KernelMap], back: Sequence[KernelMap]) -> None:
        self._backend.look_up(maps, back)

    def convolve(self, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        exact = PLAIN.convolve(features.double(), weight.double(), kernel_map)
        return self._compared(self._backend.convolve(features, weight, kernel_map), exact)

    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        exact = PLAIN.weight_gradient(features.double(), gradient.double(), weight.double(), kernel_map)
        return self._compared(self._backend.weight_gradient(features, gradient, weight, kernel_map), exact)

    def convolve_norm_relu(
        self, features: Tensor, layer: NormedConvolution, residual: Tensor | None, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        self.convolve(features, layer.weight, layer.kernel_map)
        exact = PLAIN.convolve_norm_relu(features.double(), layer.double(), _double(residual), keep)
        found = self._backend.convolve_norm_relu(features, layer, residual, keep)
        return self._compared(found[0], exact[0]), self._if_wanted(found[1], exact[1])

    def convolve_norm_relu_gradients(
        self,
        gradient: Tensor,
        output: Tensor,
        convolved: Tensor | None,
        features: Tensor | None,
        layer: NormedConvolution,
        of_features: bool,
    ) -> Gradients:
        self.gradients(features, gradient, layer.weight, layer.kernel_map, of_features)
        given = gradient.double(), output.double(), _double(convolved), _double(features)
        exact = PLAIN.convolve_norm_relu_gradients(*given, layer.double(), of_features)
        found = self._backend.convolve_norm_relu_gradients(gradient, output, convolved, features, layer, of_features)
        inputs, weight, scale = map(self._if_wanted, found[:3], exact[:3])
        return inputs, weight, scale, self._compared(found[3], exact[3]), self._compared(found[4], exact[4])

    def linear_norm(self, features: Tensor, weight: Tensor, norm: FixedNorm) -> Tensor:
        exact = PLAIN.linear_norm(features.double(), weight.double(), norm.double())
        return self._compared(self._backend.linear_norm(features, weight, norm), exact)

    def _compared(self, found: Tensor, exact: Tensor) -> Tensor:
        distance = float((found.detach().double() - exact.detach()).norm() / exact.detach().norm().clamp_min(1e-30))
        self.worst = max(self.worst, distance if distance == distance else math.inf)
        return exact.to(found.dtype)

    def _if_wanted(self, found: Tensor | None, exact: Tensor | None) -> Tensor | None:
        return None if found is None or exact is None else self._compared(found, exact)


def _double(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.double()


def _seconds(name: str, network: Network) -> float:
    """Least time of a forward and backward pass by a backend."""
    with products.using(BACKENDS[name]):
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


def outputs_and_gradients(network: Network, voxels: VoxelInput, norms_alone: bool = False) -> tuple[Tensor, ...]:
    """Logits and features of voxels, and the gradients of the backbone's weights with respect to their mean squares.

    With `norms_alone` the gradients are those of its norms' weights.
    """
    weights = {
        f"backbone.{name}": weight.detach().clone().requires_grad_(weight.ndim == 1 or not norms_alone)
        for name, weight in network.backbone.named_parameters()
    }
    logits, features = torch.func.functional_call(network, weights, (voxels,))
    loss = logits.square().mean() + features.square().mean()
    moved = tuple(weight for weight in weights.values() if weight.requires_grad)
    return (logits.detach(), features.detach(), *torch.autograd.grad(loss, moved))


def _device(network: Network) -> torch.device:
    return next(network.parameters()).device
