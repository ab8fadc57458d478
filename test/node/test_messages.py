"""Conversion of messages."""

from __future__ import annotations

import array
import math
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from scene import camera_info, cloud, color_picture, compressed, image, unpacked
from sensor_msgs.msg import CompressedImage, PointCloud2, PointField

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.errors import CalibrationError
from ttt_kd_ros.frame import AdaptationReport, Segmentation
from ttt_kd_ros.geometry.projection import project, scale_camera
from ttt_kd_ros.ros.messages import (
    MessageError,
    check_picture_size,
    packed_colors,
    read_camera,
    read_field,
    read_image,
    read_points,
    stamp_of,
    write_cloud,
)

POINTS = [(1.0, 2.0, 3.0), (-4.5, 0.25, 1e4), (math.nan, math.inf, -math.inf), (7.0, 8.0, 9.0)]
F32, F64 = PointField.FLOAT32, PointField.FLOAT64
XYZ = (("x", F32), ("y", F32), ("z", F32))


class TestReadPoints:
    @pytest.mark.parametrize(
        "layout",
        [
            {},
            {"fields": XYZ},
            {"fields": (("label", PointField.UINT8), *XYZ)},
            {"point_padding": 5},
            {"height": 2, "row_padding": 7},
            {"big_endian": True},
            {"fields": (("x", F64), ("y", F64), ("z", F64))},
            {"fields": (("x", F64), ("y", F32), ("z", F64)), "big_endian": True, "point_padding": 3},
        ],
        ids=str,
    )
    def test_every_layout_gives_the_same_points(self, layout):
        if layout.get("fields", XYZ)[0][0] == "label":
            message = cloud([(200, *point) for point in POINTS], **layout)
        else:
            message = cloud(POINTS, **layout)
        points = read_points(message)
        assert points.dtype == np.float32
        np.testing.assert_array_equal(points, np.array(POINTS, np.float32))

    def test_fields_may_come_in_any_order(self):
        message = cloud([(3.0, 1.0, 2.0)], fields=(("z", F32), ("x", F32), ("y", F32)))
        assert read_points(message).tolist() == [[1.0, 2.0, 3.0]]

    def test_reading_a_big_endian_cloud_leaves_it_as_it_was(self):
        message = cloud(POINTS, big_endian=True)
        before = bytes(message.data)
        read_points(message)
        assert bytes(message.data) == before

    def test_a_cloud_of_one_row_needs_no_row_step(self):
        message = cloud(POINTS)
        message.row_step = 0
        assert len(read_points(message)) == 4

    def test_an_empty_cloud_has_no_points(self):
        assert read_points(PointCloud2()).shape == (0, 3)
        assert read_points(cloud([])).shape == (0, 3)

    @pytest.mark.parametrize(("height", "width"), [(4_000_000, 100_000), (2**31, 2**31), (1, 2**32 - 1)])
    def test_more_points_declared_than_there_are_take_no_memory(self, height, width):
        message = cloud(POINTS)
        message.height, message.width, message.row_step = height, width, message.point_step * width % 2**32
        with pytest.raises(MessageError, match=r"lacks|row_step"):
            read_points(message)

    def test_numbers_too_large_for_float32_are_not_finite(self):
        message = cloud([(1e300, 0.0, 0.0)], fields=(("x", F64), ("y", F64), ("z", F64)))
        assert read_points(message)[0, 0] == math.inf

    def test_points_at_the_sensor_itself_were_not_measured(self):
        message = cloud([(0.0, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0, -0.0, 2.0), (-0.0, 0.0, 0.0)])
        assert np.isnan(read_points(message)).tolist() == [[False] * 3, [True] * 3, [False] * 3, [True] * 3]

    def test_a_missing_coordinate_is_named_with_the_fields_that_are_there(self):
        message = cloud([(1.0, 2.0)], fields=(("y", F32), ("z", F32)))
        with pytest.raises(MessageError, match="no field x; its fields are y, z"):
            read_points(message)

    def test_data_shorter_than_declared_is_refused(self):
        message = cloud(POINTS)
        message.width += 1
        with pytest.raises(MessageError, match="1 x 5 points, but lacks 16 bytes"):
            read_points(message)

    def test_a_last_row_without_its_padding_is_complete(self):
        message = cloud(POINTS, height=2, row_padding=7)
        del message.data[-7:]
        assert len(read_points(message)) == 4
        del message.data[-1:]
        with pytest.raises(MessageError, match="lacks 1 bytes"):
            read_points(message)

    def test_rows_shorter_than_their_points_are_refused(self):
        message = cloud(POINTS, height=2)
        message.row_step -= 1
        with pytest.raises(MessageError, match="row_step 31"):
            read_points(message)

    def test_integer_coordinates_are_refused(self):
        message = cloud([(1, 2, 3)], fields=tuple((n, PointField.INT16) for n in "xyz"))
        with pytest.raises(MessageError, match="field x, y, z holds integers"):
            read_points(message)

    def test_a_field_of_no_known_type_is_refused(self):
        message = cloud(POINTS)
        message.fields[1].datatype = 42
        with pytest.raises(MessageError, match="field y has datatype 42"):
            read_points(message)

    def test_a_field_beyond_the_point_is_refused(self):
        message = cloud(POINTS, fields=XYZ)
        message.fields[2].offset = 10
        with pytest.raises(MessageError, match="beyond its point_step of 12"):
            read_points(message)


