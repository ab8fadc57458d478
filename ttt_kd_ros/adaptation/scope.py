"""Which weights of the backbone move, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ttt_kd_ros.model.backbone import Backbone
from ttt_kd_ros.model.tape import Tape
from ttt_kd_ros.model.voxel_input import VoxelInput

LORA_RANK = 8
CONVOLUTION_NDIM = 3
"""A convolution's weight is (K, C, D), in voxels and on points alike."""


def scope_parameters(backbone: Backbone, scope: str) -> list[nn.Parameter]:
    """Parameters of the backbone that belong to a scope (see `AdaptationSettings`); for ``lora`` those it changes."""
    if scope == "norm":
        norms = (m for m in backbone.modules() if isinstance(m, nn.BatchNorm1d))
        return [p for m in norms for p in m.parameters()]
    if scope == "lora":
        return [p for p in backbone.parameters() if p.ndim == CONVOLUTION_NDIM]
    if scope == "encoder":
        return [*backbone.stem.parameters(), *backbone.encoder.parameters()]
    if scope == "decoder":
        return list(backbone.decoder.parameters())
    return list(backbone.parameters())


class Scope:
    """What the optimizer moves of a backbone, as it is now.

    Parameters
    ----------
    backbone
        The backbone.
    scope
        See `AdaptationSettings`.
    source
        The same backbone with the source weights.

    Attributes
    ----------
    parameters
        What moves: parameters of the backbone themselves.
    flat
        All of them one after the other in one tensor, which they are views of from now on: what an optimizer does to
        many small tensors one by one takes longer than to compute it.
    follows
        Whether it goes along when values are written into the backbone's weights.
    """

    follows = True

    def __init__(self, backbone: Backbone, scope: str, source: Backbone) -> None:
        self.parameters = scope_parameters(backbone, scope)
        self.flat = _joined(self.parameters)
        self._source = _joined(scope_parameters(source, scope))

    @property
    def holds(self) -> bool:
        """Whether the parameters are views of `flat` still: a later scope of the same backbone has its own."""
        memory = self.flat.untyped_storage().data_ptr()
        return all(parameter.untyped_storage().data_ptr() == memory for parameter in self.parameters)

    def gather_gradient(self) -> None:
        """Move the parameters' gradients to `flat`."""
        gradients = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in self.parameters]
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        self.drop_gradients()
        self.flat.grad = joined

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        for parameter in (self.flat, *self.parameters):
            parameter.grad = None

    @torch.no_grad()
    def pull(self, share: float) -> None:
        """Move what the optimizer moves a share of the way back to the source weights."""
        self.flat.lerp_(self._source, share)

    def tape(self, backbone: Backbone, voxels: VoxelInput) -> Tape | None:
        """See `SparseUNet.tape`."""
        pyramid: Any = voxels.pyramid  # of the backbone's own kind
        return backbone.tape(voxels.features, pyramid, self.flat)

    def weights(self) -> Mapping[str, Tensor]:
        """Weights, by their name in the backbone, that stand in for the backbone's own in a step."""
        return {}

    def fold(self) -> None:
        """Write those weights into the backbone."""


class LowRankScope(Scope):
    """A low-rank change ``A @ B`` of each convolution's weight, which is zero at first.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; a convolution's weight (K, C, D) is
    taken as a (K * C, D) matrix.
    """

    follows = False

    def __init__(self, backbone: Backbone, source: Backbone) -> None:
        names = {id(p): name for name, p in backbone.named_parameters()}
        self._targets = {names[id(p)]: p for p in scope_parameters(backbone, "lora")}
        self._before = {name: p.detach().clone() for name, p in self._targets.items()}
        self._sources = [p.detach() for p in scope_parameters(source, "lora")]
        self._factors = {name: _factors(p, seed) for seed, (name, p) in enumerate(self._targets.items())}
        self.parameters = [factor for pair in self._factors.values() for factor in pair]
        self.flat = _joined(self.parameters)

    @torch.no_grad()
    def pull(self, share: float) -> None:
        """Make the change smaller by a share, and what it changes as much nearer to the source weights."""
        for (_, B), before, source in zip(self._factors.values(), self._before.values(), self._sources, strict=True):
            B.mul_(1 - share)
            before.lerp_(source, share)

    def tape(self, backbone: Backbone, voxels: VoxelInput) -> None:
        """A tape knows the backbone's own weights alone."""

    def weights(self) -> Mapping[str, Tensor]:
        """The changed weights, differentiable with respect to the factors."""
        return {
            name: self._before[name] + (A @ B).view_as(self._before[name]) for name, (A, B) in self._factors.items()
        }

    @torch.no_grad()
    def fold(self) -> None:
        """Write the changed weights into the backbone."""
        for name, weight in self.weights().items():
            self._targets[name].copy_(weight)


def make_scope(backbone: Backbone, scope: str, source: Backbone) -> Scope:
    """What moves in a scope, from the backbone's weights as they are."""
    return LowRankScope(backbone, source) if scope == "lora" else Scope(backbone, scope, source)


def _joined(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """The parameters in one tensor, which they become views of."""
    flat = torch.cat([p.detach().flatten() for p in parameters])
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = part.view_as(parameter)
    return nn.Parameter(flat, requires_grad=False)


def _factors(weight: Tensor, seed: int) -> tuple[nn.Parameter, nn.Parameter]:
    rows, columns = weight.shape[0] * weight.shape[1], weight.shape[2]
    rank = min(LORA_RANK, rows, columns)
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(rows, rank, generator=generator) / math.sqrt(rows)
    return nn.Parameter(A.to(weight)), nn.Parameter(weight.new_zeros(rank, columns))
