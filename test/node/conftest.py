"""Starts and ends what the tests of the node need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from robot import Robot, Spinning, Surroundings


@pytest.fixture
def start(ros: None) -> Iterator[Callable[..., Robot]]:
    """Start the node with parameters (`__` stands for a dot) and its surroundings."""
    robots: list[Robot] = []

    def start_robot(**parameters: Any) -> Robot:
        robots.append(Robot(**parameters))
        return robots[-1]

    yield start_robot
    for robot in robots:
        robot.close()


@pytest.fixture
def world(ros: None) -> Iterator[Surroundings]:
    """The surroundings alone, for a node in a process of its own."""
    node = Surroundings()
    spinning = Spinning(node)
    yield node
    spinning.stop()
    node.destroy_node()