class TestReadField:
    @pytest.mark.parametrize("layout", [{}, {"big_endian": True}, {"height": 2, "row_padding": 3, "point_padding": 5}])
    @pytest.mark.parametrize(
        ("datatype", "kind", "value"),
        [
            (PointField.UINT8, "u1", 200),
            (PointField.INT16, "i2", -7),
            (PointField.UINT32, "u4", 4_000_000_000),
            (PointField.FLOAT64, "f8", 1.7e9 + 1e-6),
        ],
    )
    def test_values_come_in_their_own_type(self, datatype, kind, value, layout):
        message = cloud([(1.0, 2.0, 3.0, value), (4.0, 5.0, 6.0, 0)], fields=(*XYZ, ("v", datatype)), **layout)
        values = read_field(message, "v")
        assert values.dtype == np.dtype(kind)
        assert values.tolist() == [value, 0]

    def test_a_missing_field_is_named(self):
        with pytest.raises(MessageError, match="no field t; its fields are x, y, z, intensity"):
            read_field(cloud(POINTS), "t")


class TestReadImage:
    @pytest.mark.parametrize("padding", [0, 1, 6, 8])
    @pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
    def test_colours_come_as_rgb(self, encoding, padding):
        rgb = color_picture()
        pixels = rgb if encoding == "rgb8" else rgb[..., ::-1]
        np.testing.assert_array_equal(read_image(image(pixels, encoding, row_padding=padding)), rgb)

    @pytest.mark.parametrize("encoding", ["rgba8", "bgra8"])
    def test_transparency_is_dropped(self, encoding):
        rgb = color_picture()
        pixels = np.dstack([rgb if encoding == "rgba8" else rgb[..., ::-1], np.full(rgb.shape[:2], 9, np.uint8)])
        np.testing.assert_array_equal(read_image(image(pixels, encoding)), rgb)

    def test_grey_becomes_three_equal_channels(self):
        grey = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32).astype(np.uint8)
        np.testing.assert_array_equal(read_image(image(grey, "mono8")), np.dstack([grey] * 3))

    def test_sixteen_bits_are_scaled_to_eight(self):
        grey = np.array([[0, 257 * 10, 65535]], np.uint16)
        np.testing.assert_array_equal(read_image(image(grey, "mono16"))[..., 1], [[0, 10, 255]])

    def test_a_bayer_mosaic_becomes_colour(self):
        mosaic = np.zeros((16, 16), np.uint8)
        mosaic[::2, ::2] = 255  # the red pixels of RGGB
        picture = read_image(image(mosaic, "bayer_rggb8"))
        assert picture.shape == (16, 16, 3)
        np.testing.assert_array_equal(picture[4:12, 4:12, 0], 255)
        assert picture[4:12, 4:12, 1:].max() == 0

    @pytest.mark.parametrize("encoding", ["32FC1", "nonsense", ""])
    def test_what_is_no_picture_is_refused_by_its_encoding(self, encoding):
        with pytest.raises(MessageError, match=f"'{encoding}'"):
            read_image(image(np.zeros((4, 4), np.float32), encoding))

    def test_data_shorter_than_declared_is_refused(self):
        message = image(color_picture(), "rgb8")
        del message.data[-1:]
        with pytest.raises(MessageError, match="24 rows of 96 bytes, but holds 2303"):
            read_image(message)

    def test_an_image_without_pixels_is_refused(self):
        message = image(color_picture(), "rgb8")
        message.height = 0
        with pytest.raises(MessageError, match="0 rows"):
            read_image(message)
        message.height, message.width = 24, 0
        with pytest.raises(MessageError, match="0 columns"):
            read_image(message)

    def test_rows_of_sixteen_bits_may_be_padded_by_one_byte(self):
        grey = np.array([[0, 257 * 10, 65535], [257, 514, 771]], np.uint16)
        np.testing.assert_array_equal(
            read_image(image(grey, "mono16", row_padding=1))[..., 1], [[0, 10, 255], [1, 2, 3]]
        )

    def test_rows_too_short_for_the_width_are_refused(self):
        message = image(color_picture(), "rgb8")
        message.width += 1
        with pytest.raises(MessageError, match="33 columns"):
            read_image(message)


