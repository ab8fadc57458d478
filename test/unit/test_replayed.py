"""Steps recorded as CUDA graphs: when they are, and that they move the weights as steps taken one by one do."""

import copy
import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from held import held
from stripes import TINY_UNET

from ttt_kd_ros.adaptation import replayed
from ttt_kd_ros.adaptation import session as session_module
from ttt_kd_ros.adaptation.replayed import MIN_LEFT, RECORD, REPLAY, STEP, Recorder, Replayed
from ttt_kd_ros.adaptation.session import AdaptationSession
from ttt_kd_ros.adaptation.settings import SCOPES, AdaptationSettings
from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.points import PointsConfig

CUDA = torch.device("cuda")
RECORDED_AT_ONCE_WHERE_THERE_WERE_STEPS = [STEP, REPLAY, RECORD, REPLAY]
"""How the first and the last step of each of two scans are done."""


@pytest.fixture
def unrecordable(monkeypatch):
    def fails(self, function):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Recorder, "_record", fails)


def test_what_is_warm_from_the_start_is_recorded_at_once():
    assert Replayed(lambda: torch.zeros(2), Recorder(CUDA), warm=True).next(MIN_LEFT) == RECORD


def test_without_a_cuda_device_every_time_is_done_anew():
    done = []
    step = Replayed(lambda: done.append(1) or torch.zeros(2), Recorder(torch.device("cpu")))
    for left in (10, 9, 8):
        assert step.next(left) == STEP
        step(STEP)
    assert len(done) == 3


def test_it_is_recorded_once_warm_and_where_enough_is_left():
    step = Replayed(lambda: torch.zeros(2), Recorder(CUDA))
    assert step.next(100) == STEP
    step(STEP)
    assert step.next(MIN_LEFT) == RECORD
    assert step.next(MIN_LEFT - 1) == STEP


def test_what_cannot_be_recorded_is_done_anew_and_not_tried_again(unrecordable):
    recorder = Recorder(CUDA)
    step = Replayed(lambda: torch.ones(2), recorder)
    step(STEP)
    with pytest.warns(UserWarning, match=r"one by one.*not permitted when stream is capturing"):
        assert torch.equal(step(RECORD), torch.ones(2))
    assert step.next(100) == STEP
    following = Replayed(lambda: torch.ones(2), recorder)
    following(STEP)
    assert following.next(100) == STEP


@pytest.fixture
def fake_cuda(monkeypatch):
    """What records, in the place of CUDA's; its methods may be replaced."""
    graph = MagicMock()
    fakes = {
        "CUDAGraph": lambda: graph, "Stream": MagicMock(), "current_stream": MagicMock(), "stream": nullcontext,
        "is_initialized": lambda: True, "empty_cache": lambda: graph.capture_end(),
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return graph


def test_a_recording_that_cuda_breaks_off_costs_the_recording_alone(fake_cuda):
    """To end it fails as well, and from then on PyTorch gives no memory back."""
    recording = []

    def fails():
        recording.clear()
        raise RuntimeError("failed due to a previous error")

    def function():
        if recording:
            raise RuntimeError("not permitted when stream is capturing")
        return torch.ones(2)

    fake_cuda.capture_begin = lambda *_, **__: recording.append(True)
    fake_cuda.capture_end = fails
    step = Replayed(function, Recorder(CUDA))
    step(STEP)
    with pytest.warns(UserWarning, match="not permitted when stream is capturing"):
        assert torch.equal(step(RECORD), torch.ones(2))
    assert step.next(100) == STEP
    assert gc.isenabled()


def test_no_garbage_is_collected_in_a_recording(fake_cuda):
    """The recordings of a session that is gone may be in it: that they are freed breaks off the one that goes on."""
    collecting = []
    step = Replayed(lambda: collecting.append(gc.isenabled()) or torch.ones(2), Recorder(CUDA))
    step(STEP)
    step(RECORD)
    assert collecting == [True, False]
    assert gc.isenabled()


def test_a_first_step_is_recorded_once_there_were_steps_and_where_enough_are_to_come(network, street_points, pairs):
    session = AdaptationSession(network, AdaptationSettings(steps=MIN_LEFT, familiar=0.0))
    session._recorder.able = True
    assert session.first_step() == (STEP, 1.0)
    session._recorder.able = False
    session.adapt(network.voxel_input(street_points), pairs)
    assert session.first_step() == (STEP, 1.0), "without a GPU"
    session._recorder.able = True
    assert session.first_step() == (RECORD, 1.0)
    session.reset()
    assert session.first_step() == (RECORD, 1.0)
    session.configure(AdaptationSettings(steps=MIN_LEFT, decoded_parts=2))
    assert session.first_step() == (STEP, 0.6), "each part has its own recording"
    session.configure(AdaptationSettings(steps=MIN_LEFT - 1))
    assert session.first_step() == (STEP, 1.0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_none_keeps_what_the_ones_before_worked_on(device):
    recorder, worked_on = Recorder(torch.device(device)), []
    for _ in range(3):
        tensor = torch.zeros(2)
        worked_on.append(weakref.ref(tensor))
        step = Replayed(tensor.clone, recorder)
        step(STEP)
        del tensor
    assert [ref() is not None for ref in worked_on] == [False, False, True]


def scans(network, points, device):
    """Voxels and pairs of two scans of different sizes."""
    for scan in (points, points[::2].contiguous()):
        x, _, z = scan.unbind(1)
        targets = torch.stack([torch.sin(x), torch.cos(x), z, 1 - z], dim=1)
        yield network.voxel_input(scan.to(device)), PointTargets(torch.arange(len(scan)).to(device), targets.to(device))


def weights_after(network, points, settings):
    """Losses and weights after steps on two scans, and how the first and the last one of each was done."""
    session = AdaptationSession(copy.deepcopy(network).to(CUDA), settings)
    losses, ways = [], []
    for voxels, pairs in scans(network, points, CUDA):
        steps = session.begin(voxels, pairs)
        ways.append(session._scan.turns[0][1].next(settings.steps))
        for count in (2, settings.steps):
            session.advance(steps, count)
        losses += steps.kd_losses
        ways.append(session._scan.turns[0][1].next(MIN_LEFT))
    return losses, session._network.backbone.state_dict(), ways


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("scope", "parts"), [*((scope, 1) for scope in SCOPES), ("all", 2)])
def test_replayed_steps_are_those_taken_one_by_one(network, street_points, scope, parts, optimizer, monkeypatch):
    settings = AdaptationSettings(
        steps=8, scope=scope, optimizer=optimizer, learning_rate=1e-3, familiar=0.0, decoded_parts=parts
    )
    losses, weights, ways = weights_after(network, street_points, settings)
    assert ways == RECORDED_AT_ONCE_WHERE_THERE_WERE_STEPS
    monkeypatch.setattr(replayed, "MIN_LEFT", settings.steps + 1)
    expected_losses, expected, ways = weights_after(network, street_points, settings)
    assert ways == [STEP] * 4
    assert losses == pytest.approx(expected_losses, abs=1e-5)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["kd", "kd-permuted", "confident", "tent", "sar"])
