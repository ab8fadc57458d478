"""What the name of an image encoding says, and how to get from one encoding to another."""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_bridge.errors import CvBridgeError

DEPTHS = {
    "8U": "uint8",
    "8S": "int8",
    "16U": "uint16",
    "16S": "int16",
    "32S": "int32",
    "32F": "float32",
    "64F": "float64",
}
CHANNELS = {"mono": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
GENERIC = re.compile("(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?")
COLOR = re.compile("(mono|rgba?|bgra?|bayer_(?:rggb|bggr|gbrg|grbg))(8|16)")
YUV = ("yuv422", "yuv422_yuy2")

# OpenCV names a Bayer pattern by its second row, ROS by its first.
OPENCV_NAMES = {
    "mono": "GRAY",
    "bayer_rggb": "BayerBG",
    "bayer_bggr": "BayerRG",
    "bayer_gbrg": "BayerGR",
    "bayer_grbg": "BayerGB",
    "yuv422": "YUV",
    "yuv422_yuy2": "YUV",
}
YUV_LAYOUTS = {"yuv422": "_UYVY", "yuv422_yuy2": "_YUY2"}


@dataclass(frozen=True)
class Encoding:
    """Meaning of an encoding.

    Parameters
    ----------
    name
        The encoding.
    dtype
        Type of one value.
    channels
        Values per pixel.
    family
        Meaning of the channels, as ``rgb`` or ``bayer_rggb``; empty for a generic encoding such as ``8UC3``.
    """

    name: str
    dtype: np.dtype[np.generic]
    channels: int
    family: str = ""

    @property
    def generic_name(self) -> str:
        """Encoding of the same memory layout without a meaning of the channels."""
        depth = next(depth for depth, dtype in DEPTHS.items() if dtype == self.dtype.name)
        return f"{depth}C{self.channels}"


def parse(name: str) -> Encoding:
    """Read the name of an encoding.

    Raises
    ------
    CvBridgeError
        If it is unknown.
    """
    if match := COLOR.fullmatch(name):
        family, bits = match.groups()
        return Encoding(name, np.dtype(f"uint{bits}"), CHANNELS.get(family, 1), family)
    if name in YUV:
        return Encoding(name, np.dtype("uint8"), 2, name)
    if match := GENERIC.fullmatch(name):
        depth, channels = match.groups()
        return Encoding(name, np.dtype(DEPTHS[depth]), int(channels or 1))
    raise CvBridgeError(f"Unrecognized image encoding [{name}]")


def convert(image: NDArray[np.generic], source: str, target: str) -> NDArray[np.generic]:
    """Convert an image between encodings.

    Raises
    ------
    CvBridgeError
        If there is no conversion, or the image does not fit its encoding.
    """
    if source == target:
        return image.copy()
    before, after = parse(source), parse(target)
    if before.family and after.family and before.family != after.family:
        image = _convert_color(image, before, after)
    elif bool(before.family) < bool(after.family):
        raise CvBridgeError(f"[{source}] is not a color format. but [{target}] is. The conversion does not make sense")
    elif before.channels != after.channels:
        raise CvBridgeError(f"[{source}] and [{target}] do not have the same number of channels")
    return _convert_depth(image, before.dtype, after.dtype)


def _convert_color(image: NDArray[np.generic], before: Encoding, after: Encoding) -> NDArray[np.generic]:
    names = (OPENCV_NAMES.get(encoding.family, encoding.family.upper()) for encoding in (before, after))
    code = getattr(cv2, f"COLOR_{'2'.join(names)}{YUV_LAYOUTS.get(before.family, '')}", None)
    if code is None or after.family not in CHANNELS:
        raise CvBridgeError(f"Unsupported conversion from [{before.name}] to [{after.name}]")
    try:
        return cv2.cvtColor(image, code)
    except cv2.error as error:
        raise CvBridgeError(str(error)) from error


def _convert_depth(
    image: NDArray[np.generic], before: np.dtype[np.generic], after: np.dtype[np.generic]
) -> NDArray[np.generic]:
    if before == after:
        return image
    scale = {("uint8", "uint16"): 65535 / 255, ("uint16", "uint8"): 255 / 65535}.get((before.name, after.name), 1.0)
    values = np.asarray(image, np.float64) * scale
    if after.kind == "f":
        return values.astype(after)
    limits = np.iinfo(after.name)
    return np.clip(np.rint(values), limits.min, limits.max).astype(after)
