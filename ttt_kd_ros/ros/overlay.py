"""A camera's picture with the labels of the points that it shows."""

from __future__ import annotations

import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.geometry.seen import SeenPoints

DOT_SHARE = 400
"""Width of the picture over the width of a point's dot."""


def draw_labels(
    image: NDArray[np.uint8], seen: SeenPoints, labels: NDArray[np.uint8], palette: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Picture with a dot in its class's colour on every labelled point, near ones over far ones.

    Parameters
    ----------
    image
        (H, W, 3) RGB.
    seen
        Which points are where.
    labels
        (N,) of all points of the scan.
    palette
        (256, 3) RGB by label.
    """
    height, width = image.shape[:2]
    drawn = image.copy()
    shown = labels[seen.rows] != IGNORE_LABEL
    columns, rows = seen.pixels[shown].T
    colors = palette[labels[seen.rows[shown]]]
    reach = max(1, width // DOT_SHARE) // 2
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            drawn[(rows + down).clip(0, height - 1), (columns + right).clip(0, width - 1)] = colors
    return drawn


def image_message(header: Header, image: NDArray[np.uint8]) -> Image:
    """Message of a (H, W, 3) RGB picture."""
    height, width = image.shape[:2]
    data = array.array("B", image.tobytes())
    return Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width, data=data)
