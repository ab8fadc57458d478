"""Trainings that are killed, that run in several processes, in other precisions, and how fast they are."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.training.config import load_training_config
from ttt_kd_ros.training.launch import Launch

pytest.importorskip("lightning", reason="needs the extra `training`")

import training_run

from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.training.spill import spill
from ttt_kd_ros.training.throughput import describe, measure

CPU = Launch("cpu")


def program(*arguments):
    path = [str(Path(training_run.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, training_run.__file__, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path):
    assert program(tmp_path / "parts", 1, 1, 4).returncode == -signal.SIGKILL
    resumed = training_run.run(tmp_path / "parts", CPU, resume=True)
    whole = training_run.run(tmp_path / "whole", CPU)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_two_processes_learn_from_the_same_batches_as_one_that_accumulates_two(tmp_path):
    done = program(tmp_path / "two", 2, 1)
    assert done.returncode == 0, done.stderr
    two = torch.load(tmp_path / "two" / "weights.pt")
    one = training_run.run(tmp_path / "one", Launch("cpu", accumulate=2))
    for name in two:
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(two[name], one[name], atol=1e-4, rtol=1e-3)


def test_mixed_precision_comes_near_full_precision(tmp_path):
    mixed = training_run.run(tmp_path / "mixed", Launch("cpu", precision="bf16-mixed"))
    full = training_run.run(tmp_path / "full", CPU)
    start = fresh().state_dict()
    name = "backbone.stem.convolution.weight"
    assert not torch.equal(mixed[name], full[name])
    assert (mixed[name] - full[name]).norm() < 0.3 * (full[name] - start[name]).norm()


def fresh():
    config = training_run.CONFIG
    torch.manual_seed(0)
    return Network(NetworkConfig(config.classes, TeacherSpec("none", "none", 0, 6), 0.5, 4, config.backbone))


def test_spilled_scans_are_read_from_their_files(tmp_path):
    paired, unpaired = training_run.scans()[0], replace(training_run.scans()[1], pairs=None)
    for number, scan in enumerate((paired, unpaired)):
        path = tmp_path / "spilled" / f"{number}.pt"
        spilled = spill(scan, path)
        assert str(path) in Path("/proc/self/maps").read_text()
        assert torch.equal(spilled.points, scan.points) and torch.equal(spilled.labels, scan.labels)
        assert (spilled.pairs is None) == (scan.pairs is None)
    assert torch.equal(spill(paired, path).pairs.features, paired.pairs.features)


def test_logs_for_tensorboard_are_written_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    training_run.run(tmp_path, Launch("cpu", tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_the_speed_is_measured_without_leaving_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = measure(fresh(), training_run.scans(), training_run.CONFIG, 0, 2, CPU)
    assert found.scans_per_s == pytest.approx(2 / found.step_s)
    assert 0 < found.peak_gb < 100
    assert "6 steps at this speed" in describe(found, training_run.CONFIG, CPU)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [({"devices": 0}, "at least 1"), ({"accumulate": 0}, "at least 1"), ({"precision": "8"}, "precision '8'")],
)
def test_a_launch_that_cannot_be_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        Launch(**values)


def test_processes_wait_for_one_another_as_long_as_preparing_takes():
    longest_wait = Launch(devices=2).trainer_options()["strategy"]._timeout
    assert timedelta(days=7) < longest_wait < timedelta(milliseconds=2**31)


@pytest.mark.parametrize(
    ("options", "device"), [({}, "cuda"), ({"devices": 2}, "cpu"), ({"accelerator": "cpu"}, "cpu")]
)
def test_pictures_are_described_on_the_gpu_where_a_single_one_trains(options, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Launch(**options).teacher_device.type == device


def test_the_lovasz_loss_and_the_mixing_are_configuration(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("classes: street6\nlovasz_weight: 1.0\naugmentation: {mix3d: 0.5, polarmix: 0.2}")
    config = load_training_config(path)
    assert (config.lovasz_weight, config.augmentation.mix3d, config.augmentation.polarmix) == (1.0, 0.5, 0.2)
