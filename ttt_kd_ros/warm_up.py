"""All stages of a scan with a made-up one, so that a robot's first scans are neither slow nor guessed at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ttt_kd_ros.frame import Camera, CameraView, Frame, Scan
from ttt_kd_ros.segmenter import Segmenter

TIMES = 3
"""What runs for the first time is slow and does not count, and of two measurements the longer one (`RunningCost`)."""

STEPS = {"cpu": (1,), "cuda": (1, 3)}
"""On a scan: on a GPU a single one is taken as it is, and of three one is recorded and others are replayed."""
GROW_WITH_THE_SCAN = ("statistics", "begin", "step", "record", "replay")


def warm_up(segmenter: Segmenter) -> None:
    """Go through all stages, so that later ones are quick and what they cost is roughly known.

    The settings stay, the weights are the source model's. The prediction's cost on the robot's scans is still to be
    measured; the steps' costs are known as multiples of it, because they grow with the scan as well.

    Parameters
    ----------
    segmenter
        Just loaded.
    """
    settings = segmenter.settings
    if settings.mode == "off":
        return
    made = replace(settings, mode="offline", schedule="before", budget_ms=0.0, familiar=0.0, min_pairs=1)
    for steps in STEPS[segmenter.device.type]:
        segmenter.configure(replace(made, steps=steps * (made.decoded_parts or 1)))
        for seed in range(TIMES):
            segmenter.segment(made_frame(seed))
    segmenter.configure(settings)
    segmenter.reset()
    segmenter.pace.assume(*GROW_WITH_THE_SCAN)


def made_frame(seed: int) -> Frame:
    """A round place between walls as 64 beams see it, and a picture of noise."""
    rng = np.random.default_rng(seed)
    elevation = np.radians(np.linspace(-25, 3, 64))[:, None]
    azimuth = np.linspace(-np.pi, np.pi, 1000, endpoint=False)[None]
    height, wall = 1.8, 25 + 10 * np.sin(5 * azimuth)
    distance = np.minimum(wall, height / np.tan(np.maximum(-elevation, 1e-3))) + rng.normal(0, 0.02, (64, 1000))
    points = np.stack(
        [distance * np.cos(azimuth), distance * np.sin(azimuth), height + distance * np.tan(elevation)], axis=-1
    )
    K = np.array([[400.0, 0, 319.5], [0, 400.0, 179.5], [0, 0, 1]])
    T_camera_scan = np.array([[0, -1.0, 0, 0], [0, 0, -1.0, height], [1.0, 0, 0, 0], [0, 0, 0, 1]])
    image = rng.integers(0, 256, (360, 640, 3), dtype=np.uint8)
    view = CameraView("made up", image, Camera(640, 360, K), T_camera_scan)
    return Frame(Scan(points.reshape(-1, 3).astype(np.float32), np.eye(4)), (view,))
