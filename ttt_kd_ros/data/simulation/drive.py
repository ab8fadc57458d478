"""Drives: a car with its sensors on a street, frame by frame, and the folder that they are written to."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from ttt_kd_ros.data.folder import FIRST_STAMP, require_unused
from ttt_kd_ros.data.simulated import KIND, VERSION
from ttt_kd_ros.data.simulation.camera import Lens, Photographer, Rendering, camera_mounting, sun_direction
from ttt_kd_ros.data.simulation.domains import CameraSpec, Domain
from ttt_kd_ros.data.simulation.lidar import Sweep, column_times, mounting, sweep
from ttt_kd_ros.data.simulation.street import Street, build_street, stream
from ttt_kd_ros.data.simulation.track import Floats
from ttt_kd_ros.data.simulation.world import World
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.geometry.transforms import invert, rigid

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Drive:
    """A drive along a street.

    Parameters
    ----------
    domain
        What it is made under.
    seed
        The same seed gives the same drive, and the same street under every domain with the same town.
    frames
        Number of scans.
    cameras
        The car's cameras.
    interval
        Time from one scan to the next [s]; None for one scan per turn of the LiDAR.

    Raises
    ------
    InputError
        If there are no frames, a camera is named twice, or the interval is shorter than one turn.
    """

    domain: Domain
    seed: int
    frames: int
    cameras: tuple[CameraSpec, ...]
    interval: float | None = None

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"a drive needs at least one frame, got {self.frames}")
        if self.seed < 0:
            raise InputError(f"the seed must not be negative, got {self.seed}")
        names = [camera.name for camera in self.cameras]
        if len(set(names)) != len(names):
            raise InputError(f"every camera can be used once, got {', '.join(names)}")
        if self.step < 1 / self.domain.lidar.rate - 1e-9:
            raise InputError(f"an interval of {self.step:g} s is shorter than a turn of the LiDAR")

    @property
    def step(self) -> float:
        """Time from one scan to the next [s]."""
        return 1 / self.domain.lidar.rate if self.interval is None else self.interval

    @cached_property
    def speed(self) -> float:
        """Mean speed of the car [m/s]."""
        return float(stream(self.seed, "speed").uniform(6.0, 11.0))

    @cached_property
    def street(self) -> Street:
        """The street."""
        duration = self.frames * self.step + 1.0
        return build_street(self.seed, self.domain.town, self.speed * duration, duration)

    @cached_property
    def world(self) -> World:
        """The street, ready for rays."""
        return World(self.street)

    @cached_property
    def lenses(self) -> tuple[Lens, ...]:
        """The cameras' optics."""
        return tuple(Lens(camera) for camera in self.cameras)

    @cached_property
    def _photographer(self) -> Photographer:
        sun = sun_direction(self.domain.light, stream(self.seed, "sun"))
        cloudiness = float(stream(self.seed, "clouds").uniform(0.0, 0.9))
        return Photographer(self.world, self.domain.light, self.domain.weather, sun, cloudiness)

    def scan_time(self, index: int) -> float:
        """Time of a scan's stamp [s]."""
        return 0.5 + index * self.step

    def picture_time(self, index: int, camera: CameraSpec) -> float:
        """Time at which the LiDAR looks where the camera looks [s]."""
        return (
            self.scan_time(index)
            - float(np.remainder(camera.yaw + 180.0, 360.0) - 180.0) / 360.0 / self.domain.lidar.rate
        )

    def poses(self, times: Floats) -> Floats:
        """``T_odom_base`` (N, 4, 4) at `times` [s]."""
        rng = stream(self.seed, "driver")
        surge, sway = rng.uniform(0.0, 0.25) * self.speed, rng.uniform(0.0, 0.25)
        beat, weave = rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.6)
        s = self.speed * times + surge / beat * np.sin(beat * times)
        d = self.street.lane + sway * np.sin(weave * times)
        turn = np.arctan2(sway * weave * np.cos(weave * times), self.speed + surge * np.cos(beat * times))
        return self.street.track.poses(s, d, 0.0, turn)

    def sweep(self, index: int) -> Sweep:
        """Scan of a number."""
        lidar, time = self.domain.lidar, self.scan_time(index)
        T_world_lidar = self.poses(time + column_times(lidar)) @ mounting(lidar)
        return sweep(self.world, lidar, self.domain.weather, T_world_lidar, time, stream(self.seed, "lidar", index))

    def picture(self, index: int, lens: Lens) -> Rendering:
        """Picture that belongs to a scan."""
        time = self.picture_time(index, lens.spec)
        T_world_camera = self.poses(np.array([time]))[0] @ camera_mounting(lens.spec)
        return self._photographer.picture(lens, T_world_camera, time, stream(self.seed, lens.spec.name, index))

    def published_mounting(self, camera: CameraSpec) -> Floats:
        """``T_camera_lidar`` (4, 4) as the calibration has it, with the domain's error."""
        true = invert(camera_mounting(camera)) @ mounting(self.domain.lidar)
        angle, offset = self.domain.calibration_error
        rng = stream(self.seed, "calibration", camera.name)
        axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
        rotation, _ = cv2.Rodrigues(np.deg2rad(angle) * axis)
        return rigid(rotation, offset * way) @ true

    def calibration(self) -> dict[str, object]:
        """Content of ``calib.json``."""
        cameras = {
            lens.spec.name: {
                "width": lens.spec.width,
                "height": lens.spec.height,
                "K": lens.camera.K.tolist(),
                "D": list(lens.spec.distortion),
                "T_camera_lidar": self.published_mounting(lens.spec).tolist(),
            }
            for lens in self.lenses
        }
        return {
            "kind": KIND,
            "version": VERSION,
            "domain": self.domain.name,
            "seed": self.seed,
            "rate": self.domain.lidar.rate,
            "T_base_lidar": mounting(self.domain.lidar).tolist(),
            "cameras": cameras,
        }

    def motion(self) -> dict[str, object]:
        """Content of ``poses.json``: the stamps, and where the base was then and when each scan began and ended."""
        half = 0.5 / self.domain.lidar.rate
        times = {self.scan_time(i) + shift for i in range(self.frames) for shift in (-half, 0.0, half)}
        times |= {self.picture_time(i, camera) for i in range(self.frames) for camera in self.cameras}
        stamped = sorted({stamp_of(time): time for time in times}.items())
        poses = self.poses(np.array([time for _, time in stamped]))
        return {
            "scans": [
                {
                    "stamp": stamp_of(self.scan_time(i)),
                    "pictures": {camera.name: stamp_of(self.picture_time(i, camera)) for camera in self.cameras},
                }
                for i in range(self.frames)
            ],
            "poses": [
                {"stamp": stamp, "T_odom_base": T.tolist()} for (stamp, _), T in zip(stamped, poses, strict=True)
            ],
        }


