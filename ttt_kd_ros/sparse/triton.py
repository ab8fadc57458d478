"""Products by fused Triton kernels on CUDA devices: no product of a pair is ever in memory.

A pass over a scan is many small kernels, and starting one takes longer than computing it: norm, residual and ReLU are
computed with the product that they follow. Sums are in float32 whatever the type of the features. Matrices are
multiplied in TF32 where PyTorch may do so (`torch.set_float32_matmul_precision`).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ttt_kd_ros.sparse.backend import Backend, NormedConvolution
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import KernelMap, tabulate

MIN_TILE = 16
"""Least edge of a tile that Triton multiplies."""
ROWS, COLUMNS = 32, 128
"""Rows and at most columns of the tiles of outputs (docs/benchmarks.md)."""
CHANNELS = 64
"""At most of the edges of the tiles of weight gradients."""
DEPTH = 32
"""Input channels, or pairs, that are multiplied at once."""
SPLITS = 16
"""Parts of an offset's pairs whose weight gradients are summed apart: sums in a fixed order, so that they repeat."""


class Triton(Backend):
    """The kernels of `triton_kernels`."""

    def problem(self, device: torch.device) -> str:
        """Why the kernels cannot be used on a device, and the mend; empty if they can be tried."""
        if device.type != "cuda":
            return "they need an NVIDIA GPU; set the parameter 'device' to cuda or 'sparse_backend' to torch"
        return "" if find_spec("triton") else "Triton is not installed; pip install triton"

    def suits(self, features: Tensor, kernel_map: KernelMap) -> bool:
        """Whether the kernels know the type."""
        return features.dtype in (torch.float32, torch.float16, torch.bfloat16)

    def look_up(self, maps: Sequence[KernelMap], back: Sequence[KernelMap]) -> None:
        """See `Backend`."""
        tabulate([*maps, *back])
        if back:
            _ = [one.starts for one in maps]

    def convolve(self, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """See `Backend`."""
        return _product(features, weight, kernel_map)

    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """See `Backend`."""
        offsets, depth, width = weight.shape
        partial = torch.empty(SPLITS, offsets, depth, width, dtype=torch.float32, device=weight.device)
        rows, columns = _tile(depth, CHANNELS), _tile(width, CHANNELS)
        grid = (offsets, SPLITS, -(-depth // rows) * -(-width // columns))
        with torch.cuda.device_of(features):
            _kernels().weight_gradient[grid](
                features.contiguous(), gradient.contiguous(), kernel_map.sources, kernel_map.targets, kernel_map.starts,
                partial, depth, width, rows, columns, DEPTH, _precision(),
            )  # fmt: skip
        return partial.sum(dim=0).to(weight.dtype)

    def convolve_norm_relu(
        self, features: Tensor, layer: NormedConvolution, residual: Tensor | None, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Backend`; one kernel."""
        if features.dtype != torch.float32:
            return super().convolve_norm_relu(features, layer, residual, keep)
        convolved = features.new_empty(layer.kernel_map.outputs, layer.weight.shape[2]) if keep else None
        return _product(features, layer.weight, layer.kernel_map, layer.norm, residual, convolved), convolved


TRITON = Triton()


def _product(
    features: Tensor,
    weight: Tensor,
    kernel_map: KernelMap,
    norm: FixedNorm | None = None,
    residual: Tensor | None = None,
    convolved: Tensor | None = None,
) -> Tensor:
    """A convolution and, with a norm, what follows it; `convolved` takes what came before the norm."""
    table, (offsets, depth, width) = kernel_map.by_offset, weight.shape
    output = features.new_empty(kernel_map.outputs, width)
    columns = _tile(width, COLUMNS)
    grid = (-(-kernel_map.outputs // ROWS), -(-width // columns))
    normed = (None,) * 5 if norm is None else (norm.weight, norm.bias, norm.mean, norm.variance, norm.eps)
    with torch.cuda.device_of(features):  # Triton launches on the current device
        _kernels().product[grid](
            features.contiguous(), weight.contiguous(), table.sources, table.order, output, kernel_map.outputs,
            *normed, None if residual is None else residual.contiguous(), convolved,
            depth, width, offsets, ROWS, columns, _tile(depth, DEPTH), _precision(),
        )  # fmt: skip
    return output


def _tile(size: int, most: int) -> int:
    """Edge of the tiles that cover a size: a power of two."""
    return max(MIN_TILE, min(most, 1 << (size - 1).bit_length()))


def _precision() -> str:
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _kernels() -> Any:
    return import_module("ttt_kd_ros.sparse.triton_kernels")
