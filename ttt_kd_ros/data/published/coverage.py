"""Which of many pictures of a scene to take: those that together show most of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ttt_kd_ros.data.folder import Picture
from ttt_kd_ros.geometry.pairing import pair_points

T = TypeVar("T")

CANDIDATES = 60
"""Pictures that are looked at in a scene with more."""
PICTURES = 5
"""Pictures that are taken: the paper's gain flattens near five."""
POINTS = 20_000
"""Points of the scene that stand for all."""


def spread(items: Sequence[T]) -> list[T]:
    """At most `CANDIDATES` of the items, evenly spread."""
    if len(items) <= CANDIDATES:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, CANDIDATES).round().astype(int)]


def choose_by_coverage(points: NDArray[np.float32], candidates: Sequence[Picture]) -> list[Picture]:
    """`PICTURES` pictures chosen one by one, each the one that shows most points that none before it shows.

    They are fewer if no other shows anything new.

    Parameters
    ----------
    points
        (N, 3) [m] in the scan frame, finite.
    candidates
        Pictures of the scene; where they have depth images, these tell what is hidden.
    """
    some = torch.from_numpy(np.ascontiguousarray(points[:: max(1, len(points) // POINTS)]))
    shown = np.zeros((len(candidates), len(some)), dtype=np.bool_)
    for row, picture in zip(shown, candidates, strict=True):
        depth = torch.from_numpy(picture.depth.read()) if picture.depth else None
        row[pair_points(some, picture.T_camera_scan, picture.camera, depth_image=depth).points] = True
    chosen: list[int] = []
    fresh = np.ones(len(some), dtype=np.bool_)
    for _ in range(min(PICTURES, len(candidates))):
        gains = (shown & fresh).sum(axis=1)
        best = int(gains.argmax())
        if not gains[best]:
            break
        chosen.append(best)
        fresh &= ~shown[best]
    return [candidates[i] for i in sorted(chosen)]
