"""Points that a moving sensor measured one after another, as they lie around it at one time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

KNOT_DISTANCE_S = 0.01


@dataclass(frozen=True)
class Motion:
    """Where the sensor was while it measured, between knots that follow one another.

    Parameters
    ----------
    times
        (K,) float64, ascending, at least two [s].
    T_stamp_time
        (K, 4, 4) float64, maps sensor coordinates at each time to sensor coordinates at the scan's stamp.
    """

    times: NDArray[np.float64]
    T_stamp_time: NDArray[np.float64]


def knot_times(first: float, last: float) -> NDArray[np.float64]:
    """Times [s] from the first to the last, at most `KNOT_DISTANCE_S` apart; at least two."""
    return np.linspace(first, last, max(2, 1 + math.ceil((last - first) / KNOT_DISTANCE_S)))


def deskew(points: NDArray[np.float32], times: NDArray[np.float64], motion: Motion) -> NDArray[np.float32]:
    """Points as they lie around the sensor at the scan's stamp.

    Between two knots the sensor moves straight at constant speed and turns about a fixed axis at constant rate, as TF
    interpolates: lerp and slerp.

    Parameters
    ----------
    points
        (N, 3) float32 [m] in the sensor's frame, each at its own time; not finite ones stay so.
    times
        (N,) float64 [s]; times outside the knots are taken as the first or last.
    motion
        Of the sensor's frame.
    """
    times = np.clip(np.nan_to_num(times), motion.times[0], motion.times[-1])
    knot = np.searchsorted(motion.times[1:-1], times, side="right")
    share = ((times - motion.times[knot]) / np.diff(motion.times)[knot]).astype(np.float32)
    order = np.argsort(knot.astype(np.min_scalar_type(len(motion.times))), kind="stable")  # quick for one byte
    shares, columns = share.take(order), np.ascontiguousarray(points.take(order, axis=0).T)
    bounds = np.cumsum(np.bincount(knot, minlength=len(motion.times) - 1))
    for (first, last), (T0, T1) in zip(pairwise([0, *bounds]), pairwise(motion.T_stamp_time), strict=True):
        if first < last:
            columns[:, first:last] = _between(T0, T1, shares[first:last], columns[:, first:last])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return np.ascontiguousarray(columns.T).take(place, axis=0)


def _between(
    T0: NDArray[np.float64], T1: NDArray[np.float64], share: NDArray[np.float32], points: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Points (3, M), each transformed by the transform that lies between two at its share (M,) of the way.

    Rodrigues' formula: the part along the axis stays, the part across it turns.
    """
    (x, y, z), angle = axis_angle(T0[:3, :3].T @ T1[:3, :3])
    along, around = np.outer((x, y, z), (x, y, z)), np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    fixed, across, aside = (
        (T0[:3, :3] @ part).astype(np.float32) @ points for part in (along, np.eye(3) - along, around)
    )
    turn, start, way = share * np.float32(angle), T0[:3, 3:].astype(np.float32), (T1 - T0)[:3, 3:].astype(np.float32)
    return np.asarray(fixed + np.cos(turn) * across + np.sin(turn) * aside + share * way + start)


def axis_angle(rotation: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Unit axis (3,) and angle [rad] in [0, pi) of a (3, 3) rotation; any axis for no rotation."""
    twice_sine_axis = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    length = float(np.linalg.norm(twice_sine_axis))
    if length == 0:
        return np.array([0.0, 0.0, 1.0]), 0.0
    return twice_sine_axis / length, math.atan2(length, float(np.trace(rotation)) - 1)
