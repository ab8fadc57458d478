"""What can compute the sparse convolutions, side by side: time, memory, and distance from exact results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ttt_kd_ros.adaptation.cost import Clock
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.benchmark.limits import Machine
from ttt_kd_ros.benchmark.plain import plain_network
from ttt_kd_ros.benchmark.scaling import Sized, sized
from ttt_kd_ros.benchmark.stages import Stage, Timing, measure, step_stage
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.sparse_backend import BACKENDS, outputs_and_gradients
from ttt_kd_ros.model.voxel_input import VoxelInput
from ttt_kd_ros.sparse import products
from ttt_kd_ros.sparse.plain import PLAIN

NAIVE = "offset by offset"
"""Gather, multiply and scatter, one kernel offset after the other, each layer on its own."""
VOXELS = (20_000, 80_000, 200_000)
SCOPES = ("norm", "all")


@dataclass(frozen=True)
class Exactness:
    """Relative distance from the naive results in float64: of the outputs, and of the gradients of all weights."""

    outputs: float
    gradients: float


@dataclass(frozen=True)
class Comparison:
    """Backends side by side.

    Parameters
    ----------
    unusable
        Why a backend cannot be used on this device, by its name.
    exactness
        By backend, on the first number of voxels.
    times
        By number of voxels, backend and stage.
    peak_gb
        Largest memory of a step on all weights, by number of voxels and backend; empty but on a GPU.
    """

    unusable: Mapping[str, str]
    exactness: Mapping[str, Exactness]
    times: Mapping[int, Mapping[str, Mapping[str, Timing]]]
    peak_gb: Mapping[int, Mapping[str, float]]


def compare_backends(
    network: Network,
    scans: Sequence[Tensor],
    settings: AdaptationSettings,
    machine: Machine,
    repeats: int,
    clock: Clock,
    counts: Sequence[int] = VOXELS,
) -> Comparison:
    """Time a forward pass, and steps that move the batch norms or all weights, by each backend in turns.

    Parameters
    ----------
    network
        A sparse U-Net on the device to measure, in evaluation mode.
    scans, settings, machine, repeats, clock, counts
        See `scaling`.
    """
    device = next(network.parameters()).device
    problems = {name: backend.problem(device) for name, backend in BACKENDS.items()}
    networks = {NAIVE: plain_network(network)} | {name: network for name, problem in problems.items() if not problem}
    exactness, failures = _exactness(networks, sized(network, scans, counts[0]).voxels)
    problems |= failures
    networks = {name: networks[name] for name in exactness}
    times: dict[int, dict[str, dict[str, Timing]]] = {}
    peak_gb: dict[int, dict[str, float]] = {}
    for count in counts:
        part = sized(network, scans, count)
        stages = {name: list(_stages(name, net, part, settings)) for name, net in networks.items()}
        found = measure([[stage for one in stages.values() for stage in one]], machine, repeats, clock)
        times[count] = {
            name: {stage.name.removeprefix(f"{name}: "): found[stage.name] for stage in one}
            for name, one in stages.items()
        }
        if device.type == "cuda":
            peak_gb[count] = {name: _peak_gb(one[-1], device) for name, one in stages.items()}
    return Comparison({n: p for n, p in problems.items() if p}, exactness, times, peak_gb)


def _stages(name: str, network: Network, part: Sized, settings: AdaptationSettings) -> Iterator[Stage]:
    @torch.no_grad()
    def forward() -> object:
        return network(part.voxels)

    yield Stage(f"{name}: forward", _by(name, forward))
    for scope in SCOPES:
        chosen = replace(settings, scope=scope)
        stage = step_stage(f"{name}: step, {scope}", network, part.voxels, part.pairs, chosen)
        yield replace(stage, run=_by(name, stage.run))


def _by(name: str, run: Callable[[], object]) -> Callable[[], object]:
    """Let a backend compute, whatever computed before."""

    def by_backend() -> object:
        with products.using(BACKENDS.get(name, PLAIN)):
            return run()

    return by_backend


def _exactness(networks: Mapping[str, Network], voxels: VoxelInput) -> tuple[dict[str, Exactness], dict[str, str]]:
    """How exact each backend is, or why it fails."""
    exact = copy.deepcopy(networks[NAIVE]).double()
    expected = _outputs_and_gradients(exact, replace(voxels, features=voxels.features.double()))
    found, failures = {}, {}
    for name, network in networks.items():
        try:
            with products.using(BACKENDS.get(name, PLAIN)):
                outputs, gradients = _outputs_and_gradients(network, voxels)
        except Exception as error:  # noqa: BLE001  an installation may be broken in any way
            failures[name] = f"it fails: {error}"
        else:
            found[name] = Exactness(_distance(outputs, expected[0]), _distance(gradients, expected[1]))
    return found, failures


def _outputs_and_gradients(network: Network, voxels: VoxelInput) -> tuple[Tensor, Tensor]:
    logits, features, *gradients = outputs_and_gradients(network, voxels)
    return torch.cat([logits.flatten(), features.flatten()]), torch.cat([gradient.flatten() for gradient in gradients])


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def _peak_gb(stage: Stage, device: torch.device) -> float:
    torch.cuda.reset_peak_memory_stats(device)
    stage.run()
    return torch.cuda.max_memory_allocated(device) / 1e9
