"""Named domains: one to train on, and targets that shift one thing each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ttt_kd_ros.errors import InputError

Range = tuple[float, float]


@dataclass(frozen=True)
class LidarSpec:
    """A spinning LiDAR and where it is mounted.

    Parameters
    ----------
    elevations
        Angle of each beam above the sensor's xy plane [degrees].
    columns
        Shots of each beam in one turn.
    rate
        Turns per second [Hz].
    min_range, max_range
        Nearer and farther surfaces give no echo [m].
    reach
        Range at which a white surface, hit squarely, is seen half of the time [m].
    range_noise
        Standard deviation of the range [m].
    dropout
        Share of the shots lost for no reason.
    height
        Of the sensor above the ground [m].
    pitch, roll
        Tilt of the sensor [degrees]; positive pitch looks down, positive roll leans right.
    """

    elevations: tuple[float, ...]
    columns: int = 1536
    rate: float = 10.0
    min_range: float = 1.2
    max_range: float = 120.0
    reach: float = 300.0
    range_noise: float = 0.018
    dropout: float = 0.015
    height: float = 1.8
    pitch: float = 0.0
    roll: float = 0.0

    def __post_init__(self) -> None:
        if not self.elevations or self.columns < 4 or self.rate <= 0:
            raise InputError("a LiDAR needs at least one beam, four columns and a positive rate")


@dataclass(frozen=True)
class CameraSpec:
    """A camera and where it is mounted.

    Parameters
    ----------
    name
        Name of the camera.
    yaw, pitch
        Direction of the view in the base frame [degrees]: yaw to the left, pitch down.
    position
        In the base frame [m].
    width, height
        Size of the picture [px].
    focal
        Focal length as a share of the width.
    distortion
        plumb_bob (k1, k2, p1, p2, k3).
    """

    name: str
    yaw: float = 0.0
    pitch: float = 3.0
    position: tuple[float, float, float] = (0.4, 0.0, 1.6)
    width: int = 640
    height: int = 384
    focal: float = 0.62
    distortion: tuple[float, ...] = (-0.12, 0.03, 0.0004, -0.0003, 0.0)

    def __post_init__(self) -> None:
        if self.width < 16 or self.height < 16:
            raise InputError(f"camera '{self.name}' is {self.width}x{self.height}; at least 16x16 is needed")


@dataclass(frozen=True)
class Weather:
    """What is in the air and on the road.

    Parameters
    ----------
    extinction
        Of the LiDAR's light in the air [1/m].
    backscatter
        Share of the shots that a drop of fog or rain sends back.
    drop_range
        Typical range of such a drop [m].
    haze
        Distance at which 63 % of the contrast is gone in the pictures [m].
    wet
        How wet the ground is, 0..1: it turns dark and mirrors the LiDAR's light away.
    streaks
        Whether falling rain is seen in the pictures.
    """

    extinction: float = 0.0
    backscatter: float = 0.0
    drop_range: float = 5.0
    haze: float = 900.0
    wet: float = 0.0
    streaks: bool = False


@dataclass(frozen=True)
class Light:
    """Light of the day.

    Parameters
    ----------
    sun_elevation
        Lowest and highest angle above the horizon [degrees].
    sun
        Strength of the direct light; 0 for an overcast sky.
    zenith, horizon
        Linear RGB of the sky.
    exposure
        Gain of the cameras.
    noise
        Standard deviation of their noise at black [0..1].
    lamps
        Whether lamps and windows shine.
    """

    sun_elevation: Range = (25.0, 60.0)
    sun: float = 2.4
    zenith: tuple[float, float, float] = (0.20, 0.38, 0.75)
    horizon: tuple[float, float, float] = (0.66, 0.76, 0.88)
    exposure: float = 0.68
    noise: float = 0.008
    lamps: bool = False


@dataclass(frozen=True)
class Town:
    """Proportions and densities of the streets; ranges are drawn from anew for every drive or block.

    Parameters
    ----------
    road_half
        Half the width of the road with its parking lanes [m].
    pavement
        Width of the pavement [m].
    setback
        Distance of the buildings from the pavement [m].
    floors
        Storeys.
    front
        Width of a building [m].
    block
        Length between two side streets [m].
    detached
        Share of the buildings with a gap to the next one.
    park
        Share of the blocks' sides without buildings.
    trees
        Trees per 100 m of a block's side.
    parked
        Share of the parking lane in use.
    traffic
        Moving vehicles per 100 m and direction.
    people
        People and two-wheelers per 100 m and side.
    heavy
        Share of vans, trucks and buses.
    """

    road_half: Range = (4.6, 6.4)
    pavement: Range = (1.6, 4.0)
    setback: Range = (1.0, 9.0)
    floors: Range = (1, 4)
    front: Range = (8.0, 18.0)
    block: Range = (60.0, 120.0)
    detached: float = 0.6
    park: float = 0.2
    trees: float = 20.0
    parked: float = 0.45
    traffic: float = 1.6
    people: float = 4.0
    heavy: float = 0.22


@dataclass(frozen=True)
class Domain:
    """Everything that a drive is made under.

    Parameters
    ----------
    name
        Name of the domain.
    lidar, weather, light, town
        Its parts.
    calibration_error
        Error of the published camera mountings: angle [degrees] and offset [m].
    """

    name: str
    lidar: LidarSpec
    weather: Weather = field(default_factory=Weather)
    light: Light = field(default_factory=Light)
    town: Town = field(default_factory=Town)
    calibration_error: tuple[float, float] = (0.0, 0.0)


# HDL-64E: the upper 32 beams 1/3 degree apart from +2 degrees, the lower 32 half a degree apart down to -24.33 degrees
# (Velodyne, HDL-64E user's manual).
HDL64 = LidarSpec((*np.linspace(2.0, -8.33, 32).round(3).tolist(), *np.linspace(-8.83, -24.33, 32).round(3).tolist()))
# HDL-32E: 1.33 degrees apart; VLP-16: 2 degrees apart (Velodyne, user's manuals).
HDL32 = replace(HDL64, elevations=tuple(np.linspace(10.67, -30.67, 32).round(3).tolist()), columns=1084)
VLP16 = replace(HDL64, elevations=tuple(np.linspace(15.0, -15.0, 16).tolist()), columns=1800)

_SOURCE = Domain("source", HDL64)
_FOG = Weather(extinction=0.03, backscatter=0.05, drop_range=6.0, haze=45.0)
_RAIN = Weather(extinction=0.006, backscatter=0.02, drop_range=7.0, haze=220.0, wet=0.8, streaks=True)
_FOGGY_LIGHT = Light(sun=0.0, zenith=(0.55, 0.57, 0.6), horizon=(0.5, 0.515, 0.53), exposure=1.0)
_RAINY_LIGHT = Light(sun=0.0, zenith=(0.34, 0.37, 0.42), horizon=(0.46, 0.48, 0.52), exposure=1.5, noise=0.012)
_DUSK = Light((4.0, 9.0), 0.10, (0.035, 0.045, 0.10), (0.16, 0.10, 0.09), 2.6, 0.012, lamps=True)
_CITY = Town(
    (6.5, 9.5), (3.5, 5.5), (0.0, 1.0), (4, 10), (14.0, 30.0), (80.0, 160.0), 0.05, 0.06, 6.0, 0.7, 3.2, 12.0, 0.35
)
_MISCALIBRATED = (1.0, 0.05)

DOMAINS: Mapping[str, Domain] = {
    domain.name: domain
    for domain in (
        _SOURCE,
        Domain("beams32", HDL32),
        Domain("beams16", VLP16),
        Domain("low", replace(HDL64, height=0.9)),
        Domain("tilted", replace(HDL64, pitch=4.0, roll=-4.0)),
        replace(_SOURCE, name="fog", weather=_FOG, light=_FOGGY_LIGHT),
        replace(_SOURCE, name="rain", weather=_RAIN, light=_RAINY_LIGHT),
        replace(_SOURCE, name="city", town=_CITY),
        replace(_SOURCE, name="dusk", light=_DUSK),
        replace(_SOURCE, name="miscalibrated", calibration_error=_MISCALIBRATED),
        Domain(
            "all",
            replace(HDL32, height=1.2, pitch=2.5, roll=-2.5),
            _RAIN,
            replace(
                _RAINY_LIGHT,
                zenith=(0.12, 0.13, 0.16),
                horizon=(0.17, 0.18, 0.2),
                exposure=2.0,
                noise=0.015,
                lamps=True,
            ),
            _CITY,
            (0.5, 0.03),
        ),
    )
}

CAMERAS: Mapping[str, CameraSpec] = {
    camera.name: camera
    for camera in (
        CameraSpec("front"),
        CameraSpec("left", 90.0, position=(0.0, 0.3, 1.6)),
        CameraSpec("right", -90.0, position=(0.0, -0.3, 1.6)),
        CameraSpec("rear", 180.0, position=(-0.4, 0.0, 1.6)),
    )
}


def find_domain(name: str) -> Domain:
    """Domain of a name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in DOMAINS:
        raise InputError(f"no domain is called '{name}'; there are {', '.join(DOMAINS)}")
    return DOMAINS[name]


def find_camera(name: str) -> CameraSpec:
    """Camera of a name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in CAMERAS:
        raise InputError(f"no camera is called '{name}'; there are {', '.join(CAMERAS)}")
    return CAMERAS[name]
