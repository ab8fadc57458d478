"""Messages of bags: built from arrays, and the few values that are read from them.

They are the types of `rosbags`, whose serialised form (CDR) is the one on the wire: replay hands it on as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from transforms3d.quaternions import mat2quat

from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera

TYPES = get_typestore(Stores.ROS2_KILTED)

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"

_INT8, _UINT8, _INT16, _UINT16, _INT32, _UINT32, _FLOAT32, _FLOAT64 = range(1, 9)
_DTYPES = {
    _INT8: "i1",
    _UINT8: "u1",
    _INT16: "i2",
    _UINT16: "u2",
    _INT32: "i4",
    _UINT32: "u4",
    _FLOAT32: "f4",
    _FLOAT64: "f8",
}


def serialize(message: Any) -> memoryview:
    """CDR bytes of a message."""
    return TYPES.serialize_cdr(message, message.__msgtype__)


def deserialize(data: bytes | memoryview, message_type: str) -> Any:
    """Message from CDR bytes.

    Raises
    ------
    DataError
        If the bytes are no such message.
    """
    try:
        return TYPES.deserialize_cdr(bytes(data), message_type)
    except (SerdeError, struct.error, ValueError, IndexError) as error:
        raise DataError(f"a message is no valid {message_type}: {error}") from error


def stamp_of(data: bytes | memoryview) -> int:
    """Stamp [ns] of a serialised message that begins with a header."""
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(seconds) * 10**9 + int(nanoseconds)


def header(stamp: int, frame_id: str) -> Any:
    """``std_msgs/Header``; stamp in ns."""
    seconds, nanoseconds = divmod(stamp, 10**9)
    time = TYPES.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return TYPES.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def point_cloud(stamp: int, frame_id: str, points: NDArray[Any]) -> Any:
    """``PointCloud2`` from a structured array (N,) whose fields are float32 or uint8."""
    make_field = TYPES.types["sensor_msgs/msg/PointField"]
    codes = {np.dtype(name): code for code, name in _DTYPES.items()}
    fields = [
        make_field(name=name, offset=offset, datatype=codes[dtype], count=1)
        for name, (dtype, offset, *_) in (points.dtype.fields or {}).items()
    ]
    step = points.dtype.itemsize
    return TYPES.types[POINT_CLOUD](
        header=header(stamp, frame_id),
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=step,
        row_step=step * len(points),
        data=np.frombuffer(points.tobytes(), dtype=np.uint8),
        is_dense=bool(np.isfinite(points["x"]).all()),
    )


def cloud_field(cloud: Any, name: str) -> NDArray[Any]:
    """One field of a ``PointCloud2``, (N,) in the order of the points.

    Raises
    ------
    DataError
        If the cloud has no such field, or one of an unknown type, or is shorter than it says.
    """
    field = next((f for f in cloud.fields if f.name == name), None)
    if field is None:
        raise DataError(f"a cloud has no field '{name}', only {', '.join(f.name for f in cloud.fields)}")
    if field.datatype not in _DTYPES:
        raise DataError(f"a cloud's field '{name}' has datatype {field.datatype}, which is none of PointField's")
    dtype = np.dtype(_DTYPES[field.datatype]).newbyteorder(">" if cloud.is_bigendian else "<")
    try:
        return np.ndarray(
            (cloud.height, cloud.width), dtype, cloud.data, field.offset, (cloud.row_step, cloud.point_step)
        ).ravel()
    except (TypeError, ValueError) as error:
        raise DataError(f"a cloud of {cloud.height}x{cloud.width} points holds {len(cloud.data)} bytes only") from error


def cloud_labels(data: bytes | memoryview) -> NDArray[np.uint8]:
    """Label of each point of a serialised ``PointCloud2`` with a field ``label``.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    return cloud_field(deserialize(data, POINT_CLOUD), "label").astype(np.uint8)


def camera_info(stamp: int, frame_id: str, camera: Camera) -> Any:
    """``CameraInfo`` of pictures as the camera took them."""
    return TYPES.types[CAMERA_INFO](
        header=header(stamp, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model=camera.distortion_model,
        d=np.array(camera.coefficients),
        k=camera.K.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([camera.K, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=TYPES.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def image(stamp: int, frame_id: str, pixels: NDArray[np.uint8]) -> Any:
    """``Image`` from (H, W) grey or (H, W, 3) RGB pixels."""
    return TYPES.types[IMAGE](
        header=header(stamp, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding="mono8" if pixels.ndim == 2 else "rgb8",
        is_bigendian=0,
        step=pixels[0].nbytes,
        data=np.frombuffer(pixels.tobytes(), dtype=np.uint8),
    )


def compressed_image(stamp: int, frame_id: str, encoded: bytes, suffix: str) -> Any:
    """``CompressedImage`` from the bytes of a file with the name's `suffix` (``.jpg`` or ``.png``)."""
    return TYPES.types[COMPRESSED_IMAGE](
        header=header(stamp, frame_id),
        format={".jpg": "jpeg", ".png": "png"}[suffix],
        data=np.frombuffer(encoded, dtype=np.uint8),
    )


def transforms(stamp: int, poses: Sequence[tuple[str, str, NDArray[np.float64]]]) -> Any:
    """``TFMessage`` from (parent, child, ``T_parent_child``)."""
    return TYPES.types[TRANSFORMS](transforms=[_transform(stamp, *pose) for pose in poses])


def _transform(stamp: int, parent: str, child: str, T_parent_child: NDArray[np.float64]) -> Any:
    w, x, y, z = mat2quat(T_parent_child[:3, :3]).tolist()
    tx, ty, tz = T_parent_child[:3, 3].tolist()
    return TYPES.types["geometry_msgs/msg/TransformStamped"](
        header=header(stamp, parent),
        child_frame_id=child,
        transform=TYPES.types["geometry_msgs/msg/Transform"](
            translation=TYPES.types["geometry_msgs/msg/Vector3"](x=tx, y=ty, z=tz),
            rotation=TYPES.types["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w),
        ),
    )
