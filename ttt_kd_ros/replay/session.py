"""One replay: the bag through the node, its answers into a bag, what came of it into a report."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.replay.bag import BagWriter, open_bag, read
from ttt_kd_ros.replay.discovery import TF, TF_STATIC
from ttt_kd_ros.replay.link import DIAGNOSTICS_TOPIC, REPORT, SEGMENTATION, Arrival, Link
from ttt_kd_ros.replay.messages import DIAGNOSTICS, POINT_CLOUD, stamp_of
from ttt_kd_ros.replay.node_process import NODE_COMMAND, NodeProcess
from ttt_kd_ros.replay.result import NODE_BAG, Result, write_result
from ttt_kd_ros.replay.settings import Plan
from ttt_kd_ros.replay.tally import Tally
from ttt_kd_ros.share import share_directory

START_SECONDS = 120.0
"""How long the node may take to load its models and subscribe."""
ANSWER_SECONDS = 120.0
"""How long a scan's answer is waited for."""
REPORT_SECONDS = 3.0
"""How long the last reports and diagnostics, sent once a second, are waited for."""
POLL_SECONDS = 0.2
"""How often it is looked whether the node still runs."""


def replay(what: Plan, *, node_command: Sequence[str] = NODE_COMMAND) -> Result:
    """Play a bag to the node, run as a process of its own, and report what came of it.

    Parameters
    ----------
    what
        What is replayed; the stamps of the bag are kept.
    node_command
        Program that runs the node.

    Raises
    ------
    InputError
        If the bag cannot be read, or the node ends or does not answer.
    """
    if not what.node_settings.autostart:
        raise InputError(
            "parameter 'autostart' is false, but a replay needs a node that starts by itself; leave it true"
        )
    _set_environment()
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        directory = what.settings.out or Path(enter(tempfile.TemporaryDirectory(prefix="ttt_kd_replay_")))
        directory.mkdir(parents=True, exist_ok=True)
        output = enter(BagWriter(directory / NODE_BAG)) if what.settings.out else None
        name = f"segment_replay_{os.getpid()}"  # tells this node from others that may run
        link = enter(Link(what.layout.topics, name))
        process = enter(NodeProcess(what.parameters, remappings(name), directory / "node.log", node_command))
        tally = Tally(what.classes, name, has_truth=bool(what.layout.ground_truth_topic))
        result = _Session(what, link, process, tally, output).run()
    if what.settings.out:
        how = {"rate": what.settings.rate, "parameters": dict(what.parameters)}
        write_result(what.settings.out, result, what.bag, how)
    return result


def remappings(node_name: str) -> dict[str, str]:
    """The node under a name of its own, with its topics under their usual names."""
    return {"__node": node_name, "~/segmentation": SEGMENTATION, "~/report": REPORT}


@dataclass
class _Session:
    what: Plan
    link: Link
    process: NodeProcess
    tally: Tally
    output: BagWriter | None
    bag_times: dict[int, int] = field(default_factory=dict)
    next_check: float = 0.0

    def run(self) -> Result:
        self._wait_for_node()
        layout, rate = self.what.layout, self.what.settings.rate
        with open_bag(self.what.bag) as reader:
            start = time.monotonic()
            first: int | None = None
            wanted = {*layout.topics, layout.ground_truth_topic}
            for topic, bag_time, data in read(reader, wanted):
                first = bag_time if first is None else first
                if rate:
                    self._receive_until(start + (bag_time - first) / 1e9 / rate)
                elif topic == layout.points_topic:
                    self._wait_for_answers()
                self._send(topic, bag_time, bytes(data))
        self._wait_for_answers()
        self._receive_until(time.monotonic() + REPORT_SECONDS, lambda: self.tally.all_reported)
        self._check_node()
        return replace(self.tally.result(), peak_memory_mib=self.process.peak_memory_mib())

    def _wait_for_node(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        self._receive_until(deadline, lambda: not self.link.missing())
        if missing := self.link.missing():
            raise InputError(
                f"the node is not connected to {', '.join(missing)} after {START_SECONDS:g} s: "
                f"{self.process.last_words()}"
            )

    def _check_node(self) -> None:
        self.process.check()
        if self.link.answering_nodes() > 1:
            raise InputError(
                f"another node publishes {SEGMENTATION}; stop it or set ROS_DOMAIN_ID to another number for the replay"
            )

    def _wait_for_answers(self) -> None:
        if not self._receive_until(time.monotonic() + ANSWER_SECONDS, lambda: self.tally.all_answered):
            self.tally.give_up()

    def _send(self, topic: str, bag_time: int, data: bytes) -> None:
        layout = self.what.layout
        if topic == layout.ground_truth_topic:
            self.tally.truth(data)
            return
        sent = self.link.publish(topic, data)
        if topic == layout.points_topic:
            self.tally.sent(data, sent)
            self.bag_times[stamp_of(data)] = bag_time
        if self.output and topic in (layout.points_topic, TF, TF_STATIC):
            self.output.write_raw(topic, layout.topics[topic], bag_time, data, latched=topic == TF_STATIC)

    def _receive_until(self, deadline: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Take in what the node sends until `done` or the deadline (monotonic [s]); returns whether it is done."""
        while not done():
            now = time.monotonic()
            if now >= self.next_check:
                self._check_node()
                self.next_check = now + POLL_SECONDS
            arrival = self.link.receive(min(deadline - now, POLL_SECONDS))
            if arrival is not None:
                self._take(arrival)
            elif now >= deadline:
                return False
        return True

    def _take(self, arrival: Arrival) -> None:
        if arrival.topic == DIAGNOSTICS_TOPIC:
            self.tally.diagnostics(arrival.data)
            return
        bag_time = self.bag_times.get(stamp_of(arrival.data))
        if bag_time is None:
            return
        if arrival.topic == SEGMENTATION:
            self.tally.segmentation(arrival.data, arrival.time)
        else:
            self.tally.report(arrival.data)
        if self.output:
            kind = POINT_CLOUD if arrival.topic == SEGMENTATION else DIAGNOSTICS
            self.output.write_raw(arrival.topic, kind, bag_time, arrival.data)


def _set_environment() -> None:
    """What both processes need of the middleware, unless the user has chosen otherwise."""
    profile = share_directory() / "config" / "fastdds.xml"
    if profile.is_file():
        os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(profile))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
