"""Messages to arrays and back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from cv_bridge import CvBridge, CvBridgeError
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField, RegionOfInterest

from ttt_kd_ros.errors import CalibrationError, InputError
from ttt_kd_ros.frame import IGNORE_LABEL, Camera, Segmentation

COORDINATES = ("x", "y", "z")
TYPES = {
    PointField.INT8: "i1",
    PointField.UINT8: "u1",
    PointField.INT16: "i2",
    PointField.UINT16: "u2",
    PointField.INT32: "i4",
    PointField.UINT32: "u4",
    PointField.FLOAT32: "f4",
    PointField.FLOAT64: "f8",
}

OUTPUT_NAMES = (*COORDINATES, "rgb", "label", "confidence")
OUTPUT_OFFSETS = (0, 4, 8, 12, 16, 20)
OUTPUT_TYPE = np.dtype(
    {
        "names": list(OUTPUT_NAMES),
        "formats": ["f4", "f4", "f4", "u4", "u1", "f4"],
        "offsets": list(OUTPUT_OFFSETS),
        "itemsize": 24,
    }
)
"""One point of the segmented cloud in memory; ``rgb`` holds the bits of the float32 that RViz expects."""

_BRIDGE = CvBridge()


class MessageError(InputError):
    """A message that cannot be read."""


def stamp_of(message: PointCloud2 | Image | CompressedImage) -> int:
    """Stamp of a message [ns]."""
    stamp = message.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def read_points(cloud: PointCloud2) -> NDArray[np.float32]:
    """Coordinates of a cloud's points, row by row.

    The fields may lie in any order at any offset, as FLOAT32 or FLOAT64 in either byte order, and points and rows may
    be padded. (`sensor_msgs_py` does not know padded rows and turns big-endian messages round in place.)

    Returns
    -------
    (N, 3) float32 [m]; NaN in place of (0, 0, 0), by which many drivers say that nothing came back.

    Raises
    ------
    MessageError
        If a coordinate is missing or of another type, or there is less data than declared.
    """
    count = cloud.width * cloud.height
    if not count:
        return np.empty((0, 3), np.float32)
    rows = records(cloud, _point_type(cloud, COORDINATES))
    integers = [name for name in COORDINATES if rows.dtype[name].kind != "f"]
    if integers:
        raise MessageError(f"cloud's field {', '.join(integers)} holds integers; FLOAT32 and FLOAT64 are coordinates")
    xyz = np.empty((count, 3), np.float32)
    grid = xyz.reshape(cloud.height, cloud.width, 3)
    with np.errstate(over="ignore", invalid="ignore"):
        for column, name in enumerate(COORDINATES):
            grid[..., column] = rows[name]
    zero = np.flatnonzero(xyz[:, 0] == 0)
    xyz[zero[(xyz[zero] == 0).all(axis=1)]] = np.nan
    return xyz


def read_field(cloud: PointCloud2, name: str) -> NDArray[Any]:
    """Values of one field of a cloud in their own type, (N,) row by row.

    Raises
    ------
    MessageError
        If there is no such field, or there is less data than declared.
    """
    values = records(cloud, _point_type(cloud, (name,)))[name].ravel()
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def records(cloud: PointCloud2, kind: np.dtype[np.void]) -> NDArray[np.void]:
    """A cloud's points as records of a kind, (height, width), in the message's own data.

    Raises
    ------
    MessageError
        If there is less data than declared.
    """
    row_step = cloud.row_step if cloud.height > 1 else cloud.width * cloud.point_step
    _check_size(cloud, row_step)
    return np.ndarray((cloud.height, cloud.width), kind, cloud.data, strides=(row_step, cloud.point_step))


def _check_size(cloud: PointCloud2, row_step: int) -> None:
    if row_step < cloud.width * cloud.point_step:
        raise MessageError(f"cloud has row_step {row_step}, less than {cloud.width} points of {cloud.point_step} bytes")
    size = (cloud.height - 1) * row_step + cloud.width * cloud.point_step
    if len(cloud.data) < size:
        lacking = size - len(cloud.data)
        raise MessageError(f"cloud declares {cloud.height} x {cloud.width} points, but lacks {lacking} bytes of them")


def _point_type(cloud: PointCloud2, names: Sequence[str]) -> np.dtype[np.void]:
    fields = {field.name: field for field in cloud.fields}
    missing = [name for name in names if name not in fields]
    if missing:
        raise MessageError(f"cloud has no field {', '.join(missing)}; its fields are {', '.join(fields) or 'none'}")
    order = ">" if cloud.is_bigendian else "<"
    formats = [order + _format(fields[name]) for name in names]
    offsets = [fields[name].offset for name in names]
    if any(offset + int(form[2:]) > cloud.point_step for form, offset in zip(formats, offsets, strict=True)):
        raise MessageError(f"cloud has fields beyond its point_step of {cloud.point_step} bytes")
    return np.dtype({"names": list(names), "formats": formats, "offsets": offsets, "itemsize": cloud.point_step})


def _format(field: PointField) -> str:
    if field.datatype not in TYPES:
        raise MessageError(f"cloud's field {field.name} has datatype {field.datatype}, which is none of PointField's")
    return TYPES[field.datatype]


def read_image(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """Picture of an image message.

    Every colour, grey and Bayer encoding that cv_bridge knows can be read; 16-bit pictures are scaled to 8 bits.

    Returns
    -------
    (H, W, 3) uint8, RGB

    Raises
    ------
    MessageError
        If the encoding is no picture's, the file cannot be decoded, or there is less data than declared.
    """
    return _read_file(message) if isinstance(message, CompressedImage) else _read_raw(message)


def _read_raw(message: Image) -> NDArray[np.uint8]:
    size = message.height * message.step
    if not size or len(message.data) < size:
        raise MessageError(
            f"image declares {message.height} rows of {message.step} bytes, but holds {len(message.data)} bytes"
        )
    try:
        return np.asarray(_BRIDGE.imgmsg_to_cv2(_without_padding(message), "rgb8"), np.uint8)
    except (CvBridgeError, cv2.error) as error:
        raise MessageError(f"image with encoding '{message.encoding}' cannot be read as a picture: {error}") from error


def _without_padding(message: Image) -> Image:
    """The same picture in rows of its pixels alone: cv_bridge shears one whose padding is no whole number of pixels."""
    kind, channels = _BRIDGE.encoding_to_dtype_with_channels(message.encoding)
    row = message.width * channels * np.dtype(kind).itemsize
    if message.step == row and row:
        return message
    if message.step < row or not row:
        raise MessageError(f"image declares {message.width} columns, but its step of {message.step} bytes holds others")
    rows = np.frombuffer(message.data, np.uint8, message.height * message.step).reshape(message.height, message.step)
    tight = Image(
        header=message.header,
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=message.is_bigendian,
        step=row,
    )
    tight.data.frombytes(rows[:, :row].tobytes())
    return tight


def _read_file(message: CompressedImage) -> NDArray[np.uint8]:
    if not message.data:
        raise MessageError("compressed image is empty")
    try:
        image = _BRIDGE.compressed_imgmsg_to_cv2(message)
    except cv2.error as error:
        raise MessageError(f"compressed image with format '{message.format}' cannot be decoded: {error}") from error
    if image is None:
        raise MessageError(f"compressed image with format '{message.format}' cannot be decoded")
    if image.dtype == np.uint16:
        image = np.asarray(image, np.uint16) >> 8
    elif image.dtype != np.uint8:
        raise MessageError(f"compressed image with format '{message.format}' holds {image.dtype}, which is no picture")
    channels = 1 if image.ndim == 2 else image.shape[2]
    conversion = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}[channels]
    return np.asarray(cv2.cvtColor(image.astype(np.uint8, copy=False), conversion), np.uint8)


def read_camera(info: CameraInfo, *, rectified: bool) -> Camera:
    """Intrinsics of a camera at full resolution, of its region of interest if it has one.

    Parameters
    ----------
    info
        Binning needs nothing, as intrinsics are scaled to the picture. Other than in image_geometry, an
        ``equidistant`` camera whose D is zero is an ideal fisheye and not a pinhole camera.
    rectified
        Use the left 3x3 block of P and no distortion instead of K and D. As in image_geometry, the frame of the
        picture is then taken for the rectified one.

    Raises
    ------
    CalibrationError
        If the numbers describe no camera, the region lies outside the picture, or the distortion model is not
        supported.
    """
    K = np.array(info.p).reshape(3, 4)[:, :3].copy() if rectified else np.array(info.k).reshape(3, 3)
    if rectified and not K[0, 0]:
        raise CalibrationError(
            "P of the CameraInfo is zero; publish one with a projection matrix, or set the camera's parameter "
            "rectified to false if its pictures are not"
        )
    region = _region(info)
    K[:2, 2] -= region.x_offset, region.y_offset
    if rectified:
        return Camera(region.width, region.height, K)
    return Camera(region.width, region.height, K, tuple(info.d), info.distortion_model)


def _region(info: CameraInfo) -> RegionOfInterest:
    region = info.roi
    if not (region.width and region.height):
        return RegionOfInterest(width=info.width, height=info.height)
    if region.x_offset + region.width > info.width or region.y_offset + region.height > info.height:
        raise CalibrationError(
            f"region of interest {region.width}x{region.height} at ({region.x_offset}, {region.y_offset}) is not in "
            f"the picture of {info.width}x{info.height}; give roi, width and height at full resolution"
        )
    return region


def check_picture_size(info: CameraInfo, image: NDArray[np.uint8]) -> None:
    """Refuse a picture that is not the one of the CameraInfo at another resolution.

    One that is binned, or scaled alike in both directions, is; one that was cut or squeezed is not, and its pixels
    cannot be found.

    Raises
    ------
    CalibrationError
        If it was scaled differently in width and height.
    """
    region = _region(info)
    columns, rows = region.width / (info.binning_x or 1), region.height / (info.binning_y or 1)
    height, width = image.shape[:2]
    if abs(width * rows - height * columns) > max(width, height, columns, rows):  # one pixel of rounding
        raise CalibrationError(
            f"picture is {width}x{height}, CameraInfo describes {columns:g}x{rows:g}, which is of another shape; "
            "publish the CameraInfo of the pictures that are sent, with its roi if they are cut out"
        )


def packed_colors(palette: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Colours as the bits of the field ``rgb``: (256,) from a (256, 3) uint8 RGB palette."""
    red, green, blue = palette.astype(np.uint32).T
    return red << 16 | green << 8 | blue


