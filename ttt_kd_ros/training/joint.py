"""Joint training of ρ_Y and ρ_2D on one backbone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.utils.data import DataLoader

from ttt_kd_ros.adaptation.objective import distillation_loss
from ttt_kd_ros.adaptation.targets import PointTargets, voxel_targets
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.model.difference import other_values
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.sparse_backend import use_sparse_backend
from ttt_kd_ros.training.adaptability import mean_adaptability
from ttt_kd_ros.training.batches import Batch, Steps
from ttt_kd_ros.training.config import TrainingConfig
from ttt_kd_ros.training.launch import Launch
from ttt_kd_ros.training.lovasz import lovasz_softmax
from ttt_kd_ros.training.samples import TrainingScan, class_weights, spread, voxel_labels
from ttt_kd_ros.training.start import started_with

STEPS_PER_EPOCH = 50
"""Steps between two saved states."""
SCANS_MEASURED = 200
"""Of the paired and of the held-out scans, at most, for the figures on a trained network."""
UNREADABLE = OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError, AttributeError, UnpicklingError
"""What comes of reading a state that is damaged or of another program."""
SCANS_WATCHED = 20
"""Of the held-out scans, at most, for those that are logged with each saved state."""
START = "started_with"
"""Key of a state; those of earlier versions do not have it."""


class JointTraining(lightning.LightningModule):
    """Cross-entropy of ρ_Y plus distillation into ρ_2D.

    Parameters
    ----------
    network
        The network.
    config
        Settings.
    scans
        Training scans; at least one has labels and one has pairs.
    held_out
        Scans with labels and pairs that are not trained on, may be none; of more than `SCANS_WATCHED` so many are used.
    seed
        Seed of the batches.
    start
        What its states say that it was started with (`started_with`).
    """

    _weights: Tensor

    def __init__(
        self,
        network: Network,
        config: TrainingConfig,
        scans: Sequence[TrainingScan],
        held_out: Sequence[TrainingScan],
        seed: int,
        start: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.network = network
        self._start = dict(start)
        self._config = config
        self._held_out = spread(held_out, SCANS_WATCHED)
        self._steps = Steps(scans, config, seed)
        self.register_buffer("_weights", class_weights(scans, len(config.classes.names)))

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches of the current epoch, so that a resumed run goes on with the same ones.

        A step takes as many batches as there are processes times accumulated ones: which of them falls to which process
        does not change what the step learns from.
        """
        start = self.current_epoch * STEPS_PER_EPOCH
        stop = min(start + STEPS_PER_EPOCH, self._config.steps)
        turns, processes = self.trainer.accumulate_grad_batches, self.trainer.world_size
        numbers = range(start * turns * processes + self.trainer.global_rank, stop * turns * processes, processes)
        return DataLoader(self._steps, batch_size=None, sampler=numbers)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Batches are values: they move as a whole."""
        return batch.to(device)

    def on_fit_start(self) -> None:
        """Let the fastest right backend compute the sparse convolutions on this device."""
        self.network.eval()
        use_sparse_backend("auto", self.network)
        self.network.train()

    def on_fit_end(self) -> None:
        """Leave them to PyTorch, which computes on every device."""
        use_sparse_backend("torch", self.network)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the state say what the training was started with."""
        checkpoint[START] = self._start

    def training_step(self, batch: Batch) -> Tensor:
        """Loss of one batch."""
        voxels = self.network.voxel_input(batch.points, batch.scan)
        logits, features = self.network(voxels)
        labels = voxel_labels(batch.labels, voxels.grid.inverse, len(voxels.grid), logits.shape[1])
        cross_entropy = F.cross_entropy(logits, labels, self._weights, ignore_index=IGNORE_LABEL)
        distillation = distillation_loss(features, voxel_targets(batch.pairs, voxels.grid.inverse))
        losses = {"ce": cross_entropy, "kd": distillation}
        total = cross_entropy + self._config.kd_weight * distillation
        if self._config.lovasz_weight:
            losses["lovasz"] = lovasz_softmax(logits, labels)
            total = total + self._config.lovasz_weight * losses["lovasz"]
        self.log_dict(losses, prog_bar=True, batch_size=1)
        return total

    def on_train_epoch_end(self) -> None:
        """Log how well the network can be adapted, on the scans that it does not see."""
        if self._held_out:
            self.network.eval()
            self.log_dict(asdict(mean_adaptability(self.network, self._held_out)), prog_bar=True)
            self.network.train()

    def configure_optimizers(self) -> Any:
        """AdamW with a one-cycle schedule over all steps."""
        optimizer = torch.optim.AdamW(
            self.parameters(), self._config.learning_rate, weight_decay=self._config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self._config.learning_rate, total_steps=self._config.steps
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(
    network: Network,
    scans: Sequence[TrainingScan],
    config: TrainingConfig,
    seed: int,
    directory: Path,
    resume: bool,
    held_out: Sequence[TrainingScan] = (),
    launch: Launch = Launch(),
    callbacks: Sequence[lightning.Callback] = (),
) -> bool:
    """Train a network in place.

    Parameters
    ----------
    network
        Freshly made; its reduction is fitted.
    scans
        Training scans; at least one has labels and one has pairs.
    config
        Settings.
    seed
        Seed of the batches; the network's own initialisation is the caller's.
    directory
        Where the state is kept every `STEPS_PER_EPOCH` steps, as ``last.ckpt``.
    resume
        Go on from that state.
    held_out
        Scans with labels and pairs to measure adaptability on each time the state is kept; ``metrics.csv`` has it.
    launch
        On what it runs.
    callbacks
        Further callbacks of Lightning.

    Returns
    -------
    bool
        Whether this process is the first one, which writes what there is to write.

    Raises
    ------
    InputError
        If there is no state to resume from, it is damaged, or its training was started with something else.
    """
    folders, teacher = (scan.folder for scan in scans), network.config.teacher
    start = started_with(config, seed, folders, teacher, launch.batches_per_step)
    state = directory / "last.ckpt"
    if resume:
        check_state(state, start)
        _keep_metrics(directory)
    module = JointTraining(network, config, scans, held_out, seed, start)
    trainer = lightning.Trainer(
        **launch.trainer_options(),
        use_distributed_sampler=False,
        max_epochs=-(-config.steps // STEPS_PER_EPOCH),
        reload_dataloaders_every_n_epochs=1,
        logger=_loggers(directory, launch),
        log_every_n_steps=1,
        enable_model_summary=False,
        default_root_dir=directory,
        callbacks=[
            TQDMProgressBar(),
            ModelCheckpoint(directory, filename="last", save_on_train_epoch_end=True, enable_version_counter=False),
            *callbacks,
        ],
        plugins=[_WholeFiles()],
    )
    network.train()
    trainer.fit(module, ckpt_path=state if resume else None, weights_only=False)
    network.cpu().eval()
    return trainer.is_global_zero


def check_state(state: Path, start: Mapping[str, Any]) -> None:
    """Refuse to go on from a state that is not there, is damaged or is of a training started with something else.

    Parameters
    ----------
    state
        A ``last.ckpt``.
    start
        What the training that is to go on is given (`started_with`).

    Raises
    ------
    InputError
        If it cannot go on.
    """
    if not state.is_file():
        raise InputError(f"there is nothing to resume in {state.parent}: {state.name} does not exist")
    try:
        saved = torch.load(state, map_location="cpu", mmap=True, weights_only=False)
        steps = saved["lr_schedulers"][0]["total_steps"]
        others = other_values(start, saved.get(START, {}))
    except UNREADABLE as error:
        raise InputError(f"{state} is damaged or no state of a training; begin anew with another --out") from error
    if steps != start["steps"]:
        raise InputError(
            f"the training in {state.parent} is one of {steps} steps, not of {start['steps']}: its learning rate falls "
            f"towards its end; give --steps {steps}, or begin anew with another --out"
        )
    if others:
        raise InputError(
            f"the training in {state.parent} was started with something else: {'; '.join(others)}; give the same, or "
            "begin anew with another --out"
        )


class _WholeFiles(TorchCheckpointIO):
    """Writes a state beside its place, on the same file system, and puts it there once it is complete.

    Lightning's own way leads through the directory for temporary files and keeps quiet where writing is not permitted.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        unfinished = Path(f"{path}.part")
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, unfinished)
        unfinished.replace(path)


def _keep_metrics(directory: Path) -> None:
    """Lightning begins ``metrics.csv`` anew: what is there gets the first free number."""
    numbered = (directory / f"metrics_{number}.csv" for number in itertools.count(1))
    with suppress(FileNotFoundError):  # there is none, or another process was first
        (directory / "metrics.csv").rename(next(path for path in numbered if not path.exists()))


def _loggers(directory: Path, launch: Launch) -> list[Logger]:
    loggers: list[Logger] = [
        CSVLogger(directory, name="", version="", flush_logs_every_n_steps=STEPS_PER_EPOCH),
    ]
    if launch.tensorboard:
        loggers.append(TensorBoardLogger(directory, name="", version="tensorboard"))
    return loggers


def mean_kd_cosine(network: Network, scans: Sequence[TrainingScan]) -> float:
    """Mean cosine of ρ_2D with the teacher over the paired scans, as they are, each scan weighing the same.

    Of more than `SCANS_MEASURED` so many are taken, evenly spread.
    """
    paired = [scan for scan in scans if scan.pairs is not None]
    cosines = []
    with torch.no_grad():
        for scan in spread(paired, SCANS_MEASURED):
            voxels = network.voxel_input(scan.points)
            _, features = network(voxels)
            targets = voxel_targets(cast(PointTargets, scan.pairs), voxels.grid.inverse)
            cosines.append(1 - distillation_loss(features, targets))
    return float(torch.stack(cosines).mean())
