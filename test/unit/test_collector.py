"""Matching of pictures to scans, with a clock that the test turns."""

from __future__ import annotations

import threading

import pytest

from ttt_kd_ros.ros.collector import PICTURES_KEPT, SCANS_IN_VAIN, SCANS_KEPT, Collector, Timing
from ttt_kd_ros.ros.counts import (
    LATE_IMAGE,
    NO_IMAGE,
    NO_STAMP,
    OVERLOAD,
    RECEIVED,
    SCANS,
    STALE_IMAGE,
    Counts,
    camera_subject,
)

MS = 1_000_000
TOLERANCE = 50 * MS
WAIT = 100 * MS
FRONT = camera_subject("front")


class HandTurnedClock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Setup:
    def __init__(self, *cameras: str, at_once: bool = False) -> None:
        self.clock = HandTurnedClock()
        self.counts = Counts()
        self.timings = dict.fromkeys(cameras, Timing(TOLERANCE))
        self.collector = Collector[str, str](self.timings, WAIT, self.counts, self.clock, at_once)

    def scan(self, stamp_ms: float) -> None:
        self.collector.add_scan(round(stamp_ms * MS), f"scan {stamp_ms}")

    def picture(self, camera: str, stamp_ms: float) -> None:
        self.collector.add_picture(camera, round(stamp_ms * MS), f"{camera} {stamp_ms}")

    def taken(self) -> tuple[str, dict[str, str]] | None:
        job = self.collector.take()
        return job and (job.scan, {camera: picture.message for camera, picture in job.pictures.items()})

    def count(self, subject: str, event: str) -> int:
        return self.counts.snapshot().counts[subject, event]


def test_without_cameras_a_scan_goes_on_at_once():
    s = Setup()
    s.scan(0)
    assert s.taken() == ("scan 0", {})
    assert s.taken() is None


def test_a_scan_waits_while_a_better_picture_can_still_come():
    s = Setup("front")
    s.picture("front", 80)
    s.scan(100)
    assert s.taken() is None
    s.picture("front", 110)
    assert s.taken() == ("scan 100", {"front": "front 110"})


def test_at_once_a_scan_goes_on_with_what_has_come_and_its_pictures_are_told_later():
    s = Setup("front", "left", at_once=True)
    s.picture("left", 60)
    s.scan(100)
    job = s.collector.take()
    assert job is not None and {c: p.message for c, p in job.pictures.items()} == {"left": "left 60"}
    assert s.collector.pictures(job) is None
    s.picture("front", 110)
    assert s.collector.pictures(job) is None
    s.picture("left", 100)
    pictures = s.collector.pictures(job)
    assert pictures is not None
    assert {c: p.message for c, p in pictures.items()} == {"front": "front 110", "left": "left 100"}


def test_at_once_too_pictures_are_given_up_in_the_end_and_counted():
    s = Setup("front", at_once=True)
    s.scan(100)
    job = s.collector.take()
    assert job is not None and s.count(FRONT, NO_IMAGE) == 0
    s.clock.now = WAIT
    assert s.collector.pictures(job) == {}
    assert s.count(FRONT, NO_IMAGE) == 1


def test_at_once_too_the_nearest_picture_is_told_however_many_come_after_it():
    s = Setup("front", "slow", at_once=True)
    s.scan(100)
    job = s.collector.take()
    assert job is not None
    for stamp in range(60, 60 + 10 * 10 * PICTURES_KEPT, 10):
        s.picture("front", stamp)
    s.picture("slow", 120)
    pictures = s.collector.pictures(job)
    assert pictures is not None
    assert {c: p.message for c, p in pictures.items()} == {"front": "front 100", "slow": "slow 120"}


def test_a_scan_gets_the_nearest_picture_however_many_come_while_it_waits_for_another_camera():
    s = Setup("front", "slow")
    s.scan(100)
    for stamp in range(60, 60 + 10 * 10 * PICTURES_KEPT, 10):
        s.picture("front", stamp)
    s.picture("slow", 120)
    assert s.taken() == ("scan 100", {"front": "front 100", "slow": "slow 120"})


