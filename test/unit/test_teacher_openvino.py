"""OpenVINO in the place of PyTorch under a teacher: the same features."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ttt_kd_ros.errors import InputError, TeacherError
from ttt_kd_ros.teacher import FeatureGrid, load_teacher
from ttt_kd_ros.teacher.openvino import OpenVinoNetwork

transformers = pytest.importorskip("transformers")
pytest.importorskip("openvino")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A small DINOv2 with random weights."""
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=70
    )
    transformers.Dinov2Model(config).eval().save_pretrained(tmp_path)
    return tmp_path


def picture(height: int, width: int) -> Any:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(height))


def assert_same(found: tuple[FeatureGrid, ...], expected: tuple[FeatureGrid, ...]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.scale, ours.offset) == (theirs.scale, theirs.offset)
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("teacher", ["dinov2", "efficientnet"])
def test_features_of_pictures_of_any_size_are_those_of_torch_and_stay(teacher: str, directory: Path) -> None:
    spec = f"dinov2:{directory}" if teacher == "dinov2" else "efficientnet-lite0"
    by_torch, by_openvino = (load_teacher(spec, long_side=0, backend=name) for name in ("torch", "openvino"))
    pictures = [picture(56, 112), picture(96, 64), picture(56, 112)]
    found = [by_openvino.features([image])[0] for image in pictures]
    for image, features in zip(pictures, found, strict=True):
        assert_same(features, by_torch.features([image])[0])


def test_convolutions_are_translated_once_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = load_teacher("efficientnet-lite0", long_side=0, backend="openvino")
    teacher.features([picture(56, 112)])
    monkeypatch.delattr(OpenVinoNetwork, "_translate")
    teacher.features([picture(96, 64)])


def test_it_is_refused_on_a_gpu(directory: Path) -> None:
    with pytest.raises(InputError, match=r"on the CPU, not on 'cuda'.*teacher_backend torch"):
        load_teacher(f"dinov2:{directory}", device="cuda", backend="openvino")


def test_an_unknown_backend_is_refused(directory: Path) -> None:
    with pytest.raises(InputError, match="torch or openvino"):
        load_teacher(f"dinov2:{directory}", backend="tensorrt")


def test_where_it_is_not_installed_the_error_says_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(TeacherError, match="pip install openvino"):
        load_teacher(f"dinov2:{directory}", backend="openvino")
