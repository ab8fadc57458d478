"""Frame in, segmentation out: the one thing that node, replay and evaluation call."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttt_kd_ros.adaptation.cost import Clock, Pace
from ttt_kd_ros.adaptation.methods import NEEDS_TEACHER
from ttt_kd_ros.adaptation.session import AdaptationSession, Steps
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets, point_targets, voxel_targets
from ttt_kd_ros.backends import MATMUL_PRECISIONS
from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.device import find_device, finished_at, free_memory
from ttt_kd_ros.errors import CheckpointError, InputError, TeacherError
from ttt_kd_ros.frame import IGNORE_LABEL, AdaptationReport, Frame, Segmentation
from ttt_kd_ros.geometry.transforms import transform_points
from ttt_kd_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ttt_kd_ros.model.difference import differences
from ttt_kd_ros.model.network import Network, most_likely
from ttt_kd_ros.model.sparse_backend import use_sparse_backend
from ttt_kd_ros.model.voxel_input import VoxelInput
from ttt_kd_ros.share import embedded_checkpoint
from ttt_kd_ros.sparse.voxels import coordinate_range
from ttt_kd_ros.teacher.load import Teacher, load_teacher
from ttt_kd_ros.teacher.remembering import RememberingTeacher

ADAPTATION_STAGES = ("statistics", "teacher", "adapt")
"""What adaptation adds to the time of a scan."""
SMALLEST_SCOPE = "decoder"
"""The scope whose steps need the least memory: the encoder keeps nothing for the gradient."""
ADAPTED_SCANS = "adapted_scans"
"""Under which name a manifest tells how many scans the weights were adapted to."""


@dataclass(frozen=True)
class Weights:
    """Weights of a backbone at one moment.

    Parameters
    ----------
    values
        By name.
    version
        Number of scans whose steps are in them.
    """

    values: Mapping[str, NDArray[Any]]
    version: int


class Segmenter:
    """Adapts a network to each frame and predicts.

    Parameters
    ----------
    network
        On the device to run on.
    teacher
        The image model that the network was trained with, on the same device; None if `settings.mode` stays ``off``.
    settings
        How to adapt.
    clock
        Seconds, monotonic.
    training
        How the network was trained, as its checkpoint's manifest says; saved weights say the same.

    Raises
    ------
    TeacherError
        If the teacher is not the one that the network was trained with, or is missing.
    """

    def __init__(
        self,
        network: Network,
        teacher: Teacher | None,
        settings: AdaptationSettings = AdaptationSettings(),
        clock: Clock = time.monotonic,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        _check_teacher(network, teacher)
        self._network = network
        self._teacher = teacher
        self._clock = clock
        self._training = dict(training or {})
        self._device = next(network.parameters()).device
        self._session = AdaptationSession(network, settings, clock, float(self._training.get("kd_cosine", 1.0)))
        self._weight_version = 0
        self._source_only = False
        self._met_sizes: set[tuple[int, ...]] = set()
        self.configure(settings)

    @property
    def classes(self) -> ClassList:
        """What the labels mean."""
        return self._network.config.classes

    @property
    def device(self) -> torch.device:
        """What it computes on."""
        return self._device

    @property
    def settings(self) -> AdaptationSettings:
        """How frames are adapted to."""
        return self._settings

    @property
    def pace(self) -> Pace:
        """What the stages of a scan cost."""
        return self._session.pace

    def configure(self, settings: AdaptationSettings) -> None:
        """Change how to adapt, between two frames; a change to ``off`` or ``offline`` goes back to the source weights.

        Raises
        ------
        TeacherError
            If adaptation is asked for and there is no teacher; nothing is changed then.
        """
        if settings.mode != "off" and settings.method in NEEDS_TEACHER and self._teacher is None:
            raise TeacherError(
                "adaptation needs the teacher, which is not loaded with mode off; load the segmenter with another mode "
                "(the node: clean it up, set adaptation.mode, configure it), or leave the mode off"
            )
        self._settings = settings
        self._source_only = False
        self._session.configure(settings)
        if settings.mode != "online":
            self.reset()
        if settings.mode == "off":
            self._session.release()

    def reset(self) -> None:
        """Go back to the source weights."""
        self._session.reset()
        self._weight_version = 0

    def forget_pictures(self) -> None:
        """Describe pictures that were seen before anew, as after loading, so that what adapting costs is seen."""
        if isinstance(self._teacher, RememberingTeacher):
            self._teacher.forget()

    def stop(self) -> None:
        """Begin no more gradient steps, the frame in work included; may be called from any thread."""
        self._session.stopped.set()

    def weights(self) -> Weights:
        """A copy of the weights as they are now."""
        values = self._network.backbone.state_dict()
        return Weights({name: value.cpu().numpy().copy() for name, value in values.items()}, self._weight_version)

    def take(self, weights: Weights) -> None:
        """Go on with weights of the same network."""
        self._session.load({name: torch.from_numpy(value) for name, value in weights.values.items()})
        self._weight_version = weights.version

    def save_weights(self, path: str | Path) -> None:
        """Write the network as it is now to a checkpoint, whose manifest tells the number of scans adapted to.

        Raises
        ------
        CheckpointError
            If the file cannot be written.
        """
        if self._settings.scan_statistics:  # they are of the last scan
            self._session.restore_statistics()
        save_checkpoint(path, self._network, {**self._training, ADAPTED_SCANS: self._weight_version})

    def load_weights(self, path: str | Path) -> None:
        """Go on with weights that were adapted from the same source model.

        Raises
        ------
        CheckpointError
            If the file cannot be read or was adapted from another model; nothing is changed then.
        InputError
            If the weights would not be kept, because the mode is not ``online``; nothing is changed then.
        """
        mode = self._session.settings.mode
        if mode != "online":
            raise InputError(f"the mode is {mode}, which predicts with the source model; set it to online before")
        network, manifest = load_checkpoint(path)
        if problems := differences(network, self._network):
            raise CheckpointError(f"{path}: was not adapted from this model: {'; '.join(problems)}")
        self._session.load(network.backbone.state_dict())
        self._weight_version = int(manifest.training.get(ADAPTED_SCANS, 0))

    def segment(self, frame: Frame, due: float = math.inf) -> Segmentation:
        """Adapt to a frame within the settings' bounds and label its points.

        Parameters
        ----------
        frame
            Scan and pictures.
        due
            When the labels must be there, on the clock [s]: no more steps are taken than end in time.

        Returns
        -------
        Segmentation
            One label for each point, in the order of the scan.
        """
        return self.segment_after(frame, (self._session.settings.steps,), due)[0]

    def segment_after(self, frame: Frame, counts: Sequence[int], due: float = math.inf) -> tuple[Segmentation, ...]:
        """Label a frame's points after each of some numbers of steps of one run.

        Parameters
        ----------
        frame
            Scan and pictures.
        counts
            Numbers of steps, rising.
        due
            See `segment`.

        Returns
        -------
        tuple of Segmentation
            For each count what `segment` gives with the settings' steps at this count; its timings hold all steps up
            to there.
        """
        stage = _Stopwatch(self._clock, self._device)
        with stage("voxelise"):
            points = torch.from_numpy(np.ascontiguousarray(frame.scan.points, dtype=np.float32)).to(self._device)
            base_points = transform_points(frame.scan.T_base_scan, points)
            limit = coordinate_range(self._network.config.voxel_size)
            valid = (base_points.abs() < limit).all(dim=1).nonzero().squeeze(1)
            if not len(valid):
                return tuple(self._unlabelled(len(points), stage.timings_ms) for _ in counts)
            voxels = self._network.voxel_input(base_points.index_select(0, valid))
        self._take_statistics(voxels, due, stage)
        pairs, steps = self._begin(voxels, points.index_select(0, valid), frame, due, stage)
        try:
            answers = self._answers(len(points), valid, voxels, pairs, steps, counts, stage)
        finally:
            if steps.losses and self._session.settings.mode == "offline":
                self.reset()
        if steps.stopped_by == "out of memory" and not self._source_only:
            self._need_less_memory()
        return answers

    def _answers(
        self,
        points: int,
        valid: Tensor,
        voxels: VoxelInput,
        pairs: PointTargets | None,
        steps: Steps,
        counts: Sequence[int],
        stage: _Stopwatch,
    ) -> tuple[Segmentation, ...]:
        """What the points are labelled after each count of steps."""
        version, answers = self._weight_version, []
        for count in counts:
            with stage("adapt"):
                if pairs is not None:
                    self._session.advance(steps, count)
                    self._weight_version = version + bool(steps.losses)
            with stage("predict"):
                labels, confidence, report = self._predict_in_memory(voxels, pairs, steps)
                answer = self._expand(points, valid, voxels.grid.inverse, labels, confidence)
            version = 0 if report.reset_by else version
            answers.append(Segmentation(*answer, report, dict(stage.timings_ms)))
            predictions = 1 if self._reach(steps) is None else 2
            self.pace.add("predict", stage.timings_ms.pop("predict") / 1e3 / predictions)
        return tuple(answers)

    def _take_statistics(self, voxels: VoxelInput, due: float, stage: _Stopwatch) -> None:
        settings, pace = self._session.settings, self.pace
        if settings.mode == "off" or not settings.scan_statistics or self._source_only:
            return
        if not pace.fits(due, "statistics"):
            pace.fade("statistics")
            self._session.restore_statistics()
            return
        try:
            with stage("statistics"):
                self._session.take_statistics(voxels)
        except torch.OutOfMemoryError:
            self._session.restore_statistics()
            free_memory()
            return
        pace.add("statistics", stage.timings_ms["statistics"] / 1e3)

    def _begin(
        self, voxels: VoxelInput, points: Tensor, frame: Frame, due: float, stage: _Stopwatch
    ) -> tuple[PointTargets | None, Steps]:
        """The scan's pairs and its steps, none taken yet; no pairs and the reason if there will be none."""
        if cause := self._why_no_steps(frame, due):
            return None, Steps(stopped_by=cause)
        settings, pace = self._session.settings, self.pace
        try:
            with stage("teacher"), torch.no_grad():
                teacher = self._teacher if settings.method in NEEDS_TEACHER else None
                pairs = point_targets(points, frame.views, teacher, self._network.reduction)
            sizes = {view.image.shape[:2] for view in frame.views}
            cold = not sizes <= self._met_sizes  # OpenVINO may translate the teacher for each
            pace.add("teacher", stage.timings_ms["teacher"] / 1e3, cold)
            self._met_sizes |= sizes
            paired = len(pairs.points.unique())
            if paired < max(1, settings.min_pairs):
                return None, Steps(stopped_by="few pairs", paired_points=paired)
            with stage("adapt"):
                steps = self._session.begin(voxels, pairs, due)
            pace.add("begin", stage.timings_ms["adapt"] / 1e3)
        except torch.OutOfMemoryError:
            return None, Steps(stopped_by="out of memory")
        steps.paired_points = paired
        return pairs, steps

    def _why_no_steps(self, frame: Frame, due: float) -> str:
        settings, pace = self._session.settings, self.pace
        if settings.mode == "off" or not settings.steps:
            return "off"
        if self._source_only:
            return "out of memory"
        if not frame.views:
            return "no views"
        step, share = self._session.first_step(due, "teacher", "begin")
        least = step, "teacher", "begin"
        if not pace.fits(due, *least, share=share):
            pace.fade(*least)
            return "deadline"
        return ""

    def _need_less_memory(self) -> None:
        """Move less of the network from now on; nothing if even that is too much."""
        settings = self._session.settings
        self._source_only = settings.scope == SMALLEST_SCOPE
        if self._source_only:
            self.reset()
        else:
            self._session.configure(replace(self._settings, scope=SMALLEST_SCOPE))
        self._session.release()
        free_memory()

    def _expand(
        self, count: int, valid: Tensor, inverse: Tensor, labels: Tensor, confidence: Tensor
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """From voxels to points: `IGNORE_LABEL` and no confidence for those that are not among the valid rows."""
        all_labels = torch.full((count,), IGNORE_LABEL, dtype=torch.uint8, device=self._device)
        all_confidence = torch.zeros(count, device=self._device)
        all_labels.index_copy_(0, valid, labels.to(torch.uint8).index_select(0, inverse))
        all_confidence.index_copy_(0, valid, confidence.index_select(0, inverse))
        return all_labels.cpu().numpy(), all_confidence.cpu().numpy()

    def _unlabelled(self, count: int, timings_ms: Mapping[str, float]) -> Segmentation:
        labels = np.full(count, IGNORE_LABEL, dtype=np.uint8)
        report = AdaptationReport(0, "no valid points", weight_version=self._weight_version)
        return Segmentation(labels, np.zeros(count, dtype=np.float32), report, timings_ms)

    def _reach(self, steps: Steps) -> Tensor | None:
        """(V,) bool, voxels that adapted weights label beside the source model; None where one model labels all."""
        return steps.reach if self._weight_version else None

    def _predict_in_memory(
        self, voxels: VoxelInput, pairs: PointTargets | None, steps: Steps
    ) -> tuple[Tensor, Tensor, AdaptationReport]:
        """`_predict`; if there is no memory left for it, once more in what the steps have taken, which end."""
        try:
            return self._predict(voxels, pairs, steps)
        except torch.OutOfMemoryError:
            if pairs is None:
                raise
        if not steps.familiar:
            steps.stopped_by = "out of memory"
        self._session.release()
        free_memory()
        return self._predict(voxels, pairs, steps)

    @torch.no_grad()
    def _predict(
        self, voxels: VoxelInput, pairs: PointTargets | None, steps: Steps
    ) -> tuple[Tensor, Tensor, AdaptationReport]:
        """Labels and confidence of the voxels, by the source model if the adapted weights are at fault."""
        logits, features = self._session.source(voxels) if steps.familiar else self._network(voxels)
        adapted = self._weight_version and not steps.familiar
        fault = self._session.fault(voxels, logits.argmax(dim=1), steps) if adapted else ""
        if fault:
            self.reset()
            steps.undo(fault)
            logits, features = self._network(voxels)
        if (reach := self._reach(steps)) is not None:
            logits = torch.where(reach[:, None], logits, self._session.source(voxels)[0])
        confidence, labels = most_likely(logits)
        losses = steps.kd_losses
        if pairs is not None and losses:
            losses += (self._session.distillation(features, voxel_targets(pairs, voxels.grid.inverse)),)
        report = AdaptationReport(
            len(steps.losses),
            steps.stopped_by,
            losses,
            steps.paired_points,
            self._weight_version,
            trusted=steps.trusted,
            reset_by=fault,
        )
        return labels, confidence, report


class _Stopwatch:
    """Times the stages of one frame, each until the device has done what it was given."""

    def __init__(self, clock: Clock, device: torch.device) -> None:
        self._clock = clock
        self._device = device
        self.timings_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._clock()
        yield
        finished_at(self._device)
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + (self._clock() - start) * 1e3


def _check_teacher(network: Network, teacher: Teacher | None) -> None:
    expected = network.config.teacher
    if teacher is not None and (teacher.name, teacher.feature_size) != (expected.name, expected.feature_size):
        raise TeacherError(
            f"the teacher is {teacher.name} with {teacher.feature_size} features, but the checkpoint was trained with "
            f"{expected.name} with {expected.feature_size}; load that teacher or a checkpoint trained with yours"
        )


def load_segmenter(
    checkpoint: str | Path = "",
    *,
    settings: AdaptationSettings = AdaptationSettings(),
    teacher: str = "",
    device: str = "cpu",
    threads: int = 0,
    sparse_backend: str = "auto",
    float32_matmul_precision: str = "highest",
    teacher_backend: str = "torch",
) -> Segmenter:
    """Load a checkpoint and, unless adaptation is off, its teacher.

    Parameters
    ----------
    checkpoint
        Written by `ttt_kd train`; empty for the one that comes with the package.
    settings
        How to adapt.
    teacher
        What to load the teacher from (see `load_teacher`); empty for the source named in the checkpoint.
    device
        A torch device.
    threads
        CPU threads of this process that compute; 0 leaves torch's choice.
    sparse_backend
        What computes sparse convolutions: ``torch``, ``native``, ``spconv``, ``triton``, or ``auto``: the fastest of
        those that can be used and are right.
    float32_matmul_precision
        Of this process, on GPUs (`torch.set_float32_matmul_precision`): ``highest``, or ``high``, which multiplies in
        TF32.
    teacher_backend
        What computes the teacher: ``torch``, or ``openvino`` on the CPU.

    Raises
    ------
    CheckpointError
        If the checkpoint is damaged or does not fit its manifest.
    TeacherError
        If the teacher cannot be loaded or is another one than the checkpoint was trained with.
    InputError
        If there is no such device, or a backend cannot be used on it.
    """
    target = find_device(device)
    if threads:
        torch.set_num_threads(threads)
    if float32_matmul_precision not in MATMUL_PRECISIONS:
        raise InputError(f"float32_matmul_precision is '{float32_matmul_precision}'; use highest or high")
    torch.set_float32_matmul_precision(float32_matmul_precision)
    network, manifest = load_checkpoint(checkpoint or embedded_checkpoint())
    network.to(target).eval()
    use_sparse_backend(sparse_backend, network)
    spec = manifest.network.teacher
    image_model: Teacher | None = None
    if settings.mode != "off":
        image_model = RememberingTeacher(
            load_teacher(teacher or spec.source, long_side=spec.long_side, device=target, backend=teacher_backend)
        )
    return Segmenter(network, image_model, settings, training=manifest.training)
