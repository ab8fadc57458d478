"""Which weights of the backbone move, and how."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ttt_kd_ros.model.backbone import Backbone

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

    Attributes
    ----------
    parameters
        What the optimizer moves: parameters of the backbone themselves.
    """

    def __init__(self, backbone: Backbone, scope: str) -> None:
        self.parameters: list[nn.Parameter] = scope_parameters(backbone, scope)
        names = {id(p): name for name, p in backbone.named_parameters()}
        self._names = [names[id(p)] for p in self.parameters]

    @torch.no_grad()
    def pull(self, source: Mapping[str, Tensor], share: float) -> None:
        """Move what the optimizer moves a share of the way back to the source weights."""
        torch._foreach_lerp_(list(self.parameters), [source[name] for name in self._names], share)

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

    def __init__(self, backbone: Backbone) -> None:
        names = {id(p): name for name, p in backbone.named_parameters()}
        self._targets = {names[id(p)]: p for p in scope_parameters(backbone, "lora")}
        self._source = {name: p.detach().clone() for name, p in self._targets.items()}
        self._factors = {name: _factors(p, seed) for seed, (name, p) in enumerate(self._targets.items())}
        self.parameters = [factor for pair in self._factors.values() for factor in pair]

    @torch.no_grad()
    def pull(self, source: Mapping[str, Tensor], share: float) -> None:
        """Make the change smaller by a share."""
        for _, B in self._factors.values():
            B.mul_(1 - share)

    def weights(self) -> Mapping[str, Tensor]:
        """The changed weights, differentiable with respect to the factors."""
        return {
            name: self._source[name] + (A @ B).view_as(self._source[name]) for name, (A, B) in self._factors.items()
        }

    def _pairs(self) -> Iterator[tuple[tuple[str, Tensor], tuple[nn.Parameter, nn.Parameter]]]:
        return zip(self._source.items(), self._factors.values(), strict=True)

    @torch.no_grad()
    def fold(self) -> None:
        """Write the changed weights into the backbone."""
        for name, weight in self.weights().items():
            self._targets[name].copy_(weight)


def make_scope(backbone: Backbone, scope: str) -> Scope:
    """What moves in a scope, from the backbone's weights as they are."""
    return LowRankScope(backbone) if scope == "lora" else Scope(backbone, scope)


def _factors(weight: Tensor, seed: int) -> tuple[nn.Parameter, nn.Parameter]:
    rows, columns = weight.shape[0] * weight.shape[1], weight.shape[2]
    rank = min(LORA_RANK, rows, columns)
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(rows, rank, generator=generator) / math.sqrt(rows)
    return nn.Parameter(A.to(weight)), nn.Parameter(weight.new_zeros(rank, columns))
