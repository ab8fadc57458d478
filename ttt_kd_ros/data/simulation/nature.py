"""Trees, bushes and hedges: stems, and crowns of single leaves that let some rays through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.data.simulation.materials import Label, Material
from ttt_kd_ros.data.simulation.mesh import Mesh, Surface, join, triangles, tube

_BARK = Surface(Material.BARK, Label.TRUNK, (0.13, 0.09, 0.06))


def tree(rng: np.random.Generator) -> Mesh:
    """Broad, round or slender tree, 4 to 11 m high."""
    height = rng.uniform(4.5, 11.0)
    stem = height * rng.uniform(0.22, 0.38)
    radius = (height - stem) * rng.choice([0.28, 0.42, 0.55])
    lean = rng.normal(0.0, 0.15, 2)
    fork = np.array([*lean, stem])
    girth = 0.03 * height * rng.uniform(0.7, 1.2)
    parts = [tube((0.0, 0.0, -0.2), fork, girth, _BARK, 7, 0.7 * girth)]
    middle = (stem + height) / 2
    for _ in range(rng.integers(3, 6)):
        angle, reach = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.3, 0.7) * radius
        tip = np.array([np.cos(angle) * reach, np.sin(angle) * reach, rng.uniform(middle, height - 0.5)])
        parts.append(tube(fork, tip, 0.5 * girth, _BARK, 5, 0.15 * girth))
    crown = _clumps(rng, np.array([*lean, middle]), np.array([radius, radius, (height - stem) / 2]))
    return join([*parts, crown])


def bush(rng: np.random.Generator) -> Mesh:
    """Bush of 0.8 to 2 m."""
    radii = rng.uniform([0.5, 0.5, 0.5], [1.2, 1.2, 1.1])
    return _foliage(rng, _in_ellipsoid(rng, 380, np.array([0.0, 0.0, 0.8 * radii[2]]), radii), 0.22)


def hedge(rng: np.random.Generator, length: float) -> Mesh:
    """Hedge along x from 0 to `length` [m]."""
    high, wide = rng.uniform(0.9, 2.1), rng.uniform(0.3, 0.5)
    count = int(length * high * 130)
    spots = rng.uniform([0.0, -wide, 0.0], [length, wide, high], (count, 3))
    side = rng.random(count) < 0.6
    spots[side, 1] = np.sign(spots[side, 1]) * wide + rng.normal(0.0, 0.04, side.sum())
    return _foliage(rng, spots, 0.16)


def _clumps(rng: np.random.Generator, centre: NDArray[np.float64], radii: NDArray[np.float64]) -> Mesh:
    """A crown: several overlapping balls of leaves."""
    count = int(rng.integers(6, 10))
    spots = []
    for middle in _in_ellipsoid(rng, count, centre, 0.72 * radii):
        spots.append(_in_ellipsoid(rng, 240, middle, radii * rng.uniform(0.38, 0.55)))
    return _foliage(rng, np.concatenate(spots), 0.12 + 0.09 * float(radii.max()))


def _in_ellipsoid(
    rng: np.random.Generator, count: int, centre: NDArray[np.float64], radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spots (count, 3), denser towards the surface."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.asarray(centre + direction * rng.random((count, 1)) ** 0.22 * radii)


def _foliage(rng: np.random.Generator, spots: NDArray[np.float64], size: float) -> Mesh:
    """A triangle of random orientation and shade at each spot."""
    corners = spots[:, None] + rng.normal(0.0, size / 1.6, (len(spots), 3, 3))
    leaves = triangles(corners, Surface(Material.LEAVES, Label.VEGETATION))
    tone = np.array([rng.uniform(0.04, 0.10), rng.uniform(0.11, 0.2), rng.uniform(0.02, 0.045)])
    color = tone * rng.uniform(0.6, 1.35, (len(spots), 1))
    return replace(leaves, color=color.astype(np.float32))
