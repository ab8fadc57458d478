"""What goes well and what does not: on ``/diagnostics`` once a second, and in the log when it changes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher

from ttt_kd_ros.ros.counts import Counts, Level, Status, adaptation_status, status
from ttt_kd_ros.ros.diagnostics import diagnostics_message
from ttt_kd_ros.ros.qos import Topics

PERIOD_S = 1.0
SILENT_PERIODS = 3
"""For so long nothing has come of what is told to be silent: slower sensors are.

A period in which the node computed and nothing at all came does not count: a player may wait for the answer.
"""
QOS = "qos"


class Health:
    """Reports on inputs and outputs.

    Parameters
    ----------
    node
        Owner of the timer.
    publisher
        Of ``/diagnostics``.
    counts
        What happened to scans and pictures.
    is_idle
        Whether the node waits for a scan.
    sources
        Tells the topic that each subject of the counts comes on.
    topics
        Looked at for ends that cannot talk with each other.
    """

    def __init__(
        self,
        node: Node,
        publisher: Publisher[DiagnosticArray],
        counts: Counts,
        is_idle: Callable[[], bool],
        sources: Callable[[], Mapping[str, str]],
        topics: Iterable[Topics],
    ) -> None:
        self._node = node
        self._publisher = publisher
        self._counts = counts
        self._is_idle = is_idle
        self._sources = sources
        self._topics = tuple(topics)
        self._reported = deque([counts.snapshot()], maxlen=SILENT_PERIODS)
        self._last_causes: dict[str, tuple[str, ...]] = {}
        self._timer = node.create_timer(PERIOD_S, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """End the reports."""
        self._node.destroy_timer(self._timer)

    def _report(self) -> None:
        statuses = [*self._traffic(), self._connections()]
        now = self._node.get_clock().now().to_msg()
        self._publisher.publish(diagnostics_message(self._node.get_name(), statuses, now))
        for each in statuses:
            self._log_change(each)

    def _traffic(self) -> Iterator[Status]:
        now = self._counts.snapshot()
        for subject, topic in self._sources().items():
            yield status(subject, topic, now, self._reported[-1], self._reported[0])
        yield adaptation_status(now, self._reported[-1])
        if now != self._reported[-1] or self._is_idle():
            self._reported.append(now)

    def _connections(self) -> Status:
        mismatches = tuple(text for topics in self._topics for text in topics.mismatches())
        message = "; ".join(mismatches) or "publishers and subscriptions fit each other"
        return Status(QOS, Level.WARN if mismatches else Level.OK, mismatches, message, {"mismatches": len(mismatches)})

    def _log_change(self, current: Status) -> None:
        """Log what goes wrong when it begins and when it ends."""
        if current.causes == self._last_causes.get(current.subject, ()):
            return
        self._last_causes[current.subject] = current.causes
        text = f"{current.subject}: {current.message}"
        if current.level == Level.OK:
            self._node.get_logger().info(text)
        elif current.level == Level.WARN:
            self._node.get_logger().warning(text)
        else:
            self._node.get_logger().error(text)
