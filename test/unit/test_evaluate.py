"""Scores of adaptation modes."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from stripes import StripesTeacher, camera_view

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.evaluation.evaluate import evaluate, methods_from, points_in_view, table
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.geometry.pairing import pair_points
from ttt_kd_ros.geometry.transforms import transform_points
from ttt_kd_ros.segmenter import Segmenter

SETTINGS = AdaptationSettings(steps=2, learning_rate=1e-2)


@pytest.fixture
def frames(street_points):
    points = street_points.numpy().copy()
    points[0] = np.nan
    labels = np.where(points[:, 2] < 0.1, 0, 2).astype(np.uint8)
    return [Frame(Scan(points, np.eye(4), stamp), (camera_view(),), labels) for stamp in (1, 2)]


@pytest.fixture
def segmenter(network):
    return Segmenter(network, StripesTeacher(), SETTINGS)


def rows(segmenter, frames, names=("off", "online", "offline")):
    return evaluate(segmenter, frames, methods_from(names, SETTINGS), data="street", checkpoint="tiny")


def test_the_score_of_the_source_model_is_that_of_its_labels(segmenter, frames):
    (row,) = rows(segmenter, frames, ["off"])
    labels, truth = segmenter.segment(frames[0]).labels, frames[0].labels
    expected = [((labels == c) & (truth == c)).sum() / ((labels == c) | (truth == c)).sum() for c in (0, 2)]
    assert row.iou["road"] == pytest.approx(expected[0], abs=1e-3)
    assert row.miou == pytest.approx(np.mean(expected), abs=1e-3)
    assert math.isnan(row.iou["vehicle"])
    assert row.steps == 0
    assert math.isnan(row.kd_loss_first)


def test_every_method_starts_from_the_source_weights(segmenter, frames):
    alone = rows(segmenter, frames, ["offline"])[0]
    after = rows(segmenter, frames, ["online", "offline"])[1]
    assert after.to_dict() | {"ms_per_scan": 0} == alone.to_dict() | {"ms_per_scan": 0}


def test_the_loss_before_and_after_the_steps_is_reported(segmenter, frames):
    _, online, _ = rows(segmenter, frames)
    assert online.kd_loss_last < online.kd_loss_first
    assert online.steps == 2


def test_points_in_view_are_those_that_are_paired(frames):
    seen, view = points_in_view(frames[0]), frames[0].views[0]
    points = transform_points(view.T_camera_scan, torch.from_numpy(frames[0].scan.points[1:]))
    assert not seen[0]
    assert (np.flatnonzero(seen) - 1).tolist() == pair_points(points, view.camera).points.tolist()


def test_frames_without_labels_are_refused(segmenter, frames):
    with pytest.raises(DataError, match="'street' has no labels"):
        rows(segmenter, [replace(frame, labels=None) for frame in frames])


def test_the_table_has_a_line_for_each_data_set_and_a_column_for_each_method(segmenter, frames):
    scores = rows(segmenter, frames)
    other = [replace(row, data="city", checkpoint=c) for row in scores for c in ("a", "b")]
    lines = table([*scores, *other]).splitlines()
    assert lines[0] == "| data | off | online | offline |"
    assert lines[2].startswith(f"| street | {100 * scores[0].miou:.1f} / {100 * scores[0].miou_view:.1f} |")
    assert "± 0.0" in lines[3]


def test_rows_are_plain_json(segmenter, frames):
    (row,) = rows(segmenter, frames, ["off"])
    plain = json.loads(json.dumps(row.to_dict()))
    assert plain["iou"]["vehicle"] is None
    assert plain["method"] == "off"
