"""When each point of a cloud was measured, as LiDAR drivers tell it.

=================  ==================  ===================================================
field              type                drivers
=================  ==================  ===================================================
``t``              UINT32              Ouster: ns after the stamp
``time``           FLOAT32             Velodyne: s after the stamp (negative before it)
``timestamp``      FLOAT64             Hesai, RoboSense: s of the clock; Livox: ns of the clock
``time_stamp``     UINT32              Autoware: ns after the stamp
``offset_time``    UINT32              Livox: ns after the stamp
=================  ==================  ===================================================

As drivers disagree and bags are converted, names and types decide nothing alone: the unit is the coarsest of s, ms, µs
and ns in which the scan takes less than two seconds (integers are never seconds), which is unambiguous for scans of
2 ms to 2 s. Times that then lie within two seconds of 0 are relative to the stamp, others are of the stamp's clock.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from ttt_kd_ros.ros.messages import MessageError, read_field

FIELDS = ("t", "time", "timestamp", "time_stamp", "offset_time")
LONGEST_S = 2.0


def read_times(cloud: PointCloud2, stamp: int, measured: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Time of each point after the cloud's stamp.

    Parameters
    ----------
    cloud
        The cloud.
    stamp
        Its stamp [ns].
    measured
        (N,) bool, points that were measured: drivers leave the times of others at 0.

    Returns
    -------
    (N,) float64 [s], or None if no field tells times, or all of them are the same; finite for measured points.

    Raises
    ------
    MessageError
        If the times are no times of one scan, or of another clock than the stamp.
    """
    names = {field.name for field in cloud.fields}
    name = next((name for name in FIELDS if name in names), None)
    if name is None or not measured.any():
        return None
    try:
        return _after_stamp(read_field(cloud, name), stamp, measured)
    except MessageError as error:
        raise MessageError(f"times in field '{name}' {error}") from error


def _after_stamp(values: NDArray[Any], stamp: int, measured: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    is_integer = values.dtype.kind in "iu"
    values = values.astype(np.int64 if is_integer else np.float64)
    if not np.isfinite(values[measured]).all():
        raise MessageError("are not all finite; mend the driver")
    first, last = values[measured].min(), values[measured].max()
    if first == last:
        return None
    unit_ns = _unit_ns(float(last - first), is_integer=is_integer)
    first_ns = round(first.item() * unit_ns)
    start_ns = first_ns if abs(first_ns) <= LONGEST_S * 1e9 else first_ns - stamp
    if abs(start_ns) > LONGEST_S * 1e9:
        raise MessageError(f"begin {start_ns / 1e9:,.1f} s from the stamp; let stamps and times be of one clock")
    return np.asarray((values - first) * (unit_ns * 1e-9) + start_ns * 1e-9)


def _unit_ns(span: float, *, is_integer: bool) -> int:
    """The coarsest unit [ns] in which the scan takes less than two seconds."""
    units = (10**6, 10**3, 1) if is_integer else (10**9, 10**6, 10**3, 1)
    for unit in units:
        if span * unit < LONGEST_S * 1e9:
            return unit
    raise MessageError(f"span {span:g}, which is longer than a scan in any unit; mend the driver")
