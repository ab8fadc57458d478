"""The replay's end of the wire: publishers for the bag's topics, subscriptions for the node's."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from ttt_kd_ros.replay.discovery import TF, TF_STATIC
from ttt_kd_ros.replay.messages import CAMERA_INFO, COMPRESSED_IMAGE, DIAGNOSTICS, IMAGE, POINT_CLOUD, TRANSFORMS

SEGMENTATION = "/segment/segmentation"
REPORT = "/segment/report"
DIAGNOSTICS_TOPIC = "/diagnostics"

_TYPES = {
    POINT_CLOUD: PointCloud2,
    IMAGE: Image,
    COMPRESSED_IMAGE: CompressedImage,
    CAMERA_INFO: CameraInfo,
    TRANSFORMS: TFMessage,
    DIAGNOSTICS: DiagnosticArray,
}
_QOS = QoSProfile(depth=10)
_TF_QOS = QoSProfile(depth=100)
_TF_STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass(frozen=True)
class Arrival:
    """A message from the node: its topic, when it arrived (monotonic [ns]) and its CDR bytes."""

    topic: str
    time: int
    data: bytes


class Link:
    """Publishes and receives serialised messages while the context is entered.

    Messages are received on a thread of their own, so that the time of their arrival does not depend on what the
    caller is doing.

    Parameters
    ----------
    topics
        Message type of each topic that will be published.
    node_name
        Name of the node at the other end.
    """

    def __init__(self, topics: Mapping[str, str], node_name: str) -> None:
        self._topics = topics
        self._node_name = node_name
        self._inbox: queue.SimpleQueue[Arrival] = queue.SimpleQueue()

    def __enter__(self) -> Link:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = Node("ttt_kd_replay", context=self._context, enable_rosout=False, start_parameter_services=False)
        self._publishers = {
            topic: self._node.create_publisher(
                _TYPES[kind], topic, {TF: _TF_QOS, TF_STATIC: _TF_STATIC_QOS}.get(topic, _QOS)
            )
            for topic, kind in self._topics.items()
        }
        self._subscriptions = [
            self._node.create_subscription(_TYPES[kind], topic, self._receiver(topic), _QOS, raw=True)
            for topic, kind in (
                (SEGMENTATION, POINT_CLOUD),
                (REPORT, DIAGNOSTICS),
                (DIAGNOSTICS_TOPIC, DIAGNOSTICS),
            )
        ]
        self._thread = threading.Thread(target=self._spin, name="replay link", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        rclpy.shutdown(context=self._context)
        self._thread.join()
        self._node.destroy_node()

    def publish(self, topic: str, data: bytes) -> int:
        """Send a serialised message; returns when that began (monotonic [ns])."""
        now = time.monotonic_ns()
        self._publishers[topic].publish(data)
        return now

    def receive(self, timeout: float) -> Arrival | None:
        """The next message of the node, None if there is none within `timeout` seconds."""
        try:
            return self._inbox.get(timeout=timeout) if timeout > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None

    def missing(self) -> list[str]:
        """What the node does not listen to or publish yet; empty once it is connected."""
        unheard = [topic for topic in self._publishers if not self._is_heard(topic)]
        return unheard + [s.topic_name for s in self._subscriptions if not self._is_fed(s)]

    def answering_nodes(self) -> int:
        """How many nodes publish segmentations."""
        return self._node.count_publishers(SEGMENTATION)

    def _is_heard(self, topic: str) -> bool:
        """Other programs may listen as well: the node must be among the listeners, and all must be connected."""
        listeners = self._node.get_subscriptions_info_by_topic(topic)
        connected = self._publishers[topic].get_subscription_count()
        return self._node_name in {info.node_name for info in listeners} and connected >= len(listeners)

    def _is_fed(self, subscription: Subscription[Any]) -> bool:
        sources = self._node.get_publishers_info_by_topic(subscription.topic_name)
        connected = subscription.get_publisher_count()
        return self._node_name in {info.node_name for info in sources} and connected >= len(sources)

    def _receiver(self, topic: str) -> Callable[[bytes], None]:
        return lambda data: self._inbox.put(Arrival(topic, time.monotonic_ns(), data))

    def _spin(self) -> None:
        executor = SingleThreadedExecutor(context=self._context)
        executor.add_node(self._node)
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        finally:
            executor.shutdown()
