"""The point-based backbone: its sums beside dense ones, gradients, and the method with it."""

import json
from dataclasses import replace

import pytest
import torch
from stripes import StripesTeacher, camera_view

from ttt_kd_ros.adaptation.settings import SCOPES, AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.adaptation.view import parts_of, view_of
from ttt_kd_ros.errors import CheckpointError, InputError
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.geometry.transforms import rigid
from ttt_kd_ros.model.checkpoint import Manifest, load_checkpoint, save_checkpoint
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.points import PointNetwork, PointsConfig
from ttt_kd_ros.model.voxel_input import crop, voxel_input
from ttt_kd_ros.segmenter import Segmenter
from ttt_kd_ros.sparse.points import EXTENT, PointConvolution, build_point_pyramid, kernel_points
from ttt_kd_ros.sparse.voxels import voxelise
from ttt_kd_ros.training.config import load_training_config

TINY = PointsConfig(6, (8, 10), (8, 6), (1, 1), 1.5)


def scattered(count=120, scans=2, extent=4.0):
    """Positions [cells], their keys, and the scan of each."""
    torch.manual_seed(0)
    points, batch = torch.rand(count, 3, dtype=torch.float64) * extent, torch.arange(count) % scans
    grid = voxelise(points, 1.0, batch)
    scan = grid.mean(batch[:, None].double()).squeeze(1).round().long()
    return grid.mean(points), grid.keys, scan


def test_the_convolution_equals_the_sum_over_all_pairs_of_points():
    positions, keys, scan = scattered()
    for radius in (0.8, 1.5, 2.3):
        pyramid = build_point_pyramid(keys, positions, 1, radius)
        convolution = PointConvolution(3, 4).double()
        features = torch.randn(len(keys), 3, dtype=torch.float64)
        offset = positions[None] - positions[:, None]
        together = (offset.norm(dim=2) < radius) & (scan[None] == scan[:, None])
        influence = 1 - (offset[:, :, None] - kernel_points().double() * radius).norm(dim=3) / (EXTENT * radius)
        influence = influence.clamp(min=0) * together[:, :, None]
        expected = torch.einsum("xyk,yc,kcd->xd", influence, features, convolution.weight)
        torch.testing.assert_close(convolution(features, pyramid.neighbourhoods[0]), expected)


def test_a_neighbour_at_a_kernel_point_has_its_whole_influence_there():
    """Squared distances from products would round it off, on GPUs in TF32 by much."""
    grid = voxelise(points := 300.5 + 1.5 * kernel_points(), 1.0)
    collected = build_point_pyramid(grid.keys, grid.mean(points), 1, 1.5).neighbourhoods[0].product(torch.eye(15))
    of_centre = collected.view(15, 15, 15)[grid.inverse[0], torch.arange(15), grid.inverse]
    torch.testing.assert_close(of_centre, torch.ones(15), rtol=0, atol=1e-4)


