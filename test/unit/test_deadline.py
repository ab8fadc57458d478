"""Steps that fit before the labels are due, by what they took lately."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from stripes import StripesTeacher, camera_view

from ttt_kd_ros.adaptation.cost import Pace, RunningCost
from ttt_kd_ros.adaptation.replayed import RECORD, REPLAY, STEP
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.segmenter import Segmenter
from ttt_kd_ros.warm_up import STEPS, TIMES, warm_up

TEACHER_S, FORWARD_S = 0.05, 0.02


class StoppedClock:
    """Goes on when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def go_on(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return StoppedClock()


@pytest.fixture
def segmenter(network, clock):
    """The teacher and each pass through the network take a fixed time, all else none."""
    teacher = StripesTeacher()
    features = teacher.features

    def slow_features(image):
        clock.go_on(TEACHER_S)
        return features(image)

    teacher.features = slow_features
    network.register_forward_hook(lambda *_: clock.go_on(FORWARD_S))
    settings = AdaptationSettings(
        steps=20, learning_rate=1e-3, min_pairs=50, trust=0.0, familiar=0.0, scan_statistics=0.0
    )
    return Segmenter(network, teacher, settings, clock)


@pytest.fixture
def frame(street_points):
    return Frame(Scan(street_points.numpy(), np.eye(4)), (camera_view(),))


def test_one_slow_moment_in_a_hundred_does_not_count():
    cost = RunningCost()
    for seconds in (0.010, 0.010, 0.012, 5.0, 0.011):
        cost.add(seconds)
    assert cost.estimate == 0.012


def test_what_the_machine_needed_long_ago_does_not_count(clock):
    cost = RunningCost()
    for seconds in [1.0] * 101 + [0.1] * 99:
        cost.add(seconds)
    assert cost.estimate == 0.1


def test_the_first_time_does_not_count():
    cost = RunningCost()
    cost.add(9.0)
    assert not cost.known
    cost.add(0.5)
    assert cost.estimate == 0.5


def test_a_stage_that_never_fits_is_tried_again_some_day(clock):
    pace = Pace(clock)
    for stage, seconds in (("predict", 0.1), ("step", 0.4)) * 2:
        pace.add(stage, seconds)
    tries = 0
    while not pace.fits(clock() + 0.4, "step"):
        pace.fade("step")
        tries += 1
    assert 50 < tries < 100


def test_the_first_scans_only_show_what_a_prediction_costs(segmenter, frame, clock):
    for _ in range(2):
        due = clock() + 0.2
        report = segmenter.segment(frame, due).adaptation
        assert (report.steps, report.stopped_by) == (0, "deadline")
        assert clock() <= due


def first_scans(segmenter, frame, clock, scans):
    for _ in range(scans):
        segmenter.segment(frame, clock() + 0.2)


def test_as_many_steps_are_taken_as_end_in_time(segmenter, frame, clock):
    first_scans(segmenter, frame, clock, scans=2)
    for _ in range(3):
        due = clock() + 0.2
        report = segmenter.segment(frame, due).adaptation
        assert (report.steps, report.stopped_by) == (6, "deadline")
        assert due - FORWARD_S < clock() <= due


def test_a_scan_that_is_not_trusted_keeps_time_for_the_source_model_s_labels(segmenter, frame, clock):
    first_scans(segmenter, frame, clock, scans=4)
    for trust in (1.0, 0.0, 1.0):
        segmenter.configure(replace(segmenter.settings, trust=trust))
        due = clock() + 0.2
        report = segmenter.segment(frame, due).adaptation
        assert (report.trusted, report.stopped_by) == (not trust, "deadline")
        assert due - FORWARD_S < clock() <= due


def test_what_the_teacher_needs_for_the_first_picture_of_a_size_does_not_count(segmenter, frame, clock):
    features, met = segmenter._teacher.features, set()

    def translating(images):
        for image in images:
            clock.go_on(0.0 if image.shape in met else 5.0)
            met.add(image.shape)
        return features(images)

    segmenter._teacher.features = translating
    warm_up(segmenter)
    first_scans(segmenter, frame, clock, scans=3)
    assert segmenter.segment(frame, clock() + 0.2).adaptation.steps == 6


def test_time_that_passed_before_counts(segmenter, frame, clock):
    first_scans(segmenter, frame, clock, scans=4)
    assert segmenter.segment(frame, clock() + 0.14).adaptation.steps == 3


def test_without_time_for_a_step_the_teacher_is_not_asked(segmenter, frame, clock):
    first_scans(segmenter, frame, clock, scans=5)
    start = clock()
    report = segmenter.segment(frame, start + 0.06).adaptation
    assert (report.steps, report.stopped_by) == (0, "deadline")
    assert clock() - start == pytest.approx(FORWARD_S)


def test_without_a_deadline_all_steps_are_taken(segmenter, frame):
    assert segmenter.segment(frame, math.inf).adaptation.steps == 20


def test_mode_off_needs_no_time(segmenter, frame, clock):
    segmenter.configure(replace(segmenter.settings, mode="off"))
    assert segmenter.segment(frame, clock() - 1).adaptation.stopped_by == "off"


def test_the_scan_s_statistics_come_before_the_steps_and_count(segmenter, frame, clock):
    segmenter.configure(replace(segmenter.settings, scan_statistics=0.3))
    for _ in range(4):
        segmenter.segment(frame, clock() + 0.2)
    due = clock() + 0.2
    answer = segmenter.segment(frame, due)
    assert answer.adaptation.steps == 5
    assert answer.timings_ms["statistics"] == pytest.approx(FORWARD_S * 1e3)
    assert clock() <= due
    assert "statistics" not in segmenter.segment(frame, clock() + 0.03).timings_ms


def test_where_there_is_no_time_for_a_scan_s_statistics_those_of_training_are_used(segmenter, network, frame, clock):
    before = {name: value.clone() for name, value in network.named_buffers()}
    segmenter.configure(replace(segmenter.settings, scan_statistics=0.3))
    for _ in range(4):
        segmenter.segment(frame, clock() + 0.2)
    assert not all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    segmenter.segment(frame, clock() + 0.03)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_once_warmed_up_a_scan_is_late_neither_for_its_first_teacher_nor_for_its_first_step(segmenter, frame, clock):
    warm_up(segmenter)
    taken = []
    for _ in range(4):
        due = clock() + 0.2
        report = segmenter.segment(frame, due).adaptation
        taken.append(report.steps)
        assert clock() <= due
    assert taken == [0, 6, 6, 6]


def test_one_slow_moment_while_warming_up_does_not_count(segmenter, frame, clock):
    features, calls = segmenter._teacher.features, []

    def once_slow(image):
        calls.append(clock.go_on(2.0 if len(calls) == 1 else 0.0))
        return features(image)

    segmenter._teacher.features = once_slow
    warm_up(segmenter)
    taken = [segmenter.segment(frame, clock() + 0.2).adaptation.steps for _ in range(3)]
    assert taken == [0, 6, 6]


def test_warming_up_for_a_gpu_meets_every_way_to_take_a_step(segmenter, monkeypatch):
    """Whatever the settings would stop."""
    monkeypatch.setitem(STEPS, "cpu", STEPS["cuda"])
    recorder, ways, add = segmenter._session._recorder, Counter(), segmenter.pace.add

    def record(function):
        result = function()
        return MagicMock(replay=lambda: result.copy_(function())), result

    monkeypatch.setattr(recorder, "able", True)
    monkeypatch.setattr(recorder, "_record", record)
    monkeypatch.setattr(segmenter.pace, "add", lambda stage, *cost: (ways.update([stage]), add(stage, *cost)))
    segmenter.configure(replace(segmenter.settings, budget_ms=1.0, disagreement_share=0.001, learning_rate=0.1))
    warm_up(segmenter)
    assert min(ways[way] for way in (STEP, RECORD, REPLAY)) >= TIMES


def test_before_a_first_step_that_is_recorded_its_recording_must_fit(segmenter, frame, clock, monkeypatch):
    for _ in range(3):
        segmenter.segment(frame)
    monkeypatch.setattr(segmenter._session._recorder, "able", True)
    for _ in range(3):
        segmenter.pace.add(RECORD, 9.0)
    assert segmenter.segment(frame, clock() + 1).adaptation.stopped_by == "deadline"
    monkeypatch.setattr(segmenter._session._recorder, "able", False)
    assert segmenter.segment(frame, clock() + 1).adaptation.steps > 0


def test_once_warmed_up_a_teacher_that_takes_too_long_is_not_tried(segmenter, frame, clock):
    warm_up(segmenter)
    for _ in range(3):
        start = clock()
        segmenter.segment(frame, start + FORWARD_S + TEACHER_S / 2)
        assert clock() - start == pytest.approx(FORWARD_S)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_warming_up_changes_neither_settings_nor_weights_nor_statistics(segmenter, network, mode):
    settings = replace(segmenter.settings, mode=mode, scan_statistics=0.3)
    segmenter.configure(settings)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    warm_up(segmenter)
    assert segmenter.settings == settings
    assert segmenter.weights().version == 0
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_a_made_up_scan_cost_is_believed_until_it_is_measured_twice_on_real_ones(clock):
    pace = Pace(clock)
    for stage, seconds in (("predict", 0.4), ("teacher", 0.3), ("step", 0.8)) * 2:
        pace.add(stage, seconds)
    pace.assume("step")
    assert not pace.fits(clock() + 100, "teacher", "step")
    pace.add("predict", 0.1)
    assert pace.fits(clock() + 0.61, "teacher", "step")
    assert not pace.fits(clock() + 0.59, "teacher", "step")
    pace.fade("teacher", "step")
    assert pace.fits(clock() + 0.5976, "teacher", "step")
    for _ in range(2):
        pace.add("teacher", 0.7)
    assert not pace.fits(clock() + 0.98, "teacher", "step")
    for _ in range(2):
        pace.add("step", 0.05)
    assert pace.fits(clock() + 0.86, "teacher", "step")


def test_a_single_slow_moment_at_the_start_keeps_no_scan_from_being_adapted_to(clock):
    pace = Pace(clock)
    for stage, seconds in (("predict", 0.1), ("step", 0.2)) * 2:
        pace.add(stage, seconds)
    pace.assume("step")
    pace.add("predict", 0.1)
    pace.add("step", 5.0)
    assert pace.fits(clock() + 0.31, "step")
