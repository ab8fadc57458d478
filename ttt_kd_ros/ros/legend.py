"""The classes' names in their colours, for RViz."""

from __future__ import annotations

from geometry_msgs.msg import Point, Pose, Vector3
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from ttt_kd_ros.classes import ClassList

PERIOD_S = 1.0
LOWEST_M = 3.0
LINE_M = 0.6


class Legend:
    """Publishes the legend once a second while someone subscribes.

    Parameters
    ----------
    node
        Owner of the timer.
    publisher
        Where it goes.
    classes
        What it lists.
    frame_id
        Frame that it stands over.
    """

    def __init__(self, node: Node, publisher: Publisher[MarkerArray], classes: ClassList, frame_id: str) -> None:
        self._node = node
        self._publisher = publisher
        self._classes = classes
        self._frame_id = frame_id
        self._timer = node.create_timer(PERIOD_S, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """End the publishing."""
        self._node.destroy_timer(self._timer)

    def _publish(self) -> None:
        if self._publisher.get_subscription_count():
            self._publisher.publish(legend_message(self._classes, self._frame_id))


def legend_message(classes: ClassList, frame_id: str) -> MarkerArray:
    """One line of text for each class, the first on top, over the origin of a frame."""
    lines = zip(classes.names, classes.colors, range(len(classes.names))[::-1], strict=True)
    return MarkerArray(
        markers=[
            Marker(
                header=Header(frame_id=frame_id),
                ns=classes.name,
                id=place,
                type=Marker.TEXT_VIEW_FACING,
                action=Marker.ADD,
                pose=Pose(position=Point(z=LOWEST_M + LINE_M * place)),
                scale=Vector3(z=LINE_M),
                color=ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=1.0),
                frame_locked=True,
                text=name,
            )
            for name, (red, green, blue), place in lines
        ]
    )
