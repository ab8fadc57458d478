"""Cameras with distortion: pictures of the street by the same rays that the LiDAR casts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.data.simulation.domains import CameraSpec, Light, Weather
from ttt_kd_ros.data.simulation.materials import Material, on_frame, on_window
from ttt_kd_ros.data.simulation.textures import clouds, textured
from ttt_kd_ros.data.simulation.track import Floats
from ttt_kd_ros.data.simulation.world import Hits, Snapshot, World
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import rigid

Values = NDArray[np.float32]

_WARM = np.array([1.0, 0.93, 0.82], dtype=np.float32)
_LAMPLIGHT = np.array([1.0, 0.75, 0.42], dtype=np.float32)
_FRAME = np.array([0.5, 0.48, 0.45], dtype=np.float32)
_PANE = np.array([0.03, 0.035, 0.04], dtype=np.float32)
_OPTICAL_TO_FORWARD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class Rendering:
    """A picture and what is on it.

    Parameters
    ----------
    image
        (H, W, 3) uint8, RGB.
    label
        (H, W) uint8 class of each pixel's centre, 255 in the sky.
    distance
        (H, W) float32 [m] along the ray, infinite in the sky.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    distance: NDArray[np.float32]


@dataclass(frozen=True)
class Lens:
    """Intrinsics of a camera, and the rays of its pixels.

    Parameters
    ----------
    spec
        The camera.
    """

    spec: CameraSpec

    @cached_property
    def camera(self) -> Camera:
        """Intrinsics."""
        spec, focal = self.spec, self.spec.focal * self.spec.width
        K = np.array([[focal, 0.0, (spec.width - 1) / 2], [0.0, focal, (spec.height - 1) / 2], [0.0, 0.0, 1.0]])
        return Camera(spec.width, spec.height, K, spec.distortion)

    @cached_property
    def rays(self) -> Values:
        """(H * W, 3) float32 unit vectors in the optical frame through the centres of the pixels."""
        v, u = np.mgrid[: self.spec.height, : self.spec.width].astype(np.float64)
        pixels = np.stack([u.ravel(), v.ravel()], axis=1)[:, None]
        criteria = (cv2.TERM_CRITERIA_MAX_ITER | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
        distortion = np.array(self.spec.distortion)
        plane = cv2.undistortPointsIter(pixels, self.camera.K, distortion, np.eye(3), np.eye(3), criteria)[:, 0]
        rays = np.column_stack([plane, np.ones(len(plane))])
        return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True), dtype=np.float32)


def camera_mounting(spec: CameraSpec) -> Floats:
    """``T_base_camera`` (4, 4)."""
    yaw, pitch = np.deg2rad([spec.yaw, spec.pitch])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    return rigid(about_z @ about_y @ _OPTICAL_TO_FORWARD, np.array(spec.position))


def sun_direction(light: Light, rng: np.random.Generator) -> Values:
    """Unit vector (3,) towards the sun."""
    elevation, azimuth = np.deg2rad(rng.uniform(*light.sun_elevation)), rng.uniform(0.0, 2 * np.pi)
    level = np.cos(elevation)
    return np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], dtype=np.float32)


