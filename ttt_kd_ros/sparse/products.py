"""Which module computes the products of sparse convolutions: the plain one, or another where it suits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from ttt_kd_ros.sparse import plain
from ttt_kd_ros.sparse.kernel_map import KernelMap


class Products(Protocol):
    """A module that computes products."""

    def problem(self, device: torch.device) -> str:
        """Why it cannot be used on a device, and the mend; empty if it can be tried."""

    def suits(self, features: Tensor, kernel_map: KernelMap) -> bool:
        """Whether it can compute this convolution."""

    def convolve(self, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """(outputs, D) from (inputs, C) and (K, C, D), without a gradient."""

    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        """Gradient (K, C, D) of the weight from the one (outputs, D) of the outputs."""


_chosen: Products = plain


def choose(products: Products) -> None:
    """Let a module compute what it suits, from now on; the plain one computes the rest."""
    global _chosen
    _chosen = products


@contextmanager
def using(products: Products) -> Iterator[None]:
    """Let a module compute what it suits for a while, then the one before again."""
    before = _chosen
    choose(products)
    try:
        yield
    finally:
        choose(before)


def convolve(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """(outputs, D) from (inputs, C) and (K, C, D), without a gradient."""
    return _for(features, kernel_map).convolve(features, weight, kernel_map)


def weight_gradient(features: Tensor, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Gradient (K, C, D) of the weight from the one (outputs, D) of the outputs."""
    return _for(features, kernel_map).weight_gradient(features, gradient, weight, kernel_map)


def gradients(
    features: Tensor, gradient: Tensor, weight: Tensor, transposed: Tensor, kernel_map: KernelMap
) -> tuple[Tensor, Tensor]:
    """Gradients of the features and of the weight.

    Parameters
    ----------
    features, gradient
        (inputs, C), and (outputs, D) of the outputs.
    weight
        (K, C, D).
    transposed
        (K, D, C), what the outputs' gradient is multiplied with for the features'.
    kernel_map
        Map with K offsets.
    """
    module = _for(gradient, kernel_map)
    if module is plain:
        return plain.gradients(features, gradient, weight, transposed, kernel_map)
    return (
        module.convolve(gradient, transposed, kernel_map.transposed),
        module.weight_gradient(features, gradient, weight, kernel_map),
    )


def _for(features: Tensor, kernel_map: KernelMap) -> Products:
    there = kernel_map.outputs and kernel_map.inputs
    return _chosen if there and _chosen.suits(features, kernel_map) else plain
