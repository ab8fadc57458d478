"""Rigid transforms as a unit quaternion and a vector, in plain floats."""

from __future__ import annotations

import math
from typing import NamedTuple

Quaternion = tuple[float, float, float, float]
"""x, y, z, w."""
Vector = tuple[float, float, float]


class Pose(NamedTuple):
    """Maps child coordinates to parent coordinates: rotates, then translates."""

    rotation: Quaternion
    translation: Vector


IDENTITY = Pose((0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0))


def normalized(rotation: Quaternion) -> Quaternion:
    """Unit quaternion of the same rotation, with its largest or real part positive; NaN for a zero quaternion."""
    length = math.hypot(*rotation)
    if length == 0.0:
        return (math.nan, math.nan, math.nan, math.nan)
    w = rotation[3] / length
    leading = w if abs(w) > 0.5 else max(rotation[:3], key=abs)
    x, y, z, w = (math.copysign(1.0, leading) * part / length for part in rotation)
    return (x, y, z, w)


def compose(first: Pose, second: Pose) -> Pose:
    """Apply `second`, then `first`."""
    x, y, z = _rotate(first.rotation, second.translation)
    tx, ty, tz = first.translation
    return Pose(_multiply(first.rotation, second.rotation), (x + tx, y + ty, z + tz))


def inverse(pose: Pose) -> Pose:
    """Map parent coordinates to child coordinates."""
    rotation = _conjugate(pose.rotation)
    x, y, z = _rotate(rotation, pose.translation)
    return Pose(rotation, (-x, -y, -z))


def interpolate(older: Pose, newer: Pose, ratio: float) -> Pose:
    """Pose at `ratio` of the way: translation on a line, rotation on the shorter great arc (slerp)."""
    (ax, ay, az), (bx, by, bz) = older.translation, newer.translation
    rest = 1.0 - ratio
    translation = (rest * ax + ratio * bx, rest * ay + ratio * by, rest * az + ratio * bz)
    return Pose(_slerp(older.rotation, newer.rotation, ratio), translation)


def _slerp(a: Quaternion, b: Quaternion, ratio: float) -> Quaternion:
    cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
    angle = math.acos(min(abs(cosine), 1.0))
    if angle == 0.0:
        return a
    scale = 1.0 / math.sin(angle)
    s = scale * math.sin((1.0 - ratio) * angle)
    t = math.copysign(scale, cosine) * math.sin(ratio * angle)
    return (s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2], s * a[3] + t * b[3])


def _conjugate(q: Quaternion) -> Quaternion:
    return (-q[0], -q[1], -q[2], q[3])


def _multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _rotate(q: Quaternion, v: Vector) -> Vector:
    x, y, z, _ = _multiply(_multiply(q, (*v, 0.0)), _conjugate(q))
    return (x, y, z)
