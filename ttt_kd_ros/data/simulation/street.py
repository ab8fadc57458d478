"""Streets: what stands where, and who moves."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ttt_kd_ros.data.simulation import buildings, nature, vehicles
from ttt_kd_ros.data.simulation.domains import Town
from ttt_kd_ros.data.simulation.materials import Label, Material
from ttt_kd_ros.data.simulation.mesh import Mesh, Surface, grid, join, quads, tube
from ttt_kd_ros.data.simulation.track import Floats, Track

Rng = np.random.Generator

KERB = 0.12
"""Height of the pavement above the road [m]."""
VIEW = 160.0
"""How far the street goes on before and behind the part that is driven on [m]."""
_MARKING_HEIGHT = 0.012
_FAR = 85.0
_FARTHEST = 125.0

_ROAD = Surface(Material.ASPHALT, Label.ROAD, (0.13, 0.13, 0.135))
_PAINT = Surface(Material.ROAD_PAINT, Label.ROAD_MARKING, (0.62, 0.62, 0.6))
_PAVING = Surface(Material.PAVING, Label.SIDEWALK, (0.36, 0.34, 0.32))
_KERBSTONE = Surface(Material.CONCRETE, Label.SIDEWALK, (0.42, 0.41, 0.4))
_GRASS = Surface(Material.GRASS, Label.TERRAIN, (0.10, 0.16, 0.045))


def stream(seed: int, *names: str | int) -> Rng:
    """Random numbers of their own for everything that has a name, whatever was drawn before."""
    keys = [name if isinstance(name, int) else zlib.crc32(name.encode()) for name in names]
    return np.random.default_rng([seed, *keys])


@dataclass(frozen=True)
class Motion:
    """Uniform motion along and across the road.

    Parameters
    ----------
    s, d
        Distance along the road and to its left at time 0 [m].
    speed_s, speed_d
        [m/s].
    z
        Height above the road [m].
    """

    s: float
    d: float
    speed_s: float
    speed_d: float = 0.0
    z: float = 0.0

    def poses(self, track: Track, times: Floats) -> Floats:
        """Poses (N, 4, 4) in the world at `times` [s], looking where it goes."""
        s, d = self.s + self.speed_s * times, self.d + self.speed_d * times
        turn = np.full_like(times, np.arctan2(self.speed_d, self.speed_s))
        return track.poses(s, d, self.z, turn)


@dataclass(frozen=True)
class Mover:
    """Something that moves: its mesh in its own frame, and how it moves."""

    mesh: Mesh
    motion: Motion


@dataclass(frozen=True)
class Street:
    """A street to drive along.

    Parameters
    ----------
    track
        Its course.
    static
        All that does not move, in the world frame.
    movers
        All that does.
    lane
        Where the own lane is, to the left of the centre line [m].
    """

    track: Track
    static: Mesh
    movers: tuple[Mover, ...]
    lane: float


def build_street(seed: int, town: Town, length: float, duration: float) -> Street:
    """Build a street.

    Parameters
    ----------
    seed
        The same seed gives the same street.
    town
        Its proportions.
    length
        Length that is driven on [m].
    duration
        Time that is driven for [s].
    """
    track = Track.draw(stream(seed, "track"), length)
    rng = stream(seed, "cross-section")
    half, pavement = rng.uniform(*town.road_half), rng.uniform(*town.pavement)
    lane = (half - 2.0) / 2
    layout = _Layout(seed, town, half, pavement, _prototypes(stream(seed, "trees")))
    flat = layout.build(-VIEW, length + VIEW)
    static = replace(flat, corners=track.place(flat.corners).astype(np.float32))
    movers = _movers(seed, town, half, pavement, lane, length, duration)
    return Street(track, static, movers, -lane)


@dataclass(frozen=True)
class _Layout:
    """Puts a street together in coordinates along a straight one: along, to the left, up."""

    seed: int
    town: Town
    half: float
    pavement: float
    trees: tuple[Mesh, ...]

    def build(self, start: float, end: float) -> Mesh:
        parts = [_flat(start - 60, end + 60, -self.half, self.half, 0.0, _ROAD, 2.0)]
        s, index = start, 0
        while s < end:
            rng = stream(self.seed, "block", index)
            length, gap = rng.uniform(*self.town.block), rng.uniform(6.0, 11.0)
            for side in (1, -1):
                block = self._block(stream(self.seed, "side", index, side + 1), length)
                parts.append(_along(block, s, self.half, side))
                parts.append(_along(self._side_street(gap), s + length, self.half, side))
            parts.append(self._markings(rng, s, s + length))
            s, index = s + length + gap, index + 1
        return join(parts)

    def _block(self, rng: Rng, length: float) -> Mesh:
        """One side of a block: x along the street from 0, y away from it from the kerb."""
        deep = rng.uniform(*self.town.setback)
        park = rng.random() < self.town.park
        paved = deep < 2.5 and not park
        p = self.pavement
        parts = [
            _kerb(length, p),
            _flat(0, length, 0.15, p, KERB, _PAVING, 2.0),
            _flat(0, p, p, _FAR, KERB, _PAVING, 3.0),
            _flat(length - p, length, p, _FAR, KERB, _PAVING, 3.0),
            _terrain(rng, p, length - p, p + (deep if paved else 0.0), _FARTHEST),
        ]
        if paved:
            parts.append(_flat(p, length - p, p, p + deep + 0.3, KERB, _PAVING, 2.0))
        parts += self._furniture(rng, length) + self._parked(rng, length)
        if park:
            parts += self._grove(rng, p, length - p, p + 0.5, 45.0, 2.2)
        else:
            parts += self._houses(rng, length, deep) + self._gardens(rng, length, deep)
            parts += self._grove(rng, p, length - p, p + deep + 16.0, 60.0, 1.2)
        parts += self._background(rng, length)
        return join(parts)

    def _houses(self, rng: Rng, length: float, deep: float) -> list[Mesh]:
        parts, s, floors = [], self.pavement + 1.0, rng.uniform(*self.town.floors)
        while s < length - self.pavement - 6.0:
            width = min(rng.uniform(*self.town.front), length - self.pavement - 1.0 - s)
            storeys = int(np.clip(round(floors + rng.normal(0.0, 0.8)), *self.town.floors))
            house = buildings.building(rng, width, rng.uniform(8.0, 13.0), max(1, storeys))
            parts.append(house.moved(s, self.pavement + deep + rng.uniform(0.0, 0.15 * deep + 0.1), KERB))
            s += width + (rng.uniform(2.0, 9.0) if rng.random() < self.town.detached else 0.0)
        return parts

    def _background(self, rng: Rng, length: float) -> list[Mesh]:
        """Buildings of the next street, which close the view."""
        parts, s = [], rng.uniform(0.0, 15.0)
        while s < length - 8.0:
            width = rng.uniform(10.0, 26.0)
            house = buildings.building(rng, width, 10.0, max(1, round(rng.uniform(*self.town.floors))))
            parts.append(house.moved(s, _FAR - 15.0, KERB))
            s += width + rng.exponential(9.0)
        return parts

    def _gardens(self, rng: Rng, length: float, deep: float) -> list[Mesh]:
        """Fences, walls and hedges at the pavement's back, with gates, and what grows behind them."""
        if deep < 2.0:
            return []
        parts: list[Mesh] = []
        s, makers = self.pavement + 0.5, (buildings.fence, buildings.wall, nature.hedge)
        while s < length - self.pavement - 3.0:
            long = min(rng.uniform(5.0, 16.0), length - self.pavement - s)
            kind = rng.integers(4)
            if kind < 3:
                parts.append(makers[kind](rng, long).moved(s, self.pavement + 0.35, KERB))
            s += long + rng.uniform(1.2, 4.0)
        for _ in range(rng.poisson(length * deep / 60)):
            spot = (
                rng.uniform(self.pavement + 1, length - self.pavement - 1),
                self.pavement + rng.uniform(0.9, 0.7 * deep + 0.3),
            )
            parts.append(nature.bush(rng).moved(*spot, KERB))
        if deep > 4.5:
            parts += self._grove(
                rng, self.pavement, length - self.pavement, self.pavement + 1.5, self.pavement + deep - 2.5, 0.5
            )
        return parts

    def _grove(self, rng: Rng, s0: float, s1: float, d0: float, d1: float, density: float) -> list[Mesh]:
        count = rng.poisson(density * self.town.trees * (s1 - s0) / 100)
        return [self._tree(rng, rng.uniform(s0, s1), d0 + (d1 - d0) * rng.random() ** 1.5) for _ in range(count)]

    def _tree(self, rng: Rng, x: float, y: float) -> Mesh:
        kind = self.trees[rng.integers(len(self.trees))]
        return kind.moved(x, y, KERB - 0.05, rng.uniform(0, 6.3), rng.uniform(0.7, 1.25))

    def _furniture(self, rng: Rng, length: float) -> list[Mesh]:
        """Street trees, lamps, signs and bins between the kerb and the pavement's middle."""
        parts: list[Mesh] = []
        if self.pavement > 1.9 and rng.random() < 0.6:
            pitch = 100 / max(self.town.trees, 5.0) * rng.uniform(0.9, 1.6)
            parts += [self._tree(rng, s, 0.55) for s in np.arange(pitch / 2, length, pitch) if rng.random() < 0.85]
        spacing = rng.uniform(22.0, 34.0)
        parts += [buildings.lamp(rng).moved(s, 0.4, KERB) for s in np.arange(rng.uniform(3, 12), length, spacing)]
        for _ in range(rng.poisson(length / 22)):
            post = buildings.sign(rng).moved(yaw=rng.choice([0.0, np.pi]))
            parts.append(post.moved(rng.uniform(1, length - 1), 0.45, KERB))
        for _ in range(rng.poisson(length / 40)):
            parts.append(buildings.bin_(rng).moved(rng.uniform(1, length - 1), self.pavement - 0.35, KERB))
        for _ in range(rng.poisson(self.town.people * length / 260)):
            machine = vehicles.bicycle(rng) if rng.random() < 0.7 else vehicles.motorcycle(rng)
            parts.append(machine.moved(rng.uniform(2, length - 2), 0.5, KERB, rng.normal(0.0, 0.25)))
        if rng.random() < 0.4:
            parts += [
                buildings.traffic_light().moved(x, 0.5, KERB, yaw) for x, yaw in ((length - 1.0, 0.0), (1.0, np.pi))
            ]
        return parts

    def _parked(self, rng: Rng, length: float) -> list[Mesh]:
        parts, s = [], 8.0 + rng.uniform(0, 4)
        while s < length - 8.0:
            if rng.random() < self.town.parked:
                kind = vehicles.car if rng.random() > 0.5 * self.town.heavy else vehicles.van
                yaw = (np.pi if rng.random() < 0.15 else 0.0) + rng.normal(0.0, 0.02)
                parts.append(kind(rng).moved(s, -1.15 + rng.normal(0.0, 0.08), 0.0, yaw))
            s += rng.uniform(5.6, 7.0)
        return parts

    def _side_street(self, gap: float) -> Mesh:
        return _flat(0, gap, 0, _FARTHEST, 0.0, _ROAD, 4.0)

    def _repairs(self, rng: Rng, start: float, end: float) -> list[Mesh]:
        """Patches of younger and older asphalt, and manhole covers."""
        parts = []
        for _ in range(rng.poisson((end - start) / 15)):
            s, d, wide = (
                rng.uniform(start, end - 8),
                rng.uniform(-self.half + 0.3, self.half - 1.5),
                rng.uniform(0.4, 1.2),
            )
            tone = 0.13 * rng.uniform(0.6, 1.3)
            patch = Surface(Material.ASPHALT, Label.ROAD, (tone, tone, tone))
            parts.append(_patch(s, s + rng.uniform(0.8, 7.0), d, d + wide, 0.005, patch))
        for _ in range(rng.poisson((end - start) / 40)):
            s, d = rng.uniform(start, end), rng.uniform(-self.half + 0.5, self.half - 0.5)
            cover = Surface(Material.METAL, Label.ROAD, (0.06, 0.055, 0.05))
            parts.append(tube((s, d, -0.01), (s, d, 0.009), 0.33, cover, 12))
        return parts

    def _markings(self, rng: Rng, start: float, end: float) -> Mesh:
        parts = self._repairs(rng, start, end)
        parts += [
            _stripe(s, s + 3.0, -0.07, 0.07) for s in np.arange(start + 4, end - 6, 6.0 if rng.random() < 0.5 else 9.0)
        ]
        if rng.random() < 0.6:
            edge = self.half - 2.2
            parts += [
                _stripe(s, s + 4.0, d - 0.06, d + 0.06)
                for d in (edge, -edge)
                for s in np.arange(start + 8, end - 12, 4.0)
            ]
        for s in (start + 2.0, end - 5.0):
            if rng.random() < 0.6:
                parts += [_stripe(s, s + 3.0, d, d + 0.5) for d in np.arange(-self.half + 0.4, self.half - 0.6, 1.0)]
            else:
                parts.append(
                    _stripe(s, s + 0.4, 0.2, self.half - 0.3)
                    if s < end - 10
                    else _stripe(s, s + 0.4, -self.half + 0.3, -0.2)
                )
        return join(parts)


