"""Which pictures show nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ttt_kd_ros.ros.exposure import ExposureError, check_exposure

SHAPE = (120, 160, 3)


def noisy(level, sigma=1.0):
    noise = np.random.default_rng(0).normal(level, sigma, SHAPE)
    return np.clip(noise, 0, 255).astype(np.uint8)


def street(darkness=1.0):
    """Bright sky over dark ground with some texture."""
    picture = noisy(110, 25).astype(float)
    picture[:48] = 230
    return (picture * darkness).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "levels"),
    [
        (np.zeros(SHAPE, np.uint8), "0 to 8"),
        (noisy(0, 3), "0 to 8"),
        (np.full(SHAPE, 16, np.uint8), "8 to 16"),
        (np.full(SHAPE, 255, np.uint8), "247 to 255"),
        (np.full(SHAPE, (0, 135, 0), np.uint8), "71 to 79"),
    ],
    ids=["black", "black with noise", "black of limited range", "white", "the green of a broken stream"],
)
def test_a_picture_of_one_brightness_is_refused_with_its_brightness(picture, levels):
    with pytest.raises(ExposureError, match=f"100% of the pixels have a brightness of {levels} of 255"):
        check_exposure(picture, 0.9)


def test_hot_pixels_show_nothing():
    picture = np.zeros(SHAPE, np.uint8)
    picture.reshape(-1, 3)[::50] = 255
    with pytest.raises(ExposureError, match="0 to 8"):
        check_exposure(picture, 0.9)


def test_a_black_jpeg_is_refused():
    _, encoded = cv2.imencode(".jpg", noisy(2, 2))
    with pytest.raises(ExposureError):
        check_exposure(cv2.imdecode(encoded, cv2.IMREAD_COLOR), 0.9)


@pytest.mark.parametrize("darkness", [1.0, 0.2])
def test_a_street_by_day_and_by_night_is_taken(darkness):
    check_exposure(street(darkness), 0.9)


def test_a_picture_that_is_black_but_for_a_fifth_is_taken():
    picture = np.zeros(SHAPE, np.uint8)
    picture[:24] = street()[60:84]
    check_exposure(picture, 0.9)


def test_with_a_share_of_one_every_picture_is_taken():
    check_exposure(np.zeros(SHAPE, np.uint8), 1.0)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 2, 3), (2, 500, 3)])
def test_tiny_pictures_are_looked_at(shape):
    with pytest.raises(ExposureError):
        check_exposure(np.zeros(shape, np.uint8), 0.9)
