"""The network and its checkpoints."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from ttt_kd_ros.benchmark.plain import plain_backbone
from ttt_kd_ros.errors import CheckpointError, InputError
from ttt_kd_ros.model.checkpoint import Manifest, load_checkpoint, load_manifest, save_checkpoint
from ttt_kd_ros.model.layers import Eager
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.reduction import Reduction
from ttt_kd_ros.model.unet import SparseUNet, UNetConfig
from ttt_kd_ros.model.voxel_input import crop, voxel_input
from ttt_kd_ros.sparse.kernel_map import downsampling_map, unpack
from ttt_kd_ros.sparse.voxels import build_pyramid


def test_the_gradients_of_the_whole_unet_equal_finite_differences():
    torch.manual_seed(0)
    config = UNetConfig(3, 3, (3, 4), (4, 3), (1, 1), (1, 1))
    unet = SparseUNet(5, config).double().eval()
    voxels = voxel_input(torch.rand(40, 3, dtype=torch.float64) * 3, 0.5, config)
    features = voxels.features.clone().requires_grad_()
    parameters = tuple(unet.parameters())

    def output(x, *values):
        named = dict(zip((n for n, _ in unet.named_parameters()), values, strict=True))
        return torch.func.functional_call(unet, named, (x, voxels.pyramid))

    smooth = (p.detach() + 0.05 * torch.randn_like(p) for p in parameters)
    inputs = (features, *(p.requires_grad_() for p in smooth))
    assert torch.autograd.gradcheck(output, inputs, eps=1e-7, atol=1e-5, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("some", [False, True], ids=["all voxels", "some voxels"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_the_unet_and_its_gradients_equal_the_plain_one(network, street_points, training, some):
    unet = network.backbone.double().train(training)
    voxels = network.voxel_input(street_points)
    kept = unpack(voxels.grid.keys)[:, 1] % 24 < (12 if some else 24)
    pyramid = voxels.pyramid.decoding(kept) if some else voxels.pyramid
    features, parameters = voxels.features.double(), tuple(unet.parameters())
    results = []
    for forward in (unet, lambda *inputs: plain_backbone(unet, *inputs)):
        output = forward(features, pyramid)
        loss = (output * features[kept, :1]).square().mean()
        results.append([output, *torch.autograd.grad(loss, parameters)])
    for fast, plain in zip(*results, strict=True):
        assert (fast - plain).norm() <= 1e-10 * plain.norm() + 1e-15


def test_asked_for_some_voxels_the_unet_encodes_all_and_decodes_these_as_if_there_were_no_others(
    network, street_points
):
    """The rest of the encoder's outputs, and of the decoder's maps, is left out."""
    unet, voxels = network.backbone, network.voxel_input(street_points)
    some = unpack(voxels.grid.keys)[:, 1] % 24 < 12
    encoded = []
    for module in (unet.stem, *unet.encoder):
        module.register_forward_hook(lambda _, __, output: encoded.append(output))
    found = unet(voxels.features, voxels.pyramid.decoding(some))
    alone, keys, own = build_pyramid(voxels.grid.keys[some], unet.config.depth), voxels.grid.keys, []
    for level, features in enumerate(encoded):
        kept = voxels.grid.keys[some]
        for _ in range(level):
            kept = downsampling_map(kept)[0]
        own.append(features[torch.isin(keys, kept)])
        keys = downsampling_map(keys)[0]
    features = own.pop()
    for stage, down, neighbours in zip(unet.decoder, alone.down[::-1], alone.neighbours[-2::-1], strict=True):
        features = stage(features, down.transposed, neighbours, Eager(), own.pop())
    torch.testing.assert_close(found, features, rtol=1e-5, atol=1e-6)
    everything = voxels.pyramid.decoding(torch.ones_like(some))
    torch.testing.assert_close(unet(voxels.features, everything), unet(voxels.features, voxels.pyramid))


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (UNetConfig(), 1.16),
        (UNetConfig(32, 5, (32, 64, 128, 256), (256, 128, 96, 96), (2, 3, 4, 6), (2, 2, 2, 2)), 39.15),
    ],
    ids=["small", "SpUNet-34C"],
)
def test_the_size_of_the_unet_is_configuration(config, millions):
    unet = SparseUNet(5, config)
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    voxels = voxel_input(torch.rand(200, 3) * 5, 0.2, config)
    with torch.no_grad():
        assert unet.eval()(voxels.features, voxels.pyramid).shape == (len(voxels.grid), config.decoder[-1])


@pytest.mark.parametrize(
    "config",
    [
        {"encoder": (8,), "decoder": (8, 8)},
        {"stem_kernel_size": 4},
        {"stem": 0},
        {"encoder_blocks": (0, 1, 1, 1)},
        {"stem": 8.5},
        {"stem_kernel_size": 3.0},
        {"decoder": (64, 48, "32", 32)},
        {"decoder_blocks": (True, 1, 1, 1)},
    ],
)
def test_a_unet_that_cannot_be_built_is_refused(config):
    with pytest.raises(InputError):
        UNetConfig(**config)


def test_scans_of_a_batch_do_not_see_each_other(network, street_points):
    shifted = street_points + torch.tensor([1.3, 0.2, 0.1])
    with torch.no_grad():
        alone = [network(v)[0][v.grid.inverse] for v in map(network.voxel_input, (street_points, shifted))]
        batch = torch.arange(2).repeat_interleave(len(street_points))
        voxels = network.voxel_input(torch.cat([street_points, shifted]), batch)
        together = network(voxels)[0][voxels.grid.inverse]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_moving_a_scan_by_whole_coarse_voxels_over_the_ground_changes_nothing(network, street_points):
    moved = street_points.double() + torch.tensor([0.5 * 4 * 3, -0.5 * 4 * 5, 0])
    with torch.no_grad():
        outputs = [network(v)[0][v.grid.inverse] for v in map(network.voxel_input, (street_points, moved.float()))]
    close = torch.isclose(outputs[0], outputs[1], atol=1e-3).all(dim=1)
    assert close.float().mean() > 0.999


def test_the_height_feature_is_the_mean_height_over_ground(network_config, street_points):
    voxels = voxel_input(street_points, 0.5, network_config.backbone)
    for row in (0, len(voxels.grid) // 2, len(voxels.grid) - 1):
        points = street_points[voxels.grid.inverse == row]
        assert voxels.features[row, 1] == pytest.approx(points[:, 2].mean().item(), abs=1e-5)
        centre = (unpack(voxels.grid.keys)[row, 1:] + 0.5) * 0.5
        torch.testing.assert_close(voxels.features[row, 2:] * 0.5, points.mean(0) - centre, atol=1e-4, rtol=1e-4)


def test_a_crop_is_the_input_of_the_points_in_the_kept_voxels(network_config, street_points):
    voxels = voxel_input(street_points, 0.5, network_config.backbone)
    keep = unpack(voxels.grid.keys)[:, 1] < 30
    cropped = crop(voxels, keep)
    kept_points = keep[voxels.grid.inverse]
    expected = voxel_input(street_points[kept_points], 0.5, network_config.backbone)
    assert torch.equal(cropped.grid.keys, expected.grid.keys)
    assert torch.equal(cropped.grid.inverse[kept_points], expected.grid.inverse)
    assert (cropped.grid.inverse[~kept_points] == -1).all()
    torch.testing.assert_close(cropped.features, expected.features)


def test_the_reduction_is_a_principal_component_analysis():
    torch.manual_seed(0)
    samples = torch.randn(500, 6) @ torch.diag(torch.tensor([5.0, 4, 3, 2, 1, 0.5])) + 7
    reduction = Reduction(6, 3)
    reduction.fit(samples)
    _, _, vectors = torch.linalg.svd(samples - samples.mean(0), full_matrices=False)
    torch.testing.assert_close((reduction.components * vectors[:3].T).sum(0).abs(), torch.ones(3))
    torch.testing.assert_close(reduction(samples).mean(0), torch.zeros(3), atol=1e-4, rtol=0)


def test_a_reduction_of_too_few_samples_is_refused():
    with pytest.raises(InputError, match="2 teacher features"):
        Reduction(6, 3).fit(torch.randn(2, 6))


class TestCheckpoint:
    @pytest.fixture
    def path(self, network, tmp_path):
        save_checkpoint(tmp_path / "model.safetensors", network, {"kd_cosine": 0.5, "seed": 3})
        return tmp_path / "model.safetensors"

    def test_a_file_that_cannot_be_put_in_its_place_leaves_nothing(self, network, tmp_path):
        (tmp_path / "directory").mkdir()
        with pytest.raises(CheckpointError, match="directory: cannot be written"):
            save_checkpoint(tmp_path / "directory", network, {})
        assert [path.name for path in tmp_path.iterdir()] == ["directory"]

    def test_a_network_comes_back_with_its_manifest(self, path, network, street_points):
        loaded, manifest = load_checkpoint(path)
        assert manifest == Manifest(network.config, {"kd_cosine": 0.5, "seed": 3}) == load_manifest(path)
        voxels = network.voxel_input(street_points)
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(network(voxels), loaded(voxels), strict=True))
        assert not loaded.training

    def test_a_missing_file_is_refused_by_its_path(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"nothing\.safetensors: there is no such file"):
            load_checkpoint(tmp_path / "nothing.safetensors")

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
    def test_a_truncated_file_is_refused(self, path, share):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(CheckpointError, match="is it complete"):
            load_checkpoint(path)

    def test_weights_of_another_network_are_refused_with_the_differences(self, path, network, tmp_path):
        wider = replace(network.config, backbone=UNetConfig(8, 3, (8, 16), (12, 8), (1, 1), (1, 1)))
        tensors = {k: v.contiguous() for k, v in Network(wider).state_dict().items()}
        save_file(tensors, path, metadata={"ttt_kd_ros": Manifest(network.config).to_json()})
        with pytest.raises(CheckpointError, match=r"has shape \(.*\) instead of \(.*more"):
            load_checkpoint(path)

    def test_a_missing_tensor_is_named(self, path, network):
        tensors = {k: v.contiguous() for k, v in network.state_dict().items() if k != "label_head.bias"}
        save_file(tensors, path, metadata={"ttt_kd_ros": Manifest(network.config).to_json()})
        with pytest.raises(CheckpointError, match=r"label_head\.bias is missing"):
            load_checkpoint(path)

    def test_weights_that_are_not_finite_are_refused(self, path, network):
        with torch.no_grad():
            network.label_head.bias[0] = float("nan")
        save_checkpoint(path, network, {})
        with pytest.raises(CheckpointError, match=r"label_head\.bias is not finite"):
            load_checkpoint(path)

    def test_a_safetensors_file_of_another_program_is_refused(self, tmp_path):
        save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
        with pytest.raises(CheckpointError, match="is no checkpoint of ttt_kd_ros"):
            load_checkpoint(tmp_path / "other.safetensors")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": 99}, "has format 99"),
            ({"network": {}}, "cannot be read"),
            ({"training": [1]}, "cannot be read"),
            ({"training": {"kd_cosine": None}}, "kd_cosine that is no number"),
        ],
    )
    def test_a_manifest_of_another_version_is_refused(self, network, tmp_path, change, message):
        manifest = json.loads(Manifest(network.config).to_json()) | change
        save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"ttt_kd_ros": json.dumps(manifest)})
        with pytest.raises(CheckpointError, match=message):
            load_manifest(tmp_path / "m.safetensors")

    @pytest.mark.parametrize(("name", "value"), [("target_size", "x"), ("target_size", 1000), ("voxel_size", 0)])
    def test_a_network_that_cannot_be_is_refused(self, network, tmp_path, name, value):
        manifest = json.loads(Manifest(network.config).to_json())
        manifest["network"][name] = value
        save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"ttt_kd_ros": json.dumps(manifest)})
        with pytest.raises(CheckpointError, match=r"m\.safetensors"):
            load_checkpoint(tmp_path / "m.safetensors")

    def test_a_checkpoint_of_other_input_features_is_refused(self, network, tmp_path):
        manifest = json.loads(Manifest(network.config).to_json())
        manifest["network"]["features"] = ["one"]
        save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"ttt_kd_ros": json.dumps(manifest)})
        with pytest.raises(CheckpointError, match="other input features"):
            load_manifest(tmp_path / "m.safetensors")
