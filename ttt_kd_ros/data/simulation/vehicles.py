"""Vehicles, people and two-wheelers, each in its own frame: x forward, z up, on the ground at z = 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ttt_kd_ros.data.simulation.materials import Label, Material
from ttt_kd_ros.data.simulation.mesh import Color, Mesh, Surface, ball, box, join, quads, tube

Rng = np.random.Generator
Outline = Sequence[tuple[float, float]]

_PAINTS: tuple[Color, ...] = (
    (0.75, 0.75, 0.75), (0.45, 0.46, 0.48), (0.03, 0.03, 0.035), (0.10, 0.11, 0.12), (0.35, 0.02, 0.02),
    (0.03, 0.07, 0.25), (0.04, 0.16, 0.30), (0.03, 0.12, 0.06), (0.55, 0.50, 0.42), (0.60, 0.30, 0.03),
)  # fmt: skip
_CLOTHES: tuple[Color, ...] = (
    (0.02, 0.02, 0.03), (0.05, 0.07, 0.20), (0.30, 0.03, 0.03), (0.55, 0.53, 0.50), (0.08, 0.20, 0.08),
    (0.55, 0.40, 0.05), (0.20, 0.14, 0.09), (0.10, 0.10, 0.10),
)  # fmt: skip
_SKINS: tuple[Color, ...] = ((0.55, 0.33, 0.24), (0.35, 0.19, 0.12), (0.12, 0.06, 0.04))


@dataclass(frozen=True)
class Body:
    """Shape of a vehicle body.

    Parameters
    ----------
    roof
        Outline of the top from rear to front: (x, z) [m] for a vehicle 1 m long, centred at x = 0.
    belt
        Height at which the windows begin [m].
    length, width
        [m].
    lean
        How far the sides lean in above the belt [m].
    wheels
        Positions of the axles, as x of the outline.
    wheel_radius
        [m].
    """

    roof: Outline
    belt: float
    length: float
    width: float
    lean: float
    wheels: tuple[float, ...]
    wheel_radius: float = 0.32


_CARS = (
    Body(((-.5, .55), (-.49, .95), (-.36, 1.0), (-.22, 1.42), (.06, 1.45), (.22, .96), (.47, .78), (.5, .5)),
         .93, 4.6, 1.8, .17, (-.3, .3)),
    Body(((-.5, .5), (-.49, .92), (-.42, 1.38), (-.3, 1.48), (.08, 1.48), (.26, .98), (.47, .80), (.5, .5)),
         .93, 3.9, 1.72, .15, (-.31, .31)),
    Body(((-.5, .5), (-.49, .98), (-.44, 1.42), (-.36, 1.5), (.06, 1.5), (.2, 1.0), (.47, .82), (.5, .5)),
         .96, 4.7, 1.82, .15, (-.3, .31)),
    Body(((-.5, .6), (-.49, 1.1), (-.45, 1.62), (-.36, 1.7), (.06, 1.7), (.2, 1.14), (.47, 1.0), (.5, .6)),
         1.08, 4.6, 1.9, .14, (-.3, .3), .37),
)  # fmt: skip
_VANS = (
    Body(((-.5, .5), (-.5, 1.9), (-.47, 1.98), (.2, 1.98), (.36, 1.2), (.48, 1.0), (.5, .5)),
         1.15, 4.9, 1.95, .1, (-.3, .32), .34),
    Body(((-.5, .5), (-.5, 2.5), (-.48, 2.6), (.22, 2.6), (.36, 1.45), (.48, 1.15), (.5, .5)),
         1.4, 5.9, 2.05, .08, (-.3, .33), .36),
)  # fmt: skip
_BUS = Body(((-.5, .5), (-.5, 2.9), (-.49, 3.0), (.48, 3.0), (.495, 2.8), (.5, .9), (.5, .5)),
            1.2, 12.0, 2.5, .04, (-.28, .28), .48)  # fmt: skip
_CAB = Body(
    ((-0.5, 0.6), (-0.5, 2.5), (-0.45, 2.6), (0.2, 2.6), (0.46, 1.5), (0.5, 0.6)), 1.5, 2.2, 2.3, 0.06, (0.0,), 0.46
)


def car(rng: Rng) -> Mesh:
    """Saloon, hatchback, estate or off-roader."""
    return _vehicle(rng, _CARS[rng.integers(len(_CARS))], Label.CAR)


def van(rng: Rng) -> Mesh:
    """Small or high van; windows only in front."""
    return _vehicle(rng, _VANS[rng.integers(len(_VANS))], Label.VAN, glazed_from=0.12)


def bus(rng: Rng) -> Mesh:
    """City bus."""
    return _vehicle(rng, _BUS, Label.BUS)


def truck(rng: Rng) -> Mesh:
    """Cab with a box body behind it."""
    length, height = rng.uniform(4.5, 7.0), rng.uniform(2.7, 3.5)
    cargo = Surface(Material.CAR_PAINT, Label.TRUCK, _bright(rng))
    frame = Surface(Material.METAL, Label.TRUCK, (0.05, 0.05, 0.05))
    half = length / 2
    parts = [
        _vehicle(rng, _CAB, Label.TRUCK).moved(x=half + 0.05),
        box((-half - 1.1, -1.2, 1.0), (half - 1.1, 1.2, height), cargo),
        box((-half - 1.0, -0.5, 0.5), (half, 0.5, 1.0), frame),
        box((-half - 1.1, -1.1, 0.45), (-half - 1.0, 1.1, 0.6), frame),
    ]
    parts += [_wheel(x, side * 1.0, 0.46, Label.TRUCK) for x in (-half + 0.2, -half + 1.2) for side in (-1, 1)]
    return join(parts)


def person(rng: Rng) -> Mesh:
    """Somebody standing or walking."""
    stride = rng.uniform(0.05, 0.3)
    return _limbs(rng, Label.PERSON, hip=(0.0, 0.9), chest=(0.03, 1.45), feet=((stride, 0.0), (-stride, 0.0)),
                  hands=((-stride, 0.85), (stride, 0.85))).moved(scale=rng.uniform(0.75, 1.08))  # fmt: skip


def bicycle(rng: Rng) -> Mesh:
    """Bicycle without rider."""
    paint = Surface(Material.METAL, Label.TWO_WHEELER, _paint(rng))
    joints = [(-0.5, 0.34), (-0.2, 0.85), (0.05, 0.3), (0.38, 0.85), (0.52, 0.34), (0.33, 1.0)]
    frame = [(0, 1), (0, 2), (1, 2), (2, 3), (1, 3), (3, 4), (3, 5)]
    parts = [tube(_at(joints[a], 0.0), _at(joints[b], 0.0), 0.022, paint, 4) for a, b in frame]
    parts += [_tyre(-0.5), _tyre(0.52)]
    parts += [tube((0.33, -0.28, 1.0), (0.33, 0.28, 1.0), 0.02, paint, 4)]
    return join([*parts, box((-0.33, -0.08, 0.86), (-0.08, 0.08, 0.92), paint)])


def motorcycle(rng: Rng) -> Mesh:
    """Scooter or motorcycle without rider."""
    paint = Surface(Material.CAR_PAINT, Label.TWO_WHEELER, _paint(rng))
    dark = Surface(Material.RUBBER, Label.TWO_WHEELER, (0.03, 0.03, 0.03))
    return join(
        [
            box((-0.55, -0.15, 0.35), (0.25, 0.15, 0.72), paint),
            box((-0.65, -0.13, 0.72), (0.0, 0.13, 0.82), dark),
            tube((0.62, 0.0, 0.3), (0.35, 0.0, 1.0), 0.06, paint),
            box((0.3, -0.2, 0.5), (0.42, 0.2, 0.95), paint),
            tube((0.35, -0.33, 1.02), (0.35, 0.33, 1.02), 0.025, dark, 4),
            _wheel(-0.6, 0.0, 0.3, Label.TWO_WHEELER, 0.06),
            _wheel(0.65, 0.0, 0.3, Label.TWO_WHEELER, 0.06),
        ]
    )


def cyclist(rng: Rng) -> Mesh:
    """Bicycle or motorcycle with its rider."""
    machine = bicycle(rng) if rng.random() < 0.7 else motorcycle(rng)
    rider = _limbs(rng, Label.RIDER, hip=(-0.2, 0.92), chest=(0.05, 1.42), feet=((0.05, 0.15), (0.1, 0.4)),
                   hands=((0.33, 1.02), (0.33, 1.02)), knee=(0.2, 0.65))  # fmt: skip
    return join([machine, rider])


def _vehicle(rng: Rng, body: Body, label: Label, glazed_from: float = -1.0) -> Mesh:
    scale = rng.uniform(0.95, 1.05)
    paint = Surface(Material.CAR_PAINT, label, _paint(rng))
    parts = [_shell(body, paint, glazed_from)]
    half_width = body.width / 2
    for x in body.wheels:
        parts += [_wheel(x * body.length, y, body.wheel_radius, label) for y in (-half_width + 0.1, half_width - 0.1)]
    return join([*parts, *_lights(body, label)]).moved(scale=scale)


def _shell(body: Body, paint: Surface, glazed_from: float) -> Mesh:
    """Sides in a band below and one above the belt, roof and ends; panes where the outline rises over the belt."""
    glass = Surface(Material.GLASS, paint.label, (0.03, 0.035, 0.04))
    bottom, half = 0.28 * body.wheel_radius / 0.32, body.width / 2
    lean = body.lean / (max(z for _, z in body.roof) - body.belt)
    parts: list[Mesh] = []
    for (xa, za), (xb, zb) in pairwise(body.roof):
        a, b = xa * body.length, xb * body.length
        wa, wb = (half - lean * max(0.0, z - body.belt) for z in (za, zb))
        ba, bb = min(za, body.belt), min(zb, body.belt)
        high = max(za, zb) > body.belt + 0.1
        for y in (-half, half):
            parts.append(quads([[(a, y, bottom), (b, y, bottom), (b, y, bb), (a, y, ba)]], paint))
            if high:
                side = np.sign(y)
                pane = [(a, y, ba), (b, y, bb), (b, side * wb, zb), (a, side * wa, za)]
                parts.append(quads([pane], glass if xb > glazed_from else paint))
                parts.append(_pillar(pane, side, paint))
        steep = high and abs(zb - za) > 0.15 and min(za, zb) >= body.belt - 0.1 and xb > glazed_from
        top = [(a, -wa, za), (b, -wb, zb), (b, wb, zb), (a, wa, za)]
        parts.append(quads([top], glass if steep else paint))
    x0, x1 = body.roof[0][0] * body.length, body.roof[-1][0] * body.length
    for x, z in ((x0, body.roof[0][1]), (x1, body.roof[-1][1])):
        parts.append(quads([[(x, -half, bottom), (x, half, bottom), (x, half, z), (x, -half, z)]], paint))
    floor = [(x0, -half, bottom), (x1, -half, bottom), (x1, half, bottom), (x0, half, bottom)]
    return join([*parts, quads([floor], Surface(Material.METAL, paint.label, (0.02, 0.02, 0.02)))])


def _pillar(pane: Sequence[tuple[float, float, float]], side: int, paint: Surface) -> Mesh:
    """Post at the rear edge of a pane."""
    foot, _, _, head = (np.array(corner) + np.array([0.0, side * 0.005, 0.0]) for corner in pane)
    wide = np.array([0.07, 0.0, 0.0])
    return quads([[foot - wide, foot + wide, head + wide, head - wide]], paint)


def _lights(body: Body, label: Label) -> list[Mesh]:
    half, y = body.length / 2, body.width / 2 - 0.25
    front = Surface(Material.LAMP, label, (0.9, 0.88, 0.8))
    rear = Surface(Material.RETROREFLECTOR, label, (0.35, 0.0, 0.0))
    plate = Surface(Material.RETROREFLECTOR, label, (0.8, 0.8, 0.75))
    z = 0.65 * body.wheel_radius / 0.32
    lamps = [box((half - 0.05, s * y - 0.2, z - 0.07), (half + 0.01, s * y + 0.2, z + 0.07), front) for s in (-1, 1)]
    lamps += [box((-half - 0.01, s * y - 0.16, z), (-half + 0.05, s * y + 0.16, z + 0.2), rear) for s in (-1, 1)]
    plates = [box((x - 0.012, -0.26, z - 0.25), (x + 0.012, 0.26, z - 0.14), plate) for x in (-half, half)]
    dark = Surface(Material.RUBBER, label, (0.04, 0.04, 0.04))
    low, ends = body.wheel_radius, ((-half - 0.03, -half + 0.1), (half - 0.1, half + 0.03))
    bumpers = [box((a, -y - 0.2, low), (b, y + 0.2, low + 0.2), dark) for a, b in ends]
    return lamps + plates + bumpers


def _wheel(x: float, y: float, radius: float, label: Label, width: float = 0.11) -> Mesh:
    rubber = Surface(Material.RUBBER, label, (0.02, 0.02, 0.02))
    rim = Surface(Material.METAL, label, (0.4, 0.4, 0.42))
    return join(
        [
            tube((x, y - width, radius), (x, y + width, radius), radius, rubber, 12),
            tube((x, y - width - 0.01, radius), (x, y + width + 0.01, radius), 0.6 * radius, rim, 8),
        ]
    )


def _tyre(x: float) -> Mesh:
    rubber = Surface(Material.RUBBER, Label.TWO_WHEELER, (0.03, 0.03, 0.03))
    angle = np.linspace(0.0, 2 * np.pi, 13)
    rim = np.stack([x + 0.33 * np.cos(angle), np.zeros(13), 0.34 + 0.33 * np.sin(angle)], axis=1)
    return join(tube(a, b, 0.025, rubber, 4) for a, b in pairwise(rim))


def _limbs(
    rng: Rng,
    label: Label,
    hip: tuple[float, float],
    chest: tuple[float, float],
    feet: tuple[tuple[float, float], tuple[float, float]],
    hands: tuple[tuple[float, float], tuple[float, float]],
    knee: tuple[float, float] | None = None,
) -> Mesh:
    """A body from its joints, (x, z) [m] each."""
    trousers = Surface(Material.CLOTH, label, _CLOTHES[rng.integers(len(_CLOTHES))])
    jacket = Surface(Material.CLOTH, label, _CLOTHES[rng.integers(len(_CLOTHES))])
    skin = Surface(Material.CLOTH, label, _SKINS[rng.integers(len(_SKINS))])
    shoes = Surface(Material.RUBBER, label, (0.03, 0.025, 0.02))
    middle = ((hip[0] + chest[0]) / 2, (hip[1] + chest[1]) / 2)
    parts = [
        tube(_at(hip, 0.0), _at(middle, 0.0), 0.17, jacket, 8, 0.18),
        tube(_at(middle, 0.0), _at(chest, 0.0), 0.18, jacket, 8, 0.2),
        ball((chest[0] + 0.02, 0.0, chest[1] + 0.24), (0.1, 0.085, 0.13), skin),
        tube(_at(chest, 0.0), (chest[0], 0.0, chest[1] + 0.14), 0.06, skin),
    ]
    for side, foot, hand in ((-1, feet[0], hands[0]), (1, feet[1], hands[1])):
        bend = knee or ((hip[0] + foot[0]) / 2 + 0.05, (hip[1] + foot[1]) / 2)
        elbow = ((chest[0] + hand[0]) / 2 - 0.05, (chest[1] + hand[1]) / 2)
        parts += [
            tube(_at(hip, side * 0.09), _at(bend, side * 0.1), 0.09, trousers, 6, 0.07),
            tube(_at(bend, side * 0.1), _at(foot, side * 0.1), 0.07, trousers, 6, 0.055),
            box(
                (foot[0] - 0.08, side * 0.1 - 0.05, foot[1]), (foot[0] + 0.18, side * 0.1 + 0.05, foot[1] + 0.09), shoes
            ),
            tube((chest[0], side * 0.21, chest[1] - 0.02), _at(elbow, side * 0.26), 0.055, jacket),
            tube(_at(elbow, side * 0.26), _at(hand, side * 0.24), 0.045, jacket),
        ]
    return join(parts)


def _at(joint: tuple[float, float], y: float) -> tuple[float, float, float]:
    return joint[0], y, joint[1]


def _paint(rng: Rng) -> Color:
    return _PAINTS[rng.integers(len(_PAINTS))]


def _bright(rng: Rng) -> Color:
    return _PAINTS[rng.integers(2)] if rng.random() < 0.6 else _paint(rng)
