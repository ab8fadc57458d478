"""Matching of pictures to scans, with a clock that the test turns."""

from __future__ import annotations

import threading

import pytest

from ttt_kd_ros.ros.collector import PICTURES_KEPT, SCANS_KEPT, Collector
from ttt_kd_ros.ros.counts import LATE_IMAGE, NO_IMAGE, OVERLOAD, RECEIVED, SCANS, Counts, camera_subject

MS = 1_000_000
TOLERANCE = 50 * MS
WAIT = 100 * MS


class HandTurnedClock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Setup:
    def __init__(self, *cameras: str) -> None:
        self.clock = HandTurnedClock()
        self.counts = Counts()
        self.collector = Collector[str, str](dict.fromkeys(cameras, TOLERANCE), WAIT, self.counts, self.clock)

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


def test_the_earlier_picture_is_taken_if_it_is_nearer():
    s = Setup("front")
    for stamp in (20, 95, 128):
        s.picture("front", stamp)
    s.scan(100)
    assert s.taken() == ("scan 100", {"front": "front 95"})


def test_of_two_pictures_with_one_stamp_the_later_one_is_taken():
    s = Setup("front")
    s.collector.add_picture("front", 0, "first")
    s.collector.add_picture("front", 0, "second")
    s.scan(0)
    assert s.taken() == ("scan 0", {"front": "second"})


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
    for stamp in range(0, 1000, 100):
        s.clock.now = stamp * MS
        s.scan(stamp)
        if stamp % 200 == 0:
            s.picture("front", stamp)
        while (job := s.taken()) is not None:
            taken.append(job)
    with_picture = {f"scan {stamp}": {"front": f"front {stamp}"} for stamp in range(0, 1000, 200)}
    assert taken == [(f"scan {stamp}", with_picture.get(f"scan {stamp}", {})) for stamp in range(0, 900, 100)]
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
        s.picture("front", i)
    assert len(s.collector._waiting) == SCANS_KEPT
    assert len(s.collector._pictures["front"]) == PICTURES_KEPT
    assert s.count(SCANS, OVERLOAD) == 9 * SCANS_KEPT


def test_after_the_clock_went_back_pictures_match_again():
    s = Setup("front")
    for start in (10_000, 0):
        for i in range(5):
            stamp = start + 100 * i
            s.picture("front", stamp)
            s.scan(stamp)
            assert s.taken() == (f"scan {stamp}", {"front": f"front {stamp}"})


def test_new_tolerances_and_waiting_times_hold_for_waiting_scans():
    s = Setup("front")
    s.picture("front", 30)
    s.scan(100)
    s.collector.configure({"front": 80 * MS}, 0)
    assert s.taken() == ("scan 100", {"front": "front 30"})


def test_a_job_tells_when_its_scan_arrived():
    s = Setup()
    s.clock.now = 42
    s.scan(7)
    job = s.collector.take()
    assert job is not None
    assert (job.stamp, job.arrival) == (7 * MS, 42)


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
    collector = Collector[str, str]({"front": TOLERANCE}, 20 * MS, Counts())
    worker = Worker(collector)
    collector.add_scan(0, "scan")
    assert worker.join() == ["scan"]


def test_a_shorter_waiting_time_wakes_the_waiting_worker():
    collector = Collector[str, str]({"front": TOLERANCE}, 1000 * WAIT, Counts())
    worker = Worker(collector)
    collector.add_scan(0, "scan")
    collector.configure({"front": TOLERANCE}, 20 * MS)
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
