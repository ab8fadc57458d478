"""Products of sparse convolutions in plain PyTorch, on every device.

The products of all pairs of a kernel map with their offset's matrix lie in one buffer, offset by offset; an output is
the sum of its pairs' rows.
"""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt_kd_ros.sparse import kernel_map as maps
from ttt_kd_ros.sparse.kernel_map import Grouping, KernelMap

__all__ = ["convolve", "gradients", "maps", "problem", "suits", "weight_gradient"]


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


def problem(device: torch.device) -> str:
    """None, on any device."""
    return ""


def suits(features: Tensor, kernel_map: KernelMap) -> bool:
    """Always."""
    return True


def convolve(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """(outputs, D) from (inputs, C) and (K, C, D), without a gradient."""
    products = _memory.rows(len(kernel_map.sources), features, weight.shape[2])
    matrices, parts = weight.unbind(), products.split([pairs.count for pairs in kernel_map.connected])
    for pairs, part in zip(kernel_map.connected, parts, strict=True):
        torch.mm(_select(features, pairs.sources), matrices[pairs.offset], out=part)
    return _summed(products, kernel_map.by_target)


def _summed(products: Tensor, groups: Grouping) -> Tensor:
    return F.embedding_bag(groups.pairs, products, groups.bounds, mode="sum", include_last_offset=True)


def _select(features: Tensor, rows: Tensor | None) -> Tensor:
    return features if rows is None else features.index_select(0, rows)


def gradients(
    features: Tensor, gradient: Tensor, weight: Tensor, transposed: Tensor, kernel_map: KernelMap
) -> tuple[Tensor, Tensor]:
    """Gradients of features and weight at once, which gathers the outputs' once; see `products.gradients`."""
    products = _memory.rows(len(kernel_map.sources), gradient, transposed.shape[2])
    matrices, parts = transposed.unbind(), products.split([pairs.count for pairs in kernel_map.connected])
    result = torch.zeros_like(weight)
    of_weight = result.unbind()
    for pairs, part in zip(kernel_map.connected, parts, strict=True):
        gathered = _select(gradient, pairs.targets)
        torch.mm(gathered, matrices[pairs.offset], out=part)
        torch.mm(_select(features, pairs.sources).T, gathered, out=of_weight[pairs.offset])
    return _summed(products, kernel_map.transposed.by_target), result


def weight_gradient(features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Gradient (K, C, D) of the weight from that of the outputs."""
    result = torch.zeros_like(weight)
    matrices = result.unbind()
    for pairs in kernel_map.connected:
        torch.mm(_select(features, pairs.sources).T, _select(gradient, pairs.targets), out=matrices[pairs.offset])
    return result
