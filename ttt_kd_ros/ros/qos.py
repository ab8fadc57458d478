"""The node's topics: made with overridable quality of service, checked against what is at their other ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from ttt_kd_ros.errors import InputError

QUEUE_DEPTH = 5
STRICT = {"reliability": ReliabilityPolicy.RELIABLE, "durability": DurabilityPolicy.TRANSIENT_LOCAL}
"""What a publisher has to offer if a subscription asks for it."""
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


class Topics:
    """Publishers and subscriptions that come and go together.

    Each one has ROS's parameters ``qos_overrides.<topic>.<publisher or subscription>.<policy>`` for history, depth,
    reliability and durability.

    Parameters
    ----------
    node
        Owner of the publishers and subscriptions.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._outgoing: list[Publisher[Any]] = []
        self._incoming: list[Subscription[Any]] = []

    def advertise(self, kind: type, topic: str) -> Publisher[Any]:
        """Make a publisher; subscribers may be reliable.

        Raises
        ------
        InputError
            If the topic's override is no quality of service.
        """
        make = partial(self._node.create_publisher, kind, topic)
        self._outgoing.append(_with_overrides(topic, make, ReliabilityPolicy.RELIABLE))
        return self._outgoing[-1]

    def subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        """Make a subscription; publishers may be of best effort.

        Raises
        ------
        InputError
            If the topic's override is no quality of service.
        """
        make = partial(self._node.create_subscription, kind, topic, callback)
        self._incoming.append(_with_overrides(topic, make, ReliabilityPolicy.BEST_EFFORT))

    def close(self) -> None:
        """End all publishers and subscriptions."""
        while self._outgoing:
            self._node.destroy_publisher(self._outgoing.pop())
        while self._incoming:
            self._node.destroy_subscription(self._incoming.pop())

    def mismatches(self) -> list[str]:
        """Which publishers and subscriptions of other nodes cannot talk with these, and how to mend it."""
        return [*self._unheard_publishers(), *self._unserved_subscriptions()]

    def _unheard_publishers(self) -> Iterator[str]:
        for ours in self._incoming:
            topic = ours.topic_name
            for theirs in self._node.get_publishers_info_by_topic(topic):
                for policy, offered, asked in _conflicts(theirs.qos_profile, ours.qos_profile):
                    yield (
                        f"{topic}: publisher {_name(theirs)} offers {offered}, but the subscription asks for {asked}; "
                        f"set qos_overrides.{topic}.subscription.{policy} to {offered.lower()}"
                    )

    def _unserved_subscriptions(self) -> Iterator[str]:
        for ours in self._outgoing:
            topic = ours.topic_name
            for theirs in self._node.get_subscriptions_info_by_topic(topic):
                for policy, offered, asked in _conflicts(ours.qos_profile, theirs.qos_profile):
                    yield (
                        f"{topic}: subscription {_name(theirs)} asks for {asked}, but the publisher offers {offered}; "
                        f"set qos_overrides.{topic}.publisher.{policy} to {asked.lower()}"
                    )


def _with_overrides(topic: str, make: Callable[..., Any], reliability: ReliabilityPolicy) -> Any:
    profile = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=QUEUE_DEPTH, reliability=reliability)
    try:
        return make(profile, qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))
    except (RuntimeError, ParameterException) as error:
        raise InputError(f"qos_overrides of topic {topic} cannot be used: {error}") from error


def _conflicts(offered: QoSProfile, asked: QoSProfile) -> Iterator[tuple[str, str, str]]:
    """Policy, what is offered and what is asked for, of each policy that keeps two ends apart."""
    if qos_check_compatible(offered, asked)[0] != QoSCompatibility.ERROR:
        return
    for policy, strict in STRICT.items():
        offer, wish = getattr(offered, policy), getattr(asked, policy)
        if wish == strict != offer:
            yield policy, offer.name, wish.name


def _name(endpoint: TopicEndpointInfo) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"
