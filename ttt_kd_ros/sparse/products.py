"""Which backend computes voxels, maps and products of sparse convolutions: the plain one, or another where it suits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from ttt_kd_ros.sparse.backend import Backend, Maps
from ttt_kd_ros.sparse.kernel_map import KernelMap
from ttt_kd_ros.sparse.plain import PLAIN

_chosen: Backend = PLAIN


def choose(backend: Backend) -> None:
    """Let a backend compute what it suits, from now on; the plain one computes the rest."""
    global _chosen
    _chosen = backend


@contextmanager
def using(backend: Backend) -> Iterator[None]:
    """Let a backend compute what it suits for a while, then the one before again."""
    before = _chosen
    choose(backend)
    try:
        yield
    finally:
        choose(before)


def chosen() -> Backend:
    """The one that was chosen last."""
    return _chosen


def backend_for(features: Tensor, kernel_map: KernelMap) -> Backend:
    """What computes a convolution of these features, or of these gradients, along a map."""
    there = kernel_map.outputs and kernel_map.inputs
    return _chosen if there and _chosen.suits(features, kernel_map) else PLAIN


def maps() -> Maps:
    """What builds voxels and kernel maps."""
    return _chosen.maps
