"""A bag as frames to go through again and again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.frame import Frame
from ttt_kd_ros.replay.bag import open_bag
from ttt_kd_ros.replay.frames import BagFrames
from ttt_kd_ros.replay.settings import ReplaySettings, plan
from ttt_kd_ros.ros.counts import SCANS, Counts, Snapshot, status

OF_THE_NETWORK = frozenset(
    {"checkpoint", "teacher", "device", "threads", "sparse_backend", "float32_matmul_precision", "teacher_backend"}
)
"""Parameters of the node that say how the network runs."""


class BagStream:
    """Every frame of a bag that the node would not drop, in the bag's order.

    Parameters
    ----------
    bag
        The bag.
    checkpoint
        Whose classes the bag's ground truth must have.
    parameters
        Of the node, as of `ReplaySettings`: those that say how frames are put together.

    Raises
    ------
    InputError
        If one cannot be used, they do not fit each other, or a parameter says how the network runs or adapts.
    DataError
        In the end, if the node would drop every scan.
    """

    def __init__(self, bag: Path, checkpoint: Path, parameters: Mapping[str, Any]) -> None:
        for name in parameters:
            if name.startswith("adaptation.") or name in OF_THE_NETWORK:
                raise InputError(f"--param {name}: says nothing of how a bag is read; leave it out")
        self._plan = plan(bag, ReplaySettings(str(checkpoint), parameters=parameters))

    def __iter__(self) -> Iterator[Frame]:
        counts, usable = Counts(), 0
        with open_bag(self._plan.bag) as reader:
            for _, frame in BagFrames(reader, self._plan.layout, self._plan.node_settings, counts)():
                if frame is not None:
                    usable += 1
                    yield frame
        if not usable:
            causes = status(SCANS, self._plan.layout.points_topic, counts.snapshot(), Snapshot(), Snapshot())
            raise DataError(f"bag '{self._plan.bag}' has no scan that can be used; {causes.message}")
