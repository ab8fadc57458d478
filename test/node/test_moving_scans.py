"""Scans of a moving sensor through the node, over the real middleware, and through a simulated bag."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from scene import BASE, LIDAR, MS, ODOM, SECOND, cloud, transform, unpacked
from sensor_msgs.msg import PointField

from ttt_kd_ros.ros.counts import NOT_DESKEWED, SCANS

F32 = PointField.FLOAT32
TIMED = (("x", F32), ("y", F32), ("z", F32), ("t", F32))
STAMP = 5 * SECOND
AHEAD = [(20.0, 3.0, 1.0, t) for t in (-0.05, 0.0, 0.0125, 0.05)]
"""A post that the sensor measures at the same place, although it drives towards it at 10 m/s: so it is not one post."""
MOVED = [(20 + 10 * t, 3, 1) for t in (-0.05, 0.0, 0.0125, 0.05)]


def driving(start, until_ms=100, **parameters):
    """A robot that drives along x at 10 m/s."""
    robot = start(**{"fixed_frame": ODOM, **parameters})
    robot.stand()
    for at in range(-100, until_ms + 1, 20):
        stamp = STAMP + at * MS
        robot.world.transforms.sendTransform(transform(ODOM, BASE, (10 * stamp / SECOND, 0, 0), stamp=stamp))
    robot.world.wait_until(lambda: robot.knows(ODOM, LIDAR, STAMP + until_ms * MS))
    return robot


def coordinates(answer):
    return list(zip(*(unpacked(answer)[axis] for axis in "xyz"), strict=True))


def scan(points=AHEAD, fields=TIMED):
    return cloud(points, fields=fields, stamp=STAMP)


def test_points_are_moved_to_the_stamp_for_the_segmenter_and_published_as_they_came(start):
    robot = driving(start)
    answer = robot.answer(scan())
    np.testing.assert_allclose(robot.segmenter.frames[0].scan.points, MOVED, atol=1e-5)
    assert coordinates(answer) == [point[:3] for point in AHEAD]
    assert robot.count(SCANS, NOT_DESKEWED) == 0


def test_times_of_the_clock_are_used_as_well(start):
    robot = driving(start)
    fields = (*TIMED[:3], ("timestamp", PointField.FLOAT64))
    robot.answer(scan([(x, y, z, STAMP / SECOND + t) for x, y, z, t in AHEAD], fields))
    np.testing.assert_allclose(robot.segmenter.frames[0].scan.points, MOVED, atol=1e-4)


@pytest.mark.parametrize("why", ["no fixed frame", "switched off", "no times"])
def test_points_are_left_as_they_are_without_a_complaint(start, why):
    robot = driving(start, fixed_frame="" if why == "no fixed frame" else ODOM, deskew=why != "switched off")
    robot.answer(scan(fields=(*TIMED[:3], ("intensity", F32))) if why == "no times" else scan())
    np.testing.assert_array_equal(robot.segmenter.frames[0].scan.points, np.array(AHEAD, np.float32)[:, :3])
    assert robot.count(SCANS, NOT_DESKEWED) == 0


def test_deskew_can_be_switched_while_the_node_runs(start):
    robot = driving(start)
    assert robot.world.set_parameters(deskew=False).successful
    robot.answer(scan())
    np.testing.assert_array_equal(robot.segmenter.frames[0].scan.points[:, 0], [20] * 4)


@pytest.mark.fault("unknown motion in a scan", "it is answered as it is, the reason told")
def test_no_motion_is_known_before_time_0(start):
    robot = start(fixed_frame=ODOM)
    robot.stand()
    robot.send_static(transform(ODOM, BASE))
    robot.answer(cloud(AHEAD, fields=TIMED, stamp=30 * MS))
    np.testing.assert_array_equal(robot.segmenter.frames[0].scan.points[:, 0], [20] * 4)
    assert "before time 0" in robot.world.wait_for_state(SCANS, NOT_DESKEWED).message


@pytest.mark.parametrize("why", ["motion ends before the scan", "times of another clock", "times are not finite"])
@pytest.mark.fault("unknown motion in a scan", "it is answered as it is, the reason told")
def test_where_times_or_motion_are_not_known_the_scan_is_answered_as_it_is_and_the_reason_told(start, why):
    robot = driving(start, until_ms=20 if why == "motion ends before the scan" else 100)
    shift = {"times of another clock": 1000.0, "times are not finite": float("inf")}.get(why, 0.0)
    robot.answer(scan([(x, y, z, t + shift) for x, y, z, t in AHEAD]))
    np.testing.assert_array_equal(robot.segmenter.frames[0].scan.points[:, 0], [20] * 4)
    state = robot.world.wait_for_state(SCANS, NOT_DESKEWED)
    assert state.level == DiagnosticStatus.WARN
    told = {
        "motion ends before the scan": "extrapolation",
        "times of another clock": "begin 995.0 s from the stamp",
        "times are not finite": "not all finite",
    }
    assert told[why] in state.message


def test_motion_that_is_late_is_waited_for(start):
    robot = driving(start, until_ms=40, transform_wait_ms=2000.0)
    robot.world.points.publish(scan())
    robot.wait_for_count(SCANS, "received")
    late = STAMP + 60 * MS
    robot.world.transforms.sendTransform(transform(ODOM, BASE, (10 * late / SECOND, 0, 0), stamp=late))
    robot.world.wait_for_clouds(1)
    np.testing.assert_allclose(robot.segmenter.frames[0].scan.points, MOVED, atol=1e-5)


def test_points_that_were_not_measured_do_not_tell_when_the_scan_ended(start):
    robot = driving(start)
    nan = float("nan")
    robot.answer(scan([*AHEAD, (0.0, 0.0, 0.0, 1e9), (nan, nan, nan, nan)]))
    points = robot.segmenter.frames[0].scan.points
    np.testing.assert_allclose(points[:4], MOVED, atol=1e-5)
    assert np.isnan(points[4:]).all()


def test_the_scans_of_a_simulated_bag_lie_where_the_exact_motion_puts_them(tmp_path):
    pytest.importorskip("embreex", reason="the simulator needs embreex (extra 'simulation')")
    from ttt_kd_ros.classes import load_classes
    from ttt_kd_ros.data import open_folder
    from ttt_kd_ros.data.simulation.domains import find_camera, find_domain
    from ttt_kd_ros.data.simulation.drive import Drive, write_folder
    from ttt_kd_ros.data.simulation.lidar import mounting
    from ttt_kd_ros.replay.bag import open_bag, read
    from ttt_kd_ros.replay.convert import convert
    from ttt_kd_ros.replay.discovery import discover
    from ttt_kd_ros.replay.frames import BagFrames
    from ttt_kd_ros.replay.messages import stamp_of
    from ttt_kd_ros.ros.counts import Counts
    from ttt_kd_ros.ros.parameters import PARAMETERS, camera_parameters, settings_from

    domain = find_domain("source")
    domain = replace(domain, lidar=replace(domain.lidar, columns=240))
    drive = Drive(domain, 3, 3, (replace(find_camera("front"), width=64, height=48),))
    write_folder(drive, tmp_path / "folder")
    folder = open_folder(tmp_path / "folder", load_classes("street6"))
    convert(folder, tmp_path / "bag")

    layout, counts = discover(tmp_path / "bag"), Counts()
    defaults = {p.name: p.default for p in (*PARAMETERS, *camera_parameters("front"))}
    settings = settings_from(defaults | layout.parameters() | {"cameras": ("front",)})
    with open_bag(tmp_path / "bag") as reader:
        frames = [frame for _, frame in BagFrames(reader, layout, settings, counts)()]
        arrivals = {stamp_of(data): time for _, time, data in read(reader, (layout.points_topic,))}
    assert counts.snapshot().counts[SCANS, NOT_DESKEWED] == 0
    for index, frame in enumerate(frames):
        sweep, time = drive.sweep(index), drive.scan_time(index)
        T_lidar_odom = np.linalg.inv(drive.poses(np.array([time]))[0] @ mounting(domain.lidar))
        T_odom_lidar = drive.poses(time + sweep.t_offset.astype(float)) @ mounting(domain.lidar)
        homogeneous = np.column_stack([sweep.points[:, :3], np.ones(len(sweep.points))])
        exact = np.einsum("ij,njk,nk->ni", T_lidar_odom, T_odom_lidar, homogeneous)[:, :3]
        error = np.linalg.norm(frame.scan.points - exact, axis=1)
        skew = np.linalg.norm(sweep.points[:, :3] - exact, axis=1)
        assert skew.max() > 0.3
        assert error.max() < 0.01
        np.testing.assert_allclose(folder[index].scan.points, frame.scan.points, atol=1e-3)
        assert 0.04e9 < arrivals[frame.scan.stamp] - frame.scan.stamp < 0.06e9
