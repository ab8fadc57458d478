"""The fields of a scan beside its coordinates, handed on with the labels."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from ttt_kd_ros.ros.messages import TYPES, records


def with_fields_of(scan: PointCloud2, cloud: PointCloud2) -> PointCloud2:
    """A cloud with the fields that its scan has beside, behind its own.

    Fields of a name that the cloud has itself, or an earlier field, are left out, as are those that lie beyond the
    scan's point_step.

    Parameters
    ----------
    scan
        The scan, which could be read.
    cloud
        A cloud of the same points in the same order, without padding.
    """
    own = {field.name for field in cloud.fields}
    others: dict[str, PointField] = {}
    for field in scan.fields:
        if field.name not in own and _lies_within(field, scan.point_step):
            others.setdefault(field.name, field)
    fields = list(others.values())
    if not fields or not len(cloud.data):
        return cloud
    given = records(scan, _record(fields, scan, [field.offset for field in fields], scan.point_step))
    offsets = cloud.point_step + np.cumsum([0, *map(_size, fields)])
    wider = PointCloud2(
        header=cloud.header,
        height=cloud.height,
        width=cloud.width,
        fields=[*cloud.fields, *(_moved(field, int(offset)) for field, offset in zip(fields, offsets, strict=False))],
        is_bigendian=cloud.is_bigendian,
        point_step=int(offsets[-1]),
        row_step=int(offsets[-1]) * cloud.width,
        is_dense=cloud.is_dense,
        data=array.array("B", bytes(int(offsets[-1]) * cloud.width * cloud.height)),
    )
    points = np.frombuffer(wider.data, np.uint8).reshape(-1, wider.point_step)
    points[:, : cloud.point_step] = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)
    target = records(wider, _record(fields, wider, [int(offset) for offset in offsets[:-1]], wider.point_step))
    for field in fields:
        target[field.name] = given[field.name]
    return wider


def _lies_within(field: PointField, point_step: int) -> bool:
    return bool(field.name) and field.datatype in TYPES and field.offset + _size(field) <= point_step


def _size(field: PointField) -> int:
    return np.dtype(TYPES[field.datatype]).itemsize * max(1, field.count)


def _moved(field: PointField, offset: int) -> PointField:
    return PointField(name=field.name, offset=offset, datatype=field.datatype, count=field.count)


def _record(fields: list[PointField], cloud: PointCloud2, offsets: list[int], size: int) -> np.dtype[np.void]:
    order = ">" if cloud.is_bigendian else "<"
    formats = [(order + TYPES[field.datatype], (max(1, field.count),)) for field in fields]
    names = [field.name for field in fields]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
