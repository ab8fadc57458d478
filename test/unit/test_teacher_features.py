from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor, nn
from torch.nn import functional

from ttt_kd_ros.errors import InputError, TeacherError
from ttt_kd_ros.teacher import FeatureGrid, frozen, load_teacher, sample
from ttt_kd_ros.teacher.frozen import FrozenTeacher, Level


class Average(nn.Module):
    """Mean of each stride x stride block; `shift` moves the blocks right and down."""

    def __init__(self, strides: tuple[int, ...], shift: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.strides, self.shift = strides, shift

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        moved = functional.pad(picture, (0, self.shift, 0, self.shift), mode="replicate")
        moved = moved[..., self.shift :, self.shift :] * self.weight
        return tuple(functional.avg_pool2d(moved, stride) for stride in self.strides)


def teacher_of_averages(long_side: int, strides: tuple[int, ...] = (8,), shift: int = 0) -> FrozenTeacher:
    levels = [Level(3, stride, stride / 2 + shift) for stride in strides]
    network = Average(strides, shift)
    return FrozenTeacher("average", network, levels, mean=(0, 0, 0), std=(1, 1, 1), long_side=long_side)


def ramp(height: int, width: int) -> Tensor:
    """Red grows with u, green with v, both from 0 to 255."""
    image = torch.zeros(height, width, 3)
    image[..., 0] = torch.arange(width) * (255 / (width - 1))
    image[..., 1] = torch.arange(height)[:, None] * (255 / (height - 1))
    return image.round().to(torch.uint8)


def random_grid(generator: torch.Generator, channels: int, rows: int, columns: int) -> FeatureGrid:
    scale = (0.03 + columns / 200, 0.02 + rows / 100)
    return FeatureGrid(torch.randn(channels, rows, columns, generator=generator), scale, (-0.5 - columns / 90, -0.3))


def test_sampling_agrees_with_scipy_inside_and_outside_the_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    grids = [random_grid(generator, c, h, w) for c, h, w in ((3, 7, 11), (5, 4, 2), (1, 1, 9), (2, 6, 1), (2, 1, 1))]
    pixels = torch.rand(500, 2, generator=generator) * torch.tensor([300.0, 160.0]) - 40
    expected = []
    for grid in grids:
        uv = pixels.double().numpy()
        column, row = ((uv[:, axis] + 0.5) * grid.scale[axis] + grid.offset[axis] for axis in (0, 1))
        for channel in grid.values.double().numpy():
            expected.append(map_coordinates(channel, [row, column], order=1, mode="nearest"))

    result = sample(grids, pixels)

    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), np.stack(expected, axis=1), atol=2e-5)


def test_the_centre_of_a_cell_reads_exactly_that_cell() -> None:
    values = torch.arange(12.0).reshape(1, 3, 4)
    grid = FeatureGrid(values, (1 / 8, 1 / 16), (-0.5, -0.5))
    pixels = torch.tensor([[8 * column + 3.5, 16 * row + 7.5] for row in range(3) for column in range(4)])
    assert torch.equal(sample([grid], pixels)[:, 0], torch.arange(12.0))


def test_channels_of_all_grids_stand_side_by_side_in_their_order() -> None:
    grids = [FeatureGrid(torch.full((c, 2, 2), float(c)), (0.1, 0.1), (0, 0)) for c in (1, 3, 2)]
    assert sample(grids, torch.zeros(1, 2))[0].tolist() == pytest.approx([1, 3, 3, 3, 2, 2])


def test_no_pixels_give_no_rows() -> None:
    grid = FeatureGrid(torch.randn(5, 2, 3), (0.1, 0.1), (-0.5, -0.5))
    assert sample([grid, grid], torch.zeros(0, 2)).shape == (0, 10)


def test_float64_pixels_give_float32_features() -> None:
    grid = FeatureGrid(torch.randn(5, 2, 3), (0.1, 0.1), (-0.5, -0.5))
    pixels = torch.rand(7, 2, dtype=torch.float64) * 30
    torch.testing.assert_close(sample([grid], pixels), sample([grid], pixels.float()))


@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 4, 2)])
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    grid = FeatureGrid(torch.randn(5, 2, 3), (0.1, 0.1), (-0.5, -0.5))
    with pytest.raises(InputError, match="pixels"):
        sample([grid], torch.zeros(shape))


def test_sampling_without_a_grid_is_refused() -> None:
    with pytest.raises(InputError, match="grid"):
        sample([], torch.zeros(1, 2))


