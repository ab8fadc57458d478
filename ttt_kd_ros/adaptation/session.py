"""The steps of test-time training and the weights that they move."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from statistics import mean
from typing import cast

import torch
from torch import Tensor, nn

from ttt_kd_ros.adaptation.cost import Clock, Pace
from ttt_kd_ros.adaptation.guards import changed_share, largest_share
from ttt_kd_ros.adaptation.methods import NEEDS_TEACHER, Objective, objective
from ttt_kd_ros.adaptation.objective import distillation_loss
from ttt_kd_ros.adaptation.replayed import RECORD, STEP, Recorder, Replayed
from ttt_kd_ros.adaptation.scope import make_scope
from ttt_kd_ros.adaptation.settings import PARTS_IN_TIME, AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets, Targets
from ttt_kd_ros.adaptation.view import View, part_of, split, view_of
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.tape import Tape
from ttt_kd_ros.model.unet import SparseUNet
from ttt_kd_ros.model.voxel_input import VoxelInput

SHARPNESS_RADIUS = 0.05
"""Of `sar`: how far around the weights a high loss is looked for, as its authors have it."""
MOMENTUM, MOMENTUM_DECAY, MOMENTUM_FLOOR = 0.1, 0.94, 0.005
"""Of `statistics`: share of a scan's statistics in the first step and how it goes down, as DUA's authors have it."""
WHOLE_FROM = 5
"""How many whole steps must fit before a deadline for them not to be replaced by more and smaller ones."""
PART_SHARE = 0.6
"""Of a whole step's cost: what one is believed to take on one of `PARTS_IN_TIME` parts (docs/benchmarks.md)."""
FAMILIAR = "familiar"
"""Why no step is taken on a scan whose image features the source model predicts as well as in training."""
MIN_COARSE_VOXELS = 32
"""Of `AdaptationSettings.scan_statistics`: with fewer voxels on the coarsest level a scan has no statistics."""


@dataclass
class Steps:
    """The steps taken on one scan so far.

    Parameters
    ----------
    losses
        Distillation loss before each step, of the part that it decodes; NaN for methods without a teacher.
    stopped_by
        See `AdaptationReport`.
    paired_points
        Points with at least one pixel.
    trusted
        Whether the scan is (`AdaptationSettings.trust`).
    reach
        (V,) bool, voxels that the adapted weights may label: those near the view where the scan is not trusted; None
        for all, unless the scan is familiar.
    parts
        How many parts the steps take turns on.
    """

    losses: list[float] = field(default_factory=list)
    stopped_by: str = "steps"
    paired_points: int = 0
    trusted: bool = True
    reach: Tensor | None = None
    parts: int = 1

    @property
    def kd_losses(self) -> tuple[float, ...]:
        """Distillation loss before each step, mean over the last turn through the parts, the first one at first."""
        ends = (max(i, self.parts) for i in range(1, len(self.losses) + 1))
        return tuple(mean(self.losses[end - self.parts : end]) for end in ends)

    @property
    def familiar(self) -> bool:
        """Whether the source model labels the scan (`AdaptationSettings.familiar`)."""
        return self.stopped_by == FAMILIAR

    def undo(self, cause: str) -> None:
        """None of the steps is in the weights any more."""
        self.stopped_by = cause
        self.losses.clear()


@dataclass(eq=False)
class _Aim:
    """A part of the view, cut out when the first step on it is taken, and what steps on it minimise."""

    whole: View
    asked: Tensor | None
    minimise: Callable[[View], Objective]
    tape: Tape | None = None

    @cached_property
    def view(self) -> View:
        return part_of(self.whole, self.asked)

    @cached_property
    def loss(self) -> Objective:
        return self.minimise(self.view)

    def prepare(self) -> None:
        """Have all there that is made once: a recording must not hold it."""
        _ = self.loss
        self.view.voxels.pyramid.look_up(gradients=True)


