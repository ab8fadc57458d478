"""Image messages to arrays and back."""

from __future__ import annotations

import sys

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from cv_bridge.encodings import DEPTHS, convert, parse
from cv_bridge.errors import CvBridgeError

__all__ = ["CvBridge", "CvBridgeError"]

DEPTH_NAMES = {dtype: depth for depth, dtype in DEPTHS.items()}


class CvBridge:
    """Converts between messages and OpenCV's images: (H, W) or (H, W, channels) arrays."""

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """Name of the type of one value, and values per pixel.

        Raises
        ------
        CvBridgeError
            If the encoding is unknown.
        """
        parsed = parse(encoding)
        return parsed.dtype.name, parsed.channels

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> NDArray[np.generic]:
        """Array of an image; ``passthrough`` keeps its encoding and, where rows have no padding, its memory.

        As with the original, padding must be a whole number of pixels: other rows come out sheared.

        Raises
        ------
        CvBridgeError
            If the encoding is unknown or there is no conversion to the desired one.
        TypeError
            If the data is shorter than height x step.
        """
        encoding = parse(img_msg.encoding)
        dtype = encoding.dtype.newbyteorder(">" if img_msg.is_bigendian else "<")
        stride = img_msg.step // (dtype.itemsize * encoding.channels)
        channels = () if encoding.channels == 1 else (encoding.channels,)
        rows = np.ndarray((img_msg.height, stride, *channels), dtype, img_msg.data)
        image = np.ascontiguousarray(rows[:, : img_msg.width])
        image = image.astype(encoding.dtype, copy=False)
        if desired_encoding == "passthrough":
            return image
        return convert(image, img_msg.encoding, desired_encoding)

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> NDArray[np.generic] | None:
        """Array of a JPEG, PNG or other file; ``passthrough`` gives OpenCV's BGR, BGRA or grey.

        As with the original, data that is no picture gives None, and a grey picture is taken for ``bgr8`` when it is
        converted, which fails or not with the version of OpenCV: read it with ``passthrough``.

        Raises
        ------
        CvBridgeError
            If there is no picture to convert, or no conversion from ``bgr8`` to the desired encoding.
        """
        data = np.frombuffer(cmprs_img_msg.data, np.uint8)
        image: NDArray[np.generic] | None = cv2.imdecode(data[None], cv2.IMREAD_UNCHANGED)
        if desired_encoding == "passthrough":
            return image
        if image is None:
            raise CvBridgeError("the data is no picture")
        return convert(image, "bgr8", desired_encoding)

    def cv2_to_imgmsg(
        self, cvim: NDArray[np.generic], encoding: str = "passthrough", header: Header | None = None
    ) -> Image:
        """Message of an array; ``passthrough`` names only its memory layout, as ``8UC3``.

        Raises
        ------
        CvBridgeError
            If the array does not fit the encoding.
        TypeError
            If it is no array.
        """
        _check_array(cvim)
        channels = 1 if cvim.ndim < 3 else cvim.shape[2]
        layout = f"{DEPTH_NAMES[cvim.dtype.name]}C{channels}"
        if encoding != "passthrough" and parse(encoding).generic_name != layout:
            raise CvBridgeError(f"encoding specified as {encoding}, but image has incompatible type {layout}")
        message = Image(height=cvim.shape[0], width=cvim.shape[1])
        message.encoding = layout if encoding == "passthrough" else encoding
        message.is_bigendian = int(cvim.dtype.newbyteorder("=").str != cvim.dtype.str and sys.byteorder == "little")
        message.data.frombytes(cvim.tobytes())
        message.step = len(message.data) // message.height
        if header is not None:
            message.header = header
        return message

    def cv2_to_compressed_imgmsg(self, cvim: NDArray[np.generic], dst_format: str = "jpg") -> CompressedImage:
        """Message with an array as a file of the given format.

        Raises
        ------
        TypeError
            If it is no array.
        cv2.error
            If OpenCV cannot write the format.
        """
        _check_array(cvim)
        message = CompressedImage(format=dst_format)
        message.data.frombytes(cv2.imencode(f".{dst_format}", cvim)[1].tobytes())
        return message


def _check_array(image: object) -> None:
    if not isinstance(image, np.ndarray):
        raise TypeError("Your input type is not a numpy array")
