"""The node as a process of its own."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from ttt_kd_ros.errors import InputError

NODE_COMMAND = (sys.executable, "-m", "ttt_kd_ros.ros.segment_node")
_PROGRAM = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):  # else it has ended already
    os.execvp(sys.argv[2], sys.argv[2:])
"""
STOP_SECONDS = 10
LAST_LINES = 3


def tied(command: Sequence[str]) -> Sequence[str]:
    """A command that Linux ends with this process, however that ends."""
    return (sys.executable, "-c", _PROGRAM, str(os.getpid()), *command) if sys.platform == "linux" else command


class NodeProcess:
    """Runs a node while the context is entered; on Linux it ends with this process, even if that is killed.

    Parameters
    ----------
    parameters
        Parameters of the node.
    remappings
        Other names for the node and its topics.
    log
        File that receives what the node writes to stdout and stderr.
    command
        Program that runs the node; it gets ``--ros-args`` with a parameter file.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        remappings: Mapping[str, str],
        log: Path,
        command: Sequence[str] = NODE_COMMAND,
    ) -> None:
        self._parameters = parameters
        self._remappings = remappings
        self._log = log
        self._command = command

    def __enter__(self) -> NodeProcess:
        self._directory = tempfile.TemporaryDirectory(prefix="ttt_kd_replay_")
        file = Path(self._directory.name) / "parameters.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(self._parameters)}}))
        arguments = ["--ros-args", "--params-file", str(file)]
        for name, other in self._remappings.items():
            arguments += ["--remap", f"{name}:={other}"]
        with self._log.open("wb") as log:
            command = tied([*self._command, *arguments])
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()

    def check(self) -> None:
        """Raise if the node has ended.

        Raises
        ------
        InputError
            With its exit code and its last words.
        """
        code = self._process.poll()
        if code is not None:
            raise InputError(f"the node ended with exit code {code}: {self.last_words()}")

    def peak_memory_mib(self) -> float:
        """Most memory that the node has held so far [MiB], without processes of its own; NaN except on Linux."""
        status = Path(f"/proc/{self._process.pid}/status")
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.is_file() else None
        return int(found[1]) / 1024 if found else math.nan

    def last_words(self) -> str:
        """The last lines that the node wrote, as one line."""
        lines = self._log.read_text(errors="replace").split("\n")
        return " | ".join([line.strip() for line in lines if line.strip()][-LAST_LINES:]) or "it wrote nothing"