@dataclass(frozen=True)
class _Scan:
    """What the steps on one scan need: they take turns on the aims, each with what takes a step on it."""

    view: View
    turns: tuple[tuple[_Aim, Replayed], ...]
    before: Tensor
    source_labels: Tensor | None
    start: float
    due: float


class AdaptationSession:
    """Adapts a network's backbone; the network is in evaluation mode during the steps and predictions.

    Batch norms use the statistics of training with a share of the scan's (`AdaptationSettings.scan_statistics`), never
    those of a scan alone, which made results worse in every experiment.

    Parameters
    ----------
    network
        Its backbone's weights are moved in place; the weights it comes with are the source weights.
    settings
        How to adapt.
    clock
        Seconds, monotonic.
    kd_level
        Mean cosine of ρ_2D with the teacher on the training pairs, which `AdaptationSettings.trust` and `familiar` are
        shares of.
    """

    def __init__(
        self,
        network: Network,
        settings: AdaptationSettings,
        clock: Clock = time.monotonic,
        kd_level: float = 1.0,
    ) -> None:
        self._network = network.eval().requires_grad_(False)
        self._source_network = deepcopy(self._network)
        self._state, self._source_state = _state(network), _state(self._source_network)
        self._statistics = [statistic.clone() for statistic in network.backbone.buffers()]
        self._clock = clock
        self._kd_level = kd_level
        self._device = next(network.parameters()).device
        self._recorder = Recorder(self._device)
        self._scan: _Scan | None = None
        self.pace = Pace(clock)
        """What the stages of a scan cost."""
        self.stopped = threading.Event()
        """Once it is set, from whichever thread, no step begins any more."""
        self.settings = settings.resolved()
        self._restart()

    def configure(self, settings: AdaptationSettings) -> None:
        """Change the settings; the weights stay, the state of the optimizer does not.

        With another share of scans' statistics, those of training are back until the next scan.
        """
        if settings.scan_statistics != self.settings.scan_statistics:
            self.restore_statistics()
        self.settings = settings.resolved()
        self._restart()

    def reset(self) -> None:
        """Go back to the source weights and the statistics of training."""
        _copy(self._statistics, self._source_network.backbone.buffers())
        self.load(self._source_state)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go on with other weights of the backbone, those of its state; the state of the optimizer is forgotten.

        The last scan is done with.
        """
        self._scan = None
        _copy((weights[name] for name in self._state), self._state.values())
        if self._scope.follows and self._scope.holds:
            self._forget()
        else:
            self._restart()

    @torch.no_grad()
    def take_statistics(self, voxels: VoxelInput) -> None:
        """Mix a scan's statistics into the batch norms', from those of training, whatever scans were before.

        They are those of the source model's features, in both networks.

        Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation", NeurIPS 2020.

        Parameters
        ----------
        voxels
            The whole scan.
        """
        self.restore_statistics()
        if voxels.pyramid.coarsest >= MIN_COARSE_VOXELS:
            _mix_statistics(self._source_network, voxels, self.settings.scan_statistics)
            _copy(self._source_network.backbone.buffers(), self._network.backbone.buffers())

    def restore_statistics(self) -> None:
        """Go back to the statistics of training."""
        for network in (self._network, self._source_network):
            _copy(self._statistics, network.backbone.buffers())

    def _restart(self) -> None:
        self._scope = make_scope(self._network.backbone, self.settings.scope, self._source_network.backbone)
        self._optimizer = _optimizer(self._scope.flat, self.settings)
        self._momentum = MOMENTUM
        if self._scan is not None:  # what was recorded moves other weights
            turns = self._turns(aim for aim, _ in self._scan.turns)
            self._scan = replace(self._scan, turns=turns, before=self._scope.flat.clone())

    def _forget(self) -> None:
        """Begin with steps as if there had been none; the optimizer's state stays, so that the next can be recorded."""
        for state in self._optimizer.state.values():
            for value in state.values():
                value.zero_()
        self._momentum = MOMENTUM

    def first_step(self, due: float = math.inf, *before: str) -> tuple[str, float]:
        """How the first step on a scan will be done, and the share of its cost that one on a part of the view has.

        Parameters
        ----------
        due
            When the scan's labels must be there, on the clock [s].
        before
            Stages that come before.

        Returns
        -------
        str, float
            ``step``, or ``record`` on a GPU; 1 for the whole view.
        """
        parts = self._parts(due, *before)
        how = self._recorder.first(bool(self._optimizer.state), math.ceil(self.settings.steps / parts))
        return how, _share(parts)

    def release(self) -> None:
        """Keep no memory of the last scan and its steps."""
        self._scan = None
        self._recorder.forget()

    def _turns(self, aims: Iterable[_Aim]) -> tuple[tuple[_Aim, Replayed], ...]:
        stepped = bool(self._optimizer.state)
        return tuple((aim, Replayed(partial(self._take_step, aim), self._recorder, warm=stepped)) for aim in aims)

    def _aims(self, view: View, source: Callable[[], tuple[Tensor, Tensor]], parts: int) -> Iterator[_Aim]:
        for asked in split(view, parts):
            yield _Aim(view, asked, partial(_objective, self.settings, source))

    def _parts(self, due: float, *before: str) -> int:
        """On how many parts of the view the steps on a scan take turns."""
        settings = self.settings
        if settings.method == "statistics" or not isinstance(self._network.backbone, SparseUNet):
            return 1
        if settings.decoded_parts or self._device.type != "cpu":
            return settings.decoded_parts or 1
        enough = [STEP] * min(settings.steps, WHOLE_FROM)
        return 1 if self.pace.fits(due, *before, *enough) else PARTS_IN_TIME

    def adapt(self, voxels: VoxelInput, pairs: PointTargets) -> Steps:
        """Take the settings' steps on a scan (see `begin` and `advance`)."""
        steps = self.begin(voxels, pairs)
        self.advance(steps, self.settings.steps)
        return steps

    def begin(self, voxels: VoxelInput, pairs: PointTargets, due: float = math.inf) -> Steps:
        """Take up a scan: the voxels near the paired ones and their targets.

        Parameters
        ----------
        voxels
            One scan.
        pairs
            Targets of its points, at least one.
        due
            When the labels must be there, on the clock [s]: no step begins that would make them late.

        Returns
        -------
        Steps
            None taken yet; `advance` goes on with it, and takes none if the scan is familiar.
        """
        if not self._scope.holds:
            self._restart()
        view = view_of(voxels, pairs, self.settings.margin_m / self._network.config.voxel_size)
        source = cache(lambda: self.source(view.voxels))
        guarded = self.settings.disagreement_share < 1
        source_labels = self.source(voxels)[0].argmax(dim=1)[view.near] if guarded else None
        turns = self._turns(self._aims(view, source, self._parts(due)))
        before = self._scope.flat.clone()
        self._scan = _Scan(view, turns, before, source_labels, start=self._clock(), due=due)
        familiar, trust = self.settings.familiar, self.settings.trust
        if self.settings.method not in NEEDS_TEACHER or not (familiar or trust):
            return Steps(parts=len(turns))
        cosine = 1 - distillation_loss(source()[1], view.targets).item()
        if familiar and cosine >= familiar * self._kd_level:
            return Steps(stopped_by=FAMILIAR)
        trusted = not trust or cosine >= trust * self._kd_level
        reach = None if trusted or view.near.all() else view.near
        return Steps(trusted=trusted, reach=reach, parts=len(turns))

    def advance(self, steps: Steps, count: int) -> None:
        """Take steps on the scan until there are `count`, or something stops them or has stopped them before.

        If a loss or a weight is not finite, the GPU's memory does not suffice or anything else fails, the weights are
        those from before the scan.
        """
        if steps.stopped_by != "steps":
            return
        scan = self._scan
        if scan is None:
            raise RuntimeError("begin a scan before advancing")
        try:
            for parameter in self._scope.parameters:
                parameter.requires_grad_(True)
            while len(steps.losses) < count and steps.stopped_by == "steps":
                steps.stopped_by = self._step(scan, steps, count - len(steps.losses))
            if not self._scope.flat.sum().isfinite():
                steps.stopped_by = "not finite"
        except torch.OutOfMemoryError:
            steps.stopped_by = "out of memory"
        except Exception:
            self._go_back(scan)
            raise
        finally:
            for parameter in self._scope.parameters:
                parameter.requires_grad_(False)
            self._scope.drop_gradients()
            for aim, _ in scan.turns:
                aim.tape = None
        if steps.stopped_by in ("not finite", "out of memory"):
            steps.undo(steps.stopped_by)
            self._go_back(scan)

    def _go_back(self, scan: _Scan) -> None:
        """The weights from before a scan."""
        self._scope.flat.copy_(scan.before)
        self._scope.fold()
        self._restart()

    def fault(self, voxels: VoxelInput, labels: Tensor, steps: Steps) -> str:
        """What is wrong with the (V,) labels that adapted weights gave a scan: ``collapse``, ``disagreement`` or empty.

        Parameters
        ----------
        voxels
            The scan.
        labels
            Its labels.
        steps
            The steps taken on it.
        """
        limit = self.settings.collapse_share
        if limit < 1 and largest_share(labels) > limit >= largest_share(self.source(voxels)[0].argmax(dim=1)):
            return "collapse"
        scan = self._scan
        if steps.losses and scan is not None and scan.source_labels is not None:
            changed = changed_share(labels[scan.view.near], scan.source_labels)
            return "disagreement" if changed > self.settings.disagreement_share else ""
        return ""

    def distillation(self, features: Tensor, targets: Targets) -> float:
        """Distillation loss of (V, D) features, NaN for methods without a teacher."""
        return self._distillation(features, targets).item()

    def _distillation(self, features: Tensor, targets: Targets) -> Tensor:
        if self.settings.method not in NEEDS_TEACHER:
            return features.new_full((), math.nan)
        return distillation_loss(features.detach(), targets, self.settings.loss)

    def _step(self, scan: _Scan, steps: Steps, left: int) -> str:
        """Take one step; returns what stops the next one, ``steps`` if nothing does."""
        if self.stopped.is_set():
            return "stopped"
        if self.settings.budget_ms and (self._clock() - scan.start) * 1e3 >= self.settings.budget_ms:
            return "budget"
        aim, step = scan.turns[len(steps.losses) % len(scan.turns)]
        how = step.next(math.ceil(left / len(scan.turns)))
        if not self._fits(scan, steps, how):
            if how != RECORD or not self._fits(scan, steps, STEP):
                return "deadline"
            how = STEP
        start = self._clock()
        outcome = self._move(aim, step, steps, how)
        self.pace.add(how, (self._clock() - start) / _share(len(scan.turns)))
        return outcome

    def _fits(self, scan: _Scan, steps: Steps, how: str) -> bool:
        """Whether a step and the predictions end in time: two where the source model labels what is out of reach."""
        after = () if steps.reach is None else ("predict",)
        return self.pace.fits(scan.due, how, *after, share=_share(len(scan.turns)))

    def _move(self, aim: _Aim, step: Replayed, steps: Steps, how: str) -> str:
        """Move the weights once; returns ``steps``, or ``not finite``."""
        if self.settings.method == "statistics":
            steps.losses.append(math.nan)
            self._drift_statistics(aim.view.voxels)
            return "steps"
        if how == RECORD:
            aim.prepare()
        distillation, loss = step(how).tolist()
        if not math.isfinite(loss):
            return "not finite"
        steps.losses.append(distillation)
        return "steps"

    def _take_step(self, aim: _Aim) -> Tensor:
        """Move the weights by a gradient; distillation loss and loss from before, (2,)."""
        features, loss = self._differentiate(aim)
        if self.settings.method == "sar":
            self._climb(aim)
        self._optimizer.step()
        if self.settings.pull:
            self._scope.pull(self.settings.pull)
        self._scope.fold()
        return torch.stack([self._distillation(features, aim.view.targets), loss.detach()])

    def _differentiate(self, aim: _Aim) -> tuple[Tensor, Tensor]:
        """ρ_2D's features and the loss, whose gradient is the weights' now."""
        self._scope.drop_gradients()  # there are some where a recording was broken off
        if aim.tape is None:
            aim.tape = self._scope.tape(self._network.backbone, aim.view.voxels)
        if aim.tape is None:
            logits, features = self._forward(aim.view.voxels)
            loss = aim.loss(logits, features)
            loss.backward()
            self._scope.gather_gradient()
            return features, loss
        hidden = aim.tape.forward().requires_grad_()
        logits, features = self._network.heads(hidden)
        loss = aim.loss(logits, features)
        loss.backward()
        self._scope.flat.grad = aim.tape.backward(cast(Tensor, hidden.grad))
        return features, loss

    def _forward(self, view: VoxelInput) -> tuple[Tensor, Tensor]:
        weights = {f"backbone.{name}": weight for name, weight in self._scope.weights().items()}
        return torch.func.functional_call(self._network, weights, (view,)) if weights else self._network(view)

    @torch.no_grad()
    def source(self, voxels: VoxelInput) -> tuple[Tensor, Tensor]:
        """Logits and features of the source model, whatever the weights are now."""
        return self._source_network(voxels)

    def _climb(self, aim: _Aim) -> None:
        """Replace the gradient by the one at the nearby weights where the loss is highest (SAR)."""
        flat = self._scope.flat
        gradient = cast(Tensor, flat.grad)
        offset = gradient * (SHARPNESS_RADIUS / (gradient.norm() + 1e-12))
        flat.add_(offset)
        self._differentiate(aim)
        flat.sub_(offset)

    @torch.no_grad()
    def _drift_statistics(self, view: VoxelInput) -> None:
        """Move the batch norms' statistics towards the scan's, by less with each step (DUA)."""
        if view.pyramid.coarsest > 1:  # one voxel has no variance
            self._momentum = self._momentum * MOMENTUM_DECAY + MOMENTUM_FLOOR
            _mix_statistics(self._network, view, self._momentum)