class TestReadCompressedImage:
    def test_colours_come_as_rgb(self):
        rgb = color_picture()
        np.testing.assert_array_equal(read_image(compressed(rgb[..., ::-1])), rgb)

    def test_a_jpeg_is_nearly_the_same(self):
        rgb = np.full((24, 32, 3), (200, 100, 50), np.uint8)
        np.testing.assert_allclose(read_image(compressed(rgb[..., ::-1], "jpg")).astype(int), rgb, atol=3)

    def test_a_grey_jpeg_becomes_three_equal_channels(self):
        grey = np.full((24, 32), 77, np.uint8)
        np.testing.assert_allclose(read_image(compressed(grey, "jpg")).astype(int), 77, atol=1)

    def test_sixteen_bits_are_scaled_to_eight(self):
        grey = np.full((4, 4), 0x7F80, np.uint16)
        np.testing.assert_array_equal(read_image(compressed(grey)), 0x7F)

    def test_transparency_is_dropped(self):
        rgb = color_picture()
        bgra = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA)
        np.testing.assert_array_equal(read_image(compressed(bgra)), rgb)

    def test_a_corrupt_file_is_refused_by_its_format(self):
        message = compressed(color_picture(), "jpg")
        message.data = message.data[20:]
        with pytest.raises(MessageError, match="'jpg' cannot be decoded"):
            read_image(message)

    def test_a_file_that_declares_too_large_a_picture_is_refused(self):
        message = compressed(color_picture())
        message.data[16:24] = array.array("B", struct.pack(">II", 100_000, 100_000))
        message.data[29:33] = array.array("B", struct.pack(">I", zlib.crc32(bytes(message.data[12:29]))))
        with pytest.raises(MessageError, match="'png' cannot be decoded"):
            read_image(message)

    def test_an_empty_file_is_refused(self):
        with pytest.raises(MessageError, match="empty"):
            read_image(CompressedImage(format="jpeg"))


