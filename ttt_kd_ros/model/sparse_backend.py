"""What computes the sparse convolutions of this process: PyTorch alone, or spconv where it gives the same results."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ttt_kd_ros.backends import SPARSE_BACKENDS
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.sparse import spconv

TOLERANCE = 1e-3
"""Largest difference of two backends' results, relative to their size."""


def use_sparse_backend(name: str, network: Network) -> str:
    """Choose what computes the sparse convolutions of this process from now on.

    spconv has to give the network's own outputs and gradients on a small made scan, to `TOLERANCE`: several of its
    versions are wrong on some devices.

    Parameters
    ----------
    name
        ``torch``, ``spconv`` or ``auto``, which is spconv on a CUDA device where it is installed and right.
    network
        On the device to run on.

    Returns
    -------
    str
        ``torch`` or ``spconv``.

    Raises
    ------
    InputError
        If spconv is asked for and cannot be used.
    """
    if name not in SPARSE_BACKENDS:
        raise InputError(f"sparse_backend is '{name}'; use {', '.join(SPARSE_BACKENDS)}")
    spconv.choose(False)
    if name == "torch":
        return "torch"
    problem = spconv.problem(next(network.parameters()).device)
    if not problem:
        problem = _disagreement(network)
        if problem and name == "auto":
            warnings.warn(f"spconv is not used: {problem}", stacklevel=2)
    if problem and name == "spconv":
        raise InputError(f"spconv cannot compute the sparse convolutions: {problem}")
    spconv.choose(not problem)
    return "torch" if problem else "spconv"


def _disagreement(network: Network) -> str:
    """How spconv's results differ from those of PyTorch, empty if they do not."""
    expected = _results(network)
    try:
        spconv.choose(True)
        found = _results(network)
    except (ArithmeticError, AssertionError, AttributeError, ImportError, RuntimeError, TypeError, ValueError) as error:
        return f"it fails: {error}"
    finally:
        spconv.choose(False)
    worst = max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in zip(found, expected, strict=True))
    if worst <= TOLERANCE:
        return ""
    return f"its results differ by {worst:.1e} of their size on a scan made for this check; install another version"


def _results(network: Network) -> tuple[Tensor, ...]:
    """Outputs for a made scan, and the gradients of the backbone's weights."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4000, 3, generator=generator) * torch.tensor([16.0, 16.0, 2.0])
    device = next(network.parameters()).device
    weights = {
        f"backbone.{name}": weight.detach().clone().requires_grad_()
        for name, weight in network.backbone.named_parameters()
    }
    voxels = network.voxel_input(points.to(device))
    logits, features = torch.func.functional_call(network, weights, (voxels,))
    loss = logits.square().mean() + features.square().mean()
    return (logits.detach(), features.detach(), *torch.autograd.grad(loss, tuple(weights.values())))
