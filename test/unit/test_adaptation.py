"""Gradient steps: what they move, when they stop, and how they are undone."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from ttt_kd_ros.adaptation.objective import distillation_loss, mean_entropy
from ttt_kd_ros.adaptation.session import AdaptationSession, scope_parameters
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets, Targets, voxel_targets
from ttt_kd_ros.adaptation.view import near_voxels
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.sparse.kernel_map import unpack
from ttt_kd_ros.sparse.voxels import voxelise

SETTINGS = AdaptationSettings(steps=5, learning_rate=1e-2)


@pytest.fixture
def voxels(network, street_points):
    return network.voxel_input(street_points)


@pytest.fixture
def pairs(street_points):
    """Targets that depend on where a point is, for the points ahead."""
    rows = (street_points[:, 0] > 5).nonzero().squeeze(1)
    x, _, z = street_points[rows].unbind(1)
    return PointTargets(rows, torch.stack([torch.sin(x), torch.cos(x), z, 1 - z], dim=1))


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before, network):
    return {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}


def test_the_distillation_loss_is_one_minus_the_mean_cosine_at_the_paired_voxels():
    features = torch.randn(10, 4)
    targets = Targets(torch.tensor([1, 4, 7]), torch.randn(3, 4))
    cosines = [
        float(features[v] @ t / features[v].norm() / t.norm())
        for v, t in zip(targets.voxels.tolist(), targets.features, strict=True)
    ]
    assert distillation_loss(features, targets).item() == pytest.approx(1 - sum(cosines) / 3, abs=1e-6)


def test_the_entropy_of_even_predictions_is_the_logarithm_of_the_number_of_classes():
    assert mean_entropy(torch.zeros(5, 6)).item() == pytest.approx(math.log(6))
    assert mean_entropy(torch.eye(6) * 1e3).item() == pytest.approx(0)


def test_the_target_of_a_voxel_is_the_mean_of_its_pairs_and_pairs_without_a_voxel_are_left_out():
    pairs = PointTargets(torch.tensor([0, 1, 3, 0, 2]), torch.tensor([[1.0], [3.0], [10.0], [5.0], [99.0]]))
    targets = voxel_targets(pairs, inverse=torch.tensor([2, 2, -1, 0]))
    assert targets.voxels.tolist() == [0, 2]
    assert targets.features.squeeze(1).tolist() == [10.0, 3.0]


def test_near_voxels_are_those_within_the_distance_and_none_beyond_twice_the_distance():
    points = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([100.0, 100.0, 5.0]) - 50
    grid = voxelise(points, 0.5)
    seeds = (unpack(grid.keys)[:, 1:3].abs() < 10).all(1).nonzero().squeeze(1)
    near = near_voxels(grid, seeds, distance=8)
    xy = unpack(grid.keys)[:, 1:3]
    apart = (xy[:, None] - xy[seeds][None]).abs().amax(dim=2).amin(dim=1)
    assert near[apart <= 8].all()
    assert not near[apart > 16].any()


@pytest.mark.parametrize("distance", [0, 0.5, 3])
def test_near_voxels_hold_the_seeds_at_any_distance(distance):
    grid = voxelise(torch.rand(200, 3) * 10, 0.5)
    seeds = torch.tensor([0, 5, 17])
    assert near_voxels(grid, seeds, distance)[seeds].all()


def test_steps_lower_the_distillation_loss(network, voxels, pairs):
    steps = AdaptationSession(network, replace(SETTINGS, steps=20)).adapt(voxels, pairs)
    assert len(steps.kd_losses) == 20
    assert steps.stopped_by == "steps"
    assert steps.kd_losses[-1] < steps.kd_losses[0] - 0.1


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(
    ("scope", "inside"),
    [
        ("norm", lambda name: "norm" in name or "shortcut.1" in name),
        ("encoder", lambda name: name.startswith(("backbone.stem", "backbone.encoder"))),
        ("decoder", lambda name: name.startswith("backbone.decoder")),
        ("all", lambda name: name.startswith("backbone")),
    ],
)
def test_only_the_parameters_of_the_scope_move(network, voxels, pairs, scope, inside, optimizer):
    before = weights(network)
    AdaptationSession(network, replace(SETTINGS, scope=scope, optimizer=optimizer)).adapt(voxels, pairs)
    moved = changed(before, network)
    buffers = {name for name, _ in network.named_buffers()}
    assert moved == {name for name in before if inside(name) and name not in buffers}


def test_the_scopes_encoder_and_decoder_share_the_backbone(network):
    parts = [{id(p) for p in scope_parameters(network.backbone, scope)} for scope in ("encoder", "decoder", "all")]
    assert parts[0] | parts[1] == parts[2]
    assert not parts[0] & parts[1]


def test_the_steps_see_the_gradient_of_the_loss_alone(network, voxels, pairs):
    """One step of plain SGD without entropy is the derivative of the distillation loss on the same voxels."""
    targets = voxel_targets(pairs, voxels.grid.inverse)
    parameters = scope_parameters(network.backbone, "all")
    expected = torch.autograd.grad(distillation_loss(network(voxels)[1], targets), parameters)
    before = [p.detach().clone() for p in parameters]
    settings = AdaptationSettings(
        steps=1, scope="all", optimizer="sgd", learning_rate=0.1, entropy_weight=0, margin_m=1000
    )
    AdaptationSession(network, settings).adapt(voxels, pairs)
    for old, new, gradient in zip(before, parameters, expected, strict=True):
        torch.testing.assert_close(old - new.detach(), 0.1 * gradient, atol=1e-6, rtol=1e-4)


def test_reset_brings_back_the_source_weights_to_the_bit(network, voxels, pairs):
    before = weights(network)
    session = AdaptationSession(network, replace(SETTINGS, scope="all"))
    session.adapt(voxels, pairs)
    assert changed(before, network)
    session.reset()
    assert not changed(before, network)


def test_reset_forgets_the_state_of_the_optimizer(network, voxels, pairs):
    session = AdaptationSession(network, SETTINGS)
    first = session.adapt(voxels, pairs).kd_losses
    session.reset()
    assert session.adapt(voxels, pairs).kd_losses == first


def test_steps_go_on_from_the_last_scan_until_reset(network, voxels, pairs):
    session = AdaptationSession(network, replace(SETTINGS, steps=10))
    first = session.adapt(voxels, pairs).kd_losses
    assert session.adapt(voxels, pairs).kd_losses[0] < first[0]


def test_a_change_of_scope_keeps_the_weights_and_reset_still_undoes_all(network, voxels, pairs):
    before = weights(network)
    session = AdaptationSession(network, replace(SETTINGS, scope="encoder"))
    session.adapt(voxels, pairs)
    moved = changed(before, network)
    session.configure(replace(SETTINGS, scope="norm"))
    assert changed(before, network) == moved
    session.reset()
    assert not changed(before, network)


def test_no_step_starts_after_the_budget(network, voxels, pairs):
    ticks = itertools.count(step=0.010)
    session = AdaptationSession(network, replace(SETTINGS, steps=100, budget_ms=35), clock=lambda: next(ticks))
    steps = session.adapt(voxels, pairs)
    assert len(steps.kd_losses) == 3
    assert steps.stopped_by == "budget"


@pytest.mark.parametrize("poison", ["target", "learning rate"])
def test_a_loss_or_weight_that_is_not_finite_brings_back_the_weights_from_before_the_scan(
    network, voxels, pairs, poison
):
    session = AdaptationSession(network, SETTINGS)
    session.adapt(voxels, pairs)
    before = weights(network)
    if poison == "target":
        pairs.features[0] = float("nan")
    else:
        session.configure(replace(SETTINGS, optimizer="sgd", learning_rate=1e38))
    assert session.adapt(voxels, pairs).stopped_by == "not finite"
    assert not changed(before, network)


def test_batch_norm_statistics_never_move(network, voxels, pairs):
    before = weights(network)
    AdaptationSession(network, replace(SETTINGS, scope="all")).adapt(voxels, pairs)
    assert not any("running" in name or "num_batches" in name for name in changed(before, network))


def test_no_gradient_is_left_behind(network, voxels, pairs):
    AdaptationSession(network, SETTINGS).adapt(voxels, pairs)
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "sometimes"}, "mode 'sometimes' is unknown; choose one of off, offline, online"),
        ({"scope": "heads"}, "scope 'heads' is unknown"),
        ({"optimizer": "lion"}, "optimizer 'lion' is unknown"),
        ({"steps": -1}, "steps must be 0 to 1000"),
        ({"steps": 1001}, "steps must be 0 to 1000"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite"),
        ({"budget_ms": -1.0}, "budget_ms must be a finite"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        AdaptationSettings(**change)
