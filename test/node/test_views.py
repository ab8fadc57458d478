"""What is there to look at: overlays, the legend, and the scan's own fields."""

from __future__ import annotations

import numpy as np
import pytest
from scene import CAMERA_FRAME, SECOND, XYZI, camera_info, cloud, color_picture, image, unpacked
from sensor_msgs.msg import Image, PointField
from visualization_msgs.msg import Marker, MarkerArray

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.ros.pass_through import with_fields_of

CLASSES = load_classes("street6")
AHEAD = [(10.0, 0.0, 0.0), (10.0, 2.0, 1.0), (-10.0, 0.0, 0.0)]
"""In the middle of the camera's picture, in its upper left, and behind the camera."""


@pytest.fixture
def robot(start):
    robot = start(cameras=["front"])
    robot.stand()
    robot.calibrate(camera_info())
    robot.show(image(color_picture(), "rgb8"))
    return robot


def subscribe(robot, kind, topic):
    """What arrives on a topic from now on."""
    received = []
    subscription = robot.world.create_subscription(kind, topic, received.append, 10)
    publishers = {publisher.topic_name: publisher for publisher in robot.node.publishers}
    robot.world.wait_until(lambda: publishers[subscription.topic_name].get_subscription_count())
    return received


class TestOverlay:
    def test_each_point_has_its_class_color_where_the_picture_shows_it(self, robot):
        received = subscribe(robot, Image, "/segment/overlay/front")
        robot.answer(cloud(AHEAD))
        robot.world.wait_until(lambda: received)
        pixels = np.array(received[0].data, np.uint8).reshape(24, 32, 3)
        expected = color_picture()
        expected[12, 16] = CLASSES.colors[0]
        expected[10, 12] = CLASSES.colors[1]
        np.testing.assert_array_equal(pixels, expected)
        assert (received[0].header.frame_id, received[0].encoding) == (CAMERA_FRAME, "rgb8")

    def test_it_is_drawn_only_for_someone(self, robot, monkeypatch):
        monkeypatch.setattr("ttt_kd_ros.ros.outputs.draw_labels", None)
        robot.answer(cloud(AHEAD))
        assert len(robot.segmenter.frames[0].views) == 1

    def test_a_failure_costs_the_overlay_alone(self, robot, monkeypatch):
        subscribe(robot, Image, "/segment/overlay/front")
        monkeypatch.setattr("ttt_kd_ros.ros.outputs.draw_labels", lambda *_: int("no number"))
        for stamp in (1, 2):
            robot.answer(cloud(AHEAD, stamp=stamp * SECOND))

    def test_points_that_are_no_numbers_are_not_drawn(self, robot):
        received = subscribe(robot, Image, "/segment/overlay/front")
        robot.answer(cloud([(float("nan"),) * 3, *AHEAD[:1]]))
        robot.world.wait_until(lambda: received)
        assert (np.array(received[0].data, np.uint8).reshape(24, 32, 3) != color_picture()).any(axis=2).sum() == 1


def test_the_legend_names_each_class_in_its_color(start):
    robot = start()
    received = subscribe(robot, MarkerArray, "/segment/legend")
    robot.world.wait_until(lambda: received)
    markers = received[0].markers
    assert [marker.text for marker in markers] == list(CLASSES.names)
    assert {marker.type for marker in markers} == {Marker.TEXT_VIEW_FACING}
    assert {marker.header.frame_id for marker in markers} == {"base_link"}
    colors = [tuple(round(255 * c) for c in (m.color.r, m.color.g, m.color.b)) for m in markers]
    assert colors == list(CLASSES.colors)


RICH = (*XYZI, ("ring", PointField.UINT8), ("time", PointField.FLOAT64))


class TestPassThrough:
    @pytest.mark.parametrize(
        "layout",
        [{}, {"big_endian": True}, {"height": 2, "row_padding": 8}, {"point_padding": 5}],
        ids=["plain", "big-endian", "padded rows", "padded points"],
    )
    def test_the_scans_other_fields_follow_the_labels(self, start, layout):
        robot = start(pass_fields=True)
        robot.stand()
        points = [(float(i), 1.0, 0.0, 0.5 * i, i, 1e9 + 0.1 * i) for i in range(8)]
        scan = cloud(points, fields=RICH, **layout)
        answer = robot.answer(scan)
        names = ["x", "y", "z", "rgb", "label", "confidence", "intensity", "ring", "time"]
        assert [field.name for field in answer.fields] == names
        fields = unpacked(answer)
        assert fields["label"] == [0, 1, 2, 3, 4, 5, 0, 1]
        assert list(zip(*(fields[name] for name in ("x", "y", "z", *names[6:])), strict=True)) == points
        assert (answer.height, answer.width, answer.header) == (scan.height, scan.width, scan.header)

    def test_it_can_be_switched_on_while_the_node_runs(self, start):
        robot = start()
        robot.stand()
        assert "intensity" not in unpacked(robot.answer(cloud(AHEAD)))
        assert robot.world.set_parameters(pass_fields=True).successful
        assert "intensity" in unpacked(robot.answer(cloud(AHEAD)))

    def test_labels_that_the_scan_has_already_do_not_replace_the_nodes(self, start):
        robot = start(pass_fields=True)
        robot.stand()
        scan = cloud([(*AHEAD[0], 77)], fields=(*XYZI[:3], ("label", PointField.UINT8)))
        assert unpacked(robot.answer(scan))["label"] == [0]

    def test_a_field_beyond_the_point_is_left_out(self):
        scan, answer = cloud(AHEAD), cloud(AHEAD, fields=XYZI[:3])
        scan.fields[3].offset = 14
        assert with_fields_of(scan, answer) is answer

    def test_of_fields_of_one_name_the_first_is_handed_on(self):
        fields = (*XYZI[:3], ("_", PointField.UINT8), ("ring", PointField.UINT32), ("_", PointField.UINT8))
        scan, answer = cloud([(*AHEAD[0][:3], 7, 300, 8)], fields=fields), cloud([AHEAD[0][:3]], fields=XYZI[:3])
        wider = with_fields_of(scan, answer)
        assert [field.name for field in wider.fields] == ["x", "y", "z", "_", "ring"]
        assert (unpacked(wider)["_"], unpacked(wider)["ring"]) == ([7], [300])

    def test_an_empty_cloud_stays_as_it_is(self):
        scan, answer = cloud([]), cloud([], fields=XYZI[:3])
        assert with_fields_of(scan, answer) is answer