def test_every_method_can_be_recorded(network, street_points, method):
    settings = AdaptationSettings(steps=6, method=method, familiar=0.0, source_weight=0.1, disagreement_share=0.9)
    assert weights_after(network, street_points, settings)[2] == RECORDED_AT_ONCE_WHERE_THERE_WERE_STEPS


@pytest.mark.parametrize("backbone", [TINY_UNET, PointsConfig(6, (8, 10), (8, 6), (1, 1))])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_recording_looks_nothing_up_in_the_maps(network_config, backbone, parts, street_points, pairs, monkeypatch):
    """A GPU cannot take it from the CPU meanwhile, and each replay would look it up again."""
    network = Network(replace(network_config, backbone=backbone))
    settings, looked_up = AdaptationSettings(steps=2 * parts, familiar=0.0, decoded_parts=parts), []
    session = AdaptationSession(network, settings)

    def held_by_maps():
        return held(tuple(aim.view.voxels.pyramid for aim, _ in session._scan.turns))

    def record(function):
        before = held_by_maps()
        result = function()
        looked_up.append(held_by_maps() - before)
        return MagicMock(), result

    session.adapt(network.voxel_input(street_points), pairs)
    monkeypatch.setattr(session._recorder, "able", True)
    monkeypatch.setattr(session._recorder, "_record", record)
    session.adapt(network.voxel_input(street_points), pairs)
    assert looked_up == [set()] * len(session._scan.turns)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("method", ["kd", "kd-permuted", "confident"])
def test_what_the_steps_minimise_is_made_before_a_recording(network, street_points, pairs, method, parts, monkeypatch):
    """Each replay would ask the source model again, and what a broken recording made holds no values."""
    settings = AdaptationSettings(
        steps=2 * parts, method=method, source_weight=0.1, familiar=0.0, trust=0.0, decoded_parts=parts
    )
    session, asked = AdaptationSession(network, settings), []
    session.adapt(network.voxel_input(street_points), pairs)
    recording = []

    def record(function):
        recording.append(True)
        result = function()
        recording.pop()
        return MagicMock(), result

    monkeypatch.setattr(session._recorder, "able", True)
    monkeypatch.setattr(session._recorder, "_record", record)
    for name in ("objective", "part_of"):
        original = getattr(session_module, name)
        monkeypatch.setattr(
            session_module, name, lambda *given, of=original: asked.append(bool(recording)) or of(*given)
        )
    source = session.source
    monkeypatch.setattr(session, "source", lambda voxels: asked.append(bool(recording)) or source(voxels))
    session.adapt(network.voxel_input(street_points), pairs)
    assert asked
    assert not any(asked)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_steps_from_the_source_weights_are_those_of_a_new_session(network, street_points, pairs, optimizer):
    settings = AdaptationSettings(mode="offline", steps=3, optimizer=optimizer, learning_rate=1e-2, familiar=0.0)
    session, voxels, found = AdaptationSession(network, settings), network.voxel_input(street_points), []
    for _ in range(2):
        losses = session.adapt(voxels, pairs).kd_losses
        found.append((losses, [weight.clone() for weight in network.backbone.parameters()]))
        session.reset()
    (losses, weights), (expected_losses, expected) = found
    assert losses == expected_losses
    assert all(map(torch.equal, weights, expected))


def test_a_recording_that_is_broken_off_leaves_no_gradient_behind(network, street_points, pairs, monkeypatch):
    settings = AdaptationSettings(steps=4, learning_rate=1e-2, familiar=0.0)
    voxels, found = network.voxel_input(street_points), []
    for breaks_off in (False, True):
        session = AdaptationSession(copy.deepcopy(network), settings)
        monkeypatch.setattr(session._recorder, "able", breaks_off)

        def record(function, session=session):
            for parameter in session._scope.parameters:
                parameter.grad = torch.full_like(parameter, 1e3)
            raise RuntimeError("cannot be captured")

        monkeypatch.setattr(session._recorder, "_record", record)
        with pytest.warns(UserWarning, match="cannot be captured") if breaks_off else nullcontext():
            found.append(session.adapt(voxels, pairs).kd_losses)
    assert found[0] == found[1]
