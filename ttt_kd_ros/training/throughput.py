"""How fast a training is, and how long it would take."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
import torch

from ttt_kd_ros.device import device_name, finished_at
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.training.config import TrainingConfig
from ttt_kd_ros.training.joint import train
from ttt_kd_ros.training.launch import Launch
from ttt_kd_ros.training.samples import TrainingScan

WARM_UP = 1
"""Steps that are not counted."""


@dataclass(frozen=True)
class Throughput:
    """Speed and memory of a training.

    Parameters
    ----------
    device
        What it ran on.
    step_s
        Mean time of a step [s].
    scans_per_s
        Scans that all processes together learned from.
    peak_gb
        Largest memory: of the GPU, or of the process with all of its data on a CPU.
    """

    device: str
    step_s: float
    scans_per_s: float
    peak_gb: float


class _Clock(lightning.Callback):
    """Takes the time from the end of the warm-up to the end of the last step."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *rest: Any) -> None:
        self.times.setdefault(trainer.global_step, finished_at(module.device))
        self.device = module.device


def measure(
    network: Network, scans: Sequence[TrainingScan], config: TrainingConfig, seed: int, steps: int, launch: Launch
) -> Throughput:
    """Train some steps after one that is not counted; nothing is kept of them.

    Raises
    ------
    InputError
        If `steps` is not positive.
    """
    if steps < 1:
        raise InputError("at least one step must be measured")
    clock = _Clock()
    with TemporaryDirectory() as directory:
        short = replace(config, steps=steps + WARM_UP)
        train(network, scans, short, seed, Path(directory), resume=False, launch=launch, callbacks=(clock,))
    step_s = (clock.times[steps + WARM_UP] - clock.times[WARM_UP]) / steps
    on_gpu = clock.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(clock.device) if on_gpu else _peak_bytes()
    return Throughput(device_name(clock.device), step_s, _scans_per_step(config, launch) / step_s, peak / 1e9)


def describe(found: Throughput, config: TrainingConfig, launch: Launch) -> str:
    """Lines on what was measured and how long all steps of a configuration would take."""
    return (
        f"{found.device}: {found.step_s:.2f} s a step of {_scans_per_step(config, launch)} scans, "
        f"{found.scans_per_s:.2f} scans/s, peak memory {found.peak_gb:.1f} GB\n"
        f"{config.steps} steps at this speed: {config.steps * found.step_s / 3600:.1f} h"
    )


def _scans_per_step(config: TrainingConfig, launch: Launch) -> int:
    return (config.paired_per_step + config.labelled_per_step) * launch.batches_per_step


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
