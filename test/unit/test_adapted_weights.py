"""Adapted weights in files, and steps that are stopped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from stripes import StripesTeacher, camera_view

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.errors import CheckpointError, InputError
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.model.checkpoint import load_checkpoint, load_manifest, save_checkpoint
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.segmenter import Segmenter

SETTINGS = AdaptationSettings(mode="online", steps=4, learning_rate=1e-2, min_pairs=50)
PAUSED = replace(SETTINGS, steps=0)


@pytest.fixture
def frame(street_points):
    return Frame(Scan(street_points.numpy(), np.eye(4), stamp=1), (camera_view(),))


@pytest.fixture
def twin(network):
    """Another segmenter of the same source model."""
    copy = Network(network.config)
    copy.load_state_dict(network.state_dict())
    return Segmenter(copy, StripesTeacher(), SETTINGS)


@pytest.fixture
def adapted(network, frame):
    segmenter = Segmenter(network, StripesTeacher(), SETTINGS, training={"seed": 3})
    segmenter.segment(frame)
    segmenter.segment(frame)
    return segmenter


class TestFiles:
    def test_loaded_weights_predict_like_the_saved_ones(self, twin, adapted, frame, tmp_path):
        adapted.save_weights(tmp_path / "w.safetensors")
        twin.load_weights(tmp_path / "w.safetensors")
        for segmenter in (adapted, twin):
            segmenter.configure(PAUSED)
        expected, found = adapted.segment(frame), twin.segment(frame)
        np.testing.assert_array_equal(found.confidence, expected.confidence)
        assert found.adaptation.weight_version == 2

    def test_the_statistics_in_the_file_are_those_of_training(self, network, frame, tmp_path):
        before = {name: value.clone() for name, value in network.named_buffers()}
        segmenter = Segmenter(network, StripesTeacher(), replace(SETTINGS, scan_statistics=0.3))
        segmenter.segment(frame)
        segmenter.save_weights(tmp_path / "w.safetensors")
        saved, _ = load_checkpoint(tmp_path / "w.safetensors")
        assert all(torch.equal(value, before[name]) for name, value in saved.named_buffers())

    def test_the_file_tells_of_its_source_and_its_adaptation(self, adapted, tmp_path):
        adapted.save_weights(tmp_path / "deep" / "w.safetensors")
        assert load_manifest(tmp_path / "deep" / "w.safetensors").training == {"seed": 3, "adapted_scans": 2}

    def test_a_reset_after_loading_brings_the_source_weights_back(self, twin, adapted, frame, tmp_path):
        twin.configure(PAUSED)
        source = twin.segment(frame).confidence
        adapted.save_weights(tmp_path / "w.safetensors")
        twin.load_weights(tmp_path / "w.safetensors")
        assert not np.array_equal(twin.segment(frame).confidence, source)
        twin.reset()
        np.testing.assert_array_equal(twin.segment(frame).confidence, source)

    @pytest.mark.parametrize("mode", ["off", "offline"])
    def test_weights_that_would_not_be_kept_are_refused(self, twin, adapted, tmp_path, mode):
        adapted.save_weights(tmp_path / "w.safetensors")
        twin.configure(replace(SETTINGS, mode=mode))
        with pytest.raises(InputError, match=f"the mode is {mode}"):
            twin.load_weights(tmp_path / "w.safetensors")

    def test_a_file_that_cannot_be_written_is_named(self, adapted, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointError, match=r"w\.safetensors: cannot be written"):
            adapted.save_weights(tmp_path / "file" / "w.safetensors")


class TestRefusals:
    def refused(self, segmenter, frame, path, match):
        segmenter.configure(PAUSED)
        before = segmenter.segment(frame).confidence
        with pytest.raises(CheckpointError, match=match):
            segmenter.load_weights(path)
        np.testing.assert_array_equal(segmenter.segment(frame).confidence, before)

    def test_weights_of_another_shape_are_refused_with_the_differences(self, twin, network, frame, tmp_path):
        other = Network(replace(network.config, voxel_size=0.25, teacher=replace(network.config.teacher, name="dots")))
        save_checkpoint(tmp_path / "other.safetensors", other, {})
        message = r"teacher\.name is dots instead of stripes; voxel_size is 0\.25 instead of 0\.5"
        self.refused(twin, frame, tmp_path / "other.safetensors", message)

    def test_weights_of_another_training_are_refused(self, twin, network, frame, tmp_path):
        other = Network(network.config)
        other.load_state_dict(network.state_dict())
        torch.nn.init.ones_(other.label_head.bias)
        save_checkpoint(tmp_path / "other.safetensors", other, {})
        message = r"was not adapted from this model: label_head\.bias has other values"
        self.refused(twin, frame, tmp_path / "other.safetensors", message)

    def test_a_damaged_file_is_refused(self, twin, frame, tmp_path):
        (tmp_path / "w.safetensors").write_bytes(b"\x08")
        self.refused(twin, frame, tmp_path / "w.safetensors", "cannot be read")


class TestStop:
    def test_a_stopped_segmenter_labels_without_steps(self, twin, frame):
        twin.stop()
        report = twin.segment(frame).adaptation
        assert (report.steps, report.stopped_by) == (0, "stopped")

    def test_a_stop_between_two_steps_ends_them(self, network, frame):
        teacher = StripesTeacher()
        ticks = iter(range(1000))

        def clock():
            if next(ticks) == 12:
                segmenter.stop()
            return 0.0

        segmenter = Segmenter(network, teacher, replace(SETTINGS, steps=100, budget_ms=1.0), clock)
        report = segmenter.segment(frame).adaptation
        assert 0 < report.steps < 100
        assert report.stopped_by == "stopped"
