"""What a bag holds: the scans, the cameras, the ground truth and the frames that the node needs to know."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rosbags.rosbag2 import Reader

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.replay.bag import first_message, open_bag, read
from ttt_kd_ros.replay.camera_topics import CameraTopics, find_cameras
from ttt_kd_ros.replay.convert import CLASSES_KEY
from ttt_kd_ros.replay.messages import POINT_CLOUD, TRANSFORMS, deserialize

TF, TF_STATIC = "/tf", "/tf_static"
BASE_FRAME = "base_link"
GROUND_TRUTH_TOPIC = "/ground_truth"
TF_TIME = 60 * 10**9
"""How much of a bag [ns] is searched for moving transforms; a long drive has millions of them."""


@dataclass(frozen=True)
class Layout:
    """What of a bag is for the node.

    Parameters
    ----------
    points_topic
        Topic of the scans.
    cameras
        Cameras that have pictures and a CameraInfo.
    topics
        Message type of each topic that is for the node.
    base_frame
        Frame whose z = 0 is the ground.
    fixed_frame
        Frame that does not move with the robot; empty if the bag holds no motion.
    ground_truth_topic
        Topic of the labelled clouds; empty without ground truth. Clouds with a field ``confidence`` too are a node's
        output.
    classes
        Classes of the ground truth, if the bag tells.
    """

    points_topic: str
    cameras: tuple[CameraTopics, ...]
    topics: Mapping[str, str]
    base_frame: str
    fixed_frame: str
    ground_truth_topic: str = ""
    classes: ClassList | None = None

    def parameters(self) -> dict[str, Any]:
        """Parameters of the node for this bag."""
        values: dict[str, Any] = {
            "points_topic": self.points_topic,
            "base_frame": self.base_frame,
            "fixed_frame": self.fixed_frame,
        }
        if self.cameras:
            values["cameras"] = [camera.name for camera in self.cameras]
        for camera in self.cameras:
            values[f"camera.{camera.name}.image_topic"] = camera.image_topic
            values[f"camera.{camera.name}.info_topic"] = camera.info_topic
            values[f"camera.{camera.name}.transport"] = camera.transport
            if camera.rectified:
                values[f"camera.{camera.name}.rectified"] = True
        return values


def discover(bag: str | Path, chosen: Mapping[str, Any] = MappingProxyType({})) -> Layout:
    """Look into a bag.

    Parameters
    ----------
    bag
        The bag.
    chosen
        Parameters of the node that need not be found: ``points_topic`` (else the only topic with clouds that have no
        field ``label``), ``base_frame`` (else ``base_link`` or what the sensor is mounted on), ``fixed_frame`` (empty
        for none; else the root of the moving transforms), ``cameras`` (else all that have pictures and a CameraInfo
        beside them), and ``image_topic``, ``info_topic`` and ``transport`` of each. Others have no meaning here.

    Raises
    ------
    DataError
        If the bag cannot be read, holds no scans or no frame on the ground, has not what is chosen, or several topics
        could be the scans.
    """
    with open_bag(bag) as reader:
        types = {c.topic: c.msgtype for c in reader.connections if c.msgcount}
        frames = _frames(reader)
        clouds = [topic for topic, kind in types.items() if kind == POINT_CLOUD]
        first = {topic: first_message(reader, topic, POINT_CLOUD) for topic in clouds}
        fields = {topic: {f.name for f in cloud.fields} for topic, cloud in first.items()}
        labelled = [topic for topic in clouds if "label" in fields[topic]]
        truths = [topic for topic in labelled if "confidence" not in fields[topic]]
        unlabelled = [topic for topic in clouds if topic not in labelled]
        points_topic = _choose_points(bag, unlabelled, chosen.get("points_topic", ""), types)
        base_frame = chosen.get("base_frame") or frames.base(first[points_topic].header.frame_id)
        if not base_frame:
            raise DataError(
                f"bag '{bag}' has no transform to a frame '{BASE_FRAME}' on the ground; name one with --base-frame"
            )
        cameras = find_cameras(reader, types, chosen)
        wanted = {points_topic, TF, TF_STATIC, *(t for c in cameras for t in (c.published_topic, c.info_topic))}
        return Layout(
            points_topic,
            cameras,
            {topic: kind for topic, kind in types.items() if topic in wanted},
            base_frame,
            chosen.get("fixed_frame", frames.fixed(base_frame)),
            _choose_truth([topic for topic in truths if topic != points_topic]),
            _classes(reader),
        )


@dataclass
class _Frames:
    """The tree of the bag's transforms: parent of each frame, and which of them move."""

    parents: dict[str, str] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)

    def ancestors(self, frame: str) -> list[str]:
        """The frame and those above it; ends where a damaged bag has a loop."""
        chain = [frame]
        while (parent := self.parents.get(chain[-1])) is not None and parent not in chain:
            chain.append(parent)
        return chain

    def base(self, scan_frame: str) -> str:
        """``base_link`` if there is one, else the top of what the sensor is mounted on; empty if there is no mount."""
        if BASE_FRAME in {*self.parents, *self.parents.values()}:
            return BASE_FRAME
        above = self.ancestors(scan_frame)
        mounted = list(itertools.takewhile(lambda frame: frame not in self.moving, above[:-1]))
        return above[len(mounted)] if mounted else ""

    def fixed(self, base_frame: str) -> str:
        """``odom`` if it is above the base, as it does not jump (REP 105); else the root, if the base moves at all."""
        above = self.ancestors(base_frame)
        if not self.moving.intersection(above):
            return ""
        return "odom" if "odom" in above[1:] else above[-1]


def _frames(reader: Reader) -> _Frames:
    frames = _Frames()
    for topic, _, data in read(reader, (TF, TF_STATIC), until=reader.start_time + TF_TIME):
        for transform in deserialize(data, TRANSFORMS).transforms:
            child = transform.child_frame_id.lstrip("/")
            frames.parents[child] = transform.header.frame_id.lstrip("/")
            if topic == TF:
                frames.moving.add(child)
    return frames


def _choose_points(bag: str | Path, candidates: list[str], asked: str, types: Mapping[str, str]) -> str:
    if asked:
        if types.get(asked) != POINT_CLOUD:
            raise DataError(f"bag '{bag}' has no PointCloud2 on '{asked}', only on: {', '.join(candidates) or 'none'}")
        return asked
    if not candidates:
        raise DataError(f"bag '{bag}' holds no scans (PointCloud2), only: {', '.join(sorted(types)) or 'nothing'}")
    if len(candidates) > 1:
        raise DataError(f"bag '{bag}' holds several clouds, name one with --points-topic: {', '.join(candidates)}")
    return candidates[0]


def _choose_truth(candidates: list[str]) -> str:
    if GROUND_TRUTH_TOPIC in candidates:
        return GROUND_TRUTH_TOPIC
    return candidates[0] if len(candidates) == 1 else ""


def _classes(reader: Reader) -> ClassList | None:
    custom = reader.storage.metadata.custom or {}
    if CLASSES_KEY not in custom:
        return None
    try:
        return ClassList.from_dict(json.loads(custom[CLASSES_KEY]))
    except (json.JSONDecodeError, InputError) as error:
        raise DataError(f"the bag's class list ({CLASSES_KEY}) cannot be read: {error}") from error
