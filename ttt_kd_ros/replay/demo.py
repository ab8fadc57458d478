"""The demonstration: a simulated drive in another domain, with and without adaptation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.replay.bag import bag_sha256
from ttt_kd_ros.replay.compare import compare, describe
from ttt_kd_ros.replay.convert import convert
from ttt_kd_ros.replay.in_process import replay_in_process
from ttt_kd_ros.replay.report import Run
from ttt_kd_ros.replay.session import replay
from ttt_kd_ros.replay.settings import Plan, ReplaySettings, plan


@dataclass(frozen=True)
class DemoSettings:
    """What is shown.

    Parameters
    ----------
    folder
        A simulated drive.
    checkpoint
        The source model.
    parameters
        Parameters of the node in all runs.
    """

    folder: Path
    checkpoint: str
    parameters: Mapping[str, Any]


def demonstrate(directory: Path, settings: DemoSettings, stage: Callable[[str], None]) -> Path:
    """Play a drive to the node with adaptation off and online, and in this process offline, and compare them.

    Parameters
    ----------
    directory
        Where the bag, ``result.json`` and ``report.html`` are written.
    settings
        What to show.
    stage
        Is told what begins.

    Returns
    -------
    Path
        The report.
    """
    bag = directory / "simulated_drive"
    stage("bag")
    convert(open_folder(settings.folder, load_classes("street6")), bag)
    runs = []
    for mode in ("off", "online"):
        stage(mode)
        what = _plan(bag, settings, mode, directory / mode)
        runs.append(describe(what, replay(what), in_process=False))
    stage("offline")
    what = _plan(bag, settings, "offline", None)
    runs.append(describe(what, replay_in_process(what), in_process=True))
    stage("report")
    report = directory / "report.html"
    compare(report, what, runs)
    _write_result(directory / "result.json", bag, runs)
    return report


def _plan(bag: Path, settings: DemoSettings, mode: str, out: Path | None) -> Plan:
    parameters = {**settings.parameters, "adaptation.mode": mode}
    return plan(bag, ReplaySettings(settings.checkpoint, rate=0.0, parameters=parameters, out=out))


def _write_result(path: Path, bag: Path, runs: list[Run]) -> None:
    content = {
        "runs": {run.name: {**run.result.to_dict(), "how": run.how, "settings": dict(run.parameters)} for run in runs},
        "bag_sha256": bag_sha256(bag),
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
