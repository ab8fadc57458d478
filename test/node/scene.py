"""Messages of a small scene, packed byte by byte with `struct`, apart from the code under test."""

from __future__ import annotations

import array
import struct
from collections.abc import Sequence

import cv2
import numpy as np
from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

LIDAR = "lidar"
BASE = "base_link"
ODOM = "odom"
CAMERA_FRAME = "front_optical"
SECOND = 1_000_000_000
MS = 1_000_000

XYZI = (
    ("x", PointField.FLOAT32),
    ("y", PointField.FLOAT32),
    ("z", PointField.FLOAT32),
    ("intensity", PointField.FLOAT32),
)
CODES = {
    PointField.FLOAT32: "f",
    PointField.FLOAT64: "d",
    PointField.UINT8: "B",
    PointField.INT16: "h",
    PointField.INT32: "i",
    PointField.UINT32: "I",
}

# Pose of a camera (x right, y down, z forward) that looks along the x axis of the LiDAR (x forward, y left, z up).
LIDAR_FROM_OPTICAL = (0.5, -0.5, 0.5, -0.5)  # w, x, y, z


def header(frame_id: str, stamp: int) -> Header:
    result = Header(frame_id=frame_id)
    result.stamp.sec, result.stamp.nanosec = divmod(stamp, SECOND)
    return result


def cloud(
    points: Sequence[Sequence[float]],
    *,
    stamp: int = SECOND,
    frame_id: str = LIDAR,
    height: int = 1,
    fields: Sequence[tuple[str, int]] = XYZI,
    point_padding: int = 0,
    row_padding: int = 0,
    big_endian: bool = False,
) -> PointCloud2:
    """Each point is as long as `fields`, or shorter and filled up with zeros."""
    order = ">" if big_endian else "<"
    codes = [CODES[datatype] for _, datatype in fields]
    offsets = [struct.calcsize("<" + "".join(codes[:i])) for i in range(len(codes) + 1)]
    point_step = offsets[-1] + point_padding
    width = len(points) // height
    row_step = width * point_step + row_padding
    data = bytearray(b"\xee" * (row_step * height))
    for index, point in enumerate(points):
        start = index // width * row_step + index % width * point_step
        for code, offset, value in zip(codes, offsets, [*point] + [0] * (len(codes) - len(point)), strict=False):
            struct.pack_into(order + code, data, start + offset, value)
    return PointCloud2(
        header=header(frame_id, stamp),
        height=height,
        width=width,
        fields=[
            PointField(name=name, offset=offset, datatype=datatype, count=1)
            for (name, datatype), offset in zip(fields, offsets, strict=False)
        ],
        is_bigendian=big_endian,
        point_step=point_step,
        row_step=row_step,
        data=array.array("B", data),
    )


def unpacked(message: PointCloud2) -> dict[str, list[float]]:
    """Values of each field, read byte by byte."""
    order = ">" if message.is_bigendian else "<"
    result: dict[str, list[float]] = {field.name: [] for field in message.fields}
    data = bytes(message.data)
    for row in range(message.height):
        for column in range(message.width):
            start = row * message.row_step + column * message.point_step
            for field in message.fields:
                (value,) = struct.unpack_from(order + CODES[field.datatype], data, start + field.offset)
                result[field.name].append(value)
    return result


def color_picture(height: int = 24, width: int = 32) -> np.ndarray:
    """(H, W, 3) uint8 RGB: left half red, right half blue, last row green."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2, 0] = 255
    picture[:, width // 2 :, 2] = 255
    picture[-1] = (0, 255, 0)
    return picture


def image(
    pixels: np.ndarray, encoding: str, *, stamp: int = SECOND, frame_id: str = CAMERA_FRAME, row_padding: int = 0
) -> Image:
    rows = [row.tobytes() + b"\xee" * row_padding for row in pixels]
    return Image(
        header=header(frame_id, stamp),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=len(rows[0]),
        data=array.array("B", b"".join(rows)),
    )


def compressed(
    pixels: np.ndarray, kind: str = "png", *, stamp: int = SECOND, frame_id: str = CAMERA_FRAME
) -> CompressedImage:
    """`pixels` in OpenCV's order: BGR, BGRA or grey."""
    data = array.array("B", cv2.imencode(f".{kind}", pixels)[1].tobytes())
    return CompressedImage(header=header(frame_id, stamp), format=kind, data=data)


def camera_info(*, focal: float = 20.0, frame_id: str = CAMERA_FRAME, stamp: int = SECOND) -> CameraInfo:
    return CameraInfo(
        header=header(frame_id, stamp),
        width=32,
        height=24,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[focal, 0.0, 15.5, 0.0, focal, 11.5, 0.0, 0.0, 1.0],
        p=[2 * focal, 0.0, 15.0, -4.0, 0.0, 2 * focal, 11.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def transform(
    parent: str,
    child: str,
    xyz: Sequence[float] = (0.0, 0.0, 0.0),
    wxyz: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
    *,
    stamp: int = 0,
) -> TransformStamped:
    """Pose of `child` in `parent`."""
    result = TransformStamped(header=header(parent, stamp), child_frame_id=child)
    t, q = result.transform.translation, result.transform.rotation
    t.x, t.y, t.z = (float(v) for v in xyz)
    q.w, q.x, q.y, q.z = (float(v) for v in wxyz)
    return result