def test_a_job_keeps_the_pictures_that_it_was_taken_with():
    s = Setup("front", at_once=True)
    s.picture("front", 60)
    s.scan(100)
    job = s.collector.take()
    s.picture("front", 100)
    assert job is not None and job.pictures["front"].message == "front 60"


def test_scans_wait_no_longer_than_their_limit():
    s = Setup("front")
    s.collector.limit_wait(WAIT / 4)
    s.scan(100)
    s.clock.now = WAIT // 4 - 1
    assert s.taken() is None
    s.clock.now = WAIT // 4
    assert s.taken() == ("scan 100", {})


def test_pictures_of_another_time_are_forgotten():
    s = Setup("front")
    s.picture("front", 9000)
    s.scan(100)
    assert s.taken() == ("scan 100", {})
    s.picture("front", 180)
    s.collector.forget_pictures(after=1000 * MS)
    s.scan(200)
    assert s.taken() is None
    s.picture("front", 230)
    assert s.taken() == ("scan 200", {"front": "front 180"})


def test_scans_that_wait_go_on_once_they_need_not():
    s = Setup("front")
    s.scan(100)
    assert s.taken() is None
    s.collector.configure(s.timings, WAIT, at_once=True)
    assert s.taken() == ("scan 100", {})
    s.collector.configure(s.timings, WAIT, at_once=False)
    s.scan(200)
    assert s.taken() is None


def test_the_earlier_picture_is_taken_if_it_is_nearer():
    s = Setup("front")
    for stamp in (20, 95, 128):
        s.picture("front", stamp)
    s.scan(100)
    assert s.taken() == ("scan 100", {"front": "front 95"})


def test_of_two_pictures_with_one_stamp_the_later_one_is_taken():
    s = Setup("front")
    s.collector.add_picture("front", MS, "first")
    s.collector.add_picture("front", MS, "second")
    s.scan(1)
    assert s.taken() == ("scan 1", {"front": "second"})


def test_a_picture_of_the_same_stamp_needs_no_later_one():
    s = Setup("front")
    s.scan(100)
    s.picture("front", 100)
    assert s.taken() == ("scan 100", {"front": "front 100"})


@pytest.mark.parametrize(("stamp", "used"), [(50, True), (150, True), (49.999, False), (150.001, False)])
def test_the_tolerance_bounds_how_far_a_picture_may_be(stamp, used):
    s = Setup("front")
    s.picture("front", stamp)
    s.scan(100)
    s.clock.now = WAIT
    assert s.taken() == ("scan 100", {"front": f"front {stamp}"} if used else {})
    assert s.count("camera front", NO_IMAGE) == (not used)


def test_a_scan_waits_for_every_camera():
    s = Setup("front", "left")
    s.picture("front", 100)
    s.scan(100)
    assert s.taken() is None
    s.picture("left", 101)
    assert s.taken() == ("scan 100", {"front": "front 100", "left": "left 101"})


def test_at_the_deadline_a_scan_goes_on_with_those_that_came():
    s = Setup("front", "left")
    s.scan(100)
    s.picture("front", 90)
    s.clock.now = WAIT - 1
    assert s.taken() is None
    s.clock.now = WAIT
    assert s.taken() == ("scan 100", {"front": "front 90"})
    assert s.count("camera left", NO_IMAGE) == 1
    assert s.count("camera front", NO_IMAGE) == 0


def test_a_camera_that_is_past_the_scan_is_not_waited_for():
    s = Setup("front")
    s.picture("front", 300)
    s.scan(100)
    assert s.taken() == ("scan 100", {})


def test_a_picture_that_comes_after_its_scan_has_gone_is_counted_as_late():
    s = Setup("front")
    s.scan(100)
    s.clock.now = WAIT
    assert s.taken() == ("scan 100", {})
    assert s.count("camera front", NO_IMAGE) == 1
    s.picture("front", 110)
    s.picture("front", 120)
    assert s.count("camera front", NO_IMAGE) == 0
    assert s.count("camera front", LATE_IMAGE) == 1


