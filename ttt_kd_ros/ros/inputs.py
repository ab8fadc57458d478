"""What the node subscribes to while it is active."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_ros import Buffer, TransformListener

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.ros.assembly import FrameAssembler, ImageMessage
from ttt_kd_ros.ros.collector import Collector
from ttt_kd_ros.ros.counts import SCANS, camera_subject
from ttt_kd_ros.ros.messages import stamp_of
from ttt_kd_ros.ros.parameters import COMPRESSED, NodeSettings
from ttt_kd_ros.ros.qos import Topics

CLOCK_JUMP_NS = 1_000_000_000
SEEK_S = 0.2
"""How often publishers of pictures are looked for."""


class Inputs:
    """Takes in scans, pictures, calibrations and transforms.

    Parameters
    ----------
    node
        Owner of the subscriptions.
    topics
        Makes them.
    settings
        What to subscribe to.
    collector
        Receives scans and pictures.
    assembler
        Receives calibrations.
    buffer
        Receives transforms.
    """

    def __init__(
        self,
        node: Node,
        topics: Topics,
        settings: NodeSettings,
        collector: Collector[PointCloud2, ImageMessage],
        assembler: FrameAssembler,
        buffer: Buffer,
    ) -> None:
        self._node = node
        self._topics = topics
        self._collector = collector
        self._buffer = buffer
        self._last_stamp = 0
        self._sources = {SCANS: settings.points_topic}
        self._listener = TransformListener(buffer, node)
        for camera in settings.cameras:
            topics.subscribe(CameraInfo, camera.info_topic, partial(assembler.set_camera_info, camera.name))
            self._sources[camera_subject(camera.name)] = " or ".join(camera.picture_topics)
            if len(camera.picture_topics) == 1:
                self._subscribe_pictures(camera.name, *camera.picture_topics)
        topics.subscribe(PointCloud2, settings.points_topic, self._on_scan)
        self._sought = [camera for camera in settings.cameras if len(camera.picture_topics) > 1]
        self._seeking = node.create_timer(SEEK_S, self._seek, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """End the subscriptions to transforms; `topics` ends the others."""
        self._node.destroy_timer(self._seeking)
        self._listener.unregister()

    def sources(self) -> Mapping[str, str]:
        """Topic that scans and the pictures of each camera come on; the possible ones until it is found."""
        return self._sources

    def _seek(self) -> None:
        """Subscribe to the pictures of each camera once somebody publishes them."""
        for camera in tuple(self._sought):
            if topic := next(filter(self._is_published, camera.picture_topics), None):
                self._sought.remove(camera)
                try:
                    self._subscribe_pictures(camera.name, topic)
                except InputError as error:
                    self._node.get_logger().error(f"camera {camera.name}: {error}")
        if not self._sought:
            self._seeking.cancel()

    def _is_published(self, topic: str) -> bool:
        return self._node.count_publishers(self._node.resolve_topic_name(topic)) > 0

    def _subscribe_pictures(self, camera: str, topic: str) -> None:
        self._sources[camera_subject(camera)] = topic
        kind = CompressedImage if topic.endswith(COMPRESSED) else Image
        self._topics.subscribe(kind, topic, partial(self._on_picture, camera))

    def _on_scan(self, scan: PointCloud2) -> None:
        stamp = stamp_of(scan)
        if stamp and stamp < self._last_stamp - CLOCK_JUMP_NS:
            self._node.get_logger().warning(
                "stamps of scans went back; transforms and pictures from before are forgotten"
            )
            self._buffer.clear()
            self._collector.forget_pictures(after=stamp + CLOCK_JUMP_NS)
        self._last_stamp = stamp or self._last_stamp
        self._collector.add_scan(stamp, scan)

    def _on_picture(self, camera: str, picture: ImageMessage) -> None:
        self._collector.add_picture(camera, stamp_of(picture), picture)
