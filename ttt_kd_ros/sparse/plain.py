"""Products of sparse convolutions in plain PyTorch, on every device.

The products of all pairs of a kernel map with their offset's matrix lie in one buffer, offset by offset; an output is
the sum of its pairs' rows.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from ttt_kd_ros.sparse.backend import Backend
from ttt_kd_ros.sparse.kernel_map import KernelMap


class _Memory(threading.local):
    """A thread's memory for products, kept from one convolution to the next: fresh pages cost as much as the work."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def rows(self, count: int, like: Tensor, width: int) -> Tensor:
        """(count, width) uninitialised, valid until the next call."""
        if like.device.type != "cpu":  # allocators of other devices keep memory themselves
            return like.new_empty(count, width)
        size = count * width * like.element_size()
        if size > len(self._bytes):
            self._bytes = torch.empty(size, dtype=torch.uint8)
        return self._bytes[:size].view(like.dtype).view(count, width)


_memory = _Memory()


class Plain(Backend):
    """PyTorch's own operations."""

    def problem(self, device: torch.device) -> str:
        """Empty, on any device."""
        return ""

    def suits(self, features: Tensor, kernel_map: KernelMap) -> bool:
        """Always."""
        return True

    def look_up(self, maps: Sequence[KernelMap], back: Sequence[KernelMap]) -> None:
        """See `Backend`."""
        for kernel_map in (*maps, *back):
            _ = kernel_map.connected, kernel_map.by_target

    def convolve(self, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """See `Backend`."""
        products = _memory.rows(len(kernel_map.sources), features, weight.shape[2])
        matrices, parts = weight.unbind(), products.split([pairs.count for pairs in kernel_map.connected])
        for pairs, part in zip(kernel_map.connected, parts, strict=True):
            torch.mm(_select(features, pairs.sources), matrices[pairs.offset], out=part)
        return kernel_map.by_target.sum(products)

    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """See `Backend`."""
        result = torch.zeros_like(weight)
        matrices = result.unbind()
        for pairs in kernel_map.connected:
            torch.mm(_select(features, pairs.sources).T, _select(gradient, pairs.targets), out=matrices[pairs.offset])
        return result

    def gradients(
        self, features: Tensor | None, gradient: Tensor, weight: Tensor, kernel_map: KernelMap, of_features: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend`; both at once, which gathers the outputs' once."""
        if features is None or not of_features:
            return super().gradients(features, gradient, weight, kernel_map, of_features)
        products = _memory.rows(len(kernel_map.sources), gradient, weight.shape[1])
        matrices, parts = weight.mT.unbind(), products.split([pairs.count for pairs in kernel_map.connected])
        result = torch.zeros_like(weight)
        of_weight = result.unbind()
        for pairs, part in zip(kernel_map.connected, parts, strict=True):
            gathered = _select(gradient, pairs.targets)
            torch.mm(gathered, matrices[pairs.offset], out=part)
            torch.mm(_select(features, pairs.sources).T, gathered, out=of_weight[pairs.offset])
        return kernel_map.transposed.by_target.sum(products), result


PLAIN = Plain()


def _select(features: Tensor, rows: Tensor | None) -> Tensor:
    return features if rows is None else features.index_select(0, rows)
