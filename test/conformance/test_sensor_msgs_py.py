"""Behaviour of sensor_msgs_py that the product counts on, of the original and of the stand-in."""

from __future__ import annotations

import array
import struct

import numpy as np
import pytest

point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")

from sensor_msgs.msg import PointCloud2, PointField  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

TYPES = {
    PointField.INT8: ("b", -5),
    PointField.UINT8: ("B", 250),
    PointField.INT16: ("h", -30_000),
    PointField.UINT16: ("H", 60_000),
    PointField.INT32: ("i", -2_000_000_000),
    PointField.UINT32: ("I", 4_000_000_000),
    PointField.FLOAT32: ("f", 1.5),
    PointField.FLOAT64: ("d", 1e300),
}


def field(name: str, offset: int, datatype: int = PointField.FLOAT32, count: int = 1) -> PointField:
    return PointField(name=name, offset=offset, datatype=datatype, count=count)


def xyz_fields() -> list[PointField]:
    return [field(name, 4 * index) for index, name in enumerate("xyz")]


def cloud_of(
    data: bytes, fields: list[PointField], point_step: int, width: int, height: int = 1, big_endian: bool = False
) -> PointCloud2:
    cloud = PointCloud2(height=height, width=width, fields=fields, is_bigendian=big_endian, point_step=point_step)
    cloud.row_step = width * point_step
    cloud.data = array.array("B", data)
    return cloud


def points_with_nan() -> np.ndarray:
    points = np.arange(15, dtype=np.float32).reshape(5, 3)
    points[1, 2] = points[4, 0] = np.nan
    return points


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("datatype", TYPES)
def test_every_type_is_read_in_both_byte_orders(datatype, order):
    code, value = TYPES[datatype]
    data = b"".join(struct.pack(f"{order}{code}xxx", v) for v in (value, 0, 1))
    cloud = cloud_of(data, [field("value", 0, datatype)], len(data) // 3, 3, big_endian=order == ">")
    points = point_cloud2.read_points(cloud)
    assert points["value"].tolist() == [value, 0, 1]
    assert points["value"].dtype == np.dtype(code)


@pytest.mark.parametrize("datatype", TYPES)
def test_every_type_survives_writing_and_reading(datatype):
    code, value = TYPES[datatype]
    cloud = point_cloud2.create_cloud(Header(), [field("value", 0, datatype)], [[value], [0]])
    assert bytes(cloud.data) == struct.pack(f"<{code}", value) + struct.pack(f"<{code}", 0)
    assert point_cloud2.read_points(cloud)["value"].tolist() == [value, 0]


def test_padding_between_fields_and_behind_a_point_is_skipped():
    rows = [(1.0, 2.0, 7, 3.0), (4.0, 5.0, 8, 6.0)]
    data = b"".join(struct.pack("<2f4xHxxd8x", *row) for row in rows)
    fields = [field("x", 0), field("y", 4), field("ring", 12, PointField.UINT16), field("t", 16, PointField.FLOAT64)]
    points = point_cloud2.read_points(cloud_of(data, fields, 32, 2))
    assert points.dtype.names == ("x", "y", "ring", "t")
    assert points.tolist() == rows


def test_fields_are_read_in_the_order_asked_for():
    data = struct.pack("<3f", 1, 2, 3)
    points = point_cloud2.read_points(cloud_of(data, xyz_fields(), 12, 1), field_names=["z", "x"])
    assert points.dtype.names == ("z", "x")
    assert points.tolist() == [(3.0, 1.0)]


def test_a_field_that_does_not_exist_is_an_error():
    cloud = point_cloud2.create_cloud_xyz32(Header(), [[1, 2, 3]])
    with pytest.raises(AssertionError):
        point_cloud2.read_points(cloud, field_names=["intensity"])


def test_a_field_of_several_values_becomes_several_fields():
    data = struct.pack("<f3H2x", 0.5, 1, 2, 3)
    fields = [field("x", 0), field("code", 4, PointField.UINT16, count=3)]
    points = point_cloud2.read_points(cloud_of(data, fields, 12, 1))
    assert points.dtype.names == ("x", "code_0", "code_1", "code_2")
    assert points.tolist() == [(0.5, 1, 2, 3)]


def test_a_field_without_a_name_gets_one():
    points = point_cloud2.read_points(cloud_of(struct.pack("<2f", 1, 2), [field("x", 0), field("", 4)], 8, 1))
    assert points.dtype.names == ("x", "unnamed_field_1")


def test_points_with_nan_are_kept_unless_asked_to_skip_them():
    cloud = point_cloud2.create_cloud_xyz32(Header(), points_with_nan())
    assert len(point_cloud2.read_points(cloud)) == 5
    assert point_cloud2.read_points(cloud, skip_nans=True)["y"].tolist() == [1.0, 7.0, 10.0]
    assert point_cloud2.read_points(cloud, ["x", "y"], skip_nans=True)["y"].tolist() == [1.0, 4.0, 7.0, 10.0]


def test_a_cloud_that_says_it_is_dense_is_not_searched_for_nan():
    cloud = point_cloud2.create_cloud_xyz32(Header(), points_with_nan())
    cloud.is_dense = True
    assert len(point_cloud2.read_points(cloud, skip_nans=True)) == 5


def test_single_points_can_be_picked():
    cloud = point_cloud2.create_cloud_xyz32(Header(), np.arange(15).reshape(5, 3).astype(np.float32))
    for uvs in ([3, 0], np.array([3, 0]), (index for index in (3, 0))):
        assert point_cloud2.read_points(cloud, uvs=uvs)["x"].tolist() == [9.0, 0.0]


def test_an_organized_cloud_is_read_in_the_order_of_its_data():
    data = np.arange(18, dtype="<f4")
    cloud = cloud_of(data.tobytes(), xyz_fields(), 12, width=3, height=2)
    assert point_cloud2.read_points(cloud)["x"].tolist() == data[::3].tolist()
    organized = point_cloud2.read_points(cloud, reshape_organized_cloud=True)
    assert organized.ndim == 2
    assert organized["x"].ravel().tolist() == data[::3].tolist()


def test_an_empty_cloud_has_no_points():
    points = point_cloud2.read_points(cloud_of(b"", xyz_fields(), 12, 0))
    assert points.shape == (0,)
    assert points.dtype.names == ("x", "y", "z")


def test_data_that_is_too_short_is_an_error():
    with pytest.raises(TypeError):
        point_cloud2.read_points(cloud_of(b"\0" * 35, xyz_fields(), 12, 3))


def test_reading_shares_the_memory_of_the_message():
    cloud = point_cloud2.create_cloud_xyz32(Header(), [[1, 2, 3]])
    points = point_cloud2.read_points(cloud)
    cloud.data[:4] = array.array("B", struct.pack("<f", 9.0))
    assert points["x"].tolist() == [9.0]


def test_fields_of_one_type_are_read_as_a_plain_array():
    cloud = point_cloud2.create_cloud_xyz32(Header(), [[1, 2, 3], [4, 5, 6]])
    points = point_cloud2.read_points_numpy(cloud, field_names=["x", "z"])
    assert points.dtype == np.float32
    assert points.tolist() == [[1.0, 3.0], [4.0, 6.0]]


def test_fields_of_several_types_are_not_read_as_a_plain_array():
    data = struct.pack("<3fH2x", 1, 2, 3, 4)
    with pytest.raises(AssertionError):
        point_cloud2.read_points_numpy(cloud_of(data, [*xyz_fields(), field("ring", 12, PointField.UINT16)], 16, 1))


def test_points_are_read_as_named_tuples():
    cloud = point_cloud2.create_cloud_xyz32(Header(), [[1, 2, 3], [4, 5, 6]])
    points = point_cloud2.read_points_list(cloud)
    assert [(p.x, p.y, p.z) for p in points] == [(1, 2, 3), (4, 5, 6)]


def test_a_written_cloud_describes_itself():
    header = Header(frame_id="lidar")
    cloud = point_cloud2.create_cloud_xyz32(header, np.ones((4, 3), np.float32))
    assert cloud.header.frame_id == "lidar"
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (4, 1, 12, 48)
    assert (cloud.is_dense, cloud.is_bigendian) == (False, False)
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ("x", 0, PointField.FLOAT32, 1),
        ("y", 4, PointField.FLOAT32, 1),
        ("z", 8, PointField.FLOAT32, 1),
    ]
    assert bytes(cloud.data) == struct.pack("<12f", *[1.0] * 12)


