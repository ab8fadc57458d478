"""Times of points as drivers tell them."""

from __future__ import annotations

import numpy as np
import pytest
from scene import SECOND, cloud
from sensor_msgs.msg import PointField

from ttt_kd_ros.ros.messages import MessageError
from ttt_kd_ros.ros.point_times import read_times

STAMP = 1_700_000_000 * SECOND + 123_456_789
NOW_S = STAMP / 1e9
F32, F64, U32, I32 = PointField.FLOAT32, PointField.FLOAT64, PointField.UINT32, PointField.INT32
TURN = (0.0, 0.025, 0.05, 0.0999)
ALL = np.ones(4, bool)


def timed(values, name="t", datatype=F32, stamp=STAMP):
    fields = (("x", F32), ("y", F32), ("z", F32), (name, datatype))
    return cloud([(1.0, 2.0, 3.0, value) for value in values], fields=fields, stamp=stamp)


@pytest.mark.parametrize(
    ("name", "datatype", "values", "accuracy"),
    [
        ("t", U32, [round(t * 1e9) for t in TURN], 1e-9),
        ("time", F32, TURN, 1e-8),
        ("timestamp", F64, [NOW_S + t for t in TURN], 5e-7),
        ("timestamp", F64, [(NOW_S + t) * 1e9 for t in TURN], 1e-6),
        ("time_stamp", U32, [round(t * 1e9) for t in TURN], 1e-9),
        ("offset_time", U32, [round(t * 1e9) for t in TURN], 1e-9),
        ("offset_time", F32, [t * 1e9 for t in TURN], 1e-8),
        ("t", U32, [round(t * 1e6) for t in TURN], 1e-6),
        ("t", U32, [round(t * 1e3) for t in TURN], 1e-3),
        ("timestamp", F64, [(NOW_S + t) * 1e6 for t in TURN], 1e-6),
        ("time", F64, [t * 1e3 for t in TURN], 1e-9),
        ("timestamp", F64, TURN, 1e-9),
    ],
    ids=[
        "Ouster",
        "Velodyne",
        "Hesai, RoboSense",
        "Livox",
        "Autoware",
        "Livox offsets",
        "offsets in ns as float",
        "integer us",
        "integer ms",
        "clock in us",
        "ms as float",
        "timestamp that is relative",
    ],
)
def test_every_drivers_times_become_seconds_after_the_stamp(name, datatype, values, accuracy):
    np.testing.assert_allclose(read_times(timed(values, name, datatype), STAMP, ALL), TURN, atol=accuracy)


@pytest.mark.parametrize(
    ("datatype", "values"), [(F32, (-0.05, -0.02, 0.0, 0.04)), (I32, (-50_000_000, -20_000_000, 0, 40_000_000))]
)
def test_times_may_lie_before_the_stamp(datatype, values):
    times = read_times(timed(values, datatype=datatype), STAMP, ALL)
    np.testing.assert_allclose(times, (-0.05, -0.02, 0.0, 0.04), atol=1e-8)


def test_times_of_the_clock_may_lie_before_a_stamp_at_the_end_of_the_scan():
    times = read_times(timed([NOW_S - 0.1 + t for t in TURN], "timestamp", F64), STAMP, ALL)
    np.testing.assert_allclose(times, np.array(TURN) - 0.1, atol=5e-7)


@pytest.mark.parametrize("duration", [0.0021, 0.05, 0.1, 0.2, 1.0, 1.9])
@pytest.mark.parametrize(("unit", "datatype"), [(1.0, F64), (1e3, F64), (1e6, F64), (1e9, F64), (1e6, U32), (1e9, U32)])
def test_the_unit_is_found_for_scans_of_two_milliseconds_to_two_seconds(duration, unit, datatype):
    values = [t * unit * duration for t in (0, 0.25, 0.5, 1)]
    values = [round(v) for v in values] if datatype == U32 else values
    assert read_times(timed(values, datatype=datatype), STAMP, ALL)[-1] == pytest.approx(duration, rel=1e-3)


def test_points_that_were_not_measured_do_not_count():
    measured = np.array([True, False, True, True])
    values = [NOW_S, 0.0, NOW_S + 0.05, NOW_S + 0.1]
    times = read_times(timed(values, "timestamp", F64), STAMP, measured)
    np.testing.assert_allclose(times[measured], [0, 0.05, 0.1], atol=5e-7)
    times = read_times(timed([0.0, np.nan, 0.05, 0.1]), STAMP, measured)
    np.testing.assert_allclose(times[measured], [0, 0.05, 0.1], atol=1e-8)


def test_a_cloud_without_times_tells_none():
    assert read_times(cloud([(1.0, 2.0, 3.0)] * 4), STAMP, ALL) is None
    assert read_times(timed([7.0] * 4), STAMP, ALL) is None
    assert read_times(timed(TURN), STAMP, np.zeros(4, bool)) is None


@pytest.mark.parametrize(
    ("values", "datatype", "told"),
    [
        (
            [NOW_S + 37 + t for t in TURN],
            F64,
            r"'timestamp' begin 37\.0 s from the stamp; let stamps and times be of one",
        ),
        ([t + 5000 for t in TURN], F64, "one clock"),
        ([0.0, np.nan, 0.05, 0.1], F32, "not all finite"),
        ([0.0, 1e12, 0.0, 0.0], F64, "longer than a scan in any unit"),
    ],
)
def test_times_that_are_none_of_this_scan_are_refused_by_name(values, datatype, told):
    with pytest.raises(MessageError, match=told):
        read_times(timed(values, "timestamp", datatype), STAMP, ALL)


def test_small_integers_do_not_overflow():
    values = [-32_000, 0, 1, 32_000]
    times = read_times(timed(values, datatype=PointField.INT16), STAMP, ALL)
    np.testing.assert_allclose(times, [-0.032, 0, 1e-6, 0.032], atol=1e-12)
