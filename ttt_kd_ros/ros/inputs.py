"""What the node subscribes to while it is active."""

from __future__ import annotations

from functools import partial

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_ros import Buffer, TransformListener

from ttt_kd_ros.ros.assembly import FrameAssembler, ImageMessage
from ttt_kd_ros.ros.collector import Collector
from ttt_kd_ros.ros.messages import stamp_of
from ttt_kd_ros.ros.parameters import CameraSettings, NodeSettings
from ttt_kd_ros.ros.qos import Topics

CLOCK_JUMP_NS = 1_000_000_000


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
        self._collector = collector
        self._buffer = buffer
        self._last_stamp = 0
        self._listener = TransformListener(buffer, node)
        for camera in settings.cameras:
            self._subscribe_camera(topics, camera, assembler)
        topics.subscribe(PointCloud2, settings.points_topic, self._on_scan)

    def close(self) -> None:
        """End the subscriptions to transforms; `topics` ends the others."""
        self._listener.unregister()

    def _subscribe_camera(self, topics: Topics, camera: CameraSettings, assembler: FrameAssembler) -> None:
        topics.subscribe(CameraInfo, camera.info_topic, partial(assembler.set_camera_info, camera.name))
        kind = CompressedImage if camera.compressed else Image
        topics.subscribe(kind, camera.picture_topic, partial(self._on_picture, camera.name))

    def _on_scan(self, scan: PointCloud2) -> None:
        stamp = stamp_of(scan)
        if stamp < self._last_stamp - CLOCK_JUMP_NS:
            self._node.get_logger().warning("stamps of scans went back; transforms from before are forgotten")
            self._buffer.clear()
        self._last_stamp = stamp
        self._collector.add_scan(stamp, scan)

    def _on_picture(self, camera: str, picture: ImageMessage) -> None:
        self._collector.add_picture(camera, stamp_of(picture), picture)