def _prototypes(rng: Rng) -> tuple[Mesh, ...]:
    return tuple(nature.tree(rng) for _ in range(10))


def _movers(
    seed: int, town: Town, half: float, pavement: float, lane: float, length: float, duration: float
) -> tuple[Mover, ...]:
    rng = stream(seed, "movers")
    movers: list[Mover] = []
    for direction in (1, -1):
        s = 18.0 if direction > 0 else -VIEW
        speed = rng.uniform(6.5, 11.0)
        end = length + VIEW + (speed * duration if direction < 0 else -length)
        own = length / duration
        while s < end:
            s += rng.exponential(100 / town.traffic) + 12.0
            mesh = _vehicle(rng, town)
            movers.append(Mover(mesh, Motion(s, -direction * lane, own if direction > 0 else -speed)))
            if direction > 0:
                behind = Motion(-s + rng.uniform(-5, 5), -lane, own)
                movers.append(Mover(_vehicle(rng, town), behind))
    for side in (1, -1):
        for _ in range(rng.poisson(town.people * (length + VIEW) / 100)):
            movers.append(_passer_by(rng, side, half, pavement, lane, length, duration))
    return tuple(movers)


def _passer_by(rng: Rng, side: int, half: float, pavement: float, lane: float, length: float, duration: float) -> Mover:
    """Cyclist, somebody who crosses the road well ahead of the car, or somebody on the pavement."""
    s, direction = rng.uniform(-VIEW / 2, length + VIEW / 2), rng.choice([-1, 1])
    kind, own = rng.random(), length / duration
    if kind < 0.22:
        ahead = s if side > 0 else np.copysign(12.0 + abs(s), s)
        return Mover(
            vehicles.cyclist(rng), Motion(ahead, side * (half - 2.4), -rng.uniform(3.5, 6.0) if side > 0 else own)
        )
    if kind < 0.38:
        pace, before = direction * rng.uniform(0.9, 1.6), rng.uniform(2.5, 7.0)
        return Mover(vehicles.person(rng), Motion(s, -lane - pace * (s / own - before), 0.0, pace))
    d = side * (half + rng.uniform(0.9, max(1.0, pavement - 0.3)))
    return Mover(vehicles.person(rng), Motion(s, d, direction * rng.uniform(0.6, 1.7), 0.0, KERB))