def _share(parts: int) -> float:
    """Of a whole step's cost: costs are kept as those of whole steps, whichever steps were measured."""
    return PART_SHARE if parts > 1 else 1.0


def _objective(settings: AdaptationSettings, source: Callable[[], tuple[Tensor, Tensor]], part: View) -> Objective:
    """What steps on a part minimise; the source model answers for the whole view."""

    def source_logits() -> Tensor:
        logits = source()[0]
        return logits if part.asked is None else logits[part.asked]

    return objective(settings, part.targets, source_logits)


def _mix_statistics(network: Network, voxels: VoxelInput, share: float) -> None:
    """Mix a share of the voxels' statistics into the batch norms'."""
    for norm in network.backbone.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.momentum = share
    network.backbone.train()
    try:
        network(voxels)
    finally:
        network.backbone.eval()


def _optimizer(weights: nn.Parameter, settings: AdaptationSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD([weights], lr=settings.learning_rate, momentum=0.9)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    device = weights.device.type
    return kind(
        [weights], lr=settings.learning_rate, fused=device in ("cpu", "cuda") or None, capturable=device == "cuda"
    )


def _state(network: Network) -> dict[str, Tensor]:
    """Parameters and buffers of the backbone, by name; to look them up takes a network longer than to copy them."""
    return {**dict(network.backbone.named_parameters()), **dict(network.backbone.named_buffers())}


@torch.no_grad()
def _copy(values: Iterable[Tensor], into: Iterable[Tensor]) -> None:
    torch._foreach_copy_(list(into), list(values))
