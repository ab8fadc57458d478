"""What a training is started with, and goes on with after an interruption."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ttt_kd_ros.model.backbone import kind_of
from ttt_kd_ros.model.network import TeacherSpec
from ttt_kd_ros.training.config import TrainingConfig


def started_with(
    config: TrainingConfig, seed: int, folders: Iterable[str], teacher: TeacherSpec, batches_per_step: int
) -> dict[str, Any]:
    """Plain values for the state of a training: what its weights come from.

    Parameters
    ----------
    config
        Settings.
    seed
        Seed of the batches.
    folders
        Name of each folder, in the order of the training; may come several times.
    teacher
        The image model.
    batches_per_step
        Batches of all processes that go into a step.
    """
    return asdict(config) | {
        "backbone": {"kind": kind_of(config.backbone)} | asdict(config.backbone),
        "seed": seed,
        "folders": ", ".join(dict.fromkeys(folders)),
        "teacher": asdict(teacher),
        "batches_per_step": batches_per_step,
    }
