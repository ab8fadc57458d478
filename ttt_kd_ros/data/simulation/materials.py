"""What surfaces are made of: how they scatter the LiDAR's light, and the classes of things."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Label(IntEnum):
    """Classes of the simulator; ``config/labels/simulated.yaml`` maps them to class lists."""

    ROAD = 0
    ROAD_MARKING = 1
    SIDEWALK = 2
    TERRAIN = 3
    BUILDING = 4
    WALL = 5
    FENCE = 6
    POLE = 7
    SIGN = 8
    VEGETATION = 9
    TRUNK = 10
    CAR = 11
    VAN = 12
    TRUCK = 13
    BUS = 14
    PERSON = 15
    TWO_WHEELER = 16
    RIDER = 17
    OTHER_OBJECT = 18


class Material(IntEnum):
    """What a face is made of."""

    ASPHALT = 0
    ROAD_PAINT = 1
    PAVING = 2
    GRASS = 3
    BRICK = 4
    PLASTER = 5
    CONCRETE = 6
    TILES = 7
    GLASS = 8
    BARK = 9
    LEAVES = 10
    METAL = 11
    CAR_PAINT = 12
    RUBBER = 13
    CLOTH = 14
    WOOD = 15
    RETROREFLECTOR = 16
    LAMP = 17


class Optics(NamedTuple):
    """How a material answers a laser pulse.

    Parameters
    ----------
    reflectance
        Share of the light that a white face of it scatters back, 0..1; above 1 for retroreflectors.
    tint
        How much of the reflectance depends on the brightness of the face's colour, 0..1.
    roughness
        Standard deviation of the range on top of the sensor's [m].
    glancing
        Share of the perpendicular echo that is left at grazing incidence: 0 for smooth faces.
    lost
        Share of the pulses that give no echo because they pass through or are mirrored away.
    """

    reflectance: float
    tint: float
    roughness: float
    glancing: float
    lost: float


OPTICS = {
    Material.ASPHALT: Optics(0.28, 0.0, 0.004, 0.16, 0.02),
    Material.ROAD_PAINT: Optics(0.75, 0.0, 0.003, 0.25, 0.0),
    Material.PAVING: Optics(0.36, 0.0, 0.004, 0.18, 0.01),
    Material.GRASS: Optics(0.42, 0.2, 0.03, 0.5, 0.02),
    Material.BRICK: Optics(0.36, 0.5, 0.004, 0.2, 0.0),
    Material.PLASTER: Optics(0.5, 0.6, 0.003, 0.2, 0.0),
    Material.CONCRETE: Optics(0.4, 0.5, 0.003, 0.2, 0.0),
    Material.TILES: Optics(0.3, 0.4, 0.01, 0.2, 0.0),
    Material.GLASS: Optics(0.15, 0.0, 0.002, 0.0, 0.65),
    Material.BARK: Optics(0.3, 0.2, 0.012, 0.4, 0.0),
    Material.LEAVES: Optics(0.45, 0.3, 0.03, 0.5, 0.08),
    Material.METAL: Optics(0.4, 0.4, 0.002, 0.1, 0.05),
    Material.CAR_PAINT: Optics(0.55, 0.8, 0.003, 0.04, 0.06),
    Material.RUBBER: Optics(0.12, 0.0, 0.003, 0.3, 0.05),
    Material.CLOTH: Optics(0.4, 0.6, 0.008, 0.4, 0.0),
    Material.WOOD: Optics(0.42, 0.4, 0.004, 0.2, 0.0),
    Material.RETROREFLECTOR: Optics(4.0, 0.0, 0.003, 0.6, 0.0),
    Material.LAMP: Optics(0.5, 0.0, 0.003, 0.2, 0.1),
}


def optics_table() -> NDArray[np.float32]:
    """(materials, 5) float32: the fields of `Optics` by material."""
    return np.array([OPTICS[material] for material in Material], dtype=np.float32)


def on_window(cells: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether facade coordinates (N, 2), counted in window columns and storeys, lie on a pane of glass."""
    return _from_window_edge(cells) < 0.0


def on_frame(cells: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether facade coordinates (N, 2) lie on the frame round a window."""
    edge = _from_window_edge(cells)
    return (edge >= 0.0) & (edge < 0.03)


def _from_window_edge(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far (N,) facade coordinates are from the nearest window, negative inside of it."""
    within = cells - np.floor(cells)
    return np.maximum(np.abs(within[:, 0] - 0.5) - 0.24, np.abs(within[:, 1] - 0.55) - 0.25)


def luminance(color: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brightness (N,) of linear RGB (N, 3), weights of ITU-R BT.709."""
    return color @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