class TestReadCamera:
    def test_raw_pictures_use_k_and_d(self):
        info = camera_info()
        info.d = [0.1, -0.2, 0.0, 0.0, 0.05]
        camera = read_camera(info, rectified=False)
        assert camera.K.tolist() == [[20.0, 0.0, 15.5], [0.0, 20.0, 11.5], [0.0, 0.0, 1.0]]
        assert camera.distortion == (0.1, -0.2, 0.0, 0.0, 0.05)
        assert (camera.width, camera.height) == (32, 24)

    def test_rectified_pictures_use_p_without_distortion(self):
        info = camera_info()
        info.d = [0.1] * 5
        camera = read_camera(info, rectified=True)
        assert camera.K.tolist() == [[40.0, 0.0, 15.0], [0.0, 40.0, 11.0], [0.0, 0.0, 1.0]]
        assert camera.distortion == ()

    @pytest.mark.parametrize(("model", "d"), [("", []), ("", [0.0] * 5), ("rational_polynomial", [0.0] * 8)])
    def test_no_distortion_is_a_pinhole_camera(self, model, d):
        info = camera_info()
        info.distortion_model, info.d = model, d
        assert not any(read_camera(info, rectified=False).distortion)

    @pytest.mark.parametrize(
        ("model", "d"),
        [("rational_polynomial", [0.1, -0.2, 0.0, 0.0, 0.05, 0.3, 0.1, 0.0]), ("equidistant", [0.1, 0.0, 0.0, 0.0])],
    )
    def test_the_distortion_model_comes_with_its_coefficients(self, model, d):
        info = camera_info()
        info.distortion_model, info.d = model, d
        camera = read_camera(info, rectified=False)
        assert (camera.distortion_model, camera.distortion) == (model, tuple(d))

    @pytest.mark.parametrize("model", ["equidistant", "omni"])
    def test_a_rectified_picture_is_a_pinhole_cameras_whatever_the_lens(self, model):
        info = camera_info()
        info.distortion_model, info.d = model, [0.1, 0.0, 0.0, 0.0]
        camera = read_camera(info, rectified=True)
        assert (camera.distortion_model, camera.distortion) == ("plumb_bob", ())

    def test_an_unknown_distortion_model_is_refused_unless_the_picture_is_rectified(self):
        info = camera_info()
        info.distortion_model, info.d = "omni", [0.1, 0.0, 0.0, 0.0]
        with pytest.raises(CalibrationError, match="omni"):
            read_camera(info, rectified=False)

    def test_a_zero_k_is_refused(self):
        with pytest.raises(CalibrationError, match="uncalibrated"):
            read_camera(camera_info(focal=0.0), rectified=False)
        with pytest.raises(CalibrationError, match="P of the CameraInfo is zero"):
            read_camera(camera_info(focal=0.0), rectified=True)

    @pytest.mark.parametrize("rectified", [False, True])
    def test_a_region_of_interest_moves_the_principal_point(self, rectified):
        info = camera_info()
        whole = read_camera(info, rectified=rectified)
        info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 4, 6, 16, 12
        part = read_camera(info, rectified=rectified)
        assert (part.width, part.height) == (16, 12)
        np.testing.assert_array_equal(whole.K - part.K, [[0, 0, 4], [0, 0, 6], [0, 0, 0]])

    def test_a_region_outside_the_picture_is_refused(self):
        info = camera_info()
        info.roi.x_offset, info.roi.width, info.roi.height = 20, 16, 12
        with pytest.raises(CalibrationError, match=r"16x12 at \(20, 0\) is not in the picture of 32x24"):
            read_camera(info, rectified=False)


class TestPictureSize:
    INFO = camera_info()  # 32 x 24

    @pytest.mark.parametrize("size", [(32, 24), (16, 12), (64, 48), (8, 6), (11, 8), (320, 241)])
    def test_a_picture_that_is_scaled_up_to_a_pixel_is_taken(self, size):
        width, height = size
        check_picture_size(self.INFO, np.zeros((height, width, 3), np.uint8))

    @pytest.mark.parametrize("size", [(32, 22), (24, 32), (32, 32), (224, 224)])
    def test_a_picture_that_is_cut_or_squeezed_is_refused(self, size):
        width, height = size
        with pytest.raises(CalibrationError, match=f"picture is {width}x{height}, CameraInfo describes 32x24"):
            check_picture_size(self.INFO, np.zeros((height, width, 3), np.uint8))

    def test_binning_may_differ_in_width_and_height(self):
        info = camera_info()
        info.binning_x, info.binning_y = 4, 2
        check_picture_size(info, np.zeros((12, 8, 3), np.uint8))
        with pytest.raises(CalibrationError, match="8x12"):
            check_picture_size(info, np.zeros((24, 32, 3), np.uint8))

    def test_a_region_of_interest_has_its_own_shape(self):
        info = camera_info()
        info.roi.x_offset, info.roi.width, info.roi.height = 4, 16, 20
        check_picture_size(info, np.zeros((20, 16, 3), np.uint8))
        with pytest.raises(CalibrationError, match="16x20"):
            check_picture_size(info, np.zeros((24, 32, 3), np.uint8))


