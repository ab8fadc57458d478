"""The values that flow through the package: a scan with its camera views, and its segmentation.

Transforms read ``T_target_source``: ``T_camera_scan`` maps scan coordinates to camera coordinates.
Camera frames are optical frames: x right, y down, z forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.errors import CalibrationError

IGNORE_LABEL = 255
"""Label of a point that has none: an invalid point in a prediction, an unlabelled one in ground truth."""

COEFFICIENTS: Mapping[str, tuple[str, ...]] = {
    "plumb_bob": ("k1", "k2", "p1", "p2", "k3"),
    "rational_polynomial": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "equidistant": ("k1", "k2", "k3", "k4"),
}
"""Coefficients of each distortion model, named and ordered as in ``sensor_msgs/CameraInfo`` and OpenCV."""

SHORTEST_FOCAL_LENGTH = 0.05
"""Of the picture's size; shorter ones are no pixels. A fisheye lens that sees all around has 0.16."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one camera at one picture size.

    Parameters
    ----------
    width, height
        Size of the picture that the calibration was made for [px].
    K
        (3, 3) float64, intrinsic matrix [px]; the centre of the first pixel is (0, 0).
    distortion
        Coefficients of `distortion_model` in the order of `COEFFICIENTS`; missing ones are 0.
    distortion_model
        Name as in ``sensor_msgs/CameraInfo``. ``plumb_bob`` and ``rational_polynomial`` bend the picture of a pinhole
        camera: without coefficients they are one. ``equidistant`` is a fisheye lens (Kannala-Brandt), which maps equal
        angles to equal distances in the picture: without coefficients it is an ideal one.

    Raises
    ------
    CalibrationError
        If the numbers describe no camera or the distortion model is unknown.
    """

    width: int
    height: int
    K: NDArray[np.float64]
    distortion: tuple[float, ...] = ()
    distortion_model: str = "plumb_bob"

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise CalibrationError(f"camera size is {self.width}x{self.height}; set width and height of the CameraInfo")
        self._check_matrix()
        self._check_distortion()

    @property
    def coefficients(self) -> tuple[float, ...]:
        """All coefficients of the distortion model, 0 where none is given; empty without distortion."""
        if self.distortion_model not in COEFFICIENTS:
            return ()
        count = len(COEFFICIENTS[self.distortion_model])
        return (*self.distortion[:count], *[0.0] * (count - len(self.distortion)))

    def _check_matrix(self) -> None:
        if self.K.shape != (3, 3) or not np.isfinite(self.K).all():
            raise CalibrationError("K must be nine finite numbers")
        fx, fy = self.K[0, 0], self.K[1, 1]
        if fx <= 0 or fy <= 0:
            raise CalibrationError(
                f"focal lengths are {fx:g} and {fy:g}: the camera is uncalibrated; "
                "publish a CameraInfo with a calibrated K"
            )
        if min(fx / self.width, fy / self.height) < SHORTEST_FOCAL_LENGTH:
            raise CalibrationError(
                f"focal lengths are {fx:g} and {fy:g} in a picture of {self.width}x{self.height}; give K in pixels"
            )

    def _check_distortion(self) -> None:
        if not any(self.distortion):
            return
        if self.distortion_model not in COEFFICIENTS:
            raise CalibrationError(
                f"distortion model '{self.distortion_model}' is not supported, only {', '.join(COEFFICIENTS)}; "
                "use the rectified picture and set the camera's `rectified` parameter"
            )
        names = COEFFICIENTS[self.distortion_model]
        if any(self.distortion[len(names) :]) or not np.isfinite(self.distortion).all():
            raise CalibrationError(
                f"{self.distortion_model} takes {len(names)} finite coefficients ({', '.join(names)}), "
                f"got {list(self.distortion)}; name the model that they belong to, or use the rectified picture"
            )


@dataclass(frozen=True)
class CameraView:
    """One picture with its camera and where the camera was relative to the scan.

    Parameters
    ----------
    name
        Name of the camera.
    image
        (H, W, 3) uint8, RGB. Its size may differ from the calibration's: the intrinsics are scaled to it.
    camera
        Intrinsics.
    T_camera_scan
        (4, 4) float64, maps scan coordinates at the scan's stamp to camera coordinates at the picture's.
    depth
        (h, w) float32 [m] along the optical axis, 0 where unknown: what the camera's depth sensor saw of the same view,
        at any size. None without such a sensor.
    """

    name: str
    image: NDArray[np.uint8]
    camera: Camera
    T_camera_scan: NDArray[np.float64]
    depth: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Scan:
    """One LiDAR scan.

    Parameters
    ----------
    points
        (N, 3) float32 [m] in the scan frame. Rows that are not finite are invalid points and keep their place.
    T_base_scan
        (4, 4) float64, maps scan coordinates to a base frame whose xy plane is the ground and whose z points up.
    stamp
        Time of the scan [ns].
    """

    points: NDArray[np.float32]
    T_base_scan: NDArray[np.float64]
    stamp: int = 0


@dataclass(frozen=True)
class Frame:
    """A scan, the pictures that belong to it and, where it is known, the ground truth.

    Parameters
    ----------
    scan
        The scan.
    views
        Pictures, any number, in any order.
    labels
        (N,) uint8 class of each point, `IGNORE_LABEL` where it has none; None without ground truth.
    """

    scan: Scan
    views: tuple[CameraView, ...] = ()
    labels: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class AdaptationReport:
    """What test-time training did on one scan.

    Parameters
    ----------
    steps
        Gradient steps taken.
    stopped_by
        Why there were no more: ``off``, ``paused``, ``no valid points``, ``no views``, ``few pairs``, ``familiar``,
        ``steps``, ``budget``, ``deadline``, ``stopped``, ``background`` (none ended since the last scan) or
        ``trainer died``; or why they were undone: ``not finite``, ``out of memory``, ``collapse`` or ``disagreement``.
    kd_losses
        KD loss before each step, followed by the loss after the last one; empty if no step was taken. Where steps take
        turns on parts of the view, those before a step are means over a turn, and only the last is of the whole view.
    paired_points
        Points with at least one pixel.
    trusted
        Whether the adapted weights may label the whole scan and not only what lies near the view.
    weight_version
        Number of scans whose steps are in the weights; 0 for the source model's. A scan that is familiar is labelled by
        the source model whatever they are.
    reset_by
        Why the weights went back to the source's: ``collapse``, ``disagreement`` or ``time jump``; empty if they
        did not.
    skipped
        In the background: scans so far that were not trained on, because a newer one came first.
    """

    steps: int
    stopped_by: str
    kd_losses: tuple[float, ...] = ()
    paired_points: int = 0
    weight_version: int = 0
    trusted: bool = True
    reset_by: str = ""
    skipped: int = 0


@dataclass(frozen=True)
class Segmentation:
    """The answer to one frame.

    Parameters
    ----------
    labels
        (N,) uint8, class of each point, `IGNORE_LABEL` for invalid points; in the order of the scan.
    confidence
        (N,) float32 in [0, 1], softmax probability of the label; 0 for invalid points.
    adaptation
        What test-time training did.
    timings_ms
        Milliseconds spent in each stage.
    """

    labels: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    adaptation: AdaptationReport
    timings_ms: Mapping[str, float] = field(default_factory=dict)
