"""Quality of service: overridden by topic, and told where two ends cannot talk with each other."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from scene import cloud, unpacked
from sensor_msgs.msg import PointCloud2

POINTS = [(float(i), 2.0 * i, -2.0) for i in range(8)]
OVERRIDE = "qos_overrides./points.subscription.reliability"


def qos_state(robot, level: bytes) -> DiagnosticStatus:
    def reached() -> bool:
        state = robot.world.states.get("segment: qos")
        return state is not None and state.level == level

    robot.world.wait_until(reached)
    return robot.world.states["segment: qos"]


def test_ends_that_fit_are_well(start):
    assert qos_state(start(), DiagnosticStatus.OK).message == "publishers and subscriptions fit each other"


@pytest.mark.fault("publisher with another quality of service", "topic, node and mend are named")
def test_a_publisher_that_offers_too_little_is_named_with_the_mend(start):
    robot = start(autostart=False, **{OVERRIDE: "reliable"})
    assert robot.world.transition("configure")
    assert robot.world.transition("activate")
    assert qos_state(robot, DiagnosticStatus.WARN).message == (
        "/points: publisher /surroundings offers BEST_EFFORT, but the subscription asks for RELIABLE; "
        "set qos_overrides./points.subscription.reliability to best_effort"
    )
    robot.world.destroy_publisher(robot.world.points)
    qos_state(robot, DiagnosticStatus.OK)


@pytest.mark.fault("subscriber with another quality of service", "topic, node and mend are named")
def test_a_subscriber_that_asks_for_too_much_is_named_with_the_mend(start):
    robot = start()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.world.create_subscription(PointCloud2, "segment/segmentation", lambda _: None, latched)
    assert qos_state(robot, DiagnosticStatus.WARN).message == (
        "/segment/segmentation: subscription /surroundings asks for TRANSIENT_LOCAL, but the publisher offers "
        "VOLATILE; set qos_overrides./segment/segmentation.publisher.durability to transient_local"
    )


def test_an_override_makes_a_publisher_serve_late_subscribers(start):
    robot = start(**{"qos_overrides./segment/segmentation.publisher.durability": "transient_local"})
    robot.stand()
    robot.answer(cloud(POINTS))
    received = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)
    robot.world.create_subscription(PointCloud2, "segment/segmentation", received.append, latched)
    robot.world.wait_until(lambda: received)
    assert len(unpacked(received[0])["label"]) == len(POINTS)


def test_one_topic_s_override_leaves_the_others_alone(start):
    robot = start(**{"qos_overrides./segment/report.publisher.depth": 1})
    assert robot.node.get_parameter("qos_overrides./segment/segmentation.publisher.depth").value == 5
    assert robot.node.get_parameter("qos_overrides./points.subscription.reliability").value == "best_effort"
