"""Counts and reports as messages."""

from __future__ import annotations

import math

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import deserialize_message, serialize_message
from scene import LIDAR, header

from ttt_kd_ros.frame import AdaptationReport
from ttt_kd_ros.ros.counts import NO_BASE_TRANSFORM, RECEIVED, SCANS, Counts, Snapshot, status
from ttt_kd_ros.ros.diagnostics import diagnostics_message, report_message


def over_the_wire(message: DiagnosticArray) -> DiagnosticArray:
    return deserialize_message(serialize_message(message), DiagnosticArray)


def values(message: DiagnosticArray) -> dict[str, str]:
    return {pair.key: pair.value for pair in message.status[0].values}


def test_diagnostics_have_name_level_text_and_counts():
    counts = Counts()
    counts.add(SCANS, RECEIVED)
    counts.add(SCANS, NO_BASE_TRANSFORM, "no frame 'base_link'")
    states = [status(SCANS, "/points", counts.snapshot(), Snapshot(), Snapshot())]
    message = over_the_wire(diagnostics_message("segment", states, Time(sec=7)))
    assert message.header.stamp.sec == 7
    (state,) = message.status
    assert (state.name, state.level) == ("segment: scans", DiagnosticStatus.ERROR)
    assert "base_frame" in state.message
    assert "no frame 'base_link'" in state.message
    assert values(message)[NO_BASE_TRANSFORM] == "1"


def test_a_report_has_the_scans_header_and_every_key():
    report = AdaptationReport(2, "steps", (0.5, 0.4, 0.25), 1234, 7)
    message = over_the_wire(
        report_message("segment", header(LIDAR, 123_000_000_456), report, ["front", "left"], {"predict": 12.3456})
    )
    assert message.header == header(LIDAR, 123_000_000_456)
    assert message.status[0].name == "segment: scan"
    assert values(message) == {
        "steps": "2",
        "stopped_by": "steps",
        "kd_loss_first": "0.5",
        "kd_loss_last": "0.25",
        "paired_points": "1234",
        "trusted": "True",
        "weight_version": "7",
        "reset_by": "",
        "skipped": "0",
        "cameras": "front,left",
        "time_predict_ms": "12.346",
    }


def test_a_scan_without_steps_has_no_loss():
    message = report_message("segment", header(LIDAR, 0), AdaptationReport(0, "no views"), [], {})
    assert math.isnan(float(values(message)["kd_loss_first"]))
    assert values(message)["cameras"] == ""
