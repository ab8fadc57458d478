"""Counts and reports as diagnostic messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from ttt_kd_ros.frame import AdaptationReport
from ttt_kd_ros.ros.counts import ADAPTATION_CAUSES, Status


def diagnostics_message(node: str, statuses: Iterable[Status], stamp: Time) -> DiagnosticArray:
    """Message for ``/diagnostics``."""
    return DiagnosticArray(
        header=Header(stamp=stamp),
        status=[
            DiagnosticStatus(
                level=bytes([status.level]),
                name=f"{node}: {status.subject}",
                message=status.message,
                values=_key_values(status.counts),
            )
            for status in statuses
        ],
    )


def report_message(
    node: str, header: Header, report: AdaptationReport, cameras: Iterable[str], timings_ms: Mapping[str, float]
) -> DiagnosticArray:
    """What was done with one scan.

    Parameters
    ----------
    node
        Name of the node.
    header
        The scan's.
    report
        What test-time training did.
    cameras
        Names of the cameras whose pictures were used.
    timings_ms
        Milliseconds by stage.
    """
    first, last = (report.kd_losses[0], report.kd_losses[-1]) if report.kd_losses else (float("nan"),) * 2
    values = {
        "steps": report.steps,
        "stopped_by": report.stopped_by,
        "kd_loss_first": f"{first:.6g}",
        "kd_loss_last": f"{last:.6g}",
        "paired_points": report.paired_points,
        "trusted": report.trusted,
        "weight_version": report.weight_version,
        "reset_by": report.reset_by,
        "skipped": report.skipped,
        "cameras": ",".join(cameras),
        **{f"time_{stage}_ms": f"{ms:.3f}" for stage, ms in timings_ms.items()},
    }
    bad = {report.stopped_by, report.reset_by} & ADAPTATION_CAUSES.keys()
    level = DiagnosticStatus.WARN if bad else DiagnosticStatus.OK
    status = DiagnosticStatus(level=level, name=f"{node}: scan", message=report.stopped_by, values=_key_values(values))
    return DiagnosticArray(header=header, status=[status])


def _key_values(values: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=str(value)) for key, value in values.items()]
