"""Scores of a segmentation against ground truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import IGNORE_LABEL


def confusion(labels: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count the points by true and predicted class.

    Parameters
    ----------
    labels
        (N,) predicted class of each point.
    truth
        (N,) true class; points with `IGNORE_LABEL` are left out.
    classes
        Number of classes.

    Returns
    -------
    (classes, classes + 1) int64
        Row: true class. Column: predicted class; the last one holds the points that got no class.

    Raises
    ------
    InputError
        If the lengths differ or a true label is no class.
    """
    if labels.shape != truth.shape:
        raise InputError(f"{labels.size} labels cannot be scored against {truth.size} true ones")
    known = truth != IGNORE_LABEL
    truth, labels = truth[known].astype(np.int64), labels[known].astype(np.int64)
    if truth.size and truth.max() >= classes:
        raise InputError(f"true label {truth.max()} is none of {classes} classes")
    cells = truth * (classes + 1) + np.minimum(labels, classes)
    return np.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, NaN for classes that the ground truth does not hold.

    Parameters
    ----------
    matrix
        As `confusion` returns it, or a sum of such.
    """
    hits = np.diagonal(matrix)
    present = matrix.sum(axis=1)
    union = present + matrix.sum(axis=0)[: len(hits)] - hits
    return np.where(present > 0, hits / np.maximum(union, 1), np.nan)


def mean_iou(matrix: NDArray[np.int64]) -> float:
    """Mean over the classes that the ground truth holds, NaN if it holds none."""
    scores = iou(matrix)
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def without_nan(value: Any) -> Any:
    """The value for JSON: None in place of NaN, also inside a mapping or a list."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def with_nan(value: Any) -> Any:
    """The value that `without_nan` was given: NaN in place of None."""
    if isinstance(value, Mapping):
        return {key: with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nan(item) for item in value]
    return math.nan if value is None else value
