"""What the diagnostics say of what was counted."""

from __future__ import annotations

import threading

import pytest

from ttt_kd_ros.ros.counts import (
    BAD_CAMERA_INFO,
    CAMERA_CAUSES,
    LATE_IMAGE,
    NO_BASE_TRANSFORM,
    NO_IMAGE,
    OVERLOAD,
    PUBLISHED,
    RECEIVED,
    SCAN_CAUSES,
    SCANS,
    SILENCE,
    USED,
    Counts,
    Level,
    Snapshot,
    camera_subject,
    status,
)

FRONT = camera_subject("front")


def counted(*events: tuple[str, str]) -> Counts:
    counts = Counts()
    for subject, event in events:
        counts.add(subject, event)
    return counts


def test_scans_that_are_all_answered_are_ok():
    counts = counted((SCANS, RECEIVED), (SCANS, PUBLISHED))
    result = status(SCANS, "/points", counts.snapshot(), Snapshot(), Snapshot())
    assert (result.level, result.causes, result.message) == (Level.OK, (), "1 published")


def test_silence_names_the_topic():
    result = status(FRONT, "/front/image_raw", Snapshot(), Snapshot(), Snapshot())
    assert (result.level, result.causes) == (Level.WARN, (SILENCE,))
    assert "/front/image_raw" in result.message


def test_a_slow_sensor_is_not_silent_between_two_messages():
    long_before = counted((FRONT, RECEIVED)).snapshot()
    now = counted((FRONT, RECEIVED), (FRONT, RECEIVED)).snapshot()
    assert status(FRONT, "/front/image_raw", now, now, long_before).level == Level.OK
    assert status(FRONT, "/front/image_raw", now, now, now).causes == (SILENCE,)


@pytest.mark.parametrize("cause", SCAN_CAUSES)
def test_every_cause_of_a_scan_is_told_with_how_to_mend_it(cause):
    counts = counted((SCANS, RECEIVED), (SCANS, cause))
    result = status(SCANS, "/points", counts.snapshot(), Snapshot(), Snapshot())
    assert result.level > Level.OK
    assert result.causes == (cause,)
    assert result.message == f"/points: 1 x {cause}: {SCAN_CAUSES[cause]}"
    assert result.counts[cause] == 1


@pytest.mark.parametrize("cause", CAMERA_CAUSES)
def test_every_cause_of_a_camera_is_told_with_how_to_mend_it(cause):
    counts = counted((FRONT, RECEIVED), (FRONT, cause), (FRONT, cause))
    result = status(FRONT, "/front/image_raw", counts.snapshot(), Snapshot(), Snapshot())
    assert (result.level, result.causes) == (Level.WARN, (cause,))
    assert result.message == f"/front/image_raw: 2 x {cause}: {CAMERA_CAUSES[cause]}"


def test_a_missing_base_transform_is_an_error():
    counts = counted((SCANS, RECEIVED), (SCANS, NO_BASE_TRANSFORM))
    assert status(SCANS, "/points", counts.snapshot(), Snapshot(), Snapshot()).level == Level.ERROR


def test_the_level_follows_what_happened_lately_and_the_counts_all_that_happened():
    counts = counted((SCANS, RECEIVED), (SCANS, OVERLOAD))
    before = counts.snapshot()
    counts.add(SCANS, RECEIVED)
    counts.add(SCANS, PUBLISHED)
    result = status(SCANS, "/points", counts.snapshot(), before, before)
    assert result.level == Level.OK
    assert result.counts[OVERLOAD] == 1
    assert result.counts[RECEIVED] == 2


def test_what_was_said_last_of_a_cause_is_told():
    counts = counted((FRONT, RECEIVED))
    counts.add(FRONT, BAD_CAMERA_INFO, "focal lengths are 1 and 0")
    counts.add(FRONT, BAD_CAMERA_INFO, "focal lengths are 0 and 0")
    assert "(focal lengths are 0 and 0)" in status(FRONT, "/i", counts.snapshot(), Snapshot(), Snapshot()).message


def test_a_picture_that_turns_out_late_is_no_longer_counted_as_missing():
    counts = counted((FRONT, RECEIVED), (FRONT, NO_IMAGE))
    before = counts.snapshot()
    counts.add(FRONT, RECEIVED)
    counts.move(FRONT, NO_IMAGE, LATE_IMAGE)
    result = status(FRONT, "/i", counts.snapshot(), before, before)
    assert result.causes == (LATE_IMAGE,)
    assert result.counts[NO_IMAGE] == 0


def test_each_camera_has_its_own_counts():
    counts = counted((FRONT, RECEIVED), (FRONT, USED), (camera_subject("left"), RECEIVED))
    assert status(camera_subject("left"), "/left", counts.snapshot(), Snapshot(), Snapshot()).counts[USED] == 0


def test_no_count_is_lost_between_threads():
    counts = Counts()
    threads = [threading.Thread(target=lambda: [counts.add(SCANS, RECEIVED) for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.snapshot().counts[SCANS, RECEIVED] == 20_000
