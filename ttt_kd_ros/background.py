"""Training on the latest scan in a process beside.

Two pools of OpenMP threads in one process slow each other down, and so do two threads that wait for Python's lock. A
process of low priority takes the time that labelling leaves over.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.frame import AdaptationReport, Frame
from ttt_kd_ros.segmenter import Weights

DIED = "trainer died"
LOWEST_PRIORITY = ("nice", "-n", "19")
"""From the first moment: while the process loads torch at the usual priority, labelling takes twice as long."""
END_S = 0.5
"""How long the end of the process is waited for: one of low priority may need a while to be gone."""
RESTART_S = 1.0
"""How long after the end of a process the next one is started, so that a fault costs little."""


@dataclass(frozen=True)
class Start:
    """Where training begins anew: settings and weights; scans of an older start are of no use any more."""

    number: int
    settings: AdaptationSettings
    weights: Weights


@dataclass(frozen=True)
class Trained:
    """What training on one scan came to; no weights if it took no step or the process died."""

    start: int
    report: AdaptationReport
    weights: Weights | None


class Trainer:
    """Trains on the latest scan in a process of its own, which is started again if it dies.

    Parameters
    ----------
    how
        Arguments of `load_segmenter`.
    """

    def __init__(self, how: Mapping[str, Any]) -> None:
        self._how = dict(how)
        self._waiting: tuple[Start, Frame] | None = None
        self._trained: Trained | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0
        self._thread = threading.Thread(target=self._serve, name="trainer", daemon=True)
        self._thread.start()

    def offer(self, start: Start, frame: Frame) -> bool:
        """Let a scan wait for training; returns whether it took the place of one that waited."""
        with self._changed:
            replaced = self._waiting is not None
            self._waiting = start, frame
            self._changed.notify_all()
        return replaced

    def take(self) -> Trained | None:
        """What came of the latest scan trained on, once."""
        with self._changed:
            trained, self._trained = self._trained, None
        return trained

    def stop(self) -> None:
        """Let the process end, in a step too."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the process and wait for its end."""
        self.stop()
        self._thread.join(END_S)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)

    def _serve(self) -> None:
        while not self._closed:
            ours, theirs = Pipe()
            with ours, theirs:
                self._begun = 0
                try:
                    self._start_process(theirs)
                    theirs.close()
                    ours.send(self._how)
                    while self._train(ours):
                        pass
                except (EOFError, OSError):
                    self._mourn()

    def _mourn(self) -> None:
        """Tell that the process is gone, and wait a little before the next one."""
        with self._changed:
            self._trained = Trained(0, AdaptationReport(0, DIED), None)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, RESTART_S)

    def _start_process(self, theirs: Connection) -> None:
        with self._changed:
            if not self._closed:
                command = [*LOWEST_PRIORITY, sys.executable, "-m", "ttt_kd_ros.trainer", str(theirs.fileno())]
                self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def _train(self, connection: Connection) -> bool:
        """Have one scan trained on; false once there is no more to do."""
        connection.recv()  # ready for a scan
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting is not None)
            job, self._waiting = self._waiting, None
        if self._closed or job is None:
            return False
        start, frame = job
        connection.send((None if start.number == self._begun else start, frame))  # to pickle weights takes milliseconds
        self._begun = start.number
        trained = connection.recv()
        with self._changed:
            self._trained = trained
            self._changed.notify_all()
        return True
