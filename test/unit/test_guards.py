"""What happens when adaptation goes wrong: the source weights come back, with the reason in the report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from stripes import StripesTeacher, camera_view

from ttt_kd_ros.adaptation.session import AdaptationSession
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.segmenter import Segmenter

SETTINGS = AdaptationSettings(steps=3, learning_rate=1e-2, min_pairs=50, trust=0.0, scan_statistics=0.0)


@pytest.fixture
def frame(street_points):
    return Frame(Scan(street_points.numpy(), np.eye(4), stamp=1), (camera_view(),))


@pytest.fixture
def source(network, frame):
    return Segmenter(network, None, replace(SETTINGS, mode="off")).segment(frame)


def assert_source(segmenter, answer, source, cause):
    np.testing.assert_array_equal(answer.labels, source.labels)
    np.testing.assert_array_equal(answer.confidence, source.confidence)
    report = answer.adaptation
    assert (report.steps, report.stopped_by, report.reset_by, report.weight_version) == (0, cause, cause, 0)


def test_weights_that_give_all_points_one_label_are_given_up(network, frame, source):
    shares = np.bincount(source.labels) / len(source.labels)
    gentle = replace(SETTINGS, learning_rate=1e-6, collapse_share=float(shares.max()) + 0.1)
    segmenter = Segmenter(network, StripesTeacher(), gentle)
    answer = segmenter.segment(frame)
    assert answer.adaptation.stopped_by == "steps"
    weights = segmenter.weights()
    collapsed = {name: np.zeros_like(value) if "weight" in name else value for name, value in weights.values.items()}
    segmenter.take(replace(weights, values=collapsed))
    segmenter.configure(replace(segmenter.settings, steps=0))
    answer = segmenter.segment(frame)
    np.testing.assert_array_equal(answer.labels, source.labels)
    assert (answer.adaptation.reset_by, answer.adaptation.weight_version) == ("collapse", 0)


def test_a_scene_that_the_source_model_gives_one_label_too_is_no_collapse(network, frame):
    with torch.no_grad():
        network.label_head.bias[2] += 100
    segmenter = Segmenter(network, StripesTeacher(), SETTINGS)
    answer = segmenter.segment(frame)
    assert (answer.labels == 2).all()
    assert (answer.adaptation.steps, answer.adaptation.reset_by) == (3, "")


def test_steps_that_change_too_many_labels_are_undone(network, frame, source):
    segmenter = Segmenter(network, StripesTeacher(), replace(SETTINGS, disagreement_share=0.0))
    answer = segmenter.segment(frame)
    assert_source(segmenter, answer, source, "disagreement")


def test_steps_that_change_few_labels_stay(network, frame):
    segmenter = Segmenter(network, StripesTeacher(), replace(SETTINGS, disagreement_share=0.99))
    assert segmenter.segment(frame).adaptation.weight_version == 1


def distance(network, source):
    return sum((network.state_dict()[name] - value).float().pow(2).sum().item() for name, value in source.items())


@pytest.mark.parametrize("scope", ["norm", "lora", "all"])
def test_the_pull_keeps_the_weights_near_the_source(network, frame, scope):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    free, pulled, bound = (
        Segmenter(network, StripesTeacher(), replace(SETTINGS, scope=scope, pull=pull)) for pull in (0.0, 0.5, 1.0)
    )
    distances = []
    for segmenter in (free, pulled, bound):
        segmenter.reset()
        segmenter.segment(frame)
        distances.append(distance(network, before))
    assert distances[0] > distances[1] > distances[2] == pytest.approx(0, abs=1e-9)


class TestMemory:
    """The GPU's memory is too small for the steps of some scopes."""

    @pytest.fixture(autouse=True)
    def out_of_memory(self, monkeypatch):
        """Scopes whose steps are too big."""
        too_big = {"all"}
        move = AdaptationSession._move

        def checked(session, *args):
            if session.settings.scope in too_big:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return move(session, *args)

        monkeypatch.setattr(AdaptationSession, "_move", checked)
        return too_big

    def test_the_scan_is_labelled_and_the_next_one_adapted_in_a_smaller_scope(self, network, frame, source):
        segmenter = Segmenter(network, StripesTeacher(), SETTINGS)
        answer = segmenter.segment(frame)
        np.testing.assert_array_equal(answer.labels, source.labels)
        assert (answer.adaptation.steps, answer.adaptation.stopped_by) == (0, "out of memory")
        encoder = {name: value.clone() for name, value in network.backbone.encoder.state_dict().items()}
        assert segmenter.segment(frame).adaptation.steps == 3
        assert all(torch.equal(value, encoder[name]) for name, value in network.backbone.encoder.state_dict().items())

    def test_what_was_learnt_before_stays(self, network, frame, out_of_memory):
        out_of_memory.clear()
        segmenter = Segmenter(network, StripesTeacher(), SETTINGS)
        segmenter.segment(frame)
        out_of_memory.add("all")
        assert segmenter.segment(frame).adaptation.weight_version == 1

    def test_if_that_is_too_much_as_well_the_source_model_goes_on_alone(self, network, frame, source, out_of_memory):
        out_of_memory.add("decoder")
        segmenter = Segmenter(network, StripesTeacher(), SETTINGS)
        for _ in range(4):
            answer = segmenter.segment(frame)
            np.testing.assert_array_equal(answer.confidence, source.confidence)
            assert answer.adaptation.stopped_by == "out of memory"

    def test_new_settings_are_a_new_try(self, network, frame, out_of_memory):
        out_of_memory.add("decoder")
        segmenter = Segmenter(network, StripesTeacher(), SETTINGS)
        for _ in range(3):
            segmenter.segment(frame)
        segmenter.configure(replace(SETTINGS, scope="norm"))
        assert segmenter.segment(frame).adaptation.steps == 3

    def test_a_prediction_that_does_not_fit_beside_the_steps_ends_them_and_is_made(self, network, frame, out_of_memory):
        out_of_memory.clear()
        segmenter = Segmenter(network, StripesTeacher(), SETTINGS)
        session, predict = segmenter._session, segmenter._predict

        def fits_alone(*arguments):
            if session._scan is not None:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return predict(*arguments)

        segmenter._predict = fits_alone
        answer = segmenter.segment(frame)
        assert (answer.adaptation.steps, answer.adaptation.stopped_by) == (3, "out of memory")
        assert session.settings.scope == "decoder"

    def test_statistics_that_do_not_fit_are_those_of_training(self, network, frame, source, monkeypatch):
        segmenter = Segmenter(network, StripesTeacher(), replace(SETTINGS, scan_statistics=0.3, steps=0))

        def too_much(*_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(AdaptationSession, "take_statistics", too_much)
        np.testing.assert_array_equal(segmenter.segment(frame).confidence, source.confidence)

    def test_nothing_of_a_scan_that_was_too_big_is_kept(self, network, frame):
        segmenter = Segmenter(network, StripesTeacher(), SETTINGS)
        segmenter.segment(frame)
        assert segmenter._session._scan is None

    def test_a_teacher_that_does_not_fit_is_no_end(self, network, frame):
        teacher = StripesTeacher()

        def features(images):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        teacher.features = features
        answer = Segmenter(network, teacher, SETTINGS).segment(frame)
        assert answer.adaptation.stopped_by == "out of memory"


def test_offline_the_source_weights_come_back_after_a_scan_that_could_not_be_labelled(network, frame, monkeypatch):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    segmenter = Segmenter(network, StripesTeacher(), replace(SETTINGS, mode="offline"))

    def fail(*_):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(segmenter, "_predict", fail)
    with pytest.raises(RuntimeError, match="no kernel image"):
        segmenter.segment(frame)
    assert distance(network, before) == 0


def test_after_several_numbers_of_steps_what_was_undone_stays_undone(network, frame, source):
    segmenter = Segmenter(network, StripesTeacher(), replace(SETTINGS, disagreement_share=0.0))
    for answer in segmenter.segment_after(frame, (1, 2, 3)):
        np.testing.assert_array_equal(answer.confidence, source.confidence)
        assert answer.adaptation.weight_version == 0
