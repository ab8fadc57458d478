"""The process that takes gradient steps beside the scans; see `ttt_kd_ros.background`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from multiprocessing.connection import Connection

from ttt_kd_ros.background import Start, Trained
from ttt_kd_ros.device import freeze_memory
from ttt_kd_ros.segmenter import Segmenter, load_segmenter


def main() -> None:
    """Train on the scans that come over the connection with the number of the first argument until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node's to answer
    with Connection(int(sys.argv[1])) as connection, contextlib.suppress(EOFError, ConnectionError):
        _serve(connection)


def _serve(connection: Connection) -> None:
    how = connection.recv()
    threads = how.get("threads") or os.cpu_count() or 1
    segmenter = load_segmenter(**how | {"threads": max(1, threads // 2)})
    freeze_memory()
    number = 0
    while True:
        connection.send("ready")
        start, frame = connection.recv()
        if start is not None:
            _begin(segmenter, start)
            number = start.number
        report = segmenter.segment(frame).adaptation
        connection.send(Trained(number, report, segmenter.weights() if report.steps else None))


def _begin(segmenter: Segmenter, start: Start) -> None:
    segmenter.configure(start.settings)
    segmenter.take(start.weights)


if __name__ == "__main__":
    main()
