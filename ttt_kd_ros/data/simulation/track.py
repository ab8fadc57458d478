"""The road's course: from coordinates along a straight street to a world with bends and hills."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_STEP = 0.25
_MARGIN = 400.0


@dataclass(frozen=True)
class Track:
    """A centre line over gentle hills.

    Parameters
    ----------
    length
        Length that is driven on [m].
    bends
        (B, 3): amplitude of the heading [rad], wave number [1/m] and phase of each wave.
    hills
        (H, 4): amplitude [m], wave numbers in x and y [1/m] and phase of each wave.
    """

    length: float
    bends: Floats
    hills: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, length: float) -> Track:
        """A random course; no bend is tighter than 170 m, so that nothing beside the road folds over."""
        waves = 2 * np.pi / rng.uniform(260, 520, 2)
        bends = np.column_stack([rng.uniform(0.0, 0.12, 2), waves, rng.uniform(0, 6.3, 2)])
        wave, direction = 2 * np.pi / rng.uniform(120, 300, 3), rng.uniform(0, 6.3, 3)
        heights = rng.uniform(0.0, 0.5, 3)
        hills = np.column_stack([heights, wave * np.cos(direction), wave * np.sin(direction), rng.uniform(0, 6.3, 3)])
        return cls(length, bends, hills)

    def heading(self, s: ArrayLike) -> Floats:
        """Direction of the road [rad] at the distances `s` [m]."""
        amplitude, wave, phase = self.bends.T
        return np.asarray(np.sin(np.multiply.outer(np.asarray(s), wave) + phase) @ amplitude)

    def place(self, flat: ArrayLike) -> Floats:
        """World coordinates (..., 3) of distance along the road, distance to its left and height (..., 3) [m]."""
        s, d, z = np.moveaxis(np.asarray(flat, dtype=np.float64), -1, 0)
        stations, centre = self._centre_line
        heading = self.heading(s)
        x = np.interp(s, stations, centre[:, 0]) - d * np.sin(heading)
        y = np.interp(s, stations, centre[:, 1]) + d * np.cos(heading)
        return np.stack([x, y, z + self._height(x, y)], axis=-1)

    def poses(self, s: Floats, d: Floats, z: float, turn: Floats) -> Floats:
        """Poses (N, 4, 4) on the ground, `turn` [rad] to the left of the road's direction.

        x points forward along the ground and z away from it.
        """
        T = np.tile(np.eye(4), (len(s), 1, 1))
        T[:, :3, 3] = origin = self.place(np.stack([s, d, np.full_like(s, z)], axis=-1))
        slope_x, slope_y = self._slopes(origin[:, 0], origin[:, 1])
        heading = self.heading(s) + turn
        c, n = np.cos(heading), np.sin(heading)
        forward = np.stack([c, n, slope_x * c + slope_y * n], axis=1)
        up = np.stack([-slope_x, -slope_y, np.ones_like(c)], axis=1)
        T[:, :3, 0] = forward / np.linalg.norm(forward, axis=1, keepdims=True)
        T[:, :3, 2] = up / np.linalg.norm(up, axis=1, keepdims=True)
        T[:, :3, 1] = np.cross(T[:, :3, 2], T[:, :3, 0])
        return T

    @cached_property
    def _centre_line(self) -> tuple[Floats, Floats]:
        stations = np.arange(-_MARGIN, self.length + _MARGIN, _STEP)
        heading = self.heading(stations + _STEP / 2)
        steps = _STEP * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        line = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)[:-1]])
        return stations, line - line[np.searchsorted(stations, 0.0)]

    def _height(self, x: Floats, y: Floats) -> Floats:
        return np.asarray(sum(a * np.sin(kx * x + ky * y + p) for a, kx, ky, p in self.hills))

    def _slopes(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        waves = [(a * np.cos(kx * x + ky * y + p), kx, ky) for a, kx, ky, p in self.hills]
        return np.asarray(sum(w * kx for w, kx, _ in waves)), np.asarray(sum(w * ky for w, _, ky in waves))
