"""On what a training runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import torch

from ttt_kd_ros.errors import InputError

LONGEST_WAIT = timedelta(days=20)
"""Of processes for one another; sockets count milliseconds in 32 bits, which hold 24 days."""
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Launch:
    """How Lightning starts a training.

    Parameters
    ----------
    accelerator
        ``auto``, ``cpu`` or ``gpu``.
    devices
        Devices of each node: a process each, with the same model and its own batches.
    nodes
        Machines; Lightning finds the others as Slurm or torchrun set them up.
    precision
        ``32-true``, ``bf16-mixed`` or ``16-mixed``.
    accumulate
        Batches of each process that go into a step.
    tensorboard
        Write logs for TensorBoard too.

    Raises
    ------
    InputError
        If a value is out of range or TensorBoard is not installed.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    accumulate: int = 1
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if min(self.devices, self.nodes, self.accumulate) < 1:
            raise InputError("devices, nodes and accumulate must be at least 1")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision '{self.precision}' is unknown; choose one of {', '.join(PRECISIONS)}")
        if self.tensorboard and not any(map(find_spec, ("tensorboard", "tensorboardX"))):
            raise InputError("TensorBoard is not installed: pip install 'ttt_kd_ros[training]'")

    @property
    def batches_per_step(self) -> int:
        """Batches of all processes that go into a step."""
        return self.devices * self.nodes * self.accumulate

    @property
    def teacher_device(self) -> torch.device:
        """Where the image model describes the pictures: on the GPU that trains, if there is a single one."""
        alone = self.devices * self.nodes == 1 and self.accelerator != "cpu"
        return torch.device("cuda" if alone and torch.cuda.is_available() else "cpu")

    def trainer_options(self) -> dict[str, Any]:
        """What of it Lightning's trainer is told."""
        return {
            "accelerator": self.accelerator,
            "devices": self.devices,
            "num_nodes": self.nodes,
            "precision": self.precision,
            "accumulate_grad_batches": self.accumulate,
            "strategy": self._strategy(),
        }

    def _strategy(self) -> Any:
        """Processes wait for one another as long as preparing a data set takes, which each of them does."""
        if self.devices * self.nodes == 1:
            return "auto"
        from lightning.pytorch.strategies import DDPStrategy

        return DDPStrategy(timeout=LONGEST_WAIT)
