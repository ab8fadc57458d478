"""The gradient steps of test-time training and the weights that they move."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ttt_kd_ros.adaptation.objective import distillation_loss, mean_entropy
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets, voxel_targets
from ttt_kd_ros.adaptation.view import near_voxels
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.unet import SparseUNet
from ttt_kd_ros.model.voxel_input import VoxelInput, crop

Clock = Callable[[], float]


@dataclass(frozen=True)
class Steps:
    """The steps taken on one scan.

    Parameters
    ----------
    kd_losses
        Distillation loss before each step.
    stopped_by
        ``steps``, ``budget``, ``stopped`` or ``not finite``.
    """

    kd_losses: tuple[float, ...]
    stopped_by: str


def scope_parameters(backbone: SparseUNet, scope: str) -> list[nn.Parameter]:
    """Parameters of the backbone that a scope moves (see `AdaptationSettings`)."""
    if scope == "norm":
        norms = (m for m in backbone.modules() if isinstance(m, nn.BatchNorm1d))
        return [p for m in norms for p in m.parameters()]
    if scope == "encoder":
        return [*backbone.stem.parameters(), *backbone.encoder.parameters()]
    if scope == "decoder":
        return list(backbone.decoder.parameters())
    return list(backbone.parameters())


class AdaptationSession:
    """Adapts a network's backbone; the network stays in evaluation mode throughout.

    Batch norms use the statistics of training: statistics of a single scan made results worse in every experiment.

    Parameters
    ----------
    network
        Its backbone's weights are moved in place; the weights it comes with are the source weights.
    settings
        How to adapt.
    clock
        Seconds, monotonic.
    """

    def __init__(self, network: Network, settings: AdaptationSettings, clock: Clock = time.monotonic) -> None:
        self._network = network.eval().requires_grad_(False)
        self._source = _copy(network.backbone.parameters())
        self._clock = clock
        self.stopped = threading.Event()
        """Once it is set, from whichever thread, no step begins any more."""
        self.configure(settings)

    def configure(self, settings: AdaptationSettings) -> None:
        """Change the settings; the weights stay, the state of the optimizer does not."""
        self.settings = settings
        self._parameters = scope_parameters(self._network.backbone, settings.scope)
        self._optimizer = _optimizer(self._parameters, settings)

    def reset(self) -> None:
        """Go back to the source weights."""
        _restore(self._network.backbone.parameters(), self._source)
        self._optimizer = _optimizer(self._parameters, self.settings)

    def adapt(self, voxels: VoxelInput, pairs: PointTargets) -> Steps:
        """Take gradient steps on the voxels near the paired ones.

        Parameters
        ----------
        voxels
            One scan.
        pairs
            Targets of its points, at least one.

        Returns
        -------
        Steps
            If a loss or a weight was not finite, the weights are those from before the scan.
        """
        seeds = voxel_targets(pairs, voxels.grid.inverse).voxels
        distance = self.settings.margin_m / self._network.config.voxel_size
        view = crop(voxels, near_voxels(voxels.grid, seeds, distance), self._network.config.unet)
        before = _copy(self._parameters)
        try:
            for parameter in self._parameters:
                parameter.requires_grad_(True)
            steps = self._descend(view, pairs)
        finally:
            for parameter in self._parameters:
                parameter.requires_grad_(False)
                parameter.grad = None
        if steps.stopped_by == "not finite":
            _restore(self._parameters, before)
            self._optimizer = _optimizer(self._parameters, self.settings)
        return steps

    def _descend(self, view: VoxelInput, pairs: PointTargets) -> Steps:
        targets = voxel_targets(pairs, view.grid.inverse)
        start = self._clock()
        losses: list[float] = []
        for _ in range(self.settings.steps):
            if self.stopped.is_set():
                return Steps(tuple(losses), "stopped")
            if self.settings.budget_ms and (self._clock() - start) * 1e3 >= self.settings.budget_ms:
                return Steps(tuple(losses), "budget")
            logits, features = self._network(view)
            distillation = distillation_loss(features, targets)
            loss = distillation
            if self.settings.entropy_weight:
                loss = loss + self.settings.entropy_weight * mean_entropy(logits)
            if not torch.isfinite(loss):
                return Steps(tuple(losses), "not finite")
            losses.append(distillation.item())
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        finite = all(bool(p.isfinite().all()) for p in self._parameters)
        return Steps(tuple(losses), "steps" if finite else "not finite")


def _optimizer(parameters: list[nn.Parameter], settings: AdaptationSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=0.9)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=settings.learning_rate)
    return torch.optim.Adam(parameters, lr=settings.learning_rate)


def _copy(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [p.detach().clone() for p in parameters]


def _restore(parameters: Iterable[Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
