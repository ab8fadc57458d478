"""Recorded drives through the node in a process of its own: one cloud for each scan, as it came."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.model.checkpoint import save_checkpoint
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.model.unet import UNetConfig
from ttt_kd_ros.replay.bag import open_bag, read
from ttt_kd_ros.replay.convert import convert
from ttt_kd_ros.replay.messages import POINT_CLOUD, cloud_field, deserialize
from ttt_kd_ros.replay.session import replay
from ttt_kd_ros.replay.settings import ReplaySettings, plan

CLASSES = load_classes("street6")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained small network for EfficientNet's features."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `efficientnet`")
    torch.manual_seed(0)
    teacher = TeacherSpec("efficientnet-lite0", "efficientnet-lite0", 640, 472)
    network = Network(NetworkConfig(CLASSES, teacher, 0.4, 8, UNetConfig(8, 3, (8, 16), (16, 8), (1, 1), (1, 1))))
    path = tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors"
    save_checkpoint(path, network, {})
    return path


def clouds(bag, topic):
    with open_bag(bag) as reader:
        return [deserialize(data, POINT_CLOUD) for _, _, data in read(reader, {topic})]


@pytest.mark.parametrize(
    ("folder", "cameras", "scans"),
    [
        pytest.param("kitti_raw_0926", 1, 40, marks=pytest.mark.data("kitti_raw_0926")),
        pytest.param("nuscenes_6cam", 6, 1, marks=pytest.mark.data("nuscenes_6cam")),
        pytest.param("pandaset_001", 1, 4, marks=pytest.mark.data("pandaset_001")),
    ],
)
def test_a_drive_is_answered_scan_by_scan(data_dir, tmp_path, checkpoint, folder, cameras, scans):
    convert(open_folder(data_dir / folder, CLASSES), tmp_path / "bag")
    parameters = {"adaptation.steps": 1, "image_wait_ms": 1000.0, "threads": 1}
    settings = ReplaySettings(str(checkpoint), 0.0, parameters, tmp_path / "out")
    result = replay(plan(tmp_path / "bag", settings))
    assert result.scans_in == result.clouds_out == scans
    assert [counts["used"] for counts in result.pictures.values()] == [scans] * cameras
    assert np.isfinite(list(result.kd_loss.values())).all()
    sent = clouds(tmp_path / "bag", "/points")
    answered = clouds(tmp_path / "out" / "segmentation", "/segment/segmentation")
    for scan, answer in zip(sent, answered, strict=True):
        assert answer.header == scan.header
        assert (answer.height, answer.width) == (scan.height, scan.width)
        for axis in "xyz":
            np.testing.assert_array_equal(cloud_field(answer, axis), cloud_field(scan, axis))
        labels, confidence = cloud_field(answer, "label"), cloud_field(answer, "confidence")
        assert labels.max() < len(CLASSES.names)
        assert ((confidence > 0) & (confidence <= 1)).all()