@dataclass(frozen=True)
class Photographer:
    """Renders pictures of a street.

    Parameters
    ----------
    world
        The street.
    light, weather
        Light and air.
    sun
        (3,) unit vector towards the sun.
    cloudiness
        How dense the clouds of a sunny sky are, 0..1.
    """

    world: World
    light: Light
    weather: Weather
    sun: Values
    cloudiness: float = 0.0

    def picture(self, lens: Lens, T_world_camera: Floats, time: float, rng: np.random.Generator) -> Rendering:
        """Take a picture; `rng` draws the noise."""
        directions = (lens.rays @ T_world_camera[:3, :3].T.astype(np.float32)).astype(np.float32)
        origins = np.tile(T_world_camera[:3, 3].astype(np.float32), (len(directions), 1))
        snapshot = self.world.at(time)
        hits = snapshot.cast(origins, directions)
        radiance = self._sky(directions)
        rows = np.flatnonzero(hits.valid)
        radiance[rows] = self._shade(snapshot, _chosen(hits, rows), origins[rows], directions[rows], lens)
        shape = (lens.spec.height, lens.spec.width)
        image = self._develop(radiance.reshape(*shape, 3), rng)
        return Rendering(image, self.world.labels(hits).reshape(shape), hits.distance.reshape(shape))

    @property
    def _sky_colors(self) -> tuple[Values, Values]:
        return np.array(self.light.zenith, dtype=np.float32), np.array(self.light.horizon, dtype=np.float32)

    def _shade(self, snapshot: Snapshot, hits: Hits, origins: Values, directions: Values, lens: Lens) -> Values:
        faces = self.world.faces
        material = faces.material[hits.face].copy()
        position = origins + directions * hits.distance[:, None]
        footprint = hits.distance / (lens.spec.focal * lens.spec.width)
        color = faces.color[hits.face]
        facade, cells = self.world.facades(hits)
        glazed = on_window(cells)
        panes, windows = facade[glazed], _window_key(cells[glazed], hits.face[facade[glazed]])
        material[panes] = Material.GLASS
        color[panes] = _PANE * (1.0 + 6.0 * windows**3)[:, None]
        color[facade[on_frame(cells)]] = _FRAME
        albedo = textured(material, color, position, hits.normal, footprint)
        ground = np.isin(material, (Material.ASPHALT, Material.PAVING, Material.ROAD_PAINT))
        albedo[ground] *= 1.0 - 0.45 * self.weather.wet
        radiance = albedo * self._incoming(snapshot, hits, position, material)
        self._mirror(radiance, material, directions, hits.normal)
        if self.light.lamps:
            radiance += self._glow(material, color, panes[windows < 0.35])
        share = np.exp(-hits.distance / self.weather.haze)[:, None]
        return radiance * share + np.array(self.light.horizon, dtype=np.float32) * (1.0 - share)

    def _incoming(self, snapshot: Snapshot, hits: Hits, position: Values, material: NDArray[np.uint8]) -> Values:
        """Light of the sky and, where nothing is in its way, of the sun."""
        zenith, horizon = self._sky_colors
        upward = (0.5 + 0.5 * hits.normal[:, 2])[:, None]
        light = (0.14 * horizon + upward * (0.32 * zenith + 0.36 * horizon)).astype(np.float32)
        cosine = hits.normal @ self.sun
        leaves = material == Material.LEAVES
        cosine[leaves] = 0.35 + 0.5 * np.abs(cosine[leaves])
        if self.light.sun > 0:
            lit = np.flatnonzero(cosine > 0)
            start = position[lit] + 0.02 * hits.normal[lit] + 0.01 * self.sun
            shadow = snapshot.blocked(start, np.tile(self.sun, (len(lit), 1)))
            bright = lit[~shadow]
            light[bright] += self.light.sun * cosine[bright, None] * _WARM
        return light

    def _mirror(self, radiance: Values, material: NDArray[np.uint8], directions: Values, normal: Values) -> None:
        """Glass and paint mirror the sky, a wet road too (Fresnel's law after Schlick)."""
        mirrors = (
            (Material.GLASS, 0.18, 0.8),
            (Material.CAR_PAINT, 0.04, 0.8),
            (Material.ASPHALT, 0.02, 0.4 * self.weather.wet),
        )
        for kind, least, bright in mirrors:
            rows = np.flatnonzero(material == kind)
            cosine = -np.einsum("nk,nk->n", directions[rows], normal[rows])
            share = (least + (1.0 - least) * np.clip(1.0 - cosine, 0, 1) ** 5)[:, None]
            mirrored = directions[rows] + 2.0 * cosine[:, None] * normal[rows]
            radiance[rows] = radiance[rows] * (1.0 - bright * share) + bright * share * self._sky(mirrored)

    def _glow(self, material: NDArray[np.uint8], color: Values, inhabited: NDArray[np.int64]) -> Values:
        """Lamps, and the windows where somebody is at home."""
        glow = np.zeros_like(color)
        lamps = material == Material.LAMP
        glow[lamps] = 3.0 * color[lamps]
        glow[inhabited] = 0.5 * _LAMPLIGHT
        return glow

    def _sky(self, directions: Values) -> Values:
        """Gradient from the horizon to the zenith, clouds if the sun shines; below the horizon the horizon's colour."""
        zenith, horizon = self._sky_colors
        up = np.sqrt(np.clip(directions[:, 2:], 0.0, 1.0))
        sky = horizon + (zenith - horizon) * up
        if self.light.sun > 0:
            cover = self.cloudiness * clouds(directions)[:, None]
            sky += cover * (0.9 * horizon + 0.1 * self.light.sun * _WARM - sky)
            near = np.clip(directions @ self.sun, 0.0, 1.0)
            sky += self.light.sun * (0.12 * near**8 + 4.0 * (near > 0.9994))[:, None] * _WARM
        return np.asarray(sky, dtype=np.float32)

    def _develop(self, radiance: Values, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The lens blurs by half a pixel, the sensor saturates softly and adds noise, the file holds gamma 2.2."""
        blurred = cv2.GaussianBlur(radiance, (3, 3), 0.55)
        if self.weather.streaks:
            blurred = _rain(blurred, rng)
        exposed = _film(self.light.exposure * blurred)
        exposed += self.light.noise * rng.standard_normal(exposed.shape, dtype=np.float32) * np.sqrt(exposed + 0.05)
        return np.asarray(255 * np.clip(exposed, 0.0, 1.0) ** (1 / 2.2) + 0.5, dtype=np.uint8)


def _film(light: Values) -> Values:
    """Response of a camera to linear light: an S-shaped curve (Narkowicz, fit to the ACES reference)."""
    return np.asarray(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), dtype=np.float32)


def _window_key(cells: Values, face: NDArray[np.int32]) -> Values:
    """A number from 0 to 1 for each window (N,), the same all over it."""
    column, storey = np.floor(cells).T.astype(np.float64)
    key = np.sin(column * 12.9898 + storey * 78.233 + (face // 2) * 0.3719) * 43758.5453
    return np.asarray(key - np.floor(key), dtype=np.float32)


def _chosen(hits: Hits, rows: NDArray[np.int64]) -> Hits:
    return Hits(hits.face[rows], hits.distance[rows], hits.weights[rows], hits.normal[rows])


def _rain(radiance: Values, rng: np.random.Generator) -> Values:
    """Streaks of falling drops, and blurred discs of those on the glass."""
    height, width, _ = radiance.shape
    falling = np.zeros((height, width), dtype=np.float32)
    slant = rng.normal(0.0, 0.1)
    for _ in range(width // 3):
        u, v, long = rng.uniform(0, width), rng.uniform(-20, height), rng.uniform(4, 0.08 * height)
        start, end = (int(u), int(v)), (int(u + slant * long), int(v + long))
        cv2.line(falling, start, end, float(rng.uniform(0.02, 0.1)), 1, cv2.LINE_AA)
    blurred = cv2.GaussianBlur(radiance, (0, 0), 0.012 * width)
    glass = np.zeros((height, width), dtype=np.float32)
    for _ in range(40):
        centre, radius = (int(rng.uniform(0, width)), int(rng.uniform(0, height))), rng.uniform(0.003, 0.012)
        cv2.circle(glass, centre, int(radius * width) + 1, float(rng.uniform(0.5, 1.0)), -1, cv2.LINE_AA)
    glass = cv2.GaussianBlur(glass, (0, 0), 1.2)[:, :, None]
    return np.asarray(radiance * (1 - glass) + blurred * glass * 1.05 + falling[:, :, None], dtype=np.float32)
