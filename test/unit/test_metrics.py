"""Confusion and IoU against a count by hand and against sets of points."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.evaluation.metrics import confusion, iou, mean_iou, without_nan
from ttt_kd_ros.frame import IGNORE_LABEL


def array(*values):
    return np.array(values, dtype=np.uint8)


def test_a_count_by_hand():
    truth = array(0, 0, 0, 1, 1, 255, 255)
    labels = array(0, 0, 1, 1, 2, 0, 2)
    matrix = confusion(labels, truth, 3)
    assert_array_equal(matrix, [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    assert_allclose(iou(matrix), [2 / 3, 1 / 3, np.nan])
    assert mean_iou(matrix) == pytest.approx(0.5)


def test_iou_equals_intersection_over_union_of_the_sets_of_points():
    rng = np.random.default_rng(0)
    truth = rng.choice(array(0, 1, 2, 4, IGNORE_LABEL), 5000)
    labels = rng.choice(array(0, 1, 2, 3, 4, IGNORE_LABEL), 5000)
    scores = iou(confusion(labels, truth, 5))
    known = truth != IGNORE_LABEL
    for c in (0, 1, 2, 4):
        said, true = set(np.flatnonzero(known & (labels == c))), set(np.flatnonzero(truth == c))
        assert scores[c] == pytest.approx(len(said & true) / len(said | true))
    assert np.isnan(scores[3])


def test_a_point_without_a_predicted_class_counts_against_its_true_class():
    matrix = confusion(array(0, IGNORE_LABEL), array(0, 0), 2)
    assert iou(matrix)[0] == pytest.approx(0.5)


def test_matrices_of_several_scans_add_up():
    rng = np.random.default_rng(1)
    truth, labels = rng.integers(0, 4, (2, 1000)).astype(np.uint8)
    parts = confusion(labels[:300], truth[:300], 4) + confusion(labels[300:], truth[300:], 4)
    assert_array_equal(parts, confusion(labels, truth, 4))


def test_without_ground_truth_there_is_no_score():
    assert np.isnan(mean_iou(confusion(array(0, 1), array(255, 255), 2)))


def test_lengths_that_differ_are_refused():
    with pytest.raises(InputError, match="3 labels cannot be scored against 2"):
        confusion(array(0, 1, 1), array(0, 1), 2)


def test_a_true_label_that_is_no_class_is_refused():
    with pytest.raises(InputError, match="true label 7 is none of 2 classes"):
        confusion(array(0), array(7), 2)


def test_nan_becomes_none_for_json():
    values = {"a": 1.5, "b": math.nan, "c": {"d": math.nan, "e": "text", "f": 3}}
    assert without_nan(values) == {"a": 1.5, "b": None, "c": {"d": None, "e": "text", "f": 3}}