def write_cloud(scan: PointCloud2, segmentation: Segmentation, colors: NDArray[np.uint32]) -> PointCloud2:
    """Segmented cloud with the header, shape, order and coordinates of the scan.

    Parameters
    ----------
    scan
        The scan's message.
    segmentation
        Its labels.
    colors
        (256,) from `packed_colors`.
    """
    message = PointCloud2(
        header=scan.header,
        height=scan.height,
        width=scan.width,
        fields=_output_fields(),
        is_bigendian=sys.byteorder == "big",
        point_step=OUTPUT_TYPE.itemsize,
        row_step=OUTPUT_TYPE.itemsize * scan.width,
        is_dense=bool((segmentation.labels != IGNORE_LABEL).all()),
    )
    rows = _allocate(message, len(segmentation.labels))
    if len(rows):
        points, grid = records(scan, _point_type(scan, COORDINATES)), rows.reshape(scan.height, scan.width)
        with np.errstate(over="ignore", invalid="ignore"):
            for name in COORDINATES:
                grid[name] = points[name]
    rows["rgb"] = colors.take(segmentation.labels, mode="clip")  # no label is beyond: quicker than to look at each
    rows["label"] = segmentation.labels
    rows["confidence"] = segmentation.confidence
    return message


def _allocate(message: PointCloud2, count: int) -> NDArray[np.void]:
    """Zeroed points that lie in the message's own data: assigning data would copy it."""
    data = message.data
    data.append(0)
    data *= count * OUTPUT_TYPE.itemsize
    return np.ndarray(count, OUTPUT_TYPE, data)


def _output_fields() -> list[PointField]:
    types = dict.fromkeys(OUTPUT_NAMES, PointField.FLOAT32) | {"label": PointField.UINT8}
    return [
        PointField(name=name, offset=offset, datatype=types[name], count=1)
        for name, offset in zip(OUTPUT_NAMES, OUTPUT_OFFSETS, strict=True)
    ]
