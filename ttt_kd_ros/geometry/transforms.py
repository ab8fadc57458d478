"""Rigid transforms as 4x4 matrices."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def rigid(rotation: NDArray[np.float64], translation: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) transform from a (3, 3) rotation and a (3,) translation [m]."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def invert(T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a rigid transform: ``T_b_a`` from ``T_a_b``."""
    rotation = T[:3, :3].T
    return rigid(rotation, -rotation @ T[:3, 3])


def transform_points(T: NDArray[np.float64], points: Tensor) -> Tensor:
    """Points (N, 3) of the source frame in the target frame of `T` = ``T_target_source``, on the points' device."""
    return affine(T[:3], points)


def affine(A: NDArray[np.float64], points: Tensor) -> Tensor:
    """``A[:, :3] @ point + A[:, 3]`` of points (N, 3) for the K rows of `A` (K, 4): (N, K), on the points' device."""
    exact = points.double() if points.is_cuda else points  # TF32 would move a point by centimetres
    linear, constant = (torch.as_tensor(part).to(exact) for part in (A[:, :3], A[:, 3]))
    return (exact @ linear.T).add_(constant).to(points)
