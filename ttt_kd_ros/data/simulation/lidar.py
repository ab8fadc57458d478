"""A spinning LiDAR: where its rays go at what time, and which of them come back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.data.simulation.domains import LidarSpec, Weather
from ttt_kd_ros.data.simulation.materials import Label, Material, luminance, on_window, optics_table
from ttt_kd_ros.data.simulation.track import Floats
from ttt_kd_ros.data.simulation.world import Hits, World
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.geometry.transforms import rigid

_OPTICS = optics_table()
_GROUND = (Label.ROAD, Label.ROAD_MARKING, Label.SIDEWALK)


@dataclass(frozen=True)
class Sweep:
    """One turn of the sensor; shots without an echo are left out.

    Parameters
    ----------
    points
        (N, 4) float32: x, y, z [m] in the sensor frame at the point's own time, intensity 0..1.
    label
        (N,) uint8 class, `IGNORE_LABEL` for echoes of fog and rain.
    t_offset
        (N,) float32 time after the scan's stamp [s], negative before it.
    ring
        (N,) uint8 beam.
    """

    points: NDArray[np.float32]
    label: NDArray[np.uint8]
    t_offset: NDArray[np.float32]
    ring: NDArray[np.uint8]


def column_times(spec: LidarSpec) -> Floats:
    """Times (C,) of the columns after the scan's stamp [s]: one turn, looking straight ahead at the stamp."""
    return ((np.arange(spec.columns) + 0.5) / spec.columns - 0.5) / spec.rate


def beam_directions(spec: LidarSpec) -> Floats:
    """Unit vectors (C, B, 3) of the shots in the sensor frame; it turns clockwise, seen from above."""
    azimuth = -2 * np.pi * spec.rate * column_times(spec)[:, None]
    elevation = np.deg2rad(spec.elevations)[None]
    x, y = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
    return np.stack([x, y, np.broadcast_to(np.sin(elevation), x.shape)], axis=-1)


def mounting(spec: LidarSpec) -> Floats:
    """``T_base_lidar`` (4, 4)."""
    pitch, roll = np.deg2rad([spec.pitch, spec.roll])
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    return rigid(about_y @ about_x, np.array([0.0, 0.0, spec.height]))


def sweep(
    world: World, spec: LidarSpec, weather: Weather, T_world_lidar: Floats, time: float, rng: np.random.Generator
) -> Sweep:
    """Turn once.

    Parameters
    ----------
    world
        The street.
    spec, weather
        The sensor and the air.
    T_world_lidar
        (C, 4, 4) pose of the sensor at the time of each column.
    time
        Of the scan's stamp [s].
    rng
        Draws noise and losses.
    """
    local = beam_directions(spec)
    offsets = column_times(spec)
    directions = np.einsum("cij,cbj->cbi", T_world_lidar[:, :3, :3], local)
    hits = world.sweep(T_world_lidar[:, :3, 3], directions, time + offsets)
    cosine = -np.einsum("nk,nk->n", hits.normal, directions.reshape(-1, 3).astype(np.float32))
    echo = _echo(world, hits, cosine, weather)
    distance = hits.distance + rng.normal(0.0, 1.0, len(cosine)) * np.hypot(spec.range_noise, echo.roughness)
    seen = hits.valid & _detected(echo, hits.distance, spec, weather, rng)
    seen &= (distance > spec.min_range) & (distance < spec.max_range)
    label, intensity = world.labels(hits), echo.intensity * np.exp(rng.normal(0.0, 0.2, len(cosine)))
    drops, drop_distance = _drops(spec, weather, hits.distance, rng)
    distance = np.where(drops, drop_distance, distance)
    label[drops] = IGNORE_LABEL
    intensity = np.where(drops, rng.uniform(0.0, 0.06, len(cosine)), intensity)
    kept = np.flatnonzero(seen | drops)
    column, ring = np.divmod(kept, len(spec.elevations))
    xyz = local.reshape(-1, 3)[kept] * distance[kept, None]
    points = np.column_stack([xyz, np.clip(intensity[kept], 0.0, 1.0)]).astype(np.float32)
    return Sweep(points, label[kept], offsets[column].astype(np.float32), ring.astype(np.uint8))


@dataclass(frozen=True)
class _Echo:
    strength: NDArray[np.float32]
    intensity: NDArray[np.float32]
    roughness: NDArray[np.float32]
    lost: NDArray[np.float32]


def _echo(world: World, hits: Hits, cosine: NDArray[np.float32], weather: Weather) -> _Echo:
    """What comes back of each shot, before distance and air weaken it."""
    faces, face = world.faces, np.maximum(hits.face, 0)
    material = faces.material[face].copy()
    facade, cells = world.facades(hits)
    material[facade[on_window(cells)]] = Material.GLASS
    reflectance, tint, roughness, glancing, lost = _OPTICS[material].T
    brightness = np.minimum(2.0 * luminance(faces.color[face]), 1.5)
    reflectance = reflectance * (1.0 - tint + tint * brightness)
    ground = np.isin(faces.label[face], _GROUND)
    reflectance = np.where(ground, reflectance * (1.0 - 0.75 * weather.wet), reflectance)
    slant = glancing + (1.0 - glancing) * np.clip(cosine, 0.0, 1.0)
    lost = np.clip(lost + np.where(glancing < 0.05, 0.35 * (1.0 - cosine) ** 2, 0.0), 0.0, 0.95)
    return _Echo(reflectance * slant, np.minimum(reflectance * (0.3 + 0.7 * slant), 1.0), roughness, lost)


def _detected(
    echo: _Echo, distance: NDArray[np.float32], spec: LidarSpec, weather: Weather, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """A logistic threshold on the power of the echo: reflectance over squared range, weakened twice by the air."""
    reach = np.where(np.isfinite(distance), distance, 1.0) / spec.reach
    power = np.log(np.maximum(echo.strength, 1e-6)) - 2 * np.log(np.maximum(reach, 1e-6))
    power -= 2 * weather.extinction * reach * spec.reach
    found = 1.0 / (1.0 + np.exp(-np.clip(4.0 * power, -30, 30)))
    chance = found * (1.0 - echo.lost) * (1.0 - spec.dropout)
    return np.asarray(rng.random(len(distance)) < chance)


def _drops(
    spec: LidarSpec, weather: Weather, distance: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Floats]:
    """Which shots come back from a drop in the air, and from how far."""
    far = spec.min_range + rng.gamma(2.0, weather.drop_range / 2, len(distance))
    drawn = rng.random(len(distance)) < weather.backscatter
    return drawn & (far < np.minimum(distance, spec.max_range)), far
