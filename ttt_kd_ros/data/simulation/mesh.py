"""Triangle meshes whose every face knows its material, its class and its colour, and the shapes they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttt_kd_ros.data.simulation.materials import Label, Material

Color = tuple[float, float, float]
GREY: Color = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Surface:
    """Material, class and linear RGB colour (0..1) of a face."""

    material: Material
    label: Label
    color: Color = GREY


@dataclass(frozen=True)
class Mesh:
    """Triangles that share nothing.

    Parameters
    ----------
    corners
        (F, 3, 3) float32 [m].
    cells
        (F, 3, 2) float32, facade coordinates of the corners in window columns and storeys; 0 where no windows are.
    material, label
        (F,) uint8.
    color
        (F, 3) float32, linear RGB.
    """

    corners: NDArray[np.float32]
    cells: NDArray[np.float32]
    material: NDArray[np.uint8]
    label: NDArray[np.uint8]
    color: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.corners)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0, scale: float = 1.0) -> Mesh:
        """Scaled, turned about z by `yaw` [rad] and moved by (x, y, z) [m]."""
        c, s = np.cos(yaw) * scale, np.sin(yaw) * scale
        linear = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, scale]])
        return replace(self, corners=(self.corners @ linear.T + [x, y, z]).astype(np.float32))


def join(meshes: Iterable[Mesh]) -> Mesh:
    """All faces of all meshes, in order."""
    parts = [triangles(np.zeros((0, 3, 3)), Surface(Material.METAL, Label.OTHER_OBJECT)), *meshes]
    return Mesh(
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.cells for part in parts]),
        np.concatenate([part.material for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.color for part in parts]),
    )


def triangles(corners: ArrayLike, surface: Surface, cells: ArrayLike | None = None) -> Mesh:
    """Mesh of (F, 3, 3) corners, all of one surface."""
    corners = np.asarray(corners, dtype=np.float32).reshape(-1, 3, 3)
    count = len(corners)
    return Mesh(
        corners,
        np.zeros((count, 3, 2), np.float32) if cells is None else np.asarray(cells, np.float32).reshape(-1, 3, 2),
        np.full(count, surface.material, dtype=np.uint8),
        np.full(count, surface.label, dtype=np.uint8),
        np.tile(np.asarray(surface.color, dtype=np.float32), (count, 1)),
    )


def quads(corners: ArrayLike, surface: Surface, cells: ArrayLike | None = None) -> Mesh:
    """Mesh of (Q, 4, 3) corners in the order around each quad, with facade coordinates (Q, 4, 2)."""
    halves = [0, 1, 2, 0, 2, 3]
    corners = np.asarray(corners, dtype=np.float32).reshape(-1, 4, 3)
    if cells is not None:
        cells = np.asarray(cells, dtype=np.float32).reshape(-1, 4, 2)[:, halves]
    return triangles(corners[:, halves], surface, cells)


def grid(points: ArrayLike, surface: Surface) -> Mesh:
    """Surface through (R, C, 3) points."""
    p = np.asarray(points, dtype=np.float32)
    return quads(np.stack([p[:-1, :-1], p[1:, :-1], p[1:, 1:], p[:-1, 1:]], axis=2), surface)


def box(low: Sequence[float], high: Sequence[float], surface: Surface) -> Mesh:
    """Box between two opposite corners [m]."""
    x, y, z = np.stack([np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)], axis=1)
    corner = np.array([[x[i], y[j], z[k]] for k in (0, 1) for j in (0, 1) for i in (0, 1)])
    faces = [[0, 1, 5, 4], [1, 3, 7, 5], [3, 2, 6, 7], [2, 0, 4, 6], [4, 5, 7, 6], [0, 2, 3, 1]]
    return quads(corner[faces], surface)


def tube(
    start: ArrayLike, end: ArrayLike, radius: float, surface: Surface, sides: int = 6, end_radius: float | None = None
) -> Mesh:
    """Closed cylinder or cone frustum between two points [m]."""
    a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    axis = (b - a) / np.linalg.norm(b - a)
    across = np.cross(axis, [1.0, 0.0, 0.0] if abs(axis[0]) < 0.8 else [0.0, 1.0, 0.0])
    across /= np.linalg.norm(across)
    angle = np.linspace(0.0, 2 * np.pi, sides + 1)[:, None]
    ring = np.cos(angle) * across + np.sin(angle) * np.cross(axis, across)
    low, high = a + radius * ring, b + (radius if end_radius is None else end_radius) * ring
    shell = quads(np.stack([low[:-1], low[1:], high[1:], high[:-1]], axis=1), surface)
    caps = [np.stack([np.broadcast_to(p, (sides, 3)), r[:-1], r[1:]], axis=1) for p, r in ((a, low), (b, high))]
    return join([shell, triangles(np.concatenate(caps), surface)])


def ball(centre: ArrayLike, radii: ArrayLike, surface: Surface, sides: int = 8) -> Mesh:
    """Ellipsoid [m]."""
    latitude, longitude = np.linspace(-np.pi / 2, np.pi / 2, sides // 2 + 1), np.linspace(0, 2 * np.pi, sides + 1)
    lat, lon = np.meshgrid(latitude, longitude, indexing="ij")
    unit = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    return grid(np.asarray(centre) + unit * np.asarray(radii), surface)