def test_a_picture_that_comes_while_the_scan_waits_for_the_worker_is_still_used():
    s = Setup("front", "dead")
    s.scan(100)
    s.clock.now = WAIT
    s.collector.add_scan(100_000 * MS, "next")
    s.picture("front", 110)
    assert s.taken() == ("scan 100", {"front": "front 110"})


def test_one_picture_may_serve_two_scans():
    s = Setup("front")
    s.picture("front", 130)
    s.scan(100)
    assert s.taken() == ("scan 100", {"front": "front 130"})
    s.scan(130)
    assert s.taken() == ("scan 130", {"front": "front 130"})


def test_while_the_worker_is_busy_a_newer_ready_scan_replaces_the_one_that_waits_for_it():
    s = Setup()
    s.scan(-100)
    assert s.taken() == ("scan -100", {})
    for stamp in (0, 100, 200):
        s.scan(stamp)
    assert s.taken() == ("scan 200", {})
    assert s.taken() is None
    assert s.count(SCANS, RECEIVED) == 4
    assert s.count(SCANS, OVERLOAD) == 2


def test_no_scan_is_lost_to_a_camera_slower_than_the_scans():
    s = Setup("front")
    taken = []
    for stamp in range(1000, 2000, 100):
        s.clock.now = stamp * MS
        s.scan(stamp)
        if stamp % 200 == 0:
            s.picture("front", stamp)
        while (job := s.taken()) is not None:
            taken.append(job)
    with_picture = {f"scan {stamp}": {"front": f"front {stamp}"} for stamp in range(1000, 2000, 200)}
    assert taken == [(f"scan {stamp}", with_picture.get(f"scan {stamp}", {})) for stamp in range(1000, 1900, 100)]
    assert s.count(SCANS, OVERLOAD) == 0


def test_an_idle_worker_gets_every_scan_of_a_burst():
    s = Setup()
    assert s.taken() is None
    for stamp in (0, 100, 200):
        s.scan(stamp)
    assert [s.taken() for _ in range(4)] == [("scan 0", {}), ("scan 100", {}), ("scan 200", {}), None]
    assert s.count(SCANS, OVERLOAD) == 0


def test_scans_that_one_picture_makes_ready_are_handed_over_in_turn():
    s = Setup("front")
    s.scan(100)
    s.scan(200)
    s.picture("front", 200)
    assert s.taken() == ("scan 100", {})
    assert s.taken() == ("scan 200", {"front": "front 200"})
    assert s.count(SCANS, OVERLOAD) == 0


def test_scans_whose_deadlines_pass_while_the_worker_is_busy_replace_each_other():
    s = Setup("front")
    for i in range(3):
        s.clock.now = i * 10 * MS
        s.scan(100 * i)
    s.clock.now = 10 * WAIT
    assert s.taken() == ("scan 200", {})
    assert s.count(SCANS, OVERLOAD) == 2


def test_every_scan_is_taken_or_counted_as_overload():
    s = Setup("front")
    taken = 0
    for i in range(500):
        s.clock.now = i * 7 * MS
        s.scan(7 * i)
        if i % 3 == 0:
            s.picture("front", 7 * i - 20)
        if i % 5 == 0:
            taken += s.taken() is not None
    s.clock.now += WAIT
    while s.taken():
        taken += 1
    assert 50 < taken < 450
    assert taken + s.count(SCANS, OVERLOAD) == 500


def test_what_is_kept_is_bounded():
    s = Setup("front", "dead")
    for i in range(10 * SCANS_KEPT):
        s.scan(i)
        s.picture("front", i + 0.5)
    assert len(s.collector._waiting) == SCANS_KEPT
    assert len(s.collector._pictures["front"]) == PICTURES_KEPT
    assert s.count(SCANS, OVERLOAD) == 9 * SCANS_KEPT


