"""Gradient steps: what they move, when they stop, and how they are undone."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch

from ttt_kd_ros.adaptation import methods
from ttt_kd_ros.adaptation.methods import objective
from ttt_kd_ros.adaptation.objective import confident_cross_entropy, distillation_loss, entropy
from ttt_kd_ros.adaptation.scope import LORA_RANK, scope_parameters
from ttt_kd_ros.adaptation.session import AdaptationSession, Steps
from ttt_kd_ros.adaptation.settings import DEFAULTS, SCOPES, AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets, Targets, voxel_targets
from ttt_kd_ros.adaptation.view import SQUARE, near_voxels, parts_of, view_of
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.sparse.kernel_map import unpack
from ttt_kd_ros.sparse.voxels import voxelise

SETTINGS = AdaptationSettings(steps=5, learning_rate=1e-2, familiar=0.0)


@pytest.fixture
def voxels(network, street_points):
    return network.voxel_input(street_points)


@pytest.fixture
def sure_network(network):
    """Many of its predictions are confident."""
    network.label_head.weight.data.mul_(20)
    return network


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


def test_the_centred_cosine_compares_what_differs_from_the_mean_of_the_scan_s_targets():
    features, targets = torch.randn(10, 4), Targets(torch.tensor([1, 4, 7]), torch.randn(3, 4))
    mean = targets.features.mean(dim=0)
    shifted = Targets(targets.voxels, targets.features - mean)
    expected = distillation_loss(features - mean, shifted)
    assert distillation_loss(features, targets, "centred-cosine").item() == pytest.approx(expected.item(), abs=1e-6)


def test_l2_is_the_distance_of_the_features_at_unit_length():
    """Of unit vectors it is the square root of two times one minus the cosine."""
    features, targets = torch.randn(10, 4), Targets(torch.tensor([3]), torch.randn(1, 4))
    cosine = distillation_loss(features, targets)
    assert distillation_loss(features, targets, "l2").item() == pytest.approx((2 * cosine).sqrt().item(), abs=1e-5)
    assert distillation_loss(3 * features, targets, "l2").item() == pytest.approx((2 * cosine).sqrt().item(), abs=1e-5)


def test_the_confident_cross_entropy_leaves_out_what_the_source_model_is_unsure_of():
    sure, unsure = torch.tensor([9.0, 0.0, 0.0]), torch.tensor([1.0, 0.9, 0.0])
    logits = torch.randn(2, 3)
    expected = -torch.log_softmax(logits[0], dim=0)[0]
    assert confident_cross_entropy(logits, torch.stack([sure, unsure])).item() == pytest.approx(expected.item())
    assert confident_cross_entropy(logits, torch.stack([unsure, unsure])).item() == 0


def test_the_entropy_of_even_predictions_is_the_logarithm_of_the_number_of_classes():
    assert entropy(torch.zeros(5, 6)).mean().item() == pytest.approx(math.log(6))
    assert entropy(torch.eye(6) * 1e3).mean().item() == pytest.approx(0)


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


def test_a_view_of_nearly_all_voxels_is_the_whole_scan_which_the_weights_reach(network, voxels, street_points):
    rows = (street_points[:, 0] > 0.5).nonzero().squeeze(1)
    assert 0.97 < len(torch.unique(voxels.grid.inverse[rows])) / len(voxels.grid) < 1
    pairs = PointTargets(rows, torch.ones(len(rows), 4))
    view = view_of(voxels, pairs, distance=0)
    assert view.voxels is voxels
    assert view.near.all()
    assert torch.equal(view.targets.voxels, torch.unique(voxels.grid.inverse[rows]))
    steps = AdaptationSession(network, replace(SETTINGS, trust=1.0, margin_m=0.0)).adapt(voxels, pairs)
    assert (steps.trusted, steps.reach) == (False, None)


def test_a_view_holds_the_targets_of_the_scan_at_its_own_voxels(voxels, pairs):
    view = view_of(voxels, pairs, distance=3)
    assert len(view.voxels.grid) == view.near.sum() < len(voxels.grid)
    expected = voxel_targets(pairs, view.voxels.grid.inverse)
    assert torch.equal(view.targets.voxels, expected.voxels)
    assert torch.equal(view.targets.features, expected.features)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_voxel_of_a_view_is_asked_for_in_one_of_its_parts_with_its_target(network, voxels, pairs, count):
    view = view_of(voxels, pairs, distance=3)
    parts = parts_of(view, count)
    assert len(parts) == count
    keys = view.voxels.grid.keys
    asked = [keys if part.asked is None else keys[part.asked] for part in parts]
    assert torch.cat(asked).sort().values.equal(keys)
    found = {int(of_part[v]): t for of_part, part in zip(asked, parts, strict=True)
             for v, t in zip(part.targets.voxels, part.targets.features, strict=True)}  # fmt: skip
    expected = dict(zip(keys[view.targets.voxels].tolist(), view.targets.features, strict=True))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    for of_part, part in zip(asked, parts, strict=True):
        logits, features = network(part.voxels)
        assert len(logits) == len(features) == len(of_part)
        assert part.voxels.features is view.voxels.features, "all of the view is encoded"


def test_parts_are_squares_as_of_a_chessboard(voxels, pairs):
    view = view_of(voxels, pairs, distance=1000)
    first, second = parts_of(view, 2)
    square = unpack(view.voxels.grid.keys)[:, 1:3] // SQUARE
    assert torch.equal(first.asked, square.sum(dim=1) % 2 == 0)
    assert torch.equal(second.asked, ~first.asked)


def test_a_view_of_which_a_part_would_have_no_target_stays_whole(voxels, street_points):
    within_a_square = ((street_points[:, :2] > 0) & (street_points[:, :2] < 30)).all(dim=1)
    rows = within_a_square.nonzero().squeeze(1)
    view = view_of(voxels, PointTargets(rows, torch.ones(len(rows), 4)), distance=1000)
    assert parts_of(view, 2) == (view,)


def test_the_loss_of_a_step_is_told_as_the_mean_over_a_turn_through_the_parts():
    """Those of two parts cannot be compared, and the first is told beside the last."""
    assert Steps([4.0, 2.0, 3.0, 1.0, 2.0], parts=2).kd_losses == (3.0, 3.0, 2.5, 2.0, 1.5)
    assert Steps([4.0], parts=2).kd_losses == (4.0,)
    assert Steps([4.0, 2.0], parts=1).kd_losses == (4.0, 2.0)
    assert Steps(parts=2).kd_losses == ()


def session_that_knows(network, settings, **costs):
    """A session at 10 s on its clock that has measured the costs [s] of stages."""
    session = AdaptationSession(network, settings, clock=lambda: 10.0)
    for stage, seconds in costs.items():
        for _ in range(3):
            session.pace.add(stage, seconds)
    return session


@pytest.mark.parametrize(
    ("left", "steps", "parts"), [(5.4, 9, 3), (5.6, 9, 1), (math.inf, 9, 1), (2.4, 2, 3), (2.6, 2, 1)]
)
def test_before_a_deadline_that_leaves_no_time_for_some_whole_steps_they_take_turns_on_parts(
    network, voxels, pairs, left, steps, parts
):
    """Of a second each, with half a second for the prediction; what is set holds in any case."""
    for decoded_parts, expected in ((0, parts), (2, 2), (1, 1)):
        settings = replace(SETTINGS, steps=steps, decoded_parts=decoded_parts)
        session = session_that_knows(network, settings, step=1.0, predict=0.5, teacher=1.0)
        assert session.begin(voxels, pairs, 10 + left).parts == expected
        assert session.first_step(11 + left, "teacher") == ("step", 1.0 if expected == 1 else 0.6)


@pytest.mark.parametrize("method", ["statistics", "kd"])
def test_without_gradients_and_with_a_budget_alone_the_whole_view_is_decoded(network, voxels, pairs, method):
    settings = replace(SETTINGS, method=method, budget_ms=1.0, decoded_parts=3 if method == "statistics" else 0)
    assert AdaptationSession(network, settings).begin(voxels, pairs).parts == 1


def test_costs_are_known_as_those_of_whole_steps_whichever_steps_were_measured(network, voxels, pairs):
    ticks = itertools.count()
    found = []
    for parts in (1, 3):
        session = AdaptationSession(network, replace(SETTINGS, decoded_parts=parts), clock=lambda: float(next(ticks)))
        session.adapt(voxels, pairs)
        found.append(session.pace._costs["step"].estimate)
    assert found == [1, pytest.approx(1 / 0.6)]


def test_a_step_on_a_part_is_taken_where_its_share_of_a_whole_one_s_cost_fits(network, voxels, pairs):
    """Of one second, with half a second for the prediction."""
    for left, count in ((1.05, 0), (1.15, SETTINGS.steps)):
        session = session_that_knows(network, replace(SETTINGS, trust=0.0), step=1.0, predict=0.5)
        steps = session.begin(voxels, pairs, 10 + left)
        session.advance(steps, SETTINGS.steps)
        assert (steps.parts, len(steps.losses)) == (3, count)


@pytest.mark.parametrize("method", ["confident", "kd"])
def test_the_source_model_s_labels_of_a_part_are_those_that_it_gives_the_whole_view(
    sure_network, voxels, pairs, method, monkeypatch
):
    session = AdaptationSession(sure_network, replace(SETTINGS, method=method, source_weight=1.0, decoded_parts=2))
    expected = session.source(view_of(voxels, pairs, SETTINGS.margin_m / sure_network.config.voxel_size).voxels)[0]
    seen = []
    original = methods.confident_cross_entropy
    monkeypatch.setattr(
        methods, "confident_cross_entropy", lambda new, source: seen.append(source) or original(new, source)
    )
    session.adapt(voxels, pairs)
    rows = torch.cat(seen[:2])
    assert torch.equal(rows.sort(dim=0).values, expected.sort(dim=0).values)


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
        ("lora", lambda name: name.startswith("backbone") and ("convolution" in name or "second" in name)),
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
        steps=1,
        scope="all",
        optimizer="sgd",
        learning_rate=0.1,
        entropy_weight=0,
        pull=0,
        margin_m=1000,
        decoded_parts=1,
    )
    AdaptationSession(network, settings).adapt(voxels, pairs)
    for old, new, gradient in zip(before, parameters, expected, strict=True):
        torch.testing.assert_close(old - new.detach(), 0.1 * gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(("scope", "count"), [("all", 1), ("norm", 1), ("all", 2), ("norm", 3)])
def test_the_steps_are_those_of_an_optimizer_that_moves_the_parameters_one_by_one(
    network, voxels, pairs, optimizer, scope, count
):
    """They take turns on the parts of the view."""
    plain = copy.deepcopy(network)
    settings = replace(SETTINGS, scope=scope, optimizer=optimizer.__name__.lower(), learning_rate=1e-3)
    losses = AdaptationSession(network, replace(settings, decoded_parts=count)).adapt(voxels, pairs).losses
    parts = parts_of(view_of(voxels, pairs, settings.margin_m / network.config.voxel_size), count)
    assert len(parts) == count
    parameters = scope_parameters(plain.eval().backbone, scope)
    source, steps = [p.detach().clone() for p in parameters], optimizer(parameters, lr=1e-3)
    for expected, view in zip(losses, itertools.cycle(parts), strict=False):
        logits, features = plain(view.voxels)
        loss = objective(settings, view.targets, lambda: pytest.fail("the source model is not asked"))
        assert distillation_loss(features, view.targets).item() == pytest.approx(expected, abs=1e-5)
        steps.zero_grad()
        loss(logits, features).backward()
        steps.step()
        with torch.no_grad():
            for parameter, start in zip(parameters, source, strict=True):
                parameter.lerp_(start, settings.pull)
    for parameter, moved in zip(parameters, scope_parameters(network.backbone, scope), strict=True):
        torch.testing.assert_close(moved, parameter, atol=1e-5, rtol=0)


@pytest.mark.parametrize("other", ["all", "norm"])
def test_a_network_that_another_session_has_taken_is_moved_by_both(network, voxels, pairs, other):
    sessions = [AdaptationSession(network, replace(SETTINGS, steps=1, scope=scope)) for scope in ("all", other)]
    for _ in range(2):
        for session in sessions:
            before = weights(network)
            session.adapt(voxels, pairs)
            moved = {name for name, _ in network.backbone.named_parameters() if "norm" in name}
            assert {f"backbone.{name}" for name in moved} <= changed(before, network)


def test_reset_brings_back_the_source_weights_to_the_bit(network, voxels, pairs):
    before = weights(network)
    session = AdaptationSession(network, replace(SETTINGS, scope="all"))
    session.adapt(voxels, pairs)
    assert changed(before, network)
    session.reset()
    assert not changed(before, network)


def test_reset_brings_back_the_statistics_of_training_to_the_source_model(network, voxels):
    before = network(voxels)[0].detach().clone()
    session = AdaptationSession(network, replace(SETTINGS, scan_statistics=0.5))
    session.take_statistics(voxels)
    assert not torch.equal(session.source(voxels)[0], before)
    session.reset()
    assert torch.equal(session.source(voxels)[0], before)
    assert torch.equal(network(voxels)[0], before)


def test_reset_forgets_the_state_of_the_optimizer(network, voxels, pairs):
    session = AdaptationSession(network, SETTINGS)
    first = session.adapt(voxels, pairs).kd_losses
    session.reset()
    assert session.adapt(voxels, pairs).kd_losses == first


def test_steps_go_on_from_the_last_scan_until_reset(network, voxels, pairs):
    session = AdaptationSession(network, replace(SETTINGS, steps=10))
    first = session.adapt(voxels, pairs).kd_losses
    assert session.adapt(voxels, pairs).kd_losses[0] < first[0]


@pytest.mark.parametrize("method", ["kd", "kd-mean", "kd-permuted", "confident", "tent"])
def test_every_method_lowers_what_it_minimises(sure_network, voxels, pairs, method):
    network = sure_network
    settings = replace(SETTINGS, method=method, steps=15, scope="norm", learning_rate=3e-3)
    session = AdaptationSession(network, settings)
    targets = voxel_targets(pairs, voxels.grid.inverse)
    with torch.no_grad():
        logits, features = network(voxels)
    loss = objective(settings, targets, lambda: logits)
    session.adapt(voxels, pairs)
    assert loss(*network(voxels)) < loss(logits, features)


def test_the_controls_know_the_targets_but_not_where_they_belong(pairs, voxels):
    targets = voxel_targets(pairs, voxels.grid.inverse)
    features = torch.zeros(len(voxels.grid), 4)
    features[targets.voxels] = targets.features
    losses = {
        method: objective(AdaptationSettings(method=method, entropy_weight=0), targets, lambda: features)(
            features[:, :3], features
        ).item()
        for method in ("kd", "kd-mean", "kd-permuted")
    }
    assert losses["kd"] == pytest.approx(0, abs=1e-6)
    assert min(losses["kd-mean"], losses["kd-permuted"]) > 0.02


@pytest.mark.parametrize("method", ["tent", "sar", "confident", "statistics"])
def test_methods_without_a_teacher_need_no_features(network, voxels, pairs, method):
    points = PointTargets(pairs.points, pairs.features[:, :0])
    steps = AdaptationSession(network, replace(SETTINGS, method=method)).adapt(voxels, points)
    assert len(steps.kd_losses) == SETTINGS.steps
    assert all(math.isnan(loss) for loss in steps.kd_losses)


def test_the_method_statistics_moves_the_batch_norms_towards_the_scan_and_nothing_else(network, voxels, pairs):
    before = weights(network)
    seen = []
    network.backbone.stem.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean(dim=0)))
    session = AdaptationSession(network, replace(SETTINGS, method="statistics", steps=1, margin_m=1000))
    session.adapt(voxels, pairs)
    moved = changed(before, network)
    assert all("running" in name or "num_batches" in name for name in moved)
    momentum = 0.1 * 0.94 + 0.005
    expected = (1 - momentum) * before["backbone.stem.norm.running_mean"] + momentum * seen[0]
    torch.testing.assert_close(network.backbone.stem.norm.running_mean, expected)
    session.reset()
    assert not changed(before, network)


def test_sar_takes_its_gradient_where_the_loss_is_highest_nearby(sure_network, voxels, pairs):
    network = sure_network
    settings = AdaptationSettings(
        method="sar", scope="norm", steps=1, optimizer="sgd", learning_rate=1.0, margin_m=1000, entropy_weight=0, pull=0
    )
    session = AdaptationSession(network, settings)
    parameters = scope_parameters(network.backbone, "norm")
    before = [p.detach().clone() for p in parameters]
    loss = objective(settings, voxel_targets(pairs, voxels.grid.inverse), lambda: None)

    def gradients():
        for p in parameters:
            p.requires_grad_(True)
        found = torch.autograd.grad(loss(*network(voxels)), parameters)
        for p in parameters:
            p.requires_grad_(False)
        return found

    first = gradients()
    length = torch.cat([g.flatten() for g in first]).norm()
    for p, g in zip(parameters, first, strict=True):
        p.add_(0.05 * g / length)
    expected = gradients()
    for p, value in zip(parameters, before, strict=True):
        p.copy_(value)
    session.adapt(voxels, pairs)
    for old, new, gradient in zip(before, parameters, expected, strict=True):
        torch.testing.assert_close(old - new, gradient, atol=1e-6, rtol=1e-3)


def test_a_low_rank_change_of_a_convolution_has_the_rank(network, voxels, pairs):
    before = weights(network)
    AdaptationSession(network, replace(SETTINGS, scope="lora")).adapt(voxels, pairs)
    name = "backbone.decoder.0.blocks.0.second.weight"
    change = network.state_dict()[name] - before[name]
    assert torch.linalg.matrix_rank(change.flatten(0, 1), atol=1e-6) == LORA_RANK
    assert change.shape[2] > LORA_RANK


@pytest.mark.parametrize("scope", SCOPES)
def test_every_scope_has_defaults_of_its_own_that_lower_the_loss(network, voxels, pairs, scope):
    steps = AdaptationSession(network, AdaptationSettings(scope=scope, entropy_weight=0)).adapt(voxels, pairs)
    assert len(steps.kd_losses) == DEFAULTS[scope].steps
    assert steps.kd_losses[-1] < steps.kd_losses[0]


@pytest.mark.parametrize("level", [0.9, -0.9])
def test_where_the_network_cannot_predict_the_features_the_weights_reach_only_what_lies_near_the_view(
    network, voxels, pairs, level
):
    session = AdaptationSession(network, replace(SETTINGS, trust=1.0, margin_m=0.5), kd_level=level)
    reach = session.adapt(voxels, pairs).reach
    seeds = voxel_targets(pairs, voxels.grid.inverse).voxels
    if level > 0:
        assert torch.equal(reach, near_voxels(voxels.grid, seeds, distance=1))
        assert reach.any()
        assert not reach.all()
    else:
        assert reach is None


@pytest.mark.parametrize("margin", [-0.01, 0.01])
def test_where_the_network_predicts_the_features_as_in_training_no_step_is_taken(network, voxels, pairs, margin):
    cosine = 1 - AdaptationSession(copy.deepcopy(network), SETTINGS).adapt(voxels, pairs).kd_losses[0]
    session = AdaptationSession(network, replace(SETTINGS, familiar=0.9), kd_level=(cosine + margin) / 0.9)
    steps = session.adapt(voxels, pairs)
    if margin < 0:
        assert (steps.stopped_by, steps.kd_losses) == ("familiar", ())
        assert steps.familiar, "the source model labels everything"
    else:
        assert (steps.stopped_by, len(steps.kd_losses)) == ("steps", 5)


def test_trust_is_a_matter_of_the_source_model_however_far_the_weights_have_moved(network, voxels, pairs):
    settings = replace(SETTINGS, trust=1.0, margin_m=0.5)
    session = AdaptationSession(network, replace(settings, steps=30))
    first = session.adapt(voxels, pairs)
    level = 1 - (first.kd_losses[0] + first.kd_losses[-1]) / 2  # above the source model's, below the adapted one's
    again = AdaptationSession(network, settings, kd_level=level)
    assert again.adapt(voxels, pairs).reach is None
    session._kd_level = level
    assert session.adapt(voxels, pairs).reach is not None


def test_the_source_model_answers_whatever_the_weights_are(network, voxels, pairs):
    with torch.no_grad():
        expected = network(voxels)
    session = AdaptationSession(network, replace(SETTINGS, scope="all"))
    session.adapt(voxels, pairs)
    moved = weights(network)
    for value, wanted in zip(session.source(voxels), expected, strict=True):
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=0)
    assert not changed(moved, network)


def test_steps_taken_bit_by_bit_are_those_taken_at_once(network, voxels, pairs):
    session = AdaptationSession(network, SETTINGS)
    at_once = session.adapt(voxels, pairs).kd_losses
    session.reset()
    steps = session.begin(voxels, pairs)
    for count in (1, 2, 5):
        session.advance(steps, count)
        assert steps.kd_losses == at_once[:count]


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
    session = AdaptationSession(network, replace(SETTINGS, steps=100, budget_ms=95), clock=lambda: next(ticks))
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


def test_a_share_of_the_scan_s_statistics_goes_into_the_batch_norms_and_nothing_else_moves(network, voxels):
    before = weights(network)
    seen = []
    network.backbone.stem.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean(dim=0)))
    AdaptationSession(network, replace(SETTINGS, scan_statistics=0.3)).take_statistics(voxels)
    assert all("running" in name or "num_batches" in name for name in changed(before, network))
    expected = 0.7 * before["backbone.stem.norm.running_mean"] + 0.3 * seen[0]
    torch.testing.assert_close(network.backbone.stem.norm.running_mean, expected)


def test_the_statistics_are_those_of_training_and_of_this_scan_whatever_scans_were_before(
    network, street_points, voxels, pairs
):
    session = AdaptationSession(network, replace(SETTINGS, scan_statistics=0.3, scope="norm"))
    session.take_statistics(voxels)
    expected = weights(network)
    session.take_statistics(network.voxel_input(street_points * 0.5))
    assert changed(expected, network)
    session.take_statistics(voxels)
    assert not changed(expected, network)
    assert session.adapt(voxels, pairs).kd_losses
    assert not any("running" in name for name in changed(expected, network))


def test_the_source_model_that_stands_in_where_a_scan_is_not_trusted_has_the_scan_s_statistics_too(
    network, voxels, pairs
):
    session = AdaptationSession(network, replace(SETTINGS, scan_statistics=0.3))
    session.take_statistics(voxels)
    with torch.no_grad():
        expected = network(voxels)
    session.adapt(voxels, pairs)
    for value, wanted in zip(session.source(voxels), expected, strict=True):
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=0)


def test_the_source_model_s_statistics_do_not_depend_on_the_steps_before(network, voxels, pairs):
    session = AdaptationSession(network, replace(SETTINGS, scan_statistics=0.3))
    session.take_statistics(voxels)
    expected = session.source(voxels)
    session.adapt(voxels, pairs)
    session.take_statistics(voxels)
    assert all(map(torch.equal, session.source(voxels), expected))


def test_a_change_of_settings_brings_back_the_statistics_of_training(network, voxels):
    before = weights(network)
    session = AdaptationSession(network, replace(SETTINGS, scan_statistics=0.3))
    session.take_statistics(voxels)
    session.configure(replace(SETTINGS, scan_statistics=0.0))
    assert not changed(before, network)


def test_a_handful_of_voxels_has_no_statistics(network, street_points):
    before = weights(network)
    AdaptationSession(network, replace(SETTINGS, scan_statistics=0.3)).take_statistics(
        network.voxel_input(street_points[:5])
    )
    assert not changed(before, network)


def test_from_a_single_voxel_no_statistics_drift(network, street_points):
    before, few = weights(network), PointTargets(torch.arange(1), torch.ones(1, 4))
    session = AdaptationSession(network, replace(SETTINGS, method="statistics"))
    assert len(session.adapt(network.voxel_input(street_points[:1]), few).kd_losses) == SETTINGS.steps
    assert not changed(before, network)


@pytest.mark.parametrize("scope", ["all", "lora"])
def test_a_fault_in_a_step_leaves_the_weights_from_before_the_scan(network, voxels, pairs, monkeypatch, scope):
    session = AdaptationSession(network, replace(SETTINGS, scope=scope))
    session.adapt(voxels, pairs)
    before, steps = weights(network), session.begin(voxels, pairs)
    session.advance(steps, 1)
    assert changed(before, network)

    def fail(*_):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(session, "_distillation", fail)
    with pytest.raises(RuntimeError, match="no kernel image"):
        session.advance(steps, 2)
    assert not changed(before, network)


@pytest.mark.parametrize("scope", ["all", "lora"])
def test_the_pull_leads_to_the_source_weights_whatever_was_configured_in_between(network, voxels, pairs, scope):
    before = weights(network)
    session = AdaptationSession(network, replace(SETTINGS, scope=scope))
    session.adapt(voxels, pairs)
    session.configure(replace(SETTINGS, scope=scope, pull=1.0, steps=1))
    session.adapt(voxels, pairs)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=1e-6, rtol=0)


def test_without_a_step_no_label_of_a_scan_disagrees_with_the_source_model(network, voxels, pairs):
    session = AdaptationSession(network, replace(SETTINGS, margin_m=0.0, disagreement_share=0.0))
    steps = session.begin(voxels, pairs)
    steps.losses.append(0.0)
    assert session.fault(voxels, session.source(voxels)[0].argmax(dim=1), steps) == ""


def test_no_gradient_is_left_behind(network, voxels, pairs):
    AdaptationSession(network, SETTINGS).adapt(voxels, pairs)
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "sometimes"}, "mode 'sometimes' is unknown; choose one of off, offline, online"),
        ({"scope": "heads"}, "scope 'heads' is unknown"),
        ({"optimizer": "lion"}, "optimizer 'lion' is unknown"),
        ({"method": "magic"}, "method 'magic' is unknown; choose one of kd,"),
        ({"loss": "l3"}, "loss 'l3' is unknown; choose one of cosine, centred-cosine, l2"),
        ({"trust": -0.1}, "trust must be a finite"),
        ({"scan_statistics": 1.1}, "scan_statistics must be a share of 0 to 1, not 1.1"),
        ({"scan_statistics": math.nan}, "scan_statistics must be a share of 0 to 1"),
        ({"steps": -2}, "steps must be 0 to 1000"),
        ({"steps": 1001}, "steps must be 0 to 1000"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite"),
        ({"budget_ms": -1.0}, "budget_ms must be a finite"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        AdaptationSettings(**change)


@pytest.mark.parametrize("scope", ["all", "norm", "lora"])
def test_steps_go_on_from_loaded_weights_as_if_there_had_been_none(network, voxels, pairs, scope):
    networks = [copy.deepcopy(network) for _ in range(3)]
    first, second, third = (AdaptationSession(n, replace(SETTINGS, scope=scope, learning_rate=1e-3)) for n in networks)
    first.adapt(voxels, pairs)
    moved = weights(networks[0].backbone)
    for session in (first, second):
        session.load(moved)
    losses = [session.adapt(voxels, pairs).kd_losses for session in (first, second, third)]
    assert losses[0] == losses[1] != losses[2]
    first.reset()
    assert not changed(weights(network), networks[0])
