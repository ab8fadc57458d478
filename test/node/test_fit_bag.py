"""Fitting to bags."""

import data_folders
import pytest
import torch
from tiny import UNET

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.cli import main
from ttt_kd_ros.model.checkpoint import save_checkpoint
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec


def test_a_bag_without_pairs_is_refused(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `efficientnet`")
    torch.manual_seed(0)
    teacher = TeacherSpec("efficientnet-lite0", "efficientnet-lite0", 64, 472)
    checkpoint = tmp_path / "model.safetensors"
    save_checkpoint(checkpoint, Network(NetworkConfig(load_classes("street6"), teacher, 0.5, 8, UNET)), {})
    folder, bag, out = data_folders.semantickitti(tmp_path / "folder", pictures=0), tmp_path / "bag", tmp_path / "out"
    assert main(["convert", str(folder), str(bag)]) == 0
    assert main(["fit", str(bag), "--checkpoint", str(checkpoint), "--out", str(out)]) == 2
    assert "none of the 3 scans has 100 points in a picture" in capsys.readouterr().err
    assert not list(out.iterdir())