def test_a_point_is_found_in_a_binned_picture_of_a_region_where_it_is_in_the_whole_picture():
    """A bright pixel of the whole picture, cut and averaged as a camera with region and binning would."""
    info = camera_info(focal=100.0)
    info.width, info.height, info.k[2], info.k[5] = 320, 240, 159.5, 119.5
    whole = np.zeros((240, 320, 3), np.uint8)
    point = torch.tensor([[0.253, -0.117, 1.0]])
    (u, v), _ = (x[0] for x in project(read_camera(info, rectified=False), point))
    whole[round(float(v)) - 1 : round(float(v)) + 3, round(float(u)) : round(float(u)) + 2] = 200
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 40, 20, 240, 160
    info.binning_x, info.binning_y = 2, 4
    picture = whole[20:180, 40:280].reshape(40, 4, 120, 2, 3).mean(axis=(1, 3))
    check_picture_size(info, picture.astype(np.uint8))
    pixels, visible = project(scale_camera(read_camera(info, rectified=False), 120, 40), point)
    column, row = (round(float(x)) for x in pixels[0])
    assert visible[0]
    assert picture[row, column, 0] > 0


class TestWriteCloud:
    CLASSES = load_classes("street6")

    def write(self, message, labels, confidence):
        segmentation = Segmentation(
            np.array(labels, np.uint8), np.array(confidence, np.float32), AdaptationReport(0, "off")
        )
        return write_cloud(message, segmentation, packed_colors(self.CLASSES.palette()))

    def test_points_keep_their_place_and_get_label_confidence_and_colour(self):
        result = self.write(cloud(POINTS), [0, 5, 255, 3], [0.5, 1.0, 0.0, 0.25])
        fields = unpacked(result)
        assert list(fields) == ["x", "y", "z", "rgb", "label", "confidence"]
        xyz = np.array([fields["x"], fields["y"], fields["z"]]).T
        np.testing.assert_array_equal(xyz, np.array(POINTS, np.float32))
        assert fields["label"] == [0, 5, 255, 3]
        assert fields["confidence"] == [0.5, 1.0, 0.0, 0.25]
        colors = [struct.unpack("<I", struct.pack("<f", value))[0] for value in fields["rgb"]]
        expected = [self.CLASSES.colors[0], self.CLASSES.colors[5], (0, 0, 0), self.CLASSES.colors[3]]
        assert colors == [r * 65536 + g * 256 + b for r, g, b in expected]

    def test_header_and_shape_are_the_scans(self):
        message = cloud(POINTS, height=2, row_padding=7, big_endian=True, stamp=1_234_567_890_123, frame_id="roof")
        result = self.write(message, [0] * 4, [1] * 4)
        assert result.header == message.header
        assert (result.height, result.width) == (2, 2)
        assert (result.row_step, len(result.data)) == (2 * result.point_step, 4 * result.point_step)
        assert unpacked(result)["y"] == [2.0, 0.25, math.inf, 8.0]

    @pytest.mark.parametrize(("labels", "dense"), [([0, 1, 2, 3], True), ([0, 1, 255, 3], False)])
    def test_a_cloud_with_invalid_points_is_not_dense(self, labels, dense):
        assert self.write(cloud(POINTS), labels, [1] * 4).is_dense is dense

    def test_an_empty_cloud_stays_empty(self):
        result = self.write(cloud([]), [], [])
        assert (result.width, len(result.data)) == (0, 0)
        assert [field.name for field in result.fields][:3] == ["x", "y", "z"]


def test_a_stamp_is_in_nanoseconds():
    assert stamp_of(cloud(POINTS, stamp=1_700_000_000_123_456_789)) == 1_700_000_000_123_456_789