def test_after_the_clock_went_back_pictures_match_again():
    s = Setup("front")
    for start in (10_000, 100):
        for i in range(5):
            stamp = start + 100 * i
            s.picture("front", stamp)
            s.scan(stamp)
            assert s.taken() == (f"scan {stamp}", {"front": f"front {stamp}"})


def test_new_tolerances_and_waiting_times_hold_for_waiting_scans():
    s = Setup("front")
    s.picture("front", 30)
    s.scan(100)
    s.collector.configure({"front": Timing(80 * MS)}, 0)
    assert s.taken() == ("scan 100", {"front": "front 30"})


def test_a_job_tells_when_its_scan_arrived():
    s = Setup()
    s.clock.now = 42
    s.scan(7)
    job = s.collector.take()
    assert job is not None
    assert (job.stamp, job.arrival) == (7 * MS, 42)


def drive(s, scans, *, delay_ms=None, stamp_error_ms=0.0):
    """Scans at 10 Hz, each with a picture that arrives later by `delay_ms`; how long each scan waited [ms].

    The clock goes on by a millisecond at a time, and the worker looks whenever it does.
    """
    waits = []
    start = s.clock.now // MS
    for i in range(scans):
        stamp = start + 100 * i
        s.clock.now = stamp * MS
        s.scan(stamp)
        for after in range(100):
            s.clock.now = (stamp + after) * MS
            if delay_ms is not None and (after - delay_ms) % 100 == 0 and stamp + after >= start + delay_ms:
                s.picture("front", stamp + after - delay_ms + stamp_error_ms)
            while (job := s.collector.take()) is not None:
                waits.append(stamp + after - job.arrival // MS)
    s.clock.now = (start + 100 * scans) * MS
    return waits


def running(*cameras):
    s = Setup(*cameras)
    s.clock.now = 1000 * MS
    assert s.taken() is None
    return s


def test_a_camera_that_never_sends_costs_a_few_scans_the_waiting_time_and_no_more():
    s = running("front")
    waits = drive(s, 50)
    assert waits[:SCANS_IN_VAIN] == [100] * SCANS_IN_VAIN
    assert waits[SCANS_IN_VAIN + 1 :] == [0] * (50 - SCANS_IN_VAIN - 1)
    assert s.count(FRONT, NO_IMAGE) == 50


def test_a_camera_that_dies_costs_a_few_scans_the_waiting_time_and_no_more():
    s = running("front")
    assert max(drive(s, 20, delay_ms=30)) == 30
    waits = drive(s, 50)
    assert sum(wait > 0 for wait in waits) <= SCANS_IN_VAIN + 1
    assert waits[-30:] == [0] * 30


def test_a_camera_that_comes_back_is_waited_for_again():
    s = running("front")
    drive(s, 30)
    before = s.count(FRONT, NO_IMAGE) + s.count(FRONT, LATE_IMAGE)
    waits = drive(s, 20, delay_ms=30)
    assert waits[-19:] == [30] * 19
    assert s.count(FRONT, NO_IMAGE) + s.count(FRONT, LATE_IMAGE) == before + 1


def test_a_dead_camera_does_not_keep_scans_from_waiting_for_the_others():
    s = running("front", "left")
    waits = drive(s, 30, delay_ms=30)
    assert waits[-10:] == [30] * 10
    assert s.count(FRONT, NO_IMAGE) == 0
    assert s.count(camera_subject("left"), NO_IMAGE) == 30


def test_a_camera_that_is_always_later_than_the_waiting_time_is_not_waited_for():
    s = running("front")
    waits = drive(s, 40, delay_ms=130)
    assert waits[-20:] == [0] * 20
    assert s.count(FRONT, LATE_IMAGE) >= 38


def test_with_a_longer_waiting_time_a_late_camera_is_waited_for_again():
    s = running("front")
    drive(s, 40, delay_ms=130)
    s.collector.configure({"front": Timing(TOLERANCE)}, 200 * MS)
    waits = drive(s, 20, delay_ms=130)
    assert waits[-10:] == [130] * 10


@pytest.mark.parametrize("error_ms", [-5000.0, 7000.0])
def test_a_camera_whose_clock_is_wrong_is_not_waited_for(error_ms):
    s = running("front")
    s.clock.now = 100_000 * MS
    waits = drive(s, 40, delay_ms=30, stamp_error_ms=error_ms)
    assert waits[-20:] == [0] * 20
    assert s.count(FRONT, STALE_IMAGE if error_ms < 0 else NO_IMAGE) >= 39


def test_the_offset_is_added_to_the_stamps_of_pictures():
    s = Setup("front")
    s.collector.configure({"front": Timing(TOLERANCE, offset=-300 * MS)}, WAIT)
    s.picture("front", 410)
    s.scan(100)
    job = s.collector.take()
    assert job is not None
    assert (job.pictures["front"].stamp, job.pictures["front"].message) == (110 * MS, "front 410")


def test_a_picture_without_a_stamp_belongs_to_no_scan_and_is_counted_as_such():
    s = Setup("front")
    s.picture("front", 0)
    s.collector.configure({"front": Timing(TOLERANCE)}, 0)
    s.scan(0)
    assert s.taken() == ("scan 0", {})
    assert (s.count(FRONT, RECEIVED), s.count(FRONT, NO_STAMP), s.count(FRONT, NO_IMAGE)) == (1, 1, 1)
    assert (s.count(SCANS, RECEIVED), s.count(SCANS, NO_STAMP)) == (1, 1)


@pytest.mark.parametrize(
    ("stamps", "cause", "told"),
    [
        ((), NO_IMAGE, "none has come yet"),
        ((3000, 3920, 4070), NO_IMAGE, "the nearest is 70 ms after its scan"),
        ((3900,), NO_IMAGE, "the nearest is 100 ms before its scan"),
        ((2500,), STALE_IMAGE, "the newest is 1.5 s older than its scan"),
    ],
)
def test_why_a_scan_has_no_picture_is_told(stamps, cause, told):
    s = Setup("front")
    for stamp in stamps:
        s.picture("front", stamp)
    s.scan(4000)
    s.clock.now = WAIT
    assert s.taken() == ("scan 4000", {})
    assert s.count(FRONT, cause) == 1
    assert s.counts.snapshot().details[FRONT, cause] == told


class Worker:
    """Calls `wait` in a thread, as the node does."""

    def __init__(self, collector: Collector[str, str]) -> None:
        self.scans: list[str] = []
        self._collector = collector
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._collector.wait()) is not None:
            self.scans.append(job.scan)
            self._collector.close()

    def join(self) -> list[str]:
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.scans