def test_pooling_is_the_mean_of_each_cell_and_interpolation_keeps_constants():
    positions, keys, scan = scattered()
    pyramid = build_point_pyramid(keys, positions, 2, 1.5)
    cells = torch.cat([scan[:, None], positions.floor().long() // 2], dim=1)
    _, parents = cells.unique(dim=0, return_inverse=True)
    values = torch.randn(len(keys), 2, dtype=torch.float64)
    pooled = pyramid.down[0](values)
    for cell in range(len(pooled)):
        torch.testing.assert_close(pooled[cell], values[parents == cell].mean(dim=0))
    back = pyramid.up[0](torch.ones(len(pooled), 1, dtype=torch.float64))
    torch.testing.assert_close(back, torch.ones_like(back))


def test_interpolation_weighs_coarse_points_by_their_inverse_squared_distance():
    positions = torch.tensor([[0.5, 0.5, 0.5], [3.5, 0.5, 0.5], [1.5, 0.5, 0.5]], dtype=torch.float64)
    grid = voxelise(positions, 1.0)
    pyramid = build_point_pyramid(grid.keys, grid.mean(positions), 2, 1.0)
    values = pyramid.up[0](torch.tensor([[0.0], [1.0]], dtype=torch.float64)).squeeze(1)
    expected = [1 / d2**2 / (1 / d1**2 + 1 / d2**2) for d1, d2 in ((0.5, 3.0), (0.5, 2.0))] + [1.0]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=1e-4)


def test_interpolation_does_not_depend_on_the_order_in_which_a_gpu_adds(street_points, monkeypatch):
    add = torch.Tensor.index_add_

    def in_any_order(total, dim, rows, values):
        order = torch.randperm(len(rows))
        return add(total, dim, rows[order], values[order])

    grid = voxelise(street_points, 0.2)
    positions = grid.mean(street_points)
    monkeypatch.setattr(torch.Tensor, "index_add_", in_any_order)
    first, second = (build_point_pyramid(grid.keys, positions, 2, 1.5).up[0] for _ in "12")
    assert torch.equal(first.weights, second.weights)


def test_the_gradients_of_the_whole_network_equal_finite_differences():
    torch.manual_seed(0)
    backbone = PointNetwork(5, PointsConfig(3, (4, 4), (3, 3), (1, 1), 1.5)).double().eval()
    voxels = voxel_input(torch.rand(40, 3, dtype=torch.float64) * 3, 0.5, backbone.config)
    features = voxels.features.clone().requires_grad_()
    names = [name for name, _ in backbone.named_parameters()]

    def output(x, *values):
        return torch.func.functional_call(backbone, dict(zip(names, values, strict=True)), (x, voxels.pyramid))

    parameters = [(p.detach() + 0.05 * torch.randn_like(p)).requires_grad_() for p in backbone.parameters()]
    assert torch.autograd.gradcheck(output, (features, *parameters), eps=1e-7, atol=1e-5, rtol=1e-5, fast_mode=True)


@pytest.fixture
def point_network(network_config):
    torch.manual_seed(0)
    return Network(replace(network_config, backbone=TINY)).eval()


def test_scans_of_a_batch_do_not_see_each_other(point_network, street_points):
    alone = point_network(point_network.voxel_input(street_points))[0]
    batch = torch.arange(2).repeat_interleave(len(street_points))
    both = point_network(point_network.voxel_input(street_points.repeat(2, 1), batch))[0]
    torch.testing.assert_close(both, alone.repeat(2, 1), atol=1e-4, rtol=1e-4)


def test_cropped_voxels_are_those_of_the_kept_points(street_points):
    voxels = voxel_input(street_points, 0.5, TINY)
    keep = voxels.features[:, 1] < 1
    cut, expected = crop(voxels, keep), voxel_input(street_points[keep[voxels.grid.inverse]], 0.5, TINY)
    assert torch.equal(cut.pyramid.neighbourhoods[1].columns, expected.pyramid.neighbourhoods[1].columns)
    torch.testing.assert_close(cut.pyramid.up[0].weights, expected.pyramid.up[0].weights)


def test_a_checkpoint_knows_its_kind_of_backbone(point_network, tmp_path, street_points):
    save_checkpoint(tmp_path / "model.safetensors", point_network, {})
    loaded, manifest = load_checkpoint(tmp_path / "model.safetensors")
    assert manifest.network == point_network.config
    assert json.loads(manifest.to_json())["network"]["points"]["radius"] == 1.5
    voxels = loaded.voxel_input(street_points)
    assert torch.equal(loaded(voxels)[0], point_network(voxels)[0])


def test_weights_of_another_kind_of_backbone_are_refused_with_the_differences(point_network, network_config, tmp_path):
    save_checkpoint(tmp_path / "w.safetensors", point_network, {})
    segmenter = Segmenter(Network(network_config), StripesTeacher())
    with pytest.raises(CheckpointError, match=r"backbone\.stem_kernel_size is None instead of 3"):
        segmenter.load_weights(tmp_path / "w.safetensors")


def test_a_manifest_with_two_backbones_is_refused(point_network):
    content = json.loads(Manifest(point_network.config).to_json())
    content["network"]["unet"] = {}
    with pytest.raises(InputError, match="one backbone, not unet and points"):
        Manifest.from_json(json.dumps(content))


def test_steps_on_points_decode_the_whole_view(point_network, street_points):
    voxels = point_network.voxel_input(street_points)
    view = view_of(voxels, PointTargets(torch.arange(len(street_points)), torch.ones(len(street_points), 4)), 4)
    assert parts_of(view, 2) == (view,)


@pytest.mark.parametrize("scope", SCOPES)
def test_every_scope_adapts(point_network, street_points, scope):
    settings = AdaptationSettings(mode="offline", steps=5, scope=scope, optimizer="adam", learning_rate=2e-3, trust=0)
    frame = Frame(Scan(street_points.numpy(), rigid(torch.eye(3).numpy(), torch.zeros(3).numpy())), (camera_view(),))
    before = {name: value.clone() for name, value in point_network.state_dict().items()}
    losses = Segmenter(point_network, StripesTeacher(), settings).segment(frame).adaptation.kd_losses
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in point_network.state_dict().items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": (4,)}, "same, non-zero length"),
        ({"stem": 0}, "whole numbers of at least 1"),
        ({"stem": 8.5}, "whole numbers of at least 1"),
        ({"radius": 9.0}, "0.5 to 4 cells"),
    ],
)
def test_a_size_that_cannot_be_built_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        PointsConfig(**values)


def test_the_installed_configuration_is_valid():
    assert isinstance(load_training_config("points").backbone, PointsConfig)
