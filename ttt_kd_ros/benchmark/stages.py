"""The stages of one frame, one by one, beside what they would be without what makes them fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ttt_kd_ros.adaptation.cost import Clock
from ttt_kd_ros.adaptation.session import AdaptationSession
from ttt_kd_ros.adaptation.settings import PARTS_IN_TIME, AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets, point_targets
from ttt_kd_ros.adaptation.view import parts_of, view_of
from ttt_kd_ros.benchmark.limits import (
    Machine,
    Work,
    forward_work,
    maps_work,
    mean_work,
    step_work,
    unet_on,
    voxelise_work,
)
from ttt_kd_ros.benchmark.plain import plain_network
from ttt_kd_ros.frame import Frame
from ttt_kd_ros.geometry.pairing import pair_points
from ttt_kd_ros.geometry.projection import scale_camera
from ttt_kd_ros.geometry.transforms import transform_points
from ttt_kd_ros.model.network import Network, most_likely
from ttt_kd_ros.model.voxel_input import VoxelInput
from ttt_kd_ros.sparse.voxels import build_pyramid, coordinate_range, voxelise
from ttt_kd_ros.teacher.load import Teacher

STEP, STEP_PART, STEP_ALL, STEP_REBUILT, STEP_PLAIN = (
    "step on the view",
    "step on the view, a part of it decoded",
    "step on the whole scan",
    "step on the whole scan, maps rebuilt",
    "step on the whole scan, plain convolutions",
)
EVERYWHERE_M = 1e4


@dataclass(frozen=True)
class Stage:
    """A piece of work.

    Parameters
    ----------
    name
        What it is.
    run
        Does it once.
    work
        What it asks of the machine; None if not counted.
    parts
        How often the piece occurs in one run.
    """

    name: str
    run: Callable[[], object]
    work: Work | None = None
    parts: int = 1


@dataclass(frozen=True)
class Timing:
    """How long a stage took [ms]: median, quartiles, and least time that the machine allows (None if not counted)."""

    median: float
    low: float
    high: float
    limit: float | None


@dataclass(frozen=True)
class Prepared:
    """A frame on its way: points in scan and in base frame, voxels, and targets where it has pictures."""

    frame: Frame
    points: Tensor
    base_points: Tensor
    voxels: VoxelInput
    pairs: PointTargets | None


@torch.no_grad()
def prepare(frame: Frame, network: Network, teacher: Teacher) -> Prepared:
    """What the stages of a frame start from."""
    device = next(network.parameters()).device
    points = torch.from_numpy(np.ascontiguousarray(frame.scan.points, dtype=np.float32)).to(device)
    base_points = transform_points(frame.scan.T_base_scan, points)
    valid = (base_points.abs() < coordinate_range(network.config.voxel_size)).all(dim=1)
    points, base_points = points[valid], base_points[valid]
    pairs = point_targets(points, frame.views, teacher, network.reduction)
    return Prepared(frame, points, base_points, network.voxel_input(base_points), pairs if len(pairs.points) else None)


def stages(prepared: Prepared, network: Network, teacher: Teacher, settings: AdaptationSettings) -> list[Stage]:
    """The stages of a frame in the order of time, those of the gradient steps where it has pairs."""
    result = [*_input_stages(prepared, network, teacher), *_network_stages(prepared, network)]
    if prepared.pairs is not None:
        result += _step_stages(prepared.voxels, prepared.pairs, network, settings)
    return result


def _input_stages(prepared: Prepared, network: Network, teacher: Teacher) -> list[Stage]:
    points, base_points, voxels = prepared.points, prepared.base_points, prepared.voxels
    views, config = prepared.frame.views, network.config
    unet, pyramid = unet_on(network, voxels)
    images = [torch.from_numpy(view.image).to(points.device) for view in views]

    def pair() -> None:
        for view in views:
            camera = scale_camera(view.camera, view.image.shape[1], view.image.shape[0])
            pair_points(points, view.T_camera_scan, camera)

    result = [
        Stage("voxelise", lambda: voxelise(base_points, config.voxel_size), voxelise_work(points, len(voxels.grid))),
        Stage(
            "kernel maps",
            lambda: build_pyramid(voxels.grid.keys, unet.config.depth, unet.config.stem_kernel_size),
            maps_work(pyramid),
        ),
    ]
    if views:
        result += [Stage("pairing", pair), Stage("teacher", lambda: teacher.features(images))]
    return result


def _network_stages(prepared: Prepared, network: Network) -> list[Stage]:
    voxels = prepared.voxels
    work = forward_work(*unet_on(network, voxels))

    @torch.no_grad()
    def forward() -> tuple[Tensor, Tensor]:
        return network(voxels)

    def predict() -> tuple[Tensor, Tensor]:
        confidence, labels = most_likely(forward()[0])
        inverse = voxels.grid.inverse
        return confidence.index_select(0, inverse), labels.index_select(0, inverse)

    return [Stage("forward", forward, work), Stage("prediction", predict, work)]


def step_stage(
    name: str,
    network: Network,
    voxels: VoxelInput,
    pairs: PointTargets,
    settings: AdaptationSettings,
    work: Work | None = None,
) -> Stage:
    """The gradient steps on a scan, from the source weights each time."""
    session = AdaptationSession(deepcopy(network), settings)

    def run() -> None:
        session.adapt(voxels, pairs)
        session.reset()

    return Stage(name, run, work, settings.steps)


def _step_stages(
    voxels: VoxelInput, pairs: PointTargets, network: Network, settings: AdaptationSettings
) -> list[Stage]:
    distance = settings.margin_m / network.config.voxel_size
    view = view_of(voxels, pairs, distance)
    whole = replace(settings, decoded_parts=1)
    in_parts = replace(settings, decoded_parts=PARTS_IN_TIME)
    everywhere = replace(whole, margin_m=EVERYWHERE_M)
    parts = [part.voxels for part in parts_of(view, PARTS_IN_TIME)]
    on_view, on_all, *on_parts = (
        step_work(*unet_on(network, v), settings.scope) for v in (view.voxels, voxels, *parts)
    )
    unet = unet_on(network, voxels)[0].config
    on_whole_scan = step_stage(STEP_ALL, network, voxels, pairs, everywhere, on_all)

    def rebuild() -> None:
        for _ in range(settings.steps):
            build_pyramid(voxels.grid.keys, unet.depth, unet.stem_kernel_size)
        on_whole_scan.run()

    return [
        Stage("view", lambda: view_of(voxels, pairs, distance), maps_work(unet_on(network, view.voxels)[1])),
        step_stage(STEP, network, voxels, pairs, whole, on_view),
        step_stage(STEP_PART, network, voxels, pairs, in_parts, mean_work(on_parts)),
        on_whole_scan,
        Stage(STEP_REBUILT, rebuild, on_all, settings.steps),
        step_stage(STEP_PLAIN, plain_network(network), voxels, pairs, everywhere, on_all),
    ]


def measure(
    frames: Iterable[Sequence[Stage]], machine: Machine, repeats: int, clock: Clock = time.perf_counter
) -> dict[str, Timing]:
    """Time the stages of some frames, one stage after the other in each repeat, by a clock [s]."""
    times: dict[str, list[float]] = {}
    limits: dict[str, list[float]] = {}
    for frame in frames:
        for stage in frame:
            stage.run()
            if stage.work is not None:
                limits.setdefault(stage.name, []).append(stage.work.limit_ms(machine))
        for _ in range(repeats):
            for stage in frame:
                start = clock()
                stage.run()
                times.setdefault(stage.name, []).append((clock() - start) * 1e3 / stage.parts)
    return {name: _timing(values, limits.get(name)) for name, values in times.items()}


def _timing(values: Sequence[float], limits: Sequence[float] | None) -> Timing:
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return Timing(median, low, high, statistics.median(limits) if limits else None)


def ratios(timings: Mapping[str, Timing]) -> dict[str, float]:
    """What a step costs beside a forward pass over the whole scan, and beside the steps that it replaces."""
    if STEP not in timings:
        return {}
    step = timings[STEP].median
    slower = (STEP_ALL, STEP_REBUILT, STEP_PLAIN)
    return {f"{name} / forward": timings[name].median / timings["forward"].median for name in (STEP, STEP_PART)} | {
        f"{name} / {STEP}": timings[name].median / step for name in slower
    }
