"""Data folders to bags."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.data.folder import Folder, Picture, Record
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.geometry.transforms import invert
from ttt_kd_ros.replay.bag import BagWriter
from ttt_kd_ros.replay.messages import camera_info, compressed_image, image, point_cloud, transforms

CLASSES_KEY = "ttt_kd_classes"
"""Key of the bag's metadata that holds the class list of the ground truth, as JSON of `ClassList.to_dict`."""

_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])
_TIMED = np.dtype([*_POINT.descr, ("t", "<f4")])
_LABELLED = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("label", "u1")])


def convert(folder: Folder, bag: str | Path, *, storage: str = "mcap", raw: bool = False) -> None:
    """Write a data folder as a bag.

    Topics: ``/points``, ``/<camera>/image_raw[/compressed]``, ``/<camera>/camera_info``, ``/tf_static``, ``/tf`` where
    the motion is known, ``/ground_truth`` where there are labels. Where the times of the points are known, they are the
    field ``t`` [s after the stamp], and a scan comes once it is complete. The same folder gives the same messages.

    Parameters
    ----------
    folder
        What to convert.
    bag
        Directory to create.
    storage
        ``mcap`` or ``sqlite3``.
    raw
        Write decoded pictures in place of the files as they are.

    Raises
    ------
    DataError
        If the bag exists already, the folder holds several scenes or a file of it cannot be read; nothing is left
        behind then.
    """
    if len(folder.scenes) > 1:
        raise DataError(f"'{folder.name}' holds {len(folder.scenes)} scenes; a bag holds one: choose it with @NAME")
    with BagWriter(bag, storage) as writer:
        if folder.label_map:
            writer.remember(CLASSES_KEY, json.dumps(folder.classes.to_dict()))
        _write_transforms(writer, folder)
        pose_stamps = [pose.stamp for pose in folder.trajectory()]
        for index in range(len(folder)):
            record = folder.record(index)
            _check_mountings(folder, record)
            for picture in record.pictures:
                _write_picture(writer, picture, raw)
            _write_scan(writer, record, pose_stamps)


def _check_mountings(folder: Folder, record: Record) -> None:
    if unknown := {picture.camera_name for picture in record.pictures} - folder.mountings.keys():
        raise InputError(
            f"{folder.name}: where {', '.join(sorted(unknown))} is mounted is not known, so that no node could use its "
            "pictures; evaluate the folder itself (ttt_kd evaluate)"
        )


def _write_transforms(writer: BagWriter, folder: Folder) -> None:
    trajectory = folder.trajectory()
    start = min([folder.stamps[0], *(pose.stamp for pose in trajectory), *_picture_stamps(folder)])
    mountings = [("base_link", "lidar", folder.T_base_scan)]
    for name, T_camera_scan in folder.mountings.items():
        mountings.append(("base_link", _optical(name), folder.T_base_scan @ invert(T_camera_scan)))
    writer.write("/tf_static", start, transforms(start, mountings), latched=True)
    for pose in trajectory:
        message = transforms(pose.stamp, [("odom", "base_link", pose.T_odom_base)])
        writer.write("/tf", pose.stamp, message)


def _picture_stamps(folder: Folder) -> list[int]:
    return [picture.stamp for picture in folder.record(0).pictures]


def _write_picture(writer: BagWriter, picture: Picture, raw: bool) -> None:
    name, stamp, frame = picture.camera_name, picture.stamp, _optical(picture.camera_name)
    encoded = picture.path.read_bytes()
    writer.write(f"/{name}/camera_info", stamp, camera_info(stamp, frame, picture.camera))
    if raw:
        writer.write(f"/{name}/image_raw", stamp, image(stamp, frame, _decode(encoded, picture.path)))
    else:
        message = compressed_image(stamp, frame, encoded, picture.path.suffix)
        writer.write(f"/{name}/image_raw/compressed", stamp, message)


def _write_scan(writer: BagWriter, record: Record, pose_stamps: Sequence[int]) -> None:
    points = np.ascontiguousarray(record.points, dtype="<f4").view(_POINT)[:, 0]
    complete = record.stamp
    if record.times is not None and len(points):
        timed = np.empty(len(points), dtype=_TIMED)
        for name in _POINT.names or ():
            timed[name] = points[name]
        timed["t"] = record.times
        points, complete = timed, _completion(record.stamp, float(record.times.max()), pose_stamps)
    writer.write("/points", complete, point_cloud(record.stamp, "lidar", points))
    if record.labels is not None:
        labelled = np.empty(len(points), dtype=_LABELLED)
        for axis in "xyz":
            labelled[axis] = points[axis]
        labelled["label"] = record.labels
        writer.write("/ground_truth", complete, point_cloud(record.stamp, "lidar", labelled))


def _completion(stamp: int, last_point: float, pose_stamps: Sequence[int]) -> int:
    """When all points of a scan are measured and the motion until then is known [ns]."""
    end = stamp + max(0, math.ceil(last_point * 1e9))
    after = bisect_left(pose_stamps, end)
    return pose_stamps[after] if after < len(pose_stamps) else end


def _decode(encoded: bytes, path: Path) -> NDArray[np.uint8]:
    """Grey pictures as (H, W), colour pictures as (H, W, 3) RGB."""
    pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path} is not a readable picture")
    return np.asarray(pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _optical(camera_name: str) -> str:
    return f"{camera_name}_optical"
