"""Pictures that show nothing: black, blown out or covered."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.errors import InputError

STEP = 4
LEVELS = 9


class ExposureError(InputError):
    """A picture that shows nothing."""


def check_exposure(image: NDArray[np.uint8], max_plain_share: float) -> None:
    """Refuse a picture whose pixels nearly all have the same brightness.

    Ordinary pictures have up to 20 % of their pixels within any nine of the 256 levels, pictures at night up to 40 %;
    a black one has 99 % there even with noise, hot pixels or a black level above 0.

    Parameters
    ----------
    image
        (H, W, 3) uint8, RGB; every fourth pixel of every fourth row is looked at.
    max_plain_share
        Largest allowed share of pixels within nine levels.

    Raises
    ------
    ExposureError
        If more are; the message says how bright they are.
    """
    brightness = cv2.cvtColor(image[::STEP], cv2.COLOR_RGB2GRAY)[:, ::STEP]
    histogram = np.bincount(brightness.ravel(), minlength=256)
    within = np.convolve(histogram, np.ones(LEVELS, np.int64), mode="valid")
    darkest = int(within.argmax())
    share = within[darkest] / brightness.size
    if share > max_plain_share:
        raise ExposureError(
            f"{share:.0%} of the pixels have a brightness of {darkest} to {darkest + LEVELS - 1} of 255"
        )