def test_a_structured_array_is_written_as_it_is():
    fields = [field("x", 0), field("label", 4, PointField.UINT8), field("confidence", 8)]
    points = np.zeros(2, point_cloud2.dtype_from_fields(fields))
    points["x"], points["label"], points["confidence"] = [1, 2], [3, 255], [0.5, 0.0]
    cloud = point_cloud2.create_cloud(Header(), fields, points)
    assert cloud.point_step == 12
    assert point_cloud2.read_points(cloud).tolist() == [(1.0, 3, 0.5), (2.0, 255, 0.0)]


def test_an_array_that_does_not_fit_its_fields_is_an_error():
    points = np.zeros(2, [("x", np.float64), ("y", np.float32), ("z", np.float32)])
    with pytest.raises(AssertionError):
        point_cloud2.create_cloud(Header(), xyz_fields(), points)


@pytest.mark.parametrize(
    "fields",
    [[field("x", 0), field("x", 4)], [field("x", 0, count=0)]],
    ids=["two of one name", "no values"],
)
def test_fields_that_cannot_be_are_an_error(fields):
    with pytest.raises(AssertionError):
        point_cloud2.dtype_from_fields(fields)


def test_a_point_type_can_be_given_its_size():
    dtype = point_cloud2.dtype_from_fields(xyz_fields(), point_step=32)
    assert dtype.itemsize == 32
    assert [dtype.fields[name][1] for name in dtype.names] == [0, 4, 8]
