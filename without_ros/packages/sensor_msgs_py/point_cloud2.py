"""Point cloud messages to arrays and back.

Two traps of the original are kept: `row_step` is not looked at, so that clouds with padded rows are misread, and
arrays of organised clouds are (width, height).
"""

from __future__ import annotations

import array
import sys
from collections import namedtuple
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

DUMMY_FIELD_PREFIX = "unnamed_field"

DTYPES: dict[int, np.dtype[Any]] = {
    PointField.INT8: np.dtype(np.int8),
    PointField.UINT8: np.dtype(np.uint8),
    PointField.INT16: np.dtype(np.int16),
    PointField.UINT16: np.dtype(np.uint16),
    PointField.INT32: np.dtype(np.int32),
    PointField.UINT32: np.dtype(np.uint32),
    PointField.FLOAT32: np.dtype(np.float32),
    PointField.FLOAT64: np.dtype(np.float64),
}


def read_points(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> NDArray[np.void]:
    """Points of a cloud as a structured array that shares the message's memory.

    As with the original, the data of a message of foreign byte order is swapped in place: read it once.

    Parameters
    ----------
    cloud
        The message.
    field_names
        Fields to read, all if None.
    skip_nans
        Leave out points with a NaN in any of these fields, unless the cloud says that it is dense.
    uvs
        Indices of the points to read, all if None.
    reshape_organized_cloud
        Return (width, height) instead of (N,) if the cloud has more than one row.

    Raises
    ------
    AssertionError
        If a field does not exist.
    """
    assert isinstance(cloud, PointCloud2), "Cloud is not a sensor_msgs.msg.PointCloud2"
    points = np.ndarray(cloud.width * cloud.height, dtype_from_fields(cloud.fields, cloud.point_step), cloud.data)
    if field_names is not None:
        known = points.dtype.names or ()
        assert all(name in known for name in field_names), "Requests field is not in the fields of the PointCloud!"
        points = points[list(field_names)]
    if bool(cloud.is_bigendian) != (sys.byteorder == "big"):
        points = points.byteswap(inplace=True)
    if skip_nans and not cloud.is_dense:
        columns = [points[name] for name in points.dtype.names or ()]
        points = points[~np.logical_or.reduce([np.isnan(column) for column in columns])]
    if uvs is not None:
        points = points[uvs if isinstance(uvs, np.ndarray) else np.fromiter(uvs, int)]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.width, cloud.height)
    return points


def read_points_numpy(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> NDArray[Any]:
    """Fields of one type as a plain (N, number of fields) array; parameters as for `read_points`.

    Raises
    ------
    AssertionError
        If the fields are of more than one type, or one does not exist.
    """
    read = [field for field in cloud.fields[1:] if field_names is None or field.name in field_names]
    assert all(field.datatype == cloud.fields[0].datatype for field in read), (
        "All fields need to have the same datatype. Use `read_points()` otherwise."
    )
    return structured_to_unstructured(read_points(cloud, field_names, skip_nans, uvs, reshape_organized_cloud))


def read_points_list(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
) -> list[Any]:
    """Points of a cloud as a list of named tuples; parameters as for `read_points`."""
    names = [field.name for field in cloud.fields] if field_names is None else field_names
    point = namedtuple("Point", names)  # type: ignore[misc]
    return [point._make(values) for values in read_points(cloud, names, skip_nans, uvs)]


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype[np.void]:
    """Structured type of one point; a field of several values becomes fields with the suffixes _0, _1, ...

    Raises
    ------
    AssertionError
        If a field has no values or two have one name.
    """
    layout: dict[str, tuple[np.dtype[Any], int]] = {}
    for index, field in enumerate(fields):
        assert field.count > 0, "Can't process fields with count = 0."
        name = field.name or f"{DUMMY_FIELD_PREFIX}_{index}"
        dtype = DTYPES[field.datatype]
        for part in range(field.count):
            part_name = name if field.count == 1 else f"{name}_{part}"
            assert part_name not in layout, "Duplicate field names are not allowed!"
            layout[part_name] = (dtype, field.offset + part * dtype.itemsize)
    names = list(layout)
    formats = [dtype for dtype, _ in layout.values()]
    offsets = [offset for _, offset in layout.values()]
    if point_step is None:
        return np.dtype({"names": names, "formats": formats, "offsets": offsets})
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": point_step})


def create_cloud(
    header: Header, fields: Sequence[PointField], points: Iterable[Any], point_step: int | None = None
) -> PointCloud2:
    """Message of points.

    Parameters
    ----------
    header
        Stamp and frame.
    fields
        Fields of a point.
    points
        Structured array of exactly these fields, plain array with one column for each if they are of one type,
        or a sequence of sequences; (width, height) for an organised cloud.
    point_step
        Bytes from one point to the next, as many as the fields take if None.

    Raises
    ------
    AssertionError
        If the array does not fit the fields.
    TypeError
        If the array is not contiguous.
    """
    dtype = dtype_from_fields(fields, point_step)
    rows = _structured(points, fields, dtype)
    assert rows.ndim <= 2, "Points can only be organized in max. two dimensional space"
    cloud = PointCloud2(
        header=header,
        height=rows.shape[1] if rows.ndim == 2 else 1,
        width=rows.shape[0],
        is_dense=False,
        is_bigendian=sys.byteorder == "big",
        fields=fields,
        point_step=dtype.itemsize,
        row_step=dtype.itemsize * rows.shape[0],
    )
    data = array.array("B")
    data.frombytes(rows.data.cast("B"))
    cloud.data = data
    return cloud


def _structured(points: Iterable[Any], fields: Sequence[PointField], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    if not isinstance(points, np.ndarray):
        return np.array([tuple(point) for point in points], dtype)
    if points.dtype.names is None:
        assert all(field.datatype == fields[0].datatype for field in fields), (
            "All fields need to have the same datatype. Pass a structured NumPy array with multiple dtypes otherwise."
        )
        return unstructured_to_structured(points, dtype)
    assert points.dtype == dtype, "PointFields and structured NumPy array dtype do not match for all fields!"
    return points


def create_cloud_xyz32(header: Header, points: Iterable[Any]) -> PointCloud2:
    """Message of points with the float32 fields x, y, z."""
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points)
