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

DISTORTION_MODELS = ("plumb_bob",)


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
        Coefficients of `distortion_model`, at most five for ``plumb_bob`` (k1, k2, p1, p2, k3); empty for a
        pinhole camera.
    distortion_model
        Name as in ``sensor_msgs/CameraInfo``.

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
        if self.K.shape != (3, 3) or not np.isfinite(self.K).all():
            raise CalibrationError("K must be nine finite numbers")
        if self.K[0, 0] <= 0 or self.K[1, 1] <= 0:
            raise CalibrationError(
                f"focal lengths are {self.K[0, 0]:g} and {self.K[1, 1]:g}: the camera is uncalibrated; "
                "publish a CameraInfo with a calibrated K"
            )
        if not any(self.distortion):
            return
        if self.distortion_model not in DISTORTION_MODELS:
            raise CalibrationError(
                f"distortion model '{self.distortion_model}' is not supported, only {', '.join(DISTORTION_MODELS)}; "
                "use the rectified picture and set the camera's `rectified` parameter"
            )
        if len(self.distortion) > 5 or not np.isfinite(self.distortion).all():
            raise CalibrationError(
                f"plumb_bob takes up to five finite coefficients (k1, k2, p1, p2, k3), got {list(self.distortion)}"
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
    """

    name: str
    image: NDArray[np.uint8]
    camera: Camera
    T_camera_scan: NDArray[np.float64]


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
        Why there were no more: ``off``, ``paused``, ``no valid points``, ``no views``, ``few pairs``, ``steps``,
        ``budget``, ``stopped`` or ``not finite``.
    kd_losses
        KD loss before each step, followed by the loss after the last one; empty if no step was taken.
    paired_points
        Points with at least one pixel.
    weight_version
        Number of scans whose steps are in the weights that predicted; 0 for the source model.
    """

    steps: int
    stopped_by: str
    kd_losses: tuple[float, ...] = ()
    paired_points: int = 0
    weight_version: int = 0


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
