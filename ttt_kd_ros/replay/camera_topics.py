"""Which topics of a bag are those of a camera."""

from __future__ import annotations

import posixpath
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rosbags.rosbag2 import Reader

from ttt_kd_ros.errors import DataError
from ttt_kd_ros.replay.bag import first_message
from ttt_kd_ros.replay.messages import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from ttt_kd_ros.ros.parameters import COMPRESSED

DEPTH_ENCODINGS = ("16UC1", "32FC1")
PICTURES = {"raw": IMAGE, "compressed": COMPRESSED_IMAGE}
"""Message type of each transport; raw ones are taken before compressed ones of the same name."""

_Found: TypeAlias = dict[str, tuple[list[str], list[str]]]
"""Topics of pictures, without ``/compressed``, and of CameraInfos, by the camera's name."""


@dataclass(frozen=True)
class CameraTopics:
    """Topics of one camera.

    Parameters
    ----------
    name
        Namespace of the camera, with ``_`` for ``/``, unless another name is chosen.
    image_topic
        Topic of the pictures, without the ``/compressed`` of a compressed one.
    info_topic
        Topic of its CameraInfo.
    transport
        ``raw`` or ``compressed``.
    """

    name: str
    image_topic: str
    info_topic: str
    transport: str

    @property
    def published_topic(self) -> str:
        """Topic of the pictures on the wire."""
        return self.image_topic + (COMPRESSED if self.transport == "compressed" else "")

    @property
    def rectified(self) -> bool:
        """Whether the pictures are rectified, as the names that image_proc gives them say."""
        return posixpath.basename(self.image_topic).startswith("image_rect")


def find_cameras(reader: Reader, types: Mapping[str, str], chosen: Mapping[str, Any]) -> tuple[CameraTopics, ...]:
    """The cameras of an open bag.

    Parameters
    ----------
    reader
        The bag.
    types
        Message type of each topic.
    chosen
        As for `discover`.

    Raises
    ------
    DataError
        If the bag has not what is chosen.
    """
    found = _side_by_side(reader, types)
    return tuple(_camera(name, found, types, chosen) for name in chosen.get("cameras", found))


def _side_by_side(reader: Reader, types: Mapping[str, str]) -> _Found:
    """Pictures and CameraInfos of each namespace that has both."""
    spaces: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for topic, kind in sorted(types.items()):
        base = topic.removesuffix(COMPRESSED) if kind == COMPRESSED_IMAGE else topic
        pictures, infos = spaces[posixpath.dirname(base)]
        if kind == CAMERA_INFO:
            infos.append(topic)
        elif _is_picture(reader, topic, kind) and base not in pictures:
            pictures.append(base)
    return {space.strip("/").replace("/", "_") or "camera": both for space, both in sorted(spaces.items()) if all(both)}


def _is_picture(reader: Reader, topic: str, kind: str) -> bool:
    """Whether it is what the node can take for a picture, and does not show depth."""
    if kind == IMAGE:
        return first_message(reader, topic, kind).encoding not in DEPTH_ENCODINGS
    if kind == COMPRESSED_IMAGE and topic.endswith(COMPRESSED):
        return first_message(reader, topic, kind).format.partition(";")[0].strip() not in DEPTH_ENCODINGS
    return False


def _camera(name: str, found: _Found, types: Mapping[str, str], chosen: Mapping[str, Any]) -> CameraTopics:
    of_images, of_info, of_transport = (f"camera.{name}.{each}" for each in ("image_topic", "info_topic", "transport"))
    if name not in found and not {of_images, of_info} <= chosen.keys():
        raise DataError(
            f"the bag has no camera {name} with pictures and a CameraInfo beside them, only "
            f"{', '.join(found) or 'none'}; name its topics in the parameters {of_images} and {of_info}"
        )
    pictures, infos = found.get(name, ([], []))
    image_topic, info_topic = _choose(of_images, pictures, chosen), _choose(of_info, infos, chosen)
    if types.get(info_topic) != CAMERA_INFO:
        raise DataError(f"the bag has no CameraInfo on '{info_topic}', only on: {_listed(types, CAMERA_INFO)}")
    asked = chosen.get(of_transport, "auto")
    for transport, kind in PICTURES.items():
        camera = CameraTopics(name, image_topic, info_topic, transport)
        if asked in ("auto", transport) and types.get(camera.published_topic) == kind:
            return camera
    there = "; ".join(f"{transport}: {_listed(types, kind)}" for transport, kind in PICTURES.items())
    raise DataError(f"the bag has no pictures of {of_images} '{image_topic}', {of_transport} '{asked}', only {there}")


def _choose(parameter: str, found: Sequence[str], chosen: Mapping[str, Any]) -> str:
    if parameter in chosen:
        return str(chosen[parameter])
    if len(found) > 1:
        warnings.warn(f"of {', '.join(found)} the first is used; {parameter} chooses another", stacklevel=1)
    return found[0]


def _listed(types: Mapping[str, str], kind: str) -> str:
    return ", ".join(sorted(topic.removesuffix(COMPRESSED) for topic in types if types[topic] == kind)) or "none"