@pytest.mark.parametrize("size", [(90, 301), (301, 90), (128, 96)])
@pytest.mark.parametrize("long_side", [0, 200, 555])
@pytest.mark.parametrize("shift", [0, 3])
def test_resizing_does_not_move_what_is_sampled(size: tuple[int, int], long_side: int, shift: int) -> None:
    height, width = size
    teacher = teacher_of_averages(long_side, strides=(8, 16), shift=shift)
    grids = teacher.features([ramp(height, width)])[0]
    margin = 16 * max(size) / (long_side or max(size)) * 1.2
    u = torch.linspace(margin, width - 1 - margin, 41)
    v = torch.linspace(margin, height - 1 - margin, 41)

    red, green, _, red_coarse, green_coarse, _ = sample(grids, torch.stack([u, v], dim=1)).unbind(1)

    for found in (red, red_coarse):
        torch.testing.assert_close(found, u * (255 / (width - 1)), atol=0.6, rtol=0)
    for found in (green, green_coarse):
        torch.testing.assert_close(found, v * (255 / (height - 1)), atol=0.6, rtol=0)


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((375, 1242), 0, (23, 78)),
        ((375, 1242), 640, (12, 40)),
        ((1242, 375), 640, (40, 12)),
        ((1080, 1920), 650, (23, 41)),
        ((5, 400), 0, (1, 25)),
        ((1, 1), 0, (1, 1)),
        ((10, 10), 160, (10, 10)),
    ],
)
def test_both_sides_become_the_nearest_multiples_of_the_stride(
    size: tuple[int, int], long_side: int, expected: tuple[int, int]
) -> None:
    (grid,) = teacher_of_averages(long_side, strides=(16,)).features([torch.zeros(*size, 3, dtype=torch.uint8)])[0]
    assert grid.values.shape == (3, *expected)


def test_stripes_finer_than_the_resized_pixels_become_grey() -> None:
    stripes = torch.zeros(128, 128, 3, dtype=torch.uint8)
    stripes[:, ::3] = 255
    (grid,) = teacher_of_averages(32, strides=(1,)).features([stripes])[0]
    torch.testing.assert_close(grid.values, torch.full((3, 32, 32), 85.0), atol=25, rtol=0)


def test_pictures_of_one_size_go_through_the_network_together_where_that_is_quicker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [ramp(32, 64), ramp(48, 16), 255 - ramp(32, 64), ramp(32, 64)]
    teacher = teacher_of_averages(40)
    sizes: list[int] = []
    teacher.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    one_by_one = teacher.features(images)
    monkeypatch.setattr(frozen, "BATCHED", ("cpu",))
    together = teacher.features(images)
    assert sizes == [1, 1, 1, 1, 3, 1]
    for (found,), (expected,) in zip(together, one_by_one, strict=True):
        assert (found.scale, found.offset) == (expected.scale, expected.offset)
        torch.testing.assert_close(found.values, expected.values)


def test_no_pictures_have_no_features() -> None:
    assert teacher_of_averages(0).features([]) == []


def test_a_picture_is_normalised_colour_by_colour() -> None:
    levels = [Level(3, 8, 4)]
    teacher = FrozenTeacher("x", Average((8,)), levels, mean=(10, 20, 30), std=(1, 2, 4), long_side=0)
    image = torch.tensor([110, 120, 130], dtype=torch.uint8).expand(16, 16, 3)
    (grid,) = teacher.features([image])[0]
    torch.testing.assert_close(grid.values[:, 0, 0], torch.tensor([100.0, 50.0, 25.0]))


def test_a_teacher_has_no_trainable_parameters_and_stays_in_evaluation_mode() -> None:
    teacher = teacher_of_averages(0)
    assert not teacher.training and not teacher.network.training
    assert [p.requires_grad for p in teacher.parameters()] == [False]
    assert teacher.eval() is teacher


def test_training_a_teacher_or_a_module_that_holds_one_is_refused() -> None:
    with pytest.raises(RuntimeError, match="frozen"):
        teacher_of_averages(0).train()
    with pytest.raises(RuntimeError, match="frozen"):
        nn.ModuleList([teacher_of_averages(0)]).train()


def test_features_are_constants_that_a_student_can_learn_from() -> None:
    teacher = teacher_of_averages(0).requires_grad_(True)
    grids = teacher.features([ramp(32, 32)])[0]
    target = sample(grids, torch.rand(6, 2) * 31)
    student = nn.Linear(3, 3)
    (student(target) * target).sum().backward()
    assert not target.requires_grad
    assert student.weight.grad is not None and torch.isfinite(student.weight.grad).all()


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(32, 32, 3),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(32, 32, dtype=torch.uint8),
        torch.zeros(32, 32, 1, dtype=torch.uint8),
        torch.zeros(32, 32, 4, dtype=torch.uint8),
        torch.zeros(1, 32, 32, 3, dtype=torch.uint8),
        torch.zeros(0, 32, 3, dtype=torch.uint8),
    ],
    ids=lambda image: f"{tuple(image.shape)} {image.dtype}",
)
def test_a_picture_of_another_shape_or_type_is_refused(image: Tensor) -> None:
    with pytest.raises(InputError, match="uint8"):
        teacher_of_averages(0).features([image])


def test_a_negative_long_side_is_refused() -> None:
    with pytest.raises(InputError, match="long side"):
        teacher_of_averages(-1)


@pytest.mark.parametrize("spec", ["", "dinov2", "dinov2:", "dinov2-vitx14", "efficientnet-lite1", "resnet50"])
def test_an_unknown_teacher_is_refused_with_the_known_ones(spec: str) -> None:
    with pytest.raises(TeacherError, match=r"efficientnet-lite0.*dinov2:"):
        load_teacher(spec)
