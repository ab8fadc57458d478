"""Many scans through the segmenter; `make soak` lets it last as long as is promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from memory import ALLOWED_GROWTH, resident_bytes
from stripes import StripesTeacher, camera_view

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.model.sparse_backend import use_sparse_backend
from ttt_kd_ros.schedule import ScheduledSegmenter
from ttt_kd_ros.segmenter import Segmenter

SCANS, FEW_SCANS = 36_000, 24


@pytest.fixture(autouse=True)
def fastest_backend(network, torch_computes_sparse_convolutions):
    use_sparse_backend("auto", network)


def test_memory_does_not_grow_with_the_scans(network, street_points, pytestconfig):
    scans = SCANS if pytestconfig.getoption("--soak") else FEW_SCANS
    settings = AdaptationSettings(steps=1, learning_rate=1e-4, min_pairs=1)
    segmenter = ScheduledSegmenter(Segmenter(network, StripesTeacher(), settings), {})
    view = camera_view()
    frame = Frame(Scan(street_points[::40].numpy(), np.eye(4)), (replace(view, image=view.image[::4, ::4].copy()),))

    def run(numbers):
        for number in numbers:
            scan = replace(frame.scan, stamp=number * 100_000_000)
            answer = segmenter.segment(replace(frame, scan=scan))
            assert np.isfinite(answer.confidence).all()

    run(range(1, scans // 4))
    before = resident_bytes()
    run(range(scans // 4, scans + 1))
    assert resident_bytes() / before - 1 < ALLOWED_GROWTH