def test_a_ready_scan_wakes_the_waiting_worker():
    collector = Collector[str, str]({}, WAIT, Counts())
    worker = Worker(collector)
    collector.add_scan(0, "scan")
    assert worker.join() == ["scan"]


def test_the_deadline_wakes_the_waiting_worker():
    collector = Collector[str, str]({"front": Timing(TOLERANCE)}, 20 * MS, Counts())
    worker = Worker(collector)
    collector.add_scan(0, "scan")
    assert worker.join() == ["scan"]


def test_a_shorter_waiting_time_wakes_the_waiting_worker():
    collector = Collector[str, str]({"front": Timing(TOLERANCE)}, 1000 * WAIT, Counts())
    worker = Worker(collector)
    collector.add_scan(0, "scan")
    collector.configure({"front": Timing(TOLERANCE)}, 20 * MS)
    assert worker.join() == ["scan"]


def test_closing_wakes_the_waiting_worker():
    collector = Collector[str, str]({}, WAIT, Counts())
    worker = Worker(collector)
    collector.close()
    assert worker.join() == []


def test_a_closed_collector_hands_out_nothing():
    collector = Collector[str, str]({}, WAIT, Counts())
    collector.add_scan(0, "scan")
    collector.close()
    assert collector.wait() is None


def test_a_camera_may_be_named_like_the_scans():
    assert camera_subject(SCANS) != SCANS
