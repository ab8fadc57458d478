"""The demonstration: a simulated drive in another domain, with and without adaptation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttt_kd_ros.classes import load_label_map
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.data.simulated import Simulated
from ttt_kd_ros.model.checkpoint import load_manifest
from ttt_kd_ros.replay.bag import bag_sha256
from ttt_kd_ros.replay.compare import compare, describe
from ttt_kd_ros.replay.convert import convert
from ttt_kd_ros.replay.in_process import replay_in_process
from ttt_kd_ros.replay.report import Run
from ttt_kd_ros.replay.session import replay
from ttt_kd_ros.replay.settings import Plan, ReplaySettings, plan, settings_without_cameras
from ttt_kd_ros.segmenter import load_segmenter


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


def check(settings: DemoSettings) -> None:
    """See that everything but the drive is there, before it is simulated.

    Raises
    ------
    InputError
        If the node has no such parameter or value of it, the checkpoint or its teacher cannot be loaded, or the labels
        of simulated drives do not go to its classes.
    """
    what = ReplaySettings(settings.checkpoint, parameters={**settings.parameters, "adaptation.mode": "online"})
    segmenter = load_segmenter(**settings_without_cameras(what).loading)
    load_label_map(Simulated.label_map, segmenter.classes)


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
    classes = load_manifest(ReplaySettings(settings.checkpoint).checkpoint_file).network.classes
    convert(open_folder(settings.folder, classes), bag)
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
