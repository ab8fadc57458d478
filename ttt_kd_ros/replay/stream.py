"""A bag as frames to go through again and again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ttt_kd_ros.frame import Frame
from ttt_kd_ros.replay.bag import open_bag
from ttt_kd_ros.replay.frames import BagFrames
from ttt_kd_ros.replay.settings import ReplaySettings, plan
from ttt_kd_ros.ros.counts import Counts


class BagStream:
    """Every frame of a bag that the node would not drop, in the bag's order.

    Parameters
    ----------
    bag
        The bag.
    checkpoint
        Whose classes the bag's ground truth must have.

    Raises
    ------
    InputError
        If one cannot be used or they do not fit each other.
    """

    def __init__(self, bag: Path, checkpoint: Path) -> None:
        self._plan = plan(bag, ReplaySettings(str(checkpoint)))

    def __iter__(self) -> Iterator[Frame]:
        with open_bag(self._plan.bag) as reader:
            frames = BagFrames(reader, self._plan.layout, self._plan.node_settings, Counts())
            yield from (frame for _, frame in frames() if frame is not None)
