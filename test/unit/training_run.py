"""A small training as a program of its own: ``training_run.py OUT DEVICES ACCUMULATE [KILLED_AT]``."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.model.unet import UNetConfig
from ttt_kd_ros.training import joint
from ttt_kd_ros.training.config import TrainingConfig
from ttt_kd_ros.training.launch import Launch
from ttt_kd_ros.training.samples import TrainingScan

UNET = UNetConfig(4, 3, (4, 4), (4, 4), (1, 1), (1, 1))
CONFIG = TrainingConfig(load_classes("street6"), 0.5, 4, UNET, steps=6, labelled_per_step=1, learning_rate=5e-3)


def scans():
    rng = np.random.default_rng(0)
    made = []
    for folder in ("a", "b", "c"):
        points = torch.from_numpy(rng.uniform([0, -10, 0], [20, 10, 3], (800, 3)).astype(np.float32))
        pairs = PointTargets(torch.arange(0, 800, 2), torch.cat([points[::2], points[::2, :1]], dim=1))
        made.append(TrainingScan(points, (points[:, 2] > 1).byte(), pairs, folder, "drive"))
    return made


def run(out, launch, resume=False):
    joint.STEPS_PER_EPOCH = 3
    torch.manual_seed(0)
    network = Network(NetworkConfig(CONFIG.classes, TeacherSpec("none", "none", 0, 6), 0.5, 4, UNET))
    first = joint.train(network, scans(), CONFIG, 0, out, resume, launch=launch)
    return network.state_dict() if first else None


def kill_at(number):
    class Killed(joint.Steps):
        def __getitem__(self, step):
            if step == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(step)

    joint.Steps = Killed


if __name__ == "__main__":
    out, devices, accumulate, *killed_at = sys.argv[1:]
    for number in killed_at:
        kill_at(int(number))
    weights = run(Path(out), Launch("cpu", devices=int(devices), accumulate=int(accumulate)))
    if weights is not None:
        torch.save(weights, Path(out) / "weights.pt")
