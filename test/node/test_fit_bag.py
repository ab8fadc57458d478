"""Fitting to bags."""

import data_folders
import pytest
import torch

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.cli import main
from ttt_kd_ros.model.checkpoint import save_checkpoint
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.model.unet import UNetConfig


def test_a_bag_without_pairs_is_refused(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `efficientnet`")
    torch.manual_seed(0)
    teacher = TeacherSpec("efficientnet-lite0", "efficientnet-lite0", 64, 472)
    unet = UNetConfig(8, 3, (8, 12), (12, 8), (1, 1), (1, 1))
    checkpoint = tmp_path / "model.safetensors"
    save_checkpoint(checkpoint, Network(NetworkConfig(load_classes("street6"), teacher, 0.5, 8, unet)), {})
    folder, bag, out = data_folders.semantickitti(tmp_path / "folder", pictures=0), tmp_path / "bag", tmp_path / "out"
    assert main(["convert", str(folder), str(bag)]) == 0
    assert main(["fit", str(bag), "--checkpoint", str(checkpoint), "--out", str(out)]) == 2
    assert "none of the 3 scans has 100 points in a picture" in capsys.readouterr().err
    assert not list(out.iterdir())
