"""Products by spconv's implicit GEMM, along this package's kernel maps and with its weights, on CUDA devices.

Feature gradients are products too, along the transposed map, so that spconv's forward kernel is all that is needed; the
weight's are left to PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ttt_kd_ros.sparse.backend import Backend
from ttt_kd_ros.sparse.kernel_map import MASK_BITS, KernelMap, tabulate
from ttt_kd_ros.sparse.plain import PLAIN


class Spconv(Backend):
    """Spconv's forward kernel; the weights' gradients by PyTorch."""

    def suits(self, features: Tensor, kernel_map: KernelMap) -> bool:
        """Whether spconv knows type and size of the kernel."""
        return features.dtype in (torch.float32, torch.float16) and kernel_map.offsets <= MASK_BITS

    def problem(self, device: torch.device) -> str:
        """Why spconv cannot be used on a device, and the mend; empty if it can be tried."""
        if device.type != "cuda":
            return (
                "on the CPU it is wrong with more than one thread and has no gradients; "
                "set the parameter 'device' to cuda or 'sparse_backend' to torch"
            )
        distributions = metadata.packages_distributions().get("spconv", [])
        if not distributions:
            return "it is not installed; pip install spconv-cu126 (or -cu124, -cu120, as your CUDA)"
        name = distributions[0]
        if name == "spconv":
            return "the installed spconv is built for the CPU; pip uninstall spconv cumm, then pip install spconv-cu126"
        version = metadata.version(name)
        if _number(version) < (2, 3, 8) and _number(np.__version__) >= (2,):
            return f"{name} {version} ends the process with numpy {np.__version__}; install spconv-cu126 or numpy < 2"
        return ""

    def look_up(self, maps: Sequence[KernelMap], back: Sequence[KernelMap]) -> None:
        """See `Backend`."""
        tabulate([one for one in (*maps, *back) if one.offsets <= MASK_BITS])
        PLAIN.look_up(*([one for one in each if one.offsets > MASK_BITS] for each in (maps, back)))
        if back:
            _ = [one.connected for one in maps]

    def convolve(self, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """See `Backend`."""
        table = kernel_map.by_offset
        outputs, _, _ = _operations().implicit_gemm(
            features.contiguous(),
            weight.permute(2, 0, 1).contiguous(),
            table.sources,
            [table.masks],
            [table.order],
            kernel_map.outputs,
            [np.array([0xFFFFFFFF], dtype=np.uint32)],
            False,  # is_train: keep no masks for spconv's own backward
            False,  # is_subm
        )
        return outputs

    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """See `Backend`."""
        return PLAIN.weight_gradient(features, gradient, weight, kernel_map)


SPCONV = Spconv()


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _operations() -> Any:
    return import_module("spconv.pytorch.ops")
