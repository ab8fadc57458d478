"""Lenses: directions in a camera's optical frame to the image plane at focal length 1.

Each model tells where it can be trusted: a polynomial fitted to a lens turns round somewhere outside the picture, and
a point beyond would fold back into it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor


def pinhole(points: Tensor) -> tuple[Tensor, Tensor]:
    """Pinhole camera; see `radial_tangential`."""
    x, y, z = points.unbind(dim=1)
    in_front = z > 0
    distance = torch.where(in_front, z, 1.0)
    return torch.stack([x / distance, y / distance]).T, in_front


def radial_tangential(coefficients: Sequence[float], points: Tensor) -> tuple[Tensor, Tensor]:
    """Brown-Conrady distortion as in OpenCV's ``projectPoints``.

    Parameters
    ----------
    coefficients
        k1, k2, p1, p2, k3 (plumb_bob), then k4, k5, k6 of the denominator (rational_polynomial).
    points
        (N, 3) float [m].

    Returns
    -------
    plane
        (N, 2) float, coordinates in the image plane; meaningless where not in range.
    in_range
        (N,) bool, in front of the camera and within the angle up to which the radius in the picture grows.
    """
    k1, k2, p1, p2, k3, *denominator = coefficients
    k4, k5, k6 = denominator or (0.0, 0.0, 0.0)
    xy, in_front = pinhole(points)
    x, y = xy.unbind(dim=1)
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    plane = torch.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ]
    ).T
    return plane, in_front & (r2 < _growing_radius(Polynomial([1, k1, k2, k3]), Polynomial([1, k4, k5, k6])))


def equidistant(coefficients: Sequence[float], points: Tensor) -> tuple[Tensor, Tensor]:
    """Fisheye lens as in OpenCV's ``fisheye::projectPoints``, but for all angles up to 180 degrees off the axis.

    A lens of more than 180 degrees field of view sees points beside and behind the camera plane: those with z <= 0
    have a pixel as long as the lens' polynomial grows with the angle.

    Parameters
    ----------
    coefficients
        k1, k2, k3, k4 (Kannala-Brandt).
    points
        (N, 3) float [m].

    Returns
    -------
    plane
        (N, 2) float, coordinates in the image plane; meaningless where not in range.
    in_range
        (N,) bool, at a known angle, and within the one up to which the radius in the picture grows.
    """
    k1, k2, k3, k4 = coefficients
    radius = torch.hypot(points[:, 0], points[:, 1])
    angle = torch.atan2(radius, points[:, 2])
    a2 = angle * angle
    bent = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
    plane = points[:, :2] * (bent / radius.clamp_min(torch.finfo(points.dtype).tiny))[:, None]
    limit = min(math.sqrt(_growing_radius(Polynomial([1, k1, k2, k3, k4]), Polynomial([1]))), math.pi)
    return plane, points.any(dim=1) & (angle < limit)


def _growing_radius(numerator: Polynomial, denominator: Polynomial) -> float:
    """Square s of the radius r up to which ``r * numerator(s) / denominator(s)`` has no pole and grows with r."""
    s = Polynomial([0, 1])
    slope = (numerator + 2 * s * numerator.deriv()) * denominator - 2 * s * numerator * denominator.deriv()
    roots = np.concatenate([slope.roots(), denominator.roots()])
    positive = roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)].real
    return float(positive.min(initial=np.inf))
