"""Procedural textures: colour of a place on a surface, with detail that fades where a pixel cannot resolve it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.data.simulation.materials import Material

Values = NDArray[np.float32]
_SIZE = 512


def textured(material: NDArray[np.uint8], color: Values, position: Values, normal: Values, footprint: Values) -> Values:
    """Albedo (N, 3), linear RGB.

    Parameters
    ----------
    material
        (N,) materials.
    color
        (N, 3) colours of the faces.
    position
        (N, 3) places in the world [m].
    normal
        (N, 3) unit vectors.
    footprint
        (N,) size of a pixel on the surface [m].
    """
    albedo = color.copy()
    for kind, pattern in _PATTERNS.items():
        rows = np.flatnonzero(material == kind)
        if len(rows):
            place = _on_surface(position[rows], normal[rows])
            albedo[rows] *= pattern(place[:, 0], place[:, 1], footprint[rows])[:, None]
    grass = np.flatnonzero(material == Material.GRASS)
    dry = 0.5 + 0.5 * np.clip(_noise(position[grass, 0], position[grass, 1], 0.35), -1, 1)
    albedo[grass] *= 1.0 + dry[:, None] * np.array([0.7, 0.15, 0.2], dtype=np.float32)
    return albedo


def clouds(directions: Values) -> Values:
    """Cover (N,) of a cloudy sky, 0..1, in directions (N, 3)."""
    up = np.maximum(directions[:, 2], np.float32(0.03))
    x: Values = directions[:, 0] / up
    y: Values = directions[:, 1] / up
    dense = 0.6 * _noise(x, y, 0.03) + 0.4 * _noise(y, x, 0.011)
    cover: Values = np.clip(0.8 * dense, 0.0, 1.0) * np.clip(8.0 * directions[:, 2], 0.0, 1.0)
    return cover


def _on_surface(position: Values, normal: Values) -> Values:
    """Coordinates (N, 2) along a surface: x, y on the ground; along and up on a wall."""
    flat = np.abs(normal[:, 2]) > 0.7
    across = position[:, 1] * normal[:, 0] - position[:, 0] * normal[:, 1]
    return np.stack([np.where(flat, position[:, 0], across), np.where(flat, position[:, 1], position[:, 2])], axis=1)


@cache
def _cloud() -> Values:
    """(512, 512) noise that tiles: zero mean, unit deviation, amplitude inverse to the frequency."""
    rng = np.random.default_rng(512)
    frequency = np.hypot(np.fft.fftfreq(_SIZE)[:, None], np.fft.rfftfreq(_SIZE)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(_SIZE, _SIZE))) / frequency
    cloud = np.fft.irfft2(spectrum, (_SIZE, _SIZE))
    return (cloud / cloud.std()).astype(np.float32)


def _noise(x: Values, y: Values, pitch: float) -> Values:
    """Cloud noise whose finest detail is `pitch` [m]."""
    column, row = (np.floor(v / pitch).astype(np.int64) & (_SIZE - 1) for v in (x, y))
    return _cloud()[row, column]


def _resolved(footprint: Values, period: float) -> Values:
    """How much of a pattern of this period [m] is left: 1 near by, 0 where a pixel averages over it."""
    return np.clip(1.6 - 2.0 * footprint / period, 0.0, 1.0)


def _joint(x: Values, period: float, width: float) -> Values:
    """1 on the joints between plates of `period` [m]."""
    return (np.mod(x, period) < width).astype(np.float32)


def _asphalt(x: Values, y: Values, footprint: Values) -> Values:
    grain = _noise(x, y, 0.012) * _resolved(footprint, 0.03)
    return 1.0 + 0.13 * grain + 0.06 * _noise(x, y, 0.11)


def _paving(x: Values, y: Values, footprint: Values) -> Values:
    joint = np.maximum(_joint(x, 0.5, 0.02), _joint(y, 0.5, 0.02))
    return 1.0 - 0.4 * joint * _resolved(footprint, 0.1) + 0.07 * _noise(x, y, 0.05)


def _grass(x: Values, y: Values, footprint: Values) -> Values:
    blades = _noise(x, y, 0.015) * _resolved(footprint, 0.08)
    return np.maximum(1.0 + 0.3 * blades + 0.15 * _noise(y, x, 0.2), 0.3)


def _brick(x: Values, y: Values, footprint: Values) -> Values:
    course = np.floor(y / 0.08)
    mortar = np.maximum(_joint(y, 0.08, 0.012), _joint(x + 0.12 * np.mod(course, 2.0), 0.25, 0.012))
    tone = _cloud()[
        course.astype(np.int64) & 511, np.floor(x / 0.25 + 0.5 * np.mod(course, 2.0)).astype(np.int64) & 511
    ]
    near = _resolved(footprint, 0.08)
    return 1.0 + near * (0.12 * tone + 0.5 * mortar) + 0.06 * _noise(x, y, 0.1)


def _plaster(x: Values, y: Values, footprint: Values) -> Values:
    return 1.0 + 0.05 * _noise(x, y, 0.03) * _resolved(footprint, 0.06) + 0.05 * _noise(x, 0.2 * y, 0.1)


def _tiles(x: Values, y: Values, footprint: Values) -> Values:
    rows = np.mod(y, 0.3) / 0.3 + 0.4 * _joint(x, 0.25, 0.05)
    return 1.0 - 0.4 * rows * _resolved(footprint, 0.2) + 0.1 * _noise(x, y, 0.1)


def _bark(x: Values, y: Values, footprint: Values) -> Values:
    return np.maximum(1.0 + 0.3 * _noise(x, 0.2 * y, 0.01) * _resolved(footprint, 0.05), 0.3)


_PATTERNS: Mapping[Material, Callable[[Values, Values, Values], Values]] = {
    Material.ASPHALT: _asphalt,
    Material.ROAD_PAINT: _asphalt,
    Material.PAVING: _paving,
    Material.GRASS: _grass,
    Material.BRICK: _brick,
    Material.PLASTER: _plaster,
    Material.CONCRETE: _plaster,
    Material.TILES: _tiles,
    Material.BARK: _bark,
    Material.WOOD: _bark,
}