def _vehicle(rng: Rng, town: Town) -> Mesh:
    makers: tuple[Callable[[Rng], Mesh], ...] = (vehicles.van, vehicles.truck, vehicles.bus)
    if rng.random() < town.heavy:
        return makers[rng.choice(3, p=[0.5, 0.3, 0.2])](rng)
    return vehicles.car(rng)


def _along(mesh: Mesh, s: float, half: float, side: int) -> Mesh:
    """From the frame of a block's side to the street: mirrored on the right, so that y leads away from the road."""
    return replace(
        mesh,
        corners=((mesh.corners + np.array([0.0, half, 0.0])) * [1.0, side, 1.0] + [s, 0.0, 0.0]).astype(np.float32),
    )


def _flat(s0: float, s1: float, d0: float, d1: float, z: float, surface: Surface, step: float) -> Mesh:
    """Level ground, cut into pieces that can follow bends and hills."""
    s = np.linspace(s0, s1, 2 + int((s1 - s0) / step))
    d = np.linspace(d0, d1, 2 + int((d1 - d0) / step))
    return grid(np.stack([*np.meshgrid(s, d, indexing="ij"), np.full((len(s), len(d)), z)], axis=-1), surface)


def _terrain(rng: Rng, s0: float, s1: float, d0: float, d1: float) -> Mesh:
    """Grass: uneven, and rising away from the road."""
    s = np.linspace(s0, s1, 2 + int((s1 - s0) / 1.5))
    d = d0 + (d1 - d0) * np.linspace(0.0, 1.0, 32) ** 1.7
    z = KERB - 0.02 + rng.normal(0.0, 0.035, (len(s), len(d)))
    z += np.maximum(d - d0 - 4.0, 0.0) * rng.uniform(0.0, 0.035)
    ds, dd = np.meshgrid(s, d, indexing="ij")
    dd[:, 1:-1] += rng.normal(0.0, 0.1, dd[:, 1:-1].shape) * np.gradient(d)[1:-1]
    return grid(np.stack([ds, dd, z], axis=-1), _GRASS)


def _kerb(length: float, pavement: float) -> Mesh:
    s = np.linspace(0, length, 2 + int(length / 2))
    profile = np.array([(0.0, 0.0), (0.0, KERB), (0.15, KERB)])
    front = np.stack(
        [np.broadcast_to(s[:, None], (len(s), 3)), *np.broadcast_to(profile.T[:, None], (2, len(s), 3))], -1
    )
    d = np.linspace(0, _FAR, 30)
    ends = []
    for x in (0.0, length):
        low = np.stack([np.full_like(d, x), d, np.zeros_like(d)], axis=-1)
        ends.append(grid(np.stack([low, low + np.array([0.0, 0.0, KERB])], axis=1), _KERBSTONE))
    return join([grid(front, _KERBSTONE), *ends])


def _stripe(s0: float, s1: float, d0: float, d1: float) -> Mesh:
    return _patch(s0, s1, d0, d1, _MARKING_HEIGHT, _PAINT)


def _patch(s0: float, s1: float, d0: float, d1: float, z: float, surface: Surface) -> Mesh:
    return quads([[(s0, d0, z), (s1, d0, z), (s1, d1, z), (s0, d1, z)]], surface)
