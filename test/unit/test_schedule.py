"""Adaptation beside the scans: labels at once, weights when they are there."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import asdict, replace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from stripes import StripesTeacher, camera_view

from ttt_kd_ros import background, schedule
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.background import DIED, Start, Trained, Trainer
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import AdaptationReport, Frame, Scan
from ttt_kd_ros.schedule import ScheduledSegmenter, load_scheduled
from ttt_kd_ros.segmenter import Segmenter, Weights

SETTINGS = AdaptationSettings(steps=2, learning_rate=1e-2, min_pairs=50, schedule="background")
SECOND = 1_000_000_000


class FakeTrainer:
    """Holds what it was offered; the test says what came of it."""

    def __init__(self, how):
        self.settings = how["settings"]
        self.offers = []
        self.trained = None
        self.closed = False

    def offer(self, start, frame):
        self.offers.append((start, frame))
        return len(self.offers) > 1

    def take(self):
        trained, self.trained = self.trained, None
        return trained

    def close(self):
        self.closed = True

    def finish(self, stopped_by="steps", **report):
        """Training on the latest offer is done: every weight is a little bigger."""
        start, _ = self.offers[-1]
        version = start.weights.version + 1
        values = {name: np.asarray(value + 0.01, value.dtype) for name, value in start.weights.values.items()}
        report = AdaptationReport(2, stopped_by, (0.5, 0.4, 0.3), 99, version, **report)
        self.trained = Trained(start.number, report, Weights(values, version))


@pytest.fixture
def frame(street_points):
    return Frame(Scan(street_points.numpy(), np.eye(4), stamp=10 * SECOND), (camera_view(),))


@pytest.fixture
def source(network, frame):
    return Segmenter(network, None, replace(SETTINGS, mode="off")).segment(frame)


@pytest.fixture
def trainers():
    return []


@pytest.fixture
def segmenter(network, trainers):
    def make_trainer(how):
        trainers.append(FakeTrainer(how))
        return trainers[-1]

    return ScheduledSegmenter(Segmenter(network, StripesTeacher(), SETTINGS), {}, make_trainer)


def test_a_frame_may_be_labelled_without_its_pictures_and_learned_from_when_they_have_come(segmenter, frame, trainers):
    alone = replace(frame, views=())
    assert segmenter.segment(alone).adaptation.stopped_by == "background"
    assert not trainers[0].offers
    segmenter.learn(alone)
    assert not trainers[0].offers
    segmenter.learn(frame)
    assert [offered for _, offered in trainers[0].offers] == [frame]


def test_nothing_is_learned_from_frames_where_no_training_runs_beside(segmenter, frame, trainers):
    segmenter.configure(replace(SETTINGS, schedule="before"))
    segmenter.learn(frame)
    segmenter.configure(replace(SETTINGS, steps=0))
    segmenter.learn(frame)
    assert not any(trainer.offers for trainer in trainers)


def test_until_weights_come_the_source_model_labels(segmenter, frame, source):
    answer = segmenter.segment(frame)
    np.testing.assert_array_equal(answer.confidence, source.confidence)
    assert (answer.adaptation.steps, answer.adaptation.stopped_by) == (0, "background")
    assert answer.adaptation.weight_version == 0


def test_new_weights_label_the_next_scan_and_bring_their_report(segmenter, frame, source, trainers):
    segmenter.segment(frame)
    trainers[0].finish()
    answer = segmenter.segment(frame)
    assert not np.array_equal(answer.confidence, source.confidence)
    report = answer.adaptation
    assert (report.steps, report.stopped_by, report.weight_version) == (2, "steps", 1)
    assert report.kd_losses == (0.5, 0.4, 0.3)
    assert segmenter.segment(frame).adaptation.stopped_by == "background"


def test_scans_that_a_newer_one_replaces_are_counted(segmenter, frame):
    assert [segmenter.segment(frame).adaptation.skipped for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("report", [{"trusted": False}, {"stopped_by": "familiar"}], ids=str)
def test_while_the_latest_scan_is_not_trusted_or_familiar_the_source_model_labels(
    segmenter, frame, source, trainers, report
):
    segmenter.segment(frame)
    trainers[0].finish(**report)
    answer = segmenter.segment(frame)
    np.testing.assert_array_equal(answer.confidence, source.confidence)
    assert report.items() <= asdict(answer.adaptation).items()
    trainers[0].finish()
    assert segmenter.segment(frame).adaptation.weight_version == 1


def asked(segmenter, what):
    if what == "reset":
        segmenter.reset()
    elif what == "pause":
        segmenter.configure(replace(SETTINGS, steps=0))
    elif what == "parameters":
        segmenter.configure(replace(SETTINGS, scope="norm"))
    else:
        segmenter.load_weights(what)


@pytest.mark.parametrize("what", ["reset", "pause", "parameters", "load"])
def test_what_was_in_training_at_a_change_is_not_used(segmenter, frame, trainers, tmp_path, what):
    segmenter.save_weights(tmp_path / "weights.safetensors")
    segmenter.segment(frame)
    trainers[0].finish()
    before = segmenter.segment(frame).confidence
    trainers[0].finish()
    asked(segmenter, str(tmp_path / "weights.safetensors") if what == "load" else what)
    answer = segmenter.segment(frame)
    assert answer.adaptation.steps == 0
    assert np.array_equal(answer.confidence, before) == (what in ("pause", "parameters"))


def test_training_goes_on_from_the_weights_that_label(segmenter, frame, trainers):
    segmenter.segment(frame)
    trainers[0].finish()
    segmenter.segment(frame)
    segmenter.configure(replace(SETTINGS, scope="norm"))
    segmenter.segment(frame)
    start, _ = trainers[0].offers[-1]
    assert (start.weights.version, start.settings.scope, start.settings.schedule) == (1, "norm", "before")


@pytest.mark.parametrize("change", [{"steps": 0}, {"mode": "off"}, {"schedule": "before"}])
def test_nothing_is_trained_on_beside_when_it_should_not_be(segmenter, frame, trainers, change):
    segmenter.configure(replace(SETTINGS, **change))
    segmenter.segment(frame)
    assert trainers[0].offers == []
    assert trainers[0].closed == ("steps" not in change)


def test_mode_off_is_the_source_model_to_the_bit(segmenter, frame, source, trainers):
    segmenter.segment(frame)
    trainers[0].finish()
    segmenter.segment(frame)
    segmenter.configure(replace(SETTINGS, mode="off"))
    np.testing.assert_array_equal(segmenter.segment(frame).confidence, source.confidence)


def test_weights_that_make_predictions_collapse_are_not_kept(segmenter, frame, source, trainers):
    segmenter.segment(frame)
    start, _ = trainers[0].offers[-1]
    zeros = {name: np.zeros_like(value) for name, value in start.weights.values.items()}
    report = AdaptationReport(2, "steps", (0.5, 0.4, 0.3), 99, 1)
    trainers[0].trained = Trained(start.number, report, Weights(zeros, 1))
    answer = segmenter.segment(frame)
    np.testing.assert_array_equal(answer.confidence, source.confidence)
    assert answer.adaptation.reset_by == "collapse"


def test_a_trainer_that_died_is_reported_and_the_weights_stay(segmenter, frame, trainers):
    segmenter.segment(frame)
    trainers[0].finish()
    segmenter.segment(frame)
    trainers[0].trained = Trained(0, AdaptationReport(0, DIED), None)
    report = segmenter.segment(frame).adaptation
    assert (report.stopped_by, report.weight_version) == (DIED, 1)
    assert trainers[0].offers[-1][0].weights.version == 1


def test_offline_is_refused_in_the_background():
    with pytest.raises(InputError, match="set mode to online or schedule to before"):
        replace(SETTINGS, mode="offline")


class TestTimeJump:
    def at(self, frame, seconds):
        return replace(frame, scan=replace(frame.scan, stamp=round(seconds * SECOND)))

    @pytest.fixture
    def segmenter(self, network):
        return ScheduledSegmenter(Segmenter(network, StripesTeacher(), replace(SETTINGS, schedule="before")), {})

    def test_a_bag_that_begins_again_begins_with_the_source_weights(self, segmenter, frame):
        segmenter.segment(self.at(frame, 10))
        segmenter.segment(self.at(frame, 11))
        report = segmenter.segment(self.at(frame, 3)).adaptation
        assert (report.weight_version, report.reset_by) == (1, "time jump")
        assert segmenter.segment(self.at(frame, 4)).adaptation.reset_by == ""

    @pytest.mark.parametrize("stamp", [9.5, 0])
    def test_scans_out_of_order_or_without_stamp_are_no_jump(self, segmenter, frame, stamp):
        segmenter.segment(self.at(frame, 10))
        assert segmenter.segment(self.at(frame, stamp)).adaptation.weight_version == 2

    def test_it_can_be_allowed(self, segmenter, frame):
        segmenter.configure(replace(segmenter.settings, jump_s=0.0))
        segmenter.segment(self.at(frame, 10))
        assert segmenter.segment(self.at(frame, 3)).adaptation.weight_version == 2


class TestProcess:
    """The package's own model, trained in a real process."""

    HOW = {"checkpoint": "", "teacher": "", "device": "cpu", "threads": 1}  # noqa: RUF012
    TIMEOUT = 180.0

    @pytest.fixture(scope="class")
    def settings(self):
        return replace(SETTINGS, steps=1, min_pairs=1)

    @pytest.fixture
    def trainer(self, settings):
        trainer = Trainer(self.HOW | {"settings": settings})
        yield trainer
        trainer.close()

    def take(self, trainer):
        """What comes of training, once it is there."""
        with trainer._changed:
            assert trainer._changed.wait_for(lambda: trainer._trained is not None, self.TIMEOUT)
        return trainer.take()

    def test_a_process_that_cannot_be_started_is_told_and_tried_again(self, settings, monkeypatch):
        monkeypatch.setattr(background, "LOWEST_PRIORITY", ("no-such-program",))
        monkeypatch.setattr(background, "RESTART_S", 0.01)
        trainer = Trainer(self.HOW | {"settings": settings})
        for _ in range(2):
            assert self.take(trainer).report.stopped_by == DIED
        trainer.close()

    def test_it_trains_on_the_latest_scan_tells_of_its_death_and_ends_at_once(self, trainer, settings, frame):
        torch.set_num_threads(1)
        segmenter = load_scheduled(settings=replace(settings, mode="off"), threads=1)
        start = Start(7, replace(settings, schedule="before"), segmenter._segmenter.weights())
        first = replace(frame, scan=replace(frame.scan, points=frame.scan.points[:10]), views=())
        assert not trainer.offer(start, first)
        assert trainer.offer(start, frame)
        trained = self.take(trainer)
        assert (trained.start, trained.report.steps, trained.weights.version) == (7, 1, 1)
        changed = [n for n, v in trained.weights.values.items() if not np.array_equal(v, start.weights.values[n])]
        assert changed
        process = trainer._process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        trainer.offer(start, frame)
        assert self.take(trainer).report.stopped_by == DIED
        closing = threading.Thread(target=trainer.close)
        closing.start()
        closing.join(2)
        assert not closing.is_alive()


@pytest.mark.parametrize(
    ("device", "settings", "warmed_up"),
    [
        ("cpu", {}, False),
        ("cpu", {"deadline_ms": 90.0}, True),
        ("cpu", {"deadline_ms": 90.0, "schedule": "background"}, False),
        ("cuda", {}, True),
        ("cuda", {"schedule": "background"}, False),
    ],
    ids=str,
)
def test_what_would_be_slow_or_late_for_the_first_time_is_warmed_up(device, settings, warmed_up, monkeypatch):
    settings = AdaptationSettings(**settings)
    loaded, done = MagicMock(device=torch.device(device), settings=settings), []
    monkeypatch.setattr(schedule, "load_segmenter", lambda **how: loaded)
    monkeypatch.setattr(schedule, "warm_up", done.append)
    monkeypatch.setattr(schedule, "ScheduledSegmenter", MagicMock())
    load_scheduled(settings=settings)
    assert done == [loaded] * warmed_up
