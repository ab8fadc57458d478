"""Behaviour of cv_bridge that the product counts on, of the original and of the stand-in."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

cv_bridge = pytest.importorskip("cv_bridge")

from cv_bridge import CvBridge, CvBridgeError  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

bridge = CvBridge()

COLOR = (200, 100, 50)
LAYOUTS = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "rgba": [0, 1, 2, 3], "bgra": [2, 1, 0, 3]}
BAYER = {"rggb": "RGGB", "bggr": "BGGR", "gbrg": "GBRG", "grbg": "GRBG"}
GENERIC = {
    "8U": np.uint8,
    "8S": np.int8,
    "16U": np.uint16,
    "16S": np.int16,
    "32S": np.int32,
    "32F": np.float32,
    "64F": np.float64,
}


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """(6, 8, 4) RGBA with different values everywhere; opaque."""
    picture = np.random.default_rng(3).permutation(6 * 8 * 4).reshape(6, 8, 4).astype(np.uint8)
    picture[..., 3] = 255
    return picture


def smooth_picture() -> NDArray[np.uint8]:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([4 * x, 5 * y, 255 - 4 * x], axis=-1).astype(np.uint8)


def message_of(image: NDArray[np.generic], encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """Image message, written without the bridge; `padding` in bytes per row."""
    rows = image.reshape(len(image), -1).astype(image.dtype.newbyteorder(">" if big_endian else "<"))
    message = Image(height=image.shape[0], width=image.shape[1], encoding=encoding, is_bigendian=int(big_endian))
    message.step = rows.strides[0] + padding
    message.data = array.array("B", b"".join(row.tobytes() + b"\xab" * padding for row in rows))
    return message


def compressed(image: NDArray[np.generic], suffix: str) -> CompressedImage:
    message = CompressedImage(format=suffix)
    message.data = array.array("B", cv2.imencode(f".{suffix}", image)[1].tobytes())
    return message


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", GENERIC)
def test_generic_encodings_survive_both_ways(depth, channels):
    image = np.random.default_rng(5).integers(0, 100, (6, 8, channels)).astype(GENERIC[depth]).squeeze()
    message = bridge.cv2_to_imgmsg(image)
    assert message.encoding == f"{depth}C{channels}"
    assert (message.height, message.width, message.step) == (6, 8, 8 * channels * image.itemsize)
    assert bytes(message.data) == image.tobytes()
    found = bridge.imgmsg_to_cv2(message)
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "bayer_rggb8", "mono16", "yuv422"])
def test_passthrough_keeps_the_pixels(encoding, picture):
    channels = {"r": 3, "b": 3, "m": 1, "y": 2}[encoding[0]] + ("a8" in encoding)
    channels = 1 if encoding.startswith("bayer") else channels
    image = picture[..., :channels].squeeze().astype(np.uint16 if encoding.endswith("16") else np.uint8)
    found = bridge.imgmsg_to_cv2(message_of(image, encoding))
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("target", LAYOUTS)
@pytest.mark.parametrize("source", LAYOUTS)
def test_color_encodings_turn_into_each_other(source, target, picture):
    message = message_of(picture[..., LAYOUTS[source]], f"{source}8")
    found = bridge.imgmsg_to_cv2(message, f"{target}8")
    np.testing.assert_array_equal(found, picture[..., LAYOUTS[target]])


@pytest.mark.parametrize("source", LAYOUTS)
def test_color_turns_grey_by_luma(source, picture):
    """ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B."""
    found = bridge.imgmsg_to_cv2(message_of(picture[..., LAYOUTS[source]], f"{source}8"), "mono8")
    assert found.shape == picture.shape[:2]
    np.testing.assert_allclose(found, picture[..., :3] @ [0.299, 0.587, 0.114], atol=0.6)


@pytest.mark.parametrize("target", ["rgb8", "bgr8"])
def test_grey_turns_into_three_equal_channels(target, picture):
    found = bridge.imgmsg_to_cv2(message_of(picture[..., 0], "mono8"), target)
    np.testing.assert_array_equal(found, np.repeat(picture[..., :1], 3, axis=2))


def test_sixteen_bits_scale_to_eight_and_back():
    wide = np.array([[0, 257, 385, 386, 32768, 65535]], np.uint16)
    narrow = bridge.imgmsg_to_cv2(message_of(wide, "mono16"), "mono8")
    assert narrow.tolist() == [[0, 1, 1, 2, 128, 255]]
    assert narrow.dtype == np.uint8
    assert bridge.imgmsg_to_cv2(message_of(narrow, "mono8"), "mono16").tolist() == [[0, 257, 257, 514, 32896, 65535]]
    assert bridge.imgmsg_to_cv2(message_of(wide, "mono16"), "rgb8")[0, :, 1].tolist() == narrow[0].tolist()


@pytest.mark.parametrize(
    ("encoding", "channels"), [("mono8", 1), ("rgb8", 3), ("bgra8", 4), ("mono16", 1), ("32FC1", 1)]
)
def test_padding_of_whole_pixels_is_cut_off(encoding, channels, picture):
    dtype = {"mono16": np.uint16, "32FC1": np.float32}.get(encoding, np.uint8)
    image = picture[..., :channels].squeeze().astype(dtype)
    message = message_of(image, encoding, padding=5 * channels * image.itemsize)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message), image)


@pytest.mark.parametrize(("encoding", "dtype"), [("mono16", np.uint16), ("16UC1", np.uint16), ("32FC1", np.float32)])
def test_big_endian_data_is_read_in_the_order_of_the_machine(encoding, dtype):
    image = np.array([[1, 256, 4660], [0, 65535, 7]]).astype(dtype)
    found = bridge.imgmsg_to_cv2(message_of(image, encoding, big_endian=True))
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("pattern", BAYER)
def test_a_bayer_mosaic_of_one_color_gives_that_color(pattern, depth):
    scale = 1 if depth == 8 else 257
    values = dict(zip("RGB", COLOR, strict=True))
    tile = np.array([values[c] for c in BAYER[pattern]]).reshape(2, 2) * scale
    mosaic = np.tile(tile, (4, 6)).astype(np.uint8 if depth == 8 else np.uint16)
    message = message_of(mosaic, f"bayer_{pattern}{depth}")
    assert np.unique(bridge.imgmsg_to_cv2(message, "rgb8").reshape(-1, 3), axis=0).tolist() == [list(COLOR)]
    assert np.unique(bridge.imgmsg_to_cv2(message, "bgr8").reshape(-1, 3), axis=0).tolist() == [list(COLOR[::-1])]


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "UYVY"), ("yuv422_yuy2", "YUYV")])
def test_yuv_gives_rgb(encoding, order):
    """Pure red in BT.601 with video range."""
    values = {"Y": 82, "U": 90, "V": 240}
    image = np.tile(np.array([values[c] for c in order], np.uint8).reshape(1, 2, 2), (4, 3, 1))
    found = bridge.imgmsg_to_cv2(message_of(image, encoding), "rgb8")
    assert found.shape == (4, 6, 3)
    np.testing.assert_allclose(found, np.broadcast_to([255, 0, 0], found.shape), atol=2)


def test_a_color_picture_may_pass_as_a_generic_one_of_as_many_channels(picture):
    message = message_of(picture[..., :3], "rgb8")
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message, "8UC3"), picture[..., :3])


@pytest.mark.parametrize(("source", "target"), [("8UC3", "rgb8"), ("rgb8", "8UC1"), ("mono8", "bayer_rggb8")])
def test_a_conversion_that_makes_no_sense_is_an_error(source, target, picture):
    image = picture[..., 0] if source == "mono8" else picture[..., :3]
    with pytest.raises(CvBridgeError):
        bridge.imgmsg_to_cv2(message_of(image, source), target)


@pytest.mark.parametrize("encoding", ["", "rgb", "rgb8; png", "8UX3"])
def test_an_unknown_encoding_is_an_error(encoding, picture):
    with pytest.raises(CvBridgeError):
        bridge.imgmsg_to_cv2(message_of(picture, encoding))
    with pytest.raises(CvBridgeError):
        bridge.imgmsg_to_cv2(message_of(picture[..., :3], "rgb8"), encoding)


def test_data_that_is_too_short_is_a_type_error(picture):
    message = message_of(picture, "rgba8")
    message.data = message.data[:-1]
    with pytest.raises(TypeError):
        bridge.imgmsg_to_cv2(message)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3"])
def test_a_message_names_the_encoding_it_was_given(encoding, picture):
    header = Header(frame_id="camera_optical")
    message = bridge.cv2_to_imgmsg(picture[..., :3], encoding, header)
    assert (message.encoding, message.header.frame_id, message.is_bigendian) == (encoding, "camera_optical", 0)
    assert bytes(message.data) == picture[..., :3].tobytes()


@pytest.mark.parametrize("encoding", ["rgba8", "mono8", "16UC3"])
def test_an_array_that_does_not_fit_its_encoding_is_an_error(encoding, picture):
    with pytest.raises(CvBridgeError):
        bridge.cv2_to_imgmsg(picture[..., :3], encoding)


def test_what_is_no_array_is_a_type_error():
    with pytest.raises(TypeError):
        bridge.cv2_to_imgmsg([[1, 2], [3, 4]])
    with pytest.raises(TypeError):
        bridge.cv2_to_compressed_imgmsg([[1, 2], [3, 4]])


def test_the_bridge_error_is_a_type_error():
    assert issubclass(CvBridgeError, TypeError)


def test_a_png_keeps_every_pixel(picture):
    message = bridge.cv2_to_compressed_imgmsg(picture[..., :3], "png")
    assert message.format == "png"
    np.testing.assert_array_equal(bridge.compressed_imgmsg_to_cv2(message), picture[..., :3])


def test_a_jpeg_keeps_the_picture():
    message = bridge.cv2_to_compressed_imgmsg(smooth_picture())
    assert message.format == "jpg"
    error = bridge.compressed_imgmsg_to_cv2(message).astype(float) - smooth_picture()
    assert np.abs(error).mean() < 2.0


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_color_file_is_bgr_unless_asked_otherwise(suffix):
    bgr = np.full((16, 16, 3), COLOR[::-1], np.uint8)
    for encoding, expected in (("passthrough", COLOR[::-1]), ("bgr8", COLOR[::-1]), ("rgb8", COLOR)):
        found = bridge.compressed_imgmsg_to_cv2(compressed(bgr, suffix), encoding)
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=2)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_grey_file_has_two_dimensions_and_is_not_taken_for_mono8(suffix):
    message = compressed(np.full((16, 16), 90, np.uint8), suffix)
    assert bridge.compressed_imgmsg_to_cv2(message).tolist() == [[90] * 16] * 16
    with pytest.raises(CvBridgeError):
        bridge.compressed_imgmsg_to_cv2(message, "mono8")


def test_bytes_that_are_no_picture_give_none_or_an_error():
    message = CompressedImage(format="jpeg", data=array.array("B", b"no picture at all"))
    assert bridge.compressed_imgmsg_to_cv2(message) is None
    with pytest.raises(CvBridgeError):
        bridge.compressed_imgmsg_to_cv2(message, "rgb8")


@pytest.mark.parametrize(
    ("encoding", "layout"),
    [
        ("mono8", ("uint8", 1)),
        ("bgr8", ("uint8", 3)),
        ("rgba16", ("uint16", 4)),
        ("bayer_rggb8", ("uint8", 1)),
        ("yuv422", ("uint8", 2)),
        ("32FC1", ("float32", 1)),
        ("8UC3", ("uint8", 3)),
    ],
)
def test_an_encoding_tells_the_layout_of_a_pixel(encoding: str, layout: tuple[str, int]) -> None:
    assert tuple(bridge.encoding_to_dtype_with_channels(encoding)) == layout


def test_an_unknown_encoding_has_no_layout() -> None:
    with pytest.raises(CvBridgeError):
        bridge.encoding_to_dtype_with_channels("nonsense")
