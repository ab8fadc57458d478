"""The frames of a bag, put together without middleware: nothing is late, nothing is dropped."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import rclpy.serialization
from rclpy.duration import Duration
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer

from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Frame
from ttt_kd_ros.replay.bag import read
from ttt_kd_ros.replay.discovery import TF, TF_STATIC, Layout
from ttt_kd_ros.replay.messages import cloud_labels, stamp_of
from ttt_kd_ros.ros.assembly import FrameAssembler, ImageMessage, ScanJob
from ttt_kd_ros.ros.collector import Job, Picture
from ttt_kd_ros.ros.counts import NO_IMAGE, RECEIVED, SCANS, Counts, camera_subject
from ttt_kd_ros.ros.parameters import COMPRESSED, CameraSettings, NodeSettings
from ttt_kd_ros.ros.transforms import Transforms

NOTHING_IS_FORGOTTEN = Duration(seconds=10 * 365 * 86400)
AUTHORITY = "bag"


class BagFrames:
    """Puts together the frames of an open bag as the node does, but with all of the bag's pictures and transforms.

    As from the node, scans that are labelled without their pictures have none.

    Parameters
    ----------
    reader
        The bag.
    layout
        What of it is for the node.
    settings
        How the node uses it.
    counts
        Receives what happened to scans and pictures, as from the node.

    Raises
    ------
    DataError
        If a message cannot be read.
    """

    def __init__(self, reader: Reader, layout: Layout, settings: NodeSettings, counts: Counts) -> None:
        self._reader = reader
        self._layout = layout
        self._settings = settings
        self._counts = counts
        self._assembler = FrameAssembler(
            Transforms(_transforms(reader), settings.base_frame, settings.fixed_frame), counts
        )
        self._infos = {camera.info_topic: camera.name for camera in settings.cameras}
        self._pictures = {c.name: _StampedTopic(reader, _picture_topic(reader, c)) for c in settings.cameras}
        self._truths = _StampedTopic(reader, layout.ground_truth_topic)
        for camera in settings.cameras:
            for _ in range(len(self._pictures[camera.name])):
                counts.add(camera_subject(camera.name), RECEIVED)
            for _, _, data in itertools.islice(read(reader, (camera.info_topic,)), 1):
                self._set_camera_info(camera.info_topic, data)

    def __call__(self, stamps: Collection[int] | None = None) -> Iterator[tuple[int, Frame | None]]:
        """Stamp and frame of each scan in the order of the bag, None for one that the node would drop.

        Parameters
        ----------
        stamps
            Scans to put together; None for all.
        """
        for topic, _, data in read(self._reader, {self._layout.points_topic, *self._infos}):
            if topic in self._infos:
                self._set_camera_info(topic, data)
            elif stamps is None or stamp_of(data) in stamps:
                yield stamp_of(data), self._frame(data)

    def _set_camera_info(self, topic: str, data: bytes) -> None:
        self._assembler.set_camera_info(self._infos[topic], _message(data, CameraInfo, topic))

    def _frame(self, data: bytes) -> Frame | None:
        self._counts.add(SCANS, RECEIVED)
        stamp = stamp_of(data)
        job: ScanJob = Job(stamp, _message(data, PointCloud2, self._layout.points_topic), self._pictures_of(stamp), 0)
        frame = self._assembler.assemble(job, replace(self._settings, transform_wait_ns=0))
        truth = self._truths.nearest(stamp, 0)
        return frame if frame is None or truth is None else replace(frame, labels=cloud_labels(truth))

    def _pictures_of(self, stamp: int) -> Mapping[str, Picture[ImageMessage]]:
        pictures: dict[str, Picture[ImageMessage]] = {}
        if self._settings.adaptation.labels_at_once:
            return pictures
        for camera in self._settings.cameras:
            offset = camera.timing.offset
            source = self._pictures[camera.name]
            data = source.nearest(stamp - offset, camera.timing.tolerance)
            if data is None:
                self._counts.add(camera_subject(camera.name), NO_IMAGE)
            else:
                pictures[camera.name] = Picture(stamp_of(data) + offset, _picture(data, source.topic))
        return pictures


class _StampedTopic:
    """Messages of one topic by their stamps, which need not be in the order of the bag."""

    def __init__(self, reader: Reader, topic: str) -> None:
        self.topic = topic
        self._reader = reader
        self._places = sorted((stamp_of(data), time) for _, time, data in read(reader, (topic,)))

    def __len__(self) -> int:
        return len(self._places)

    def nearest(self, stamp: int, tolerance: int) -> bytes | None:
        """The message whose stamp is nearest, the later one of two; None if none is within the tolerance [ns]."""
        after = bisect_left(self._places, (stamp, 0))
        near = self._places[max(0, after - 1) : after + 1]
        place = min(reversed(near), key=lambda p: abs(p[0] - stamp), default=None)
        if place is None or abs(place[0] - stamp) > tolerance:
            return None
        found, time = place
        messages = read(self._reader, (self.topic,), since=time, until=time + 1)
        return next(bytes(data) for _, _, data in messages if stamp_of(data) == found)


def _transforms(reader: Reader) -> Buffer:
    """All transforms of the bag."""
    buffer = Buffer(NOTHING_IS_FORGOTTEN)
    for topic, _, data in read(reader, (TF, TF_STATIC)):
        add = buffer.set_transform_static if topic == TF_STATIC else buffer.set_transform
        for transform in _message(data, TFMessage, topic).transforms:
            add(transform, AUTHORITY)
    return buffer


def _picture_topic(reader: Reader, camera: CameraSettings) -> str:
    """The topic of a camera's pictures that the bag holds."""
    return next((topic for topic in camera.picture_topics if topic in reader.topics), camera.picture_topics[0])


def _picture(data: bytes, topic: str) -> ImageMessage:
    return _message(data, CompressedImage if topic.endswith(COMPRESSED) else Image, topic)


def _message(data: bytes | memoryview, kind: type[Any], topic: str) -> Any:
    try:
        return rclpy.serialization.deserialize_message(bytes(data), kind)
    except RuntimeError as error:
        raise DataError(f"a message on {topic} is no valid {kind.__name__}: {error}") from error