def stamp_of(time: float) -> int:
    """Stamp [ns] of a time of the drive [s]."""
    return FIRST_STAMP + round(time * 1e6) * 1000


def write_folder(drive: Drive, path: str | Path, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> None:
    """Write a drive as a folder that `open_folder` reads.

    ``NNNNNN.npz`` holds `Sweep`'s arrays, ``NNNNNN_<camera>.jpg`` the pictures, ``calib.json`` the sensors and
    ``poses.json`` the stamps and the motion.

    Parameters
    ----------
    drive
        The drive.
    path
        Directory to create.
    progress
        Wraps the numbers of the frames.

    Raises
    ------
    DataError
        If the directory exists already; an interrupted drive leaves nothing behind.
    """
    directory = Path(path)
    require_unused(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:
        unfinished = Path(temporary) / directory.name
        unfinished.mkdir()
        (unfinished / "calib.json").write_text(json.dumps(drive.calibration(), indent=1))
        (unfinished / "poses.json").write_text(json.dumps(drive.motion()))
        for index in progress(range(drive.frames)):
            _write_frame(drive, index, unfinished)
        unfinished.rename(directory)


def _write_frame(drive: Drive, index: int, directory: Path) -> None:
    scan = drive.sweep(index)
    path = directory / f"{index:06d}.npz"
    np.savez(path, points=scan.points, label=scan.label, t_offset=scan.t_offset, ring=scan.ring)
    for lens in drive.lenses:
        pixels = cv2.cvtColor(drive.picture(index, lens).image, cv2.COLOR_RGB2BGR)
        path = directory / f"{index:06d}_{lens.spec.name}.jpg"
        if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise DataError(f"{path} cannot be written")
