"""A benchmark of one data folder."""

from __future__ import annotations

import time

from ttt_kd_ros.adaptation.cost import Clock
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.benchmark.limits import Machine
from ttt_kd_ros.benchmark.margins import gradient_cosines
from ttt_kd_ros.benchmark.report import Result
from ttt_kd_ros.benchmark.scaling import scaling
from ttt_kd_ros.benchmark.sparse_backends import compare_backends
from ttt_kd_ros.benchmark.stages import measure, prepare, stages
from ttt_kd_ros.data import Folder
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.teacher.load import Teacher


def benchmark(
    network: Network,
    teacher: Teacher,
    folder: Folder,
    settings: AdaptationSettings,
    machine: Machine,
    *,
    frames: int,
    repeats: int,
    scale: bool = False,
    backends: bool = False,
    clock: Clock = time.perf_counter,
) -> Result:
    """Time the stages of the first frames of a folder.

    Parameters
    ----------
    network, teacher
        On the device to measure.
    folder
        Recorded or simulated; without pictures there are no steps to time.
    settings
        Of the steps.
    machine
        For the limits.
    frames, repeats
        How many frames, and how often each.
    scale
        Also measure time against the number of voxels.
    backends
        Also compare what can compute the sparse convolutions.
    clock
        Seconds.
    """
    network.eval().requires_grad_(False)
    prepared = [prepare(folder[index], network, teacher) for index in range(min(frames, len(folder)))]
    timings = measure((stages(p, network, teacher, settings) for p in prepared), machine, repeats, clock)
    first, scans = prepared[0], [p.base_points for p in prepared]
    return Result(
        folder.name,
        len(first.frame.views),
        [len(p.voxels.grid) for p in prepared],
        timings,
        gradient_cosines(network, first.voxels, first.pairs, settings) if first.pairs is not None else [],
        scaling(network, scans, settings, machine, repeats, clock) if scale else {},
        compare_backends(network, scans, settings, machine, repeats, clock) if backends else None,
    )
