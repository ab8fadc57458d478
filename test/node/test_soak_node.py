"""Many scans through the node; `make soak` lets it last as long as is promised."""

from __future__ import annotations

from memory import ALLOWED_GROWTH, resident_bytes
from scene import SECOND, camera_info, cloud, color_picture, image
from tiny import Colors, tiny_segmenter

SCANS, FEW_SCANS = 2_000, 48
POINTS = [(5.0 + 0.1 * i, 0.5 * (i % 7) - 1.5, 0.2 * (i % 5)) for i in range(60)]


def test_memory_does_not_grow_with_the_scans(start, pytestconfig):
    scans = SCANS if pytestconfig.getoption("--soak") else FEW_SCANS
    robot = start(
        load=lambda checkpoint, *, settings, **_: tiny_segmenter(Colors(), settings),
        cameras=["front"],
        image_wait_ms=2000.0,
        adaptation__steps=1,
        adaptation__min_pairs=1,
    )
    robot.stand()
    robot.calibrate(camera_info())

    def run(numbers):
        for number in numbers:
            robot.show(image(color_picture(), "rgb8", stamp=number * SECOND // 10))
            robot.answer(cloud(POINTS, stamp=number * SECOND // 10))
            del robot.world.clouds[:], robot.world.reports[:]

    run(range(10, scans // 4))
    before = resident_bytes()
    run(range(scans // 4, scans + 10))
    assert resident_bytes() / before - 1 < ALLOWED_GROWTH
