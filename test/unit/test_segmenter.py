"""The Segmenter: one label for each point, adaptation within its bounds, the source model where it is off."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from stripes import StripesTeacher, camera_view
from torch.nn.modules.module import register_module_forward_pre_hook

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.errors import CheckpointError, InputError, TeacherError
from ttt_kd_ros.frame import IGNORE_LABEL, Frame, Scan
from ttt_kd_ros.geometry.pairing import pair_points
from ttt_kd_ros.geometry.transforms import invert, rigid, transform_points
from ttt_kd_ros.model.checkpoint import save_checkpoint
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.sparse_backend import use_sparse_backend
from ttt_kd_ros.segmenter import Segmenter, load_segmenter

SETTINGS = AdaptationSettings(mode="online", steps=4, learning_rate=1e-2, min_pairs=50, scan_statistics=0)


@pytest.fixture
def frame(street_points):
    return Frame(Scan(street_points.numpy(), np.eye(4), stamp=1), (camera_view(),))


@pytest.fixture
def segmenter(network):
    return Segmenter(network, StripesTeacher(), SETTINGS)


def source_labels(network, points):
    with torch.no_grad():
        voxels = network.voxel_input(points)
        return network(voxels)[0].argmax(dim=1)[voxels.grid.inverse].numpy()


def test_without_adaptation_the_labels_are_those_of_the_source_model(network, frame, street_points):
    expected = source_labels(network, street_points)
    result = Segmenter(network, None, replace(SETTINGS, mode="off")).segment(frame)
    np.testing.assert_array_equal(result.labels, expected)
    assert result.adaptation.stopped_by == "off"
    assert result.adaptation.weight_version == 0


def test_confidence_is_the_probability_of_the_label(network, frame, street_points):
    result = Segmenter(network, None, replace(SETTINGS, mode="off")).segment(frame)
    with torch.no_grad():
        voxels = network.voxel_input(street_points)
        probability = torch.softmax(network(voxels)[0], dim=1)[voxels.grid.inverse]
    expected = probability[torch.arange(len(probability)), torch.from_numpy(result.labels).long()]
    np.testing.assert_allclose(result.confidence, expected, atol=1e-6)


def test_invalid_points_keep_their_place_with_the_ignore_label(segmenter, frame):
    points = frame.scan.points.copy()
    points[[0, 7, -1]] = [[np.nan, 0, 0], [0, np.inf, 0], [1e30, 0, 0]]
    result = segmenter.segment(replace(frame, scan=replace(frame.scan, points=points)))
    assert len(result.labels) == len(points)
    assert (result.labels == IGNORE_LABEL).nonzero()[0].tolist() == [0, 7, len(points) - 1]
    assert (result.confidence[[0, 7, -1]] == 0).all()
    assert np.isfinite(result.confidence).all()


@pytest.mark.parametrize("points", [np.empty((0, 3)), np.full((5, 3), np.nan)], ids=["empty", "all invalid"])
def test_a_scan_without_a_valid_point_is_answered_with_the_ignore_label(segmenter, frame, points):
    result = segmenter.segment(replace(frame, scan=replace(frame.scan, points=points.astype(np.float32))))
    assert result.labels.tolist() == [IGNORE_LABEL] * len(points)
    assert result.adaptation.stopped_by == "no valid points"


def test_the_labels_follow_the_order_of_the_points(network, frame):
    segmenter = Segmenter(network, None, replace(SETTINGS, mode="off"))
    order = np.random.default_rng(0).permutation(len(frame.scan.points))
    shuffled = replace(frame, scan=replace(frame.scan, points=frame.scan.points[order]))
    agreement = segmenter.segment(shuffled).labels == segmenter.segment(frame).labels[order]
    assert agreement.mean() > 0.999  # voxel means are summed in another order


def test_a_sensor_mounted_elsewhere_gives_the_same_labels(network, frame):
    segmenter = Segmenter(network, None, replace(SETTINGS, mode="off"))
    T_base_scan = rigid(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([0.3, 0.0, 1.9]))
    points = transform_points(invert(T_base_scan), torch.from_numpy(frame.scan.points).double()).float().numpy()
    elsewhere = replace(frame, scan=Scan(points, T_base_scan))
    agreement = segmenter.segment(elsewhere).labels == segmenter.segment(frame).labels
    assert agreement.mean() > 0.99  # points on the border of a voxel may fall into the next one


def test_adaptation_takes_the_steps_and_reports_the_loss_before_and_after_each(segmenter, frame):
    report = segmenter.segment(frame).adaptation
    assert report.steps == 4
    assert report.stopped_by == "steps"
    assert len(report.kd_losses) == 5
    assert report.kd_losses[-1] < report.kd_losses[0]


def test_the_paired_points_of_the_report_are_those_that_a_camera_sees(segmenter, frame):
    view = frame.views[0]
    seen = pair_points(torch.from_numpy(frame.scan.points), view.T_camera_scan, view.camera)
    assert segmenter.segment(frame).adaptation.paired_points == len(seen.points)


def test_the_scan_s_statistics_need_no_camera_and_are_left_behind_with_the_mode(network, frame, street_points):
    expected = source_labels(network, street_points)
    segmenter = Segmenter(network, StripesTeacher(), replace(SETTINGS, scan_statistics=0.9))
    dark = replace(frame, views=())
    result = segmenter.segment(dark)
    assert result.adaptation.stopped_by == "no views"
    assert (result.labels != expected).any()
    segmenter.configure(replace(SETTINGS, mode="off", scan_statistics=0.9))
    np.testing.assert_array_equal(segmenter.segment(dark).labels, expected)


def test_several_cameras_are_used_together(segmenter, frame):
    alone = segmenter.segment(frame).adaptation.paired_points
    both = replace(frame, views=(*frame.views, camera_view("left", yaw=0.6)))
    assert segmenter.segment(both).adaptation.paired_points > alone


def test_offline_adaptation_starts_each_scan_from_the_source_weights(segmenter, frame):
    segmenter.configure(replace(SETTINGS, mode="offline"))
    first, second = segmenter.segment(frame), segmenter.segment(frame)
    assert first.adaptation == second.adaptation
    np.testing.assert_array_equal(first.confidence, second.confidence)
    assert first.adaptation.weight_version == 1


def test_online_adaptation_goes_on_from_the_last_scan(segmenter, frame):
    first, second = segmenter.segment(frame).adaptation, segmenter.segment(frame).adaptation
    assert second.kd_losses[0] < first.kd_losses[0]
    assert (first.weight_version, second.weight_version) == (1, 2)


def test_reset_brings_the_source_model_back_to_the_bit(network, segmenter, frame):
    before = Segmenter(network, None, replace(SETTINGS, mode="off")).segment(frame)
    segmenter.segment(frame)
    segmenter.reset()
    segmenter.configure(replace(SETTINGS, steps=0))
    after = segmenter.segment(frame)
    np.testing.assert_array_equal(before.confidence, after.confidence)
    np.testing.assert_array_equal(before.labels, after.labels)
    assert after.adaptation.weight_version == 0


def test_switching_adaptation_off_brings_the_source_model_back(segmenter, frame):
    segmenter.configure(replace(SETTINGS, mode="off"))
    before = segmenter.segment(frame)
    segmenter.configure(SETTINGS)
    segmenter.segment(frame)
    segmenter.configure(replace(SETTINGS, mode="off"))
    np.testing.assert_array_equal(before.confidence, segmenter.segment(frame).confidence)


def test_a_stage_lasts_until_the_device_has_done_it(network, frame, monkeypatch):
    """A GPU computes while Python goes on: here nothing takes time but to wait for it."""
    seconds = []
    monkeypatch.setattr("ttt_kd_ros.segmenter.finished_at", seconds.append)
    settings = replace(SETTINGS, scan_statistics=0.5)
    timings = Segmenter(network, StripesTeacher(), settings, clock=lambda: len(seconds)).segment(frame).timings_ms
    assert timings == {"voxelise": 1e3, "statistics": 1e3, "teacher": 1e3, "adapt": 2e3, "predict": 1e3}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda frame: replace(frame, views=()), "no views"),
        (lambda frame: replace(frame, views=(camera_view(yaw=np.pi),)), "few pairs"),
    ],
)
def test_a_scan_that_no_camera_sees_is_answered_without_steps(segmenter, frame, change, cause):
    result = segmenter.segment(change(frame))
    assert result.adaptation.steps == 0
    assert result.adaptation.stopped_by == cause
    assert (result.labels != IGNORE_LABEL).all()


def test_a_loss_that_is_not_finite_leaves_the_last_good_weights(network, frame):
    teacher = StripesTeacher()
    segmenter = Segmenter(network, teacher, SETTINGS)
    segmenter.segment(frame)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    good = teacher.features
    teacher.features = lambda images: [(replace(grid, values=grid.values * float("nan")),) for (grid,) in good(images)]
    result = segmenter.segment(frame)
    assert result.adaptation.stopped_by == "not finite"
    assert result.adaptation.weight_version == 1
    assert np.isfinite(result.confidence).all()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_scan_that_is_not_trusted_is_adapted_to_near_the_view_and_left_to_the_source_model_elsewhere(
    network, frame, street_points
):
    source = Segmenter(network, None, replace(SETTINGS, mode="off")).segment(frame).confidence
    settings = replace(SETTINGS, mode="offline", trust=1.0)
    segmenter = Segmenter(network, StripesTeacher(), settings, training={"kd_cosine": 0.99})
    result = segmenter.segment(frame)
    assert not result.adaptation.trusted
    assert result.adaptation.steps == 4
    same = np.isclose(result.confidence, source, atol=1e-6)
    seen = pair_points(street_points, frame.views[0].T_camera_scan, frame.views[0].camera).points
    assert same.any()
    assert not same[seen.numpy()].any()
    segmenter.configure(replace(settings, trust=0.0))
    everywhere = segmenter.segment(frame)
    assert everywhere.adaptation.trusted
    assert np.isclose(everywhere.confidence, source, atol=1e-6).mean() < same.mean()


def test_a_familiar_scan_is_left_to_the_source_model_and_the_adapted_weights_stay(network, frame, street_points):
    source = Segmenter(network, None, replace(SETTINGS, mode="off")).segment(frame).confidence
    settings = replace(SETTINGS, mode="online", trust=0.0, familiar=0.0)
    segmenter = Segmenter(network, StripesTeacher(), settings, training={"kd_cosine": 0.01})
    adapted = segmenter.segment(frame).confidence
    segmenter.configure(replace(settings, familiar=0.9))
    voxels, seen = len(network.voxel_input(street_points).features), []

    def remember(module, inputs):
        if isinstance(module, Network):
            seen.append(len(inputs[0].features))

    with register_module_forward_pre_hook(remember):
        familiar = segmenter.segment(frame)
    assert seen.count(voxels) == 1, "the source model alone predicts"
    assert (familiar.adaptation.steps, familiar.adaptation.stopped_by) == (0, "familiar")
    np.testing.assert_allclose(familiar.confidence, source, atol=1e-6)
    assert familiar.adaptation.weight_version == 1
    segmenter.configure(replace(settings, steps=0))
    assert not np.allclose(segmenter.segment(frame).confidence, source, atol=1e-6)
    assert not np.allclose(adapted, source, atol=1e-6)


def test_a_picture_of_another_size_than_the_calibration_is_paired_at_the_same_places(network, frame):
    view = frame.views[0]
    half = replace(view, image=np.ascontiguousarray(view.image[::2, ::2]))
    whole, resized = (
        Segmenter(network, StripesTeacher(), SETTINGS).segment(replace(frame, views=(v,))).adaptation.paired_points
        for v in (view, half)
    )
    assert resized == pytest.approx(whole, rel=0.01)


def test_the_time_of_each_stage_is_reported(segmenter, frame):
    segmenter.configure(replace(SETTINGS, scan_statistics=0.3))
    timings = segmenter.segment(frame).timings_ms
    assert list(timings) == ["voxelise", "statistics", "teacher", "adapt", "predict"]
    assert all(ms > 0 for ms in timings.values())


def test_a_teacher_that_the_network_was_not_trained_with_is_refused(network):
    teacher = StripesTeacher()
    teacher.name = "dots"
    with pytest.raises(TeacherError, match=r"the teacher is dots .* trained with stripes"):
        Segmenter(network, teacher, SETTINGS)


def test_adaptation_without_a_teacher_is_refused_and_changes_nothing(network, frame):
    segmenter = Segmenter(network, None, replace(SETTINGS, mode="off"))
    with pytest.raises(TeacherError, match="needs the teacher"):
        segmenter.configure(SETTINGS)
    assert segmenter.segment(frame).adaptation.stopped_by == "off"


class TestLoading:
    @pytest.fixture
    def path(self, network, tmp_path):
        save_checkpoint(tmp_path / "model.safetensors", network, {})
        return tmp_path / "model.safetensors"

    def test_a_checkpoint_gives_the_network_s_answers(self, path, network, frame):
        off = replace(SETTINGS, mode="off")
        expected = Segmenter(network, None, off).segment(frame)
        np.testing.assert_array_equal(load_segmenter(path, settings=off).segment(frame).labels, expected.labels)

    def test_a_teacher_that_does_not_exist_is_refused(self, path):
        with pytest.raises(TeacherError, match="stripes"):
            load_segmenter(path, settings=SETTINGS)

    def test_a_missing_checkpoint_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError):
            load_segmenter(tmp_path / "nothing.safetensors")

    def test_the_number_of_threads_can_be_chosen(self, path):
        before = torch.get_num_threads()
        try:
            load_segmenter(path, settings=replace(SETTINGS, mode="off"), threads=before + 1)
            assert torch.get_num_threads() == before + 1
            load_segmenter(path, settings=replace(SETTINGS, mode="off"))
            assert torch.get_num_threads() == before + 1
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("device", ["cuda", "gpu", "mps", "meta"])
    def test_a_device_that_is_not_there_is_refused(self, path, device):
        if device == "cuda" and torch.cuda.is_available():
            pytest.skip("there is a CUDA device")
        with pytest.raises(InputError, match=f"device '{device}'"):
            load_segmenter(path, settings=replace(SETTINGS, mode="off"), device=device)


@pytest.mark.gpu
def test_what_a_gpu_computes_repeats_to_the_bit(network, frame):
    network = network.cuda()
    use_sparse_backend("auto", network)
    answers = [Segmenter(deepcopy(network), StripesTeacher(), replace(SETTINGS, steps=4)).segment(frame) for _ in "12"]
    assert answers[0].adaptation == answers[1].adaptation
    assert answers[0].adaptation.steps == 4
    np.testing.assert_array_equal(answers[0].confidence, answers[1].confidence)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "change",
    [
        {"mode": "offline", "disagreement_share": 0.9},
        {"scope": "lora", "scan_statistics": 0.3},
        {"scope": "decoder", "method": "kd-permuted", "source_weight": 0.1, "trust": 2.0},
    ],
    ids=str,
)
def test_a_gpu_comes_to_what_a_cpu_comes_to(network, frame, change, tmp_path):
    settings, answers = replace(SETTINGS, steps=2, **change), []
    left = camera_view("left", yaw=0.6)
    frame = replace(frame, views=(*frame.views, replace(left, depth=np.full((60, 80), 8, np.float32))))
    frame = replace(frame, scan=replace(frame.scan, points=frame.scan.points[::8].copy()))
    for device in ("cpu", "cuda"):
        segmenter = Segmenter(deepcopy(network).to(device), StripesTeacher(), settings)
        first = segmenter.segment(frame)
        segmenter.take(segmenter.weights())
        segmenter.save_weights(tmp_path / "weights.safetensors")
        if settings.mode == "online":
            segmenter.reset()
            segmenter.load_weights(tmp_path / "weights.safetensors")
        answers.append((first, segmenter.segment(frame)))
    for expected, found in zip(*answers, strict=True):
        assert (found.labels == expected.labels).mean() > 0.99
        assert found.adaptation.kd_losses == pytest.approx(expected.adaptation.kd_losses, abs=1e-3, nan_ok=True)
