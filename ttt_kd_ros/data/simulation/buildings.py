"""Buildings, walls, fences and what stands along a street, in a frame whose x axis runs along the street."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ttt_kd_ros.data.simulation.materials import Label, Material
from ttt_kd_ros.data.simulation.mesh import Color, Mesh, Surface, ball, box, join, quads, triangles, tube

Rng = np.random.Generator

_FACADES: tuple[tuple[Material, Color], ...] = (
    (Material.BRICK, (0.32, 0.11, 0.07)), (Material.BRICK, (0.38, 0.20, 0.12)), (Material.PLASTER, (0.62, 0.56, 0.42)),
    (Material.PLASTER, (0.70, 0.68, 0.62)), (Material.PLASTER, (0.58, 0.40, 0.22)),
    (Material.PLASTER, (0.45, 0.50, 0.52)), (Material.CONCRETE, (0.38, 0.37, 0.35)),
    (Material.PLASTER, (0.66, 0.52, 0.48)),
)  # fmt: skip
_ROOFS: tuple[Color, ...] = ((0.28, 0.09, 0.05), (0.11, 0.11, 0.12), (0.20, 0.13, 0.09))
_STEEL = Surface(Material.METAL, Label.POLE, (0.28, 0.29, 0.3))
_FLOOR = 3.0


def building(rng: Rng, width: float, depth: float, floors: int) -> Mesh:
    """Building with its front at y = 0 and its body at y > 0, x from 0 to `width` [m]."""
    material, color = _FACADES[rng.integers(len(_FACADES))]
    wall = Surface(material, Label.BUILDING, _vary(rng, color))
    height = floors * _FLOOR + rng.uniform(0.3, 0.9)
    parts = [_facades(rng, width, depth, height, wall), _entrance(rng, width)]
    if floors <= 4 and rng.random() < 0.75:
        parts.append(_gable(rng, width, depth, height, wall))
    else:
        parts.append(_parapet(width, depth, height, wall))
    if floors >= 3 and rng.random() < 0.6:
        parts.append(_balconies(rng, width, floors, wall))
    if rng.random() < 0.35 and width > 9:
        parts.append(_oriel(rng, width, height, wall))
    return join(parts)


def wall(rng: Rng, length: float) -> Mesh:
    """Garden wall along x."""
    material, color = _FACADES[rng.integers(len(_FACADES))]
    high = rng.uniform(0.8, 2.0)
    surface = Surface(material, Label.WALL, _vary(rng, color))
    cap = Surface(Material.CONCRETE, Label.WALL, (0.4, 0.39, 0.37))
    return join([box((0, -0.12, -0.3), (length, 0.12, high), surface),
                 box((0, -0.16, high), (length, 0.16, high + 0.07), cap)])  # fmt: skip


def fence(rng: Rng, length: float) -> Mesh:
    """Fence of posts, rails and pickets along x."""
    high, pitch = rng.uniform(0.9, 1.7), rng.choice([0.14, 0.2, 0.3])
    wooden = rng.random() < 0.6
    color: Color = (0.26, 0.17, 0.1) if wooden else (0.12, 0.14, 0.13)
    surface = Surface(Material.WOOD if wooden else Material.METAL, Label.FENCE, color)
    half = pitch * (0.33 if wooden else 0.12)
    x = np.arange(pitch / 2, length, pitch)
    low, top = np.full_like(x, 0.05), np.full_like(x, high)
    y = np.zeros_like(x)
    pickets = np.stack(
        [np.stack([a, y, b], axis=1) for a, b in ((x - half, low), (x + half, low), (x + half, top), (x - half, top))],
        1,
    )
    rails = [box((0, -0.03, z), (length, 0.03, z + 0.07), surface) for z in (0.25, high - 0.25)]
    posts = [
        box((p - 0.05, -0.05, -0.2), (p + 0.05, 0.05, high + 0.1), surface) for p in np.arange(0, length + 0.1, 2.5)
    ]
    return join([quads(pickets, surface), *rails, *posts])


def lamp(rng: Rng) -> Mesh:
    """Street lamp whose arm reaches to negative y."""
    high, reach = rng.uniform(5.0, 8.0), rng.uniform(0.8, 1.8)
    return join(
        [
            tube((0, 0, -0.2), (0, 0, high), 0.09, _STEEL, 8, 0.05),
            tube((0, 0, high), (0, -reach, high + 0.15), 0.04, _STEEL),
            box((-0.12, -reach - 0.5, high + 0.08), (0.12, -reach, high + 0.2), _STEEL),
            box((-0.1, -reach - 0.45, high + 0.04), (0.1, -reach - 0.05, high + 0.08),
                Surface(Material.LAMP, Label.POLE, (0.9, 0.85, 0.7))),
        ]
    )  # fmt: skip


def sign(rng: Rng) -> Mesh:
    """Traffic sign that faces the traffic of its side, towards negative x."""
    high = rng.uniform(2.1, 2.6)
    color: Color = ((0.55, 0.02, 0.02), (0.02, 0.08, 0.4), (0.75, 0.75, 0.72), (0.7, 0.5, 0.02))[rng.integers(4)]
    plate = Surface(Material.RETROREFLECTOR, Label.SIGN, color)
    shape, r = rng.integers(3), rng.uniform(0.3, 0.42)
    angle = {0: np.linspace(0, 2 * np.pi, 13)[:-1], 1: np.pi / 2 + np.array([0, 2, 4]) * np.pi / 3,
             2: np.pi / 4 + np.arange(4) * np.pi / 2}[int(shape)]  # fmt: skip
    rim = np.stack([np.full_like(angle, -0.06), r * np.cos(angle), high + r * np.sin(angle)], axis=1)
    centre = np.broadcast_to([-0.06, 0.0, high], rim.shape)
    face = triangles(np.stack([centre, rim, np.roll(rim, -1, axis=0)], axis=1), plate)
    return join([tube((0, 0, -0.2), (0, 0, high + 0.3), 0.035, _STEEL), face])


def traffic_light() -> Mesh:
    """Traffic light that faces negative x."""
    case = Surface(Material.METAL, Label.SIGN, (0.02, 0.02, 0.02))
    parts = [tube((0, 0, -0.2), (0, 0, 3.4), 0.06, _STEEL, 8), box((-0.3, -0.16, 2.4), (-0.05, 0.16, 3.4), case)]
    for z, color in ((3.2, (0.8, 0.02, 0.01)), (2.9, (0.1, 0.07, 0.01)), (2.6, (0.01, 0.06, 0.03))):
        parts.append(ball((-0.3, 0, z), (0.03, 0.1, 0.1), Surface(Material.LAMP, Label.SIGN, color)))
    return join(parts)


def bin_(rng: Rng) -> Mesh:
    """Waste bin or switch box."""
    high, wide = rng.uniform(0.8, 1.3), rng.uniform(0.25, 0.45)
    color: Color = ((0.03, 0.03, 0.03), (0.03, 0.1, 0.05), (0.3, 0.3, 0.28), (0.02, 0.05, 0.15))[rng.integers(4)]
    return box((-wide, -0.28, 0), (wide, 0.28, high), Surface(Material.METAL, Label.OTHER_OBJECT, color))


def _facades(rng: Rng, width: float, depth: float, height: float, wall: Surface) -> Mesh:
    """Four walls with a whole number of window columns each; the storeys begin a little above the ground."""
    corners = np.array([(0, 0), (width, 0), (width, depth), (0, depth), (0, 0)])
    spacing = rng.uniform(1.8, 3.2)
    parts = []
    blind = rng.random() < 0.5
    for side, ((xa, ya), (xb, yb)) in enumerate(pairwise(corners)):
        columns = max(1, round(float(np.hypot(xb - xa, yb - ya)) / spacing))
        if blind and side in (1, 3):
            columns = 0
        face = [(xa, ya, -0.5), (xb, yb, -0.5), (xb, yb, height), (xa, ya, height)]
        low, high = -0.5 / _FLOOR, (height - 0.2) / _FLOOR
        parts.append(quads([face], wall, [[(0, low), (columns, low), (columns, high), (0, high)]]))
    return join(parts)


def _gable(rng: Rng, width: float, depth: float, height: float, wall: Surface) -> Mesh:
    """Pitched roof with overhang, ridge along the street, and sometimes a chimney."""
    tiles = Surface(Material.TILES, Label.BUILDING, _ROOFS[rng.integers(len(_ROOFS))])
    ridge, over = height + depth * rng.uniform(0.25, 0.5), 0.4
    drop = over * (ridge - height) / (depth / 2)
    eaves = height - drop
    slopes = [
        [(-over, y, eaves), (width + over, y, eaves), (width + over, depth / 2, ridge), (-over, depth / 2, ridge)]
        for y in (-over, depth + over)
    ]
    ends = [[(x, 0, height), (x, depth, height), (x, depth / 2, ridge)] for x in (0, width)]
    parts = [quads(slopes, tiles), triangles(ends, wall)]
    if rng.random() < 0.6:
        x = rng.uniform(1, width - 1)
        brick = Surface(Material.BRICK, Label.BUILDING, (0.3, 0.12, 0.08))
        parts.append(box((x - 0.35, depth / 2 - 0.35, height), (x + 0.35, depth / 2 + 0.35, ridge + 0.9), brick))
    return join(parts)


def _parapet(width: float, depth: float, height: float, wall: Surface) -> Mesh:
    roof = Surface(Material.CONCRETE, Label.BUILDING, (0.2, 0.2, 0.2))
    cornice = Surface(Material.CONCRETE, Label.BUILDING, (0.45, 0.43, 0.4))
    top = [[(0, 0, height), (width, 0, height), (width, depth, height), (0, depth, height)]]
    return join([quads(top, roof), box((-0.15, -0.2, height), (width + 0.15, 0.2, height + 0.5), cornice)])


def _entrance(rng: Rng, width: float) -> Mesh:
    x = rng.uniform(1.0, max(1.1, width - 2.0))
    color: Color = ((0.2, 0.1, 0.05), (0.05, 0.12, 0.08), (0.3, 0.05, 0.04), (0.3, 0.3, 0.3))[rng.integers(4)]
    stone = Surface(Material.CONCRETE, Label.BUILDING, (0.4, 0.38, 0.35))
    parts = [
        box((x, -0.06, 0), (x + 1.0, 0.0, 2.2), Surface(Material.WOOD, Label.BUILDING, color)),
        box((x - 0.3, -1.0, -0.2), (x + 1.3, 0.0, 0.18), stone),
    ]
    if rng.random() < 0.5:
        parts.append(box((x - 0.4, -1.0, 2.4), (x + 1.4, 0.0, 2.55), stone))
    return join(parts)


def _balconies(rng: Rng, width: float, floors: int, wall: Surface) -> Mesh:
    slab = Surface(Material.CONCRETE, Label.BUILDING, (0.42, 0.41, 0.39))
    deep, wide = rng.uniform(0.8, 1.4), rng.uniform(2.0, 3.5)
    parts = []
    for x in np.arange(rng.uniform(0.5, 2.0), width - wide, rng.uniform(4.0, 7.0)):
        for floor in range(1, floors):
            z = floor * _FLOOR
            parts.append(box((x, -deep, z), (x + wide, 0, z + 0.15), slab))
            parts.append(
                quads([[(x, -deep, z), (x + wide, -deep, z), (x + wide, -deep, z + 1.0), (x, -deep, z + 1.0)]], wall)
            )
    return join(parts)


def _oriel(rng: Rng, width: float, height: float, wall: Surface) -> Mesh:
    """Projecting bay over the whole height."""
    wide, deep = rng.uniform(2.0, 3.5), rng.uniform(0.5, 1.0)
    x = rng.uniform(0.5, width - wide - 0.5)
    z = height - 0.4
    storeys = z / _FLOOR
    front = [(x, -deep, -0.3), (x + wide, -deep, -0.3), (x + wide, -deep, z), (x, -deep, z)]
    sides = [[(e, -deep, -0.3), (e, 0, -0.3), (e, 0, z), (e, -deep, z)] for e in (x, x + wide)]
    top = [(x, -deep, z), (x + wide, -deep, z), (x + wide, 0, z), (x, 0, z)]
    return join(
        [quads([front], wall, [[(0, -0.1), (1, -0.1), (1, storeys), (0, storeys)]]), quads([*sides, top], wall)]
    )


def _vary(rng: Rng, color: Color) -> Color:
    r, g, b = np.clip(np.array(color) * rng.uniform(0.8, 1.2, 3) * rng.uniform(0.85, 1.15), 0.02, 0.85)
    return float(r), float(g), float(b)
